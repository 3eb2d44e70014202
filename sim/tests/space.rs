//! The disk quota, and compaction of a log that cannot be read.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ferrite_node::config::AppendFsync;
use ferrite_sim::client::RawClient;
use ferrite_sim::resp::Reply;
use ferrite_sim::server::{DATA, PAGE_BYTES, config, serve};
use ferrite_sim::{FaultPlan, Scenario, ScenarioFuture, Sim, run};

async fn info(client: &mut RawClient) -> BTreeMap<String, u64> {
    let Reply::Bulk(text) = client.ask("INFO persistence").await else { panic!("a text") };
    let text = String::from_utf8(text).expect("text");
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect()
}

const fn scenario(name: &'static str, run: fn(Sim) -> ScenarioFuture) -> Scenario {
    Scenario { name, about: "the disk space of the data", faults: |_| FaultPlan::none(), marks: &[], run }
}

const VALUE: usize = 900;
const QUOTA: u64 = 200_000;

async fn quota(sim: Sim) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    server.spawn(move |world| {
        let mut config = config(address, AppendFsync::No);
        // So that deletions alone make room.
        config.aof.enabled = false;
        config.storage.auto_compaction_min_size = 0;
        config.storage.disk_quota = QUOTA;
        serve(world, config)
    });
    let task = sim.add_host("client").spawn(move |world| async move {
        let mut client = RawClient::connect_when_up(&world, address).await;
        let mut keys = 0;
        let refused = loop {
            match client.ask(&format!("SET key:{keys} {}", "v".repeat(VALUE))).await {
                Reply::Error(text) => break text,
                reply => assert_eq!(reply, Reply::ok()),
            }
            keys += 1;
        };
        assert!(refused.starts_with("ERR no space left: the data directory has reached 'disk-quota'"), "{refused}");
        let full = info(&mut client).await;
        assert!((QUOTA..QUOTA + 4 * PAGE_BYTES as u64).contains(&full["ferrite_disk_quota_used"]), "{full:?}");
        assert_eq!(full["ferrite_disk_quota_exceeded"], 1);
        // Nothing has changed, reads go on, and what is in the way of a transaction ends it.
        assert_eq!(client.ask(&format!("EXISTS key:{keys}")).await, Reply::Int(0));
        assert_eq!(client.ask("DBSIZE").await, Reply::Int(keys));
        assert_eq!(client.ask("GET key:0").await, Reply::Bulk(vec![b'v'; VALUE]));
        assert_eq!(client.ask("MULTI").await, Reply::ok());
        let Reply::Error(_) = client.ask("SET key:0 w").await else { panic!("it may need space") };
        assert_eq!(client.ask("DEL key:0").await, Reply::Simple("QUEUED".into()));
        let Reply::Error(text) = client.ask("EXEC").await else { panic!("it was refused") };
        assert!(text.starts_with("EXECABORT"), "{text}");
        for key in 0..keys / 2 {
            assert_eq!(client.ask(&format!("DEL key:{key}")).await, Reply::Int(1), "a deletion goes on");
        }
        // Compaction brings it back below.
        madsim::time::sleep(Duration::from_secs(10)).await;
        let after = info(&mut client).await;
        assert!(after["ferrite_disk_quota_used"] < QUOTA * 3 / 4, "{after:?}");
        for key in 0..20 {
            assert_eq!(client.ask(&format!("SET new:{key} {}", "w".repeat(VALUE))).await, Reply::ok());
        }
        for key in keys / 2..keys {
            assert_eq!(client.ask(&format!("GET key:{key}")).await, Reply::Bulk(vec![b'v'; VALUE]), "key:{key}");
        }
        assert_eq!(client.ask("CONFIG SET disk-quota 1kb").await, Reply::ok());
        let Reply::Error(_) = client.ask("SET more v").await else { panic!("the quota is in force at once") };
    });
    task.await.expect("the client's host stays up");
}

#[test]
fn writes_are_refused_beyond_the_quota_and_taken_again_once_keys_were_deleted() {
    for seed in 0..4 {
        run(seed, &scenario("quota", |sim| Box::pin(quota(sim)))).expect_success();
    }
}

const KEYS: u64 = 60;

fn value(key: u64, round: u64) -> String {
    format!("{key}:{round}:{}", "v".repeat(VALUE))
}

/// Waits until they are on disk.
async fn write_rounds(client: &mut RawClient) {
    for round in 0..3 {
        // One key in three is never written again, and some of these lie in every page.
        for key in (0..KEYS).filter(|key| round == 0 || key % 3 > 0) {
            assert_eq!(client.ask(&format!("SET key:{key} {}", value(key, round))).await, Reply::ok());
        }
    }
    madsim::time::sleep(Duration::from_secs(1)).await;
}

async fn unreadable(sim: Sim) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    server.spawn(move |world| serve(world, config(address, AppendFsync::No)));
    let damages = sim.rng("damage").one_in(2);
    let task = sim.add_host("client").spawn(move |world| async move {
        let mut client = RawClient::connect_when_up(&world, address).await;
        write_rounds(&mut client).await;
        let path = format!("{DATA}/hybrid.log");
        let flip = |server: &ferrite_sim::Host| server.corrupt(&path, |bytes| bytes[2 * PAGE_BYTES + 500] ^= 8);
        match damages {
            true => flip(&server),
            false => server.set_disk_reads_fail(true),
        }
        let orders = "CONFIG SET auto-compaction-min-size 0 auto-compaction-percentage 10";
        assert_eq!(client.ask(orders).await, Reply::ok());
        madsim::time::sleep(Duration::from_secs(10)).await;
        let stuck = info(&mut client).await;
        assert!(stuck["ferrite_compaction_failures"] > 0, "{stuck:?}");
        match damages {
            // The page alone is left.
            true => {
                assert_eq!(stuck["ferrite_quarantined_pages"], 1, "{stuck:?}");
                assert_eq!(stuck["ferrite_quarantined_bytes"], PAGE_BYTES as u64, "{stuck:?}");
                assert!(stuck["ferrite_compaction_freed_bytes"] > 10 * PAGE_BYTES as u64, "{stuck:?}");
            }
            false => {
                assert_eq!(stuck["ferrite_quarantined_pages"], 0, "the disk may be well again: {stuck:?}");
                assert!(stuck["ferrite_compaction_freed_bytes"] <= PAGE_BYTES as u64, "{stuck:?}");
            }
        }
        // The disk, or the bytes, are well again.
        match damages {
            true => flip(&server),
            false => server.set_disk_reads_fail(false),
        }
        madsim::time::sleep(Duration::from_secs(150)).await;
        let well = info(&mut client).await;
        assert!(well["ferrite_compaction_freed_bytes"] > 10 * PAGE_BYTES as u64, "it was tried again: {well:?}");
        for key in 0..KEYS {
            let round = if key % 3 > 0 { 2 } else { 0 };
            let expected = Reply::Bulk(value(key, round).into_bytes());
            assert_eq!(client.ask(&format!("GET key:{key}")).await, expected, "key:{key}");
        }
    });
    task.await.expect("the client's host stays up");
}

/// The file for which space is asked of a disk that fails; how a write that needs it is refused.
const GROWING: [(&str, &str); 3] = [
    ("hybrid.log", "ERR writing the log file fails: it cannot grow: "),
    ("hybrid.extents", "ERR writing the log file fails: it cannot grow: "),
    ("appendonly-1.aof", "ERR the append-only file /data/appendonly-1.aof cannot grow by "),
];
const FULL: &str = "ERR no space left on the disk of the log file";

async fn cannot_grow(sim: Sim) {
    let (file, failing) = GROWING[sim.seed() as usize / 2 % GROWING.len()];
    // A full disk refuses the log first.
    let is_full = sim.seed().is_multiple_of(2) && file != "appendonly-1.aof";
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    server.spawn(move |world| {
        let mut config = config(address, AppendFsync::Always);
        // What is not under test has space enough.
        config.aof.enabled = file.ends_with(".aof");
        serve(world, config)
    });
    let task = sim.add_host("client").spawn(move |world| async move {
        let mut client = RawClient::connect_when_up(&world, address).await;
        assert_eq!(client.ask("SET before v").await, Reply::ok());
        madsim::time::sleep(Duration::from_secs(1)).await;
        match is_full {
            true => server.set_disk_capacity(Some(server.disk_used())),
            false => server.set_disk_allocations_fail(Some(&format!("{DATA}/{file}"))),
        }
        let len = if file == "hybrid.extents" { 4 * PAGE_BYTES } else { VALUE };
        let mut written = 0;
        let text = loop {
            match client.ask(&format!("SET key:{written} {}", "v".repeat(len))).await {
                Reply::Error(text) => break text,
                reply => assert_eq!(reply, Reply::ok()),
            }
            written += 1;
            assert!(written < 1000, "it grows nevertheless");
        };
        assert!(text.starts_with(if is_full { FULL } else { failing }), "{text}");
        assert_eq!(text.contains("Input/output error"), !is_full, "{text}");
        assert_eq!(client.ask("GET before").await, Reply::Bulk(b"v".to_vec()));
        server.set_disk_capacity(None);
        server.set_disk_allocations_fail(None);
        madsim::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(client.ask(&format!("SET after {}", "v".repeat(len))).await, Reply::ok(), "it is tried again");
        assert_eq!(client.ask("DBSIZE").await, Reply::Int(written + 2));
    });
    task.await.expect("the client's host stays up");
}

#[test]
fn a_disk_that_fails_to_reserve_space_is_not_taken_for_a_full_one() {
    for seed in 0..12 {
        run(seed, &scenario("cannot grow", |sim| Box::pin(cannot_grow(sim)))).expect_success();
    }
}

/// A page of the log that the disk refuses to read; it reads all others.
const BAD_PAGE: u64 = 2;

async fn refused(sim: Sim) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    server.spawn(move |world| serve(world, config(address, AppendFsync::No)));
    let task = sim.add_host("client").spawn(move |world| async move {
        let mut client = RawClient::connect_when_up(&world, address).await;
        write_rounds(&mut client).await;
        let (path, page) = (format!("{DATA}/hybrid.log"), PAGE_BYTES as u64);
        server.set_disk_bad(Some((&path, BAD_PAGE * page..(BAD_PAGE + 1) * page)));
        let orders = "CONFIG SET auto-compaction-min-size 0 auto-compaction-percentage 10";
        assert_eq!(client.ask(orders).await, Reply::ok());
        madsim::time::sleep(Duration::from_secs(5)).await;
        let early = info(&mut client).await;
        assert_eq!(early["ferrite_quarantined_pages"], 0, "it is tried again first: {early:?}");
        madsim::time::sleep(Duration::from_secs(60)).await;
        let left = info(&mut client).await;
        assert_eq!(left["ferrite_quarantined_pages"], 1, "{left:?}");
        assert_eq!(left["ferrite_quarantined_bytes"], page, "{left:?}");
        assert!(left["ferrite_compaction_freed_bytes"] > 10 * page, "the others are compacted: {left:?}");
        let failures = left["ferrite_compaction_failures"];
        // No key is gone: those of the page are errors for as long as it cannot be read.
        let mut refusals = 0;
        for is_bad in [true, false] {
            for key in 0..KEYS {
                let round = if key % 3 > 0 { 2 } else { 0 };
                match client.ask(&format!("GET key:{key}")).await {
                    Reply::Error(text) if is_bad => {
                        assert!(text.starts_with("ERR reading the log file"), "{text}");
                        refusals += 1;
                    }
                    reply => assert_eq!(reply, Reply::Bulk(value(key, round).into_bytes()), "key:{key}"),
                }
            }
            server.set_disk_bad(None);
        }
        assert!((1..=4).contains(&refusals), "{refusals}");
        assert_eq!(client.ask("DBSIZE").await, Reply::Int(KEYS as i64));
        let after = info(&mut client).await;
        assert_eq!(after["ferrite_compaction_failures"], failures, "it is not tried over and over: {after:?}");
    });
    task.await.expect("the client's host stays up");
}

#[test]
fn a_page_that_the_disk_refuses_to_read_is_left_behind_and_the_rest_is_compacted() {
    for seed in 0..6 {
        run(seed, &scenario("refused", |sim| Box::pin(refused(sim)))).expect_success();
    }
}

#[test]
fn a_page_that_cannot_be_read_is_not_dropped() {
    for seed in 0..6 {
        run(seed, &scenario("unreadable", |sim| Box::pin(unreadable(sim)))).expect_success();
    }
}
