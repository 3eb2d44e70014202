//! Exceptions are on the span that failed.

use super::*;

#[test]
fn an_exception_is_on_the_command_that_failed_and_on_no_other() {
    let mut recorder = always_on(Detail::Full);
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    let commands: Vec<usize> =
        [&b"one"[..], b"two", b"three"].iter().map(|key| begin(&mut buffer, "GET", 2, &[key])).collect();
    let context =
        RemoteContext::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", b"a=b").expect("valid");
    for command in commands {
        buffer.select(command);
        buffer.dispatch();
        buffer.execute_open();
        if command == 1 {
            buffer.set_context(&context);
            buffer.exception(&failure());
            buffer.finish_command(Outcome::Err, b"ERR the disk lies", 0);
        } else {
            buffer.finish_command(Outcome::Ok, b"", 0);
        }
    }
    write(&mut buffer);
    let traces = commit(&mut recorder, &mut buffer);
    assert_eq!(traces.iter().map(|trace| root(trace).events.len()).collect::<Vec<_>>(), [0, 1, 0]);
    let failed = root(&traces[1]);
    assert_is_failure(&failed, &failed.events[0]);
    assert_eq!(failed.status, Status::Error("ERR the disk lies".to_owned()));
    assert_eq!(failed.attribute(Attribute::ErrorType), Some(&Value::Str("ERR".into())));
    assert_eq!(failed.tracestate, "a=b");
    assert!(traces[1].spans().skip(1).all(|span| span.events.is_empty()));
    // The ring has it too, and it reads as text.
    let lines = ferrite_telemetry::render(&recorder.ring().find(failed.trace_id)[0], &Shape::default());
    assert!(lines.iter().any(|line| line.starts_with("  |-- event: exception (+")), "{lines:#?}");
    assert!(lines.contains(&"  |     exception.message: the disk lies".to_owned()), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("  |       ") && line.contains("trees::")), "{lines:#?}");
}

#[test]
fn an_exception_of_a_queued_command_is_on_its_own_span() {
    let mut recorder = always_on(Detail::Full);
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    begin(&mut buffer, "EXEC", 1, &[]);
    buffer.dispatch();
    buffer.execute_open();
    for queued in 0..3 {
        let child = buffer.begin_child(None);
        buffer.describe("GET", 1, 2, [&b"key"[..]]);
        if queued == 1 {
            buffer.exception(&failure());
        }
        buffer.finish_child(child, Outcome::Ok, b"");
    }
    buffer.finish_command(Outcome::Ok, b"", 0);
    write(&mut buffer);
    let trace = commit(&mut recorder, &mut buffer).remove(0);
    let queued: Vec<Span> = trace.spans().filter(|span| span.name == SpanName::Command).skip(1).collect();
    assert_eq!(queued.iter().map(|span| span.events.len()).collect::<Vec<_>>(), [0, 1, 0]);
    assert_is_failure(&queued[1], &queued[1].events[0]);
    assert!(root(&trace).events.is_empty());
}

#[test]
fn an_abandoned_run_takes_its_events_along_and_a_muted_command_has_none() {
    let mut recorder = always_on(Detail::Full);
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    begin(&mut buffer, "GET", 2, &[b"key"]);
    buffer.exception(&failure());
    let checkpoint = buffer.checkpoint();
    buffer.exception(&failure());
    buffer.rollback(checkpoint);
    buffer.mute(true);
    buffer.exception(&failure());
    buffer.mute(false);
    buffer.finish_command(Outcome::Err, b"ERR", 0);
    let traces = commit(&mut recorder, &mut buffer);
    assert_eq!(root(&traces[0]).events.len(), 1);
}

#[test]
fn replies_that_could_not_become_durable_fail_with_the_exception() {
    let mut recorder = always_on(Detail::Full);
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    for key in [&b"written"[..], b"lost", b"lost too"] {
        begin(&mut buffer, "SET", 3, &[key]);
        buffer.finish_command(Outcome::Ok, b"", 0);
        if key == b"written" {
            write(&mut buffer);
        }
    }
    let failed = buffer.fail_unwritten(b"MISCONF no sync", &failure());
    write(&mut buffer);
    let traces = commit(&mut recorder, &mut buffer);
    let roots: Vec<Span> = traces.iter().map(root).collect();
    assert_eq!((&roots[0].status, roots[0].events.len()), (&Status::Unset, 0));
    assert_eq!(failed, roots[1..].iter().map(|root| (root.trace_id, root.span_id)).collect::<Vec<_>>());
    for root in &roots[1..] {
        assert_eq!(root.status, Status::Error("MISCONF no sync".to_owned()));
        assert_eq!(root.attribute(Attribute::ErrorType), Some(&Value::Str("MISCONF".into())));
        assert_is_failure(root, &root.events[0]);
    }
    let serialized = traces[1].spans().find(|span| span.name == SpanName::RespSerialize).expect("it was recorded");
    assert!(serialized.end_ns < roots[1].events[0].time_ns, "the wait is not part of it");
}
