//! The console exporter: what is exported as lines of JSON, one for each span, data point or log record, readable by a human and by
//! `jq`. Keys are those of OTLP/JSON in the style of the log's lines; `span`, `metric` or `log` comes first and tells which it is.
//!
//! ```text
//! {"span":"ferrite.command","kind":"SERVER","trace_id":"…","span_id":"…","start":"2026-…Z","duration_ns":14200,"attributes":{…}}
//! {"metric":"ferrite.commands.total","type":"counter","unit":"{commands}","time":"…","attributes":{"command":"GET"},"value":7}
//! {"log":"Ready to accept connections","severity":"INFO","time":"…","scope":"ferrite::node::start","attributes":{"port":6379}}
//! ```

use std::sync::Arc;

use bytes::Bytes;
use ferrite_telemetry::schema::{Instrument, LogField};
use ferrite_telemetry::{Attribute, Event, Exemplar, Link, Shape, Span, Status, Value as Told};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Kind;
use serde_json::{Map, Value as Json, json};

use super::settings::ExportSettings;
use crate::exponential::BUCKETS_MAX;
use crate::logging::rfc3339;
use crate::transport::{Accepted, Exchange, Refusal, Signal};
use crate::{LogRecord, Point, Queued, Series, Value};

/// Writes one line, which has no line break.
pub type Print = Arc<dyn Fn(&str)>;

/// The backend of who exports to the console alone: takes everything.
pub struct NoBackend;

impl Exchange for NoBackend {
    async fn send(&self, _: Bytes) -> Result<Accepted, Refusal> {
        Ok(Accepted::default())
    }
}

/// Tells where all of a signal comes from, if it is to be written at all; gives what writes it.
pub(super) fn begin(settings: &ExportSettings, signal: Signal) -> Option<Print> {
    let print = settings.console.clone()?;
    let resource = settings.resource().attributes.into_iter().map(|pair| {
        let value = match pair.value.and_then(|value| value.value) {
            Some(Kind::StringValue(text)) => Json::from(text),
            Some(Kind::IntValue(number)) => Json::from(number),
            Some(Kind::BoolValue(truth)) => Json::from(truth),
            _ => Json::Null,
        };
        (pair.key, value)
    });
    let all: Map<String, Json> = resource.collect();
    print(&Line::default().put("resource", &all.into()).put("signal", &signal.as_str().into()).end());
    Some(print)
}

/// An object whose members keep the order in which they are put.
#[derive(Default)]
struct Line(String);

impl Line {
    fn put(mut self, key: &str, value: &Json) -> Self {
        self.0.push_str(if self.0.is_empty() { "{" } else { "," });
        self.0.push_str(&Json::from(key).to_string());
        self.0.push(':');
        self.0.push_str(&value.to_string());
        self
    }

    /// Unless there is nothing to say.
    fn put_some(self, key: &str, value: Json) -> Self {
        let says_nothing = match &value {
            Json::Null => true,
            Json::Array(items) => items.is_empty(),
            Json::Object(members) => members.is_empty(),
            Json::String(text) => text.is_empty(),
            Json::Bool(_) => false,
            Json::Number(number) => number.as_u64() == Some(0),
        };
        if says_nothing { self } else { self.put(key, &value) }
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn time(unix_ns: u64) -> Json {
    rfc3339(unix_ns, 9).into()
}

fn value(value: &Told) -> Json {
    match value {
        Told::Str(text) => Json::from(&**text),
        Told::Int(number) => Json::from(*number),
        Told::Bool(truth) => Json::from(*truth),
    }
}

fn attributes(list: &[(Attribute, Told)]) -> Map<String, Json> {
    list.iter().map(|(key, told)| (key.as_str().to_owned(), value(told))).collect()
}

/// The spans of a batch.
pub(super) fn spans(batch: &[Queued], shape: &Shape, print: &dyn Fn(&str)) {
    for item in batch {
        match item {
            Queued::Trace(trace) => {
                let offset = trace.wall_offset_ns();
                trace.spans().for_each(|told| print(&span(&shape.apply(&told), offset)));
            }
            Queued::Part(part) => {
                let offset = part.trace().wall_offset_ns();
                part.spans().for_each(|told| print(&span(&shape.apply(&told), offset)));
            }
            Queued::Cold(cold) => print(&span(&shape.apply(&cold.span), cold.wall_offset_ns)),
        }
    }
}

fn span(span: &Span, wall_offset_ns: i64) -> String {
    let at = |monotonic_ns: u64| time(monotonic_ns.wrapping_add_signed(wall_offset_ns));
    let mut all = attributes(&span.attributes);
    all.extend(span.baggage.iter().map(|(key, value)| (key.clone(), Json::from(value.as_str()))));
    let event = |event: &Event| {
        let attributes = attributes(&event.attributes);
        let mut told = json!({ "name": event.name.as_str(), "time": at(event.time_ns), "attributes": attributes });
        if event.dropped_attributes > 0 {
            told["dropped_attributes"] = event.dropped_attributes.into();
        }
        told
    };
    let link = |link: &Link| json!({ "trace_id": link.trace_id.to_string(), "span_id": link.span_id.to_string() });
    let error = match &span.status {
        Status::Unset => Json::Null,
        Status::Error(message) => json!({ "code": "ERROR", "message": message }),
    };
    Line::default()
        .put("span", &span.name.as_str().into())
        .put("kind", &span.kind.as_str().into())
        .put(LogField::TraceId.as_str(), &span.trace_id.to_string().into())
        .put(LogField::SpanId.as_str(), &span.span_id.to_string().into())
        .put_some("parent_span_id", span.parent_span_id.map(|id| id.to_string()).into())
        .put_some("trace_state", span.tracestate.as_str().into())
        .put("start", &at(span.start_ns))
        .put("duration_ns", &span.end_ns.saturating_sub(span.start_ns).into())
        .put_some("status", error)
        .put_some("attributes", all.into())
        .put_some("events", span.events.iter().map(event).collect())
        .put_some("links", span.links.iter().map(link).collect())
        .put_some("dropped_attributes", span.dropped_attributes.into())
        .put_some("dropped_events", span.dropped_events.into())
        .put_some("dropped_links", span.dropped_links.into())
        .end()
}

/// The points of all series, as they were collected at this time.
pub(super) fn metrics(series: &[Series], unix_ns: u64, print: &dyn Fn(&str)) {
    for series in series {
        series.points.iter().for_each(|told| print(&point(series, told, unix_ns)));
    }
}

fn point(series: &Series, point: &Point, unix_ns: u64) -> String {
    let kind = match series.metric.instrument {
        Instrument::Counter => "counter",
        Instrument::Gauge => "gauge",
        Instrument::Histogram(_) => "histogram",
    };
    let label = series.label().zip(point.label.as_ref());
    let labels: Map<String, Json> =
        label.map(|(label, value)| (label.as_str().to_owned(), value.as_str().into())).into_iter().collect();
    let line = Line::default()
        .put("metric", &series.metric.name.into())
        .put("type", &kind.into())
        .put("unit", &series.metric.unit.into())
        .put("time", &time(unix_ns))
        .put_some("attributes", labels.into());
    match (&point.value, series.metric.instrument) {
        (Value::Integer(number), _) => line.put("value", &(*number).into()).end(),
        (Value::Float(number), _) => line.put("value", &(*number).into()).end(),
        (Value::Histogram { native: Some(native), sum, exemplars, .. }, _) => {
            let fitted = native.fit(BUCKETS_MAX);
            // Those that have something, by their index.
            let filled = (fitted.first..).zip(&fitted.counts).filter(|(_, count)| **count > 0);
            let filled = filled.map(|(at, count)| json!({ "index": at, "count": count }));
            line.put("count", &native.count().into())
                .put("sum", &(*sum).into())
                .put("scale", &fitted.scale.into())
                .put_some("zero_count", native.zero.into())
                .put_some("buckets", filled.collect())
                .put_some("exemplars", exemplars.iter().map(|(_, told)| exemplar(told)).collect())
                .end()
        }
        (Value::Histogram { buckets, sum, exemplars, .. }, Instrument::Histogram(bounds)) => {
            // Upper bounds of the buckets that have something; null for the last, which has none.
            let filled = buckets.iter().enumerate().filter(|(_, count)| **count > 0);
            let filled = filled.map(|(at, count)| json!({ "le": bounds.get(at), "count": count }));
            line.put("count", &buckets.iter().sum::<u64>().into())
                .put("sum", &(*sum).into())
                .put_some("buckets", filled.collect())
                .put_some("exemplars", exemplars.iter().map(|(_, told)| exemplar(told)).collect())
                .end()
        }
        (Value::Histogram { .. }, _) => unreachable!("{} is declared as a number", series.metric.name),
    }
}

fn exemplar(exemplar: &Exemplar) -> Json {
    json!({
        "value": exemplar.value_ns as f64 / 1e9,
        "time": time(exemplar.unix_ns),
        (LogField::TraceId.as_str()): exemplar.trace.trace_id().to_string(),
        (LogField::SpanId.as_str()): exemplar.trace.root_id().to_string(),
    })
}

/// The records of a batch.
pub(super) fn logs(batch: &[LogRecord], print: &dyn Fn(&str)) {
    batch.iter().for_each(|told| print(&record(told)));
}

fn record(record: &LogRecord) -> String {
    let (trace_id, span_id) = record.ids.map(|(trace, span)| (trace.to_string(), span.to_string())).unzip();
    let fields: Map<String, Json> =
        record.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Line::default()
        .put("log", &record.message.as_str().into())
        .put("severity", &record.level.as_str().into())
        .put("time", &time(record.unix_ns))
        .put("scope", &record.target.as_str().into())
        .put_some(LogField::TraceId.as_str(), trace_id.into())
        .put_some(LogField::SpanId.as_str(), span_id.into())
        .put_some("attributes", fields.into())
        .end()
}

#[cfg(test)]
mod tests;
