//! Jaeger's own format (<https://www.jaegertracing.io/sdk-migration/#propagation-format>).

use super::{Field, Fields, hex};
use crate::context::{FLAG_SAMPLED, RemoteContext, SpanId, TraceId};

/// `{trace id}:{span id}:{parent span id}:{flags}`; ids without their leading zeros. The parent is deprecated and ignored.
/// The first flag is the decision, the second debug.
pub(super) fn extract(fields: &Fields<'_>) -> Option<RemoteContext<'static>> {
    let text = fields.get(Field::UberTraceId)?;
    // Some clients encode the colons as in a URL.
    let decoded = std::str::from_utf8(text).ok()?.replace("%3A", ":").replace("%3a", ":");
    let mut parts = decoded.split(':').map(str::as_bytes);
    let (trace, span, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || span.len() > 16 || parent.len() > 16 || flags.len() > 2 {
        return None;
    }
    let (trace, span, flags) = (hex(trace)?, hex(span)?, hex(flags)? as u8);
    if trace == 0 || span == 0 {
        return None;
    }
    Some(RemoteContext {
        trace_id: TraceId(trace),
        span_id: SpanId(span as u64),
        flags: flags & FLAG_SAMPLED,
        deferred: false,
        tracestate: "".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::extract;

    #[test]
    fn the_format() {
        let seen = |text: &str| extract("jaeger", &[("Uber-Trace-Id", text)]);
        let long = "80f198ee56343ba864fe8b2a57d3eff7";
        let found = |trace: &str, span: &str, decision| Some((format!("{trace:0>32}-{span:0>16}"), Some(decision)));
        assert_eq!(seen(&format!("{long}:e457b5a2e4d86bd1:0:1")), found(long, "e457b5a2e4d86bd1", true));
        assert_eq!(seen(&format!("{long}%3Ae457b5a2e4d86bd1%3a0%3A01")), found(long, "e457b5a2e4d86bd1", true));
        assert_eq!(seen("a3ce929d0e0e4736:7b:e457b5a2e4d86bd1:0"), found("a3ce929d0e0e4736", "7b", false));
        // Debug alone does not say sampled.
        assert_eq!(seen("1:2:0:2"), found("1", "2", false));
        assert_eq!(seen("1:2:0:3"), found("1", "2", true));
        for bad in [
            "",
            "1:2:0",
            "1:2:0:1:1",
            "0:2:0:1",
            "1:0:0:1",
            "1:2:0:x",
            "1:2:0:123",
            &format!("{long}0:2:0:1"),
            "1:+2:0:1",
            "1::0:1",
        ] {
            assert_eq!(seen(bad), None, "{bad:?}");
        }
    }
}
