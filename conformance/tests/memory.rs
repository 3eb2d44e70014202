//! Limits of memory and what is told of it: with Redis's words, and true.

#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ferrite_conformance::process::Server;
use ferrite_conformance::wire::{Connection, elements};

fn pair() -> (Connection, Connection, [Server; 2]) {
    let servers = [Server::ferrite(&["--workers", "1"]), Server::redis(&[])];
    (servers[0].connect(), servers[1].connect(), servers)
}

fn call(connection: &mut Connection, line: &str) -> String {
    let args: Vec<&str> = line.split(' ').collect();
    connection.call(&args).expect("the server answers").escape_ascii().to_string()
}

#[test]
fn limits_are_set_and_refused_as_in_redis() {
    let (mut ferrite, mut redis, _servers) = pair();
    for line in [
        "CONFIG SET maxmemory 100mb",
        "CONFIG SET maxmemory 1gb",
        "CONFIG SET maxmemory -1",
        "CONFIG SET maxmemory 1xb",
        "CONFIG SET maxmemory 1.5mb",
        "CONFIG SET maxmemory 18446744073709551615",
        "CONFIG SET maxmemory 0",
        "CONFIG SET maxmemory-policy volatile-lru",
        "CONFIG SET maxmemory-policy ALLKEYS-random",
        "CONFIG SET maxmemory-policy lru",
        "CONFIG SET maxmemory-samples 0",
        "CONFIG SET maxmemory-samples 7",
        "CONFIG SET maxmemory-samples x",
        "CONFIG SET maxmemory-samples -3",
        "CONFIG SET lfu-log-factor 0",
        "CONFIG SET lfu-log-factor -1",
        "CONFIG SET lfu-log-factor 99999999999",
        "CONFIG SET lfu-decay-time 3",
        "CONFIG SET lfu-decay-time x",
        "CONFIG GET lfu-log-factor",
        "CONFIG GET lfu-decay-time",
        "CONFIG GET maxmemory",
        "CONFIG GET maxmemory-policy",
        "CONFIG GET maxmemory-samples",
    ] {
        let ours = call(&mut ferrite, line);
        // The policy that Redis has not.
        assert_eq!(ours.replace(", spill", ""), call(&mut redis, line), "{line}");
    }
}

#[test]
fn without_memory_writes_are_refused_letter_for_letter() {
    let (mut ferrite, mut redis, _servers) = pair();
    for line in [
        "CONFIG SET maxmemory-policy noeviction",
        "SET k v",
        "HSET h f v",
        "CONFIG SET maxmemory 1",
        "SET k w",
        "SET k w GET",
        "GET k",
        "APPEND k x",
        "INCR n",
        "HSET h f w",
        "HINCRBY h n 1",
        "HGET h f",
        "MSET a 1 b 2",
        "SETRANGE k 0 x",
        "COPY k l",
        "RENAME k l",
        "EXPIRE l 100",
        "GETEX l EX 100",
        "PERSIST l",
        "NOSUCH",
        "SET",
        "MULTI",
        "GET l",
        "DISCARD",
        "MULTI",
        "PING",
        "EXEC",
        "CONFIG SET maxmemory 0",
        "MULTI",
        "SET k v",
        "CONFIG SET maxmemory 1",
        "EXEC",
        "EXISTS k",
        "CONFIG SET maxmemory 1",
        "WATCH l",
        "DEL l h",
        "EXISTS l h",
        "CONFIG SET maxmemory 0",
        "SET k v",
        "CONFIG SET maxmemory-policy volatile-ttl",
        "CONFIG SET maxmemory 1",
        "SET k w",
        "GET k",
        "DBSIZE",
        "CONFIG SET maxmemory-policy allkeys-lfu",
        "GET k",
        "DBSIZE",
    ] {
        assert_eq!(call(&mut ferrite, line), call(&mut redis, line), "{line}");
    }
}

/// EXEC of a transaction that takes memory, when there is none left since it was queued.
#[test]
fn a_transaction_without_memory_is_discarded_as_in_redis() {
    let (mut ferrite, mut redis, servers) = pair();
    let replies = [&mut ferrite, &mut redis].map(|connection| {
        for line in ["CONFIG SET maxmemory-policy noeviction", "SET k v", "MULTI", "SET k w"] {
            call(connection, line);
        }
        connection
    });
    for server in &servers {
        call(&mut server.connect(), "CONFIG SET maxmemory 1");
    }
    let replies =
        replies.map(|connection| [call(connection, "EXEC"), call(connection, "EXEC"), call(connection, "GET k")]);
    assert_eq!(replies[0], replies[1]);
    assert!(replies[0][0].starts_with("-EXECABORT Transaction discarded because of: OOM command"), "{replies:?}");
}

#[test]
fn access_clocks_are_told_as_in_redis() {
    let (mut ferrite, mut redis, _servers) = pair();
    for line in [
        "CONFIG SET maxmemory-policy noeviction",
        "SET k v",
        "OBJECT IDLETIME k",
        "OBJECT FREQ k",
        "OBJECT FREQ missing",
        "OBJECT IDLETIME missing",
        "CONFIG SET maxmemory-policy allkeys-lfu",
        "OBJECT IDLETIME k",
        "DEL k",
        "SET k v",
        "OBJECT FREQ k",
        "CONFIG SET lfu-log-factor 0",
        "GET k",
        "GET k",
        "OBJECT FREQ k",
        "SET k w",
        "TOUCH k",
        "STRLEN k",
        "EXISTS k",
        "TTL k",
        "OBJECT FREQ k",
        "OBJECT FREQ missing",
        "CONFIG SET maxmemory-policy volatile-ttl",
        "OBJECT FREQ k",
    ] {
        assert_eq!(call(&mut ferrite, line), call(&mut redis, line), "{line}");
    }
}

#[test]
fn memory_has_redis_s_fields_and_errors() {
    let (mut ferrite, mut redis, _servers) = pair();
    let fields = |connection: &mut Connection| -> Vec<String> {
        call(connection, "SET k v");
        let reply = connection.call(&["MEMORY", "STATS"]).expect("the server answers");
        let text = String::from_utf8_lossy(&reply).into_owned();
        // Names alone have a dot or a letter at their beginning, and are bulk strings.
        let lines: Vec<&str> = text.split("\r\n").collect();
        lines
            .windows(2)
            .filter(|pair| pair[0].starts_with('$') && pair[1].starts_with(|first: char| first.is_ascii_lowercase()))
            .map(|pair| pair[1].to_owned())
            .collect()
    };
    let (ours, theirs) = (fields(&mut ferrite), fields(&mut redis));
    assert_eq!(ours, theirs);
    assert!(ours.len() > 25, "{ours:?}");
    for line in [
        "MEMORY PURGE",
        "MEMORY PURGE x",
        "MEMORY STATS x",
        "MEMORY USAGE",
        "MEMORY USAGE missing",
        "MEMORY USAGE k SAMPLES",
        "MEMORY USAGE k SAMPLES x",
        "MEMORY USAGE k SAMPLES -1",
        "MEMORY USAGE k x",
        "MEMORY DOCTOR x",
        "MEMORY nosuch",
        "MEMORY",
    ] {
        assert_eq!(call(&mut ferrite, line), call(&mut redis, line), "{line}");
    }
    for line in ["MEMORY DOCTOR", "MEMORY MALLOC-STATS"] {
        let kinds = [call(&mut ferrite, line), call(&mut redis, line)].map(|reply| reply.chars().next());
        assert_eq!(kinds[0], kinds[1], "{line}");
    }
}

fn info(connection: &mut Connection) -> BTreeMap<String, f64> {
    let reply = connection.call(&["INFO", "everything"]).expect("INFO answers");
    let text = String::from_utf8(reply).expect("INFO is text");
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect()
}

/// Sets `count` keys from `first` on, pipelined.
fn set(connection: &mut Connection, first: usize, count: usize, value: &[u8]) {
    for start in (first..first + count).step_by(100) {
        let commands: Vec<Vec<Vec<u8>>> = (start..(start + 100).min(first + count))
            .map(|number| vec![b"SET".to_vec(), format!("key:{number}").into_bytes(), value.to_vec()])
            .collect();
        for reply in connection.pipeline(&commands).expect("SET answers") {
            assert_eq!(reply, b"+OK\r\n", "{}", reply.escape_ascii());
        }
    }
}

#[test]
fn under_every_policy_the_data_stays_below_the_limit_and_watchers_hear_of_it() {
    let mut server = Server::ferrite(&["--workers", "2", "--aof.enabled", "false"]);
    for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random"] {
        let mut connection = server.connect();
        call(&mut connection, "FLUSHALL");
        call(&mut connection, "CONFIG RESETSTAT");
        call(&mut connection, &format!("CONFIG SET maxmemory 1mb maxmemory-policy {policy}"));
        set(&mut connection, 0, 10_000, &[b'v'; 200]);
        let told = info(&mut connection);
        assert!(told["ferrite_data_bytes"] <= (1 << 20) as f64 + 1024.0, "{policy}: {}", told["ferrite_data_bytes"]);
        assert!(told["ferrite_data_bytes"] >= 1_000_000.0, "{policy}: {}", told["ferrite_data_bytes"]);
        let size: f64 = call(&mut connection, "DBSIZE")[1..].trim_end_matches("\\r\\n").parse().expect("a number");
        assert_eq!(told["evicted_keys"], 10_000.0 - size, "{policy}");
        let keys = connection.call(&["KEYS", "*"]).expect("KEYS answers");
        let watched = elements(&keys).expect("an array").pop().expect("a key");
        let name = watched[watched.iter().position(|byte| *byte == b'\n').expect("its length") + 1..].to_vec();
        connection.call(&[b"WATCH".as_slice(), &name[..name.len() - 2]]).expect("WATCH answers");
        // Too little for one key: all go, in the background if no command comes.
        call(&mut server.connect(), "CONFIG SET maxmemory 100");
        let began = Instant::now();
        while call(&mut server.connect(), "DBSIZE") != ":0\\r\\n" {
            assert!(began.elapsed() < Duration::from_secs(10), "{policy}: keys are left");
        }
        call(&mut connection, "MULTI");
        assert_eq!(call(&mut connection, "EXEC"), "*-1\\r\\n", "{policy}");
        call(&mut connection, "CONFIG SET maxmemory 0");
    }
    server.assert_sound();
}

/// Bytes of a value, and how many of them are more than the log's regions of 96 and 32 MiB hold.
const VALUE: usize = 4000;
const COUNT: usize = 50_000;
/// By how much the accounts may differ from the resident memory: a share of it, and what the allocator keeps of buffers that are
/// gone, which a server of some 100 MB does not make small.
const TOLERANCE: f64 = 0.10;
const KEPT_MAX: f64 = 24e6;
/// Pages that were on their way to the disk are kept for the next ones: a quarter of the mutable region at most, and how many there
/// are when the regions have just been filled is a matter of the disk.
const SPARE: f64 = (24 << 20) as f64;
/// Right after many writes pages are on their way to the disk, with what carries them there.
const SETTLED: Duration = Duration::from_secs(20);

/// Waits until INFO is as it should be; gives it.
fn settled(connection: &mut Connection, holds: impl Fn(&BTreeMap<String, f64>) -> bool) -> BTreeMap<String, f64> {
    let began = Instant::now();
    loop {
        let told = info(connection);
        if holds(&told) {
            return told;
        }
        assert!(began.elapsed() < SETTLED, "{told:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn accounts_for_the_resident(told: &BTreeMap<String, f64>) -> bool {
    let (used, resident) = (told["used_memory"], told["used_memory_rss"]);
    (used - resident).abs() <= TOLERANCE * resident + KEPT_MAX
}

#[test]
fn the_accounts_are_the_resident_memory_and_do_not_grow_at_constant_data() {
    let mut server = Server::ferrite(&[
        "--workers",
        "2",
        "--storage.mutable_region_size_mb",
        "96",
        "--storage.read_only_region_size_mb",
        "32",
    ]);
    let mut connection = server.connect();
    set(&mut connection, 0, COUNT / 4, &[b'v'; VALUE]);
    settled(&mut connection, accounts_for_the_resident);
    set(&mut connection, COUNT / 4, COUNT * 3 / 4, &[b'v'; VALUE]);
    // The append-only file keeps buffers as large as the largest group that has waited for the disk: a matter of the load.
    let held = |told: &BTreeMap<String, f64>| told["used_memory"] - told["mem_aof_buffer"];
    let full = held(&settled(&mut connection, accounts_for_the_resident));
    for round in 0..3u8 {
        set(&mut connection, 0, COUNT, &[b'a' + round; VALUE]);
        let told =
            settled(&mut connection, |told| accounts_for_the_resident(told) && held(told) <= 1.05 * full + SPARE);
        assert!(told["used_memory_peak"] >= told["used_memory"]);
    }
    server.assert_sound();
}

/// Under `spill` nothing goes: the regions shrink, and the disk has the rest.
#[test]
fn memory_itself_shrinks_to_the_limit_and_every_key_stays() {
    let mut server = Server::ferrite(&[
        "--workers",
        "2",
        "--storage.mutable_region_size_mb",
        "96",
        "--storage.read_only_region_size_mb",
        "32",
        "--storage.page_size",
        "1mb",
    ]);
    let mut connection = server.connect();
    set(&mut connection, 0, COUNT, &[b'v'; VALUE]);
    assert!(info(&mut connection)["used_memory"] > 110e6);
    let max = f64::from(64 << 20);
    assert_eq!(call(&mut connection, "CONFIG SET maxmemory 64mb"), "+OK\\r\\n");
    // What was being flushed, and buffers of the append-only file, leave by and by.
    settled(&mut connection, |told| {
        told["used_memory"] <= max && told["used_memory_rss"] <= (1.0 + TOLERANCE) * max + KEPT_MAX
    });
    set(&mut connection, COUNT, COUNT / 4, &[b'v'; VALUE]);
    // While data is written there are copies of pages on their way, and buffers, until the budget has been looked at again.
    let told = settled(&mut connection, |told| told["used_memory"] <= 1.1 * max);
    assert_eq!((told["evicted_keys"], call(&mut connection, "DBSIZE")), (0.0, format!(":{}\\r\\n", COUNT * 5 / 4)));
    for number in (0..COUNT * 5 / 4).step_by(997) {
        let reply = connection.call(&["GET", &format!("key:{number}")]).expect("GET answers");
        assert_eq!(reply.len(), VALUE + "$4000\r\n\r\n".len(), "key:{number}");
    }
    server.assert_sound();
}
