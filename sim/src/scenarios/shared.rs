//! Clients that write the same keys: every reply must fit into one order of all commands, transactions and crashes included.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ferrite_io::{Entropy, World};
use ferrite_node::config::AppendFsync;
use redis::ProtocolVersion;

use super::node::workers;
use super::redis::StartServer;
use crate::client::{Client, RawClient, connect_redis};
use crate::cuts::Script;
use crate::linear::History;
use crate::model::Command;
use crate::plan::FaultPlan;
use crate::resp::Reply;
use crate::rng::SimRng;
use crate::runner::{Scenario, ScenarioFuture};
use crate::server::{serve, with_read_cache};
use crate::sim::{Host, Sim, lock};
use crate::world::SimWorld;

/// The real server, with one worker or two.
pub(super) const SHARED_KEYS: Scenario = Scenario {
    name: "shared-keys",
    about: "what clients see of the same keys fits into one order, transactions and power losses included",
    faults: FaultPlan::without_disk_errors,
    marks: &[
        "a record was read from disk",
        "a watched key was changed by another",
        "a transaction was done that watched",
        "a command was lost",
        "server crashed",
        "several orders were possible",
    ],
    run: |sim| -> ScenarioFuture {
        let start: StartServer = |world, at| {
            let count = 1 + world.entropy().next_u64() as usize % 2;
            let config = with_read_cache(&world, workers(at, AppendFsync::Always, count));
            Box::pin(serve(world, config))
        };
        Box::pin(shared_keys(sim, start, true))
    },
};

/// Commands that each client sends, about.
const BATCHES: u32 = 40;
/// The longest pipeline. Each command in it that is lost doubles what may have happened.
const PIPELINE_MAX: u64 = 4;
/// After a reset the server may still execute what it had received; by then it has.
const SETTLED: Duration = Duration::from_secs(10);
/// A run that has taken that long in virtual time will not end.
const NO_PROGRESS: Duration = Duration::from_secs(600);
/// The clients may have finished before as many I/Os as a power loss waits for.
const CRASH_WITHIN: Duration = Duration::from_secs(1);
/// What is written beside the shared keys, before the writer rests: as much as the two regions hold, and again that.
const FILLED: u64 = 150;
const KEYS: &[&str] = &["a", "b", "c"];
const COUNTERS: &[&str] = &["m", "n"];
const HASH: &str = "h";

/// Several clients on the same keys, a writer of other keys that pushes these to disk, and at most two power losses.
pub async fn shared_keys(sim: Sim, start: StartServer, transactions: bool) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    let mut rng = sim.rng("shared keys");
    server.spawn(move |world| start(world, address));
    server.start_clock_faults();
    let record = Arc::new(Mutex::new(Record::default()));
    let mut tasks = Vec::new();
    for number in 0..rng.between(2, 4) {
        let host = sim.add_host(&format!("client {number}"));
        let rng = sim.rng(&format!("client {number}"));
        let script = sim.script(&format!("client {number}"));
        let (sim, server, record) = (sim.clone(), server.clone(), record.clone());
        let mut client = SharingClient {
            sim,
            server,
            address,
            transactions,
            number,
            rng,
            script,
            values: 0,
            record,
            connection: None,
            life: 0,
        };
        tasks.push(host.spawn(move |world| async move { client.run(&world).await }));
    }
    let filler = filler(&sim, address);
    for _ in 0..rng.below(3) {
        server.power_loss_at_io(rng.between(1, 200));
        if madsim::time::timeout(CRASH_WITHIN, server.died()).await.is_err() {
            server.power_loss();
        }
        sim.sometimes("server crashed");
        sim.sleep(Duration::from_millis(rng.between(1, 200))).await;
        server.boot();
        server.spawn(move |world| start(world, address));
    }
    for task in tasks {
        let done = madsim::time::timeout(NO_PROGRESS, task).await;
        done.expect("clients make progress").expect("client hosts stay up");
    }
    filler.kill();
    let record = lock(&record);
    let widest = record.history.check().unwrap_or_else(|why| panic!("{why}"));
    sim.decision("commands on shared keys", record.history.commands() as u64);
    if widest > 1 {
        sim.sometimes("several orders were possible");
    }
}

/// What all clients together have seen.
#[derive(Default)]
struct Record {
    history: History,
    connections: usize,
}

/// Sets keys of its own, so that the shared ones go to disk.
fn filler(sim: &Sim, address: SocketAddr) -> Host {
    let host = sim.add_host("filler");
    let mut rng = sim.rng("filler");
    host.spawn(move |world| async move {
        let mut left = FILLED;
        while left > 0 {
            madsim::time::sleep(Duration::from_millis(rng.between(1, 20))).await;
            let Ok(mut client) = RawClient::connect(&world, address).await else { continue };
            let value = "f".repeat(rng.between(100, 900) as usize);
            // A connection lost is another one made.
            while left > 0
                && let Ok(reply) = client.command(&["SET", &format!("filler:{}", rng.below(30)), &value]).await
            {
                assert_eq!(reply, Reply::ok());
                left -= 1;
                madsim::time::sleep(Duration::from_millis(rng.between(1, 3))).await;
            }
        }
    });
    host
}

struct SharingClient {
    sim: Sim,
    server: Host,
    address: SocketAddr,
    transactions: bool,
    number: u64,
    rng: SimRng,
    script: Script,
    /// Values written: each is another one.
    values: u64,
    record: Arc<Mutex<Record>>,
    /// With its number in the history.
    connection: Option<(Client, usize)>,
    /// The server's life at the time of the connection.
    life: u64,
}

impl SharingClient {
    async fn run(&mut self, world: &SimWorld) {
        for _ in 0..BATCHES {
            let mut batches = if self.transactions && self.rng.one_in(4) {
                self.transaction()
            } else {
                vec![self.batch(PIPELINE_MAX)]
            };
            if !self.script.keeps_next() {
                batches.clear();
            }
            for batch in batches {
                if self.connection.is_none() {
                    self.connect(world).await;
                }
                if let Err(error) = self.send(&batch).await {
                    self.sim.note(format!("client {}: {error}", self.number));
                    self.end(true).await;
                    // What is left of a transaction means nothing on another connection.
                    break;
                }
                if self.rng.one_in(3) {
                    self.sim.sleep(Duration::from_millis(self.rng.between(1, 4))).await;
                }
            }
        }
        self.end(false).await;
    }

    async fn connect(&mut self, world: &SimWorld) {
        // The toy has neither transactions nor RESP3.
        let protocol = if self.transactions { ProtocolVersion::RESP3 } else { ProtocolVersion::RESP2 };
        let made = loop {
            self.life = self.server.lives();
            let made = if self.rng.one_in(2) {
                RawClient::connect(world, self.address).await.map(Client::Raw).map_err(|error| error.to_string())
            } else {
                let made = connect_redis(world, self.address, protocol).await;
                made.map(Client::Library).map_err(|error| error.to_string())
            };
            match made {
                Ok(made) => break made,
                // It starts, or recovers.
                Err(_) => self.sim.sleep(Duration::from_millis(self.rng.between(1, 50))).await,
            }
        };
        let mut record = lock(&self.record);
        record.connections += 1;
        self.connection = Some((made, record.connections));
    }

    async fn send(&mut self, batch: &[Command]) -> std::io::Result<()> {
        let (client, connection) = self.connection.as_mut().expect("it was just made");
        for command in batch {
            lock(&self.record).history.sent(*connection, command.clone());
        }
        let (record, sim, watches) =
            (self.record.clone(), self.sim.clone(), batch.len() > 1 && batch[0][0] == b"MULTI");
        let mut left = batch.len();
        let sent = client.pipeline(batch, |reply| {
            lock(&record).history.answered(*connection, &reply);
            left -= 1;
            if watches && left == 0 {
                match reply {
                    Reply::Null => sim.sometimes("a watched key was changed by another"),
                    Reply::Array(_) => sim.sometimes("a transaction was done that watched"),
                    _ => {}
                }
            }
        });
        let answered =
            madsim::time::timeout(NO_PROGRESS, sent).await.expect("every command is answered, or its connection lost");
        if answered.is_err() {
            self.sim.sometimes("a command was lost");
        }
        answered
    }

    /// The connection is given up. A server that lives on may still execute what it has received, for a while.
    async fn end(&mut self, in_doubt: bool) {
        let Some((client, connection)) = self.connection.take() else { return };
        drop(client);
        if in_doubt && self.server.lives() == self.life {
            self.sim.sleep(SETTLED).await;
        }
        lock(&self.record).history.over(connection);
    }

    /// Batches of a transaction that goes by what it has read: so that others come in between, each is sent when the one
    /// before has been answered.
    fn transaction(&mut self) -> Vec<Vec<Command>> {
        let key = self.key();
        let watch = vec![words(&["WATCH", &key, COUNTERS[0]]), words(&["GET", &key])];
        let mut run = vec![words(&["MULTI"])];
        for _ in 0..self.rng.between(1, 3) {
            run.push(self.command());
        }
        run.push(words(&["EXEC"]));
        vec![watch, run]
    }

    fn batch(&mut self, most: u64) -> Vec<Command> {
        let count = if self.rng.one_in(2) { 1 } else { self.rng.between(1, most) };
        (0..count).map(|_| self.command()).collect()
    }

    fn command(&mut self) -> Command {
        let (key, counter) = (self.key(), (*self.rng.pick(COUNTERS)).to_owned());
        let field = format!("f{}", self.rng.below(3));
        match self.rng.below(20) {
            0..=3 => [words(&["SET", &key]), vec![self.value()]].concat(),
            4 => [words(&["SET", &key]), vec![self.value()], words(&["NX"])].concat(),
            5 => [words(&["SET", &key]), vec![self.value()], words(&["GET"])].concat(),
            6..=8 => words(&["GET", &key]),
            9 => words(&["MGET", KEYS[0], KEYS[1], KEYS[2], &counter]),
            10 => words(&["DEL", &key]),
            11 => words(&["GETDEL", &key]),
            12 => words(&["APPEND", &key, &format!("+{}", self.number)]),
            13..=15 => words(&["INCRBY", &counter, &self.rng.between(1, 9).to_string()]),
            16 => words(&["RENAME", &key, KEYS[0]]),
            17 => [words(&["HSET", HASH, &field]), vec![self.value()]].concat(),
            18 => words(&["HDEL", HASH, &field]),
            _ => words(&["HGETALL", HASH]),
        }
    }

    fn key(&mut self) -> String {
        (*self.rng.pick(KEYS)).to_owned()
    }

    /// A value that nobody else writes.
    fn value(&mut self) -> Vec<u8> {
        self.values += 1;
        let mut value = format!("{}.{} ", self.number, self.values).into_bytes();
        let mut rest = vec![0; self.rng.below(300) as usize];
        self.rng.fill(&mut rest);
        value.extend(rest);
        value
    }
}

fn words(words: &[&str]) -> Command {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}
