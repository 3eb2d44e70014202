//! More data than `maxmemory`, under every policy, on all tiers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use ferrite_node::config::{AppendFsync, Choice, Config, Policy};

use super::expiry::connect;
use super::node::workers;
use crate::client::RawClient;
use crate::plan::FaultPlan;
use crate::resp::Reply;
use crate::rng::SimRng;
use crate::runner::{Scenario, ScenarioFuture};
use crate::server::serve;
use crate::sim::{Host, Sim};
use crate::world::SimWorld;

const KEYS: u64 = 250;
const VALUE_MAX: u64 = 500;
/// What one command adds to the data at most: a record with its header, as much slack again, an index entry and a time
/// of expiry.
const COMMAND_MAX: u64 = 64 + 2 * VALUE_MAX + 8 + 32;
const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";

/// The data stays below the limit, only keys that may go do, and what went stays away after a power loss.
pub(super) const EVICTION: Scenario = Scenario {
    name: "eviction",
    about: "the data stays below maxmemory on all tiers, volatile policies keep other keys, evicted keys stay away",
    faults: |plan| FaultPlan {
        net_reset: false,
        net_clog: false,
        clock_jump: false,
        clock_drift: false,
        ..plan.without_disk_errors()
    },
    marks: &[
        "a page became read-only",
        "a record was read from disk",
        "keys were evicted",
        "an eviction was recorded",
        "a checkpoint was taken",
        "a checkpoint was restored",
        "a command was refused for lack of memory",
    ],
    run: |sim| -> ScenarioFuture { Box::pin(keys_are_evicted(sim)) },
};

/// What the server is to do with more data.
#[derive(Clone, Copy)]
struct Limit {
    maxmemory: u64,
    policy: Policy,
    workers: u64,
}

fn configured(address: SocketAddr, limit: Limit) -> Config {
    let mut config = workers(address, AppendFsync::Always, limit.workers as usize);
    config.server.maxmemory = limit.maxmemory;
    config.server.maxmemory_policy = limit.policy;
    config
}

async fn keys_are_evicted(sim: Sim) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    let mut rng = sim.rng("eviction");
    let policies = Policy::NAMES;
    let limit = Limit {
        // From a part of the mutable region to more than fits into memory.
        maxmemory: [10_000, 30_000, 60_000][rng.below(3) as usize],
        policy: policies[rng.below(policies.len() as u64) as usize].1,
        workers: rng.between(1, 2),
    };
    let start = move |world: SimWorld| async move { serve(world, configured(address, limit)).await };
    server.spawn(start);
    let client = sim.add_host("client");
    let inner = sim.clone();
    let written = client
        .spawn(move |world| async move { write(&inner, connect(&world, address).await, rng, limit).await })
        .await
        .expect("the client's host stays up");
    server.power_loss();
    sim.sleep(Duration::from_millis(50)).await;
    server.boot();
    server.spawn(start);
    check_after_restart(&client, address, written).await;
}

/// Sets keys, with a time of expiry or without, reads some of them; gives the keys that are left.
async fn write(sim: &Sim, mut client: RawClient, mut rng: SimRng, limit: Limit) -> BTreeSet<String> {
    // Whether a key that was set has a time of expiry.
    let mut set: BTreeMap<String, bool> = BTreeMap::new();
    let mut refused = false;
    for number in 0..KEYS {
        let key = format!("key:{number}");
        let value = "v".repeat(rng.between(1, VALUE_MAX) as usize);
        let volatile = rng.one_in(2);
        let mut command = vec!["SET", &key, &value];
        if volatile {
            command.extend(["EX", "100000"]);
        }
        match ask(&mut client, &command).await {
            reply if reply == Reply::ok() => _ = set.insert(key, volatile),
            reply => {
                assert_eq!(reply, Reply::Error(OOM.into()));
                refused = true;
                sim.sometimes("a command was refused for lack of memory");
            }
        }
        // A key of before, which may have gone: grows, is read, or is written again.
        let other = format!("key:{}", rng.below(number + 1));
        if rng.one_in(3) {
            ask(&mut client, &["GET", &other]).await;
        } else if rng.one_in(5) && ask(&mut client, &["EXISTS", &other]).await == Reply::Int(1) {
            ask(&mut client, &["APPEND", &other, "0123456789"]).await;
            // Between the two it may have gone: then it is a new key, without a time of expiry. It may have been refused.
            set.insert(other.clone(), ask(&mut client, &["PTTL", &other]).await != Reply::Int(-1));
        }
        if rng.one_in(20) {
            // Beside it keys are drawn, and reminders are with who looks at them.
            ask(&mut client, &["BGSAVE"]).await;
        }
        if number % 10 == 0 {
            check_bound(&mut client, limit).await;
        }
    }
    // Whoever waits for its turn to make room has had it.
    madsim::time::sleep(Duration::from_millis(500)).await;
    check_bound(&mut client, limit).await;
    let mut left = BTreeSet::new();
    for (key, volatile) in &set {
        if ask(&mut client, &["EXISTS", key]).await == Reply::Int(1) {
            left.insert(key.clone());
        } else {
            let goes = match limit.policy {
                Policy::Spill | Policy::NoEviction => false,
                policy => *volatile || !policy.is_volatile(),
            };
            assert!(goes, "{key} has gone under {:?}, with a time of expiry: {volatile}", limit.policy);
        }
    }
    let info = info(&mut client).await;
    let gone = (set.len() - left.len()) as u64;
    assert!(info["evicted_keys"] >= gone, "{gone} keys have gone: {info:?}");
    if gone > 0 {
        sim.sometimes("keys were evicted");
    }
    let may_refuse = limit.policy == Policy::NoEviction || limit.policy.is_volatile();
    assert!(!refused || may_refuse, "refused under {:?}", limit.policy);
    check_sum(&mut client, &left, &info).await;
    left
}

/// The data is at most what one command of each worker adds above the limit.
async fn check_bound(client: &mut RawClient, limit: Limit) {
    let info = info(client).await;
    let data = info["ferrite_data_bytes"];
    if limit.policy != Policy::Spill {
        let max = limit.maxmemory + limit.workers * COMMAND_MAX;
        assert!(data <= max, "{data} bytes of data with a limit of {} under {:?}", limit.maxmemory, limit.policy);
    }
}

/// The data is the sum of its keys.
async fn check_sum(client: &mut RawClient, left: &BTreeSet<String>, info: &BTreeMap<String, u64>) {
    let mut sum = 0;
    for key in left {
        match ask(client, &["MEMORY", "USAGE", key]).await {
            Reply::Int(bytes) => sum += bytes as u64,
            other => panic!("MEMORY USAGE {key}: {other:?}"),
        }
    }
    assert_eq!(info["ferrite_data_bytes"], sum);
    let mut expiring = 0;
    for key in left {
        expiring += u64::from(ask(client, &["PTTL", key]).await != Reply::Int(-1));
    }
    let reminders = info["ferrite_wheel_reminders"];
    assert!(reminders >= expiring, "{reminders} reminders of {expiring} keys that expire");
    assert_eq!(ask(client, &["DBSIZE"]).await, Reply::Int(left.len() as i64));
}

async fn ask(client: &mut RawClient, command: &[&str]) -> Reply {
    client.command(command).await.expect("the server answers")
}

async fn info(client: &mut RawClient) -> BTreeMap<String, u64> {
    let Reply::Bulk(text) = ask(client, &["INFO", "memory", "stats"]).await else {
        panic!("INFO answers a bulk string")
    };
    let text = String::from_utf8(text).expect("INFO is text");
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect()
}

/// After a restart the same keys are there, and none that had gone. Records may take more bytes than before, for what was
/// copied to the tail has lost its room to grow: then some more go.
async fn check_after_restart(client: &Host, address: SocketAddr, left: BTreeSet<String>) {
    let checked = client.spawn(move |world| async move {
        let mut client = connect(&world, address).await;
        madsim::time::sleep(Duration::from_millis(500)).await;
        let mut present = BTreeSet::new();
        for key in &left {
            if ask(&mut client, &["EXISTS", key]).await == Reply::Int(1) {
                present.insert(key.clone());
            }
        }
        let info = info(&mut client).await;
        assert_eq!(info["evicted_keys"], (left.len() - present.len()) as u64);
        check_sum(&mut client, &present, &info).await;
    });
    checked.await.expect("the client's host stays up");
}
