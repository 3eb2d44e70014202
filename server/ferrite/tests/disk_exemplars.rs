//! The exemplars of the disk's histograms, at a real process: each names a trace that the server knows.

// Drives a real process: time and files are the system's.
#![allow(clippy::disallowed_methods)]

mod running;

use ferrite_telemetry::SpanName;
use ferrite_telemetry::schema::{EXEMPLAR_TRACE_ID, Metric, prometheus_name};
use running::{Running, eventually};

const OPENMETRICS: Option<&str> = Some("application/openmetrics-text; version=1.0.0");

/// The trace that an exemplar of this histogram names, as OTEL.TRACES shows it.
fn trace_of(server: &Running, metric: Metric) -> String {
    let start = format!("{}_bucket{{", prometheus_name(metric.name));
    let mark = format!("# {{{EXEMPLAR_TRACE_ID}=\"");
    let mut id = String::new();
    eventually("the histogram has an exemplar", || {
        let page = server.get("/metrics", OPENMETRICS);
        let told = page.lines().filter(|line| line.starts_with(&start)).find_map(|line| line.split_once(&mark));
        if let Some((_, exemplar)) = told {
            id = exemplar[..32].to_owned();
        }
        !id.is_empty()
    });
    server.ask(&format!("OTEL.TRACES GET {id}"))
}

#[test]
fn a_flush_names_its_trace() {
    let small = ["--storage.mutable_region_size_mb", "0.015625", "--storage.read_only_region_size_mb", "0.015625"];
    let server = Running::start(&small);
    let filling: Vec<String> = (0..100).map(|number| format!("SET filler:{number} {}", "f".repeat(1000))).collect();
    server.ask(&filling.join("\r\n"));
    let trace = trace_of(&server, Metric::FLUSH_DURATION);
    assert!(trace.contains(&format!("+{} (", SpanName::Flush)), "{trace}");
}

#[test]
fn a_sync_of_the_append_only_file_names_the_command_that_waited_for_it() {
    let server = Running::start(&["--aof.appendfsync", "always"]);
    for _ in 0..20 {
        server.ask("SET k v");
    }
    let trace = trace_of(&server, Metric::AOF_SYNC_DURATION);
    assert!(trace.contains(&format!("+-- {} (", SpanName::AofSync)), "{trace}");
}
