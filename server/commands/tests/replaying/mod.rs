//! A node's append-only file, and what is in it put into another node, for tests of replays.

use std::sync::Arc;

use ferrite_hybridlog::aof::{Aof, Effect, Rewriter, aof_task};
use ferrite_hybridlog::datadir::{DataDir, DataDirConfig, RecoveredAof, open_data_dir};
use ferrite_io::World;
use ferrite_io_real::RealWorld;
use ferrite_keyspace::{Keyspace, Lent};

use crate::harness::Node;

pub async fn replay(node: &mut Node, effect: Effect<'_>) -> Result<(), String> {
    loop {
        let result = {
            let mut pinned = node.worker.pin();
            let exclusive = pinned.exclusive();
            let lent = Lent {
                pinned: &exclusive,
                held: &node.held,
                trace: &mut node.trace,
                databases: &node.databases,
                aof: None,
                scratch: &mut node.scratch,
                now_ms: 0,
            };
            Keyspace::new(lent, 0).replay(effect)
        };
        match result {
            Ok(()) => break,
            Err(pause) => node.wait(pause, std::iter::empty()).await,
        }
    }
    node.held.clear();
    Ok(())
}

/// The append-only file of a new data directory, to which the node writes from now on.
pub async fn begin_aof(
    world: &RealWorld,
    config: &DataDirConfig,
    node: &mut Node,
) -> (DataDir<RealWorld>, Arc<Aof>, Rewriter<RealWorld>) {
    let opened = open_data_dir(world, config, async |_| Err("nothing is there yet")).await.expect("a data directory");
    let RecoveredAof { shared: aof, file, rewriter } = opened.aof.expect("an append-only file");
    node.aof = Some(aof.clone());
    world.spawn(aof_task(aof.clone(), world.clone(), file, |_| {}));
    (opened.dir, aof, rewriter)
}
