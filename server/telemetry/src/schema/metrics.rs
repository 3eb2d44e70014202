//! Metrics: names, instruments, units and labels.

use super::names;

/// What kind of series a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Instrument {
    /// Only grows.
    Counter,
    /// A value at a moment.
    Gauge,
    /// A distribution over these upper bounds (in the metric's unit); one more bucket takes the rest.
    Histogram(&'static [f64]),
}

names! {
    /// The label of a metric.
    Label {
        /// The command's normalised name.
        Command = "command",
        /// The database's number.
        Db = "db",
        /// The tier of the log.
        Tier = "tier",
        /// A replica's address.
        Replica = "replica",
        /// Why spans were lost, or what chose them.
        Reason = "reason",
        /// How a run of the server's own work ended.
        Result = "result",
        /// What memory is taken for.
        Account = "account",
    }
}

names! {
    /// How a run of the server's own work ended: the label of the counters of runs.
    RunResult {
        /// It has done what it was begun for.
        Ok = "ok",
        /// It has not: the disk refused, or the server ended.
        Error = "error",
    }
}

names! {
    /// Why spans, data points or log records did not reach the exporter or the backend.
    DropReason {
        /// The export queue was full.
        QueueFull = "queue_full",
        /// The backend could not be reached, or was not ready for them, after all retries.
        ExportFailed = "export_failed",
        /// The backend refused them for good.
        Rejected = "rejected",
        /// A command had more spans than are kept for one.
        SpanLimit = "span_limit",
        /// A batch had more commands than can be told apart.
        BatchLimit = "batch_limit",
    }
}

names! {
    /// Why a trace is exported: the label of `ferrite.telemetry.spans.sampled.total`.
    SampledBy {
        /// The sampler chose it.
        Sampler = "sampler",
        /// Its caller did.
        Parent = "parent",
        /// A rate of the command's own.
        Command = "command",
        /// A rate of the tenant.
        Tenant = "tenant",
        /// It failed.
        Error = "error",
        /// It was slow.
        Slow = "slow",
        /// It has an attribute that is asked for.
        Attribute = "attribute",
    }
}

/// Upper bounds of `ferrite.command.duration`, in seconds: from a hit in memory to a stuck disk.
pub const DURATION_BOUNDS: &[f64] = &[
    0.000_001, 0.000_002, 0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005,
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Upper bounds of `ferrite.aof.sync.duration` and `ferrite.flush.duration`, in seconds.
pub const SYNC_BOUNDS: &[f64] =
    &[0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// A declared metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// The name over OTLP, with dots.
    pub name: &'static str,
    pub instrument: Instrument,
    /// In the notation of UCUM.
    pub unit: &'static str,
    pub label: Option<Label>,
    pub description: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $name:literal, $instrument:expr, $unit:literal, $label:expr, $description:literal;)+) => {
        impl Metric {
            $(#[doc = $description]
            pub const $constant: Metric = Metric {
                name: $name, instrument: $instrument, unit: $unit, label: $label, description: $description,
            };)+
        }

        /// Every metric: the eighteen that the documentation lists, then those of the engine, then those about telemetry itself.
        pub const METRICS: &[Metric] = &[$(Metric::$constant),+];
    };
}

use Instrument::{Counter, Gauge, Histogram};

metrics! {
    COMMANDS_TOTAL = "ferrite.commands.total", Counter, "{commands}", Some(Label::Command),
        "Total commands processed, labeled by command";
    COMMAND_DURATION = "ferrite.command.duration", Histogram(DURATION_BOUNDS), "s", Some(Label::Command),
        "Command latency distribution, labeled by command";
    MEMORY_USED = "ferrite.memory.used", Gauge, "By", None, "Current memory consumption in bytes";
    MEMORY_MAX = "ferrite.memory.max", Gauge, "By", None, "Configured maximum memory";
    CONNECTIONS_ACTIVE = "ferrite.connections.active", Gauge, "{connections}", None, "Current active client connections";
    CONNECTIONS_TOTAL = "ferrite.connections.total", Counter, "{connections}", None,
        "Total connections opened since start";
    CACHE_HIT_RATE = "ferrite.cache.hit.rate", Gauge, "1", None,
        "Ratio of mutable-region hits to total reads (0.0-1.0)";
    CACHE_HITS_TOTAL = "ferrite.cache.hits.total", Counter, "{hits}", None, "Total mutable-region cache hits";
    CACHE_MISSES_TOTAL = "ferrite.cache.misses.total", Counter, "{misses}", None, "Total mutable-region cache misses";
    HYBRIDLOG_TIER_SIZE = "ferrite.hybridlog.tier.size", Gauge, "By", Some(Label::Tier),
        "Size of each HybridLog tier, labeled by tier";
    KEYS_TOTAL = "ferrite.keys.total", Gauge, "{keys}", Some(Label::Db), "Total keys stored, labeled by db";
    KEYS_EXPIRED_TOTAL = "ferrite.keys.expired.total", Counter, "{keys}", None, "Keys removed by TTL expiration";
    KEYS_EVICTED_TOTAL = "ferrite.keys.evicted.total", Counter, "{keys}", None, "Keys evicted due to memory pressure";
    NETWORK_BYTES_RECEIVED = "ferrite.network.bytes.received", Counter, "By", None,
        "Total bytes received from clients";
    NETWORK_BYTES_SENT = "ferrite.network.bytes.sent", Counter, "By", None, "Total bytes sent to clients";
    REPLICATION_LAG = "ferrite.replication.lag", Gauge, "By", Some(Label::Replica),
        "Replication lag in bytes, labeled by replica";
    AOF_SYNC_DURATION = "ferrite.aof.sync.duration", Histogram(SYNC_BOUNDS), "s", None,
        "AOF fsync latency distribution";
    EPOCH_CURRENT = "ferrite.epoch.current", Gauge, "{epoch}", None, "Current epoch number";
    TIER_HITS_TOTAL = "ferrite.hybridlog.tier.hits.total", Counter, "{hits}", Some(Label::Tier),
        "Reads that found their key, labeled by the tier in which it lay";
    TIER_HIT_RATE = "ferrite.hybridlog.tier.hit.rate", Gauge, "1", Some(Label::Tier),
        "Share of all reads that found their key in a tier (0.0-1.0), labeled by tier";
    EPOCH_LAG = "ferrite.epoch.lag", Gauge, "{epoch}", None,
        "By how many epochs the oldest batch under way is behind the current one";
    FLUSH_DURATION = "ferrite.flush.duration", Histogram(SYNC_BOUNDS), "s", None,
        "Time from the first write of a flush run to the end of its last";
    FLUSH_PAGES_TOTAL = "ferrite.flush.pages.total", Counter, "{pages}", None,
        "Pages of the log written to its file";
    FLUSH_BYTES_TOTAL = "ferrite.flush.bytes.total", Counter, "By", None,
        "Bytes that flushes wrote: pages of the log and the objects of their records";
    FLUSH_PAGES_IN_FLIGHT = "ferrite.flush.pages.in_flight", Gauge, "{pages}", None, "Pages that are being written";
    FLUSH_ERRORS_TOTAL = "ferrite.flush.errors.total", Counter, "{errors}", None,
        "Writes of flushes that the disk refused; each is tried again";
    CHECKSUM_ERRORS_TOTAL = "ferrite.storage.checksum_errors.total", Counter, "{errors}", None,
        "Records and pages that did not read back as they were written";
    INDEX_BUCKETS = "ferrite.hybridlog.index.buckets", Gauge, "{buckets}", None, "Buckets of the hash index";
    INDEX_OVERFLOW_BUCKETS = "ferrite.hybridlog.index.overflow.buckets", Gauge, "{buckets}", None,
        "Buckets of the hash index beyond the first of a chain";
    INDEX_CHAIN_LONGEST = "ferrite.hybridlog.index.chain.longest", Gauge, "{buckets}", None,
        "Buckets of the hash index's longest chain, the first included";
    INDEX_ENTRIES = "ferrite.hybridlog.index.entries", Gauge, "{entries}", None, "Entries of the hash index";
    INDEX_SIZE = "ferrite.hybridlog.index.size", Gauge, "By", None, "Memory of the hash index";
    MEMORY_PER_KEY = "ferrite.memory.per.key", Gauge, "By", None,
        "Memory beyond what the server took at its start, by key; on whatever tier the keys lie";
    SPACE_AMPLIFICATION = "ferrite.storage.space_amplification", Gauge, "1", None,
        "Bytes of the log and of large values on disk to bytes of live data";
    SPACE_LIVE = "ferrite.storage.live_bytes", Gauge, "By", None, "Bytes of the records of all keys and of what they own";
    SPACE_FILE = "ferrite.storage.file_bytes", Gauge, "By", None, "Bytes of the log and of large values on disk";
    EXTENTS_FREE = "ferrite.storage.extents.free_bytes", Gauge, "By", None,
        "Bytes of the file of large values between its values";
    COMPACTION_BYTES_READ = "ferrite.compaction.bytes.read.total", Counter, "By", None, "Bytes of the log read by compaction";
    COMPACTION_BYTES_KEPT = "ferrite.compaction.bytes.kept.total", Counter, "By", None,
        "Bytes of live records that compaction copied";
    COMPACTION_BYTES_FREED = "ferrite.compaction.bytes.freed.total", Counter, "By", None,
        "Bytes that compaction gave back to the file system";
    COMPACTION_FAILURES = "ferrite.compaction.failures.total", Counter, "{failures}", None,
        "Runs of compaction that the disk ended";
    QUARANTINED_PAGES = "ferrite.compaction.quarantined.pages", Gauge, "{pages}", None,
        "Pages of the log that compaction cannot read and has left where they are";
    SPANS_CREATED = "ferrite.telemetry.spans.created.total", Counter, "{spans}", None, "Spans recorded, exported or not";
    SPANS_SAMPLED = "ferrite.telemetry.spans.sampled.total", Counter, "{spans}", Some(Label::Reason),
        "Spans of traces that were chosen for export, labeled by what chose them";
    SPANS_EXPORTED = "ferrite.telemetry.spans.exported.total", Counter, "{spans}", None,
        "Spans that the backend accepted";
    SPANS_DROPPED = "ferrite.telemetry.spans.dropped.total", Counter, "{spans}", Some(Label::Reason),
        "Spans that were lost, labeled by reason";
    METRICS_EXPORTED = "ferrite.telemetry.metrics.exported.total", Counter, "{data_points}", None,
        "Data points of metrics that the backend accepted";
    METRICS_DROPPED = "ferrite.telemetry.metrics.dropped.total", Counter, "{data_points}", Some(Label::Reason),
        "Data points of metrics that did not reach the backend, labeled by reason; they are collected anew";
    LOGS_EXPORTED = "ferrite.telemetry.logs.exported.total", Counter, "{records}", None,
        "Log records that the backend accepted";
    LOGS_DROPPED = "ferrite.telemetry.logs.dropped.total", Counter, "{records}", Some(Label::Reason),
        "Log records that were lost to the backend, labeled by reason";
    LOGS_QUEUE_DEPTH = "ferrite.telemetry.logs.queue.depth", Gauge, "{records}", None,
        "Log records that wait for their export";
    READ_CACHE_HITS = "ferrite.read_cache.hits.total", Counter, "{hits}", None,
        "Records on disk that were found in the read cache";
    READ_CACHE_MISSES = "ferrite.read_cache.misses.total", Counter, "{misses}", None,
        "Records on disk that were not found in the read cache";
    READ_CACHE_SIZE = "ferrite.read_cache.size", Gauge, "By", None, "Memory that the read cache takes";
    UNSEEN_PENDING = "ferrite.unseen.pending", Gauge, "{keys}", None,
        "Writes whose replaced record on disk has not been looked at yet: key counts may be too high by as many";
    UNSEEN_ERRORS = "ferrite.unseen.errors.total", Counter, "{errors}", None,
        "Failed attempts to look at what a write has replaced";
    CHECKPOINTS = "ferrite.checkpoint.runs.total", Counter, "{runs}", Some(Label::Result),
        "Checkpoints that were begun, labeled by how they ended";
    CHECKPOINT_DURATION = "ferrite.checkpoint.last.duration", Gauge, "s", None, "How long the last checkpoint took";
    CHECKPOINT_BYTES = "ferrite.checkpoint.bytes.total", Counter, "By", None, "Bytes of the files of checkpoints written";
    CHECKPOINT_LAST_SUCCESS = "ferrite.checkpoint.last.success.time", Gauge, "s", None,
        "When the last good checkpoint since the start was done, in seconds since the Unix epoch: its age is the time since";
    REWRITES = "ferrite.aof.rewrite.runs.total", Counter, "{runs}", Some(Label::Result),
        "Rewrites of the append-only file that were begun, labeled by how they ended";
    REWRITE_DURATION = "ferrite.aof.rewrite.last.duration", Gauge, "s", None,
        "How long the last rewrite of the append-only file took";
    REWRITE_BYTES = "ferrite.aof.rewrite.bytes.total", Counter, "By", None,
        "Bytes of the append-only files that rewrites left";
    REWRITE_LAST_SUCCESS = "ferrite.aof.rewrite.last.success.time", Gauge, "s", None,
        "When the last good rewrite since the start was done, in seconds since the Unix epoch";
    EVICTION_RUNS = "ferrite.eviction.runs.total", Counter, "{runs}", Some(Label::Result),
        "Runs of eviction, labeled by how they ended";
    RECOVERY_DURATION = "ferrite.recovery.duration", Gauge, "s", None,
        "How long the start took to get from the data directory to the databases";
    RECOVERY_BYTES = "ferrite.recovery.bytes", Gauge, "By", None, "Bytes of the append-only file that the start replayed";
    COMPACTION_RUNS = "ferrite.compaction.runs.total", Counter, "{runs}", None, "Runs of compaction, whatever ended them";
    DISK_READS = "ferrite.storage.disk.reads.total", Counter, "{reads}", None,
        "Records that were read from disk for commands, eviction and rewrites";
    DISK_FULL = "ferrite.storage.disk.full", Gauge, "1", None, "1 while the disk has no room for the log, else 0";
    DISK_FAILING = "ferrite.storage.disk.failing", Gauge, "1", None,
        "1 while the disk fails to make room for the log or large values though it is not full, else 0";
    QUOTA_MAX = "ferrite.storage.quota.max", Gauge, "By", None, "The quota of the data directory; 0: there is none";
    QUOTA_USED = "ferrite.storage.quota.used", Gauge, "By", None, "What the quota counts: log, values, append-only files, checkpoints";
    QUOTA_EXCEEDED = "ferrite.storage.quota.exceeded", Gauge, "1", None,
        "1 while writes are refused because of the quota, else 0";
    MEMORY_ACCOUNT = "ferrite.memory.account", Gauge, "By", Some(Label::Account),
        "Memory by what it is taken for: the sum is ferrite.memory.used";
    EXPIRY_REMINDERS = "ferrite.expiry.reminders", Gauge, "{reminders}", None,
        "Reminders of keys that expire in the timing wheel";
    QUEUE_DEPTH = "ferrite.telemetry.queue.depth", Gauge, "{spans}", None, "Spans that wait for their export";
    KEPT_SIZE = "ferrite.telemetry.kept.size", Gauge, "By", None,
        "Memory of traces that SLOWLOG or exemplars name";
    KEPT_REFUSED = "ferrite.telemetry.kept.refused.total", Counter, "{traces}", None,
        "Traces that SLOWLOG or exemplars name and that found no room";
    CALLERS_LIMITED = "ferrite.telemetry.callers.limited.total", Counter, "{traces}", None,
        "Traces that their caller sampled beyond telemetry.sampling.parent_limit: the sampler decided instead";
    SAMPLING_RATIO = "ferrite.telemetry.sampling.ratio", Gauge, "1", None,
        "Share of ordinary new traces that is chosen now";
}

/// The labels of an exemplar at `/metrics`, as Prometheus and Grafana look for them.
pub const EXEMPLAR_TRACE_ID: &str = "trace_id";
pub const EXEMPLAR_SPAN_ID: &str = "span_id";

/// The name of a metric at `/metrics`: dots are underscores.
pub fn prometheus_name(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_metrics_come_first_and_once() {
        assert_eq!(METRICS.len(), 81);
        assert_eq!(METRICS[17], Metric::EPOCH_CURRENT);
        for (index, metric) in METRICS.iter().enumerate() {
            assert!(METRICS[index + 1..].iter().all(|other| other.name != metric.name), "{}", metric.name);
        }
    }

    /// Prometheus's rule, which three of the documented names break: they stay as they are.
    #[test]
    fn counters_and_they_alone_are_totals() {
        let breaks = METRICS.iter().filter(|metric| (metric.instrument == Counter) != metric.name.ends_with(".total"));
        let breaks: Vec<Metric> = breaks.copied().collect();
        assert_eq!(breaks, [Metric::KEYS_TOTAL, Metric::NETWORK_BYTES_RECEIVED, Metric::NETWORK_BYTES_SENT]);
    }

    #[test]
    fn bounds_grow() {
        for bounds in [DURATION_BOUNDS, SYNC_BOUNDS] {
            assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }

    #[test]
    fn dots_become_underscores() {
        assert_eq!(prometheus_name(Metric::COMMANDS_TOTAL.name), "ferrite_commands_total");
    }
}
