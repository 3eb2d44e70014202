//! A redis-py client in an OpenTelemetry span of its own.

use std::path::PathBuf;

use ferrite_golden_traces::Attribute;
use ferrite_integration::backend::Backend;
use ferrite_integration::jaeger;
use ferrite_integration::server::Server;
use ferrite_telemetry::schema::SpanName;
use serde_json::Value;
use tokio::process::Command;

/// Runs `traced_client.py` in the environment that `ci/setup` makes.
async fn traced_client(port: u16, endpoint: &str, key: &str) -> Value {
    let python = std::env::var("FERRITE_PYTHON").unwrap_or_else(|_| {
        panic!("FERRITE_PYTHON must name a Python with integration/clients/python/requirements.txt; `ci/test peers` sets it")
    });
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients/python/traced_client.py");
    let output = Command::new(python)
        .arg(script)
        .args([&port.to_string(), endpoint, key])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .await
        .expect("the client runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the client prints JSON")
}

#[tokio::test]
async fn commands_of_a_redis_py_client_are_children_of_its_span() {
    let backend = Backend::start().await;
    let server = Server::exporting(
        &backend,
        &[
            // The caller's decision counts: its traces are sampled, others not.
            "--telemetry.sampler",
            "parentbased_always_off",
        ],
    )
    .await;

    let client = traced_client(server.port, &backend.endpoint, "python:1").await;
    assert_eq!(client["advertised"], true);
    assert_eq!(client["value"], "value");
    assert_eq!(client["replies"], serde_json::json!([10, 10]));

    // Those about the key: the client made its connection within the span, too.
    let commands = |spans: &[jaeger::JaegerSpan]| -> Vec<jaeger::JaegerSpan> {
        let root = |span: &&jaeger::JaegerSpan| {
            span.service == "ferrite"
                && span.span.name == SpanName::Command.as_str()
                && span.text(Attribute::CommandKey) == "python:1"
        };
        spans.iter().filter(root).cloned().collect()
    };
    let trace_id = client["trace_id"].as_str().expect("a trace id");
    let spans = jaeger::trace(backend.jaeger_port, trace_id, |spans| {
        commands(spans).len() >= 4 && spans.iter().any(|span| span.service == "python-client")
    })
    .await;

    let caller: Vec<_> = spans.iter().filter(|span| span.service == "python-client").collect();
    assert_eq!(caller.len(), 1);
    assert_eq!(
        (caller[0].span.name.as_str(), caller[0].span.span_id.to_string().as_str()),
        ("handle-request", client["span_id"].as_str().unwrap())
    );
    let commands = commands(&spans);
    let operations: Vec<_> = commands.iter().map(|span| span.text(Attribute::DbOperation)).collect();
    assert_eq!(operations, ["SET", "GET", "APPEND", "STRLEN"]);
    for command in &commands {
        assert_eq!(command.span.parent, Some(caller[0].span.span_id), "{command:?}");
    }
    // EXISTS was sent outside of the span.
    assert!(jaeger::find(backend.jaeger_port, "ferrite", &[(Attribute::DbOperation, "EXISTS")]).await.is_empty());
}
