//! Once warm, recording allocates nothing, however the commands of a batch interleave.

use std::cell::Cell;
use std::sync::Arc;

use ferrite_telemetry::{
    Outcome, Probability, Recorder, RecorderConfig, RemoteContext, Sampling, SamplingPolicy, SamplingSettings, Tier,
    TraceBuffer, Wait,
};

thread_local!(static NOW: Cell<u64> = const { Cell::new(0) });

fn clock() -> u64 {
    NOW.replace(NOW.get() + 1) + 1
}

fn recorder(choice: Probability) -> Recorder {
    recorder_with(Sampling::by_head(choice, false))
}

fn recorder_with(sampling: Arc<Sampling>) -> Recorder {
    Recorder::new(
        clock,
        &RecorderConfig { ring_bytes: 1 << 16, sampling, export: true, seed: 1, ..RecorderConfig::default() },
    )
}

/// Hits, a miss with a pause, an EXEC, a context, an error: one batch.
fn batch(recorder: &mut Recorder, buffer: &mut TraceBuffer) -> usize {
    let context =
        RemoteContext::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", b"a=b").expect("valid");
    buffer.start_batch();
    for key in [&b"one"[..], b"two", b"three"] {
        buffer.begin_command();
        buffer.parse();
        buffer.set_context(&context);
        buffer.describe("GET", 1, 2, [key]);
    }
    for command in 0..3 {
        buffer.select(command);
        buffer.dispatch();
        buffer.execute_open();
        let checkpoint = buffer.checkpoint();
        buffer.index_lookup(1);
        buffer.rollback(checkpoint);
        buffer.pause(Wait::Disk);
        for later in command..3 {
            buffer.select(later);
            // The first miss reads for all.
            if command == 0 {
                buffer.storage_read(Tier::Mutable, false, 0);
                let slot = buffer.disk_read_open();
                buffer.disk_read_close(slot, 1, 2, Some(3), 4);
            }
        }
        buffer.select(command);
        buffer.resume();
        buffer.finish_command(Outcome::Err, b"ERR no", 1);
        buffer.exemplar(1, 2, 3);
    }
    buffer.begin_command();
    buffer.describe("EXEC", 1, 1, []);
    for _ in 0..5 {
        let child = buffer.begin_child(Some(&context));
        buffer.describe("SET", 1, 3, [&b"key"[..]]);
        buffer.storage_write(Tier::Mutable, 5);
        buffer.finish_child(child, Outcome::Ok, b"");
    }
    buffer.finish_command(Outcome::Ok, b"", 2);
    buffer.net_write();
    let mut kept = 0;
    recorder.commit(buffer, |_| kept += 1);
    kept
}

#[test]
fn a_warm_recorder_allocates_nothing() {
    let mut recorder = recorder(Probability::AlwaysOff);
    let mut buffer = recorder.buffer();
    batch(&mut recorder, &mut buffer);
    let allocations = allocation_counter::measure(|| {
        for _ in 0..100 {
            assert_eq!(batch(&mut recorder, &mut buffer), 0);
        }
    });
    assert_eq!(allocations.count_total, 0);
}

#[test]
fn rules_about_traces_that_are_not_chosen_allocate_nothing() {
    let mut settings = SamplingSettings { sample_rate: 1e-9, parent_limit: 5.0, ..SamplingSettings::default() };
    settings.commands = [("PING".to_owned(), 0.0)].into();
    settings.tenants = [("acme".to_owned(), 0.5)].into();
    settings.tail.slow_ms = 1e6;
    settings.tail.attributes = [
        "ferrite.storage.tier=read_only",
        "ferrite.command.key=x*",
        "tenant.tier=gold",
        "net.peer.ip=10.0.0.1",
        "net.peer.ip=10.*",
    ]
    .map(str::to_owned)
    .into();
    let mut recorder = recorder_with(Sampling::new(SamplingPolicy::new(&settings).expect("valid").0));
    let mut buffer = recorder.buffer();
    buffer.connection(7, Some("192.168.1.2:5000".parse().expect("an address")));
    batch(&mut recorder, &mut buffer);
    let allocations = allocation_counter::measure(|| {
        for _ in 0..100 {
            assert_eq!(batch(&mut recorder, &mut buffer), 0);
        }
    });
    assert_eq!(allocations.count_total, 0);
}

/// More commands than half of the ring has room for, and than a buffer keeps memory for by itself.
fn large_batch(recorder: &mut Recorder, buffer: &mut TraceBuffer) -> usize {
    buffer.start_batch();
    for _ in 0..3000 {
        buffer.begin_command();
        buffer.parse();
        buffer.describe("GET", 1, 2, [&b"a key of forty bytes, as long as they are"[..]]);
        buffer.dispatch();
        buffer.execute_open();
        buffer.index_lookup(1);
        buffer.storage_read(Tier::Mutable, true, 5);
        buffer.finish_command(Outcome::Ok, b"", 0);
    }
    buffer.net_write();
    let mut kept = 0;
    recorder.commit(buffer, |_| kept += 1);
    kept
}

#[test]
fn large_batches_one_after_the_other_allocate_nothing_and_then_give_back_what_they_took() {
    let mut recorder = recorder(Probability::AlwaysOff);
    let mut buffer = recorder.buffer();
    (0..2).for_each(|_| assert_eq!(large_batch(&mut recorder, &mut buffer), 0));
    let allocations = allocation_counter::measure(|| {
        for _ in 0..10 {
            assert_eq!(large_batch(&mut recorder, &mut buffer), 0);
        }
    });
    assert_eq!((allocations.count_total, allocations.bytes_current), (0, 0));
    assert!(recorder.ring().last(10).len() == 10, "trace by trace, the newest are in the ring");
    let after = allocation_counter::measure(|| assert_eq!(batch(&mut recorder, &mut buffer), 0));
    assert!(after.bytes_current < -500_000, "{after:?}");
}

#[test]
fn what_many_buffers_keep_is_bounded() {
    let mut recorder = recorder(Probability::AlwaysOff);
    // What the recorder itself needs for such a batch.
    let mut first = recorder.buffer();
    large_batch(&mut recorder, &mut first);
    let mut buffers: Vec<TraceBuffer> = (0..100).map(|_| recorder.buffer()).collect();
    let held = allocation_counter::measure(|| {
        for buffer in &mut buffers {
            large_batch(&mut recorder, buffer);
        }
    });
    let each = (64 << 10) * 6;
    assert!(held.bytes_current > 2 << 20 && held.bytes_current < (4 << 20) + 100 * each, "{held:?}");
}

#[test]
fn a_kept_trace_is_one_allocation() {
    let mut recorder = recorder(Probability::AlwaysOn);
    let mut buffer = recorder.buffer();
    batch(&mut recorder, &mut buffer);
    recorder.take_exemplars();
    let mut kept = 0;
    let allocations = allocation_counter::measure(|| kept = batch(&mut recorder, &mut buffer));
    // Beside them the exemplar that each batch gives: its place, what names it, its trace.
    assert_eq!((kept, allocations.count_total), (4, 4 + 3));
}

#[test]
fn only_chosen_traces_are_exemplars_and_they_are_kept() {
    let mut off = recorder(Probability::AlwaysOff);
    let mut buffer = off.buffer();
    batch(&mut off, &mut buffer);
    assert!(off.take_exemplars().is_empty());
    assert_eq!(off.pins().bytes(), 0);

    let mut on = recorder(Probability::AlwaysOn);
    let mut buffer = on.buffer();
    batch(&mut on, &mut buffer);
    let exemplars = on.take_exemplars();
    let [new] = &exemplars[..] else { panic!("one a bucket: {exemplars:?}") };
    assert_eq!((new.command, new.bucket, new.exemplar.value_ns), (1, 2, 3));
    let trace = new.exemplar.trace.trace_id();
    let kept = on.pins().find(trace);
    assert_eq!((kept.len(), kept[0].root_id()), (1, new.exemplar.trace.root_id()));
    let pins = Arc::clone(on.pins());
    drop(exemplars);
    assert!(pins.find(trace).is_empty() && pins.bytes() == 0);
}
