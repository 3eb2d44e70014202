//! SAVE, BGSAVE and BGREWRITEAOF.

use ferrite_keyspace::Pause;
use ferrite_resp::Reply;

use crate::call::Call;
use crate::host::{AofRewrite, BackgroundSave, Deferred};
use crate::spec::{Arg, CommandSpec, Group, flag};

pub static SPECS: &[CommandSpec] = &[
    CommandSpec::new("bgrewriteaof", 1, bgrewriteaof)
        .group(Group::Server)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Shortens the append-only file to what the keys hold, while commands run.")
        .flags(flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING),
    CommandSpec::new("bgsave", -1, background_save)
        .group(Group::Server)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Takes a checkpoint while commands run.")
        .flags(flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING)
        .args(&[Arg::word("schedule", "SCHEDULE").since("3.2.2").optional()]),
    CommandSpec::new("save", 1, save)
        .group(Group::Server)
        .since("1.0.0")
        .complexity("O(N)")
        .summary("Takes a checkpoint and answers when it is in force.")
        .flags(flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING | flag::NO_MULTI | flag::DEFERS),
];

/// Only this connection waits: other clients go on, unlike in Redis.
fn save(call: &mut Call<'_>) -> Result<(), Pause> {
    call.session.deferred = Some(Deferred::Save);
    Ok(())
}

/// The answer to SAVE: `None` if another save runs, else whether it succeeded.
pub fn write_saved(reply: &mut Reply<'_>, saved: Option<bool>) {
    match saved {
        Some(true) => reply.ok(),
        Some(false) => reply.error("ERR"),
        None => reply.error("ERR Background save already in progress"),
    }
}

fn background_save(call: &mut Call<'_>) -> Result<(), Pause> {
    let schedule = match call.args.len() {
        1 => false,
        2 if call.args.get(1).eq_ignore_ascii_case(b"schedule") => true,
        _ => {
            call.reply.error("ERR syntax error");
            return Ok(());
        }
    };
    match call.host.background_save(schedule, call.in_transaction) {
        BackgroundSave::Started => call.reply.simple("Background saving started"),
        BackgroundSave::Scheduled => call.reply.simple("Background saving scheduled"),
        BackgroundSave::InProgress => call.reply.error("ERR Background save already in progress"),
        BackgroundSave::OtherActive => call.reply.error(
            "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in order to schedule \
             a BGSAVE whenever possible.",
        ),
    }
    Ok(())
}

fn bgrewriteaof(call: &mut Call<'_>) -> Result<(), Pause> {
    match call.host.rewrite_aof(call.in_transaction) {
        AofRewrite::Started => call.reply.simple("Background append only file rewriting started"),
        AofRewrite::Scheduled => call.reply.simple("Background append only file rewriting scheduled"),
        AofRewrite::InProgress => call.reply.error("ERR Background append only file rewriting already in progress"),
        AofRewrite::Impossible => call
            .reply
            .error("ERR Can't execute an AOF background rewriting. Please check the server logs for more information."),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::host::{AofRewrite, BackgroundSave, Deferred};
    use crate::testing::Client;

    #[test]
    fn bgsave_answers_as_redis() {
        let mut client = Client::new();
        for (answer, reply) in [
            (BackgroundSave::Started, "+Background saving started\r\n"),
            (BackgroundSave::Scheduled, "+Background saving scheduled\r\n"),
            (BackgroundSave::InProgress, "-ERR Background save already in progress\r\n"),
            (
                BackgroundSave::OtherActive,
                "-ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in order to \
                 schedule a BGSAVE whenever possible.\r\n",
            ),
        ] {
            client.host.background_save.set(answer);
            assert_eq!(client.run("BGSAVE"), reply);
        }
        assert_eq!(client.host.saves_asked.take(), vec![(false, false); 4]);
        client.run("bgsave schedule");
        client.run("MULTI");
        client.run("BGSAVE");
        client.run("EXEC");
        assert_eq!(client.host.saves_asked.take(), [(true, false), (false, true)]);
        for wrong in ["BGSAVE now", "BGSAVE SCHEDULE 1"] {
            assert_eq!(client.run(wrong), "-ERR syntax error\r\n");
        }
    }

    #[test]
    fn save_is_left_to_the_node_and_not_allowed_in_a_transaction() {
        let mut client = Client::new();
        assert_eq!(client.run("SAVE"), "");
        assert_eq!(client.session.deferred.take(), Some(Deferred::Save));
        assert_eq!(client.run("SAVE now"), "-ERR wrong number of arguments for 'save' command\r\n");
        client.run("MULTI");
        assert_eq!(client.run("SAVE"), "-ERR Command not allowed inside a transaction\r\n");
    }

    #[test]
    fn replies_are_those_of_redis() {
        let mut client = Client::new();
        for (answer, reply) in [
            (AofRewrite::Started, "+Background append only file rewriting started\r\n"),
            (AofRewrite::InProgress, "-ERR Background append only file rewriting already in progress\r\n"),
            (
                AofRewrite::Impossible,
                "-ERR Can't execute an AOF background rewriting. Please check the server logs for more information.\r\n",
            ),
        ] {
            client.host.aof_rewrite.set(answer);
            assert_eq!(client.run("BGREWRITEAOF"), reply);
        }
        assert_eq!(client.run("BGREWRITEAOF now"), "-ERR wrong number of arguments for 'bgrewriteaof' command\r\n");
    }

    #[test]
    fn in_a_transaction_it_is_scheduled() {
        let mut client = Client::new();
        client.run("MULTI");
        assert_eq!(client.run("BGREWRITEAOF"), "+QUEUED\r\n");
        assert_eq!(client.run("EXEC"), "*1\r\n+Background append only file rewriting scheduled\r\n");
    }
}
