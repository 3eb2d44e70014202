//! Single fields: HSET, HSETNX, HMSET, HGET, HMGET, HDEL, HEXISTS, HSTRLEN.

use ferrite_keyspace::{Hash, Pause};

use super::{growth, old_value};
use crate::admit::wrong_arity;
use crate::call::Call;
use crate::spec::{Arg, CommandSpec, Group, KeySpec, acl, flag, keyflag};

pub static SPECS: &[CommandSpec] = &[
    CommandSpec::new("hset", -4, hset)
        .group(Group::Hash)
        .since("2.0.0")
        .complexity("O(1)")
        .summary("Sets fields of a hash and counts the new ones.")
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .acl(acl::HASH)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::UPDATE)])
        .args(&[Arg::key("key", 0), Arg::block("data", &[Arg::string("field"), Arg::string("value")]).multiple()])
        .growth(growth),
    CommandSpec::new("hmset", -4, hmset)
        .group(Group::Hash)
        .since("2.0.0")
        .complexity("O(N)")
        .summary("Sets fields of a hash.")
        .deprecated("4.0.0", "`HSET` with multiple field-value pairs")
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .acl(acl::HASH)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::UPDATE)])
        .args(&[Arg::key("key", 0), Arg::block("data", &[Arg::string("field"), Arg::string("value")]).multiple()])
        .growth(growth),
    CommandSpec::new("hsetnx", 4, hsetnx)
        .group(Group::Hash)
        .since("2.0.0")
        .complexity("O(1)")
        .summary("Sets a field of a hash unless it exists.")
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .acl(acl::HASH)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::INSERT)])
        .args(&[Arg::key("key", 0), Arg::string("field"), Arg::string("value")])
        .growth(growth),
    CommandSpec::new("hget", 3, hget)
        .group(Group::Hash)
        .since("2.0.0")
        .complexity("O(1)")
        .summary("Gives the value of a field.")
        .flags(flag::FAST | flag::READONLY)
        .acl(acl::HASH)
        .keys(&[KeySpec::at(1, keyflag::RO | keyflag::ACCESS)])
        .args(&[Arg::key("key", 0), Arg::string("field")]),
    CommandSpec::new("hmget", -3, hmget)
        .group(Group::Hash)
        .since("2.0.0")
        .complexity("O(N)")
        .summary("Gives the values of several fields.")
        .flags(flag::FAST | flag::READONLY)
        .acl(acl::HASH)
        .keys(&[KeySpec::at(1, keyflag::RO | keyflag::ACCESS)])
        .args(&[Arg::key("key", 0), Arg::string("field").multiple()]),
    CommandSpec::new("hdel", -3, hdel)
        .group(Group::Hash)
        .since("2.0.0")
        .complexity("O(N)")
        .summary("Deletes fields, and the key with the last one.")
        .flags(flag::FAST | flag::WRITE)
        .acl(acl::HASH)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::DELETE)])
        .args(&[Arg::key("key", 0), Arg::string("field").multiple()])
        .growth(growth),
    CommandSpec::new("hexists", 3, hexists)
        .group(Group::Hash)
        .since("2.0.0")
        .complexity("O(1)")
        .summary("Tells whether a hash has a field.")
        .flags(flag::FAST | flag::READONLY)
        .acl(acl::HASH)
        .keys(&[KeySpec::at(1, keyflag::RO)])
        .args(&[Arg::key("key", 0), Arg::string("field")]),
    CommandSpec::new("hstrlen", 3, hstrlen)
        .group(Group::Hash)
        .since("3.2.0")
        .complexity("O(1)")
        .summary("Gives the length of a field's value.")
        .flags(flag::FAST | flag::READONLY)
        .acl(acl::HASH)
        .keys(&[KeySpec::at(1, keyflag::RO)])
        .args(&[Arg::key("key", 0), Arg::string("field")]),
];

fn hset(call: &mut Call<'_>) -> Result<(), Pause> {
    if let Some(added) = set_all(call)? {
        call.reply.integer(added as i64);
    }
    Ok(())
}

fn hmset(call: &mut Call<'_>) -> Result<(), Pause> {
    if set_all(call)?.is_some() {
        call.reply.ok();
    }
    Ok(())
}

/// How many fields are new. `None`: the error is replied.
fn set_all(call: &mut Call<'_>) -> Result<Option<usize>, Pause> {
    let args = call.args;
    if !args.len().is_multiple_of(2) {
        call.reply.error(wrong_arity(call.spec));
        return Ok(None);
    }
    let pairs = (2..args.len()).step_by(2).map(|at| (args.get(at), args.get(at + 1)));
    call.keys.set_fields(args.get(1), pairs).map(Some)
}

fn hsetnx(call: &mut Call<'_>) -> Result<(), Pause> {
    let missing = old_value(call)?.is_none();
    if missing {
        let pair = (call.args.get(2), call.args.get(3));
        call.keys.set_fields(call.args.get(1), std::iter::once(pair))?;
    }
    call.reply.integer(i64::from(missing));
    Ok(())
}

fn hget(call: &mut Call<'_>) -> Result<(), Pause> {
    let hash = call.keys.read_hash(call.args.get(1))?;
    match value_in(hash, call.args.get(2)) {
        Some(value) => call.reply.bulk(value),
        None => call.reply.null(),
    }
    Ok(())
}

fn hmget(call: &mut Call<'_>) -> Result<(), Pause> {
    let args = call.args;
    let hash = call.keys.read_hash(args.get(1))?;
    call.reply.array(args.len() - 2);
    for field in args.iter().skip(2) {
        match value_in(hash, field) {
            Some(value) => call.reply.bulk(value),
            None => call.reply.null(),
        }
    }
    Ok(())
}

fn hdel(call: &mut Call<'_>) -> Result<(), Pause> {
    let deleted = call.keys.delete_fields(call.args.get(1), call.args.iter().skip(2))?;
    call.reply.integer(deleted as i64);
    Ok(())
}

fn hexists(call: &mut Call<'_>) -> Result<(), Pause> {
    let hash = call.keys.read_hash(call.args.get(1))?;
    call.reply.integer(i64::from(value_in(hash, call.args.get(2)).is_some()));
    Ok(())
}

fn hstrlen(call: &mut Call<'_>) -> Result<(), Pause> {
    let hash = call.keys.read_hash(call.args.get(1))?;
    call.reply.integer(value_in(hash, call.args.get(2)).map_or(0, <[u8]>::len) as i64);
    Ok(())
}

fn value_in<'k>(hash: Option<Hash<'k>>, field: &[u8]) -> Option<&'k [u8]> {
    hash.and_then(|hash| hash.get(field))
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";

    #[test]
    fn fields_are_set_counted_and_read() {
        let mut client = Client::new();
        assert_eq!(client.run("HSET h a 1 b 2 a 3"), ":2\r\n");
        assert_eq!(client.run("HSET h a 1 c 4"), ":1\r\n");
        assert_eq!(client.run("HMSET h d 5"), "+OK\r\n");
        assert_eq!(client.run("HMGET h a b c d e"), "*5\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n4\r\n$1\r\n5\r\n$-1\r\n");
        assert_eq!(client.run("HGET h b"), "$1\r\n2\r\n");
        assert_eq!(client.run("HGET h x"), "$-1\r\n");
        assert_eq!(client.run("HMGET missing a b"), "*2\r\n$-1\r\n$-1\r\n");
        assert_eq!((client.run("HEXISTS h a"), client.run("HEXISTS h x")), (":1\r\n".into(), ":0\r\n".into()));
        client.run("HSET h long 12345");
        assert_eq!((client.run("HSTRLEN h long"), client.run("HSTRLEN no x")), (":5\r\n".into(), ":0\r\n".into()));
        assert_eq!(client.run("DBSIZE"), ":1\r\n");
        client.run("HELLO 3");
        assert_eq!(client.run("HMGET h a x"), "*2\r\n$1\r\n1\r\n_\r\n");
    }

    #[test]
    fn a_field_without_a_value_is_a_wrong_arity() {
        let mut client = Client::new();
        assert_eq!(client.run("HSET h a 1 b"), "-ERR wrong number of arguments for 'hset' command\r\n");
        assert_eq!(client.run("HMSET h a 1 b"), "-ERR wrong number of arguments for 'hmset' command\r\n");
        assert_eq!(client.run("HSET h a"), "-ERR wrong number of arguments for 'hset' command\r\n");
        assert_eq!(client.run("EXISTS h"), ":0\r\n");
    }

    #[test]
    fn hsetnx_leaves_what_is_there() {
        let mut client = Client::new();
        assert_eq!(client.run("HSETNX h a 1"), ":1\r\n");
        assert_eq!(client.run("HSETNX h a 2"), ":0\r\n");
        assert_eq!(client.run("HSETNX h b 2"), ":1\r\n");
        assert_eq!(client.run("HMGET h a b"), "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
    }

    #[test]
    fn the_last_field_takes_the_key_along() {
        let mut client = Client::new();
        client.run("HSET h a 1 b 2 c 3");
        assert_eq!(client.run("HDEL h b x b"), ":1\r\n");
        assert_eq!(client.run("HDEL h a c"), ":2\r\n");
        assert_eq!(client.run("EXISTS h"), ":0\r\n");
        assert_eq!(client.run("HDEL h a"), ":0\r\n");
        assert_eq!((client.run("DBSIZE"), client.run("TYPE h")), (":0\r\n".into(), "+none\r\n".into()));
    }

    #[test]
    fn a_hash_keeps_its_expiry_and_an_expired_one_is_none() {
        let mut client = Client::new();
        client.run("HSET h a 1");
        client.run("EXPIRE h 100");
        client.run("HSET h a 2 b 3");
        client.run("HDEL h b");
        assert_eq!(client.run("TTL h"), ":100\r\n");
        client.advance_ms(100_001);
        assert_eq!(client.run("HSET h c 4"), ":1\r\n");
        assert_eq!(client.run("HGETALL h"), "*2\r\n$1\r\nc\r\n$1\r\n4\r\n");
        assert_eq!((client.run("TTL h"), client.run("DBSIZE")), (":-1\r\n".into(), ":1\r\n".into()));
    }

    #[test]
    fn types_do_not_mix() {
        let mut client = Client::new();
        client.run("SET s v");
        for command in [
            "HSET s a 1",
            "HMSET s a 1",
            "HSETNX s a 1",
            "HGET s a",
            "HMGET s a",
            "HDEL s a",
            "HEXISTS s a",
            "HSTRLEN s a",
            "HGETALL s",
            "HKEYS s",
            "HVALS s",
            "HLEN s",
            "HINCRBY s a 1",
            "HINCRBYFLOAT s a 1",
            "HRANDFIELD s",
            "HRANDFIELD s 2",
            "HSCAN s 0",
        ] {
            assert_eq!(client.run(command), WRONG_TYPE, "{command}");
        }
        client.run("HSET h a 1");
        for command in ["GET h", "APPEND h x", "INCR h", "GETRANGE h 0 1", "STRLEN h", "SET h v GET", "GETDEL h"] {
            assert_eq!(client.run(command), WRONG_TYPE, "{command}");
        }
        assert_eq!(client.run("MGET h s"), "*2\r\n$-1\r\n$1\r\nv\r\n");
        assert_eq!(client.run("SET h v"), "+OK\r\n");
        assert_eq!(client.run("TYPE h"), "+string\r\n");
    }

    #[test]
    fn what_works_on_any_key_works_on_hashes() {
        let mut client = Client::new();
        client.run("HSET h a 1 b 2");
        assert_eq!(client.run("TYPE h"), "+hash\r\n");
        assert_eq!(client.run("OBJECT ENCODING h"), "$8\r\nlistpack\r\n");
        assert_eq!(client.run("OBJECT REFCOUNT h"), ":1\r\n");
        client.run("EXPIRE h 100");
        assert_eq!(client.run("COPY h copy"), ":1\r\n");
        assert_eq!(client.run("RENAME h other"), "+OK\r\n");
        assert_eq!(client.run("TTL copy"), ":100\r\n");
        client.run("HSET other a 9");
        assert_eq!(client.run("HGETALL copy"), "*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n2\r\n");
        assert_eq!(client.run("MOVE other 1"), ":1\r\n");
        assert!(client.run("SCAN 0 COUNT 1000 TYPE hash").ends_with("*1\r\n$4\r\ncopy\r\n"));
        assert!(client.run("SCAN 0 COUNT 1000 TYPE string").ends_with("*0\r\n"));
        let before = client.run("MEMORY USAGE copy");
        client.run(&format!("HSET copy c {}", "x".repeat(500)));
        assert_ne!(client.run("MEMORY USAGE copy"), before);
        assert_eq!(client.run("UNLINK copy"), ":1\r\n");
        client.run("SELECT 1");
        assert_eq!(client.run("HGET other a"), "$1\r\n9\r\n");
    }

    #[test]
    fn the_encoding_is_that_which_redis_would_use() {
        let mut client = Client::new();
        let (limit, beyond) = ("x".repeat(64), "x".repeat(65));
        client.run(&format!("HSET h {limit} {limit}"));
        assert_eq!(client.run("OBJECT ENCODING h"), "$8\r\nlistpack\r\n");
        client.run(&format!("HSET h a {beyond}"));
        client.run("HDEL h a");
        assert_eq!(client.run("OBJECT ENCODING h"), "$9\r\nhashtable\r\n", "it never goes back");
        client.run("COPY h copy");
        assert_eq!(client.run("OBJECT ENCODING copy"), "$9\r\nhashtable\r\n");
        client.run(&format!("HSET field {beyond} 1"));
        assert_eq!(client.run("OBJECT ENCODING field"), "$9\r\nhashtable\r\n");
        for n in 0..512 {
            client.run(&format!("HSET many f{n} 1"));
        }
        assert_eq!(client.run("OBJECT ENCODING many"), "$8\r\nlistpack\r\n");
        client.run("HSET many f512 1");
        assert_eq!(client.run("OBJECT ENCODING many"), "$9\r\nhashtable\r\n");
    }

    #[test]
    fn a_watched_hash_that_changes_fails_the_transaction() {
        let mut client = Client::new();
        client.run("HSET h a 1");
        for (change, fails) in [("HDEL h x", false), ("HSETNX h a 2", false), ("HSET h a 1", true), ("HDEL h a", true)]
        {
            client.run("WATCH h");
            client.run(change);
            client.run("MULTI");
            client.run("PING");
            assert_eq!(client.run("EXEC") == "*-1\r\n", fails, "{change}");
        }
    }

    #[test]
    fn a_transaction_reserves_what_hashes_need() {
        let mut client = Client::new();
        client.run("MULTI");
        for n in 0..50 {
            client.run(&format!("HSET h f{n} {}", "x".repeat(200)));
            client.run(&format!("HINCRBY h n{n} 5"));
        }
        client.run("HDEL h f1 f2");
        client.run("HLEN h");
        assert!(client.run("EXEC").ends_with(":2\r\n:98\r\n"));
    }

    #[test]
    fn spans_show_one_look_up_and_one_write() {
        let mut client = Client::new();
        let mut spans = |command: &str| {
            client.run(command);
            client.recorded.join(" ").replace("ferrite.", "")
        };
        let read = "storage.read[mutable]";
        let write = "storage.write[mutable] epoch.advance";
        assert_eq!(spans("HSET h a 1"), format!("index.lookup {write}"));
        for command in ["HSET h a 2 b 2", "HINCRBY h a 1", "HSETNX h c 1", "HDEL h b", "HDEL h a c"] {
            assert_eq!(spans(command), format!("index.lookup {read} {write}"), "{command}");
        }
        assert_eq!(spans("HGET h a"), "index.lookup");
    }

    #[test]
    fn a_hash_may_be_larger_than_a_page() {
        let mut client = Client::new();
        client.run("HSET h a 1");
        let long = "x".repeat(1 << 17);
        assert_eq!(client.run(&format!("HSET h b {long}")), ":1\r\n");
        assert_eq!(client.run("HSET h a 2 c 3"), ":1\r\n");
        assert_eq!(client.run("HGET h b"), format!("$131072\r\n{long}\r\n"));
        assert_eq!(client.run("HMGET h a c d"), "*3\r\n$1\r\n2\r\n$1\r\n3\r\n$-1\r\n");
        assert_eq!(client.run("HDEL h b a c"), ":3\r\n");
        assert_eq!(client.run("EXISTS h"), ":0\r\n");
    }
}
