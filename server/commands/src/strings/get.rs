//! GET and its relatives that also change the key: GETDEL, GETEX, GETSET.

use ferrite_keyspace::{Expiry, Pause};

use super::options::{Family, Options, expire_at};
use crate::call::Call;
use crate::spec::{Arg, CommandSpec, Group, KeySpec, acl, flag, keyflag};

pub static SPECS: &[CommandSpec] = &[
    CommandSpec::new("get", 2, get)
        .group(Group::String)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Gives the string held by a key.")
        .flags(flag::FAST | flag::READONLY)
        .acl(acl::STRING)
        .keys(&[KeySpec::at(1, keyflag::RO | keyflag::ACCESS)])
        .args(&[Arg::key("key", 0)]),
    CommandSpec::new("getdel", 2, getdel)
        .group(Group::String)
        .since("6.2.0")
        .complexity("O(1)")
        .summary("Gives a string and deletes its key.")
        .flags(flag::FAST | flag::WRITE)
        .acl(acl::STRING)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::ACCESS | keyflag::DELETE)])
        .args(&[Arg::key("key", 0)]),
    CommandSpec::new("getex", -2, getex)
        .group(Group::String)
        .since("6.2.0")
        .complexity("O(1)")
        .summary("Gives a string and sets or ends the expiry of its key.")
        .flags(flag::FAST | flag::WRITE)
        .acl(acl::STRING)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::ACCESS | keyflag::UPDATE)
            .notes("RW and UPDATE because it changes the TTL")])
        .args(&[
            Arg::key("key", 0),
            Arg::one_of(
                "expiration",
                &[
                    Arg::integer("seconds").token("EX"),
                    Arg::integer("milliseconds").token("PX"),
                    Arg::unix_time("unix-time-seconds").token("EXAT"),
                    Arg::unix_time("unix-time-milliseconds").token("PXAT"),
                    Arg::word("persist", "PERSIST"),
                ],
            )
            .optional(),
        ]),
    CommandSpec::new("getset", 3, getset)
        .group(Group::String)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Sets a string and gives the one it replaces.")
        .deprecated("6.2.0", "SET with the !GET argument")
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .acl(acl::STRING)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::ACCESS | keyflag::UPDATE)])
        .args(&[Arg::key("key", 0), Arg::string("value")])
        .growth(|args| args.get(2).len()),
];

fn get(call: &mut Call<'_>) -> Result<(), Pause> {
    reply_value(call).map(|_| ())
}

/// Replies the string or null; whether there is one.
pub(super) fn reply_value(call: &mut Call<'_>) -> Result<bool, Pause> {
    match call.keys.read_string(call.args.get(1))? {
        Some(value) => {
            call.reply.bulk(value);
            Ok(true)
        }
        None => {
            call.reply.null();
            Ok(false)
        }
    }
}

fn getdel(call: &mut Call<'_>) -> Result<(), Pause> {
    if reply_value(call)? {
        call.keys.delete(call.args.get(1))?;
    }
    Ok(())
}

fn getset(call: &mut Call<'_>) -> Result<(), Pause> {
    reply_value(call)?;
    call.keys.set(call.args.get(1), call.args.get(2), Expiry::Never)
}

fn getex(call: &mut Call<'_>) -> Result<(), Pause> {
    let key = call.args.get(1);
    let options = Options::parse(call.args, 2, Family::Getex)?;
    if call.keys.read_string(key)?.is_none() {
        call.reply.null();
        return Ok(());
    }
    let expire_at_ms = match options.expiry {
        None => None,
        Some((unit, number)) => match expire_at(call, unit, number)? {
            Some(at) => Some((unit, at)),
            None => return Ok(()),
        },
    };
    let record = call.keys.get(key)?.expect("it was just there");
    let expires = record.expire_at_ms != 0;
    call.reply.bulk(record.value);
    match expire_at_ms {
        Some((unit, at)) if unit.is_absolute() && at <= call.keys.now_ms() => call.keys.delete(key).map(|_| ()),
        Some((_, at)) => call.keys.expire(key, Some(at)),
        None if options.persist && expires => call.keys.expire(key, None),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    #[test]
    fn get_replies_the_string_or_null() {
        let mut client = Client::new();
        assert_eq!(client.run("GET k"), "$-1\r\n");
        client.run("SET k value");
        assert_eq!(client.run("GET k"), "$5\r\nvalue\r\n");
        client.run("HELLO 3");
        assert_eq!(client.run("GET missing"), "_\r\n");
    }

    #[test]
    fn getdel_and_getset_reply_the_old_value() {
        let mut client = Client::new();
        client.run("SET k a EX 100");
        assert_eq!(client.run("GETSET k b"), "$1\r\na\r\n");
        assert_eq!(client.run("TTL k"), ":-1\r\n");
        assert_eq!(client.run("GETDEL k"), "$1\r\nb\r\n");
        assert_eq!(client.run("GETDEL k"), "$-1\r\n");
        assert_eq!(client.run("EXISTS k"), ":0\r\n");
        assert_eq!(client.run("GETSET k c"), "$-1\r\n");
    }

    #[test]
    fn getex_changes_only_the_expiry() {
        let mut client = Client::new();
        assert_eq!(client.run("GETEX k EX 10"), "$-1\r\n");
        client.run("SET k v");
        assert_eq!(client.run("GETEX k EX 10"), "$1\r\nv\r\n");
        assert_eq!(client.run("TTL k"), ":10\r\n");
        assert_eq!(client.run("GETEX k"), "$1\r\nv\r\n");
        assert_eq!(client.run("TTL k"), ":10\r\n");
        assert_eq!(client.run("GETEX k PERSIST"), "$1\r\nv\r\n");
        assert_eq!(client.run("TTL k"), ":-1\r\n");
        assert_eq!(client.run("GETEX k PERSIST EX 1"), "-ERR syntax error\r\n");
        assert_eq!(client.run("GETEX k KEEPTTL"), "-ERR syntax error\r\n");
        assert_eq!(client.run("GETEX k EX 0"), "-ERR invalid expire time in 'getex' command\r\n");
        assert_eq!(client.run("GETEX k EX x"), "-ERR value is not an integer or out of range\r\n");
        assert_eq!(client.run("GETEX k PXAT 1"), "$1\r\nv\r\n");
        assert_eq!(client.run("DBSIZE"), ":0\r\n");
    }
}
