//! What all workers share: configuration, databases, store, AOF, clients, statistics. Nothing in it waits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use ferrite_commands::Slowlog;
use ferrite_hybridlog::aof::{Aof, FsyncPolicy};
use ferrite_hybridlog::{Store, StoreConfig};
use ferrite_keyspace::{Databases, Encodings, MemoryLimits, decode_object};
use ferrite_otlp::Telemetry;
use ferrite_telemetry::{Counters, Detail, KeptTrace, Keys, Pins, RING_BYTES_DEFAULT, Ring, Shape};
use parking_lot::Mutex;

use crate::clients::Clients;
use crate::config::{AppendFsync, Config, SpanDetail};
use crate::context::ContextIn;
use crate::live::Live;
use crate::memory::MemoryStatus;
use crate::rewrite_status::RewriteStatus;
use crate::save_status::SaveStatus;
use crate::signal::Signal;
use crate::space::SpaceStatus;
use crate::stats::{Totals, WorkerStats};
use crate::work::Work;

/// What the operating system says of the process; the binary knows how to ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessFigures {
    pub rss_bytes: u64,
    pub system_memory_bytes: u64,
    pub cpu_user_s: f64,
    pub cpu_system_s: f64,
}

/// Renders a configuration file's new text from its old one: the old text's comments and order are kept.
pub type RenderConfig = Box<dyn Fn(&str, &Config) -> Result<String, String> + Send + Sync>;

/// Everything a node is built from.
pub struct Setup {
    pub config: Config,
    /// Worker threads: `config.server.workers` with 0 resolved.
    pub workers: usize,
    pub process_id: u32,
    pub executable: String,
    pub os: String,
    /// The file of `--config` and how CONFIG REWRITE writes it.
    pub config_file: Option<(PathBuf, RenderConfig)>,
    pub process: Box<dyn Fn() -> ProcessFigures + Send + Sync>,
    /// Seeds ids and hash keys: from World's entropy.
    pub seed: u64,
    /// World's clocks at the start.
    pub started_unix_ns: u64,
    pub started_monotonic_ns: u64,
    pub telemetry: Telemetry,
}

/// One running server, shared by its workers.
pub struct Node {
    pub config: Config,
    pub live: Live,
    pub databases: Databases,
    pub store: Arc<Store>,
    /// Set once the data directory is open; stays empty without `aof.enabled`.
    aof: OnceLock<Arc<Aof>>,
    pub rewrite: RewriteStatus,
    pub(crate) memory: MemoryStatus,
    pub saves: SaveStatus,
    pub space_status: SpaceStatus,
    pub(crate) work: Work,
    /// Held while a rewrite or a checkpoint is made: there is one at a time.
    pub(crate) background: tokio::sync::Mutex<()>,
    /// What SHUTDOWN said about a checkpoint at the end, if it said anything.
    pub(crate) save_at_end: OnceLock<bool>,
    pub clients: Clients,
    pub slowlog: Slowlog,
    pub telemetry: Telemetry,
    pub(crate) context_in: ContextIn,
    /// How spans look to clients.
    pub(crate) shape: Shape,
    /// What may be told of keys.
    pub(crate) keys: Keys,
    pub shutdown: Signal,
    /// Why the process must end with an error, if it must.
    pub failure: OnceLock<String>,
    pub stats: Box<[WorkerStats]>,
    pub statistics_reset: Mutex<Totals>,
    /// Error replies by their prefix.
    pub errors: Mutex<BTreeMap<String, u64>>,
    /// Traces that something names, and so are kept beyond the flight recorders.
    pub(crate) pins: Arc<Pins>,
    /// The workers' flight recorders.
    rings: Box<[Arc<Ring>]>,
    /// Those and their counters, filled as the workers start.
    pub(crate) recorders: Mutex<Vec<(Arc<Ring>, Arc<Counters>)>>,
    port: AtomicU16,
    pub disk_backend: OnceLock<&'static str>,
    pub run_id: String,
    pub replication_id: String,
    pub seed: u64,
    pub process_id: u32,
    pub executable: String,
    pub os: String,
    pub config_file: Option<(PathBuf, RenderConfig)>,
    pub process: Box<dyn Fn() -> ProcessFigures + Send + Sync>,
    pub started_unix_ns: u64,
    pub started_monotonic_ns: u64,
}

impl Node {
    pub fn new(setup: Setup) -> Arc<Node> {
        let config = setup.config;
        let store = Store::with_objects(store_config(&config, setup.workers, setup.seed), decode_object);
        let encodings = Encodings {
            hash_max_listpack_entries: AtomicUsize::new(config.server.hash_max_listpack_entries),
            hash_max_listpack_value: AtomicUsize::new(config.server.hash_max_listpack_value),
        };
        let limits = MemoryLimits::default();
        limits.maxmemory.store(config.server.maxmemory, Ordering::Relaxed);
        limits.set_policy(config.server.maxmemory_policy);
        limits.samples.store(config.server.maxmemory_samples, Ordering::Relaxed);
        limits.lfu_log_factor.store(config.server.lfu_log_factor, Ordering::Relaxed);
        limits.lfu_decay_time.store(config.server.lfu_decay_time, Ordering::Relaxed);
        let ring_bytes = if config.telemetry.traces_enabled { RING_BYTES_DEFAULT } else { 0 };
        let databases = Databases::new(config.server.databases as u32).with_encodings(encodings).with_limits(limits);
        Arc::new(Node {
            live: Live::new(&config),
            databases,
            store,
            aof: OnceLock::new(),
            rewrite: RewriteStatus::default(),
            memory: MemoryStatus::default(),
            saves: SaveStatus::default(),
            space_status: SpaceStatus::default(),
            work: Work::default(),
            background: tokio::sync::Mutex::default(),
            save_at_end: OnceLock::new(),
            clients: Clients::default(),
            slowlog: Slowlog::new(config.server.slowlog_log_slower_than, config.server.slowlog_max_len),
            telemetry: setup.telemetry,
            context_in: config.telemetry.context_in().0,
            shape: config.telemetry.shape(),
            keys: config.telemetry.redaction.recorded_keys(),
            shutdown: Signal::default(),
            failure: OnceLock::new(),
            stats: (0..setup.workers).map(|_| WorkerStats::default()).collect(),
            statistics_reset: Mutex::default(),
            errors: Mutex::default(),
            pins: Arc::default(),
            rings: (0..setup.workers).map(|_| Arc::new(Ring::new(ring_bytes))).collect(),
            recorders: Mutex::default(),
            port: AtomicU16::new(config.server.port),
            disk_backend: OnceLock::new(),
            run_id: hexadecimal(setup.seed, 1),
            replication_id: hexadecimal(setup.seed, 2),
            seed: setup.seed,
            process_id: setup.process_id,
            executable: setup.executable,
            os: setup.os,
            config_file: setup.config_file,
            process: setup.process,
            started_unix_ns: setup.started_unix_ns,
            started_monotonic_ns: setup.started_monotonic_ns,
            config,
        })
    }

    /// The flight recorder of each worker.
    pub fn rings(&self) -> &[Arc<Ring>] {
        &self.rings
    }

    pub fn workers(&self) -> usize {
        self.stats.len()
    }

    pub fn aof(&self) -> Option<&Arc<Aof>> {
        self.aof.get()
    }

    pub(crate) fn set_aof(&self, aof: Arc<Aof>) {
        assert!(self.aof.set(aof).is_ok(), "the data directory is opened once");
    }

    /// The policy in force; as configured where there is no AOF.
    pub fn fsync_policy(&self) -> FsyncPolicy {
        self.aof().map_or(fsync_policy(self.config.aof.appendfsync), |aof| aof.policy())
    }

    /// With save points, from a checkpoint that failed until one succeeds: writes are refused, if the configuration says so.
    #[inline]
    pub(crate) fn writes_are_stopped(&self) -> bool {
        self.saves.last_failed()
            && self.live.stop_writes_on_bgsave_error.load(Ordering::Relaxed)
            && !self.live.save_points.lock().is_empty()
    }

    pub fn set_fsync_policy(&self, policy: FsyncPolicy) {
        if let Some(aof) = self.aof() {
            aof.set_policy(policy);
        }
    }

    /// The port that is listened on: with `port = 0` known once the socket is bound.
    pub fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    pub(crate) fn set_port(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
    }

    /// What the workers have done since the start or CONFIG RESETSTAT.
    pub fn totals(&self) -> Totals {
        Totals::of(self.stats.iter()).since(*self.statistics_reset.lock())
    }

    /// Ends the node because of `reason`; the process must exit with an error.
    pub fn fail(&self, reason: String) {
        tracing::error!(%reason, "the server ends");
        // The first reason is the one that counts.
        let _ = self.failure.set(reason);
        self.shutdown.raise();
    }

    /// Counts an error reply by its prefix.
    #[cold]
    pub(crate) fn count_error(&self, text: &[u8]) {
        let prefix = String::from_utf8_lossy(text.split(|&byte| byte == b' ').next().unwrap_or_default()).into_owned();
        *self.errors.lock().entry(prefix).or_default() += 1;
    }

    /// What every worker's flight recorder gives, what ended last first.
    pub fn traces(&self, read: impl Fn(&Ring) -> Vec<KeptTrace>) -> Vec<KeptTrace> {
        self.traces_beside(read, Vec::new())
    }

    /// The same beside what is kept beyond the recorders.
    pub(crate) fn traces_beside(&self, read: impl Fn(&Ring) -> Vec<KeptTrace>, kept: Vec<KeptTrace>) -> Vec<KeptTrace> {
        let rings: Vec<Arc<Ring>> = self.recorders.lock().iter().map(|(ring, _)| Arc::clone(ring)).collect();
        let mut found: Vec<KeptTrace> = rings.iter().flat_map(|ring| read(ring)).chain(kept).collect();
        found.sort_by_key(|trace| std::cmp::Reverse((trace.end_ns(), trace.start_ns(), trace.root_id())));
        // What is kept may be in a ring still.
        found.dedup_by_key(|trace| (trace.trace_id(), trace.root_id()));
        found
    }

    /// The recorder's detail; `None` when recording is off.
    pub(crate) fn span_detail(&self) -> Option<Detail> {
        self.config.telemetry.traces_enabled.then_some(match self.config.telemetry.span_detail {
            SpanDetail::Command => Detail::Command,
            SpanDetail::Storage => Detail::Storage,
            SpanDetail::Full => Detail::Full,
        })
    }
}

pub(crate) fn fsync_policy(configured: AppendFsync) -> FsyncPolicy {
    match configured {
        AppendFsync::Always => FsyncPolicy::Always,
        AppendFsync::Everysec => FsyncPolicy::EverySec,
        AppendFsync::No => FsyncPolicy::No,
    }
}

/// Pages: a region needs a few of them, so that one can be flushed while others take writes.
const PAGES_PER_REGION_MIN: usize = 4;
const PAGE_BYTES_MIN: usize = 4096;
/// The kernel maps and locks a page in one go, which takes a worker 8 ms for 32 MiB.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Bytes of a page if the configuration does not say it: what the mutable region has room for.
pub(crate) fn derived_page_size(config: &Config) -> usize {
    let mutable = (config.storage.mutable_region_size_mb * (1 << 20) as f64) as usize;
    let largest = (mutable / PAGES_PER_REGION_MIN).clamp(PAGE_BYTES_MIN, PAGE_BYTES_MAX);
    // The power of two at or below it.
    1 << largest.ilog2()
}

fn store_config(config: &Config, workers: usize, seed: u64) -> StoreConfig {
    let storage = &config.storage;
    let bytes = |mb: f64| (mb * (1 << 20) as f64) as usize;
    let mutable = bytes(storage.mutable_region_size_mb);
    let read_only = bytes(storage.read_only_region_size_mb);
    let page_size = match storage.page_size {
        0 => derived_page_size(config),
        bytes => bytes as usize,
    };
    const BUCKET_BYTES: usize = 64;
    StoreConfig {
        page_size,
        mutable_pages: (mutable / page_size).max(2),
        read_only_pages: (read_only / page_size).max(1),
        index_buckets: (bytes(storage.index_size_mb) / BUCKET_BYTES).max(64).next_power_of_two(),
        workers,
        hash_seed: seed,
    }
}

/// 40 hexadecimal digits that follow from the seed, as Redis's run id has.
fn hexadecimal(seed: u64, salt: u64) -> String {
    let mut ids = ferrite_telemetry::IdGenerator::new(seed ^ salt);
    let digits = format!("{:016x}{:016x}{:016x}", ids.next_u64(), ids.next_u64(), ids.next_u64());
    digits[..40].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiny_regions_get_tiny_pages() {
        let mut config = Config::default();
        config.storage.mutable_region_size_mb = 0.015625;
        config.storage.read_only_region_size_mb = 0.015625;
        let store = store_config(&config, 1, 0);
        assert_eq!((store.page_size, store.mutable_pages, store.read_only_pages), (4096, 4, 4));
    }

    #[test]
    fn run_ids_have_forty_digits_and_differ() {
        assert_eq!(hexadecimal(7, 1).len(), 40);
        assert_ne!(hexadecimal(7, 1), hexadecimal(7, 2));
    }
}
