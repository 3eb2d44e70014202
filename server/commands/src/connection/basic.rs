//! PING, ECHO, SELECT, QUIT, RESET.

use ferrite_keyspace::Pause;
use ferrite_resp::{Protocol, parse_i64};

use crate::admit::wrong_arity;
use crate::call::Call;
use crate::session::{ConnectionContext, ReplyMode};
use crate::spec::{Arg, CommandSpec, Group, acl, flag};

pub static SPECS: &[CommandSpec] = &[
    CommandSpec::new("ping", -1, ping)
        .group(Group::Connection)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Answers PONG, or its argument.")
        .flags(flag::FAST)
        .acl(acl::CONNECTION)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .args(&[Arg::string("message").optional()]),
    CommandSpec::new("echo", 2, echo)
        .group(Group::Connection)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Answers its argument.")
        .flags(flag::LOADING | flag::STALE | flag::FAST)
        .acl(acl::CONNECTION)
        .args(&[Arg::string("message")]),
    CommandSpec::new("select", 2, select)
        .group(Group::Connection)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Chooses the connection's database.")
        .flags(flag::LOADING | flag::STALE | flag::FAST)
        .acl(acl::CONNECTION)
        .args(&[Arg::integer("index")]),
    CommandSpec::new("quit", -1, quit)
        .group(Group::Connection)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Ends the connection.")
        .deprecated("7.2.0", "just closing the connection")
        .flags(flag::ALLOW_BUSY | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST | flag::NO_AUTH)
        .flags(flag::NOT_QUEUED)
        .acl(acl::CONNECTION),
    CommandSpec::new("reset", 1, reset)
        .group(Group::Connection)
        .since("6.2.0")
        .complexity("O(1)")
        .summary("Brings the connection back to the state of a new one.")
        .flags(flag::ALLOW_BUSY | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST | flag::NO_AUTH)
        .flags(flag::NOT_QUEUED)
        .acl(acl::CONNECTION),
];

fn ping(call: &mut Call<'_>) -> Result<(), Pause> {
    match call.args.len() {
        1 => call.reply.simple("PONG"),
        2 => call.reply.bulk(call.args.get(1)),
        _ => call.reply.error(wrong_arity(call.spec)),
    }
    Ok(())
}

fn echo(call: &mut Call<'_>) -> Result<(), Pause> {
    call.reply.bulk(call.args.get(1));
    Ok(())
}

fn select(call: &mut Call<'_>) -> Result<(), Pause> {
    let Some(index) = parse_i64(call.args.get(1)) else {
        call.reply.error("ERR value is not an integer or out of range");
        return Ok(());
    };
    if i32::try_from(index).is_err() {
        call.reply.error(format!("ERR value is out of range, value must between {} and {}", i32::MIN, i32::MAX));
        return Ok(());
    }
    match u32::try_from(index) {
        Ok(db) if db < call.keys.databases().count() => {
            call.session.db = db;
            call.reply.ok();
        }
        _ => call.reply.error("ERR DB index is out of range"),
    }
    Ok(())
}

fn quit(call: &mut Call<'_>) -> Result<(), Pause> {
    call.session.close_after_reply = true;
    call.reply.ok();
    Ok(())
}

/// What belongs to the client library (its name and version) stays, as in Redis.
fn reset(call: &mut Call<'_>) -> Result<(), Pause> {
    let session = &mut *call.session;
    session.discard_transaction();
    session.db = 0;
    session.protocol = Protocol::Resp2;
    session.authenticated = call.host.required_password().is_none();
    session.name.clear();
    session.reply_mode = ReplyMode::On;
    session.no_evict = false;
    session.no_touch = false;
    session.context = ConnectionContext::None;
    session.trace_responses = false;
    call.reply.protocol = Protocol::Resp2;
    call.reply.simple("RESET");
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    #[test]
    fn ping_and_echo() {
        let mut client = Client::new();
        assert_eq!(client.run("PING"), "+PONG\r\n");
        assert_eq!(client.run("ping hello"), "$5\r\nhello\r\n");
        assert_eq!(client.run("PING a b"), "-ERR wrong number of arguments for 'ping' command\r\n");
        assert_eq!(client.run("ECHO hi"), "$2\r\nhi\r\n");
        assert_eq!(client.run("ECHO"), "-ERR wrong number of arguments for 'echo' command\r\n");
    }

    #[test]
    fn select_stays_within_the_databases() {
        let mut client = Client::new();
        assert_eq!(client.run("SELECT 15"), "+OK\r\n");
        assert_eq!(client.session.db, 15);
        assert_eq!(client.run("SELECT 16"), "-ERR DB index is out of range\r\n");
        assert_eq!(client.run("SELECT -1"), "-ERR DB index is out of range\r\n");
        assert_eq!(client.run("SELECT x"), "-ERR value is not an integer or out of range\r\n");
        assert_eq!(
            client.run("SELECT 4294967296"),
            "-ERR value is out of range, value must between -2147483648 and 2147483647\r\n"
        );
        assert_eq!(client.session.db, 15);
    }

    #[test]
    fn quit_closes_after_its_reply_even_inside_multi() {
        let mut client = Client::new();
        client.session.multi = Some(Default::default());
        assert_eq!(client.run("QUIT now"), "+OK\r\n");
        assert!(client.session.close_after_reply);
    }

    #[test]
    fn reset_gives_a_new_connection_that_keeps_its_library_name() {
        let mut client = Client::new();
        for command in ["HELLO 3 SETNAME me", "SELECT 3", "CLIENT SETINFO lib-name lib", "CLIENT NO-EVICT on"] {
            client.run(command);
        }
        client.session.multi = Some(Default::default());
        assert_eq!(client.run("RESET"), "+RESET\r\n");
        assert!(client.session.multi.is_none());
        assert_eq!(client.session.db, 0);
        assert_eq!(client.run("CLIENT GETNAME"), "$-1\r\n");
        assert_eq!(client.session.lib_name, b"lib");
        assert!(!client.session.no_evict);
    }

    #[test]
    fn reset_asks_for_the_password_again() {
        let mut client = Client::with_password("secret");
        assert_eq!(client.run("PING"), "-NOAUTH Authentication required.\r\n");
        assert_eq!(client.run("AUTH secret"), "+OK\r\n");
        assert_eq!(client.run("PING"), "+PONG\r\n");
        assert_eq!(client.run("RESET"), "+RESET\r\n");
        assert_eq!(client.run("PING"), "-NOAUTH Authentication required.\r\n");
    }
}
