//! Spans told piece by piece: whoever reads traces back need not build any span for somebody who only wants its bytes.

use std::ops::Range;

use crate::context::{SpanId, TraceId};
use crate::schema::{Attribute, EventName, SpanKind, SpanName, Tier};
use crate::span::{Event, Link, Span, Status, Value};

/// An attribute's value, wherever its text lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueRef<'v> {
    Str(&'v str),
    Int(i64),
    Bool(bool),
}

/// What a span has one of.
#[derive(Clone, Copy, Debug)]
pub struct SpanHead<'h> {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent_span_id: Option<SpanId>,
    pub parent_is_remote: bool,
    pub name: SpanName,
    pub kind: SpanKind,
    /// On the monotonic clock, both.
    pub start_ns: u64,
    pub end_ns: u64,
    /// Empty if there is none.
    pub tracestate: &'h str,
    /// The W3C trace flags.
    pub flags: u8,
    /// The text of a failure.
    pub error: Option<&'h str>,
}

/// A [`Link`], wherever its text lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkRef<'l> {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub tracestate: &'l str,
    pub flags: u8,
}

/// How many attributes, events and links a span had that it is not told with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    pub attributes: u32,
    pub events: u32,
    pub links: u32,
}

/// Who is told of spans, one after the other: head, attributes, members of the baggage, events (each with its attributes),
/// links, end.
pub trait SpanSink {
    /// A span begins. Everything up to its [`SpanSink::end`] is its.
    fn head(&mut self, head: &SpanHead<'_>);
    fn attribute(&mut self, key: Attribute, value: ValueRef<'_>);
    /// An attribute that was taken of the caller's baggage.
    fn member(&mut self, key: &str, value: &str);
    /// An event begins: at this time on the monotonic clock.
    fn event(&mut self, name: EventName, time_ns: u64);
    fn event_attribute(&mut self, key: Attribute, value: ValueRef<'_>);
    /// The event ends; so many attributes of it were dropped.
    fn event_end(&mut self, dropped: u32);
    fn link(&mut self, link: &LinkRef<'_>);
    fn end(&mut self, dropped: Dropped);
}

impl Value {
    /// The value where it lies.
    pub fn to_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Str(text) => ValueRef::Str(text),
            Self::Int(number) => ValueRef::Int(*number),
            Self::Bool(truth) => ValueRef::Bool(*truth),
        }
    }
}

impl Link {
    fn to_ref(&self) -> LinkRef<'_> {
        let Self { trace_id, span_id, ref tracestate, flags } = *self;
        LinkRef { trace_id, span_id, tracestate, flags }
    }
}

impl ValueRef<'_> {
    pub(crate) fn to_value(self) -> Value {
        match self {
            Self::Str(text) => Value::Str(text.to_owned().into()),
            Self::Int(number) => Value::Int(number),
            Self::Bool(truth) => Value::Bool(truth),
        }
    }
}

impl From<Tier> for ValueRef<'_> {
    fn from(tier: Tier) -> Self {
        Self::Str(tier.as_str())
    }
}

/// Integers of the wire formats are signed; counters beyond their range do not occur.
impl From<u64> for ValueRef<'_> {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl Span {
    /// Tells this span.
    pub fn tell(&self, sink: &mut impl SpanSink) {
        sink.head(&SpanHead {
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent_span_id: self.parent_span_id,
            parent_is_remote: self.parent_is_remote,
            name: self.name,
            kind: self.kind,
            start_ns: self.start_ns,
            end_ns: self.end_ns,
            tracestate: &self.tracestate,
            flags: self.flags,
            error: match &self.status {
                Status::Error(message) => Some(message),
                Status::Unset => None,
            },
        });
        self.attributes.iter().for_each(|(key, value)| sink.attribute(*key, value.to_ref()));
        self.baggage.iter().for_each(|(key, value)| sink.member(key, value));
        for event in &self.events {
            sink.event(event.name, event.time_ns);
            event.attributes.iter().for_each(|(key, value)| sink.event_attribute(*key, value.to_ref()));
            sink.event_end(event.dropped_attributes);
        }
        self.links.iter().for_each(|link| sink.link(&link.to_ref()));
        sink.end(Dropped {
            attributes: self.dropped_attributes,
            events: self.dropped_events,
            links: self.dropped_links,
        });
    }
}

/// Tells on some of the spans that it is told.
pub(crate) struct Excerpt<'s, S> {
    wanted: Range<usize>,
    sink: &'s mut S,
    /// How many heads it was told.
    heads: usize,
}

impl<'s, S: SpanSink> Excerpt<'s, S> {
    /// `wanted`: by how many were told before.
    pub fn of(wanted: Range<usize>, sink: &'s mut S) -> Self {
        Self { wanted, sink, heads: 0 }
    }

    /// Who is told of the last span, if it is wanted.
    fn wants(&mut self) -> Option<&mut S> {
        self.wanted.contains(&self.heads.wrapping_sub(1)).then_some(&mut *self.sink)
    }
}

impl<S: SpanSink> SpanSink for Excerpt<'_, S> {
    fn head(&mut self, head: &SpanHead<'_>) {
        self.heads += 1;
        if let Some(sink) = self.wants() {
            sink.head(head);
        }
    }

    fn attribute(&mut self, key: Attribute, value: ValueRef<'_>) {
        if let Some(sink) = self.wants() {
            sink.attribute(key, value);
        }
    }

    fn member(&mut self, key: &str, value: &str) {
        if let Some(sink) = self.wants() {
            sink.member(key, value);
        }
    }

    fn event(&mut self, name: EventName, time_ns: u64) {
        if let Some(sink) = self.wants() {
            sink.event(name, time_ns);
        }
    }

    fn event_attribute(&mut self, key: Attribute, value: ValueRef<'_>) {
        if let Some(sink) = self.wants() {
            sink.event_attribute(key, value);
        }
    }

    fn event_end(&mut self, dropped: u32) {
        if let Some(sink) = self.wants() {
            sink.event_end(dropped);
        }
    }

    fn link(&mut self, link: &LinkRef<'_>) {
        if let Some(sink) = self.wants() {
            sink.link(link);
        }
    }

    fn end(&mut self, dropped: Dropped) {
        if let Some(sink) = self.wants() {
            sink.end(dropped);
        }
    }
}

/// Spans for those who want them whole.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub spans: Vec<Span>,
    /// Of the last span.
    baggage: Vec<(String, String)>,
}

impl Collected {
    fn last(&mut self) -> &mut Span {
        self.spans.last_mut().expect("its head comes first")
    }

    fn last_event(&mut self) -> &mut Event {
        self.last().events.last_mut().expect("its name comes first")
    }
}

impl SpanSink for Collected {
    fn head(&mut self, head: &SpanHead<'_>) {
        self.spans.push(Span {
            trace_id: head.trace_id,
            span_id: head.span_id,
            parent_span_id: head.parent_span_id,
            parent_is_remote: head.parent_is_remote,
            name: head.name,
            kind: head.kind,
            start_ns: head.start_ns,
            end_ns: head.end_ns,
            attributes: Vec::new(),
            baggage: Default::default(),
            status: head.error.map_or(Status::Unset, |message| Status::Error(message.to_owned())),
            links: Vec::new(),
            events: Vec::new(),
            tracestate: head.tracestate.to_owned(),
            flags: head.flags,
            dropped_attributes: 0,
            dropped_events: 0,
            dropped_links: 0,
        });
    }

    fn attribute(&mut self, key: Attribute, value: ValueRef<'_>) {
        self.last().attributes.push((key, value.to_value()));
    }

    fn member(&mut self, key: &str, value: &str) {
        self.baggage.push((key.to_owned(), value.to_owned()));
    }

    fn event(&mut self, name: EventName, time_ns: u64) {
        self.last().events.push(Event { name, time_ns, attributes: Vec::new(), dropped_attributes: 0 });
    }

    fn event_attribute(&mut self, key: Attribute, value: ValueRef<'_>) {
        self.last_event().attributes.push((key, value.to_value()));
    }

    fn event_end(&mut self, dropped: u32) {
        self.last_event().dropped_attributes = dropped;
    }

    fn link(&mut self, link: &LinkRef<'_>) {
        let LinkRef { trace_id, span_id, tracestate, flags } = *link;
        self.last().links.push(Link { trace_id, span_id, tracestate: tracestate.to_owned(), flags });
    }

    fn end(&mut self, dropped: Dropped) {
        let baggage = std::mem::take(&mut self.baggage);
        let span = self.last();
        if !baggage.is_empty() {
            span.baggage = baggage.into();
        }
        span.dropped_attributes = dropped.attributes;
        span.dropped_events = dropped.events;
        span.dropped_links = dropped.links;
    }
}
