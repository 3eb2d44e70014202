//! What an operator's tools see: `/healthz`, `/metrics`, and the same metrics pushed to a Collector.

use std::time::Duration;

use ferrite_integration::backend::Backend;
use ferrite_integration::prometheus::{Sample, sum};
use ferrite_integration::server::Server;
use ferrite_integration::{eventually, http};
use ferrite_telemetry::Tier;
use ferrite_telemetry::schema::{Label, METRICS, Metric, prometheus_name};
use redis::aio::MultiplexedConnection;

/// Until an interval of one second has passed, on a busy machine.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(30);

/// Three SETs of different keys and a GET.
async fn some_commands(connection: &mut MultiplexedConnection) {
    for key in ["a", "b", "c"] {
        redis::cmd("SET").arg(key).arg("value").exec_async(connection).await.expect("SET works");
    }
    redis::cmd("GET").arg("a").exec_async(connection).await.expect("GET works");
}

/// The series of this name in which the label has this value.
fn of<'s>(samples: &'s [Sample], name: &str, label: Label, value: &str) -> Vec<&'s Sample> {
    let matches = |sample: &&Sample| {
        sample.name == name && sample.labels.get(label.as_str()).is_some_and(|labelled| labelled == value)
    };
    samples.iter().filter(matches).collect()
}

/// What [`some_commands`] must have left, wherever the metrics are read.
fn check(samples: &[Sample]) -> Result<(), String> {
    let name = |metric: Metric| prometheus_name(metric.name);
    let one = |metric: Metric, label: Label, value: &str| match of(samples, &name(metric), label, value)[..] {
        [sample] => Ok(sample.value),
        ref found => Err(format!("{} of {value}: {} series", metric.name, found.len())),
    };
    let same = |what: &str, found: f64, expected: f64| {
        if found == expected { Ok(()) } else { Err(format!("{what}: {found} instead of {expected}")) }
    };
    same("SETs", one(Metric::COMMANDS_TOTAL, Label::Command, "SET")?, 3.0)?;
    same("GETs", one(Metric::COMMANDS_TOTAL, Label::Command, "GET")?, 1.0)?;
    same("keys", one(Metric::KEYS_TOTAL, Label::Db, "0")?, 3.0)?;
    same("connections", sum(samples, &name(Metric::CONNECTIONS_ACTIVE)), 1.0)?;
    if sum(samples, &name(Metric::MEMORY_USED)) <= 0.0 {
        return Err("no memory is used".to_owned());
    }

    let duration = name(Metric::COMMAND_DURATION);
    let buckets = of(samples, &format!("{duration}_bucket"), Label::Command, "SET");
    let bound = |sample: &Sample| sample.labels["le"].parse::<f64>().expect("bounds are numbers");
    let mut sorted = buckets.clone();
    sorted.sort_by(|one, other| bound(one).total_cmp(&bound(other)));
    if buckets.is_empty() || !sorted.is_sorted_by_key(|bucket| bucket.value) {
        return Err(format!("not a cumulative histogram: {sorted:?}"));
    }
    let last = sorted.last().expect("there are some");
    same("the last bound", bound(last), f64::INFINITY)?;
    same("the last bucket", last.value, 3.0)?;
    let count = of(samples, &format!("{duration}_count"), Label::Command, "SET");
    same("the count", count.iter().map(|sample| sample.value).sum(), 3.0)
}

#[tokio::test]
async fn probes_and_scrapers_are_answered_at_the_admin_port() {
    let server = Server::start(&[]).await;
    assert_eq!(http::get(server.admin_port, "/healthz").await.as_deref(), Some(&b"ok\n"[..]));
    assert_eq!(http::get(server.admin_port, "/elsewhere").await, None);

    let mut connection = server.connect().await;
    some_commands(&mut connection).await;
    // The connection that waited for the start may still be leaving.
    let mut last = Err(String::new());
    for _ in 0..50 {
        last = check(&server.metrics().await);
        if last.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(last, Ok(()));
    for name in [
        "ferrite_commands_total",
        "ferrite_command_duration_bucket",
        "ferrite_connections_active",
        "ferrite_keys_total",
        "ferrite_memory_used",
    ] {
        assert!(server.metrics().await.iter().any(|sample| sample.name == name), "{name} is missing");
    }
}

#[tokio::test]
async fn every_sync_of_the_aof_is_measured() {
    let server = Server::start(&["--aof.appendfsync", "always"]).await;
    some_commands(&mut server.connect().await).await;
    let samples = server.metrics().await;
    let name = prometheus_name(Metric::AOF_SYNC_DURATION.name);
    // Each SET was answered before the next one was sent, so each waited for a sync of its own.
    assert!(sum(&samples, &format!("{name}_count")) >= 3.0, "{samples:?}");
    assert!(sum(&samples, &format!("{name}_sum")) > 0.0);
}

/// Regions so small that [`fill_all_tiers`] reaches all three.
const TINY_REGIONS: [&str; 4] =
    ["--storage.mutable_region_size_mb", "0.25", "--storage.read_only_region_size_mb", "0.25"];
const KEYS: u64 = 3000;

/// Writes more than fits into memory, reads each key once, and one that is not there.
async fn fill_all_tiers(connection: &mut MultiplexedConnection) {
    let value = "v".repeat(1000);
    let key = |number: u64| format!("key:{number}");
    for first in (0..KEYS).step_by(100) {
        let mut sets = redis::pipe();
        (first..first + 100).for_each(|number| _ = sets.cmd("SET").arg(key(number)).arg(&value).ignore());
        sets.exec_async(connection).await.expect("SET works");
    }
    for first in (0..KEYS).step_by(100) {
        let mut gets = redis::pipe();
        (first..first + 100).for_each(|number| _ = gets.cmd("GET").arg(key(number)));
        let values: Vec<String> = gets.query_async(connection).await.expect("GET works");
        assert!(values.iter().all(|read| *read == value));
    }
    redis::cmd("GET").arg("missing").exec_async(connection).await.expect("GET works");
}

/// What [`fill_all_tiers`] must have left, wherever the metrics are read.
fn check_engine(samples: &[Sample]) -> Result<(), String> {
    let all = |metric: Metric| sum(samples, &prometheus_name(metric.name));
    let of_tier = |metric: Metric, tier: Tier| {
        let found = of(samples, &prometheus_name(metric.name), Label::Tier, tier.as_str());
        found.iter().map(|sample| sample.value).sum::<f64>()
    };
    let within = |what: Metric, found: f64, from: f64, to: f64| match (from..=to).contains(&found) {
        true => Ok(()),
        false => Err(format!("{}: {found} is not within {from} and {to}", what.name)),
    };
    let keys = KEYS as f64;
    let reads = keys + 1.0;
    for &tier in Tier::ALL {
        within(Metric::HYBRIDLOG_TIER_SIZE, of_tier(Metric::HYBRIDLOG_TIER_SIZE, tier), 1.0, 8e6)?;
        let hits = of_tier(Metric::TIER_HITS_TOTAL, tier);
        within(Metric::TIER_HITS_TOTAL, hits, 1.0, keys)?;
        within(Metric::TIER_HIT_RATE, of_tier(Metric::TIER_HIT_RATE, tier) - hits / reads, -1e-9, 1e-9)?;
    }
    within(Metric::TIER_HITS_TOTAL, all(Metric::TIER_HITS_TOTAL), keys, keys)?;
    let hits = of_tier(Metric::TIER_HITS_TOTAL, Tier::Mutable);
    within(Metric::CACHE_HITS_TOTAL, all(Metric::CACHE_HITS_TOTAL), hits, hits)?;
    within(Metric::CACHE_MISSES_TOTAL, all(Metric::CACHE_MISSES_TOTAL), reads - hits, reads - hits)?;
    within(Metric::CACHE_HIT_RATE, all(Metric::CACHE_HIT_RATE) - hits / reads, -1e-9, 1e-9)?;

    let epoch = all(Metric::EPOCH_CURRENT);
    within(Metric::EPOCH_CURRENT, epoch, 2.0, 1e6)?;
    within(Metric::EPOCH_LAG, all(Metric::EPOCH_LAG), 0.0, epoch - 1.0)?;

    let pages = all(Metric::FLUSH_PAGES_TOTAL);
    within(Metric::FLUSH_PAGES_TOTAL, pages, 1.0, 1000.0)?;
    // Pages have one size, a power of two, and there are no objects.
    let page = all(Metric::FLUSH_BYTES_TOTAL) / pages;
    if page < 4096.0 || page.log2().fract() != 0.0 {
        return Err(format!("{page} bytes a page"));
    }
    within(Metric::FLUSH_PAGES_IN_FLIGHT, all(Metric::FLUSH_PAGES_IN_FLIGHT), 0.0, 4.0)?;
    let duration = prometheus_name(Metric::FLUSH_DURATION.name);
    within(Metric::FLUSH_DURATION, sum(samples, &format!("{duration}_count")), 1.0, pages)?;
    within(Metric::FLUSH_DURATION, sum(samples, &format!("{duration}_sum")), 1e-9, 60.0)?;
    for metric in [Metric::FLUSH_ERRORS_TOTAL, Metric::CHECKSUM_ERRORS_TOTAL] {
        if !samples.iter().any(|sample| sample.name == prometheus_name(metric.name)) {
            return Err(format!("{} is missing", metric.name));
        }
        within(metric, all(metric), 0.0, 0.0)?;
    }

    let (entries, buckets) = (all(Metric::INDEX_ENTRIES), all(Metric::INDEX_BUCKETS));
    // A few keys share an entry.
    within(Metric::INDEX_ENTRIES, entries, 0.99 * keys, keys)?;
    within(Metric::INDEX_BUCKETS, buckets, entries / 6.0, 1e6)?;
    within(Metric::INDEX_OVERFLOW_BUCKETS, all(Metric::INDEX_OVERFLOW_BUCKETS), 0.0, buckets)?;
    within(Metric::INDEX_CHAIN_LONGEST, all(Metric::INDEX_CHAIN_LONGEST), 1.0, 8.0)?;
    within(Metric::INDEX_SIZE, all(Metric::INDEX_SIZE), 64.0 * buckets, 64e6)?;
    within(Metric::MEMORY_PER_KEY, all(Metric::MEMORY_PER_KEY), 1.0, 1e5)
}

#[tokio::test]
async fn the_engine_is_measured() {
    let server = Server::start(&TINY_REGIONS).await;
    fill_all_tiers(&mut server.connect().await).await;
    let last = check_engine(&server.metrics().await);
    assert_eq!(last, Ok(()));
    let page = http::get(server.admin_port, "/metrics").await.expect("it is served");
    let page = String::from_utf8(page).expect("a text");
    for metric in METRICS.iter().filter(|metric| **metric != Metric::REPLICATION_LAG) {
        let help = format!("# HELP {} {}", prometheus_name(metric.name), metric.description);
        assert_eq!(page.lines().filter(|line| *line == help).count(), 1, "{help}");
    }
}

#[tokio::test]
async fn the_engines_metrics_reach_a_collector() {
    let backend = Backend::start().await;
    let options = ["--telemetry.metrics_export_interval", "1"];
    let server = Server::exporting(&backend, &[&options[..], &TINY_REGIONS].concat()).await;
    fill_all_tiers(&mut server.connect().await).await;
    let mut last = Ok(());
    eventually("the Collector has the engine's metrics", ARRIVAL_LIMIT, async || {
        let found = check_engine(&backend.metrics().await);
        if found != last {
            eprintln!("{found:?}");
            last = found.clone();
        }
        found.ok()
    })
    .await;
}

#[tokio::test]
async fn metrics_reach_a_collector() {
    let backend = Backend::start().await;
    let server = Server::exporting(
        &backend,
        &["--telemetry.metrics_export_interval", "1", "--telemetry.service_name", "cache-7"],
    )
    .await;
    let mut connection = server.connect().await;
    some_commands(&mut connection).await;

    let mut last = String::new();
    let samples = eventually("the Collector has the metrics", ARRIVAL_LIMIT, async || {
        let samples = backend.metrics().await;
        match check(&samples) {
            Ok(()) => Some(samples),
            Err(error) => {
                if error != last {
                    eprintln!("not yet: {error}");
                    last = error;
                }
                None
            }
        }
    })
    .await;
    // Prometheus's name for a service.
    let commands = of(&samples, &prometheus_name(Metric::COMMANDS_TOTAL.name), Label::Command, "SET");
    assert_eq!(commands[0].labels["job"], "cache-7");
}
