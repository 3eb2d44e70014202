//! The log of the real server is compacted under load: nothing is lost, nothing comes back, and the disk space does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ferrite_io::{Entropy, World};
use ferrite_node::config::{AppendFsync, Config};
use redis::ProtocolVersion;

use super::node::workers;
use super::redis::{Load, random_commands};
use crate::client::RawClient;
use crate::plan::FaultPlan;
use crate::resp::Reply;
use crate::runner::{Scenario, ScenarioFuture};
use crate::server::{DATA, PAGE_BYTES, serve};
use crate::sim::{Host, Sim};

/// Random load, power losses, rewrites.
pub(super) const COMPACTION: Scenario = Scenario {
    name: "compaction",
    about: "a log that is compacted under random load and power losses loses nothing, and takes at most twice the data",
    faults: FaultPlan::without_disk_errors,
    marks: &[
        "server crashed",
        "a record was read from disk",
        "the log was compacted",
        "an old record was copied",
        "space was given back",
        "a large value was read from its extent",
        "a whole scan",
        "a rewrite was done",
        "the files take at most twice the data",
    ],
    run: |sim| -> ScenarioFuture {
        let load = Load { payload_max: 2500, saves: false, ..LOAD };
        Box::pin(random_commands(sim, |world, at| Box::pin(serve(world.clone(), configured(&world, at, 1))), load))
    },
};

/// The same with checkpoints, which keep what they need of the log's past.
pub(super) const BESIDE_CHECKPOINTS: Scenario = Scenario {
    name: "compaction-beside-checkpoints",
    about: "compaction leaves what checkpoints lead to, gives up the older one where it needs too much, and nothing is lost",
    marks: &[
        "server crashed",
        "a record was read from disk",
        "the log was compacted",
        "an old record was copied",
        "space was given back",
        "a checkpoint was taken",
        "a checkpoint was restored",
        "died in a checkpoint",
        "the newest checkpoint was damaged",
        "the files take at most twice the data",
    ],
    run: |sim| -> ScenarioFuture {
        // So that no value becomes an object: a checkpoint holds none.
        let load = Load { payload_max: 200, saves: true, ..LOAD };
        Box::pin(random_commands(sim, |world, at| Box::pin(serve(world.clone(), configured(&world, at, 4))), load))
    },
    ..COMPACTION
};

const LOAD: Load = Load {
    batches: 60,
    crashes: 4,
    protocol: ProtocolVersion::RESP3,
    payload_max: 200,
    keys: 80,
    rewrites: true,
    saves: false,
    sessions: true,
    compacts: true,
};

/// Per cent that the files may take beyond the data.
const GARBAGE: [u64; 3] = [10, 40, 100];

pub(super) fn configured(world: &crate::world::SimWorld, address: SocketAddr, pages: usize) -> Config {
    let drawn = world.entropy().next_u64();
    let mut config = workers(address, AppendFsync::Always, 1 + drawn as usize % 2);
    config.storage.page_size = (pages * PAGE_BYTES) as u64;
    config.storage.auto_compaction_min_size = 0;
    config.storage.auto_compaction_percentage = GARBAGE[(drawn >> 4) as usize % GARBAGE.len()];
    config.aof.segment_size = [2 << 10, 16 << 10, 1 << 20][(drawn >> 8) as usize % 3];
    config
}

/// What is waited for at most once nobody writes any more.
const PEACE: Duration = Duration::from_secs(240);
const LOOK: Duration = Duration::from_millis(250);
/// Pages of the log's file that are reserved ahead of its tail, and those of its memory that are in the file as well.
const AHEAD: u64 = 8 + 2;

/// Pages that the last checkpoints have closed, with next to nothing in them: a pass that was in vain is followed by another once the
/// log has grown by eight. Seed 192 beside checkpoints needs more than three, seed 74 more than four.
const CLOSED: u64 = 8;

/// Waits until the files take no more than twice the data, and what of the log is in memory; and that the disk agrees.
pub(super) async fn check_space(sim: &Sim, server: &Host, address: SocketAddr) {
    let (client, checks, disk) = (sim.add_host("space"), sim.clone(), server.clone());
    let task = client.spawn(move |world| async move {
        let mut client = super::expiry::connect(&world, address).await;
        let begun = checks.elapsed();
        loop {
            let info = info(&mut client).await;
            let page = info["page"];
            let in_memory = info["ferrite_mutable_bytes"] + info["ferrite_read_only_bytes"];
            // What a checkpoint keeps another one frees, which is asked for once nobody writes; each closes a page, and two are kept.
            let closed = if info["rdb_saves"] > 0 { CLOSED * page } else { 0 };
            let left = info["ferrite_quarantined_bytes"];
            let allowed = 2 * info["ferrite_live_bytes"] + in_memory + closed + left;
            if info["ferrite_file_bytes"] <= allowed {
                let space = disk.file_space(&format!("{DATA}/hybrid.log"));
                let most = info["ferrite_file_bytes"] + AHEAD * page + PAGE_BYTES as u64;
                assert!(space <= most, "the log takes {space} bytes of disk, and {info:?}");
                checks.sometimes("the files take at most twice the data");
                return;
            }
            assert!(checks.elapsed() - begun < PEACE, "the files take too much: {info:?}");
            madsim::time::sleep(LOOK).await;
        }
    });
    task.await.expect("the client's host stays up");
}

pub(super) async fn info(client: &mut RawClient) -> BTreeMap<String, u64> {
    let Ok(Reply::Bulk(text)) = client.command(&["INFO", "everything"]).await else {
        panic!("INFO answers a bulk string")
    };
    let text = String::from_utf8(text).expect("INFO is text");
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    let mut info: BTreeMap<String, u64> =
        fields.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect();
    info.insert("page".to_owned(), 4 * PAGE_BYTES as u64);
    info
}
