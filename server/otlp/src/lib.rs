//! Records to OTLP: the bounded queue, batches and export, metrics, `/metrics`, the format of log lines.
//!
//! Nothing here makes a command wait: the queue drops and counts, the counters are plain loads and stores.

#[cfg(feature = "otel")]
mod cold;
mod endpoint;
mod exponential;
#[cfg(feature = "otel")]
mod export;
mod json;
mod log_record;
mod logging;
mod metric_exports;
mod metrics;
mod native;
mod openmetrics;
mod outgoing;
mod prometheus;
mod prometheus_protobuf;
mod queue;
#[cfg(feature = "otel")]
mod transport;

pub use endpoint::without_secrets;
pub use exponential::Exponential;
#[cfg(feature = "otel")]
pub use export::{
    Aggregation, ExportSettings, FLUSH_MAX, NoBackend, Print, SpanEncoder, Temporality, export_logs, export_metrics,
    export_traces,
};
pub use json::traces_data;
pub use log_record::LogRecord;
pub use logging::{ColdSpans, LogFormat, LogSettings, LoggingError, init_logging, subscriber};
pub use metric_exports::MetricExportCounts;
pub use metrics::{CommandTotals, DiskCandidate, DiskWork, Metrics, Point, Series, Value};
pub use openmetrics::render_openmetrics;
pub use outgoing::Outgoing;
pub use prometheus::render;
pub use prometheus_protobuf::render_protobuf;
pub use queue::{ColdSpan, Countable, ExportQueue, LogQueue, Queue, QueueCounts, Queued, TracePart};
#[cfg(feature = "otel")]
pub use transport::{
    Accepted, Compression, Destination, Endpoint, Exchange, ExportError, Identity, OtlpExchange, Protocol, Refusal,
    Retry, Roots, Signal, Spawn, TlsMaterial,
};

/// What a node's workers share to tell of themselves.
pub struct Telemetry {
    pub metrics: Metrics,
    pub queue: std::sync::Arc<ExportQueue>,
    pub logs: std::sync::Arc<LogQueue>,
    /// What becomes of exported metrics.
    pub metric_exports: std::sync::Arc<MetricExportCounts>,
    /// Decides which traces go there.
    pub sampling: std::sync::Arc<ferrite_telemetry::Sampling>,
}
