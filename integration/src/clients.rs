//! What every helper in `clients/` must do, held against what a real Jaeger has.
//!
//! Each language has a program that sends the same commands through its instrumented library, within spans of its own:
//!
//! ```text
//! PROGRAM REDIS_PORT OTLP_ENDPOINT KEY REQUESTS
//! ```
//!
//! In a span `handle-request`: SET, GET, a pipeline of APPEND and STRLEN, a transaction of GETRANGE; outside of any span an
//! EXISTS; then so many SETs of `KEY:<number>` at once, each in a span `request` that is a trace of its own. Both have
//! baggage with them: their key as `request.key`, and a `secret`. It prints what [`Report::parse`] reads.

use std::collections::HashMap;
use std::time::Duration;

use ferrite_golden_traces::{Attribute, Value as AttributeValue};
use ferrite_telemetry::schema::{SpanKind, SpanName};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::jaeger::{self, JaegerSpan, SpanLine};
use crate::schema;
use crate::server::Server;
use crate::shared_backend::SharedBackend;
use crate::stock_redis::StockRedis;

/// How many requests are under way at once.
const REQUESTS: usize = 1000;
/// The member of the baggage that the server is told to show.
const MEMBER: &str = "request.key";
/// And one that it is not.
const SECRET: &str = "secret";
/// A client may take this long for all of them, on a busy machine.
const RUN_LIMIT: Duration = Duration::from_secs(120);

/// What a client's program says that it did.
struct Report {
    /// Whether the server told it that contexts are welcome.
    advertised: bool,
    /// Trace and span of `handle-request`.
    request: (String, String),
    /// Trace, span and key of each `request`.
    requests: Vec<(String, String, String)>,
}

impl Report {
    fn parse(output: &[u8]) -> Self {
        let text = String::from_utf8_lossy(output);
        let said: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("no report ({error}): {text}"));
        let word = |value: &Value| value.as_str().unwrap_or_else(|| panic!("not as expected: {text}")).to_owned();
        // The replies are the same from every server.
        assert_eq!(said["value"], "value", "{text}");
        assert_eq!(said["replies"], json!([10, 10, "v"]), "{text}");
        let requests = said["requests"].as_array().expect("a list");
        Self {
            advertised: said["advertised"].as_bool().expect("true or false"),
            request: (word(&said["request"][0]), word(&said["request"][1])),
            requests: requests.iter().map(|one| (word(&one[0]), word(&one[1]), word(&one[2]))).collect(),
        }
    }
}

/// Runs a program against the server at this port.
async fn run(program: &mut Command, port: u16, endpoint: &str, key: &str, requests: usize) -> Report {
    program
        .args([&port.to_string(), endpoint, key, &requests.to_string()])
        // All spans of the requests end at about the same time.
        .env("OTEL_BSP_MAX_QUEUE_SIZE", "65536")
        .kill_on_drop(true);
    let output = tokio::time::timeout(RUN_LIMIT, program.output()).await.expect("the client ends in time");
    let output = output.unwrap_or_else(|error| panic!("cannot run {program:?}: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = Report::parse(&output.stdout);
    assert_eq!(report.requests.len(), requests);
    report
}

/// Everything that a language's helper must show. `program` makes the command without its arguments, told where telemetry
/// goes; `service` is the name under which the program exports.
pub async fn check(service: &str, program: impl Fn(&str) -> Command) {
    let backend = SharedBackend::get().await;
    // The caller's decision counts: its traces are sampled, others not.
    let options = ["--telemetry.sampler", "parentbased_always_off"];
    let baggage = ["--telemetry.baggage_extraction", "true", "--telemetry.baggage_allowed_keys", MEMBER];
    let server = Server::exporting_to(&backend.endpoint, &[&options[..], &baggage].concat()).await;
    let key = format!("{service}:1");
    let report = run(&mut program(&backend.endpoint), server.port, &backend.endpoint, &key, REQUESTS).await;
    assert!(report.advertised);
    one_trace_from_request_to_storage(&backend, service, &key, &report).await;
    schema::has_metrics(&server.metrics().await);
    requests_do_not_cross(&backend, service, &report).await;

    // Stock Redis takes the same program, and the replies are right: it was sent plain commands.
    let stock = StockRedis::start().await;
    let report = run(&mut program(&backend.endpoint), stock.port, &backend.endpoint, &key, 10).await;
    assert!(!report.advertised);
}

/// The application's span, the library's, the command's and those of the storage hang together.
async fn one_trace_from_request_to_storage(backend: &SharedBackend, service: &str, key: &str, report: &Report) {
    let (trace_id, request_id) = &report.request;
    let commands = |spans: &[JaegerSpan]| -> Vec<JaegerSpan> {
        let ours = |span: &&JaegerSpan| {
            span.service == "ferrite"
                && span.span.name == SpanName::Command.as_str()
                && (span.text(Attribute::CommandKey) == key || span.text(Attribute::DbOperation) == "EXEC")
        };
        spans.iter().filter(ours).cloned().collect()
    };
    let spans = jaeger::trace(backend.jaeger_port, trace_id, |spans| {
        commands(spans).len() >= 6 && spans.iter().any(|span| span.span.name == "handle-request")
    })
    .await;
    for span in spans.iter().filter(|span| span.service == "ferrite") {
        assert_eq!(span.span.attributes.get(MEMBER), Some(&AttributeValue::Str(key.to_owned().into())), "{span:?}");
        assert!(!span.span.attributes.contains_key(SECRET), "{span:?}");
    }
    let own = |mut span: JaegerSpan| {
        span.span.attributes.remove(MEMBER);
        span
    };
    schema::has_all_of(&spans.iter().cloned().map(own).collect::<Vec<_>>());
    let by_id: HashMap<String, &JaegerSpan> = spans.iter().map(|span| (span.span.span_id.to_string(), span)).collect();
    let parent = |span: &JaegerSpan| by_id.get(&span.span.parent?.to_string()).copied();
    let commands = commands(&spans);
    // Where GETRANGE was queued it may be a span, too.
    let (in_transaction, sent): (Vec<_>, Vec<_>) = commands
        .iter()
        .partition(|span| parent(span).is_some_and(|above| above.text(Attribute::DbOperation) == "EXEC"));
    assert!(matches!(in_transaction.as_slice(), [one] if one.text(Attribute::DbOperation) == "GETRANGE"));
    let mut operations: Vec<_> = sent.iter().map(|span| span.text(Attribute::DbOperation)).collect();
    operations.retain(|operation| *operation != "GETRANGE");
    assert_eq!(operations, ["SET", "GET", "APPEND", "STRLEN", "EXEC"]);
    for command in sent {
        let operation = command.text(Attribute::DbOperation);
        let above = parent(command).unwrap_or_else(|| panic!("{operation} has no parent in its trace"));
        // The instrumentation of node-redis has spans for what is queued and none for EXEC.
        let is_request = operation == "EXEC" && above.span.name == "handle-request";
        let kind = if is_request { SpanKind::Internal } else { SpanKind::Client };
        assert_eq!((above.service.as_str(), above.span.kind.as_str()), (service, kind.as_str()), "{above:?}");
        let request = std::iter::successors(Some(above), |span| parent(span)).last().expect("itself at least");
        assert_eq!(request.span.span_id.to_string(), *request_id, "{operation} is not below its request");
        assert_eq!(request.span.name, "handle-request");
    }
    for (operation, storage) in [("SET", SpanName::StorageWrite), ("GET", SpanName::StorageRead)] {
        let command = commands.iter().find(|span| span.text(Attribute::DbOperation) == operation).expect("seen above");
        let of_it = |span: &&JaegerSpan| span.span.parent == Some(command.span.span_id);
        assert!(spans.iter().filter(of_it).any(|span| span.span.name == storage.as_str()), "{operation}: no {storage}");
    }
    // EXISTS was sent outside of the span.
    assert!(!spans.iter().any(|span| span.text(Attribute::DbOperation) == "EXISTS"));
}

/// Each of the many commands belongs to the trace in which it was sent, below the library's span of that request.
async fn requests_do_not_cross(backend: &SharedBackend, service: &str, report: &Report) {
    let port = backend.jaeger_port;
    // A library sets its connections up within the request that needs one: those commands have no key.
    let is_command = |span: &&SpanLine| {
        span.service == "ferrite"
            && span.name == SpanName::Command.as_str()
            && !span.tag(Attribute::CommandKey).is_empty()
    };
    let expected = report.requests.len();
    let spans = jaeger::lines(port, service, "request", expected, |spans| {
        spans.iter().filter(is_command).count() == expected
            && spans.iter().filter(|span| span.service == service && span.name == "request").count() == expected
    })
    .await;
    let by_id: HashMap<(&str, &str), &SpanLine> =
        spans.iter().map(|span| ((span.trace_id.as_str(), span.span_id.as_str()), span)).collect();
    let commands: HashMap<&str, &SpanLine> =
        spans.iter().filter(is_command).map(|span| (span.tag(Attribute::CommandKey), span)).collect();
    assert_eq!(commands.len(), expected, "every key once");
    for (trace_id, span_id, key) in &report.requests {
        let command = commands.get(key.as_str()).unwrap_or_else(|| panic!("{key} is not in Jaeger"));
        assert_eq!(command.trace_id, *trace_id, "{key} is in another's trace");
        assert_eq!(command.tags.get(MEMBER), Some(key), "{key} has no baggage or another's");
        let above = by_id[&(trace_id.as_str(), command.parent.as_str())];
        assert_eq!((above.service.as_str(), above.tags["span.kind"].as_str()), (service, "client"), "{key}");
        assert_eq!(above.parent, *span_id, "{key} is below another request");
    }
}
