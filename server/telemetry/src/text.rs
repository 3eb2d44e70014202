//! A trace as a text tree, as `OTEL.TRACES` answers it.

use crate::context::SpanId;
use crate::entry::KeptTrace;
use crate::schema::SpanName;
use crate::shape::Shape;
use crate::span::{Span, Status};

/// The lines of one trace: its id (with `(not sampled)` if the sampler did not choose it, and `(connection)` if it is one
/// of a connection), then the tree. Control
/// characters are escaped, so that every line is one.
///
/// ```text
/// trace 4bf92f3577b34da6a3ce929d0e0e4736
/// ferrite.command (14.2µs)
///   |-- db.system: ferrite
///   |
///   +-- ferrite.index.lookup (320ns)
///         |-- ferrite.index.bucket: 4721
/// ```
pub fn render(trace: &KeptTrace, shape: &Shape) -> Vec<String> {
    let mut spans: Vec<Span> = trace.spans().map(|span| shape.apply(&span)).collect();
    let root_id = trace.root_id();
    spans.sort_by_key(|span| (span.start_ns, span.span_id.0.wrapping_sub(root_id.0)));
    let mark = match (trace.name() == SpanName::Command, trace.sampled()) {
        (true, true) => String::new(),
        (true, false) => " (not sampled)".to_owned(),
        (false, true) => format!(" ({})", short(trace.name())),
        (false, false) => format!(" ({}, not sampled)", short(trace.name())),
    };
    let mut lines = vec![format!("trace {}{mark}", trace.trace_id())];
    if let Some(root) = spans.iter().find(|span| span.span_id == root_id) {
        lines.push(format!("{} ({})", root.title(), Duration(root.end_ns - root.start_ns)));
        below(root, &spans, "", &mut lines);
    }
    lines
}

/// The attributes and children of a span, behind `margin`.
fn below(span: &Span, spans: &[Span], margin: &str, lines: &mut Vec<String>) {
    if let Some(parent) = span.parent_span_id.filter(|_| span.parent_is_remote) {
        lines.push(format!("{margin}  |-- parent: {parent}"));
    }
    for (key, value) in &span.attributes {
        lines.push(format!("{margin}  |-- {key}: {}", one_line(&value.to_string())));
    }
    for (key, value) in span.baggage.iter() {
        lines.push(format!("{margin}  |-- {}: {}", one_line(key), one_line(value)));
    }
    if let Status::Error(message) = &span.status {
        lines.push(format!("{margin}  |-- status: ERROR {}", one_line(message)));
    }
    for link in &span.links {
        lines.push(format!("{margin}  |-- link: {} {}", link.trace_id, link.span_id));
    }
    for event in &span.events {
        let after = Duration(event.time_ns.saturating_sub(span.start_ns));
        lines.push(format!("{margin}  |-- event: {} (+{after})", event.name));
        for (key, value) in &event.attributes {
            let text = value.to_string();
            let mut text = text.lines();
            lines.push(format!("{margin}  |     {key}: {}", one_line(text.next().unwrap_or_default())));
            lines.extend(text.map(|more| format!("{margin}  |       {}", one_line(more))));
        }
    }
    let children: Vec<&Span> = spans.iter().filter(|child| is_child(child, span.span_id)).collect();
    for (at, child) in children.iter().enumerate() {
        let last = at + 1 == children.len();
        lines.push(format!("{margin}  |"));
        lines.push(format!("{margin}  +-- {} ({})", child.title(), Duration(child.end_ns - child.start_ns)));
        below(child, spans, &format!("{margin}  {}   ", if last { ' ' } else { '|' }), lines);
    }
}

/// What work is called whose root has this name.
fn short(name: SpanName) -> &'static str {
    name.as_str().strip_prefix("ferrite.").unwrap_or(name.as_str())
}

fn is_child(span: &Span, parent: SpanId) -> bool {
    !span.parent_is_remote && span.parent_span_id == Some(parent)
}

/// The text without control characters.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// Nanoseconds in the unit in which they read best.
pub fn short_duration(ns: u64) -> String {
    Duration(ns).to_string()
}

/// Nanoseconds in the unit in which they read best, with three significant digits.
struct Duration(u64);

impl std::fmt::Display for Duration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (unit, name) = match self.0 {
            0..1_000 => return write!(f, "{}ns", self.0),
            1_000..1_000_000 => (1e3, "µs"),
            1_000_000..1_000_000_000 => (1e6, "ms"),
            _ => (1e9, "s"),
        };
        let value = self.0 as f64 / unit;
        let digits = match value {
            ..10.0 => 2,
            ..100.0 => 1,
            _ => 0,
        };
        write!(f, "{value:.digits$}{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let text = |ns| Duration(ns).to_string();
        assert_eq!(
            [text(0), text(999), text(3_000), text(14_250), text(820_000), text(1_240_000), text(2_500_000_000)],
            ["0ns", "999ns", "3.00µs", "14.2µs", "820µs", "1.24ms", "2.50s"]
        );
    }

    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(one_line("a\r\nb\u{0}\u{e9}"), "a\\r\\nb\\u{0}\u{e9}");
    }
}
