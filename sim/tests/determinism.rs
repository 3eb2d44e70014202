//! The first test of all: one seed gives one history, in this process and in another one.

use std::collections::BTreeSet;
use std::process::Command;

use ferrite_sim::{run, scenarios};

const SEEDS: u64 = 4;

#[test]
fn the_same_seed_gives_the_same_history_and_another_seed_another() {
    for scenario in scenarios::ALL {
        let mut hashes = BTreeSet::new();
        for seed in 0..SEEDS {
            let (first, second) = (run(seed, scenario), run(seed, scenario));
            first.expect_success();
            assert_eq!(first.last_events, second.last_events, "{} seed {seed}", scenario.name);
            assert_eq!(first.hash, second.hash, "{} seed {seed}", scenario.name);
            assert!(first.events > 10, "{} seed {seed} does something", scenario.name);
            hashes.insert(first.hash);
        }
        assert_eq!(hashes.len() as u64, SEEDS, "{}: every seed has a history of its own", scenario.name);
    }
}

#[test]
fn a_second_process_agrees() {
    for scenario in scenarios::ALL {
        // A seed before it, so that what a first run leaves in the process would show.
        run(1, scenario);
        let here = format!("{:016x}", run(2, scenario).hash);
        let mut program = Command::new(env!("CARGO_BIN_EXE_ferrite-sim"));
        let output = program.args(["hash", "--scenario", scenario.name, "--seed", "2"]).output();
        let there = output.expect("the simulator starts").stdout;
        assert_eq!(String::from_utf8_lossy(&there).trim(), here, "{}", scenario.name);
    }
}
