//! `cargo sim`: lists, runs and replays scenarios; `swarm` searches, `ci` is the gate.
#![allow(clippy::disallowed_methods, reason = "the tool itself runs outside of the simulation and measures real time")]

use std::collections::BTreeMap;
use std::num::NonZero;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use ferrite_sim::{Cuts, FaultPlan, Report, Scenario, Smaller, run, run_with, scenarios, shrink};

/// Deterministic simulation of Ferrite: one seed, one history.
#[derive(Parser)]
#[command(name = "sim")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Lists the scenarios.
    List,
    /// Runs one seed and prints its verdict.
    Run(One),
    /// Runs one seed twice, compares both histories and prints the last events; of a failure also what is left when faults
    /// and commands are taken away without which it fails all the same.
    Replay {
        #[command(flatten)]
        one: One,
        /// These faults instead of the drawn ones, separated by blanks.
        #[arg(long)]
        faults: Option<String>,
        /// Commands to leave out, as a shrunk failure names them.
        #[arg(long, default_value = "")]
        without: String,
    },
    /// Prints the hash of one seed's history: what another process compares itself with.
    Hash(One),
    /// Runs new seeds of every scenario for a time and prints a scoreboard.
    Swarm {
        #[arg(long)]
        minutes: u64,
        /// Where the seeds start; a time is a good choice for a run by night.
        #[arg(long, default_value_t = 0)]
        first_seed: u64,
        /// Only this scenario.
        #[arg(long)]
        scenario: Option<String>,
    },
    /// Every scenario for a number of seeds, each mark reached, and one seed in a second process.
    Ci {
        #[arg(long, default_value_t = 200)]
        seeds: u64,
    },
}

#[derive(clap::Args)]
struct One {
    #[arg(long)]
    scenario: String,
    #[arg(long)]
    seed: u64,
}

impl One {
    fn scenario(&self) -> Result<&'static Scenario, String> {
        find(&self.scenario)
    }
}

fn find(name: &str) -> Result<&'static Scenario, String> {
    scenarios::find(name).ok_or_else(|| format!("no scenario is named {name}: see `cargo sim list`"))
}

fn main() -> ExitCode {
    match act(Arguments::parse().action) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn act(action: Action) -> Result<(), String> {
    match action {
        Action::List => {
            for scenario in scenarios::ALL {
                println!("{:24} {}", scenario.name, scenario.about);
            }
            Ok(())
        }
        Action::Run(one) => verdict(&run(one.seed, one.scenario()?)),
        Action::Replay { one, faults, without } => {
            replay(one.seed, one.scenario()?, faults.as_deref(), without.parse()?)
        }
        Action::Hash(one) => {
            let report = run(one.seed, one.scenario()?);
            println!("{:016x}", report.hash);
            Ok(())
        }
        Action::Swarm { minutes, first_seed, scenario } => {
            let chosen = scenario.as_deref().map(find).transpose()?;
            swarm(Duration::from_secs(60 * minutes), first_seed, chosen)
        }
        Action::Ci { seeds } => ci(seeds),
    }
}

fn verdict(report: &Report) -> Result<(), String> {
    if report.failure.is_some() {
        return Err(report.to_string());
    }
    println!("{report}");
    Ok(())
}

fn replay(seed: u64, scenario: &Scenario, faults: Option<&str>, cuts: Cuts) -> Result<(), String> {
    let plan = faults.map_or_else(|| Ok(run(seed, scenario).plan), plan_of)?;
    let run_again = || run_with(seed, scenario, plan, cuts.clone());
    let (first, second) = (run_again(), run_again());
    println!("faults: {}", first.plan);
    for event in &first.last_events {
        println!("{event}");
    }
    if first.hash != second.hash {
        return Err(format!("not deterministic: {:016x} and {:016x}", first.hash, second.hash));
    }
    if let Some(Smaller { plan, cuts, report }) = shrink(scenario, &first) {
        let drawn: u64 = report.drawn.values().sum();
        println!("still fails with {plan}, and with {} of {drawn} commands:", drawn.saturating_sub(cuts.len() as u64));
        println!("{}", report.failure.map_or_else(String::new, |failure| failure.message));
        let (scenario, faults) = (scenario.name, plan.names().join(" "));
        println!(
            "the smaller one: cargo sim replay --seed {seed} --scenario {scenario} --faults \"{faults}\" --without \"{cuts}\""
        );
    }
    verdict(&first)
}

/// The plan of these classes, separated by blanks.
fn plan_of(names: &str) -> Result<FaultPlan, String> {
    let mut plan = FaultPlan::none();
    for name in names.split_whitespace() {
        if !plan.set(name, true) {
            return Err(format!("no class of faults is named {name}: there are {}", FaultPlan::all()));
        }
    }
    Ok(plan)
}

/// What a number of seeds of one scenario came to.
#[derive(Default)]
struct Score {
    seeds: u64,
    failed: Vec<u64>,
    events: u64,
    virtual_time: Duration,
    real_time: Duration,
    marks: BTreeMap<&'static str, u64>,
}

impl Score {
    /// Of the seeds below `seeds`, as many at a time as there are cores: each has a thread and a history of its own.
    fn of(scenario: &Scenario, seeds: u64) -> Self {
        let (next, score) = (AtomicU64::new(0), Mutex::new(Score::default()));
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds {
                            return;
                        }
                        let start = Instant::now();
                        let report = run(seed, scenario);
                        score.lock().expect("no seed panics").add(&report, start.elapsed());
                    }
                });
            }
        });
        let mut score = score.into_inner().expect("no seed panics");
        score.failed.sort_unstable();
        score
    }

    fn add(&mut self, report: &Report, real_time: Duration) {
        self.real_time += real_time;
        self.seeds += 1;
        self.events += report.events;
        self.virtual_time += report.virtual_time;
        for (mark, count) in &report.marks {
            *self.marks.entry(mark).or_default() += count;
        }
        if report.failure.is_some() {
            eprintln!("{report}");
            self.failed.push(report.seed);
        }
    }

    /// Prints one line and the marks; what went wrong.
    fn print(&self, scenario: &Scenario) -> Vec<String> {
        let per_seed = self.real_time.as_secs_f64() * 1000.0 / self.seeds.max(1) as f64;
        println!(
            "{:24} {:>7} seeds {:>5} failed {:>11} events {:>9.0} virtual s {per_seed:>7.1} ms a seed",
            scenario.name,
            self.seeds,
            self.failed.len(),
            self.events,
            self.virtual_time.as_secs_f64(),
        );
        let mut wrong: Vec<String> =
            self.failed.iter().map(|seed| format!("{} failed with seed {seed}", scenario.name)).collect();
        for mark in scenario.marks {
            let count = self.marks.get(mark).copied().unwrap_or(0);
            println!("    {mark:30} {count:>9}");
            if count == 0 && self.seeds > 0 {
                wrong.push(format!("{} never reached \"{mark}\"", scenario.name));
            }
        }
        wrong
    }
}

fn swarm(budget: Duration, first_seed: u64, only: Option<&'static Scenario>) -> Result<(), String> {
    let chosen: Vec<&Scenario> = match only {
        Some(scenario) => vec![scenario],
        None => scenarios::ALL.iter().collect(),
    };
    let mut scores: Vec<Score> = chosen.iter().map(|_| Score::default()).collect();
    let start = Instant::now();
    let mut seed = first_seed;
    while start.elapsed() < budget {
        for (score, scenario) in scores.iter_mut().zip(&chosen) {
            let begun = Instant::now();
            score.add(&run(seed, scenario), begun.elapsed());
        }
        seed = seed.wrapping_add(1);
    }
    let wrong: Vec<String> = scores.iter().zip(&chosen).flat_map(|(score, scenario)| score.print(scenario)).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn ci(seeds: u64) -> Result<(), String> {
    let mut wrong = Vec::new();
    for scenario in scenarios::ALL {
        wrong.extend(Score::of(scenario, seeds).print(scenario));
        // The last seed in this process, where everything global has been used, and the first thing in another one.
        let seed = seeds.saturating_sub(1);
        let here = format!("{:016x}", run(seed, scenario).hash);
        let there = hash_in_another_process(scenario, seed)?;
        if here != there {
            wrong.push(format!("{} seed {seed}: {here} here, {there} in another process", scenario.name));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn hash_in_another_process(scenario: &Scenario, seed: u64) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
    let seed = seed.to_string();
    let output = Command::new(program).args(["hash", "--scenario", scenario.name, "--seed", &seed]).output();
    let output = output.map_err(|error| format!("a second process cannot be started: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}
