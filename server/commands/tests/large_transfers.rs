//! RENAME, MOVE and COPY of large values: what they append, what they leave, what a replay makes of it, and that the accounts are right
//! after each of them. And parts of large strings that are read alone.

mod harness;
mod replaying;

use ferrite_hybridlog::Held;
use ferrite_hybridlog::datadir::{DataDirConfig, open_data_dir};
use ferrite_io_real::{DiskChoice, RealWorld, Runtime};
use ferrite_keyspace::key_bytes;
use harness::{Node, words};
use replaying::{begin_aof, replay};

const NOW_MS: u64 = 1_700_000_000_000;
const FIELDS: usize = 5000;

async fn run(node: &mut Node, command: &str) -> String {
    String::from_utf8(node.run(NOW_MS, &words(command)).await).expect("the test's values are ASCII")
}

/// What the counters say of the keys' bytes is what a look at all keys finds.
async fn check_accounts(node: &mut Node, what: &str) {
    node.settle().await;
    let mut held = Held::default();
    let found = loop {
        let mut found = 0;
        let scanned = node.worker.pin().scan(0, usize::MAX, 0, true, &held, &mut |record| {
            found += key_bytes(record.size, record.expire_at_ms);
        });
        match scanned {
            Ok(_) => break found,
            Err(cold) => {
                for address in cold {
                    held.insert(address, node.device.read_record(address).await.expect("a record").record);
                }
            }
        }
    };
    assert_eq!(found as u64, node.databases.data_bytes(), "{what}");
}

fn push_out() -> Vec<String> {
    (0..100).map(|n| format!("SET key:pad:{n} {}", "p".repeat(3900))).collect()
}

async fn transfers(world: RealWorld, path: std::path::PathBuf) {
    let mut node = Node::new(&world, &path.join("first.log"), 64).await;
    let config = DataDirConfig::new(path.join("data"));
    let (dir, aof, _) = begin_aof(&world, &config, &mut node).await;
    let fields: Vec<String> = (0..FIELDS).map(|n| format!("field:{n} value:{n}")).collect();
    for some in fields.chunks(500) {
        run(&mut node, &format!("HSET key:hash {}", some.join(" "))).await;
    }
    run(&mut node, &format!("SET key:string {} PX 100000", "s".repeat(300_000))).await;
    run(&mut node, &format!("SET key:inline {} PX 100000", "i".repeat(3800))).await;
    run(&mut node, "PEXPIRE key:hash 200000").await;
    let commands = [
        ("RENAME key:hash key:hash2", "+OK"),
        ("COPY key:hash2 key:hash", ":1"),
        ("HSET key:hash2 field:7 changed", ":0"),
        ("HDEL key:hash field:8", ":1"),
        ("COPY key:hash key:hash2 REPLACE", ":1"),
        ("MOVE key:hash2 1", ":1"),
        ("COPY key:hash key:hash DB 2", ":1"),
        ("RENAMENX key:string key:string2", ":1"),
        ("APPEND key:string2 !", ":300001"),
        ("COPY key:string2 key:string", ":1"),
        ("SETRANGE key:string 5 other", ":300001"),
        ("RENAME key:string key:hash", "+OK"),
        ("MOVE key:hash 1", ":1"),
        ("RENAME key:string2 key:string", "+OK"),
        ("MULTI", "+OK"),
        ("COPY key:string key:string2", "+QUEUED"),
        ("RENAME key:string2 key:string3", "+QUEUED"),
        ("APPEND key:string3 ?", "+QUEUED"),
        ("EXEC", "*3\r\n:1\r\n+OK\r\n:300002"),
        ("DEL key:string3", ":1"),
        ("COPY key:hash key:nothing", ":0"),
        ("SELECT 1", "+OK"),
        ("RENAME key:hash key:string", "+OK"),
        ("RENAME key:hash2 key:hash", "+OK"),
        ("MOVE key:hash 0", ":1"),
        ("SELECT 0", "+OK"),
        ("COPY key:inline key:inline2", ":1"),
    ];
    for round in 0..3 {
        for (command, expected) in commands {
            let (position, tail) = (aof.position(), node.store.stats().tail);
            let reply = run(&mut node, command).await;
            assert_eq!(reply.trim_end(), expected, "{command} in round {round}");
            let (appended, log) = (aof.position() - position, node.store.stats().tail - tail);
            // A value in its record costs a replay less than a read of where it comes from.
            let most = if command.contains("inline") { 4000 } else { 300 };
            assert!(appended < most, "{command} appended {appended} bytes in round {round}");
            assert!(log < 3 * 4096, "{command}: {log} bytes of log in round {round}");
            if !command.contains("QUEUED") && node.session.db == 0 && round == 1 {
                check_accounts(&mut node, command).await;
            }
        }
        assert_eq!(run(&mut node, "PTTL key:hash").await, ":200000\r\n");
        assert_eq!(run(&mut node, "HLEN key:hash").await, format!(":{}\r\n", FIELDS - 1));
        assert_eq!(run(&mut node, "GETRANGE key:string 299998 -1").await, "$3\r\nss!\r\n");
        // As it was before the first round.
        for command in ["HSET key:hash field:8 value:8", "SELECT 1", "DEL key:string", "SELECT 2", "DEL key:hash"] {
            run(&mut node, command).await;
        }
        run(&mut node, "SELECT 0").await;
        run(&mut node, "DEL key:inline2").await;
        run(&mut node, "SETRANGE key:string 300000 s").await;
        run(&mut node, &format!("SET key:string {} PX 100000", "s".repeat(300_000))).await;
        for command in push_out() {
            run(&mut node, &command).await;
        }
        check_accounts(&mut node, "all on disk").await;
        let stats = node.store.stats();
        assert_eq!(
            (stats.extents, stats.object_bytes),
            (2, 0),
            "the hash and the string, and nothing of what was before"
        );
    }
    for (command, _) in &commands[..21] {
        run(&mut node, command).await;
    }
    aof.close().await.expect("a clean end");
    drop(dir);
    let mut again = Node::new(&world, &path.join("again.log"), 12).await;
    let replayed = &mut again;
    open_data_dir(&world, &config, async |effect| replay(replayed, effect).await).await.expect("a replay");
    check_accounts(&mut again, "after a replay").await;
    for db in 0..3 {
        let dbs = format!("SELECT {db}");
        assert_eq!(run(&mut again, &dbs).await, run(&mut node, &dbs).await);
        assert_eq!(run(&mut again, "DBSIZE").await, run(&mut node, "DBSIZE").await, "database {db}");
        for name in ["hash", "hash2", "string", "string2", "string3", "inline", "inline2"] {
            for command in ["GET", "HGETALL", "PEXPIRETIME", "OBJECT ENCODING"] {
                let command = format!("{command} key:{name}");
                let (got, expected) = (run(&mut again, &command).await, run(&mut node, &command).await);
                let same = got == expected;
                assert!(same, "{command} in {db}");
            }
        }
    }
}

#[test]
fn large_values_under_another_key_cost_the_append_only_file_their_names() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = Runtime::new(DiskChoice::IoThreads).expect("a runtime");
    let path = dir.path().to_owned();
    runtime.block_on(|world| transfers(world, path)).expect("no task failed");
}

/// GETRANGE, SUBSTR and STRLEN of a string on disk: what they reply, and what they read.
async fn parts(world: RealWorld, path: std::path::PathBuf) {
    let mut node = Node::new(&world, &path.join("log"), 16).await;
    let value: String = (0..500_000).map(|at| char::from(b'a' + (at * 7 % 26) as u8)).collect();
    run(&mut node, &format!("SET key:string {value} PX 100000")).await;
    run(&mut node, &format!("SET key:short {} PX 100000", &value[..30_000])).await;
    let fields: Vec<String> = (0..2000).map(|n| format!("field:{n} value:{n}")).collect();
    run(&mut node, &format!("HSET key:hash {}", fields.join(" "))).await;
    for command in push_out() {
        run(&mut node, &command).await;
    }
    let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
    let bulk = |part: &str| format!("${}\r\n{part}\r\n", part.len());
    for (command, expected, objects, reads) in [
        ("STRLEN key:string", ":500000\r\n".to_owned(), 0, 1),
        ("STRLEN key:short", ":30000\r\n".to_owned(), 0, 1),
        ("STRLEN key:hash", wrong.to_owned(), 0, 1),
        ("GETRANGE key:hash 0 5", wrong.to_owned(), 0, 1),
        ("GETRANGE key:string 0 9", bulk(&value[..10]), 0, 3),
        ("GETRANGE key:string -5 -1", bulk(&value[499_995..]), 0, 3),
        ("SUBSTR key:string 65530 65540", bulk(&value[65_530..65_541]), 0, 3),
        ("GETRANGE key:string 5 4", bulk(""), 0, 1),
        ("GETRANGE key:string 100000 499999", bulk(&value[100_000..]), 0, 3),
        // What has one piece is read whole.
        ("GETRANGE key:short 100 109", bulk(&value[100..110]), 1, 2),
        // What is not written, or refused, needs no value.
        ("SETRANGE key:string 7 ", ":500000\r\n".to_owned(), 0, 1),
        ("SETRANGE key:hash 7 x", wrong.to_owned(), 0, 1),
        ("APPEND key:hash x", wrong.to_owned(), 0, 1),
        // The record says it all.
        ("TYPE key:hash", "+hash\r\n".to_owned(), 0, 1),
        ("EXISTS key:string key:hash key:none", ":2\r\n".to_owned(), 0, 2),
        ("PTTL key:string", ":100000\r\n".to_owned(), 0, 1),
        ("EXPIRETIME key:hash", ":-1\r\n".to_owned(), 0, 1),
        ("DEL key:hash", ":1\r\n".to_owned(), 0, 1),
        ("GET key:string", bulk(&value), 1, 2),
        ("SETRANGE key:string 0 A", ":500000\r\n".to_owned(), 1, 3),
    ] {
        let before = node.store.stats();
        assert_eq!(run(&mut node, command).await, expected, "{command}");
        let after = node.store.stats();
        assert_eq!(after.object_reads - before.object_reads, objects, "{command}");
        assert!(after.disk_reads - before.disk_reads <= reads + objects, "{command}");
    }
    // Its time has come: there is no such key, and it is deleted.
    let reply = node.run(NOW_MS + 200_000, &words("GETRANGE key:string 0 9")).await;
    assert_eq!(reply, b"$0\r\n\r\n");
    assert_eq!(node.run(NOW_MS + 200_000, &words("STRLEN key:short")).await, b":0\r\n");
}

#[test]
fn a_part_of_a_large_string_on_disk_is_read_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = Runtime::new(DiskChoice::IoThreads).expect("a runtime");
    let path = dir.path().to_owned();
    runtime.block_on(|world| parts(world, path)).expect("no task failed");
}
