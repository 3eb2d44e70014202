//! OTEL.TRACES: how the flight recorder is read.

use ferrite_keyspace::Pause;
use ferrite_resp::{Protocol, Reply, parse_i64};
use ferrite_telemetry::{Tier, TraceFilter, TraceId};

use super::sub;
use crate::admit;
use crate::call::Call;
use crate::help;
use crate::host::{Deferred, Searched, TracesQuery, TracesWanted};
use crate::server::slowlog;
use crate::spec::{Arg, CommandSpec, Handler, flag};

/// One that reads the recorder: the node gathers from every worker.
const fn reads(name: &'static str, arity: i32, handler: Handler) -> CommandSpec {
    sub(name, arity, handler).complexity("O(N)").flags(flag::ADMIN | flag::DEFERS).tips(&["nondeterministic_output"])
}

const JSON: Arg = Arg::word("json", "JSON").optional();
const COUNT: Arg = Arg::integer("count").optional();

pub(super) static TRACES: &[CommandSpec] = &[
    reads("otel.traces|last", -2, last).summary("Shows the last traces.").args(&[COUNT, JSON]),
    reads("otel.traces|get", -3, get).summary("Shows one trace.").args(&[Arg::string("trace-id"), JSON]),
    reads("otel.traces|slow", -2, slow).summary("Shows the last traces that took long.").args(&[
        Arg::double("milliseconds").optional(),
        COUNT,
        JSON,
    ]),
    reads("otel.traces|errors", -2, errors).summary("Shows the last traces that failed.").args(&[COUNT, JSON]),
    reads("otel.traces|find", -2, find).summary("Shows the last traces of a command, a key, a client.").args(&[
        Arg::string("name").token("CMD").optional(),
        Arg::string("key").token("KEY").optional(),
        Arg::integer("client-id").token("CLIENT").optional(),
        Arg::double("milliseconds").token("MIN-DURATION").optional(),
        Arg::string("tier").token("TIER").optional(),
        Arg::string("tenant").token("TENANT").optional(),
        Arg::word("failed", "FAILED").optional(),
        COUNT,
        JSON,
    ]),
    sub("otel.traces|help", 2, show_help).complexity("O(1)").summary("Explains the subcommands."),
];

/// What LAST shows without a count.
const LAST_DEFAULT: usize = 1;
/// What the others show without a count.
const COUNT_DEFAULT: usize = 10;

const BAD_COUNT: &str = "ERR value is out of range, must be positive";
const BAD_DURATION: &str = "ERR milliseconds must be a number that is not negative";

/// What a subcommand could not make of its arguments.
enum Mistake {
    Says(&'static str),
    /// There are too many, or they are not of its form.
    Form,
}

impl From<&'static str> for Mistake {
    fn from(text: &'static str) -> Self {
        Self::Says(text)
    }
}

/// The arguments after the subcommand, read from the front.
struct Rest<'a> {
    args: Vec<&'a [u8]>,
    at: usize,
}

impl<'a> Rest<'a> {
    fn peek(&self) -> Option<&'a [u8]> {
        self.args.get(self.at).copied()
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        let arg = self.peek()?;
        self.at += 1;
        Some(arg)
    }

    /// Takes the next argument if it is this word.
    fn takes(&mut self, word: &str) -> bool {
        let is_it = self.peek().is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
        self.at += usize::from(is_it);
        is_it
    }

    /// A count, if there is an argument beside a final `JSON`.
    fn count(&mut self, default: usize) -> Result<usize, Mistake> {
        match self.peek() {
            Some(arg) if !self.is_json(arg) => {
                self.at += 1;
                let count = parse_i64(arg).filter(|&count| count > 0).and_then(|count| usize::try_from(count).ok());
                count.ok_or(Mistake::Says(BAD_COUNT))
            }
            _ => Ok(default),
        }
    }

    fn is_json(&self, arg: &[u8]) -> bool {
        self.at + 1 == self.args.len() && arg.eq_ignore_ascii_case(b"JSON")
    }

    /// `JSON` or nothing, and then nothing.
    fn end(mut self, wanted: TracesWanted) -> Result<TracesQuery, Mistake> {
        let json = self.takes("JSON");
        if self.peek().is_some() { Err(Mistake::Form) } else { Ok(TracesQuery { wanted, json }) }
    }

    fn search(mut self, filter: TraceFilter, tenant: Option<String>) -> Result<TracesQuery, Mistake> {
        let count = self.count(COUNT_DEFAULT)?;
        self.end(TracesWanted::Search(Searched { filter, tenant, count }))
    }
}

/// What a subcommand makes of its arguments.
type Read = fn(Rest<'_>, i64) -> Result<TracesQuery, Mistake>;

/// What OTEL.TRACES would look for with these arguments, the subcommand first.
///
/// # Errors
/// What it would answer.
pub fn traces_query(words: &[&[u8]]) -> Result<TracesQuery, &'static str> {
    let known: [(&str, Read); 5] =
        [("LAST", last_of), ("GET", get_of), ("SLOW", slow_of), ("ERRORS", errors_of), ("FIND", find_of)];
    let (subcommand, args) = words.split_first().ok_or("ERR a subcommand is missing")?;
    let read = known.iter().find(|(name, _)| subcommand.eq_ignore_ascii_case(name.as_bytes()));
    let (_, read) = read.ok_or("ERR unknown subcommand")?;
    read(Rest { args: args.to_vec(), at: 0 }, slowlog::SLOWER_THAN_US_DEFAULT).map_err(|mistake| match mistake {
        Mistake::Says(text) => text,
        Mistake::Form => "ERR wrong number of arguments",
    })
}

/// Leaves to the node what `read` makes of the arguments.
fn ask(call: &mut Call<'_>, read: Read) -> Result<(), Pause> {
    let args = (2..call.args.len()).map(|at| call.args.get(at)).collect();
    match read(Rest { args, at: 0 }, call.host.slowlog().slower_than_us()) {
        Ok(query) => call.session.deferred = Some(Deferred::Traces(query)),
        Err(Mistake::Says(text)) => call.reply.error(text),
        Err(Mistake::Form) => call.echo(admit::bad_subcommand_arguments("otel.traces", call.args.get(1))),
    }
    Ok(())
}

fn last(call: &mut Call<'_>) -> Result<(), Pause> {
    ask(call, last_of)
}

fn last_of(mut rest: Rest<'_>, _slower_than_us: i64) -> Result<TracesQuery, Mistake> {
    let count = rest.count(LAST_DEFAULT)?;
    rest.end(TracesWanted::Last(count))
}

fn get(call: &mut Call<'_>) -> Result<(), Pause> {
    ask(call, get_of)
}

fn get_of(mut rest: Rest<'_>, _slower_than_us: i64) -> Result<TracesQuery, Mistake> {
    let id = rest.next().and_then(TraceId::parse);
    let id = id.ok_or("ERR invalid trace id: expected 32 lower-case hexadecimal digits, not all zero")?;
    rest.end(TracesWanted::Get(id))
}

fn slow(call: &mut Call<'_>) -> Result<(), Pause> {
    ask(call, slow_of)
}

fn slow_of(mut rest: Rest<'_>, slower_than_us: i64) -> Result<TracesQuery, Mistake> {
    // Where SLOWLOG is switched off or takes everything, its default stands for what is slow.
    let slower_than_us = if slower_than_us > 0 { slower_than_us } else { slowlog::SLOWER_THAN_US_DEFAULT };
    let duration_min_ns = match rest.peek() {
        Some(arg) if !rest.is_json(arg) => {
            rest.at += 1;
            nanoseconds(arg)?
        }
        _ => slower_than_us as u64 * 1000,
    };
    rest.search(TraceFilter { duration_min_ns, ..TraceFilter::default() }, None)
}

fn errors(call: &mut Call<'_>) -> Result<(), Pause> {
    ask(call, errors_of)
}

fn errors_of(rest: Rest<'_>, _slower_than_us: i64) -> Result<TracesQuery, Mistake> {
    rest.search(TraceFilter { failed: true, ..TraceFilter::default() }, None)
}

fn find(call: &mut Call<'_>) -> Result<(), Pause> {
    ask(call, find_of)
}

fn find_of(mut rest: Rest<'_>, _slower_than_us: i64) -> Result<TracesQuery, Mistake> {
    let mut filter = TraceFilter::default();
    let mut tenant = None;
    loop {
        if rest.takes("CMD") {
            let name = rest.next().ok_or(Mistake::Form)?;
            filter.command = Some(String::from_utf8_lossy(name).to_uppercase().replace('|', " "));
        } else if rest.takes("KEY") {
            filter.keys = vec![rest.next().ok_or(Mistake::Form)?.to_vec()];
        } else if rest.takes("CLIENT") {
            let id = rest.next().and_then(parse_i64).and_then(|id| u64::try_from(id).ok());
            filter.connection = Some(id.ok_or("ERR Invalid client ID")?);
        } else if rest.takes("MIN-DURATION") {
            filter.duration_min_ns = nanoseconds(rest.next().ok_or(Mistake::Form)?)?;
        } else if rest.takes("TIER") {
            let name = rest.next().ok_or(Mistake::Form)?;
            let tier = Tier::ALL.iter().find(|tier| name.eq_ignore_ascii_case(tier.as_str().as_bytes()));
            filter.tier = Some(*tier.ok_or("ERR unknown tier: expected mutable, read_only or disk")?);
        } else if rest.takes("TENANT") {
            tenant = Some(String::from_utf8_lossy(rest.next().ok_or(Mistake::Form)?).into_owned());
        } else if rest.takes("FAILED") {
            filter.failed = true;
        } else {
            break;
        }
    }
    match rest.peek() {
        // What is no option and no number is more likely a mistyped option than a count.
        Some(arg) if !rest.is_json(arg) && parse_i64(arg).is_none() => Err(Mistake::Says(
            "ERR syntax error: expected CMD, KEY, CLIENT, MIN-DURATION, TIER, TENANT, FAILED, a count or JSON",
        )),
        _ => rest.search(filter, tenant),
    }
}

/// From milliseconds, of which a part may be given.
fn nanoseconds(milliseconds: &[u8]) -> Result<u64, Mistake> {
    let parsed = std::str::from_utf8(milliseconds).ok().and_then(|text| text.parse::<f64>().ok());
    let valid = parsed.filter(|milliseconds| milliseconds.is_finite() && *milliseconds >= 0.0);
    valid.map(|milliseconds| (milliseconds * 1e6) as u64).ok_or(Mistake::Says(BAD_DURATION))
}

fn show_help(call: &mut Call<'_>) -> Result<(), Pause> {
    help::write(
        &mut call.reply,
        "otel.traces",
        &[
            "LAST [<count>] [JSON]",
            "    Prints the traces of the last commands as text trees, the newest first (default: 1), and those of",
            "    connections that ended between them. All subcommands read the flight recorders of all workers,",
            "    exported or not; with JSON each line is one trace as OTLP/JSON has it.",
            "GET <trace-id> [JSON]",
            "    Prints one trace as a text tree.",
            "SLOW [<milliseconds>] [<count>] [JSON]",
            "    Prints the last traces (default: 10) whose execution, waits for the disk included, took as long",
            "    (default: slowlog-log-slower-than).",
            "ERRORS [<count>] [JSON]",
            "    Prints the last traces (default: 10) that failed.",
            "FIND [CMD <name>] [KEY <key>] [CLIENT <id>] [MIN-DURATION <milliseconds>] [TIER <tier>]",
            "     [TENANT <tenant>] [FAILED] [<count>] [JSON]",
            "    Prints the last traces (default: 10) that are all of this. A key may end with *, which stands for any",
            "    rest; it is compared with what was recorded, so with its hash if keys are hashed.",
        ],
    );
    Ok(())
}

/// The answer to OTEL.TRACES: an array of lines in RESP2, one verbatim string in RESP3.
pub fn write_traces(reply: &mut Reply<'_>, lines: &[String]) {
    match reply.protocol {
        Protocol::Resp2 => {
            reply.array(lines.len());
            for line in lines {
                reply.simple(line);
            }
        }
        Protocol::Resp3 => reply.verbatim("txt", lines.join("\n").as_bytes()),
    }
}

/// What is searched for cannot be found, because keys are not recorded.
pub fn write_keys_not_recorded(reply: &mut Reply<'_>) {
    reply.error("ERR keys are not recorded: telemetry.redaction.keys is drop");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Client;

    fn asked(command: &str) -> Option<TracesQuery> {
        let mut client = Client::new();
        assert_eq!(client.run(command), "", "{command}");
        match client.session.deferred.take() {
            Some(Deferred::Traces(query)) => Some(query),
            _ => None,
        }
    }

    fn searched(command: &str) -> Searched {
        match asked(command).expect("it is left to the node").wanted {
            TracesWanted::Search(searched) => searched,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn traces_are_left_to_the_node() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let get = TracesWanted::Get(TraceId::parse(id.as_bytes()).expect("valid"));
        for (command, wanted, json) in [
            ("OTEL.TRACES LAST".to_owned(), TracesWanted::Last(1), false),
            ("OTEL.TRACES last 20".to_owned(), TracesWanted::Last(20), false),
            ("OTEL.TRACES LAST json".to_owned(), TracesWanted::Last(1), true),
            ("OTEL.TRACES LAST 3 JSON".to_owned(), TracesWanted::Last(3), true),
            (format!("OTEL.TRACES GET {id}"), get.clone(), false),
            (format!("OTEL.TRACES GET {id} JSON"), get, true),
        ] {
            assert_eq!(asked(&command), Some(TracesQuery { wanted, json }), "{command}");
        }
    }

    #[test]
    fn what_is_slow_is_what_slowlog_takes_for_it() {
        assert_eq!(searched("OTEL.TRACES SLOW").filter.duration_min_ns, 10_000_000);
        let slow = searched("OTEL.TRACES SLOW 0.5 3");
        assert_eq!((slow.filter.duration_min_ns, slow.count), (500_000, 3));
        let mut client = Client::new();
        client.host.slowlog.set_slower_than_us(250);
        client.run("OTEL.TRACES SLOW");
        let Some(Deferred::Traces(TracesQuery { wanted: TracesWanted::Search(searched), .. })) =
            client.session.deferred.take()
        else {
            panic!("it is left to the node")
        };
        assert_eq!(searched.filter.duration_min_ns, 250_000);
    }

    #[test]
    fn every_part_of_a_search_is_read() {
        let errors = searched("OTEL.TRACES ERRORS");
        assert!(errors.filter.failed && errors.count == 10);
        let found = searched(
            "OTEL.TRACES FIND cmd config|set key user:* client 7 min-duration 1.5 tier DISK tenant acme failed 4 json",
        );
        let filter = TraceFilter {
            command: Some("CONFIG SET".to_owned()),
            keys: vec![b"user:*".to_vec()],
            connection: Some(7),
            duration_min_ns: 1_500_000,
            failed: true,
            tier: Some(Tier::Disk),
            baggage: None,
        };
        assert_eq!(found, Searched { filter, tenant: Some("acme".to_owned()), count: 4 });
        assert_eq!(searched("OTEL.TRACES FIND").filter, TraceFilter::default());
        // A key may be called as an option is.
        assert_eq!(searched("OTEL.TRACES FIND KEY CMD").filter.keys, [b"CMD".to_vec()]);
    }

    #[test]
    fn mistakes_are_answered_clearly() {
        let mut client = Client::new();
        for count in ["0", "-1", "x"] {
            let reply = client.run(&format!("OTEL.TRACES LAST {count}"));
            assert_eq!(reply, "-ERR value is out of range, must be positive\r\n");
        }
        let form = |sub: &str| {
            format!("-ERR unknown subcommand or wrong number of arguments for '{sub}'. Try OTEL.TRACES HELP.\r\n")
        };
        for (command, reply) in [
            ("OTEL.TRACES LAST 1 2", form("LAST")),
            ("OTEL.TRACES LAST JSON 2", format!("-{BAD_COUNT}\r\n")),
            ("OTEL.TRACES SLOW -1", format!("-{BAD_DURATION}\r\n")),
            ("OTEL.TRACES SLOW x", format!("-{BAD_DURATION}\r\n")),
            ("OTEL.TRACES SLOW 1 0", format!("-{BAD_COUNT}\r\n")),
            ("OTEL.TRACES ERRORS 1 2", form("ERRORS")),
            ("OTEL.TRACES FIND KEY", form("FIND")),
            ("OTEL.TRACES FIND CLIENT x", "-ERR Invalid client ID\r\n".to_owned()),
            ("OTEL.TRACES FIND TIER tape", "-ERR unknown tier: expected mutable, read_only or disk\r\n".to_owned()),
            ("OTEL.TRACES FIND MIN-DURATION nan", format!("-{BAD_DURATION}\r\n")),
        ] {
            assert_eq!(client.run(command), reply, "{command}");
        }
        assert!(client.run("OTEL.TRACES FIND COMMAND GET").starts_with("-ERR syntax error: expected CMD, KEY"));
        assert!(client.run("OTEL.TRACES GET 00").starts_with("-ERR invalid trace id"));
        assert_eq!(client.session.deferred, None);
    }

    #[test]
    fn traces_are_lines_in_resp2_and_one_text_in_resp3() {
        let written = |protocol| {
            let mut out = Vec::new();
            write_traces(&mut Reply::new(&mut out, protocol), &["a".to_owned(), "└─ b".to_owned()]);
            String::from_utf8(out).expect("UTF-8")
        };
        assert_eq!(written(Protocol::Resp2), "*2\r\n+a\r\n+└─ b\r\n");
        assert_eq!(written(Protocol::Resp3), "=14\r\ntxt:a\n└─ b\r\n");
    }
}
