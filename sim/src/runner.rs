//! Runs one seed of one scenario on a thread of its own and reports what happened.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::Once;
use std::time::Duration;

use madsim::runtime::Runtime;

use crate::cuts::Cuts;
use crate::log::{Event, StableHasher};
use crate::plan::FaultPlan;
use crate::sim::Sim;

/// Virtual time after which a run has failed: something waits for ever while timers go on.
const VIRTUAL_TIME_MAX: Duration = Duration::from_secs(3600);
/// The server's futures are deep, and debug builds are generous with stack.
const STACK_BYTES: usize = 16 << 20;

/// What a scenario runs.
pub type ScenarioFuture = Pin<Box<dyn Future<Output = ()>>>;

/// A history to be simulated; it panics when an oracle disagrees.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    /// One line for `cargo sim list`.
    pub about: &'static str,
    /// Takes out of a drawn plan the faults that the scenario's oracle cannot tell from a bug.
    pub faults: fn(FaultPlan) -> FaultPlan,
    /// Marks ([`Sim::sometimes`]) that some seed of a `ci` or `swarm` run must reach.
    pub marks: &'static [&'static str],
    pub run: fn(Sim) -> ScenarioFuture,
}

/// Why a run failed and what came before.
#[derive(Clone, Debug)]
pub struct Failure {
    pub message: String,
    pub last_events: Vec<String>,
}

/// The outcome of one seed.
#[derive(Clone, Debug)]
pub struct Report {
    pub scenario: &'static str,
    pub seed: u64,
    pub plan: FaultPlan,
    /// The hash over every event: equal for equal seeds, in every process.
    pub hash: u64,
    pub events: u64,
    pub virtual_time: Duration,
    pub marks: BTreeMap<&'static str, u64>,
    /// Commands that were left out, and how many each client's generator has drawn.
    pub cuts: Cuts,
    pub drawn: BTreeMap<String, u64>,
    pub last_events: Vec<String>,
    /// What [`Sim::span`] was given, in order.
    pub spans: Vec<String>,
    pub failure: Option<Failure>,
}

impl Report {
    /// Panics with the whole report if the run failed: for tests.
    pub fn expect_success(&self) {
        assert!(self.failure.is_none(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, seed, plan, hash, events, .. } = self;
        let seconds = self.virtual_time.as_secs_f64();
        let verdict = if self.failure.is_some() { "FAILED" } else { "passed" };
        write!(f, "{scenario} seed {seed} {verdict}: {events} events, {seconds:.3} virtual s, hash {hash:016x}")?;
        let Some(failure) = &self.failure else {
            return Ok(());
        };
        write!(f, "\nfaults: {plan}\nlast events:")?;
        for event in &failure.last_events {
            write!(f, "\n{event}")?;
        }
        write!(f, "\n{}\nreplay: cargo sim replay --seed {seed} --scenario {scenario}", failure.message)
    }
}

thread_local! {
    /// The panic that ended this thread's simulation, with its place; `None` on other threads.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Collects the panics of simulations instead of printing them; others' go to the hook that was there.
fn install_panic_hook() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let ours = PANIC.with_borrow_mut(|slot| match slot {
                // The first panic is the cause; what follows happens while it is cleaned up.
                Some(text) if text.is_empty() => {
                    *text = info.to_string();
                    true
                }
                Some(_) => true,
                None => false,
            });
            if !ours {
                previous(info);
            }
        }));
    });
}

/// Runs `scenario` with `seed`; the plan is drawn from the seed and passed through the scenario's filter.
pub fn run(seed: u64, scenario: &Scenario) -> Report {
    let plan = (scenario.faults)(FaultPlan::draw(seed ^ StableHasher::of(scenario.name.as_bytes())));
    run_with(seed, scenario, plan, Cuts::default())
}

/// Runs `scenario` with `seed` and a given plan, without some of its commands: what shrinking tries.
pub fn run_with(seed: u64, scenario: &Scenario, plan: FaultPlan, cuts: Cuts) -> Report {
    install_panic_hook();
    let scenario = *scenario;
    let body = move || run_here(seed, &scenario, plan, cuts);
    let builder = std::thread::Builder::new().name(format!("{}-{seed}", scenario.name)).stack_size(STACK_BYTES);
    // A fresh thread: std's hash keys and every other thread-local start as the seed says.
    let thread = builder.spawn(body).expect("the system gives a thread");
    thread.join().expect("panics of a simulation are caught inside its thread")
}

fn run_here(seed: u64, scenario: &Scenario, plan: FaultPlan, cuts: Cuts) -> Report {
    PANIC.set(Some(String::new()));
    let mut runtime = Runtime::with_seed_and_config(seed, madsim::Config::default());
    runtime.set_time_limit(VIRTUAL_TIME_MAX);
    let made: RefCell<Option<Sim>> = RefCell::new(None);
    let history = async {
        let sim = Sim::new(seed, plan, cuts);
        *made.borrow_mut() = Some(sim.clone());
        (scenario.run)(sim.clone()).await;
        let scheduler = madsim::rand::RngCore::next_u64(&mut madsim::rand::thread_rng());
        sim.core.record(Event::End { scheduler });
        let report = report(&sim, scenario.name);
        sim.shut_down().await;
        report
    };
    let result = panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(history)));
    let sim = made.take().expect("the simulation is made before anything can fail");
    let report = match result {
        Ok(report) => report,
        Err(payload) => failed(report(&sim, scenario.name), payload),
    };
    drop(sim);
    // After a panic, what is left may panic again when it is dropped outside of its runtime.
    let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(runtime)));
    report
}

fn report(sim: &Sim, scenario: &'static str) -> Report {
    let (hash, events, last_events, spans) =
        sim.with_log(|log| (log.hash(), log.count(), log.last(), log.spans().to_vec()));
    Report {
        scenario,
        seed: sim.seed(),
        plan: sim.plan(),
        hash,
        events,
        virtual_time: sim.elapsed(),
        marks: sim.marks(),
        cuts: sim.core.cuts.clone(),
        drawn: sim.drawn(),
        last_events,
        spans,
        failure: None,
    }
}

fn failed(mut report: Report, payload: Box<dyn Any + Send>) -> Report {
    let mut message = PANIC.with_borrow(|slot| slot.clone().unwrap_or_default());
    if message.is_empty() {
        message = match payload.downcast_ref::<String>() {
            Some(text) => text.clone(),
            None => payload.downcast_ref::<&str>().unwrap_or(&"a panic without a text").to_string(),
        };
    }
    report.failure = Some(Failure { message, last_events: report.last_events.clone() });
    report
}
