//! The redis crate's program of the client tests; see `ferrite_integration::clients` for what it does and prints.

use ferrite_redis_tracing::Traced;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::TextMapCompositePropagator;
use opentelemetry::trace::{FutureExt, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, endpoint, key, requests] = arguments.as_slice() else {
        return Err("usage: rust_client REDIS_PORT OTLP_ENDPOINT KEY REQUESTS".into());
    };
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
    let resource = Resource::builder().with_service_name("rust-client").build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    global::set_tracer_provider(provider.clone());
    let both = TextMapCompositePropagator::new(vec![
        Box::new(TraceContextPropagator::new()),
        Box::new(BaggagePropagator::new()),
    ]);
    global::set_text_map_propagator(both);
    let tracer = provider.tracer("test");

    let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
    // A busy machine may need longer than the library waits for a reply.
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    let connection = client.get_multiplexed_async_connection_with_config(&patient).await?;
    let connection = Traced::new(connection).await?;
    let request = carrying(key).with_span(tracer.start("handle-request"));
    let (value, mut replies) = handle_request(connection.clone(), key).with_context(request.clone()).await?;

    // The blocking connection, within the same span.
    let blocking = Traced::blocking(client.get_connection()?)?;
    let (handled, key_of_it) = (request.clone(), key.clone());
    let first = move || {
        let _current = handled.attach();
        transaction(blocking, &key_of_it)
    };
    replies.push(tokio::task::spawn_blocking(first).await??.into());
    request.span().end();

    // Outside of it.
    let exists: bool = redis::cmd("EXISTS").arg(key).query_async(&mut connection.clone()).await?;
    assert!(exists);

    let mut under_way = Vec::new();
    for number in 0..requests.parse::<usize>()? {
        let (mut connection, name) = (connection.clone(), format!("{key}:{number}"));
        let span = carrying(&name).with_span(tracer.start_with_context("request", &Context::new()));
        let within = span.clone();
        let one = async move {
            redis::cmd("SET").arg(&name).arg(number).exec_async(&mut connection).await?;
            within.span().end();
            let of_span = within.span().span_context().clone();
            Ok::<_, Failure>(json!([of_span.trace_id().to_string(), of_span.span_id().to_string(), name]))
        };
        under_way.push(tokio::spawn(one.with_context(span)));
    }
    let mut done: Vec<Value> = Vec::new();
    for one in under_way {
        done.push(one.await??);
    }
    provider.shutdown()?;

    let of_request = request.span().span_context().clone();
    let report = json!({
        "advertised": connection.server_takes_context(),
        "request": [of_request.trace_id().to_string(), of_request.span_id().to_string()],
        "value": value,
        "replies": replies,
        "requests": done,
    });
    println!("{report}");
    Ok(())
}

/// Baggage of which the server is to show the first member.
fn carrying(key: &str) -> Context {
    Context::new().with_baggage([KeyValue::new("request.key", key.to_owned()), KeyValue::new("secret", "x")])
}

/// On the asynchronous connection.
async fn handle_request(
    mut connection: Traced<redis::aio::MultiplexedConnection>,
    key: &str,
) -> Result<(String, Vec<Value>), Failure> {
    redis::cmd("SET").arg(key).arg("value").exec_async(&mut connection).await?;
    let value: String = redis::cmd("GET").arg(key).query_async(&mut connection).await?;
    let mut pipeline = redis::pipe();
    pipeline.cmd("APPEND").arg(key).arg("-more").cmd("STRLEN").arg(key);
    let replies: Vec<i64> = pipeline.query_async(&mut connection).await?;
    Ok((value, replies.into_iter().map(Value::from).collect()))
}

/// On the blocking one: GET's value by a transaction.
fn transaction(mut connection: Traced<redis::Connection>, key: &str) -> Result<String, Failure> {
    let mut transaction = redis::pipe();
    transaction.atomic().cmd("GETRANGE").arg(key).arg(0).arg(0);
    let (first,): (String,) = transaction.query(&mut connection)?;
    Ok(first)
}
