//! The read cache at run time: it saves reads from disk, is resized and turned off, and stays within its account.

use std::collections::BTreeMap;

use ferrite_conformance::process::{Server, TINY};
use ferrite_conformance::wire::Connection;

const KEYS: usize = 2000;

fn call(connection: &mut Connection, line: &str) -> String {
    let args: Vec<&str> = line.split(' ').collect();
    String::from_utf8(connection.call(&args).expect("the server answers")).expect("text")
}

fn number(connection: &mut Connection, field: &str) -> u64 {
    let text = call(connection, "INFO everything");
    let fields: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(':')).collect();
    fields[field].parse().expect("a number")
}

/// Reads some keys; how many reads from disk that took.
fn read(connection: &mut Connection, keys: std::ops::Range<usize>) -> u64 {
    let before = number(connection, "ferrite_disk_reads");
    for key in keys {
        assert_eq!(call(connection, &format!("GET key:{key}")), format!("$504\r\n{key:04}{}\r\n", "v".repeat(500)));
    }
    number(connection, "ferrite_disk_reads") - before
}

#[test]
fn it_saves_reads_and_is_resized_while_the_server_runs() {
    let mut server = Server::ferrite(&[TINY, &["--storage.read_cache_size_mb", "4"]].concat());
    let mut connection = server.connect();
    for key in 0..KEYS {
        assert_eq!(call(&mut connection, &format!("SET key:{key} {key:04}{}", "v".repeat(500))), "+OK\r\n");
    }
    assert_eq!(
        call(&mut connection, "CONFIG GET read-cache-size"),
        "*2\r\n$15\r\nread-cache-size\r\n$7\r\n4194304\r\n"
    );
    assert_eq!(read(&mut connection, 0..100), 100, "they lie on disk");
    assert_eq!(read(&mut connection, 0..100), 0, "the cache has them");
    assert_eq!(number(&mut connection, "ferrite_read_cache_hits"), 100);
    assert_eq!(number(&mut connection, "ferrite_read_cache_records"), 100);
    let bytes = number(&mut connection, "ferrite_memory_read_cache");
    assert!((100 * 550..100 * 700).contains(&bytes), "{bytes}");
    // What is overwritten is never read from it.
    call(&mut connection, &format!("SET key:7 0007{}", "v".repeat(500)));
    call(&mut connection, "APPEND key:8 x");
    assert_eq!(call(&mut connection, "STRLEN key:8"), ":505\r\n");
    call(&mut connection, &format!("SET key:8 0008{}", "v".repeat(500)));
    assert_eq!(read(&mut connection, 0..100), 0);

    assert_eq!(call(&mut connection, "CONFIG SET read-cache-size 64kb"), "+OK\r\n");
    assert!(number(&mut connection, "ferrite_memory_read_cache") <= 64 << 10);
    assert!(read(&mut connection, 500..1500) >= 990);
    assert!(number(&mut connection, "ferrite_memory_read_cache") <= 64 << 10);
    assert_eq!(call(&mut connection, "CONFIG SET read-cache-size 0"), "+OK\r\n");
    assert_eq!(number(&mut connection, "ferrite_memory_read_cache"), 0);
    assert_eq!(read(&mut connection, 500..600), 100);
    assert_eq!(read(&mut connection, 500..600), 100);
    assert_eq!(call(&mut connection, "CONFIG SET read-cache-size 4mb"), "+OK\r\n");
    assert_eq!(read(&mut connection, 500..600) + read(&mut connection, 500..600), 100);
    // An eighth of it.
    assert_eq!(call(&mut connection, "CONFIG SET maxmemory 800kb"), "+OK\r\n");
    assert_eq!(number(&mut connection, "ferrite_read_cache_limit"), 100 << 10);
    assert!(call(&mut connection, "CONFIG SET read-cache-size x").starts_with("-ERR CONFIG SET failed"));
    server.assert_sound();
}
