//! The same commands on a store where most keys are on disk, and on one where all are in memory, reply the same; and what
//! the append-only file then holds is the same data again.

mod harness;
mod replaying;
mod walking;

use ferrite_hybridlog::Found;
use ferrite_hybridlog::Held;
use ferrite_hybridlog::aof::Effect;
use ferrite_hybridlog::datadir::{DataDirConfig, open_data_dir};
use ferrite_io_real::{DiskChoice, RealWorld, Runtime};
use ferrite_keyspace::Policy;
use ferrite_telemetry::TraceBuffer;
use harness::{Node, words};
use replaying::{begin_aof, replay};
use walking::Walk;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) % n
    }

    fn command(&mut self) -> String {
        let mut key = || format!("key:{}", self.below(300));
        let (a, b, c) = (key(), key(), key());
        let value = ["x", "yz"][self.below(2) as usize].repeat(self.below(300) as usize + 1);
        let ms = 1 + self.below(5000);
        match self.below(42) {
            0..=5 => format!("SET {a} {value}"),
            6 => format!("SET {a} {value} PX {ms} GET"),
            7..=9 => format!("GET {a}"),
            10 => format!("MGET {a} {b} {c}"),
            11 => format!("MSET {a} {value} {b} 5 {c} {value}"),
            12 => format!("MSETNX {a} {value} {b} 5"),
            13 => format!("APPEND {a} {value}"),
            14 => format!("SETRANGE {a} {} {value}", self.below(50)),
            15 => format!("INCRBY {a} {ms}"),
            16 => format!("DEL {a} {b}"),
            17 => format!("GETDEL {a}"),
            18 => format!("PEXPIRE {a} {ms}"),
            19 => format!("PERSIST {a}"),
            20 => format!("RENAME {a} {b}"),
            21 => format!("COPY {a} {b} DB 1 REPLACE"),
            22 => format!("MOVE {a} {}", self.below(3)),
            23 => format!("EXISTS {a} {b} {c}"),
            24 => format!("PEXPIRETIME {a}"),
            25 => "DBSIZE".to_owned(),
            26 => format!("WATCH {a} {b}"),
            27 => format!("SELECT {}", self.below(8).saturating_sub(5)),
            28 => ["SWAPDB 0 1", "UNWATCH", "FLUSHDB"][(self.below(11) / 5) as usize].to_owned(),
            29 => format!("KEYS key:{}*", self.below(15)),
            _ => self.hash_command(),
        }
    }

    fn hash_command(&mut self) -> String {
        let key = format!("key:{}", self.below(150));
        let mut field = || format!("f{}", self.below(8));
        let (a, b, c) = (field(), field(), field());
        let value = ["x", "yz"][self.below(2) as usize].repeat(self.below(80) as usize + 1);
        match self.below(16) {
            0..=4 => format!("HSET {key} {a} {value}"),
            5..=6 => format!("HSET {key} {a} 5 {b} {value} {c} {value}"),
            7 => format!("HSETNX {key} {a} {value}"),
            8..=9 => format!("HDEL {key} {a} {b} {c}"),
            10 => format!("HINCRBY {key} {a} 7"),
            11 => format!("HINCRBYFLOAT {key} {a} 0.5"),
            12 => format!("HGET {key} {a}"),
            13 => format!("HMGET {key} {a} {b} {c}"),
            14 => format!("HSCAN {key} 0 COUNT 3"),
            _ => format!("HGETALL {key}"),
        }
    }
}

/// The order of KEYS is nobody's promise.
fn normal(command: &str, reply: Vec<u8>) -> String {
    let reply = String::from_utf8(reply).expect("the test's values are ASCII");
    if !["KEYS", "EXEC"].iter().any(|name| command.starts_with(name)) {
        return reply;
    }
    let mut lines: Vec<&str> = reply.split("\r\n").collect();
    lines.sort_unstable();
    lines.join(" ")
}

const NOW_MS: u64 = 1_700_000_000_000;

async fn compare(world: RealWorld, path: std::path::PathBuf, seed: u64) {
    let mut cold = Node::new(&world, &path.join("cold.log"), 6).await;
    let mut warm = Node::new(&world, &path.join("warm.log"), 4096).await;
    let config = DataDirConfig::new(path.join("data"));
    let (dir, aof, rewriter) = begin_aof(&world, &config, &mut cold).await;

    let mut random = Random(seed);
    let mut now_ms = NOW_MS;
    let mut walk = None;
    let mut rewritten = 0;
    for turn in 0..1500 {
        now_ms += random.below(20);
        if turn % 300 == 100 {
            walk = Some(Walk::begin(&rewriter, &mut cold).await);
        }
        if random.below(3) == 0
            && let Some(started) = &mut walk
            && started.step(&mut cold).await
        {
            walk.take().expect("it was there").finish().await;
            rewritten += 1;
        }
        let mut commands = vec![random.command()];
        if random.below(12) == 0 {
            commands.insert(0, "MULTI".to_owned());
            commands.extend((0..random.below(4)).map(|_| random.command()).filter(|next| !next.starts_with("WATCH")));
            commands.push("EXEC".to_owned());
        }
        if random.below(20) == 0 {
            cold.settle().await;
        }
        for command in &commands {
            let words = words(command);
            let got = normal(command, cold.run(now_ms, &words).await);
            let expected = normal(command, warm.run(now_ms, &words).await);
            assert_eq!(got, expected, "{command}");
        }
    }
    assert!(rewritten >= 3, "only {rewritten} rewrites came to their end");
    cold.settle().await;
    let overwrites = cold.databases.unseen.figures();
    // What only changes a part of a string is read.
    assert!(overwrites.settled > 3, "{overwrites:?}");
    for db in 0..3 {
        assert_eq!(cold.databases.keys(db), warm.databases.keys(db));
        assert_eq!(cold.databases.expires(db), warm.databases.expires(db));
    }
    assert!(cold.disk_reads > 300, "only {} reads from disk", cold.disk_reads);
    assert_eq!(warm.disk_reads, 0);

    aof.close().await.expect("a clean end");
    drop(dir);
    let mut replayed = Node::new(&world, &path.join("replayed.log"), 6).await;
    let replayed_cell = &mut replayed;
    open_data_dir(&world, &config, async |effect| replay(replayed_cell, effect).await).await.expect("a replay");
    replayed.settle().await;
    let overwrites = replayed.databases.unseen.figures();
    // What only changes a part of a string is read.
    assert!(overwrites.settled > 3, "{overwrites:?}");
    for db in 0..3 {
        assert_eq!(replayed.databases.keys(db), cold.databases.keys(db));
        assert_eq!(replayed.databases.expires(db), cold.databases.expires(db));
        let select = words(&format!("SELECT {db}"));
        replayed.run(now_ms, &select).await;
        warm.run(now_ms, &select).await;
        for key in 0..150 {
            for command in ["GET", "HGETALL", "OBJECT ENCODING", "PEXPIRETIME"] {
                let command = format!("{command} key:{key}");
                let words = words(&command);
                let got = normal(&command, replayed.run(now_ms, &words).await);
                assert_eq!(got, normal(&command, warm.run(now_ms, &words).await), "{command} in {db}");
            }
        }
    }
}

/// Random commands on few keys, and when.
fn hash_commands(seed: u64) -> Vec<(u64, String)> {
    let mut random = Random(seed);
    let mut now_ms = NOW_MS;
    let mut command = || {
        now_ms += random.below(20);
        let (a, b) = (random.below(6), random.below(6));
        let command = match random.below(12) {
            0 => format!("DEL key:{a}"),
            1 => format!("SET key:{a} string"),
            2 => format!("PEXPIRE key:{a} {}", 1 + random.below(300)),
            3 => format!("RENAME key:{a} key:{b}"),
            4 => format!("COPY key:{a} key:{b} REPLACE"),
            5 => match random.below(3) {
                0 => format!("SET key:{a} {}", "long".repeat(20 + 2000 * random.below(2) as usize)),
                1 => format!("APPEND key:{a} {}", "tail".repeat(1 + random.below(3) as usize)),
                _ => format!("SETRANGE key:{a} {} part", random.below(100)),
            },
            _ => {
                let command = random.hash_command();
                let rest = command.splitn(3, ' ').nth(2).unwrap_or_default();
                format!("{} key:{a} {rest}", command.split(' ').next().expect("a name")).trim_end().to_owned()
            }
        };
        (now_ms, command)
    };
    (0..400).map(|_| command()).collect()
}

/// The effects that commands leave while a base is made of what the keys hold.
async fn effects_of(world: &RealWorld, path: &std::path::Path, commands: &[(u64, String)]) -> Vec<Vec<u8>> {
    let mut node = Node::new(world, &path.join("first.log"), 64).await;
    let config = DataDirConfig::new(path.join("data"));
    let (dir, aof, rewriter) = begin_aof(world, &config, &mut node).await;
    let base = rewriter.begin().await.expect("a base");
    for (now_ms, command) in commands {
        node.run(*now_ms, &words(command)).await;
    }
    base.abandon().await;
    aof.close().await.expect("a clean end");
    drop(dir);
    let mut effects = Vec::new();
    let collect = async |effect: Effect<'_>| {
        let mut bytes = Vec::new();
        effect.encode_into(&mut bytes);
        effects.push(bytes);
        Ok::<(), String>(())
    };
    open_data_dir(world, &config, collect).await.expect("a replay");
    effects
}

/// The content of the keys, before anything has expired.
async fn content(node: &mut Node) -> Vec<String> {
    let mut found = vec![format!("{}", node.databases.keys(0)), format!("{}", node.databases.expires(0))];
    for key in 0..6 {
        for command in ["TYPE", "GET", "PEXPIRETIME", "HGETALL"] {
            let reply = node.run(0, &words(&format!("{command} key:{key}"))).await;
            found.push(String::from_utf8(reply).expect("ASCII"));
        }
    }
    found
}

/// What a rewrite of the append-only file relies on: it takes the data key by key while commands go on, and the effects
/// since its beginning are applied to what it has taken.
async fn replay_over_later_states(world: RealWorld, path: std::path::PathBuf, seed: u64) {
    let effects = effects_of(&world, &path, &hash_commands(seed)).await;
    assert!(effects.len() > 200, "only {} effects", effects.len());
    let mut random = Random(seed);
    let mut node = Node::new(&world, &path.join("again.log"), 64).await;
    for bytes in &effects {
        replay(&mut node, Effect::decode(bytes).expect("an effect").0).await.expect("applied");
    }
    let expected = content(&mut node).await;
    for _ in 0..20 {
        let first = random.below(effects.len() as u64) as usize;
        for bytes in &effects[first..] {
            replay(&mut node, Effect::decode(bytes).expect("an effect").0).await.expect("applied");
        }
        assert_eq!(content(&mut node).await, expected, "from effect {first} of {}", effects.len());
    }
}

/// A field that was deleted and set again lies behind all others; what was added since lies behind it.
async fn replay_keeps_order(world: RealWorld, path: std::path::PathBuf, len: usize) {
    let value = "v".repeat(len);
    let lines = [
        format!("HSET key:0 a {value} c {value} d {value}"),
        "HDEL key:0 c".to_owned(),
        "HSET key:0 c 1".to_owned(),
        format!("HSET key:0 d 2 e {value} e 3 f {value}"),
        "HINCRBY key:0 c 4".to_owned(),
    ];
    let effects = effects_of(&world, &path, &lines.map(|line| (NOW_MS, line))).await;
    assert_eq!(effects.len(), 5);
    let mut node = Node::new(&world, &path.join("again.log"), 64).await;
    for first in 0..effects.len() {
        for bytes in &effects[first..] {
            replay(&mut node, Effect::decode(bytes).expect("an effect").0).await.expect("applied");
        }
        let fields = node.run(0, &words("HKEYS key:0")).await;
        assert_eq!(fields, b"*5\r\n$1\r\na\r\n$1\r\nd\r\n$1\r\nc\r\n$1\r\ne\r\n$1\r\nf\r\n", "from effect {first}");
        let values = node.run(0, &words("HMGET key:0 c d e")).await;
        assert_eq!(values, b"*3\r\n$1\r\n5\r\n$1\r\n2\r\n$1\r\n3\r\n", "from effect {first}");
    }
}

#[test]
fn fields_keep_their_order_when_effects_are_replayed_over_a_later_state() {
    // In a record, and as an object.
    for len in [1, 3000] {
        let dir = tempfile::tempdir().expect("a directory");
        let runtime = Runtime::new(DiskChoice::IoThreads).expect("a runtime");
        let path = dir.path().to_owned();
        runtime.block_on(move |world| replay_keeps_order(world, path, len)).expect("no task failed");
    }
}

/// A policy that goes by accesses needs to see them: a read brings the record back to where it can be changed.
async fn read_under_lru(world: RealWorld, path: std::path::PathBuf) {
    use std::sync::atomic::Ordering::Relaxed;
    let mut node = Node::new(&world, &path.join("lru.log"), 2).await;
    let tier = |node: &Node| {
        let pinned = node.worker.pin();
        let key = pinned.key(0, b"hot");
        let _latch = pinned.latch(key.hash, false);
        match pinned.find(&key, &Held::default(), &mut TraceBuffer::new(|| 0)) {
            Found::Record(record) => Some(record.tier),
            Found::Missing | Found::Cold(_) => None,
        }
    };
    for policy in [Policy::Spill, Policy::AllkeysLru, Policy::VolatileLfu] {
        node.databases.limits.set_policy(policy);
        node.databases.limits.maxmemory.store(1 << 30, Relaxed);
        node.run(0, &words("SET hot 1")).await;
        node.run(0, &words("APPEND hot 2345678")).await;
        for filler in 0..40 {
            node.run(0, &words(&format!("SET filler:{filler} {}", "x".repeat(900)))).await;
        }
        assert_eq!(tier(&node), None, "it lies on disk");
        assert_eq!(node.run(0, &words("GET hot")).await, b"$8\r\n12345678\r\n");
        let expected = if policy == Policy::Spill { None } else { Some(ferrite_telemetry::Tier::Mutable) };
        assert_eq!(tier(&node), expected, "{policy:?}");
        let mut sum = 0;
        for key in (0..40).map(|filler| format!("filler:{filler}")).chain(["hot".to_owned()]) {
            let reply = node.run(0, &words(&format!("MEMORY USAGE {key}"))).await;
            sum += String::from_utf8_lossy(&reply[1..]).trim().parse::<u64>().expect("a number");
        }
        node.settle().await;
        assert_eq!(node.databases.data_bytes(), sum, "{policy:?}");
    }
}

#[test]
fn a_read_under_an_lru_policy_brings_the_record_back_into_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = Runtime::new(DiskChoice::IoThreads).expect("a runtime");
    let path = dir.path().to_owned();
    runtime.block_on(|world| read_under_lru(world, path)).expect("no task failed");
}

const FIELDS: usize = 30_000;

/// A hash of many fields: what a change of one of them writes, in memory and read back from disk; and what a replay makes of it.
async fn one_field_of_many(world: RealWorld, path: std::path::PathBuf) {
    let mut node = Node::new(&world, &path.join("first.log"), 64).await;
    let config = DataDirConfig::new(path.join("data"));
    let (dir, aof, _) = begin_aof(&world, &config, &mut node).await;
    let fields: Vec<String> = (0..FIELDS).map(|n| format!("field:{n} value:{n}")).collect();
    for some in fields.chunks(500) {
        let reply = node.run(NOW_MS, &words(&format!("HSET large {}", some.join(" ")))).await;
        assert_eq!(reply, b":500\r\n");
    }
    let changes = [
        ("HSET large field:7 new", ":0\r\n"),
        ("HSET large another 5", ":1\r\n"),
        ("HINCRBY large another 5", ":10\r\n"),
        ("HDEL large field:8 nothing", ":1\r\n"),
        ("HSET large field:8 again", ":1\r\n"),
        ("HDEL large another", ":1\r\n"),
    ];
    for round in 0..3 {
        for (at, (command, expected)) in changes.into_iter().enumerate() {
            let (position, tail) = (aof.position(), node.store.stats().tail);
            assert_eq!(node.run(NOW_MS, &words(command)).await, expected.as_bytes(), "{command}");
            let (appended, log) = (aof.position() - position, node.store.stats().tail - tail);
            assert!(appended < 80, "{command} appended {appended} bytes");
            // The first change after the way to disk makes a record, of the key and a descriptor.
            assert!(log <= if round > 0 && at == 0 { 4096 + 80 } else { 0 }, "{command}: {log} bytes of log");
        }
        for n in 0..100 {
            node.run(NOW_MS, &words(&format!("SET pad:{n} {}", "p".repeat(3900)))).await;
        }
        let reads = node.disk_reads;
        assert_eq!(node.run(NOW_MS, &words("HGET large field:7")).await, b"$3\r\nnew\r\n");
        assert_eq!(node.disk_reads, reads + 1, "it was on disk");
        let (extents, objects) = (node.store.stats().extents, node.store.stats().object_bytes);
        assert_eq!((extents, objects), (1, 0), "what it was before is gone");
    }
    aof.close().await.expect("a clean end");
    drop(dir);
    let mut again = Node::new(&world, &path.join("again.log"), 12).await;
    let replayed = &mut again;
    open_data_dir(&world, &config, async |effect| replay(replayed, effect).await).await.expect("a replay");
    for command in
        ["HLEN large", "HGET large field:8", "HGET large field:29999", "OBJECT ENCODING large", "HGETALL large"]
    {
        let words = words(command);
        let (got, expected) = (again.run(NOW_MS, &words).await, node.run(NOW_MS, &words).await);
        assert_eq!(normal(command, got), normal(command, expected), "{command}");
    }
    assert_eq!(again.run(NOW_MS, &words("DEL large")).await, b":1\r\n");
    assert_eq!((again.store.stats().extents, again.store.stats().object_bytes), (0, 0));
}

/// A string of 300 kilobytes: what a change of a part of it writes, in memory and read back from disk; and what a replay makes
/// of it.
async fn one_part_of_many(world: RealWorld, path: std::path::PathBuf) {
    let mut node = Node::new(&world, &path.join("first.log"), 64).await;
    let config = DataDirConfig::new(path.join("data"));
    let (dir, aof, _) = begin_aof(&world, &config, &mut node).await;
    let mut expected: Vec<u8> = (0..300_000).map(|at| b'a' + (at % 23) as u8).collect();
    let whole = String::from_utf8(expected.clone()).expect("letters");
    assert_eq!(node.run(NOW_MS, &words(&format!("SET large {whole} PX 100000"))).await, b"+OK\r\n");
    // A small one whose effects are small, too.
    node.run(NOW_MS, &words(&format!("SET small {}", "s".repeat(300)))).await;
    for round in 0..3 {
        let len = expected.len();
        let changes = [(7, "SEVEN"), (len, "behind"), (len + 20, "further"), (len - 3, "across-the-end-of-it-all")];
        for (at, (offset, part)) in changes.into_iter().enumerate() {
            let end = expected.len().max(offset + part.len());
            expected.resize(end, 0);
            expected[offset..offset + part.len()].copy_from_slice(part.as_bytes());
            let command = match at {
                1 => format!("APPEND large {part}"),
                _ => format!("SETRANGE large {offset} {part}"),
            };
            let (position, tail) = (aof.position(), node.store.stats().tail);
            assert_eq!(node.run(NOW_MS, &words(&command)).await, format!(":{end}\r\n").into_bytes(), "{command}");
            let (appended, log) = (aof.position() - position, node.store.stats().tail - tail);
            assert!(appended < 100, "{command} appended {appended} bytes");
            // After its way to disk a change makes a record, of the key and a descriptor, and so does one after its page is full.
            assert!(log <= if round > 0 { 4096 + 80 } else { 0 }, "{command}: {log} bytes of log");
            let position = aof.position();
            node.run(NOW_MS, &words("APPEND small x")).await;
            assert!(aof.position() - position < 100, "an append to a small one");
        }
        for n in 0..100 {
            node.run(NOW_MS, &words(&format!("SET pad:{n} {}", "p".repeat(3900)))).await;
        }
        let stats = node.store.stats();
        assert_eq!((stats.extents, stats.object_bytes), (1, 0), "it is on disk, and what it was before is gone");
    }
    let read = [format!("${}\r\n", expected.len()).into_bytes(), expected, b"\r\n".to_vec()].concat();
    assert!(node.run(NOW_MS, &words("GET large")).await == read);
    aof.close().await.expect("a clean end");
    drop(dir);
    let mut again = Node::new(&world, &path.join("again.log"), 12).await;
    let replayed = &mut again;
    open_data_dir(&world, &config, async |effect| replay(replayed, effect).await).await.expect("a replay");
    assert!(again.run(NOW_MS, &words("GET large")).await == read);
    for command in ["PTTL large", "GET small"] {
        let words = words(command);
        assert_eq!(again.run(NOW_MS, &words).await, node.run(NOW_MS, &words).await, "{command}");
    }
}

#[test]
fn a_change_of_a_part_of_a_large_string_writes_its_own_bytes() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = Runtime::new(DiskChoice::IoThreads).expect("a runtime");
    let path = dir.path().to_owned();
    runtime.block_on(|world| one_part_of_many(world, path)).expect("no task failed");
}

#[test]
fn a_change_of_one_field_of_many_writes_its_own_bytes() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = Runtime::new(DiskChoice::IoThreads).expect("a runtime");
    let path = dir.path().to_owned();
    runtime.block_on(|world| one_field_of_many(world, path)).expect("no task failed");
}

#[test]
fn effects_replayed_over_a_later_state_give_that_state() {
    for seed in 1..=3 {
        let dir = tempfile::tempdir().expect("a directory");
        let runtime = Runtime::new(DiskChoice::IoThreads).expect("a runtime");
        let path = dir.path().to_owned();
        runtime.block_on(|world| replay_over_later_states(world, path, seed)).expect("no task failed");
    }
}

#[test]
fn cold_keys_reply_as_warm_ones_and_replay_to_the_same() {
    for seed in 1..=2 {
        let dir = tempfile::tempdir().expect("a directory");
        let runtime = Runtime::new(DiskChoice::IoThreads).expect("a runtime");
        let path = dir.path().to_owned();
        runtime.block_on(|world| compare(world, path, seed)).expect("no task failed");
    }
}
