//! Encoding allocates for a batch, not for its spans.
#![cfg(feature = "otel")]

use std::cell::Cell;

use ferrite_otlp::{Countable, ExportSettings, Queued, SpanEncoder};
use ferrite_telemetry::{Outcome, Recorder, RecorderConfig, RemoteContext, Tier};

thread_local!(static NOW: Cell<u64> = const { Cell::new(0) });

fn clock() -> u64 {
    NOW.replace(NOW.get() + 1) + 1
}

/// A failed GET with a caller, a cold read and baggage, and an EXEC of three commands, so many times.
fn traces(count: usize) -> Vec<Queued> {
    let mut recorder = Recorder::new(clock, &RecorderConfig { export: true, ..RecorderConfig::default() });
    let mut buffer = recorder.buffer();
    buffer.connection(7, Some(([127, 0, 0, 1], 50_000).into()));
    let context =
        RemoteContext::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", b"a=b").expect("valid");
    let mut traces = Vec::new();
    for _ in 0..count {
        buffer.start_batch();
        buffer.begin_command();
        buffer.parse();
        buffer.set_context(&context);
        buffer.set_baggage([("tenant.id", "acme".into())].into_iter());
        buffer.describe("GET", 1, 2, [&b"key"[..]]);
        buffer.dispatch();
        buffer.execute_open();
        buffer.index_lookup(1);
        let slot = buffer.disk_read_open();
        buffer.disk_read_close(slot, 1, 2, Some(3), 4);
        buffer.finish_command(Outcome::Err, b"ERR no", 1);
        buffer.begin_command();
        buffer.describe("EXEC", 1, 1, []);
        for _ in 0..3 {
            let child = buffer.begin_child(Some(&context));
            buffer.describe("SET", 1, 3, [&b"key"[..]]);
            buffer.storage_write(Tier::Mutable, 5);
            buffer.finish_child(child, Outcome::Ok, b"");
        }
        buffer.finish_command(Outcome::Ok, b"", 2);
        buffer.net_write();
        recorder.commit(&mut buffer, |trace| traces.push(Queued::from(trace)));
    }
    traces
}

#[test]
fn a_warm_encoder_allocates_three_times_a_batch_whatever_its_spans() {
    let mut encoder = SpanEncoder::new(&ExportSettings::new("ferrite", "1.0.0"));
    let [few, many] = [traces(1), traces(200)];
    assert!(many.iter().map(Countable::count).sum::<usize>() > 2_000);
    drop(encoder.encode(&many));
    for batch in [few, many] {
        let mut bytes = 0;
        let allocations = allocation_counter::measure(|| bytes = encoder.encode(&batch).len());
        // The request, what counts who has it, and what stands before the spans.
        assert_eq!(allocations.count_total, 3, "{bytes} bytes");
        assert!(bytes > 500);
    }
}
