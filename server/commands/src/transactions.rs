//! Transactions: MULTI, EXEC, DISCARD, WATCH, UNWATCH.
//!
//! EXEC runs with the store to itself. Before its first command it makes sure that none of them can pause once something
//! is written: every key they name is in memory or held, and there is room for all they may write.

use std::collections::BTreeMap;

use ferrite_hybridlog::Address;
use ferrite_keyspace::Pause;
use ferrite_resp::{Args, Reply, parse_i64};
use ferrite_telemetry::Outcome;

use crate::call::{Call, keys_of, refused};
use crate::generic::foreign_key;
use crate::session::{Queue, QueuedCommand};
use crate::spec::{Arg, CommandSpec, Group, KeySpec, acl, flag, keyflag};

pub static SPECS: &[CommandSpec] = &[
    CommandSpec::new("multi", 1, multi)
        .group(Group::Transactions)
        .since("1.2.0")
        .complexity("O(1)")
        .summary("Begins a transaction.")
        .flags(flag::ALLOW_BUSY | flag::FAST | flag::LOADING | flag::NOSCRIPT | flag::STALE | flag::NOT_QUEUED)
        .acl(acl::TRANSACTION),
    CommandSpec::new("exec", 1, exec)
        .group(Group::Transactions)
        .since("1.2.0")
        .summary("Runs the commands of the transaction.")
        .flags(flag::LOADING | flag::NOSCRIPT | flag::SKIP_SLOWLOG | flag::STALE | flag::EXCLUSIVE | flag::NOT_QUEUED)
        .acl(acl::TRANSACTION),
    CommandSpec::new("discard", 1, discard)
        .group(Group::Transactions)
        .since("2.0.0")
        .complexity("O(N)")
        .summary("Ends the transaction without running it.")
        .flags(flag::ALLOW_BUSY | flag::FAST | flag::LOADING | flag::NOSCRIPT | flag::STALE | flag::NOT_QUEUED)
        .acl(acl::TRANSACTION),
    CommandSpec::new("watch", -2, watch)
        .group(Group::Transactions)
        .since("2.2.0")
        .complexity("O(1)")
        .summary("Lets the next transaction fail if one of the keys changes before.")
        .flags(flag::ALLOW_BUSY | flag::FAST | flag::LOADING | flag::NOSCRIPT | flag::STALE | flag::NOT_QUEUED)
        .acl(acl::TRANSACTION)
        .keys(&[KeySpec::all_from(1, keyflag::RO)])
        .args(&[Arg::key("key", 0).multiple()]),
    CommandSpec::new("unwatch", 1, unwatch)
        .group(Group::Transactions)
        .since("2.2.0")
        .complexity("O(1)")
        .summary("Forgets the watched keys.")
        .flags(flag::ALLOW_BUSY | flag::FAST | flag::LOADING | flag::NOSCRIPT | flag::STALE)
        .acl(acl::TRANSACTION),
];

fn multi(call: &mut Call<'_>) -> Result<(), Pause> {
    if call.session.multi.is_some() {
        return Err(Pause::Refused("ERR MULTI calls can not be nested"));
    }
    call.session.multi = Some(Queue::default());
    call.reply.ok();
    Ok(())
}

fn discard(call: &mut Call<'_>) -> Result<(), Pause> {
    if call.session.multi.is_none() {
        return Err(Pause::Refused("ERR DISCARD without MULTI"));
    }
    call.session.discard_transaction();
    call.reply.ok();
    Ok(())
}

fn watch(call: &mut Call<'_>) -> Result<(), Pause> {
    if call.session.multi.is_some() {
        return Err(Pause::Refused("ERR WATCH inside MULTI is not allowed"));
    }
    // EXEC will fail already: nothing more to learn.
    if !call.session.watched.is_marked() {
        // All are found before the first is watched: a WATCH that is refused, since one cannot be read, leaves nothing behind.
        if call.args.iter().skip(1).any(|key| call.keys.value_len(key).is_err()) {
            return Err(Pause::Keys);
        }
        for key in call.args.iter().skip(1) {
            call.keys.watch(key, &mut call.session.watched)?;
        }
    }
    call.reply.ok();
    Ok(())
}

fn unwatch(call: &mut Call<'_>) -> Result<(), Pause> {
    call.session.watched.clear();
    call.reply.ok();
    Ok(())
}

fn exec(call: &mut Call<'_>) -> Result<(), Pause> {
    let queue = call.session.multi.take().ok_or(Pause::Refused("ERR EXEC without MULTI"))?;
    let db = call.session.db;
    let start = call.reply.out.len();
    let result = run(call, &queue).or_else(|pause| {
        call.reply.out.truncate(start);
        refused(pause, &mut call.reply)
    });
    match result {
        Ok(()) => {
            call.session.watched.clear();
            call.session.gate = None;
        }
        Err(_) => {
            // A queued SELECT may have run.
            call.session.db = db;
            call.session.multi = Some(queue);
        }
    }
    result
}

fn run(call: &mut Call<'_>, queue: &Queue) -> Result<(), Pause> {
    if queue.dirty {
        return Err(Pause::Refused("EXECABORT Transaction discarded because of previous errors."));
    }
    if call.session.watched.has_changed(call.keys.now_ms()) {
        call.reply.null_array();
        return Ok(());
    }
    let plan = plan(call, queue)?;
    if plan.records > 0 {
        call.keys.reserve(plan.bytes, plan.records)?;
    }
    call.reply.array(queue.commands.len());
    for command in &queue.commands {
        run_one(call, command)?;
    }
    Ok(())
}

/// Runs one queued command as a child span of EXEC's.
fn run_one(call: &mut Call<'_>, command: &QueuedCommand) -> Result<(), Pause> {
    let (spec, args) = (command.spec, command.args());
    let slot = call.keys.trace().begin_child(command.context.as_ref());
    if call.keys.trace().is_on() {
        call.keys.trace().describe(
            spec.trace_name(),
            spec.words(),
            args.len(),
            keys_of(spec, args).map(|at| args.get(at)),
        );
    }
    let start = call.reply.out.len();
    let protocol = call.session.protocol;
    let mut keys = call.keys.lend();
    keys.select(call.session.db);
    keys.no_touch = call.session.no_touch;
    let reply = Reply::new(call.reply.out, protocol);
    let (host, proto_max_bulk_len) = (call.host, call.proto_max_bulk_len);
    let session = &mut *call.session;
    let mut child = Call { spec, args, keys, session, reply, host, proto_max_bulk_len, in_transaction: true };
    let result = (spec.handler)(&mut child).or_else(|pause| {
        child.reply.out.truncate(start);
        refused(pause, &mut child.reply)
    });
    let reply = &call.reply.out[start..];
    let (outcome, error) = match reply {
        [b'-', text @ ..] => (Outcome::Err, call.session.recorded_error(text.strip_suffix(b"\r\n").unwrap_or(text))),
        b"$-1\r\n" | b"*-1\r\n" | b"_\r\n" => (Outcome::Nil, &b""[..]),
        _ => (Outcome::Ok, &b""[..]),
    };
    call.keys.trace().finish_child(slot, outcome, error);
    result
}

/// An upper bound of what a transaction writes.
#[derive(Default)]
struct Plan {
    bytes: usize,
    records: usize,
}

/// What a command makes of the lengths of its keys' values.
enum Effect {
    /// All its values come from its arguments.
    Replaces,
    Removes,
    /// Its values are those of its keys, grown.
    Grows,
}

fn effect(spec: &CommandSpec) -> Effect {
    match spec.name {
        "set" | "setnx" | "setex" | "psetex" | "getset" | "mset" | "msetnx" | "incr" | "decr" | "incrby" | "decrby"
        | "incrbyfloat" => Effect::Replaces,
        "del" | "unlink" | "getdel" => Effect::Removes,
        _ => Effect::Grows,
    }
}

fn counts_keys(spec: &CommandSpec) -> bool {
    matches!(spec.name, "dbsize" | "info" | "memory|stats")
}

/// Within a transaction nothing can be waited for. So it waits before, and until it is over nobody writes what would have to
/// be waited for.
fn settle_counts(call: &mut Call<'_>) -> Result<(), Pause> {
    let databases = call.keys.databases();
    call.session.counted = None;
    if databases.unseen.is_empty() {
        return Ok(());
    }
    if call.session.gate.is_none() {
        call.session.gate = Some(databases.unseen.close());
    }
    Err(Pause::Counts { ticket: databases.unseen.ticket(databases, None), patience: None })
}

/// Looks at all keys of all commands, as the databases will be when each runs.
///
/// # Errors
/// The records on disk; or a large value that cannot be changed before it is written.
fn plan(call: &mut Call<'_>, queue: &Queue) -> Result<Plan, Pause> {
    let databases = call.keys.databases().count();
    // `shown[db]`: which of today's databases the number stands for after the SWAPDBs so far.
    let mut shown: Vec<u32> = (0..databases).collect();
    let mut db = call.session.db;
    let mut cold: Vec<Address> = Vec::new();
    let mut lengths: BTreeMap<(u32, &[u8]), usize> = BTreeMap::new();
    let mut plan = Plan::default();
    if queue.commands.iter().any(|command| counts_keys(command.spec)) {
        settle_counts(call)?;
    }
    for command in &queue.commands {
        let (spec, args) = (command.spec, command.args());
        match spec.name {
            "select" => db = number(args, 1).filter(|&to| to < databases).unwrap_or(db),
            "swapdb" => {
                if let (Some(a), Some(b)) = (number(args, 1), number(args, 2))
                    && a.max(b) < databases
                {
                    shown.swap(a as usize, b as usize);
                }
            }
            "keys" | "scan" => {
                call.keys.select(shown[db as usize]);
                cold.extend(cold_of_scan(call, spec, args)?);
            }
            _ => {}
        }
        let own = keys_of(spec, args).map(|at| (db, args.get(at)));
        let foreign = foreign_key(spec.name, args).filter(|(to, _)| *to < databases);
        let keys: Vec<(u32, &[u8])> = own.chain(foreign).map(|(db, key)| (shown[db as usize], key)).collect();
        let mut longest = 0;
        for &(db, key) in &keys {
            let len = match lengths.get(&(db, key)) {
                Some(&len) => len,
                None => {
                    call.keys.select(db);
                    call.keys.value_len(key).unwrap_or_else(|address| {
                        cold.push(address);
                        0
                    })
                }
            };
            lengths.insert((db, key), len);
            longest = longest.max(len);
        }
        if !spec.has(flag::WRITE) {
            continue;
        }
        if matches!(effect(spec), Effect::Grows) {
            for &(db, key) in &keys {
                call.keys.select(db);
                call.keys.is_changeable(key)?;
            }
        }
        let growth = match (spec.growth)(&args) {
            // SETRANGE beyond the longest string: it will be refused.
            beyond if matches!(effect(spec), Effect::Grows) && beyond > call.proto_max_bulk_len => 0,
            growth => growth,
        };
        let names: usize = keys.iter().map(|(_, key)| key.len()).sum();
        let (len, values) = match effect(spec) {
            Effect::Replaces => (growth, growth),
            Effect::Removes => (0, 0),
            Effect::Grows => {
                let len = longest.saturating_add(growth).min(call.keys.value_max());
                (len, len.saturating_mul(keys.len()))
            }
        };
        // FLUSHALL and its like write no record, but an effect.
        plan.records += keys.len().max(1);
        plan.bytes = plan.bytes.saturating_add(names).saturating_add(values);
        for key in keys {
            lengths.insert(key, len);
        }
    }
    call.keys.select(call.session.db);
    if cold.is_empty() { Ok(plan) } else { Err(Pause::Records(cold)) }
}

fn number(args: Args<'_>, at: usize) -> Option<u32> {
    u32::try_from(parse_i64(args.get(at))?).ok()
}

/// Runs a scan for what it finds on disk; its reply is thrown away.
fn cold_of_scan(call: &mut Call<'_>, spec: &'static CommandSpec, args: Args<'_>) -> Result<Vec<Address>, Pause> {
    let mut out = Vec::new();
    let reply = Reply::new(&mut out, call.session.protocol);
    let (host, proto_max_bulk_len) = (call.host, call.proto_max_bulk_len);
    let keys = call.keys.lend();
    let session = &mut *call.session;
    let mut trial = Call { spec, args, keys, session, reply, host, proto_max_bulk_len, in_transaction: true };
    match (spec.handler)(&mut trial) {
        Err(Pause::Records(addresses) | Pause::Headers(addresses)) => Ok(addresses),
        // An error of its arguments comes again when it runs.
        Ok(()) | Err(Pause::Refused(_)) => Ok(Vec::new()),
        Err(pause) => Err(pause),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    #[test]
    fn exec_replies_what_each_command_replied() {
        let mut client = Client::new();
        assert_eq!(client.run("MULTI"), "+OK\r\n");
        assert_eq!(client.run("SET a 1"), "+QUEUED\r\n");
        assert_eq!(client.run("INCR a"), "+QUEUED\r\n");
        assert_eq!(client.run("SELECT 1"), "+QUEUED\r\n");
        assert_eq!(client.run("GET a"), "+QUEUED\r\n");
        assert_eq!(client.run("APPEND a xyz"), "+QUEUED\r\n");
        assert_eq!(client.run("INCR a"), "+QUEUED\r\n");
        assert_eq!(client.run("COPY a b"), "+QUEUED\r\n");
        assert_eq!(
            client.run("EXEC"),
            "*7\r\n+OK\r\n:2\r\n+OK\r\n$-1\r\n:3\r\n-ERR value is not an integer or out of range\r\n:1\r\n"
        );
        assert_eq!(client.run("MGET a b"), "*2\r\n$3\r\nxyz\r\n$3\r\nxyz\r\n");
        assert_eq!(client.run("EXEC"), "-ERR EXEC without MULTI\r\n");
    }

    #[test]
    fn order_of_the_commands_around_a_transaction() {
        let mut client = Client::new();
        assert_eq!(client.run("DISCARD"), "-ERR DISCARD without MULTI\r\n");
        client.run("MULTI");
        assert_eq!(client.run("MULTI"), "-ERR MULTI calls can not be nested\r\n");
        assert_eq!(client.run("WATCH a"), "-ERR WATCH inside MULTI is not allowed\r\n");
        assert_eq!(client.run("EXEC"), "*0\r\n");
        client.run("MULTI");
        client.run("SET a 1");
        assert_eq!(client.run("DISCARD"), "+OK\r\n");
        assert_eq!(client.run("EXISTS a"), ":0\r\n");
    }

    #[test]
    fn a_refused_command_spoils_the_transaction() {
        let mut client = Client::new();
        client.run("MULTI");
        client.run("SET a 1");
        assert!(client.run("NOSUCH").starts_with("-ERR unknown command"));
        assert_eq!(client.run("EXEC"), "-EXECABORT Transaction discarded because of previous errors.\r\n");
        assert_eq!(client.run("EXISTS a"), ":0\r\n");
        assert_eq!(client.run("EXEC"), "-ERR EXEC without MULTI\r\n");
    }

    #[test]
    fn a_changed_watched_key_fails_the_transaction() {
        for change in
            ["SET a 2", "DEL a", "EXPIRE a 100", "FLUSHDB", "FLUSHALL", "SWAPDB 0 1", "RENAME a b", "APPEND a x"]
        {
            let mut client = Client::new();
            client.run("SET a 1");
            client.run("WATCH a b");
            client.run(change);
            client.run("MULTI");
            client.run("SET c 1");
            assert_eq!(client.run("EXEC"), "*-1\r\n", "{change}");
            assert_eq!(client.run("EXISTS c"), ":0\r\n", "{change}");
            client.run("MULTI");
            assert_eq!(client.run("EXEC"), "*0\r\n", "EXEC ends the watches");
        }
    }

    #[test]
    fn what_changes_no_watched_key_does_not() {
        for other in
            ["SET z 2", "GET a", "DEL missing", "SETNX a 5", "TOUCH a", "FLUSHDB", "PERSIST missing", "UNWATCH"]
        {
            let mut client = Client::new();
            client.run("SET a 1");
            client.run(if other == "FLUSHDB" { "WATCH missing" } else { "WATCH a missing" });
            client.run(other);
            client.run("MULTI");
            assert_eq!(client.run("EXEC"), "*0\r\n", "{other}");
        }
        let mut client = Client::new();
        client.run("SET a 1");
        client.run("WATCH a");
        client.run("SET a 2");
        client.run("UNWATCH");
        client.run("MULTI");
        assert_eq!(client.run("EXEC"), "*0\r\n");
    }

    #[test]
    fn a_watched_key_that_expires_fails_the_transaction() {
        let mut client = Client::new();
        client.run("PSETEX a 100 v");
        client.run("WATCH a");
        client.advance_ms(101);
        client.run("MULTI");
        assert_eq!(client.run("EXEC"), "*-1\r\n");
        client.run("SET b v PXAT 1");
        client.run("WATCH b");
        assert_eq!(client.run("GET b"), "$-1\r\n");
        client.run("MULTI");
        assert_eq!(client.run("EXEC"), "*0\r\n", "it had expired before WATCH");
    }

    #[test]
    fn scans_and_whole_databases_inside() {
        let mut client = Client::new();
        client.run("SET a 1");
        client.run("MULTI");
        for command in
            ["KEYS *", "SWAPDB 0 1", "DBSIZE", "SET b 1", "RANDOMKEY", "FLUSHALL", "DBSIZE", "SCAN 0 COUNT 100000"]
        {
            assert_eq!(client.run(command), "+QUEUED\r\n");
        }
        assert_eq!(
            client.run("EXEC"),
            "*8\r\n*1\r\n$1\r\na\r\n+OK\r\n:0\r\n+OK\r\n$1\r\nb\r\n+OK\r\n:0\r\n*2\r\n$1\r\n0\r\n*0\r\n"
        );
    }

    #[test]
    fn resp3_has_a_null_of_its_own() {
        let mut client = Client::new();
        client.run("HELLO 3");
        client.run("WATCH a");
        client.run("SET a 1");
        client.run("MULTI");
        assert_eq!(client.run("EXEC"), "_\r\n");
    }
}
