//! The simulated World on madsim: one seed, one history.
//!
//! [`run`] runs one seed of a [`Scenario`] on a thread of its own. The scenario makes [`Host`]s; a host's [`SimWorld`] is
//! what a server is generic over. Everything that happens goes into one event log, whose hash is equal for equal seeds
//! in every process: the first test of all.

#[cfg(not(madsim))]
compile_error!("the simulator needs `--cfg madsim`: .cargo/config.toml sets it, and RUSTFLAGS replaces it");

pub mod client;
mod cuts;
pub mod disk;
pub mod linear;
mod log;
pub mod model;
pub mod net;
mod plan;
pub mod resp;
mod rng;
mod runner;
pub mod scenarios;
pub mod server;
mod shrink;
mod sim;
mod world;

pub use cuts::{Cuts, Script};
pub use log::{Event, EventLog, IoKind, StableHasher};
pub use plan::FaultPlan;
pub use rng::SimRng;
pub use runner::{Failure, Report, Scenario, ScenarioFuture, run, run_with};
pub use shrink::{Smaller, shrink};
pub use sim::{Host, Sim};
pub use world::{SimClock, SimEntropy, SimWorld};
