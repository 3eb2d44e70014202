//! Export over OTLP: World tasks that take what the workers left and send it to a backend. No command waits for them.

mod convert;
mod metrics;
mod outage;
mod settings;
#[cfg(test)]
pub(crate) mod testing;
mod traces;

pub use metrics::{GrpcMetricExporter, MetricExportCounts, MetricExporter, export_metrics};
pub use settings::{ExportError, ExportSettings, Protocol};
pub use traces::{export_traces, grpc_span_exporter};

use std::time::Duration;

/// How long an export may wait for its backend at the end; what is not sent by then is dropped and counted. A node that
/// stops has flushed its queue before, with a bound of its own: here the spans of the stop itself are left.
pub const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Who made the spans and metrics.
pub(crate) const SCOPE_NAME: &str = "ferrite";
const SCOPE_VERSION: &str = env!("CARGO_PKG_VERSION");
