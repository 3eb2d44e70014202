//! The forms in which a command carries a context: wrapped in `OTEL.TRACE`, or behind a RESP attribute.
//!
//! An asynchronous connection takes commands as arguments, which leaves the wrapper; a blocking one takes bytes, so that the
//! attribute can stand in front of them.

use std::borrow::Cow;
use std::collections::HashMap;

use redis::{Arg, Cmd, Pipeline, cmd};

/// What of the propagator's headers a command may carry.
const CARRIED: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// A command's name, for its span.
pub fn name(cmd: &Cmd) -> String {
    match cmd.args_iter().next() {
        Some(Arg::Simple(name)) => String::from_utf8_lossy(name).to_ascii_uppercase(),
        _ => "UNKNOWN".to_owned(),
    }
}

/// The same command as the argument of `OTEL.TRACE`; `None` without a context.
pub fn wrapped(inner: &Cmd, headers: &HashMap<String, String>) -> Option<Cmd> {
    let mut outer = cmd("OTEL.TRACE");
    outer.arg(headers.get("traceparent")?);
    let header = |name| headers.get(name).filter(|value| !value.is_empty());
    let (tracestate, baggage) = (header("tracestate"), header("baggage"));
    // Their order tells them apart: a baggage stands behind a tracestate, if only an empty one.
    match (tracestate, baggage) {
        (None, Some(_)) => outer.arg(""),
        (state, _) => outer.arg(state),
    };
    outer.arg(baggage);
    for argument in inner.args_iter() {
        match argument {
            Arg::Simple(bytes) => outer.arg(bytes),
            // Only scans have one, and those send commands of their own.
            _ => return None,
        };
    }
    Some(outer)
}

/// The same pipeline with each command wrapped; of a transaction, EXEC alone, to which it belongs.
pub fn wrapped_pipeline(inner: &Pipeline, headers: &HashMap<String, String>) -> Option<Pipeline> {
    let mut outer = redis::pipe();
    if inner.is_transaction() {
        outer.add_command(cmd("MULTI"));
        inner.cmd_iter().for_each(|queued| _ = outer.add_command(queued.clone()));
        outer.add_command(wrapped(&cmd("EXEC"), headers)?);
    } else {
        for cmd in inner.cmd_iter() {
            outer.add_command(wrapped(cmd, headers)?);
        }
    }
    Some(outer)
}

/// The first argument of what is packed, for its span.
pub fn packed_name(packed: &[u8]) -> String {
    let name = packed.split(|byte| *byte == b'\n').nth(2).and_then(|line| line.strip_suffix(b"\r"));
    name.map_or_else(|| "UNKNOWN".to_owned(), |name| String::from_utf8_lossy(name).to_ascii_uppercase())
}

/// Packed commands, each behind the context as a RESP attribute; as they are without a context.
pub fn behind_attributes<'p>(packed: &'p [u8], headers: &HashMap<String, String>) -> Cow<'p, [u8]> {
    if !headers.contains_key("traceparent") {
        return packed.into();
    }
    let pairs = CARRIED.iter().filter_map(|name| Some((*name, headers.get(*name).filter(|value| !value.is_empty())?)));
    let pairs: Vec<_> = pairs.collect();
    let mut attribute = format!("|{}\r\n", pairs.len());
    for (name, value) in pairs {
        attribute += &format!("${}\r\n{name}\r\n${}\r\n{value}\r\n", name.len(), value.len());
    }
    let mut carrying = Vec::new();
    let mut rest = packed;
    while !rest.is_empty() {
        let Some(end) = command_end(rest) else { return packed.into() };
        carrying.extend_from_slice(attribute.as_bytes());
        carrying.extend_from_slice(&rest[..end]);
        rest = &rest[end..];
    }
    carrying.into()
}

/// Where the first of these packed commands ends.
fn command_end(packed: &[u8]) -> Option<usize> {
    let (arguments, mut at) = number(packed, 0, b'*')?;
    for _ in 0..arguments {
        let (length, from) = number(packed, at, b'$')?;
        at = from + length + b"\r\n".len();
    }
    (at <= packed.len()).then_some(at)
}

/// The number of a line `<kind><number>\r\n` that begins here, and where the next one does.
fn number(packed: &[u8], at: usize, kind: u8) -> Option<(usize, usize)> {
    let line = packed.get(at..)?.strip_prefix(&[kind])?;
    let end = line.iter().position(|byte| *byte == b'\r')?;
    let number = std::str::from_utf8(&line[..end]).ok()?.parse().ok()?;
    Some((number, at + 1 + end + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn words(cmd: &Cmd) -> Vec<String> {
        let word = |argument| match argument {
            Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => panic!("a cursor"),
        };
        cmd.args_iter().map(word).collect()
    }

    #[test]
    fn a_wrapper_has_state_and_baggage_only_if_there_are_any() {
        let mut get = cmd("GET");
        get.arg("k");
        let wrap = |pairs: &[(&str, &str)]| wrapped(&get, &headers(pairs)).map(|cmd| words(&cmd));
        assert_eq!(wrap(&[]), None);
        assert_eq!(wrap(&[("traceparent", "p"), ("tracestate", "")]).unwrap(), ["OTEL.TRACE", "p", "GET", "k"]);
        let (parent, state, baggage) = (("traceparent", "p"), ("tracestate", "a=1"), ("baggage", "b=2"));
        assert_eq!(wrap(&[parent, state]).unwrap(), ["OTEL.TRACE", "p", "a=1", "GET", "k"]);
        assert_eq!(wrap(&[parent, state, baggage]).unwrap(), ["OTEL.TRACE", "p", "a=1", "b=2", "GET", "k"]);
        assert_eq!(wrap(&[parent, baggage]).unwrap(), ["OTEL.TRACE", "p", "", "b=2", "GET", "k"]);
    }

    #[test]
    fn of_a_transaction_exec_carries_the_context() {
        let mut transaction = redis::pipe();
        transaction.atomic().cmd("GET").arg("k");
        let outer = wrapped_pipeline(&transaction, &headers(&[("traceparent", "p")])).expect("a context");
        let commands: Vec<_> = outer.cmd_iter().map(words).collect();
        assert_eq!(commands, [vec!["MULTI"], vec!["GET", "k"], vec!["OTEL.TRACE", "p", "EXEC"]]);
        assert!(!outer.is_transaction());
    }

    #[test]
    fn each_packed_command_gets_the_attribute_whatever_its_values_hold() {
        let mut pipeline = redis::pipe();
        pipeline.cmd("SET").arg("k").arg("*1\r\n$4\r\nPING\r\n").cmd("GET").arg("k");
        let packed = pipeline.get_packed_pipeline();
        let carrying = behind_attributes(&packed, &headers(&[("traceparent", "p"), ("baggage", "b"), ("x", "y")]));
        let attribute = "|2\r\n$11\r\ntraceparent\r\n$1\r\np\r\n$7\r\nbaggage\r\n$1\r\nb\r\n";
        let text = String::from_utf8(carrying.into_owned()).expect("text");
        assert_eq!(text.matches(attribute).count(), 2);
        assert_eq!(text.replace(attribute, "").as_bytes(), packed);
        assert!(text.contains(&format!("{attribute}*2\r\n$3\r\nGET")));
        assert_eq!(packed_name(&packed), "SET");
        assert_eq!(behind_attributes(&packed, &headers(&[])), packed);
    }
}
