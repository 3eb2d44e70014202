//! Random commands and power losses on the real server.

use std::net::SocketAddr;

use ferrite_io::{Entropy, World};
use ferrite_node::config::{AppendFsync, Config};
use redis::ProtocolVersion;

use super::redis::{Load, random_commands};
use crate::plan::FaultPlan;
use crate::runner::{Scenario, ScenarioFuture};
use crate::server::{config, serve, with_read_cache};

const LOAD: Load = Load {
    batches: 60,
    crashes: 0,
    protocol: ProtocolVersion::RESP2,
    // Some do not fit into a page. With much more, a batch takes minutes on a network of tiny buffers.
    payload_max: 6000,
    keys: 80,
    rewrites: false,
    saves: false,
    sessions: true,
    compacts: false,
};

/// Every reply and every value, in RESP2.
pub(super) const RANDOM_COMMANDS: Scenario = Scenario {
    name: "random-commands",
    about: "random commands of several clients against the model, RESP2, tiny regions",
    faults: FaultPlan::without_disk_errors,
    marks: &[
        "a page became read-only",
        "a record was read from disk",
        "a record was found in the read cache",
        "a whole scan",
        "a large value was read from its extent",
        "unanswered lost",
        "unanswered happened",
    ],
    run: |sim| -> ScenarioFuture {
        Box::pin(random_commands(
            sim,
            |world, at| {
                let config = with_read_cache(&world, config(at, AppendFsync::Everysec));
                Box::pin(serve(world, config))
            },
            LOAD,
        ))
    },
};

/// The same in RESP3, with two workers over one store.
pub(super) const TWO_WORKERS: Scenario = Scenario {
    name: "two-workers",
    about: "random commands of several clients against the model, RESP3, two workers",
    run: |sim| -> ScenarioFuture {
        let load = Load { protocol: ProtocolVersion::RESP3, ..LOAD };
        Box::pin(random_commands(
            sim,
            |world, at| {
                let config = with_read_cache(&world, workers(at, AppendFsync::No, 2));
                Box::pin(serve(world, config))
            },
            load,
        ))
    },
    ..RANDOM_COMMANDS
};

/// What was acknowledged under `always` survives every power loss.
pub(super) const POWER_LOSS: Scenario = Scenario {
    name: "power-loss",
    about: "power loss at any I/O, in rewrites too, loses nothing acknowledged under appendfsync always, one worker or two",
    faults: FaultPlan::without_disk_errors,
    marks: &[
        "server crashed",
        "a record was read from disk",
        "a large value was written to its extent",
        "unanswered lost",
        "unanswered happened",
        "a rewrite was done",
        "a rewrite was recorded",
        "died in a rewrite",
        "died in a change of the manifest",
        "died with a base",
        "died with several segments",
    ],
    run: |sim| -> ScenarioFuture {
        // Large keys, hashes and what APPEND makes are beyond a page; longer payloads would have a slow network take the time.
        let load = Load { batches: 40, crashes: 4, rewrites: true, payload_max: 2500, ..LOAD };
        Box::pin(random_commands(
            sim,
            |world, at| {
                let drawn = world.entropy().next_u64();
                let mut config = workers(at, AppendFsync::Always, 1 + drawn as usize % 2);
                // From a segment for every few commands to one for all.
                config.aof.segment_size = [2 << 10, 16 << 10, 1 << 20][(drawn >> 8) as usize % 3];
                let config = with_read_cache(&world, config);
                Box::pin(serve(world, config))
            },
            load,
        ))
    },
};

/// A mistake in the server's configuration that the crash scenario must catch: nobody waits for the disk.
pub const POWER_LOSS_WITHOUT_SYNC: Scenario = Scenario {
    name: "power-loss-without-sync",
    run: |sim| -> ScenarioFuture {
        let load = Load { batches: 40, crashes: 4, ..LOAD };
        Box::pin(random_commands(sim, |world, at| Box::pin(serve(world, config(at, AppendFsync::No))), load))
    },
    ..POWER_LOSS
};

pub(super) fn workers(address: SocketAddr, appendfsync: AppendFsync, count: usize) -> Config {
    let mut config = config(address, appendfsync);
    config.server.workers = count;
    config
}
