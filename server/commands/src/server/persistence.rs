//! BGREWRITEAOF.

use ferrite_keyspace::Pause;

use crate::call::Call;
use crate::host::AofRewrite;
use crate::spec::{CommandSpec, Group, flag};

pub static SPECS: &[CommandSpec] = &[CommandSpec::new("bgrewriteaof", 1, bgrewriteaof)
    .group(Group::Server)
    .since("1.0.0")
    .complexity("O(1)")
    .summary("Shortens the append-only file to what the keys hold, while commands run.")
    .flags(flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING)];

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
    use crate::host::AofRewrite;
    use crate::testing::Client;

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
