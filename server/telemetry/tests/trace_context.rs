//! Trace Context level 2, against its own grammar and a corpus.
#![allow(clippy::disallowed_methods, reason = "the corpus is files beside this test")]

use std::path::Path;

use ferrite_telemetry::RemoteContext;
use proptest::prelude::*;
use regex::bytes::Regex;

const GOOD: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The grammar of <https://www.w3.org/TR/trace-context-2/>, rule by rule: an oracle that shares nothing with the parser.
struct Grammar {
    traceparent: Regex,
    member: Regex,
}

impl Grammar {
    fn new() -> Self {
        let hex = "[0-9a-f]"; // HEXDIGLC
        // version-format of 00; a later version may go on after a dash.
        let format = format!("({hex}{{32}})-({hex}{{16}})-{hex}{{2}}");
        let traceparent = format!("^(?-u)(?:00-{format}|({hex}{{2}})-{format}(?:-(?s:.)*)?)$");
        let (key_char, no_blank) = ("[a-z0-9_\\-*/@]", "[\\x21-\\x2b\\x2d-\\x3c\\x3e-\\x7e]");
        let key = format!("[a-z0-9]{key_char}{{0,255}}");
        let value = format!("[\\x20\\x21-\\x2b\\x2d-\\x3c\\x3e-\\x7e]{{0,255}}{no_blank}");
        let member = format!("^(?-u)[ \\t]*(?:{key}={value})?[ \\t]*$");
        let build = |pattern: &str| Regex::new(pattern).expect("a pattern");
        Self { traceparent: build(&traceparent), member: build(&member) }
    }

    /// The version, the ids and what they must not be are in the text, not in the grammar.
    fn takes_traceparent(&self, text: &[u8]) -> bool {
        let zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
        self.traceparent.captures(text).is_some_and(|found| {
            let part = |at: usize| found.get(at).map(|part| part.as_bytes());
            match (part(1).or(part(4)), part(2).or(part(5)), part(3)) {
                (Some(trace), Some(span), version) => {
                    // A longer text of version 00 fits the second form only.
                    !zero(trace) && !zero(span) && version.is_none_or(|version| version != b"ff" && version != b"00")
                }
                _ => false,
            }
        })
    }

    /// Empty members are allowed and count for nothing; there are one to 32 others.
    fn takes_tracestate(&self, text: &[u8]) -> bool {
        let blank = |member: &[u8]| member.iter().all(|byte| matches!(byte, b' ' | b'\t'));
        let members: Vec<&[u8]> = text.split(|byte| *byte == b',').collect();
        let count = members.iter().filter(|member| !blank(member)).count();
        (1..=32).contains(&count) && members.iter().all(|member| self.member.is_match(member))
    }
}

thread_local!(static GRAMMAR: Grammar = Grammar::new());

fn tracestate(text: &[u8]) -> String {
    RemoteContext::parse(GOOD, text).expect("the traceparent is good").tracestate.into_owned()
}

/// Bytes that mean something here far more often than others.
fn likely(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![8 => prop::sample::select(&b"ab09_-*/@=, \t~!AZ"[..]), 1 => any::<u8>()];
    prop::collection::vec(byte, len)
}

/// Members that are right but for what `length` does to them.
fn member() -> impl Strategy<Value = String> {
    let key = prop_oneof!["[a-z0-9][a-z0-9_*/@-]{0,20}", "[a-z0-9@_-][a-z0-9@]{254,257}"];
    let value = prop_oneof!["[ -+./;<>-~]{0,20}[!-+./;<>-~]", "[!-+]{255,258}"];
    (key, value, "[ \t]{0,2}", "[ \t]{0,2}")
        .prop_map(|(key, value, before, after)| format!("{before}{key}={value}{after}"))
}

proptest! {
    #[test]
    fn any_text_is_a_tracestate_if_the_grammar_says_so(text in likely(0..40)) {
        let expected = GRAMMAR.with(|grammar| grammar.takes_tracestate(&text));
        prop_assert_eq!(!tracestate(&text).is_empty(), expected, "{}", text.escape_ascii());
    }

    #[test]
    fn lists_are_taken_if_every_member_is_and_there_are_not_too_many(
        members in prop::collection::vec(prop_oneof![9 => member(), 1 => Just(String::new())], 1..36)
    ) {
        let text = members.join(",");
        let expected = GRAMMAR.with(|grammar| grammar.takes_tracestate(text.as_bytes()));
        let kept = tracestate(text.as_bytes());
        if text.len() <= 512 {
            prop_assert_eq!(kept, if expected { text } else { String::new() });
        } else {
            // What is carried on of a long one is itself one, and none of the first 512 bytes' worth is lost without need.
            prop_assert!(kept.len() <= 512 && (expected || kept.is_empty()), "{}", text);
            prop_assert!(kept.is_empty() || GRAMMAR.with(|grammar| grammar.takes_tracestate(kept.as_bytes())));
        }
    }

    #[test]
    fn any_text_is_a_traceparent_if_the_grammar_says_so(
        at in 0usize..55, byte in prop_oneof![prop::sample::select(&b"0f-gA"[..]), any::<u8>()],
        version in prop_oneof![Just("00"), Just("01"), Just("fe"), Just("ff")],
        tail in prop_oneof![Just(String::new()), "[-0-9a-f.]{0,6}"], cut in 0usize..60,
    ) {
        let mut text = [version.as_bytes(), &GOOD[2..], tail.as_bytes()].concat();
        text[at] = byte;
        text.truncate(cut.max(50));
        let expected = GRAMMAR.with(|grammar| grammar.takes_traceparent(&text));
        prop_assert_eq!(RemoteContext::parse(&text, b"").is_some(), expected, "{}", text.escape_ascii());
    }
}

/// Each `*.in` of the corpus is a `traceparent`, and behind a line's end a `tracestate`; its `*.out` says what becomes of them.
#[test]
fn corpus() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trace-context");
    let files = std::fs::read_dir(&dir).expect("the corpus is there").map(|entry| entry.expect("readable").path());
    let mut inputs: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "in")).collect();
    inputs.sort();
    assert!(inputs.len() >= 12, "the corpus is there");
    for path in inputs {
        let input = std::fs::read(&path).expect("readable");
        let expected = std::fs::read_to_string(path.with_extension("out")).expect("every input has an output");
        let at = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
        let (traceparent, state) = (&input[..at], input.get(at + 1..).unwrap_or_default());
        let told = match RemoteContext::parse(traceparent, state) {
            Some(context) => format!("{}\n{}\n", context.traceparent(), context.tracestate),
            None => "none\n".to_owned(),
        };
        assert_eq!(told, expected, "{}", path.display());
        // And whatever is cut off at the end, nothing panics.
        for end in 0..input.len() {
            let _ = RemoteContext::parse(&input[..end.min(at)], &input[end.min(at)..end]);
        }
    }
}
