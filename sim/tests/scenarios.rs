//! Every scenario holds for many seeds, reaches the states it is there for, and fails when a bug is planted.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use ferrite_sim::client::{RawClient, connect_redis};
use ferrite_sim::resp::Reply;
use ferrite_sim::scenarios::{self, toy};
use ferrite_sim::{FaultPlan, Scenario, ScenarioFuture, run, run_with, shrink};

/// Enough for every mark; `cargo sim ci` runs more.
const SEEDS: u64 = 16;

#[test]
fn every_scenario_holds_and_reaches_its_marks() {
    for scenario in scenarios::ALL {
        let mut reached = BTreeSet::new();
        for seed in 100..100 + SEEDS {
            let report = run(seed, scenario);
            report.expect_success();
            reached.extend(report.marks.into_keys());
        }
        for mark in scenario.marks {
            assert!(reached.contains(mark), "{} never reached {mark:?}", scenario.name);
        }
    }
}

#[test]
fn planted_bugs_are_caught() {
    for bug in [toy::Bug::ReplyBeforeSync, toy::Bug::NoChecksum, toy::Bug::NoSyncDir, toy::Bug::OneReplyForgotten] {
        let scenario = toy::power_loss_with(bug);
        let caught = (0..150).map(|seed| run(seed, &scenario)).find(|report| report.failure.is_some());
        let report = caught.unwrap_or_else(|| panic!("{bug:?} was never caught"));
        let text = report.to_string();
        assert!(text.contains(&format!("cargo sim replay --seed {} --scenario toy-with-a-bug", report.seed)), "{text}");
    }
}

#[test]
fn planted_races_are_caught_by_the_order_that_they_break() {
    for bug in [toy::Bug::LostUpdate, toy::Bug::OldRead] {
        let scenario = toy::shared_keys_with(bug);
        let caught = (0..40).map(|seed| run(seed, &scenario)).find(|report| report.failure.is_some());
        let report = caught.unwrap_or_else(|| panic!("{bug:?} was never caught"));
        let text = report.to_string();
        assert!(text.contains("no order of the commands explains connection"), "{bug:?}: {text}");
    }
}

#[test]
fn a_failure_is_shrunk_to_the_commands_that_it_needs() {
    let scenario = toy::shared_keys_with(toy::Bug::LostUpdate);
    let reports = (0..40).map(|seed| run(seed, &scenario));
    let report = reports.into_iter().find(|report| report.failure.is_some()).expect("it is caught");
    let smaller = shrink(&scenario, &report).expect("it has failed");
    let drawn: u64 = smaller.report.drawn.values().sum();
    let left = drawn - smaller.cuts.len() as u64;
    assert!(drawn >= 80 && left <= 6, "{left} of {drawn} commands are left");
    assert!(left >= 2, "one command alone loses no update");
    let again =
        run_with(report.seed, &scenario, smaller.plan, smaller.cuts.to_string().parse().expect("as it was shown"));
    assert_eq!(again.hash, smaller.report.hash);
    assert!(again.failure.is_some());
    assert!(shrink(&scenarios::ALL[0], &run(1, &scenarios::ALL[0])).is_none(), "nothing has failed");
}

#[test]
fn the_real_server_without_syncs_is_caught() {
    let caught = (0..30).any(|seed| run(seed, &scenarios::node::POWER_LOSS_WITHOUT_SYNC).failure.is_some());
    assert!(caught, "acknowledged writes were lost and nobody noticed");
}

const LIBRARY: Scenario = Scenario {
    name: "library",
    about: "the redis crate and raw bytes",
    faults: |plan| FaultPlan { net_reset: false, ..plan.without_disk_errors() },
    marks: &[],
    run: |sim| -> ScenarioFuture { Box::pin(talk(sim)) },
};

async fn talk(sim: ferrite_sim::Sim) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    server.spawn(move |world| toy::START(world, address));
    let client = sim.add_host("client");
    sim.sleep(Duration::from_secs(1)).await;
    let task = client.spawn(move |world| async move {
        let protocol = redis::ProtocolVersion::RESP2;
        let mut connection = connect_redis(&world, address, protocol).await.expect("the server listens");
        let pong: String = redis::cmd("PING").query_async(&mut connection).await.expect("answers");
        assert_eq!(pong, "PONG");
        let () = redis::cmd("SET").arg("k").arg(5).query_async(&mut connection).await.expect("answers");
        let value: i64 = redis::cmd("GET").arg("k").query_async(&mut connection).await.expect("answers");
        assert_eq!(value, 5);

        let mut raw = RawClient::connect(&world, address).await.expect("the server listens");
        raw.send(b"*2\r\n$3\r\nGET\r\n$1\r\nk").await.expect("connected");
        raw.send(b"\r\n").await.expect("connected");
        assert_eq!(raw.read_reply().await.expect("answers"), Reply::Bulk(b"5".to_vec()));
        let reply = raw.command(&["INCRBY", "k", "x"]).await.expect("answers");
        assert_eq!(reply, Reply::Error("ERR value is not an integer or out of range".to_string()));
        raw.half_close().await.expect("connected");
        assert_eq!(raw.read_to_end().await.expect("the server closes in turn"), b"");
    });
    task.await.expect("the client's host stays up");
}

#[test]
fn the_redis_crate_and_raw_bytes_reach_a_server() {
    for seed in 0..30 {
        run(seed, &LIBRARY).expect_success();
    }
}

const FAILING: Scenario = Scenario {
    name: "failing",
    about: "fails",
    faults: |_| FaultPlan::none(),
    marks: &[],
    run: |sim| -> ScenarioFuture {
        Box::pin(async move {
            sim.note("just before");
            sim.add_host("server").spawn(|_| async { panic!("the oracle disagrees") });
            sim.sleep(Duration::from_secs(1)).await;
        })
    },
};

#[test]
fn a_failure_report_names_the_seed_the_place_and_the_last_events() {
    let text = run(7, &FAILING).to_string();
    for part in [
        "failing seed 7 FAILED",
        "just before",
        "the oracle disagrees",
        "tests/scenarios.rs",
        "replay: cargo sim replay --seed 7 --scenario failing",
    ] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}
