//! The state of one connection: two pipes, each with a send and a receive buffer.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use crate::log::Event;
use crate::sim::{Core, lock};

/// Side 0 connected, side 1 accepted. Pipe `n` carries what side `n` writes.
pub(super) struct Conn {
    pub(super) id: u64,
    pub(super) core: Arc<Core>,
    pub(super) hosts: [u32; 2],
    pub(super) addresses: [SocketAddr; 2],
    /// Bytes that each pipe's send buffer and, apart from them, its receive buffer hold.
    pub(super) capacity: [usize; 2],
    pub(super) state: Mutex<ConnState>,
}

#[derive(Default)]
pub(super) struct ConnState {
    pub(super) pipes: [Pipe; 2],
    pub(super) reset: bool,
    /// Sides whose process has ended without the kernel's good-bye.
    pub(super) severed: [bool; 2],
}

#[derive(Default)]
pub(super) struct Pipe {
    pub(super) sending: VecDeque<u8>,
    pub(super) received: VecDeque<u8>,
    /// The writer is done.
    pub(super) fin: bool,
    /// The reader may know that the writer is done.
    pub(super) fin_delivered: bool,
    /// The reader has been dropped: data that arrives now is answered with RST.
    pub(super) reader_gone: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    pub(super) pump: Option<Waker>,
}

impl Pipe {
    pub(super) fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    pub(super) fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    pub(super) fn wake_pump(&mut self) {
        if let Some(waker) = self.pump.take() {
            waker.wake();
        }
    }

    fn wake_all(&mut self) {
        self.wake_reader();
        self.wake_writer();
        self.wake_pump();
    }
}

impl Conn {
    /// RST: both sides fail from now on, apart from what they had received already, as on Linux.
    pub(super) fn reset(&self, why: &'static str) {
        let mut state = lock(&self.state);
        if state.reset {
            return;
        }
        self.core.record(Event::Reset { conn: self.id, why });
        state.reset = true;
        for pipe in &mut state.pipes {
            pipe.sending.clear();
            pipe.wake_all();
        }
    }

    /// `sides` ended without a word: nothing they wrote arrives any more.
    pub(super) fn sever(&self, sides: &[usize]) {
        let mut state = lock(&self.state);
        for &side in sides {
            state.severed[side] = true;
            state.pipes[side].sending.clear();
        }
    }
}
