//! Which trace context a command came with. The nearest wins: the `OTEL.TRACE` wrapper, then the RESP attribute, then
//! the connection's. A malformed one counts as none and never fails the command.

use ferrite_commands::session::ConnectionContext;
use ferrite_commands::{Session, otel};
use ferrite_resp::Args;
use ferrite_telemetry::{RemoteContext, TraceBuffer};

/// Finds the command's context and gives it to the trace and the session. Returns how many arguments the wrapper takes
/// before the command's own name.
pub(crate) fn resolve<'a>(
    args: Args<'a>,
    attributes: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>,
    session: &mut Session,
    trace: &mut TraceBuffer,
) -> usize {
    let wrapped = otel::unwrap(args);
    if attributes.len() == 0 && wrapped.is_none() && matches!(session.context, ConnectionContext::None) {
        // Nearly every command.
        if session.command_context.is_some() {
            session.command_context = None;
        }
        return 0;
    }
    let mut context = session.context.take();
    let (mut traceparent, mut tracestate): (Option<&[u8]>, &[u8]) = (None, b"");
    for (key, value) in attributes {
        if key.eq_ignore_ascii_case(b"traceparent") {
            traceparent = Some(value);
        } else if key.eq_ignore_ascii_case(b"tracestate") {
            tracestate = value;
        }
    }
    if let Some(parsed) = traceparent.and_then(|traceparent| RemoteContext::parse(traceparent, tracestate)) {
        context = Some(parsed.into_owned());
    }
    let mut skip = 0;
    if let Some(wrapped) = wrapped {
        skip = wrapped.skip;
        context = wrapped.context().map(RemoteContext::into_owned).or(context);
    }
    if let Some(context) = &context {
        trace.set_context(context);
    }
    session.command_context = context;
    skip
}
