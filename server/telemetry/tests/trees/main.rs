//! The trees that commands leave behind, from the driver's calls to the neutral spans.

mod events;
mod exceptions;
mod own_work;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use ferrite_telemetry::schema::{EventName, ExceptionType};
use ferrite_telemetry::{
    Attribute, Detail, Event, Exception, KeptTrace, Keys, Outcome, Probability, Recorder, RecorderConfig,
    RemoteContext, Sampling, Shape, Span, SpanId, SpanKind, SpanName, StackTrace, Status, Tier, TraceBuffer,
    TraceFilter, TraceId, Value, Wait,
};
use proptest::prelude::*;

thread_local!(static NOW: Cell<u64> = const { Cell::new(1_000) });

/// Every reading is 10 ns after the one before.
fn clock() -> u64 {
    NOW.replace(NOW.get() + 10) + 10
}

fn recorder(detail: Detail, sampling: Arc<Sampling>) -> Recorder {
    let config = RecorderConfig {
        detail: Some(detail),
        keys: Keys::Shown,
        ring_bytes: 1 << 16,
        sampling,
        export: true,
        seed: 7,
        ..RecorderConfig::default()
    };
    Recorder::new(clock, &config)
}

fn always_on(detail: Detail) -> Recorder {
    recorder(detail, Sampling::by_head(Probability::AlwaysOn, false))
}

fn commit(recorder: &mut Recorder, buffer: &mut TraceBuffer) -> Vec<KeptTrace> {
    let mut kept = Vec::new();
    recorder.commit(buffer, |trace| kept.push(trace));
    kept
}

fn begin(buffer: &mut TraceBuffer, name: &str, argc: usize, keys: &[&[u8]]) -> usize {
    let index = buffer.begin_command();
    buffer.parse();
    buffer.describe(name, 1, argc, keys.iter().copied());
    index
}

fn write(buffer: &mut TraceBuffer) {
    buffer.net_write();
}

/// The order in which a viewer shows the children of the root.
fn children(trace: &KeptTrace) -> Vec<String> {
    let root = trace.root_id();
    let mut spans: Vec<Span> = trace.spans().filter(|span| span.parent_span_id == Some(root)).collect();
    spans.sort_by_key(|span| (span.start_ns, span.span_id.0.wrapping_sub(root.0)));
    spans.iter().map(Span::title).collect()
}

fn root(trace: &KeptTrace) -> Span {
    trace.spans().next().expect("the root is first")
}

fn prefetch(buffer: &mut TraceBuffer, command: usize, submission: u64) {
    buffer.select(command);
    buffer.index_lookup(4721);
    buffer.storage_read(Tier::Mutable, false, 0);
    buffer.storage_read(Tier::ReadOnly, false, 0);
    buffer.epoch_protect(1847);
    let slot = buffer.disk_read_open();
    let submitted = clock();
    buffer.disk_read_close(slot, submitted, submitted + 820, Some(4096), submission);
    for _ in 0..90 {
        clock();
    }
}

fn cold_get(detail: Detail) -> KeptTrace {
    let mut recorder = always_on(detail);
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    let get = begin(&mut buffer, "GET", 2, &[b"cold"]);
    buffer.dispatch();
    buffer.pinned(1840);
    buffer.execute_open();
    let checkpoint = buffer.checkpoint();
    buffer.index_lookup(4721);
    buffer.storage_read(Tier::Mutable, false, 0);
    buffer.rollback(checkpoint);
    buffer.pause(Wait::Disk);
    prefetch(&mut buffer, get, 29104);
    buffer.select(get);
    buffer.resume();
    buffer.mute(true);
    buffer.index_lookup(4721);
    buffer.mute(false);
    let execution = buffer.finish_command(Outcome::Ok, b"", 0);
    assert!((820..2_000).contains(&execution), "{execution}");
    write(&mut buffer);
    commit(&mut recorder, &mut buffer).remove(0)
}

#[test]
fn a_cold_get_at_storage_is_the_documented_tree() {
    let trace = cold_get(Detail::Storage);
    let expected = [
        "ferrite.resp.parse",
        "ferrite.index.lookup",
        "ferrite.storage.read [mutable]",
        "ferrite.storage.read [read_only]",
        "ferrite.epoch.protect",
        "ferrite.storage.read [disk]",
    ];
    assert_eq!(children(&trace), expected);
    let spans: Vec<Span> = trace.spans().collect();
    let disk = &spans[6];
    assert_eq!(disk.attribute(Attribute::StorageBytes), Some(&Value::Int(4096)));
    assert_eq!(disk.attribute(Attribute::IoUringSqeId), Some(&Value::Int(29104)));
    assert_eq!(disk.attribute(Attribute::StorageCacheHit), Some(&Value::Bool(false)));
    assert_eq!(disk.attribute(Attribute::StorageEpoch), Some(&Value::Int(1847)));
    assert_eq!(disk.end_ns - disk.start_ns, 820);
    assert_eq!(spans[2].attribute(Attribute::IndexBucket), Some(&Value::Int(4721)));
    assert_eq!(spans[5].attribute(Attribute::StorageEpoch), Some(&Value::Int(1847)));
}

#[test]
fn a_key_with_blanks_is_found_whole_wherever_it_stands() {
    let mut recorder = always_on(Detail::Full);
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    begin(&mut buffer, "MGET", 4, &[b"a b", b"c d", b"e"]);
    let kept = buffer.pin(recorder.pins());
    buffer.dispatch();
    buffer.finish_command(Outcome::Ok, b"", 0);
    // One whose statement leaves keys out.
    let long = vec![b'k'; 700];
    begin(&mut buffer, "MGET", 4, &[&long, &long, b"e"]);
    buffer.finish_command(Outcome::Ok, b"", 0);
    write(&mut buffer);
    let traces = commit(&mut recorder, &mut buffer);
    assert_eq!(root(&traces[0]).attribute(Attribute::DbStatement), Some(&Value::Str("MGET a b c d e".into())));
    let find = |key: &str| {
        let filter = TraceFilter { keys: vec![key.into()], ..TraceFilter::default() };
        let pinned = recorder.pins().search(&filter).len();
        assert_eq!(recorder.ring().search(&filter, 10).len(), pinned, "{key}: kept beside the recorder too");
        pinned
    };
    for key in ["a b", "c d", "e", "c*", "c d*"] {
        assert_eq!(find(key), 1, "{key}");
    }
    for key in ["a", "b", "c", "d", "b c", "d e", ""] {
        assert_eq!(find(key), 0, "{key}");
    }
    assert!(kept.is_some());
}

#[test]
fn a_cold_get_at_full_has_the_waterfall_too() {
    let expected = [
        "ferrite.resp.parse",
        "ferrite.command.dispatch",
        "ferrite.command.execute",
        "ferrite.index.lookup",
        "ferrite.storage.read [mutable]",
        "ferrite.storage.read [read_only]",
        "ferrite.epoch.protect",
        "ferrite.storage.read [disk]",
        "ferrite.resp.serialize",
        "ferrite.net.write",
    ];
    assert_eq!(children(&cold_get(Detail::Full)), expected);
}

#[test]
fn at_command_the_root_is_alone() {
    let trace = cold_get(Detail::Command);
    assert_eq!(trace.span_count(), 1);
    assert_eq!(root(&trace).name, SpanName::Command);
}

#[test]
fn a_set_under_always_is_the_documented_hierarchy() {
    let mut recorder = always_on(Detail::Full);
    let mut buffer = recorder.buffer();
    buffer.connection(42, Some("192.168.1.10:54321".parse().expect("an address")));
    buffer.start_batch();
    begin(&mut buffer, "SET", 3, &[b"user:123"]);
    buffer.dispatch();
    buffer.pinned(41);
    buffer.execute_open();
    buffer.index_lookup(1);
    buffer.storage_write(Tier::Mutable, 16);
    buffer.epoch_advance(42);
    buffer.aof_append(64);
    let sync = buffer.aof_sync_open();
    buffer.finish_command(Outcome::Ok, b"", 123_456);
    buffer.aof_sync_close(sync, clock());
    write(&mut buffer);
    let trace = commit(&mut recorder, &mut buffer).remove(0);
    let expected = [
        "ferrite.resp.parse",
        "ferrite.command.dispatch",
        "ferrite.command.execute",
        "ferrite.index.lookup",
        "ferrite.storage.write [mutable]",
        "ferrite.epoch.advance",
        "ferrite.aof.append",
        "ferrite.aof.sync",
        "ferrite.resp.serialize",
        "ferrite.net.write",
    ];
    assert_eq!(children(&trace), expected);

    let root = root(&trace);
    let attributes: Vec<String> = root.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let expected = [
        "db.system=ferrite",
        "db.operation=SET",
        "db.statement=SET user:123 ...",
        "ferrite.command.name=SET",
        "ferrite.command.key=user:123",
        "ferrite.command.result=OK",
        "ferrite.command.args_count=3",
        "net.peer.ip=192.168.1.10",
        "net.peer.port=54321",
        "ferrite.connection.id=42",
        "ferrite.replication.role=primary",
        "ferrite.replication.offset=123456",
    ];
    assert_eq!(attributes, expected);
    assert_eq!((root.kind, root.parent_span_id, &root.status), (SpanKind::Server, None, &Status::Unset));

    let spans: Vec<Span> = trace.spans().collect();
    assert!(
        spans
            .iter()
            .all(|span| root.start_ns <= span.start_ns && span.start_ns <= span.end_ns && span.end_ns <= root.end_ns)
    );
    let laps: Vec<&Span> = spans.iter().filter(|span| span.start_ns != span.end_ns).collect();
    assert!(
        laps.iter()
            .skip(1)
            .all(|span| laps.iter().any(|before| before.end_ns == span.start_ns || before.start_ns == span.start_ns)),
        "neighbours share a time stamp"
    );
}

#[test]
fn a_pipeline_with_misses_keeps_every_span_with_its_command() {
    let mut recorder = always_on(Detail::Full);
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    let mut indices = Vec::new();
    for key in [&b"hot"[..], b"cold1", b"cold2", b"warm"] {
        indices.push(begin(&mut buffer, "GET", 2, &[key]));
    }
    let run = |buffer: &mut TraceBuffer, at: usize| {
        buffer.select(indices[at]);
        buffer.dispatch();
        buffer.execute_open();
    };
    run(&mut buffer, 0);
    buffer.index_lookup(0);
    buffer.storage_read(Tier::Mutable, true, 5);
    buffer.finish_command(Outcome::Ok, b"", 0);
    run(&mut buffer, 1);
    let checkpoint = buffer.checkpoint();
    buffer.index_lookup(1);
    buffer.rollback(checkpoint);
    buffer.pause(Wait::Disk);
    prefetch(&mut buffer, indices[1], 11);
    prefetch(&mut buffer, indices[2], 12);
    buffer.select(indices[1]);
    buffer.resume();
    buffer.finish_command(Outcome::Ok, b"", 0);
    run(&mut buffer, 2);
    let waited = buffer.finish_command(Outcome::Ok, b"", 0);
    assert!((820..900).contains(&waited), "its own read counts, the other's does not: {waited}");
    run(&mut buffer, 3);
    buffer.index_lookup(3);
    buffer.storage_read(Tier::Mutable, false, 0);
    buffer.storage_read(Tier::ReadOnly, true, 5);
    buffer.finish_command(Outcome::Ok, b"", 0);
    write(&mut buffer);

    let traces = commit(&mut recorder, &mut buffer);
    let of = |at: usize, name: &str| children(&traces[at]).iter().filter(|title| title.contains(name)).count();
    assert_eq!([of(0, "disk"), of(1, "disk"), of(2, "disk"), of(3, "disk")], [0, 1, 1, 0]);
    assert_eq!([of(0, "lookup"), of(1, "lookup"), of(2, "lookup"), of(3, "lookup")], [1, 1, 1, 1]);
    assert!((0..4).all(|at| of(at, "execute") == 1 && of(at, "net.write") == 1 && of(at, "parse") == 1));
    let submissions: Vec<Option<Value>> = traces
        .iter()
        .map(|trace| trace.spans().find_map(|span| span.attribute(Attribute::IoUringSqeId).cloned()))
        .collect();
    assert_eq!(submissions, [None, Some(Value::Int(11)), Some(Value::Int(12)), None]);
    let ids: Vec<TraceId> = traces.iter().map(KeptTrace::trace_id).collect();
    assert!((1..4).all(|at| ids[at] != ids[at - 1]));
}

#[test]
fn queued_commands_are_children_of_their_exec() {
    let mut recorder = always_on(Detail::Full);
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    begin(&mut buffer, "PING", 1, &[]);
    buffer.dispatch();
    buffer.finish_command(Outcome::Ok, b"", 0);
    begin(&mut buffer, "EXEC", 1, &[]);
    buffer.dispatch();
    buffer.execute_open();
    let sent =
        RemoteContext { trace_id: TraceId(5), span_id: SpanId(6), flags: 1, deferred: false, tracestate: "".into() };
    let set = buffer.begin_child(Some(&sent));
    buffer.describe("SET", 1, 3, [&b"a"[..]]);
    buffer.index_lookup(1);
    buffer.storage_write(Tier::Mutable, 1);
    buffer.finish_child(set, Outcome::Ok, b"");
    let incr = buffer.begin_child(None);
    buffer.describe("INCR", 1, 2, [&b"a"[..]]);
    buffer.index_lookup(1);
    buffer.finish_child(incr, Outcome::Err, b"ERR value is not an integer or out of range");
    buffer.aof_append(10);
    buffer.finish_command(Outcome::Ok, b"", 10);
    write(&mut buffer);

    let traces = commit(&mut recorder, &mut buffer);
    assert_eq!(traces.len(), 2);
    let exec = &traces[1];
    let expected = [
        "ferrite.resp.parse",
        "ferrite.command.dispatch",
        "ferrite.command.execute",
        "ferrite.command",
        "ferrite.command",
        "ferrite.aof.append",
        "ferrite.resp.serialize",
        "ferrite.net.write",
    ];
    assert_eq!(children(exec), expected);
    let spans: Vec<Span> = exec.spans().collect();
    let queued: Vec<&Span> = spans.iter().skip(1).filter(|span| span.name == SpanName::Command).collect();
    assert_eq!(queued[0].kind, SpanKind::Internal);
    assert_eq!(
        queued[0].links.iter().map(|link| (link.trace_id, link.span_id)).collect::<Vec<_>>(),
        [(TraceId(5), SpanId(6))]
    );
    assert_eq!(queued[0].attribute(Attribute::DbStatement), Some(&Value::Str("SET a ...".into())));
    assert!(queued[0].attribute(Attribute::NetPeerIp).is_none() && queued[1].links.is_empty());
    assert_eq!(queued[1].status, Status::Error("ERR value is not an integer or out of range".into()));
    let below = |parent: &Span| {
        spans.iter().filter(|span| span.parent_span_id == Some(parent.span_id)).map(Span::title).collect::<Vec<_>>()
    };
    assert_eq!(below(queued[0]), ["ferrite.index.lookup", "ferrite.storage.write [mutable]"]);
    assert_eq!(below(queued[1]), ["ferrite.index.lookup"]);
    assert_eq!(spans[0].status, Status::Unset);
}

#[test]
fn queued_commands_below_a_lone_root_leave_it_alone() {
    let mut recorder = always_on(Detail::Command);
    let mut buffer = recorder.buffer();
    begin(&mut buffer, "EXEC", 1, &[]);
    buffer.execute_open();
    let child = buffer.begin_child(None);
    buffer.describe("GET", 1, 2, [&b"a"[..]]);
    buffer.finish_child(child, Outcome::Nil, b"");
    buffer.finish_command(Outcome::Ok, b"", 0);
    write(&mut buffer);
    let trace = commit(&mut recorder, &mut buffer).remove(0);
    assert_eq!(trace.span_count(), 1);
    assert_eq!(root(&trace).attribute(Attribute::CommandName), Some(&Value::Str("EXEC".into())));
}

#[test]
fn a_context_makes_the_command_a_child_and_carries_its_tracestate() {
    let mut recorder = always_on(Detail::Full);
    let mut buffer = recorder.buffer();
    buffer.begin_command();
    let parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";
    buffer.set_context(&RemoteContext::parse(parent, b"foo=1,bar=2").expect("valid"));
    buffer.describe("GET", 1, 2, [&b"k"[..]]);
    assert_eq!(buffer.ids().map(|(trace, _)| trace.to_string()).as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    buffer.finish_command(Outcome::Err, b"WRONGTYPE Operation", 0);
    write(&mut buffer);
    let trace = commit(&mut recorder, &mut buffer).remove(0);
    let root = root(&trace);
    assert_eq!(root.parent_span_id, Some(SpanId(0x00f0_67aa_0ba9_02b7)));
    assert!(root.parent_is_remote);
    assert_eq!((root.tracestate.as_str(), root.flags), ("foo=1,bar=2", 3));
    assert_eq!(root.attribute(Attribute::ErrorType), Some(&Value::Str("WRONGTYPE".into())));
    assert_eq!(root.attribute(Attribute::CommandResult), Some(&Value::Str("ERR".into())));
    assert_eq!(root.status, Status::Error("WRONGTYPE Operation".into()));
    assert!(trace.spans().skip(1).all(|span| !span.parent_is_remote && span.tracestate == "foo=1,bar=2"));
}

#[test]
fn a_trace_of_ours_has_a_random_id_and_says_so() {
    let mut recorder = always_on(Detail::Full);
    let mut buffer = recorder.buffer();
    buffer.begin_command();
    assert_eq!(buffer.baggage("tenant.id"), None);
    buffer.set_baggage([("tenant.id", "acme".into())].into_iter());
    assert_eq!((buffer.baggage("tenant.id"), buffer.baggage("user.id")), (Some(&b"acme"[..]), None));
    buffer.describe("GET", 1, 2, [&b"k"[..]]);
    buffer.finish_command(Outcome::Nil, b"", 0);
    write(&mut buffer);
    let trace = commit(&mut recorder, &mut buffer).remove(0);
    let expected = [("tenant.id".to_owned(), "acme".to_owned())];
    assert!(trace.spans().all(|span| span.flags == 3 && *span.baggage == expected));
}

#[test]
fn redacted_keys_are_not_recorded() {
    let said = |keys| {
        let config = RecorderConfig { keys, ..RecorderConfig::default() };
        let mut recorder = Recorder::new(|| 0, &config);
        let mut buffer = recorder.buffer();
        buffer.begin_command();
        buffer.describe("MGET", 1, 3, [&b"user:1"[..], b"user:2"]);
        buffer.finish_command(Outcome::Ok, b"", 0);
        recorder.commit(&mut buffer, |_| {});
        let root = root(&recorder.ring().last(1)[0]);
        let text = |attribute| root.attribute(attribute).map(ToString::to_string);
        (text(Attribute::DbStatement).expect("always there"), text(Attribute::CommandKey))
    };
    assert_eq!(said(Keys::Shown), ("MGET user:1 user:2".to_owned(), Some("user:1".to_owned())));
    assert_eq!(said(Keys::Dropped), ("MGET ...".to_owned(), None));
    let (statement, key) = said(Keys::hashed("salt"));
    let key = key.expect("hashed keys are told");
    assert!(key.starts_with('#') && key.len() == 17, "{key}");
    assert!(statement.starts_with(&format!("MGET {key} #")) && !statement.contains("user"), "{statement}");
}

#[test]
fn a_decision_that_the_caller_left_to_us_is_the_sampler_s() {
    for (deferred, expected) in [(false, false), (true, true)] {
        let sampling = Sampling::by_head(Probability::AlwaysOn, true);
        let mut recorder = Recorder::new(|| 0, &RecorderConfig { sampling, ..RecorderConfig::default() });
        let mut buffer = recorder.buffer();
        buffer.begin_command();
        let (trace_id, span_id) = (TraceId(5), SpanId(6));
        buffer.set_context(&RemoteContext { trace_id, span_id, flags: 0, deferred, tracestate: "".into() });
        buffer.finish_command(Outcome::Ok, b"", 0);
        recorder.commit(&mut buffer, |_| {});
        assert_eq!(recorder.counters().sampled() > 0, expected, "deferred: {deferred}");
    }
}

#[test]
fn what_was_not_sampled_is_in_the_ring_alone_and_says_so() {
    let mut recorder = recorder(Detail::Storage, Sampling::by_head(Probability::AlwaysOff, false));
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    begin(&mut buffer, "GET", 2, &[b"a\r\nb\xff"]);
    buffer.finish_command(Outcome::Nil, b"", 0);
    write(&mut buffer);
    assert!(commit(&mut recorder, &mut buffer).is_empty());
    let last = recorder.ring().last(1).remove(0);
    assert_eq!(recorder.ring().find(last.trace_id()).len(), 1);
    let lines = ferrite_telemetry::render(&last, &Shape::default());
    assert_eq!(lines[0], format!("trace {} (not sampled)", last.trace_id()));
    assert!(lines.contains(&"  |-- ferrite.command.key: a\\r\\nb\u{fffd}".to_owned()), "{lines:#?}");
    assert_eq!(lines.last().map(String::as_str), Some("  +-- ferrite.resp.parse (10ns)"));
    assert_eq!((recorder.counters().created(), recorder.counters().sampled()), (2, 0));
}

#[test]
fn a_pipeline_is_read_back_newest_first_and_what_is_too_large_for_the_ring_in_part() {
    let mut recorder = always_on(Detail::Full);
    let mut buffer = recorder.buffer();
    let pipeline = |recorder: &mut Recorder, buffer: &mut TraceBuffer, commands: usize| {
        buffer.start_batch();
        let keys: Vec<String> = (0..commands).map(|at| at.to_string()).collect();
        let indices: Vec<usize> = keys.iter().map(|key| begin(buffer, "GET", 2, &[key.as_bytes()])).collect();
        for index in indices {
            buffer.select(index);
            buffer.dispatch();
            buffer.execute_open();
            buffer.index_lookup(1);
            buffer.finish_command(Outcome::Nil, b"", 0);
        }
        write(buffer);
        commit(recorder, buffer)
    };
    // 64 KiB of ring, about 200 bytes a command.
    for commands in [3, 250] {
        let kept = pipeline(&mut recorder, &mut buffer, commands);
        assert_eq!(kept.len(), commands);
        let last = recorder.ring().last(100);
        let newest: Vec<KeptTrace> = kept.into_iter().rev().take(100).collect();
        assert_eq!(
            last.iter().map(KeptTrace::trace_id).collect::<Vec<_>>(),
            newest.iter().map(KeptTrace::trace_id).collect::<Vec<_>>()
        );
        assert!(last.iter().zip(&newest).all(|(last, newest)| last.spans().eq(newest.spans())));
    }
}

#[test]
fn the_text_of_a_cold_get_has_the_documented_shape() {
    let lines = ferrite_telemetry::render(&cold_get(Detail::Storage), &Shape::default());
    let shape: Vec<&str> = lines.iter().map(|line| line.split(" (").next().unwrap_or(line)).collect();
    let tail = [
        "  +-- ferrite.epoch.protect",
        "  |     |-- ferrite.storage.epoch: 1847",
        "  |",
        "  +-- ferrite.storage.read [disk]",
        "        |-- ferrite.storage.operation: read",
        "        |-- ferrite.storage.tier: disk",
        "        |-- ferrite.storage.cache_hit: false",
        "        |-- ferrite.storage.bytes: 4096",
        "        |-- ferrite.storage.epoch: 1847",
        "        |-- ferrite.io_uring.sqe_id: 29104",
    ];
    assert_eq!(shape[shape.len() - tail.len()..], tail, "{lines:#?}");
}

#[test]
fn a_disconnect_ends_every_span() {
    let mut recorder = always_on(Detail::Full);
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    begin(&mut buffer, "GET", 2, &[b"cold"]);
    buffer.dispatch();
    buffer.execute_open();
    buffer.index_lookup(1);
    let _ = buffer.disk_read_open();
    let trace = commit(&mut recorder, &mut buffer).remove(0);
    let root = root(&trace);
    assert!(root.attribute(Attribute::CommandResult).is_none());
    assert!(trace.spans().all(|span| span.end_ns >= span.start_ns && span.end_ns <= root.end_ns));
    assert!(commit(&mut recorder, &mut buffer).is_empty(), "the buffer is empty again");
}

#[test]
fn too_many_spans_are_counted_and_left_out() {
    let mut recorder = always_on(Detail::Full);
    let mut buffer = recorder.buffer();
    begin(&mut buffer, "MGET", 4001, &[&b"k"[..]; 4000]);
    for bucket in 0..4000 {
        buffer.index_lookup(bucket);
    }
    let child = buffer.begin_child(None);
    buffer.index_lookup(1);
    buffer.finish_child(child, Outcome::Ok, b"");
    buffer.finish_command(Outcome::Ok, b"", 0);
    write(&mut buffer);
    let trace = commit(&mut recorder, &mut buffer).remove(0);
    assert_eq!(trace.span_count(), 1004);
    let root = root(&trace);
    assert_eq!(root.attribute(Attribute::CommandSpansDropped), Some(&Value::Int(3001)));
    let Some(Value::Str(statement)) = root.attribute(Attribute::DbStatement) else { panic!("a statement") };
    assert!(statement.len() <= 1028 && statement.ends_with(" ..."), "{statement}");
}

#[test]
fn off_records_nothing_and_still_times_execution() {
    let config = RecorderConfig {
        detail: None,
        ring_bytes: 0,
        keys: Keys::Shown,
        sampling: Sampling::by_head(Probability::AlwaysOn, false),
        export: true,
        seed: 1,
        ..RecorderConfig::default()
    };
    let mut recorder = Recorder::new(clock, &config);
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    begin(&mut buffer, "GET", 2, &[b"k"]);
    buffer.dispatch();
    let before = NOW.get();
    buffer.execute_open();
    buffer.index_lookup(1);
    buffer.pause(Wait::Disk);
    buffer.resume();
    assert_eq!(buffer.finish_command(Outcome::Ok, b"", 0), 30);
    assert_eq!(NOW.get() - before, 40, "four readings of the clock");
    write(&mut buffer);
    assert!(commit(&mut recorder, &mut buffer).is_empty() && recorder.ring().last(1).is_empty());
}

#[test]
fn a_discarded_command_leaves_no_trace_and_disturbs_no_other() {
    let mut recorder = always_on(Detail::Full);
    let mut buffer = recorder.buffer();
    begin(&mut buffer, "OTEL.TRACES", 2, &[]);
    buffer.discard();
    buffer.dispatch();
    buffer.finish_command(Outcome::Ok, b"", 0);
    begin(&mut buffer, "GET", 2, &[b"k"]);
    buffer.index_lookup(9);
    buffer.finish_command(Outcome::Ok, b"", 0);
    write(&mut buffer);
    let traces = commit(&mut recorder, &mut buffer);
    assert_eq!(traces.len(), 1);
    assert_eq!(children(&traces[0]).len(), 4, "{:?}", children(&traces[0]));
}

#[test]
fn the_same_seed_gives_the_same_ids() {
    let ids = || {
        NOW.set(1_000);
        let mut recorder = always_on(Detail::Full);
        let mut buffer = recorder.buffer();
        begin(&mut buffer, "PING", 1, &[]);
        buffer.finish_command(Outcome::Ok, b"", 0);
        write(&mut buffer);
        commit(&mut recorder, &mut buffer)
    };
    assert_eq!(ids(), ids());
}

proptest! {
    /// However a batch interleaves, every span is below its own command, once, in the order of recording.
    #[test]
    fn spans_never_cross_between_commands(steps in proptest::collection::vec((0usize..8, 0u8..4), 0..200)) {
        let mut recorder = always_on(Detail::Storage);
        let mut buffer = recorder.buffer();
        buffer.start_batch();
        let keys: Vec<String> = (0..8).map(|at| format!("key{at}")).collect();
        for key in &keys {
            buffer.begin_command();
            buffer.describe("GET", 1, 2, [key.as_bytes()]);
        }
        let mut expected: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
        for (bucket, (command, kind)) in steps.iter().enumerate() {
            buffer.select(*command);
            match kind {
                0 => {
                    // An abandoned run leaves nothing behind.
                    let checkpoint = buffer.checkpoint();
                    buffer.index_lookup(9_999);
                    let child = buffer.begin_child(None);
                    buffer.index_lookup(9_999);
                    buffer.finish_child(child, Outcome::Ok, b"");
                    buffer.rollback(checkpoint);
                }
                _ => {
                    buffer.index_lookup(bucket as u64);
                    expected.entry(*command).or_default().push(bucket as i64);
                }
            }
        }
        let traces = commit(&mut recorder, &mut buffer);
        prop_assert_eq!(traces.len(), 8);
        for (at, trace) in traces.iter().enumerate() {
            let spans: Vec<Span> = trace.spans().collect();
            prop_assert_eq!(spans[0].attribute(Attribute::CommandKey), Some(&Value::Str(keys[at].clone().into())));
            let buckets: Vec<i64> = spans.iter().filter_map(|span| match span.attribute(Attribute::IndexBucket) {
                Some(Value::Int(bucket)) => Some(*bucket),
                _ => None,
            }).collect();
            prop_assert_eq!(&buckets, &expected.remove(&at).unwrap_or_default());
            prop_assert!(spans[1..].iter().all(|span| span.parent_span_id == Some(trace.root_id())));
        }
    }
}

fn failure() -> Exception {
    Exception {
        kind: ExceptionType::ReadDamaged,
        message: "the disk lies".to_owned(),
        stack: Some(StackTrace::capture()),
    }
}

/// It is the event of [`failure`], at some time within the span.
fn assert_is_failure(span: &Span, event: &Event) {
    assert_eq!(event.name, EventName::Exception);
    assert!((span.start_ns..=span.end_ns).contains(&event.time_ns));
    let keys = [Attribute::ExceptionType, Attribute::ExceptionMessage, Attribute::ExceptionStacktrace];
    assert_eq!(event.attributes.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys);
    let text = |at: usize| event.attributes[at].1.to_string();
    assert_eq!((text(0), text(1)), (ExceptionType::ReadDamaged.as_str().to_owned(), "the disk lies".to_owned()));
    assert!(text(2).contains("trees::failure"), "{}", text(2));
}

#[test]
fn what_is_cut_off_is_marked_wherever_it_is() {
    let mut recorder = always_on(Detail::Full);
    let of = |recorder: &mut Recorder, key: &[u8], error: &str| {
        let mut buffer = recorder.buffer();
        buffer.start_batch();
        begin(&mut buffer, "GET", 2, &[key]);
        buffer.finish_command(Outcome::Err, error.as_bytes(), 0);
        write(&mut buffer);
        let root = root(&commit(recorder, &mut buffer).remove(0));
        let Some(Value::Str(key)) = root.attribute(Attribute::CommandKey).cloned() else { panic!("{root:?}") };
        let Some(Value::Str(statement)) = root.attribute(Attribute::DbStatement).cloned() else { panic!("{root:?}") };
        let Status::Error(error) = root.status else { panic!("it failed") };
        (key.into_owned(), statement.into_owned(), error)
    };
    let error = format!("ERR {}", "x".repeat(508));
    let (key, statement, told) = of(&mut recorder, &[b'k'; 1000], &error);
    assert_eq!((key.len(), statement.len(), told == error), (1000, 1004, true), "what fits is whole");
    let (key, statement, told) = of(&mut recorder, "ü".repeat(600).as_bytes(), &format!("{error}ü"));
    assert!(key.starts_with("üü") && key.ends_with("ü…") && key.len() < 1030, "{key}");
    assert!(statement.ends_with(" ..."), "{statement}");
    assert_eq!(told, format!("{error}…"));
    let (_, _, told) = of(&mut recorder, b"k", &format!("ERR {}üü", "x".repeat(507)));
    assert_eq!(told, format!("ERR {}…", "x".repeat(507)), "no half character");
}
