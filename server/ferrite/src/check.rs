//! `ferrite check DIR`: what the files of a data directory hold, and what is wrong with them.

use std::path::PathBuf;
use std::process::ExitCode;

use ferrite_io_real::{DiskChoice, Runtime};

/// A line for each file, those that are damaged last. The exit code is 1 if there are any, or if nothing could be checked.
pub fn check(dir: PathBuf) -> ExitCode {
    let runtime = match Runtime::new(DiskChoice::IoThreads) {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let checked = runtime.block_on(move |world| async move { ferrite_node::check(world, &dir).await });
    let report = match checked {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => return failed(&error),
        Err(error) => return failed(&error),
    };
    for line in &report.sound {
        println!("ok       {line}");
    }
    for error in &report.damage {
        println!("DAMAGED  {error}");
    }
    match (report.damage.len(), report.sound.len()) {
        (0, 0) => println!("no data"),
        (0, _) => println!("no damage"),
        (1, _) => println!("1 damage"),
        (count, _) => println!("{count} damages"),
    }
    if report.damage.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("ferrite: {error}");
    ExitCode::FAILURE
}
