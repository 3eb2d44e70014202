//! Setting a time of expiry: EXPIRE, PEXPIRE, EXPIREAT, PEXPIREAT, PERSIST.

use ferrite_keyspace::Pause;
use ferrite_resp::Args;

use crate::call::Call;
use crate::echo::Echo;
use crate::parse::{integer, is};
use crate::spec::{Arg, CommandSpec, Group, KeySpec, acl, flag, keyflag};
use crate::strings::invalid_expire_time;

pub static SPECS: &[CommandSpec] = &[
    CommandSpec::new("expire", -3, expire)
        .group(Group::Generic)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Lets a key expire after some seconds.")
        .flags(flag::FAST | flag::WRITE)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::UPDATE)])
        .args(&[
            Arg::key("key", 0),
            Arg::integer("seconds"),
            Arg::one_of(
                "condition",
                &[Arg::word("nx", "NX"), Arg::word("xx", "XX"), Arg::word("gt", "GT"), Arg::word("lt", "LT")],
            )
            .since("7.0.0")
            .optional(),
        ]),
    CommandSpec::new("pexpire", -3, pexpire)
        .group(Group::Generic)
        .since("2.6.0")
        .complexity("O(1)")
        .summary("Lets a key expire after some milliseconds.")
        .flags(flag::FAST | flag::WRITE)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::UPDATE)])
        .args(&[
            Arg::key("key", 0),
            Arg::integer("milliseconds"),
            Arg::one_of(
                "condition",
                &[Arg::word("nx", "NX"), Arg::word("xx", "XX"), Arg::word("gt", "GT"), Arg::word("lt", "LT")],
            )
            .since("7.0.0")
            .optional(),
        ]),
    CommandSpec::new("expireat", -3, expireat)
        .group(Group::Generic)
        .since("1.2.0")
        .complexity("O(1)")
        .summary("Lets a key expire at a Unix time in seconds.")
        .flags(flag::FAST | flag::WRITE)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::UPDATE)])
        .args(&[
            Arg::key("key", 0),
            Arg::unix_time("unix-time-seconds"),
            Arg::one_of(
                "condition",
                &[Arg::word("nx", "NX"), Arg::word("xx", "XX"), Arg::word("gt", "GT"), Arg::word("lt", "LT")],
            )
            .since("7.0.0")
            .optional(),
        ]),
    CommandSpec::new("pexpireat", -3, pexpireat)
        .group(Group::Generic)
        .since("2.6.0")
        .complexity("O(1)")
        .summary("Lets a key expire at a Unix time in milliseconds.")
        .flags(flag::FAST | flag::WRITE)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::UPDATE)])
        .args(&[
            Arg::key("key", 0),
            Arg::unix_time("unix-time-milliseconds"),
            Arg::one_of(
                "condition",
                &[Arg::word("nx", "NX"), Arg::word("xx", "XX"), Arg::word("gt", "GT"), Arg::word("lt", "LT")],
            )
            .since("7.0.0")
            .optional(),
        ]),
    CommandSpec::new("persist", 2, persist)
        .group(Group::Generic)
        .since("2.2.0")
        .complexity("O(1)")
        .summary("Ends the expiry of a key.")
        .flags(flag::FAST | flag::WRITE)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::UPDATE)])
        .args(&[Arg::key("key", 0)]),
];

#[derive(Clone, Copy, Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(args: Args<'_>) -> Result<Self, Echo> {
        let mut conditions = Conditions::default();
        for word in args.iter().skip(3) {
            match word {
                _ if is(word, "NX") => conditions.nx = true,
                _ if is(word, "XX") => conditions.xx = true,
                _ if is(word, "GT") => conditions.gt = true,
                _ if is(word, "LT") => conditions.lt = true,
                _ => return Err(Echo::new("ERR Unsupported option ").client(word)),
            }
        }
        let Conditions { nx, xx, gt, lt } = conditions;
        if nx && (xx || gt || lt) {
            return Err(Echo::new("ERR NX and XX, GT or LT options at the same time are not compatible"));
        }
        if gt && lt {
            return Err(Echo::new("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    /// A key that never expires counts as expiring last. `current`: `None` for never.
    fn allow(self, current: Option<i64>, at: i64) -> bool {
        !(self.nx && current.is_some()
            || self.xx && current.is_none()
            || self.gt && current.is_none_or(|current| at <= current)
            || self.lt && current.is_some_and(|current| at >= current))
    }
}

fn expire(call: &mut Call<'_>) -> Result<(), Pause> {
    let now = call.keys.now_ms() as i64;
    set_expiry(call, 1000, now)
}

fn pexpire(call: &mut Call<'_>) -> Result<(), Pause> {
    let now = call.keys.now_ms() as i64;
    set_expiry(call, 1, now)
}

fn expireat(call: &mut Call<'_>) -> Result<(), Pause> {
    set_expiry(call, 1000, 0)
}

fn pexpireat(call: &mut Call<'_>) -> Result<(), Pause> {
    set_expiry(call, 1, 0)
}

fn set_expiry(call: &mut Call<'_>, scale: i64, base: i64) -> Result<(), Pause> {
    let key = call.args.get(1);
    let conditions = match Conditions::parse(call.args) {
        Ok(conditions) => conditions,
        Err(error) => {
            call.echo(error);
            return Ok(());
        }
    };
    // Negative times are fine: they delete.
    let time = integer(call.args.get(2))?;
    let Some(at) = time.checked_mul(scale).and_then(|ms| ms.checked_add(base)) else {
        invalid_expire_time(call);
        return Ok(());
    };
    let now = call.keys.now_ms() as i64;
    let current = call.keys.get(key)?.map(|record| record.expire_at_ms);
    let allowed = current.is_some_and(|current| conditions.allow((current != 0).then_some(current as i64), at));
    if allowed {
        if at <= now {
            call.keys.delete(key)?;
        } else {
            call.keys.expire(key, Some(at as u64))?;
        }
    }
    call.reply.integer(i64::from(allowed));
    Ok(())
}

fn persist(call: &mut Call<'_>) -> Result<(), Pause> {
    let key = call.args.get(1);
    let expires = call.keys.get(key)?.is_some_and(|record| record.expire_at_ms != 0);
    if expires {
        call.keys.expire(key, None)?;
    }
    call.reply.integer(i64::from(expires));
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    #[test]
    fn a_key_expires_at_its_millisecond() {
        let mut client = Client::new();
        client.run("SET k v");
        assert_eq!(client.run("PEXPIRE k 100"), ":1\r\n");
        client.advance_ms(100);
        assert_eq!(client.run("GET k"), "$1\r\nv\r\n");
        client.advance_ms(1);
        assert_eq!(client.run("GET k"), "$-1\r\n");
        assert_eq!(client.run("DBSIZE"), ":0\r\n");
        assert_eq!(client.run("EXPIRE k 10"), ":0\r\n");
    }

    #[test]
    fn a_time_in_the_past_deletes() {
        let mut client = Client::new();
        for command in ["EXPIRE k 0", "EXPIRE k -1", "PEXPIREAT k 1", "EXPIREAT k -5", "PEXPIRE k -9223372036854775808"]
        {
            client.run("SET k v");
            assert_eq!(client.run(command), ":1\r\n", "{command}");
            assert_eq!(client.run("EXISTS k"), ":0\r\n", "{command}");
        }
    }

    #[test]
    fn conditions_compare_with_the_current_time() {
        let mut client = Client::new();
        client.run("SET k v");
        assert_eq!(client.run("EXPIRE k 100 XX"), ":0\r\n");
        assert_eq!(client.run("EXPIRE k 100 GT"), ":0\r\n");
        assert_eq!(client.run("EXPIRE k 100 LT"), ":1\r\n");
        assert_eq!(client.run("EXPIRE k 100 NX"), ":0\r\n");
        assert_eq!(client.run("EXPIRE k 100 GT"), ":0\r\n");
        assert_eq!(client.run("EXPIRE k 101 GT"), ":1\r\n");
        assert_eq!(client.run("EXPIRE k 101 LT"), ":0\r\n");
        assert_eq!(client.run("EXPIRE k 50 xx lt"), ":1\r\n");
        assert_eq!(client.run("TTL k"), ":50\r\n");
    }

    #[test]
    fn refusals() {
        let mut client = Client::new();
        client.run("SET k v");
        for (command, error) in [
            ("EXPIRE k 1 NX GT", "ERR NX and XX, GT or LT options at the same time are not compatible"),
            ("EXPIRE k 1 GT LT", "ERR GT and LT options at the same time are not compatible"),
            ("EXPIRE k 1 zz", "ERR Unsupported option zz"),
            ("EXPIRE k x", "ERR value is not an integer or out of range"),
            ("EXPIRE k 9223372036854775807", "ERR invalid expire time in 'expire' command"),
            ("PEXPIRE k 9223372036854775807", "ERR invalid expire time in 'pexpire' command"),
            ("EXPIREAT k -9223372036854775808", "ERR invalid expire time in 'expireat' command"),
        ] {
            assert_eq!(client.run(command), format!("-{error}\r\n"), "{command}");
        }
    }

    #[test]
    fn persist_ends_the_expiry() {
        let mut client = Client::new();
        client.run("SET k v EX 9");
        assert_eq!(client.run("PERSIST k"), ":1\r\n");
        assert_eq!(client.run("PERSIST k"), ":0\r\n");
        assert_eq!(client.run("TTL k"), ":-1\r\n");
        assert_eq!(client.run("PERSIST missing"), ":0\r\n");
    }
}
