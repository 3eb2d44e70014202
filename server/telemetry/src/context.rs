//! W3C Trace Context: ids, `traceparent`, `tracestate` (<https://www.w3.org/TR/trace-context/>).

use std::borrow::Cow;
use std::fmt;

/// A trace id; never zero when it comes from [`TraceId::parse`] or a generator.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub u128);

/// A span id; never zero when it comes from a parser or a generator.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub u64);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TraceId {
    /// 32 lower-case hexadecimal digits, not all zero.
    pub fn parse(text: &[u8]) -> Option<Self> {
        (text.len() == 32).then(|| hex(text)).flatten().filter(|id| *id != 0).map(Self)
    }
}

impl SpanId {
    /// The id of the `n`-th further span of the tree whose root this is (the root is the zeroth). Zero is left out, so that
    /// `span_id - root_id` orders the spans of a tree.
    pub fn nth_of_tree(self, n: u16) -> Self {
        let id = self.0.wrapping_add(u64::from(n));
        Self(if id < self.0 { id.wrapping_add(1) } else { id })
    }
}

/// The context that came with a command: the caller's trace and span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteContext<'a> {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    /// The trace flags: bit 0 is `sampled`, bit 1 `random`, the others are 0.
    pub flags: u8,
    /// The caller leaves the decision to us, as some formats can say: then `sampled` says nothing.
    pub deferred: bool,
    /// As it was sent, shortened if it was longer than has to be carried on; empty if there was none or it was not valid.
    pub tracestate: Cow<'a, str>,
}

/// The `sampled` bit of the trace flags.
pub const FLAG_SAMPLED: u8 = 1;
/// The `random` bit: at least the last seven bytes of the trace id are.
pub const FLAG_RANDOM: u8 = 1 << 1;
/// The bits that level 2 defines. Who does not know the others must set them to zero (section 2.2.2.5.3), whatever the version.
const FLAGS_KNOWN: u8 = FLAG_SAMPLED | FLAG_RANDOM;
/// Length of a version 00 `traceparent`.
const TRACEPARENT_LEN: usize = 55;
/// What has to be carried on of a `tracestate`; of a longer one as much is.
const TRACESTATE_BYTES_MAX: usize = 512;
/// Members that are longer go first.
const TRACESTATE_MEMBER_LONG: usize = 128;
/// One with more is dropped.
pub(crate) const TRACESTATE_MEMBERS_MAX: usize = 32;
/// A `tracestate` that is longer than any valid one is not looked at.
const TRACESTATE_VALID_MAX: usize = TRACESTATE_MEMBERS_MAX * (256 + 1 + 256 + 3);

impl<'a> RemoteContext<'a> {
    /// Reads `traceparent`; `None` if it is malformed, and then there is no context at all. A `tracestate` that is not
    /// valid is dropped alone. An empty one is as good as none.
    ///
    /// Version `00` must be exactly 55 bytes. A later version is read as far as version 00 goes, if a `-` or nothing
    /// follows; version `ff` is invalid.
    pub fn parse(traceparent: &[u8], tracestate: &'a [u8]) -> Option<Self> {
        let (head, rest) = traceparent.split_at_checked(TRACEPARENT_LEN)?;
        if head[2] != b'-' || head[35] != b'-' || head[52] != b'-' {
            return None;
        }
        let version = hex(&head[..2])? as u8;
        if version == 0xff || (version == 0 && !rest.is_empty()) || rest.first().is_some_and(|byte| *byte != b'-') {
            return None;
        }
        let trace_id = TraceId::parse(&head[3..35])?;
        let span_id = hex(&head[36..52]).filter(|id| *id != 0)? as u64;
        let flags = hex(&head[53..55])? as u8;
        Some(Self {
            trace_id,
            span_id: SpanId(span_id),
            flags: flags & FLAGS_KNOWN,
            deferred: false,
            tracestate: Self::tracestate(tracestate),
        })
    }

    /// A `tracestate` as it is carried on: nothing, if it is not valid.
    pub(crate) fn tracestate(text: &[u8]) -> Cow<'_, str> {
        valid_tracestate(text).map_or(Cow::Borrowed(""), shortened)
    }

    /// Whether the caller recorded its span, if it says so.
    pub fn decision(&self) -> Option<bool> {
        (!self.deferred).then_some(self.flags & FLAG_SAMPLED != 0)
    }

    /// The context as a version 00 `traceparent`.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id, self.span_id, self.flags)
    }

    /// The same, without a copy of its tracestate.
    pub fn borrowed(&self) -> RemoteContext<'_> {
        RemoteContext { tracestate: Cow::Borrowed(&self.tracestate), ..*self }
    }

    /// A context that outlives the input buffer.
    pub fn into_owned(self) -> RemoteContext<'static> {
        RemoteContext { tracestate: Cow::Owned(self.tracestate.into_owned()), ..self }
    }
}

/// Lower-case hexadecimal digits, at most 32 of them.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

/// The text if every member is well-formed. A key that occurs twice stays, as the specification's own tests allow.
fn valid_tracestate(text: &[u8]) -> Option<&str> {
    if text.len() > TRACESTATE_VALID_MAX {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let mut members = 0;
    for member in text.split(',') {
        let member = member.trim_matches([' ', '\t']);
        if member.is_empty() {
            continue;
        }
        let (key, value) = member.split_once('=')?;
        if !valid_key(key) || !valid_value(value) {
            return None;
        }
        members += 1;
    }
    (1..=TRACESTATE_MEMBERS_MAX).contains(&members).then_some(text)
}

/// As much of a valid `tracestate` as is carried on: first members of more than 128 bytes go, then the last ones (Trace
/// Context, section 3.3.1.5).
fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= TRACESTATE_BYTES_MAX {
        return text.into();
    }
    let mut members: Vec<&str> = text.split(',').map(|member| member.trim_matches([' ', '\t'])).collect();
    members.retain(|member| !member.is_empty());
    let mut bytes: usize = members.iter().map(|member| member.len() + 1).sum::<usize>() - 1;
    // The last ones first: those in front were changed last.
    for at in (0..members.len()).rev() {
        if bytes > TRACESTATE_BYTES_MAX && members[at].len() > TRACESTATE_MEMBER_LONG {
            bytes = bytes.saturating_sub(members.remove(at).len() + 1);
        }
    }
    while bytes > TRACESTATE_BYTES_MAX
        && let Some(last) = members.pop()
    {
        bytes = bytes.saturating_sub(last.len() + 1);
    }
    members.join(",").into()
}

/// Level 2's grammar, `( lcalpha / DIGIT ) 0*255 ( keychar )`: to level 1 an `@` parted a tenant from a system and both had limits of
/// their own, so that it refuses some of these. Whoever knows level 1 alone drops what it does not take; we need not.
fn valid_key(key: &str) -> bool {
    (1..=256).contains(&key.len())
        && key.bytes().enumerate().all(|(at, byte)| match byte {
            b'a'..=b'z' | b'0'..=b'9' => true,
            b'_' | b'-' | b'*' | b'/' | b'@' => at > 0,
            _ => false,
        })
}

/// Printable ASCII without comma and equals sign. A space at either end was trimmed away with the optional white space.
fn valid_value(value: &str) -> bool {
    (1..=256).contains(&value.len())
        && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b',' && byte != b'=')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(text: &str) -> Option<RemoteContext<'static>> {
        RemoteContext::parse(text.as_bytes(), b"").map(RemoteContext::into_owned)
    }

    #[test]
    fn the_example_of_the_specification() {
        let context = parse(GOOD).expect("valid");
        assert_eq!(context.trace_id, TraceId(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736));
        assert_eq!(context.span_id, SpanId(0x00f0_67aa_0ba9_02b7));
        assert_eq!(context.decision(), Some(true));
        assert_eq!(context.traceparent(), GOOD);
    }

    #[test]
    fn malformed_is_no_context() {
        let long = format!("{GOOD}-00");
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &long,
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0A",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.x",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn bits_that_nobody_has_defined_are_not_carried_on() {
        for (flags, kept) in [("00", 0), ("01", 1), ("02", 2), ("03", 3), ("fc", 0), ("ff", 3), ("80", 0)] {
            let context = parse(&format!("{}{flags}", &GOOD[..53])).expect("valid");
            assert_eq!(context.flags, kept, "{flags}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_version_00_goes() {
        let short = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff";
        let context = parse(short).expect("valid");
        assert_eq!(context.traceparent(), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03");
        assert_eq!(parse(&format!("{short}-what-the-future-brings")), Some(context));
    }

    #[test]
    fn tracestate_is_kept_verbatim_or_dropped() {
        let kept = |text: &str| {
            let context = RemoteContext::parse(GOOD.as_bytes(), text.as_bytes()).expect("traceparent is valid");
            context.tracestate.into_owned()
        };
        let members = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        for good in [
            "foo=1",
            "foo=1,bar=2",
            "foo=1 , bar=2",
            "foo=1,,bar=2,",
            "0t-_*/@sys=x y!",
            "a@@1=x",
            "foo=1,foo=1",
            &members(32),
        ] {
            assert_eq!(kept(good), good);
        }
        for bad in [
            "",
            ",",
            "foo",
            "Foo=1",
            "foo=",
            "=1",
            "foo=1=2",
            "foo=\u{e9}",
            "@foo=1",
            "-a=1",
            &format!("{}=1", "k".repeat(257)),
            &members(33),
            &format!("foo={}", "x".repeat(257)),
        ] {
            assert_eq!(kept(bad), "", "{bad:?}");
        }
    }

    #[test]
    fn a_long_tracestate_loses_long_members_first_and_then_the_last() {
        let kept = |text: &str| {
            let context = RemoteContext::parse(GOOD.as_bytes(), text.as_bytes()).expect("traceparent is valid");
            context.tracestate.into_owned()
        };
        let member = |key: &str, len: usize| format!("{key}={}", "x".repeat(len - key.len() - 1));
        let fits = [member("a", 255), member("b", 256)].join(",");
        assert_eq!((fits.len(), kept(&fits)), (512, fits));
        // 128 bytes are not long.
        let (long, short) = (member("long", 129), member("s", 128));
        let text = [&short[..], &long, &short, &short, "z=1"].join(" , ");
        assert_eq!(kept(&text), [&short[..], &short, &short, "z=1"].join(","));
        let text = [&long[..], &short, &short, &short, &short, &short].join(",");
        assert_eq!(kept(&text), [&short[..]; 3].join(","));
        let text = [member("a", 200), member("b", 200), member("c", 200)].join(",");
        assert_eq!(kept(&text), [member("a", 200), member("b", 200)].join(","));
    }

    #[test]
    fn ids_of_a_tree_ascend_and_leave_zero_out() {
        let root = SpanId(u64::MAX - 1);
        let ids: Vec<u64> = (0..4).map(|n| root.nth_of_tree(n).0).collect();
        assert_eq!(ids, [u64::MAX - 1, u64::MAX, 1, 2]);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), state in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = RemoteContext::parse(&bytes, &state);
        }

        #[test]
        fn near_misses_never_panic(at in 0usize..55, byte in any::<u8>(), tail in "[-0-9a-f]{0,6}") {
            let mut bytes = GOOD.as_bytes().to_vec();
            bytes[at] = byte;
            bytes.extend_from_slice(tail.as_bytes());
            if let Some(context) = RemoteContext::parse(&bytes, b"") {
                prop_assert_eq!(parse(&context.traceparent()), Some(context));
            }
        }

        #[test]
        fn parsing_what_was_formatted_gives_it_back(trace in 1u128.., span in 1u64.., flags in any::<u8>()) {
            let flags = flags & FLAGS_KNOWN;
            let context = RemoteContext { trace_id: TraceId(trace), span_id: SpanId(span), flags, deferred: false, tracestate: "".into() };
            prop_assert_eq!(parse(&context.traceparent()), Some(context));
        }
    }
}
