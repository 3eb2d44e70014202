//! B3, in one field or in several (<https://github.com/openzipkin/b3-propagation>).

use super::{Field, Fields, span_id, trace_id};
use crate::context::{FLAG_SAMPLED, RemoteContext};

/// The single field first, then the several, as the OpenTelemetry specification orders them.
pub(super) fn extract(fields: &Fields<'_>) -> Option<RemoteContext<'static>> {
    single(fields).or_else(|| multiple(fields))
}

/// `{trace id}-{span id}[-{sampling state}[-{parent span id}]]`. A state alone is no context.
fn single(fields: &Fields<'_>) -> Option<RemoteContext<'static>> {
    let mut parts = fields.get(Field::B3)?.split(|byte| *byte == b'-');
    let (trace, span) = (parts.next()?, parts.next()?);
    let state = parts.next();
    let well_formed = parts.next().is_none_or(|parent| span_id(parent).is_some()) && parts.next().is_none();
    if well_formed { context(trace, span, decision(state)?) } else { None }
}

fn multiple(fields: &Fields<'_>) -> Option<RemoteContext<'static>> {
    let debug = fields.get(Field::B3Flags) == Some(b"1");
    let state = if debug { Some(&b"d"[..]) } else { fields.get(Field::B3Sampled) };
    context(fields.get(Field::B3TraceId)?, fields.get(Field::B3SpanId)?, decision(state)?)
}

/// Accept, deny, debug (which is accept, and more), or nothing: the decision is left to the receiver. An early form of the
/// state, still in use, is a word.
fn decision(state: Option<&[u8]>) -> Option<Option<bool>> {
    match state {
        None => Some(None),
        Some(b"1" | b"d" | b"true") => Some(Some(true)),
        Some(b"0" | b"false") => Some(Some(false)),
        Some(_) => None,
    }
}

fn context(trace: &[u8], span: &[u8], sampled: Option<bool>) -> Option<RemoteContext<'static>> {
    Some(RemoteContext {
        trace_id: trace_id(trace)?,
        span_id: span_id(span)?,
        flags: if sampled == Some(true) { FLAG_SAMPLED } else { 0 },
        deferred: sampled.is_none(),
        tracestate: "".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::extract;

    const LONG: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const SPAN: &str = "e457b5a2e4d86bd1";

    #[test]
    fn one_field() {
        let seen = |text: &str| extract("b3", &[("B3", text)]);
        let found = |decision| Some((format!("{LONG}-{SPAN}"), decision));
        assert_eq!(seen(&format!("{LONG}-{SPAN}-1-05e3ac9a4f6e3b90")), found(Some(true)));
        assert_eq!(seen(&format!("{LONG}-{SPAN}-d")), found(Some(true)));
        assert_eq!(seen(&format!("{LONG}-{SPAN}-0")), found(Some(false)));
        assert_eq!(seen(&format!("{LONG}-{SPAN}")), found(None));
        let short = Some((format!("0000000000000000a3ce929d0e0e4736-{SPAN}"), Some(true)));
        assert_eq!(seen(&format!("a3ce929d0e0e4736-{SPAN}-1")), short);
        assert_eq!(seen(&format!("A3CE929D0E0E4736-{SPAN}-1")), short);
        let zeros = "0".repeat(32);
        for bad in [
            "",
            "0",
            "1",
            LONG,
            &format!("{LONG}-{SPAN}-2"),
            &format!("{LONG}-{SPAN}-1-x"),
            &format!("{LONG}-{SPAN}-1-05e3ac9a4f6e3b90-1"),
            &format!("{zeros}-{SPAN}-1"),
            &format!("{LONG}-0000000000000000-1"),
            &format!("{}-{SPAN}-1", &LONG[..31]),
            &format!("+{}-{SPAN}-1", &LONG[..31]),
        ] {
            assert_eq!(seen(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn several_fields() {
        let ids = [("X-B3-TraceId", LONG), ("x-b3-spanid", SPAN)];
        let seen = |more: &[(&str, &str)]| extract("b3multi", &[&ids, more].concat()).map(|(_, decision)| decision);
        assert_eq!(seen(&[]), Some(None));
        assert_eq!(seen(&[("X-B3-Sampled", "1"), ("X-B3-ParentSpanId", "05e3ac9a4f6e3b90")]), Some(Some(true)));
        assert_eq!(seen(&[("X-B3-Sampled", "false")]), Some(Some(false)));
        assert_eq!(seen(&[("X-B3-Flags", "1")]), Some(Some(true)));
        assert_eq!(seen(&[("X-B3-Flags", "0"), ("X-B3-Sampled", "0")]), Some(Some(false)));
        assert_eq!(seen(&[("X-B3-Sampled", "maybe")]), None);
        assert_eq!(extract("b3multi", &ids[..1]), None);
    }

    #[test]
    fn the_single_field_comes_first() {
        let single = ("b3", format!("a3ce929d0e0e4736-{SPAN}-0"));
        let fields = [("b3", single.1.as_str()), ("x-b3-traceid", LONG), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")];
        assert_eq!(
            extract("b3multi", &fields),
            Some((format!("0000000000000000a3ce929d0e0e4736-{SPAN}"), Some(false)))
        );
        let broken = [("b3", "x"), fields[1], fields[2], fields[3]];
        assert_eq!(extract("b3", &broken), Some((format!("{LONG}-{SPAN}"), Some(true))));
    }
}
