//! HELLO and AUTH.

use ferrite_keyspace::Pause;
use ferrite_resp::{Protocol, parse_i64};

use crate::call::Call;
use crate::echo::Echo;
use crate::spec::{Arg, CommandSpec, Group, acl, flag};
use crate::{REDIS_VERSION, connection};

const ENTRY: u32 = flag::ALLOW_BUSY | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST | flag::NO_AUTH;

pub static SPECS: &[CommandSpec] = &[
    CommandSpec::new("auth", -2, auth)
        .group(Group::Connection)
        .since("1.0.0")
        .complexity("O(N)")
        .summary("Authenticates the connection.")
        .flags(ENTRY)
        .acl(acl::CONNECTION)
        .args(&[Arg::string("username").since("6.0.0").optional(), Arg::string("password")]),
    CommandSpec::new("hello", -1, hello)
        .group(Group::Connection)
        .since("6.0.0")
        .complexity("O(1)")
        .summary("Chooses the protocol version and tells what the server is.")
        .flags(ENTRY)
        .acl(acl::CONNECTION)
        .args(&[Arg::block(
            "arguments",
            &[
                Arg::integer("protover"),
                Arg::block("auth", &[Arg::string("username"), Arg::string("password")]).token("AUTH").optional(),
                Arg::string("clientname").token("SETNAME").optional(),
            ],
        )
        .optional()]),
];

const WRONG_PASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// The only user is `default`; without a password it accepts any.
fn accepts(call: &Call<'_>, user: &[u8], password: &[u8]) -> bool {
    user == b"default"
        && call.host.required_password().is_none_or(|required| equal_in_constant_time(&required, password))
}

/// How long it takes tells nothing but the length of what the client sent.
fn equal_in_constant_time(required: &[u8], given: &[u8]) -> bool {
    let mut differs = required.len() ^ given.len();
    for (i, &byte) in given.iter().enumerate() {
        differs |= usize::from(byte ^ required.get(i).copied().unwrap_or(0));
    }
    differs == 0
}

fn auth(call: &mut Call<'_>) -> Result<(), Pause> {
    let (user, password) = match call.args.len() {
        2 if call.host.required_password().is_none() => {
            call.reply.error(
                "ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?",
            );
            return Ok(());
        }
        2 => (&b"default"[..], call.args.get(1)),
        3 => (call.args.get(1), call.args.get(2)),
        _ => {
            call.reply.error("ERR syntax error");
            return Ok(());
        }
    };
    if accepts(call, user, password) {
        call.session.authenticated = true;
        call.reply.ok();
    } else {
        call.reply.error(WRONG_PASS);
    }
    Ok(())
}

fn hello(call: &mut Call<'_>) -> Result<(), Pause> {
    let mut protocol = None;
    if call.args.len() > 1 {
        protocol = match parse_i64(call.args.get(1)) {
            Some(2) => Some(Protocol::Resp2),
            Some(3) => Some(Protocol::Resp3),
            Some(_) => {
                call.reply.error("NOPROTO unsupported protocol version");
                return Ok(());
            }
            None => {
                call.reply.error("ERR Protocol version is not an integer or out of range");
                return Ok(());
            }
        };
    }
    let mut credentials = None;
    let mut name = None;
    let mut at = 2;
    while at < call.args.len() {
        let option = call.args.get(at);
        let more = call.args.len() - 1 - at;
        if option.eq_ignore_ascii_case(b"AUTH") && more >= 2 {
            credentials = Some((call.args.get(at + 1), call.args.get(at + 2)));
            at += 3;
        } else if option.eq_ignore_ascii_case(b"SETNAME") && more >= 1 {
            let given = call.args.get(at + 1);
            if !connection::client::is_plain(given) {
                call.reply.error(connection::client::BAD_NAME);
                return Ok(());
            }
            name = Some(given);
            at += 2;
        } else {
            call.echo(Echo::new("ERR Syntax error in HELLO option '").client(option).own("'"));
            return Ok(());
        }
    }
    if let Some((user, password)) = credentials {
        if !accepts(call, user, password) {
            call.reply.error(WRONG_PASS);
            return Ok(());
        }
        call.session.authenticated = true;
    }
    if !call.session.authenticated {
        call.reply.error(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
             <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the \
             same time",
        );
        return Ok(());
    }
    if let Some(name) = name {
        call.session.name = name.to_vec();
    }
    if let Some(protocol) = protocol {
        call.session.protocol = protocol;
        call.reply.protocol = protocol;
    }
    describe(call);
    Ok(())
}

fn describe(call: &mut Call<'_>) {
    let reply = &mut call.reply;
    reply.map(8);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.integer(match call.session.protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    });
    reply.bulk(b"id");
    reply.integer(call.session.id as i64);
    reply.bulk(b"mode");
    reply.bulk(b"standalone");
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
    // Tells clients that they may send a trace context as a RESP attribute before a command.
    reply.bulk(b"trace-context");
    reply.integer(1);
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;
    use ferrite_resp::Protocol;

    const RESP3: &str = "%8\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.6\r\n$5\r\nproto\r\n:3\r\n\
        $2\r\nid\r\n:7\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n\
        $13\r\ntrace-context\r\n:1\r\n";

    #[test]
    fn hello_switches_the_protocol_and_its_own_reply_is_in_the_new_one() {
        let mut client = Client::new();
        assert_eq!(client.run("HELLO 3"), RESP3);
        assert_eq!(client.session.protocol, Protocol::Resp3);
        assert_eq!(client.run("hello"), RESP3);
        let resp2 = RESP3.replacen("%8", "*16", 1).replacen(":3", ":2", 1);
        assert_eq!(client.run("HELLO 2"), resp2);
        assert_eq!(client.session.protocol, Protocol::Resp2);
    }

    #[test]
    fn a_refused_hello_changes_nothing() {
        let mut client = Client::new();
        for (command, error) in [
            ("HELLO 4", "-NOPROTO unsupported protocol version\r\n"),
            ("HELLO 1", "-NOPROTO unsupported protocol version\r\n"),
            ("HELLO x", "-ERR Protocol version is not an integer or out of range\r\n"),
            ("HELLO 3 FOO", "-ERR Syntax error in HELLO option 'FOO'\r\n"),
            ("HELLO 3 AUTH a", "-ERR Syntax error in HELLO option 'AUTH'\r\n"),
            ("HELLO 3 SETNAME", "-ERR Syntax error in HELLO option 'SETNAME'\r\n"),
            ("HELLO 3 AUTH nobody x", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        ] {
            assert_eq!(client.run(command), error, "{command}");
        }
        let bad_name = client.run_args(&[b"HELLO", b"3", b"SETNAME", b"a b"]);
        assert_eq!(bad_name, "-ERR Client names cannot contain spaces, newlines or special characters.\r\n");
        assert_eq!(client.session.protocol, Protocol::Resp2);
        assert!(client.session.name.is_empty());
    }

    #[test]
    fn hello_authenticates() {
        let mut client = Client::with_password("secret");
        assert!(client.run("HELLO 3").starts_with("-NOAUTH HELLO must be called with the client already"));
        assert!(client.run("HELLO 3 AUTH default wrong").starts_with("-WRONGPASS"));
        assert_eq!(client.session.protocol, Protocol::Resp2);
        assert!(client.run("HELLO 3 AUTH default secret SETNAME me").starts_with("%8\r\n"));
        assert_eq!(client.session.name, b"me");
    }

    #[test]
    fn auth_with_and_without_a_password() {
        let mut open = Client::new();
        assert_eq!(
            open.run("AUTH x"),
            "-ERR AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?\r\n"
        );
        assert_eq!(open.run("AUTH default x"), "+OK\r\n");
        assert!(open.run("AUTH other x").starts_with("-WRONGPASS"));
        let mut closed = Client::with_password("secret");
        assert_eq!(closed.run("AUTH secreT"), "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
        assert_eq!(closed.run("AUTH secret2"), "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
        assert_eq!(closed.run("AUTH a b c"), "-ERR syntax error\r\n");
        assert_eq!(closed.run("AUTH default secret"), "+OK\r\n");
        assert!(closed.session.authenticated);
    }
}
