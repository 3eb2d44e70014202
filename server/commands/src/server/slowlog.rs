//! The slow log: the commands that took longest, bounded, shared by the workers; and the SLOWLOG command over it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use ferrite_keyspace::Pause;
use ferrite_resp::{Args, parse_i64};
use ferrite_telemetry::Pinned;
use parking_lot::Mutex;

use crate::call::Call;
use crate::help;
use crate::spec::{Arg, CommandSpec, Group, Handler, flag};

/// An entry keeps this many arguments; the last then says how many more there were.
const ARGS_MAX: usize = 32;
/// And this many bytes of each.
const ARG_BYTES_MAX: usize = 128;
/// Redis's default for `slowlog-max-len`.
pub const MAX_LEN_DEFAULT: usize = 128;
/// Redis's default for `slowlog-log-slower-than`.
pub const SLOWER_THAN_US_DEFAULT: i64 = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowEntry {
    pub id: u64,
    pub unix_s: u64,
    pub duration_us: u64,
    /// Shortened as Redis does.
    pub args: Vec<Vec<u8>>,
    pub addr: String,
    pub name: Vec<u8>,
    /// Kept as long as this entry; `None`: nothing was recorded.
    pub trace: Option<Arc<Pinned>>,
}

/// Newest first. The threshold is read without the lock, so that a fast command costs one comparison.
pub struct Slowlog {
    slower_than_us: AtomicI64,
    max_len: AtomicUsize,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    newest_first: VecDeque<SlowEntry>,
    next_id: u64,
}

impl Default for Slowlog {
    fn default() -> Self {
        Slowlog::new(SLOWER_THAN_US_DEFAULT, MAX_LEN_DEFAULT)
    }
}

impl Slowlog {
    /// `slower_than_us`: 0 logs every command, a negative number none.
    pub fn new(slower_than_us: i64, max_len: usize) -> Self {
        Slowlog {
            slower_than_us: AtomicI64::new(slower_than_us),
            max_len: AtomicUsize::new(max_len),
            entries: Mutex::default(),
        }
    }

    /// Is a command of this duration to be logged?
    #[inline]
    pub fn takes(&self, duration_us: u64) -> bool {
        let threshold = self.slower_than_us.load(Ordering::Relaxed);
        threshold >= 0 && duration_us >= threshold as u64
    }

    /// Logs a command that [`Slowlog::takes`] accepted.
    pub fn record(
        &self,
        args: Args<'_>,
        duration_us: u64,
        unix_s: u64,
        addr: &str,
        name: &[u8],
        trace: Option<Arc<Pinned>>,
    ) {
        let max_len = self.max_len.load(Ordering::Relaxed);
        let args = shorten(args);
        let mut entries = self.entries.lock();
        let id = entries.next_id;
        entries.next_id += 1;
        entries.newest_first.push_front(SlowEntry {
            id,
            unix_s,
            duration_us,
            args,
            addr: addr.to_owned(),
            name: name.to_vec(),
            trace,
        });
        entries.newest_first.truncate(max_len);
    }

    /// The newest `count` entries, the newest first.
    pub fn newest(&self, count: usize) -> Vec<SlowEntry> {
        self.entries.lock().newest_first.iter().take(count).cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.entries.lock().newest_first.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets the entries; the ids go on.
    pub fn reset(&self) {
        self.entries.lock().newest_first.clear();
    }

    pub fn slower_than_us(&self) -> i64 {
        self.slower_than_us.load(Ordering::Relaxed)
    }

    pub fn set_slower_than_us(&self, value: i64) {
        self.slower_than_us.store(value, Ordering::Relaxed);
    }

    pub fn max_len(&self) -> usize {
        self.max_len.load(Ordering::Relaxed)
    }

    pub fn set_max_len(&self, value: usize) {
        self.max_len.store(value, Ordering::Relaxed);
        self.entries.lock().newest_first.truncate(value);
    }
}

fn shorten(args: Args<'_>) -> Vec<Vec<u8>> {
    let kept = args.len().min(ARGS_MAX);
    let mut short = Vec::with_capacity(kept);
    for i in 0..kept {
        if args.len() > ARGS_MAX && i == ARGS_MAX - 1 {
            short.push(format!("... ({} more arguments)", args.len() - ARGS_MAX + 1).into_bytes());
            break;
        }
        let arg = args.get(i);
        if arg.len() > ARG_BYTES_MAX {
            let mut bytes = arg[..ARG_BYTES_MAX].to_vec();
            bytes.extend_from_slice(format!("... ({} more bytes)", arg.len() - ARG_BYTES_MAX).as_bytes());
            short.push(bytes);
        } else {
            short.push(arg.to_vec());
        }
    }
    short
}

const fn sub(name: &'static str, arity: i32, handler: Handler, since: &'static str) -> CommandSpec {
    CommandSpec::new(name, arity, handler).group(Group::Server).since(since).flags(flag::LOADING | flag::STALE)
}

pub static SPECS: &[CommandSpec] = &[CommandSpec::container("slowlog", SUBCOMMANDS)
    .group(Group::Server)
    .since("2.2.12")
    .complexity("Depends on subcommand.")
    .summary("Holds the commands about the slow log.")];

static SUBCOMMANDS: &[CommandSpec] = &[
    sub("slowlog|get", -2, get, "2.2.12")
        .complexity("O(N)")
        .summary("Gives the newest entries of the slow log.")
        .flags(flag::ADMIN)
        .tips(&["request_policy:all_nodes", "nondeterministic_output"])
        .args(&[Arg::integer("count").optional()]),
    sub("slowlog|len", 2, len, "2.2.12")
        .complexity("O(1)")
        .summary("Gives the number of entries in the slow log.")
        .flags(flag::ADMIN)
        .tips(&["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"]),
    sub("slowlog|reset", 2, reset, "2.2.12")
        .complexity("O(N)")
        .summary("Empties the slow log.")
        .flags(flag::ADMIN)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
    sub("slowlog|help", 2, show_help, "6.2.0").complexity("O(1)").summary("Explains the subcommands."),
];

/// What SLOWLOG GET gives without a count.
const COUNT_DEFAULT: usize = 10;

fn get(call: &mut Call<'_>) -> Result<(), Pause> {
    let count = match call.args.len() {
        2 => COUNT_DEFAULT,
        3 => match parse_i64(call.args.get(2)) {
            Some(-1) => usize::MAX,
            Some(count) if count >= 0 => count as usize,
            _ => {
                call.reply.error("ERR count should be greater than or equal to -1");
                return Ok(());
            }
        },
        _ => {
            call.echo(crate::admit::bad_subcommand_arguments("slowlog", call.args.get(1)));
            return Ok(());
        }
    };
    let always = call.host.slowlog_trace_id_always();
    let entries = call.host.slowlog().newest(count);
    let reply = &mut call.reply;
    reply.array(entries.len());
    for entry in &entries {
        let trace_id = entry.trace.as_ref().map(|trace| trace.trace_id().to_string()).unwrap_or_default();
        reply.array(if always { 7 } else { 6 });
        reply.integer(entry.id as i64);
        reply.integer(entry.unix_s as i64);
        reply.integer(entry.duration_us as i64);
        reply.array(entry.args.len());
        for arg in &entry.args {
            reply.bulk(arg);
        }
        reply.bulk(entry.addr.as_bytes());
        // A client that has no name leaves the field to the trace.
        reply.bulk(if entry.name.is_empty() { trace_id.as_bytes() } else { &entry.name });
        if always {
            reply.bulk(trace_id.as_bytes());
        }
    }
    Ok(())
}

fn len(call: &mut Call<'_>) -> Result<(), Pause> {
    call.reply.integer(call.host.slowlog().len() as i64);
    Ok(())
}

fn reset(call: &mut Call<'_>) -> Result<(), Pause> {
    call.host.slowlog().reset();
    call.reply.ok();
    Ok(())
}

fn show_help(call: &mut Call<'_>) -> Result<(), Pause> {
    help::write(
        &mut call.reply,
        "slowlog",
        &[
            "GET [<count>]",
            "    Gives the newest entries (default: 10, -1: all). An entry is made of:",
            "    id, Unix time, microseconds, array of arguments, client's address,",
            "    client's name or else the trace id.",
            "LEN",
            "    Gives the number of entries.",
            "RESET",
            "    Empties the log.",
        ],
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use ferrite_telemetry::{Pins, SpanId, TraceId};

    use super::*;
    use crate::testing::{Client, words};

    fn record(log: &Slowlog, command: &str, name: &[u8]) {
        let trace = Arc::<Pins>::default().pin(TraceId(0xab), SpanId(1));
        words(command, |args| log.record(args, 15, 1_700_000_000, "127.0.0.1:9", name, Some(trace)));
    }

    #[test]
    fn the_threshold_is_inclusive_and_negative_switches_it_off() {
        let log = Slowlog::new(100, 4);
        assert!(log.takes(100) && !log.takes(99));
        log.set_slower_than_us(0);
        assert!(log.takes(0));
        log.set_slower_than_us(-1);
        assert!(!log.takes(u64::MAX));
    }

    #[test]
    fn it_keeps_the_newest_and_ids_go_on() {
        let log = Slowlog::new(0, 2);
        for command in ["a", "b", "c"] {
            record(&log, command, b"");
        }
        let ids = |log: &Slowlog| log.newest(10).iter().map(|entry| entry.id).collect::<Vec<_>>();
        assert_eq!(ids(&log), [2, 1]);
        log.set_max_len(1);
        assert_eq!(ids(&log), [2]);
        log.reset();
        assert!(log.is_empty());
        record(&log, "d", b"");
        assert_eq!(ids(&log), [3]);
    }

    #[test]
    fn many_and_long_arguments_are_shortened_as_in_redis() {
        let log = Slowlog::default();
        let many = vec!["x"; 40].join(" ");
        record(&log, &many, b"");
        let args = &log.newest(1)[0].args;
        assert_eq!(args.len(), 32);
        assert_eq!(args[31], b"... (9 more arguments)");
        record(&log, &vec!["x"; 32].join(" "), b"");
        assert_eq!(log.newest(1)[0].args[31], b"x");
        record(&log, &"y".repeat(130), b"");
        assert_eq!(log.newest(1)[0].args[0], format!("{}... (2 more bytes)", "y".repeat(128)).as_bytes());
        record(&log, &"y".repeat(128), b"");
        assert_eq!(log.newest(1)[0].args[0].len(), 128);
    }

    #[test]
    fn the_sixth_field_is_the_name_or_the_trace() {
        let mut client = Client::new();
        record(&client.host.slowlog, "GET key", b"me");
        record(&client.host.slowlog, "PING", b"");
        let trace = "$32\r\n000000000000000000000000000000ab\r\n";
        let ping = format!("*6\r\n:1\r\n:1700000000\r\n:15\r\n*1\r\n$4\r\nPING\r\n$11\r\n127.0.0.1:9\r\n{trace}");
        let get =
            "*6\r\n:0\r\n:1700000000\r\n:15\r\n*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n$11\r\n127.0.0.1:9\r\n$2\r\nme\r\n";
        assert_eq!(client.run("SLOWLOG GET"), format!("*2\r\n{ping}{get}"));
        assert_eq!(client.run("SLOWLOG GET 1"), format!("*1\r\n{ping}"));
        assert_eq!(client.run("SLOWLOG GET -1"), format!("*2\r\n{ping}{get}"));
        client.host.slowlog_trace_id_always.set(true);
        let seven = get.replace("*6", "*7");
        assert!(client.run("SLOWLOG GET").ends_with(&format!("{seven}{trace}")));
    }

    #[test]
    fn len_reset_and_errors() {
        let mut client = Client::new();
        record(&client.host.slowlog, "PING", b"");
        assert_eq!(client.run("SLOWLOG LEN"), ":1\r\n");
        assert_eq!(client.run("SLOWLOG RESET"), "+OK\r\n");
        assert_eq!(client.run("SLOWLOG GET"), "*0\r\n");
        for command in ["SLOWLOG GET -2", "SLOWLOG GET x"] {
            assert_eq!(client.run(command), "-ERR count should be greater than or equal to -1\r\n");
        }
        assert_eq!(
            client.run("SLOWLOG GET 1 2"),
            "-ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP.\r\n"
        );
    }
}
