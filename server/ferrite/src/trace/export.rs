//! Traces as a file for other tools: OTLP/JSON, or the trace event format that Chrome and Perfetto open.

use std::path::Path;

use ferrite_telemetry::Attribute;
use serde_json::{Value, json};

use super::tree::{attributes, root_attribute, spans, time};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One `TracesData` (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>).
    Otlp,
    /// <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>
    Chrome,
}

impl Format {
    /// As the file's name says.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        match (name.ends_with("otlp.json"), name.ends_with("chrome.json")) {
            (true, _) => Some(Self::Otlp),
            (_, true) => Some(Self::Chrome),
            _ => None,
        }
    }

    /// The file's text.
    pub fn render(self, traces: Vec<Value>) -> String {
        match self {
            Self::Otlp => otlp(traces).to_string(),
            Self::Chrome => chrome(&traces).to_string(),
        }
    }
}

/// All spans below their one resource and scope.
fn otlp(traces: Vec<Value>) -> Value {
    let all: Vec<Value> = traces.iter().flat_map(spans).cloned().collect();
    let Some(mut data) = traces.into_iter().next() else { return json!({ "resourceSpans": [] }) };
    data["resourceSpans"][0]["scopeSpans"][0]["spans"] = Value::Array(all);
    data
}

/// A complete event for each span. Commands that overlap in time are on lines of their own, since lines nest.
fn chrome(traces: &[Value]) -> Value {
    let span_of = |trace: &Value| {
        let from = spans(trace).map(|span| time(&span["startTimeUnixNano"])).min().unwrap_or_default();
        let to = spans(trace).map(|span| time(&span["endTimeUnixNano"])).max().unwrap_or_default();
        (from, to)
    };
    let mut sorted: Vec<(u64, u64, &Value)> = traces
        .iter()
        .map(|trace| {
            let (from, to) = span_of(trace);
            (from, to, trace)
        })
        .collect();
    sorted.sort_by_key(|(from, to, _)| (*from, *to));
    let first = sorted.first().map_or(0, |(from, ..)| *from);
    // When each line is free again.
    let mut lines: Vec<u64> = Vec::new();
    let mut events = Vec::new();
    for (from, to, trace) in sorted {
        let line = lines.iter().position(|free| *free <= from).unwrap_or(lines.len());
        if line == lines.len() {
            lines.push(to);
        }
        lines[line] = to;
        for span in spans(trace) {
            let (start, end) = (time(&span["startTimeUnixNano"]), time(&span["endTimeUnixNano"]));
            let mut args = json!({ "trace_id": span["traceId"], "span_id": span["spanId"] });
            attributes(span).for_each(|(key, value)| args[key] = json!(value));
            events.push(json!({
                "name": span["name"],
                "cat": root_attribute(trace, Attribute::DbOperation.as_str()).unwrap_or_default(),
                "ph": "X",
                "ts": (start - first) as f64 / 1000.0,
                "dur": end.saturating_sub(start) as f64 / 1000.0,
                "pid": 1,
                "tid": line + 1,
                "args": args,
            }));
        }
    }
    json!({ "displayTimeUnit": "ns", "traceEvents": events, "otherData": { "first_unix_ns": first.to_string() } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(id: &str, from: u64, to: u64) -> Value {
        let span = |span_id: &str, parent: Option<&str>| {
            let mut span = json!({
                "traceId": id, "spanId": span_id, "name": "n",
                "startTimeUnixNano": from.to_string(), "endTimeUnixNano": to.to_string(),
                "attributes": [{ "key": "a", "value": { "intValue": "7" } }],
            });
            if let Some(parent) = parent {
                span["parentSpanId"] = json!(parent);
            }
            span
        };
        json!({ "resourceSpans": [{ "resource": { "attributes": [] }, "scopeSpans": [{ "scope": { "name": "s" },
            "spans": [span("r", None), span("c", Some("r"))] }] }] })
    }

    #[test]
    fn the_name_says_the_format() {
        for (name, format) in [
            ("otlp.json", Some(Format::Otlp)),
            ("/tmp/today.chrome.json", Some(Format::Chrome)),
            ("trace.json", None),
            ("otlp", None),
        ] {
            assert_eq!(Format::of(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn an_export_is_one_message_with_all_spans() {
        let text = Format::Otlp.render(vec![trace("a", 5, 9), trace("b", 1, 3)]);
        let data: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(spans(&data).map(|span| span["traceId"].clone()).collect::<Vec<_>>(), ["a", "a", "b", "b"]);
        assert_eq!(Format::Otlp.render(Vec::new()), "{\"resourceSpans\":[]}");
    }

    #[test]
    fn what_overlaps_is_on_lines_of_its_own() {
        let text =
            Format::Chrome.render(vec![trace("late", 9000, 12_000), trace("b", 2000, 5000), trace("a", 1000, 9000)]);
        let data: Value = serde_json::from_str(&text).expect("JSON");
        let events = data["traceEvents"].as_array().expect("a list");
        let told: Vec<_> = events
            .iter()
            .step_by(2)
            .map(|event| {
                (event["args"]["trace_id"].as_str().expect("an id"), event["ts"].as_f64(), event["tid"].as_u64())
            })
            .collect();
        assert_eq!(told, [("a", Some(0.0), Some(1)), ("b", Some(1.0), Some(2)), ("late", Some(8.0), Some(1))]);
        assert_eq!(
            (&events[0]["ph"], &events[0]["dur"], &events[0]["args"]["a"]),
            (&json!("X"), &json!(8.0), &json!("7"))
        );
    }
}
