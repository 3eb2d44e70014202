//! Which trace context a command came with. The nearest wins: the `OTEL.TRACE` wrapper, then the RESP attribute, then
//! the connection's. A malformed one counts as none and never fails the command. Attributes are read by the propagators in
//! force; what a caller names W3C's by itself, in the wrapper or for the connection, counts whatever they are.

use ferrite_commands::Session;
use ferrite_commands::otel::{self, Wrapped};
use ferrite_commands::session::ConnectionContext;
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
#[inline]
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
    resolve_told(wrapped, attributes, session, trace, wanted)
}

/// The same for a command that one was told with. Apart, so that the others pass no more than a look.
#[inline(never)]
fn resolve_told<'a>(
    wrapped: Option<Wrapped<'a>>,
    attributes: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>,
    session: &mut Session,
    trace: &mut TraceBuffer,
    wanted: &ContextIn,
) -> usize {
    let once = session.context.take_once();
    let of_connection = once.as_ref().or(session.context.lasting());
    let mut asks = false;
    let extracted = wanted.propagators.extract(attributes.inspect(|pair| asks |= asks_for_response(*pair)));
    session.trace_response = asks;
    let mut context = extracted.context;
    let mut baggage = extracted.baggage;
    let mut skip = 0;
    if let Some(wrapped) = &wrapped {
        skip = wrapped.skip;
        context = wrapped.context().or(context);
        if !wrapped.baggage.is_empty() {
            baggage = Baggage::new(wrapped.baggage.into());
        }
    }
    if context.is_none()
        && let Some(told) = of_connection
    {
        context = Some(told.context.borrowed());
        // It is of that caller, who alone knows what is to go with its context.
        if baggage.is_empty() {
            baggage = Baggage::new((&*told.baggage).into());
        }
    }
    if let Some(context) = &context {
        trace.set_context(context);
    }
    if !baggage.is_empty() {
        trace.set_baggage(baggage.chosen(&wanted.baggage_keys));
    }
    // Only what a transaction queues is looked at later.
    session.command_context = context.filter(|_| session.multi.is_some()).map(RemoteContext::into_owned);
    skip
}

fn asks_for_response((key, value): (&[u8], &[u8])) -> bool {
    key.eq_ignore_ascii_case(b"traceresponse") && value == b"1"
}

#[cfg(test)]
mod tests {
    use ferrite_commands::session::{Queue, Told};
    use ferrite_resp::{Limits, Parsed, Parser};
    use ferrite_telemetry::{Outcome, Probability, Recorder, RecorderConfig, Sampling};

    use super::*;

    fn told(traceparent: &str, tracestate: &[u8], baggage: &[u8]) -> Told {
        let context = RemoteContext::parse(traceparent.as_bytes(), tracestate).expect("valid");
        Told { context: context.into_owned(), baggage: baggage.into() }
    }

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    /// A GET with a context in an attribute, with one in the wrapper, and with none.
    fn commands() -> Vec<Vec<u8>> {
        let attribute =
            format!("|2\r\n$11\r\ntraceparent\r\n$55\r\n{PARENT}\r\n$10\r\ntracestate\r\n$7\r\na=b,c=d\r\n");
        let get = "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n";
        let wrapped =
            format!("*5\r\n$10\r\nOTEL.TRACE\r\n$55\r\n{PARENT}\r\n$7\r\na=b,c=d\r\n$3\r\nGET\r\n$3\r\nkey\r\n");
        [format!("{attribute}{get}"), wrapped, get.to_owned()].map(String::into_bytes).into()
    }

    /// What a connection has.
    struct Connection {
        session: Session,
        trace: TraceBuffer,
        parsed: Parsed,
        wanted: ContextIn,
    }

    impl Connection {
        fn new(recorder: &mut Recorder) -> Self {
            Self {
                session: Session::new(1, "127.0.0.1:1", "127.0.0.1:2", true),
                trace: recorder.buffer(),
                parsed: Parsed::default(),
                wanted: ContextIn::default(),
            }
        }

        /// Resolves the command in these bytes; gives how many arguments its wrapper takes.
        fn resolve(&mut self, input: &[u8]) -> usize {
            assert_eq!(Parser::default().parse(input, &Limits::default(), &mut self.parsed), Ok(true));
            let Self { session, trace, parsed, wanted } = self;
            trace.begin_command();
            resolve(parsed.args(input), parsed.attributes(input), session, trace, wanted)
        }
    }

    fn run(input: &[u8], connection: &mut Connection, recorder: &mut Recorder) {
        connection.trace.start_batch();
        let skip = connection.resolve(input);
        let Connection { trace, parsed, .. } = connection;
        let args = parsed.args(input).from(skip);
        trace.describe("GET", 1, args.len(), [args.get(1)]);
        trace.dispatch();
        trace.execute_open();
        trace.finish_command(Outcome::Nil, b"", 0);
        trace.net_write();
        recorder.commit(trace, |_| panic!("nothing is sampled"));
    }

    /// From its bytes to the recorder, whatever context it came with.
    #[test]
    fn a_command_that_is_not_sampled_allocates_nothing() {
        let sampling = Sampling::by_head(Probability::AlwaysOff, true);
        let config = RecorderConfig { sampling, export: true, ring_bytes: 1 << 16, ..RecorderConfig::default() };
        let mut recorder = Recorder::new(|| 7, &config);
        let mut connection = Connection::new(&mut recorder);
        let commands = commands();
        let lasting = told(PARENT, b"a=b", b"tenant.id=acme");
        for context in [ConnectionContext::None, ConnectionContext::Set(lasting)] {
            connection.session.context = context;
            let mut all = || commands.iter().for_each(|command| run(command, &mut connection, &mut recorder));
            all();
            assert_eq!(allocation_counter::measure(all).count_total, 0);
        }
    }

    #[test]
    fn the_connection_s_context_counts_once_or_longer_and_a_transaction_keeps_it() {
        let mut connection = Connection::new(&mut Recorder::new(|| 7, &RecorderConfig::default()));
        let other = "00-11111111111111111111111111111111-2222222222222222-01";
        let once = told(other, b"x=y", b"");
        let get = commands().remove(2);
        let came_with = |connection: &mut Connection| {
            connection.resolve(&get);
            let trace_id = connection.trace.ids().expect("it is recorded").0;
            (trace_id == once.context.trace_id, connection.session.command_context.clone())
        };
        connection.session.context = ConnectionContext::Once(once.clone());
        assert_eq!(came_with(&mut connection), (true, None));
        assert_eq!(came_with(&mut connection), (false, None), "it was for one command");
        connection.session.multi = Some(Queue::default());
        connection.session.context = ConnectionContext::Set(once.clone());
        assert_eq!(came_with(&mut connection), (true, Some(once.context.clone())));
    }

    #[test]
    fn a_wish_whose_reply_was_not_written_is_not_the_next_command_s() {
        let mut connection = Connection::new(&mut Recorder::new(|| 7, &RecorderConfig::default()));
        let wishing = b"|1\r\n$13\r\ntraceresponse\r\n$1\r\n1\r\n*1\r\n$4\r\nPING\r\n";
        for (input, wishes) in [(&wishing[..], true), (b"*1\r\n$4\r\nPING\r\n", false)] {
            connection.resolve(input);
            assert_eq!(connection.session.trace_response, wishes);
        }
    }
}
