//! Every registered scenario.

mod aof;
mod checkpoint;
mod cold_writes;
pub mod compaction;
pub mod compaction_faults;
mod disk;
mod eviction;
mod expiry;
mod export;
mod faulty;
mod mortal;
pub mod node;
mod recovery_faults;
pub mod redis;
mod rotten;
mod scan;
mod shared;
mod slow_reads;
pub mod toy;
mod world;

use std::time::Duration;

use crate::runner::Scenario;

/// What has taken that long in virtual time will never be done. Much less is not enough: on a network that takes a byte at a
/// time and loses some, a pipeline of values larger than a page takes ten minutes.
const NO_PROGRESS: Duration = Duration::from_secs(3600);

/// The registry, in the order in which `cargo sim list` prints it.
pub const ALL: &[Scenario] = &[
    world::ECHO,
    world::FILES,
    world::FULL_DISK,
    toy::RANDOM_COMMANDS,
    toy::POWER_LOSS,
    toy::SHARED_KEYS,
    node::RANDOM_COMMANDS,
    node::TWO_WORKERS,
    node::POWER_LOSS,
    shared::SHARED_KEYS,
    expiry::EXPIRY,
    eviction::EVICTION,
    scan::BESIDE_GROWTH,
    disk::BAD_READS,
    disk::FULL,
    cold_writes::SHARED,
    cold_writes::BAD_READS,
    aof::FAILURE,
    checkpoint::CHECKPOINT,
    checkpoint::WITHOUT_AOF,
    checkpoint::DAMAGE,
    recovery_faults::RECOVERY,
    compaction::COMPACTION,
    compaction::BESIDE_CHECKPOINTS,
    compaction_faults::FAULTS,
    slow_reads::COMPACTION,
    export::EXPORT,
];

/// A scenario by its name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}
