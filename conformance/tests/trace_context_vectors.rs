//! The test vectors of `resp-trace-context.md`, read from that page.

#![allow(clippy::disallowed_methods)]

use ferrite_conformance::process::Server;
use ferrite_conformance::wire::Connection;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/resp-trace-context.md");

#[derive(Debug)]
enum Step {
    Send(Vec<u8>),
    /// `None`: any byte.
    Reply(Vec<Option<u8>>),
    AnyReply,
    /// Trace id and parent; `None`: a new trace.
    Trace(Option<(String, String)>),
}

/// Name and steps of each vector.
fn vectors() -> Vec<(String, Vec<Step>)> {
    let page = std::fs::read_to_string(PAGE).expect("the page is there");
    let (_, sections) = page.split_once("\n## Test vectors\n").expect("the page has test vectors");
    let section = |text: &str| {
        let name = text.lines().next().expect("a heading").to_owned();
        let block = text.split("```").nth(1).unwrap_or_else(|| panic!("{name} has no block"));
        (name, steps(block))
    };
    sections.split("\n### ").skip(1).map(section).collect()
}

fn steps(block: &str) -> Vec<Step> {
    let mut lines: Vec<String> = Vec::new();
    for line in block.lines().filter(|line| !line.trim().is_empty()) {
        match line.starts_with(' ') {
            true => lines.last_mut().expect("a line before it").push_str(line),
            false => lines.push(line.to_owned()),
        }
    }
    let step = |line: &String| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let byte = |word: &&str| (*word != "??").then(|| u8::from_str_radix(word, 16).expect("two hexadecimal digits"));
        match words[..] {
            ["reply", "any"] => Step::AnyReply,
            ["trace", "new"] => Step::Trace(None),
            ["trace", id, parent] => Step::Trace(Some((id.to_owned(), parent.to_owned()))),
            ["send", ..] => Step::Send(words[1..].iter().map(|word| byte(word).expect("bytes to send")).collect()),
            ["reply", ..] => Step::Reply(words[1..].iter().map(byte).collect()),
            _ => panic!("{line}"),
        }
    };
    lines.iter().map(step).collect()
}

fn run(connection: &mut Connection, observer: &mut Connection, name: &str, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Send(bytes) => connection.send(bytes).expect("the server takes what is sent"),
            Step::AnyReply => drop(connection.reply().expect("a reply")),
            Step::Reply(expected) => {
                let got = connection.take(expected.len()).expect("a reply");
                let same =
                    got.iter().zip(expected).all(|(got, expected)| expected.is_none_or(|expected| *got == expected));
                assert!(same, "{name}: {} is not {expected:02x?}", got.escape_ascii());
            }
            Step::Trace(expected) => {
                let tree = observer.call(&["OTEL.TRACES", "LAST"]).expect("OTEL.TRACES answers");
                let tree = String::from_utf8(tree).expect("UTF-8");
                match expected {
                    Some((id, parent)) => {
                        assert!(tree.contains(&format!("trace {id}")), "{name}: {tree}");
                        assert!(tree.contains(&format!("parent: {parent}")), "{name}: {tree}");
                    }
                    None => assert!(!tree.contains("parent: "), "{name}: {tree}"),
                }
            }
        }
    }
    // Nothing more came.
    connection.send(b"*1\r\n$4\r\nPING\r\n").expect("the connection lives");
    let rest = connection.reply().expect("PING answers");
    assert_eq!(rest.escape_ascii().to_string(), "+PONG\\r\\n", "{name}");
}

#[test]
fn every_vector_of_the_page_holds() {
    let vectors = vectors();
    assert!(vectors.len() >= 14, "{}", vectors.len());
    let mut server = Server::ferrite(&["--workers", "1", "--telemetry.propagators", "tracecontext"]);
    let mut observer = server.connect();
    for (name, steps) in &vectors {
        run(&mut server.connect(), &mut observer, name, steps);
    }
    server.assert_sound();
}
