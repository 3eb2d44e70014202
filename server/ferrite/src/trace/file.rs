//! The file that a crash or SIGQUIT left behind.

use std::path::Path;

use ferrite_commands::{Searched, TracesWanted, otel};
use ferrite_otlp::traces_data;
use ferrite_telemetry::{Conventions, DumpError, KeptTrace, Masks, Ring, Shape, SpanLimits, SpanName, read_dump};
use serde_json::{Value, json};

use ferrite_node::Node;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the file is damaged, or not one that a crash or SIGQUIT left behind")]
    Damaged,
    #[error("{0}")]
    Dump(#[from] DumpError),
    #[error("{0}")]
    Query(&'static str),
}

/// What a reader must know of the server that wrote the file: its resource, and how its spans are told.
pub fn notes(node: &Node) -> String {
    let telemetry = &node.config.telemetry;
    let resource: Vec<Value> = telemetry.resource().iter().map(|(key, value)| json!([key, value])).collect();
    json!({
        "resource": resource,
        "masked": telemetry.redaction.attributes,
        "semconv": telemetry.semconv_stability_opt_in,
        "limits": limits_noted(&telemetry.limits),
        "tenant_key": telemetry.sampling.tenant_key,
    })
    .to_string()
}

/// What OTEL.TRACES would have given for these arguments, the newest first.
pub fn read(path: &Path, words: &[String]) -> Result<Vec<Value>, FileError> {
    let file = std::fs::read(path)?;
    let content = ferrite_io_real::dump::checked(&file).ok_or(FileError::Damaged)?;
    let (notes, rings) = read_dump(content)?;
    let notes: Value = serde_json::from_str(&notes).map_err(|_| FileError::Damaged)?;
    let texts = |list: &Value| -> Vec<String> {
        let list = list.as_array().into_iter().flatten();
        list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let pairs = notes["resource"].as_array().into_iter().flatten().map(texts);
    let resource: Vec<(String, String)> =
        pairs.filter_map(|pair| <[String; 2]>::try_from(pair).ok().map(<(String, String)>::from)).collect();
    let shape = Shape {
        conventions: Conventions::from_opt_in(notes["semconv"].as_str().unwrap_or_default()),
        masked: Masks::new(texts(&notes["masked"])),
        limits: limits_of(&notes["limits"]),
        ..Shape::default()
    };
    let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
    let wanted = otel::traces_query(&words).map_err(FileError::Query)?.wanted;
    let traces = look(&rings, wanted, notes["tenant_key"].as_str().unwrap_or_default());
    Ok(traces.iter().map(|trace| traces_data(trace, &shape, &resource)).collect())
}

fn limits_noted(limits: &SpanLimits) -> Value {
    let SpanLimits { attribute_count, attribute_value_length, event_count, link_count, event_attribute_count } = limits;
    json!([attribute_count, attribute_value_length, event_count, link_count, event_attribute_count])
}

/// What is not noted is as it is by default.
fn limits_of(noted: &Value) -> SpanLimits {
    let default = SpanLimits::default();
    let number = |at: usize| noted[at].as_u64().and_then(|limit| usize::try_from(limit).ok());
    SpanLimits {
        attribute_count: number(0).unwrap_or(default.attribute_count),
        attribute_value_length: number(1),
        event_count: number(2).unwrap_or(default.event_count),
        link_count: number(3).unwrap_or(default.link_count),
        event_attribute_count: number(4).unwrap_or(default.event_attribute_count),
    }
}

fn look(rings: &[Ring], wanted: TracesWanted, tenant_key: &str) -> Vec<KeptTrace> {
    let all = |read: &dyn Fn(&Ring) -> Vec<KeptTrace>| {
        let mut found: Vec<KeptTrace> = rings.iter().flat_map(read).collect();
        found.sort_by_key(|trace| std::cmp::Reverse(trace.end_ns()));
        found
    };
    match wanted {
        TracesWanted::Last(count) => {
            let mut left = count;
            let mut found = all(&|ring| ring.last(count));
            found.retain(|trace| {
                let wanted = left > 0;
                left -= usize::from(wanted && trace.name() == SpanName::Command);
                wanted
            });
            found
        }
        TracesWanted::Get(id) => all(&|ring| ring.find(id)),
        TracesWanted::Search(Searched { mut filter, tenant, count }) => {
            filter.baggage = tenant.map(|tenant| (tenant_key.to_owned(), tenant));
            let mut found = all(&|ring| ring.search(&filter, count));
            found.truncate(count);
            found
        }
    }
}
