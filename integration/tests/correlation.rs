//! From a log line and from the slow log to the trace: the same ids everywhere.

use std::time::Duration;

use ferrite_golden_traces::{Attribute, TraceId};
use ferrite_integration::backend::Backend;
use ferrite_integration::server::Server;
use ferrite_integration::{eventually, jaeger};
use ferrite_telemetry::schema::{LogField, SpanName};
use redis::aio::MultiplexedConnection;
use serde_json::Value;

/// The lines with which the server itself answers for a trace.
async fn trace_in_the_server(connection: &mut MultiplexedConnection, trace_id: &str) -> Vec<String> {
    let mut get = redis::cmd("OTEL.TRACES");
    get.arg("GET").arg(trace_id).query_async(connection).await.expect("OTEL.TRACES works")
}

/// It is the trace of this command, as a tree.
fn assert_is_trace_of(lines: &[String], trace_id: &str, operation: &str, key: &str) {
    let shows = |key: Attribute, value: &str| lines.contains(&format!("  |-- {key}: {value}"));
    assert_eq!(lines[0].split(' ').nth(1), Some(trace_id), "{lines:#?}");
    assert!(lines[1].starts_with(SpanName::Command.as_str()), "{lines:#?}");
    assert!(shows(Attribute::DbOperation, operation) && shows(Attribute::CommandKey, key), "{lines:#?}");
}

#[tokio::test]
async fn a_command_s_log_line_leads_to_its_trace() {
    let backend = Backend::start().await;
    let server = Server::exporting(&backend, &["--logging.commands", "all"]).await;
    let mut connection = server.connect().await;
    redis::cmd("SET").arg("logged:1").arg("a secret").exec_async(&mut connection).await.expect("SET works");

    let fields = LogField::Fields.as_str();
    let line = eventually("the command is logged", Duration::from_secs(10), async || {
        let output = server.output();
        // A line that is still being written comes whole the next time.
        let whole = &output[..output.rfind('\n')? + 1];
        let mut lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).expect("every line is JSON"));
        lines.find(|line| line[fields]["key"] == "logged:1")
    })
    .await;
    assert_eq!(line[LogField::Level.as_str()], "INFO");
    assert_eq!(line[LogField::Message.as_str()], "Command executed");
    assert_eq!(line[LogField::Target.as_str()], "ferrite::commands::strings");
    assert_eq!((&line[fields]["command"], &line[fields]["result"]), (&"SET".into(), &"OK".into()));
    assert!(!server.output().contains("a secret"));

    let trace_id = line[LogField::TraceId.as_str()].as_str().expect("a trace id");
    let span_id = line[LogField::SpanId.as_str()].as_str().expect("a span id");
    let lines = trace_in_the_server(&mut connection, trace_id).await;
    assert_is_trace_of(&lines, trace_id, "SET", "logged:1");

    let root = |spans: &[jaeger::JaegerSpan]| {
        spans.iter().find(|span| span.span.name == SpanName::Command.as_str()).map(|span| span.span.span_id.to_string())
    };
    let spans = jaeger::trace(backend.jaeger_port, trace_id, |spans| root(spans).is_some()).await;
    assert_eq!(root(&spans).as_deref(), Some(span_id));
}

#[tokio::test]
async fn a_slow_log_entry_is_the_command_without_the_wrapper_that_it_came_in() {
    let server = Server::start(&["--server.slowlog_log_slower_than", "0"]).await;
    let mut connection = server.connect().await;
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut wrapped = redis::cmd("OTEL.TRACE");
    wrapped.arg(traceparent).arg("SET").arg("slow:2").arg("value");
    wrapped.exec_async(&mut connection).await.expect("SET works");

    let entries: Vec<Vec<redis::Value>> =
        redis::cmd("SLOWLOG").arg("GET").arg("1").query_async(&mut connection).await.expect("SLOWLOG works");
    let text = |value: &redis::Value| redis::from_redis_value::<String>(value.clone()).expect("a text");
    let arguments: Vec<String> = redis::from_redis_value(entries[0][3].clone()).expect("texts");
    assert_eq!(arguments, ["SET", "slow:2", "value"]);
    assert_eq!(text(&entries[0][5]), "4bf92f3577b34da6a3ce929d0e0e4736");
}

#[tokio::test]
async fn a_slow_log_entry_leads_to_its_trace() {
    // Nothing is exported: the server keeps its last traces by itself.
    let server = Server::start(&["--server.slowlog_log_slower_than", "0"]).await;
    let mut connection = server.connect().await;
    redis::cmd("SET").arg("slow:1").arg("value").exec_async(&mut connection).await.expect("SET works");

    let entries: Vec<redis::Value> =
        redis::cmd("SLOWLOG").arg("GET").arg("-1").query_async(&mut connection).await.expect("SLOWLOG works");
    let entries: Vec<Vec<redis::Value>> =
        entries.into_iter().map(|entry| redis::from_redis_value(entry).expect("an array")).collect();
    let arguments = |entry: &[redis::Value]| redis::from_redis_value::<Vec<String>>(entry[3].clone()).expect("texts");
    let entry = entries.iter().find(|entry| arguments(entry) == ["SET", "slow:1", "value"]).expect("SET was logged");
    assert_eq!(entry.len(), 6);
    // This connection has no name, so the name's place is free.
    let trace_id: String = redis::from_redis_value(entry[5].clone()).expect("a text");
    assert!(TraceId::parse(trace_id.as_bytes()).is_some(), "{trace_id}");

    let lines = trace_in_the_server(&mut connection, &trace_id).await;
    assert_is_trace_of(&lines, &trace_id, "SET", "slow:1");
}
