//! Keys that come and go, with times of expiry, hashes and deletions: memory does not grow at constant live data.
//!
//! `FERRITE_CHURN_S` says for how many seconds; the default is for the gate, an hour is what the design promises.

#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ferrite_conformance::process::Server;
use ferrite_conformance::wire::Connection;

const SECONDS: u64 = 8;
const KEYS: u64 = 2000;
/// Commands sent together.
const BATCH: usize = 200;
/// Times of expiry lie this far in the future, so that none of them comes: what goes, goes by a deletion or an overwrite.
const TTL_S: u64 = 86_400;
/// By how much memory may differ between two moments with the same data: pages fill, buffers have grown.
const TOLERANCE: f64 = 0.10;
const KEPT_MAX: f64 = 16e6;
/// Bytes that have left memory before it is measured.
const WARM: f64 = 32e6;

fn info(connection: &mut Connection) -> BTreeMap<String, f64> {
    let reply = connection.call(&["INFO", "everything"]).expect("INFO answers");
    let text = String::from_utf8(reply).expect("INFO is text");
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect()
}

struct Churn {
    connection: Connection,
    random: u64,
    commands: u64,
}

impl Churn {
    fn below(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) % n
    }

    fn commands(&mut self) -> Vec<String> {
        let (key, ttl, name) = (self.below(KEYS), TTL_S - self.below(TTL_S / 2), self.commands);
        self.commands += 1;
        let value = "v".repeat(50 + self.below(200) as usize);
        match self.below(8) {
            // Times that move to and fro.
            0 | 1 => vec![format!("SETEX key:{key} {ttl} {value}")],
            // A lock, under a name that never comes again.
            2 | 3 => vec![format!("SET lock:{name} {value} EX {ttl}"), format!("DEL lock:{name}")],
            4 => vec![format!("SET key:{key} {value}")],
            5 => vec![format!("HSET hash:{key} f{} {value}", name % 8), format!("EXPIRE hash:{key} {ttl}")],
            6 => vec![format!("DEL hash:{key} key:{key}")],
            _ => vec![format!("PERSIST key:{key}"), format!("EXPIRE key:{key} {ttl}")],
        }
    }

    fn run(&mut self, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            let mut batch = Vec::new();
            while batch.len() < BATCH {
                batch.extend(self.commands());
            }
            let words = |line: &String| line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            let commands: Vec<Vec<Vec<u8>>> = batch.iter().map(words).collect();
            for (line, reply) in batch.iter().zip(self.connection.pipeline(&commands).expect("the server answers")) {
                assert_ne!(reply[0], b'-', "{line}: {}", reply.escape_ascii());
            }
        }
    }

    /// What is held once the work that follows writes has been done.
    fn settled(&mut self) -> BTreeMap<String, f64> {
        std::thread::sleep(Duration::from_secs(2));
        info(&mut self.connection)
    }
}

fn expires(connection: &mut Connection) -> f64 {
    let reply = connection.call(&["INFO", "keyspace"]).expect("INFO answers");
    let text = String::from_utf8(reply).expect("INFO is text");
    let after = text.split("expires=").nth(1).expect("a database has keys");
    after.split(',').next().expect("a number").parse().expect("a number")
}

#[test]
fn the_time_of_the_active_cycle_is_told() {
    let mut server = Server::ferrite(&["--workers", "1", "--aof.enabled", "false"]);
    let mut connection = server.connect();
    let commands: Vec<Vec<Vec<u8>>> = (0..20_000)
        .map(|number| ["PSETEX", &format!("key:{number}"), "300", "v"].map(|word| word.as_bytes().to_vec()).to_vec())
        .collect();
    commands.chunks(BATCH).for_each(|some| assert!(connection.pipeline(some).is_ok()));
    let began = Instant::now();
    while info(&mut connection)["expired_keys"] < 20_000.0 {
        assert!(began.elapsed() < Duration::from_secs(20), "keys are left");
        std::thread::sleep(Duration::from_millis(20));
    }
    let told = info(&mut connection)["expire_cycle_cpu_milliseconds"];
    assert!((1.0..20_000.0).contains(&told), "{told} ms for 20,000 keys");
    server.assert_sound();
}

#[test]
fn memory_does_not_grow_while_keys_come_and_go() {
    let seconds = std::env::var("FERRITE_CHURN_S").map_or(SECONDS, |text| text.parse().expect("a number of seconds"));
    let regions = ["--storage.mutable_region_size_mb", "16", "--storage.read_only_region_size_mb", "8"];
    let mut server = Server::ferrite(&[&["--workers", "2", "--aof.enabled", "false"][..], &regions].concat());
    let mut churn = Churn { connection: server.connect(), random: 7, commands: 0 };
    // Until the regions are full, and what goes with that is as large as it will be.
    while info(&mut churn.connection)["ferrite_disk_bytes"] < WARM {
        churn.run(Duration::from_millis(500));
    }
    let before = churn.settled();
    churn.run(Duration::from_secs(seconds));
    let after = churn.settled();
    let held = |told: &BTreeMap<String, f64>| told["used_memory"];
    assert!(
        held(&after) <= held(&before) * (1.0 + TOLERANCE) + KEPT_MAX,
        "{} bytes became {} over {} steps",
        held(&before),
        held(&after),
        churn.commands
    );
    let (reminders, expiring) = (after["ferrite_wheel_reminders"], expires(&mut churn.connection));
    assert!((expiring..=1.25 * expiring + 5000.0).contains(&reminders), "{reminders} reminders of {expiring} keys");
    assert!(after["ferrite_memory_expiry"] < 1e6, "{}", after["ferrite_memory_expiry"]);
    server.assert_sound();
}
