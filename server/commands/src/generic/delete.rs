//! Keys as such: DEL, UNLINK, EXISTS, TOUCH, TYPE.

use ferrite_keyspace::{Kind, Pause};

use crate::call::Call;
use crate::spec::{Arg, CommandSpec, Group, KeySpec, acl, flag, keyflag};

pub static SPECS: &[CommandSpec] = &[
    CommandSpec::new("del", -2, del)
        .group(Group::Generic)
        .since("1.0.0")
        .complexity("O(N)")
        .summary("Deletes keys.")
        .flags(flag::WRITE)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::all_from(1, keyflag::RM | keyflag::DELETE)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .args(&[Arg::key("key", 0).multiple()])
        .reads_parts(),
    CommandSpec::new("unlink", -2, del)
        .group(Group::Generic)
        .since("4.0.0")
        .complexity("O(1)")
        .summary("Deletes keys and gives their memory back later.")
        .flags(flag::FAST | flag::WRITE)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::all_from(1, keyflag::RM | keyflag::DELETE)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .args(&[Arg::key("key", 0).multiple()])
        .reads_parts(),
    CommandSpec::new("exists", -2, exists)
        .group(Group::Generic)
        .since("1.0.0")
        .complexity("O(N)")
        .summary("Counts which of the keys exist.")
        .flags(flag::FAST | flag::READONLY)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::all_from(1, keyflag::RO)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .args(&[Arg::key("key", 0).multiple()])
        .reads_parts(),
    CommandSpec::new("touch", -2, touch)
        .group(Group::Generic)
        .since("3.2.1")
        .complexity("O(N)")
        .summary("Marks keys as used just now and counts those that exist.")
        .flags(flag::FAST | flag::READONLY)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::all_from(1, keyflag::RO)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .args(&[Arg::key("key", 0).multiple()]),
    CommandSpec::new("type", 2, type_of)
        .group(Group::Generic)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Tells the type of the value of a key.")
        .flags(flag::FAST | flag::READONLY)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::at(1, keyflag::RO)])
        .args(&[Arg::key("key", 0)])
        .reads_parts(),
];

/// Also UNLINK: space is given back in the background anyway.
fn del(call: &mut Call<'_>) -> Result<(), Pause> {
    let args = call.args;
    let mut deleted = 0;
    if args.len() == 2 {
        deleted = i64::from(call.keys.delete(args.get(1))?);
    } else {
        let mut bytes = 0;
        for key in args.iter().skip(1) {
            // On disk it would pause a deletion that may come after another one.
            call.keys.is_there(key)?;
            bytes += key.len();
        }
        call.keys.reserve(bytes, args.len() - 1)?;
        for key in args.iter().skip(1) {
            deleted += i64::from(call.keys.delete(key)?);
        }
    }
    call.reply.integer(deleted);
    Ok(())
}

fn exists(call: &mut Call<'_>) -> Result<(), Pause> {
    let mut found = 0;
    for key in call.args.iter().skip(1) {
        found += i64::from(call.keys.glance(key)?.is_some());
    }
    call.reply.integer(found);
    Ok(())
}

/// As EXISTS, and an access, whatever CLIENT NO-TOUCH says.
fn touch(call: &mut Call<'_>) -> Result<(), Pause> {
    call.keys.no_touch = false;
    let mut found = 0;
    for key in call.args.iter().skip(1) {
        found += i64::from(call.keys.read(key)?.is_some());
    }
    call.reply.integer(found);
    Ok(())
}

fn type_of(call: &mut Call<'_>) -> Result<(), Pause> {
    let kind = call.keys.glance(call.args.get(1))?.map(|record| record.kind);
    call.reply.simple(kind.map_or("none", type_name));
    Ok(())
}

/// What TYPE replies and SCAN's option TYPE takes.
pub(super) fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::String => "string",
        Kind::List => "list",
        Kind::Set => "set",
        Kind::ZSet => "zset",
        Kind::Hash => "hash",
        Kind::Stream => "stream",
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    #[test]
    fn counts_what_was_there() {
        let mut client = Client::new();
        client.run("MSET a 1 b 2 c 3");
        assert_eq!(client.run("EXISTS a b missing a"), ":3\r\n");
        assert_eq!(client.run("TOUCH a missing"), ":1\r\n");
        assert_eq!(client.run("DEL a missing b a"), ":2\r\n");
        assert_eq!(client.run("UNLINK c"), ":1\r\n");
        assert_eq!(client.run("DEL c"), ":0\r\n");
        assert_eq!(client.run("DBSIZE"), ":0\r\n");
    }

    #[test]
    fn the_type_of_a_missing_key_is_none() {
        let mut client = Client::new();
        client.run("SET k v");
        assert_eq!(client.run("TYPE k"), "+string\r\n");
        assert_eq!(client.run("TYPE missing"), "+none\r\n");
    }

    #[test]
    fn an_expired_key_is_not_there_and_leaves_no_count() {
        let mut client = Client::new();
        client.run("PSETEX a 100 v");
        client.run("PSETEX b 100 v");
        client.advance_ms(101);
        assert_eq!(client.run("DBSIZE"), ":2\r\n");
        assert_eq!(client.run("DEL a"), ":0\r\n");
        assert_eq!(client.run("EXISTS b"), ":0\r\n");
        assert_eq!(client.run("DBSIZE"), ":0\r\n");
    }
}
