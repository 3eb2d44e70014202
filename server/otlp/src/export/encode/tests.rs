//! What is written is what OpenTelemetry's own messages read.

use std::net::{IpAddr, SocketAddr};

use ferrite_telemetry::schema::{EventName, Tier};
use ferrite_telemetry::{
    Conventions, Event, Exception, Link, Masks, Outcome, RemoteContext, Span, SpanId, SpanLimits, SpanName, Status,
    TraceBuffer, TraceId, Value, Wait,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Kind;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1 as proto;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::export::testing::{CALLER, failed_get, get, recorded, settings};
use crate::queue::ColdSpan;

const OFFSET_NS: i64 = 1_753_000_000_000_000_000;

fn decoded(batch: &[Queued]) -> Vec<proto::Span> {
    shaped(&Shape::default(), batch)
}

fn shaped(shape: &Shape, batch: &[Queued]) -> Vec<proto::Span> {
    let mut encoder = SpanEncoder::new(&ExportSettings { shape: Arc::new(shape.clone()), ..settings() });
    let mut request = ExportTraceServiceRequest::decode(encoder.encode(batch)).expect("it is one");
    assert_eq!((request.resource_spans.len(), request.resource_spans[0].scope_spans.len()), (1, 1));
    let mut resource = request.resource_spans.remove(0);
    assert_eq!(resource.resource, Some(settings().resource()));
    let scope = resource.scope_spans.remove(0);
    assert_eq!(scope.scope, Some(super::scope()));
    scope.spans
}

/// The message that a span should become.
fn expected(span: &Span) -> proto::Span {
    let any = |value: &Value| AnyValue {
        value: Some(match value {
            Value::Str(text) => Kind::StringValue(text.to_string()),
            Value::Int(number) => Kind::IntValue(*number),
            Value::Bool(truth) => Kind::BoolValue(*truth),
        }),
    };
    let pair = |key: &str, value: AnyValue| KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() };
    let pairs = |attributes: &[(Attribute, Value)]| -> Vec<KeyValue> {
        attributes.iter().map(|(key, value)| pair(key.as_str(), any(value))).collect()
    };
    let mut attributes = pairs(&span.attributes);
    attributes.extend(span.baggage.iter().map(|(key, value)| pair(key, any(&Value::Str(value.clone().into())))));
    let remote = if span.parent_is_remote { 0x300 } else { 0x100 };
    proto::Span {
        trace_id: span.trace_id.0.to_be_bytes().to_vec(),
        span_id: span.span_id.0.to_be_bytes().to_vec(),
        trace_state: span.tracestate.clone(),
        parent_span_id: span.parent_span_id.map_or(Vec::new(), |id| id.0.to_be_bytes().to_vec()),
        flags: u32::from(span.flags) | remote,
        name: span.name.as_str().to_owned(),
        kind: match span.kind {
            SpanKind::Internal => proto::span::SpanKind::Internal,
            SpanKind::Server => proto::span::SpanKind::Server,
            SpanKind::Client => proto::span::SpanKind::Client,
            SpanKind::Producer => proto::span::SpanKind::Producer,
            SpanKind::Consumer => proto::span::SpanKind::Consumer,
        } as i32,
        start_time_unix_nano: span.start_ns.wrapping_add_signed(OFFSET_NS),
        end_time_unix_nano: span.end_ns.wrapping_add_signed(OFFSET_NS),
        attributes,
        dropped_attributes_count: span.dropped_attributes,
        events: span
            .events
            .iter()
            .map(|event| proto::span::Event {
                time_unix_nano: event.time_ns.wrapping_add_signed(OFFSET_NS),
                name: event.name.as_str().to_owned(),
                attributes: pairs(&event.attributes),
                dropped_attributes_count: event.dropped_attributes,
            })
            .collect(),
        dropped_events_count: span.dropped_events,
        links: span
            .links
            .iter()
            .map(|link| proto::span::Link {
                trace_id: link.trace_id.0.to_be_bytes().to_vec(),
                span_id: link.span_id.0.to_be_bytes().to_vec(),
                trace_state: link.tracestate.clone(),
                flags: u32::from(link.flags) | 0x300,
                ..proto::span::Link::default()
            })
            .collect(),
        dropped_links_count: span.dropped_links,
        status: match &span.status {
            Status::Unset => None,
            Status::Error(message) => {
                Some(proto::Status { message: message.clone(), code: proto::status::StatusCode::Error as i32 })
            }
        },
    }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::Int),
        any::<bool>().prop_map(Value::Bool),
        ".{0,300}".prop_map(|text| Value::Str(text.into())),
    ]
}

fn attributes() -> impl Strategy<Value = Vec<(Attribute, Value)>> {
    vec((prop::sample::select(Attribute::ALL), value()), 0..8)
}

fn event() -> impl Strategy<Value = Event> {
    (prop::sample::select(EventName::ALL), any::<u64>(), attributes(), any::<u32>()).prop_map(
        |(name, time_ns, attributes, dropped_attributes)| Event { name, time_ns, attributes, dropped_attributes },
    )
}

fn link() -> impl Strategy<Value = Link> {
    (any::<u128>(), any::<u64>(), "[a-z=,]{0,20}", any::<u8>()).prop_map(|(trace, span, tracestate, flags)| Link {
        trace_id: TraceId(trace),
        span_id: SpanId(span),
        tracestate,
        flags,
    })
}

prop_compose! {
    fn span()(
        (trace_id, span_id, parent, parent_is_remote, flags) in any::<(u128, u64, Option<u64>, bool, u8)>(),
        name in prop::sample::select(SpanName::ALL),
        kind in prop::sample::select(SpanKind::ALL),
        (start_ns, end_ns) in any::<(u64, u64)>(),
        attributes in attributes(),
        baggage in vec((".{1,20}", ".{0,40}"), 0..4),
        status in prop_oneof![Just(Status::Unset), ".{0,200}".prop_map(Status::Error)],
        events in vec(event(), 0..4),
        links in vec(link(), 0..4),
        tracestate in "([a-z]{1,9}=[!-+]{1,9}( ?, ?[a-z]{1,9}=[!-+]{1,9}){0,3})?",
        (dropped_attributes, dropped_events, dropped_links) in any::<(u32, u32, u32)>(),
    ) -> Span {
        Span {
            trace_id: TraceId(trace_id), span_id: SpanId(span_id), parent_span_id: parent.map(SpanId), parent_is_remote,
            name, kind, start_ns, end_ns, attributes, baggage: baggage.into(), status, links, events, tracestate, flags,
            dropped_attributes, dropped_events, dropped_links,
        }
    }
}

proptest! {
    #[test]
    fn any_span_is_read_as_it_was(spans in vec(span(), 1..4)) {
        let wanted: Vec<proto::Span> = spans.iter().map(expected).collect();
        let cold = |span| Queued::Cold(Box::new(ColdSpan { span, wall_offset_ns: OFFSET_NS }));
        let batch: Vec<Queued> = spans.into_iter().map(cold).collect();
        // The default shape's limits are beyond what is drawn.
        prop_assert_eq!(decoded(&batch), wanted);
    }
}

/// What happens while a command runs.
#[derive(Clone, Debug)]
enum Step {
    Lookup(u64),
    Read(Tier, bool, usize),
    Cold(bool, u64),
    Write(Tier, usize),
    Advance(u64),
    Append(usize),
    Failure(String),
    Queued { name: &'static str, key: Vec<u8>, steps: Vec<Step>, error: String, links: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let tier = || prop::sample::select(Tier::ALL);
    let steps = prop_oneof![
        any::<u64>().prop_map(Step::Lookup),
        (tier(), any::<bool>(), any::<usize>()).prop_map(|(tier, found, bytes)| Step::Read(tier, found, bytes)),
        (any::<bool>(), any::<u64>()).prop_map(|(found, submission)| Step::Cold(found, submission)),
        (tier(), any::<usize>()).prop_map(|(tier, bytes)| Step::Write(tier, bytes)),
        any::<u64>().prop_map(Step::Advance),
        any::<usize>().prop_map(Step::Append),
        ".{0,200}".prop_map(Step::Failure),
    ];
    steps.prop_recursive(2, 12, 5, |inner| {
        let name = prop::sample::select(vec!["GET", "SET", ""]);
        (name, vec(any::<u8>(), 0..40), vec(inner, 0..5), ".{0,20}", any::<bool>())
            .prop_map(|(name, key, steps, error, links)| Step::Queued { name, key, steps, error, links })
    })
}

fn context() -> RemoteContext<'static> {
    RemoteContext::parse(CALLER.as_bytes(), b"foo=1 ,bar=2").expect("it is valid")
}

fn outcome(error: &str) -> Outcome {
    if error.is_empty() { Outcome::Nil } else { Outcome::Err }
}

fn record(step: &Step, buffer: &mut TraceBuffer) {
    match step {
        Step::Lookup(bucket) => buffer.index_lookup(*bucket),
        Step::Read(tier, found, bytes) => buffer.storage_read(*tier, *found, *bytes),
        Step::Cold(found, submission) => {
            buffer.epoch_protect(7);
            let slot = buffer.disk_read_open();
            buffer.disk_read_close(slot, 1, 2, found.then_some(9), *submission);
        }
        Step::Write(tier, bytes) => buffer.storage_write(*tier, *bytes),
        Step::Advance(epoch) => buffer.epoch_advance(*epoch),
        Step::Append(bytes) => buffer.aof_append(*bytes),
        Step::Failure(message) => {
            buffer.exception(&Exception {
                kind: ferrite_telemetry::schema::ExceptionType::ReadFailed,
                message: message.clone(),
                stack: None,
            });
        }
        Step::Queued { name, key, steps, error, links } => {
            let child = buffer.begin_child(links.then(context).as_ref());
            buffer.describe(name, 1, 3, [&key[..]]);
            steps.iter().for_each(|step| record(step, buffer));
            buffer.finish_child(child, outcome(error), error.as_bytes());
        }
    }
}

prop_compose! {
    fn trace()(
        peer in prop::option::of(any::<(IpAddr, u16)>()),
        has_context in any::<bool>(),
        baggage in vec(("[a-z]{1,9}", ".{0,40}"), 0..4),
        name in prop::sample::select(vec!["EXEC", "CONFIG SET", ""]),
        (keys, argc) in (vec(vec(any::<u8>(), 0..60), 0..3), 0usize..9),
        (steps, cold) in (vec(step(), 0..9), vec(step(), 0..3)),
        error in prop_oneof![Just(String::new()), ".{0,200}"],
        offset in any::<u64>(),
    ) -> ferrite_telemetry::KeptTrace {
        recorded(|buffer| {
            buffer.connection(offset, peer.map(SocketAddr::from));
            buffer.begin_command();
            buffer.parse();
            if has_context {
                buffer.set_context(&context());
                buffer.set_baggage(baggage.iter().map(|(key, value)| (key.as_str(), value.into())));
            }
            cold.iter().for_each(|step| record(step, buffer));
            buffer.describe(name, 1, argc, keys.iter().map(Vec::as_slice));
            buffer.dispatch();
            buffer.execute_open();
            buffer.pause(Wait::Disk);
            buffer.resume();
            steps.iter().for_each(|step| record(step, buffer));
            buffer.finish_command(outcome(&error), error.as_bytes(), offset);
        })
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    let conventions = prop::sample::select(vec![Conventions::Old, Conventions::Stable, Conventions::Both]);
    let masked = vec(prop::sample::select(Attribute::ALL).prop_map(|key| key.as_str().to_owned()), 0..3);
    let limits = (0usize..20, prop::option::of(0usize..20), 0usize..3, 0usize..2, 0usize..3);
    (conventions, masked, prop::option::of(limits)).prop_map(|(conventions, masked, limits)| {
        let limits =
            limits.map(|(attribute_count, attribute_value_length, event_count, link_count, event_attribute_count)| {
                SpanLimits { attribute_count, attribute_value_length, event_count, link_count, event_attribute_count }
            });
        Shape { conventions, masked: Masks::new(masked), limits: limits.unwrap_or_default(), ..Shape::default() }
    })
}

/// All of it, so many spans at a time.
fn parts(mut item: Queued, spans: usize) -> Vec<Queued> {
    let mut parts = Vec::new();
    while item.count() > spans {
        parts.push(item.split_off(spans).expect("a trace can be taken apart"));
    }
    parts.push(item);
    parts
}

proptest! {
    #[test]
    fn any_trace_is_written_as_its_spans_are(traces in vec(trace(), 1..4), shape in shape(), part in 1usize..9) {
        let mut wanted = Vec::new();
        for trace in &traces {
            wanted.extend(trace.spans().map(|span| expected(&shape.apply(&span))));
            prop_assert_eq!(trace.span_count(), trace.spans().count());
        }
        let batch: Vec<Queued> = traces.into_iter().map(Queued::from).collect();
        prop_assert_eq!(&shaped(&shape, &batch), &wanted);
        let in_parts: Vec<Queued> = batch.into_iter().flat_map(|item| parts(item, part)).collect();
        prop_assert_eq!(shaped(&shape, &in_parts), wanted);
    }
}

#[test]
fn a_command_becomes_a_server_span_with_its_children_in_order() {
    for trace in [get(None), get(Some((CALLER, "foo=1 ,bar=2"))), failed_get()] {
        let spans = decoded(&[trace.clone().into()]);
        let wanted: Vec<proto::Span> = trace.spans().map(|span| expected(&span)).collect();
        assert_eq!(spans, wanted);
        assert_eq!((spans[0].name.as_str(), spans[0].kind), (SpanName::Command.as_str(), 2));
    }
}

#[test]
fn a_shape_is_applied_before() {
    let masked = vec![Attribute::DbStatement.as_str().to_owned()];
    let root = &shaped(&Shape { masked: Masks::new(masked), ..Shape::default() }, &[get(None).into()])[0];
    let statement = root.attributes.iter().find(|pair| pair.key == Attribute::DbStatement.as_str());
    let wanted = AnyValue { value: Some(Kind::StringValue("[REDACTED]".to_owned())) };
    assert_eq!(statement.and_then(|pair| pair.value.clone()), Some(wanted));
}
