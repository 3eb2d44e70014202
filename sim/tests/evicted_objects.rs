//! Eviction judges a large value by its record alone, and deletes it so.

use std::net::SocketAddr;
use std::time::Duration;

use ferrite_node::config::{AppendFsync, Policy};
use ferrite_sim::client::RawClient;
use ferrite_sim::resp::Reply;
use ferrite_sim::server::{DATA, PAGE_BYTES, config, serve};
use ferrite_sim::{FaultPlan, Scenario, ScenarioFuture, Sim, run};

const KEYS: i64 = 40;

const UNREADABLE: Scenario = Scenario {
    name: "eviction-of-unreadable-objects",
    about: "large values that cannot be read are evicted: nobody asks for what they hold",
    faults: |_| FaultPlan::none(),
    marks: &[],
    run: |sim| -> ScenarioFuture { Box::pin(unreadable(sim)) },
};

async fn unreadable(sim: Sim) {
    let policies = [Policy::AllkeysLru, Policy::AllkeysRandom, Policy::VolatileTtl, Policy::VolatileLfu];
    let policy = policies[sim.seed() as usize % policies.len()];
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    server.spawn(move |world| {
        let mut config = config(address, AppendFsync::No);
        config.server.maxmemory_policy = policy;
        serve(world, config)
    });
    let disk = server.clone();
    let task = sim.add_host("client").spawn(move |world| async move {
        let mut client = RawClient::connect_when_up(&world, address).await;
        for key in 0..KEYS {
            let line = format!("SETEX key:{key} {} {}", 100_000 + key, "v".repeat(2 * PAGE_BYTES));
            assert_eq!(client.ask(&line).await, Reply::ok());
        }
        // So much that those lie on disk.
        for number in 0..100 {
            assert_eq!(client.ask(&format!("SETEX small {} {}", number + 1, "w".repeat(900))).await, Reply::ok());
        }
        madsim::time::sleep(Duration::from_secs(2)).await;
        disk.corrupt(&format!("{DATA}/hybrid.extents"), |bytes| bytes.fill(0xa5));
        let Reply::Error(text) = client.ask("GET key:0").await else { panic!("it cannot be read") };
        assert!(text.contains("checksum") || text.contains("damaged"), "{text}");
        assert_eq!(client.ask("CONFIG SET maxmemory 100").await, Reply::ok());
        madsim::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(client.ask("DBSIZE").await, Reply::Int(0), "under {policy:?}");
    });
    task.await.expect("the client's host stays up");
}

#[test]
fn large_values_are_evicted_without_being_read() {
    for seed in 0..4 {
        run(seed, &UNREADABLE).expect_success();
    }
}
