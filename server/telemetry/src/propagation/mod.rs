//! Which trace a command belongs to, in the formats that callers speak (`OTEL_PROPAGATORS`).
//!
//! The carrier is a list of keys and values, as headers are: keys are compared without regard to case. The propagators are
//! asked in the order in which they are named, and the last one that finds a context wins, as in the OpenTelemetry
//! specification's composite propagator. A malformed context is none, and never fails a command.
//!
//! The parsers are ours: of the published crates one is deprecated, one brings an exporter with it and one is behind the API
//! by years, and all of them allocate per call.

mod b3;
mod baggage;
mod jaeger;
mod w3c;
mod xray;

use std::borrow::Cow;

use crate::context::{RemoteContext, TraceId};

pub use baggage::{Baggage, Member};

/// A format of trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    TraceContext,
    Baggage,
    B3,
    Jaeger,
    XRay,
}

/// What the carrier is asked for.
#[derive(Clone, Copy)]
enum Field {
    Traceparent,
    Tracestate,
    Baggage,
    B3,
    B3TraceId,
    B3SpanId,
    B3Sampled,
    B3Flags,
    UberTraceId,
    XAmznTraceId,
}

/// The keys, and whether a second one is added to the first as another part of a list. Where not, two of them contradict
/// each other: neither counts.
const FIELDS: [(&str, bool); 10] = [
    ("traceparent", false),
    ("tracestate", true),
    ("baggage", true),
    ("b3", false),
    ("x-b3-traceid", false),
    ("x-b3-spanid", false),
    ("x-b3-sampled", false),
    ("x-b3-flags", false),
    ("uber-trace-id", false),
    ("x-amzn-trace-id", false),
];

/// The fields of one carrier.
#[derive(Default)]
struct Fields<'a>([Option<Cow<'a, [u8]>>; FIELDS.len()]);

impl<'a> Fields<'a> {
    fn collect(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut fields = Self::default();
        for (key, value) in pairs {
            let Some(at) = FIELDS.iter().position(|(name, _)| key.eq_ignore_ascii_case(name.as_bytes())) else {
                continue;
            };
            let list = FIELDS[at].1;
            fields.0[at] = Some(match fields.0[at].take() {
                None => Cow::Borrowed(value),
                Some(first) if list => {
                    let mut joined = first.into_owned();
                    joined.push(b',');
                    joined.extend_from_slice(value);
                    Cow::Owned(joined)
                }
                // No format has an empty value.
                Some(_) => Cow::Borrowed(b""),
            });
        }
        fields
    }

    fn get(&self, field: Field) -> Option<&[u8]> {
        self.0[field as usize].as_deref()
    }

    fn take(&mut self, field: Field) -> Option<Cow<'a, [u8]>> {
        self.0[field as usize].take()
    }
}

/// What a carrier told.
#[derive(Debug, Default, PartialEq)]
pub struct Extracted<'a> {
    /// The caller's trace and span; `None`: the command begins a trace.
    pub context: Option<RemoteContext<'a>>,
    /// Not decoded yet; empty if there is none.
    pub baggage: Baggage<'a>,
}

/// The propagators in force, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Propagators(Vec<Format>);

impl Default for Propagators {
    /// `tracecontext,baggage`.
    fn default() -> Self {
        Self(vec![Format::TraceContext, Format::Baggage])
    }
}

impl Propagators {
    /// From `OTEL_PROPAGATORS`, a list with commas; unset or empty is the default. `none` means none, whatever stands
    /// beside it. An unknown name is passed over with a warning, the second part of the result.
    pub fn from_setting(list: Option<&str>) -> (Self, Vec<String>) {
        let (mut formats, mut warnings) = (Vec::new(), Vec::new());
        let names: Vec<&str> =
            list.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        if names.is_empty() {
            return (Self::default(), warnings);
        }
        for name in &names {
            let format = match name.to_ascii_lowercase().as_str() {
                "tracecontext" => Format::TraceContext,
                "baggage" => Format::Baggage,
                // They differ in what they inject; either reads both.
                "b3" | "b3multi" => Format::B3,
                "jaeger" => Format::Jaeger,
                "xray" => Format::XRay,
                "none" => return (Self(Vec::new()), warnings),
                _ => {
                    warnings.push(format!(
                        "OTEL_PROPAGATORS names \"{name}\", which is none of tracecontext, baggage, b3, b3multi, jaeger, \
                         xray, none; it is ignored"
                    ));
                    continue;
                }
            };
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
        (Self(formats), warnings)
    }

    /// Finds the caller's context and baggage among the pairs of a carrier.
    pub fn extract<'a>(&self, pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Extracted<'a> {
        let mut fields = Fields::collect(pairs);
        let mut extracted = Extracted::default();
        for format in &self.0 {
            let found = match format {
                Format::TraceContext => w3c::extract(&mut fields),
                Format::B3 => b3::extract(&fields),
                Format::Jaeger => jaeger::extract(&fields),
                Format::XRay => xray::extract(&fields),
                Format::Baggage => {
                    extracted.baggage = Baggage::new(fields.take(Field::Baggage).unwrap_or_default());
                    None
                }
            };
            extracted.context = found.or(extracted.context);
        }
        extracted
    }
}

/// Hexadecimal digits of either case, 1 to 32 of them: the other formats ask for less than W3C.
fn hex(text: &[u8]) -> Option<u128> {
    let digits = std::str::from_utf8(text).ok().filter(|text| (1..=32).contains(&text.len()))?;
    // `from_str_radix` takes a sign.
    if digits.starts_with('+') { None } else { u128::from_str_radix(digits, 16).ok() }
}

/// A trace id of exactly 16 or 32 digits, not zero; the shorter one is the low half.
fn trace_id(text: &[u8]) -> Option<TraceId> {
    matches!(text.len(), 16 | 32).then(|| hex(text)).flatten().filter(|id| *id != 0).map(TraceId)
}

/// A span id of exactly 16 digits, not zero.
fn span_id(text: &[u8]) -> Option<crate::context::SpanId> {
    (text.len() == 16).then(|| hex(text)).flatten().filter(|id| *id != 0).map(|id| crate::context::SpanId(id as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(super) fn extract(propagators: &str, pairs: &[(&str, &str)]) -> Option<(String, Option<bool>)> {
        let (propagators, warnings) = Propagators::from_setting(Some(propagators));
        assert_eq!(warnings, [""; 0]);
        let pairs = pairs.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
        let context = propagators.extract(pairs).context?;
        Some((format!("{}-{}", context.trace_id, context.span_id), context.decision()))
    }

    const IDS: &str = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
    const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn names_are_read_without_regard_to_case_and_order_counts() {
        let read = |list| Propagators::from_setting(list);
        assert_eq!(read(None), (Propagators::default(), vec![]));
        assert_eq!(read(Some(" , ")), (Propagators::default(), vec![]));
        assert_eq!(read(Some("B3Multi, b3 ,jaeger")).0, Propagators(vec![Format::B3, Format::Jaeger]));
        assert_eq!(read(Some("xray,none")).0, Propagators(vec![]));
        let (some, warnings) = read(Some("tracecontext,ottrace"));
        assert_eq!((some.0.as_slice(), warnings.len()), (&[Format::TraceContext][..], 1));
        assert!(warnings[0].contains("\"ottrace\""), "{warnings:?}");
    }

    #[test]
    fn the_last_propagator_that_finds_a_context_wins() {
        let b3 = ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1");
        let w3c = ("TraceParent", TRACEPARENT);
        assert_eq!(
            extract("tracecontext,b3", &[b3, w3c]).expect("both").0,
            "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1"
        );
        assert_eq!(extract("b3,tracecontext", &[b3, w3c]).expect("both").0, IDS);
        assert_eq!(extract("tracecontext,b3", &[("b3", "nonsense"), w3c]).expect("one").0, IDS);
        assert_eq!(extract("tracecontext", &[b3]), None);
        assert_eq!(extract("none", &[b3, w3c]), None);
    }

    #[test]
    fn two_values_contradict_each_other_or_make_a_list() {
        assert_eq!(extract("tracecontext", &[("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)]), None);
        let three = [("traceparent", TRACEPARENT); 3];
        assert_eq!(extract("tracecontext", &three), None);
        let pairs = [
            ("traceparent", TRACEPARENT),
            ("tracestate", "a=1"),
            ("Tracestate", "b=2"),
            ("baggage", "x=1"),
            ("baggage", "y=2"),
        ];
        let pairs = pairs.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
        let extracted = Propagators::default().extract(pairs);
        assert_eq!(extracted.context.expect("valid").tracestate, "a=1,b=2");
        let members: Vec<_> = extracted.baggage.members().map(|member| member.key.to_vec()).collect();
        assert_eq!(members, [b"x", b"y"]);
    }

    proptest! {
        #[test]
        fn nothing_panics(pairs in proptest::collection::vec((0..FIELDS.len(), proptest::collection::vec(any::<u8>(), 0..90)), 0..6)) {
            let (all, _) = Propagators::from_setting(Some("tracecontext,baggage,b3,jaeger,xray"));
            let pairs = pairs.iter().map(|(at, value)| (FIELDS[*at].0.as_bytes(), value.as_slice()));
            let extracted = all.extract(pairs);
            for member in extracted.baggage.members() {
                let _ = member.value();
            }
        }

        #[test]
        fn near_misses_never_panic(at in 0usize..64, byte in any::<u8>(), which in 0usize..3) {
            let (field, text) = [
                ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90"),
                ("uber-trace-id", "80f198ee56343ba864fe8b2a57d3eff7:e457b5a2e4d86bd1:0:1"),
                ("x-amzn-trace-id", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"),
            ][which];
            let mut bytes = text.as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let (all, _) = Propagators::from_setting(Some("b3,jaeger,xray"));
            if let Some(context) = all.extract([(field.as_bytes(), bytes.as_slice())].into_iter()).context {
                prop_assert!(context.trace_id.0 != 0 && context.span_id.0 != 0);
            }
        }
    }
}
