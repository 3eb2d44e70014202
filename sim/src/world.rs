//! The simulated World: clock and entropy; network and disk are modules of their own.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ferrite_io::{Clock, Entropy, World};
use madsim::time::TimeHandle;

use crate::disk::SimDisk;
use crate::net::SimNet;
use crate::rng::SimRng;
use crate::sim::{Core, HostState, Sim, lock};

/// 2026-01-01 00:00:00 UTC, in nanoseconds since the Unix epoch: where wall clocks start.
const WALL_START_NS: i64 = 1_767_225_600_000_000_000;
/// Where monotonic clocks start: not at 0, so that "no time yet" and "the first instant" differ.
const MONOTONIC_START_NS: u64 = 1_000_000_000;

/// The outside as one process of a [`crate::Host`] sees it. Every clone is the same worker's or another's of the same
/// process: all workers share one thread.
#[derive(Clone)]
pub struct SimWorld {
    network: SimNet,
    disk: SimDisk,
    clock: SimClock,
    entropy: SimEntropy,
}

impl SimWorld {
    pub(crate) fn new(core: Arc<Core>, host: Arc<HostState>, life: u64) -> Self {
        Self {
            network: SimNet::new(core.clone(), host.clone(), life),
            disk: SimDisk::new(core.clone(), host.clone(), life),
            clock: SimClock { core, host: host.clone() },
            entropy: SimEntropy { host },
        }
    }

    /// The simulation that this world is part of.
    pub(crate) fn sim(&self) -> Sim {
        Sim { core: self.clock.core.clone() }
    }
}

impl World for SimWorld {
    type Network = SimNet;
    type Disk = SimDisk;
    type Clock = SimClock;
    type Entropy = SimEntropy;

    fn network(&self) -> &SimNet {
        &self.network
    }

    fn disk(&self) -> &SimDisk {
        &self.disk
    }

    fn clock(&self) -> &SimClock {
        &self.clock
    }

    fn entropy(&self) -> &SimEntropy {
        &self.entropy
    }

    /// Runs `task` on this world's host, so that a power loss ends it. Only tasks of the same host may call it.
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        assert_eq!(madsim::plugin::node(), self.clock.host.node, "a world stays on its host");
        madsim::task::spawn_local(task);
    }

    /// At once: nothing here takes time by itself.
    fn elsewhere() -> ferrite_io::Elsewhere {
        |job| job()
    }
}

/// Virtual time. The scheduler lets every poll of a task take 50 to 100 ns; a sleep takes at least 1 ms.
#[derive(Clone)]
pub struct SimClock {
    core: Arc<Core>,
    host: Arc<HostState>,
}

impl Clock for SimClock {
    fn monotonic_source() -> fn() -> u64 {
        // madsim keeps the time of the running simulation in a thread-local. What is dropped after its end has none.
        || MONOTONIC_START_NS + TimeHandle::try_current().map_or(0, |time| time.elapsed().as_nanos() as u64)
    }

    fn unix_ns(&self) -> u64 {
        let elapsed = self.core.now_ns() as i64;
        let drift = elapsed / 1_000_000 * self.host.drift_ppm;
        let wall = WALL_START_NS + elapsed + drift + self.host.wall_offset_ns.load(Ordering::Relaxed);
        wall.max(0) as u64
    }

    async fn sleep(&self, duration: Duration) {
        madsim::time::sleep(duration).await;
    }
}

/// Random numbers that go on, and do not start again, when a host boots.
#[derive(Clone)]
pub struct SimEntropy {
    host: Arc<HostState>,
}

impl Entropy for SimEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        lock(&self.host.entropy).fill(bytes);
    }
}

/// How long something outside the processes takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Latency {
    /// A number of turns of the scheduler, some 100 ns each: what is shorter than the shortest sleep.
    Turns(u64),
    Sleep(Duration),
}

impl Latency {
    /// Mostly below a microsecond; one in eight waits takes milliseconds, so that everything else overtakes it.
    pub(crate) fn draw(rng: &mut SimRng) -> Self {
        if rng.one_in(8) {
            Self::Sleep(Duration::from_micros(rng.between(1000, 3000)))
        } else {
            Self::Turns(rng.below(6))
        }
    }

    pub(crate) async fn wait(self) {
        match self {
            Self::Turns(turns) => {
                for _ in 0..turns {
                    madsim::task::yield_now().await;
                }
            }
            Self::Sleep(duration) => madsim::time::sleep(duration).await,
        }
    }
}
