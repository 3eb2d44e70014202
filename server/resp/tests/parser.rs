//! The parser as a client meets it: commands, limits, errors, and indifference to how the bytes were split.
#![allow(clippy::disallowed_methods, reason = "the corpus is files beside this test")]

use std::fmt::Write as _;
use std::path::Path;

use ferrite_resp::{Args, Limits, MAX_ATTRIBUTES, Parsed, Parser, ProtocolError};
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Command {
    args: Vec<Vec<u8>>,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a connection sees when `input` arrives in the given pieces: commands, then perhaps an error, and the
/// bytes that no command took.
fn feed(pieces: &[&[u8]], limits: &Limits) -> (Vec<Command>, Option<ProtocolError>, usize) {
    let mut parser = Parser::default();
    let mut parsed = Parsed::default();
    let mut buffer = Vec::new();
    let mut commands = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match parser.parse(&buffer, limits, &mut parsed) {
                Ok(false) => break,
                Ok(true) => {
                    assert!(parsed.consumed > 0 && parsed.consumed <= buffer.len());
                    commands.push(Command {
                        args: parsed.args(&buffer).iter().map(<[u8]>::to_vec).collect(),
                        attributes: parsed.attributes(&buffer).map(|(k, v)| (k.to_vec(), v.to_vec())).collect(),
                    });
                    buffer.drain(..parsed.consumed);
                }
                Err(error) => return (commands, Some(error), 0),
            }
        }
    }
    (commands, None, buffer.len())
}

fn whole(input: &[u8]) -> (Vec<Command>, Option<ProtocolError>, usize) {
    feed(&[input], &Limits::default())
}

fn args(words: &[&[u8]]) -> Command {
    Command { args: words.iter().map(|word| word.to_vec()).collect(), attributes: Vec::new() }
}

fn error_of(input: &[u8], limits: &Limits) -> String {
    feed(&[input], limits).1.map_or_else(|| "no error".to_owned(), |error| error.to_string())
}

#[test]
fn a_pipeline_of_multibulk_and_inline_commands() {
    let (commands, error, rest) =
        whole(b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\nPING\r\n*0\r\n*-1\r\n\r\nSET k \"a b\"\nGE");
    assert_eq!(
        commands,
        [args(&[b"GET", b"a\r\nb"]), args(&[b"PING"]), args(&[]), args(&[]), args(&[]), args(&[b"SET", b"k", b"a b"])]
    );
    assert_eq!((error, rest), (None, 2));
}

#[test]
fn args_of_ranges_alone() {
    let ranges = [0..3, 4..5];
    let args = Args::new(b"GET k", &ranges);
    assert_eq!((args.len(), args.get(1)), (2, &b"k"[..]));
    assert_eq!(args.from(1).iter().collect::<Vec<_>>(), [b"k"]);
}

#[test]
fn attributes_belong_to_the_command_after_them() {
    let (commands, error, _) = whole(
        b"|1\r\n$11\r\ntraceparent\r\n$2\r\n00\r\n|1\r\n$1\r\na\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n",
    );
    assert_eq!(error, None);
    let pair = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    assert_eq!(commands[0].attributes, [pair("traceparent", "00"), pair("a", "")]);
    assert_eq!(commands[0].args, [b"PING"]);
    assert_eq!(commands[1], args(&[b"PING"]));
}

#[test]
fn errors_are_redis_texts() {
    let limits = Limits { max_bulk_len: 100, max_args: 20, ..Limits::default() };
    let long = [b"1".repeat(70_000), b"\r\n".to_vec()].concat();
    for (input, expected) in [
        (&b"*a\r\n"[..], "Protocol error: invalid multibulk length"),
        (b"*\r\n", "Protocol error: invalid multibulk length"),
        (b"*01\r\n", "Protocol error: invalid multibulk length"),
        (b"*21\r\n", "Protocol error: invalid multibulk length"),
        (b"*99999999999999999999\r\n", "Protocol error: invalid multibulk length"),
        (b"*1\r\n:1\r\n", "Protocol error: expected '$', got ':'"),
        (b"*1\r\n\r\n", "Protocol error: expected '$', got '\r'"),
        (b"*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$101\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$1x\r\n", "Protocol error: invalid bulk length"),
        (b"SET \"a\r\n", "Protocol error: unbalanced quotes in request"),
        (&[b"*", &long[..]].concat(), "Protocol error: too big mbulk count string"),
        (&[b"*1\r\n$", &long[..]].concat(), "Protocol error: too big bulk count string"),
        (&long, "Protocol error: too big inline request"),
        (&[b"|", &long[..]].concat(), "Protocol error: too big attribute count string"),
        (b"|x\r\n", "Protocol error: invalid attribute count, at most 64 pairs may precede a command"),
        (b"|65\r\n", "Protocol error: invalid attribute count, at most 64 pairs may precede a command"),
        (b"|1\r\n+a\r\n", "Protocol error: expected '$' in an attribute, got '+'"),
        (b"|1\r\n$99999\r\n", "Protocol error: invalid attribute string length"),
        (b"|0\r\nPING\r\n", "Protocol error: expected '*' after an attribute, got 'P'"),
    ] {
        assert_eq!(error_of(input, &limits), expected, "{:?}", input.escape_ascii().to_string());
    }
}

#[test]
fn an_error_names_the_byte_as_it_came() {
    let error = feed(&[b"*1\r\n\xffx\r\n"], &Limits::default()).1.expect("not a bulk string");
    assert_eq!(error.text(), b"Protocol error: expected '$', got '\xff'");
    assert_eq!(ProtocolError::InvalidBulkLength.text(), b"Protocol error: invalid bulk length");
}

#[test]
fn an_unauthenticated_client_may_send_little() {
    let limits = Limits { authenticated: false, ..Limits::default() };
    assert_eq!(error_of(b"*11\r\n", &limits), "Protocol error: unauthenticated multibulk length");
    assert_eq!(error_of(b"*1\r\n$16385\r\n", &limits), "Protocol error: unauthenticated bulk length");
    assert_eq!(error_of(b"*10\r\n$16384\r\n", &limits), "no error");
}

#[test]
fn attributes_of_one_command_are_counted_together() {
    let pair = b"$1\r\na\r\n$1\r\nb\r\n";
    let full = [format!("|{MAX_ATTRIBUTES}\r\n").as_bytes(), &pair.repeat(MAX_ATTRIBUTES)].concat();
    assert_eq!(error_of(&full, &Limits::default()), "no error");
    assert_eq!(feed(&[&full, b"|1\r\n"], &Limits::default()).1, Some(ProtocolError::InvalidAttributeCount));
    let commands = feed(&[&full, b"*0\r\n", &full, b"*0\r\n"], &Limits::default()).0;
    assert_eq!(commands.iter().map(|command| command.attributes.len()).collect::<Vec<_>>(), [64, 64]);
}

#[test]
fn a_huge_count_reserves_little() {
    let mut parsed = Parsed::default();
    let mut parser = Parser::default();
    assert_eq!(parser.parse(b"*1048576\r\n", &Limits::default(), &mut parsed), Ok(false));
    assert_eq!(parser.parse(b"*1048576\r\n$536870912\r\n", &Limits::default(), &mut parsed), Ok(false));
}

/// Each `*.in` of the corpus, parsed whole, equals its `*.out`; fed byte by byte it gives the same.
#[test]
fn corpus() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<_> =
        std::fs::read_dir(&dir).expect("the corpus is there").map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    let inputs: Vec<_> = files.iter().filter(|path| path.extension().is_some_and(|end| end == "in")).collect();
    assert!(inputs.len() >= 10, "the corpus is there");
    for path in inputs {
        let input = std::fs::read(path).expect("readable");
        let expected = std::fs::read_to_string(path.with_extension("out")).expect("every input has an output");
        let limits = Limits { max_inline: 256, max_bulk_len: 1 << 20, ..Limits::default() };
        let seen = feed(&[&input], &limits);
        assert_eq!(describe(&seen), expected, "{}", path.display());
        assert_eq!(feed(&input.chunks(1).collect::<Vec<_>>(), &limits), seen, "{} byte by byte", path.display());
    }
}

fn describe((commands, error, rest): &(Vec<Command>, Option<ProtocolError>, usize)) -> String {
    let mut text = String::new();
    for command in commands {
        for (key, value) in &command.attributes {
            let _ = write!(text, "|{}={} ", key.escape_ascii(), value.escape_ascii());
        }
        let words: Vec<_> = command.args.iter().map(|word| format!("[{}]", word.escape_ascii())).collect();
        let _ = writeln!(text, "{}", words.join(" "));
    }
    match error {
        Some(error) => {
            let _ = writeln!(text, "error: {}", error.text().escape_ascii());
        }
        None => {
            let _ = writeln!(text, "waits with {rest} bytes");
        }
    }
    text
}

/// Bytes that are nearly RESP: tokens in any order, so that every branch is met.
fn nearly_resp() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        4 => prop::sample::select(vec![
            &b"*1\r\n"[..], b"*2\r\n", b"*0\r\n", b"*-1\r\n", b"|1\r\n", b"$0\r\n\r\n", b"$3\r\nabc\r\n", b"$1\r\n", b"\r\n", b"\r",
            b"\n", b"*", b"$", b"|", b"PING\r\n", b"a \"b c\" 'd'\n", b"\"\\x41\"", b"'", b"\"", b" ", b"*1\r\n$4\r\nPING\r\n", b"*01\r\n",
            b"$300\r\n", b"|1\r\n$1\r\nk\r\n$1\r\nv\r\n", b"*99999999999\r\n", b"1", b"-",
        ]).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..8),
        1 => (0usize..200).prop_map(|len| vec![b'7'; len]),
    ];
    prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat())
}

fn encode(command: &Command) -> Vec<u8> {
    let mut out = Vec::new();
    let bulk = |out: &mut Vec<u8>, bytes: &[u8]| {
        out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    };
    if !command.attributes.is_empty() {
        out.extend_from_slice(format!("|{}\r\n", command.attributes.len()).as_bytes());
        for (key, value) in &command.attributes {
            bulk(&mut out, key);
            bulk(&mut out, value);
        }
    }
    out.extend_from_slice(format!("*{}\r\n", command.args.len()).as_bytes());
    command.args.iter().for_each(|word| bulk(&mut out, word));
    out
}

fn pieces(input: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
    at.extend([0, input.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| input[pair[0]..pair[1]].to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same(input in nearly_resp(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let limits = Limits { max_inline: 150, max_bulk_len: 250, max_args: 100, ..Limits::default() };
        let seen = feed(&[&input], &limits);
        let cut = pieces(&input, &cuts);
        prop_assert_eq!(&feed(&cut.iter().map(Vec::as_slice).collect::<Vec<_>>(), &limits), &seen);
        prop_assert_eq!(&feed(&input.chunks(1).collect::<Vec<_>>(), &limits), &seen);
    }

    #[test]
    fn any_bytes_are_survived(input in prop::collection::vec(any::<u8>(), 0..400)) {
        let (commands, error, rest) = whole(&input);
        prop_assert!(error.is_some() || commands.len() + rest <= input.len());
    }

    #[test]
    fn what_was_encoded_is_parsed(
        sent in prop::collection::vec(
            (
                prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
                prop::collection::vec((prop::collection::vec(any::<u8>(), 0..9), prop::collection::vec(any::<u8>(), 0..9)), 0..3),
            ).prop_map(|(args, attributes)| Command { args, attributes }),
            0..6,
        ),
    ) {
        let input: Vec<u8> = sent.iter().flat_map(encode).collect();
        prop_assert_eq!(whole(&input), (sent, None, 0));
    }
}
