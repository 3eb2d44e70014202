//! Makes a failure smaller: first the classes of faults, then the commands without which it fails at the same place.

use crate::cuts::Cuts;
use crate::plan::FaultPlan;
use crate::runner::{Report, Scenario, run_with};

/// Runs that are tried at most: a seed takes up to some seconds.
const RUNS_MAX: u32 = 300;

/// What is left of a failure.
#[derive(Clone, Debug)]
pub struct Smaller {
    pub plan: FaultPlan,
    pub cuts: Cuts,
    pub report: Report,
}

/// Switches off every class of faults, and leaves out every run of commands, without which the failure of `report` happens
/// all the same. `None` if it is none.
pub fn shrink(scenario: &Scenario, report: &Report) -> Option<Smaller> {
    let place = place(report)?.to_owned();
    let mut left = RUNS_MAX;
    let mut best = Smaller { plan: report.plan, cuts: report.cuts.clone(), report: report.clone() };
    let mut try_with = |best: &mut Smaller, plan: FaultPlan, cuts: Cuts| {
        if left == 0 {
            return false;
        }
        left -= 1;
        let report = run_with(report.seed, scenario, plan, cuts.clone());
        let fails = self::place(&report) == Some(&place);
        if fails {
            *best = Smaller { plan, cuts, report };
        }
        fails
    };
    for class in report.plan.names() {
        let mut plan = best.plan;
        plan.set(class, false);
        let cuts = best.cuts.clone();
        try_with(&mut best, plan, cuts);
    }
    // Halves, then quarters, and so on (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002).
    for (name, count) in best.report.drawn.clone() {
        let mut size = count;
        while size > 0 {
            for start in (0..count).step_by(size as usize) {
                let numbers = start..(start + size).min(count);
                if !numbers.clone().all(|number| best.cuts.has(&name, number)) {
                    let (plan, cuts) = (best.plan, best.cuts.with(&name, numbers));
                    try_with(&mut best, plan, cuts);
                }
            }
            size /= 2;
        }
    }
    Some(best)
}

/// Where it panicked: the failure is the same if this is.
fn place(report: &Report) -> Option<&str> {
    report.failure.as_ref()?.message.lines().next()
}
