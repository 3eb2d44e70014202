//! SHUTDOWN: its options; the node does it.

use ferrite_keyspace::Pause;
use ferrite_resp::Reply;

use crate::call::Call;
use crate::host::{Deferred, Shutdown};
use crate::spec::{Arg, CommandSpec, Group, flag};

pub static SPECS: &[CommandSpec] = &[CommandSpec::new("shutdown", -1, shutdown)
    .group(Group::Server)
    .since("1.0.0")
    .complexity("O(N)")
    .summary("Makes what was acknowledged durable and ends the server.")
    .flags(flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::NO_MULTI | flag::ALLOW_BUSY)
    .flags(flag::DEFERS)
    .args(&[
        Arg::one_of("save-selector", &[Arg::word("nosave", "NOSAVE"), Arg::word("save", "SAVE")]).optional(),
        Arg::word("now", "NOW").since("7.0.0").optional(),
        Arg::word("force", "FORCE").since("7.0.0").optional(),
        Arg::word("abort", "ABORT").since("7.0.0").optional(),
    ])];

fn shutdown(call: &mut Call<'_>) -> Result<(), Pause> {
    let (mut save, mut nosave, mut now, mut force, mut abort) = (false, false, false, false, false);
    for arg in call.args.iter().skip(1) {
        match &arg.to_ascii_lowercase()[..] {
            b"save" => save = true,
            b"nosave" => nosave = true,
            b"now" => now = true,
            b"force" => force = true,
            b"abort" => abort = true,
            _ => return syntax_error(call),
        }
    }
    if (save && nosave) || (abort && (save || nosave || now || force)) {
        return syntax_error(call);
    }
    let request = if abort {
        Shutdown::Abort
    } else {
        let save = if save { Some(true) } else { nosave.then_some(false) };
        Shutdown::Begin { save, now, force }
    };
    call.session.deferred = Some(Deferred::Shutdown(request));
    Ok(())
}

fn syntax_error(call: &mut Call<'_>) -> Result<(), Pause> {
    call.reply.error("ERR syntax error");
    Ok(())
}

/// The answer to SHUTDOWN ABORT: what has begun is not taken back, and what has not is not there.
pub fn write_abort(reply: &mut Reply<'_>) {
    reply.error("ERR No shutdown in progress.");
}

#[cfg(test)]
mod tests {
    use crate::host::{Deferred, Shutdown};
    use crate::testing::Client;

    #[test]
    fn options_reach_the_node() {
        let begin = |save, now, force| Some(Deferred::Shutdown(Shutdown::Begin { save, now, force }));
        for (command, expected) in [
            ("SHUTDOWN", begin(None, false, false)),
            ("SHUTDOWN nosave", begin(Some(false), false, false)),
            ("SHUTDOWN SAVE NOW FORCE", begin(Some(true), true, true)),
            ("SHUTDOWN ABORT", Some(Deferred::Shutdown(Shutdown::Abort))),
        ] {
            let mut client = Client::new();
            assert_eq!(client.run(command), "");
            assert_eq!(client.session.deferred, expected, "{command}");
        }
    }

    #[test]
    fn contradictions_are_syntax_errors() {
        for command in ["SHUTDOWN SAVE NOSAVE", "SHUTDOWN ABORT NOW", "SHUTDOWN ABORT NOSAVE", "SHUTDOWN later"] {
            let mut client = Client::new();
            assert_eq!(client.run(command), "-ERR syntax error\r\n", "{command}");
            assert_eq!(client.session.deferred, None);
        }
    }

    #[test]
    fn not_inside_a_transaction() {
        let mut client = Client::new();
        client.session.multi = Some(Default::default());
        assert_eq!(client.run("SHUTDOWN"), "-ERR Command not allowed inside a transaction\r\n");
        assert!(client.session.multi.as_ref().is_some_and(|queue| queue.dirty));
    }
}
