//! The page's figures: latency by command and tier, and the state of tiers, sampling and export.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ferrite_commands::table;
use ferrite_telemetry::schema::{DURATION_BOUNDS, DropReason, SampledBy};
use ferrite_telemetry::{Ring, Tier};
use serde_json::{Value as Json, json};

use crate::config::KeyRedaction;
use crate::node::Node;
use crate::stats::Totals;

/// Of how many commands of each worker the tiers' times are taken.
const TIER_TIMES: usize = 10_000;

/// Per command since the start, with exemplars; per tier as far as the recorders go back.
pub(crate) fn latency(node: &Node) -> Json {
    let metrics = &node.telemetry.metrics;
    let mut totals = metrics.totals();
    totals.sort_by_key(|totals| std::cmp::Reverse(totals.calls()));
    let commands: Vec<Json> = totals
        .iter()
        .map(|totals| {
            let exemplars = metrics.exemplars(totals.command).into_iter().map(|(bucket, exemplar)| {
                let trace = exemplar.trace.trace_id().to_string();
                json!({ "bucket": bucket, "trace_id": trace, "value_ns": exemplar.value_ns })
            });
            json!({
                "name": table::trace_name(totals.command),
                "calls": totals.calls(),
                "failed": totals.failed,
                "sum_ns": totals.sum_ns,
                "buckets": totals.buckets,
                "exemplars": exemplars.collect::<Vec<_>>(),
            })
        })
        .collect();
    let (tiers, of) = tiers(node);
    json!({ "bounds_ns": bounds_ns(), "commands": commands, "tiers": tiers, "tiers_of": of })
}

fn bounds_ns() -> Vec<u64> {
    DURATION_BOUNDS.iter().map(|bound| (bound * 1e9).round() as u64).collect()
}

/// What the last commands say of each tier, with the newest of each bucket; and how many these were.
fn tiers(node: &Node) -> (Vec<Json>, u64) {
    let bounds = bounds_ns();
    let mut buckets = vec![vec![0_u64; bounds.len() + 1]; Tier::ALL.len()];
    let mut sums = vec![0_u64; Tier::ALL.len()];
    let mut newest = vec![vec![None; bounds.len() + 1]; Tier::ALL.len()];
    let rings: Vec<Arc<Ring>> = node.recorders.lock().iter().map(|(ring, _)| Arc::clone(ring)).collect();
    for ring in rings {
        ring.tier_times(TIER_TIMES, |time| {
            let tier = time.tier as usize;
            let bucket = bounds.partition_point(|&bound| bound < time.execution_ns);
            buckets[tier][bucket] += 1;
            sums[tier] += time.execution_ns;
            newest[tier][bucket].get_or_insert((time.trace_id, time.execution_ns));
        });
    }
    let told = Tier::ALL.iter().map(|&tier| {
        let at = tier as usize;
        let exemplars = newest[at].iter().enumerate().filter_map(|(bucket, newest)| {
            let (id, value_ns) = (*newest)?;
            Some(json!({ "bucket": bucket, "trace_id": id.to_string(), "value_ns": value_ns }))
        });
        json!({
            "name": tier.as_str(),
            "calls": buckets[at].iter().sum::<u64>(),
            "sum_ns": sums[at],
            "buckets": buckets[at],
            "exemplars": exemplars.collect::<Vec<_>>(),
        })
    });
    (told.collect(), buckets.iter().flatten().sum())
}

/// Everything else that the page shows.
pub(crate) fn state(node: &Node, monotonic_ns: u64) -> Json {
    let store = node.store.stats();
    let figures = node.databases.figures();
    let queue = node.telemetry.queue.counts();
    let totals = Totals::of(node.stats.iter());
    let telemetry = node.live.telemetry.lock().clone();
    let reads = (figures.keyspace_hits() + figures.keyspace_misses).max(1);
    let tier = |tier: Tier, bytes: u64| {
        let hits = figures.tier_hits(tier);
        json!({ "bytes": bytes, "hits": hits, "hit_rate": hits as f64 / reads as f64 })
    };
    let (mut created, mut sampled, mut limited) = (queue.cold, vec![0; SampledBy::ALL.len()], [0, 0]);
    let mut ring_bytes = 0;
    for (ring, counters) in node.recorders.lock().iter() {
        created += counters.created();
        ring_bytes += ring.bytes();
        SampledBy::ALL.iter().for_each(|by| sampled[*by as usize] += counters.sampled_by(*by));
        limited[0] += counters.over_span_limit();
        limited[1] += counters.over_batch_limit();
    }
    let reasons = SampledBy::ALL.iter().map(|by| json!([by.as_str(), sampled[*by as usize]]));
    let dropped = [
        (DropReason::QueueFull, queue.dropped_queue_full),
        (DropReason::ExportFailed, queue.dropped_export_failed),
        (DropReason::Rejected, queue.dropped_rejected),
        (DropReason::SpanLimit, limited[0]),
        (DropReason::BatchLimit, limited[1]),
    ];
    let export = match (telemetry.enabled, telemetry.exports_traces()) {
        (true, _) if !cfg!(feature = "otel") => "OTel not available in this build",
        (false, _) => "off: telemetry.enabled is false",
        (true, true) if !telemetry.traces_exporter.otlp => "on: to the console",
        (true, true) => "on",
        (true, false) if !telemetry.traces_exporter.any() => "off: telemetry.traces_exporter",
        (true, false) => "off: telemetry.traces_enabled is false",
    };
    let endpoint = telemetry.traces.endpoint.as_deref().or(telemetry.endpoint.as_deref());
    let endpoint = endpoint.unwrap_or("localhost, on the protocol's own port");
    let detail = node.span_detail().map_or("off: telemetry.traces_enabled is false", |detail| detail.as_str());
    json!({
        "tiers": {
            (Tier::Mutable.as_str()): tier(Tier::Mutable, store.mutable_bytes),
            (Tier::ReadOnly.as_str()): tier(Tier::ReadOnly, store.read_only_bytes),
            (Tier::Disk.as_str()): tier(Tier::Disk, store.disk_bytes),
        },
        "misses": figures.keyspace_misses,
        "sampling": {
            "sampler": telemetry.sampler.clone().unwrap_or_else(|| "traceidratio".to_owned()),
            "ratio": node.telemetry.sampling.policy().ratio(),
            "spans_recorded": created,
            "by_reason": reasons.collect::<Vec<_>>(),
        },
        "export": {
            "state": export,
            // An address may hold a password; only where it leads is told.
            "endpoint": (telemetry.enabled && telemetry.traces_exporter.otlp)
                .then(|| ferrite_otlp::without_secrets(endpoint)),
            "exported": queue.exported,
            "waiting": queue.depth,
            "dropped": dropped.iter().map(|(reason, count)| json!([reason.as_str(), count])).collect::<Vec<_>>(),
        },
        "recorder": {
            "bytes": ring_bytes,
            "detail": detail,
            "keys": match telemetry.redaction.keys {
                KeyRedaction::Off => "as they are",
                KeyRedaction::Hash => "hashed",
                KeyRedaction::Drop => "not recorded",
            },
            "kept_bytes": node.pins.bytes(),
        },
        "server": {
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_ns": monotonic_ns.saturating_sub(node.started_monotonic_ns),
            "workers": node.workers(),
            "disk": node.disk_backend.get().copied().unwrap_or_default(),
            "clients": node.clients.len(),
            "clients_max": node.live.maxclients.load(Relaxed),
            "keys": node.databases.total_keys(),
            "memory": node.memory_accounts().total(),
            "commands": totals.commands,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_nanoseconds() {
        assert_eq!(bounds_ns()[..2], [1_000, 2_000]);
    }
}
