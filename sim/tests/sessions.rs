//! What a connection leaves behind: a transaction that could not run, and commands that nobody waits for any more.

use std::net::SocketAddr;
use std::time::Duration;

use ferrite_io::{Clock, World};
use ferrite_node::config::AppendFsync;
use ferrite_sim::client::RawClient;
use ferrite_sim::resp::{Reply, encode_command};
use ferrite_sim::server::{config, serve};
use ferrite_sim::{FaultPlan, Host, Scenario, ScenarioFuture, Sim, SimWorld, run};

fn start(sim: &Sim) -> (Host, SocketAddr) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    server.spawn(move |world| serve(world, config(address, AppendFsync::Everysec)));
    (server, address)
}

const COLD_KEYS: u64 = 60;

/// So many that the first ones are on disk, once the flush has come that far.
async fn write_cold_keys(world: &SimWorld, client: &mut RawClient) {
    for key in 0..COLD_KEYS {
        assert_eq!(client.ask(&format!("SET cold:{key} {}", "v".repeat(900))).await, Reply::ok());
    }
    world.clock().sleep(Duration::from_millis(50)).await;
}

const REFUSED_EXEC: Scenario = Scenario {
    name: "refused-exec",
    about: "a transaction whose keys cannot be read is over",
    faults: |_| FaultPlan::none(),
    marks: &[],
    run: |sim| -> ScenarioFuture { Box::pin(refused_exec(sim)) },
};

async fn refused_exec(sim: Sim) {
    let (server, address) = start(&sim);
    let task = sim.add_host("client").spawn(move |world| async move {
        let mut client = RawClient::connect_when_up(&world, address).await;
        write_cold_keys(&world, &mut client).await;
        server.set_disk_reads_fail(true);
        assert_eq!(client.ask("WATCH other").await, Reply::ok());
        assert_eq!(client.ask("MULTI").await, Reply::ok());
        for line in ["SET other 1", "GET cold:0"] {
            assert_eq!(client.ask(line).await, Reply::Simple("QUEUED".to_owned()));
        }
        let Reply::Error(error) = client.ask("EXEC").await else { panic!("the disk cannot be read") };
        assert!(error.starts_with("ERR reading the log file at address"), "{error}");
        // As after every EXEC of Redis: no transaction is open, nothing is watched, and nothing of it has happened.
        assert_eq!(client.ask("EXISTS other").await, Reply::Int(0));
        assert_eq!(client.ask("EXEC").await, Reply::Error("ERR EXEC without MULTI".to_owned()));
        server.set_disk_reads_fail(false);
        assert_eq!(client.ask("SET other 2").await, Reply::ok());
        assert_eq!(client.ask("MULTI").await, Reply::ok());
        assert_eq!(client.ask("STRLEN cold:0").await, Reply::Simple("QUEUED".to_owned()));
        assert_eq!(client.ask("EXEC").await, Reply::Array(vec![Reply::Int(900)]));
    });
    task.await.expect("the client's host stays up");
}

#[test]
fn a_refused_exec_ends_its_transaction() {
    for seed in 0..4 {
        run(seed, &REFUSED_EXEC).expect_success();
    }
}

const REFUSED_WATCH: Scenario = Scenario {
    name: "refused-watch",
    about: "a WATCH of which one key cannot be read watches none",
    run: |sim| -> ScenarioFuture { Box::pin(refused_watch(sim)) },
    ..REFUSED_EXEC
};

async fn refused_watch(sim: Sim) {
    let (server, address) = start(&sim);
    let task = sim.add_host("client").spawn(move |world| async move {
        let mut client = RawClient::connect_when_up(&world, address).await;
        write_cold_keys(&world, &mut client).await;
        server.set_disk_reads_fail(true);
        let Reply::Error(error) = client.ask("WATCH other cold:0").await else { panic!("it cannot be read") };
        assert!(error.starts_with("ERR reading the log file at address"), "{error}");
        server.set_disk_reads_fail(false);
        for line in ["SET other 1", "MULTI"] {
            assert_eq!(client.ask(line).await, Reply::ok());
        }
        assert_eq!(client.ask("EXEC").await, Reply::Array(Vec::new()));
    });
    task.await.expect("the client's host stays up");
}

#[test]
fn a_refused_watch_watches_nothing() {
    for seed in 0..4 {
        run(seed, &REFUSED_WATCH).expect_success();
    }
}

/// What a second client saw that began when the first one had gone.
const LATE_WRITE_SEEN: &str = "the second client saw the first one's late write";

const ABANDONED: Scenario = Scenario {
    name: "abandoned-pipeline",
    about: "a client goes while its pipeline waits for the disk, and the next one begins at once",
    faults: |_| FaultPlan::none(),
    marks: &[],
    run: |sim| -> ScenarioFuture { Box::pin(abandoned(sim, false)) },
};

const ABANDONED_AND_AWAITED: Scenario = Scenario {
    name: "abandoned-pipeline-awaited",
    about: "the same, but the next one begins when it is the only client",
    run: |sim| -> ScenarioFuture { Box::pin(abandoned(sim, true)) },
    ..ABANDONED
};

async fn abandoned(sim: Sim, wait: bool) {
    let (_server, address) = start(&sim);
    let mut rng = sim.rng("abandoned");
    let seen = sim.clone();
    let task = sim.add_host("client").spawn(move |world| async move {
        let mut first = RawClient::connect_when_up(&world, address).await;
        write_cold_keys(&world, &mut first).await;
        let mut bytes = Vec::new();
        for key in 0..COLD_KEYS / 2 {
            encode_command(&["GET".to_owned(), format!("cold:{key}")], &mut bytes);
        }
        encode_command(&["SETNX", "key", "late"], &mut bytes);
        first.send(&bytes).await.expect("connected");
        madsim::time::sleep(Duration::from_millis(rng.between(1, 2))).await;
        drop(first);

        let mut second = RawClient::connect_when_up(&world, address).await;
        while wait && is_not_alone(&second.ask("CLIENT LIST").await) {
            madsim::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(second.ask("FLUSHALL").await, Reply::ok());
        madsim::time::sleep(Duration::from_millis(rng.between(1, 3))).await;
        let mut bytes = Vec::new();
        encode_command(&["MGET", "key", "other"], &mut bytes);
        encode_command(&["SETNX", "key", "late"], &mut bytes);
        second.send(&bytes).await.expect("connected");
        let Reply::Array(values) = second.read_reply().await.expect("answers") else { panic!("MGET gives an array") };
        let set = second.read_reply().await.expect("answers");
        let late = Reply::Bulk(b"late".to_vec());
        if values == [late.clone(), Reply::Null] {
            seen.sometimes(LATE_WRITE_SEEN);
            assert_eq!(set, Reply::Int(0), "what MGET saw is there");
        } else {
            assert_eq!(values, [Reply::Null, Reply::Null]);
        }
        assert_eq!(second.ask("GET key").await, late);
    });
    task.await.expect("the client's host stays up");
}

fn is_not_alone(list: &Reply) -> bool {
    let Reply::Bulk(list) = list else { panic!("CLIENT LIST gives a string, not {list:?}") };
    list.split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"id=")).count() > 1
}

/// A server finishes what it has received, as Redis does, though the client that sent it has gone: to the next client it looks as
/// if one of its own later commands had run before. Whoever compares replies has to wait for the end of the others.
#[test]
fn an_abandoned_pipeline_is_finished_and_client_list_tells_when() {
    let seen = |scenario: &Scenario| {
        let reports = (0..40).map(|seed| run(seed, scenario));
        reports
            .inspect(|report| report.expect_success())
            .filter(|report| report.marks.contains_key(LATE_WRITE_SEEN))
            .count()
    };
    assert!(seen(&ABANDONED) > 0, "the write came late in no seed");
    assert_eq!(seen(&ABANDONED_AND_AWAITED), 0);
}
