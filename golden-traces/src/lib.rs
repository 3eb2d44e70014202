//! The canonical form of a span tree: what Ferrite emits, as a text that a reviewer reads and a test compares.
//!
//! One function serves every source of spans: the simulator's exporter and a real backend's JSON are both turned into
//! [`Span`] and give the same text if they mean the same.
//!
//! # How to read a snapshot
//!
//! ```text
//! ferrite.command SERVER                     name and kind; no ids, no times
//!   parent: <remote>                         it continues a caller's trace (absent: it is a root)
//!   tracestate: foo=1
//!   status: ERROR "WRONGTYPE Operation ..."  absent while the status is unset
//!   db.system = "ferrite"                    attributes, sorted by key
//!   net.peer.port = <port>                   a value that differs between runs, replaced by its type
//!   link: <remote>                           or the name of the linked span, if it is among the spans
//!   event: exception                         events in order, with their attributes below
//!   > ferrite.resp.parse INTERNAL            children, by start; equal starts in the order of recording
//! ```
//!
//! Several trees are separated by an empty line, in the order of their starts (a connection before a command that begins
//! in the same instant), each below `# trace N`: trees with the same
//! number belong to the same trace.

use std::collections::BTreeMap;
use std::fmt::Write;

use ferrite_telemetry as telemetry;
use ferrite_telemetry::schema::{SpanName, ValueType};
pub use ferrite_telemetry::{Attribute, SpanId, TraceId, Value};

/// What a span says about its outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    #[default]
    Unset,
    Ok,
    Error,
}

/// Something that happened within a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub attributes: BTreeMap<String, Value>,
    /// Nanoseconds on any clock; only the order counts.
    pub time_ns: u64,
}

/// A finished span from any source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent: Option<SpanId>,
    pub name: String,
    /// As `SERVER` or `INTERNAL`.
    pub kind: String,
    pub attributes: BTreeMap<String, Value>,
    pub status: Status,
    /// Empty unless the status is an error.
    pub status_message: String,
    pub events: Vec<Event>,
    pub links: Vec<(TraceId, SpanId)>,
    /// Verbatim; empty if there is none.
    pub tracestate: String,
    /// Nanoseconds on any clock; only the order counts.
    pub start_ns: u64,
}

impl From<&telemetry::Span> for Span {
    fn from(span: &telemetry::Span) -> Self {
        let attributes = |list: &[(Attribute, Value)]| {
            list.iter().map(|(key, value)| (key.as_str().to_owned(), value.clone())).collect()
        };
        let (status, status_message) = match &span.status {
            telemetry::Status::Unset => (Status::Unset, String::new()),
            telemetry::Status::Error(message) => (Status::Error, message.clone()),
        };
        let event = |event: &telemetry::Event| Event {
            name: event.name.as_str().to_owned(),
            attributes: attributes(&event.attributes),
            time_ns: event.time_ns,
        };
        let mut all: BTreeMap<String, Value> = attributes(&span.attributes);
        all.extend(span.baggage.iter().map(|(key, value)| (key.clone(), Value::Str(value.clone().into()))));
        Self {
            trace_id: span.trace_id,
            span_id: span.span_id,
            parent: span.parent_span_id,
            name: span.name.as_str().to_owned(),
            kind: span.kind.as_str().to_owned(),
            attributes: all,
            status,
            status_message,
            events: span.events.iter().map(event).collect(),
            links: span.links.iter().map(|link| (link.trace_id, link.span_id)).collect(),
            tracestate: span.tracestate.clone(),
            start_ns: span.start_ns,
        }
    }
}

/// Values that differ between runs, and what stands for them.
const VOLATILE: &[(Attribute, &str)] = &[
    (Attribute::NetPeerIp, "<addr>"),
    (Attribute::NetPeerPort, "<port>"),
    (Attribute::IndexBucket, "<bucket>"),
    (Attribute::StorageEpoch, "<epoch>"),
    (Attribute::FlushEpoch, "<epoch>"),
    (Attribute::IoUringSqeId, "<sqe>"),
    (Attribute::ConnectionId, "<conn>"),
    (Attribute::ReplicationOffset, "<offset>"),
    (Attribute::ExceptionStacktrace, "<stacktrace>"),
    (Attribute::ServerPort, "<port>"),
    (Attribute::DataDirPath, "<path>"),
    (Attribute::RetryDelayMs, "<ms>"),
    (Attribute::LatchWaitNs, "<ns>"),
];

/// The canonical text of these spans; empty for none. Equal for two runs of one scenario, whatever their ids, times,
/// addresses and the order of the spans. Only of trees that start at the same moment the order given counts.
pub fn canonical(spans: &[Span]) -> String {
    let here: BTreeMap<(TraceId, SpanId), &Span> =
        spans.iter().map(|span| ((span.trace_id, span.span_id), span)).collect();
    let mut children: BTreeMap<(TraceId, SpanId), Vec<&Span>> = BTreeMap::new();
    let mut roots = Vec::new();
    for span in spans {
        match span.parent.map(|parent| (span.trace_id, parent)).filter(|parent| here.contains_key(parent)) {
            Some(parent) => children.entry(parent).or_default().push(span),
            None => roots.push(span),
        }
    }
    // A connection may begin in the same instant as its first command, which is recorded before it.
    roots.sort_by_key(|span| (span.start_ns, span.name == SpanName::Command.as_str()));

    let forest = Forest { here, children };
    let mut numbers: BTreeMap<TraceId, usize> = BTreeMap::new();
    let mut text = String::new();
    for (at, root) in roots.iter().enumerate() {
        let next = numbers.len() + 1;
        let number = *numbers.entry(root.trace_id).or_insert(next);
        if roots.len() > 1 {
            let gap = if at == 0 { "" } else { "\n" };
            writeln!(text, "{gap}# trace {number}").expect("a String takes everything");
        }
        forest.write(root, root.span_id, 0, &mut text);
    }
    text
}

struct Forest<'s> {
    here: BTreeMap<(TraceId, SpanId), &'s Span>,
    children: BTreeMap<(TraceId, SpanId), Vec<&'s Span>>,
}

impl Forest<'_> {
    /// The span and all below it. `root`: the id of the top of its tree, from which the ids of the tree count up.
    fn write(&self, span: &Span, root: SpanId, depth: usize, text: &mut String) {
        let margin = "  ".repeat(depth);
        let marker = if depth == 0 { "" } else { "> " };
        let mut line = |content: String| {
            text.push_str(&content);
            text.push('\n');
        };
        line(format!("{margin}{marker}{} {}", span.name, span.kind));
        let inner = format!("{margin}  ");
        if depth == 0 && span.parent.is_some() {
            line(format!("{inner}parent: <remote>"));
        }
        if depth == 0 && !span.tracestate.is_empty() {
            line(format!("{inner}tracestate: {}", span.tracestate));
        }
        match span.status {
            Status::Unset => {}
            Status::Ok => line(format!("{inner}status: OK")),
            Status::Error => line(format!("{inner}status: ERROR {:?}", span.status_message)),
        }
        for (key, value) in &span.attributes {
            line(format!("{inner}{key} = {}", normal(key, value)));
        }
        for link in &span.links {
            let target = self.here.get(link).map_or("<remote>", |span| span.name.as_str());
            line(format!("{inner}link: {target}"));
        }
        let mut events: Vec<&Event> = span.events.iter().collect();
        events.sort_by_key(|event| event.time_ns);
        for event in events {
            line(format!("{inner}event: {}", event.name));
            for (key, value) in &event.attributes {
                line(format!("{inner}  {key} = {}", normal(key, value)));
            }
        }
        let mut below = self.children.get(&(span.trace_id, span.span_id)).cloned().unwrap_or_default();
        below.sort_by_key(|child| (child.start_ns, child.span_id.0.wrapping_sub(root.0)));
        for child in below {
            self.write(child, root, depth + 1, text);
        }
    }
}

/// A value as it is compared. One of the wrong type stays as it is, so that it is seen.
fn normal(key: &str, value: &Value) -> String {
    let volatile = VOLATILE.iter().find(|(attribute, _)| attribute.as_str() == key);
    match (volatile, value) {
        (Some((Attribute::NetPeerIp, placeholder)), Value::Str(ip)) if ip.parse::<std::net::IpAddr>().is_ok() => {
            (*placeholder).to_owned()
        }
        (Some((Attribute::ExceptionStacktrace, placeholder)), Value::Str(stack)) if stack.contains("ferrite") => {
            (*placeholder).to_owned()
        }
        (Some((Attribute::DataDirPath, placeholder)), Value::Str(path)) if path.starts_with('/') => {
            (*placeholder).to_owned()
        }
        (Some((attribute, placeholder)), Value::Int(_)) if attribute.value_type() == ValueType::Int => {
            (*placeholder).to_owned()
        }
        (_, Value::Str(text)) => format!("{text:?}"),
        (_, value) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(trace: u128, id: u64, parent: Option<u64>, name: &str, start_ns: u64) -> Span {
        Span {
            trace_id: TraceId(trace),
            span_id: SpanId(id),
            parent: parent.map(SpanId),
            name: name.to_owned(),
            kind: "INTERNAL".to_owned(),
            attributes: BTreeMap::new(),
            status: Status::Unset,
            status_message: String::new(),
            events: Vec::new(),
            links: Vec::new(),
            tracestate: String::new(),
            start_ns,
        }
    }

    fn with(mut span: Span, key: Attribute, value: Value) -> Span {
        span.attributes.insert(key.as_str().to_owned(), value);
        span
    }

    #[test]
    fn a_tree_reads_from_the_root_down_in_the_order_of_starts() {
        let mut root = with(span(1, 100, Some(7), "root", 10), Attribute::NetPeerPort, Value::Int(54321));
        root = with(root, Attribute::NetPeerIp, Value::Str("127.0.0.1".into()));
        root = with(root, Attribute::DbSystem, Value::Str("ferrite".into()));
        root.kind = "SERVER".to_owned();
        root.tracestate = "foo=1".to_owned();
        root.status = Status::Error;
        root.status_message = "ERR \"x\"".to_owned();
        root.links = vec![(TraceId(1), SpanId(102)), (TraceId(9), SpanId(9))];
        root.events = vec![Event {
            name: "exception".into(),
            attributes: [("a".to_owned(), Value::Bool(true))].into(),
            time_ns: 1,
        }];
        let inner = with(span(1, 103, Some(102), "inner", 11), Attribute::IndexBucket, Value::Int(4721));
        let spans = [inner, span(1, 102, Some(100), "second", 11), root, span(1, 101, Some(100), "first", 11)];
        let expected = "\
root SERVER
  parent: <remote>
  tracestate: foo=1
  status: ERROR \"ERR \\\"x\\\"\"
  db.system = \"ferrite\"
  net.peer.ip = <addr>
  net.peer.port = <port>
  link: second
  link: <remote>
  event: exception
    a = true
  > first INTERNAL
  > second INTERNAL
    > inner INTERNAL
      ferrite.index.bucket = <bucket>
";
        assert_eq!(canonical(&spans), expected);
    }

    #[test]
    fn ids_that_wrap_keep_their_order() {
        let root = u64::MAX - 1;
        let spans = [
            span(1, 1, Some(root), "third", 5),
            span(1, u64::MAX, Some(root), "second", 5),
            span(1, root, None, "root", 5),
        ];
        assert_eq!(canonical(&spans), "root INTERNAL\n  > second INTERNAL\n  > third INTERNAL\n");
    }

    #[test]
    fn trees_say_which_trace_they_belong_to() {
        let spans = [span(8, 3, None, "c", 3), span(5, 1, None, "a", 1), span(8, 2, Some(99), "b", 2)];
        let expected = "# trace 1\na INTERNAL\n\n# trace 2\nb INTERNAL\n  parent: <remote>\n\n# trace 2\nc INTERNAL\n";
        assert_eq!(canonical(&spans), expected);
    }

    #[test]
    fn ids_times_and_order_do_not_matter_but_everything_else_does() {
        let tree = |base: u64, port: i64| {
            vec![
                with(span(base.into(), base, None, "root", base), Attribute::NetPeerPort, Value::Int(port)),
                span(base.into(), base + 1, Some(base), "child", base + 1),
            ]
        };
        let mut other = tree(900, 2);
        other.reverse();
        assert_eq!(canonical(&tree(5, 1)), canonical(&other));
        other[0].kind = "CLIENT".to_owned();
        assert_ne!(canonical(&tree(5, 1)), canonical(&other));
    }

    #[test]
    fn a_value_of_the_wrong_type_is_not_hidden() {
        let wrong = with(span(1, 1, None, "root", 1), Attribute::NetPeerPort, Value::Str("x".into()));
        let wrong = with(wrong, Attribute::NetPeerIp, Value::Str("unix".into()));
        let wrong = with(wrong, Attribute::ExceptionStacktrace, Value::Str("".into()));
        assert_eq!(
            canonical(&[wrong]),
            "root INTERNAL\n  exception.stacktrace = \"\"\n  net.peer.ip = \"unix\"\n  net.peer.port = \"x\"\n"
        );
    }

    #[test]
    fn no_spans_no_text() {
        assert_eq!(canonical(&[]), "");
    }
}
