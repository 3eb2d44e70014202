//! The files in `examples/` do what their first lines say, with the real components.

use std::path::PathBuf;
use std::time::Duration;

use ferrite_golden_traces::Attribute;
use ferrite_integration::backend::{Backend, validate};
use ferrite_integration::prometheus_server::PrometheusServer;
use ferrite_integration::queries::QUERIES;
use ferrite_integration::server::Server;
use ferrite_integration::{eventually, jaeger};
use ferrite_telemetry::schema::{Metric, SpanName, prometheus_name};
use serde_json::Value;
use tokio::process::Command;

/// Past the batches of Ferrite and of the Collector, each five seconds, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn example(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An application with the helper for the redis crate sends commands: its span, the library's and Ferrite's are one trace.
async fn a_trace_is_joined(backend: &Backend, server: &Server) {
    let key = "joined:1";
    let mut application = Command::new(env!("CARGO_BIN_EXE_rust_client"));
    application.args([&server.port.to_string(), &backend.endpoint, key, "0"]).kill_on_drop(true);
    let output = application.output().await.expect("it can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    let trace_id = report["request"][0].as_str().expect("the id of its trace");

    let joined = |spans: &[jaeger::JaegerSpan]| {
        let command = spans
            .iter()
            .find(|span| span.span.name == SpanName::Command.as_str() && span.text(Attribute::DbOperation) == "SET")?;
        let library = spans.iter().find(|span| Some(span.span.span_id) == command.span.parent)?;
        let request = spans.iter().find(|span| Some(span.span.span_id) == library.span.parent)?;
        Some((request.span.name.clone(), command.service.clone(), library.service.clone()))
    };
    let spans = jaeger::trace(backend.jaeger_port, trace_id, |spans| joined(spans).is_some()).await;
    let names = joined(&spans).expect("just seen");
    assert_eq!(names, ("handle-request".to_owned(), "ferrite".to_owned(), "rust-client".to_owned()));
}

#[tokio::test]
async fn every_configuration_of_the_collector_is_valid() {
    let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut checked = 0;
    for folder in std::fs::read_dir(examples).expect("the examples are there") {
        let path = folder.expect("it can be read").path().join("otel-collector-config.yaml");
        if let Ok(config) = std::fs::read_to_string(&path) {
            assert_eq!(validate(&config).await, Ok(()), "{}", path.display());
            checked += 1;
        }
    }
    assert_eq!(checked, 5);
    // What was wrong in the documentation's, each by itself.
    let minimal = example("minimal/otel-collector-config.yaml");
    for (good, bad) in [
        ("  debug:\n    verbosity: basic", "  logging:\n    loglevel: info"),
        ("  debug:\n    verbosity: basic", "  loki:\n    endpoint: \"http://loki:3100/loki/api/v1/push\""),
    ] {
        let config = minimal.replace(good, bad);
        assert_ne!(config, minimal);
        validate(&config).await.expect_err("today's Collector has no such exporter");
    }
}

#[tokio::test]
async fn the_minimal_stack_joins_traces_and_answers_the_queries() {
    let backend = Backend::with(&example("minimal/otel-collector-config.yaml"), &[]).await;
    let server = Server::exporting(&backend, &["--telemetry.metrics_export_interval", "1"]).await;
    let config = example("prometheus.yml")
        .replace("15s", "1s")
        .replace("ferrite:9090", &format!("127.0.0.1:{}", server.admin_port))
        .replace("otel-collector:8889", &format!("127.0.0.1:{}", backend.metrics_port));
    let prometheus = PrometheusServer::with(&config).await;
    a_trace_is_joined(&backend, &server).await;

    let commands = prometheus_name(Metric::COMMANDS_TOTAL.name);
    // Both are scraped, and Ferrite's series are there once.
    eventually("the Collector has Ferrite's metrics", LIMIT, async || {
        backend.metrics().await.iter().any(|sample| sample.name == commands).then_some(())
    })
    .await;
    let mut connection = server.connect().await;
    for query in QUERIES {
        eventually(query.title, LIMIT, async || {
            redis::cmd("SET").arg("a").arg("1").exec_async(&mut connection).await.expect("SET works");
            redis::cmd("GET").arg("a").exec_async(&mut connection).await.expect("GET works");
            query.check(&prometheus.query(query.promql).await).ok()
        })
        .await;
    }
    let up = prometheus.query("up").await;
    assert!(up.len() == 2 && up.iter().all(|job| job.value == 1.0), "{up:?}");
    assert_eq!(prometheus.query(&format!("{commands}{{command=\"SET\"}}")).await.len(), 1);
}

#[tokio::test]
async fn the_full_stack_joins_traces_and_sends_logs_to_loki() {
    let backend = Backend::with_loki(&example("full/otel-collector-config.yaml")).await;
    let server = Server::exporting(&backend, &["--logging.commands", "all"]).await;
    a_trace_is_joined(&backend, &server).await;
    eventually("the command's log line is in Loki", LIMIT, async || {
        let logs = backend.logs_in_loki().await;
        let resource =
            logs.contains("service.name: Str(ferrite)") && logs.contains("deployment.environment: Str(production)");
        let of_command = logs.split("LogRecord #").any(|record| {
            record.contains("Body: Str(Command executed)")
                && record.contains("joined:1")
                // An empty one has nothing behind the colon.
                && record.lines().any(|line| line.starts_with("Trace ID: ") && line.len() == 10 + 32)
        });
        (resource && of_command).then_some(())
    })
    .await;
}

#[tokio::test]
async fn tempo_s_configuration_joins_traces() {
    let backend = Backend::with(&example("tempo/otel-collector-config.yaml"), &[]).await;
    let server = Server::exporting(&backend, &["--telemetry.metrics_enabled", "false"]).await;
    a_trace_is_joined(&backend, &server).await;
}
