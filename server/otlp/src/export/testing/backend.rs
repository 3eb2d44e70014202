//! A backend on a real socket, over gRPC or HTTP, with TLS or without, that answers as it is told.

use std::convert::Infallible;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use ferrite_io::{Listener, Network, Stream};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::ResourceLogs;
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use parking_lot::Mutex;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};

use super::destination;
use crate::transport::{Destination, Endpoint, Protocol, Signal};

/// What a [`Backend`] got.
#[derive(Clone, Default)]
pub struct Received {
    pub spans: Vec<ResourceSpans>,
    pub metrics: Vec<ResourceMetrics>,
    pub logs: Vec<ResourceLogs>,
    /// Of the last request.
    pub path: String,
    pub authorization: Option<String>,
    /// Whether its body was compressed.
    pub gzip: bool,
    pub requests: usize,
    /// Connections that were accepted and, where it is asked for, passed TLS.
    pub connections: usize,
}

/// What it says to a request.
#[derive(Clone)]
pub struct Reply {
    /// 200 over gRPC, mostly.
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    /// The message, or over HTTP the body.
    pub body: Vec<u8>,
    /// Over gRPC.
    pub trailers: Vec<(&'static str, String)>,
    /// Whether it takes what came.
    pub keeps: bool,
}

impl Reply {
    pub fn accepting(protocol: Protocol) -> Self {
        let kind = match protocol {
            Protocol::Grpc => "application/grpc",
            Protocol::Http => "application/x-protobuf",
        };
        Self {
            status: 200,
            headers: vec![("content-type", kind.to_owned())],
            body: Vec::new(),
            trailers: vec![("grpc-status", "0".to_owned())],
            keeps: true,
        }
    }

    /// Refuses with an HTTP status or a gRPC code.
    pub fn refusing(protocol: Protocol, code: u16) -> Self {
        let mut reply = Self { keeps: false, ..Self::accepting(protocol) };
        match protocol {
            Protocol::Grpc => {
                reply.trailers = vec![
                    ("grpc-status", code.to_string()),
                    ("grpc-message", "a message that may show secrets".to_owned()),
                ];
            }
            Protocol::Http => {
                reply.status = code;
                reply.body = b"a message that may show secrets".to_vec();
            }
        }
        reply
    }
}

/// Decides about the n-th request, counted from 1. `None`: it never answers.
pub type Behaviour = Arc<dyn Fn(usize) -> Option<Reply>>;

/// An OTLP server on a socket, until it is stopped or dropped.
pub struct Backend {
    address: SocketAddr,
    protocol: Protocol,
    received: Arc<Mutex<Received>>,
    task: JoinHandle<()>,
}

impl Backend {
    /// Takes everything, on a free port of loopback.
    pub async fn start(protocol: Protocol) -> Self {
        Self::at(None, protocol, Arc::new(move |_| Some(Reply::accepting(protocol))), None).await
    }

    /// Answers as it is told.
    pub async fn behaving(protocol: Protocol, behaviour: impl Fn(usize) -> Option<Reply> + 'static) -> Self {
        Self::at(None, protocol, Arc::new(behaviour), None).await
    }

    /// On this address, perhaps with TLS.
    pub async fn at(
        address: Option<SocketAddr>,
        protocol: Protocol,
        behaviour: Behaviour,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> Self {
        let wanted = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        // tokio's listener sets SO_REUSEADDR, so that a port can be bound again at once.
        let listener = TcpListener::bind(wanted).await.expect("the port is free");
        let address = listener.local_addr().expect("it is bound");
        let received = Arc::<Mutex<Received>>::default();
        let shared = received.clone();
        let task = spawn_local(async move {
            // Connections end with this task.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.expect("it listens");
                let (shared, behaviour, tls) = (shared.clone(), behaviour.clone(), tls.clone());
                connections.spawn_local(async move {
                    match tls {
                        None => serve(socket, protocol, shared, behaviour).await,
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                serve(socket, protocol, shared, behaviour).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, protocol, received, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How to reach it, without TLS.
    pub fn destination(&self, signal: Signal) -> Destination {
        let endpoint = Endpoint::General(format!("http://{}", self.address));
        Destination { protocol: self.protocol, ..destination(signal, endpoint) }
    }

    pub fn received(&self) -> Received {
        self.received.lock().clone()
    }

    /// Closes the port and every connection; gives what had come.
    pub async fn stop(mut self) -> Received {
        self.task.abort();
        let _cancelled = (&mut self.task).await;
        self.received()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    socket: impl AsyncRead + AsyncWrite + Unpin + 'static,
    protocol: Protocol,
    received: Arc<Mutex<Received>>,
    behaviour: Behaviour,
) {
    received.lock().connections += 1;
    let service = service_fn(move |request: Request<Incoming>| {
        let (received, behaviour) = (received.clone(), behaviour.clone());
        async move { Ok::<_, Infallible>(answer(request, protocol, &received, &behaviour).await) }
    });
    // A client that goes away is none of our business.
    let _ended = match protocol {
        Protocol::Http => {
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await
        }
        Protocol::Grpc => {
            hyper::server::conn::http2::Builder::new(OnThread).serve_connection(TokioIo::new(socket), service).await
        }
    };
}

type AnswerBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    protocol: Protocol,
    received: &Mutex<Received>,
    behaviour: &Behaviour,
) -> Response<AnswerBody> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("the request is whole").to_bytes();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let number = {
        let mut received = received.lock();
        received.requests += 1;
        received.path = head.uri.path().to_owned();
        received.authorization = header("authorization");
        received.requests
    };
    let Some(reply) = behaviour(number) else { return std::future::pending().await };
    let (message, gzip) = match protocol {
        Protocol::Http => (body.to_vec(), header("content-encoding").as_deref() == Some("gzip")),
        // A flag, the length, the message.
        Protocol::Grpc => (body[5..].to_vec(), body[0] == 1),
    };
    let message = if gzip { unzipped(&message) } else { message };
    let mut received = received.lock();
    received.gzip = gzip;
    if reply.keeps {
        keep(&mut received, head.uri.path(), &message);
    }
    response(protocol, reply)
}

fn keep(received: &mut Received, path: &str, message: &[u8]) {
    if path.contains("race") {
        let request = ExportTraceServiceRequest::decode(message).expect("it is one");
        received.spans.extend(request.resource_spans);
    } else if path.contains("etrics") {
        let request = ExportMetricsServiceRequest::decode(message).expect("it is one");
        received.metrics.extend(request.resource_metrics);
    } else {
        let request = ExportLogsServiceRequest::decode(message).expect("it is one");
        received.logs.extend(request.resource_logs);
    }
}

fn unzipped(bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut all).expect("it is gzip");
    all
}

fn response(protocol: Protocol, reply: Reply) -> Response<AnswerBody> {
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    let body = match protocol {
        Protocol::Http => Full::new(Bytes::from(reply.body)).boxed_unsync(),
        Protocol::Grpc => {
            let mut frame = vec![0];
            frame.extend((reply.body.len() as u32).to_be_bytes());
            frame.extend(&reply.body);
            let trailers = reply.trailers.iter().map(|(name, value)| {
                (hyper::header::HeaderName::from_static(name), value.parse().expect("a header's value"))
            });
            let trailers: hyper::HeaderMap = trailers.collect();
            Full::new(Bytes::from(frame)).with_trailers(async move { Some(Ok(trailers)) }).boxed_unsync()
        }
    };
    response.body(body).expect("it is a response")
}

#[derive(Clone)]
struct OnThread;

impl<F: Future + 'static> hyper::rt::Executor<F> for OnThread {
    fn execute(&self, task: F) {
        spawn_local(async move {
            task.await;
        });
    }
}

/// tokio's sockets as World's.
#[derive(Clone)]
pub struct TestNetwork;

pub struct TestStream(TcpStream);

impl Network for TestNetwork {
    type Bound = ();
    type Listener = NoListener;
    type Stream = TestStream;

    fn bind(&self, _: SocketAddr) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn bound_address(&self, (): &()) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn listen(&self, (): &()) -> io::Result<NoListener> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TestStream> {
        TcpStream::connect(address).await.map(TestStream)
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }
}

/// An exporter accepts nothing.
pub enum NoListener {}

impl Listener for NoListener {
    type Stream = TestStream;

    async fn accept(&self) -> io::Result<(TestStream, SocketAddr)> {
        match *self {}
    }
}

impl Stream for TestStream {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }

    fn set_keepalive(&self, _: Duration) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for TestStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for TestStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
