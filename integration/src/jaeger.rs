//! Traces as Jaeger gives them back: OTLP in JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use ferrite_golden_traces::{Attribute, Event, Span, SpanId, Status, TraceId, Value as AttributeValue};
use serde_json::Value;

use crate::{eventually, http};

/// From the end of a command to its appearance in Jaeger: Ferrite's batch delay, two hops, a busy machine.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(30);
/// A trace is complete when it has not grown for this long: its spans may come in several batches.
const SETTLED: Duration = Duration::from_millis(500);

/// One span of a trace.
#[derive(Clone, Debug)]
pub struct JaegerSpan {
    /// `service.name` of the resource it belongs to.
    pub service: String,
    /// The rest, in the form that the golden traces are compared in.
    pub span: Span,
}

impl JaegerSpan {
    /// The value of a text attribute; empty if the span has none of this key.
    pub fn text(&self, key: Attribute) -> &str {
        match self.span.attributes.get(key.as_str()) {
            Some(AttributeValue::Str(text)) => text,
            _ => "",
        }
    }
}

/// The ids of the traces in which this service has a span with all these attributes; none if there are none.
pub async fn find(port: u16, service: &str, attributes: &[(Attribute, &str)]) -> Vec<String> {
    let tags: Vec<_> = attributes.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    find_by_tags(port, service, &tags).await
}

/// The same by what an operator types in: names that may be no attributes of Ferrite's own.
pub async fn find_by_tags(port: u16, service: &str, tags: &[(&str, &str)]) -> Vec<String> {
    let tags: serde_json::Map<_, _> =
        tags.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect();
    let tags = http::encode(&Value::from(tags).to_string());
    let query = format!("/api/traces?service={}&limit=100&lookback=1h&tags={tags}", http::encode(service));
    let Some(body) = http::get(port, &query).await else {
        return Vec::new();
    };
    let found: Value = serde_json::from_slice(&body).expect("Jaeger answers in JSON");
    list(&found["data"]).filter_map(|trace| Some(trace["traceID"].as_str()?.to_owned())).collect()
}

/// Waits for a trace that [`find`] finds.
pub async fn wait_for(port: u16, service: &str, attributes: &[(Attribute, &str)]) -> String {
    let what = format!("Jaeger has a span of {service} with {attributes:?}");
    eventually(&what, ARRIVAL_LIMIT, async || find(port, service, attributes).await.pop()).await
}

/// All spans of a trace, once `complete` says so and no more arrive.
pub async fn trace(port: u16, trace_id: &str, complete: impl Fn(&[JaegerSpan]) -> bool) -> Vec<JaegerSpan> {
    let mut before = 0;
    eventually(&format!("Jaeger has all spans of {trace_id}"), ARRIVAL_LIMIT, async || {
        let body = http::get(port, &format!("/api/v3/traces/{trace_id}")).await?;
        let spans = spans_of(&serde_json::from_slice(&body).expect("Jaeger answers in JSON"));
        if complete(&spans) && spans.len() == before {
            return Some(spans);
        }
        if spans.len() != before {
            // Only a failed test shows it.
            eprintln!("in Jaeger so far: {spans:#?}");
        }
        before = spans.len();
        tokio::time::sleep(SETTLED).await;
        None
    })
    .await
}

/// The little of a span that tells whose child it is: for many traces at once.
#[derive(Clone, Debug)]
pub struct SpanLine {
    pub service: String,
    pub name: String,
    /// As 32 and 16 hexadecimal digits.
    pub trace_id: String,
    pub span_id: String,
    /// Empty for a root.
    pub parent: String,
    /// Attributes with text for a value, and `span.kind` in lower case.
    pub tags: BTreeMap<String, String>,
}

impl SpanLine {
    /// The value of a text attribute; empty if the span has none of this key.
    pub fn tag(&self, key: Attribute) -> &str {
        self.tags.get(key.as_str()).map_or("", String::as_str)
    }
}

/// The spans of all traces in which this service has a span of this name, once `complete` says so.
pub async fn lines(
    port: u16,
    service: &str,
    name: &str,
    traces: usize,
    complete: impl Fn(&[SpanLine]) -> bool,
) -> Vec<SpanLine> {
    let (service, name) = (http::encode(service), http::encode(name));
    let query = format!("/api/traces?service={service}&operation={name}&limit={}&lookback=1h", traces + 100);
    eventually(&format!("Jaeger has all traces of {service} {name}"), ARRIVAL_LIMIT, async || {
        let body = http::get(port, &query).await?;
        let lines = lines_of(&serde_json::from_slice(&body).expect("Jaeger answers in JSON"));
        if complete(&lines) {
            return Some(lines);
        }
        // Only a failed test shows it.
        let mut names = BTreeMap::new();
        lines.iter().for_each(|line| *names.entry((&line.service, &line.name)).or_insert(0) += 1);
        eprintln!("in Jaeger so far: {names:?}");
        None
    })
    .await
}

/// `{"data": [{"spans": [{"references": [{"refType": "CHILD_OF", …}], "processID": "p1", …}], "processes": {"p1": {…}}}]}`
fn lines_of(answer: &Value) -> Vec<SpanLine> {
    let mut lines = Vec::new();
    for trace in list(&answer["data"]) {
        for span in list(&trace["spans"]) {
            let parent = list(&span["references"]).find(|reference| reference["refType"] == "CHILD_OF");
            let process = &trace["processes"][text(&span["processID"])];
            let tags =
                list(&span["tags"]).filter_map(|tag| Some((text(&tag["key"]), tag["value"].as_str()?.to_owned())));
            lines.push(SpanLine {
                service: text(&process["serviceName"]),
                name: text(&span["operationName"]),
                trace_id: text(&span["traceID"]),
                span_id: text(&span["spanID"]),
                parent: parent.map_or_else(String::new, |parent| text(&parent["spanID"])),
                tags: tags.collect(),
            });
        }
    }
    lines
}

/// `{"result": {"resourceSpans": [{"resource": …, "scopeSpans": [{"spans": […]}]}]}}`, in the order of start.
fn spans_of(answer: &Value) -> Vec<JaegerSpan> {
    let mut spans = Vec::new();
    for resource in list(&answer["result"]["resourceSpans"]) {
        let service = list(&resource["resource"]["attributes"])
            .find(|attribute| attribute["key"] == "service.name")
            .map_or_else(String::new, |attribute| text(&attribute["value"]["stringValue"]));
        for span in list(&resource["scopeSpans"]).flat_map(|scope| list(&scope["spans"])) {
            spans.push(JaegerSpan { service: service.clone(), span: span_of(span) });
        }
    }
    spans.sort_by_key(|span| span.span.start_ns);
    spans
}

fn span_of(span: &Value) -> Span {
    let event = |event: &Value| Event {
        name: text(&event["name"]),
        attributes: attributes_of(&event["attributes"]),
        time_ns: number(&event["timeUnixNano"]),
    };
    Span {
        trace_id: trace_id(&span["traceId"]),
        span_id: span_id(&span["spanId"]),
        // Absent or empty for a root.
        parent: Some(text(&span["parentSpanId"])).filter(|id| !id.is_empty()).map(|_| span_id(&span["parentSpanId"])),
        name: text(&span["name"]),
        kind: variant(
            &span["kind"],
            "SPAN_KIND_",
            &["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"],
        ),
        attributes: attributes_of(&span["attributes"]),
        status: match variant(&span["status"]["code"], "STATUS_CODE_", &["UNSET", "OK", "ERROR"]).as_str() {
            "OK" => Status::Ok,
            "ERROR" => Status::Error,
            _ => Status::Unset,
        },
        status_message: text(&span["status"]["message"]),
        events: list(&span["events"]).map(event).collect(),
        links: list(&span["links"]).map(|link| (trace_id(&link["traceId"]), span_id(&link["spanId"]))).collect(),
        tracestate: text(&span["traceState"]),
        start_ns: number(&span["startTimeUnixNano"]),
    }
}

fn attributes_of(attributes: &Value) -> BTreeMap<String, AttributeValue> {
    let value = |value: &Value| match value {
        value if value["boolValue"].is_boolean() => AttributeValue::Bool(value["boolValue"] == true),
        value if value["stringValue"].is_string() => AttributeValue::Str(text(&value["stringValue"]).into()),
        value if !value["intValue"].is_null() => AttributeValue::Int(number(&value["intValue"]).cast_signed()),
        // Ferrite has no others: whatever this is, it must differ from what is expected.
        other => AttributeValue::Str(other.to_string().into()),
    };
    list(attributes).map(|attribute| (text(&attribute["key"]), value(&attribute["value"]))).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().map_or(&[][..], Vec::as_slice).iter()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// JSON has 64-bit numbers as strings; a negative one keeps its bits.
fn number(value: &Value) -> u64 {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.parse().or_else(|_| text.parse().map(i64::cast_unsigned)).unwrap_or_default()
}

/// An enum's variant, given by name or by number; the first if it is absent.
fn variant(value: &Value, prefix: &str, names: &[&str]) -> String {
    match value.as_str() {
        Some(name) => name.strip_prefix(prefix).unwrap_or(name).to_owned(),
        None => (*names.get(number(value) as usize).unwrap_or(&"unknown")).to_owned(),
    }
}

fn trace_id(value: &Value) -> TraceId {
    TraceId(u128::from_str_radix(&text(value), 16).expect("a trace id in hexadecimal digits"))
}

fn span_id(value: &Value) -> SpanId {
    SpanId(u64::from_str_radix(&text(value), 16).expect("a span id in hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use ferrite_golden_traces::canonical;

    use super::spans_of;

    #[test]
    fn otlp_json_becomes_what_the_golden_traces_are_made_of() {
        let spans = spans_of(&serde_json::json!({"result": {"resourceSpans": [{
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "ferrite"}}]},
            "scopeSpans": [{"spans": [
                {"traceId": "5875da143d195047688ee6f9aac0365c", "spanId": "0a", "parentSpanId": "ff", "name": "later",
                 "kind": 1, "startTimeUnixNano": "20", "status": {},
                 "attributes": [{"key": "hit", "value": {"boolValue": false}}]},
                {"traceId": "5875da143d195047688ee6f9aac0365c", "spanId": "ff", "name": "first",
                 "kind": "SPAN_KIND_SERVER", "startTimeUnixNano": "10", "status": {"code": 2, "message": "ERR no"},
                 "attributes": [{"key": "bytes", "value": {"intValue": "-4"}}, {"key": "key", "value": {"stringValue": "k"}}],
                 "events": [{"name": "exception", "timeUnixNano": "11"}],
                 "links": [{"traceId": "1", "spanId": "2"}]},
            ]}],
        }]}}));
        assert!(spans.iter().all(|span| span.service == "ferrite"));
        let spans: Vec<_> = spans.into_iter().map(|span| span.span).collect();
        let expected = "\
first SERVER
  status: ERROR \"ERR no\"
  bytes = -4
  key = \"k\"
  link: <remote>
  event: exception
  > later INTERNAL
    hit = false
";
        assert_eq!(canonical(&spans), expected);
    }
}
