//! Failures that are not a client's: what its command is answered, what its trace and the log say.

use std::collections::BTreeMap;

use ferrite_hybridlog::aof::{AofFailed, NoSpace};
use ferrite_hybridlog::{ReadError, StorageError};
use ferrite_io::World;
use ferrite_telemetry::schema::ExceptionType;
use ferrite_telemetry::{Exception, SpanId, TraceId};

use crate::session::Connection;

/// Why a command, or work of the server's own, cannot go on.
pub(crate) struct Failure {
    /// Follows the error reply's prefix, if there is one.
    pub text: String,
    /// `None`: the client asked for what cannot be, or the server ends.
    pub exception: Option<Exception>,
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self { text: error.to_string(), exception: Some(error.exception()) }
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self { text: error.to_string(), exception: error.exception() }
    }
}

impl From<NoSpace> for Failure {
    fn from(error: NoSpace) -> Self {
        Self { text: error.to_string(), exception: Some(error.exception()) }
    }
}

/// Of failures of one type, one in this time is told in full: looking up the names of a stack's frames takes 150 µs (the
/// first time in a process several hundred milliseconds), and a full disk refuses every write.
const IN_FULL_EVERY_NS: u64 = 100_000_000;

/// What one worker has told of each type of failure.
#[derive(Default)]
pub(crate) struct Told(BTreeMap<ExceptionType, Last>);

struct Last {
    in_full_ns: u64,
    /// Failures since, of which only the traces tell.
    since: u64,
}

impl Told {
    /// Whether this one is told in full; then how many have not been since the last one.
    fn in_full(&mut self, kind: ExceptionType, now_ns: u64) -> Option<u64> {
        match self.0.get_mut(&kind) {
            Some(last) if now_ns.saturating_sub(last.in_full_ns) < IN_FULL_EVERY_NS => {
                last.since += 1;
                None
            }
            last => {
                let since = last.map_or(0, |last| last.since);
                self.0.insert(kind, Last { in_full_ns: now_ns, since: 0 });
                Some(since)
            }
        }
    }

    /// Takes the stack from an exception that is not to be told in full. Gives how many were not before one that is.
    pub(crate) fn shorten(&mut self, exception: &mut Exception, now_ns: u64) -> Option<u64> {
        let before = self.in_full(exception.kind, now_ns);
        if before.is_none() {
            exception.stack = None;
        }
        before
    }
}

impl<W: World> Connection<W> {
    /// The current command's trace has the exception, and the log.
    #[cold]
    pub(crate) fn record_exception(&mut self, mut exception: Exception) {
        let unlogged = self.tell(&mut exception);
        self.trace.exception(&exception);
        if let Some(unlogged) = unlogged {
            self.log(&exception, self.trace.ids(), unlogged);
        }
    }

    /// The log was not durable when replies were to leave: each of them becomes this error.
    #[cold]
    pub(crate) fn fail_unwritten(&mut self, text: &str, error: &AofFailed) {
        let mut exception = error.exception();
        let unlogged = self.tell(&mut exception);
        let failed = self.trace.fail_unwritten(text.as_bytes(), &exception);
        if let Some(unlogged) = unlogged {
            self.log(&exception, failed.first().copied(), unlogged);
        }
    }

    /// Gives how many were not logged before one that is.
    fn tell(&self, exception: &mut Exception) -> Option<u64> {
        self.worker.told.borrow_mut().shorten(exception, self.worker.now_ns())
    }

    fn log(&self, exception: &Exception, ids: Option<(TraceId, SpanId)>, unlogged: u64) {
        tracing::error!(
            trace_id = ids.map(|(trace, _)| tracing::field::display(trace)),
            span_id = ids.map(|(_, span)| tracing::field::display(span)),
            client = self.client.id,
            error_type = exception.kind.as_str(),
            error = exception.message,
            unlogged,
            "A command failed"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_one_failure_is_told_in_full_now_and_then_and_hides_no_other() {
        let mut told = Told::default();
        assert_eq!(told.in_full(ExceptionType::LogFull, 5), Some(0));
        for now_ns in 6..9 {
            assert_eq!(told.in_full(ExceptionType::LogFull, now_ns), None);
        }
        assert_eq!(told.in_full(ExceptionType::ReadDamaged, 9), Some(0));
        assert_eq!(told.in_full(ExceptionType::LogFull, 5 + IN_FULL_EVERY_NS), Some(3));
        assert_eq!(told.in_full(ExceptionType::LogFull, 5 + 2 * IN_FULL_EVERY_NS), Some(0));
    }
}
