//! The configuration's sources: defaults, file, environment, command line, each over the one before.
//!
//! [`KEYS`] is the one table of keys. Reading each source, `--help`, CONFIG REWRITE and the README
//! come from it.

mod arguments;
mod environment;
mod exporters;
mod file;
mod keys;
mod kinds;
mod rewrite;
mod service;
mod suggest;

pub use arguments::{Arguments, Request};
pub use keys::{KEYS, Key};

use std::fmt;
use std::path::PathBuf;

use ferrite_node::config::{Config, TelemetryConfig};

/// One thing that is wrong, and where: `ferrite.toml:7`, `--server.port` or `FERRITE_SERVER__PORT`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {message}")]
pub struct Problem {
    origin: String,
    message: String,
}

impl Problem {
    fn new(origin: impl Into<String>, message: impl Into<String>) -> Self {
        Self { origin: origin.into(), message: message.into() }
    }
}

/// Everything that is wrong with a configuration, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            let line_break = if n == 0 { "" } else { "\n" };
            write!(f, "{line_break}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// What a configuration is made from. Kept, so that CONFIG REWRITE can tell what the file has to say.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub file: Option<ConfigFile>,
    /// Every variable of the environment; those that mean nothing here are passed over.
    pub environment: Vec<(String, String)>,
    pub flags: Vec<Flag>,
}

/// A configuration file: where it is, as the user wrote it, and its text when it was read.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    pub path: PathBuf,
    pub text: String,
}

/// A key that was given on the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    pub key: &'static Key,
    pub value: String,
}

/// A configuration that was read without a problem.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub sources: Sources,
    /// `OTEL_*` variables that were passed over: the specification forbids to fail on them.
    pub warnings: Vec<String>,
}

impl Sources {
    /// Puts the sources over one another.
    pub fn load(self) -> Result<Loaded, Problems> {
        let (config, warnings) = self.layered(self.file.as_ref().map(|file| file.text.as_str()))?;
        Ok(Loaded { config, sources: self, warnings })
    }

    /// Variables that look as if they were meant for the server and say nothing to it.
    pub fn unknown_variables(&self) -> Vec<String> {
        let text = self.file.as_ref().map_or("", |file| file.text.as_str());
        let is_used = |name: &str| text.contains(&format!("${{{name}}}"));
        environment::unknown(&self.environment, is_used)
    }

    fn layered(&self, text: Option<&str>) -> Result<(Config, Vec<String>), Problems> {
        let mut config = Config::default();
        let mut problems = Vec::new();
        let before = config.telemetry.clone();
        if let (Some(file), Some(text)) = (&self.file, text) {
            file::apply(&file.path, text, &self.environment, &mut config, &mut problems);
        }
        service::adopt(&before, &mut config.telemetry);
        let mut warnings = environment::apply(&self.environment, &mut config, &mut problems);
        let before = config.telemetry.clone();
        for Flag { key, value } in &self.flags {
            if let Err(message) = key.apply(&mut config, &kinds::Given::Text(value.clone())) {
                problems.push(Problem::new(format!("--{}", key.path), message));
            }
        }
        service::adopt(&before, &mut config.telemetry);
        warnings.extend(batches_that_fit(&mut config.telemetry));
        if problems.is_empty() { Ok((config, warnings)) } else { Err(Problems(problems)) }
    }
}

/// A batch must not be larger than the queue (OpenTelemetry's specification, "Batching processor"): it could never be full.
fn batches_that_fit(telemetry: &mut TelemetryConfig) -> Vec<String> {
    let sizes = [
        ("", "batch_size", &mut telemetry.batch_size, telemetry.queue_size),
        ("logs_", "logs_batch_size", &mut telemetry.logs_batch_size, telemetry.logs_queue_size),
    ];
    let too_large = sizes.into_iter().filter(|(_, _, batch, queue)| **batch > *queue);
    too_large
        .map(|(signal, key, batch, queue)| {
            let wanted = std::mem::replace(batch, queue);
            format!("telemetry.{key} is {wanted}, more than telemetry.{signal}queue_size has room for; it is {queue} instead")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration from a file's text, variables, and flags as `section.key=value`.
    pub(super) fn load(text: &str, environment: &[(&str, &str)], flags: &[&str]) -> Result<Loaded, String> {
        let file = ConfigFile { path: "ferrite.toml".into(), text: text.to_owned() };
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let flags = flags.iter().map(|flag| format!("--{flag}"));
        let arguments = Arguments::parse(std::iter::once("ferrite".to_owned()).chain(flags)).unwrap();
        let sources = Sources { file: Some(file), environment: environment.collect(), flags: arguments.flags };
        sources.load().map_err(|problems| problems.to_string())
    }

    #[test]
    fn the_command_line_goes_over_the_environment_over_the_file_over_the_default() {
        let text = "[server]\nport = 1\nmaxclients = 1\ndatabases = 1\n";
        let environment = [("FERRITE_SERVER__MAXCLIENTS", "2"), ("FERRITE_SERVER__DATABASES", "2")];
        let config = load(text, &environment, &["server.databases=3"]).unwrap().config;
        let server = config.server;
        assert_eq!((server.port, server.maxclients, server.databases), (1, 2, 3));
        assert_eq!(server.slowlog_max_len, 128);
    }

    #[test]
    fn a_batch_is_no_larger_than_its_queue() {
        let sizes = |text: &str, environment: &[(&str, &str)]| {
            let Loaded { config, warnings, .. } = load(text, environment, &[]).unwrap();
            ((config.telemetry.batch_size, config.telemetry.logs_batch_size), warnings)
        };
        let (spans, warnings) = sizes("", &[("OTEL_BSP_MAX_QUEUE_SIZE", "256")]);
        assert_eq!(spans, (256, 512));
        assert_eq!(
            warnings,
            ["telemetry.batch_size is 512, more than telemetry.queue_size has room for; it is 256 instead"]
        );
        let (logs, warnings) = sizes("[telemetry]\nlogs_queue_size = 7\n", &[("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "8")]);
        assert_eq!(logs, (512, 7));
        assert_eq!(
            warnings,
            ["telemetry.logs_batch_size is 8, more than telemetry.logs_queue_size has room for; it is 7 instead"]
        );
        assert_eq!(sizes("", &[("OTEL_BSP_MAX_QUEUE_SIZE", "512")]).1, [""; 0]);
    }

    #[test]
    fn times_that_no_clock_can_wait_for_are_named() {
        for (key, bad) in [
            ("metrics_export_interval", "1.9e19"),
            ("metrics_export_interval", "1e-10"),
            ("metrics_export_interval", "0"),
            ("export_timeout_ms", "360000000000001"),
            ("batch_timeout_ms", "9223372036854775807"),
            ("traces.timeout_ms", "9223372036854775807"),
            ("logs.deadline_ms", "9223372036854775807"),
        ] {
            let problem = load("", &[], &[&format!("telemetry.{key}={bad}")]).unwrap_err();
            assert!(problem.starts_with(&format!("--telemetry.{key}: expected a ")), "{problem}");
        }
        // In a variable of OpenTelemetry's it is a warning, and nothing is set.
        for (variable, bad) in [
            ("OTEL_METRIC_EXPORT_INTERVAL", "0.0001"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "0.5"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1e30"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "soon"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "9223372036854775807"),
        ] {
            let loaded = load("", &[(variable, bad)], &[]).unwrap();
            assert_eq!(loaded.config, Config::default(), "{variable}={bad}");
            assert!(
                loaded.warnings[0].starts_with(&format!("{variable} is ignored: expected a ")),
                "{:?}",
                loaded.warnings
            );
        }
        for good in ["0.001", "31536000"] {
            load("", &[], &[&format!("telemetry.metrics_export_interval={good}")]).unwrap();
        }
    }

    #[test]
    fn every_problem_of_every_source_is_named() {
        let text = "[server]\nport = 1\nprot = 2\n";
        let environment = [("FERRITE_AOF__ENABLED", "perhaps")];
        let problems = load(text, &environment, &["storage.index_size_mb=big"]).unwrap_err();
        assert_eq!(
            problems,
            "ferrite.toml:3: unknown key \"server.prot\" (did you mean \"server.port\"?)\n\
             FERRITE_AOF__ENABLED: expected true or false, found \"perhaps\"\n\
             --storage.index_size_mb: expected a number greater than 0, found \"big\""
        );
    }
}
