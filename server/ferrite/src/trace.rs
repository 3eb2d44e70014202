//! `ferrite trace`: what the flight recorder of a running server shows, or that of a file that a crash left behind.
//!
//! Whatever the source, each trace comes as OTLP/JSON; trees and exports are made of that.

mod client;
mod export;
mod file;
mod tree;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

pub use file::notes;

use client::Client;
use export::Format;
use tree::Tree;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceRequest {
    /// OTEL.TRACES's arguments, but for the count.
    pub words: Vec<String>,
    /// `None`: the subcommand takes none.
    pub count: Option<u64>,
    pub follow: bool,
    pub host: String,
    pub port: u16,
    pub password: Option<String>,
    /// Reads this instead of asking a server.
    pub file: Option<PathBuf>,
    /// Writes there instead of printing.
    pub export: Option<PathBuf>,
}

/// How often a server that is followed is asked.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(300);
/// Traces of one look. What more there was since the last one is not shown.
const FOLLOW_COUNT: u64 = 1000;

/// What a connection has asked before its OTEL.TRACES, and is left out: AUTH, CLIENT ID.
const OWN_QUESTIONS: u64 = 2;

impl TraceRequest {
    /// OTEL.TRACES's arguments, with another count than its own.
    fn words(&self, count: Option<u64>) -> Vec<String> {
        self.words.iter().cloned().chain(self.count.and(count).map(|count| count.to_string())).collect()
    }
}

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("{0}")]
    Client(#[from] client::ClientError),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: file::FileError },
    #[error("{}: {error}", path.display())]
    Export { path: PathBuf, error: std::io::Error },
    #[error("{}: the name must say the format: otlp.json or chrome.json, or a name that ends so", .0.display())]
    Format(PathBuf),
    #[error("--follow shows what comes, and cannot be used with {0}")]
    Follow(&'static str),
}

/// Prints or exports what was asked for.
pub fn trace(request: &TraceRequest) -> ExitCode {
    match show(request) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ferrite trace: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show(request: &TraceRequest) -> Result<(), TraceError> {
    let format = match &request.export {
        Some(path) => Some((path, Format::of(path).ok_or_else(|| TraceError::Format(path.clone()))?)),
        None => None,
    };
    if request.follow {
        match (&request.file, format) {
            (Some(_), _) => return Err(TraceError::Follow("--file")),
            (_, Some(_)) => return Err(TraceError::Follow("--export")),
            _ => return follow(request),
        }
    }
    let found = match &request.file {
        Some(path) => file::read(path, &request.words(request.count))
            .map_err(|error| TraceError::File { path: path.clone(), error })?,
        None => {
            let wanted = request.words(request.count.map(|count| count.saturating_add(OWN_QUESTIONS)));
            let mut found = Client::connect(request)?.traces(&wanted)?;
            found.truncate(request.count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX)));
            found
        }
    };
    match format {
        Some((path, format)) => {
            let text = format.render(found);
            std::fs::write(path, text).map_err(|error| TraceError::Export { path: path.clone(), error })
        }
        None => {
            print(found.iter().rev());
            Ok(())
        }
    }
}

/// Prints, as `tail -f` does, first what was there and then what comes, until the reader or the server has enough.
fn follow(request: &TraceRequest) -> Result<(), TraceError> {
    let mut client = Client::connect(request)?;
    let words = request.words(Some(FOLLOW_COUNT));
    let mut found = client.traces(&words)?;
    // What there is beyond as many as were asked for is old.
    let old = found.split_off(found.len().min(request.count.unwrap_or(FOLLOW_COUNT) as usize));
    let mut seen: BTreeSet<_> = old.iter().filter_map(tree::ids).collect();
    loop {
        found.retain(|trace| tree::ids(trace).is_some_and(|ids| seen.insert(ids)));
        if !print(found.iter().rev()) {
            return Ok(());
        }
        std::thread::sleep(FOLLOW_INTERVAL);
        found = client.traces(&words)?;
        // Only what may come again has to be remembered.
        let now: BTreeSet<_> = found.iter().filter_map(tree::ids).collect();
        seen.retain(|ids| now.contains(ids));
    }
}

/// Trees, the oldest first, as one reads on a terminal. False: nobody reads any more.
fn print<'t>(traces: impl Iterator<Item = &'t Value>) -> bool {
    let mut out = std::io::stdout().lock();
    for tree in traces.filter_map(Tree::of) {
        for line in tree.lines() {
            if writeln!(out, "{line}").is_err() {
                return false;
            }
        }
    }
    out.flush().is_ok()
}
