//! The scenario of recovery sees the faults that are planted in it.

use std::sync::Mutex;

use ferrite_hybridlog::Planted;
use ferrite_sim::{Scenario, ScenarioFuture, run, scenarios};

/// What the next runs have.
static PLANTED: Mutex<Option<Planted>> = Mutex::new(None);

/// Seeds that a fault may survive.
const SEEDS: u64 = 150;

#[test]
fn planted_faults_of_recovery_are_caught() {
    let healthy = *scenarios::find("recovery-faults").expect("it is there");
    let faulty = Scenario {
        name: "recovery-with-a-fault",
        run: |sim| -> ScenarioFuture {
            Planted::plant(*PLANTED.lock().expect("nobody panics with it"));
            (scenarios::find("recovery-faults").expect("it is there").run)(sim)
        },
        ..healthy
    };
    let mut survived = Vec::new();
    for fault in Planted::OF_RECOVERY {
        *PLANTED.lock().expect("nobody panics with it") = Some(fault);
        match (0..SEEDS).find(|&seed| run(seed, &faulty).failure.is_some()) {
            Some(seed) => {
                println!("{fault:?} is caught with seed {seed}");
                run(seed, &healthy).expect_success();
            }
            None => survived.push(fault),
        }
    }
    assert!(survived.is_empty(), "nobody noticed {survived:?}");
}
