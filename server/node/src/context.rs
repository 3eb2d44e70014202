//! Which trace context a command came with. The nearest wins: the `OTEL.TRACE` wrapper, then the RESP attribute, then
//! the connection's. A malformed one counts as none and never fails the command. Attributes are read by the propagators in
//! force; what a caller names W3C's by itself, in the wrapper or for the connection, counts whatever they are.

use ferrite_commands::session::ConnectionContext;
use ferrite_commands::{Session, otel};
use ferrite_resp::Args;
use ferrite_telemetry::{Baggage, Propagators, RemoteContext, TraceBuffer};

/// What is read of a caller's context.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContextIn {
    pub propagators: Propagators,
    /// The members of its baggage that become attributes of its command's spans.
    pub baggage_keys: Vec<String>,
}

/// Finds the command's context and gives it to the trace and the session. Returns how many arguments the wrapper takes
/// before the command's own name.
pub(crate) fn resolve<'a>(
    args: Args<'a>,
    attributes: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>,
    session: &mut Session,
    trace: &mut TraceBuffer,
    wanted: &ContextIn,
) -> usize {
    // One command's wish: a reply that was not written has not fulfilled it.
    session.trace_response = false;
    let wrapped = otel::unwrap(args);
    if attributes.len() == 0 && wrapped.is_none() && matches!(session.context, ConnectionContext::None) {
        // Nearly every command.
        if session.command_context.is_some() {
            session.command_context = None;
        }
        return 0;
    }
    let mut context = session.context.take();
    let mut asks = false;
    let extracted = wanted.propagators.extract(attributes.inspect(|pair| asks |= asks_for_response(*pair)));
    session.trace_response = asks;
    context = extracted.context.map(RemoteContext::into_owned).or(context);
    let mut baggage = extracted.baggage;
    let mut skip = 0;
    if let Some(wrapped) = wrapped {
        skip = wrapped.skip;
        context = wrapped.context().map(RemoteContext::into_owned).or(context);
        if !wrapped.baggage.is_empty() {
            baggage = Baggage::new(wrapped.baggage.into());
        }
    }
    if let Some(context) = &context {
        trace.set_context(context);
    }
    if !baggage.is_empty() {
        trace.set_baggage(baggage.chosen(&wanted.baggage_keys));
    }
    session.command_context = context;
    skip
}

fn asks_for_response((key, value): (&[u8], &[u8])) -> bool {
    key.eq_ignore_ascii_case(b"traceresponse") && value == b"1"
}
