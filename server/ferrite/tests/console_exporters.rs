//! `OTEL_{TRACES,METRICS,LOGS}_EXPORTER` with `console` in it: what a real process writes to standard output.

// Drives a real process: time and files are the system's.
#![allow(clippy::disallowed_methods)]
#![cfg(feature = "otel")]

mod running;

use std::net::TcpListener;
use std::sync::mpsc;

use ferrite_telemetry::schema::{EventName, Metric};
use ferrite_telemetry::{Attribute, SpanName};
use running::{PATIENCE, Running};
use serde_json::Value;

const ENABLED: &[&str] = &["--telemetry.enabled", "true", "--telemetry.batch_timeout_ms", "10"];

/// The next line that is this object.
fn line(server: &Running, key: &str, value: &str) -> Value {
    let wanted = |line: &str| serde_json::from_str(line).ok().filter(|line: &Value| line[key] == value);
    let line = server.line_that(&format!("{key} is {value}"), |line| wanted(line).is_some());
    wanted(&line).expect("it was just found")
}

#[test]
fn spans_are_written_as_lines_of_json() {
    let none = [("OTEL_METRICS_EXPORTER", "none"), ("OTEL_LOGS_EXPORTER", "none")];
    let server = Running::start_in(&[&[("OTEL_TRACES_EXPORTER", "console")], &none[..]].concat(), ENABLED);
    server.ask("SET user:1 secret-value\r\nINCR user:1");
    let set = line(&server, "span", SpanName::Command.as_str());
    assert_eq!(set["kind"], "SERVER");
    assert_eq!(set["attributes"][Attribute::DbStatement.as_str()], "SET user:1 ...");
    assert!(set["start"].as_str().is_some_and(|time| time.starts_with("20") && time.ends_with('Z')), "{set}");
    assert!(set["duration_ns"].as_u64().is_some_and(|ns| ns > 0) && set.get("status").is_none(), "{set}");
    let child = line(&server, "span", SpanName::StorageWrite.as_str());
    assert_eq!((&child["parent_span_id"], &child["trace_id"]), (&set["span_id"], &set["trace_id"]));
    let failed = line(&server, "span", SpanName::Command.as_str());
    assert_eq!(failed["status"]["code"], "ERROR", "{failed}");
    // The page says where they go.
    assert!(server.get("/api/state", None).contains("\"on: to the console\""));
}

#[test]
fn metrics_and_log_lines_are_too_and_each_signal_says_where_it_is_from() {
    let environment = [
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_METRICS_EXPORTER", "console"),
        ("OTEL_LOGS_EXPORTER", "console"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "50"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "10"),
        ("OTEL_SERVICE_NAME", "cache-7"),
    ];
    let server = Running::start_in(&environment, ENABLED);
    server.ask("SET k v");
    let told = line(&server, "log", "Ready to accept connections");
    assert_eq!((&told["severity"], &told["attributes"]["port"]), (&"INFO".into(), &server.port.into()));
    let calls = line(&server, "metric", Metric::COMMANDS_TOTAL.name);
    assert_eq!((&calls["type"], &calls["unit"]), (&"counter".into(), &"{commands}".into()));
    let durations = line(&server, "metric", Metric::COMMAND_DURATION.name);
    assert!(durations["buckets"].as_array().is_some_and(|buckets| !buckets.is_empty()), "{durations}");
    for signal in ["metrics", "logs"] {
        let origin = server.begun.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let origin = origin.into_iter().find(|line| line["signal"] == signal).expect("it says so at its start");
        assert_eq!(origin["resource"]["service.name"], "cache-7", "{origin}");
    }
}

#[test]
fn with_both_exporters_the_backend_is_tried_and_the_console_written() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, tried) = mpsc::channel();
    std::thread::spawn(move || listener.incoming().take_while(|_| sender.send(()).is_ok()).for_each(drop));
    let environment = [("OTEL_TRACES_EXPORTER", "otlp,console"), ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    let more = ["--telemetry.metrics_exporter", "none", "--telemetry.logs_exporter", "none"];
    let server = Running::start_in(&environment, &[ENABLED, &more].concat());
    server.ask("GET k");
    line(&server, "span", SpanName::Command.as_str());
    assert!(tried.recv_timeout(PATIENCE).is_ok(), "nobody came to {endpoint}");
}

/// A key that lies on disk: its trace tells of the tiers that did not have it.
#[test]
fn events_are_among_what_is_written() {
    let small = ["--storage.mutable_region_size_mb", "0.015625", "--storage.read_only_region_size_mb", "0.015625"];
    let more = ["--telemetry.metrics_exporter", "none", "--telemetry.logs_exporter", "none"];
    let server = Running::start(&[ENABLED, &["--telemetry.traces_exporter", "console"], &small, &more].concat());
    server.ask("SET cold v");
    let filling: Vec<String> = (0..100).map(|number| format!("SET filler:{number} {}", "f".repeat(1000))).collect();
    server.ask(&filling.join("\r\n"));
    assert_eq!(server.ask("GET cold"), "$1\r\nv\r\n+OK\r\n");
    let told = server.line_that("a miss", |line| line.contains(EventName::CacheMiss.as_str()));
    let span: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(span["span"], SpanName::StorageRead.as_str());
    let trace = server.ask("OTEL.TRACES FIND CMD GET KEY cold");
    assert_eq!(trace.matches(&format!("|-- event: {} (+", EventName::CacheMiss)).count(), 2, "{trace}");
}

#[test]
fn a_name_that_is_no_exporter_is_passed_over_with_a_warning_that_names_those_there_are() {
    let server = Running::start_in(&[("OTEL_TRACES_EXPORTER", "zipkin")], &[]);
    let warning = server.begun.iter().find(|line| line.contains("OTEL_TRACES_EXPORTER")).expect("it is said");
    assert!(warning.contains("is ignored: expected \\\"otlp\\\", \\\"console\\\""), "{warning}");
}
