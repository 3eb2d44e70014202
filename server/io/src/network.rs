//! Stream sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

#[allow(async_fn_in_trait)]
pub trait Network: Clone + 'static {
    /// A listening socket that is not yet tied to a worker: bound once, listened on by every worker.
    type Bound: Clone + Send + 'static;
    type Listener: Listener<Stream = Self::Stream>;
    type Stream: Stream;

    /// Binds and listens. A port in use is `ErrorKind::AddrInUse`; port 0 takes a free one.
    fn bind(&self, address: SocketAddr) -> io::Result<Self::Bound>;
    fn bound_address(&self, bound: &Self::Bound) -> io::Result<SocketAddr>;
    /// Accepts connections of `bound` on this worker; workers share them.
    fn listen(&self, bound: &Self::Bound) -> io::Result<Self::Listener>;
    async fn connect(&self, address: SocketAddr) -> io::Result<Self::Stream>;

    /// The addresses of a host by its name, the one to try first at the front, never none. Where there is no service of
    /// names, as here, only addresses are understood.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let address: IpAddr = host.parse().map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(vec![SocketAddr::new(address, port)])
    }
}

#[allow(async_fn_in_trait)]
pub trait Listener: 'static {
    type Stream: Stream;
    async fn accept(&self) -> io::Result<(Self::Stream, SocketAddr)>;
}

/// A connected stream (`TCP_NODELAY` set where that means something).
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    fn local_addr(&self) -> io::Result<SocketAddr>;
    fn peer_addr(&self) -> io::Result<SocketAddr>;
    /// Probes a silent peer every `idle`, so that one that vanished is noticed. Does nothing where nobody can vanish.
    fn set_keepalive(&self, _idle: Duration) -> io::Result<()> {
        Ok(())
    }
}
