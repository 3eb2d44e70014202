//! All metrics of a node at one moment, for `/metrics` and for OTLP alike.

use ferrite_otlp::{Point, Series, Value};
use ferrite_telemetry::Tier;
use ferrite_telemetry::schema::{DropReason, Metric, SampledBy};

use crate::node::Node;
use crate::stats::Totals;

/// Reads everything. Counters are the totals since the start: CONFIG RESETSTAT does not touch them.
pub fn collect(node: &Node) -> Vec<Series> {
    let store = node.store.stats();
    let totals = Totals::of(node.stats.iter());
    let figures = node.databases.figures();
    let cache = node.store.read_cache.stats();
    let unseen = node.databases.unseen.figures();
    let space = node.space_info();
    let queue = node.telemetry.queue.counts();
    let logs = node.telemetry.logs.counts();
    let exports = &node.telemetry.metric_exports;
    // A cold path's spans are only made if they were sampled.
    let (mut created, mut over_span_limit, mut over_batch_limit) = (queue.cold, 0, 0);
    let mut sampled = [0; SampledBy::ALL.len()];
    sampled[SampledBy::Sampler as usize] = queue.cold;
    for (_, counters) in node.recorders.lock().iter() {
        created += counters.created();
        for by in SampledBy::ALL {
            sampled[*by as usize] += counters.sampled_by(*by);
        }
        over_span_limit += counters.over_span_limit();
        over_batch_limit += counters.over_batch_limit();
    }
    let labelled = |metric: Metric, points: &[(&str, u64)]| Series {
        metric,
        points: points
            .iter()
            .map(|(label, value)| Point { label: Some((*label).to_owned()), value: Value::Integer(*value) })
            .collect(),
    };
    let accounts = node.memory_accounts();
    let beyond_start = accounts.total().saturating_sub(accounts.startup);
    let hits = Tier::ALL.iter().map(|&tier| (tier, figures.tier_hits(tier)));
    let reads = figures.keyspace_hits() + figures.keyspace_misses;
    let mutable_hits = figures.tier_hits(Tier::Mutable);
    let share = |part: u64| Value::Float(if reads == 0 { 0.0 } else { part as f64 / reads as f64 });
    let of_tier = |metric: Metric, value: &dyn Fn(u64) -> Value| Series {
        metric,
        points: hits
            .clone()
            .map(|(tier, hits)| Point { label: Some(tier.as_str().to_owned()), value: value(hits) })
            .collect(),
    };
    let [syncs, flushes] = node.telemetry.metrics.disk_series();
    let keys = (0..node.databases.count())
        .map(|db| (db.to_string(), node.databases.keys(db)))
        .filter(|(db, keys)| *keys > 0 || db == "0")
        .map(|(db, keys)| Point { label: Some(db), value: Value::Integer(keys) })
        .collect();
    let [commands, durations] =
        node.telemetry.metrics.command_series(|command| ferrite_commands::table::trace_name(command).to_owned());
    let account =
        |(name, bytes): (&'static str, u64)| Point { label: Some(name.to_owned()), value: Value::Integer(bytes) };
    let mut series = vec![
        commands,
        durations,
        Series::single(Metric::MEMORY_USED, accounts.total()),
        Series::single(Metric::MEMORY_MAX, node.memory_max()),
        Series::single(Metric::CONNECTIONS_ACTIVE, node.clients.len() as u64),
        Series::single(Metric::CONNECTIONS_TOTAL, totals.connections),
        Series { metric: Metric::CACHE_HIT_RATE, points: vec![Point { label: None, value: share(mutable_hits) }] },
        Series::single(Metric::CACHE_HITS_TOTAL, mutable_hits),
        Series::single(Metric::CACHE_MISSES_TOTAL, reads - mutable_hits),
        labelled(
            Metric::HYBRIDLOG_TIER_SIZE,
            &[
                (Tier::Mutable.as_str(), store.mutable_bytes),
                (Tier::ReadOnly.as_str(), store.read_only_bytes),
                (Tier::Disk.as_str(), store.disk_bytes),
            ],
        ),
        Series { metric: Metric::KEYS_TOTAL, points: keys },
        Series::single(Metric::KEYS_EXPIRED_TOTAL, figures.expired_keys),
        Series::single(Metric::KEYS_EVICTED_TOTAL, figures.evicted_keys),
        Series::single(Metric::NETWORK_BYTES_RECEIVED, totals.bytes_received),
        Series::single(Metric::NETWORK_BYTES_SENT, totals.bytes_sent),
        syncs,
        Series::single(Metric::EPOCH_CURRENT, store.epoch),
        of_tier(Metric::TIER_HITS_TOTAL, &Value::Integer),
        of_tier(Metric::TIER_HIT_RATE, &share),
        Series::single(Metric::EPOCH_LAG, store.epoch - store.safe_epoch),
        flushes,
        Series::single(Metric::FLUSH_PAGES_TOTAL, store.pages_flushed),
        Series::single(Metric::FLUSH_BYTES_TOTAL, store.bytes_flushed),
        Series::single(Metric::FLUSH_PAGES_IN_FLIGHT, store.pages_in_flight),
        Series::single(Metric::FLUSH_ERRORS_TOTAL, store.flush_errors),
        Series::single(Metric::CHECKSUM_ERRORS_TOTAL, store.checksum_errors),
        Series::single(Metric::INDEX_BUCKETS, store.index_buckets as u64),
        Series::single(Metric::INDEX_OVERFLOW_BUCKETS, store.index_overflow_buckets as u64),
        Series::single(Metric::INDEX_CHAIN_LONGEST, store.index_longest_chain as u64),
        Series::single(Metric::INDEX_ENTRIES, store.index_entries as u64),
        Series::single(Metric::INDEX_SIZE, store.index_bytes as u64),
        Series::single(Metric::MEMORY_PER_KEY, beyond_start.checked_div(node.databases.total_keys()).unwrap_or(0)),
        Series {
            metric: Metric::SPACE_AMPLIFICATION,
            points: vec![Point { label: None, value: Value::Float(space.amplification) }],
        },
        Series::single(Metric::SPACE_LIVE, space.live),
        Series::single(Metric::SPACE_FILE, space.file),
        Series::single(Metric::EXTENTS_FREE, space.extents_free),
        Series::single(Metric::COMPACTION_BYTES_READ, space.compaction_read),
        Series::single(Metric::COMPACTION_BYTES_KEPT, space.compaction_kept),
        Series::single(Metric::COMPACTION_BYTES_FREED, space.compaction_freed),
        Series::single(Metric::COMPACTION_FAILURES, space.compaction_failures),
        Series::single(Metric::QUARANTINED_PAGES, space.quarantined_pages),
        Series::single(Metric::SPANS_CREATED, created),
        labelled(
            Metric::SPANS_SAMPLED,
            &SampledBy::ALL.iter().map(|by| (by.as_str(), sampled[*by as usize])).collect::<Vec<_>>(),
        ),
        Series::single(Metric::SPANS_EXPORTED, queue.exported),
        labelled(
            Metric::SPANS_DROPPED,
            &[
                (DropReason::QueueFull.as_str(), queue.dropped_queue_full),
                (DropReason::ExportFailed.as_str(), queue.dropped_export_failed),
                (DropReason::Rejected.as_str(), queue.dropped_rejected),
                (DropReason::SpanLimit.as_str(), over_span_limit),
                (DropReason::BatchLimit.as_str(), over_batch_limit),
            ],
        ),
        Series::single(Metric::METRICS_EXPORTED, exports.exported()),
        labelled(
            Metric::METRICS_DROPPED,
            &[
                (DropReason::ExportFailed.as_str(), exports.failed()),
                (DropReason::Rejected.as_str(), exports.rejected()),
            ],
        ),
        Series::single(Metric::LOGS_EXPORTED, logs.exported),
        labelled(
            Metric::LOGS_DROPPED,
            &[
                (DropReason::QueueFull.as_str(), logs.dropped_queue_full),
                (DropReason::ExportFailed.as_str(), logs.dropped_export_failed),
                (DropReason::Rejected.as_str(), logs.dropped_rejected),
            ],
        ),
        Series::single(Metric::LOGS_QUEUE_DEPTH, logs.depth),
        Series::single(Metric::READ_CACHE_HITS, cache.hits),
        Series::single(Metric::READ_CACHE_MISSES, cache.misses),
        Series::single(Metric::READ_CACHE_SIZE, cache.bytes as u64),
        Series::single(Metric::UNSEEN_PENDING, unseen.pending),
        Series::single(Metric::UNSEEN_ERRORS, unseen.read_errors),
        Series::single(Metric::QUEUE_DEPTH, queue.depth),
        Series::single(Metric::KEPT_SIZE, node.pins.bytes()),
        Series::single(Metric::KEPT_REFUSED, node.pins.refused()),
        Series::single(Metric::CALLERS_LIMITED, node.telemetry.sampling.limited()),
        Series { metric: Metric::SAMPLING_RATIO, points: sampling_ratio(node) },
        Series::single(Metric::COMPACTION_RUNS, space.compactions),
        Series::single(Metric::DISK_READS, totals.disk_reads),
        Series::single(Metric::DISK_FULL, u64::from(store.disk_full)),
        Series::single(Metric::DISK_FAILING, u64::from(store.disk_failing)),
        Series::single(Metric::QUOTA_MAX, space.quota),
        Series::single(Metric::QUOTA_USED, space.quota_used),
        Series::single(Metric::QUOTA_EXCEEDED, u64::from(space.over_quota)),
        Series { metric: Metric::MEMORY_ACCOUNT, points: accounts.each().map(account).into() },
        Series::single(Metric::EXPIRY_REMINDERS, node.databases.reminders()),
    ];
    series.extend(node.work.series());
    series
}

/// None under a sampler of so many traces a second, which has no ratio.
fn sampling_ratio(node: &Node) -> Vec<Point> {
    let ratio = node.telemetry.sampling.policy().ratio();
    ratio.map(|ratio| Point { label: None, value: Value::Float(ratio) }).into_iter().collect()
}
