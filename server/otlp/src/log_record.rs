//! A log line on its way to a backend.

use ferrite_telemetry::{SpanId, TraceId};
use serde_json::Value;
use tracing::Level;

use crate::queue::Countable;

/// What one log line says.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRecord {
    /// Nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    pub level: Level,
    /// Where it comes from, as lines show it: `ferrite::node::session`.
    pub target: String,
    pub message: String,
    /// The command's, or the cold path's, trace and span.
    pub ids: Option<(TraceId, SpanId)>,
    pub fields: Vec<(&'static str, Value)>,
}

impl Countable for LogRecord {
    fn count(&self) -> usize {
        1
    }

    fn bytes(&self) -> usize {
        let field =
            |(_, value): &(&'static str, Value)| size_of::<(&str, Value)>() + value.as_str().map_or(0, str::len);
        let texts = self.target.len() + self.message.len();
        size_of::<Self>() + texts + self.fields.iter().map(field).sum::<usize>()
    }

    fn split_off(&mut self, _: usize) -> Option<Self> {
        None
    }
}
