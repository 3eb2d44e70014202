//! The rows of both troubleshooting sections that are about the Collector: each makes the mistake and sees what is promised, with
//! a real one. What a server alone can show is in `server/ferrite/tests/troubleshooting.rs`.

use std::process::Command;
use std::time::{Duration, Instant};

use ferrite_golden_traces::Attribute;
use ferrite_integration::backend::Backend;
use ferrite_integration::server::Server;
use ferrite_integration::{eventually, http, jaeger};
use ferrite_telemetry::schema::{Metric, SpanName, prometheus_name};
use redis::aio::MultiplexedConnection;

const LIMIT: Duration = Duration::from_secs(60);
/// Exports at once, each signal.
const AT_ONCE: [&str; 4] = ["--telemetry.batch_timeout_ms", "100", "--telemetry.metrics_export_interval", "1"];

/// What the Collector gets while its backend is unreachable: 8,000 commands of nine spans, the root with two texts of so many
/// characters; in portions for which the server's queue has room.
const PORTIONS: usize = 4;
const PORTION: usize = 2000;
const KEY_LENGTH: usize = 1000;
/// A Collector that takes everything has a portion by then.
const PORTION_LIMIT: Duration = Duration::from_secs(3);

/// A Collector's configuration with these processors and pipelines.
fn collector(processors: &str, pipelines: &str) -> String {
    format!(
        "
receivers:
  otlp:
    protocols:
      grpc:
        endpoint: 0.0.0.0:4317
      http:
        endpoint: 0.0.0.0:4318
{processors}
exporters:
  otlp/jaeger:
    endpoint: jaeger:4317
    tls:
      insecure: true
  prometheus:
    endpoint: 0.0.0.0:8889
    translation_strategy: UnderscoreEscapingWithoutSuffixes
service:
  telemetry:
    metrics:
      level: none
  pipelines:
{pipelines}
"
    )
}

async fn set(connection: &mut MultiplexedConnection, key: &str) {
    redis::cmd("SET").arg(key).arg("text").exec_async(connection).await.expect("SET works");
}

/// The server has said this in its log.
async fn said(server: &Server, words: &[&str]) {
    eventually(&format!("the log has {words:?}"), LIMIT, async || {
        let output = server.output();
        output.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
    })
    .await;
}

/// "Traces Are Incomplete (Missing Child Spans)": a Collector that decides before all of a trace has come loses a part of it.
/// One that waits longer has it all.
#[tokio::test]
async fn a_trace_is_whole_if_the_collector_waits_for_all_of_it() {
    let processors = "
processors:
  tail_sampling/short:
    decision_wait: 1s
    num_traces: 10
    policies: &errors
      - name: errors-policy
        type: status_code
        status_code:
          status_codes: [ERROR]
  tail_sampling/long:
    decision_wait: 8s
    num_traces: 1000
    policies: *errors
  resource/short:
    attributes: [{key: service.name, value: waits-short, action: upsert}]
  resource/long:
    attributes: [{key: service.name, value: waits-long, action: upsert}]
";
    let pipelines = "
    traces/short:
      receivers: [otlp]
      processors: [tail_sampling/short, resource/short]
      exporters: [otlp/jaeger]
    traces/long:
      receivers: [otlp]
      processors: [tail_sampling/long, resource/long]
      exporters: [otlp/jaeger]
";
    let backend = Backend::with(&collector(processors, pipelines), &[]).await;
    let server = Server::exporting(&backend, &[&AT_ONCE[..], &["--telemetry.metrics_enabled", "false"]].concat()).await;
    let mut connection = server.connect().await;
    let of_request = |words: &[&str]| {
        let mut command = redis::cmd("OTEL.TRACE");
        command.arg("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        words.iter().for_each(|word| _ = command.arg(word));
        command
    };
    // A request of several commands over some seconds, beside others; its last command fails.
    of_request(&["SET", "early", "text"]).exec_async(&mut connection).await.expect("SET works");
    for number in 0..30 {
        set(&mut connection, &format!("other:{number}")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    of_request(&["INCR", "early"]).exec_async(&mut connection).await.expect_err("a text cannot be incremented");

    let commands = |spans: &[jaeger::JaegerSpan], service: &str| {
        let of_it = spans.iter().filter(|span| span.service == service && span.span.name == SpanName::Command.as_str());
        let mut operations: Vec<_> = of_it.map(|span| span.text(Attribute::DbOperation).to_owned()).collect();
        operations.sort();
        operations
    };
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let spans = jaeger::trace(backend.jaeger_port, trace_id, |spans| {
        commands(spans, "waits-long").len() == 2 && !commands(spans, "waits-short").is_empty()
    })
    .await;
    assert_eq!(commands(&spans, "waits-long"), ["INCR", "SET"]);
    assert_eq!(commands(&spans, "waits-short"), ["INCR"]);
}

/// "Spans Have Wrong Service Name": a resource processor that writes `service.name` wins over `ferrite.toml`.
#[tokio::test]
async fn a_resource_processor_can_overwrite_the_service_name() {
    let processors = "
processors:
  resource/overwrites:
    attributes: [{key: service.name, value: production, action: upsert}]
  resource/adds:
    attributes: [{key: deployment.environment, value: production, action: upsert}]
";
    let pipelines = "
    traces/wrong:
      receivers: [otlp]
      processors: [resource/overwrites]
      exporters: [otlp/jaeger]
    traces/right:
      receivers: [otlp]
      processors: [resource/adds]
      exporters: [otlp/jaeger]
    metrics:
      receivers: [otlp]
      exporters: [prometheus]
";
    let backend = Backend::with(&collector(processors, pipelines), &[]).await;
    let options = [&AT_ONCE[..], &["--telemetry.service_name", "orders-cache"]].concat();
    let server = Server::exporting(&backend, &options).await;
    set(&mut server.connect().await, "named").await;
    let of_it = [(Attribute::CommandKey, "named")];
    let wrong = jaeger::wait_for(backend.jaeger_port, "production", &of_it).await;
    let right = jaeger::wait_for(backend.jaeger_port, "orders-cache", &of_it).await;
    assert_eq!(wrong, right, "both pipelines had the same trace");
}

/// "No Traces Appearing in Jaeger": the Collector is not running. The server says so and serves; once it runs, traces appear.
#[tokio::test]
async fn traces_appear_once_the_collector_runs() {
    let backend = Backend::start().await;
    backend.collector.stop_with_timeout(Some(0)).await.expect("the Collector is stopped");
    let server = Server::exporting(&backend, &AT_ONCE).await;
    let mut connection = server.connect().await;
    set(&mut connection, "before").await;
    said(&server, &["telemetry cannot be exported", "traces", "refused"]).await;
    backend.collector.start().await.expect("the Collector starts");
    said(&server, &["telemetry is exported again", "traces"]).await;
    set(&mut connection, "after").await;
    jaeger::wait_for(backend.jaeger_port, "ferrite", &[(Attribute::CommandKey, "after")]).await;
}

/// "No Traces Appearing in Jaeger": the endpoint is the other transport's port. The server says so; with the right one traces
/// appear. `RUST_LOG` as the documentation has it shows each export.
#[tokio::test]
async fn a_protocol_at_the_other_one_s_port_is_told() {
    let backend = Backend::start().await;
    let http_endpoint = format!("http://{}", backend.http);
    for (protocol, right, wrong) in
        [("grpc", &backend.endpoint, &http_endpoint), ("http", &http_endpoint, &backend.endpoint)]
    {
        let options = |endpoint| {
            let own =
                ["--telemetry.enabled", "true", "--telemetry.protocol", protocol, "--telemetry.endpoint", endpoint];
            [&AT_ONCE[..], &own].concat()
        };
        let server = Server::start(&options(wrong)).await;
        set(&mut server.connect().await, &format!("wrong:{protocol}")).await;
        said(&server, &["telemetry cannot be exported", "traces"]).await;
        drop(server);

        let server = Server::start(&[&options(right)[..], &["--logging.level", "debug"]].concat()).await;
        let key = format!("right:{protocol}");
        set(&mut server.connect().await, &key).await;
        jaeger::wait_for(backend.jaeger_port, "ferrite", &[(Attribute::CommandKey, &key)]).await;
        said(&server, &["\"exported\"", "traces"]).await;
    }
}

/// "Metrics Not Arriving via OTLP", "Verify the Collector pipeline includes the `metrics` pipeline": without it the Collector
/// refuses them, and the server says so. Traces are not touched by that, nor are metrics where traces have no pipeline.
#[tokio::test]
async fn a_signal_without_a_pipeline_is_told() {
    let pipeline =
        |signal, exporter| format!("    {signal}:\n      receivers: [otlp]\n      exporters: [{exporter}]\n");
    let backend = Backend::with(&collector("", &pipeline("traces", "otlp/jaeger")), &[]).await;
    let server = Server::exporting(&backend, &AT_ONCE).await;
    set(&mut server.connect().await, "traced").await;
    said(&server, &["telemetry cannot be exported", "\"metrics\"", "does not take this signal"]).await;
    jaeger::wait_for(backend.jaeger_port, "ferrite", &[(Attribute::CommandKey, "traced")]).await;
    drop((server, backend));

    let backend = Backend::with(&collector("", &pipeline("metrics", "prometheus")), &[]).await;
    let server = Server::exporting(&backend, &AT_ONCE).await;
    set(&mut server.connect().await, "untraced").await;
    said(&server, &["telemetry cannot be exported", "\"traces\"", "does not take this signal"]).await;
    eventually("metrics arrive", LIMIT, async || has_commands(&backend).await.then_some(())).await;
    // Refused for good, and counted.
    eventually("the spans are counted", LIMIT, async || {
        let samples = server.metrics().await;
        let dropped = prometheus_name(Metric::SPANS_DROPPED.name);
        samples.iter().any(|sample| sample.name == dropped && sample.value > 0.0).then_some(())
    })
    .await;
}

async fn has_commands(backend: &Backend) -> bool {
    let commands = prometheus_name(Metric::COMMANDS_TOTAL.name);
    backend.metrics().await.iter().any(|sample| sample.name == commands)
}

/// "Metrics Not Arriving via OTLP", "Confirm `metrics_enabled = true`", "Check the Collector's Prometheus exporter is reachable".
#[tokio::test]
async fn metrics_arrive_where_they_are_enabled() {
    let backend = Backend::start().await;
    let off = Server::exporting(&backend, &[&AT_ONCE[..], &["--telemetry.metrics_enabled", "false"]].concat()).await;
    set(&mut off.connect().await, "unmeasured").await;
    // What it does send has come, so its metrics would have.
    jaeger::wait_for(backend.jaeger_port, "ferrite", &[(Attribute::CommandKey, "unmeasured")]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let page = http::get(backend.metrics_port, "/metrics").await;
    assert_eq!(page.as_deref(), Some(&b""[..]), "it is reachable, and has nothing");
    drop(off);
    let on = Server::exporting(&backend, &AT_ONCE).await;
    set(&mut on.connect().await, "measured").await;
    eventually("metrics arrive", LIMIT, async || has_commands(&backend).await.then_some(())).await;
}

/// "Look for batch timeout or memory limiter drops in Collector logs": what the limiter refuses is in its log and in the server's.
#[tokio::test]
async fn a_memory_limiter_that_refuses_is_told_by_both() {
    let processors = "
processors:
  memory_limiter:
    check_interval: 100ms
    limit_mib: 10
    spike_limit_mib: 9
";
    let pipelines = "
    metrics:
      receivers: [otlp]
      processors: [memory_limiter]
      exporters: [prometheus]
    traces:
      receivers: [otlp]
      exporters: [otlp/jaeger]
";
    let backend = Backend::with(&collector(processors, pipelines), &[]).await;
    let server = Server::exporting(&backend, &AT_ONCE).await;
    set(&mut server.connect().await, "limited").await;
    said(&server, &["telemetry cannot be exported", "\"metrics\"", "Unavailable"]).await;
    let output = backend.output().await;
    assert!(output.contains("Memory usage is above soft limit. Refusing data."), "{output}");
    assert!(!has_commands(&backend).await);
    // The limiter is of that pipeline alone.
    jaeger::wait_for(backend.jaeger_port, "ferrite", &[(Attribute::CommandKey, "limited")]).await;
}

/// MiB that a container takes.
fn memory_mib(backend: &Backend) -> f64 {
    let stats = ["stats", "--no-stream", "--format", "{{.MemUsage}}", backend.collector.id()];
    let output = Command::new("docker").args(stats).output().expect("ci/setup installs docker's command");
    let printed = String::from_utf8(output.stdout).expect("text");
    // As in `12.3MiB / 7.7GiB`.
    let used = printed.split(" / ").next().expect("there is a first part").trim();
    let unit = used.trim_start_matches(|digit: char| digit.is_ascii_digit() || digit == '.');
    let number: f64 = used[..used.len() - unit.len()].parse().unwrap_or_else(|_| panic!("memory? {printed}"));
    match unit {
        "KiB" => number / 1024.0,
        "MiB" => number,
        "GiB" => number * 1024.0,
        _ => panic!("which unit? {printed}"),
    }
}

/// "High Memory Usage in OTel Collector": its backend is unreachable, and it keeps what it is sent. With the limiter it refuses
/// instead, says so, and its memory stays bounded; commands are served in either case.
#[tokio::test]
async fn a_memory_limiter_bounds_a_collector_without_a_backend() {
    let limiter = "
processors:
  memory_limiter:
    check_interval: 100ms
    limit_mib: 20
    spike_limit_mib: 5
  batch:
    send_batch_size: 512
    timeout: 2s
";
    let pipeline = |processors| {
        format!(
            "    traces:\n      receivers: [otlp]\n      processors: [{processors}]\n      exporters: [otlp/jaeger]\n"
        )
    };
    let depth = prometheus_name(Metric::QUEUE_DEPTH.name);
    let unreachable = |config: String| config.replace("jaeger:4317", "127.0.0.1:1");
    let run = async |config: String| {
        let backend = Backend::with(&unreachable(config), &[]).await;
        let options = ["--telemetry.metrics_enabled", "false", "--telemetry.logs_enabled", "false"];
        let server = Server::exporting(&backend, &[&AT_ONCE[..], &options].concat()).await;
        let mut connection = server.connect().await;
        for portion in 0..PORTIONS {
            let mut sets = redis::pipe();
            let key = |number| format!("{portion}:{number:0KEY_LENGTH$}");
            (0..PORTION).for_each(|number| _ = sets.cmd("SET").arg(key(number)).arg("text").ignore());
            sets.exec_async(&mut connection).await.expect("SET works");
            let begin = Instant::now();
            while server.metric(&depth).await > 0.0 && begin.elapsed() < PORTION_LIMIT {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        (memory_mib(&backend), backend.output().await)
    };
    let (without, _) = run(collector(limiter, &pipeline("batch"))).await;
    let (with, output) = run(collector(limiter, &pipeline("memory_limiter, batch"))).await;
    assert!(output.contains("Refusing data."), "{output}");
    assert!(with < 40.0 && without > 1.5 * with, "{without} MiB without the limiter, {with} MiB with it");
}
