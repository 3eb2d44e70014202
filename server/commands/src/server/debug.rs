//! DEBUG: what tests need, behind `enable-debug-command`.

use std::time::Duration;

use ferrite_keyspace::Pause;

use crate::call::Call;
use crate::host::Deferred;
use crate::spec::{CommandSpec, Group, flag};
use crate::{admit, help};

pub static SPECS: &[CommandSpec] = &[CommandSpec::new("debug", -2, debug)
    .group(Group::Server)
    .since("1.0.0")
    .complexity("Depends on subcommand.")
    .summary("Holds commands for tests of the server.")
    .system()
    .flags(flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::PROTECTED | flag::DEFERS)];

/// Longer sleeps are cut, so that a slip cannot block a connection for years.
const SLEEP_S_MAX: f64 = 86_400.0;

fn debug(call: &mut Call<'_>) -> Result<(), Pause> {
    let subcommand = call.args.get(1);
    if subcommand.eq_ignore_ascii_case(b"help") && call.args.len() == 2 {
        help::write(
            &mut call.reply,
            "debug",
            &[
                "SET-ACTIVE-EXPIRE <0|1>",
                "    Whether keys are deleted when their time has come, or (0) only when they are met.",
                "SLEEP <seconds>",
                "    Answers OK after so many seconds; fractions are allowed.",
            ],
        );
    } else if subcommand.eq_ignore_ascii_case(b"sleep") && call.args.len() == 3 {
        // As C's strtod in Redis: what is no number is 0.
        let seconds = std::str::from_utf8(call.args.get(2)).ok().and_then(|text| text.parse().ok()).unwrap_or(0.0);
        let seconds: f64 = if f64::is_nan(seconds) { 0.0 } else { seconds };
        call.session.deferred = Some(Deferred::Sleep(Duration::from_secs_f64(seconds.clamp(0.0, SLEEP_S_MAX))));
    } else if subcommand.eq_ignore_ascii_case(b"set-active-expire") && call.args.len() == 3 {
        // As C's atoi in Redis.
        call.keys.databases().set_active_expiry(!call.args.get(2).starts_with(b"0"));
        call.reply.simple("OK");
    } else {
        call.echo(admit::bad_subcommand_arguments("debug", subcommand));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::host::Deferred;
    use crate::testing::Client;

    #[test]
    fn refused_unless_switched_on() {
        let mut client = Client::new();
        client.host.debug_allowed.set(false);
        assert_eq!(
            client.run("DEBUG SLEEP 1"),
            "-ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from \
             a local connection, otherwise you need to set this option in the configuration file, and then restart the \
             server.\r\n"
        );
        assert_eq!(client.session.deferred, None);
    }

    #[test]
    fn sleep_is_left_to_the_node() {
        for (seconds, expected) in [("0.5", 500), ("0", 0), ("x", 0), ("-1", 0), ("nan", 0), ("1e300", 86_400_000)] {
            let mut client = Client::new();
            assert_eq!(client.run(&format!("DEBUG SLEEP {seconds}")), "");
            assert_eq!(client.session.deferred, Some(Deferred::Sleep(Duration::from_millis(expected))));
        }
    }

    #[test]
    fn what_is_unknown_points_to_help() {
        let mut client = Client::new();
        assert_eq!(
            client.run("DEBUG nope"),
            "-ERR unknown subcommand or wrong number of arguments for 'nope'. Try DEBUG HELP.\r\n"
        );
        assert!(client.run("DEBUG HELP").starts_with("*7\r\n+DEBUG <subcommand> "));
    }
}
