//! The generated pages are those of the schema; what the documentation's tables and the golden traces have is in it.

// Reads and writes the pages and the snapshots of this checkout.
#![allow(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{Attribute, EventName, Instrument, Label, METRICS, SpanKind, SpanName, ValueType, documents};

fn in_this_crate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn the_generated_pages_are_up_to_date() {
    for (name, made) in [("TELEMETRY.md", documents::tables()), ("semconv.yaml", documents::registry())] {
        let path = in_this_crate(name);
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(&path, &made).expect("the page is written");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == made,
            "{name} is not what the schema says; UPDATE_SCHEMA=1 cargo test -p ferrite-telemetry schema"
        );
    }
}

/// "Exported Metrics" of the OpenTelemetry page: name, type, unit, label.
const EXPORTED_METRICS: &[(&str, &str, &str, &str)] = &[
    ("ferrite.commands.total", "Counter", "{commands}", "command"),
    ("ferrite.command.duration", "Histogram", "s", "command"),
    ("ferrite.memory.used", "Gauge", "By", ""),
    ("ferrite.memory.max", "Gauge", "By", ""),
    ("ferrite.connections.active", "Gauge", "{connections}", ""),
    ("ferrite.connections.total", "Counter", "{connections}", ""),
    ("ferrite.cache.hit.rate", "Gauge", "1", ""),
    ("ferrite.cache.hits.total", "Counter", "{hits}", ""),
    ("ferrite.cache.misses.total", "Counter", "{misses}", ""),
    ("ferrite.hybridlog.tier.size", "Gauge", "By", "tier"),
    ("ferrite.keys.total", "Gauge", "{keys}", "db"),
    ("ferrite.keys.expired.total", "Counter", "{keys}", ""),
    ("ferrite.keys.evicted.total", "Counter", "{keys}", ""),
    ("ferrite.network.bytes.received", "Counter", "By", ""),
    ("ferrite.network.bytes.sent", "Counter", "By", ""),
    ("ferrite.replication.lag", "Gauge", "By", "replica"),
    ("ferrite.aof.sync.duration", "Histogram", "s", ""),
    ("ferrite.epoch.current", "Gauge", "{epoch}", ""),
];

#[test]
fn the_documented_metrics_are_the_first_eighteen_of_the_schema() {
    let declared: Vec<_> = METRICS[..EXPORTED_METRICS.len()]
        .iter()
        .map(|metric| {
            let instrument = match metric.instrument {
                Instrument::Counter => "Counter",
                Instrument::Gauge => "Gauge",
                Instrument::Histogram(_) => "Histogram",
            };
            (metric.name, instrument, metric.unit, metric.label.map_or("", Label::as_str))
        })
        .collect();
    assert_eq!(declared, EXPORTED_METRICS);
}

/// "Command Execution Spans", "Network Spans" and "Storage Operation Spans": attribute, type, on which span.
const DOCUMENTED_ATTRIBUTES: &[(&str, ValueType, SpanName)] = &[
    ("db.system", ValueType::Str, SpanName::Command),
    ("db.operation", ValueType::Str, SpanName::Command),
    ("db.statement", ValueType::Str, SpanName::Command),
    ("ferrite.command.name", ValueType::Str, SpanName::Command),
    ("ferrite.command.key", ValueType::Str, SpanName::Command),
    ("ferrite.command.result", ValueType::Str, SpanName::Command),
    ("ferrite.command.args_count", ValueType::Int, SpanName::Command),
    ("ferrite.storage.operation", ValueType::Str, SpanName::StorageRead),
    ("ferrite.storage.tier", ValueType::Str, SpanName::StorageRead),
    ("ferrite.storage.cache_hit", ValueType::Bool, SpanName::StorageRead),
    ("ferrite.storage.bytes", ValueType::Int, SpanName::StorageRead),
    ("ferrite.storage.epoch", ValueType::Int, SpanName::StorageRead),
    ("ferrite.storage.epoch", ValueType::Int, SpanName::EpochProtect),
    ("ferrite.index.bucket", ValueType::Int, SpanName::IndexLookup),
    ("ferrite.io_uring.sqe_id", ValueType::Int, SpanName::StorageRead),
    ("net.peer.ip", ValueType::Str, SpanName::Command),
    ("net.peer.port", ValueType::Int, SpanName::Command),
    ("ferrite.connection.id", ValueType::Int, SpanName::Command),
    ("ferrite.replication.role", ValueType::Str, SpanName::Command),
    ("ferrite.replication.offset", ValueType::Int, SpanName::Command),
];

#[test]
fn the_documented_attributes_are_on_their_spans() {
    for (name, value_type, span) in DOCUMENTED_ATTRIBUTES {
        let found = span.attributes().iter().find(|attribute| attribute.as_str() == *name);
        let attribute = found.unwrap_or_else(|| panic!("{span} has no {name}"));
        assert_eq!(attribute.value_type(), *value_type, "{name}");
    }
    assert_eq!(Attribute::CommandResult.members(), ["OK", "NIL", "ERR"]);
    assert_eq!(Attribute::StorageOperation.members(), ["read", "write"]);
    assert_eq!(Attribute::StorageTier.members(), ["mutable", "read_only", "disk"]);
    assert_eq!(Attribute::ReplicationRole.members(), ["primary", "replica"]);
}

/// The span names of both documents.
#[test]
fn the_documented_spans_are_in_the_schema() {
    let documented = [
        "ferrite.command",
        "ferrite.resp.parse",
        "ferrite.index.lookup",
        "ferrite.storage.read",
        "ferrite.storage.write",
        "ferrite.epoch.protect",
    ];
    for name in documented {
        assert!(SpanName::ALL.iter().any(|span| span.as_str() == name), "{name}");
    }
}

/// What a golden trace shows, by span.
#[derive(Default)]
struct Shown {
    kinds: BTreeSet<(SpanName, String)>,
    attributes: BTreeSet<(SpanName, Attribute)>,
    events: BTreeMap<(SpanName, EventName), BTreeSet<Attribute>>,
}

/// Members of the callers' baggage that the golden scenarios send.
const BAGGAGE: &[&str] = &["tenant.id", "tenant.tier"];

/// Reads all snapshots; panics at what the schema does not have.
fn shown() -> Shown {
    let mut shown = Shown::default();
    let folder = in_this_crate("../../golden-traces/snapshots");
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).expect("the snapshots") {
        let path = entry.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("text");
        let body = text.splitn(3, "---\n").nth(2).expect("insta's header ends with ---");
        files += 1;
        let (mut span, mut event) = (None, None);
        for line in body.lines().map(str::trim) {
            let refuse = |what: &str| -> ! { panic!("{}: {what}: {line}", path.display()) };
            if let Some((key, _)) = line.split_once(" = ") {
                let (Some(of_span), false) = (span, BAGGAGE.contains(&key)) else { continue };
                let known = Attribute::ALL.iter().find(|attribute| attribute.as_str() == key);
                let attribute = *known.unwrap_or_else(|| refuse("no such attribute"));
                match event {
                    Some(name) if EventName::attributes(name).contains(&attribute) => {
                        shown.events.entry((of_span, name)).or_default().insert(attribute);
                    }
                    None if SpanName::attributes(of_span).contains(&attribute) => {
                        shown.attributes.insert((of_span, attribute));
                    }
                    _ => refuse("not declared there"),
                }
            } else if let Some(name) = line.strip_prefix("event: ") {
                let known = EventName::ALL.iter().find(|known| known.as_str() == name);
                let name = *known.unwrap_or_else(|| refuse("no such event"));
                let of_span = span.expect("an event belongs to a span");
                assert!(SpanName::events(of_span).contains(&name), "{of_span} has no {name}");
                shown.events.entry((of_span, name)).or_default();
                event = Some(name);
            } else if line.trim_start_matches("> ").starts_with("ferrite.") {
                let mut words = line.trim_start_matches("> ").split(' ');
                let name = words.next().unwrap_or_default();
                let known = SpanName::ALL.iter().find(|known| known.as_str() == name);
                (span, event) = (Some(*known.unwrap_or_else(|| refuse("no such span"))), None);
                let kind = words.next_back().unwrap_or_default();
                assert!(SpanKind::ALL.iter().any(|known| known.as_str() == kind), "{line}");
                shown.kinds.insert((span.expect("just read"), kind.to_owned()));
            }
        }
    }
    assert!(files > 40, "{files} snapshots");
    shown
}

/// Attributes that no golden trace shows, and where they are seen instead.
const NOT_IN_A_GOLDEN: &[(Attribute, &str)] = &[
    (Attribute::DbSystemName, "db.system by another name: shape.rs"),
    (Attribute::DbOperationName, "db.operation by another name: shape.rs"),
    (Attribute::DbQueryText, "db.statement by another name: shape.rs"),
    (Attribute::DbResponseStatusCode, "error.type by another name: shape.rs"),
    (Attribute::NetworkPeerAddress, "net.peer.ip by another name: shape.rs"),
    (Attribute::NetworkPeerPort, "net.peer.port by another name: shape.rs"),
    (Attribute::CommandSpansDropped, "needs a tree of a thousand spans: tests/trees"),
];

#[test]
fn every_span_attribute_and_event_is_in_a_golden_trace() {
    let shown = shown();
    for span in SpanName::ALL {
        assert!(shown.kinds.iter().any(|(name, _)| name == span), "{span} is in no golden trace");
    }
    for kind in ["SERVER", "INTERNAL"] {
        assert!(shown.kinds.contains(&(SpanName::Command, kind.to_owned())), "no command is {kind}");
    }
    let of_spans: BTreeSet<_> = shown.attributes.iter().map(|(_, attribute)| *attribute).collect();
    let of_events: BTreeSet<_> = shown.events.values().flatten().copied().collect();
    for attribute in Attribute::ALL {
        let exempt = NOT_IN_A_GOLDEN.iter().any(|(exempt, _)| exempt == attribute);
        let seen = of_spans.contains(attribute) || of_events.contains(attribute);
        assert!(seen != exempt, "{attribute}: seen in a golden trace: {seen}, exempt: {exempt}");
    }
    for event in EventName::ALL {
        assert!(shown.events.keys().any(|(_, name)| name == event), "{event} is in no golden trace");
    }
}
