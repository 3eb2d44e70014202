//! One command's run: what it is lent, which latch it takes, how it pauses and how its effects reach the AOF.

use ferrite_hybridlog::aof::Aof;
use ferrite_hybridlog::{BurstTooLarge, Held, NeedReason, Pinned, ValueTooLarge};
use ferrite_keyspace::{Databases, Keyspace, Lent, Pause, Scratch};
use ferrite_resp::{Args, Reply};
use ferrite_telemetry::TraceBuffer;

use crate::echo::Echo;
use crate::host::Host;
use crate::session::Session;
use crate::spec::{CommandSpec, flag};

/// What a worker lends to the commands of one batch.
pub struct Env<'e, 'w> {
    pub pinned: &'e mut Pinned<'w>,
    pub held: &'e Held,
    pub trace: &'e mut TraceBuffer,
    pub databases: &'e Databases,
    /// `None`: no append-only file.
    pub aof: Option<&'e Aof>,
    pub host: &'e dyn Host,
    /// Unix time of the batch in milliseconds; a command sees one time.
    pub now_ms: u64,
    /// The longest string that a command may build.
    pub proto_max_bulk_len: usize,
    /// The worker's buffers, reused from command to command.
    pub scratch: &'e mut Scratch,
}

/// One command as its handler sees it.
pub struct Call<'c> {
    pub spec: &'static CommandSpec,
    pub args: Args<'c>,
    pub keys: Keyspace<'c>,
    pub session: &'c mut Session,
    pub reply: Reply<'c>,
    pub host: &'c dyn Host,
    pub proto_max_bulk_len: usize,
    /// It was queued, and EXEC runs it.
    pub in_transaction: bool,
}

impl Call<'_> {
    /// Answers with an error that repeats what the client sent.
    pub fn echo(&mut self, error: Echo) {
        self.session.answer(&mut self.reply, error);
    }
}

/// What every command is: a synchronous function that either finishes or, having changed nothing, asks for more.
pub type Handler = fn(&mut Call<'_>) -> Result<(), Pause>;

/// What a command needs to itself while it runs.
enum Hold {
    /// Nothing, or what the engine latches itself.
    Nothing,
    /// The bucket of the key at this position.
    Key(usize),
    /// The store.
    Everything,
}

/// Runs one admitted command to its end or to a pause; never returns [`Pause::Refused`].
///
/// On `Err` nothing has changed and the reply buffer is as it was.
#[inline]
pub fn execute(
    spec: &'static CommandSpec,
    env: &mut Env<'_, '_>,
    args: Args<'_>,
    session: &mut Session,
    reply: Reply<'_>,
) -> Result<(), Pause> {
    let result = match hold(spec, args) {
        Hold::Nothing => run(spec, lend(env), None, args, session, reply),
        Hold::Key(at) => run(spec, lend(env), Some(args.get(at)), args, session, reply),
        Hold::Everything => {
            let Env { held, databases, aof, host, now_ms, proto_max_bulk_len, .. } = *env;
            // Whatever was looked up before is gone: this worker may have been out of its batch meanwhile.
            let exclusive = env.pinned.exclusive();
            let (trace, scratch) = (&mut *env.trace, &mut *env.scratch);
            let parts = Lent { pinned: &exclusive, held, trace, databases, aof, scratch, now_ms };
            run(spec, Parts { lent: parts, host, proto_max_bulk_len }, None, args, session, reply)
        }
    };
    if spec.has(flag::WRITE) && result.is_ok() {
        env.pinned.refresh();
    }
    if env.scratch.has_expired() {
        // What cannot be deleted now waits for the next command.
        _ = drain_expired(env);
    }
    if env.scratch.has_promotions() {
        promote(env);
    }
    result
}

/// An [`Env`] taken apart for one command.
struct Parts<'c> {
    lent: Lent<'c>,
    host: &'c dyn Host,
    proto_max_bulk_len: usize,
}

#[inline]
fn lend<'c>(env: &'c mut Env<'_, '_>) -> Parts<'c> {
    let Env { ref pinned, held, ref mut trace, databases, aof, host, now_ms, proto_max_bulk_len, ref mut scratch } =
        *env;
    Parts { lent: Lent { pinned, held, trace, databases, aof, scratch, now_ms }, host, proto_max_bulk_len }
}

#[inline]
fn run(
    spec: &'static CommandSpec,
    parts: Parts<'_>,
    latched: Option<&[u8]>,
    args: Args<'_>,
    session: &mut Session,
    reply: Reply<'_>,
) -> Result<(), Pause> {
    let pinned = parts.lent.pinned;
    let mut keys = Keyspace::new(parts.lent, session.db);
    keys.no_touch = session.no_touch;
    // Held until the effects are in the AOF: its order is that in which writes become visible.
    let latch = latched.map(|key| pinned.latch(keys.hash(key), spec.has(flag::WRITE)));
    if let (Some(latch), Some(key)) = (&latch, latched)
        && latch.was_contended()
    {
        let bucket = pinned.bucket_of(keys.hash(key));
        keys.trace().latch_contended(bucket);
    }
    let start = reply.out.len();
    let (host, proto_max_bulk_len) = (parts.host, parts.proto_max_bulk_len);
    let mut call = Call { spec, args, keys, session, reply, host, proto_max_bulk_len, in_transaction: false };
    match (spec.handler)(&mut call) {
        Ok(()) => {
            call.keys.commit();
            Ok(())
        }
        Err(pause) => {
            call.keys.abandon();
            call.reply.out.truncate(start);
            refused(pause, &mut call.reply)
        }
    }
}

/// Answers what no waiting changes; hands on what is to be waited for.
#[cold]
pub(crate) fn refused(pause: Pause, reply: &mut Reply<'_>) -> Result<(), Pause> {
    match pause {
        Pause::Refused(error) => reply.error(error),
        Pause::Space(need) => match need.reason {
            NeedReason::ValueTooLarge { max } => {
                reply.error(format!("ERR {}", ValueTooLarge { bytes: need.bytes, max }));
            }
            NeedReason::BurstTooLarge { max } => {
                reply.error(format!("ERR {}", BurstTooLarge { bytes: need.bytes, max }));
            }
            NeedReason::Memory
            | NeedReason::LogFile
            | NeedReason::AofFile
            | NeedReason::ObjectMemory
            | NeedReason::ObjectFile
            | NeedReason::ObjectUnwritten { .. }
            | NeedReason::ObjectShared { .. } => return Err(pause),
        },
        Pause::Keys | Pause::Records(_) | Pause::Headers(_) | Pause::Part { .. } | Pause::Counts { .. } => {
            return Err(pause);
        }
    }
    Ok(())
}

#[inline]
fn hold(spec: &'static CommandSpec, args: Args<'_>) -> Hold {
    if spec.has(flag::EXCLUSIVE) {
        return Hold::Everything;
    }
    let range = spec.keys;
    if range.first == range.last && range.first > 0 {
        // Nearly every command.
        let at = range.first as usize;
        return if at < args.len() { Hold::Key(at) } else { Hold::Nothing };
    }
    let mut keys = keys_of(spec, args);
    match (keys.next(), keys.next()) {
        (None, _) => Hold::Nothing,
        (Some(at), None) => Hold::Key(at),
        (Some(_), Some(_)) => Hold::Everything,
    }
}

/// Deletes the keys that reads found expired, each through the write path (AOF, watchers, counts). `execute` does it
/// after each command; who holds keys back for long, after a pause for space, may do it once more.
#[cold]
pub fn drain_expired(env: &mut Env<'_, '_>) -> Result<(), Pause> {
    while let Some((db, key)) = env.scratch.next_expired() {
        let parts = lend(env);
        let pinned = parts.lent.pinned;
        let mut keys = Keyspace::silent(parts.lent, db);
        let _latch = pinned.latch(keys.hash(&key), true);
        keys.delete_expired(&key)?;
    }
    Ok(())
}

/// Copies what reads found out of reach of its access clock.
#[cold]
fn promote(env: &mut Env<'_, '_>) {
    while let Some((db, key)) = env.scratch.next_promotion() {
        let parts = lend(env);
        let pinned = parts.lent.pinned;
        let mut keys = Keyspace::silent(parts.lent, db);
        let _latch = pinned.latch(keys.hash(&key), true);
        keys.promote(&key);
    }
}

/// The positions in `args` of the command's keys, as its key specifications say.
#[inline]
pub fn keys_of(spec: &'static CommandSpec, args: Args<'_>) -> impl Iterator<Item = usize> + use<> {
    let range = spec.keys;
    let len = args.len();
    let last =
        if range.last < 0 { len.saturating_sub(range.last.unsigned_abs() as usize) } else { range.last as usize };
    let (mut at, step) = (range.first as usize, (range.step as usize).max(1));
    // Position 0 is the command's name: no keys.
    let end = if at == 0 { 0 } else { (last + 1).min(len) };
    // `step_by` would divide.
    std::iter::from_fn(move || {
        let key = (at < end).then_some(at);
        at += step;
        key
    })
}

#[cfg(test)]
mod tests {
    use super::keys_of;
    use crate::table::resolve;
    use crate::testing::{Client, words};

    #[test]
    fn keys_are_found_by_the_table() {
        for (command, expected) in [
            ("GET a", &[1][..]),
            ("MGET a b c", &[1, 2, 3]),
            ("MSET a 1 b 2", &[1, 3]),
            ("RENAME a b", &[1, 2]),
            ("OBJECT ENCODING a", &[2]),
            ("PING a", &[]),
            ("SCAN 0", &[]),
            ("DEL", &[]),
        ] {
            let found = words(command, |args| keys_of(resolve(args).expect("a command"), args).collect::<Vec<_>>());
            assert_eq!(found, expected, "{command}");
        }
    }

    #[test]
    fn spans_of_reads_and_writes() {
        let mut client = Client::new();
        let mut spans = |command: &str| {
            client.run(command);
            client.recorded.join(" ").replace("ferrite.", "")
        };
        let read = "storage.read[mutable]";
        let write = "storage.write[mutable] epoch.advance";
        assert_eq!(spans("GET k"), "index.lookup");
        assert_eq!(spans("SET k v"), format!("index.lookup {write}"));
        assert_eq!(spans("GET k"), format!("index.lookup {read}"));
        assert_eq!(spans("SET k v"), format!("index.lookup {write}"));
        assert_eq!(spans("SET k 1 GET"), format!("index.lookup {read} {write}"));
        assert_eq!(spans("INCR k"), format!("index.lookup {read} {write}"));
        assert_eq!(spans("DEL k"), format!("index.lookup {write}"));
        assert_eq!(spans("DEL k"), "index.lookup");
        // Its deletion after the command is not the command's.
        client.run("SET k v PXAT 1");
        client.run("GET k");
        assert_eq!(client.recorded.len(), 2);
        assert_eq!(client.run("DBSIZE"), ":0\r\n");
    }

    #[test]
    fn a_value_may_be_larger_than_a_page_and_than_all_of_them() {
        let mut client = Client::new();
        let large = "x".repeat(1 << 21);
        let whole = |head: &str| format!("${}\r\n{head}{large}\r\n", head.len() + large.len());
        client.run("SET k v EX 100");
        assert_eq!(client.run(&format!("APPEND k {large}")), ":2097153\r\n");
        assert_eq!(client.run("GET k"), whole("v"));
        assert_eq!(client.run("TTL k"), ":100\r\n");
        assert_eq!(client.run("SETRANGE k 2097150 yyyy"), ":2097154\r\n");
        assert_eq!(client.run("GETRANGE k 2097148 -1"), "$6\r\nxxyyyy\r\n");
        let bytes = client.run("MEMORY USAGE k");
        assert!(bytes[1..].trim_end().parse::<usize>().expect("a number") > 1 << 21, "{bytes}");
        for command in ["MULTI".to_owned(), format!("MSET a {large} b 2"), "STRLEN a".to_owned()] {
            client.run(&command);
        }
        assert_eq!(client.run("EXEC"), "*2\r\n+OK\r\n:2097152\r\n");
        assert_eq!(client.run("RENAME a k"), "+OK\r\n");
        assert_eq!((client.run("GET k"), client.run("GET b")), (whole(""), "$1\r\n2\r\n".to_owned()));
        assert_eq!(client.run("SET k small"), "+OK\r\n");
        assert_eq!(client.run("GET k"), "$5\r\nsmall\r\n");
    }

    #[test]
    fn writes_beyond_the_limit_of_one_command_name_it_and_change_nothing() {
        let mut client = Client::new();
        // 32 pages of 64 KiB, or half as many bytes because a value may get as much slack.
        let value = "x".repeat(60_000);
        let pairs: Vec<String> = (0..40).map(|n| format!("k{n} {value}")).collect();
        let expected = |bytes: usize, max: usize| {
            format!(
                "-ERR the command writes up to {bytes} bytes of keys and values at once and at most {max} bytes fit into \
                 memory: split it into smaller ones, or raise storage.mutable_region_size_mb\r\n"
            )
        };
        let max = |records: usize| ((32 << 16) - records * 48) / 2;
        let bytes: usize = (0..40).map(|n| format!("k{n}").len() + value.len()).sum();
        assert_eq!(client.run(&format!("MSET {}", pairs.join(" "))), expected(bytes, max(40)));
        client.run("MULTI");
        for pair in &pairs {
            assert_eq!(client.run(&format!("SET {pair}")), "+QUEUED\r\n");
        }
        assert_eq!(client.run("EXEC"), expected(bytes, max(40)));
        assert_eq!(client.run("DBSIZE"), ":0\r\n");
        assert_eq!(client.run(&format!("MSET {}", pairs[..10].join(" "))), "+OK\r\n");
    }
}
