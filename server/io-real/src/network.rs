//! Sockets: tokio's, on the worker's epoll.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ferrite_io::{Listener, Network, Stream};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Connections that wait to be accepted: Redis's default (`tcp-backlog`).
const BACKLOG: i32 = 511;

/// TCP on the worker's epoll.
#[derive(Clone)]
pub struct RealNetwork {
    _inside_a_runtime: (),
}

impl RealNetwork {
    pub(crate) fn new() -> Self {
        Self { _inside_a_runtime: () }
    }
}

impl Network for RealNetwork {
    type Bound = Arc<std::net::TcpListener>;
    type Listener = RealListener;
    type Stream = RealStream;

    fn bind(&self, address: SocketAddr) -> io::Result<Self::Bound> {
        // The standard library sets SO_REUSEADDR, so that a restart does not wait for TIME_WAIT.
        let listener = std::net::TcpListener::bind(address)?;
        // SAFETY: `listener` is an open socket; a second listen(2) on it only changes the backlog.
        if unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) } != 0 {
            return Err(io::Error::last_os_error());
        }
        listener.set_nonblocking(true)?;
        Ok(Arc::new(listener))
    }

    fn bound_address(&self, bound: &Self::Bound) -> io::Result<SocketAddr> {
        bound.local_addr()
    }

    fn listen(&self, bound: &Self::Bound) -> io::Result<Self::Listener> {
        Ok(RealListener(TcpListener::from_std(bound.try_clone()?)?))
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Self::Stream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(RealStream(stream))
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
        if addresses.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(addresses) }
    }
}

/// A listening socket, registered with this worker's epoll.
pub struct RealListener(TcpListener);

impl Listener for RealListener {
    type Stream = RealStream;

    async fn accept(&self) -> io::Result<(RealStream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        // Fails only for a connection that is already gone: its first read will say so.
        let _ = stream.set_nodelay(true);
        Ok((RealStream(stream), peer))
    }
}

/// A TCP connection.
#[derive(Debug)]
pub struct RealStream(TcpStream);

impl Stream for RealStream {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }

    fn set_keepalive(&self, idle: Duration) -> io::Result<()> {
        // Three probes within the time of one more interval, as Redis has it.
        let keepalive = TcpKeepalive::new().with_time(idle).with_interval((idle / 3).max(Duration::from_secs(1)));
        SockRef::from(&self.0).set_tcp_keepalive(&keepalive.with_retries(3))
    }
}

impl AsyncRead for RealStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for RealStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
