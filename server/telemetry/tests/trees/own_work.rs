//! Traces of connections and of the server's own work.

use super::*;

/// Records a connection's end with these attributes.
fn end_connection(recorder: &mut Recorder, attributes: &[(Attribute, Value)], error: Option<&str>) -> Vec<KeptTrace> {
    let mut buffer = recorder.buffer();
    buffer.connection(42, Some(([192, 168, 1, 10], 54321).into()));
    buffer.root(SpanName::Connection, 5, attributes, error);
    commit(recorder, &mut buffer)
}

#[test]
fn work_of_the_servers_own_belongs_to_no_connection() {
    let mut recorder = always_on(Detail::Storage);
    let mut buffer = recorder.buffer();
    let attributes =
        [(Attribute::AofRewriteBytesBefore, Value::Int(900)), (Attribute::AofRewriteBytesAfter, Value::Int(70))];
    buffer.root(SpanName::AofRewrite, 5, &attributes, Some("the disk is full"));
    let traces = commit(&mut recorder, &mut buffer);
    let root = traces[0].spans().next().expect("one span");
    assert_eq!((root.kind, root.parent_span_id), (SpanKind::Internal, None));
    let keys: Vec<Attribute> = root.attributes.iter().map(|(key, _)| *key).collect();
    assert!(keys.contains(&Attribute::AofRewriteBytesAfter) && !keys.contains(&Attribute::ConnectionId), "{keys:?}");
    assert_eq!(root.status, Status::Error("the disk is full".into()));
}

#[test]
fn work_that_fails_has_its_exception_and_its_type() {
    let mut recorder = always_on(Detail::Storage);
    let mut buffer = recorder.buffer();
    let exception = Exception { kind: ExceptionType::LogFailed, message: "no disk".into(), stack: None };
    buffer.work(SpanName::Flush, 5, &[(Attribute::FlushPagesCount, Value::Int(2))], Some("no disk"), Some(&exception));
    let traces = commit(&mut recorder, &mut buffer);
    let spans: Vec<Span> = traces[0].spans().collect();
    let [root] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((root.name, root.status.clone()), (SpanName::Flush, Status::Error("no disk".into())));
    assert_eq!(root.attribute(Attribute::ErrorType), Some(&Value::Str(ExceptionType::LogFailed.as_str().into())));
    let [event] = &root.events[..] else { panic!("{:?}", root.events) };
    assert_eq!((event.name, event.time_ns), (EventName::Exception, root.end_ns));
    // Recording is off: nothing is kept of it.
    let mut off = Recorder::new(clock, &RecorderConfig { detail: None, ..RecorderConfig::default() });
    let mut buffer = off.buffer();
    buffer.work(SpanName::Flush, 5, &[], Some("no disk"), Some(&exception));
    assert!(commit(&mut off, &mut buffer).is_empty());
    assert_eq!(off.counters().created(), 0);
}

#[test]
fn a_connection_is_a_trace_of_one_span() {
    let mut recorder = always_on(Detail::Storage);
    let attributes = [
        (Attribute::ConnectionEndReason, Value::Str("protocol_error".into())),
        (Attribute::ConnectionCommandsCount, Value::Int(7)),
    ];
    let traces = end_connection(&mut recorder, &attributes, Some("protocol_error"));
    let spans: Vec<Span> = traces[0].spans().collect();
    let [span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((span.name, span.kind, span.parent_span_id), (SpanName::Connection, SpanKind::Internal, None));
    assert_eq!((span.start_ns, span.status.clone()), (5, Status::Error("protocol_error".to_owned())));
    assert!(span.end_ns > 1_000);
    let expected = [
        (Attribute::DbSystem, Value::Str("ferrite".into())),
        (Attribute::NetPeerIp, Value::Str("192.168.1.10".into())),
        (Attribute::NetPeerPort, Value::Int(54321)),
        (Attribute::ConnectionId, Value::Int(42)),
        attributes[0].clone(),
        attributes[1].clone(),
        (Attribute::ErrorType, Value::Str("protocol_error".into())),
    ];
    assert_eq!(span.attributes, expected);
    assert_eq!(recorder.counters().created(), 1);
    let lines = ferrite_telemetry::render(&traces[0], &Shape::default());
    assert_eq!(lines[0], format!("trace {} (connection)", span.trace_id));
    assert!(lines[1].starts_with("ferrite.connection ("), "{lines:?}");
}

#[test]
fn connections_are_sampled_as_commands_are_and_not_recorded_when_nothing_is() {
    let mut never = recorder(Detail::Full, Sampling::by_head(Probability::AlwaysOff, false));
    assert!(end_connection(&mut never, &[], None).is_empty());
    let lines = ferrite_telemetry::render(&never.ring().last(1)[0], &Shape::default());
    assert!(lines[0].ends_with(" (connection, not sampled)"), "{lines:?}");
    let mut buffer = never.buffer();
    buffer.configure(None);
    buffer.root(SpanName::Connection, 5, &[], None);
    commit(&mut never, &mut buffer);
    assert_eq!(never.counters().created(), 1);
}

#[test]
fn the_last_commands_are_found_among_any_number_of_connections() {
    let mut recorder = always_on(Detail::Command);
    let command = |recorder: &mut Recorder| {
        let mut buffer = recorder.buffer();
        begin(&mut buffer, "PING", 1, &[]);
        buffer.finish_command(Outcome::Ok, b"", 0);
        commit(recorder, &mut buffer);
    };
    command(&mut recorder);
    command(&mut recorder);
    for _ in 0..20 {
        end_connection(&mut recorder, &[], None);
    }
    command(&mut recorder);
    let names = |count| recorder.ring().last(count).iter().map(|trace| trace.name()).collect::<Vec<_>>();
    let (command, connection) = (SpanName::Command, SpanName::Connection);
    assert_eq!(names(1), [command]);
    assert_eq!(names(2), [command, connection, connection, command]);
    assert_eq!(names(3).len(), 6);
    assert_eq!(names(100).len(), 23);
}
