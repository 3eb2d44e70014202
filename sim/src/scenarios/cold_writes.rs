//! Writes of keys that lie on disk: they do not read what they replace, and what is counted must be right all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ferrite_node::config::AppendFsync;

use super::NO_PROGRESS;
use super::node::workers;
use super::redis::operator;
use crate::client::{Client, RawClient};
use crate::cuts::Script;
use crate::linear::History;
use crate::model::Command;
use crate::plan::FaultPlan;
use crate::resp::Reply;
use crate::rng::SimRng;
use crate::runner::{Scenario, ScenarioFuture};
use crate::server::{config, start, watch, with_read_cache};
use crate::sim::{Host, Sim, lock};
use crate::world::SimWorld;

/// Several clients, slow reads, power losses, checkpoints.
pub(super) const SHARED: Scenario = Scenario {
    name: "cold-writes",
    about: "writes of keys on disk beside DBSIZE fit into one order, checkpoints and power losses included",
    // Bytes one by one would cost time without meeting the disk.
    faults: |plan| plan.without_disk_errors().with_quiet_network(),
    marks: &[
        "a write had not seen what it replaced",
        "what a write had replaced was found",
        "keys were counted while a write had not seen what it replaced",
        "server crashed",
        "a checkpoint was restored",
    ],
    run: |sim| -> ScenarioFuture { Box::pin(shared(sim)) },
};

/// One client, reads that fail for a while.
pub(super) const BAD_READS: Scenario = Scenario {
    name: "cold-writes-bad-reads",
    about: "what cannot be read delays DBSIZE or is its error, never a wrong number, and no write notices",
    faults: |plan| FaultPlan {
        disk_read_error: true,
        disk_bit_rot: plan.disk_bit_rot,
        ..plan.without_disk_errors().with_quiet_network()
    },
    marks: &[
        "what a write had replaced could not be read",
        "what a write had replaced was found",
        "keys could not be counted",
        "keys were counted",
    ],
    run: |sim| -> ScenarioFuture { Box::pin(bad_reads(sim)) },
};

/// Keys that the clients share: few and short, since the oracle keeps many states of them.
const SHARED_KEYS: u64 = 30;
const COMMANDS: u32 = 150;
/// The longest pipeline. Each command in it that is lost doubles what may have happened.
const PIPELINE_MAX: u64 = 3;
/// Long values beside them push them to disk: twice what the two regions hold, again and again.
const FILLERS: u64 = 80;
/// Keys of the one client: four times what the two regions hold.
const KEYS: u64 = 160;
/// The clients may have finished before as many I/Os as a power loss waits for.
const CRASH_WITHIN: Duration = Duration::from_secs(1);

async fn shared(sim: Sim) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    let mut rng = sim.rng("cold writes");
    let (count, most) = (1 + rng.below(2) as usize, *rng.pick(&[1, 4, 64, 100_000]));
    let boot = move |server: &Host| {
        server.spawn(move |world| async move {
            let config = with_read_cache(&world, workers(address, AppendFsync::Always, count));
            let starting = start(&world, config);
            starting.node.databases.unseen.set_max(most);
            watch(world, starting).await;
        });
    };
    boot(&server);
    let history = Arc::new(Mutex::new(History::default()));
    let clients = rng.between(1, 2);
    let mut tasks = Vec::new();
    for number in 0..=clients {
        let host = sim.add_host(&format!("client {number}"));
        let mut client = Writer {
            sim: sim.clone(),
            address,
            number,
            rng: sim.rng(&format!("client {number}")),
            script: sim.script(&format!("client {number}")),
            history: history.clone(),
            connections: 0,
            values: 0,
        };
        if number == 0 {
            // Before the others begin.
            let filled = host.spawn(move |world| async move { client.fill(&world).await });
            filled.await.expect("no power loss is planned yet");
            continue;
        }
        tasks.push(host.spawn(move |world| async move { client.run(&world).await }));
    }
    let filler = filler(&sim, address);
    let saver = rng.one_in(2).then(|| operator(&sim, address, &["BGSAVE", "SAVE"], 200));
    for _ in 0..rng.below(3) {
        server.power_loss_at_io(rng.between(1, 300));
        if madsim::time::timeout(CRASH_WITHIN, server.died()).await.is_err() {
            server.power_loss();
        }
        sim.sometimes("server crashed");
        sim.sleep(Duration::from_millis(rng.between(1, 200))).await;
        server.boot();
        boot(&server);
    }
    for task in tasks {
        let done = madsim::time::timeout(NO_PROGRESS, task).await;
        done.expect("clients make progress").expect("client hosts stay up");
    }
    if let Some(saver) = saver {
        saver.kill();
    }
    filler.kill();
    lock(&history).check().unwrap_or_else(|why| panic!("{why}"));
}

/// Overwrites long values in another database for as long as it lives, which are counted too.
fn filler(sim: &Sim, address: SocketAddr) -> Host {
    let host = sim.add_host("filler");
    let mut rng = sim.rng("filler");
    host.spawn(move |world| async move {
        let mut written = BTreeSet::new();
        loop {
            let Ok(mut client) = RawClient::connect(&world, address).await else {
                madsim::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let selected = client.command(&["SELECT", "1"]).await;
            // A connection lost is another one made.
            while selected.is_ok() {
                let (key, value) =
                    (format!("filler:{}", rng.below(FILLERS)), "f".repeat(rng.between(300, 900) as usize));
                let Ok(reply) = client.command(&["SET", &key, &value]).await else { break };
                assert_eq!(reply, Reply::ok());
                written.insert(key);
                if rng.one_in(40) {
                    let Ok(counted) = client.command(&["DBSIZE"]).await else { break };
                    let Reply::Int(counted) = counted else { panic!("DBSIZE was answered with {counted:?}") };
                    // What was lost half-way may be there.
                    assert!((0..=FILLERS as i64).contains(&(counted - written.len() as i64)), "{counted}");
                }
            }
        }
    });
    host
}

/// One of several clients. A command that was lost may have happened: so few are under way at a time.
struct Writer {
    sim: Sim,
    address: SocketAddr,
    number: u64,
    rng: SimRng,
    script: Script,
    history: Arc<Mutex<History>>,
    connections: usize,
    values: u64,
}

impl Writer {
    async fn fill(&mut self, world: &SimWorld) {
        let mut client = self.connect(world).await;
        for key in 0..SHARED_KEYS {
            let command = self.set(&format!("key:{key}"));
            self.send(&mut client, &[command]).await.expect("no power loss is planned yet");
        }
        self.over();
    }

    async fn run(&mut self, world: &SimWorld) {
        let mut left = COMMANDS;
        'connections: while left > 0 {
            let mut client = self.connect(world).await;
            while left > 0 {
                left -= 1;
                let batch = self.batch();
                if !self.script.keeps_next() {
                    continue;
                }
                if self.send(&mut client, &batch).await.is_err() {
                    // The server died: nothing of it goes on.
                    self.over();
                    continue 'connections;
                }
                if self.rng.one_in(3) {
                    self.sim.sleep(Duration::from_millis(self.rng.between(1, 4))).await;
                }
            }
            self.over();
        }
    }

    async fn connect(&mut self, world: &SimWorld) -> Client {
        self.connections += 1;
        loop {
            match RawClient::connect(world, self.address).await {
                Ok(client) => return Client::Raw(client),
                // It starts, or recovers.
                Err(_) => self.sim.sleep(Duration::from_millis(self.rng.between(1, 50))).await,
            }
        }
    }

    /// This connection's number in the history.
    fn connection(&self) -> usize {
        self.number as usize * 1000 + self.connections
    }

    fn over(&self) {
        lock(&self.history).over(self.connection());
    }

    async fn send(&mut self, client: &mut Client, batch: &[Command]) -> std::io::Result<()> {
        let connection = self.connection();
        for command in batch {
            lock(&self.history).sent(connection, command.clone());
        }
        let history = self.history.clone();
        let sent = client.pipeline(batch, |reply| lock(&history).answered(connection, &reply));
        madsim::time::timeout(NO_PROGRESS, sent).await.expect("every command is answered, or its connection lost")
    }

    fn batch(&mut self) -> Vec<Command> {
        if self.rng.one_in(12) {
            let mut batch = vec![words("MULTI")];
            batch.extend((0..self.rng.between(1, 3)).map(|_| self.command()));
            batch.extend([words("DBSIZE"), words("EXEC")]);
            return batch;
        }
        let count = if self.rng.one_in(2) { 1 } else { self.rng.between(1, PIPELINE_MAX) };
        (0..count).map(|_| self.command()).collect()
    }

    fn command(&mut self) -> Command {
        let key = self.key();
        match self.rng.below(20) {
            0..=7 => self.set(&key),
            8 => [self.set(&key), words("PXAT 9000000000000")].concat(),
            9 => {
                let other = self.key();
                [words("MSET"), self.set(&key)[1..].to_vec(), self.set(&other)[1..].to_vec()].concat()
            }
            10 => words(&format!("DEL {key}")),
            11 => words(&format!("EXISTS {key}")),
            12 => words(&format!("GET {key}")),
            13 => words(&format!("APPEND {key} +")),
            14 => [self.set(&key), words("NX")].concat(),
            15 => words(&format!("RENAME {key} key:0")),
            16 if self.rng.one_in(8) => words("FLUSHDB"),
            _ => words("DBSIZE"),
        }
    }

    /// Some are missing, and become so again.
    fn key(&mut self) -> String {
        format!("key:{}", self.rng.below(SHARED_KEYS + 4))
    }

    fn set(&mut self, key: &str) -> Command {
        self.values += 1;
        let value = format!("{}.{}", self.number, self.values);
        words(&format!("SET {key}")).into_iter().chain([value.into_bytes()]).collect()
    }
}

fn words(line: &str) -> Command {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

async fn bad_reads(sim: Sim) {
    // A server that cannot read what it finds at its start does not start.
    sim.stop_faults();
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    server.spawn(move |world| async move {
        let starting = start(&world, config(address, AppendFsync::Everysec));
        watch(world, starting).await;
    });
    let host = sim.add_host("client");
    let (inner, disk) = (sim.clone(), server.clone());
    let mut rng = sim.rng("bad reads");
    let task = host.spawn(move |world| async move {
        let mut client = loop {
            match RawClient::connect(&world, address).await {
                Ok(client) => break client,
                Err(_) => madsim::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let set = async |client: &mut RawClient, model: &mut BTreeMap<_, _>, key: String, rng: &mut SimRng| {
            let value = "v".repeat(rng.between(300, 900) as usize);
            assert_eq!(client.command(&["SET", &key, &value]).await.expect("answers"), Reply::ok());
            model.insert(key, value.into_bytes());
        };
        for key in 0..KEYS {
            set(&mut client, &mut model, format!("key:{key}"), &mut rng).await;
        }
        for round in 0..6 {
            inner.resume_faults();
            // Every read fails, some, or none but by the plan.
            disk.set_disk_reads_fail(round % 3 == 1);
            for _ in 0..30 {
                let key = format!("key:{}", rng.below(KEYS + 8));
                match rng.below(10) {
                    0..=6 => set(&mut client, &mut model, key, &mut rng).await,
                    7 => match client.command(&["DEL", &key]).await.expect("answers") {
                        Reply::Int(gone) => assert_eq!(gone, i64::from(model.remove(&key).is_some()), "{key}"),
                        reply => assert!(is_read_error(&reply), "{reply:?}"),
                    },
                    _ => match client.command(&["DBSIZE"]).await.expect("answers") {
                        Reply::Int(keys) => {
                            inner.sometimes("keys were counted");
                            assert_eq!(keys, model.len() as i64);
                        }
                        Reply::Error(text) => {
                            assert!(text.starts_with("ERR keys cannot be counted for now: "), "{text}");
                            inner.sometimes("keys could not be counted");
                        }
                        reply => panic!("DBSIZE was answered with {reply:?}"),
                    },
                }
            }
            inner.stop_faults();
            disk.set_disk_reads_fail(false);
            // The longest that it takes until the last failure is forgotten.
            inner.sleep(Duration::from_secs(30)).await;
            let counted = client.command(&["DBSIZE"]).await.expect("answers");
            assert_eq!(counted, Reply::Int(model.len() as i64), "no fault is left");
        }
        for (key, value) in model {
            assert_eq!(client.command(&["GET", &key]).await.expect("answers"), Reply::Bulk(value), "{key}");
        }
    });
    let done = madsim::time::timeout(NO_PROGRESS, task).await;
    done.expect("every command is answered").expect("the client's host stays up");
    assert!(server.is_up());
}

fn is_read_error(reply: &Reply) -> bool {
    let starts = ["ERR reading the log file", "ERR the log file is damaged"];
    matches!(reply, Reply::Error(text) if starts.iter().any(|start| text.starts_with(start)))
}
