//! How spans look to whoever is not the recorder: names by another convention, masked attributes, limits. Applied as spans are
//! read back, so that recording pays nothing for it; exporters and `OTEL.TRACES` go through here alike.

use crate::masks::{Masks, stable_name};
use crate::schema::{Attribute, EventName, MASK};
use crate::sink::{Collected, Dropped, LinkRef, SpanHead, SpanSink, ValueRef};
use crate::span::Span;

/// Which names database attributes have (`OTEL_SEMCONV_STABILITY_OPT_IN`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conventions {
    /// `db.system`, `db.statement`, `net.peer.ip` …
    #[default]
    Old,
    /// `db.system.name`, `db.query.text`, `network.peer.address` … instead.
    Stable,
    /// Both.
    Both,
}

impl Conventions {
    /// From the variable's value: a list in which `database` and `database/dup` concern us, and the latter wins.
    pub fn from_opt_in(list: &str) -> Self {
        let has = |wanted: &str| list.split(',').any(|name| name.trim().eq_ignore_ascii_case(wanted));
        match (has("database/dup"), has("database")) {
            (true, _) => Self::Both,
            (false, true) => Self::Stable,
            (false, false) => Self::Old,
        }
    }
}

/// How much of a span is told (`OTEL_SPAN_*_LIMIT`); `None`: all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanLimits {
    pub attribute_count: usize,
    /// Characters of one text.
    pub attribute_value_length: Option<usize>,
    pub event_count: usize,
    pub link_count: usize,
    pub event_attribute_count: usize,
}

impl Default for SpanLimits {
    /// The specification's.
    fn default() -> Self {
        Self {
            attribute_count: 128,
            attribute_value_length: None,
            event_count: 128,
            link_count: 128,
            event_attribute_count: 128,
        }
    }
}

/// How much of an exported log line is told (`OTEL_LOGRECORD_*_LIMIT`); `None`: all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    pub attribute_count: usize,
    /// Characters of one text.
    pub attribute_value_length: Option<usize>,
}

impl Default for LogLimits {
    /// The specification's.
    fn default() -> Self {
        Self { attribute_count: 128, attribute_value_length: None }
    }
}

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    pub conventions: Conventions,
    pub masked: Masks,
    pub limits: SpanLimits,
    /// Of log lines, where they are exported.
    pub logs: LogLimits,
}

impl Shape {
    /// The span as it is told.
    pub fn apply(&self, span: &Span) -> Span {
        let mut collected = Collected::default();
        span.tell(&mut self.before(&mut collected));
        collected.spans.remove(0)
    }

    /// What tells a sink the spans that it is told, but in this shape.
    pub fn before<'s, S: SpanSink>(&'s self, sink: &'s mut S) -> Shaped<'s, S> {
        let changes_texts = !self.masked.is_empty() || self.limits.attribute_value_length.is_some();
        Shaped { shape: self, sink, changes_texts, text: String::new(), seen: Seen::default() }
    }
}

/// See [`Shape::before`].
pub struct Shaped<'s, S> {
    shape: &'s Shape,
    sink: &'s mut S,
    /// There are names to be masked, or there is a limit to the length of texts.
    changes_texts: bool,
    /// A text that was shortened.
    text: String,
    /// Of the span that is told.
    seen: Seen,
}

/// What a span has been told with so far, whether it was told on or not.
#[derive(Default)]
struct Seen {
    attributes: usize,
    events: usize,
    /// Of the last event.
    event_attributes: usize,
    links: usize,
    has_error: bool,
    has_system: bool,
}

impl<S: SpanSink> Shaped<'_, S> {
    /// An attribute by the name that it is to have.
    #[inline]
    fn named(&mut self, key: Attribute, value: ValueRef<'_>) {
        self.seen.attributes += 1;
        if self.seen.attributes > self.shape.limits.attribute_count {
            return;
        }
        if self.changes_texts {
            let value = told(self.shape, &mut self.text, key.as_str(), value);
            self.sink.attribute(key, value);
        } else {
            self.sink.attribute(key, value);
        }
    }

    /// By the stable conventions, or by both.
    #[cold]
    fn renamed(&mut self, key: Attribute, value: ValueRef<'_>) {
        let stable = stable_name(key);
        if stable.is_none() || self.shape.conventions == Conventions::Both {
            self.named(key, value);
        }
        if let Some(stable) = stable {
            self.named(stable, value);
        }
        // It comes first.
        self.seen.has_system |= key == Attribute::DbSystem;
        if key == Attribute::ErrorType && self.seen.has_error && self.seen.has_system {
            self.named(Attribute::DbResponseStatusCode, value);
        }
    }

    /// The event that was begun is told.
    fn shows_event(&self) -> bool {
        self.seen.events <= self.shape.limits.event_count
    }
}

impl<S: SpanSink> SpanSink for Shaped<'_, S> {
    #[inline]
    fn head(&mut self, head: &SpanHead<'_>) {
        self.seen = Seen { has_error: head.error.is_some(), ..Seen::default() };
        self.sink.head(head);
    }

    #[inline]
    fn attribute(&mut self, key: Attribute, value: ValueRef<'_>) {
        match self.shape.conventions {
            Conventions::Old => self.named(key, value),
            Conventions::Stable | Conventions::Both => self.renamed(key, value),
        }
    }

    fn member(&mut self, key: &str, value: &str) {
        self.seen.attributes += 1;
        if self.seen.attributes > self.shape.limits.attribute_count {
            return;
        }
        match told(self.shape, &mut self.text, key, ValueRef::Str(value)) {
            ValueRef::Str(value) => self.sink.member(key, value),
            ValueRef::Int(_) | ValueRef::Bool(_) => unreachable!("a text stays one"),
        }
    }

    fn event(&mut self, name: EventName, time_ns: u64) {
        self.seen.events += 1;
        self.seen.event_attributes = 0;
        if self.shows_event() {
            self.sink.event(name, time_ns);
        }
    }

    fn event_attribute(&mut self, key: Attribute, value: ValueRef<'_>) {
        self.seen.event_attributes += 1;
        if self.shows_event() && self.seen.event_attributes <= self.shape.limits.event_attribute_count {
            let value = told(self.shape, &mut self.text, key.as_str(), value);
            self.sink.event_attribute(key, value);
        }
    }

    fn event_end(&mut self, dropped: u32) {
        if self.shows_event() {
            let over = over(self.seen.event_attributes, self.shape.limits.event_attribute_count);
            self.sink.event_end(dropped.saturating_add(over));
        }
    }

    fn link(&mut self, link: &LinkRef<'_>) {
        self.seen.links += 1;
        if self.seen.links <= self.shape.limits.link_count {
            self.sink.link(link);
        }
    }

    #[inline]
    fn end(&mut self, dropped: Dropped) {
        let limits = &self.shape.limits;
        self.sink.end(Dropped {
            attributes: dropped.attributes.saturating_add(over(self.seen.attributes, limits.attribute_count)),
            events: dropped.events.saturating_add(over(self.seen.events, limits.event_count)),
            links: dropped.links.saturating_add(over(self.seen.links, limits.link_count)),
        });
    }
}

fn over(count: usize, max: usize) -> u32 {
    count.saturating_sub(max) as u32
}

/// The value as it is told: masked, or not longer than texts may be. `scratch` takes the text that it becomes.
fn told<'v>(shape: &Shape, scratch: &'v mut String, name: &str, value: ValueRef<'v>) -> ValueRef<'v> {
    let value = if shape.masked.hides(name) { ValueRef::Str(MASK) } else { value };
    match (value, shape.limits.attribute_value_length) {
        (ValueRef::Str(text), Some(length)) => ValueRef::Str(shortened(text, length, scratch)),
        _ => value,
    }
}

/// As many characters, the last one an ellipsis that says so. `scratch` takes what is shorter.
pub fn shortened<'v>(text: &'v str, length: usize, scratch: &'v mut String) -> &'v str {
    if text.chars().nth(length).is_none() {
        return text;
    }
    scratch.clear();
    scratch.extend(text.chars().take(length.saturating_sub(1)));
    if length > 0 {
        scratch.push('…');
    }
    scratch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{SpanId, TraceId};
    use crate::schema::{SpanKind, SpanName};
    use crate::span::{Event, Link, Status, Value};

    fn text(text: &str) -> Value {
        Value::Str(text.to_owned().into())
    }

    fn span() -> Span {
        let event = Event {
            name: EventName::Exception,
            time_ns: 1,
            attributes: vec![(Attribute::ExceptionType, text("t")), (Attribute::ExceptionMessage, text("longer"))],
            dropped_attributes: 0,
        };
        let link = Link { trace_id: TraceId(1), span_id: SpanId(1), tracestate: String::new(), flags: 0 };
        Span {
            trace_id: TraceId(1),
            span_id: SpanId(2),
            parent_span_id: None,
            parent_is_remote: false,
            name: SpanName::Command,
            kind: SpanKind::Server,
            start_ns: 0,
            end_ns: 1,
            attributes: vec![
                (Attribute::DbSystem, text("ferrite")),
                (Attribute::DbStatement, text("GET user:1")),
                (Attribute::ErrorType, text("WRONGTYPE")),
                (Attribute::NetPeerPort, Value::Int(1)),
            ],
            baggage: vec![("tenant.id".to_owned(), "acme".to_owned()), ("user.id".to_owned(), "amélie".to_owned())]
                .into(),
            status: Status::Error("WRONGTYPE no".to_owned()),
            links: vec![link.clone(), link],
            events: vec![event.clone(), event],
            tracestate: String::new(),
            flags: 1,
            dropped_attributes: 0,
            dropped_events: 0,
            dropped_links: 0,
        }
    }

    fn names(span: &Span) -> Vec<&'static str> {
        span.attributes.iter().map(|(key, _)| key.as_str()).collect()
    }

    #[test]
    fn by_default_nothing_changes() {
        assert_eq!(Shape::default().apply(&span()), span());
    }

    #[test]
    fn the_stable_conventions_replace_names_or_stand_beside_them() {
        let shaped =
            |opt_in| Shape { conventions: Conventions::from_opt_in(opt_in), ..Shape::default() }.apply(&span());
        let stable = ["db.system.name", "db.query.text", "error.type", "db.response.status_code", "network.peer.port"];
        assert_eq!(names(&shaped("http, Database")), stable);
        let both = shaped("database,database/dup");
        assert_eq!(names(&both)[..4], ["db.system", "db.system.name", "db.statement", "db.query.text"]);
        assert_eq!(both.attribute(Attribute::DbQueryText), Some(&text("GET user:1")));
        assert_eq!(both.attribute(Attribute::DbResponseStatusCode), Some(&text("WRONGTYPE")));
        assert_eq!(shaped("http/dup"), span());
    }

    #[test]
    fn masked_attributes_say_so_wherever_they_are() {
        let masked = ["db.statement", "tenant.id", "exception.message", "net.peer.port"].map(str::to_owned);
        let masked = Masks::new(masked);
        let shaped = Shape { masked, ..Shape::default() }.apply(&span());
        assert_eq!(shaped.attribute(Attribute::DbStatement), Some(&text("[REDACTED]")));
        assert_eq!(shaped.attribute(Attribute::NetPeerPort), Some(&text("[REDACTED]")));
        assert_eq!(shaped.baggage[0].1, "[REDACTED]");
        assert_eq!(shaped.baggage[1].1, "amélie");
        assert!(shaped.events.iter().all(|event| event.attributes[1].1 == text("[REDACTED]")));
    }

    #[test]
    fn a_name_of_either_convention_masks_the_value_under_both() {
        for (masked, old, stable) in [
            ("db.statement", Attribute::DbStatement, Attribute::DbQueryText),
            ("network.peer.port", Attribute::NetPeerPort, Attribute::NetworkPeerPort),
        ] {
            for conventions in [Conventions::Old, Conventions::Stable, Conventions::Both] {
                let masked = Masks::new([masked.to_owned()]);
                let shaped = Shape { conventions, masked, ..Shape::default() }.apply(&span());
                let told: Vec<_> = [old, stable].iter().filter_map(|name| shaped.attribute(*name)).collect();
                assert!(!told.is_empty() && told.iter().all(|value| **value == text("[REDACTED]")), "{told:?}");
            }
        }
    }

    #[test]
    fn limits_cut_and_count() {
        let limits = SpanLimits {
            attribute_count: 5,
            attribute_value_length: Some(4),
            event_count: 1,
            link_count: 0,
            event_attribute_count: 1,
        };
        let shaped = Shape { limits, ..Shape::default() }.apply(&span());
        assert_eq!(shaped.attribute(Attribute::DbStatement), Some(&text("GET…")));
        assert_eq!((shaped.attributes.len(), shaped.baggage.len(), shaped.dropped_attributes), (4, 1, 1));
        assert_eq!((shaped.events.len(), shaped.dropped_events, shaped.dropped_links), (1, 1, 2));
        assert_eq!((shaped.events[0].attributes.len(), shaped.events[0].dropped_attributes), (1, 1));
        let one = |length| shortened("añb", length, &mut String::new()).to_owned();
        assert_eq!([3, 2, 1, 0].map(one), ["añb", "a…", "…", ""]);
        let narrow = SpanLimits { attribute_count: 2, attribute_value_length: Some(4), ..SpanLimits::default() };
        let shaped = Shape { limits: narrow, ..Shape::default() }.apply(&span());
        assert_eq!(
            (names(&shaped), shaped.baggage.len(), shaped.dropped_attributes),
            (vec!["db.system", "db.statement"], 0, 4)
        );
    }
}
