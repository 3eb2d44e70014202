//! The command line: every key as `--section.name value`, and a few short forms.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};
use ferrite_node::config::Config;

use super::{Flag, KEYS};

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Run,
    /// `check DIR`.
    Check(PathBuf),
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
        let request = match (matches.get_flag("version"), matches.get_flag("features")) {
            (false, _) => Request::Run,
            (true, false) => Request::Version,
            (true, true) => Request::VersionWithFeatures,
        };
        Ok(Self { request, config: matches.get_one::<PathBuf>("config").cloned(), flags: flags(&matches) })
    }
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
