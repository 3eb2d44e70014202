//! SCAN, KEYS and RANDOMKEY while the index grows and shrinks and other databases are flushed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ferrite_io::{Clock, Entropy, World};
use ferrite_node::config::AppendFsync;

use super::node::workers;
use crate::client::RawClient;
use crate::plan::FaultPlan;
use crate::resp::Reply;
use crate::runner::{Scenario, ScenarioFuture};
use crate::server::serve;
use crate::sim::Sim;
use crate::world::SimWorld;

/// Keys that are there from the beginning to the end.
const STAY: u64 = 120;
/// Keys that are added meanwhile: the smallest index doubles.
const ADDED: u64 = 900;
/// Keys of the other database each time it is filled, and how often.
const OTHER: u64 = 80;
const FLUSHES: u64 = 3;
/// Scans from beginning to end, at least.
const SCANS: u64 = 6;
const CONNECT_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// After a reset the server may still execute what it had received; by then it has.
const SETTLED: Duration = Duration::from_secs(10);
/// A run that has taken that long in virtual time will not end.
const NO_PROGRESS: Duration = Duration::from_secs(3000);

/// Whatever is split, merged, swept and moved to disk under it, a scan gives what stays.
pub(super) const BESIDE_GROWTH: Scenario = Scenario {
    name: "scan-beside-growth",
    about: "SCAN gives every key that stays while the index doubles and shrinks and another database is flushed",
    faults: FaultPlan::without_disk_errors,
    marks: &["the index doubled", "the index shrank", "a record was read from disk", "keys were added during a scan"],
    run: |sim| -> ScenarioFuture { Box::pin(beside_growth(sim)) },
};

async fn beside_growth(sim: Sim) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    server.spawn(move |world| async move {
        let count = 1 + world.entropy().next_u64() as usize % 2;
        serve(world, workers(address, AppendFsync::No, count)).await;
    });
    let value = "v".repeat(sim.rng("scan").between(1, 60) as usize);
    let writing = Arc::new(AtomicUsize::new(2));
    let (text, done) = (value.clone(), writing.clone());
    sim.add_host("flusher").spawn(move |world| async move {
        let mut other = Caller::new(world, address, 1);
        for _ in 0..FLUSHES {
            for key in 0..OTHER {
                other.ok(&format!("SET other:{key} {text}")).await;
            }
            other.ok("FLUSHDB").await;
        }
        done.fetch_sub(1, Ordering::Relaxed);
    });
    let (text, done) = (value.clone(), writing.clone());
    sim.add_host("adder").spawn(move |world| async move {
        let mut adder = Caller::new(world, address, 0);
        for key in 0..ADDED {
            adder.ok(&format!("SET added:{key} {text}")).await;
            if key % 5 == 0 {
                adder.ask(&format!("DEL added:{}", key / 2)).await;
            }
        }
        for key in 0..ADDED {
            adder.ask(&format!("DEL added:{key}")).await;
        }
        done.fetch_sub(1, Ordering::Relaxed);
    });
    let own = sim.clone();
    let scanner = sim.add_host("scanner").spawn(move |world| async move {
        let mut scanner = Caller::new(world.clone(), address, 0);
        for key in 0..STAY {
            scanner.ok(&format!("SET stay:{key} {value}")).await;
        }
        let mut scans = 0;
        while scans < SCANS || writing.load(Ordering::Relaxed) > 0 {
            let before = scanner.size().await;
            assert_eq!(scanner.scan().await, STAY, "a key that stays was not met");
            if scanner.size().await > before {
                own.sometimes("keys were added during a scan");
            }
            scans += 1;
        }
        own.stop_faults();
        // What a lost connection had still sent is executed by then.
        own.sleep(SETTLED).await;
        let mut other = Caller::new(world, address, 1);
        other.ok("FLUSHDB").await;
        assert_eq!(other.ask("RANDOMKEY").await, Reply::Null);
        assert_eq!(other.ask("SCAN 0").await, Reply::Array(vec![Reply::Bulk(b"0".to_vec()), Reply::Array(vec![])]));
        other.ok(&format!("SET only {value}")).await;
        assert_eq!(other.ask("RANDOMKEY").await, Reply::Bulk(b"only".to_vec()));
        let Reply::Array(keys) = scanner.ask("KEYS *").await else { panic!("not the reply of KEYS") };
        let distinct: BTreeSet<String> = keys.iter().map(text_of).collect();
        assert_eq!((distinct.len(), scanner.size().await), (keys.len(), keys.len() as i64), "KEYS gives each key once");
    });
    let done = madsim::time::timeout(NO_PROGRESS, scanner).await;
    done.expect("everything is answered in time").expect("client hosts stay up");
}

fn text_of(reply: &Reply) -> String {
    match reply {
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("not a key: {other:?}"),
    }
}

/// A connection to one database that is made anew when it is lost; what it asks may be executed twice.
struct Caller {
    world: SimWorld,
    address: SocketAddr,
    db: u32,
    connection: Option<RawClient>,
}

impl Caller {
    fn new(world: SimWorld, address: SocketAddr, db: u32) -> Self {
        Self { world, address, db, connection: None }
    }

    /// One SCAN from beginning to end; how many of the keys that stay it has met.
    async fn scan(&mut self) -> u64 {
        let (mut cursor, mut met) = ("0".to_owned(), BTreeSet::new());
        loop {
            let reply = self.ask(&format!("SCAN {cursor} COUNT 7")).await;
            let Reply::Array(parts) = &reply else { panic!("not SCAN's: {reply:?}") };
            let [Reply::Bulk(next), Reply::Array(keys)] = &parts[..] else { panic!("a cursor and keys: {reply:?}") };
            met.extend(keys.iter().map(text_of).filter(|key| key.starts_with("stay:")));
            cursor = String::from_utf8(next.clone()).expect("decimal");
            if cursor == "0" {
                return met.len() as u64;
            }
        }
    }

    async fn ask(&mut self, command: &str) -> Reply {
        loop {
            if let Some(reply) = self.try_ask(command).await {
                return reply;
            }
            self.connection = None;
            self.world.clock().sleep(CONNECT_AGAIN_AFTER).await;
        }
    }

    async fn try_ask(&mut self, command: &str) -> Option<Reply> {
        if self.connection.is_none() {
            let mut connection = RawClient::connect(&self.world, self.address).await.ok()?;
            let select = connection.command(&["SELECT".to_owned(), self.db.to_string()]).await.ok()?;
            assert_eq!(select, Reply::ok());
            self.connection = Some(connection);
        }
        let words: Vec<&str> = command.split(' ').collect();
        self.connection.as_mut().expect("just made").command(&words).await.ok()
    }

    async fn ok(&mut self, command: &str) {
        assert_eq!(self.ask(command).await, Reply::ok(), "{command}");
    }

    async fn size(&mut self) -> i64 {
        match self.ask("DBSIZE").await {
            Reply::Int(keys) => keys,
            other => panic!("not a number: {other:?}"),
        }
    }
}
