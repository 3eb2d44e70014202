//! `ferrite config check [FILE]`: whether a server would start with this file and this environment, and what it would go by.

use std::path::PathBuf;
use std::process::ExitCode;

use ferrite_node::config::Config;

use crate::config::{KEYS, Key, Loaded};
use crate::{EXIT_CONFIGURATION, load, log_settings};

/// Keys whose values are printed without what is secret in them.
const ENDPOINTS: [&str; 4] =
    ["telemetry.endpoint", "telemetry.traces.endpoint", "telemetry.metrics.endpoint", "telemetry.logs.endpoint"];

/// Prints every problem with its place, or that there is none; warnings too, which keep no server from starting. With `print`
/// also every key's value. The exit code is 2 if a server would not start.
pub fn check(file: Option<PathBuf>, print: bool) -> ExitCode {
    let loaded = match load(file, Vec::new()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    for warning in loaded.warnings.iter().chain(&loaded.sources.unknown_variables()) {
        eprintln!("warning: {warning}");
    }
    if let Err(problem) = startable(&loaded) {
        eprintln!("{problem}");
        return ExitCode::from(EXIT_CONFIGURATION);
    }
    if print {
        for key in KEYS {
            println!("{} = {}", key.path, told(key, &loaded.config));
        }
    }
    println!("the configuration is sound");
    ExitCode::SUCCESS
}

/// A key's value as far as everybody may read it.
fn told(key: &Key, config: &Config) -> String {
    let value = key.show(config);
    match value.as_str() {
        // What an empty one shows is no secret.
        _ if key.is_secret() && value.to_string() != key.show(&Config::default()).to_string() => "<set>".to_owned(),
        Some(url) if ENDPOINTS.contains(&key.path) => {
            toml_edit::Value::from(ferrite_otlp::without_secrets(url)).to_string()
        }
        _ => value.to_string().trim().to_owned(),
    }
}

/// What single values do not show.
fn startable(loaded: &Loaded) -> Result<(), String> {
    loaded.config.telemetry.policy().map_err(|problem| format!("telemetry: {problem}"))?;
    let written = ferrite_otlp::subscriber(&log_settings(loaded), std::io::sink, None, None);
    written.map(drop).map_err(|problem| format!("logging.level: {problem}"))?;
    #[cfg(feature = "otel")]
    crate::export::check(&loaded.config).map_err(|problem| format!("telemetry: {problem}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secrets_and_the_endpoints_of_all_signals_are_among_the_keys() {
        let secrets = KEYS.iter().filter(|key| key.is_secret()).map(|key| key.path);
        let expected = [
            "server.requirepass",
            "telemetry.headers",
            "telemetry.traces.headers",
            "telemetry.metrics.headers",
            "telemetry.logs.headers",
            "telemetry.redaction.salt",
        ];
        assert!(secrets.eq(expected));
        let endpoints = KEYS.iter().filter(|key| key.name == "endpoint").map(|key| key.path);
        assert!(endpoints.eq(ENDPOINTS));
    }
}
