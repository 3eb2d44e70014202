//! From a configuration to a serving node, and back: sockets, data directory, replay, workers, drain.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ferrite_hybridlog::aof::{Rewriter, SyncTimes, aof_task};
use ferrite_hybridlog::checkpoint::Checkpoints;
use ferrite_hybridlog::datadir::{DataDir, DataDirConfig, OpenError, RecoveredAof, recover_data_dir};
use ferrite_hybridlog::{LogDevice, LogFiles, WorkerHandle};
use ferrite_io::{Clock, Disk, Entropy, Network, World};
use ferrite_keyspace::Scratch;
use ferrite_otlp::Outgoing;
use ferrite_telemetry::{Attribute, Recorder, RecorderConfig, cold, cold_span};
use futures_util::future::{Either, select};
use parking_lot::Mutex;
use tracing::{Instrument, Span};

use crate::admin;
use crate::checkpoint;
use crate::compact;
use crate::flush;
use crate::node::{Node, fsync_policy};
use crate::replay::Replay;
use crate::rewrite;
use crate::signal::Signal;
use crate::work::Recovery;
use crate::worker::Worker;

/// The log device's file in the data directory.
pub(crate) const LOG_FILE: &str = "hybrid.log";
/// Bytes of the append-only file that are allocated ahead at least.
const AOF_AHEAD_MIN: u64 = 64 << 10;
/// How long a stop waits for the connections to finish what they are doing.
const DRAIN_MAX: Duration = Duration::from_secs(5);
const DRAIN_CHECK: Duration = Duration::from_millis(5);
/// How long a stop waits for a backend to take the spans of commands. The spans of the stop itself have their own bound.
const TELEMETRY_FLUSH_MAX: Duration = Duration::from_secs(3);

/// Why a node cannot start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}: {error} (set another with --{option})")]
    Bind { address: SocketAddr, option: &'static str, error: std::io::Error },
    #[error(transparent)]
    DataDirectory(#[from] OpenError),
    #[error("the log file {} cannot be used: {message}", path.display())]
    Log { path: PathBuf, message: String },
    #[error("cannot open {}: {error}", path.display())]
    Open { path: PathBuf, error: std::io::Error },
    #[error("{0}")]
    Failed(String),
}

/// The sockets that the workers share.
#[derive(Clone)]
struct Sockets<B> {
    clients: Vec<B>,
    /// With whether the page is there.
    admin: Vec<(B, bool)>,
}

/// What the workers of one node share while they start. `B` is the World's bound socket.
pub struct Start<B> {
    pub node: Arc<Node>,
    sockets: Mutex<Option<Sockets<B>>>,
    ready: Signal,
}

impl<B: Clone + Send> Start<B> {
    pub fn new(node: Arc<Node>) -> Arc<Self> {
        Arc::new(Self { node, sockets: Mutex::new(None), ready: Signal::default() })
    }

    /// Completes once the node accepts connections.
    pub async fn ready(&self) {
        self.ready.wait().await;
    }
}

/// Runs worker `id` on its thread until the node is shut down. The first one opens the data directory; the others wait
/// for it.
pub async fn run_worker<W: World>(
    start: Arc<Start<<W::Network as Network>::Bound>>,
    world: W,
    id: usize,
) -> Result<(), StartError> {
    let node = start.node.clone();
    let result = match id {
        0 => run_first(&start, &world).await,
        _ => run_other(&start, &world, id).await,
    };
    // Whatever ended this worker ends the others.
    node.shutdown.raise();
    result?;
    match node.failure.get() {
        Some(reason) => Err(StartError::Failed(reason.clone())),
        None => Ok(()),
    }
}

/// Serves the admin port from the moment when the node accepts connections, as tasks of `world`, which may be of a thread that has no
/// worker. Returns once they run, or at once if the node ends before.
pub async fn serve_admin<W: World>(start: &Start<<W::Network as Network>::Bound>, world: &W) {
    let node = &start.node;
    select(pin!(start.ready()), pin!(node.shutdown.wait())).await;
    let sockets = start.sockets.lock().clone();
    for (admin, page) in sockets.into_iter().flat_map(|sockets| sockets.admin) {
        let router = admin::router(node.clone(), page.then(W::Clock::monotonic_source));
        world.spawn(admin::serve(world.clone(), admin, router));
    }
}

async fn run_first<W: World>(start: &Start<<W::Network as Network>::Bound>, world: &W) -> Result<(), StartError> {
    let node = &start.node;
    let _ = node.disk_backend.set(world.disk().backend());
    node.account_for_startup();
    node.store.make_ahead(W::elsewhere());
    node.fit_pages();
    let span = cold_span!(ServerStart, ServerPort, ServerWorkers);
    cold::set(&span, Attribute::ServerWorkers, node.workers() as u64);
    let serving = cold::step(&span, start_up(start, world, &span)).await?;
    drop(span);
    node.shutdown.wait().await;
    let span = cold_span!(ServerShutdown);
    cold::step(&span, shut_down(&serving, world)).await
}

/// What the first worker has while the node serves.
struct Serving<W: World> {
    worker: Rc<Worker<W>>,
    checkpoints: Rc<Checkpoints<W>>,
    /// Locked until the last byte is written.
    _directory: DataDir<W>,
}

async fn start_up<W: World>(
    start: &Start<<W::Network as Network>::Bound>,
    world: &W,
    span: &Span,
) -> Result<Serving<W>, StartError> {
    let node = &start.node;
    // A busy port is found out before the data is read.
    let sockets = cold::step(&cold_span!(ServerBind), async { bind(node, world) }).await?;
    cold::set(span, Attribute::ServerPort, node.port().into());
    let opening = cold_span!(DataDirOpen, DataDirPath);
    cold::set_text(&opening, Attribute::DataDirPath, &node.config.storage.dir.to_string_lossy());
    let Opened { directory, rewriter, checkpoints, handle, reporter } = cold::step(&opening, open(node, world)).await?;
    drop(opening);
    *start.sockets.lock() = Some(sockets.clone());
    let worker = worker(node, world, 0, handle).await?;
    assert!(reporter.set(worker.clone()).is_ok(), "there is one first worker");
    if let Some(rewriter) = rewriter {
        world.spawn(rewrite::run(worker.clone(), rewriter));
    }
    let checkpoints = Rc::new(checkpoints);
    world.spawn(checkpoint::run(worker.clone(), checkpoints.clone()));
    world.spawn(compact::run(worker.clone(), checkpoints.clone()));
    worker.clone().start(listen(world, &sockets)?);
    start.ready.raise();
    tracing::info!(
        port = node.port(),
        workers = node.workers(),
        disk = world.disk().backend(),
        "Ready to accept connections"
    );
    Ok(Serving { worker, checkpoints, _directory: directory })
}

async fn shut_down<W: World>(serving: &Serving<W>, world: &W) -> Result<(), StartError> {
    let node = &serving.worker.node;
    let draining = cold_span!(ServerDrain, ServerConnections);
    cold::set(&draining, Attribute::ServerConnections, node.clients.len() as u64);
    drain(node, world).instrument(draining).await;
    let saved = save_at_end(serving).await;
    if let Some(aof) = node.aof() {
        let closing = cold_span!(AofClose, AofBytes);
        let close = async {
            aof.close().await.map_err(|error| StartError::Failed(error.to_string()))?;
            cold::set(&closing, Attribute::AofBytes, aof.durable());
            Ok::<_, StartError>(())
        };
        cold::step(&closing, close).await?;
    }
    flush_telemetry(node, world).await;
    // Whatever became of it, the append-only file is closed well.
    saved?;
    tracing::info!("Bye");
    Ok(())
}

/// As Redis does: with save points, or if SHUTDOWN says so, and not if SHUTDOWN says no. Unlike Redis, which then goes on, the
/// server ends with an error if it fails: its clients are gone by now.
async fn save_at_end<W: World>(serving: &Serving<W>) -> Result<(), StartError> {
    let node = &serving.worker.node;
    let wanted = node.save_at_end.get().copied().unwrap_or(!node.live.save_points.lock().is_empty());
    if !wanted || node.failure.get().is_some() {
        return Ok(());
    }
    checkpoint::save(&serving.worker, &serving.checkpoints, false)
        .await
        .map_err(|error| StartError::Failed(format!("no checkpoint could be taken at the end: {error}")))
}

/// Lets what is queued leave. A backend that does not take it in time shows in the span, and costs spans but not the
/// stop.
async fn flush_telemetry<W: World>(node: &Node, world: &W) {
    let flush = async {
        let (flushed, late) = (pin!(node.telemetry.queue.flush()), pin!(world.clock().sleep(TELEMETRY_FLUSH_MAX)));
        match select(flushed, late).await {
            Either::Left(_) => Ok(()),
            Either::Right(_) => Err(format!("spans still waited after {TELEMETRY_FLUSH_MAX:?}")),
        }
    };
    let _ = cold::step(&cold_span!(TelemetryFlush), flush).await;
}

async fn run_other<W: World>(
    start: &Start<<W::Network as Network>::Bound>,
    world: &W,
    id: usize,
) -> Result<(), StartError> {
    let node = &start.node;
    select(pin!(start.ready()), pin!(node.shutdown.wait())).await;
    // The first worker may not have got so far; it says why.
    if !start.ready.is_raised() {
        return Ok(());
    }
    let sockets = start.sockets.lock().clone().expect("they were there before it was ready");
    let handle = node.store.worker(id);
    let worker = worker(node, world, id, handle).await?;
    worker.start(listen(world, &sockets)?);
    node.shutdown.wait().await;
    drain(node, world).await;
    Ok(())
}

/// No new commands: idle connections end at once, busy ones after their batch.
async fn drain<W: World>(node: &Node, world: &W) {
    let clock = world.clock();
    let until = clock.monotonic_ns() + DRAIN_MAX.as_nanos() as u64;
    while !node.clients.is_empty() && clock.monotonic_ns() < until {
        node.clients.snapshot().iter().for_each(|client| client.kill());
        clock.sleep(DRAIN_CHECK).await;
    }
}

fn bind<W: World>(node: &Node, world: &W) -> Result<Sockets<<W::Network as Network>::Bound>, StartError> {
    let network = world.network();
    let bind = |address: SocketAddr, option| {
        network.bind(address).map_err(|error| StartError::Bind { address, option, error })
    };
    let server = &node.config.server;
    let mut clients = Vec::new();
    for &ip in &server.bind {
        // With port 0 all addresses get the port that the first one got.
        let bound = bind(SocketAddr::new(ip, node.port()), "port")?;
        if let Ok(address) = network.bound_address(&bound) {
            node.set_port(address.port());
        }
        clients.push(bound);
    }
    let admin = &node.config.admin;
    let mut listeners = Vec::new();
    if admin.enabled {
        listeners.push((bind(SocketAddr::new(admin.bind, admin.port), "admin-port")?, admin.page));
        if admin.metrics_port != 0 {
            let address = SocketAddr::new(admin.metrics_bind, admin.metrics_port);
            listeners.push((bind(address, "admin.metrics_port")?, false));
        }
    }
    Ok(Sockets { clients, admin: listeners })
}

fn listen<W: World>(
    world: &W,
    sockets: &Sockets<<W::Network as Network>::Bound>,
) -> Result<Vec<<W::Network as Network>::Listener>, StartError> {
    let network = world.network();
    sockets
        .clients
        .iter()
        .map(|bound| network.listen(bound).map_err(|error| StartError::Failed(format!("cannot listen: {error}"))))
        .collect()
}

pub(crate) fn log_path(node: &Node) -> PathBuf {
    node.config.storage.dir.join(LOG_FILE)
}

async fn worker<W: World>(
    node: &Arc<Node>,
    world: &W,
    id: usize,
    handle: WorkerHandle,
) -> Result<Rc<Worker<W>>, StartError> {
    let path = log_path(node);
    let files = LogFiles::open(world, &path).await.map_err(|error| StartError::Open { path, error })?;
    let telemetry = &node.config.telemetry;
    if id == 0 {
        // The settings were understood when the node was made.
        let warnings = telemetry.policy().map(|(_, warnings)| warnings).unwrap_or_default();
        let of_propagators = telemetry.context_in().1;
        warnings.iter().chain(&of_propagators).for_each(|warning| tracing::warn!("{warning}"));
    }
    let recorder = Recorder::new(
        W::Clock::monotonic_source(),
        &RecorderConfig {
            detail: node.span_detail(),
            keys: node.keys,
            ring: Some(Arc::clone(&node.rings()[id])),
            sampling: Arc::clone(&node.telemetry.sampling),
            export: telemetry.exports_traces(),
            pins: Arc::clone(&node.pins),
            seed: world.entropy().next_u64(),
            ..RecorderConfig::default()
        },
    );
    node.recorders.lock().push((recorder.ring(), recorder.counters()));
    Ok(Rc::new(Worker {
        id,
        node: node.clone(),
        world: world.clone(),
        device: LogDevice::new(node.store.clone(), world.clone(), files),
        handle,
        recorder: RefCell::new(recorder),
        outgoing: RefCell::new(Outgoing::new(Arc::clone(&node.telemetry.queue), telemetry.exports_traces())),
        scratch: RefCell::new(Scratch::new(world.entropy().next_u64())),
        candidates: RefCell::default(),
        eviction_fails: Cell::new(false),
        told: RefCell::default(),
        attempts: RefCell::default(),
    }))
}

/// Opens the data directory, restores a checkpoint, replays the append-only file and starts what writes on. Without a
/// checkpoint the log device's file is made anew.
async fn open<W: World>(node: &Arc<Node>, world: &W) -> Result<Opened<W>, StartError> {
    let config = DataDirConfig {
        aof: node.config.aof.enabled,
        policy: fsync_policy(node.config.aof.appendfsync),
        segment_max: node.config.aof.segment_size,
        ..DataDirConfig::new(&node.config.storage.dir)
    };
    // Who gives the server little memory does not expect it to take a lot of disk ahead.
    let mutable_bytes = (node.config.storage.mutable_region_size_mb * (1 << 20) as f64) as u64;
    let config = DataDirConfig {
        allocate_min: config.allocate_min.min(mutable_bytes.min(config.segment_max).max(AOF_AHEAD_MIN)),
        allocate_max: config.allocate_max.min((16 * mutable_bytes).min(config.segment_max).max(AOF_AHEAD_MIN)),
        ..config
    };
    let mut replay = Replay::new(node.clone(), world.clone());
    let began_ns = world.clock().monotonic_ns();
    let recovered = recover_data_dir(world, &config, &mut replay).await?;
    let took_ns = world.clock().monotonic_ns() - began_ns;
    let recovery = Recovery { took_ns, bytes: recovered.summary.bytes };
    assert!(node.work.recovery.set(recovery).is_ok(), "the data directory is opened once");
    if recovered.summary.frames > 0 {
        tracing::info!(
            frames = recovered.summary.frames,
            bytes = recovered.summary.position,
            keys = node.databases.total_keys(),
            "the append-only file was replayed"
        );
    }
    replay.end();
    // Nothing was replayed: the log is still to be made.
    replay.device().await.map_err(|error| StartError::Log { path: log_path(node), message: error.to_string() })?;
    let mut rewriter = None;
    if let Some(RecoveredAof { shared: aof, file, rewriter: its }) = recovered.aof {
        rewriter = Some(its);
        node.set_aof(aof.clone());
        let told = node.clone();
        let on_sync = move |times: SyncTimes| told.telemetry.metrics.aof_sync(times.started_ns, times.ended_ns);
        world.spawn(aof_task(aof.clone(), world.clone(), file, on_sync));
        let node = node.clone();
        world.spawn(async move {
            let error = aof.failed().await;
            node.fail(error.to_string());
        });
    }
    let checkpoints = recovered.checkpoints;
    Ok(Opened { directory: recovered.dir, rewriter, checkpoints, handle: replay.handle, reporter: replay.reporter })
}

/// An open data directory whose log was replayed.
struct Opened<W: World> {
    /// Locked for as long as this lives.
    directory: DataDir<W>,
    /// `None`: without an append-only file.
    rewriter: Option<Rewriter<W>>,
    checkpoints: Checkpoints<W>,
    handle: WorkerHandle,
    reporter: flush::Reporter<W>,
}
