//! `ferrite config check [FILE]`: whether a server would start with this file and this environment, and what it would go by.

use std::path::PathBuf;
use std::process::ExitCode;

use ferrite_node::config::Config;

use crate::config::{KEYS, Loaded};
use crate::{EXIT_CONFIGURATION, load, log_settings};

/// Keys whose values are not printed.
const SECRETS: [&str; 3] = ["server.requirepass", "telemetry.headers", "telemetry.redaction.salt"];

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
            let shown = key.show(&loaded.config).to_string();
            // What an empty one shows is no secret.
            let is_secret = SECRETS.contains(&key.path) && shown != key.show(&Config::default()).to_string();
            println!("{} = {}", key.path, if is_secret { "<set>" } else { shown.trim() });
        }
    }
    println!("the configuration is sound");
    ExitCode::SUCCESS
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
    fn the_secrets_are_keys() {
        for secret in SECRETS {
            assert!(KEYS.iter().any(|key| key.path == secret), "{secret}");
        }
    }
}
