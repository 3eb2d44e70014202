//! A finished span as exporters, text trees and golden traces read it: neutral, owned, made off the command's way.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::context::{SpanId, TraceId};
use crate::schema::{Attribute, EventName, SpanKind, SpanName};
use crate::sink::ValueRef;

/// An attribute's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Str(Cow<'static, str>),
    Int(i64),
    Bool(bool),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Str(text) => f.write_str(text),
            Self::Int(number) => number.fmt(f),
            Self::Bool(truth) => truth.fmt(f),
        }
    }
}

/// Success leaves a status unset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Unset,
    /// With the error reply's text.
    Error(String),
}

/// A span in a trace of its own that this one belongs to without being its child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    /// As it came; empty if there was none.
    pub tracestate: String,
    pub flags: u8,
}

/// Something that happened within a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub name: EventName,
    /// On the monotonic clock.
    pub time_ns: u64,
    pub attributes: Vec<(Attribute, Value)>,
    /// How many more there were.
    pub dropped_attributes: u32,
}

/// A finished span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent_span_id: Option<SpanId>,
    /// The parent is in another process.
    pub parent_is_remote: bool,
    pub name: SpanName,
    pub kind: SpanKind,
    /// On the monotonic clock.
    pub start_ns: u64,
    /// On the monotonic clock; never before the start.
    pub end_ns: u64,
    /// In the order in which they are worth reading; no key twice.
    pub attributes: Vec<(Attribute, Value)>,
    /// Further attributes: what was taken of the caller's baggage. The same for all spans of a command.
    pub baggage: Arc<[(String, String)]>,
    pub status: Status,
    pub links: Vec<Link>,
    pub events: Vec<Event>,
    /// The caller's, verbatim; empty if there was none.
    pub tracestate: String,
    /// The trace flags: bit 0 is the decision of the sampler, bit 1 (`random`) comes from the caller or is ours.
    pub flags: u8,
    /// How many more attributes there were, events, links.
    pub dropped_attributes: u32,
    pub dropped_events: u32,
    pub dropped_links: u32,
}

impl Span {
    /// The value of an attribute.
    pub fn attribute(&self, key: Attribute) -> Option<&Value> {
        self.attributes.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// The name, and for a storage span its tier in brackets.
    pub fn title(&self) -> String {
        match self.attribute(Attribute::StorageTier) {
            Some(tier) => format!("{} [{tier}]", self.name),
            None => self.name.to_string(),
        }
    }
}

/// A number as a value.
pub(crate) fn int(number: u64) -> Value {
    ValueRef::from(number).to_value()
}
