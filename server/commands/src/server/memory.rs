//! MEMORY USAGE.

use ferrite_keyspace::Pause;
use ferrite_resp::parse_i64;

use crate::call::Call;
use crate::help;
use crate::spec::{Arg, CommandSpec, Group, KeySpec, flag, keyflag};

/// A key's entry in the index: tag and address.
const INDEX_ENTRY_BYTES: usize = 8;

pub static SPECS: &[CommandSpec] = &[CommandSpec::container("memory", SUBCOMMANDS)
    .group(Group::Server)
    .since("4.0.0")
    .complexity("Depends on subcommand.")
    .summary("Holds the commands about memory.")];

static SUBCOMMANDS: &[CommandSpec] = &[
    CommandSpec::new("memory|usage", -3, usage)
        .group(Group::Server)
        .since("4.0.0")
        .complexity("O(N)")
        .summary("Gives the bytes that a key and its value take.")
        .flags(flag::READONLY)
        .keys(&[KeySpec::at(2, keyflag::RO)])
        .args(&[Arg::key("key", 0), Arg::integer("count").token("SAMPLES").optional()]),
    CommandSpec::new("memory|help", 2, show_help)
        .group(Group::Server)
        .since("4.0.0")
        .complexity("O(1)")
        .flags(flag::LOADING | flag::STALE)
        .summary("Explains the subcommands."),
];

/// The record in the log and its entry in the index. SAMPLES is checked only: a record's size is known, not estimated.
fn usage(call: &mut Call<'_>) -> Result<(), Pause> {
    let args = call.args;
    for at in (3..args.len()).step_by(2) {
        if !args.get(at).eq_ignore_ascii_case(b"SAMPLES") || at + 1 == args.len() {
            call.reply.error("ERR syntax error");
            return Ok(());
        }
        match parse_i64(args.get(at + 1)) {
            None => {
                call.reply.error("ERR value is not an integer or out of range");
                return Ok(());
            }
            Some(count) if count < 0 => {
                call.reply.error("ERR syntax error");
                return Ok(());
            }
            Some(_) => {}
        }
    }
    match call.keys.get(args.get(2))? {
        Some(record) => {
            let bytes = record.size + INDEX_ENTRY_BYTES;
            call.reply.integer(bytes as i64);
        }
        None => call.reply.null(),
    }
    Ok(())
}

fn show_help(call: &mut Call<'_>) -> Result<(), Pause> {
    help::write(
        &mut call.reply,
        "memory",
        &["USAGE <key> [SAMPLES <count>]", "    Gives the bytes that a key and its value take."],
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    #[test]
    fn a_missing_key_takes_nothing() {
        let mut client = Client::new();
        assert_eq!(client.run("MEMORY USAGE k"), "$-1\r\n");
        assert_eq!(client.run("MEMORY USAGE k SAMPLES 0 SAMPLES 5"), "$-1\r\n");
        client.run("HELLO 3");
        assert_eq!(client.run("MEMORY USAGE k"), "_\r\n");
    }

    #[test]
    fn options_are_checked_before_the_key() {
        let mut client = Client::new();
        for command in ["MEMORY USAGE k SAMPLES", "MEMORY USAGE k x", "MEMORY USAGE k SAMPLES -1"] {
            assert_eq!(client.run(command), "-ERR syntax error\r\n", "{command}");
        }
        assert_eq!(client.run("MEMORY USAGE k SAMPLES x"), "-ERR value is not an integer or out of range\r\n");
    }
}
