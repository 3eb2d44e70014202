//! Disk space on the real file system: compaction gives it back, and the quota bounds it.

#![allow(clippy::disallowed_methods)]

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use ferrite_conformance::process::Server;
use ferrite_conformance::wire::Connection;

const MIB: u64 = 1 << 20;
const REGIONS: [&str; 6] =
    ["--workers", "1", "--storage.mutable_region_size_mb", "1", "--storage.read_only_region_size_mb", "1"];

/// What the log's file takes of the disk: holes take nothing.
fn log_bytes(server: &Server) -> u64 {
    std::fs::metadata(server.data().join("hybrid.log")).expect("the log is there").blocks() * 512
}

fn value(key: usize, round: usize) -> Vec<u8> {
    format!("{round}:{key}:{}", "v".repeat(1000)).into_bytes()
}

/// Sets these keys, a hundred a pipeline; gives the first error.
fn set(connection: &mut Connection, keys: impl Iterator<Item = usize>, round: usize) -> Option<String> {
    let keys: Vec<usize> = keys.collect();
    for some in keys.chunks(100) {
        let command = |key: &usize| vec![b"SET".to_vec(), format!("key:{key}").into_bytes(), value(*key, round)];
        let replies = connection.pipeline(&some.iter().map(command).collect::<Vec<_>>()).expect("SET answers");
        if let Some(error) = replies.into_iter().find(|reply| reply[0] == b'-') {
            return Some(String::from_utf8(error).expect("UTF-8"));
        }
    }
    None
}

fn settled(what: &str, mut is: impl FnMut() -> Result<(), String>) {
    let began = Instant::now();
    while let Err(found) = is() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: {found}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn overwriting_the_same_keys_takes_at_most_twice_their_space() {
    let more = ["--aof.enabled", "false", "--storage.auto_compaction_min_size", "1mb"];
    let mut server = Server::ferrite(&[&REGIONS[..], &more].concat());
    let mut connection = server.connect();
    const KEYS: usize = 12_000;
    for round in 0..20 {
        assert_eq!(set(&mut connection, 0..KEYS, round), None);
    }
    let live = (KEYS * value(KEYS, 19).len()) as u64;
    // Twice the data; what is in memory and the floor; what is reserved ahead of the tail.
    let bound = 2 * live + 2 * MIB + MIB + 8 * MIB;
    settled("the log's file", || {
        let bytes = log_bytes(&server);
        if bytes <= bound { Ok(()) } else { Err(format!("{bytes} bytes on disk, {bound} at most")) }
    });
    for key in (0..KEYS).step_by(97) {
        let reply = connection.call(&["GET", &format!("key:{key}")]).expect("GET answers");
        assert!(reply.ends_with(&[&value(key, 19)[..], b"\r\n"].concat()), "key {key}");
    }
    let dbsize = connection.call(&["DBSIZE"]).expect("DBSIZE answers");
    assert_eq!(dbsize, format!(":{KEYS}\r\n").into_bytes());
    server.assert_sound();
}

#[test]
fn the_quota_refuses_writes_until_keys_are_deleted_or_it_is_raised() {
    let more = ["--aof.enabled", "false", "--storage.auto_compaction_min_size", "1mb", "--storage.disk_quota", "24mb"];
    let mut server = Server::ferrite(&[&REGIONS[..], &more].concat());
    let mut connection = server.connect();
    let error = set(&mut connection, 0..60_000, 0).expect("60 MB are more than the quota");
    assert!(error.starts_with("-ERR no space left: the data directory has reached 'disk-quota'"), "{error}");
    // Reads and deletions go on, and make room by and by.
    assert!(connection.call(&["GET", "key:0"]).expect("GET answers").len() > 1000);
    let keys = connection.call(&["DBSIZE"]).expect("DBSIZE answers");
    let keys: usize = String::from_utf8_lossy(&keys[1..]).trim().parse().expect("a number");
    assert!((10_000..30_000).contains(&keys), "{keys}");
    for key in 0..keys * 3 / 4 {
        assert_eq!(connection.call(&["DEL", &format!("key:{key}")]).expect("DEL answers"), b":1\r\n", "key {key}");
    }
    settled("writes", || set(&mut connection, 0..1, 1).map_or(Ok(()), Err));
    assert!(set(&mut connection, 0..60_000, 2).is_some(), "it holds again");
    connection.call(&["CONFIG", "SET", "disk-quota", "0"]).expect("CONFIG SET answers");
    assert_eq!(set(&mut connection, 0..60_000, 3), None);
    server.assert_sound();
}
