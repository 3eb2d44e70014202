//! An application whose commands are in its own trace, from a span of `tracing` to Ferrite's storage.
//!
//! `FERRITE_URL` and `OTEL_EXPORTER_OTLP_ENDPOINT` say where Ferrite and the Collector are, if not on this machine.

use ferrite_redis_tracing::Traced;
use opentelemetry::global;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, info_span};
use tracing_subscriber::layer::SubscriberExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Configure OTLP trace export
    let exporter = SpanExporter::builder().with_tonic().build()?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name("my-rust-app").build())
        .build();
    global::set_tracer_provider(provider.clone());
    global::set_text_map_propagator(TraceContextPropagator::new());

    // Set up tracing's subscriber with the OTel layer; the filter keeps the exporter's own spans out
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("my-rust-app"));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(LevelFilter::INFO).with(layer))?;

    // A connection whose commands carry the current span to Ferrite
    let url = std::env::var("FERRITE_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379/".to_owned());
    let connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let mut connection = Traced::new(connection).await?;

    // All operations inside this span are correlated
    let session = async {
        let mut set = redis::cmd("SET");
        set.arg("user:123:session").arg("session-data").arg("EX").arg(3600).exec_async(&mut connection).await?;
        let session: Option<String> = redis::cmd("GET").arg("user:123:session").query_async(&mut connection).await?;
        let mut hset = redis::cmd("HSET");
        hset.arg("user:123:profile").arg("name").arg("Alice").exec_async(&mut connection).await?;
        tracing::info!(session = ?session, "Retrieved session");
        Ok::<_, redis::RedisError>(session)
    }
    .instrument(info_span!("handle-user-request", user.id = "user-123"))
    .await?;
    println!("{}", session.unwrap_or_default());

    // Ensure all spans are flushed before exit
    provider.shutdown()?;
    Ok(())
}
