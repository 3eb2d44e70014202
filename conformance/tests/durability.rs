//! kill -9 under load, while the append-only file goes from segment to segment, is rewritten and checkpoints are taken: with `appendfsync always`
//! no acknowledged write is lost, with `everysec` none older than a second, and what is there is a state that there was.
//!
//! `FERRITE_KILLS` says how often each server is killed; the default is for the gate.

#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ferrite_conformance::process::{Server, TINY};
use ferrite_conformance::wire::Connection;

const CLIENTS: usize = 4;
/// Kills of each policy, if `FERRITE_KILLS` does not say otherwise.
const KILLS: u64 = 10;
/// Keys of each client: few, so that each is overwritten, deleted and made anew.
const KEYS: u64 = 20;
/// Acknowledged writes of so long before the kill may be lost with `everysec`.
const WINDOW: Duration = Duration::from_secs(1);

/// What a client's keys hold.
type State = BTreeMap<String, String>;

/// One write: the key, its new value (`None`: deleted), and when it was acknowledged, if it was.
type Write = (String, Option<String>, Option<Instant>);

/// One client, alone on its keys, so that it knows what they hold.
struct Client {
    number: usize,
    /// At the start of the server's life.
    base: State,
    /// Since then.
    writes: Vec<Write>,
    /// Writes of all lives.
    count: u64,
}

impl Client {
    fn new(number: usize) -> Self {
        Self { number, base: State::new(), writes: Vec::new(), count: 0 }
    }

    fn counter(&self) -> String {
        format!("client:{}:counter", self.number)
    }

    /// Writes until the server dies.
    fn write_until_the_end(&mut self, connection: &mut Connection) {
        let mut counter: u64 = self.base.get(&self.counter()).map_or(0, |value| value.parse().expect("a number"));
        loop {
            self.count += 1;
            let n = self.count;
            let name = format!("client:{}:{}", self.number, n * 7 % KEYS);
            let (words, value, expected) = match n % 5 {
                0 => (vec!["DEL".to_owned(), name.clone()], None, ":"),
                1 => {
                    counter += 1;
                    (vec!["INCR".to_owned(), self.counter()], Some(counter.to_string()), ":")
                }
                _ => {
                    // Long enough that tiny regions move most keys to disk.
                    let text = format!("{n}:{}", "v".repeat(300));
                    (vec!["SET".to_owned(), name.clone(), text.clone()], Some(text), "+OK")
                }
            };
            self.writes.push((words[1].clone(), value.clone(), None));
            let Ok(reply) = connection.call(&words) else { return };
            let acknowledged = Instant::now();
            let reply = String::from_utf8_lossy(&reply).into_owned();
            assert!(reply.starts_with(expected), "{words:?}: {reply}");
            if words[0] == "INCR" {
                assert_eq!(reply.trim_end(), format!(":{counter}"));
            }
            self.writes.last_mut().expect("just made").2 = Some(acknowledged);
        }
    }

    /// What the server holds is what it held after one of the writes, no earlier than the last one acknowledged at
    /// `deadline`. How many acknowledged ones are lost.
    fn check(&mut self, server: &Server, deadline: Instant) -> usize {
        let mut connection = server.connect();
        let mut found = State::new();
        let names = (0..KEYS).map(|key| format!("client:{}:{key}", self.number)).chain([self.counter()]);
        for name in names {
            let reply = connection.call(&["GET", &name]).expect("GET answers");
            let text = String::from_utf8(reply).expect("ours is ASCII");
            if let Some((_, value)) = text.strip_suffix("\r\n").and_then(|text| text.split_once("\r\n")) {
                found.insert(name, value.to_owned());
            }
        }
        let acknowledged = self.writes.iter().filter(|(.., at)| at.is_some()).count();
        let kept = self.writes.iter().filter(|(.., at)| at.is_some_and(|at| at <= deadline)).count();
        let mut state = self.base.clone();
        let mut fits = (kept == 0 && state == found).then_some(0);
        for (index, (name, value, _)) in self.writes.iter().enumerate() {
            match value {
                Some(value) => state.insert(name.clone(), value.clone()),
                None => state.remove(name),
            };
            // The last that fits: a deletion of what is not there changes nothing.
            if index + 1 >= kept && state == found {
                fits = Some(index + 1);
            }
        }
        let Some(fits) = fits else {
            let number = self.number;
            panic!("client {number}: {found:?} is no state after {kept} to {} writes of {state:?}", self.writes.len());
        };
        self.base = found;
        self.writes.clear();
        acknowledged.saturating_sub(fits)
    }
}

/// Asks for rewrites and checkpoints in turn until the server dies; how many began.
fn rewrite_until_the_end(connection: &mut Connection) -> u64 {
    let mut begun = 0;
    for order in ["BGREWRITEAOF", "BGREWRITEAOF", "BGSAVE"].iter().cycle() {
        let Ok(reply) = connection.call(&[order]) else { return begun };
        begun += u64::from(reply.starts_with(b"+Background") && reply.ends_with(b" started\r\n"));
        std::thread::sleep(Duration::from_millis(7));
    }
    begun
}

fn kill_again_and_again(policy: &str, window: Duration) {
    let kills = std::env::var("FERRITE_KILLS").map_or(KILLS, |count| count.parse().expect("FERRITE_KILLS is a number"));
    // A walk over few buckets: rewrites come to their end between two kills.
    let own = ["--aof.appendfsync", policy, "--aof.segment_size", "64kb", "--storage.index_size_mb", "0.01"];
    let mut server = Server::ferrite(&[&own, TINY].concat());
    let mut clients: Vec<Client> = (0..CLIENTS).map(Client::new).collect();
    let rewrites = AtomicU64::new(0);
    let (mut writes, mut lost) = (0, 0);
    for kill in 0..kills {
        let mut killed = Instant::now();
        std::thread::scope(|scope| {
            let mut operator = server.connect();
            let rewrites = &rewrites;
            scope.spawn(move || rewrites.fetch_add(rewrite_until_the_end(&mut operator), Ordering::Relaxed));
            for client in &mut clients {
                let mut connection = server.connect();
                scope.spawn(move || client.write_until_the_end(&mut connection));
            }
            std::thread::sleep(Duration::from_millis(150 + kill * 37 % 300));
            killed = Instant::now();
            server.kill();
        });
        server.restart();
        for client in &mut clients {
            assert!(client.writes.len() > 1, "client {} got nothing done", client.number);
            writes += client.writes.len();
            lost += client.check(&server, killed - window);
        }
        server.assert_sound();
    }
    let rewrites = rewrites.into_inner();
    println!(
        "appendfsync {policy}: {kills} kills, {writes} writes, {rewrites} rewrites and checkpoints begun, {lost} acknowledged writes lost"
    );
    // Each but the last of a server's life has come to its end.
    assert!(rewrites > kills, "{rewrites} rewrites and checkpoints begun in {kills} lives");
    if window.is_zero() {
        assert_eq!(lost, 0);
    }
}

#[test]
fn no_acknowledged_write_is_lost_when_the_process_is_killed() {
    kill_again_and_again("always", Duration::ZERO);
}

#[test]
fn everysec_loses_no_more_than_a_second_when_the_process_is_killed() {
    kill_again_and_again("everysec", WINDOW);
}

#[test]
fn sigterm_ends_with_0_and_keeps_the_data() {
    for policy in ["always", "everysec", "no"] {
        let mut server = Server::ferrite(&["--aof.appendfsync", policy, "--workers", "2"]);
        let mut connection = server.connect();
        for n in 0..500 {
            let reply = connection.call(&["SET", &format!("k{n}"), &format!("v{n}")]).expect("SET answers");
            assert_eq!(reply, b"+OK\r\n");
        }
        connection.call(&["PEXPIREAT", "k7", "4000000000000"]).expect("PEXPIREAT answers");
        connection.call(&["SELECT", "3"]).expect("SELECT answers");
        connection.call(&["APPEND", "other", "database"]).expect("APPEND answers");
        assert_eq!(server.terminate().code(), Some(0), "{policy}: {}", server.log());
        server.restart();
        let mut connection = server.connect();
        assert_eq!(connection.call(&["DBSIZE"]).expect("DBSIZE answers"), b":500\r\n", "{policy}");
        assert_eq!(connection.call(&["GET", "k499"]).expect("GET answers"), b"$4\r\nv499\r\n");
        assert_eq!(connection.call(&["PEXPIRETIME", "k7"]).expect("PEXPIRETIME answers"), b":4000000000000\r\n");
        connection.call(&["SELECT", "3"]).expect("SELECT answers");
        assert_eq!(connection.call(&["GET", "other"]).expect("GET answers"), b"$8\r\ndatabase\r\n");
        server.assert_sound();
    }
}
