//! One simulation: its hosts, its generators, its log; power switches.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use madsim::runtime::{Handle, NodeHandle};
use madsim::task::{self, JoinHandle, NodeId};
use madsim::time::TimeHandle;

use crate::cuts::{Cuts, Script};
use crate::disk::{DiskState, ReadFault};
use crate::log::{Event, EventLog};
use crate::net::NetState;
use crate::plan::FaultPlan;
use crate::rng::SimRng;
use crate::world::SimWorld;

/// Locks; a panic elsewhere in the simulation must not hide itself behind a poisoned lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running simulation; cloning is cheap. Made by the runner, given to the scenario.
#[derive(Clone)]
pub struct Sim {
    pub(crate) core: Arc<Core>,
}

pub(crate) struct Core {
    pub(crate) seed: u64,
    plan: FaultPlan,
    faults_on: AtomicBool,
    time: TimeHandle,
    log: Mutex<EventLog>,
    marks: Mutex<BTreeMap<&'static str, u64>>,
    hosts: Mutex<Vec<Arc<HostState>>>,
    pub(crate) net: Mutex<NetState>,
    /// Where cables and disks do their work. It outlives every host, as an I/O outlives the future that waits for it.
    pub(crate) hardware: NodeHandle,
    /// Submissions of the whole simulation.
    pub(crate) submissions: AtomicU64,
    /// Commands that clients leave out, and how many each generator has drawn.
    pub(crate) cuts: Cuts,
    pub(crate) drawn: Mutex<BTreeMap<String, u64>>,
}

/// What remains of a computer when its power goes, and its switches.
pub(crate) struct HostState {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) ip: IpAddr,
    pub(crate) node: NodeId,
    /// Counts process lives: kills and power losses. A world, file, lock or socket belongs to one life.
    life: AtomicU64,
    down: AtomicBool,
    death_wakers: Mutex<Vec<Waker>>,
    pub(crate) disk: Mutex<DiskState>,
    pub(crate) entropy: Mutex<SimRng>,
    pub(crate) wall_offset_ns: AtomicI64,
    pub(crate) drift_ppm: i64,
}

impl HostState {
    /// True if what was made in `life` belongs to a process that has ended.
    pub(crate) fn is_over(&self, life: u64) -> bool {
        self.life.load(Ordering::Relaxed) != life
    }
}

impl Core {
    /// Virtual nanoseconds since the start.
    pub(crate) fn now_ns(&self) -> u64 {
        self.time.elapsed().as_nanos() as u64
    }

    pub(crate) fn record(&self, event: Event) {
        lock(&self.log).record(self.now_ns(), event);
    }

    /// The plan, or no faults once they have been stopped.
    pub(crate) fn faults(&self) -> FaultPlan {
        if self.faults_on.load(Ordering::Relaxed) { self.plan } else { FaultPlan::none() }
    }

    /// Ends all processes of a host. Its disk is the caller's business.
    fn end_life(&self, host: &HostState) {
        host.life.fetch_add(1, Ordering::Relaxed);
        host.down.store(true, Ordering::Relaxed);
        crate::net::sever(self, host);
        Handle::current().kill(host.node);
        for waker in lock(&host.death_wakers).drain(..) {
            waker.wake();
        }
    }

    /// The power goes: tasks end, connections go silent, and the disk keeps what it happens to keep.
    pub(crate) fn power_loss(&self, host: &HostState) {
        let faults = self.faults();
        let disk = lock(&host.disk).power_loss(&faults);
        self.record(Event::PowerLoss { host: host.id, disk });
        self.end_life(host);
    }
}

impl Sim {
    /// Must be called on a madsim runtime.
    pub(crate) fn new(seed: u64, plan: FaultPlan, cuts: Cuts) -> Self {
        let hardware = Handle::current().create_node().name("hardware").build();
        Self {
            core: Arc::new(Core {
                seed,
                plan,
                faults_on: AtomicBool::new(true),
                time: TimeHandle::current(),
                log: Mutex::default(),
                marks: Mutex::default(),
                hosts: Mutex::default(),
                net: Mutex::new(NetState::new(seed)),
                hardware,
                submissions: AtomicU64::new(0),
                cuts,
                drawn: Mutex::default(),
            }),
        }
    }

    /// The seed of this run.
    pub fn seed(&self) -> u64 {
        self.core.seed
    }

    /// The faults that were drawn for this run.
    pub fn plan(&self) -> FaultPlan {
        self.core.plan
    }

    /// A generator of the scenario's own, independent of every other label's.
    pub fn rng(&self, label: &str) -> SimRng {
        SimRng::derive(self.core.seed, label)
    }

    /// What numbers the commands of one generator, so that some can be left out.
    pub fn script(&self, name: &str) -> Script {
        Script::new(self.core.clone(), name)
    }

    /// How many commands each generator has drawn.
    pub(crate) fn drawn(&self) -> BTreeMap<String, u64> {
        lock(&self.core.drawn).clone()
    }

    /// The liveness phase: from now on nothing fails any more.
    pub fn stop_faults(&self) {
        self.core.faults_on.store(false, Ordering::Relaxed);
        self.core.record(Event::Decision { what: "faults stop", value: 0 });
    }

    /// Faults may happen again: a scenario that needs a quiet beginning stops them first.
    pub fn resume_faults(&self) {
        self.core.faults_on.store(true, Ordering::Relaxed);
        self.decision("faults resume", 0);
    }

    /// Virtual time since the start.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.core.now_ns())
    }

    /// Waits in virtual time, at least one millisecond.
    pub async fn sleep(&self, duration: Duration) {
        madsim::time::sleep(duration).await;
    }

    /// The id of the last submission to any host's disk; they are counted from 1.
    pub fn last_submission(&self) -> u64 {
        self.core.submissions.load(Ordering::Relaxed)
    }

    /// Adds a choice to the event log.
    pub fn decision(&self, what: &'static str, value: u64) {
        self.core.record(Event::Decision { what, value });
    }

    /// Adds a line to the event log.
    pub fn note(&self, text: impl Into<String>) {
        self.core.record(Event::Note { text: text.into() });
    }

    /// Adds finished spans, in a text without volatile values, to the event log; the report has them too.
    pub fn span(&self, text: impl Into<String>) {
        self.core.record(Event::Span { text: text.into() });
    }

    /// Marks that a state was reached. A scenario names the marks that must fire within a number of seeds.
    pub fn sometimes(&self, mark: &'static str) {
        *lock(&self.core.marks).entry(mark).or_default() += 1;
    }

    pub(crate) fn marks(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.core.marks).clone()
    }

    /// The hash over all events so far.
    pub fn log_hash(&self) -> u64 {
        lock(&self.core.log).hash()
    }

    pub(crate) fn with_log<T>(&self, read: impl FnOnce(&mut EventLog) -> T) -> T {
        read(&mut lock(&self.core.log))
    }

    /// A computer with an empty disk. `name` must be new; it decides the host's random numbers.
    pub fn add_host(&self, name: &str) -> Host {
        let mut hosts = lock(&self.core.hosts);
        assert!(hosts.iter().all(|host| host.name != name), "a host named {name} exists");
        let id = hosts.len() as u32 + 1;
        let node = Handle::current().create_node().name(name).build().id();
        let mut rng = SimRng::derive(self.core.seed, &format!("host {name}"));
        let drift_ppm = if self.core.plan.clock_drift { rng.between(0, 400) as i64 - 200 } else { 0 };
        let state = Arc::new(HostState {
            id,
            name: name.to_string(),
            ip: IpAddr::V4(Ipv4Addr::new(10, 0, (id >> 8) as u8, id as u8)),
            node,
            life: AtomicU64::new(0),
            down: AtomicBool::new(false),
            death_wakers: Mutex::default(),
            disk: Mutex::new(DiskState::new(SimRng::derive(self.core.seed, &format!("disk {name}")))),
            entropy: Mutex::new(SimRng::derive(self.core.seed, &format!("entropy {name}"))),
            wall_offset_ns: AtomicI64::new(0),
            drift_ppm,
        });
        hosts.push(state.clone());
        Host { core: self.core.clone(), state }
    }

    /// Ends every task, so that a run leaves no memory behind (a waiting task and its waker own each other).
    pub(crate) async fn shut_down(&self) {
        let hosts = lock(&self.core.hosts).clone();
        for host in hosts {
            self.core.end_life(&host);
        }
        Handle::current().kill(self.core.hardware.id());
        // Killed tasks are dropped when the scheduler meets them: before time can advance.
        madsim::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A simulated computer: its tasks can be killed, its power can go, its disk remains.
#[derive(Clone)]
pub struct Host {
    core: Arc<Core>,
    state: Arc<HostState>,
}

impl Host {
    /// The host's own address.
    pub fn ip(&self) -> IpAddr {
        self.state.ip
    }

    /// The world as a process that is started now sees it.
    pub fn world(&self) -> SimWorld {
        SimWorld::new(self.core.clone(), self.state.clone(), self.state.life.load(Ordering::Relaxed))
    }

    /// Runs a task on this host. The result is an error if the host died first.
    pub fn spawn<T, F, M>(&self, make: M) -> JoinHandle<T>
    where
        M: FnOnce(SimWorld) -> F + Send + 'static,
        F: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        assert!(self.is_up(), "{} is down: boot it first", self.state.name);
        let node = Handle::current().get_node(self.state.node).expect("the host's node was made with it");
        let world = self.world();
        // A node's handle takes Send futures only; what it starts from inside may be of the worker's own kind.
        node.spawn(async move {
            match task::spawn_local(make(world)).await {
                Ok(value) => value,
                Err(_) => std::future::pending().await,
            }
        })
    }

    /// False after a power loss or a kill, until [`Host::boot`].
    pub fn is_up(&self) -> bool {
        !self.state.down.load(Ordering::Relaxed)
    }

    /// How many process lives have ended here.
    pub fn lives(&self) -> u64 {
        self.state.life.load(Ordering::Relaxed)
    }

    /// Switches the host on again. Its disk is as the last life left it.
    pub fn boot(&self) {
        assert!(!self.is_up(), "{} is up already", self.state.name);
        Handle::current().restart(self.state.node);
        self.state.down.store(false, Ordering::Relaxed);
        self.core.record(Event::Boot { host: self.state.id });
    }

    /// Takes the power away, now.
    pub fn power_loss(&self) {
        if self.is_up() {
            self.core.power_loss(&self.state);
        }
    }

    /// Takes the power away at the `count`th disk event from now (submissions and completions count one each).
    pub fn power_loss_at_io(&self, count: u64) {
        self.core.record(Event::Decision { what: "power loss at I/O", value: count });
        lock(&self.state.disk).power_loss_in = Some(count);
    }

    /// Ends the processes as SIGKILL does: what they wrote stays in the page cache, what they had submitted happens now or
    /// not at all.
    pub fn kill(&self) {
        if self.is_up() {
            self.core.record(Event::Killed { host: self.state.id });
            lock(&self.state.disk).process_ended();
            self.core.end_life(&self.state);
        }
    }

    /// Resolves when the host is down.
    pub async fn died(&self) {
        poll_fn(|cx| {
            if !self.is_up() {
                return Poll::Ready(());
            }
            lock(&self.state.death_wakers).push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Lets the wall clock jump.
    pub fn jump_wall_clock(&self, by_ns: i64) {
        self.core.record(Event::Decision { what: "clock jump", value: by_ns as u64 });
        self.state.wall_offset_ns.fetch_add(by_ns, Ordering::Relaxed);
    }

    /// Limits the bytes on this host's disk, in blocks of 4 KiB; `None` lifts the limit.
    pub fn set_disk_capacity(&self, bytes: Option<u64>) {
        self.core.record(Event::Decision { what: "capacity", value: bytes.unwrap_or(u64::MAX) });
        lock(&self.state.disk).set_capacity(bytes);
    }

    /// Holds every read of this host's disk back, or no longer: it does not complete meanwhile.
    pub fn set_disk_reads_held(&self, held: bool) {
        self.core.record(Event::Decision { what: "reads held", value: u64::from(held) });
        lock(&self.state.disk).set_reads_held(held);
    }

    /// Lets every read of this host's disk fail with EIO, or no longer. For scenarios that need the one failure.
    pub fn set_disk_reads_fail(&self, fail: bool) {
        self.core.record(Event::Decision { what: "reads fail", value: u64::from(fail) });
        lock(&self.state.disk).set_reads_fail(fail);
    }

    /// Lets every read of these bytes of a file fail with EIO, as that of a bad sector does, or no longer.
    pub fn set_disk_bad(&self, bad: Option<(&str, std::ops::Range<u64>)>) {
        let number = bad.as_ref().map_or(u64::MAX, |(_, range)| range.start);
        self.core.record(Event::Decision { what: "a bad sector", value: number });
        lock(&self.state.disk).set_bad(bad.map(|(path, range)| (std::path::PathBuf::from(path), range)));
    }

    /// Lets some of this host's next reads and openings fail, each by how many come before it; earlier aims are forgotten.
    pub fn aim_disk_reads(&self, faults: impl IntoIterator<Item = (u64, ReadFault)>) {
        let faults: Vec<(u64, ReadFault)> = faults.into_iter().collect();
        for &(number, _) in &faults {
            self.core.record(Event::Decision { what: "a read is aimed at", value: number });
        }
        lock(&self.state.disk).aim_reads(faults);
    }

    /// Lets one of the next reads of a file fail, by how many of them come before it; besides those of [`Host::aim_disk_reads`].
    pub fn aim_disk_read_of(&self, path: &str, number: u64, fault: ReadFault) {
        self.core.record(Event::Note { text: format!("aim at read {number} of {path}: {fault:?}") });
        lock(&self.state.disk).aim_read_of(std::path::Path::new(path), number, fault);
    }

    /// Lets every sync of this host's disk fail with EIO, of files and of directories, or no longer.
    pub fn set_disk_syncs_fail(&self, fail: bool) {
        self.core.record(Event::Decision { what: "syncs fail", value: u64::from(fail) });
        lock(&self.state.disk).set_syncs_fail(fail);
    }

    /// The same for every write of one file.
    pub fn set_disk_writes_fail(&self, path: Option<&str>) {
        self.core.record(Event::Decision { what: "writes fail", value: u64::from(path.is_some()) });
        lock(&self.state.disk).set_writes_fail(path.map(std::path::PathBuf::from));
    }

    /// The same for every reservation of space for one file.
    pub fn set_disk_allocations_fail(&self, path: Option<&str>) {
        self.core.record(Event::Decision { what: "allocations fail", value: u64::from(path.is_some()) });
        lock(&self.state.disk).set_allocations_fail(path.map(std::path::PathBuf::from));
    }

    /// Bytes allocated on this host's disk.
    pub fn disk_used(&self) -> u64 {
        lock(&self.state.disk).used()
    }

    /// Bytes of disk space that a file takes.
    pub fn file_space(&self, path: &str) -> u64 {
        lock(&self.state.disk).space_of(std::path::Path::new(path))
    }

    /// What a file would hold if every write had been synced, without an I/O; `None` if it does not exist. For oracles.
    pub fn peek(&self, path: &str) -> Option<Vec<u8>> {
        lock(&self.state.disk).peek(std::path::Path::new(path))
    }

    /// Changes bytes on the disk behind everybody's back, as bit rot or a foreign hand does. For scenarios.
    pub fn corrupt(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        self.core.record(Event::Note { text: format!("corrupt {path}") });
        lock(&self.state.disk).corrupt(std::path::Path::new(path), change);
    }

    /// With `clock_jump` on, lets the wall clock jump every few seconds while faults are on.
    pub fn start_clock_faults(&self) {
        if !self.core.plan.clock_jump {
            return;
        }
        let host = self.clone();
        let mut rng = SimRng::derive(self.core.seed, &format!("clock {}", self.state.name));
        self.core.hardware.spawn(async move {
            loop {
                madsim::time::sleep(Duration::from_millis(rng.between(200, 5000))).await;
                if !host.core.faults().clock_jump {
                    return;
                }
                let seconds = *rng.pick(&[1, 30, 3600, 86_400]);
                let by = rng.between(0, 2_000_000_000 * seconds) as i64 - 1_000_000_000 * seconds as i64;
                host.jump_wall_clock(by);
            }
        });
    }
}
