//! RANDOMKEY is fair: keys on disk, and keys found while the index grows, come as often as any other.

mod harness;

use std::collections::BTreeMap;

use ferrite_io_real::{DiskChoice, Runtime};
use harness::{Node, words};

const KEYS: usize = 300;
const DRAWS: usize = 6000;

/// The sum of squared deviations from the same count for all, over that count.
fn chi_square(counts: &BTreeMap<String, usize>) -> f64 {
    let expected = counts.values().sum::<usize>() as f64 / KEYS as f64;
    let of_drawn: f64 = counts.values().map(|&count| (count as f64 - expected).powi(2) / expected).sum();
    of_drawn + (KEYS - counts.len()) as f64 * expected
}

/// With as many degrees of freedom, less one, it is as many on average; more than four deviations above is one in 10,000.
fn is_fair(chi_square: f64) -> bool {
    let freedom = (KEYS - 1) as f64;
    chi_square < freedom + 4.0 * (2.0 * freedom).sqrt()
}

async fn draw(node: &mut Node) -> String {
    let reply = node.run(0, &words("RANDOMKEY")).await;
    let text = String::from_utf8(reply).expect("keys are text");
    text.lines().nth(1).expect("a key").to_owned()
}

async fn fill(node: &mut Node, name: &str, from: usize, count: usize) {
    for number in from..from + count {
        let command = format!("SET {name}:{number} {}", "v".repeat(200));
        assert_eq!(node.run(0, &words(&command)).await, b"+OK\r\n");
    }
}

#[test]
fn keys_on_disk_are_drawn_as_often_as_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = Runtime::new(DiskChoice::IoThreads).expect("a runtime");
    let drawn = runtime.block_on(|world| async move {
        let mut node = Node::new(&world, &dir.path().join("log"), 4).await;
        fill(&mut node, "key", 0, KEYS).await;
        let stats = node.store.stats();
        assert!(stats.tail - stats.head < stats.tail / 2, "most keys lie on disk: {stats:?}");
        let mut counts = BTreeMap::new();
        for _ in 0..DRAWS {
            *counts.entry(draw(&mut node).await).or_default() += 1;
        }
        assert!(node.disk_reads > DRAWS / 4, "{} reads", node.disk_reads);
        let chi_square = chi_square(&counts);
        assert!(is_fair(chi_square), "{chi_square} over {KEYS} keys");
    });
    drawn.expect("no task failed");
}

#[test]
fn keys_are_drawn_as_often_while_the_index_grows() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = Runtime::new(DiskChoice::IoThreads).expect("a runtime");
    let drawn = runtime.block_on(|world| async move {
        let mut node = Node::new(&world, &dir.path().join("log"), 4096).await;
        fill(&mut node, "key", 0, KEYS).await;
        let (before, mut added) = (node.store.stats().index_buckets, 0);
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let mut drawn = 0;
        while drawn < DRAWS {
            if added < 6 * KEYS {
                fill(&mut node, "more", added, 1).await;
                added += 1;
            }
            for _ in 0..4 {
                let key = draw(&mut node).await;
                // Those that were there throughout are compared with each other.
                if key.starts_with("key:") {
                    *counts.entry(key).or_default() += 1;
                    drawn += 1;
                }
            }
        }
        let after = node.store.stats().index_buckets;
        assert!(after > 2 * before, "{before} buckets became {after}");
        let chi_square = chi_square(&counts);
        assert!(is_fair(chi_square), "{chi_square} over {KEYS} keys");
    });
    drawn.expect("no task failed");
}
