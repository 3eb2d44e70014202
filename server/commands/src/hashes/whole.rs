//! Whole hashes: HGETALL, HKEYS, HVALS, HLEN.

use ferrite_keyspace::Pause;

use crate::call::Call;
use crate::spec::{Arg, CommandSpec, Group, KeySpec, acl, flag, keyflag};

pub static SPECS: &[CommandSpec] = &[
    CommandSpec::new("hgetall", 2, hgetall)
        .group(Group::Hash)
        .since("2.0.0")
        .complexity("O(N)")
        .summary("Gives all fields and values.")
        .flags(flag::READONLY)
        .acl(acl::HASH)
        .keys(&[KeySpec::at(1, keyflag::RO | keyflag::ACCESS)])
        .tips(&["nondeterministic_output_order"])
        .args(&[Arg::key("key", 0)]),
    CommandSpec::new("hkeys", 2, hkeys)
        .group(Group::Hash)
        .since("2.0.0")
        .complexity("O(N)")
        .summary("Gives the names of all fields.")
        .flags(flag::READONLY)
        .acl(acl::HASH)
        .keys(&[KeySpec::at(1, keyflag::RO | keyflag::ACCESS)])
        .tips(&["nondeterministic_output_order"])
        .args(&[Arg::key("key", 0)]),
    CommandSpec::new("hvals", 2, hvals)
        .group(Group::Hash)
        .since("2.0.0")
        .complexity("O(N)")
        .summary("Gives the values of all fields.")
        .flags(flag::READONLY)
        .acl(acl::HASH)
        .keys(&[KeySpec::at(1, keyflag::RO | keyflag::ACCESS)])
        .tips(&["nondeterministic_output_order"])
        .args(&[Arg::key("key", 0)]),
    CommandSpec::new("hlen", 2, hlen)
        .group(Group::Hash)
        .since("2.0.0")
        .complexity("O(1)")
        .summary("Counts the fields of a hash.")
        .flags(flag::FAST | flag::READONLY)
        .acl(acl::HASH)
        .keys(&[KeySpec::at(1, keyflag::RO)])
        .args(&[Arg::key("key", 0)]),
];

fn hgetall(call: &mut Call<'_>) -> Result<(), Pause> {
    let hash = call.keys.read_hash(call.args.get(1))?;
    call.reply.map(hash.map_or(0, |hash| hash.len()));
    for (field, value) in hash.iter().flat_map(|hash| hash.iter()) {
        call.reply.bulk(field);
        call.reply.bulk(value);
    }
    Ok(())
}

fn hkeys(call: &mut Call<'_>) -> Result<(), Pause> {
    let hash = call.keys.read_hash(call.args.get(1))?;
    call.reply.array(hash.map_or(0, |hash| hash.len()));
    for (field, _) in hash.iter().flat_map(|hash| hash.iter()) {
        call.reply.bulk(field);
    }
    Ok(())
}

fn hvals(call: &mut Call<'_>) -> Result<(), Pause> {
    let hash = call.keys.read_hash(call.args.get(1))?;
    call.reply.array(hash.map_or(0, |hash| hash.len()));
    for (_, value) in hash.iter().flat_map(|hash| hash.iter()) {
        call.reply.bulk(value);
    }
    Ok(())
}

fn hlen(call: &mut Call<'_>) -> Result<(), Pause> {
    let len = call.keys.read_hash(call.args.get(1))?.map_or(0, |hash| hash.len());
    call.reply.integer(len as i64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    #[test]
    fn fields_come_in_the_order_in_which_they_were_added() {
        let mut client = Client::new();
        client.run("HSET h b 1 a 2 c 3");
        client.run("HSET h a longer");
        client.run("HDEL h b");
        client.run("HSET h b 4");
        assert_eq!(client.run("HKEYS h"), "*3\r\n$1\r\na\r\n$1\r\nc\r\n$1\r\nb\r\n");
        assert_eq!(client.run("HVALS h"), "*3\r\n$6\r\nlonger\r\n$1\r\n3\r\n$1\r\n4\r\n");
        assert_eq!(client.run("HLEN h"), ":3\r\n");
        client.run("HDEL h c b");
        assert_eq!(client.run("HGETALL h"), "*2\r\n$1\r\na\r\n$6\r\nlonger\r\n");
        client.run("HELLO 3");
        assert_eq!(client.run("HGETALL h"), "%1\r\n$1\r\na\r\n$6\r\nlonger\r\n");
        assert_eq!(client.run("HKEYS h"), "*1\r\n$1\r\na\r\n");
    }

    #[test]
    fn a_missing_hash_is_empty() {
        let mut client = Client::new();
        for command in ["HGETALL h", "HKEYS h", "HVALS h"] {
            assert_eq!(client.run(command), "*0\r\n");
        }
        assert_eq!(client.run("HLEN h"), ":0\r\n");
        client.run("HELLO 3");
        assert_eq!((client.run("HGETALL h"), client.run("HVALS h")), ("%0\r\n".into(), "*0\r\n".into()));
    }
}
