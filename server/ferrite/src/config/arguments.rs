//! The command line: every key as `--section.name value`, and a few short forms.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use ferrite_node::config::Config;

use super::{Flag, KEYS};
use crate::trace::TraceRequest;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Run,
    /// `check DIR`.
    Check(PathBuf),
    /// `trace`.
    Trace(TraceRequest),
    /// `config check [FILE] [--print]`.
    CheckConfig {
        file: Option<PathBuf>,
        print: bool,
    },
    Version,
    /// `--version --features`.
    VersionWithFeatures,
}

/// A command line without a mistake.
#[derive(Clone, Debug)]
pub struct Arguments {
    pub request: Request,
    pub config: Option<PathBuf>,
    pub flags: Vec<Flag>,
}

impl Arguments {
    /// Reads the command line, the program's name first. The error is the text to print, also of `--help`,
    /// and knows its exit code.
    pub fn parse(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let matches = command().try_get_matches_from(arguments)?;
        if let Some(("check", check)) = matches.subcommand() {
            let dir = check.get_one::<PathBuf>("dir").expect("clap asks for it").clone();
            return Ok(Self { request: Request::Check(dir), config: None, flags: Vec::new() });
        }
        if let Some(("trace", trace)) = matches.subcommand() {
            let request = Request::Trace(trace_request(trace));
            return Ok(Self { request, config: None, flags: Vec::new() });
        }
        if let Some(("config", config)) = matches.subcommand() {
            let (_, check) = config.subcommand().expect("clap asks for it");
            let file = check.get_one::<PathBuf>("file").cloned();
            let request = Request::CheckConfig { file, print: check.get_flag("print") };
            return Ok(Self { request, config: None, flags: Vec::new() });
        }
        let request = match (matches.get_flag("version"), matches.get_flag("features")) {
            (false, _) => Request::Run,
            (true, false) => Request::Version,
            (true, true) => Request::VersionWithFeatures,
        };
        Ok(Self { request, config: matches.get_one::<PathBuf>("config").cloned(), flags: flags(&matches) })
    }
}

/// What is asked of OTEL.TRACES, and of whom.
fn trace_request(matches: &ArgMatches) -> TraceRequest {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
    let words: Vec<String> = if let Some(ms) = matches.get_one::<f64>("slow") {
        vec!["SLOW".to_owned(), ms.to_string()]
    } else if matches.get_flag("errors") {
        vec!["ERRORS".to_owned()]
    } else if let Some(parts) = matches.get_many::<String>("find") {
        ["FIND".to_owned()].into_iter().chain(parts.cloned()).collect()
    } else if let Some(id) = text("get") {
        vec!["GET".to_owned(), id]
    } else {
        vec!["LAST".to_owned()]
    };
    let count = matches.get_one::<u64>("count").copied().unwrap_or(TRACES_DEFAULT);
    TraceRequest {
        count: (words[0] != "GET").then_some(count),
        words,
        follow: matches.get_flag("follow"),
        host: text("host").expect("it has a default"),
        port: *matches.get_one("port").expect("it has a default"),
        password: text("password"),
        file: path("file"),
        export: path("export"),
    }
}

/// What is shown without a count.
const TRACES_DEFAULT: u64 = 10;

fn trace_command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let path =
        |name: &'static str, help: &'static str| option(name, "FILE", help).value_parser(clap::value_parser!(PathBuf));
    Command::new("trace")
        .about("Shows the last traces of a running server, exported or not, or those of a file that a crash left behind")
        .after_help(
            "A server writes its flight recorder to flight-recorder.crash in its data directory when it crashes, and to \
             flight-recorder.quit at SIGQUIT, after which it goes on.",
        )
        .arg(option("slow", "MS", "Only what took as many milliseconds").value_parser(clap::value_parser!(f64)))
        .arg(Arg::new("errors").long("errors").action(ArgAction::SetTrue).help("Only what failed"))
        .arg(
            option("find", "WORD", "As OTEL.TRACES FIND: cmd GET key 'user:*' client 7 min-duration 5 tier disk")
                .num_args(1..),
        )
        .arg(option("get", "TRACE-ID", "One trace"))
        .group(ArgGroup::new("which").args(["slow", "errors", "find", "get"]))
        .arg(
            option("count", "N", "How many [default: 10]").short('n').value_parser(clap::value_parser!(u64).range(1..)),
        )
        .arg(Arg::new("follow").long("follow").short('f').action(ArgAction::SetTrue).help("Goes on with what comes"))
        .arg(path("export", "Writes OTLP/JSON to a file that is called …otlp.json, Chrome trace events to …chrome.json"))
        .arg(path("file", "Reads the file of a crash or of SIGQUIT instead of asking a server"))
        .arg(option("host", "HOST", "The server's host").default_value("127.0.0.1"))
        .arg(option("port", "PORT", "Its port").default_value("6379").value_parser(clap::value_parser!(u16)))
        .arg(option("password", "PASSWORD", "Its password").env("REDISCLI_AUTH").hide_env_values(true))
}

fn flags(matches: &ArgMatches) -> Vec<Flag> {
    KEYS.iter()
        .filter_map(|key| {
            let value = matches.get_one::<String>(key.path)?.clone();
            Some(Flag { key, value })
        })
        .collect()
}

fn command() -> Command {
    let switch =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("Configuration file (TOML)");
    Command::new("ferrite")
        .about("A Redis-compatible server with OpenTelemetry built in")
        .after_help(
            "The command line goes over the environment (FERRITE_<SECTION>__<KEY>, OTEL_*), which goes over \
             the file.",
        )
        .disable_version_flag(true)
        .arg(config)
        .subcommand(
            Command::new("check")
                .about(
                    "Verifies every file of a data directory that no server uses; the exit code is 1 if one is damaged",
                )
                .arg(Arg::new("dir").value_name("DIR").required(true).value_parser(clap::value_parser!(PathBuf))),
        )
        .subcommand(trace_command())
        .subcommand(
            Command::new("config")
                .about("Looks at a configuration and starts nothing")
                .subcommand_required(true)
                .subcommand(
                    Command::new("check")
                        .about(
                            "Names every problem of a file and of the environment; the exit code is 2 if there is one",
                        )
                        .arg(Arg::new("file").value_name("FILE").value_parser(clap::value_parser!(PathBuf)))
                        .arg(switch("print", "Print what every key would be")),
                ),
        )
        .arg(switch("version", "Print the version").short('V'))
        .arg(switch("features", "With --version: also what was compiled in").requires("version"))
        .args(KEYS.iter().map(|key| {
            let default = key.show(&Config::default()).to_string();
            let arg = Arg::new(key.path)
                .long(key.path)
                .value_name("VALUE")
                .help(format!("{} [default: {}]", key.doc, default.trim()))
                .help_heading(key.section)
                // The last one counts, so that a wrapper's flags can be overruled.
                .action(ArgAction::Set)
                .overrides_with(key.path)
                .allow_negative_numbers(true);
            match key.short_form {
                Some(short) => arg.visible_alias(short),
                None => arg,
            }
        }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::parse(std::iter::once("ferrite").chain(line.split_whitespace()))
    }

    fn given(line: &str) -> Vec<(String, String)> {
        parse(line).unwrap().flags.into_iter().map(|flag| (flag.key.path.to_owned(), flag.value)).collect()
    }

    #[test]
    fn a_key_takes_its_value_after_a_space_or_an_equals_sign() {
        for line in ["--server.slowlog_log_slower_than -1", "--server.slowlog_log_slower_than=-1"] {
            assert_eq!(given(line), [("server.slowlog_log_slower_than".to_owned(), "-1".to_owned())]);
        }
        assert_eq!(given("--server.port 1 --port 2"), [("server.port".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn the_short_forms_are_the_keys() {
        let given = given("--port 1 --bind ::1 --dir d --admin-port 2 --workers 3");
        let paths: Vec<&str> = given.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["server.port", "server.bind", "server.workers", "storage.dir", "admin.port"]);
    }

    #[test]
    fn a_file_and_the_requests_are_read() {
        assert_eq!(parse("--config a.toml").unwrap().config, Some(PathBuf::from("a.toml")));
        assert_eq!(parse("").unwrap().request, Request::Run);
        assert_eq!(parse("--version").unwrap().request, Request::Version);
        assert_eq!(parse("--version --features").unwrap().request, Request::VersionWithFeatures);
    }

    #[test]
    fn a_directory_to_check_is_asked_for() {
        assert_eq!(parse("check data").unwrap().request, Request::Check(PathBuf::from("data")));
        assert_eq!(parse("check").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn traces_are_asked_for_as_otel_traces_takes_it() {
        let words = |line: &str| match parse(line).unwrap().request {
            Request::Trace(request) => (request.words.join(" "), request.count),
            other => panic!("{other:?}"),
        };
        for (line, asked, count) in [
            ("trace", "LAST", Some(10)),
            ("trace --slow 2.5 -n 3", "SLOW 2.5", Some(3)),
            ("trace --errors --follow", "ERRORS", Some(10)),
            ("trace --find cmd GET key user:*", "FIND cmd GET key user:*", Some(10)),
            ("trace --get 4bf92f3577b34da6a3ce929d0e0e4736", "GET 4bf92f3577b34da6a3ce929d0e0e4736", None),
        ] {
            assert_eq!(words(line), (asked.to_owned(), count), "{line}");
        }
        assert_eq!(parse("trace --slow 1 --errors").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_configuration_to_check_may_be_the_environment_alone() {
        let request = |line| parse(line).unwrap().request;
        let file = Some(PathBuf::from("a.toml"));
        assert_eq!(request("config check a.toml --print"), Request::CheckConfig { file, print: true });
        assert_eq!(request("config check"), Request::CheckConfig { file: None, print: false });
        assert_eq!(parse("config").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn an_unknown_flag_is_named_with_exit_code_2() {
        let error = parse("--server.prot 1").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(text.contains("--server.prot") && text.contains("--server.port"), "{text}");
    }

    #[test]
    fn help_names_every_key_and_the_command_is_sound() {
        command().debug_assert();
        let error = parse("--help").unwrap_err();
        assert_eq!(error.exit_code(), 0);
        let text = error.to_string();
        for key in KEYS {
            assert!(text.contains(&format!("--{}", key.path)), "{}", key.path);
        }
    }
}
