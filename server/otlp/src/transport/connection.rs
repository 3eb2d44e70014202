//! Opens connections on World's network: name, socket, TLS, HTTP.

use std::fmt;
use std::future::Future;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use ferrite_io::Network;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::settings::Protocol;
use super::target::Target;
use super::tls;

/// Runs a task on the thread that exports, as World's `spawn`.
pub type Spawn = Rc<dyn Fn(LocalBoxFuture<'static, ()>)>;

pub(super) type HttpSender = http1::SendRequest<Full<Bytes>>;
pub(super) type GrpcSender = http2::SendRequest<tonic::body::Body>;

/// No answer came, or no whole one: the connection cannot be used any more. Without the error that it was made of, which
/// tonic would look into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken(pub(super) String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

impl Broken {
    /// With everything that an error tells of its causes.
    pub(super) fn of(what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = format!("{what}: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        Self(text)
    }
}

pub(super) struct Connector<N> {
    network: N,
    spawn: Spawn,
    host: String,
    port: u16,
    tls: Option<tls::Connector>,
    protocol: Protocol,
}

impl<N: Network> Connector<N> {
    pub(super) fn new(
        network: N,
        spawn: Spawn,
        target: &Target,
        tls: Option<tls::Connector>,
        protocol: Protocol,
    ) -> Self {
        Self { network, spawn, host: target.host.clone(), port: target.port, tls, protocol }
    }

    pub(super) async fn http(&self) -> Result<HttpSender, Broken> {
        debug_assert_eq!(self.protocol, Protocol::Http);
        let socket = self.socket().await?;
        match &self.tls {
            None => self.over_http(socket).await,
            Some(tls) => self.over_http(self.secured(tls, socket).await?).await,
        }
    }

    pub(super) async fn grpc(&self) -> Result<GrpcSender, Broken> {
        debug_assert_eq!(self.protocol, Protocol::Grpc);
        let socket = self.socket().await?;
        match &self.tls {
            None => self.over_http2(socket).await,
            Some(tls) => self.over_http2(self.secured(tls, socket).await?).await,
        }
    }

    async fn socket(&self) -> Result<N::Stream, Broken> {
        let (host, port) = (&self.host, self.port);
        let addresses = self.network.resolve(host, port).await;
        let mut failure = match addresses {
            Err(error) => return Err(Broken::of(&format!("the host \"{host}\" is not found"), &error)),
            Ok(addresses) => {
                let mut last = io::Error::from(io::ErrorKind::NotFound);
                for address in addresses {
                    match self.network.connect(address).await {
                        Ok(stream) => return Ok(stream),
                        Err(error) => last = error,
                    }
                }
                last
            }
        };
        if failure.raw_os_error().is_none() {
            failure = io::Error::from(failure.kind());
        }
        Err(Broken::of(&format!("no connection to {host}:{port}"), &failure))
    }

    #[cfg(feature = "tls")]
    async fn secured(&self, tls: &tls::Connector, socket: N::Stream) -> Result<impl Socket + use<N>, Broken> {
        let name = rustls::pki_types::ServerName::try_from(self.host.clone())
            .map_err(|error| Broken::of("TLS cannot be asked for that host", &error))?;
        tls.connect(name, socket).await.map_err(|error| Broken::of("TLS failed", &error))
    }

    #[cfg(not(feature = "tls"))]
    async fn secured(&self, tls: &tls::Connector, _: N::Stream) -> Result<N::Stream, Broken> {
        match *tls {}
    }

    async fn over_http(&self, socket: impl Socket) -> Result<HttpSender, Broken> {
        let opened = http1::handshake(TokioIo::new(socket)).await;
        let (sender, connection) = opened.map_err(|error| Broken::of("HTTP failed", &error))?;
        // Whatever ends it, the sender hears of it.
        (self.spawn)(connection.map(drop).boxed_local());
        Ok(sender)
    }

    async fn over_http2(&self, socket: impl Socket) -> Result<GrpcSender, Broken> {
        let opened = http2::handshake(OnWorker(self.spawn.clone()), TokioIo::new(socket)).await;
        let (sender, connection) = opened.map_err(|error| Broken::of("HTTP/2 failed", &error))?;
        (self.spawn)(connection.map(drop).boxed_local());
        Ok(sender)
    }
}

/// What HTTP runs on.
trait Socket: AsyncRead + AsyncWrite + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Socket for S {}

/// Runs what HTTP/2 does beside the requests.
#[derive(Clone)]
struct OnWorker(Spawn);

impl<F: Future + 'static> hyper::rt::Executor<F> for OnWorker {
    fn execute(&self, task: F) {
        (self.0)(task.map(drop).boxed_local());
    }
}
