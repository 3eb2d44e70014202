//! SimNet: listeners and connections in memory. All hosts, loopback included, share one space of addresses.

mod conn;
mod pump;
mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::future::{pending, poll_fn};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use ferrite_io::{Listener, Network};

use crate::log::Event;
use crate::rng::SimRng;
use crate::sim::{Core, HostState, lock};
use crate::world::Latency;
use conn::{Conn, ConnState};
pub use stream::SimStream;

/// Connections that wait to be accepted, as `tcp-backlog`'s default.
const BACKLOG: usize = 511;
/// The first port that port 0 and outgoing connections take.
const FIRST_FREE_PORT: u16 = 32_768;

pub(crate) struct NetState {
    listening: BTreeMap<SocketAddr, Arc<BoundState>>,
    conns: Vec<Weak<Conn>>,
    next_conn: u64,
    next_port: u16,
    rng: SimRng,
}

impl NetState {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            listening: BTreeMap::new(),
            conns: Vec::new(),
            next_conn: 1,
            next_port: FIRST_FREE_PORT,
            rng: SimRng::derive(seed, "net"),
        }
    }

    fn free_port(&mut self) -> u16 {
        loop {
            let port = self.next_port;
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_FREE_PORT);
            if !self.listening.keys().any(|bound| bound.port() == port) {
                return port;
            }
        }
    }

    /// Who listens on an address, the unspecified address included.
    fn listener_of(&self, to: SocketAddr) -> Option<Arc<BoundState>> {
        let any = |bound: &&SocketAddr| bound.ip().is_unspecified() && bound.port() == to.port();
        let key = self.listening.get_key_value(&to).map(|(key, _)| key);
        let key = key.or_else(|| self.listening.keys().find(any))?;
        self.listening.get(key).cloned()
    }
}

/// One host's network.
#[derive(Clone)]
pub struct SimNet {
    core: Arc<Core>,
    host: Arc<HostState>,
    life: u64,
}

/// A listening socket. The address is free again when the last clone and the last listener are dropped.
#[derive(Clone)]
pub struct SimBound {
    shared: Arc<Registration>,
}

/// Ends the registration with its last holder.
struct Registration {
    core: Arc<Core>,
    state: Arc<BoundState>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut net = lock(&self.core.net);
        // A restarted process may hold the address by now.
        let address = self.state.address;
        if net.listening.get(&address).is_some_and(|state| Arc::ptr_eq(state, &self.state)) {
            net.listening.remove(&address);
        }
        drop(net);
        // Whoever still waits in the backlog is reset by the drop of its stream.
        lock(&self.state.queues).unassigned.clear();
    }
}

struct BoundState {
    address: SocketAddr,
    host: u32,
    queues: Mutex<Queues>,
}

#[derive(Default)]
struct Queues {
    /// Connections that came before anyone listened.
    unassigned: VecDeque<SimStream>,
    /// One queue a worker.
    workers: BTreeMap<u64, WorkerQueue>,
    next_worker: u64,
    /// The worker that got the last connection.
    last_served: u64,
}

#[derive(Default)]
struct WorkerQueue {
    streams: VecDeque<SimStream>,
    waker: Option<Waker>,
}

impl Queues {
    fn waiting(&self) -> usize {
        self.unassigned.len() + self.workers.values().map(|queue| queue.streams.len()).sum::<usize>()
    }

    /// Gives a connection to the next worker in turn.
    fn assign(&mut self, stream: SimStream) {
        let after = self.workers.range(self.last_served + 1..).next().map(|(&id, _)| id);
        let Some(id) = after.or_else(|| self.workers.keys().next().copied()) else {
            self.unassigned.push_back(stream);
            return;
        };
        self.last_served = id;
        let queue = self.workers.get_mut(&id).expect("the id is a key of this map");
        queue.streams.push_back(stream);
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }
}

impl SimNet {
    pub(crate) fn new(core: Arc<Core>, host: Arc<HostState>, life: u64) -> Self {
        Self { core, host, life }
    }
}

impl Network for SimNet {
    type Bound = SimBound;
    type Listener = SimListener;
    type Stream = SimStream;

    fn bind(&self, mut address: SocketAddr) -> io::Result<SimBound> {
        let mut net = lock(&self.core.net);
        if address.port() == 0 {
            address.set_port(net.free_port());
        }
        let clash = |bound: &SocketAddr| {
            bound.port() == address.port()
                && (bound.ip() == address.ip() || bound.ip().is_unspecified() || address.ip().is_unspecified())
        };
        if net.listening.keys().any(clash) {
            return Err(ErrorKind::AddrInUse.into());
        }
        let state = Arc::new(BoundState { address, host: self.host.id, queues: Mutex::default() });
        if !self.host.is_over(self.life) {
            net.listening.insert(address, state.clone());
        }
        Ok(SimBound { shared: Arc::new(Registration { core: self.core.clone(), state }) })
    }

    fn bound_address(&self, bound: &SimBound) -> io::Result<SocketAddr> {
        Ok(bound.shared.state.address)
    }

    fn listen(&self, bound: &SimBound) -> io::Result<SimListener> {
        let mut queues = lock(&bound.shared.state.queues);
        queues.next_worker += 1;
        let worker = queues.next_worker;
        queues.workers.insert(worker, WorkerQueue::default());
        for stream in std::mem::take(&mut queues.unassigned) {
            queues.assign(stream);
        }
        drop(queues);
        Ok(SimListener { bound: bound.clone(), worker })
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<SimStream> {
        let latency = Latency::draw(&mut lock(&self.core.net).rng);
        latency.wait().await;
        if self.host.is_over(self.life) {
            return pending().await;
        }
        let mut net = lock(&self.core.net);
        let from = SocketAddr::new(self.host.ip, net.free_port());
        let bound = net.listener_of(to).filter(|bound| lock(&bound.queues).waiting() < BACKLOG);
        let Some(bound) = bound else {
            self.core.record(Event::Refused { to });
            return Err(ErrorKind::ConnectionRefused.into());
        };
        let id = net.next_conn;
        net.next_conn += 1;
        self.core.record(Event::Connect { conn: id, from, to });
        let faults = self.core.faults();
        let sizes: &[usize] = if faults.net_tiny_buffers { &[1, 16, 512, 4096] } else { &[65_536] };
        let capacity = [*net.rng.pick(sizes), *net.rng.pick(sizes)];
        let conn = Arc::new(Conn {
            id,
            core: self.core.clone(),
            hosts: [self.host.id, bound.host],
            addresses: [from, to],
            capacity,
            state: Mutex::new(ConnState::default()),
        });
        net.conns.retain(|conn| conn.strong_count() > 0);
        net.conns.push(Arc::downgrade(&conn));
        for from in [0, 1] {
            let rng = SimRng::derive(net.rng.next_u64(), "pump");
            self.core.hardware.spawn(pump::run(conn.clone(), from, rng));
        }
        drop(net);
        lock(&bound.queues).assign(SimStream::new(conn.clone(), 1));
        Ok(SimStream::new(conn, 0))
    }
}

/// One worker's share of a listening socket: connections are dealt round-robin.
pub struct SimListener {
    bound: SimBound,
    worker: u64,
}

impl Listener for SimListener {
    type Stream = SimStream;

    async fn accept(&self) -> io::Result<(SimStream, SocketAddr)> {
        let state = &self.bound.shared.state;
        let stream = poll_fn(|cx| {
            let mut queues = lock(&state.queues);
            let queue = queues.workers.get_mut(&self.worker).expect("a listener's queue lives as long as it");
            match queue.streams.pop_front() {
                Some(stream) => Poll::Ready(stream),
                None => {
                    queue.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        stream.log_accept();
        let peer = stream.peer();
        Ok((stream, peer))
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut queues = lock(&self.bound.shared.state.queues);
        let queue = queues.workers.remove(&self.worker);
        for stream in queue.into_iter().flat_map(|queue| queue.streams) {
            queues.assign(stream);
        }
    }
}

/// A host's processes have ended: nobody listens there, nothing that was on its way arrives, and the peers find out by
/// a reset some time later.
pub(crate) fn sever(core: &Core, host: &HostState) {
    let mut net = lock(&core.net);
    let gone: Vec<_> = net.listening.iter().filter(|(_, state)| state.host == host.id).map(|(k, _)| *k).collect();
    let gone: Vec<_> = gone.iter().filter_map(|address| net.listening.remove(address)).collect();
    let conns: Vec<_> = net.conns.iter().filter_map(Weak::upgrade).collect();
    let mut resets = Vec::new();
    for conn in conns {
        let sides: Vec<usize> = (0..2).filter(|&side| conn.hosts[side] == host.id).collect();
        if !sides.is_empty() {
            conn.sever(&sides);
            resets.push((conn, Duration::from_millis(net.rng.between(1, 40))));
        }
    }
    drop(net);
    for state in gone {
        let mut queues = lock(&state.queues);
        let waiting = std::mem::take(&mut queues.unassigned);
        drop(queues);
        drop(waiting);
    }
    for (conn, delay) in resets {
        core.hardware.spawn(async move {
            madsim::time::sleep(delay).await;
            conn.reset("peer is gone");
        });
    }
}
