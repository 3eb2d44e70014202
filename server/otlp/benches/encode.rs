//! What a span costs on its way from the recorder's record to the bytes of an OTLP request, in nanoseconds.
//!
//! `ci/bench encode` runs it, and counts its instructions under callgrind.
//!
//! ```text
//! cargo bench -p ferrite-otlp --bench encode [-- [BATCHES]]
//! ```

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use ferrite_io::Clock;
use ferrite_io_real::RealClock;
use ferrite_otlp::{Countable, ExportSettings, Queued, SpanEncoder};
use ferrite_telemetry::{Outcome, Recorder, RecorderConfig, Tier};

/// Of the size that goes out at a time by default.
const SPANS_PER_BATCH: usize = 512;
/// Short rounds, and many: the best of them had a core to itself, also where others are at work.
const ROUNDS: usize = 400;
const BATCHES_PER_ROUND: usize = 20;

/// A GET from memory and a SET with its way into the append-only file in turn, 8 and 10 spans, as the server records them.
fn batch(now: fn() -> u64) -> Vec<Queued> {
    let mut recorder = Recorder::new(now, &RecorderConfig { export: true, ..RecorderConfig::default() });
    recorder.set_wall_clock(0, 1_753_000_000_000_000_000);
    let mut buffer = recorder.buffer();
    buffer.connection(7, Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000))));
    let mut traces: Vec<Queued> = Vec::new();
    while traces.iter().map(Countable::count).sum::<usize>() < SPANS_PER_BATCH {
        let number = traces.len() as u64;
        let key = format!("key:{number:012}");
        buffer.start_batch();
        buffer.begin_command();
        buffer.parse();
        let reads = number.is_multiple_of(2);
        let (name, argc) = if reads { ("GET", 2) } else { ("SET", 3) };
        buffer.describe(name, 1, argc, [key.as_bytes()]);
        buffer.dispatch();
        buffer.execute_open();
        buffer.index_lookup(1_000_000 + number);
        if reads {
            buffer.storage_read(Tier::Mutable, true, 256);
        } else {
            buffer.storage_write(Tier::Mutable, 256);
            buffer.epoch_advance(40_000 + number);
            buffer.aof_append(300);
        }
        buffer.finish_command(Outcome::Ok, b"", 1_000_000_000 + number);
        buffer.net_write();
        recorder.commit(&mut buffer, |trace| traces.push(trace.into()));
    }
    traces
}

/// So many batches. A function of its own: `ci/bench encode` counts what is in it.
#[inline(never)]
fn measured(encoder: &mut SpanEncoder, traces: &[Queued], batches: usize) {
    (0..batches).for_each(|_| drop(black_box(encoder.encode(black_box(traces)))));
}

fn main() {
    // Cargo adds `--bench`.
    let given = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let batches = given.map_or(BATCHES_PER_ROUND, |text| usize::from_str(&text).expect("a number of batches"));
    let now = RealClock::monotonic_source();
    let traces = batch(now);
    let spans: usize = traces.iter().map(Countable::count).sum();
    let mut encoder = SpanEncoder::new(&ExportSettings::new("ferrite", "1.0.0"));
    let bytes = encoder.encode(&traces).len();
    // What else the machine does only adds.
    let round = |_| {
        let start = now();
        measured(&mut encoder, &traces, batches);
        (now() - start) as f64 / (batches * spans) as f64
    };
    let ns = (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min);
    println!("{spans} spans, {:.0} bytes each: {ns:.1} ns a span", bytes as f64 / spans as f64);
}
