//! A trace as OTLP/JSON has it (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>): ids in hexadecimal, integers of
//! 64 bits as texts, enumerations as numbers.

use ferrite_telemetry::{Attribute, Event, KeptTrace, Link, Shape, Span, SpanKind, Status, Value};
use serde_json::{Value as Json, json};

/// Who made the spans.
const SCOPE_NAME: &str = "ferrite";
const SCOPE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// `Span.flags` beside the trace flags: whether the parent is remote is known, and whether it is.
const HAS_IS_REMOTE: u32 = 1 << 8;
const IS_REMOTE: u32 = 1 << 9;

/// `STATUS_CODE_ERROR`.
const STATUS_ERROR: u32 = 2;

/// The trace as a whole `TracesData`, whose text is one line. `resource`: the resource's attributes.
pub fn traces_data(trace: &KeptTrace, shape: &Shape, resource: &[(String, String)]) -> Json {
    let offset = trace.wall_offset_ns();
    let spans: Vec<Json> = trace.spans().map(|span| span_json(shape.apply(&span), offset)).collect();
    let texts = resource.iter().map(|(key, value)| attribute(key, json!({ "stringValue": value })));
    json!({
        "resourceSpans": [{
            "resource": { "attributes": texts.collect::<Vec<_>>() },
            "scopeSpans": [{ "scope": { "name": SCOPE_NAME, "version": SCOPE_VERSION }, "spans": spans }],
        }],
    })
}

fn span_json(span: Span, wall_offset_ns: i64) -> Json {
    let time = |monotonic_ns: u64| monotonic_ns.wrapping_add_signed(wall_offset_ns).to_string();
    let mut flags = u32::from(span.flags);
    if span.parent_span_id.is_some() {
        flags |= HAS_IS_REMOTE | if span.parent_is_remote { IS_REMOTE } else { 0 };
    }
    let mut attributes = attributes(&span.attributes);
    attributes.extend(span.baggage.iter().map(|(key, value)| attribute(key, json!({ "stringValue": value }))));
    let mut told = json!({
        "traceId": span.trace_id.to_string(),
        "spanId": span.span_id.to_string(),
        "flags": flags,
        "name": span.name.as_str(),
        "kind": kind(span.kind),
        "startTimeUnixNano": time(span.start_ns),
        "endTimeUnixNano": time(span.end_ns),
        "attributes": attributes,
    });
    let fields = told.as_object_mut().expect("it was made as one");
    // What is not there is left out, as the encoding has it.
    let mut add = |key: &str, value: Json, is_there: bool| {
        if is_there {
            fields.insert(key.to_owned(), value);
        }
    };
    let parent = span.parent_span_id.map(|id| id.to_string());
    add("parentSpanId", json!(parent), parent.is_some());
    add("traceState", json!(span.tracestate), !span.tracestate.is_empty());
    let events: Vec<Json> = span.events.iter().map(|event| event_json(event, time(event.time_ns))).collect();
    add("events", json!(events), !events.is_empty());
    add("links", json!(span.links.iter().map(link_json).collect::<Vec<_>>()), !span.links.is_empty());
    if let Status::Error(message) = &span.status {
        add("status", json!({ "code": STATUS_ERROR, "message": message }), true);
    }
    add("droppedAttributesCount", json!(span.dropped_attributes), span.dropped_attributes > 0);
    add("droppedEventsCount", json!(span.dropped_events), span.dropped_events > 0);
    add("droppedLinksCount", json!(span.dropped_links), span.dropped_links > 0);
    told
}

fn event_json(event: &Event, time: String) -> Json {
    json!({
        "name": event.name.as_str(),
        "timeUnixNano": time,
        "attributes": attributes(&event.attributes),
        "droppedAttributesCount": event.dropped_attributes,
    })
}

fn link_json(link: &Link) -> Json {
    let mut told = json!({
        "traceId": link.trace_id.to_string(),
        "spanId": link.span_id.to_string(),
        // It came with the command that has the link.
        "flags": u32::from(link.flags) | HAS_IS_REMOTE | IS_REMOTE,
    });
    if !link.tracestate.is_empty() {
        told["traceState"] = json!(link.tracestate);
    }
    told
}

fn attributes(attributes: &[(Attribute, Value)]) -> Vec<Json> {
    let value = |value: &Value| match value {
        Value::Str(text) => json!({ "stringValue": text }),
        Value::Int(number) => json!({ "intValue": number.to_string() }),
        Value::Bool(truth) => json!({ "boolValue": truth }),
    };
    attributes.iter().map(|(key, told)| attribute(key.as_str(), value(told))).collect()
}

fn attribute(key: &str, value: Json) -> Json {
    json!({ "key": key, "value": value })
}

fn kind(kind: SpanKind) -> u32 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

#[cfg(test)]
mod tests {
    use ferrite_telemetry::{Outcome, Recorder, RecorderConfig, RemoteContext, SpanName};

    use super::*;

    /// A failed GET under a caller.
    fn trace() -> KeptTrace {
        let mut recorder = Recorder::new(|| 1_000, &RecorderConfig { export: true, ..RecorderConfig::default() });
        recorder.set_wall_clock(0, 1_700_000_000_000_000_000);
        let context = RemoteContext::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", b"a=b");
        let mut buffer = recorder.buffer();
        buffer.start_batch();
        buffer.begin_command();
        buffer.parse();
        buffer.set_context(&context.expect("valid"));
        buffer.describe("GET", 1, 2, [&b"key"[..]]);
        buffer.dispatch();
        buffer.execute_open();
        buffer.index_lookup(7);
        buffer.finish_command(Outcome::Err, b"WRONGTYPE no", 1);
        let mut kept = Vec::new();
        recorder.commit(&mut buffer, |trace| kept.push(trace));
        kept.remove(0)
    }

    #[test]
    fn a_trace_has_the_field_names_and_types_of_the_encoding() {
        let resource = [("service.name".to_owned(), "cache".to_owned())];
        let data = traces_data(&trace(), &Shape::default(), &resource);
        assert!(!data.to_string().contains('\n'));
        let resource_spans = &data["resourceSpans"][0];
        assert_eq!(
            resource_spans["resource"]["attributes"][0],
            json!({ "key": "service.name", "value": { "stringValue": "cache" } })
        );
        let spans = resource_spans["scopeSpans"][0]["spans"].as_array().expect("a list");
        let root = &spans[0];
        assert_eq!(root["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(root["parentSpanId"], "00f067aa0ba902b7");
        // Sampled, and the parent is known to be remote.
        assert_eq!((&root["flags"], &root["kind"], &root["traceState"]), (&json!(0x301), &json!(2), &json!("a=b")));
        assert_eq!(root["startTimeUnixNano"], "1700000000000001000");
        assert_eq!(root["status"], json!({ "code": 2, "message": "WRONGTYPE no" }));
        let argc = json!({ "key": Attribute::CommandArgsCount.as_str(), "value": { "intValue": "2" } });
        assert!(root["attributes"].as_array().is_some_and(|all| all.contains(&argc)), "{root}");
        let lookup = spans.iter().find(|span| span["name"] == SpanName::IndexLookup.as_str()).expect("it is there");
        assert_eq!((&lookup["parentSpanId"], &lookup["flags"]), (&root["spanId"], &json!(0x101)));
        assert!(lookup.get("status").is_none() && lookup.get("events").is_none());
    }

    #[test]
    fn a_link_has_the_context_of_the_queued_command_whole() {
        let mut recorder = Recorder::new(|| 1_000, &RecorderConfig { export: true, ..RecorderConfig::default() });
        let context = RemoteContext::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", b"a=b,c=d");
        let mut buffer = recorder.buffer();
        buffer.start_batch();
        buffer.begin_command();
        buffer.describe("EXEC", 1, 1, []);
        for context in [context, None] {
            let child = buffer.begin_child(context.as_ref());
            buffer.describe("GET", 1, 2, [&b"key"[..]]);
            buffer.finish_child(child, Outcome::Nil, b"");
        }
        buffer.finish_command(Outcome::Ok, b"", 1);
        let mut kept = Vec::new();
        recorder.commit(&mut buffer, |trace| kept.push(trace));
        let data = traces_data(&kept.remove(0), &Shape::default(), &[]);
        let spans = data["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("a list").clone();
        let links: Vec<&Json> = spans.iter().filter_map(|span| span.get("links")).collect();
        let expected = json!([{
            "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
            "spanId": "00f067aa0ba902b7",
            "traceState": "a=b,c=d",
            "flags": 0x301,
        }]);
        assert_eq!(links, [&expected]);
        // The transaction has none of it.
        assert!(spans.iter().all(|span| span.get("traceState").is_none()));
    }
}
