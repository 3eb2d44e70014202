//! The registry of connected clients: what `CLIENT LIST` shows and `CLIENT KILL` reaches, on any worker.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ferrite_telemetry::schema::ConnectionEnd;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

/// One connection, as other workers may see it. The session updates it; nobody else writes but `kill`.
pub struct Client {
    pub id: u64,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub connected_at_ms: u64,
    /// Monotonic nanoseconds of the last batch of commands.
    pub last_active_ns: AtomicU64,
    /// Bytes in the query buffer after the last batch.
    pub query_buffer: AtomicU64,
    /// Bytes that the buffers for its commands and its replies have.
    pub buffers: AtomicU64,
    /// What changes rarely (name, database, last command); written only when it changed.
    pub labels: Mutex<Labels>,
    killed: AtomicBool,
    /// Why, if it was not another client's wish.
    idle: AtomicBool,
    waker: AtomicWaker,
}

/// The parts of `CLIENT LIST` that are not numbers updated on every batch.
#[derive(Clone, Default)]
pub struct Labels {
    pub name: Vec<u8>,
    pub lib_name: Vec<u8>,
    pub lib_ver: Vec<u8>,
    pub database: u32,
    pub resp: u8,
    /// Lower-case name of the last command, `NULL` before the first.
    pub last_command: &'static str,
    /// Commands queued by MULTI; -1 outside.
    pub multi: i64,
    pub watching: usize,
    pub no_evict: bool,
    pub no_touch: bool,
}

impl Client {
    pub fn new(id: u64, peer: SocketAddr, local: SocketAddr, connected_at_ms: u64, now_ns: u64) -> Self {
        Self {
            id,
            peer,
            local,
            connected_at_ms,
            last_active_ns: AtomicU64::new(now_ns),
            query_buffer: AtomicU64::new(0),
            buffers: AtomicU64::new(0),
            labels: Mutex::new(Labels { resp: 2, last_command: "NULL", multi: -1, ..Labels::default() }),
            killed: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Makes the session end at its next poll, wherever it waits.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// As [`Client::kill`], because it has been idle for too long.
    pub fn time_out(&self) {
        self.idle.store(true, Ordering::Relaxed);
        self.kill();
    }

    /// Why a killed session is to end.
    pub fn why_killed(&self) -> ConnectionEnd {
        if self.idle.load(Ordering::Relaxed) { ConnectionEnd::IdleTimeout } else { ConnectionEnd::Killed }
    }

    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// Where [`Client::kill`] finds the session's task.
    pub fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }
}

/// All connected clients by id, so that lists come out in the order of connection.
#[derive(Default)]
pub struct Clients {
    by_id: Mutex<BTreeMap<u64, Arc<Client>>>,
    last_id: AtomicU64,
}

impl Clients {
    pub fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Registers a client unless `limit` are connected already.
    pub fn try_insert(&self, client: Arc<Client>, limit: usize) -> bool {
        let mut by_id = self.by_id.lock();
        if by_id.len() >= limit {
            return false;
        }
        by_id.insert(client.id, client);
        true
    }

    pub fn remove(&self, id: u64) {
        self.by_id.lock().remove(&id);
    }

    pub fn len(&self) -> usize {
        self.by_id.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all clients' buffers.
    pub fn buffer_bytes(&self) -> u64 {
        self.by_id.lock().values().map(|client| client.buffers.load(Ordering::Relaxed)).sum()
    }

    pub fn snapshot(&self) -> Vec<Arc<Client>> {
        self.by_id.lock().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: u64) -> Arc<Client> {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        Arc::new(Client::new(id, address, address, 0, 0))
    }

    #[test]
    fn the_limit_refuses_one_more_and_a_leaver_makes_room() {
        let clients = Clients::default();
        assert!(clients.try_insert(client(1), 1));
        assert!(!clients.try_insert(client(2), 1));
        clients.remove(1);
        assert!(clients.try_insert(client(2), 1));
        assert_eq!(clients.snapshot()[0].id, 2);
    }
}
