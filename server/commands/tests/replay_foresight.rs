//! A start applies effects without a wait for each: what they will ask the disk for is known before the first of them.

mod harness;

use ferrite_hybridlog::ByteStrings;
use ferrite_hybridlog::aof::Effect;
use ferrite_io_real::{DiskChoice, RealWorld, Runtime};
use ferrite_keyspace::{Foresight, Keyspace, Lent, Pause};
use harness::{Node, words};

/// Keys of which the first ones are on disk by the end.
const KEYS: usize = 200;

/// What a replay's view is made of.
macro_rules! lent {
    ($node:ident, $pinned:ident) => {
        Lent {
            pinned: &$pinned,
            held: &$node.held,
            trace: &mut $node.trace,
            databases: &$node.databases,
            aof: None,
            scratch: &mut $node.scratch,
            now_ms: 0,
        }
    };
}

fn foreseen(node: &mut Node, effects: &[Effect<'_>]) -> Vec<u64> {
    let mut foresight = Foresight::default();
    let mut pinned = node.worker.pin();
    let exclusive = pinned.exclusive();
    effects.iter().for_each(|&effect| Keyspace::new(lent!(node, exclusive), 0).foresee(effect, &mut foresight));
    foresight.cold.retain(|&address| node.held.get(address).is_none());
    foresight.cold
}

fn replay(node: &mut Node, effect: Effect<'_>) -> Result<(), Pause> {
    let mut pinned = node.worker.pin();
    let exclusive = pinned.exclusive();
    Keyspace::new(lent!(node, exclusive), 0).replay(effect)
}

/// Reads what was foreseen until nothing is missing; how much that was.
async fn read_ahead(node: &mut Node, effects: &[Effect<'_>]) -> usize {
    let mut reads = 0;
    loop {
        let cold = foreseen(node, effects);
        if cold.is_empty() {
            return reads;
        }
        reads += cold.len();
        node.wait(Pause::Headers(cold), std::iter::empty()).await;
    }
}

async fn no_effect_waits(world: RealWorld, path: std::path::PathBuf) {
    let mut node = Node::new(&world, &path.join("log"), 4).await;
    for n in 0..KEYS {
        node.run(0, &words(&format!("SET key:{n} {}", "x".repeat(200)))).await;
        if n == 50 {
            node.run(0, &words("HSET hash field value")).await;
        }
    }
    node.settle().await;
    let names: Vec<Vec<u8>> = (0..KEYS).map(|n| format!("key:{n}").into_bytes()).collect();
    let expire_at_ms = 1 << 50;
    let changes: Vec<Effect<'_>> = names[..40]
        .iter()
        .enumerate()
        .map(|(n, key)| match n % 2 {
            0 => Effect::Delete { db: 0, key },
            _ => Effect::Expire { db: 0, key, expire_at_ms },
        })
        .chain([Effect::FlushDb { db: 1 }, Effect::SwapDb { a: 1, b: 2 }, Effect::Delete { db: 0, key: b"nothing" }])
        .collect();
    let reads = read_ahead(&mut node, &changes).await;
    assert!((40..60).contains(&reads), "{reads} reads");
    for &effect in &changes {
        replay(&mut node, effect).expect("nothing is missing");
    }
    assert_eq!((node.databases.keys(0), node.databases.expires(0)), (KEYS as u64 + 1 - 20, 20));

    // What is overwritten is not read as long as there is room for notes of that.
    node.held.clear();
    let sets: Vec<Effect<'_>> =
        names[40..80].iter().map(|key| Effect::Set { db: 0, key, value: b"new", expire_at_ms: 0 }).collect();
    assert_eq!(foreseen(&mut node, &sets), []);
    node.databases.unseen.set_max(30);
    assert_eq!(foreseen(&mut node, &sets).len(), 10);
    read_ahead(&mut node, &sets).await;
    for &effect in &sets {
        replay(&mut node, effect).expect("nothing is missing");
    }
    assert_eq!(node.databases.unseen.figures().pending, 30);
    // A change of one field has to know the others.
    node.databases.unseen.set_max(100);
    let hash = Effect::HashSet { db: 0, key: b"hash", pairs: ByteStrings::trusted(&[]) };
    assert_eq!(foreseen(&mut node, &[hash]).len(), 1);
    node.settle().await;
    assert_eq!(node.databases.keys(0), KEYS as u64 + 1 - 20);
    for n in 0..KEYS {
        let expected = match n {
            0..40 if n % 2 == 0 => b"$-1\r\n".to_vec(),
            40..80 => b"$3\r\nnew\r\n".to_vec(),
            _ => format!("$200\r\n{}\r\n", "x".repeat(200)).into_bytes(),
        };
        assert_eq!(node.run(0, &words(&format!("GET key:{n}"))).await, expected, "{n}");
    }
}

#[test]
fn what_effects_ask_the_disk_for_is_known_before_they_are_applied() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = Runtime::new(DiskChoice::IoThreads).expect("a runtime");
    let path = dir.path().to_owned();
    runtime.block_on(|world| no_effect_waits(world, path)).expect("no task failed");
}
