//! What a command costs in the recorder: nanoseconds, from the first reading of the clock to the commit of its batch.
//!
//! `ci/bench recorder` runs it, and counts its instructions under callgrind.
//!
//! ```text
//! cargo bench -p ferrite-telemetry --bench recorder [-- [PING|GET|SET] [COMMANDS_PER_BATCH] [BATCHES]]
//! ```

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use ferrite_io::Clock;
use ferrite_io_real::RealClock;
use ferrite_telemetry::{
    Outcome, Recorder, RecorderConfig, Sampling, SamplingSettings, TailSettings, Tier, TraceBuffer,
};

/// Short rounds, and many: the best of them had a core to itself, also where others are at work.
const ROUNDS: usize = 400;
const COMMANDS_PER_ROUND: usize = 4_800;

/// A command as the server drives it, between its look-up and its reply.
#[derive(Clone, Copy)]
enum Kind {
    /// 6 spans: the root and the stations of every command.
    Ping,
    /// 8: and the index, and the tier that has the value.
    Get,
    /// 10: and the epoch, and the append-only file.
    Set,
}

const KINDS: [(&str, Kind, usize); 3] = [("PING", Kind::Ping, 6), ("GET", Kind::Get, 8), ("SET", Kind::Set, 10)];

fn record(kind: Kind, buffer: &mut TraceBuffer, number: u64) {
    let key: &[u8] = black_box(b"key:000000001234");
    match kind {
        Kind::Ping => buffer.describe("PING", 1, 1, []),
        Kind::Get => buffer.describe("GET", 1, 2, [key]),
        Kind::Set => buffer.describe("SET", 1, 3, [key]),
    }
    buffer.dispatch();
    buffer.execute_open();
    black_box(buffer.checkpoint());
    match kind {
        Kind::Ping => {}
        Kind::Get => {
            buffer.index_lookup(number);
            buffer.storage_read(Tier::Mutable, true, 256);
        }
        Kind::Set => {
            buffer.index_lookup(number);
            buffer.storage_write(Tier::Mutable, 256);
            buffer.epoch_advance(number);
            buffer.aof_append(300);
        }
    }
    black_box(buffer.finish_command(Outcome::Ok, b"", number));
}

fn batch(kind: Kind, count: usize, number: u64, recorder: &mut Recorder, buffer: &mut TraceBuffer) {
    buffer.start_batch();
    for _ in 0..count {
        buffer.begin_command();
        buffer.parse();
    }
    buffer.pinned(number);
    for command in 0..count {
        buffer.select(command);
        record(kind, buffer, number);
    }
    buffer.net_write();
    recorder.commit(buffer, |trace| panic!("{} was sampled", trace.trace_id()));
}

/// So many batches. A function of its own: `ci/bench recorder` counts what is in it.
#[inline(never)]
fn measured(kind: Kind, count: usize, batches: usize, recorder: &mut Recorder, buffer: &mut TraceBuffer) {
    (0..batches as u64).for_each(|number| batch(kind, count, number, recorder, buffer));
}

/// Nanoseconds a command, of the best round: what else the machine does only adds.
fn measure(kind: Kind, count: usize, batches: usize) -> f64 {
    let now = RealClock::monotonic_source();
    // As a server that exports, and has rules for its tail, of whose traces none is chosen.
    let tail = TailSettings { errors: true, slow_ms: 1e6, ..TailSettings::default() };
    let settings = SamplingSettings { sample_rate: 1e-12, tail, ..SamplingSettings::default() };
    let sampling = Sampling::of(&settings).expect("the rules are understood");
    let mut recorder = Recorder::new(now, &RecorderConfig { sampling, export: true, ..RecorderConfig::default() });
    let mut buffer = recorder.buffer();
    buffer.connection(7, Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000))));
    batch(kind, count, 0, &mut recorder, &mut buffer);
    let round = |_| {
        let start = now();
        measured(kind, count, batches, &mut recorder, &mut buffer);
        (now() - start) as f64 / (batches * count) as f64
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

fn main() {
    // Cargo adds `--bench`.
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let number = |at: usize| given.get(at).map(|text| usize::from_str(text).expect("a number"));
    let batches = number(2);
    for (name, kind, spans) in KINDS {
        for count in [1, 16] {
            if given.first().is_none_or(|only| only == name) && number(1).is_none_or(|only| only == count) {
                let ns = measure(kind, count, batches.unwrap_or(COMMANDS_PER_ROUND / count));
                println!("{name} {spans} spans, batch of {count}: {ns:.1} ns");
            }
        }
    }
}
