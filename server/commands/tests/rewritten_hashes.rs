//! Large hashes are taken into the base of a rewritten append-only file piece by piece, while commands change them.

mod harness;
mod replaying;
mod walking;

use ferrite_hybridlog::datadir::{DataDirConfig, open_data_dir};
use ferrite_io_real::{DiskChoice, RealWorld, Runtime};
use ferrite_keyspace::{PIECE_BYTES, PIECE_FIELDS};
use harness::{Node, words};
use replaying::{begin_aof, replay};
use walking::Walk;

const NOW_MS: u64 = 1_700_000_000_000;
const KEYS: usize = 5;
const FIELDS: usize = 6 * PIECE_FIELDS;
/// What a step may append beside the fields: keys, lengths, numbers.
const OVERHEAD: usize = 16 << 10;

async fn run(node: &mut Node, command: &str) -> String {
    String::from_utf8(node.run(NOW_MS, &words(command)).await).expect("the test's values are ASCII")
}

async fn fill(node: &mut Node, key: usize) {
    let fields: Vec<String> = (0..FIELDS).map(|n| format!("field:{n} value:{key}:{n}")).collect();
    for some in fields.chunks(512) {
        run(node, &format!("HSET key:{key} {}", some.join(" "))).await;
    }
}

/// What may happen to a hash of which some pieces are in the base.
fn change(turn: usize) -> Vec<String> {
    let (key, other, field) = (turn % KEYS, (turn + 2) % KEYS, turn * 37 % FIELDS);
    match turn % 9 {
        0 => vec![format!("HSET key:{key} field:{field} changed:{turn} new:{turn} value")],
        1 => vec![format!("HDEL key:{key} field:{field}")],
        // To the end of the hash.
        2 => vec![format!("HDEL key:{key} field:{field}"), format!("HSET key:{key} field:{field} again:{turn}")],
        3 => vec![format!("RENAME key:{key} key:spare"), format!("COPY key:{other} key:{key}")],
        4 => vec![format!("DEL key:{key}"), format!("HSET key:{key} short hash")],
        5 => vec![format!("COPY key:{other} key:{key} REPLACE"), format!("HDEL key:{key} field:0 field:1")],
        6 => vec![format!("PEXPIRE key:{key} 100000")],
        7 => vec![format!("SET key:{key} string")],
        // So much that most is on disk then.
        _ => (0..60).map(|n| format!("SET pad:{n} {}", "p".repeat(3900))).collect(),
    }
}

async fn rewrites(world: RealWorld, path: std::path::PathBuf, changes_every: usize) {
    let mut node = Node::new(&world, &path.join("first.log"), 64).await;
    let config = DataDirConfig::new(path.join("data"));
    let (dir, aof, rewriter) = begin_aof(&world, &config, &mut node).await;
    let mut turn = 0;
    for _ in 0..4 {
        for key in 0..KEYS {
            run(&mut node, &format!("DEL key:{key}")).await;
            fill(&mut node, key).await;
        }
        let mut walk = Walk::begin(&rewriter, &mut node).await;
        let mut steps = 0;
        while !walk.step(&mut node).await {
            // The bucket of several of them has their first pieces.
            assert!(walk.bytes <= KEYS * (PIECE_BYTES + OVERHEAD), "a step made {} bytes", walk.bytes);
            steps += 1;
            if steps % changes_every == 0 {
                for command in change(turn) {
                    run(&mut node, &command).await;
                }
                turn += 1;
            }
        }
        assert!(steps > KEYS, "{steps} steps");
        walk.finish().await;
    }
    assert!(turn > 9, "{turn} changes");
    aof.close().await.expect("a clean end");
    drop(dir);
    let mut again = Node::new(&world, &path.join("again.log"), 64).await;
    let replayed = &mut again;
    open_data_dir(&world, &config, async |effect| replay(replayed, effect).await).await.expect("a replay");
    again.settle().await;
    assert_eq!(run(&mut again, "DBSIZE").await, run(&mut node, "DBSIZE").await);
    for name in (0..KEYS).map(|key| key.to_string()).chain(["spare".to_owned()]) {
        for command in ["GET", "HGETALL", "PEXPIRETIME"] {
            let command = format!("{command} key:{name}");
            let (got, expected) = (run(&mut again, &command).await, run(&mut node, &command).await);
            assert!(got == expected, "{command}: {} bytes and not {}", got.len(), expected.len());
        }
    }
}

#[test]
fn what_changes_between_two_pieces_is_as_it_was_left_after_a_replay() {
    let runtime = Runtime::new(DiskChoice::IoThreads).expect("a runtime");
    for changes_every in [1, 2, 5] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().to_owned();
        runtime.block_on(|world| rewrites(world, path, changes_every)).expect("no task failed");
    }
}
