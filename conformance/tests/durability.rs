//! kill -9 under load: with `appendfsync always` no acknowledged write is lost.

#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::time::Duration;

use ferrite_conformance::process::Server;
use ferrite_conformance::wire::Connection;

const CLIENTS: usize = 4;
const KILLS: usize = 5;
/// Keys of each client: few, so that each is overwritten, deleted and made anew.
const KEYS: u64 = 20;

/// What a client knows of its keys: the last acknowledged write, and the one under way.
#[derive(Default)]
struct Known {
    /// Key to value; `None` is deleted.
    acknowledged: BTreeMap<u64, Option<u64>>,
    /// Sent, but not answered when the server died: it may or may not have happened.
    in_doubt: Option<(u64, Option<u64>)>,
    counter: i64,
    writes: u64,
}

fn key(client: usize, key: u64) -> String {
    format!("client:{client}:{key}")
}

/// Long enough that tiny regions move most keys to disk.
fn text(value: u64) -> String {
    format!("{value}:{}", "v".repeat(300))
}

/// Writes until the server dies.
fn write_until_the_end(connection: &mut Connection, client: usize, known: &mut Known) {
    loop {
        known.writes += 1;
        let n = known.writes;
        let (at, value) = (n * 7 % KEYS, (!n.is_multiple_of(5)).then_some(n));
        known.in_doubt = Some((at, value));
        let name = key(client, at);
        let reply = match value {
            Some(value) => connection.call(&["SET", &name, &text(value)]),
            None => connection.call(&["DEL", &name]),
        };
        let Ok(reply) = reply else { return };
        assert!(!reply.starts_with(b"-"), "{}", reply.escape_ascii());
        known.acknowledged.insert(at, value);
        known.in_doubt = None;
        let Ok(reply) = connection.call(&["INCR", &format!("counter:{client}")]) else { return };
        known.counter += 1;
        let counted =
            std::str::from_utf8(&reply).ok().and_then(|text| text.strip_prefix(':')?.trim_end().parse::<i64>().ok());
        assert!(counted.is_some_and(|counted| counted >= known.counter), "{}", reply.escape_ascii());
        known.counter = counted.unwrap_or_default();
    }
}

fn check(server: &Server, client: usize, known: &mut Known) {
    let mut connection = server.connect();
    let bulk = |value: Option<u64>| {
        value.map_or(b"$-1\r\n".to_vec(), |value| {
            let text = text(value);
            format!("${}\r\n{text}\r\n", text.len()).into_bytes()
        })
    };
    for at in 0..KEYS {
        let reply = connection.call(&["GET", &key(client, at)]).expect("GET answers");
        let acknowledged = known.acknowledged.get(&at).copied().flatten();
        if reply == bulk(acknowledged) {
            continue;
        }
        match known.in_doubt {
            Some((doubtful, value)) if doubtful == at && reply == bulk(value) => {
                known.acknowledged.insert(at, value);
            }
            _ => panic!("client {client}, key {at}: {} instead of {acknowledged:?}", reply.escape_ascii()),
        }
    }
    known.in_doubt = None;
    let counter = connection.call(&["INCRBY", &format!("counter:{client}"), "0"]).expect("INCRBY answers");
    let counter: i64 = std::str::from_utf8(&counter[1..]).expect("digits").trim_end().parse().expect("a number");
    // One INCR may have happened whose answer never came.
    assert!(
        counter == known.counter || counter == known.counter + 1,
        "client {client}: {counter}, had {}",
        known.counter
    );
    known.counter = counter;
}

#[test]
fn no_acknowledged_write_is_lost_when_the_process_is_killed() {
    let mut server = Server::ferrite(&[
        "--aof.appendfsync",
        "always",
        "--storage.mutable_region_size_mb",
        "0.015625",
        "--storage.read_only_region_size_mb",
        "0.015625",
        "--workers",
        "2",
    ]);
    let mut known: Vec<Known> = (0..CLIENTS).map(|_| Known::default()).collect();
    for kill in 0..KILLS {
        std::thread::scope(|scope| {
            for (client, known) in known.iter_mut().enumerate() {
                let mut connection = server.connect();
                scope.spawn(move || write_until_the_end(&mut connection, client, known));
            }
            std::thread::sleep(Duration::from_millis(150 + 70 * kill as u64));
            server.kill();
        });
        server.restart();
        for (client, known) in known.iter_mut().enumerate() {
            assert!(known.counter > 0, "client {client} got nothing done");
            check(&server, client, known);
        }
        server.assert_sound();
    }
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
