//! What was queued as the SDK's spans.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use ferrite_telemetry as ours;
use ferrite_telemetry::{Attribute, Shape};
use opentelemetry::trace::{Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{SCOPE_NAME, SCOPE_VERSION};
use crate::Queued;

/// Every span of a batch, in the order of its items and of their recording.
pub(super) fn span_data(batch: &[Queued], shape: &Shape) -> Vec<SpanData> {
    let scope = InstrumentationScope::builder(SCOPE_NAME).with_version(SCOPE_VERSION).build();
    let mut spans = Vec::with_capacity(batch.iter().map(Queued::span_count).sum());
    for item in batch {
        match item {
            Queued::Trace(trace) => {
                let offset = trace.wall_offset_ns();
                spans.extend(trace.spans().map(|span| convert(shape.apply(span), offset, scope.clone())));
            }
            Queued::Cold(cold) => {
                spans.push(convert(shape.apply(cold.span.clone()), cold.wall_offset_ns, scope.clone()))
            }
        }
    }
    spans
}

fn convert(span: ours::Span, wall_offset_ns: i64, scope: InstrumentationScope) -> SpanData {
    let time = |monotonic_ns: u64| {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(monotonic_ns.wrapping_add_signed(wall_offset_ns))
    };
    // It was checked when it came in. What the SDK yet refuses is left out: a span without it is better than none.
    let tracestate = TraceState::from_str(&span.tracestate).unwrap_or_default();
    let mut links = SpanLinks::default();
    links.links = span.links.iter().map(link).collect();
    links.dropped_count = span.dropped_links;
    let mut events = SpanEvents::default();
    events.dropped_count = span.dropped_events;
    events.events = span
        .events
        .into_iter()
        .map(|event| {
            Event::new(event.name.as_str(), time(event.time_ns), attributes(event.attributes), event.dropped_attributes)
        })
        .collect();
    SpanData {
        span_context: SpanContext::new(
            TraceId::from(span.trace_id.0),
            SpanId::from(span.span_id.0),
            TraceFlags::new(span.flags),
            false,
            tracestate,
        ),
        parent_span_id: span.parent_span_id.map_or(SpanId::INVALID, |id| SpanId::from(id.0)),
        parent_span_is_remote: span.parent_is_remote,
        span_kind: kind(span.kind),
        name: span.name.as_str().into(),
        start_time: time(span.start_ns),
        end_time: time(span.end_ns),
        attributes: with_baggage(attributes(span.attributes), &span.baggage),
        dropped_attributes_count: span.dropped_attributes,
        events,
        links,
        status: match span.status {
            ours::Status::Unset => Status::Unset,
            ours::Status::Error(description) => Status::Error { description: description.into() },
        },
        instrumentation_scope: scope,
    }
}

fn link(link: &ours::Link) -> Link {
    let context = SpanContext::new(
        TraceId::from(link.trace_id.0),
        SpanId::from(link.span_id.0),
        TraceFlags::new(link.flags),
        true,
        TraceState::NONE,
    );
    Link::new(context, Vec::new(), 0)
}

fn attributes(attributes: Vec<(Attribute, ours::Value)>) -> Vec<KeyValue> {
    attributes.into_iter().map(|(key, value)| KeyValue::new(key.as_str(), attribute_value(value))).collect()
}

fn with_baggage(mut attributes: Vec<KeyValue>, baggage: &[(String, String)]) -> Vec<KeyValue> {
    attributes.extend(baggage.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())));
    attributes
}

fn attribute_value(value: ours::Value) -> Value {
    match value {
        ours::Value::Str(text) => Value::String(StringValue::from(text)),
        ours::Value::Int(number) => Value::I64(number),
        ours::Value::Bool(truth) => Value::Bool(truth),
    }
}

fn kind(kind: ours::SpanKind) -> SpanKind {
    match kind {
        ours::SpanKind::Internal => SpanKind::Internal,
        ours::SpanKind::Server => SpanKind::Server,
        ours::SpanKind::Client => SpanKind::Client,
        ours::SpanKind::Producer => SpanKind::Producer,
        ours::SpanKind::Consumer => SpanKind::Consumer,
    }
}

#[cfg(test)]
mod tests {
    use ferrite_telemetry::{SpanName, schema::EventName};

    use super::*;
    use crate::export::testing::{CALLER, failed_get, get};

    const WALL_NS: u64 = 1_753_000_000_000_000_000;

    #[test]
    fn a_command_becomes_a_server_span_with_its_children_in_order() {
        let trace = get(None);
        let spans = span_data(&[trace.clone().into()], &Shape::default());
        assert_eq!(spans.len(), trace.span_count());
        let root = &spans[0];
        assert_eq!((root.name.as_ref(), &root.span_kind), (SpanName::Command.as_str(), &SpanKind::Server));
        assert_eq!(root.parent_span_id, SpanId::INVALID);
        assert!(!root.parent_span_is_remote && root.span_context.is_sampled() && !root.span_context.is_remote());
        assert_eq!(root.span_context.trace_id().to_string(), trace.trace_id().to_string());
        assert_eq!(root.status, Status::Unset);
        for (child, ours) in spans[1..].iter().zip(trace.spans().skip(1)) {
            assert_eq!(child.name, ours.name.as_str());
            assert_eq!(child.span_context.span_id().to_string(), ours.span_id.to_string());
            assert_eq!(child.parent_span_id, root.span_context.span_id());
            assert_eq!(child.span_kind, SpanKind::Internal);
            assert_eq!(child.instrumentation_scope.version(), Some(SCOPE_VERSION));
        }
        let argc = root.attributes.iter().find(|pair| pair.key.as_str() == Attribute::CommandArgsCount.as_str());
        assert_eq!(argc.map(|pair| &pair.value), Some(&Value::I64(2)));
    }

    #[test]
    fn times_are_on_the_wall_clock() {
        let trace = get(None);
        let spans = span_data(&[trace.clone().into()], &Shape::default());
        let root = trace.spans().next().expect("it has a root");
        let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).expect("later").as_nanos() as u64;
        assert_eq!(since(spans[0].start_time), WALL_NS + root.start_ns);
        assert_eq!(since(spans[0].end_time), WALL_NS + root.end_ns);
    }

    #[test]
    fn a_caller_is_the_remote_parent_and_its_tracestate_goes_on() {
        let spans = span_data(&[get(Some((CALLER, "foo=1 ,bar=2"))).into()], &Shape::default());
        let root = &spans[0];
        assert_eq!(root.span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(root.parent_span_id.to_string(), "b7ad6b7169203331");
        assert!(root.parent_span_is_remote && !spans[1].parent_span_is_remote);
        assert_eq!(root.span_context.trace_state().header(), "foo=1,bar=2");
    }

    #[test]
    fn an_error_reply_is_the_description() {
        let spans = span_data(&[failed_get().into()], &Shape::default());
        assert_eq!(spans[0].status, Status::error("WRONGTYPE not a string"));
        assert_eq!(spans[1].status, Status::Unset);
    }

    #[test]
    fn links_and_events_keep_their_contents() {
        let mut span = get(None).spans().next().expect("it has a root");
        span.links = vec![ours::Link { trace_id: ours::TraceId(7), span_id: ours::SpanId(8), flags: 1 }];
        span.events = vec![ours::Event {
            name: EventName::Exception,
            time_ns: 5,
            attributes: vec![(Attribute::ExceptionType, ours::Value::Bool(true))],
            dropped_attributes: 2,
        }];
        let data = convert(span, 10, InstrumentationScope::default());
        let context = &data.links.links[0].span_context;
        assert_eq!((context.trace_id(), context.span_id()), (TraceId::from(7), SpanId::from(8)));
        assert!(context.is_sampled());
        let event = &data.events.events[0];
        assert_eq!(
            (event.name.as_ref(), event.attributes[0].value.clone()),
            (EventName::Exception.as_str(), Value::Bool(true))
        );
        assert_eq!(event.timestamp, SystemTime::UNIX_EPOCH + Duration::from_nanos(15));
    }
}
