//! The Collector's tail sampling, as the documentation configures it, on Ferrite's spans.

use std::time::Duration;

use ferrite_golden_traces::{Attribute, Status};
use ferrite_integration::backend::Backend;
use ferrite_integration::eventually;
use ferrite_integration::jaeger::{self, JaegerSpan};
use ferrite_integration::server::Server;
use ferrite_telemetry::schema::{Metric, SpanName, prometheus_name};

const CONFIG: &str = include_str!("../examples/tail-sampling/otel-collector-config.yaml");

/// Traces that are neither slow nor failed: five in a hundred of them are kept.
const ORDINARY: usize = 1000;
/// Six standard deviations around the fifty that are expected: a sound sampler is outside once in 500 million runs.
const ORDINARY_KEPT: std::ops::RangeInclusive<usize> = 9..=91;
/// How many of each kind must be kept, every one.
const NOTABLE: usize = 3;
/// A command's way to the Collector; its queue has room for far more than one portion.
const LIMIT: Duration = Duration::from_secs(30);
const PORTION: usize = 250;

fn root(spans: &[JaegerSpan]) -> Option<&JaegerSpan> {
    spans.iter().find(|span| span.span.name == SpanName::Command.as_str())
}

#[tokio::test]
async fn a_collector_keeps_failed_and_slow_traces_and_a_share_of_the_rest() {
    let backend = Backend::with(CONFIG, &[]).await;
    let options = ["--server.enable_debug_command", "yes", "--telemetry.batch_timeout_ms", "100"];
    let server = Server::exporting(&backend, &options).await;
    let mut connection = server.connect().await;
    let dropped = prometheus_name(Metric::SPANS_DROPPED.name);
    let depth = prometheus_name(Metric::QUEUE_DEPTH.name);
    for first in (0..ORDINARY).step_by(PORTION) {
        for number in first..first + PORTION {
            let key = format!("ordinary:{number}");
            redis::cmd("SET").arg(key).arg("text").exec_async(&mut connection).await.expect("SET works");
        }
        eventually("they are exported", LIMIT, async || (server.metric(&depth).await == 0.0).then_some(())).await;
    }
    for number in 0..NOTABLE {
        let key = format!("ordinary:{number}");
        let failed = redis::cmd("INCR").arg(key).query_async::<i64>(&mut connection).await;
        failed.expect_err("a text cannot be incremented");
        let mut slow = redis::cmd("DEBUG");
        slow.arg("SLEEP").arg("0.06").exec_async(&mut connection).await.expect("DEBUG SLEEP works");
    }

    // Traces are decided about in the order in which they came: the ordinary ones before these.
    for (operation, status) in [("INCR", Status::Error), ("DEBUG", Status::Unset)] {
        let of_it = [(Attribute::DbOperation, operation)];
        let found = eventually(operation, LIMIT, async || {
            Some(jaeger::find(backend.jaeger_port, "ferrite", &of_it).await).filter(|found| found.len() == NOTABLE)
        })
        .await;
        for trace_id in found {
            // Whole: what the server itself has of the trace.
            let mut get = redis::cmd("OTEL.TRACES");
            get.arg("GET").arg(&trace_id);
            let lines: Vec<String> = get.query_async(&mut connection).await.expect("OTEL.TRACES works");
            let spans_there = 1 + lines.iter().filter(|line| line.trim_start().starts_with("+--")).count();
            assert!(spans_there > 3, "{lines:#?}");
            let spans = jaeger::trace(backend.jaeger_port, &trace_id, |spans| spans.len() == spans_there).await;
            assert_eq!(root(&spans).map(|root| &root.span.status), Some(&status));
        }
    }

    let operation = SpanName::Command.as_str();
    let lines = jaeger::lines(backend.jaeger_port, "ferrite", operation, ORDINARY, |lines| !lines.is_empty()).await;
    let kept = lines.iter().filter(|line| line.name == operation && line.tag(Attribute::DbOperation) == "SET").count();
    assert!(ORDINARY_KEPT.contains(&kept), "{kept} of {ORDINARY} ordinary traces were kept");
    assert_eq!(server.metric(&dropped).await, 0.0, "the sample is one of all");
}
