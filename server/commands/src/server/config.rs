//! CONFIG: the protocol's side; the parameters are the node's.

use std::borrow::Cow;

use ferrite_keyspace::Pause;
use ferrite_resp::Reply;

use crate::call::Call;
use crate::echo::Echo;
use crate::help;
use crate::host::{ConfigSetError, Deferred};
use crate::spec::{Arg, CommandSpec, Group, Handler, flag};

const fn sub(name: &'static str, arity: i32, handler: Handler, since: &'static str) -> CommandSpec {
    CommandSpec::new(name, arity, handler)
        .group(Group::Server)
        .since(since)
        .complexity("O(1)")
        .flags(flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE)
}

const EVERYWHERE: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

pub static SPECS: &[CommandSpec] = &[CommandSpec::container("config", SUBCOMMANDS)
    .group(Group::Server)
    .since("2.0.0")
    .complexity("Depends on subcommand.")
    .summary("Holds the commands about the configuration.")];

static SUBCOMMANDS: &[CommandSpec] = &[
    sub("config|get", -3, get, "2.0.0")
        .complexity("O(N)")
        .summary("Gives the parameters whose names match, with their values.")
        .args(&[Arg::string("parameter").multiple()]),
    sub("config|set", -4, set, "2.0.0")
        .complexity("O(N)")
        .summary("Changes parameters, all of them or none.")
        .tips(EVERYWHERE)
        .args(&[Arg::block("data", &[Arg::string("parameter"), Arg::string("value")]).multiple()]),
    sub("config|resetstat", 2, reset_statistics, "2.0.0")
        .summary("Sets the statistics of INFO to zero.")
        .tips(EVERYWHERE),
    sub("config|rewrite", 2, rewrite, "2.8.0")
        .summary("Writes the changed parameters into the configuration file.")
        .flags(flag::DEFERS)
        .tips(EVERYWHERE),
    CommandSpec::new("config|help", 2, show_help)
        .group(Group::Server)
        .since("5.0.0")
        .complexity("O(1)")
        .flags(flag::LOADING | flag::STALE)
        .summary("Explains the subcommands."),
];

fn get(call: &mut Call<'_>) -> Result<(), Pause> {
    let mut found: Vec<(Cow<'static, str>, Cow<'static, str>)> = Vec::new();
    for pattern in call.args.iter().skip(2) {
        for (name, value) in call.host.config_get(pattern) {
            if found.iter().all(|(earlier, _)| *earlier != name) {
                found.push((name, value));
            }
        }
    }
    call.reply.map(found.len());
    for (name, value) in found {
        call.reply.bulk(name.as_bytes());
        call.reply.bulk(value.as_bytes());
    }
    Ok(())
}

fn set(call: &mut Call<'_>) -> Result<(), Pause> {
    let args = call.args;
    if !args.len().is_multiple_of(2) {
        call.reply.error("ERR syntax error");
        return Ok(());
    }
    let parameters: Vec<_> = (2..args.len()).step_by(2).map(|at| (args.get(at), args.get(at + 1))).collect();
    match call.host.config_set(&parameters) {
        Ok(()) => call.reply.ok(),
        Err(error) => call.echo(error.reply()),
    }
    Ok(())
}

impl ConfigSetError {
    /// The error reply, letter for letter as Redis's.
    fn reply(&self) -> Echo {
        let (name, reason) = match self {
            ConfigSetError::Unknown(name) => {
                return Echo::new("ERR Unknown option or number of arguments for CONFIG SET - '")
                    .client(name.as_bytes())
                    .own("'");
            }
            ConfigSetError::Duplicate(name) => (name, "duplicate parameter"),
            ConfigSetError::Immutable(name) => (name, "can't set immutable config"),
            ConfigSetError::Refused { name, reason } => (name, reason.as_str()),
        };
        Echo::new("ERR CONFIG SET failed (possibly related to argument '")
            .client(name.as_bytes())
            .own(format!("') - {reason}"))
    }
}

fn reset_statistics(call: &mut Call<'_>) -> Result<(), Pause> {
    call.host.reset_statistics();
    call.reply.ok();
    Ok(())
}

fn rewrite(call: &mut Call<'_>) -> Result<(), Pause> {
    call.session.deferred = Some(Deferred::ConfigRewrite);
    Ok(())
}

/// The answer to CONFIG REWRITE; an error says why nothing was written.
pub fn write_rewritten(reply: &mut Reply<'_>, result: Result<(), String>) {
    match result {
        Ok(()) => reply.ok(),
        Err(reason) => reply.error(format!("ERR {reason}")),
    }
}

fn show_help(call: &mut Call<'_>) -> Result<(), Pause> {
    help::write(
        &mut call.reply,
        "config",
        &[
            "GET <pattern> [<pattern> ...]",
            "    Gives the parameters whose names match a glob, with their values.",
            "SET <parameter> <value> [<parameter> <value> ...]",
            "    Changes parameters, all of them or none.",
            "RESETSTAT",
            "    Sets the statistics of INFO to zero.",
            "REWRITE",
            "    Writes the changed parameters into the configuration file.",
        ],
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Client;
    use ferrite_resp::Protocol;

    #[test]
    fn get_takes_several_patterns_and_names_each_parameter_once() {
        let mut client = Client::new();
        let both = "$11\r\nappendfsync\r\n$8\r\neverysec\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n";
        assert_eq!(client.run("CONFIG GET append* APPENDONLY nope"), format!("*4\r\n{both}"));
        assert_eq!(client.run("CONFIG GET nope"), "*0\r\n");
        client.run("HELLO 3");
        assert_eq!(client.run("CONFIG GET append*"), format!("%2\r\n{both}"));
        assert_eq!(client.run("CONFIG GET nope"), "%0\r\n");
        assert_eq!(client.run("CONFIG GET"), "-ERR wrong number of arguments for 'config|get' command\r\n");
    }

    #[test]
    fn set_passes_all_pairs_at_once() {
        let mut client = Client::new();
        assert_eq!(client.run("CONFIG SET appendonly no APPENDFSYNC always"), "+OK\r\n");
        assert!(client.run("CONFIG GET appendonly").ends_with("$2\r\nno\r\n"));
        assert!(client.run("CONFIG GET appendfsync").ends_with("$6\r\nalways\r\n"));
        assert_eq!(client.run("CONFIG SET a b c"), "-ERR syntax error\r\n");
        assert_eq!(client.run("CONFIG SET a"), "-ERR wrong number of arguments for 'config|set' command\r\n");
        assert_eq!(
            client.run("CONFIG SET nope 1"),
            "-ERR Unknown option or number of arguments for CONFIG SET - 'nope'\r\n"
        );
    }

    #[test]
    fn refusals_read_as_in_redis() {
        let name = || "x".to_owned();
        let expected = |reason| {
            Echo::new("ERR CONFIG SET failed (possibly related to argument '")
                .client(b"x")
                .own(format!("') - {reason}"))
        };
        for (error, reason) in [
            (ConfigSetError::Duplicate(name()), "duplicate parameter"),
            (ConfigSetError::Immutable(name()), "can't set immutable config"),
            (
                ConfigSetError::Refused { name: name(), reason: "argument must be a memory value".into() },
                "argument must be a memory value",
            ),
        ] {
            assert_eq!(error.reply(), expected(reason));
        }
    }

    #[test]
    fn resetstat_and_rewrite() {
        let mut client = Client::new();
        assert_eq!(client.run("CONFIG RESETSTAT"), "+OK\r\n");
        assert_eq!(client.host.resets.get(), 1);
        assert_eq!(client.run("CONFIG REWRITE"), "");
        assert_eq!(client.session.deferred.take(), Some(Deferred::ConfigRewrite));
        let answer = |result| {
            let mut out = Vec::new();
            write_rewritten(&mut Reply::new(&mut out, Protocol::Resp2), result);
            String::from_utf8(out).expect("ASCII")
        };
        assert_eq!(answer(Ok(())), "+OK\r\n");
        let no_file = "The server is running without a config file";
        assert_eq!(answer(Err(no_file.to_owned())), format!("-ERR {no_file}\r\n"));
    }
}
