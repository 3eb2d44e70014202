//! The scenarios of compaction see the faults that are planted in it.

use std::sync::Mutex;

use ferrite_hybridlog::Planted;
use ferrite_sim::{Scenario, ScenarioFuture, run, scenarios};

/// What the next runs have, and of which scenario they are. The tests of this file run one after the other.
static PLANTED: Mutex<(Option<Planted>, &str)> = Mutex::new((None, ""));

fn with(fault: Planted, name: &'static str) -> Scenario {
    *PLANTED.lock().expect("nobody panics with it") = (Some(fault), name);
    Scenario {
        name: "compaction-with-a-fault",
        run: |sim| -> ScenarioFuture {
            let (fault, name) = *PLANTED.lock().expect("nobody panics with it");
            Planted::plant(fault);
            (scenarios::find(name).expect("it is there").run)(sim)
        },
        ..*scenarios::find(name).expect("it is there")
    }
}

/// Seeds that a fault may survive.
const SEEDS: u64 = 60;

/// The scenario that is there for it.
fn scenario_for(fault: Planted) -> &'static str {
    match fault {
        Planted::PinIsIgnored => "compaction-beside-checkpoints",
        Planted::UnseenIsForgotten => "compaction-slow-reads",
        _ => "compaction-faults",
    }
}

#[test]
fn planted_faults_of_compaction_are_caught() {
    let mut survived = Vec::new();
    for &fault in &Planted::OF_COMPACTION[2..] {
        let scenario = with(fault, scenario_for(fault));
        let caught = (0..SEEDS).find(|&seed| run(seed, &scenario).failure.is_some());
        match caught {
            Some(seed) => println!("{fault:?} is caught by {} with seed {seed}", scenario_for(fault)),
            None => survived.push(fault),
        }
    }
    assert!(survived.is_empty(), "nobody noticed {survived:?}");
}
