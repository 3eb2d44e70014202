//! What an exported trace costs the worker beyond one that is not: taken out of its batch and put where the exporter finds it.
//!
//! `ci/bench encode` runs it, and counts its instructions under callgrind.
//!
//! ```text
//! cargo bench -p ferrite-otlp --bench hand_over [-- [BATCHES]]
//! ```

use std::str::FromStr;
use std::sync::Arc;

use ferrite_io::Clock;
use ferrite_io_real::RealClock;
use ferrite_otlp::{ExportQueue, Outgoing};
use ferrite_telemetry::{Outcome, Recorder, RecorderConfig, Tier, TraceBuffer};

/// Commands of a batch.
const PIPELINE: usize = 16;
/// Short rounds, and many: the best of them had a core to itself, also where others are at work.
const ROUNDS: usize = 400;
const BATCHES_PER_ROUND: usize = 20;

/// GETs from memory, 8 spans each but the write that they share.
fn record(buffer: &mut TraceBuffer, commands: usize) {
    buffer.start_batch();
    for number in 0..commands as u64 {
        buffer.begin_command();
        buffer.parse();
        buffer.describe("GET", 1, 2, [&b"key:000000000001"[..]]);
        buffer.dispatch();
        buffer.execute_open();
        buffer.index_lookup(1_000_000 + number);
        buffer.storage_read(Tier::Mutable, true, 256);
        buffer.finish_command(Outcome::Ok, b"", 1_000_000_000 + number);
    }
    buffer.net_write();
}

/// The commit of one batch. A function of its own: `ci/bench encode` counts what is in it.
#[inline(never)]
fn measured(recorder: &mut Recorder, buffer: &mut TraceBuffer, outgoing: &mut Outgoing) {
    recorder.commit_to(buffer, |chosen| outgoing.send(chosen));
}

fn main() {
    // Cargo adds `--bench`.
    let given: Vec<usize> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .map(|text| usize::from_str(&text).expect("a number"))
        .collect();
    // With an argument in front of the number of batches: commands of a batch, and whether they are exported.
    let (pipelines, exported, batches) = match given[..] {
        [pipeline, exported, batches] => (vec![pipeline], vec![exported > 0], batches),
        _ => (vec![1, PIPELINE], vec![false, true], BATCHES_PER_ROUND),
    };
    let now = RealClock::monotonic_source();
    for pipeline in pipelines {
        for export in exported.clone() {
            let queue = Arc::new(ExportQueue::new(1 << 16, 512));
            let mut recorder = Recorder::new(now, &RecorderConfig { export, ..RecorderConfig::default() });
            let mut buffer = recorder.buffer();
            let mut outgoing = Outgoing::new(Arc::clone(&queue), true);
            // What else the machine does only adds.
            let round = |_| {
                let mut took = 0;
                for _ in 0..batches {
                    record(&mut buffer, pipeline);
                    let start = now();
                    measured(&mut recorder, &mut buffer, &mut outgoing);
                    took += now() - start;
                }
                while !queue.take().is_empty() {}
                took as f64 / (batches * pipeline) as f64
            };
            let ns = (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min);
            assert_eq!(queue.counts().dropped_queue_full, 0);
            println!("batch of {pipeline}, {}: {ns:.1} ns a command", if export { "exported" } else { "recorded" });
        }
    }
}
