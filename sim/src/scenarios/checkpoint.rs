//! Checkpoints of the real server: taken under load, in crashes, without an append-only file, and damaged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ferrite_io::{Entropy, World};
use ferrite_node::config::{AppendFsync, Config};
use redis::ProtocolVersion;

use super::NO_PROGRESS;
use super::node::workers;
use super::redis::{Load, damage, random_commands};
use crate::client::RawClient;
use crate::plan::FaultPlan;
use crate::resp::Reply;
use crate::rng::SimRng;
use crate::runner::{Scenario, ScenarioFuture};
use crate::server::{DATA, PAGE_BYTES, launch, serve, watch};
use crate::sim::{Host, Sim};
use crate::world::SimWorld;

/// What was acknowledged under `always` survives every power loss, whatever checkpoints there are, and damage of the newest.
pub(super) const CHECKPOINT: Scenario = Scenario {
    name: "checkpoint",
    about: "power loss at any I/O, in checkpoints and rewrites too, and damage of the newest checkpoint lose nothing acknowledged",
    faults: FaultPlan::without_disk_errors,
    marks: &[
        "server crashed",
        "a record was read from disk",
        "a checkpoint was taken",
        "a checkpoint was restored",
        "a start left what it overwrote to be looked at",
        "a start read what it was to ask for",
        "died in a checkpoint",
        "died with a checkpoint",
        "died with two checkpoints",
        "the newest checkpoint was damaged",
        "a rewrite was done",
        "a large value was read from its extent",
    ],
    run: |sim| -> ScenarioFuture {
        let load = Load {
            batches: 40,
            crashes: 5,
            protocol: ProtocolVersion::RESP2,
            // Some do not fit into a page, and some hashes are objects.
            payload_max: 6000,
            keys: 80,
            rewrites: true,
            saves: true,
            sessions: false,
            compacts: false,
        };
        Box::pin(random_commands(
            sim,
            |world, at| {
                let drawn = world.entropy().next_u64();
                let mut config = workers(at, AppendFsync::Always, 1 + drawn as usize % 2);
                config.aof.segment_size = [2 << 10, 16 << 10, 1 << 20][(drawn >> 8) as usize % 3];
                Box::pin(serve(world, config))
            },
            load,
        ))
    },
};

/// A restart comes back with the state of one moment.
pub(super) const WITHOUT_AOF: Scenario = Scenario {
    name: "checkpoint-without-aof",
    about: "without an append-only file a restart comes back with the state at the last checkpoint's cut, exactly",
    faults: FaultPlan::without_disk_errors,
    marks: &[
        "a checkpoint was taken",
        "a checkpoint was restored",
        "died in a checkpoint",
        "came back with an earlier state",
        "everything was forgotten beside a checkpoint",
        "a large value was read from its extent",
    ],
    run: |sim| -> ScenarioFuture { Box::pin(without_aof(sim)) },
};

/// Any damage is an error or harmless.
pub(super) const DAMAGE: Scenario = Scenario {
    name: "checkpoint-damage",
    about: "a damaged, short or missing file of a data directory with checkpoints never gives a wrong value, nor an empty server",
    faults: |_| FaultPlan::none(),
    marks: &["damage stopped the start", "damage was harmless", "damage was answered with an error"],
    run: |sim| -> ScenarioFuture { Box::pin(damaged(sim)) },
};

const LIVES: u64 = 6;
const STEPS: u64 = 120;
const KEYS: u64 = 24;
const HASHES: u64 = 4;
const FIELDS: u64 = 12;

/// For each key its fields; a string is a hash of one without a name.
pub(super) type State = BTreeMap<String, BTreeMap<String, String>>;

/// Some names are longer than half a page.
fn key_of(number: u64) -> String {
    format!("key:{number}{}", if number % 8 == 3 { "long".repeat(PAGE_BYTES / 6) } else { String::new() })
}

fn hash_of(number: u64) -> String {
    format!("hash:{number}")
}

fn string(value: &str) -> BTreeMap<String, String> {
    [(String::new(), value.to_owned())].into()
}

/// What GET or HGETALL has found; `None`: no key.
pub(super) fn found(reply: &Reply) -> Option<BTreeMap<String, String>> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match reply {
        Reply::Bulk(value) => Some(string(&text(value))),
        Reply::Array(items) if !items.is_empty() => {
            let string = |item: &Reply| match item {
                Reply::Bulk(bytes) => text(bytes),
                other => panic!("a field or value is a string, not {other:?}"),
            };
            Some(items.chunks(2).map(|pair| (string(&pair[0]), string(&pair[1]))).collect())
        }
        Reply::Null | Reply::Array(_) => None,
        other => panic!("a read was answered with {other:?}"),
    }
}

/// Every key, and the command that reads it.
pub(super) fn reads() -> impl Iterator<Item = (String, &'static str)> {
    (0..KEYS).map(|key| (key_of(key), "GET")).chain((0..HASHES).map(|hash| (hash_of(hash), "HGETALL")))
}

/// For messages: what can be told apart at a glance.
pub(super) fn brief(state: Option<&State>) -> Vec<String> {
    let begin = |text: &str| text.chars().take(12).collect::<String>();
    let value = |fields: &BTreeMap<String, String>| {
        fields.iter().map(|(field, value)| format!("{field}={}", begin(value))).collect::<Vec<_>>().join(",")
    };
    state.into_iter().flatten().map(|(key, fields)| format!("{}: {}", begin(key), value(fields))).collect()
}

/// Tries until the server listens.
async fn connect(world: &SimWorld, address: SocketAddr) -> RawClient {
    loop {
        match RawClient::connect(world, address).await {
            Ok(client) => return client,
            Err(_) => madsim::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// The values of all keys, and that there are no others.
async fn state_of(client: &mut RawClient) -> std::io::Result<State> {
    let mut state = State::new();
    for (key, read) in reads() {
        if let Some(fields) = found(&client.command(&[read, &key]).await?) {
            state.insert(key, fields);
        }
    }
    assert_eq!(client.command(&["DBSIZE"]).await?, Reply::Int(state.len() as i64));
    Ok(state)
}

/// One client that knows every state that there was since a restart, and which of them a checkpoint may show.
pub(super) struct Historian {
    sim: Sim,
    rng: SimRng,
    /// Of the current life: that at its start, and after each step.
    pub(super) states: Vec<State>,
    /// The newest checkpoint known to be in force shows this state, or a later one.
    saved: usize,
    steps: u64,
}

impl Historian {
    pub(super) fn new(sim: &Sim) -> Self {
        Self { sim: sim.clone(), rng: sim.rng("historian"), states: vec![State::new()], saved: 0, steps: 0 }
    }

    async fn live(&mut self, client: &mut RawClient) -> std::io::Result<()> {
        let (mut asked_at, mut saves) = (None, 0);
        for _ in 0..self.rng.below(STEPS) {
            self.step(client).await?;
            if asked_at.is_none() && self.rng.one_in(12) {
                let reply = client.command(&["BGSAVE"]).await?;
                assert_eq!(reply, Reply::Simple("Background saving started".to_owned()));
                asked_at = Some(self.states.len() - 1);
            }
            if let Some(at) = asked_at
                && self.rng.one_in(4)
            {
                let Reply::Bulk(info) = client.command(&["INFO", "persistence"]).await? else {
                    panic!("INFO is a text")
                };
                let info = String::from_utf8_lossy(&info).into_owned();
                assert!(info.contains("rdb_last_bgsave_status:ok"), "{info}");
                if info.contains(&format!("rdb_saves:{}\r\n", saves + 1)) {
                    (self.saved, asked_at, saves) = (at, None, saves + 1);
                }
            }
        }
        if asked_at.is_none() && self.rng.one_in(2) {
            let at = self.states.len() - 1;
            if client.command(&["SAVE"]).await? == Reply::ok() {
                self.saved = at;
            }
        }
        Ok(())
    }

    pub(super) async fn step(&mut self, client: &mut RawClient) -> std::io::Result<()> {
        self.steps += 1;
        let mut state = self.states.last().expect("there is one").clone();
        let name = |rng: &mut SimRng| key_of(rng.below(KEYS));
        let (key, other) = (name(&mut self.rng), name(&mut self.rng));
        let len = match self.rng.below(5) {
            // An object.
            0 => self.rng.between(PAGE_BYTES as u64, 4 * PAGE_BYTES as u64),
            _ => self.rng.below(500),
        };
        let value = format!("{}:{}", self.steps, "v".repeat(len as usize));
        match self.rng.below(50) {
            0 => {
                state.clear();
                self.states.push(state);
                assert_eq!(client.command(&["FLUSHALL"]).await?, Reply::ok());
                self.sim.sometimes("everything was forgotten beside a checkpoint");
                return Ok(());
            }
            1..=9 => {
                let key = if self.rng.one_in(10) { hash_of(self.rng.below(HASHES)) } else { key };
                state.remove(&key);
                self.states.push(state);
                client.command(&["DEL", &key]).await?;
                return Ok(());
            }
            10..=14 => {
                // Both or neither.
                state.insert(key.clone(), string(&value));
                state.remove(&other);
                state.insert(other.clone(), string(&value));
                self.states.push(state);
                for command in [&["MULTI"][..], &["SET", &key, &value], &["SET", &other, &value]] {
                    client.command(command).await?;
                }
                client.command(&["EXEC"]).await?;
                return Ok(());
            }
            15..=20 => {
                // Far away: it does not expire here.
                state.insert(key.clone(), string(&value));
                self.states.push(state);
                client.command(&["SET", &key, &value, "PX", "100000000000"]).await?;
                return Ok(());
            }
            21..=34 => {
                let (hash, field) = (hash_of(self.rng.below(HASHES)), format!("f{}", self.rng.below(FIELDS)));
                // So that hashes are objects, and change as such.
                let value = format!("{}:{}", self.steps, "w".repeat(self.rng.between(200, 900) as usize));
                let fields = state.entry(hash.clone()).or_default();
                let is_set = self.rng.below(5) > 0;
                match is_set {
                    true => _ = fields.insert(field.clone(), value.clone()),
                    false => _ = fields.remove(&field),
                }
                state.retain(|_, fields| !fields.is_empty());
                self.states.push(state);
                let command: &[&str] = if is_set { &["HSET", &hash, &field, &value] } else { &["HDEL", &hash, &field] };
                let together = self.rng.one_in(6);
                if together {
                    client.command(&["MULTI"]).await?;
                }
                client.command(command).await?;
                if together {
                    client.command(&["EXEC"]).await?;
                }
                return Ok(());
            }
            35..=37 => {
                // Moves a value, whatever it is, to another record.
                let key = if self.rng.one_in(2) { hash_of(self.rng.below(HASHES)) } else { key };
                self.states.push(state);
                client.command(&["PEXPIRE", &key, "100000000000"]).await?;
                return Ok(());
            }
            _ => {}
        }
        state.insert(key.clone(), string(&value));
        self.states.push(state);
        assert_eq!(client.command(&["SET", &key, &value]).await?, Reply::ok());
        Ok(())
    }

    /// After a restart.
    fn check(&mut self, found: State) {
        let possible = &self.states[self.saved..];
        assert!(
            possible.contains(&found),
            "{:?} is none of the {} states from {:?} to {:?}",
            brief(Some(&found)),
            possible.len(),
            brief(possible.first()),
            brief(possible.last())
        );
        if Some(&found) != self.states.last() {
            self.sim.sometimes("came back with an earlier state");
        }
        (self.states, self.saved) = (vec![found], 0);
    }
}

fn alone(address: SocketAddr, drawn: u64) -> Config {
    let mut config = workers(address, AppendFsync::No, 1 + drawn as usize % 2);
    config.aof.enabled = false;
    config
}

async fn without_aof(sim: Sim) {
    let mut rng = sim.rng("without aof");
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    let mut historian = Historian::new(&sim);
    for life in 0..LIVES {
        let config = alone(address, rng.below(2));
        server.spawn(move |world| serve(world, config));
        if rng.one_in(3) {
            server.power_loss_at_io(rng.between(1, 150));
        }
        let client: Host = sim.add_host(&format!("client {life}"));
        let task = client.spawn(move |world| async move {
            let ended = async {
                let mut client = RawClient::connect(&world, address).await?;
                historian.check(state_of(&mut client).await?);
                historian.live(&mut client).await
            };
            // A connection lost is a server that has died, or never came up.
            let _ = ended.await;
            historian
        });
        historian = match madsim::time::timeout(NO_PROGRESS, task).await {
            Ok(ended) => ended.expect("a client's host stays up"),
            Err(_) => panic!("a life has not ended within {NO_PROGRESS:?}"),
        };
        match rng.one_in(3) {
            true => server.kill(),
            false => server.power_loss(),
        }
        server.boot();
    }
    sim.stop_faults();
    let mut found = None;
    while found.is_none() {
        let config = alone(address, 0);
        server.spawn(move |world| serve(world, config));
        let host = sim.add_host(&format!("checker {:?}", sim.elapsed()));
        let task = host.spawn(move |world| async move {
            let mut client = RawClient::connect(&world, address).await?;
            state_of(&mut client).await
        });
        let looked = madsim::time::timeout(NO_PROGRESS, task).await.expect("progress");
        found = looked.expect("the checker's host stays up").ok();
        if found.is_none() {
            // A power loss that an earlier life was to have, and did not live to see.
            server.kill();
            server.boot();
        }
    }
    historian.check(found.expect("the loop ends with it"));
}

async fn damaged(sim: Sim) {
    let mut rng = sim.rng("damage");
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    let segment_size = [2 << 10, 1 << 20][rng.below(2) as usize];
    let config = move || {
        let mut config = workers(address, AppendFsync::Always, 1);
        config.aof.segment_size = segment_size;
        config
    };
    server.spawn(move |world| serve(world, config()));
    let saves = rng.between(1, 3);
    let mut historian = Historian::new(&sim);
    let client = sim.add_host("client");
    let task = client.spawn(move |world| async move {
        let mut client = connect(&world, address).await;
        for _ in 0..=saves {
            for _ in 0..60 {
                historian.step(&mut client).await.expect("no faults");
            }
            if historian.rng.below(4) > 0 {
                assert_eq!(client.command(&["SAVE"]).await.expect("no faults"), Reply::ok());
            }
        }
        historian.states.pop().expect("the last one")
    });
    let expected = task.await.expect("no faults");
    // A start notes what it has replayed: from then on damage to the log's end cannot pass for an unfinished write.
    server.power_loss();
    server.boot();
    server.spawn(move |world| serve(world, config()));
    let (visitor, all) = (sim.add_host("visitor"), expected.clone());
    let task = visitor.spawn(move |world| async move {
        let found = state_of(&mut connect(&world, address).await).await.expect("no faults");
        assert_eq!(found, all);
    });
    task.await.expect("no faults");
    server.power_loss();
    server.boot();
    let names = ["MANIFEST", "hybrid.log", "hybrid.extents"].map(str::to_owned).into_iter();
    let numbered = (1..20).flat_map(|number| {
        [
            format!("appendonly-{number}.aof"),
            format!("appendonly-{number}.base.aof"),
            format!("checkpoint-{number}.ckpt"),
        ]
    });
    let there: Vec<String> =
        names.chain(numbered).map(|name| format!("{DATA}/{name}")).filter(|path| server.peek(path).is_some()).collect();
    // Records are most of what there is; they lie behind the file's first block.
    let in_records = rng.one_in(3);
    let victim = match in_records {
        true => format!("{DATA}/{}", if rng.one_in(2) { "hybrid.log" } else { "hybrid.extents" }),
        false => there[rng.below(there.len() as u64) as usize].clone(),
    };
    sim.note(format!("damaged: {victim}"));
    // A log that was just begun has its first block at most.
    server.corrupt(&victim, |bytes| match in_records && bytes.len() > PAGE_BYTES + 1 {
        true => (0..12).for_each(|_| {
            let at = rng.between(PAGE_BYTES as u64, bytes.len() as u64 - 1) as usize;
            bytes[at] ^= 1 << rng.below(8);
        }),
        false => damage(bytes, &mut rng),
    });
    let stopped = std::sync::Arc::new(std::sync::Mutex::new(None));
    let hears = stopped.clone();
    server.spawn(move |world| async move {
        let starting = launch(&world, config(), None, move |_, result| {
            *crate::sim::lock(&hears) = result.err().map(|error| error.to_string());
        });
        watch(world, starting).await;
    });
    let (checks, host) = (sim.clone(), sim.add_host("checker"));
    let task = host.spawn(move |world| async move {
        let mut client = connect(&world, address).await;
        let mut errors = 0;
        for (key, read) in reads() {
            match client.command(&[read, &key]).await? {
                Reply::Error(text) => {
                    assert!(text.contains("is damaged at"), "{text}");
                    errors += 1;
                }
                reply => {
                    let of = |fields: Option<BTreeMap<String, String>>| {
                        fields.map(|fields| State::from([(key.clone(), fields)]))
                    };
                    let (found, expected) = (of(found(&reply)), of(expected.get(&key).cloned()));
                    assert!(found == expected, "{:?} instead of {:?}", brief(found.as_ref()), brief(expected.as_ref()));
                }
            }
        }
        match errors {
            0 => checks.sometimes("damage was harmless"),
            _ => checks.sometimes("damage was answered with an error"),
        }
        Ok::<_, std::io::Error>(())
    });
    // A server that refuses to start accepts nobody: then it says why.
    let limit = Duration::from_secs(20);
    let checked = madsim::time::timeout(limit, task).await;
    if !matches!(checked, Ok(Ok(Ok(())))) {
        let why = crate::sim::lock(&stopped).clone().expect("it answers, or says why not");
        let name = victim.rsplit('/').next().expect("a name");
        let by_record = ["the log file is damaged at address", "the file of extents is damaged at offset"];
        assert!(why.contains(name) || by_record.iter().any(|text| why.contains(text)), "{name}: {why}");
        sim.sometimes("damage stopped the start");
    }
}
