//! Runs a node: worker threads on the real World, one beside them, and what ends them.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use ferrite_io::{Clock, Entropy, Network};
use ferrite_io_real::dump::{self, Part};
use ferrite_io_real::{
    DiskChoice, RealClock, RealEntropy, RealNetwork, RealWorld, Runtime, WorkerError, WorkerHandle,
    spawn_background_thread, spawn_worker_thread,
};
use ferrite_node::config::{Config, DiskBackend};
use ferrite_node::{Node, RenderConfig, Setup, Start, StartError, adopt_page_size, run_worker, serve_admin};
use ferrite_otlp::{Metrics, Telemetry};
use ferrite_telemetry::{Ring, Sampling, dump_header, dump_memory};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::config::Loaded;
use crate::{Queues, process, trace};

type Shared = Start<<RealNetwork as Network>::Bound>;

/// Why a server that was configured correctly ended with a failure.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
    #[error(transparent)]
    Node(#[from] StartError),
    #[cfg(feature = "otel")]
    #[error(transparent)]
    Export(#[from] crate::destination::Mistake),
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

/// Runs the server until a signal, SHUTDOWN or a failure ends it.
pub fn run(mut loaded: Loaded, queues: Queues, sampling: Arc<Sampling>) -> Result<(), RunError> {
    let config = &mut loaded.config;
    Runtime::new(DiskChoice::IoThreads)?.block_on(async |world| adopt_page_size(&world, config).await)?;
    let disk = disk_choice(&loaded.config);
    let workers = workers(&loaded.config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before any worker: a signal during the start must not be lost.
        let signal = shutdown_signal()?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let node = Node::new(setup(loaded, workers, queues, sampling));
        if let Err(error) = dump_at_crashes(&node) {
            tracing::warn!(%error, "a crash will not leave the flight recorder behind");
        }
        let start = Start::new(node.clone());
        let mut signals = pin!(stop_on_signals(signal, node.clone()));
        let (stop, stopped) = oneshot::channel();
        let beside = {
            let start = start.clone();
            // First, since it exports what the start tells.
            spawn_background_thread("ferrite-export", move |world| beside(world, start, stopped))?
        };
        let mut handles = Vec::new();
        for number in 0..workers {
            let start = start.clone();
            let name = format!("ferrite-wrk-{number}");
            // One worker may be scheduled anywhere; several keep to their cores.
            let core = (workers > 1).then_some(number);
            handles.push(spawn_worker_thread(&name, core, disk, move |world| worker(world, number, start))?);
        }
        let mut ended = pin!(all_ended(handles, beside, stop, &node));
        poll_fn(|cx| {
            let _never = signals.as_mut().poll(cx);
            ended.as_mut().poll(cx)
        })
        .await
    })
}

/// The flight recorder's files in the data directory.
const CRASH_FILE: &str = "flight-recorder.crash";
const REQUEST_FILE: &str = "flight-recorder.quit";

/// Has a crash and SIGQUIT write the flight recorders to a file. They are there until the process ends.
fn dump_at_crashes(node: &Arc<Node>) -> io::Result<()> {
    let rings: &'static [Arc<Ring>] = Vec::leak(node.rings().to_vec());
    let header = dump_header(&rings.iter().map(|ring| &**ring).collect::<Vec<_>>(), &trace::notes(node));
    let memory = rings.iter().flat_map(|ring| dump_memory(ring)).map(Part::Words);
    let parts = [Part::Bytes(Vec::leak(header))].into_iter().chain(memory).collect();
    let dir = &node.config.storage.dir;
    dump::install(&dir.join(CRASH_FILE), &dir.join(REQUEST_FILE), parts)
}

fn setup(loaded: Loaded, workers: usize, queues: Queues, sampling: Arc<Sampling>) -> Setup {
    let Loaded { config, sources, .. } = loaded;
    let config_file = sources.file.as_ref().map(|file| file.path.clone()).map(|path| {
        let render: RenderConfig =
            Box::new(move |text, config| sources.rewritten(text, config).map_err(|problems| problems.to_string()));
        (path, render)
    });
    let mut metrics = Metrics::new(workers, ferrite_commands::table::index_count());
    if config.has_native_histograms() {
        metrics = metrics.with_native_histograms();
    }
    let telemetry =
        Telemetry { metrics, queue: queues.spans, logs: queues.logs, metric_exports: Arc::default(), sampling };
    let clock = RealClock::default();
    Setup {
        workers,
        process_id: std::process::id(),
        executable: std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default(),
        os: process::os(),
        config_file,
        process: Box::new(process::figures),
        seed: RealEntropy::default().next_u64(),
        started_unix_ns: clock.unix_ns(),
        started_monotonic_ns: clock.monotonic_ns(),
        telemetry,
        config,
    }
}

/// One worker's life.
async fn worker(world: RealWorld, number: usize, start: Arc<Shared>) -> Result<(), RunError> {
    if number == 0
        && let Some(reason) = ferrite_io::World::disk(&world).fallback_reason()
    {
        tracing::warn!(%reason, "io_uring is not available: io-threads serve the disk");
    }
    Ok(run_worker(start, world, number).await?)
}

/// What no command waits for, on a thread that gives way to the workers: the export and the admin port. Ends when it is told to, or if
/// it cannot begin.
async fn beside(world: RealWorld, start: Arc<Shared>, stopped: oneshot::Receiver<()>) -> Result<(), RunError> {
    #[cfg(feature = "otel")]
    let export = crate::export::spawn(&world, &start.node)?;
    serve_admin(&start, &world).await;
    // Who could tell is gone: that is an end too.
    drop(stopped.await);
    #[cfg(feature = "otel")]
    export.finish().await;
    Ok(())
}

type Ended = WorkerHandle<Result<(), RunError>>;

/// Waits for every worker, then tells what runs beside them to end, and waits for that: the last commands and the stop itself have
/// spans too. The first that ends, for whatever reason, ends the workers; the first failure is the process's.
async fn all_ended(
    mut workers: Vec<Ended>,
    beside: Ended,
    stop: oneshot::Sender<()>,
    node: &Node,
) -> Result<(), RunError> {
    let mut outcome = Ok(());
    let mut beside = Some(beside);
    let mut stop = Some(stop);
    poll_fn(|cx| {
        let mut has_ended = |handle: &mut Ended| {
            let Poll::Ready(result) = Pin::new(handle).poll(cx) else {
                return false;
            };
            node.shutdown.raise();
            if outcome.is_ok() {
                outcome = result.map_err(RunError::from).flatten();
            }
            true
        };
        workers.retain_mut(|handle| !has_ended(handle));
        if workers.is_empty()
            && let Some(stop) = stop.take()
        {
            // It may have ended by itself.
            let _ = stop.send(());
        }
        if beside.as_mut().is_some_and(has_ended) {
            beside = None;
        }
        if workers.is_empty() && beside.is_none() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outcome
}

/// Stops the node at the first SIGTERM or SIGINT and ends the process at the second, which does not wait for the
/// drain (as in Redis). Never ready.
async fn stop_on_signals(first: impl Future<Output = ()>, node: Arc<Node>) {
    first.await;
    tracing::info!("a signal asks for the end: draining");
    node.shutdown.raise();
    // Listening again can only fail for want of memory; the drain goes on then.
    if let Ok(second) = shutdown_signal() {
        second.await;
        std::process::exit(1);
    }
    std::future::pending().await
}

/// Listens for SIGTERM and SIGINT from now on; the future is ready at the first.
pub fn shutdown_signal() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(poll_fn(move |cx| {
        if terminate.poll_recv(cx).is_ready() || interrupt.poll_recv(cx).is_ready() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }))
}

fn workers(config: &Config) -> usize {
    match config.server.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    }
}

fn disk_choice(config: &Config) -> DiskChoice {
    match config.storage.disk_backend {
        // A build without the feature never touches io_uring unless told to.
        DiskBackend::Auto if !cfg!(feature = "io-uring") => DiskChoice::IoThreads,
        DiskBackend::Auto => DiskChoice::Auto,
        DiskBackend::IoUring => DiskChoice::IoUring,
        DiskBackend::IoThreads => DiskChoice::IoThreads,
    }
}
