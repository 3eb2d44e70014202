//! AWS X-Ray (<https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>).

use super::{Field, Fields, hex, span_id};
use crate::context::{FLAG_SAMPLED, RemoteContext, TraceId};

/// `Root=1-{8 digits of time}-{24 digits};Parent={16 digits};Sampled={0, 1 or ?}`, in any order, other parts ignored.
pub(super) fn extract(fields: &Fields<'_>) -> Option<RemoteContext<'static>> {
    let (mut trace, mut span, mut sampled) = (None, None, None);
    for part in fields.get(Field::XAmznTraceId)?.split(|byte| *byte == b';') {
        let part = part.trim_ascii();
        let Some(at) = part.iter().position(|byte| *byte == b'=') else { continue };
        let (key, value) = (&part[..at], &part[at + 1..]);
        match key {
            b"Root" => trace = Some(root(value)?),
            b"Parent" => span = Some(span_id(value)?),
            b"Sampled" => {
                sampled = match value {
                    b"1" => Some(true),
                    b"0" => Some(false),
                    // Asks the receiver to decide.
                    b"?" => None,
                    _ => return None,
                }
            }
            _ => {}
        }
    }
    Some(RemoteContext {
        trace_id: trace?,
        span_id: span?,
        flags: if sampled == Some(true) { FLAG_SAMPLED } else { 0 },
        deferred: sampled.is_none(),
        tracestate: "".into(),
    })
}

fn root(value: &[u8]) -> Option<TraceId> {
    if value.len() != 35 || &value[..2] != b"1-" || value[10] != b'-' {
        return None;
    }
    let (time, unique) = (hex(&value[2..10])?, hex(&value[11..])?);
    Some(time << 96 | unique).filter(|id| *id != 0).map(TraceId)
}

#[cfg(test)]
mod tests {
    use super::super::tests::extract;

    #[test]
    fn the_format() {
        let seen = |text: &str| extract("xray", &[("X-Amzn-Trace-Id", text)]);
        let found = |decision| Some(("5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8".to_owned(), decision));
        let (root, parent) = ("Root=1-5759e988-bd862e3fe1be46a994272793", "Parent=53995c3f42cd8ad8");
        assert_eq!(seen(&format!("{root};{parent};Sampled=1")), found(Some(true)));
        assert_eq!(
            seen(&format!("Self=1-67891234-12456789abcdef012345678; {parent}; Sampled=0; {root}")),
            found(Some(false))
        );
        assert_eq!(seen(&format!("{root};{parent}")), found(None));
        assert_eq!(seen(&format!("{root};{parent};Sampled=?;Lineage=a:1")), found(None));
        for bad in [
            "",
            root,
            parent,
            &format!("{root};Parent=53995c3f42cd8ad"),
            &format!("{root};{parent};Sampled=yes"),
            &format!("Root=2-5759e988-bd862e3fe1be46a994272793;{parent}"),
            &format!("Root=1-00000000-000000000000000000000000;{parent}"),
            &format!("Root=1-5759e988bd862e3fe1be46a994272793;{parent}"),
        ] {
            assert_eq!(seen(bad), None, "{bad:?}");
        }
    }
}
