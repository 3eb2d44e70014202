//! CLIENT: name and library of the own connection, its modes, and the list of all connections.

use ferrite_keyspace::Pause;
use ferrite_resp::{Args, parse_i64};

use super::client_list::{ClientType, info_line, own_info};
use crate::call::Call;
use crate::echo::Echo;
use crate::help;
use crate::session::ReplyMode;
use crate::spec::{Arg, CommandSpec, Group, acl, flag};

const ANY_TIME: u32 = flag::NOSCRIPT | flag::LOADING | flag::STALE;

const fn sub(name: &'static str, arity: i32, handler: crate::spec::Handler, since: &'static str) -> CommandSpec {
    CommandSpec::new(name, arity, handler)
        .group(Group::Connection)
        .since(since)
        .complexity("O(1)")
        .flags(ANY_TIME)
        .acl(acl::CONNECTION)
}

const ON_OFF: &[Arg] = &[Arg::one_of("enabled", &[Arg::word("on", "ON"), Arg::word("off", "OFF")])];

pub static SPECS: &[CommandSpec] = &[CommandSpec::container("client", SUBCOMMANDS)
    .group(Group::Connection)
    .since("2.4.0")
    .complexity("Depends on subcommand.")
    .summary("Holds the commands about client connections.")];

static SUBCOMMANDS: &[CommandSpec] = &[
    sub("client|id", 2, id, "5.0.0").summary("Gives the connection's id."),
    sub("client|getname", 2, getname, "2.6.9").summary("Gives the connection's name."),
    sub("client|setname", 3, setname, "2.6.9")
        .summary("Names the connection.")
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .args(&[Arg::string("connection-name")]),
    sub("client|setinfo", 4, setinfo, "7.2.0")
        .summary("Tells the name or the version of the client's library.")
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .args(&[Arg::one_of(
            "attr",
            &[Arg::string("libname").token("LIB-NAME"), Arg::string("libver").token("LIB-VER")],
        )]),
    sub("client|info", 2, info, "6.2.0").summary("Describes this connection.").tips(&["nondeterministic_output"]),
    sub("client|list", -2, list, "2.4.0")
        .complexity("O(N)")
        .summary("Describes all connections, or some of them.")
        .flags(flag::ADMIN)
        .tips(&["nondeterministic_output"])
        .args(&[
            Arg::one_of(
                "client-type",
                &[
                    Arg::word("normal", "NORMAL"),
                    Arg::word("master", "MASTER"),
                    Arg::word("replica", "REPLICA"),
                    Arg::word("pubsub", "PUBSUB"),
                ],
            )
            .token("TYPE")
            .since("5.0.0")
            .optional(),
            Arg::integer("client-id").token("ID").since("6.2.0").optional().multiple(),
        ]),
    sub("client|kill", -3, kill, "2.4.0").complexity("O(N)").summary("Ends connections.").flags(flag::ADMIN).args(&[
        Arg::one_of(
            "filter",
            &[
                Arg::string("old-format").deprecated("2.8.12"),
                Arg::one_of(
                    "new-format",
                    &[
                        Arg::integer("client-id").token("ID").since("2.8.12").optional(),
                        Arg::one_of(
                            "client-type",
                            &[
                                Arg::word("normal", "NORMAL"),
                                Arg::word("master", "MASTER").since("3.2.0"),
                                Arg::word("slave", "SLAVE"),
                                Arg::word("replica", "REPLICA").since("5.0.0"),
                                Arg::word("pubsub", "PUBSUB"),
                            ],
                        )
                        .token("TYPE")
                        .since("2.8.12")
                        .optional(),
                        Arg::string("username").token("USER").optional(),
                        Arg::string("addr").token("ADDR").optional(),
                        Arg::string("laddr").token("LADDR").since("6.2.0").optional(),
                        Arg::one_of("skipme", &[Arg::word("yes", "YES"), Arg::word("no", "NO")])
                            .token("SKIPME")
                            .optional(),
                    ],
                )
                .multiple(),
            ],
        ),
    ]),
    sub("client|no-evict", 3, no_evict, "7.0.0")
        .summary("Exempts the connection from being closed for its memory.")
        .flags(flag::ADMIN)
        .args(ON_OFF),
    sub("client|no-touch", 3, no_touch, "7.2.0")
        .summary("Keeps the connection's commands from changing when keys were last used.")
        .args(ON_OFF),
    sub("client|reply", 3, reply, "3.2.0")
        .summary("Switches replies to this connection on or off.")
        .args(&[Arg::one_of("action", &[Arg::word("on", "ON"), Arg::word("off", "OFF"), Arg::word("skip", "SKIP")])]),
    CommandSpec::new("client|help", 2, help)
        .group(Group::Connection)
        .since("5.0.0")
        .complexity("O(1)")
        .flags(flag::LOADING | flag::STALE)
        .acl(acl::CONNECTION)
        .summary("Explains the subcommands."),
];

pub(crate) const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

/// A name must not break the lines of CLIENT LIST.
pub(crate) fn is_plain(name: &[u8]) -> bool {
    name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

fn syntax_error(call: &mut Call<'_>) -> Result<(), Pause> {
    call.reply.error("ERR syntax error");
    Ok(())
}

fn id(call: &mut Call<'_>) -> Result<(), Pause> {
    call.reply.integer(call.session.id as i64);
    Ok(())
}

fn getname(call: &mut Call<'_>) -> Result<(), Pause> {
    if call.session.name.is_empty() {
        call.reply.null();
    } else {
        call.reply.bulk(&call.session.name);
    }
    Ok(())
}

fn setname(call: &mut Call<'_>) -> Result<(), Pause> {
    let name = call.args.get(2);
    if is_plain(name) {
        call.session.name = name.to_vec();
        call.reply.ok();
    } else {
        call.reply.error(BAD_NAME);
    }
    Ok(())
}

fn setinfo(call: &mut Call<'_>) -> Result<(), Pause> {
    let (option, value) = (call.args.get(2), call.args.get(3));
    let target = if option.eq_ignore_ascii_case(b"lib-name") {
        &mut call.session.lib_name
    } else if option.eq_ignore_ascii_case(b"lib-ver") {
        &mut call.session.lib_ver
    } else {
        call.echo(Echo::new("ERR Unrecognized option '").client(option).own("'"));
        return Ok(());
    };
    if is_plain(value) {
        *target = value.to_vec();
        call.reply.ok();
    } else {
        call.echo(Echo::new("ERR ").client(option).own(" cannot contain spaces, newlines or special characters."));
    }
    Ok(())
}

fn info(call: &mut Call<'_>) -> Result<(), Pause> {
    let own = own_info(call.session, call.host.clients());
    let mut text = Vec::new();
    info_line(&own, call.session.close_after_reply, &mut text);
    call.reply.verbatim("txt", &text);
    Ok(())
}

fn list(call: &mut Call<'_>) -> Result<(), Pause> {
    let args = call.args;
    let mut wanted_type = None;
    let mut ids = None;
    if args.len() == 4 && args.get(2).eq_ignore_ascii_case(b"TYPE") {
        wanted_type = match ClientType::parse(args.get(3)) {
            Some(kind) => Some(kind),
            None => {
                call.echo(unknown_type(args.get(3)));
                return Ok(());
            }
        };
    } else if args.len() > 3 && args.get(2).eq_ignore_ascii_case(b"ID") {
        let parsed: Option<Vec<i64>> = args.iter().skip(3).map(parse_i64).collect();
        ids = match parsed {
            Some(parsed) => Some(parsed),
            None => {
                call.reply.error("ERR Invalid client ID");
                return Ok(());
            }
        };
    } else if args.len() != 2 {
        return syntax_error(call);
    }
    let mut clients = call.host.clients();
    for client in &mut clients {
        if client.id == call.session.id {
            client.take_from(call.session);
        }
    }
    let mut text = Vec::new();
    match ids {
        Some(ids) => {
            for id in ids {
                if let Some(client) = clients.iter().find(|client| client.id as i64 == id) {
                    info_line(client, false, &mut text);
                }
            }
        }
        None if wanted_type.is_none_or(|kind| kind == ClientType::Normal) => {
            for client in &clients {
                info_line(client, false, &mut text);
            }
        }
        None => {}
    }
    call.reply.verbatim("txt", &text);
    Ok(())
}

/// Which connections CLIENT KILL ends; what is `None` does not matter.
#[derive(Default)]
struct Filter<'a> {
    id: Option<u64>,
    kind: Option<ClientType>,
    addr: Option<&'a [u8]>,
    laddr: Option<&'a [u8]>,
    include_self: bool,
}

fn unknown_type(given: &[u8]) -> Echo {
    Echo::new("ERR Unknown client type '").client(given).own("'")
}

impl<'a> Filter<'a> {
    fn parse(args: Args<'a>) -> Result<Self, Echo> {
        if args.len() == 3 {
            return Ok(Filter { addr: Some(args.get(2)), include_self: true, ..Filter::default() });
        }
        let mut filter = Filter::default();
        for at in (2..args.len()).step_by(2) {
            let option = args.get(at).to_ascii_lowercase();
            if at + 1 == args.len() {
                return Err(Echo::new("ERR syntax error"));
            }
            let value = args.get(at + 1);
            match &option[..] {
                b"id" => match parse_i64(value) {
                    Some(id) if id > 0 => filter.id = Some(id as u64),
                    _ => return Err(Echo::new("ERR client-id should be greater than 0")),
                },
                b"type" => match ClientType::parse(value) {
                    Some(kind) => filter.kind = Some(kind),
                    None => return Err(unknown_type(value)),
                },
                b"addr" => filter.addr = Some(value),
                b"laddr" => filter.laddr = Some(value),
                // The one user there is; it excludes nobody.
                b"user" if value == b"default" => {}
                b"user" => return Err(Echo::new("ERR No such user '").client(value).own("'")),
                b"skipme" if value.eq_ignore_ascii_case(b"yes") => filter.include_self = false,
                b"skipme" if value.eq_ignore_ascii_case(b"no") => filter.include_self = true,
                _ => return Err(Echo::new("ERR syntax error")),
            }
        }
        Ok(filter)
    }
}

fn kill(call: &mut Call<'_>) -> Result<(), Pause> {
    let filter = match Filter::parse(call.args) {
        Ok(filter) => filter,
        Err(error) => {
            call.echo(error);
            return Ok(());
        }
    };
    let mut killed = 0;
    for client in call.host.clients() {
        let own = client.id == call.session.id;
        if filter.id.is_some_and(|id| id != client.id)
            || filter.kind.is_some_and(|kind| kind != ClientType::Normal)
            || filter.addr.is_some_and(|addr| addr != client.addr.as_bytes())
            || filter.laddr.is_some_and(|laddr| laddr != client.laddr.as_bytes())
            || (own && !filter.include_self)
        {
            continue;
        }
        if own {
            // It still gets its reply.
            call.session.close_after_reply = true;
            killed += 1;
        } else if call.host.kill_client(client.id) {
            killed += 1;
        }
    }
    if call.args.len() > 3 {
        call.reply.integer(killed);
    } else if killed > 0 {
        call.reply.ok();
    } else {
        call.reply.error("ERR No such client");
    }
    Ok(())
}

fn on_off(word: &[u8]) -> Option<bool> {
    if word.eq_ignore_ascii_case(b"on") {
        Some(true)
    } else if word.eq_ignore_ascii_case(b"off") {
        Some(false)
    } else {
        None
    }
}

fn no_evict(call: &mut Call<'_>) -> Result<(), Pause> {
    let Some(on) = on_off(call.args.get(2)) else { return syntax_error(call) };
    call.session.no_evict = on;
    call.reply.ok();
    Ok(())
}

fn no_touch(call: &mut Call<'_>) -> Result<(), Pause> {
    let Some(on) = on_off(call.args.get(2)) else { return syntax_error(call) };
    call.session.no_touch = on;
    call.reply.ok();
    Ok(())
}

fn reply(call: &mut Call<'_>) -> Result<(), Pause> {
    let word = call.args.get(2);
    match on_off(word) {
        Some(true) => {
            call.session.reply_mode = ReplyMode::On;
            call.reply.ok();
        }
        Some(false) => call.session.reply_mode = ReplyMode::Off,
        None if word.eq_ignore_ascii_case(b"skip") => {
            if call.session.reply_mode != ReplyMode::Off {
                call.session.reply_mode = ReplyMode::SkipNext;
            }
        }
        None => return syntax_error(call),
    }
    Ok(())
}

fn help(call: &mut Call<'_>) -> Result<(), Pause> {
    help::write(
        &mut call.reply,
        "client",
        &[
            "GETNAME",
            "    Gives the name of this connection.",
            "ID",
            "    Gives the id of this connection.",
            "INFO",
            "    Describes this connection.",
            "KILL <ip:port>",
            "    Ends the connection from that address.",
            "KILL <option> <value> [<option> <value> [...]]",
            "    Ends the connections that fit all options:",
            "    * ADDR <ip:port>, LADDR <ip:port>",
            "      Made from, or to, that address.",
            "    * ID <client-id>",
            "    * SKIPME (YES|NO)",
            "      Spare this connection (default: yes).",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "    * USER <username>",
            "LIST [TYPE <type>|ID <client-id> [<client-id> ...]]",
            "    Describes the connections.",
            "NO-EVICT (ON|OFF)",
            "    Exempts this connection from being closed for its memory.",
            "NO-TOUCH (ON|OFF)",
            "    Keeps this connection from changing when keys were last used.",
            "REPLY (ON|OFF|SKIP)",
            "    Switches the replies to this connection.",
            "SETINFO (LIB-NAME|LIB-VER) <value>",
            "    Tells the client's library.",
            "SETNAME <name>",
            "    Names this connection.",
        ],
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::host::ClientInfo;
    use crate::testing::Client;

    #[test]
    fn names_are_checked_and_cleared() {
        let mut client = Client::new();
        assert_eq!(client.run("CLIENT ID"), ":7\r\n");
        assert_eq!(client.run("CLIENT GETNAME"), "$-1\r\n");
        assert_eq!(client.run("client setname me"), "+OK\r\n");
        assert_eq!(client.run("CLIENT GETNAME"), "$2\r\nme\r\n");
        assert_eq!(
            client.run_args(&[b"CLIENT", b"SETNAME", b"a b"]),
            "-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
        );
        assert_eq!(client.run("CLIENT GETNAME"), "$2\r\nme\r\n");
        assert_eq!(client.run_args(&[b"CLIENT", b"SETNAME", b""]), "+OK\r\n");
        client.run("HELLO 3");
        assert_eq!(client.run("CLIENT GETNAME"), "_\r\n");
    }

    #[test]
    fn setinfo_knows_two_options() {
        let mut client = Client::new();
        assert_eq!(client.run("CLIENT SETINFO LIB-NAME redis-py"), "+OK\r\n");
        assert_eq!(client.run("CLIENT SETINFO lib-ver 5.0"), "+OK\r\n");
        assert_eq!(client.run("CLIENT SETINFO other x"), "-ERR Unrecognized option 'other'\r\n");
        assert_eq!(
            client.run_args(&[b"CLIENT", b"SETINFO", b"lib-name", b"a b"]),
            "-ERR lib-name cannot contain spaces, newlines or special characters.\r\n"
        );
        assert!(client.run("CLIENT INFO").contains(" lib-name=redis-py lib-ver=5.0\n"));
    }

    #[test]
    fn the_reply_modes_hold_back_what_redis_holds_back() {
        let mut client = Client::new();
        assert_eq!(client.run("CLIENT REPLY SKIP"), "");
        assert_eq!(client.run("PING"), "");
        assert_eq!(client.run("PING"), "+PONG\r\n");
        assert_eq!(client.run("CLIENT REPLY OFF"), "");
        assert_eq!(client.run("PING"), "");
        assert_eq!(client.run("CLIENT REPLY SKIP"), "");
        assert_eq!(client.run("PING"), "");
        assert_eq!(client.run("PING"), "");
        assert_eq!(client.run("CLIENT REPLY ON"), "+OK\r\n");
        assert_eq!(client.run("CLIENT REPLY maybe"), "-ERR syntax error\r\n");
        // Skip on skip: the second one is silent and skips again.
        assert_eq!(client.run("CLIENT REPLY SKIP"), "");
        assert_eq!(client.run("CLIENT REPLY SKIP"), "");
        assert_eq!(client.run("PING"), "");
        assert_eq!(client.run("PING"), "+PONG\r\n");
    }

    fn three(client: &Client) {
        *client.host.clients.borrow_mut() = [5, 7, 9]
            .map(|id| ClientInfo {
                id,
                addr: format!("127.0.0.1:{id}"),
                laddr: "127.0.0.1:6379".into(),
                ..Default::default()
            })
            .to_vec();
    }

    #[test]
    fn kill_in_its_old_form() {
        let mut client = Client::new();
        three(&client);
        assert_eq!(client.run("CLIENT KILL 127.0.0.1:9"), "+OK\r\n");
        assert_eq!(*client.host.killed.borrow(), [9]);
        assert_eq!(client.run("CLIENT KILL 127.0.0.1:1"), "-ERR No such client\r\n");
        assert!(!client.session.close_after_reply);
        assert_eq!(client.run("CLIENT KILL 127.0.0.1:7"), "+OK\r\n");
        assert!(client.session.close_after_reply);
    }

    #[test]
    fn kill_in_its_new_form() {
        let mut client = Client::new();
        three(&client);
        assert_eq!(client.run("CLIENT KILL ID 9"), ":1\r\n");
        assert_eq!(client.run("CLIENT KILL ID 1"), ":0\r\n");
        assert_eq!(client.run("CLIENT KILL TYPE pubsub"), ":0\r\n");
        assert_eq!(client.run("CLIENT KILL ADDR 127.0.0.1:5 LADDR 127.0.0.1:6379 USER default"), ":1\r\n");
        assert_eq!(*client.host.killed.borrow(), [9, 5]);
        assert_eq!(client.run("CLIENT KILL TYPE normal"), ":2\r\n");
        assert!(!client.session.close_after_reply, "it spares itself");
        assert_eq!(client.run("CLIENT KILL LADDR 127.0.0.1:6379 SKIPME no"), ":3\r\n");
        assert!(client.session.close_after_reply);
        for (command, error) in [
            ("CLIENT KILL ID 0", "-ERR client-id should be greater than 0\r\n"),
            ("CLIENT KILL ID x", "-ERR client-id should be greater than 0\r\n"),
            ("CLIENT KILL TYPE x", "-ERR Unknown client type 'x'\r\n"),
            ("CLIENT KILL USER x", "-ERR No such user 'x'\r\n"),
            ("CLIENT KILL SKIPME perhaps", "-ERR syntax error\r\n"),
            ("CLIENT KILL ID 1 ADDR", "-ERR syntax error\r\n"),
            ("CLIENT KILL", "-ERR wrong number of arguments for 'client|kill' command\r\n"),
            ("CLIENT NOPE", "-ERR unknown subcommand 'NOPE'. Try CLIENT HELP.\r\n"),
            ("CLIENT", "-ERR wrong number of arguments for 'client' command\r\n"),
        ] {
            assert_eq!(client.run(command), error, "{command}");
        }
    }

    #[test]
    fn modes_want_on_or_off() {
        let mut client = Client::new();
        assert_eq!(client.run("CLIENT NO-EVICT on"), "+OK\r\n");
        assert_eq!(client.run("CLIENT NO-TOUCH ON"), "+OK\r\n");
        assert!(client.session.no_evict && client.session.no_touch);
        assert!(client.run("CLIENT INFO").contains(" flags=eT "));
        assert_eq!(client.run("CLIENT NO-EVICT off"), "+OK\r\n");
        assert_eq!(client.run("CLIENT NO-TOUCH x"), "-ERR syntax error\r\n");
    }
}
