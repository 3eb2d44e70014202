//! How spans look to whoever is not the recorder: names by another convention, masked attributes, limits. Applied as spans are
//! read back, so that recording pays nothing for it; exporters and `OTEL.TRACES` go through here alike.

use std::sync::Arc;

use crate::masks::{Masks, stable_name};
use crate::schema::{Attribute, MASK};
use crate::span::{Event, Span, Status, Value};

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
    pub fn apply(&self, mut span: Span) -> Span {
        self.rename(&mut span);
        if !self.masked.is_empty() {
            self.mask(&mut span);
        }
        self.limit(&mut span);
        span
    }

    fn rename(&self, span: &mut Span) {
        if self.conventions == Conventions::Old {
            return;
        }
        let error_type = span.attribute(Attribute::ErrorType).cloned();
        if let (Some(prefix), Status::Error(_), Some(_)) =
            (error_type, &span.status, span.attribute(Attribute::DbSystem))
        {
            span.attributes.push((Attribute::DbResponseStatusCode, prefix));
        }
        let attributes = std::mem::take(&mut span.attributes);
        for (key, value) in attributes {
            match stable_name(key) {
                Some(stable) if self.conventions == Conventions::Stable => span.attributes.push((stable, value)),
                Some(stable) => span.attributes.extend([(key, value.clone()), (stable, value)]),
                None => span.attributes.push((key, value)),
            }
        }
    }

    fn mask(&self, span: &mut Span) {
        let is_masked = |name: &str| self.masked.hides(name);
        let mask = |attributes: &mut Vec<(Attribute, Value)>| {
            for (key, value) in attributes {
                if is_masked(key.as_str()) {
                    *value = Value::Str(MASK.into());
                }
            }
        };
        mask(&mut span.attributes);
        span.events.iter_mut().for_each(|event| mask(&mut event.attributes));
        if span.baggage.iter().any(|(key, _)| is_masked(key)) {
            let told = |(key, value): &(String, String)| {
                (key.clone(), if is_masked(key) { MASK.to_owned() } else { value.clone() })
            };
            span.baggage = span.baggage.iter().map(told).collect();
        }
    }

    fn limit(&self, span: &mut Span) {
        let limits = &self.limits;
        if let Some(length) = limits.attribute_value_length {
            shorten(&mut span.attributes, length);
            span.events.iter_mut().for_each(|event| shorten(&mut event.attributes, length));
            if span.baggage.iter().any(|(_, value)| value.chars().nth(length).is_some()) {
                let told =
                    |(key, value): &(String, String)| (key.clone(), shortened(value, length).unwrap_or(value.clone()));
                span.baggage = span.baggage.iter().map(told).collect();
            }
        }
        let count = span.attributes.len() + span.baggage.len();
        if count > limits.attribute_count {
            span.dropped_attributes += (count - limits.attribute_count) as u32;
            span.attributes.truncate(limits.attribute_count);
            let room = limits.attribute_count - span.attributes.len();
            span.baggage = span.baggage.iter().take(room).cloned().collect::<Arc<[_]>>();
        }
        span.dropped_events += cut(&mut span.events, limits.event_count);
        span.dropped_links += cut(&mut span.links, limits.link_count);
        for Event { attributes, dropped_attributes, .. } in &mut span.events {
            *dropped_attributes += cut(attributes, limits.event_attribute_count);
        }
    }
}

fn cut<T>(list: &mut Vec<T>, max: usize) -> u32 {
    let over = list.len().saturating_sub(max);
    list.truncate(max);
    over as u32
}

fn shorten(attributes: &mut [(Attribute, Value)], length: usize) {
    for (_, value) in attributes {
        if let Value::Str(text) = value
            && let Some(short) = shortened(text, length)
        {
            *value = Value::Str(short.into());
        }
    }
}

/// As many characters, the last one an ellipsis that says so; `None`: it is not longer.
pub fn shortened(text: &str, length: usize) -> Option<String> {
    text.chars().nth(length)?;
    let mut short: String = text.chars().take(length.saturating_sub(1)).collect();
    if length > 0 {
        short.push('…');
    }
    Some(short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{SpanId, TraceId};
    use crate::schema::{EventName, SpanKind, SpanName};
    use crate::span::Link;

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
        assert_eq!(Shape::default().apply(span()), span());
    }

    #[test]
    fn the_stable_conventions_replace_names_or_stand_beside_them() {
        let shaped = |opt_in| Shape { conventions: Conventions::from_opt_in(opt_in), ..Shape::default() }.apply(span());
        let stable = ["db.system.name", "db.query.text", "error.type", "network.peer.port", "db.response.status_code"];
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
        let shaped = Shape { masked, ..Shape::default() }.apply(span());
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
                let shaped = Shape { conventions, masked, ..Shape::default() }.apply(span());
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
        let shaped = Shape { limits, ..Shape::default() }.apply(span());
        assert_eq!(shaped.attribute(Attribute::DbStatement), Some(&text("GET…")));
        assert_eq!((shaped.attributes.len(), shaped.baggage.len(), shaped.dropped_attributes), (4, 1, 1));
        assert_eq!((shaped.events.len(), shaped.dropped_events, shaped.dropped_links), (1, 1, 2));
        assert_eq!((shaped.events[0].attributes.len(), shaped.events[0].dropped_attributes), (1, 1));
        let one = |length| shortened("añb", length);
        assert_eq!(
            (one(3), one(2), one(1), one(0)),
            (None, Some("a…".to_owned()), Some("…".to_owned()), Some(String::new()))
        );
        let narrow = SpanLimits { attribute_count: 2, attribute_value_length: Some(4), ..SpanLimits::default() };
        let shaped = Shape { limits: narrow, ..Shape::default() }.apply(span());
        assert_eq!(
            (names(&shaped), shaped.baggage.len(), shaped.dropped_attributes),
            (vec!["db.system", "db.statement"], 0, 4)
        );
    }
}
