//! A trace of OTLP/JSON as a text tree, laid out as OTEL.TRACES lays it out.

use ferrite_telemetry::{Attribute, one_line, short_duration};
use serde_json::Value;

/// Text of a trace.
pub struct Tree<'t> {
    spans: Vec<&'t Value>,
    root: &'t Value,
}

/// Trace id and span id of the root, which no other trace has.
pub fn ids(trace: &Value) -> Option<(String, String)> {
    let root = Tree::of(trace)?.root;
    Some((root["traceId"].as_str()?.to_owned(), root["spanId"].as_str()?.to_owned()))
}

/// An attribute of the root, as a text.
pub fn root_attribute(trace: &Value, key: &str) -> Option<String> {
    attribute(Tree::of(trace)?.root, key)
}

/// All spans of a trace, in its order.
pub fn spans(trace: &Value) -> impl Iterator<Item = &Value> {
    trace["resourceSpans"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|resource| resource["scopeSpans"].as_array().into_iter().flatten())
        .flat_map(|scope| scope["spans"].as_array().into_iter().flatten())
}

/// Nanoseconds since the epoch.
pub fn time(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// An attribute's value as a text.
pub fn told(value: &Value) -> String {
    match value.as_object().and_then(|one| one.values().next()) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// Pairs of key and text.
pub fn attributes(holder: &Value) -> impl Iterator<Item = (&str, String)> {
    let list = holder["attributes"].as_array().into_iter().flatten();
    list.filter_map(|pair| Some((pair["key"].as_str()?, told(&pair["value"]))))
}

fn attribute(span: &Value, key: &str) -> Option<String> {
    attributes(span).find_map(|(name, value)| (name == key).then_some(value))
}

impl<'t> Tree<'t> {
    /// `None` without a root.
    pub fn of(trace: &'t Value) -> Option<Self> {
        let mut spans: Vec<&Value> = spans(trace).collect();
        let has = |id: &Value| spans.iter().any(|span| span["spanId"] == *id);
        let root = spans.iter().copied().find(|span| !has(&span["parentSpanId"]))?;
        spans.sort_by_key(|span| time(&span["startTimeUnixNano"]));
        Some(Self { spans, root })
    }

    pub fn lines(&self) -> Vec<String> {
        let sampled = self.root["flags"].as_u64().unwrap_or_default() & 1 != 0;
        let mark = if sampled { "" } else { " (not sampled)" };
        let mut lines = vec![format!("trace {}{mark}", self.root["traceId"].as_str().unwrap_or_default())];
        lines.push(title(self.root));
        self.below(self.root, "", &mut lines);
        lines.push(String::new());
        lines
    }

    fn below(&self, span: &Value, margin: &str, lines: &mut Vec<String>) {
        let start = time(&span["startTimeUnixNano"]);
        if std::ptr::eq(span, self.root)
            && let Some(parent) = span["parentSpanId"].as_str()
        {
            lines.push(format!("{margin}  |-- parent: {parent}"));
        }
        for (key, value) in attributes(span) {
            lines.push(format!("{margin}  |-- {}: {}", one_line(key), one_line(&value)));
        }
        if span["status"]["code"] == 2 {
            let message = span["status"]["message"].as_str().unwrap_or_default();
            lines.push(format!("{margin}  |-- status: ERROR {}", one_line(message)));
        }
        for link in span["links"].as_array().into_iter().flatten() {
            let id = |key: &str| link[key].as_str().unwrap_or_default();
            lines.push(format!("{margin}  |-- link: {} {}", id("traceId"), id("spanId")));
        }
        for event in span["events"].as_array().into_iter().flatten() {
            let after = short_duration(time(&event["timeUnixNano"]).saturating_sub(start));
            lines.push(format!("{margin}  |-- event: {} (+{after})", event["name"].as_str().unwrap_or_default()));
            for (key, value) in attributes(event) {
                lines.push(format!("{margin}  |     {key}: {}", one_line(&value)));
            }
        }
        let children: Vec<&Value> =
            self.spans.iter().copied().filter(|child| child["parentSpanId"] == span["spanId"]).collect();
        for (at, child) in children.iter().enumerate() {
            lines.push(format!("{margin}  |"));
            lines.push(format!("{margin}  +-- {}", title(child)));
            let bar = if at + 1 == children.len() { ' ' } else { '|' };
            self.below(child, &format!("{margin}  {bar}   "), lines);
        }
    }
}

fn title(span: &Value) -> String {
    let took = time(&span["endTimeUnixNano"]).saturating_sub(time(&span["startTimeUnixNano"]));
    let tier = attribute(span, Attribute::StorageTier.as_str()).map_or_else(String::new, |tier| format!(" [{tier}]"));
    format!("{}{tier} ({})", span["name"].as_str().unwrap_or_default(), short_duration(took))
}
