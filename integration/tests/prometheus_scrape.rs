//! A real Prometheus looks at Ferrite: its scrape, promtool, every query of the documentation, exemplars; and the same queries
//! where the metrics went through a Collector.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ferrite_golden_traces::TraceId;
use ferrite_integration::backend::Backend;
use ferrite_integration::prometheus_server::{Element, PrometheusServer};
use ferrite_integration::queries::QUERIES;
use ferrite_integration::server::Server;
use ferrite_integration::{eventually, http};
use ferrite_telemetry::schema::{EXEMPLAR_TRACE_ID, Instrument, METRICS, Metric, prometheus_name};
use tokio::task::AbortHandle;

/// Until there were some scrapes, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Commands for as long as the test runs: a rate is that of something that goes on.
struct Load(AbortHandle);

impl Load {
    async fn on(server: &Server) -> Self {
        let mut connection = server.connect().await;
        // When the last of them succeeded is told once there was one.
        for run in ["SAVE", "BGREWRITEAOF"] {
            redis::cmd(run).exec_async(&mut connection).await.expect("it begins");
        }
        let commands = async move {
            for number in 0_u64.. {
                let key = format!("key:{}", number % 100);
                let set = redis::cmd("SET").arg(&key).arg(number).exec_async(&mut connection).await;
                let got = redis::cmd("GET").arg(&key).query_async::<u64>(&mut connection).await;
                // The server is gone at the end of the test.
                if set.is_err() || got.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        Self(tokio::spawn(commands).abort_handle())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Every query of the documentation has the answer that it should have.
async fn every_query_answers(prometheus: &PrometheusServer) {
    for query in QUERIES {
        let mut last = Ok(());
        eventually(query.promql, LIMIT, async || {
            let found = query.check(&prometheus.query(query.promql).await);
            if found != last {
                // Only a failed test shows it.
                eprintln!("{found:?}");
                last = found.clone();
            }
            found.ok()
        })
        .await;
    }
}

/// The type that Prometheus must know of a metric.
fn type_of(metric: &Metric) -> &'static str {
    match metric.instrument {
        Instrument::Counter => "counter",
        Instrument::Gauge => "gauge",
        Instrument::Histogram(_) => "histogram",
    }
}

/// The series of a metric under its own name.
async fn series_of(prometheus: &PrometheusServer, metric: &Metric) -> Vec<Element> {
    let name = prometheus_name(metric.name);
    let suffix = if matches!(metric.instrument, Instrument::Histogram(_)) { "_bucket" } else { "" };
    prometheus.query(&format!("{name}{suffix}")).await
}

/// All metrics are there under exactly the schema's names, with their label.
async fn every_metric_is_there(prometheus: &PrometheusServer) {
    // There is no replica whose lag could be told.
    for metric in METRICS.iter().filter(|metric| **metric != Metric::REPLICATION_LAG) {
        let series = eventually(metric.name, LIMIT, async || {
            Some(series_of(prometheus, metric).await).filter(|series| !series.is_empty())
        })
        .await;
        if let Some(label) = metric.label {
            assert!(series.iter().all(|element| element.labels.contains_key(label.as_str())), "{series:?}");
        }
    }
}

#[tokio::test]
async fn a_prometheus_that_scrapes_ferrite_answers_every_query() {
    let server = Server::start(&["--aof.appendfsync", "always"]).await;
    let _load = Load::on(&server).await;
    let prometheus = PrometheusServer::scraping(&[("ferrite", server.admin_port)]).await;
    every_query_answers(&prometheus).await;
    every_metric_is_there(&prometheus).await;
    let up = prometheus.query("up{job=\"ferrite\"}").await;
    assert_eq!(up.iter().map(|element| element.value).collect::<Vec<_>>(), [1.0]);
}

/// Prometheus asks for OpenMetrics unless it is told otherwise. A series must not become another one with the format: not by its
/// name, not by how a bucket's bound is written.
#[tokio::test]
async fn both_formats_have_the_same_series() {
    let server = Server::start(&["--aof.appendfsync", "always"]).await;
    let _load = Load::on(&server).await;
    let job = |name, protocol| {
        format!(
            "  - job_name: {name}\n    scrape_protocols: [{protocol}]\n    static_configs:\n      - targets: [\"127.0.0.1:{}\"]\n",
            server.admin_port
        )
    };
    let jobs = [job("classic", "PrometheusText0.0.4"), job("open", "OpenMetricsText1.0.0")].concat();
    let prometheus = PrometheusServer::with(&format!("global:\n  scrape_interval: 1s\nscrape_configs:\n{jobs}")).await;
    let series = async |job: &str| {
        let all = prometheus.query(&format!("{{__name__=~\"ferrite_.+\", job=\"{job}\"}}")).await;
        let without_job = |mut element: Element| {
            element.labels.remove("job");
            element.labels
        };
        all.into_iter().map(without_job).collect::<BTreeSet<_>>()
    };
    eventually("both jobs have the same series", LIMIT, async || {
        let (classic, open) = (series("classic").await, series("open").await);
        let bound = |labels: &BTreeMap<String, String>| labels.get("le").is_some_and(|le| le == "1e-06");
        if classic == open && classic.iter().any(bound) {
            return Some(());
        }
        // Only a failed test shows it.
        eprintln!("{:?}", classic.symmetric_difference(&open).next());
        None
    })
    .await;
}

#[tokio::test]
async fn a_prometheus_behind_a_collector_answers_every_query() {
    let backend = Backend::start().await;
    let options = ["--telemetry.metrics_export_interval", "1", "--aof.appendfsync", "always"];
    let server = Server::exporting(&backend, &options).await;
    let _load = Load::on(&server).await;
    let prometheus = PrometheusServer::scraping(&[("otel-collector", backend.metrics_port)]).await;
    every_query_answers(&prometheus).await;
    every_metric_is_there(&prometheus).await;
    for metric in METRICS.iter().filter(|metric| **metric != Metric::REPLICATION_LAG) {
        let declared = prometheus.declared_type(&prometheus_name(metric.name)).await;
        assert_eq!(declared.as_deref(), Some(type_of(metric)), "{}", metric.name);
    }
}

#[tokio::test]
async fn promtool_finds_the_three_names_that_the_documentation_fixed_and_nothing_else() {
    let server = Server::start(&["--aof.appendfsync", "always"]).await;
    let prometheus = PrometheusServer::scraping(&[("ferrite", server.admin_port)]).await;
    let mut connection = server.connect().await;
    redis::cmd("SET").arg("a").arg("1").exec_async(&mut connection).await.expect("SET works");
    let page = http::get(server.admin_port, "/metrics").await.expect("/metrics answers");
    let mut findings = prometheus.promtool_check_metrics(&page);
    findings.sort();
    assert_eq!(
        findings,
        [
            "ferrite_keys_total non-counter metrics should not have \"_total\" suffix",
            "ferrite_network_bytes_received counter metrics should have \"_total\" suffix",
            "ferrite_network_bytes_sent counter metrics should have \"_total\" suffix",
        ]
    );
}

/// An exemplar of SET has come to Prometheus, and the server shows the trace that it names.
async fn an_exemplar_leads_to_its_trace(prometheus: &PrometheusServer, server: &Server) {
    let buckets = format!("{}_bucket{{command=\"SET\"}}", prometheus_name(Metric::COMMAND_DURATION.name));
    let exemplar =
        eventually("Prometheus has an exemplar of SET", LIMIT, async || prometheus.exemplars(&buckets).await.pop())
            .await;
    let trace_id = &exemplar.labels[EXEMPLAR_TRACE_ID];
    assert!(TraceId::parse(trace_id.as_bytes()).is_some(), "{trace_id}");
    assert!(exemplar.value > 0.0 && exemplar.value < 10.0, "{} s", exemplar.value);

    let mut connection = server.connect().await;
    let mut get = redis::cmd("OTEL.TRACES");
    let lines: Vec<String> = get.arg("GET").arg(trace_id).query_async(&mut connection).await.expect("it is kept");
    assert_eq!(lines[0].split(' ').nth(1), Some(trace_id.as_str()), "{lines:#?}");
    assert!(lines.iter().any(|line| line.ends_with("db.operation: SET")), "{lines:#?}");
}

#[tokio::test]
async fn an_exemplar_in_prometheus_leads_to_its_trace() {
    let server = Server::start(&[]).await;
    let _load = Load::on(&server).await;
    let prometheus = PrometheusServer::scraping(&[("ferrite", server.admin_port)]).await;
    an_exemplar_leads_to_its_trace(&prometheus, &server).await;
}

/// The Collector hands exemplars on where its page is OpenMetrics; what has no `_total` in its name as a counter then gets one.
#[tokio::test]
async fn an_exemplar_behind_a_collector_leads_to_its_trace() {
    let config = include_str!("../images/otelcol/config.yaml");
    let open = config.replace("translation_strategy:", "enable_open_metrics: true\n    translation_strategy:");
    assert_ne!(open, config);
    let backend = Backend::with(&open, &[]).await;
    let server = Server::exporting(&backend, &["--telemetry.metrics_export_interval", "1"]).await;
    let _load = Load::on(&server).await;
    let prometheus = PrometheusServer::scraping(&[("otel-collector", backend.metrics_port)]).await;
    an_exemplar_leads_to_its_trace(&prometheus, &server).await;
    every_query_answers(&prometheus).await;
}
