//! The `ferrite` server: reads its configuration, then runs a node on the real World.

// With `ferrite-io-real` the only crate that may touch the operating system: it reads the configuration file.
#![allow(clippy::disallowed_methods)]

mod check;
mod config;
mod config_check;
#[cfg(feature = "otel")]
mod container;
#[cfg(feature = "otel")]
mod destination;
#[cfg(feature = "otel")]
mod export;
mod process;
mod run;
mod trace;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use ferrite_io::{Clock, Entropy};
use ferrite_io_real::{RealClock, RealEntropy};
use ferrite_node::config::LogFormat;
use ferrite_otlp::{ColdSpans, ExportQueue, LogQueue, LogSettings};
use ferrite_telemetry::Sampling;

use config::{Arguments, ConfigFile, Flag, Loaded, Request, Sources};

#[global_allocator]
static ALLOCATOR: ferrite_io_real::Allocator = ferrite_io_real::Allocator;

/// The configuration is wrong: nothing was started.
const EXIT_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    ferrite_io_real::Allocator::bound_free_memory();
    let arguments = match Arguments::parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        // Prints and ends: 0 after --help, 2 after a mistake.
        Err(error) => error.exit(),
    };
    match arguments.request {
        Request::Version => println!("ferrite {}", env!("CARGO_PKG_VERSION")),
        Request::VersionWithFeatures => {
            println!("ferrite {} (features: {})", env!("CARGO_PKG_VERSION"), features().join(", "));
        }
        Request::Check(dir) => return check::check(dir),
        Request::Trace(request) => return trace::trace(&request),
        Request::CheckConfig { file, print } => return config_check::check(file, print),
        Request::Run => {
            let loaded = match load(arguments.config, arguments.flags) {
                Ok(loaded) => loaded,
                Err(message) => {
                    eprintln!("{message}");
                    return ExitCode::from(EXIT_CONFIGURATION);
                }
            };
            // Made first: the spans and lines of the start wait there until something exports them.
            let telemetry = &loaded.config.telemetry;
            let queues = Queues {
                spans: Arc::new(ExportQueue::new(telemetry.queue_size, telemetry.batch_size)),
                logs: Arc::new(LogQueue::new(telemetry.logs_queue_size, telemetry.logs_batch_size)),
            };
            let sampling = match telemetry.policy() {
                Ok((policy, _)) => Sampling::new(policy),
                Err(message) => {
                    eprintln!("ferrite: telemetry: {message}");
                    return ExitCode::from(EXIT_CONFIGURATION);
                }
            };
            if let Err(message) = prepare(&loaded, &queues, &sampling) {
                eprintln!("ferrite: {message}");
                return ExitCode::from(EXIT_CONFIGURATION);
            }
            if let Err(error) = run::run(loaded, queues, sampling) {
                eprintln!("ferrite: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// What waits for export.
struct Queues {
    spans: Arc<ExportQueue>,
    logs: Arc<LogQueue>,
}

/// The optional parts that this build has.
fn features() -> Vec<&'static str> {
    let known = [
        ("otel", cfg!(feature = "otel")),
        ("io-uring", cfg!(feature = "io-uring")),
        ("tls", cfg!(feature = "tls")),
        ("lite", cfg!(feature = "lite")),
    ];
    known.into_iter().filter_map(|(name, present)| present.then_some(name)).collect()
}

fn load(file: Option<PathBuf>, flags: Vec<Flag>) -> Result<Loaded, String> {
    let file = file.as_deref().map(read).transpose()?;
    let environment = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect();
    let sources = Sources { file, environment, flags };
    let mut loaded = sources.load().map_err(|problems| problems.to_string())?;
    if loaded.config.telemetry.enabled && !cfg!(feature = "otel") {
        loaded.warnings.push(
            "OTel not available: this build lacks the feature `otel`, so telemetry.enabled exports nothing".to_owned(),
        );
    }
    Ok(loaded)
}

/// What a wrong configuration can still break before anything is started: the log and the export.
fn prepare(loaded: &Loaded, queues: &Queues, sampling: &Arc<Sampling>) -> Result<(), String> {
    let settings = log_settings(loaded);
    let telemetry = &loaded.config.telemetry;
    let spans = telemetry.exports_traces().then(|| ColdSpans {
        queue: queues.spans.clone(),
        sampling: sampling.clone(),
        seed: RealEntropy::default().next_u64(),
        monotonic_ns: RealClock::monotonic_source(),
    });
    let logs = telemetry.exports_logs().then(|| queues.logs.clone());
    ferrite_otlp::init_logging(&settings, logs, spans).map_err(|error| format!("logging.level: {error}"))?;
    #[cfg(feature = "otel")]
    export::check(&loaded.config).map_err(|error| error.to_string())?;
    Ok(())
}

fn log_settings(loaded: &Loaded) -> LogSettings {
    let logging = &loaded.config.logging;
    LogSettings {
        filter: logging.level.clone(),
        format: match logging.format {
            LogFormat::Json => ferrite_otlp::LogFormat::Json,
            LogFormat::Text => ferrite_otlp::LogFormat::Text,
        },
        unix_ns: process::unix_ns,
    }
}

fn read(path: &Path) -> Result<ConfigFile, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(ConfigFile { path: path.to_owned(), text })
}
