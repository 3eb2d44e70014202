//! What a real server emits is in the schema: names, types, the places where they stand.

use ferrite_golden_traces::Value;
use ferrite_telemetry::schema::{Attribute, EventName, Instrument, METRICS, SpanName, ValueType, prometheus_name};

use crate::jaeger::JaegerSpan;
use crate::prometheus::Sample;

/// Panics at the first span, attribute or event of Ferrite's that the schema does not have at this place.
pub fn has_all_of(spans: &[JaegerSpan]) {
    for JaegerSpan { span, .. } in spans.iter().filter(|span| span.service == "ferrite") {
        let name = SpanName::ALL.iter().find(|name| name.as_str() == span.name);
        let name = *name.unwrap_or_else(|| panic!("the schema has no span {}", span.name));
        // Jaeger adds what it thinks of a span's times.
        for (key, value) in span.attributes.iter().filter(|(key, _)| !key.starts_with("@jaeger@")) {
            declares(SpanName::attributes(name), key, value, name.as_str());
        }
        for event in &span.events {
            let known = SpanName::events(name).iter().find(|known| known.as_str() == event.name);
            let known = *known.unwrap_or_else(|| panic!("the schema has no event {} of {name}", event.name));
            for (key, value) in &event.attributes {
                declares(EventName::attributes(known), key, value, known.as_str());
            }
        }
    }
}

fn declares(attributes: &[Attribute], key: &str, value: &Value, place: &str) {
    let known = attributes.iter().find(|attribute| attribute.as_str() == key);
    let known = known.unwrap_or_else(|| panic!("the schema has no {key} of {place}"));
    let value_type = match value {
        Value::Str(_) => ValueType::Str,
        Value::Int(_) => ValueType::Int,
        Value::Bool(_) => ValueType::Bool,
    };
    assert_eq!(known.value_type(), value_type, "{key} of {place}");
}

/// Panics at the first series of a metrics page that the schema does not have, with its label and no other.
pub fn has_metrics(samples: &[Sample]) {
    assert!(!samples.is_empty());
    for sample in samples {
        let declared = METRICS.iter().find(|metric| {
            let name = prometheus_name(metric.name);
            match metric.instrument {
                Instrument::Histogram(_) => {
                    ["_bucket", "_sum", "_count"].iter().any(|suffix| sample.name == format!("{name}{suffix}"))
                }
                _ => sample.name == name,
            }
        });
        let metric = declared.unwrap_or_else(|| panic!("the schema has no metric {}", sample.name));
        let mut labels: Vec<_> = sample.labels.keys().map(String::as_str).collect();
        labels.retain(|label| *label != "le");
        assert_eq!(labels, metric.label.map(|label| label.as_str()).as_slice(), "{}", sample.name);
    }
}
