//! Compaction overtakes reads: what a write has replaced without a look stays until somebody has looked, however long the disk
//! takes for that.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::NO_PROGRESS;
use super::compaction::{check_space, configured, info};
use crate::client::RawClient;
use crate::disk::ReadFault;
use crate::plan::FaultPlan;
use crate::resp::Reply;
use crate::rng::SimRng;
use crate::runner::{Scenario, ScenarioFuture};
use crate::server::{PAGE_BYTES, serve};
use crate::sim::{Host, Sim};

/// The looks are slow, and the log is compacted meanwhile.
pub(super) const COMPACTION: Scenario = Scenario {
    name: "compaction-slow-reads",
    about: "compaction waits for looks that it has overtaken: keys are counted right, and no extent is forgotten",
    faults: |plan| FaultPlan { clock_jump: false, ..plan.without_disk_errors().with_quiet_network() },
    marks: &[
        "a write had not seen what it replaced",
        "what a write had replaced was found",
        "a large value was written to its extent",
        "the log was compacted",
        "space was given back",
        "compaction waited for a look",
    ],
    run: |sim| -> ScenarioFuture { Box::pin(slow(sim)) },
};

/// What many times the regions hold.
const KEYS: u64 = 120;
const ROUNDS: u64 = 10;
/// Of the keys written longest ago, which lie where compaction begins, so many are overwritten while reads are slow.
const BLIND_MAX: u64 = 3;
/// Then so many others, to make garbage.
const OTHERS_MAX: u64 = 40;
const SLOW_MAX: Duration = Duration::from_secs(20);

async fn slow(sim: Sim) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    server.spawn(move |world| async move { serve(world.clone(), configured(&world, address, 1)).await });
    let mut writer = Writer {
        sim: sim.clone(),
        server: server.clone(),
        rng: sim.rng("writer"),
        model: BTreeMap::new(),
        oldest: Vec::new(),
        writes: 0,
    };
    let task = sim.add_host("client").spawn(move |world| async move {
        let mut client = RawClient::connect_when_up(&world, address).await;
        writer.run(&mut client).await;
    });
    let done = madsim::time::timeout(NO_PROGRESS, task).await;
    done.expect("every command is answered").expect("the client's host stays up");
    assert!(server.is_up());
    // Who has found what a write replaced has freed its extent.
    sim.stop_faults();
    check_space(&sim, &server, address).await;
}

struct Writer {
    sim: Sim,
    server: Host,
    rng: SimRng,
    model: BTreeMap<u64, String>,
    /// The keys in the order of their last writes.
    oldest: Vec<u64>,
    writes: u64,
}

impl Writer {
    async fn run(&mut self, client: &mut RawClient) {
        for key in 0..KEYS {
            self.set(client, key).await;
        }
        for _ in 0..ROUNDS {
            self.round(client).await;
        }
        for (key, value) in &self.model {
            let found = client.command(&["GET", &name(*key)]).await.expect("answers");
            assert_eq!(found, Reply::Bulk(value.clone().into_bytes()), "{key}");
        }
    }

    /// Overwrites some of the oldest keys while the next reads are slow, and others, until compaction has passed them.
    async fn round(&mut self, client: &mut RawClient) {
        let compactions = info(client).await["ferrite_compactions"];
        let count = self.rng.between(1, BLIND_MAX);
        let slow =
            |rng: &mut SimRng| ReadFault::Slow(Duration::from_millis(rng.between(1, SLOW_MAX.as_millis() as u64)));
        let aims: Vec<_> = (0..count).map(|number| (number, slow(&mut self.rng))).collect();
        self.server.aim_disk_reads(aims);
        for _ in 0..count {
            let key = self.oldest[self.rng.below(4) as usize];
            self.set(client, key).await;
        }
        for _ in 0..self.rng.between(1, OTHERS_MAX) {
            let key = self.oldest[self.rng.below(KEYS / 2) as usize];
            self.set(client, key).await;
        }
        if self.rng.one_in(2) {
            let pending = info(client).await["ferrite_unseen_writes_pending"];
            self.sim.sleep(Duration::from_millis(self.rng.between(1, 3000))).await;
            let info = info(client).await;
            if pending > 0 && info["ferrite_unseen_writes_pending"] > 0 && info["ferrite_compaction_in_progress"] == 1 {
                self.sim.sometimes("compaction waited for a look");
            }
        }
        let counted = client.ask("DBSIZE").await;
        assert_eq!(counted, Reply::Int(KEYS as i64), "after {compactions} compactions");
    }

    async fn set(&mut self, client: &mut RawClient, key: u64) {
        self.writes += 1;
        let len = match self.rng.below(8) {
            // In an extent.
            0 => self.rng.between(PAGE_BYTES as u64, 2 * PAGE_BYTES as u64),
            _ => self.rng.between(300, 900),
        };
        let value = format!("{}:{}", self.writes, "v".repeat(len as usize));
        let reply = client.command(&["SET", &name(key), &value]).await.expect("answers");
        assert_eq!(reply, Reply::ok());
        self.model.insert(key, value);
        self.oldest.retain(|&other| other != key);
        self.oldest.push(key);
    }
}

fn name(key: u64) -> String {
    format!("key:{key}")
}
