//! OTEL.*: Ferrite's own commands. How a caller's trace reaches a command; how the last traces are read is in [`traces`].

mod traces;

pub use traces::{traces_query, write_keys_not_recorded, write_traces};

use ferrite_keyspace::Pause;
use ferrite_resp::{Args, Reply};
use ferrite_telemetry::RemoteContext;

use crate::admit;
use crate::call::Call;
use crate::help;
use crate::session::{ConnectionContext, Told};
use crate::spec::{Arg, CommandSpec, Group, Handler, acl, flag};

const fn sub(name: &'static str, arity: i32, handler: Handler) -> CommandSpec {
    CommandSpec::new(name, arity, handler).group(Group::Module).since("1.0.0").flags(flag::LOADING | flag::STALE)
}

pub static SPECS: &[CommandSpec] = &[
    sub("otel.trace", -3, trace)
        .complexity("That of the command it wraps")
        .summary("Runs a command as part of the caller's trace.")
        .flags(flag::FAST | flag::NO_AUTH | flag::NOT_QUEUED)
        .acl(acl::CONNECTION)
        .args(&[
            Arg::string("traceparent"),
            Arg::string("tracestate").optional(),
            Arg::string("baggage").optional(),
            Arg::string("command"),
            Arg::string("arg").optional().multiple(),
        ]),
    CommandSpec::container("otel.context", CONTEXT)
        .group(Group::Module)
        .since("1.0.0")
        .complexity("Depends on subcommand.")
        .summary("Holds the commands about the connection's trace context."),
    CommandSpec::container("otel.traces", traces::TRACES)
        .group(Group::Module)
        .since("1.0.0")
        .complexity("Depends on subcommand.")
        .summary("Holds the commands that show the last traces."),
];

static CONTEXT: &[CommandSpec] = &[
    sub("otel.context|set", -3, context_set)
        .complexity("O(1)")
        .summary("Makes the connection's commands part of the caller's trace.")
        .flags(flag::FAST)
        .acl(acl::CONNECTION)
        .args(&[
            Arg::string("traceparent"),
            Arg::string("tracestate").optional(),
            Arg::string("baggage").optional(),
            Arg::word("once", "ONCE").optional(),
        ]),
    sub("otel.context|clear", 2, context_clear)
        .complexity("O(1)")
        .summary("Ends what OTEL.CONTEXT SET began.")
        .flags(flag::FAST)
        .acl(acl::CONNECTION),
    sub("otel.context|response", 3, context_response)
        .complexity("O(1)")
        .summary("Makes every reply say which trace served it.")
        .flags(flag::FAST)
        .acl(acl::CONNECTION)
        .args(&[Arg::one_of("switch", &[Arg::word("on", "ON"), Arg::word("off", "OFF")])]),
    sub("otel.context|help", 2, context_help).complexity("O(1)").summary("Explains the subcommands."),
];

/// A command inside `OTEL.TRACE <traceparent> [tracestate [baggage]] command …`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrapped<'a> {
    pub traceparent: &'a [u8],
    /// Empty if there is none.
    pub tracestate: &'a [u8],
    /// W3C's, as its header has it; empty if there is none.
    pub baggage: &'a [u8],
    /// Arguments before the command's own name.
    pub skip: usize,
}

impl<'a> Wrapped<'a> {
    /// `None` if malformed: the command then runs without a context.
    pub fn context(&self) -> Option<RemoteContext<'a>> {
        RemoteContext::parse(self.traceparent, self.tracestate)
    }
}

const TRACE: &[u8] = b"OTEL.TRACE";

/// Looks into the wrapper; the driver does so before admission and admits the command inside. `None`: this is no
/// wrapper, or one without a command, which admission answers with its error.
#[inline]
pub fn unwrap(args: Args<'_>) -> Option<Wrapped<'_>> {
    // The length alone tells nearly every command.
    if args.is_empty() || args.get(0).len() != TRACE.len() { None } else { unwrap_named(args) }
}

fn unwrap_named(args: Args<'_>) -> Option<Wrapped<'_>> {
    if !args.get(0).eq_ignore_ascii_case(TRACE) {
        return None;
    }
    let (tracestate, baggage, skip) = headers(args, 2);
    (skip < args.len()).then(|| Wrapped { traceparent: args.get(1), tracestate, baggage, skip })
}

/// The tracestate and the baggage that stand from `at` on, both empty if they do not, and where they end.
fn headers(args: Args<'_>, at: usize) -> (&[u8], &[u8], usize) {
    // No command's name is empty or has an equals sign, and no word of OTEL.CONTEXT SET.
    let header = |at: usize| {
        let word = (at < args.len()).then(|| args.get(at))?;
        (word.is_empty() || memchr::memchr(b'=', word).is_some()).then_some(word)
    };
    let tracestate = header(at);
    let baggage = tracestate.and_then(|_| header(at + 1));
    let end = at + usize::from(tracestate.is_some()) + usize::from(baggage.is_some());
    (tracestate.unwrap_or_default(), baggage.unwrap_or_default(), end)
}

/// Reached only by what the driver could not unwrap: a wrapper without a command or inside another one.
fn trace(call: &mut Call<'_>) -> Result<(), Pause> {
    call.session.mark_dirty();
    match unwrap(call.args) {
        Some(_) => call.reply.error("ERR OTEL.TRACE cannot be nested"),
        None => call.reply.error(admit::wrong_arity(call.spec)),
    }
    Ok(())
}

/// A malformed context is refused and leaves the former one in force: unlike a wrapper it is a command of its own, and
/// nothing else would tell the caller.
fn context_set(call: &mut Call<'_>) -> Result<(), Pause> {
    let args = call.args;
    let (tracestate, baggage, rest) = headers(args, 3);
    let once = args.len() > rest && args.get(rest).eq_ignore_ascii_case(b"ONCE");
    if args.len() != rest + usize::from(once) {
        call.reply.error("ERR syntax error");
        return Ok(());
    }
    let Some(context) = RemoteContext::parse(args.get(2), tracestate) else {
        call.reply.error(
            "ERR invalid traceparent: expected <version>-<trace-id>-<parent-id>-<flags> as in \
             https://www.w3.org/TR/trace-context/",
        );
        return Ok(());
    };
    let told = Told { context: context.into_owned(), baggage: baggage.into() };
    call.session.context = if once { ConnectionContext::Once(told) } else { ConnectionContext::Set(told) };
    call.reply.ok();
    Ok(())
}

fn context_clear(call: &mut Call<'_>) -> Result<(), Pause> {
    call.session.context = ConnectionContext::None;
    call.reply.ok();
    Ok(())
}

/// In RESP2 it can be asked for and is not done: replies have no attributes there.
fn context_response(call: &mut Call<'_>) -> Result<(), Pause> {
    let switch = call.args.get(2);
    call.session.trace_responses = if switch.eq_ignore_ascii_case(b"ON") {
        true
    } else if switch.eq_ignore_ascii_case(b"OFF") {
        false
    } else {
        call.reply.error("ERR syntax error");
        return Ok(());
    };
    call.reply.ok();
    Ok(())
}

/// The attribute in front of a reply in RESP3 that says which trace served it.
pub fn write_trace_response(reply: &mut Reply<'_>, traceresponse: &str) {
    reply.attributes(1);
    reply.bulk(b"traceresponse");
    reply.bulk(traceresponse.as_bytes());
}

fn context_help(call: &mut Call<'_>) -> Result<(), Pause> {
    help::write(
        &mut call.reply,
        "otel.context",
        &[
            "SET <traceparent> [<tracestate> [<baggage>]] [ONCE]",
            "    Makes the connection's commands, or only the next one, part of the caller's trace.",
            "CLEAR",
            "    Ends that.",
            "RESPONSE ON|OFF",
            "    Makes every reply say which trace served it, in RESP3.",
        ],
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Client, words};

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_stands_before_the_wrapped_command_s_name_is_tracestate_then_baggage() {
        let seen = |command: &str| {
            words(command, |args| {
                unwrap(args).map(|wrapped| {
                    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("ASCII");
                    let headers = [wrapped.traceparent, wrapped.tracestate, wrapped.baggage].map(text);
                    (headers.join("|"), wrapped.skip)
                })
            })
        };
        let found = |headers: &str, at| Some((headers.to_owned(), at));
        assert_eq!(seen("OTEL.TRACE p GET k"), found("p||", 2));
        assert_eq!(seen("otel.trace p a=b GET k"), found("p|a=b|", 3));
        assert_eq!(seen("OTEL.TRACE p a=b c=d GET k"), found("p|a=b|c=d", 4));
        // Two spaces: an empty argument. Without a tracestate it keeps the place before the baggage.
        assert_eq!(seen("OTEL.TRACE p  c=d GET k"), found("p||c=d", 4));
        assert_eq!(seen("OTEL.TRACE p a=b  GET k"), found("p|a=b|", 4));
        assert_eq!(seen("OTEL.TRACE p a=b c=d e=f k"), found("p|a=b|c=d", 4));
        // A key with an equals sign is not at the place of the command's name.
        assert_eq!(seen("OTEL.TRACE p GET a=b"), found("p||", 2));
        for other in [
            "OTEL.TRACE",
            "OTEL.TRACE p",
            "OTEL.TRACE p a=b",
            "OTEL.TRACE p a=b c=d",
            "OTEL.TRACES p GET k",
            "GET k",
            "OTELxTRACE p GET k",
        ] {
            assert_eq!(seen(other), None, "{other}");
        }
    }

    #[test]
    fn the_inner_command_runs_whether_or_not_the_context_is_valid() {
        let mut client = Client::new();
        assert_eq!(client.run(&format!("OTEL.TRACE {PARENT} PING")), "+PONG\r\n");
        assert_eq!(client.run("OTEL.TRACE nonsense ECHO hi"), "$2\r\nhi\r\n");
        assert_eq!(client.run(&format!("OTEL.TRACE {PARENT} a=b PING")), "+PONG\r\n");
        assert_eq!(client.run(&format!("OTEL.TRACE {PARENT} a=b nonsense= PING")), "+PONG\r\n");
        assert_eq!(
            client.run("OTEL.TRACE p nope x"),
            "-ERR unknown command 'nope', with args beginning with: 'x' \r\n"
        );
        let arity = "-ERR wrong number of arguments for 'otel.trace' command\r\n";
        assert_eq!(client.run("OTEL.TRACE p"), arity);
        assert_eq!(client.run("OTEL.TRACE p a=b"), arity);
        assert_eq!(client.run("OTEL.TRACE p OTEL.TRACE p PING"), "-ERR OTEL.TRACE cannot be nested\r\n");
        client.session.multi = Some(Default::default());
        assert_eq!(client.run("OTEL.TRACE p PING"), "+QUEUED\r\n");
        assert_eq!(client.run("OTEL.TRACE p a=b"), arity);
        assert!(client.session.multi.is_some_and(|queue| queue.dirty && queue.commands[0].spec.name == "ping"));
    }

    #[test]
    fn the_connection_s_context_lasts_until_cleared_or_for_one_command() {
        let mut client = Client::new();
        let lasts = |client: &Client| client.session.context.lasting().is_some();
        assert!(!lasts(&client));
        assert_eq!(client.run(&format!("OTEL.CONTEXT SET {PARENT} vendor=1")), "+OK\r\n");
        assert!(client.session.context.take_once().is_none());
        let told = client.session.context.lasting().expect("set");
        assert_eq!(told.context.traceparent(), PARENT);
        assert_eq!((&*told.context.tracestate, &*told.baggage), ("vendor=1", &b""[..]));
        assert_eq!(client.run("OTEL.CONTEXT CLEAR"), "+OK\r\n");
        assert!(!lasts(&client));
        assert_eq!(client.run(&format!("OTEL.CONTEXT SET {PARENT} once")), "+OK\r\n");
        assert!(!lasts(&client) && client.session.context.take_once().is_some());
        assert!(client.session.context.take_once().is_none());
        // Two spaces: an empty argument, which keeps the tracestate's place.
        for (headers, tracestate, baggage) in
            [("a=b c=d", "a=b", "c=d"), (" c=d", "", "c=d"), ("a=b c=d once", "a=b", "c=d")]
        {
            assert_eq!(client.run(&format!("OTEL.CONTEXT SET {PARENT} {headers}")), "+OK\r\n");
            let once = client.session.context.take_once();
            let told = once.as_ref().or(client.session.context.lasting()).expect("set");
            assert_eq!((&*told.context.tracestate, &*told.baggage), (tracestate, baggage.as_bytes()), "{headers}");
        }
        assert_eq!(client.run(&format!("OTEL.CONTEXT SET {PARENT} a=b c=d e=f")), "-ERR syntax error\r\n");
        client.run(&format!("OTEL.CONTEXT SET {PARENT}"));
        client.run("RESET");
        assert!(!lasts(&client) && client.session.context.take_once().is_none());
    }

    #[test]
    fn responses_are_asked_for_until_they_are_not() {
        let mut client = Client::new();
        assert_eq!(client.run("OTEL.CONTEXT RESPONSE on"), "+OK\r\n");
        assert!(client.session.trace_responses);
        client.run("RESET");
        assert!(!client.session.trace_responses);
        client.run("OTEL.CONTEXT RESPONSE ON");
        assert_eq!(client.run("OTEL.CONTEXT RESPONSE maybe"), "-ERR syntax error\r\n");
        assert!(client.session.trace_responses);
        assert_eq!(client.run("OTEL.CONTEXT RESPONSE OFF"), "+OK\r\n");
        assert!(!client.session.trace_responses);
    }

    #[test]
    fn a_malformed_context_is_refused_and_the_former_one_stays() {
        let mut client = Client::new();
        client.run(&format!("OTEL.CONTEXT SET {PARENT}"));
        assert!(client.run("OTEL.CONTEXT SET nonsense").starts_with("-ERR invalid traceparent"));
        assert_eq!(client.run(&format!("OTEL.CONTEXT SET {PARENT} forever")), "-ERR syntax error\r\n");
        assert_eq!(client.run(&format!("OTEL.CONTEXT SET {PARENT} a=b ONCE more")), "-ERR syntax error\r\n");
        assert!(matches!(client.session.context, ConnectionContext::Set(_)));
        assert_eq!(client.run("OTEL.CONTEXT GET"), "-ERR unknown subcommand 'GET'. Try OTEL.CONTEXT HELP.\r\n");
    }
}
