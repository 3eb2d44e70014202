//! A write that does not need what its key holds on disk does not wait for the disk, however long that takes.

use std::net::SocketAddr;
use std::time::Duration;

use ferrite_node::config::AppendFsync;
use ferrite_sim::client::RawClient;
use ferrite_sim::resp::{Reply, encode_command};
use ferrite_sim::server::{config, serve};
use ferrite_sim::{FaultPlan, Scenario, ScenarioFuture, Sim, run};

const COLD_KEYS: u64 = 60;

const HELD: Scenario = Scenario {
    name: "held-reads",
    about: "no read completes, and writes go on",
    faults: |_| FaultPlan::none(),
    marks: &[],
    run: |sim| -> ScenarioFuture { Box::pin(held(sim)) },
};

async fn held(sim: Sim) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    server.spawn(move |world| serve(world, config(address, AppendFsync::Always)));
    let task = sim.add_host("client").spawn(move |world| async move {
        let (mut writer, mut reader) =
            (RawClient::connect_when_up(&world, address).await, RawClient::connect_when_up(&world, address).await);
        let mut counter = RawClient::connect_when_up(&world, address).await;
        for key in 0..COLD_KEYS {
            assert_eq!(writer.ask(&format!("SET cold:{key} {}", "v".repeat(900))).await, Reply::ok());
        }
        // Deleted on disk: what is written there is new.
        assert_eq!(writer.ask("DEL cold:6").await, Reply::Int(1));
        for key in 0..COLD_KEYS {
            assert_eq!(writer.ask(&format!("SET more:{key} {}", "v".repeat(900))).await, Reply::ok());
        }
        server.set_disk_reads_held(true);
        let send = async |client: &mut RawClient, words: &[&str]| {
            let mut bytes = Vec::new();
            encode_command(words, &mut bytes);
            client.send(&bytes).await.expect("connected");
        };
        // In front of a write in the same buffer: it must not read for that one.
        send(&mut reader, &["GET", "cold:1"]).await;
        for line in ["SET cold:0 new", "SETEX more:2 1000 new", "MSET more:3 new more:4 new", "SET cold:0 newer"] {
            assert_eq!(writer.ask(line).await, Reply::ok(), "{line}");
        }
        assert_eq!(writer.ask("GET cold:0").await, Reply::Bulk(b"newer".to_vec()));
        send(&mut counter, &["DBSIZE"]).await;
        let patience = Duration::from_secs(60);
        assert!(
            madsim::time::timeout(patience, reader.read_reply()).await.is_err(),
            "its neighbour waits for the disk"
        );
        assert!(madsim::time::timeout(patience, counter.read_reply()).await.is_err(), "so does who counts keys");
        let Reply::Bulk(info) = writer.ask("INFO").await else { panic!("a text") };
        let info = String::from_utf8(info).expect("text");
        assert!(
            info.contains("\r\nferrite_unseen_writes_pending:4\r\n"),
            "INFO has something to say meanwhile: {info}"
        );
        // Later than what is being counted, and looked at before: it lies at a lower address.
        assert_eq!(writer.ask("SET cold:6 new").await, Reply::ok());
        server.set_disk_reads_held(false);
        assert_eq!(reader.read_reply().await.expect("answers"), Reply::Bulk(vec![b'v'; 900]));
        let all = 2 * COLD_KEYS as i64;
        assert_eq!(counter.read_reply().await.expect("answers"), Reply::Int(all - 1));
        assert_eq!(writer.ask("DBSIZE").await, Reply::Int(all));
    });
    task.await.expect("the client's host stays up");
}

const CHECKPOINT: Scenario = Scenario {
    name: "checkpoint-of-unseen-writes",
    about: "a checkpoint is taken while no read completes, and the next life counts right",
    faults: |_| FaultPlan::none(),
    marks: &[],
    run: |sim| -> ScenarioFuture { Box::pin(checkpoint(sim)) },
};

async fn checkpoint(sim: Sim) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    let boot = move |world| serve(world, config(address, AppendFsync::Always));
    server.spawn(boot);
    let disk = server.clone();
    let task = sim.add_host("client").spawn(move |world| async move {
        let mut client = RawClient::connect_when_up(&world, address).await;
        for key in 0..COLD_KEYS {
            assert_eq!(client.ask(&format!("SET cold:{key} {} EX 9000", "v".repeat(900))).await, Reply::ok());
        }
        disk.set_disk_reads_held(true);
        for key in 0..5 {
            assert_eq!(client.ask(&format!("SET cold:{key} new")).await, Reply::ok());
        }
        let mut save = Vec::new();
        encode_command(&["SAVE"], &mut save);
        client.send(&save).await.expect("connected");
        // It has taken the counts by now; what it reads itself comes after that.
        madsim::time::sleep(Duration::from_secs(1)).await;
        disk.set_disk_reads_held(false);
        assert_eq!(client.read_reply().await.expect("answers"), Reply::ok());
    });
    task.await.expect("the client's host stays up");
    server.power_loss();
    server.boot();
    server.spawn(boot);
    let task = sim.add_host("next client").spawn(move |world| async move {
        let mut client = RawClient::connect_when_up(&world, address).await;
        assert_eq!(client.ask("DBSIZE").await, Reply::Int(COLD_KEYS as i64));
        let Reply::Bulk(info) = client.ask("INFO keyspace").await else { panic!("a text") };
        let info = String::from_utf8(info).expect("text");
        assert!(info.contains(&format!("keys={COLD_KEYS},expires={},", COLD_KEYS - 5)), "{info}");
        assert_eq!(client.ask("GET cold:1").await, Reply::Bulk(b"new".to_vec()));
    });
    task.await.expect("the client's host stays up");
}

#[test]
fn a_checkpoint_holds_what_writes_have_not_seen() {
    for seed in 0..4 {
        run(seed, &CHECKPOINT).expect_success();
    }
}

#[test]
fn a_write_of_a_cold_key_is_answered_while_no_read_completes() {
    for seed in 0..4 {
        run(seed, &HELD).expect_success();
    }
}
