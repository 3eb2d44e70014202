//! SAVE, BGSAVE and LASTSAVE over a socket, kill -9 and what a restart brings back; the answers are those of Redis.

#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use ferrite_conformance::process::{Server, TINY, ferrite_command};
use ferrite_conformance::wire::Connection;

fn call(connection: &mut Connection, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    String::from_utf8(connection.call(&words).expect("it answers")).expect("ours is ASCII")
}

/// A field of INFO persistence.
fn field(connection: &mut Connection, name: &str) -> String {
    let info = call(connection, "INFO persistence");
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} is not in {info}")).to_owned()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what} never came");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// `ferrite check` finds no damage in what a killed server left.
fn assert_checks(server: &Server) {
    let checked = ferrite_command().arg("check").arg(server.data()).output().expect("it runs");
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success() && text.ends_with("no damage\n") && text.contains(".ckpt: "), "{text}");
}

/// Enough keys that most lie on disk.
fn fill(connection: &mut Connection, round: u32) {
    for key in 0..300 {
        let value = format!("{round}:{}", "v".repeat(200));
        assert_eq!(call(connection, &format!("SET key:{key} {value}")), "+OK\r\n");
    }
}

fn round_of(connection: &mut Connection, key: u32) -> String {
    let reply = call(connection, &format!("GETRANGE key:{key} 0 0"));
    reply.lines().nth(1).unwrap_or_default().to_owned()
}

#[test]
fn without_an_append_only_file_a_kill_goes_back_to_the_last_save() {
    let mut server = Server::ferrite(&[&["--aof.enabled", "false", "--workers", "2"], TINY].concat());
    let mut connection = server.connect();
    let started: u64 = call(&mut connection, "LASTSAVE")[1..].trim_end().parse().expect("a time");
    assert_eq!(field(&mut connection, "rdb_saves"), "0");
    fill(&mut connection, 1);
    call(&mut connection, "SET soon 1 PX 2500");
    call(&mut connection, "SELECT 3");
    call(&mut connection, "HSET hash field value");
    call(&mut connection, "SELECT 0");
    assert_eq!(field(&mut connection, "rdb_changes_since_last_save"), "302");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(call(&mut connection, "SAVE"), "+OK\r\n");
    let saved: u64 = call(&mut connection, "LASTSAVE")[1..].trim_end().parse().expect("a time");
    assert!(saved > started, "{saved} {started}");
    for (name, value) in [
        ("loading", "0"),
        ("rdb_saves", "1"),
        ("rdb_changes_since_last_save", "0"),
        ("rdb_last_bgsave_status", "ok"),
        ("rdb_bgsave_in_progress", "0"),
        ("rdb_current_bgsave_time_sec", "-1"),
        ("rdb_last_bgsave_time_sec", "0"),
    ] {
        assert_eq!(field(&mut connection, name), value, "{name}");
    }
    assert_eq!(field(&mut connection, "rdb_last_save_time"), saved.to_string());
    fill(&mut connection, 2);
    server.kill();
    assert_checks(&server);
    server.restart();
    let mut connection = server.connect();
    assert_eq!(field(&mut connection, "rdb_last_load_keys_loaded"), "302");
    assert_eq!(field(&mut connection, "rdb_changes_since_last_save"), "0");
    assert!((0..300).all(|key| round_of(&mut connection, key) == "1"));
    // Nobody reads it: the active cycle knows of it, though its record lies on disk.
    until("the expiry of a key in the checkpoint", || call(&mut connection, "DBSIZE") == ":300\r\n");
    call(&mut connection, "SELECT 3");
    assert_eq!(call(&mut connection, "HGETALL hash"), "*2\r\n$5\r\nfield\r\n$5\r\nvalue\r\n");
    assert_eq!(call(&mut connection, "DBSIZE"), ":1\r\n");
}

/// A long string, a hash of many fields and a key of more than a mebibyte.
struct Large {
    string: String,
    key: String,
    fields: usize,
}

impl Large {
    fn new() -> Self {
        let string = (0..5 << 20).map(|at: u32| char::from(b'a' + (at % 251 % 26) as u8)).collect();
        Self { string, key: "k".repeat(1 << 20), fields: 10_000 }
    }

    fn put(&self, connection: &mut Connection) {
        assert_eq!(call(connection, &format!("SET large {}", self.string)), "+OK\r\n");
        assert_eq!(call(connection, &format!("SET {} value", self.key)), "+OK\r\n");
        for first in (0..self.fields).step_by(1000) {
            let pairs: Vec<String> =
                (first..first + 1000).map(|field| format!("field:{field} value:{field}")).collect();
            assert_eq!(call(connection, &format!("HSET hash {}", pairs.join(" "))), ":1000\r\n");
        }
    }

    fn check(&self, connection: &mut Connection) {
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        assert!(call(connection, "GET large") == bulk(&self.string));
        assert_eq!(call(connection, &format!("GET {}", self.key)), "$5\r\nvalue\r\n");
        assert_eq!(call(connection, "HLEN hash"), format!(":{}\r\n", self.fields));
        for field in 0..self.fields {
            if field % 97 == 0 {
                assert_eq!(call(connection, &format!("HGET hash field:{field}")), bulk(&format!("value:{field}")));
            }
        }
        assert_eq!(call(connection, "DBSIZE"), ":3\r\n");
    }
}

#[test]
fn a_checkpoint_has_large_values() {
    for aof in ["false", "true"] {
        let mut server = Server::ferrite(&[&["--aof.enabled", aof, "--workers", "2"], TINY].concat());
        let mut connection = server.connect();
        let large = Large::new();
        large.put(&mut connection);
        assert_eq!(call(&mut connection, "SAVE"), "+OK\r\n");
        // After the save, and gone with the kill if there is nothing but the checkpoint.
        assert_eq!(call(&mut connection, "HSET hash field:0 later"), ":0\r\n");
        assert_eq!(call(&mut connection, "DEL large"), ":1\r\n");
        if aof == "true" {
            assert_eq!(call(&mut connection, "HSET hash field:0 value:0"), ":0\r\n");
            assert_eq!(call(&mut connection, &format!("SET large {}", large.string)), "+OK\r\n");
            // What is acknowledged under `everysec` may be lost for a second.
            std::thread::sleep(Duration::from_millis(1500));
        }
        for _ in 0..2 {
            server.kill();
            assert_checks(&server);
            server.restart();
            large.check(&mut server.connect());
        }
        // Nothing is left of what was replaced: checkpoints without the values give their space back.
        let mut connection = server.connect();
        assert_eq!(call(&mut connection, "FLUSHALL"), "+OK\r\n");
        for _ in 0..2 {
            assert_eq!(call(&mut connection, "SAVE"), "+OK\r\n");
        }
        server.kill();
        assert_checks(&server);
        server.restart();
        assert_eq!(call(&mut server.connect(), "DBSIZE"), ":0\r\n");
        let extents = std::fs::metadata(server.data().join("hybrid.extents")).expect("it is there").len();
        assert!(extents <= 1 << 20, "{extents} bytes for nothing");
    }
}

#[test]
fn a_large_hash_changes_while_a_checkpoint_is_taken() {
    let mut server = Server::ferrite(&[&["--aof.enabled", "false", "--workers", "2"], TINY].concat());
    let mut connection = server.connect();
    let large = Large::new();
    large.put(&mut connection);
    let mut rounds = 0;
    for save in 1..=3 {
        assert_eq!(call(&mut connection, "BGSAVE"), "+Background saving started\r\n");
        let is_saved = |connection: &mut Connection| field(connection, "rdb_saves") == save.to_string();
        // All of these fields have the number of a round, the first one or two that of the round under way.
        while !is_saved(&mut connection) {
            rounds += 1;
            for field in 0..10 {
                assert_eq!(call(&mut connection, &format!("HSET hash field:{field} {rounds}")), ":0\r\n");
            }
        }
    }
    assert!(rounds > 3, "{rounds} rounds beside three checkpoints");
    server.kill();
    assert_checks(&server);
    server.restart();
    let mut connection = server.connect();
    let mut value = |field: usize| -> Option<i64> {
        call(&mut connection, &format!("HGET hash field:{field}")).lines().nth(1).and_then(|text| text.parse().ok())
    };
    let found: Vec<i64> = (0..10).map(|field| value(field).expect("a round")).collect();
    assert!(found[0] - found[9] <= 1 && found.is_sorted_by(|a, b| a >= b), "the state of one moment: {found:?}");
    assert!((10..10_000).step_by(53).all(|field| value(field).is_none()), "the others have what they had");
    assert_eq!(call(&mut connection, "HLEN hash"), ":10000\r\n");
}

#[test]
fn bgsave_answers_as_redis_does() {
    let server = Server::ferrite(&[]);
    let mut connection = server.connect();
    // A walk of many buckets takes its time: the others come while it runs.
    for line in ["BGSAVE now", "BGSAVE SCHEDULE 1"] {
        assert_eq!(call(&mut connection, line), "-ERR syntax error\r\n");
    }
    assert_eq!(call(&mut connection, "SAVE 1"), "-ERR wrong number of arguments for 'save' command\r\n");
    let mut replies = connection.call(&["BGSAVE"]).expect("it answers");
    assert_eq!(String::from_utf8_lossy(&replies), "+Background saving started\r\n");
    replies = connection.call(&["BGSAVE"]).expect("it answers");
    assert_eq!(String::from_utf8_lossy(&replies), "-ERR Background save already in progress\r\n");
    assert_eq!(call(&mut connection, "SAVE"), "-ERR Background save already in progress\r\n");
    until("the end of the save", || field(&mut connection, "rdb_saves") == "1");
    assert_eq!(call(&mut connection, "MULTI"), "+OK\r\n");
    assert_eq!(call(&mut connection, "SAVE"), "-ERR Command not allowed inside a transaction\r\n");
    assert!(call(&mut connection, "EXEC").starts_with("-EXECABORT"));
    call(&mut connection, "MULTI");
    assert_eq!(call(&mut connection, "BGSAVE"), "+QUEUED\r\n");
    assert_eq!(call(&mut connection, "EXEC"), "*1\r\n+Background saving scheduled\r\n");
    until("the end of the save", || field(&mut connection, "rdb_saves") == "2");
    assert!(call(&mut connection, "BGREWRITEAOF").starts_with("+Background append only file rewriting started"));
    let reply = call(&mut connection, "BGSAVE SCHEDULE");
    assert!(reply == "+Background saving scheduled\r\n" || reply == "+Background saving started\r\n", "{reply}");
    until("the end of the save", || field(&mut connection, "rdb_saves") == "3");
}

#[test]
fn save_points_save_by_themselves_and_at_the_end() {
    let mut server = Server::ferrite(&["--aof.enabled", "false"]);
    let mut connection = server.connect();
    assert_eq!(call(&mut connection, "CONFIG GET save"), "*2\r\n$4\r\nsave\r\n$0\r\n\r\n");
    assert!(call(&mut connection, "CONFIG SET save 1").starts_with("-ERR CONFIG SET failed"));
    let set = connection.call(&["CONFIG", "SET", "save", "1 2 3600 1"]).expect("it answers");
    assert_eq!(set, b"+OK\r\n");
    call(&mut connection, "SET a 1");
    call(&mut connection, "SET b 1");
    until("a save by itself", || field(&mut connection, "rdb_saves") == "1");
    call(&mut connection, "SET c 1");
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log());
    server.restart();
    let mut connection = server.connect();
    assert_eq!(call(&mut connection, "DBSIZE"), ":3\r\n", "with save points SIGTERM saves");
    call(&mut connection, "SET d 1");
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log());
    server.restart();
    let mut connection = server.connect();
    assert_eq!(call(&mut connection, "DBSIZE"), ":3\r\n", "without it does not");
    call(&mut connection, "SET d 1");
    // No reply comes.
    assert!(connection.call(&["SHUTDOWN", "SAVE"]).is_err());
    // A first signal changes nothing any more: this waits for the end.
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log());
    server.restart();
    let mut connection = server.connect();
    assert_eq!(call(&mut connection, "DBSIZE"), ":4\r\n", "SHUTDOWN SAVE does");
}

#[test]
fn a_checkpoint_shortens_the_append_only_file_and_what_came_after_is_replayed() {
    let mut server = Server::ferrite(&[&["--aof.appendfsync", "always"], TINY].concat());
    for round in 1..=4 {
        let mut connection = server.connect();
        fill(&mut connection, round);
        assert_eq!(call(&mut connection, "SAVE"), "+OK\r\n");
        for key in 0..50 {
            call(&mut connection, &format!("DEL key:{key}"));
        }
        if round == 3 {
            let size: u64 = field(&mut connection, "aof_current_size").parse().expect("bytes");
            // Under `always` and one client each command takes a sector: three rounds of 350 have gone by.
            assert!(size < 2 * 350 * 512, "two checkpoints are kept, and what came after the older: {size}");
        }
        server.kill();
        assert_checks(&server);
        server.restart();
        let mut connection = server.connect();
        assert_eq!(field(&mut connection, "rdb_last_load_keys_loaded"), "300");
        assert_eq!(call(&mut connection, "DBSIZE"), ":250\r\n");
        assert!((50..300).all(|key| round_of(&mut connection, key) == round.to_string()));
    }
}
