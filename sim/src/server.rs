//! The real server in the simulated World: the same node, workers and store that the binary runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ferrite_commands::table;
use ferrite_io::{Clock, Entropy, World};
use ferrite_node::config::{AppendFsync, Config};
use ferrite_node::{Node, ProcessFigures, RenderConfig, Setup, Start, StartError, run_worker, serve_admin};
use ferrite_otlp::{ExportQueue, LogQueue, Metrics, Telemetry};
use ferrite_telemetry::{Sampling, SpanName};

use crate::net::SimBound;
use crate::sim::Sim;
use crate::world::SimWorld;

/// Bytes of a page: the smallest, so that little data crosses all tiers.
pub const PAGE_BYTES: usize = 4096;
/// Pages of the mutable region, and of the read-only one.
pub const REGION_PAGES: usize = 4;
/// The data directory.
pub const DATA: &str = "/data";

/// How often the marks look at the store.
const LOOK: Duration = Duration::from_millis(5);
/// Behind so many commands it finds what was recorded since the last look. The whole flight recorder would take longer to read
/// than everything else that is simulated.
const COMMANDS_IN_A_LOOK: usize = 200;

/// A server on one address with tiny regions, without an admin page, that exports nothing.
pub fn config(address: SocketAddr, appendfsync: AppendFsync) -> Config {
    let region_mb = (REGION_PAGES * PAGE_BYTES) as f64 / f64::from(1 << 20);
    let mut config = Config::default();
    config.server.bind = vec![address.ip()];
    config.server.port = address.port();
    config.storage.dir = PathBuf::from(DATA);
    config.storage.page_size = PAGE_BYTES as u64;
    config.storage.mutable_region_size_mb = region_mb;
    config.storage.read_only_region_size_mb = region_mb;
    // Scenarios draw one: see `with_read_cache`.
    config.storage.read_cache_size_mb = 0.0;
    // The least that there is: chains get long.
    config.storage.index_size_mb = 0.0;
    config.aof.appendfsync = appendfsync;
    config.admin.enabled = false;
    config
}

/// With a read cache of some records, one that holds everything, or none.
pub fn with_read_cache(world: &SimWorld, mut config: Config) -> Config {
    let bytes = *[0, 8 << 10, 32 << 10, 1 << 20].get(world.entropy().next_u64() as usize % 4).expect("one of four");
    config.storage.read_cache_size_mb = f64::from(bytes) / f64::from(1 << 20);
    config
}

/// A node that is starting: its workers run on the host of the world.
pub struct Starting {
    pub node: Arc<Node>,
    start: Arc<Start<SimBound>>,
}

impl Starting {
    /// Completes once it accepts connections.
    pub async fn ready(&self) {
        self.start.ready().await;
    }
}

/// Starts a node with `config.server.workers` workers. To be called by a task of the world's host.
///
/// # Panics
/// The workers' tasks, if the node cannot start or fails: scenarios expect a server that holds.
pub fn start(world: &SimWorld, config: Config) -> Starting {
    launch(world, config, None, |id, result| {
        if let Err(error) = result {
            panic!("worker {id}: {error}");
        }
    })
}

/// Starts a node, with a configuration file or without; `ended` hears of each worker's end.
pub fn launch(
    world: &SimWorld,
    config: Config,
    config_file: Option<(PathBuf, RenderConfig)>,
    ended: impl Fn(usize, Result<(), StartError>) + Clone + 'static,
) -> Starting {
    launch_beside(0, world, config, config_file, ended)
}

/// As [`launch`], with room in the store for `others` workers more: whoever takes their handles may do on another thread what only
/// happens between two of them.
pub fn launch_beside(
    others: usize,
    world: &SimWorld,
    config: Config,
    config_file: Option<(PathBuf, RenderConfig)>,
    ended: impl Fn(usize, Result<(), StartError>) + Clone + 'static,
) -> Starting {
    let workers = config.server.workers.max(1);
    let mut metrics = Metrics::new(workers + others, table::index_count());
    if config.has_native_histograms() {
        metrics = metrics.with_native_histograms();
    }
    let node = Node::new(Setup {
        workers: workers + others,
        process_id: 1,
        executable: "ferrite".to_owned(),
        os: "simulated".to_owned(),
        config_file,
        process: Box::new(ProcessFigures::default),
        seed: world.entropy().next_u64(),
        started_unix_ns: world.clock().unix_ns(),
        started_monotonic_ns: world.clock().monotonic_ns(),
        telemetry: Telemetry {
            metrics,
            queue: Arc::new(ExportQueue::new(config.telemetry.queue_size, config.telemetry.batch_size)),
            logs: Arc::new(LogQueue::new(config.telemetry.logs_queue_size, config.telemetry.logs_batch_size)),
            metric_exports: Arc::default(),
            sampling: Sampling::new(config.telemetry.policy().expect("the configuration is valid").0),
        },
        config,
    });
    let start = Start::new(node.clone());
    if node.config.admin.enabled {
        let (start, own) = (start.clone(), world.clone());
        world.spawn(async move { serve_admin(&start, &own).await });
    }
    for id in 0..workers {
        let (start, own, ended) = (start.clone(), world.clone(), ended.clone());
        world.spawn(async move { ended(id, run_worker(start, own, id).await) });
    }
    Starting { node, start }
}

/// Marks what a start did before it served anybody.
async fn mark_start(sim: Sim, node: Arc<Node>, start: Arc<Start<SimBound>>) {
    start.ready().await;
    let unseen = node.databases.unseen.figures();
    if unseen.pending + unseen.settled > 0 {
        sim.sometimes("a start left what it overwrote to be looked at");
    }
    if node.store.stats().disk_reads > 0 {
        sim.sometimes("a start read what it was to ask for");
    }
}

/// As [`start`], for as long as the host lives; marks what the store reached.
pub async fn serve(world: SimWorld, config: Config) {
    let starting = start(&world, config);
    watch(world, starting).await;
}

/// Marks what a node reaches, for as long as its host lives.
pub async fn watch(world: SimWorld, starting: Starting) {
    let sim = world.sim();
    let _death = Death { sim: sim.clone(), node: starting.node.clone() };
    world.spawn(mark_start(sim.clone(), starting.node.clone(), starting.start.clone()));
    let first_buckets = starting.node.store.stats().index_buckets;
    let mut most_buckets = first_buckets;
    let mut first_begin = None;
    let (mut looked, mut seen) = (0, false);
    let (mut evictions, mut eviction_seen) = (0, false);
    loop {
        world.clock().sleep(LOOK).await;
        let stats = starting.node.store.stats();
        if stats.read_only_bytes > 0 {
            sim.sometimes("a page became read-only");
        }
        if stats.disk_reads > 0 {
            sim.sometimes("a record was read from disk");
        }
        if starting.node.store.read_cache.stats().hits > 0 {
            sim.sometimes("a record was found in the read cache");
        }
        let unseen = starting.node.databases.unseen.figures();
        if unseen.pending > 0 {
            sim.sometimes("a write had not seen what it replaced");
        }
        if unseen.existed > 0 {
            sim.sometimes("what a write had replaced was found");
        }
        if unseen.settled > unseen.existed {
            sim.sometimes("a write had replaced nothing");
        }
        if unseen.waited > 0 {
            sim.sometimes("keys were counted while a write had not seen what it replaced");
        }
        if unseen.read_errors > 0 {
            sim.sometimes("what a write had replaced could not be read");
        }
        if stats.extents > 0 {
            sim.sometimes("a large value was written to its extent");
        }
        if stats.object_reads > 0 {
            sim.sometimes("a large value was read from its extent");
        }
        // Where a checkpoint was restored it begins further up.
        if stats.begin > *first_begin.get_or_insert(stats.begin) {
            sim.sometimes("the log was compacted");
        }
        let space = &starting.node.space_status;
        if space.bytes_kept.load(Relaxed) > 0 {
            sim.sometimes("an old record was copied");
        }
        if space.bytes_freed.load(Relaxed) > 0 {
            sim.sometimes("space was given back");
        }
        if space.failures.load(Relaxed) > 0 {
            sim.sometimes("a compaction failed");
        }
        if stats.index_buckets > 2 * first_buckets {
            sim.sometimes("the index doubled");
        }
        most_buckets = most_buckets.max(stats.index_buckets);
        if stats.index_buckets < most_buckets / 2 {
            sim.sometimes("the index shrank");
        }
        if stats.index_overflow_buckets > 0 {
            sim.sometimes("a bucket overflowed");
        }
        let rewrite = starting.node.rewrite.figures();
        if !seen && rewrite.done > looked && rewrite.running_since_ns.is_none() {
            looked = rewrite.done;
            let traces = starting.node.traces(|ring| ring.last(COMMANDS_IN_A_LOOK));
            seen = traces.iter().any(|trace| trace.name() == SpanName::AofRewrite);
            if seen {
                sim.sometimes("a rewrite was recorded");
            }
        }
        let evicted = starting.node.databases.figures().evicted_keys;
        if !eviction_seen && evicted > evictions {
            evictions = evicted;
            let traces = starting.node.traces(|ring| ring.last(COMMANDS_IN_A_LOOK));
            eviction_seen = traces.iter().any(|trace| trace.name() == SpanName::Eviction);
            if eviction_seen {
                sim.sometimes("an eviction was recorded");
            }
        }
        let saves = starting.node.saves.figures();
        if saves.done > 0 {
            sim.sometimes("a checkpoint was taken");
        }
        if saves.keys_loaded > 0 {
            sim.sometimes("a checkpoint was restored");
        }
        if rewrite.last_took_s.is_some() {
            sim.sometimes(if rewrite.failed_in_a_row > 0 { "a rewrite failed" } else { "a rewrite was done" });
        }
    }
}

/// Sees in what a process died: it is dropped with its tasks.
struct Death {
    sim: Sim,
    node: Arc<Node>,
}

impl Drop for Death {
    fn drop(&mut self) {
        if self.node.rewrite.figures().running_since_ns.is_some() {
            self.sim.sometimes("died in a rewrite");
        }
        if self.node.saves.figures().running_since_ns.is_some() {
            self.sim.sometimes("died in a checkpoint");
        }
    }
}
