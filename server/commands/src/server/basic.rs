//! TIME and LASTSAVE.

use ferrite_keyspace::Pause;

use crate::call::Call;
use crate::spec::{CommandSpec, Group, acl, flag};

pub static SPECS: &[CommandSpec] = &[
    CommandSpec::new("time", 1, time)
        .group(Group::Server)
        .since("2.6.0")
        .complexity("O(1)")
        .summary("Gives the server's time.")
        .flags(flag::LOADING | flag::STALE | flag::FAST)
        .tips(&["nondeterministic_output"]),
    CommandSpec::new("lastsave", 1, last_save)
        .group(Group::Server)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Gives the Unix time of the last save.")
        .flags(flag::LOADING | flag::STALE | flag::FAST)
        .acl(acl::ADMIN | acl::DANGEROUS)
        .tips(&["nondeterministic_output"]),
];

fn time(call: &mut Call<'_>) -> Result<(), Pause> {
    let us = call.host.unix_ns() / 1000;
    call.reply.array(2);
    let mut digits = itoa::Buffer::new();
    call.reply.bulk(digits.format(us / 1_000_000).as_bytes());
    call.reply.bulk(digits.format(us % 1_000_000).as_bytes());
    Ok(())
}

fn last_save(call: &mut Call<'_>) -> Result<(), Pause> {
    call.reply.integer(call.host.last_save() as i64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    #[test]
    fn time_is_seconds_and_microseconds() {
        let mut client = Client::new();
        client.host.unix_ns.set(1_700_000_000_000_123_999);
        assert_eq!(client.run("TIME"), "*2\r\n$10\r\n1700000000\r\n$3\r\n123\r\n");
        assert_eq!(client.run("LASTSAVE"), ":1600000000\r\n");
    }
}
