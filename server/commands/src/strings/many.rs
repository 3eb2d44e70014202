//! Several strings at once: MGET, MSET, MSETNX.

use ferrite_keyspace::{Expiry, Kind, Pause};
use ferrite_resp::Args;

use crate::admit::wrong_arity;
use crate::call::Call;
use crate::spec::{Arg, CommandSpec, Group, KeySpec, acl, flag, keyflag};

pub static SPECS: &[CommandSpec] = &[
    CommandSpec::new("mget", -2, mget)
        .group(Group::String)
        .since("1.0.0")
        .complexity("O(N)")
        .summary("Gives the strings of several keys.")
        .flags(flag::FAST | flag::READONLY)
        .acl(acl::STRING)
        .keys(&[KeySpec::all_from(1, keyflag::RO | keyflag::ACCESS)])
        .tips(&["request_policy:multi_shard"])
        .args(&[Arg::key("key", 0).multiple()]),
    CommandSpec::new("mset", -3, mset)
        .group(Group::String)
        .since("1.0.1")
        .complexity("O(N)")
        .summary("Sets several strings at once.")
        .flags(flag::DENYOOM | flag::WRITE)
        .acl(acl::STRING)
        .keys(&[KeySpec::range(1, -1, 2, keyflag::OW | keyflag::UPDATE)])
        .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"])
        .args(&[Arg::block("data", &[Arg::key("key", 0), Arg::string("value")]).multiple()])
        .growth(all_values)
        .overwrites(|_| true),
    CommandSpec::new("msetnx", -3, msetnx)
        .group(Group::String)
        .since("1.0.1")
        .complexity("O(N)")
        .summary("Sets several strings unless one of the keys exists.")
        .flags(flag::DENYOOM | flag::WRITE)
        .acl(acl::STRING)
        .keys(&[KeySpec::range(1, -1, 2, keyflag::OW | keyflag::INSERT)])
        .args(&[Arg::block("data", &[Arg::key("key", 0), Arg::string("value")]).multiple()])
        .growth(all_values),
];

fn all_values(args: &Args<'_>) -> usize {
    args.iter().skip(2).step_by(2).map(<[u8]>::len).sum()
}

fn mget(call: &mut Call<'_>) -> Result<(), Pause> {
    let args = call.args;
    call.reply.array(args.len() - 1);
    for key in args.iter().skip(1) {
        match call.keys.read(key)? {
            Some(record) if record.kind == Kind::String => call.reply.bulk(record.value),
            _ => call.reply.null(),
        }
    }
    Ok(())
}

fn mset(call: &mut Call<'_>) -> Result<(), Pause> {
    if write_all(call, false)? {
        call.reply.ok();
    }
    Ok(())
}

fn msetnx(call: &mut Call<'_>) -> Result<(), Pause> {
    let keys = call.args.iter().skip(1).step_by(2);
    if !call.args.len().is_multiple_of(2) {
        for key in keys {
            if call.keys.exists(key)? {
                call.reply.integer(0);
                return Ok(());
            }
        }
    }
    if write_all(call, true)? {
        call.reply.integer(1);
    }
    Ok(())
}

/// False: the error is replied.
fn write_all(call: &mut Call<'_>, known_absent: bool) -> Result<bool, Pause> {
    let args = call.args;
    if args.len().is_multiple_of(2) {
        call.reply.error(wrong_arity(call.spec));
        return Ok(false);
    }
    let pairs = || (1..args.len()).step_by(2).map(|at| (args.get(at), args.get(at + 1)));
    let mut bytes = 0;
    for (key, value) in pairs() {
        call.keys.check_value(key, value.len())?;
        bytes += key.len() + value.len();
    }
    if !known_absent {
        // After the first write none may pause.
        call.keys.may_overwrite(pairs().map(|(key, _)| key))?;
    }
    call.keys.reserve(bytes, args.len() / 2)?;
    for (key, value) in pairs() {
        call.keys.overwrite(key, value, Expiry::Never)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    #[test]
    fn mget_gives_null_for_what_is_not_there() {
        let mut client = Client::new();
        assert_eq!(client.run("MSET a 1 b 2 a 3"), "+OK\r\n");
        assert_eq!(client.run("MGET a missing b"), "*3\r\n$1\r\n3\r\n$-1\r\n$1\r\n2\r\n");
        assert_eq!(client.run("DBSIZE"), ":2\r\n");
    }

    #[test]
    fn msetnx_is_all_or_nothing() {
        let mut client = Client::new();
        assert_eq!(client.run("MSETNX a 1 b 2"), ":1\r\n");
        assert_eq!(client.run("MSETNX c 1 b 3"), ":0\r\n");
        assert_eq!(client.run("MGET a b c"), "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$-1\r\n");
    }

    #[test]
    fn a_key_without_a_value_is_a_wrong_arity() {
        let mut client = Client::new();
        assert_eq!(client.run("MSET a 1 b"), "-ERR wrong number of arguments for 'mset' command\r\n");
        assert_eq!(client.run("MSETNX a 1 b"), "-ERR wrong number of arguments for 'msetnx' command\r\n");
        assert_eq!(client.run("DBSIZE"), ":0\r\n");
    }
}
