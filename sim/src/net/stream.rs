//! One end of a simulated connection.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ferrite_io::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::conn::Conn;
use crate::log::Event;
use crate::sim::lock;

/// One end of a connection. As with a kernel's sockets, dropping it with unread bytes resets the connection, and
/// dropping it without sends FIN after what was written.
pub struct SimStream {
    conn: Arc<Conn>,
    side: usize,
}

impl SimStream {
    pub(super) fn new(conn: Arc<Conn>, side: usize) -> Self {
        Self { conn, side }
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.conn.addresses[1 - self.side]
    }

    pub(super) fn log_accept(&self) {
        self.conn.core.record(Event::Accept { conn: self.conn.id });
    }

    /// Resets the connection, as closing a socket with `SO_LINGER` 0 does.
    pub fn reset(&self) {
        self.conn.reset("by its user");
    }
}

impl Stream for SimStream {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.conn.addresses[self.side])
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer())
    }
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.conn.state);
        if state.severed[self.side] {
            return Poll::Pending;
        }
        let reset = state.reset;
        let pipe = &mut state.pipes[1 - self.side];
        if pipe.received.is_empty() {
            if reset {
                return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
            }
            if pipe.fin_delivered || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let len = buf.remaining().min(pipe.received.len());
        let (front, back) = pipe.received.as_slices();
        let from_front = len.min(front.len());
        buf.put_slice(&front[..from_front]);
        buf.put_slice(&back[..len - from_front]);
        pipe.received.drain(..len);
        pipe.wake_pump();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.conn.state);
        if state.severed[self.side] {
            return Poll::Pending;
        }
        if state.reset || state.pipes[self.side].fin {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let pipe = &mut state.pipes[self.side];
        let room = self.conn.capacity[self.side].saturating_sub(pipe.sending.len());
        if room == 0 && !bytes.is_empty() {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let len = room.min(bytes.len());
        pipe.sending.extend(&bytes[..len]);
        pipe.wake_pump();
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Half-close: the peer reads the end, and this side can still read.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.conn.state);
        let pipe = &mut state.pipes[self.side];
        pipe.fin = true;
        pipe.wake_pump();
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let mut state = lock(&self.conn.state);
        if state.severed[self.side] || state.reset {
            return;
        }
        if !state.pipes[1 - self.side].received.is_empty() {
            drop(state);
            self.conn.reset("closed with unread bytes");
            return;
        }
        state.pipes[1 - self.side].reader_gone = true;
        state.pipes[1 - self.side].wake_pump();
        state.pipes[self.side].fin = true;
        state.pipes[self.side].wake_pump();
    }
}
