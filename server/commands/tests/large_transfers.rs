//! RENAME, MOVE and COPY of large values: what they append, what they leave, what a replay makes of it, and that the accounts are right
//! after each of them.

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
