//! OBJECT: how a value is kept, as far as Redis's terms fit.

use std::sync::atomic::Ordering::Relaxed;

use ferrite_hybridlog::{frequency, idle_seconds};
use ferrite_keyspace::{Hash, Kind, Pause, RecordView};
use ferrite_resp::parse_i64;

use crate::call::Call;
use crate::help;
use crate::spec::{Arg, CommandSpec, Group, KeySpec, acl, flag, keyflag};

/// Longer strings are `raw`.
const EMBSTR_MAX: usize = 44;
/// Redis shares the objects of the integers below.
const SHARED_INTEGERS: i64 = 10_000;
/// The reference count of a shared object.
const SHARED_REFERENCES: i64 = i32::MAX as i64;

pub static SPECS: &[CommandSpec] = &[CommandSpec::container("object", SUBCOMMANDS)
    .group(Group::Generic)
    .since("2.2.3")
    .complexity("Depends on subcommand.")
    .summary("Holds the commands about how values are kept.")];

static SUBCOMMANDS: &[CommandSpec] = &[
    CommandSpec::new("object|help", 2, show_help)
        .group(Group::Generic)
        .since("6.2.0")
        .complexity("O(1)")
        .summary("Explains the subcommands.")
        .flags(flag::LOADING | flag::STALE)
        .acl(acl::KEYSPACE),
    CommandSpec::new("object|idletime", 3, idletime)
        .group(Group::Generic)
        .since("2.2.3")
        .complexity("O(1)")
        .summary("Gives the seconds since the last access to a key.")
        .flags(flag::READONLY)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::at(2, keyflag::RO)])
        .tips(&["nondeterministic_output"])
        .args(&[Arg::key("key", 0)]),
    CommandSpec::new("object|freq", 3, freq)
        .group(Group::Generic)
        .since("4.0.0")
        .complexity("O(1)")
        .summary("Gives the counter of accesses of a key.")
        .flags(flag::READONLY)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::at(2, keyflag::RO)])
        .tips(&["nondeterministic_output"])
        .args(&[Arg::key("key", 0)]),
    CommandSpec::new("object|encoding", 3, encoding)
        .group(Group::Generic)
        .since("2.2.3")
        .complexity("O(1)")
        .summary("Tells the encoding of a value.")
        .flags(flag::READONLY)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::at(2, keyflag::RO)])
        .tips(&["nondeterministic_output"])
        .args(&[Arg::key("key", 0)]),
    CommandSpec::new("object|refcount", 3, refcount)
        .group(Group::Generic)
        .since("2.2.3")
        .complexity("O(1)")
        .summary("Gives the number of references to a value.")
        .flags(flag::READONLY)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::at(2, keyflag::RO)])
        .tips(&["nondeterministic_output"])
        .args(&[Arg::key("key", 0)]),
];

fn encoding(call: &mut Call<'_>) -> Result<(), Pause> {
    match call.keys.look(call.args.get(2))? {
        Some(record) => call.reply.bulk(encoding_of(&record).as_bytes()),
        None => call.reply.null(),
    }
    Ok(())
}

fn encoding_of(record: &RecordView<'_>) -> &'static str {
    match record.kind {
        Kind::String if parse_i64(record.value).is_some() => "int",
        Kind::String if record.value.len() <= EMBSTR_MAX => "embstr",
        Kind::String => "raw",
        Kind::Hash if Hash::of(record).is_listpack() => "listpack",
        Kind::Hash => "hashtable",
        Kind::List | Kind::Set | Kind::ZSet => "listpack",
        Kind::Stream => "stream",
    }
}

fn refcount(call: &mut Call<'_>) -> Result<(), Pause> {
    match call.keys.look(call.args.get(2))? {
        Some(record) => {
            let shared = record.kind == Kind::String
                && parse_i64(record.value).is_some_and(|value| (0..SHARED_INTEGERS).contains(&value));
            call.reply.integer(if shared { SHARED_REFERENCES } else { 1 });
        }
        None => call.reply.null(),
    }
    Ok(())
}

fn idletime(call: &mut Call<'_>) -> Result<(), Pause> {
    let (now_s, lfu) = (now_s(call), call.keys.databases().limits.policy().is_lfu());
    match call.keys.look(call.args.get(2))?.map(|record| record.access) {
        None => call.reply.null(),
        Some(_) if lfu => call.reply.error(
            "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between \
             policies at runtime LRU and LFU data will take some time to adjust.",
        ),
        Some(access) => call.reply.integer(idle_seconds(access, now_s).into()),
    }
    Ok(())
}

fn freq(call: &mut Call<'_>) -> Result<(), Pause> {
    let (now_s, limits) = (now_s(call), &call.keys.databases().limits);
    let (lfu, decay) = (limits.policy().is_lfu(), limits.lfu_decay_time.load(Relaxed));
    match call.keys.look(call.args.get(2))?.map(|record| record.access) {
        None => call.reply.null(),
        Some(access) if lfu => call.reply.integer(frequency(access, now_s, decay).into()),
        Some(_) => call.reply.error(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching \
             between policies at runtime LRU and LFU data will take some time to adjust.",
        ),
    }
    Ok(())
}

fn now_s(call: &Call<'_>) -> u32 {
    (call.keys.now_ms() / 1000) as u32
}

fn show_help(call: &mut Call<'_>) -> Result<(), Pause> {
    help::write(
        &mut call.reply,
        "object",
        &[
            "ENCODING <key>",
            "    Gives the encoding in which Redis would keep the value.",
            "FREQ <key>",
            "    Gives the logarithmic counter of the key's accesses.",
            "IDLETIME <key>",
            "    Gives the seconds since the key's last access.",
            "REFCOUNT <key>",
            "    Gives the number of references to the value.",
        ],
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    #[test]
    fn encodings_and_references_follow_the_value() {
        let mut client = Client::new();
        client.run(&format!("MSET int 9999 big 10000 embstr {} raw {}", "x".repeat(44), "x".repeat(45)));
        assert_eq!(client.run("OBJECT ENCODING int"), "$3\r\nint\r\n");
        assert_eq!(client.run("OBJECT ENCODING embstr"), "$6\r\nembstr\r\n");
        assert_eq!(client.run("OBJECT ENCODING raw"), "$3\r\nraw\r\n");
        assert_eq!(client.run("OBJECT REFCOUNT int"), ":2147483647\r\n");
        assert_eq!(client.run("OBJECT REFCOUNT big"), ":1\r\n");
        assert_eq!(client.run("OBJECT ENCODING missing"), "$-1\r\n");
    }

    #[test]
    fn idle_time_restarts_with_an_access() {
        let mut client = Client::new();
        client.run("SET k v");
        client.advance_ms(7000);
        assert_eq!(client.run("OBJECT IDLETIME k"), ":7\r\n");
        client.run("TTL k");
        assert_eq!(client.run("OBJECT IDLETIME k"), ":7\r\n");
        client.run("CLIENT NO-TOUCH ON");
        client.run("GET k");
        assert_eq!(client.run("OBJECT IDLETIME k"), ":7\r\n");
        client.run("TOUCH k");
        assert_eq!(client.run("OBJECT IDLETIME k"), ":0\r\n");
        assert!(client.run("OBJECT FREQ k").starts_with("-ERR An LFU maxmemory policy is not selected"));
        assert_eq!(client.run("OBJECT FREQ missing"), "$-1\r\n");
    }

    #[test]
    fn frequencies_are_told_under_an_lfu_policy_alone() {
        let mut client = Client::new();
        client.databases.limits.set_policy(ferrite_keyspace::Policy::AllkeysLfu);
        client.databases.limits.lfu_log_factor.store(0, std::sync::atomic::Ordering::Relaxed);
        client.run("SET k v");
        assert_eq!(client.run("OBJECT FREQ k"), ":5\r\n");
        client.run("GET k");
        client.run("SET k w");
        assert_eq!(client.run("OBJECT FREQ k"), ":7\r\n", "a read and a write count");
        client.advance_ms(180_000);
        assert_eq!(client.run("OBJECT FREQ k"), ":4\r\n");
        assert!(client.run("OBJECT IDLETIME k").starts_with("-ERR An LFU maxmemory policy is selected, idle time"));
        assert_eq!(client.run("OBJECT FREQ missing"), "$-1\r\n");
        client.databases.limits.set_policy(ferrite_keyspace::Policy::VolatileTtl);
        assert!(client.run("OBJECT FREQ k").starts_with("-ERR An LFU maxmemory policy is not selected"));
    }
}
