//! Failures that are not a client's: what its command is answered, what its trace and the log say.

use ferrite_hybridlog::aof::{AofFailed, NoSpace};
use ferrite_hybridlog::{ReadError, StorageError};
use ferrite_io::World;
use ferrite_telemetry::{Exception, SpanId, TraceId};

use crate::session::Connection;

/// Why a command cannot go on.
pub(crate) struct Failure {
    /// Follows the error reply's prefix.
    pub text: String,
    /// `None`: the client asked for what cannot be.
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

impl<W: World> Connection<W> {
    /// The current command's trace and the log have the exception.
    #[cold]
    pub(crate) fn record_exception(&mut self, exception: &Exception) {
        self.trace.exception(exception);
        log(self.client.id, exception, self.trace.ids());
    }

    /// The log was not durable when replies were to leave: each of them becomes this error.
    #[cold]
    pub(crate) fn fail_unwritten(&mut self, text: &str, error: &AofFailed) {
        let exception = error.exception();
        for ids in self.trace.fail_unwritten(text.as_bytes(), &exception) {
            log(self.client.id, &exception, Some(ids));
        }
    }
}

fn log(client: u64, exception: &Exception, ids: Option<(TraceId, SpanId)>) {
    tracing::error!(
        trace_id = ids.map(|(trace, _)| tracing::field::display(trace)),
        span_id = ids.map(|(_, span)| tracing::field::display(span)),
        client,
        error_type = exception.kind.as_str(),
        error = exception.message,
        "A command failed"
    );
}
