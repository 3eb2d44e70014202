//! `traceidratio` decides as the Go and the Python SDK do: both are asked about the same ids.

#![allow(clippy::disallowed_methods)]

use std::io::Write;
use std::process::{Command, Stdio};

use ferrite_telemetry::{Probability, Sampling, TraceId};

/// What the SDK behind `command` says about each question.
fn answers(mut command: Command, questions: &[(f64, TraceId)]) -> Vec<bool> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the peer starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    let lines: String = questions.iter().map(|(ratio, id)| format!("{ratio} {id}\n")).collect();
    // On a thread: both pipes may fill.
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()).expect("the peer reads"));
    let output = child.wait_with_output().expect("the peer ends");
    writer.join().expect("it was written");
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(|line| line == "1").collect()
}

fn peer(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: `ci/setup` makes the peer, `ci/test peers` sets it"))
}

/// Random ids, and for every ratio those around its bound.
fn questions() -> Vec<(f64, TraceId)> {
    let mut state = 0x9e37_79b9_7f4a_7c15u128;
    let mut random = || {
        // PCG's multiplier for 128 bits.
        state = state.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(1);
        state ^ state >> 61
    };
    let ratios = [0.0, 0.001, 0.01, 0.1, 0.25, 1.0 / 3.0, 0.5, 0.75, 0.999, 1.0];
    let mut questions = Vec::new();
    for ratio in ratios {
        let bound = (ratio * (1u64 << 63) as f64) as u128;
        for near in [bound.saturating_sub(2), bound.saturating_sub(1), bound, bound + 1, bound + 2] {
            let low = (near << 1) as u64;
            questions.push((ratio, TraceId(random() << 64 | u128::from(low) | 1 << 127)));
        }
        questions.extend((0..2000).map(|_| (ratio, TraceId(random() | 1))));
    }
    questions
}

#[test]
fn ratios_decide_as_the_go_and_the_python_sdk_do() {
    let questions = questions();
    let ours: Vec<bool> = questions
        .iter()
        .map(|(ratio, id)| Sampling::by_head(Probability::Ratio(*ratio), false).policy().chooses(*id, None).is_some())
        .collect();
    let mut python = Command::new(peer("FERRITE_PYTHON"));
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/sampler.py")).env("PYTHONDONTWRITEBYTECODE", "1");
    let go = Command::new(peer("FERRITE_GO_SAMPLER"));
    for (name, theirs) in [("Python", answers(python, &questions)), ("Go", answers(go, &questions))] {
        assert_eq!(theirs.len(), questions.len(), "{name}");
        let different: Vec<_> = (0..questions.len()).filter(|n| ours[*n] != theirs[*n]).map(|n| questions[n]).collect();
        assert!(different.is_empty(), "{name} decides otherwise about {different:?}");
    }
    // Both answers occur.
    assert!(ours.iter().filter(|chosen| **chosen).count().abs_diff(questions.len() / 2) < questions.len() / 4);
}
