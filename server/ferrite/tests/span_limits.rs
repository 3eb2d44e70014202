//! How much of a trace leaves a real process: spans of a command over many keys, and the limits that OpenTelemetry's variables set.

// Drives a real process: time and files are the system's.
#![allow(clippy::disallowed_methods)]
#![cfg(feature = "otel")]

mod running;

use ferrite_telemetry::schema::{DropReason, EventName, Metric, prometheus_name};
use ferrite_telemetry::{Attribute, SpanName};
use running::{Running, eventually};
use serde_json::Value;

/// Traces go to the console, each at once.
const TO_THE_CONSOLE: &[&str] = &[
    "--telemetry.enabled",
    "true",
    "--telemetry.batch_timeout_ms",
    "10",
    "--telemetry.traces_exporter",
    "console",
    "--telemetry.metrics_exporter",
    "none",
    "--telemetry.logs_exporter",
    "none",
];

/// Spans of one command beside its stations.
const SPANS_MAX: u64 = 1000;
/// Parse, dispatch, execute, serialise, and the write of the reply; and the root.
const STATIONS: u64 = 5;

fn span(line: &str) -> Option<Value> {
    serde_json::from_str(line).ok().filter(|line: &Value| line["span"].is_string())
}

/// The exported root of the next command of this name.
fn root(server: &Running, name: &str) -> Value {
    let is_it = |span: &Value| span["attributes"][Attribute::DbOperation.as_str()] == name && span["kind"] == "SERVER";
    let line = server.line_that(name, |line| span(line).is_some_and(|span| is_it(&span)));
    span(&line).expect("it was just read")
}

/// The spans that follow the root in its trace.
fn below(server: &Running, root: &Value) -> u64 {
    let mut count = 0;
    loop {
        let line = server.line_that("a span", |line| span(line).is_some());
        let span = span(&line).expect("it was just read");
        if span["trace_id"] != root["trace_id"] {
            return count;
        }
        assert_eq!(span["parent_span_id"], root["span_id"], "{span}");
        count += 1;
    }
}

#[test]
fn a_command_over_many_keys_exports_so_many_spans_and_the_number_of_the_others() {
    let server = Running::start(TO_THE_CONSOLE);
    let keys: Vec<String> = (0..3000).map(|number| format!("key:{number}")).collect();
    let pairs: Vec<String> = keys.iter().map(|key| format!("{key} v")).collect();
    let mut dropped_of_all = 0;
    for (name, arguments) in [("MSET", pairs.join(" ")), ("MGET", keys.join(" ")), ("DEL", keys.join(" "))] {
        server.ask(&format!("{name} {arguments}"));
        let root = root(&server, name);
        let dropped = root["attributes"][Attribute::CommandSpansDropped.as_str()].as_u64().expect("they are counted");
        // At least the look-up of each key, of which the most found no room.
        assert!(dropped >= 3000 - SPANS_MAX, "{name}: {dropped}");
        assert_eq!(below(&server, &root), SPANS_MAX + STATIONS, "{name}");
        let told = server.ask(&format!("OTEL.TRACES GET {}", root["trace_id"].as_str().expect("an id")));
        assert!(told.contains(&format!("|-- {}: {dropped}", Attribute::CommandSpansDropped)), "{name}");
        dropped_of_all += dropped;
    }
    let metric = prometheus_name(Metric::SPANS_DROPPED.name);
    let line = format!("{metric}{{reason=\"{}\"}} {dropped_of_all}", DropReason::SpanLimit);
    let page = server.get("/metrics", None);
    assert!(page.lines().any(|told| told == line), "{line} in {page}");
}

/// A server with regions so small that what was written is soon on disk.
fn small(environment: &[(&str, &str)]) -> Running {
    let regions = ["--storage.mutable_region_size_mb", "0.015625", "--storage.read_only_region_size_mb", "0.015625"];
    let server = Running::start_in(environment, &[TO_THE_CONSOLE, &regions].concat());
    server.ask("SET cold v");
    let filling: Vec<String> = (0..100).map(|number| format!("SET filler:{number} {}", "f".repeat(1000))).collect();
    server.ask(&filling.join("\r\n"));
    server
}

/// The exported span of the mutable tier that did not have the key.
fn miss(server: &Running) -> Value {
    root(server, "GET");
    let is_miss = |span: &Value| {
        span["span"] == SpanName::StorageRead.as_str()
            && span["attributes"][Attribute::StorageTier.as_str()] == "mutable"
    };
    let line = server.line_that("a miss", |line| span(line).is_some_and(|span| is_miss(&span)));
    span(&line).expect("it was just read")
}

#[test]
fn attributes_are_limited_in_number_and_length_by_the_general_variables_and_by_those_of_spans() {
    let of_set = |environment: &[(&str, &str)]| {
        let server = Running::start_in(environment, TO_THE_CONSOLE);
        server.ask("SET a-long-key v");
        root(&server, "SET")
    };
    let all = of_set(&[]);
    let count = all["attributes"].as_object().expect("attributes").len() as u64;
    assert!(count > 8 && all.get("dropped_attributes").is_none(), "{all}");
    for name in ["OTEL_ATTRIBUTE_COUNT_LIMIT", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"] {
        let few = of_set(&[("OTEL_ATTRIBUTE_COUNT_LIMIT", "7"), (name, "3")]);
        assert_eq!(few["attributes"].as_object().map(serde_json::Map::len), Some(3), "{name}: {few}");
        assert_eq!(few["dropped_attributes"], count - 3, "{name}: {few}");
    }
    for name in ["OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT"] {
        let short = of_set(&[(name, "6")]);
        assert_eq!(short["attributes"][Attribute::CommandKey.as_str()], "a-lon…", "{name}: {short}");
    }
}

#[test]
fn events_their_attributes_and_links_are_limited_by_their_variables() {
    let get = |environment: &[(&str, &str)]| {
        let server = small(environment);
        assert_eq!(server.ask("GET cold"), "$1\r\nv\r\n+OK\r\n");
        miss(&server)
    };
    let all = get(&[]);
    assert_eq!(all["events"][0]["name"], EventName::CacheMiss.as_str(), "{all}");
    let none = get(&[("OTEL_SPAN_EVENT_COUNT_LIMIT", "0")]);
    assert!(none.get("events").is_none() && none["dropped_events"] == 1, "{none}");
    let bare = get(&[("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "0")]);
    let event = &bare["events"][0];
    assert_eq!((&event["attributes"], &event["dropped_attributes"]), (&serde_json::json!({}), &1.into()), "{bare}");

    // A queued command links to the context that it came with.
    let queued = |environment: &[(&str, &str)]| {
        let server = Running::start_in(environment, TO_THE_CONSOLE);
        server.ask("MULTI\r\nOTEL.TRACE 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 GET linked\r\nEXEC");
        let exec = root(&server, "EXEC");
        let is_get = |span: &Value| {
            span["parent_span_id"] == exec["span_id"] && span["attributes"][Attribute::CommandName.as_str()] == "GET"
        };
        let line = server.line_that("the queued GET", |line| span(line).is_some_and(|span| is_get(&span)));
        span(&line).expect("it was just read")
    };
    assert_eq!(queued(&[])["links"][0]["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    let unlinked = queued(&[("OTEL_SPAN_LINK_COUNT_LIMIT", "0")]);
    assert!(unlinked.get("links").is_none() && unlinked["dropped_links"] == 1, "{unlinked}");
}

/// What finds no room in the queue is dropped as a whole and counted, and no command waits for it.
#[test]
fn a_queue_that_is_full_drops_and_counts() {
    // Nobody listens there.
    let more = [
        "--telemetry.enabled",
        "true",
        "--telemetry.endpoint",
        "http://127.0.0.1:1",
        "--telemetry.queue_size",
        "20",
        "--telemetry.metrics_exporter",
        "none",
        "--telemetry.logs_exporter",
        "none",
    ];
    let server = Running::start(&more);
    server.ask(&vec!["SET k v"; 200].join("\r\n"));
    let metric = prometheus_name(Metric::SPANS_DROPPED.name);
    let start = format!("{metric}{{reason=\"{}\"}} ", DropReason::QueueFull);
    eventually("spans are dropped", || {
        let page = server.get("/metrics", None);
        let dropped =
            page.lines().find_map(|line| line.strip_prefix(&start)).map(|count| count.parse::<f64>().unwrap());
        dropped.is_some_and(|dropped| dropped > 1000.0)
    });
}
