//! Export over OTLP: World tasks, on a thread that is no worker, that take what the workers left and send it to a backend.

mod batches;
mod console;
mod delivery;
mod deltas;
mod encode;
mod exponential;
mod logs;
mod metrics;
mod outage;
mod settings;
#[cfg(test)]
pub(crate) mod testing;
mod traces;

pub use console::{NoBackend, Print};
pub use encode::SpanEncoder;
pub use exponential::Aggregation;
pub use logs::export_logs;
pub use metrics::export_metrics;
pub use settings::{ExportSettings, Temporality};
pub use traces::export_traces;

use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;

/// How long an export may wait for its backend at the end; what is not sent by then is dropped and counted. A node that
/// stops has flushed its queue before, with a bound of its own: here the spans of the stop itself are left.
pub const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Who made the spans and metrics.
pub(crate) const SCOPE_NAME: &str = "ferrite";
const SCOPE_VERSION: &str = env!("CARGO_PKG_VERSION");

fn scope() -> InstrumentationScope {
    InstrumentationScope { name: SCOPE_NAME.to_owned(), version: SCOPE_VERSION.to_owned(), ..Default::default() }
}
