//! The documentation's applications, as they are in `examples/applications`: their commands are in their own trace, and with the
//! baggage of their tenant where they set one.

use std::collections::HashMap;
use std::path::PathBuf;

use ferrite_golden_traces::Attribute;
use ferrite_integration::jaeger::{self, SpanLine};
use ferrite_integration::server::Server;
use ferrite_integration::shared_backend::SharedBackend;
use ferrite_telemetry::schema::{SpanKind, SpanName};
use tokio::process::Command;

/// As the documentation allows them, as far as the applications set them.
const BAGGAGE: [&str; 4] =
    ["--telemetry.baggage_extraction", "true", "--telemetry.baggage_allowed_keys", "tenant.id,tenant.tier"];
const REQUEST: &str = "handle-user-request";

fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/applications").join(name)
}

/// What `ci/setup` made ready and `ci/test peers` names.
fn made_ready(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run `ci/setup`; `ci/test peers` sets it"))
}

/// The commands of Ferrite that are children of a client span which is a child of the application's.
fn joined<'s>(spans: &'s [SpanLine], service: &str) -> Vec<&'s SpanLine> {
    let by_id: HashMap<(&str, &str), &SpanLine> =
        spans.iter().map(|span| ((span.trace_id.as_str(), span.span_id.as_str()), span)).collect();
    let parent = |span: &SpanLine| by_id.get(&(span.trace_id.as_str(), span.parent.as_str())).copied();
    let is_joined = |command: &&SpanLine| {
        let Some(library) = parent(command) else { return false };
        command.service == "ferrite"
            && command.name == SpanName::Command.as_str()
            && library.service == service
            && library.tags.get("span.kind").is_some_and(|kind| kind.eq_ignore_ascii_case(SpanKind::Client.as_str()))
            && parent(library).is_some_and(|request| request.name == REQUEST)
    };
    spans.iter().filter(is_joined).collect()
}

/// Runs the application against a server of its own and looks at what has come to Jaeger.
async fn check(service: &str, application: &mut Command, session: &str, with_tenant: bool) {
    let backend = SharedBackend::get().await;
    let server = Server::exporting_to(&backend.endpoint, &BAGGAGE).await;
    application
        .env("FERRITE_URL", format!("redis://127.0.0.1:{}", server.port))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &backend.endpoint)
        .kill_on_drop(true);
    let output = application.output().await.unwrap_or_else(|error| panic!("cannot run {application:?}: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{session}\n"));

    let all = ["SET", "GET", "HSET"];
    let has = |spans: &[SpanLine], operation: &str| {
        joined(spans, service).iter().any(|command| command.tag(Attribute::DbOperation) == operation)
    };
    let complete = |spans: &[SpanLine]| all.iter().all(|operation| has(spans, operation));
    let spans = jaeger::lines(backend.jaeger_port, service, REQUEST, 1, complete).await;
    if with_tenant {
        for command in joined(&spans, service) {
            assert_eq!(command.tags.get("tenant.id").map(String::as_str), Some("acme-corp"), "{command:?}");
            assert_eq!(command.tags.get("tenant.tier").map(String::as_str), Some("enterprise"), "{command:?}");
        }
        // "Querying Traces by Tenant": Jaeger's search by tag, and the conditions of Tempo's and Datadog's, on one span.
        let tags = [("tenant.id", "acme-corp"), (Attribute::CommandName.as_str(), "GET")];
        let found = jaeger::find_by_tags(backend.jaeger_port, "ferrite", &tags).await;
        assert!(found.contains(&joined(&spans, service)[0].trace_id), "{found:?}");
    }
}

#[tokio::test]
async fn the_python_application_is_traced_with_its_tenant() {
    let mut application = Command::new(made_ready("FERRITE_PYTHON"));
    application.arg(example("app.py"));
    check("my-application", &mut application, "session-data-here", true).await;
}

#[tokio::test]
async fn the_node_application_is_traced_with_its_tenant() {
    let mut application = Command::new("node");
    application.arg(example("app.js")).env("NODE_PATH", made_ready("FERRITE_NODE_MODULES"));
    check("my-node-app", &mut application, "session-data", true).await;
}

#[tokio::test]
async fn the_rust_application_is_traced() {
    let mut application = Command::new(env!("CARGO_BIN_EXE_example_application"));
    check("my-rust-app", &mut application, "session-data", false).await;
}
