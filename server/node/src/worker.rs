//! One worker: its part of the store, its recorder, its connections.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ferrite_hybridlog::{Held, LogDevice, Pinned, WorkerHandle, tend_index};
use ferrite_io::{Clock, Listener, Network, World};
use ferrite_keyspace::{Candidates, Lent, Scratch};
use ferrite_otlp::{DiskWork, Outgoing};
use ferrite_telemetry::{Attribute, Recorder, SpanName, TraceBuffer, Value};

use crate::attempts::Attempts;
use crate::evict;
use crate::expire;
use crate::failure::{Failure, Told};
use crate::node::Node;
use crate::session;
use crate::stats::WorkerStats;
use crate::unseen;

/// One worker's state; on its thread only.
pub(crate) struct Worker<W: World> {
    pub id: usize,
    pub node: Arc<Node>,
    pub world: W,
    pub handle: WorkerHandle,
    pub device: LogDevice<W>,
    pub recorder: RefCell<Recorder>,
    /// Where the traces go that it chooses.
    pub outgoing: RefCell<Outgoing>,
    pub scratch: RefCell<Scratch>,
    /// What the last eviction knew and the next may use.
    pub candidates: RefCell<Candidates>,
    /// The last eviction has failed.
    pub eviction_fails: Cell<bool>,
    pub told: RefCell<Told>,
    pub attempts: RefCell<Attempts>,
}

impl<W: World> Worker<W> {
    pub fn stats(&self) -> &WorkerStats {
        &self.node.stats[self.id]
    }

    pub fn now_ns(&self) -> u64 {
        self.world.clock().monotonic_ns()
    }

    /// What work of the server's own on the databases is lent.
    pub fn lend<'a>(
        &'a self,
        pinned: &'a Pinned<'a>,
        held: &'a Held,
        trace: &'a mut TraceBuffer,
        scratch: &'a mut Scratch,
        now_ms: u64,
    ) -> Lent<'a> {
        let aof = self.node.aof().map(|aof| &**aof);
        Lent { pinned, held, trace, databases: &self.node.databases, aof, scratch, now_ms }
    }

    /// Work of the server's own that ends now, as a trace of its own.
    pub fn record_work(
        &self,
        name: SpanName,
        began_ns: u64,
        attributes: &[(Attribute, Value)],
        failure: Option<Failure>,
    ) {
        self.record_work_of(name, began_ns, attributes, failure, None);
    }

    /// The same of work that a histogram has counted, with what it counts and when that ended: its trace may become an exemplar.
    pub fn record_work_of(
        &self,
        name: SpanName,
        began_ns: u64,
        attributes: &[(Attribute, Value)],
        failure: Option<Failure>,
        counted: Option<(DiskWork, u64)>,
    ) {
        let (error, mut exception) = failure.map_or((None, None), |failure| (Some(failure.text), failure.exception));
        if let Some(exception) = &mut exception {
            self.told.borrow_mut().shorten(exception, self.now_ns());
        }
        let retry = self.attempts.borrow_mut().attempt(name, began_ns, self.now_ns(), error.is_some());
        let mut recorder = self.recorder.borrow_mut();
        let mut trace = recorder.buffer();
        trace.work(name, began_ns, attributes, error.as_deref(), exception.as_ref());
        if let Some(retry) = retry {
            trace.retry(retry.count, retry.delay_ns, began_ns);
        }
        let metrics = &self.node.telemetry.metrics;
        if let Some((work, ended_ns)) = counted
            && let Some(candidate) = metrics.disk_candidate(work, ended_ns)
        {
            trace.exemplar(metrics.subject_of(work), candidate.bucket, candidate.duration_ns);
        }
        self.commit(&mut recorder, &mut trace);
    }

    /// Hands what was recorded to the worker's recorder, and what that chooses to the export.
    pub fn commit(&self, recorder: &mut Recorder, trace: &mut TraceBuffer) {
        let mut outgoing = self.outgoing.borrow_mut();
        recorder.commit_to(trace, |chosen| outgoing.send(chosen));
        self.take_exemplars(recorder);
    }

    /// Gives what a commit has made exemplars to their histograms.
    fn take_exemplars(&self, recorder: &mut Recorder) {
        for new in recorder.take_exemplars() {
            self.node.telemetry.metrics.exemplar(self.id, new);
        }
    }

    /// Starts the worker's tasks: housekeeping, what writes have left unread, on the first one the active expiry and eviction for all and the index's work, and one accept
    /// loop a listening socket.
    pub fn start(self: Rc<Self>, listeners: Vec<<W::Network as Network>::Listener>) {
        for listener in listeners {
            self.world.spawn(accept(self.clone(), listener));
        }
        let world = self.world.clone();
        if self.id == 0 {
            world.spawn(expire::run(self.clone()));
            world.spawn(evict::run(self.clone()));
            world.spawn(tend(self.clone()));
        }
        world.spawn(unseen::run(self.clone()));
        world.spawn(keep_house(self));
    }
}

async fn accept<W: World>(worker: Rc<Worker<W>>, listener: <W::Network as Network>::Listener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                worker.stats().connections.add(1);
                worker.world.spawn(session::serve(worker.clone(), stream, peer));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                crate::pause_after_failed_accept(&worker.world).await;
            }
        }
        if worker.node.shutdown.is_raised() {
            return;
        }
    }
}

async fn tend<W: World>(worker: Rc<Worker<W>>) {
    tend_index(&worker.handle, &worker.device, &worker.world).await;
}

/// How often a worker looks at its clocks and for idle clients.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Follows the wall clock, which may be set, and ends the connections that have been idle for longer than `timeout`
/// (the first worker does that for all).
async fn keep_house<W: World>(worker: Rc<Worker<W>>) {
    let mut limited = LimitedCallers::default();
    loop {
        let clock = worker.world.clock();
        worker.recorder.borrow_mut().set_wall_clock(clock.monotonic_ns(), clock.unix_ns());
        clock.sleep(HOUSEKEEPING).await;
        let timeout_s = worker.node.live.timeout_s.load(Relaxed);
        if worker.id != 0 {
            continue;
        }
        worker.node.telemetry.metrics.want_exemplars();
        limited.tell(worker.node.telemetry.sampling.limited(), worker.now_ns());
        // For the peak, too.
        worker.node.memory_accounts();
        worker.node.fit_pages();
        if timeout_s == 0 {
            continue;
        }
        let now_ns = worker.now_ns();
        for client in worker.node.clients.snapshot() {
            if now_ns.saturating_sub(client.last_active_ns.load(Relaxed)) > timeout_s * 1_000_000_000 {
                client.time_out();
            }
        }
    }
}

/// Tells of callers that sample more than they may, once in a while.
#[derive(Default)]
struct LimitedCallers {
    told: u64,
    at_ns: Option<u64>,
}

impl LimitedCallers {
    const INTERVAL_NS: u64 = 60_000_000_000;

    fn tell(&mut self, limited: u64, now_ns: u64) {
        let due = self.at_ns.is_none_or(|at_ns| now_ns - at_ns >= Self::INTERVAL_NS);
        if limited > self.told && due {
            tracing::warn!(
                traces = limited - self.told,
                "callers sampled more traces than telemetry.sampling.parent_limit allows: the sampler decided about the rest"
            );
            (self.told, self.at_ns) = (limited, Some(now_ns));
        }
    }
}
