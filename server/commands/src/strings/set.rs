//! SET and the older commands it replaces: SETNX, SETEX, PSETEX.

use ferrite_keyspace::{Expiry, Pause};
use ferrite_resp::Args;

use super::get::reply_value;
use super::options::{Family, Options, Unit, expire_at};
use crate::call::Call;
use crate::spec::{Arg, CommandSpec, Group, KeySpec, acl, flag, keyflag};

pub static SPECS: &[CommandSpec] = &[
    CommandSpec::new("set", -3, set)
        .group(Group::String)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Sets a key to a string, whatever it held, with conditions and an expiry.")
        .flags(flag::DENYOOM | flag::WRITE)
        .acl(acl::STRING)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::ACCESS | keyflag::UPDATE | keyflag::VARIABLE_FLAGS)
            .notes("RW and ACCESS due to the optional `GET` argument")])
        .args(&[
            Arg::key("key", 0),
            Arg::string("value"),
            Arg::one_of("condition", &[Arg::word("nx", "NX"), Arg::word("xx", "XX")]).since("2.6.12").optional(),
            Arg::word("get", "GET").since("6.2.0").optional(),
            Arg::one_of(
                "expiration",
                &[
                    Arg::integer("seconds").token("EX").since("2.6.12"),
                    Arg::integer("milliseconds").token("PX").since("2.6.12"),
                    Arg::unix_time("unix-time-seconds").token("EXAT").since("6.2.0"),
                    Arg::unix_time("unix-time-milliseconds").token("PXAT").since("6.2.0"),
                    Arg::word("keepttl", "KEEPTTL").since("6.0.0"),
                ],
            )
            .optional(),
        ])
        .growth(second_argument)
        .overwrites(set_overwrites)
        .key_flags(set_key_flags),
    CommandSpec::new("setnx", 3, setnx)
        .group(Group::String)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Sets a string unless the key exists.")
        .deprecated("2.6.12", "SET with the NX argument")
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .acl(acl::STRING)
        .keys(&[KeySpec::at(1, keyflag::OW | keyflag::INSERT)])
        .args(&[Arg::key("key", 0), Arg::string("value")])
        .growth(second_argument),
    CommandSpec::new("setex", 4, setex)
        .group(Group::String)
        .since("2.0.0")
        .complexity("O(1)")
        .summary("Sets a string that expires after some seconds.")
        .deprecated("2.6.12", "SET with the EX argument")
        .flags(flag::DENYOOM | flag::WRITE)
        .acl(acl::STRING)
        .keys(&[KeySpec::at(1, keyflag::OW | keyflag::UPDATE)])
        .args(&[Arg::key("key", 0), Arg::integer("seconds"), Arg::string("value")])
        .growth(last_argument)
        .overwrites(always),
    CommandSpec::new("psetex", 4, psetex)
        .group(Group::String)
        .since("2.6.0")
        .complexity("O(1)")
        .summary("Sets a string that expires after some milliseconds.")
        .deprecated("2.6.12", "SET with the PX argument")
        .flags(flag::DENYOOM | flag::WRITE)
        .acl(acl::STRING)
        .keys(&[KeySpec::at(1, keyflag::OW | keyflag::UPDATE)])
        .args(&[Arg::key("key", 0), Arg::integer("milliseconds"), Arg::string("value")])
        .growth(last_argument)
        .overwrites(always),
];

fn last_argument(args: &Args<'_>) -> usize {
    args.get(args.len() - 1).len()
}

fn second_argument(args: &Args<'_>) -> usize {
    args.get(2).len()
}

fn always(_: &Args<'_>) -> bool {
    true
}

/// NX, XX, GET and KEEPTTL ask about what there is. A value that is none of them is no option.
fn set_overwrites(args: &Args<'_>) -> bool {
    let asks = |word: &[u8]| [&b"NX"[..], b"XX", b"GET", b"KEEPTTL"].iter().any(|asks| word.eq_ignore_ascii_case(asks));
    !args.iter().skip(3).any(asks)
}

/// As Redis: which key specification flags apply depends on GET.
fn set_key_flags(args: &Args<'_>) -> u32 {
    let get = args.iter().skip(3).any(|word| word.eq_ignore_ascii_case(b"GET"));
    if get { keyflag::RW | keyflag::ACCESS | keyflag::UPDATE } else { keyflag::OW | keyflag::UPDATE }
}

fn set(call: &mut Call<'_>) -> Result<(), Pause> {
    let (key, value) = (call.args.get(1), call.args.get(2));
    if call.args.len() == 3 {
        call.keys.overwrite(key, value, Expiry::Never)?;
        call.reply.ok();
        return Ok(());
    }
    let options = Options::parse(call.args, 3, Family::Set)?;
    let expiry = match options.expiry {
        Some((unit, number)) => match expire_at(call, unit, number)? {
            Some(at) => Expiry::At(at),
            None => return Ok(()),
        },
        None if options.keep_ttl => Expiry::Keep,
        None => Expiry::Never,
    };
    if options.get {
        reply_value(call)?;
    }
    if options.nx || options.xx {
        let exists = call.keys.exists(key)?;
        if exists == options.nx {
            if !options.get {
                call.reply.null();
            }
            return Ok(());
        }
    }
    call.keys.overwrite(key, value, expiry)?;
    if !options.get {
        call.reply.ok();
    }
    Ok(())
}

fn setnx(call: &mut Call<'_>) -> Result<(), Pause> {
    let key = call.args.get(1);
    let absent = !call.keys.exists(key)?;
    if absent {
        call.keys.set(key, call.args.get(2), Expiry::Never)?;
    }
    call.reply.integer(i64::from(absent));
    Ok(())
}

fn setex(call: &mut Call<'_>) -> Result<(), Pause> {
    set_expiring(call, Unit::Seconds)
}

fn psetex(call: &mut Call<'_>) -> Result<(), Pause> {
    set_expiring(call, Unit::Milliseconds)
}

fn set_expiring(call: &mut Call<'_>, unit: Unit) -> Result<(), Pause> {
    if let Some(at) = expire_at(call, unit, call.args.get(2))? {
        call.keys.overwrite(call.args.get(1), call.args.get(3), Expiry::At(at))?;
        call.reply.ok();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    #[test]
    fn set_overwrites_value_and_expiry() {
        let mut client = Client::new();
        assert_eq!(client.run("SET k a EX 100"), "+OK\r\n");
        assert_eq!(client.run("TTL k"), ":100\r\n");
        assert_eq!(client.run("SET k b KEEPTTL"), "+OK\r\n");
        assert_eq!(client.run("TTL k"), ":100\r\n");
        assert_eq!(client.run("SET k c"), "+OK\r\n");
        assert_eq!(client.run("TTL k"), ":-1\r\n");
        assert_eq!(client.run("SET k d PXAT 1700000009000"), "+OK\r\n");
        assert_eq!(client.run("PTTL k"), ":9000\r\n");
        assert_eq!(client.run("SET k d EXAT 1700000009"), "+OK\r\n");
        assert_eq!(client.run("PEXPIRETIME k"), ":1700000009000\r\n");
    }

    #[test]
    fn conditions() {
        let mut client = Client::new();
        assert_eq!(client.run("SET k a XX"), "$-1\r\n");
        assert_eq!(client.run("SET k a NX"), "+OK\r\n");
        assert_eq!(client.run("SET k b NX"), "$-1\r\n");
        assert_eq!(client.run("SET k b NX GET"), "$1\r\na\r\n");
        assert_eq!(client.run("SET k b XX GET"), "$1\r\na\r\n");
        assert_eq!(client.run("SET fresh b GET"), "$-1\r\n");
        assert_eq!(client.run("MGET k fresh"), "*2\r\n$1\r\nb\r\n$1\r\nb\r\n");
        assert_eq!(client.run("SETNX k c"), ":0\r\n");
        assert_eq!(client.run("SETNX other c"), ":1\r\n");
    }

    #[test]
    fn contradictions_are_syntax_errors() {
        let mut client = Client::new();
        for options in
            ["NX XX", "EX 1 PX 1", "EX 1 KEEPTTL", "KEEPTTL EX 1", "EX", "PERSIST", "nonsense", "PXAT 1 EXAT 1"]
        {
            assert_eq!(client.run(&format!("SET k v {options}")), "-ERR syntax error\r\n", "{options}");
        }
        assert_eq!(client.run("SET k v EX 5 EX 6"), "+OK\r\n");
        assert_eq!(client.run("TTL k"), ":6\r\n");
    }

    #[test]
    fn times_must_lie_in_the_future_and_in_range() {
        let mut client = Client::new();
        let set = "-ERR invalid expire time in 'set' command\r\n";
        for number in ["0", "-1", "9223372036854775807", "9223372036854775"] {
            assert_eq!(client.run(&format!("SET k v EX {number}")), set, "{number}");
        }
        assert_eq!(client.run("SET k v EX 1.5"), "-ERR value is not an integer or out of range\r\n");
        assert_eq!(client.run("SETEX k 0 v"), "-ERR invalid expire time in 'setex' command\r\n");
        assert_eq!(client.run("PSETEX k 0 v"), "-ERR invalid expire time in 'psetex' command\r\n");
        assert_eq!(client.run("EXISTS k"), ":0\r\n");
        assert_eq!(client.run("PSETEX k 1500 v"), "+OK\r\n");
        assert_eq!(client.run("TTL k"), ":2\r\n");
    }

    #[test]
    fn a_time_in_the_past_sets_an_expired_key() {
        let mut client = Client::new();
        assert_eq!(client.run("SET k v PXAT 1"), "+OK\r\n");
        assert_eq!(client.run("DBSIZE"), ":1\r\n");
        assert_eq!(client.run("GET k"), "$-1\r\n");
        assert_eq!(client.run("DBSIZE"), ":0\r\n");
    }
}
