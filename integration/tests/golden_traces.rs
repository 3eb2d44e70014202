//! The golden traces once more: from the real server on the real kernel, through a Collector, back out of Jaeger.
//!
//! The snapshots say which key and how large a value the simulated scenario used; here the same is done for real.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use ferrite_golden_traces::{Attribute, canonical};
use ferrite_integration::backend::Backend;
use ferrite_integration::jaeger;
use ferrite_integration::server::Server;
use ferrite_telemetry::schema::{ConnectionEnd, LogField, SpanName};

/// A golden trace without insta's header.
fn golden(name: &str) -> String {
    let snapshots = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../golden-traces/snapshots");
    let path = snapshots.join(format!("{name}.snap"));
    let file = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let body = file.splitn(3, "---\n").nth(2).expect("insta's header ends with ---");
    format!("{}\n", body.trim_end())
}

/// The value of the last line `<attribute> = <value>` of a canonical text.
fn value_in(text: &str, attribute: Attribute) -> &str {
    let start = format!("{attribute} = ");
    let value = text.lines().rev().find_map(|line| line.trim_start().strip_prefix(&start));
    value.unwrap_or_else(|| panic!("no {attribute} in:\n{text}")).trim_matches('"')
}

/// 64 KiB each: what the tests fill in is ten times both.
const SMALL_REGIONS: &[&str] =
    &["--storage.mutable_region_size_mb", "0.0625", "--storage.read_only_region_size_mb", "0.0625"];

/// The key, and a value of the size, that the scenario used.
fn key_and_value(golden: &str) -> (&str, String) {
    let bytes = value_in(golden, Attribute::StorageBytes).parse().expect("a number");
    (value_in(golden, Attribute::CommandKey), "v".repeat(bytes))
}

async fn command_from_jaeger(backend: &Backend, operation: &str, key: &str) -> String {
    from_jaeger(backend, SpanName::Command, &[(Attribute::DbOperation, operation), (Attribute::CommandKey, key)]).await
}

/// The trace of a span with these attributes, once its root has come.
async fn from_jaeger(backend: &Backend, root: SpanName, wanted: &[(Attribute, &str)]) -> String {
    let trace_id = jaeger::wait_for(backend.jaeger_port, "ferrite", wanted).await;
    let has_root = |spans: &[jaeger::JaegerSpan]| spans.iter().any(|span| span.span.name == root.as_str());
    let spans = jaeger::trace(backend.jaeger_port, &trace_id, has_root).await;
    canonical(&spans.into_iter().map(|span| span.span).collect::<Vec<_>>())
}

#[tokio::test]
async fn a_set_comes_back_from_jaeger_as_the_golden_trace_has_it() {
    let expected = golden("set");
    let (key, value) = key_and_value(&expected);
    let backend = Backend::start().await;
    let server = Server::exporting(&backend, &[]).await;

    let mut connection = server.connect().await;
    redis::cmd("SET").arg(key).arg(value).exec_async(&mut connection).await.expect("SET works");

    assert_eq!(command_from_jaeger(&backend, "SET", key).await, expected);
}

#[tokio::test]
async fn a_get_from_disk_comes_back_from_jaeger_as_the_golden_trace_has_it() {
    let expected = golden("get_from_disk");
    let (key, value) = key_and_value(&expected);
    let backend = Backend::start().await;
    let storage = ["--telemetry.span_detail", "storage"];
    let server = Server::exporting(&backend, &[&storage, SMALL_REGIONS].concat()).await;

    let mut connection = server.connect().await;
    redis::cmd("SET").arg(key).arg(&value).exec_async(&mut connection).await.expect("SET works");
    let filling = "f".repeat(1000);
    for number in 0..1300 {
        let filler = format!("filler:{number}");
        redis::cmd("SET").arg(filler).arg(&filling).exec_async(&mut connection).await.expect("SET works");
    }
    let got: String = redis::cmd("GET").arg(key).query_async(&mut connection).await.expect("GET works");
    assert_eq!(got, value);

    assert_eq!(command_from_jaeger(&backend, "GET", key).await, expected);
}

#[tokio::test]
async fn the_start_and_the_stop_come_back_from_jaeger_as_the_golden_traces_have_them() {
    let backend = Backend::start().await;
    let mut server = Server::exporting(&backend, &["--workers", "1"]).await;
    let start = from_jaeger(&backend, SpanName::ServerStart, &[(Attribute::ServerWorkers, "1")]).await;
    assert_eq!(start, golden("first_start"));

    let mut connection = server.connect().await;
    redis::cmd("SET").arg("key").arg("value").exec_async(&mut connection).await.expect("SET works");
    server.stop().await;
    // Nobody is left to send anything: what is not there now never comes.
    let stop = from_jaeger(&backend, SpanName::ServerShutdown, &[(Attribute::ServerConnections, "1")]).await;
    assert_eq!(stop, golden("shutdown"));
}

#[tokio::test]
async fn a_damaged_record_comes_back_from_jaeger_as_an_exception_and_the_connection_as_a_trace() {
    let expected = golden("get_with_damaged_record");
    let (key, value) = (value_in(&expected, Attribute::CommandKey), "v".repeat(100));
    let backend = Backend::start().await;
    let server = Server::exporting(&backend, SMALL_REGIONS).await;

    let mut connection = server.connect().await;
    redis::cmd("SET").arg(key).arg(&value).exec_async(&mut connection).await.expect("SET works");
    let filling = "f".repeat(1000);
    for number in 0..1300 {
        let filler = format!("filler:{number}");
        redis::cmd("SET").arg(filler).arg(&filling).exec_async(&mut connection).await.expect("SET works");
    }
    let log = server.data("hybrid.log");
    let bytes = std::fs::read(&log).expect("the log file can be read");
    let at = bytes.windows(value.len()).position(|bytes| bytes == value.as_bytes()).expect("the value is in the file");
    let file = std::fs::File::options().write(true).open(&log).expect("the log file can be written");
    file.write_all_at(b"w", at as u64).expect("a byte is changed");

    let error = redis::cmd("GET").arg(key).query_async::<String>(&mut connection).await.expect_err("it is damaged");
    assert!(error.to_string().contains("the log file is damaged at address"), "{error}");
    redis::cmd("PING").exec_async(&mut connection).await.expect("the connection goes on");
    drop(connection);

    assert_eq!(command_from_jaeger(&backend, "GET", key).await, expected);
    let line = server.output().lines().find(|line| line.contains("A command failed")).map(str::to_owned);
    let line: serde_json::Value = serde_json::from_str(&line.expect("it is logged")).expect("every line is JSON");
    let found =
        jaeger::find(backend.jaeger_port, "ferrite", &[(Attribute::CommandKey, key), (Attribute::DbOperation, "GET")])
            .await;
    assert_eq!(found, [line[LogField::TraceId.as_str()].as_str().expect("a trace id")]);
    assert_eq!(line[LogField::Level.as_str()], "ERROR");

    let ended = [(Attribute::ConnectionEndReason, ConnectionEnd::ClientClosed.as_str())];
    let trace_id = jaeger::wait_for(backend.jaeger_port, "ferrite", &ended).await;
    let spans = jaeger::trace(backend.jaeger_port, &trace_id, |spans| !spans.is_empty()).await;
    let [connection] = &spans[..] else { panic!("one span: {spans:#?}") };
    assert_eq!((connection.span.name.as_str(), connection.span.parent), (SpanName::Connection.as_str(), None));
}
