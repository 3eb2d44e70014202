//! The schema as pages for people (`TELEMETRY.md`) and for tools (`semconv.yaml`, in the shape of OpenTelemetry's registry).

use std::fmt::Write as _;

use super::{
    Attribute, DropReason, EventName, Instrument, Label, METRICS, Metric, RunResult, SampledBy, SpanKind, SpanName,
    ValueType, prometheus_name,
};

/// Names that users' dashboards are documented with, or that come from OpenTelemetry's conventions, stay; the engine's own may still change.
fn stability(name: &str) -> &'static str {
    let settled = ["db.", "net.", "network.", "error.", "exception.", "ferrite.command.", "ferrite.storage."];
    if settled.iter().any(|start| name.starts_with(start)) { "stable" } else { "development" }
}

/// The eighteen that are documented are settled.
fn metric_stability(at: usize) -> &'static str {
    if at < 18 { "stable" } else { "development" }
}

/// Documentation comments begin with a blank, refer to code in brackets and end with a stop.
fn plain(doc: &str) -> String {
    doc.trim().trim_end_matches('.').replace("[`", "`").replace("`]", "`")
}

fn type_of(attribute: Attribute) -> &'static str {
    match attribute.value_type() {
        ValueType::Str => "string",
        ValueType::Int => "int",
        ValueType::Bool => "boolean",
    }
}

fn kinds(name: SpanName) -> &'static [SpanKind] {
    match name {
        SpanName::Command => &[SpanKind::Server, SpanKind::Internal],
        _ => &[SpanKind::Internal],
    }
}

fn instrument(metric: &Metric) -> &'static str {
    match metric.instrument {
        Instrument::Counter => "counter",
        Instrument::Gauge => "gauge",
        Instrument::Histogram(_) => "histogram",
    }
}

fn label_values(label: Label) -> Vec<&'static str> {
    match label {
        Label::Tier => Attribute::StorageTier.members(),
        Label::Reason => {
            DropReason::ALL.iter().map(|r| r.as_str()).chain(SampledBy::ALL.iter().map(|r| r.as_str())).collect()
        }
        Label::Result => RunResult::ALL.iter().map(|result| result.as_str()).collect(),
        _ => Vec::new(),
    }
}

fn code(names: &[impl AsRef<str>]) -> String {
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `TELEMETRY.md`.
pub fn tables() -> String {
    let mut page = String::from(
        "# Telemetry\n\nEvery span, attribute, event and metric that Ferrite emits. Made from `src/schema` by its test (`UPDATE_SCHEMA=1 cargo test -p \
         ferrite-telemetry schema`); `semconv.yaml` is the same for tools. What is *development* may still change its name.\n",
    );
    page += "\n## Spans\n\n| span | kind | what it covers | attributes | events |\n|---|---|---|---|---|\n";
    for span in SpanName::ALL {
        let kinds: Vec<_> = kinds(*span).iter().map(|kind| kind.as_str()).collect();
        let attributes: Vec<_> = span.attributes().iter().map(|attribute| attribute.as_str()).collect();
        let events: Vec<_> = span.events().iter().map(|event| event.as_str()).collect();
        let (kinds, attributes, events) = (kinds.join(", "), code(&attributes), code(&events));
        _ = writeln!(page, "| `{span}` | {kinds} | {} | {attributes} | {events} |", plain(span.doc()));
    }
    page += "\nA command below an EXEC is INTERNAL. Beside its own, every span of a command has the members of the caller's baggage that\n\
             `telemetry.baggage_allowed_keys` names. The names of the stable database conventions take the old ones' place, or stand\n\
             beside them, with `OTEL_SEMCONV_STABILITY_OPT_IN`.\n";
    page += "\n## Attributes\n\n| attribute | type | what it says | values | stability |\n|---|---|---|---|---|\n";
    for attribute in Attribute::ALL {
        let (kind, doc, stability) = (type_of(*attribute), plain(attribute.doc()), stability(attribute.as_str()));
        _ = writeln!(page, "| `{attribute}` | {kind} | {doc} | {} | {stability} |", code(&attribute.members()));
    }
    page += "\n## Events\n\n| event | what happened | attributes |\n|---|---|---|\n";
    for event in EventName::ALL {
        let attributes: Vec<_> = event.attributes().iter().map(|attribute| attribute.as_str()).collect();
        _ = writeln!(page, "| `{event}` | {} | {} |", plain(event.doc()), code(&attributes));
    }
    page += "\n## Metrics\n\n| metric | at `/metrics` | type | unit | label | what it tells | stability |\n|---|---|---|---|---|---|---|\n";
    for (at, metric) in METRICS.iter().enumerate() {
        let label = metric.label.map_or(String::new(), |label| format!("`{label}`"));
        let (name, instrument, unit) = (metric.name, instrument(metric), metric.unit);
        let (scraped, stability) = (prometheus_name(name), metric_stability(at));
        _ = writeln!(
            page,
            "| `{name}` | `{scraped}` | {instrument} | `{unit}` | {label} | {} | {stability} |",
            plain(metric.description)
        );
    }
    page += "\n## Labels\n\n| label | what it says | values |\n|---|---|---|\n";
    for label in Label::ALL {
        _ = writeln!(page, "| `{label}` | {} | {} |", plain(label.doc()), code(&label_values(*label)));
    }
    page
}

/// A text as a YAML string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", plain(text).replace('\\', "\\\\").replace('"', "\\\""))
}

fn refs(page: &mut String, attributes: &[Attribute]) {
    if !attributes.is_empty() {
        page.push_str("    attributes:\n");
    }
    for attribute in attributes {
        _ = writeln!(page, "      - ref: {attribute}\n        requirement_level: opt_in");
    }
}

/// `semconv.yaml`: groups of the types `attribute_group`, `span`, `event` and `metric`.
pub fn registry() -> String {
    let mut page = String::from("# Made from src/schema by its test; see TELEMETRY.md.\ngroups:\n");
    page += "  - id: registry.ferrite\n    type: attribute_group\n    display_name: Ferrite attributes\n    brief: \"Attributes of spans and events\"\n    attributes:\n";
    for attribute in Attribute::ALL {
        _ = writeln!(page, "      - id: {attribute}");
        let members = attribute.members();
        if members.is_empty() {
            _ = writeln!(page, "        type: {}", type_of(*attribute));
        } else {
            page.push_str("        type:\n          members:\n");
            for member in members {
                let id = member.rsplit("::").next().unwrap_or(member).to_ascii_lowercase();
                let id =
                    if attribute.as_str() == "exception.type" { member.replace("::", "_").to_lowercase() } else { id };
                _ = writeln!(
                    page,
                    "            - id: {id}\n              value: {}\n              stability: {}",
                    quoted(member),
                    stability(attribute.as_str())
                );
            }
        }
        _ = writeln!(
            page,
            "        stability: {}\n        brief: {}",
            stability(attribute.as_str()),
            quoted(attribute.doc())
        );
    }
    page += "  - id: registry.ferrite.labels\n    type: attribute_group\n    display_name: Ferrite labels\n    brief: \"Attributes of metrics\"\n    attributes:\n";
    for label in Label::ALL {
        _ = writeln!(
            page,
            "      - id: {label}\n        type: string\n        stability: stable\n        brief: {}",
            quoted(label.doc())
        );
    }
    for span in SpanName::ALL {
        let kind = kinds(*span)[0].as_str().to_ascii_lowercase();
        _ = writeln!(
            page,
            "  - id: span.{span}\n    type: span\n    span_kind: {kind}\n    stability: {}\n    brief: {}",
            stability(span.as_str()),
            quoted(span.doc())
        );
        let events: Vec<_> = span.events().iter().map(|event| event.as_str()).collect();
        if !events.is_empty() {
            _ = writeln!(page, "    events: [{}]", events.join(", "));
        }
        refs(&mut page, span.attributes());
    }
    for event in EventName::ALL {
        _ = writeln!(
            page,
            "  - id: event.{event}\n    type: event\n    name: {event}\n    stability: {}\n    brief: {}",
            stability(&format!("{event}.")),
            quoted(event.doc())
        );
        refs(&mut page, event.attributes());
    }
    for (at, metric) in METRICS.iter().enumerate() {
        _ = writeln!(
            page,
            "  - id: metric.{0}\n    type: metric\n    metric_name: {0}\n    instrument: {1}\n    unit: \"{2}\"\n    stability: {3}\n    brief: {4}",
            metric.name,
            instrument(metric),
            metric.unit,
            metric_stability(at),
            quoted(metric.description)
        );
        if let Some(label) = metric.label {
            _ = writeln!(page, "    attributes:\n      - ref: {label}\n        requirement_level: required");
        }
    }
    page
}
