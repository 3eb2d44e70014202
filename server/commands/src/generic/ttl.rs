//! Asking for a time of expiry: TTL, PTTL, EXPIRETIME, PEXPIRETIME.

use ferrite_keyspace::Pause;

use crate::call::Call;
use crate::spec::{Arg, CommandSpec, Group, KeySpec, acl, flag, keyflag};

pub static SPECS: &[CommandSpec] = &[
    CommandSpec::new("ttl", 2, ttl)
        .group(Group::Generic)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Gives the seconds until a key expires.")
        .flags(flag::FAST | flag::READONLY)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::at(1, keyflag::RO | keyflag::ACCESS)])
        .tips(&["nondeterministic_output"])
        .args(&[Arg::key("key", 0)])
        .reads_parts(),
    CommandSpec::new("pttl", 2, pttl)
        .group(Group::Generic)
        .since("2.6.0")
        .complexity("O(1)")
        .summary("Gives the milliseconds until a key expires.")
        .flags(flag::FAST | flag::READONLY)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::at(1, keyflag::RO | keyflag::ACCESS)])
        .tips(&["nondeterministic_output"])
        .args(&[Arg::key("key", 0)])
        .reads_parts(),
    CommandSpec::new("expiretime", 2, expiretime)
        .group(Group::Generic)
        .since("7.0.0")
        .complexity("O(1)")
        .summary("Gives the Unix time in seconds at which a key expires.")
        .flags(flag::FAST | flag::READONLY)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::at(1, keyflag::RO | keyflag::ACCESS)])
        .args(&[Arg::key("key", 0)])
        .reads_parts(),
    CommandSpec::new("pexpiretime", 2, pexpiretime)
        .group(Group::Generic)
        .since("7.0.0")
        .complexity("O(1)")
        .summary("Gives the Unix time in milliseconds at which a key expires.")
        .flags(flag::FAST | flag::READONLY)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::at(1, keyflag::RO | keyflag::ACCESS)])
        .args(&[Arg::key("key", 0)])
        .reads_parts(),
];

fn ttl(call: &mut Call<'_>) -> Result<(), Pause> {
    let now = call.keys.now_ms();
    reply_time(call, |at| (at.saturating_sub(now) + 500) / 1000)
}

fn pttl(call: &mut Call<'_>) -> Result<(), Pause> {
    let now = call.keys.now_ms();
    reply_time(call, |at| at.saturating_sub(now))
}

fn expiretime(call: &mut Call<'_>) -> Result<(), Pause> {
    reply_time(call, |at| (at + 500) / 1000)
}

fn pexpiretime(call: &mut Call<'_>) -> Result<(), Pause> {
    reply_time(call, |at| at)
}

/// -2: there is no such key; -1: it never expires.
fn reply_time(call: &mut Call<'_>, time: impl FnOnce(u64) -> u64) -> Result<(), Pause> {
    let reply = match call.keys.glance(call.args.get(1))?.map(|record| record.expire_at_ms) {
        None => -2,
        Some(0) => -1,
        Some(at) => time(at) as i64,
    };
    call.reply.integer(reply);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    #[test]
    fn times_left_and_times_of_expiry() {
        let mut client = Client::new();
        client.run("PSETEX k 1499 v");
        assert_eq!(client.run("TTL k"), ":1\r\n");
        assert_eq!(client.run("PTTL k"), ":1499\r\n");
        assert_eq!(client.run("EXPIRETIME k"), ":1700000001\r\n");
        assert_eq!(client.run("PEXPIRETIME k"), ":1700000001499\r\n");
        client.advance_ms(999);
        assert_eq!(client.run("TTL k"), ":1\r\n");
        client.run("SET forever v");
        for command in ["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"] {
            assert_eq!(client.run(&format!("{command} forever")), ":-1\r\n");
            assert_eq!(client.run(&format!("{command} missing")), ":-2\r\n");
        }
    }
}
