//! Scenarios for any server that speaks RESP: random commands against the model, with and without power losses.
//!
//! They need one thing of a server: [`StartServer`].

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use redis::ProtocolVersion;

use super::NO_PROGRESS;
use crate::client::{Client, RawClient, connect_redis};
use crate::model::{ClientView, Command, Dump, Generator, Profile, Value};
use crate::resp::Reply;
use crate::rng::SimRng;
use crate::server::DATA;
use crate::sim::{Host, Sim};
use crate::world::SimWorld;

/// Recovers what is on the disk, listens on the address and serves until its host dies.
pub type StartServer = fn(SimWorld, SocketAddr) -> Pin<Box<dyn Future<Output = ()>>>;

/// After a reset the server may still execute what it had received; by then it has.
const SETTLED: Duration = Duration::from_secs(10);
/// The longest pipeline.
const PIPELINE_MAX: u64 = 12;

/// How much is done in a run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Pipelines that each client sends.
    pub batches: u32,
    /// Power losses and kills while they do.
    pub crashes: u32,
    /// The protocol of the `redis` crate's connections.
    pub protocol: ProtocolVersion,
    /// The longest payload, in bytes.
    pub payload_max: u64,
    /// How many keys each client has.
    pub keys: u64,
    /// Somebody asks for a rewrite of the append-only file again and again.
    pub rewrites: bool,
    /// And for checkpoints, of which a crash may leave the newest damaged.
    pub saves: bool,
    /// Transactions and scans, too: connections have a state, and commands take several calls.
    pub sessions: bool,
    /// The files take no more than twice the data once there is peace.
    pub compacts: bool,
}

/// Random commands of one to four clients; every reply and in the end every value is compared with the model's. With
/// crashes, the server must promise what `appendfsync always` does.
pub async fn random_commands(sim: Sim, start: StartServer, load: Load) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    let mut rng = sim.rng("random commands");
    server.spawn(move |world| start(world, address));
    server.start_clock_faults();
    let count = if rng.one_in(3) { 1 } else { rng.between(2, 4) };
    let mut tasks = Vec::new();
    for number in 0..count {
        let host = sim.add_host(&format!("client {number}"));
        let mut client = LoadClient::new(&sim, &server, address, load, number, count == 1);
        tasks.push(host.spawn(move |world| async move {
            client.run(&world).await;
            client
        }));
    }
    let orders: &[&str] = match load {
        Load { saves: true, .. } => &["BGSAVE", "SAVE", "BGSAVE SCHEDULE", "BGREWRITEAOF", "BGSAVE"],
        Load { rewrites: true, .. } => &["BGREWRITEAOF"],
        _ => &[],
    };
    let operator = (!orders.is_empty()).then(|| operator(&sim, address, orders, 120));
    let crasher = Crasher { sim: sim.clone(), server: server.clone(), address, start, rng, damages: load.saves };
    let mut crasher = crasher.run(load.crashes).await;
    let mut clients = Vec::new();
    for task in tasks {
        clients.push(task.await.expect("client hosts stay up"));
    }
    sim.stop_faults();
    if let Some(operator) = operator {
        operator.kill();
    }
    check_everything(&sim, address, &mut clients).await;
    if load.compacts {
        super::compaction::check_space(&sim, &server, address).await;
        check_everything(&sim, address, &mut clients).await;
    }
    if load.crashes > 0 {
        server.power_loss();
        crasher.restart().await;
        check_everything(&sim, address, &mut clients).await;
    }
}

/// Takes the server down and up again.
struct Crasher {
    sim: Sim,
    server: Host,
    address: SocketAddr,
    start: StartServer,
    rng: SimRng,
    /// Newest checkpoints, where there is something to fall back to.
    damages: bool,
}

impl Crasher {
    async fn run(mut self, crashes: u32) -> Self {
        for _ in 0..crashes {
            match self.rng.below(5) {
                0 => {
                    self.sim.sleep(Duration::from_millis(self.rng.between(1, 300))).await;
                    self.server.kill();
                }
                // During recovery, which begins with the boot.
                1 => self.crash_at_io(12).await,
                _ => self.crash_at_io(150).await,
            }
            self.sim.sometimes("server crashed");
            self.look_at_files();
            if self.damages && self.rng.one_in(3) {
                self.damage_newest_checkpoint();
            }
            self.restart().await;
        }
        self
    }

    /// Marks what the crash left of the append-only file.
    fn look_at_files(&self) {
        let text = |name: &str| self.server.peek(&format!("{DATA}/{name}"));
        let manifest = text("MANIFEST").map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        match manifest.matches("\ncheckpoint ").count() {
            0 => {}
            1 => self.sim.sometimes("died with a checkpoint"),
            _ => self.sim.sometimes("died with two checkpoints"),
        }
        if manifest.contains("\nbase ") {
            self.sim.sometimes("died with a base");
        }
        if manifest.matches("\naof ").count() > 1 {
            self.sim.sometimes("died with several segments");
        }
        if text("MANIFEST.new").is_some() {
            self.sim.sometimes("died in a change of the manifest");
        }
    }

    fn damage_newest_checkpoint(&mut self) {
        let manifest = self.server.peek(&format!("{DATA}/MANIFEST"));
        let manifest = manifest.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines = |kind: &str| manifest.lines().filter(|line| line.starts_with(kind)).collect::<Vec<_>>();
        let checkpoints = lines("checkpoint ");
        let log_is_whole =
            !lines("base ").is_empty() || lines("aof ").first().is_some_and(|line| line.ends_with(" from 0"));
        let Some(newest) = checkpoints.last().and_then(|line| line.split(' ').nth(1)) else { return };
        if checkpoints.len() > 1 || log_is_whole {
            let (path, rng) = (format!("{DATA}/{newest}"), &mut self.rng);
            self.server.corrupt(&path, |bytes| damage(bytes, rng));
            self.sim.sometimes("the newest checkpoint was damaged");
        }
    }

    async fn crash_at_io(&mut self, within: u64) {
        self.server.power_loss_at_io(self.rng.between(1, within));
        // The clients may have finished before that many I/Os.
        if madsim::time::timeout(Duration::from_secs(60), self.server.died()).await.is_err() {
            self.server.power_loss();
        }
    }

    async fn restart(&mut self) {
        self.sim.sleep(Duration::from_millis(self.rng.between(1, 200))).await;
        self.server.boot();
        let (start, address) = (self.start, self.address);
        self.server.spawn(move |world| start(world, address));
    }
}

/// Flips a bit, cuts the end off, or leaves nothing.
pub(super) fn damage(bytes: &mut Vec<u8>, rng: &mut SimRng) {
    let len = bytes.len() as u64;
    match rng.below(6) {
        0 => bytes.clear(),
        1 => bytes.truncate(rng.below(len.max(1)) as usize),
        _ if len > 0 => bytes[rng.below(len) as usize] ^= 1 << rng.below(8),
        _ => {}
    }
}

/// Gives one of the orders every 1 to `ms_max` milliseconds, on a host of its own, until that is killed.
pub(super) fn operator(sim: &Sim, address: SocketAddr, orders: &'static [&'static str], ms_max: u64) -> Host {
    let host = sim.add_host("operator");
    let mut rng = sim.rng("operator");
    let plan = sim.plan();
    let aof_may_fail = plan.disk_write_error || plan.disk_sync_error;
    host.spawn(move |world| async move {
        loop {
            madsim::time::sleep(Duration::from_millis(rng.between(1, ms_max))).await;
            let Ok(mut client) = RawClient::connect(&world, address).await else { continue };
            // A connection lost is another one made.
            loop {
                let order = orders[rng.below(orders.len() as u64) as usize];
                let Ok(reply) = client.command(&order.split(' ').collect::<Vec<_>>()).await else { break };
                let text = match &reply {
                    Reply::Simple(text) | Reply::Error(text) => text.as_str(),
                    other => panic!("{order} was answered with {other:?}"),
                };
                let expected: &[&str] = match order {
                    "BGREWRITEAOF" => {
                        &["Background append only file rewriting", "ERR Background append only file rewriting"]
                    }
                    "SAVE" => &["OK", "ERR Background save already in progress"],
                    _ => &[
                        "Background saving started",
                        "Background saving scheduled",
                        "ERR Background save already in progress",
                        "ERR Another child process is active",
                    ],
                };
                let refused = text.starts_with("MISCONF")
                    || text.contains("Can't execute an AOF background rewriting")
                    || text == "ERR";
                let is_expected = expected.iter().any(|start| text.starts_with(start)) || aof_may_fail && refused;
                assert!(is_expected, "{order} was answered with {text}");
                madsim::time::sleep(Duration::from_millis(rng.between(1, ms_max))).await;
            }
        }
    });
    host
}

/// One client with keys of its own and an oracle for them.
struct LoadClient {
    sim: Sim,
    server: Host,
    address: SocketAddr,
    load: Load,
    /// All its keys begin with this.
    prefix: String,
    generator: Generator,
    rng: SimRng,
    view: ClientView,
    connection: Option<Client>,
    /// The server's life at the time of the connection.
    life: u64,
}

impl LoadClient {
    fn new(sim: &Sim, server: &Host, address: SocketAddr, load: Load, number: u64, alone: bool) -> Self {
        let own = if alone { String::new() } else { format!("client{number}:") };
        let prefix = own.clone();
        let Load { keys, payload_max, sessions: transactions, .. } = load;
        let profile = Profile { prefix, whole_database: alone, keys, payload_max, transactions };
        Self {
            sim: sim.clone(),
            server: server.clone(),
            address,
            load,
            prefix: own,
            generator: Generator::new(profile, sim.rng(&format!("commands {number}")))
                .cut_by(sim.script(&format!("client {number}"))),
            rng: sim.rng(&format!("client {number}")),
            view: ClientView::new(),
            connection: None,
            life: 0,
        }
    }

    async fn run(&mut self, world: &SimWorld) {
        let mut left = self.load.batches;
        while left > 0 {
            let step = madsim::time::timeout(NO_PROGRESS, self.step(world)).await;
            match step.unwrap_or_else(|_| panic!("no reply within {NO_PROGRESS:?}")) {
                Ok(()) => left -= 1,
                Err(error) => {
                    self.connection = None;
                    self.sim.note(format!("client: {error}"));
                    self.sim.sleep(Duration::from_millis(self.rng.between(1, 100))).await;
                }
            }
        }
    }

    async fn step(&mut self, world: &SimWorld) -> std::io::Result<()> {
        if self.connection.is_none() {
            self.connect(world).await?;
        }
        let batch = self.generator.batch(PIPELINE_MAX);
        for command in &batch {
            self.view.sent(command.clone());
        }
        let connection = self.connection.as_mut().expect("it was just made");
        let view = &mut self.view;
        connection.pipeline(&batch, |reply| view.answered(&reply).unwrap_or_else(|why| panic!("{why}"))).await?;
        if self.load.sessions && self.rng.one_in(10) {
            self.scan().await?;
        }
        Ok(())
    }

    /// A scan from beginning to end gives this client's keys, all of them and no other: nobody else writes them, whatever
    /// the others do beside it.
    async fn scan(&mut self) -> std::io::Result<()> {
        let connection = self.connection.as_mut().expect("it was made for the batch before");
        let (pattern, count) = (format!("{}*", self.prefix), self.rng.between(1, 40).to_string());
        let (mut cursor, mut found) = (b"0".to_vec(), BTreeSet::new());
        loop {
            let words = [b"SCAN", &cursor[..], b"MATCH", pattern.as_bytes(), b"COUNT", count.as_bytes()];
            let mut reply = None;
            connection.pipeline(&[words.map(<[u8]>::to_vec).to_vec()], |page| reply = Some(page)).await?;
            let Some(Reply::Array(page)) = reply else { panic!("SCAN was answered with {reply:?}") };
            let [Reply::Bulk(next), Reply::Array(keys)] = &page[..] else { panic!("SCAN was answered with {page:?}") };
            found.extend(keys.iter().map(|key| match key {
                Reply::Bulk(key) => key.clone(),
                other => panic!("SCAN gave {other:?} for a key"),
            }));
            cursor.clone_from(next);
            if cursor == b"0" {
                break;
            }
        }
        let expected: BTreeSet<Vec<u8>> = self.view.expected().values.keys().cloned().collect();
        assert!(found == expected, "SCAN gave {} keys, expected {}: {}", found.len(), expected.len(), {
            let differ = found.symmetric_difference(&expected);
            differ.map(|key| key.escape_ascii().to_string()).collect::<Vec<_>>().join(" ")
        });
        self.sim.sometimes("a whole scan");
        Ok(())
    }

    async fn connect(&mut self, world: &SimWorld) -> std::io::Result<()> {
        if self.view.is_in_doubt() && self.server.lives() == self.life {
            self.sim.sleep(SETTLED).await;
        }
        self.life = self.server.lives();
        let mut client = if self.rng.one_in(2) {
            Client::Raw(RawClient::connect(world, self.address).await?)
        } else {
            let made = connect_redis(world, self.address, self.load.protocol).await;
            Client::Library(made.map_err(std::io::Error::other)?)
        };
        if self.view.is_in_doubt() {
            let found = dump(&mut client, self.generator.keys()).await?;
            let happened = self.view.resolve(&found).unwrap_or_else(|why| panic!("{why}"));
            self.sim.decision("unanswered commands that happened", happened as u64);
            self.sim.sometimes(if happened == 0 { "unanswered lost" } else { "unanswered happened" });
        }
        self.connection = Some(client);
        Ok(())
    }
}

/// All keys, each read as both types (one of them is answered with an error), with their times of expiry.
pub(super) async fn dump(client: &mut Client, keys: Vec<Vec<u8>>) -> std::io::Result<Dump> {
    let all = |key: &Vec<u8>| ["GET", "HGETALL", "PEXPIRETIME"].map(|name| vec![name.as_bytes().to_vec(), key.clone()]);
    let commands: Vec<Command> = keys.iter().flat_map(all).collect();
    let mut replies = Vec::new();
    client.pipeline(&commands, |reply| replies.push(reply)).await?;
    let mut dump = Dump::default();
    for (key, replies) in keys.into_iter().zip(replies.chunks(3)) {
        let value = match &replies[..2] {
            [Reply::Bulk(value), Reply::Error(_)] => Value::String(value.clone()),
            [Reply::Error(_), Reply::Array(items) | Reply::Other('%', items)] => hash_of(items),
            [Reply::Null, Reply::Array(items) | Reply::Other('%', items)] if items.is_empty() => continue,
            other => panic!("GET and HGETALL of {} were answered with {other:?}", key.escape_ascii()),
        };
        match replies[2] {
            Reply::Int(-1) => {}
            Reply::Int(at) if at > 0 => _ = dump.expiries.insert(key.clone(), at),
            ref other => panic!("PEXPIRETIME of {} was answered with {other:?}", key.escape_ascii()),
        }
        dump.values.insert(key, value);
    }
    Ok(dump)
}

pub(super) fn hash_of(items: &[Reply]) -> Value {
    let string = |item: &Reply| match item {
        Reply::Bulk(bytes) => bytes.clone(),
        other => panic!("a field or value is a string, not {other:?}"),
    };
    assert!(!items.is_empty(), "an empty hash is no key");
    Value::Hash(items.chunks(2).map(|pair| (string(&pair[0]), string(&pair[1]))).collect())
}

/// The liveness phase: without faults every client is answered, and the server holds what all of them expect, and
/// nothing else.
async fn check_everything(sim: &Sim, address: SocketAddr, clients: &mut [LoadClient]) {
    let host = sim.add_host(&format!("checker {:?}", sim.elapsed()));
    let mut views = Vec::new();
    for client in clients.iter() {
        assert!(!client.view.is_in_doubt(), "a client ends with a batch that was answered");
        views.push((client.generator.keys(), client.view.expected().clone()));
    }
    let check = host.spawn(move |world| async move {
        let raw = loop {
            match RawClient::connect(&world, address).await {
                Ok(raw) => break raw,
                // Recovery takes its time.
                Err(_) => madsim::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let mut client = Client::Raw(raw);
        let mut keys_expected = 0;
        for (keys, expected) in views {
            let found = dump(&mut client, keys).await.expect("no faults are left");
            let same = ClientView::with_expected(expected).resolve(&found);
            same.unwrap_or_else(|why| panic!("at the end, {why}"));
            keys_expected += found.values.len() as i64;
        }
        let dbsize = |reply| assert_eq!(reply, Reply::Int(keys_expected), "DBSIZE");
        client.pipeline(&[vec![b"DBSIZE".to_vec()]], dbsize).await.expect("no faults are left");
    });
    let checked = madsim::time::timeout(NO_PROGRESS, check).await;
    checked.expect("without faults the server answers").expect("the checker's host stays up");
}
