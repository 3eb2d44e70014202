//! Compaction comes to rest: without enough to gain it does not run again, however tight the bound.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ferrite_node::config::AppendFsync;
use ferrite_sim::client::RawClient;
use ferrite_sim::resp::Reply;
use ferrite_sim::server::{PAGE_BYTES, config, serve};
use ferrite_sim::{FaultPlan, Scenario, ScenarioFuture, Sim, run};

async fn info(client: &mut RawClient) -> BTreeMap<String, u64> {
    let Reply::Bulk(text) = client.ask("INFO persistence").await else { panic!("a text") };
    let text = String::from_utf8(text).expect("text");
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect()
}

const IDLE: Scenario = Scenario {
    name: "idle-compaction",
    about: "a tight bound, and nobody writes",
    faults: |_| FaultPlan::none(),
    marks: &[],
    run: |sim| -> ScenarioFuture { Box::pin(idle(sim)) },
};

const KEYS: u64 = 150;
/// Then all has been gained that can be.
const SETTLED: Duration = Duration::from_secs(180);
const REST: Duration = Duration::from_secs(600);
/// Runs in the time after that: pages that come to disk late, and those that a checkpoint closes, may bring one.
const RUNS_MAX: u64 = 2;

async fn idle(sim: Sim) {
    let mut rng = sim.rng("idle");
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    let percentage = *rng.pick(&[1, 2, 5, 20]);
    let pages = 1 << rng.below(3);
    server.spawn(move |world| {
        let mut config = config(address, AppendFsync::No);
        config.storage.page_size = pages * PAGE_BYTES as u64;
        config.storage.auto_compaction_min_size = 0;
        config.storage.auto_compaction_percentage = percentage;
        serve(world, config)
    });
    // What fills pages badly: a little more than a half, a third, a quarter of one, or anything.
    let page = pages * PAGE_BYTES as u64;
    let len = *rng.pick(&[page / 2, page / 3, page / 4, 0]);
    let trickles = rng.one_in(2);
    let saves = rng.one_in(2);
    let task = sim.add_host("client").spawn(move |world| async move {
        let mut client = RawClient::connect_when_up(&world, address).await;
        for round in 0..2 {
            for key in 0..KEYS {
                let len = if len == 0 { rng.between(10, page / 2) } else { len };
                let value = format!("{round}:{}", "v".repeat(len as usize));
                assert_eq!(client.ask(&format!("SET key:{key} {value}")).await, Reply::ok());
            }
        }
        if saves {
            assert_eq!(client.ask("SAVE").await, Reply::ok());
        }
        madsim::time::sleep(SETTLED).await;
        let before = info(&mut client).await;
        assert!(before["ferrite_compactions"] > 0, "{before:?}");
        for second in 0..REST.as_secs() {
            if trickles {
                // In place, or nearly: a page in many minutes.
                assert_eq!(client.ask(&format!("SET counter {}", 1_000_000 + second)).await, Reply::ok());
            }
            madsim::time::sleep(Duration::from_secs(1)).await;
        }
        let after = info(&mut client).await;
        let runs = after["ferrite_compactions"] - before["ferrite_compactions"];
        assert!(runs <= RUNS_MAX, "{runs} runs in vain: {after:?}");
    });
    task.await.expect("the client's host stays up");
}

#[test]
fn compaction_does_not_run_where_there_is_nothing_to_gain() {
    // Two of these once ran ten times a second, for ever.
    for seed in 0..12 {
        run(seed, &IDLE).expect_success();
    }
}
