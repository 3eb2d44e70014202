//! A real Prometheus that scrapes native histograms: from Ferrite's own page, and where exponential histograms went through a
//! Collector. It answers queries that classic buckets need `le` for, and what it counted is what was sent.

use std::time::Duration;

use ferrite_golden_traces::TraceId;
use ferrite_integration::backend::Backend;
use ferrite_integration::eventually;
use ferrite_integration::prometheus_server::PrometheusServer;
use ferrite_integration::server::Server;
use ferrite_telemetry::schema::{EXEMPLAR_TRACE_ID, Metric, prometheus_name};

/// Until there were some scrapes, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Commands that are sent, after one other that makes the series known.
const SENT: u64 = 500;

/// Scrapes this port for native histograms, with what else is said of the job.
async fn scraping_native(port: u16, job: &str) -> PrometheusServer {
    PrometheusServer::with(&format!(
        "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: ferrite\n    scrape_native_histograms: true\n{job}    \
         static_configs:\n      - targets: [\"127.0.0.1:{port}\"]\n"
    ))
    .await
}

/// The one value that a query gives, once it is as it should be.
async fn answer(prometheus: &PrometheusServer, promql: &str, is_right: impl Fn(f64) -> bool) -> f64 {
    eventually(promql, LIMIT, async || {
        let found = prometheus.query(promql).await;
        // Only a failed test shows it.
        eprintln!("{promql}: {found:?}");
        match found.as_slice() {
            [one] if is_right(one.value) => Some(one.value),
            _ => None,
        }
    })
    .await
}

/// Sends commands, and has Prometheus tell their number, times and quantiles without a bucket's bound in the query.
async fn quantiles_are_those_of_the_commands(prometheus: &PrometheusServer, server: &Server) {
    let duration = prometheus_name(Metric::COMMAND_DURATION.name);
    let set = format!("{duration}{{command=\"SET\"}}");
    let mut connection = server.connect().await;
    redis::cmd("SET").arg("key").arg(0).exec_async(&mut connection).await.expect("SET works");
    answer(prometheus, &format!("histogram_count({set})"), |count| count == 1.0).await;
    for number in 1..=SENT {
        redis::cmd("SET").arg("key").arg(number).exec_async(&mut connection).await.expect("SET works");
    }
    let sent = (1 + SENT) as f64;
    answer(prometheus, &format!("histogram_count({set})"), |count| count == sent).await;
    let sum = answer(prometheus, &format!("histogram_sum({set})"), |sum| sum > 0.0).await;
    let stated = server.metrics().await;
    let stated = stated.iter().find(|sample| {
        sample.name == format!("{duration}_sum") && sample.labels.get("command").is_some_and(|command| command == "SET")
    });
    assert_eq!(Some(sum), stated.map(|sample| sample.value), "the sum of the classic histogram");
    let quantile = |share: f64| format!("histogram_quantile({share}, rate({set}[1m]))");
    let median = answer(prometheus, &quantile(0.5), |seconds| seconds > 0.0).await;
    let tail = answer(prometheus, &quantile(0.99), |seconds| seconds > 0.0).await;
    assert!(median <= tail && tail < 10.0, "{median} s, {tail} s");
    // Between the median and the 99th percentile lies about a half; buckets are narrow.
    let fraction = format!("histogram_fraction(0, {median}, {set})");
    let below = answer(prometheus, &fraction, |share| share > 0.0).await;
    assert!((0.35..0.65).contains(&below), "{below} of the commands took up to {median} s");
}

#[tokio::test]
async fn a_prometheus_that_scrapes_native_histograms_finds_them() {
    let server = Server::start(&["--admin.native_histograms", "true", "--aof.appendfsync", "always"]).await;
    let prometheus = scraping_native(server.admin_port, "").await;
    quantiles_are_those_of_the_commands(&prometheus, &server).await;
    // A native histogram is stored instead of the classic one, unless both are asked for.
    let duration = prometheus_name(Metric::COMMAND_DURATION.name);
    assert!(prometheus.query(&format!("{duration}_bucket")).await.is_empty());
    let syncs = prometheus_name(Metric::AOF_SYNC_DURATION.name);
    answer(&prometheus, &format!("histogram_count({syncs})"), |count| count > 0.0).await;
    assert_eq!(prometheus.declared_type(&duration).await.as_deref(), Some("histogram"));
    let commands = prometheus_name(Metric::COMMANDS_TOTAL.name);
    answer(&prometheus, &format!("{commands}{{command=\"SET\"}}"), |count| count == (1 + SENT) as f64).await;
    let exemplars = format!("{duration}{{command=\"SET\"}}");
    let exemplar = eventually("an exemplar", LIMIT, async || prometheus.exemplars(&exemplars).await.pop()).await;
    assert!(TraceId::parse(exemplar.labels[EXEMPLAR_TRACE_ID].as_bytes()).is_some(), "{exemplar:?}");
}

#[tokio::test]
async fn classic_buckets_are_there_beside_native_ones() {
    let server = Server::start(&["--admin.native_histograms", "true"]).await;
    let prometheus = scraping_native(server.admin_port, "    always_scrape_classic_histograms: true\n").await;
    quantiles_are_those_of_the_commands(&prometheus, &server).await;
    let duration = prometheus_name(Metric::COMMAND_DURATION.name);
    let classic = format!("{duration}_bucket{{command=\"SET\",le=\"+Inf\"}}");
    answer(&prometheus, &classic, |count| count == (1 + SENT) as f64).await;
}

/// Without the key nothing changes for such a Prometheus: it gets classic buckets.
#[tokio::test]
async fn without_the_key_there_are_classic_buckets_alone() {
    let server = Server::start(&[]).await;
    let mut connection = server.connect().await;
    redis::cmd("SET").arg("key").arg(0).exec_async(&mut connection).await.expect("SET works");
    let prometheus = scraping_native(server.admin_port, "").await;
    let duration = prometheus_name(Metric::COMMAND_DURATION.name);
    answer(&prometheus, &format!("{duration}_bucket{{command=\"SET\",le=\"+Inf\"}}"), |count| count == 1.0).await;
    assert!(prometheus.query(&format!("histogram_count({duration})")).await.is_empty());
}

#[tokio::test]
async fn exponential_histograms_come_through_a_collector_as_native_ones() {
    let backend = Backend::start().await;
    let options = [
        "--telemetry.metrics_histogram_aggregation",
        "base2_exponential_bucket_histogram",
        "--telemetry.metrics_export_interval",
        "1",
    ];
    let server = Server::exporting(&backend, &options).await;
    let prometheus = scraping_native(backend.metrics_port, "").await;
    quantiles_are_those_of_the_commands(&prometheus, &server).await;
}
