//! Log lines into the queue of the exporter.

use std::sync::Arc;

use ferrite_telemetry::schema::log_target;
use ferrite_telemetry::{SpanId, TraceId};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::{Seen, current_ids};
use crate::{LogQueue, LogRecord};

/// What takes telemetry away writes lines of its own: exported, each would bring about the next.
const OWN: [&str; 7] = ["ferrite_otlp", "h2", "hyper", "opentelemetry", "rustls", "tonic", "tower"];

pub(super) struct ToQueue {
    pub(super) queue: Arc<LogQueue>,
    pub(super) unix_ns: fn() -> u64,
}

impl<S: Subscriber> Layer<S> for ToQueue {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let target = event.metadata().target();
        if OWN.iter().any(|own| target.strip_prefix(own).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))) {
            return;
        }
        let mut seen = Seen::default();
        event.record(&mut seen);
        self.queue.push(LogRecord {
            unix_ns: (self.unix_ns)(),
            level: *event.metadata().level(),
            target: log_target(target).into_owned(),
            ids: seen.ids().or_else(current_ids),
            message: seen.message,
            fields: seen.others,
        });
    }
}

impl Seen {
    /// Those of the command that a line names.
    fn ids(&self) -> Option<(TraceId, SpanId)> {
        let trace_id = TraceId::parse(self.trace_id.as_ref()?.as_bytes())?;
        let span_id = u64::from_str_radix(self.span_id.as_ref()?, 16).ok()?;
        Some((trace_id, SpanId(span_id)))
    }
}
