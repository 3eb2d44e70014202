//! Admission: what is decided about a command before it runs, and the errors of what is refused.

use ferrite_resp::{Args, Reply};

use crate::echo::Echo;
use crate::host::Host;
use crate::session::{QueuedCommand, Session};
use crate::spec::{CommandSpec, flag};
use crate::table;

/// Redis's limit for what of a client's bytes it repeats in an error.
const ECHO_MAX: usize = 128;

pub enum Admission {
    Run(&'static CommandSpec),
    /// The reply is written: an error, or `QUEUED`.
    Answered,
}

/// Decides whether the command may run. A refused one marks an open transaction as dirty.
///
/// # Panics
/// If there are no arguments: the driver skips empty commands.
#[inline]
pub fn admit(args: Args<'_>, session: &mut Session, reply: &mut Reply<'_>, host: &dyn Host) -> Admission {
    let Some(base) = table::lookup(args.get(0)) else {
        if speaks_http(args.get(0)) {
            session.close_after_reply = true;
            return Admission::Answered;
        }
        return refuse(None, unknown_command(args), session, reply);
    };
    let mut spec = base;
    if !base.subcommands.is_empty() && args.len() > 1 {
        match table::subcommand(base, args.get(1)) {
            Some(sub) => spec = sub,
            None => return refuse(None, unknown_subcommand(base, args.get(1)), session, reply),
        }
    }
    if !spec.arity_allows(args.len()) {
        return refuse(Some(spec), Echo::new(wrong_arity(spec)), session, reply);
    }
    if spec.has(flag::PROTECTED) && !host.debug_allowed(&session.addr) {
        return refuse(Some(spec), Echo::new(DEBUG_DISABLED), session, reply);
    }
    if !session.authenticated && !spec.has(flag::NO_AUTH) {
        return refuse(Some(spec), Echo::new("NOAUTH Authentication required."), session, reply);
    }
    if session.multi.is_some() && spec.has(flag::NO_MULTI | flag::DEFERS) {
        return refuse(Some(spec), Echo::new("ERR Command not allowed inside a transaction"), session, reply);
    }
    if session.out_of_memory && takes_memory(spec, session) {
        return refuse(Some(spec), Echo::new(OUT_OF_MEMORY), session, reply);
    }
    if session.writes_may_be_stopped && is_stopped_without_checkpoints(spec, session) && host.writes_are_stopped() {
        return refuse(Some(spec), Echo::new(NO_CHECKPOINT), session, reply);
    }
    if session.over_quota && grows(spec, session) {
        return refuse(Some(spec), Echo::new(OVER_QUOTA), session, reply);
    }
    if let Some(queue) = &mut session.multi
        && !spec.has(flag::NOT_QUEUED)
    {
        // A transaction that EXEC will refuse anyway need not keep its commands.
        if !queue.dirty {
            queue.commands.push(QueuedCommand::new(spec, args, session.command_context.take()));
        }
        reply.simple("QUEUED");
        return Admission::Answered;
    }
    Admission::Run(spec)
}

/// A browser that was made to send commands in a request's body begins with its own lines. As in Redis, it is cut off
/// without an answer before it gets to them.
fn speaks_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

const OUT_OF_MEMORY: &[u8] = b"OOM command not allowed when used memory > 'maxmemory'.";

const NO_CHECKPOINT: &[u8] = b"MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. \
    Commands that may modify the data set are disabled, because this instance is configured to report errors during writes if RDB \
    snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for details about the RDB error.";

/// Writes, an EXEC of one, and, as in Redis, PING: it is what health checks send.
#[cold]
fn is_stopped_without_checkpoints(spec: &CommandSpec, session: &Session) -> bool {
    match (&session.multi, spec.name) {
        (Some(queue), "exec") => queue.commands.iter().any(|command| command.spec.has(flag::WRITE)),
        (_, name) => spec.has(flag::WRITE) || name == "ping",
    }
}

/// What an open transaction keeps is memory too, whatever the command; only what ends it is let through, unless it is an
/// EXEC of a command that takes memory itself.
#[cold]
fn takes_memory(spec: &CommandSpec, session: &Session) -> bool {
    match (&session.multi, spec.name) {
        (Some(queue), "exec") => queue.commands.iter().any(|command| command.spec.has(flag::DENYOOM)),
        (Some(_), name) => !matches!(name, "discard" | "quit" | "reset"),
        (None, _) => spec.has(flag::DENYOOM),
    }
}

const OVER_QUOTA: &[u8] = b"ERR no space left: the data directory has reached 'disk-quota'. Delete keys, or raise it.";

/// Whether the command may need more disk space than a deletion does; an EXEC, whether one of its commands may.
#[cold]
fn grows(spec: &CommandSpec, session: &Session) -> bool {
    match (&session.multi, spec.name) {
        (Some(queue), "exec") => queue.commands.iter().any(|command| command.spec.has(flag::DENYOOM)),
        _ => spec.has(flag::DENYOOM),
    }
}

const DEBUG_DISABLED: &[u8] =
    b"ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", \
    you can run it from a local connection, otherwise you need to set this option in the configuration file, \
    and then restart the server.";

/// The text of the arity error, for commands that find it out themselves.
pub fn wrong_arity(spec: &CommandSpec) -> Vec<u8> {
    format!("ERR wrong number of arguments for '{}' command", spec.name).into_bytes()
}

/// The text for commands that check their subcommand's arguments themselves.
pub fn bad_subcommand_arguments(command: &str, subcommand: &[u8]) -> Echo {
    Echo::new("ERR unknown subcommand or wrong number of arguments for '")
        .client_up_to(subcommand, ECHO_MAX)
        .own(format!("'. Try {} HELP.", command.to_ascii_uppercase()))
}

#[cold]
fn refuse(spec: Option<&'static CommandSpec>, error: Echo, session: &mut Session, reply: &mut Reply<'_>) -> Admission {
    if spec.is_some_and(|spec| spec.name == "exec") {
        session.discard_transaction();
        session.answer(reply, error.as_reason("EXECABORT Transaction discarded because of: "));
    } else {
        session.mark_dirty();
        session.answer(reply, error);
    }
    Admission::Answered
}

#[cold]
fn unknown_command(args: Args<'_>) -> Echo {
    let mut text =
        Echo::new("ERR unknown command '").client_up_to(args.get(0), ECHO_MAX).own("', with args beginning with: ");
    let start = text.reply_len();
    for arg in args.iter().skip(1) {
        let used = text.reply_len() - start;
        if used >= ECHO_MAX {
            break;
        }
        text = text.own("'").client_up_to(arg, ECHO_MAX - used).own("' ");
    }
    text
}

#[cold]
fn unknown_subcommand(container: &CommandSpec, name: &[u8]) -> Echo {
    Echo::new("ERR unknown subcommand '")
        .client_up_to(name, ECHO_MAX)
        .own(format!("'. Try {} HELP.", container.name.to_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    /// Each pair was read off a Redis.
    #[test]
    fn unknown_commands_are_answered_letter_for_letter() {
        let mut client = Client::new();
        let x = |count: usize| "x".repeat(count);
        let with = |args: &str| format!("-ERR unknown command 'foo', with args beginning with: {args}\r\n");
        assert_eq!(client.run("foo"), with(""));
        assert_eq!(client.run("foo a b c"), with("'a' 'b' 'c' "));
        assert_eq!(client.run(&format!("foo {} y", x(130))), with(&format!("'{}' ", x(128))));
        let long = format!("foo {} {} z", x(100), "y".repeat(100));
        assert_eq!(client.run(&long), with(&format!("'{}' '{}' ", x(100), "y".repeat(25))));
        assert_eq!(client.run_args(&[b"foo", b"a\0b", b"c"]), with("'a' 'c' "));
        assert_eq!(
            client.run_args(&[b"foo\r\nbar"]),
            "-ERR unknown command 'foo  bar', with args beginning with: \r\n"
        );
        assert_eq!(client.run_args(&[b""]), "-ERR unknown command '', with args beginning with: \r\n");
        assert_eq!(
            client.run(&"f".repeat(200)),
            format!("-ERR unknown command '{}', with args beginning with: \r\n", "f".repeat(128))
        );
    }

    #[test]
    fn unknown_subcommands_point_to_help() {
        let mut client = Client::new();
        assert_eq!(client.run("client foo"), "-ERR unknown subcommand 'foo'. Try CLIENT HELP.\r\n");
        assert_eq!(client.run_args(&[b"CONFIG", b"a\0b"]), "-ERR unknown subcommand 'a'. Try CONFIG HELP.\r\n");
        assert_eq!(
            client.run(&format!("client {}", "x".repeat(200))),
            format!("-ERR unknown subcommand '{}'. Try CLIENT HELP.\r\n", "x".repeat(128))
        );
    }

    #[test]
    fn arity_is_checked_before_the_password_and_both_before_the_command_runs() {
        let mut client = Client::with_password("secret");
        assert_eq!(client.run("nope"), "-ERR unknown command 'nope', with args beginning with: \r\n");
        assert_eq!(client.run("ECHO"), "-ERR wrong number of arguments for 'echo' command\r\n");
        assert_eq!(client.run("CLIENT SETNAME"), "-ERR wrong number of arguments for 'client|setname' command\r\n");
        assert_eq!(client.run("ECHO x"), "-NOAUTH Authentication required.\r\n");
        assert_eq!(client.run("COMMAND COUNT"), "-NOAUTH Authentication required.\r\n");
        assert_eq!(client.run("QUIT"), "+OK\r\n");
    }

    #[test]
    fn commands_inside_multi_are_queued_until_one_is_refused() {
        let mut client = Client::new();
        client.session.multi = Some(Default::default());
        assert_eq!(client.run("echo one"), "+QUEUED\r\n");
        assert_eq!(client.run("SELECT nonsense"), "+QUEUED\r\n");
        let queue = client.session.multi.as_ref().expect("open");
        assert!(!queue.dirty);
        assert_eq!(queue.commands[0].spec.name, "echo");
        assert_eq!(queue.commands[0].args().get(1), b"one");
        assert!(client.run("nope").starts_with("-ERR unknown command"));
        assert_eq!(client.run("PING"), "+QUEUED\r\n");
        let queue = client.session.multi.as_ref().expect("open");
        assert!(queue.dirty);
        assert_eq!(queue.commands.len(), 2, "nothing is kept for a transaction that cannot be");
    }

    #[test]
    fn a_queued_command_takes_its_context_along() {
        use ferrite_telemetry::RemoteContext;
        let parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut client = Client::new();
        client.session.multi = Some(Default::default());
        client.session.command_context = RemoteContext::parse(parent, b"").map(RemoteContext::into_owned);
        client.run("PING");
        client.run("PING");
        let queue = client.session.multi.as_ref().expect("open");
        assert!(queue.commands[0].context.is_some());
        assert!(queue.commands[1].context.is_none());
    }

    #[test]
    fn without_memory_what_takes_memory_is_refused() {
        const OOM: &str = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
        let mut client = Client::new();
        client.run("SET k v");
        client.session.out_of_memory = true;
        for command in ["SET k w", "APPEND k w", "INCR n", "HSET h f v", "MSET a 1 b 2", "RENAMENX"] {
            let reply = client.run(command);
            let arity = reply.starts_with("-ERR wrong number");
            assert!(if command == "RENAMENX" { arity } else { reply == OOM }, "{command}: {reply}");
        }
        for (command, reply) in [("GET k", "$1\r\nv\r\n"), ("EXPIRE k 100", ":1\r\n"), ("MULTI", "+OK\r\n")] {
            assert_eq!(client.run(command), reply, "{command}");
        }
        assert_eq!(client.run("GET k"), OOM, "a queue takes memory");
        assert_eq!(client.run("EXEC"), "-EXECABORT Transaction discarded because of previous errors.\r\n");
        client.session.out_of_memory = false;
        client.run("MULTI");
        client.run("DEL k");
        client.session.out_of_memory = true;
        assert_eq!(client.run("EXEC"), "*1\r\n:1\r\n", "a transaction that takes none");
        client.session.out_of_memory = false;
        client.run("MULTI");
        client.run("SET k v");
        client.session.out_of_memory = true;
        assert_eq!(
            client.run("EXEC"),
            "-EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'.\r\n"
        );
        assert_eq!(client.run("EXEC"), "-ERR EXEC without MULTI\r\n");
        client.session.out_of_memory = false;
        client.run("MULTI");
        client.session.out_of_memory = true;
        assert_eq!(client.run("DISCARD"), "+OK\r\n");
    }

    #[test]
    fn without_checkpoints_what_writes_is_refused() {
        let stopped = "-MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands \
            that may modify the data set are disabled, because this instance is configured to report errors during writes if RDB \
            snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for details about the RDB \
            error.\r\n";
        let mut client = Client::new();
        client.run("SET k v");
        client.session.writes_may_be_stopped = true;
        assert_eq!(client.run("SET k v"), "+OK\r\n", "the host has the last word");
        client.host.writes_are_stopped.set(true);
        for command in ["SET k w", "DEL k", "HSET h f v", "EXPIRE k 100", "FLUSHALL", "PING"] {
            assert_eq!(client.run(command), stopped, "{command}");
        }
        for (command, reply) in [("GET k", "$1\r\nv\r\n"), ("ECHO x", "$1\r\nx\r\n"), ("MULTI", "+OK\r\n")] {
            assert_eq!(client.run(command), reply, "{command}");
        }
        assert_eq!(client.run("GET k"), "+QUEUED\r\n");
        assert_eq!(client.run("EXEC"), "*1\r\n$1\r\nv\r\n", "a transaction that writes nothing");
        client.run("MULTI");
        assert_eq!(client.run("SET k w"), stopped);
        assert_eq!(client.run("EXEC"), "-EXECABORT Transaction discarded because of previous errors.\r\n");
        client.host.writes_are_stopped.set(false);
        client.run("MULTI");
        client.run("SET k w");
        client.host.writes_are_stopped.set(true);
        assert!(
            client.run("EXEC").starts_with("-EXECABORT Transaction discarded because of: MISCONF Redis is configured")
        );
        assert_eq!(client.run("GET k"), "$1\r\nv\r\n");
    }

    #[test]
    fn every_refusal_marks_the_transaction() {
        for command in ["nope", "CLIENT nope", "ECHO", "SHUTDOWN", "CONFIG REWRITE", "OTEL.TRACES LAST"] {
            let mut client = Client::new();
            client.session.multi = Some(Default::default());
            assert!(client.run(command).starts_with("-ERR "), "{command}");
            assert!(client.session.multi.as_ref().is_some_and(|queue| queue.dirty), "{command}");
        }
    }
}
