//! What an operator's tools see: `/healthz`, `/metrics`, and the same metrics pushed to a Collector.

use std::time::Duration;

use ferrite_integration::backend::Backend;
use ferrite_integration::prometheus::{Sample, sum};
use ferrite_integration::server::Server;
use ferrite_integration::{eventually, http};
use ferrite_telemetry::schema::{Label, Metric, prometheus_name};
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
