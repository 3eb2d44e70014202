//! Writes that do not need what a key holds do not read it from disk, and the counts come right all the same.

mod harness;

use std::future::Future;
use std::path::PathBuf;

use ferrite_io_real::{DiskChoice, RealWorld, Runtime};
use ferrite_keyspace::look_behind;
use harness::{Node, words};

const NOW_MS: u64 = 1_700_000_000_000;

fn with_node<F: Future<Output = ()>>(test: impl FnOnce(Node) -> F + 'static) {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = Runtime::new(DiskChoice::IoThreads).expect("a runtime");
    let path = dir.path().to_owned();
    let run = async move |world: RealWorld, path: PathBuf| test(Node::new(&world, &path.join("a.log"), 4).await).await;
    runtime.block_on(|world| run(world, path)).expect("no task failed");
}

async fn run(node: &mut Node, command: &str) -> String {
    String::from_utf8(node.run(NOW_MS, &words(command)).await).expect("ASCII")
}

/// Pushes everything that there is to disk.
async fn push_down(node: &mut Node) {
    run(node, "SELECT 2").await;
    for filler in 0..12 {
        run(node, &format!("SET filler:{filler} {}", "x".repeat(3800))).await;
    }
    run(node, "SELECT 0").await;
    node.settle().await;
}

async fn counts(node: &mut Node) -> (u64, u64, u64) {
    node.settle().await;
    let databases = &node.databases;
    (databases.keys(0), databases.expires(0), databases.data_bytes_of(0))
}

#[test]
fn an_overwrite_of_a_cold_key_reads_nothing_and_counts_it_once() {
    with_node(async |mut node| {
        for command in ["SET a 1", "SET b 1 EX 100", "SET c 1", "SET d 1", "SET e 1", "HSET h f v"] {
            run(&mut node, command).await;
        }
        let before = counts(&mut node).await;
        assert_eq!((before.0, before.1), (6, 1));
        push_down(&mut node).await;
        let reads = node.disk_reads;
        for command in [
            "SET a 2",
            "SET a 3",
            "SETEX b 50 2",
            "PSETEX c 5000 2",
            "SET d 2 PXAT 1800000000000",
            "MSET e 2 a 4 new 5",
            "SET h 1",
        ] {
            assert_eq!(run(&mut node, command).await, "+OK\r\n", "{command}");
        }
        assert_eq!(node.disk_reads, reads, "none of them needs to know");
        assert_eq!(run(&mut node, "MGET a e new h").await, "*4\r\n$1\r\n4\r\n$1\r\n2\r\n$1\r\n5\r\n$1\r\n1\r\n");
        assert_eq!(node.disk_reads, reads);
        assert!(node.databases.keys(0) > 7, "they are counted as new at first");
        assert_eq!(run(&mut node, "DBSIZE").await, ":7\r\n");
        assert_eq!(counts(&mut node).await.1, 3);
        let mut sum = 0;
        for key in ["a", "b", "c", "d", "e", "new", "h"] {
            let reply = run(&mut node, &format!("MEMORY USAGE {key}")).await;
            sum += reply[1..].trim().parse::<u64>().expect("a number");
        }
        assert_eq!(counts(&mut node).await.2, sum);
    });
}

#[test]
fn what_must_know_reads_first() {
    with_node(async |mut node| {
        for key in ["a", "b", "c", "d", "e"] {
            run(&mut node, &format!("SET {key} 1 EX 100")).await;
        }
        push_down(&mut node).await;
        for (command, reply) in [
            ("SET a 2 NX", "$-1\r\n"),
            ("SET b 2 XX", "+OK\r\n"),
            ("SET c 2 GET", "$1\r\n1\r\n"),
            ("SET d 2 KEEPTTL", "+OK\r\n"),
            ("SETNX e 2", ":0\r\n"),
        ] {
            let reads = node.disk_reads;
            assert_eq!(run(&mut node, command).await, reply, "{command}");
            assert_eq!(node.disk_reads, reads + 1, "{command}");
        }
        assert!(node.databases.unseen.is_empty());
        assert_eq!(run(&mut node, "TTL d").await, ":100\r\n");
    });
}

#[test]
fn whatever_becomes_of_the_key_before_it_is_looked_at() {
    for (commands, keys, expires) in [
        (&["SET k 2", "DEL k"][..], 0, 0),
        (&["SET k 2", "EXPIRE k 50"], 1, 1),
        (&["SET k 2", "RENAME k j"], 1, 0),
        (&["SET k 2", "FLUSHDB"], 0, 0),
        (&["SET k 2", "FLUSHDB", "SET k 3"], 1, 0),
        (&["SET k 2", "FLUSHALL", "SET k 3"], 1, 0),
        (&["SET k 2", "SWAPDB 0 1", "SET k 3", "SWAPDB 1 0"], 1, 0),
        (&["SET k 2", "SELECT 1", "SWAPDB 0 1", "SELECT 0"], 0, 0),
        (&["SET k 2", "SET k 3 PXAT 1", "GET k"], 0, 0),
        (&["DEL k", "SET k 2"], 1, 0),
    ] {
        with_node(async move |mut node| {
            run(&mut node, "SET k 1 EX 100").await;
            push_down(&mut node).await;
            for command in commands {
                run(&mut node, command).await;
            }
            let found = counts(&mut node).await;
            assert_eq!((found.0, found.1), (keys, expires), "{commands:?}");
            if keys == 0 {
                assert_eq!(found.2, 0, "{commands:?}");
            }
        });
    }
}

#[test]
fn each_of_several_records_on_disk_is_forgotten_once() {
    with_node(async |mut node| {
        run(&mut node, "SET k 1").await;
        for _ in 0..3 {
            // Not looked at in between: `push_down` would.
            for filler in 0..12 {
                run(&mut node, &format!("SET filler:{filler} {}", "x".repeat(3800))).await;
            }
            run(&mut node, "SET k 2").await;
        }
        assert!(node.databases.unseen.figures().pending > 3);
        assert_eq!(counts(&mut node).await.0, 13);
        assert_eq!(run(&mut node, "DEL k").await, ":1\r\n");
        assert_eq!(run(&mut node, "EXISTS k").await, ":0\r\n");
    });
}

#[test]
fn an_overwritten_key_that_had_expired_counts_as_expired() {
    with_node(async |mut node| {
        run(&mut node, "SET k 1 PX 5").await;
        push_down(&mut node).await;
        node.run(NOW_MS + 10, &words("SET k 2")).await;
        node.settle().await;
        assert_eq!(node.databases.figures().expired_keys, 1);
        assert_eq!((node.databases.keys(0), node.databases.expires(0)), (1, 0));
    });
}

#[test]
fn a_large_value_gives_its_extent_back() {
    with_node(async |mut node| {
        run(&mut node, &format!("SET k {}", "x".repeat(10_000))).await;
        push_down(&mut node).await;
        assert_eq!(node.store.stats().extents, 1);
        run(&mut node, "SET k small").await;
        assert_eq!(node.store.stats().extents, 1);
        node.settle().await;
        assert_eq!(node.store.stats().extents, 0);
        assert_eq!(run(&mut node, "DBSIZE").await, ":1\r\n");
    });
}

#[test]
fn a_full_queue_and_a_closed_gate_make_writes_read_first() {
    with_node(async |mut node| {
        for key in ["a", "b", "c", "d"] {
            run(&mut node, &format!("SET {key} 1")).await;
        }
        push_down(&mut node).await;
        node.databases.unseen.set_max(1);
        let reads = node.disk_reads;
        run(&mut node, "SET a 2").await;
        assert_eq!(node.disk_reads, reads);
        run(&mut node, "MSET b 2 c 2").await;
        assert_eq!(node.disk_reads, reads + 2);
        node.databases.unseen.set_max(100);
        let gate = node.databases.unseen.close();
        run(&mut node, "SET d 2").await;
        assert_eq!(node.disk_reads, reads + 3);
        drop(gate);
        assert_eq!(run(&mut node, "DBSIZE").await, ":4\r\n");
    });
}

#[test]
fn a_transaction_that_counts_waits_before_it_begins() {
    with_node(async |mut node| {
        run(&mut node, "SET a 1").await;
        run(&mut node, "SET b 1").await;
        push_down(&mut node).await;
        run(&mut node, "SET a 2").await;
        for command in ["MULTI", "SET b 2", "DBSIZE"] {
            run(&mut node, command).await;
        }
        assert_eq!(run(&mut node, "EXEC").await, "*2\r\n+OK\r\n:2\r\n");
        push_down(&mut node).await;
        let reads = node.disk_reads;
        run(&mut node, "SET a 3").await;
        assert_eq!(node.disk_reads, reads, "the gate is open again");
    });
}

#[test]
fn a_ticket_tells_the_counts_of_its_moment() {
    with_node(async |mut node| {
        for key in ["a", "b", "c"] {
            run(&mut node, &format!("SET {key} 1 EX 100")).await;
        }
        push_down(&mut node).await;
        run(&mut node, "SET a 2").await;
        let ticket = node.databases.unseen.ticket(&node.databases, Some(0));
        assert!(ticket.counts(0).is_none(), "nobody has looked yet");
        run(&mut node, "SET b 2").await;
        run(&mut node, "SET new 2").await;
        run(&mut node, "DEL c").await;
        let mut notes = node.databases.unseen.take(2).await;
        notes.sort_by_key(|(number, _)| *number);
        for (note, still_waits) in notes.into_iter().rev().zip([true, false]) {
            let read = node.device.read_header(note.1.cold).await.expect("the record");
            assert_eq!(look_behind(&node.worker.pin(), &node.databases, note, note.1.cold, &read.record), None);
            assert_eq!(ticket.counts(0).is_none(), still_waits, "what came later is not waited for, nor counted");
        }
        ticket.settled().await;
        let counts = ticket.counts(0).expect("settled").expect("readable");
        assert_eq!((counts.keys, counts.expires), (3, 2));
        assert_eq!((node.databases.keys(0), node.databases.expires(0)), (3, 0));
    });
}

/// A scan reads all records of a chain.
#[test]
fn a_key_that_is_overwritten_on_disk_again_and_again_grows_no_chain() {
    with_node(async |mut node| {
        let mut reads = Vec::new();
        for _ in 0..6 {
            for key in 0..12 {
                run(&mut node, &format!("SET key:{key} {}", "x".repeat(3800))).await;
                // While its record is mutable.
                node.settle().await;
            }
            let before = node.disk_reads;
            assert!(run(&mut node, "KEYS *").await.starts_with("*12\r\n"));
            reads.push(node.disk_reads - before);
        }
        assert!(node.databases.unseen.figures().existed > 50);
        assert!(reads.iter().all(|count| *count <= 12), "more than a record a key: {reads:?}");
    });
}

/// Two keys that share an entry of the index: their records are one chain.
fn neighbours(node: &Node) -> (String, String) {
    let pinned = node.worker.pin();
    let mut seen = std::collections::BTreeMap::new();
    for number in 0.. {
        let key = format!("key:{number}");
        // 64 buckets and a tag of 19 bits.
        let entry = pinned.key(0, key.as_bytes()).hash >> (64 - 25);
        if let Some(other) = seen.insert(entry, key.clone()) {
            return (other, key);
        }
    }
    unreachable!("some keys share an entry")
}

#[test]
fn a_key_is_found_behind_its_neighbour_and_the_neighbour_behind_it() {
    with_node(async |mut node| {
        let (older, newer) = neighbours(&node);
        for key in [&older, &newer] {
            run(&mut node, &format!("SET {key} 1 EX 100")).await;
        }
        push_down(&mut node).await;
        run(&mut node, &format!("SET {older} 2")).await;
        assert_eq!(counts(&mut node).await.0, 2, "it was there, behind the other one");
        push_down(&mut node).await;
        run(&mut node, &format!("SET {newer} 3")).await;
        assert_eq!(counts(&mut node).await.0, 2);
        assert_eq!(run(&mut node, &format!("MGET {older} {newer}")).await, "*2\r\n$1\r\n2\r\n$1\r\n3\r\n");
        // Right in front of its own old record, which the chain leaves out, and not what is behind that.
        push_down(&mut node).await;
        run(&mut node, &format!("SET {newer} 4")).await;
        node.settle().await;
        assert_eq!(run(&mut node, &format!("MGET {older} {newer}")).await, "*2\r\n$1\r\n2\r\n$1\r\n4\r\n");
        assert_eq!(run(&mut node, "DBSIZE").await, ":2\r\n");
    });
}
