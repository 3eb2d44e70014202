//! MEMORY: what a key takes, what the server takes, and what there is to say of it.

use ferrite_keyspace::{EXPIRY_BYTES, INDEX_ENTRY_BYTES, Pause, key_bytes};
use ferrite_resp::{Reply, parse_i64};

use super::info::{InfoSnapshot, counted};
use super::memory_doctor;
use crate::call::Call;
use crate::help;
use crate::spec::{Arg, CommandSpec, Group, Handler, KeySpec, flag, keyflag};

pub static SPECS: &[CommandSpec] = &[CommandSpec::container("memory", SUBCOMMANDS)
    .group(Group::Server)
    .since("4.0.0")
    .complexity("Depends on subcommand.")
    .summary("Holds the commands about memory.")];

const fn sub(name: &'static str, handler: Handler) -> CommandSpec {
    CommandSpec::new(name, 2, handler).group(Group::Server).since("4.0.0")
}

/// Each server answers for itself.
const OF_ONE_SERVER: &[&str] = &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"];

static SUBCOMMANDS: &[CommandSpec] = &[
    CommandSpec::new("memory|usage", -3, usage)
        .group(Group::Server)
        .since("4.0.0")
        .complexity("O(N)")
        .summary("Gives the bytes that a key and its value take.")
        .flags(flag::READONLY)
        .keys(&[KeySpec::at(2, keyflag::RO)])
        .args(&[Arg::key("key", 0), Arg::integer("count").token("SAMPLES").optional()]),
    sub("memory|stats", stats)
        .complexity("O(1)")
        .summary("Gives the accounts of the server's memory.")
        .tips(OF_ONE_SERVER),
    sub("memory|doctor", doctor)
        .complexity("O(1)")
        .summary("Tells what is wrong with the server's memory.")
        .tips(OF_ONE_SERVER),
    sub("memory|malloc-stats", malloc_stats).summary("Gives the accounts as a text for people.").tips(OF_ONE_SERVER),
    sub("memory|purge", purge)
        .summary("Gives memory back that is kept for later.")
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    sub("memory|help", show_help)
        .complexity("O(1)")
        .flags(flag::LOADING | flag::STALE)
        .summary("Explains the subcommands."),
];

/// The record in the log, its entry in the index and its place in the timing wheel. SAMPLES is checked only: a record's size is known, not estimated.
fn usage(call: &mut Call<'_>) -> Result<(), Pause> {
    let args = call.args;
    for at in (3..args.len()).step_by(2) {
        if !args.get(at).eq_ignore_ascii_case(b"SAMPLES") || at + 1 == args.len() {
            call.reply.error("ERR syntax error");
            return Ok(());
        }
        match parse_i64(args.get(at + 1)) {
            None => {
                call.reply.error("ERR value is not an integer or out of range");
                return Ok(());
            }
            Some(count) if count < 0 => {
                call.reply.error("ERR syntax error");
                return Ok(());
            }
            Some(_) => {}
        }
    }
    match call.keys.get(args.get(2))? {
        Some(record) => {
            let bytes = key_bytes(record.memory(), record.expire_at_ms);
            call.reply.integer(bytes as i64);
        }
        None => call.reply.null(),
    }
    Ok(())
}

/// A field of MEMORY STATS.
enum Field {
    Integer(u64),
    Double(f64),
    /// Bytes above or below.
    Difference(i64),
    Fields(Vec<(&'static str, Field)>),
}

/// Redis's fields in Redis's order. The allocator is the system's, which tells nothing of itself: what is accounted for
/// stands for what is allocated.
fn stats(call: &mut Call<'_>) -> Result<(), Pause> {
    use Field::{Difference, Double, Fields, Integer};

    let info = counted(call)?;
    let (memory, accounts) = (&info.memory, &info.memory.accounts);
    let (used, rss) = (accounts.total(), memory.rss);
    let keys: u64 = info.keyspace.iter().map(|db| db.keys).sum();
    let net = used.saturating_sub(accounts.startup);
    let ratio = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let mut fields: Vec<(String, Field)> = Vec::new();
    let mut add = |name: &str, field: Field| fields.push((name.to_owned(), field));
    add("peak.allocated", Integer(memory.peak));
    add("total.allocated", Integer(used));
    add("startup.allocated", Integer(accounts.startup));
    add("replication.backlog", Integer(0));
    add("clients.slaves", Integer(0));
    add("clients.normal", Integer(accounts.clients));
    add("cluster.links", Integer(0));
    add("aof.buffer", Integer(accounts.aof_buffer));
    add("lua.caches", Integer(0));
    add("functions.caches", Integer(0));
    for db in &info.keyspace {
        let overhead = vec![
            ("overhead.hashtable.main", Integer(db.keys * INDEX_ENTRY_BYTES as u64)),
            ("overhead.hashtable.expires", Integer(db.expires * EXPIRY_BYTES as u64)),
            ("overhead.hashtable.slot-to-keys", Integer(0)),
        ];
        add(&format!("db.{}", db.db), Fields(overhead));
    }
    add("overhead.total", Integer(accounts.overhead()));
    add("keys.count", Integer(keys));
    add("keys.bytes-per-key", Integer(net.checked_div(keys).unwrap_or(0)));
    add("dataset.bytes", Integer(accounts.pages));
    add("dataset.percentage", Double(100.0 * ratio(accounts.pages, net)));
    add("peak.percentage", Double(100.0 * ratio(used, memory.peak)));
    add("allocator.allocated", Integer(used));
    add("allocator.active", Integer(used));
    add("allocator.resident", Integer(rss));
    add("allocator-fragmentation.ratio", Double(1.0));
    add("allocator-fragmentation.bytes", Integer(0));
    add("allocator-rss.ratio", Double(ratio(rss, used)));
    add("allocator-rss.bytes", Difference(rss as i64 - used as i64));
    add("rss-overhead.ratio", Double(1.0));
    add("rss-overhead.bytes", Integer(0));
    add("fragmentation", Double(ratio(rss, used)));
    add("fragmentation.bytes", Difference(rss as i64 - used as i64));
    call.reply.map(fields.len());
    for (name, field) in fields {
        call.reply.bulk(name.as_bytes());
        write(&mut call.reply, field);
    }
    Ok(())
}

fn write(reply: &mut Reply<'_>, field: Field) {
    match field {
        Field::Integer(value) => reply.integer(i64::try_from(value).unwrap_or(i64::MAX)),
        Field::Difference(value) => reply.integer(value),
        Field::Double(value) => reply.double(value),
        Field::Fields(fields) => {
            reply.map(fields.len());
            for (name, field) in fields {
                reply.bulk(name.as_bytes());
                write(reply, field);
            }
        }
    }
}

fn doctor(call: &mut Call<'_>) -> Result<(), Pause> {
    let report = memory_doctor::report(&call.host.info());
    call.reply.verbatim("txt", report.as_bytes());
    Ok(())
}

fn malloc_stats(call: &mut Call<'_>) -> Result<(), Pause> {
    call.reply.verbatim("txt", account_table(&call.host.info()).as_bytes());
    Ok(())
}

fn account_table(info: &InfoSnapshot) -> String {
    let accounts = &info.memory.accounts;
    let sums = [("total", accounts.total()), ("resident", info.memory.rss)];
    let lines = accounts.each().into_iter().chain(sums).map(|(name, bytes)| format!("{name:<12}{bytes:>16}\n"));
    format!("The allocator is the C library's. Bytes by account:\n{}", lines.collect::<String>())
}

fn purge(call: &mut Call<'_>) -> Result<(), Pause> {
    call.host.purge_memory();
    call.reply.ok();
    Ok(())
}

fn show_help(call: &mut Call<'_>) -> Result<(), Pause> {
    help::write(
        &mut call.reply,
        "memory",
        &[
            "DOCTOR",
            "    Tells what is wrong with the server's memory.",
            "MALLOC-STATS",
            "    Gives the accounts as a text for people.",
            "PURGE",
            "    Gives memory back that is kept for later.",
            "STATS",
            "    Gives the accounts of the server's memory.",
            "USAGE <key> [SAMPLES <count>]",
            "    Gives the bytes that a key and its value take.",
        ],
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    #[test]
    fn a_missing_key_takes_nothing() {
        let mut client = Client::new();
        assert_eq!(client.run("MEMORY USAGE k"), "$-1\r\n");
        assert_eq!(client.run("MEMORY USAGE k SAMPLES 0 SAMPLES 5"), "$-1\r\n");
        client.run("HELLO 3");
        assert_eq!(client.run("MEMORY USAGE k"), "_\r\n");
    }

    #[test]
    fn options_are_checked_before_the_key() {
        let mut client = Client::new();
        for command in ["MEMORY USAGE k SAMPLES", "MEMORY USAGE k x", "MEMORY USAGE k SAMPLES -1"] {
            assert_eq!(client.run(command), "-ERR syntax error\r\n", "{command}");
        }
        assert_eq!(client.run("MEMORY USAGE k SAMPLES x"), "-ERR value is not an integer or out of range\r\n");
    }

    #[test]
    fn a_key_counts_with_its_record_its_entry_and_its_time_of_expiry() {
        let mut client = Client::new();
        client.run("SET key value");
        assert_eq!(client.run("MEMORY USAGE key"), format!(":{}\r\n", 48 + 8));
        client.run("EXPIRE key 100");
        assert_eq!(client.run("MEMORY USAGE key"), format!(":{}\r\n", 48 + 8 + 32));
        client.run("SET other 12");
        client.run("APPEND other 3456789012345");
        client.run("HSET hash field value");
        client.run("HSET hash field2 value2");
        client.run("SELECT 1");
        client.run("SETEX key 100 value");
        client.run("SELECT 0");
        let mut usage = |key: &str| -> u64 {
            let reply = client.run(&format!("MEMORY USAGE {key}"));
            reply[1..].trim_end().parse().expect("a number")
        };
        let sum = usage("key") + usage("other") + usage("hash");
        assert_eq!(client.databases.data_bytes_of(0), sum, "the data is the sum of its keys");
        assert_eq!(client.databases.data_bytes(), sum + 48 + 8 + 32);
        for command in
            ["PERSIST key", "DEL other", "RENAME hash other", "COPY other key REPLACE", "SWAPDB 0 1", "FLUSHDB"]
        {
            client.run(command);
        }
        client.run("SELECT 1");
        let mut usage = |key: &str| -> u64 {
            let reply = client.run(&format!("MEMORY USAGE {key}"));
            reply[1..].trim_end().parse().expect("a number")
        };
        let sum = usage("key") + usage("other");
        assert_eq!(client.databases.data_bytes(), sum);
        client.run("FLUSHALL");
        assert_eq!(client.databases.data_bytes(), 0);
    }

    #[test]
    fn stats_have_a_map_of_each_database_that_holds_keys() {
        let mut client = Client::new();
        {
            let info = client.host.info.get_mut();
            info.memory.accounts.pages = 3000;
            info.memory.accounts.startup = 1000;
            (info.memory.rss, info.memory.peak) = (6000, 8000);
            info.keyspace = vec![crate::server::info::DatabaseInfo { db: 3, keys: 2, expires: 1, avg_ttl_ms: 0 }];
        }
        let reply = client.run("MEMORY STATS");
        let field = |name: &str, value: &str| {
            let line = format!("${}\r\n{name}\r\n{value}\r\n", name.len());
            assert!(reply.contains(&line), "{name}: {reply}");
        };
        assert!(reply.starts_with("*56\r\n"), "{reply}");
        field("total.allocated", ":4000");
        field("keys.bytes-per-key", ":1500");
        field("dataset.percentage", "$3\r\n100");
        field("peak.percentage", "$2\r\n50");
        field("fragmentation", "$3\r\n1.5");
        field("fragmentation.bytes", ":2000");
        field("db.3", "*6\r\n$23\r\noverhead.hashtable.main\r\n:16");
        client.run("HELLO 3");
        let reply = client.run("MEMORY STATS");
        assert!(reply.starts_with("%28\r\n") && reply.contains("fragmentation\r\n,1.5\r\n"), "{reply}");
    }

    #[test]
    fn the_rest_of_memory() {
        let mut client = Client::new();
        assert_eq!(client.run("MEMORY PURGE"), "+OK\r\n");
        assert_eq!(client.host.purges.get(), 1);
        assert!(client.run("MEMORY DOCTOR").contains("too little data"));
        let table = client.run("MEMORY MALLOC-STATS");
        assert!(table.contains("\npages ") && table.contains("\ntotal "), "{table}");
        assert_eq!(client.run("MEMORY PURGE x"), "-ERR wrong number of arguments for 'memory|purge' command\r\n");
    }
}
