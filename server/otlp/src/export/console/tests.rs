use std::cell::RefCell;

use ferrite_telemetry::schema::{EventName, Metric, SpanName};
use ferrite_telemetry::{Masks, Outcome, Recorder, RecorderConfig, RemoteContext, SpanId, Tier, TraceId};

use super::*;
use crate::Metrics;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// What is printed, as JSON, after a look at the line itself.
fn printed(print: impl FnOnce(&dyn Fn(&str))) -> Vec<Json> {
    let lines = RefCell::new(Vec::new());
    print(&|line: &str| {
        assert!(!line.contains('\n'), "{line}");
        lines.borrow_mut().push(serde_json::from_str(line).expect("a line is an object"));
    });
    lines.into_inner()
}

/// A GET under a caller that misses a tier and fails.
fn trace() -> Queued {
    let mut recorder = Recorder::new(|| 1_000, &RecorderConfig { export: true, ..RecorderConfig::default() });
    recorder.set_wall_clock(0, 1_700_000_000_000_000_000);
    let context = RemoteContext::parse(format!("00-{TRACE_ID}-00f067aa0ba902b7-01").as_bytes(), b"a=b");
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    buffer.begin_command();
    buffer.set_context(&context.expect("valid"));
    buffer.describe("GET", 1, 2, [&b"key"[..]]);
    buffer.dispatch();
    buffer.execute_open();
    buffer.storage_read(Tier::Mutable, false, 0);
    buffer.finish_command(Outcome::Err, b"WRONGTYPE no", 1);
    let mut kept = Vec::new();
    recorder.commit(&mut buffer, |trace| kept.push(trace));
    kept.remove(0).into()
}

#[test]
fn a_span_is_an_object_with_its_ids_times_attributes_and_events() {
    let lines = printed(|print| spans(&[trace()], &Shape::default(), print));
    let named = |name: SpanName| lines.iter().find(|line| line["span"] == name.as_str()).expect("it is there");
    let root = named(SpanName::Command);
    assert_eq!((&root["trace_id"], &root["parent_span_id"]), (&json!(TRACE_ID), &json!("00f067aa0ba902b7")));
    assert_eq!((&root["kind"], &root["trace_state"]), (&json!("SERVER"), &json!("a=b")));
    assert_eq!(root["start"], "2023-11-14T22:13:20.000001000Z");
    assert_eq!(root["duration_ns"], 0);
    assert_eq!(root["status"], json!({ "code": "ERROR", "message": "WRONGTYPE no" }));
    assert_eq!(root["attributes"][Attribute::CommandKey.as_str()], "key");
    assert_eq!(root["attributes"][Attribute::CommandArgsCount.as_str()], 2);
    assert!(root.get("events").is_none() && root.get("links").is_none(), "{root}");
    let read = named(SpanName::StorageRead);
    assert_eq!((&read["parent_span_id"], &read["kind"]), (&root["span_id"], &json!("INTERNAL")));
    let event = &read["events"][0];
    assert_eq!(event["name"], EventName::CacheMiss.as_str());
    assert_eq!(event["attributes"][Attribute::StorageTier.as_str()], Tier::Mutable.as_str());
}

#[test]
fn what_is_hidden_from_backends_is_hidden_here() {
    let shape = Shape { masked: Masks::new([Attribute::CommandKey.to_string()]), ..Shape::default() };
    let lines = printed(|print| spans(&[trace()], &shape, print));
    assert_eq!(lines[0]["attributes"][Attribute::CommandKey.as_str()], "[REDACTED]");
}

#[test]
fn a_point_is_an_object_with_its_label_and_value() {
    let metrics = Metrics::new(1, 1);
    metrics.command(0, 0, 1_500, false);
    metrics.command(0, 0, 60_000_000_000, false);
    let mut series: Vec<Series> = metrics.command_series(|_| "GET".to_owned()).into();
    let rate = Point { label: None, value: Value::Float(0.5) };
    series.push(Series { metric: Metric::CACHE_HIT_RATE, points: vec![rate] });
    let lines = printed(|print| super::metrics(&series, 1_700_000_000_000_000_000, print));
    let time = "2023-11-14T22:13:20.000000000Z";
    assert_eq!(
        lines[0],
        json!({ "metric": Metric::COMMANDS_TOTAL.name, "type": "counter", "unit": "{commands}", "time": time,
                "attributes": { "command": "GET" }, "value": 2 })
    );
    assert_eq!((&lines[1]["type"], &lines[1]["count"]), (&json!("histogram"), &json!(2)));
    assert_eq!(lines[1]["buckets"], json!([{ "le": 0.000_002, "count": 1 }, { "le": null, "count": 1 }]));
    assert_eq!((&lines[2]["type"], &lines[2]["value"]), (&json!("gauge"), &json!(0.5)));
    assert!(lines[2].get("attributes").is_none());
}

#[test]
fn a_log_record_is_an_object_with_its_fields_and_ids() {
    let record = LogRecord {
        unix_ns: 1_700_000_000_123_456_789,
        level: tracing::Level::WARN,
        target: "ferrite::node".to_owned(),
        message: "two\nlines".to_owned(),
        ids: Some((TraceId::parse(TRACE_ID.as_bytes()).expect("an id"), SpanId(7))),
        fields: vec![("port", json!(6379))],
    };
    let lines = printed(|print| logs(&[record], print));
    assert_eq!(
        lines,
        [json!({ "log": "two\nlines", "severity": "WARN", "time": "2023-11-14T22:13:20.123456789Z",
                 "scope": "ferrite::node", "trace_id": TRACE_ID, "span_id": "0000000000000007",
                 "attributes": { "port": 6379 } })]
    );
}
