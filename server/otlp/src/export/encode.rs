//! Spans as the bytes of an OTLP request, written directly from what was recorded: no span and no message in between.
//!
//! Field numbers are those of `opentelemetry/proto/trace/v1/trace.proto` and of the files that it imports. What is the same for
//! every span of a name, or for every attribute of a key, is there before (`names`).

mod names;
mod wire;

use std::sync::Arc;

use bytes::Bytes;
use ferrite_telemetry::schema::EventName;
use ferrite_telemetry::{Attribute, Dropped, LinkRef, Shape, SpanHead, SpanKind, SpanName, SpanSink, Teller, ValueRef};
use prost::Message;

use super::{ExportSettings, scope};
use crate::Queued;
use crate::queue::Countable;
use names::{Encoded, KEYS, NAMES};
use wire::{BYTES, Begun, FIXED32, FIXED64, HEAD_BYTES_MAX, VARINT, Wire, key_of, len_of_field, len_of_varint};

/// Bytes of a span with usual attributes; a guess, to ask for memory once.
const SPAN_BYTES: usize = 320;

/// The parent's, or the link's, whereabouts are known …
const HAS_IS_REMOTE: u32 = 0x100;
/// … and it is in another process.
const IS_REMOTE: u32 = 0x200;

/// `STATUS_CODE_ERROR`.
const ERROR: u64 = 2;

/// Makes requests of one resource.
pub struct SpanEncoder {
    /// The fields of both, with what stands before them.
    resource: Vec<u8>,
    scope: Vec<u8>,
    shape: Arc<Shape>,
    teller: Teller,
}

impl SpanEncoder {
    pub fn new(settings: &ExportSettings) -> Self {
        let field = |bytes: &[u8]| {
            let mut wire = Wire::with_capacity(bytes.len());
            wire.bytes(1, bytes);
            wire.into_bytes()
        };
        Self {
            resource: field(&settings.resource().encode_to_vec()),
            scope: field(&scope().encode_to_vec()),
            shape: Arc::clone(&settings.shape),
            teller: Teller::default(),
        }
    }

    /// An `ExportTraceServiceRequest` with every span of a batch, in the order of its items and of their recording.
    pub fn encode(&mut self, batch: &[Queued]) -> Bytes {
        let count: usize = batch.iter().map(Countable::count).sum();
        // What stands before the spans has their length in it: it gets this room, and is written at its end.
        let room = self.resource.len() + self.scope.len() + 2 * HEAD_BYTES_MAX;
        let mut wire = Wire::with_capacity(room + count * SPAN_BYTES);
        wire.skip(room);
        for item in batch {
            let wall_offset_ns = match item {
                Queued::Trace(trace) => trace.wall_offset_ns(),
                Queued::Part(part) => part.trace().wall_offset_ns(),
                Queued::Cold(cold) => cold.wall_offset_ns,
            };
            let mut spans = Spans { wire: &mut wire, wall_offset_ns, span: Begun::default(), event: Begun::default() };
            let mut shaped = self.shape.before(&mut spans);
            match item {
                Queued::Trace(trace) => self.teller.tell(trace, &mut shaped),
                Queued::Part(part) => part.tell(&mut self.teller, &mut shaped),
                Queued::Cold(cold) => cold.span.tell(&mut shaped),
            }
        }
        let mut request = wire.into_bytes();
        let head = self.head(request.len() - room);
        let from = room - head.len();
        request[from..room].copy_from_slice(&head);
        Bytes::from(request).slice(from..)
    }

    /// Everything before so many bytes of the field `spans` of `ScopeSpans`.
    fn head(&self, spans: usize) -> Vec<u8> {
        let scope_spans = self.scope.len() + spans;
        let resource_spans = self.resource.len() + len_of_field(scope_spans);
        let mut head = Wire::with_capacity(self.resource.len() + self.scope.len() + 2 * HEAD_BYTES_MAX);
        head.head(1, resource_spans);
        head.raw(&self.resource);
        head.head(2, scope_spans);
        head.raw(&self.scope);
        head.into_bytes()
    }
}

/// Where the spans of one trace go: the field `spans` of `ScopeSpans`, again and again.
struct Spans<'w> {
    wire: &'w mut Wire,
    /// From the monotonic clock to nanoseconds since the Unix epoch.
    wall_offset_ns: i64,
    span: Begun,
    event: Begun,
}

/// The fields of a span that are as long in every one, in this order; the last is left out of a span without a parent.
const FIXED: [u8; 64] = {
    let mut fixed = [0; 64];
    (fixed[0], fixed[1]) = (key_of(1, BYTES), 16);
    (fixed[SPAN_ID - 2], fixed[SPAN_ID - 1]) = (key_of(2, BYTES), 8);
    fixed[KIND - 1] = key_of(6, VARINT);
    fixed[START - 1] = key_of(7, FIXED64);
    fixed[END - 1] = key_of(8, FIXED64);
    // The key of field 16 takes two bytes.
    (fixed[FLAGS - 2], fixed[FLAGS - 1]) = (key_of(0, FIXED32) | 0x80, 1);
    (fixed[PARENT - 2], fixed[PARENT - 1]) = (key_of(4, BYTES), 8);
    fixed
};
/// Where in it their values are.
const TRACE_ID: usize = 2;
const SPAN_ID: usize = TRACE_ID + 16 + 2;
const KIND: usize = SPAN_ID + 8 + 1;
const START: usize = KIND + 1 + 1;
const END: usize = START + 8 + 1;
const FLAGS: usize = END + 8 + 2;
const PARENT: usize = FLAGS + 4 + 2;

impl Spans<'_> {
    fn time(&self, monotonic_ns: u64) -> u64 {
        monotonic_ns.wrapping_add_signed(self.wall_offset_ns)
    }
}

impl SpanSink for Spans<'_> {
    #[inline]
    fn head(&mut self, head: &SpanHead<'_>) {
        let remote = if head.parent_is_remote { IS_REMOTE } else { 0 };
        let flags = u32::from(head.flags) | HAS_IS_REMOTE | remote;
        let mut fixed = FIXED;
        fixed[TRACE_ID..][..16].copy_from_slice(&head.trace_id.0.to_be_bytes());
        fixed[SPAN_ID..][..8].copy_from_slice(&head.span_id.0.to_be_bytes());
        fixed[KIND] = kind(head.kind);
        fixed[START..][..8].copy_from_slice(&self.time(head.start_ns).to_le_bytes());
        fixed[END..][..8].copy_from_slice(&self.time(head.end_ns).to_le_bytes());
        fixed[FLAGS..][..4].copy_from_slice(&flags.to_le_bytes());
        let mut used = PARENT - 2;
        if let Some(parent) = head.parent_span_id {
            fixed[PARENT..][..8].copy_from_slice(&parent.0.to_be_bytes());
            used = fixed.len();
        }
        let wire = &mut *self.wire;
        // With what these say of themselves a span has nearly always more than 127 bytes and less than 16 KiB.
        let says_much = matches!(head.name, SpanName::Command | SpanName::StorageRead | SpanName::StorageWrite);
        self.span = wire.begin(2, 1 + usize::from(says_much));
        wire.put(&fixed, used);
        let name = &NAMES[head.name as usize];
        wire.put(&name.bytes, name.len);
        if !head.tracestate.is_empty() {
            wire.bytes(3, head.tracestate.as_bytes());
        }
        if let Some(error) = head.error {
            let status = wire.begin(15, 1);
            wire.text(2, error);
            wire.number(3, ERROR);
            wire.end(status);
        }
    }

    #[inline]
    fn attribute(&mut self, key: Attribute, value: ValueRef<'_>) {
        put_attribute(self.wire, 9, key, value);
    }

    fn member(&mut self, key: &str, value: &str) {
        let any = len_of_field(value.len());
        self.wire.head(9, len_of_field(key.len()) + len_of_field(any));
        self.wire.bytes(1, key.as_bytes());
        self.wire.head(2, any);
        self.wire.bytes(1, value.as_bytes());
    }

    fn event(&mut self, name: EventName, time_ns: u64) {
        let time = self.time(time_ns);
        self.event = self.wire.begin(11, 1);
        self.wire.fixed64(1, time);
        self.wire.text(2, name.as_str());
    }

    fn event_attribute(&mut self, key: Attribute, value: ValueRef<'_>) {
        put_attribute(self.wire, 3, key, value);
    }

    fn event_end(&mut self, dropped: u32) {
        self.wire.number(4, dropped.into());
        self.wire.end(std::mem::take(&mut self.event));
    }

    fn link(&mut self, link: &LinkRef<'_>) {
        let begin = self.wire.begin(13, 1);
        self.wire.bytes(1, &link.trace_id.0.to_be_bytes());
        self.wire.bytes(2, &link.span_id.0.to_be_bytes());
        self.wire.text(3, link.tracestate);
        // It came with the command that has the link.
        self.wire.fixed32(6, u32::from(link.flags) | HAS_IS_REMOTE | IS_REMOTE);
        self.wire.end(begin);
    }

    #[inline]
    fn end(&mut self, dropped: Dropped) {
        self.wire.number(10, dropped.attributes.into());
        self.wire.number(12, dropped.events.into());
        self.wire.number(14, dropped.links.into());
        self.wire.end(std::mem::take(&mut self.span));
    }
}

/// `SPAN_KIND_UNSPECIFIED` is 0.
fn kind(kind: SpanKind) -> u8 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

/// A `KeyValue`.
#[inline]
fn put_attribute(wire: &mut Wire, field: u32, key: Attribute, value: ValueRef<'_>) {
    let key = &KEYS[key as usize];
    match value {
        ValueRef::Str(text) => put_text(wire, field, key, text),
        ValueRef::Bool(truth) => put_scalar(wire, field, key, 2, truth.into()),
        ValueRef::Int(number) => put_scalar(wire, field, key, 3, number.cast_unsigned()),
    }
}

/// `kind`: the field of `AnyValue`. Written even if it is 0: a `oneof` says something by being there.
#[inline]
fn put_scalar(wire: &mut Wire, field: u32, key: &Encoded, kind: u32, value: u64) {
    let any = 1 + len_of_varint(value);
    // Shorter than 128 bytes, with any key.
    wire.put(&[key_of(field, BYTES), (key.len + 1 + any) as u8], 2);
    wire.put(&key.bytes, key.len);
    wire.put(&[any as u8, key_of(kind, VARINT)], 2);
    wire.varint(value);
}

#[inline]
fn put_text(wire: &mut Wire, field: u32, key: &Encoded, text: &str) {
    let any = len_of_field(text.len());
    let pair = key.len + len_of_varint(any as u64) + any;
    if pair < 0x80 {
        wire.put(&[key_of(field, BYTES), pair as u8], 2);
        wire.put(&key.bytes, key.len);
        wire.put(&[any as u8, key_of(1, BYTES), text.len() as u8], 3);
    } else {
        wire.head(field, pair);
        wire.put(&key.bytes, key.len);
        wire.varint(any as u64);
        wire.head(1, text.len());
    }
    wire.raw(text.as_bytes());
}

#[cfg(test)]
mod tests;
