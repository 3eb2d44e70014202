//! The fields of a log line.

use super::names;

names! {
    /// The fields of a JSON log line, in the order in which they are written.
    LogField {
        /// RFC 3339 in UTC with milliseconds.
        Timestamp = "timestamp",
        /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
        Level = "level",
        /// Where it comes from, as [`log_target`] writes it.
        Target = "target",
        /// What happened.
        Message = "message",
        /// The trace of the command or cold path at hand, 32 hexadecimal digits.
        TraceId = "trace_id",
        /// Its span, 16 hexadecimal digits.
        SpanId = "span_id",
        /// Everything else, as an object.
        Fields = "fields",
    }
}

/// The target of the spans of cold paths: nothing else is exported from what `tracing` sees.
pub const COLD_TARGET: &str = "ferrite::cold";

/// The field of a cold path's span that makes it a failed one, with the reason; tracing-opentelemetry gives it this name.
pub const COLD_FAILURE: &str = "otel.status_description";

/// The member of a caller's baggage that a command's log line shows as its `request_id`.
pub const REQUEST_ID: &str = "request.id";

/// A module path as a log target: the crate `ferrite_node` is `ferrite::node`, so that one prefix selects all of Ferrite.
pub fn log_target(module: &str) -> std::borrow::Cow<'_, str> {
    match module.strip_prefix("ferrite_") {
        Some(rest) => format!("ferrite::{rest}").into(),
        None => module.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_becomes_a_module_of_ferrite() {
        assert_eq!(log_target("ferrite_node::session"), "ferrite::node::session");
        assert_eq!(log_target("ferrite::main"), "ferrite::main");
        assert_eq!(log_target("hyper::proto"), "hyper::proto");
    }
}
