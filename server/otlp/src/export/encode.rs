//! Spans as the bytes of an OTLP request, written directly: no message structs in between.
//!
//! Field numbers are those of `opentelemetry/proto/trace/v1/trace.proto` and of the files that it imports.

mod wire;

use std::sync::Arc;

use bytes::Bytes;
use ferrite_telemetry::{Attribute, Event, Link, Shape, Span, SpanKind, Status, Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::batches::Encode;
use super::scope;
use crate::Queued;
use crate::queue::Countable;
use wire::{Wire, len_of_field};

/// Bytes of a span with usual attributes; a guess, to ask for memory once.
const SPAN_BYTES: usize = 320;

/// The parent's, or the link's, whereabouts are known …
const HAS_IS_REMOTE: u32 = 0x100;
/// … and it is in another process.
const IS_REMOTE: u32 = 0x200;

/// `STATUS_CODE_ERROR`.
const ERROR: u64 = 2;

/// Makes requests of one resource.
pub(super) struct Encoder {
    resource: Vec<u8>,
    scope: Vec<u8>,
    shape: Arc<Shape>,
}

impl Encoder {
    pub(super) fn new(resource: &Resource, shape: Arc<Shape>) -> Self {
        Self { resource: resource.encode_to_vec(), scope: scope().encode_to_vec(), shape }
    }
}

impl Encode<Queued> for Encoder {
    /// An `ExportTraceServiceRequest` with every span of a batch, in the order of its items and of their recording.
    fn encode(&self, batch: &[Queued]) -> Bytes {
        let count: usize = batch.iter().map(Countable::count).sum();
        let mut spans = Wire::with_capacity(count * SPAN_BYTES);
        for item in batch {
            match item {
                Queued::Trace(trace) => {
                    let offset = trace.wall_offset_ns();
                    trace.spans().for_each(|span| put_span(&mut spans, &self.shape.apply(span), offset));
                }
                Queued::Part(part) => {
                    let offset = part.trace().wall_offset_ns();
                    part.spans().for_each(|span| put_span(&mut spans, &self.shape.apply(span), offset));
                }
                Queued::Cold(cold) => put_span(&mut spans, &self.shape.apply(cold.span.clone()), cold.wall_offset_ns),
            }
        }
        self.framed(&spans.into_bytes())
    }
}

impl Encoder {
    /// `spans`: the field `spans` of `ScopeSpans`, again and again.
    fn framed(&self, spans: &[u8]) -> Bytes {
        let scope_spans = len_of_field(self.scope.len()) + spans.len();
        let resource_spans = len_of_field(self.resource.len()) + len_of_field(scope_spans);
        let mut request = Wire::with_capacity(len_of_field(resource_spans));
        request.head(1, resource_spans);
        request.bytes(1, &self.resource);
        request.head(2, scope_spans);
        request.bytes(1, &self.scope);
        request.raw(spans);
        request.into_bytes().into()
    }
}

fn put_span(wire: &mut Wire, span: &Span, wall_offset_ns: i64) {
    let time = |monotonic_ns: u64| monotonic_ns.wrapping_add_signed(wall_offset_ns);
    let begin = wire.begin(2);
    wire.bytes(1, &span.trace_id.0.to_be_bytes());
    wire.bytes(2, &span.span_id.0.to_be_bytes());
    wire.text(3, &span.tracestate);
    if let Some(parent) = span.parent_span_id {
        wire.bytes(4, &parent.0.to_be_bytes());
    }
    wire.text(5, span.name.as_str());
    wire.number(6, kind(span.kind));
    wire.fixed64(7, time(span.start_ns));
    wire.fixed64(8, time(span.end_ns));
    span.attributes.iter().for_each(|(key, value)| put_attribute(wire, 9, *key, value));
    for (key, value) in span.baggage.iter() {
        put_text_attribute(wire, 9, key, value);
    }
    wire.number(10, span.dropped_attributes.into());
    span.events.iter().for_each(|event| put_event(wire, event, time(event.time_ns)));
    wire.number(12, span.dropped_events.into());
    span.links.iter().for_each(|link| put_link(wire, link));
    wire.number(14, span.dropped_links.into());
    if let Status::Error(message) = &span.status {
        let status = wire.begin(15);
        wire.text(2, message);
        wire.number(3, ERROR);
        wire.end(status);
    }
    let remote = if span.parent_is_remote { IS_REMOTE } else { 0 };
    wire.fixed32(16, u32::from(span.flags) | HAS_IS_REMOTE | remote);
    wire.end(begin);
}

/// `SPAN_KIND_UNSPECIFIED` is 0.
fn kind(kind: SpanKind) -> u64 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

fn put_attribute(wire: &mut Wire, field: u32, key: Attribute, value: &Value) {
    if let Value::Str(text) = value {
        return put_text_attribute(wire, field, key.as_str(), text);
    }
    let pair = wire.begin(field);
    wire.text(1, key.as_str());
    let any = wire.begin(2);
    match value {
        Value::Str(_) => unreachable!("it was written above"),
        Value::Bool(truth) => wire.chosen(2, u64::from(*truth)),
        Value::Int(number) => wire.chosen(3, number.cast_unsigned()),
    }
    wire.end(any);
    wire.end(pair);
}

fn put_text_attribute(wire: &mut Wire, field: u32, key: &str, value: &str) {
    let any = len_of_field(value.len());
    wire.head(field, len_of_field(key.len()) + len_of_field(any));
    wire.bytes(1, key.as_bytes());
    wire.head(2, any);
    wire.bytes(1, value.as_bytes());
}

fn put_event(wire: &mut Wire, event: &Event, unix_ns: u64) {
    let begin = wire.begin(11);
    wire.fixed64(1, unix_ns);
    wire.text(2, event.name.as_str());
    event.attributes.iter().for_each(|(key, value)| put_attribute(wire, 3, *key, value));
    wire.number(4, event.dropped_attributes.into());
    wire.end(begin);
}

fn put_link(wire: &mut Wire, link: &Link) {
    let begin = wire.begin(13);
    wire.bytes(1, &link.trace_id.0.to_be_bytes());
    wire.bytes(2, &link.span_id.0.to_be_bytes());
    wire.text(3, &link.tracestate);
    // It came with the command that has the link.
    wire.fixed32(6, u32::from(link.flags) | HAS_IS_REMOTE | IS_REMOTE);
    wire.end(begin);
}

#[cfg(test)]
mod tests;
