//! The admin port in the simulated World: the page, read over the network beside the commands that it counts.

use std::net::SocketAddr;
use std::time::Duration;

use ferrite_io::{Clock, Network, World};
use ferrite_node::config::AppendFsync;
use ferrite_sim::client::RawClient;
use ferrite_sim::resp::Reply;
use ferrite_sim::server::{config, serve};
use ferrite_sim::{FaultPlan, Scenario, ScenarioFuture, Sim, SimWorld, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SCRAPED: Scenario = Scenario {
    name: "scraped",
    about: "what /metrics counts is what the client did",
    faults: |plan| FaultPlan { net_split: plan.net_split, net_delay: plan.net_delay, ..FaultPlan::none() },
    marks: &[],
    run: |sim| -> ScenarioFuture { Box::pin(scraped(sim)) },
};

async fn scraped(sim: Sim) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    let admin = SocketAddr::new(server.ip(), 9090);
    server.spawn(move |world| {
        let mut config = config(address, AppendFsync::Always);
        config.admin.enabled = true;
        (config.admin.bind, config.admin.port) = (admin.ip(), admin.port());
        config.server.workers = 2;
        serve(world, config)
    });
    let task = sim.add_host("client").spawn(move |world| async move {
        let mut client = RawClient::connect_when_up(&world, address).await;
        for number in 1..=50 {
            assert_eq!(client.ask(&format!("SET key:{} v", number % 7)).await, Reply::ok());
        }
        // A batch is counted when its replies are on their way.
        world.clock().sleep(Duration::from_millis(100)).await;
        let page = page(&world, admin, "/metrics").await;
        for line in ["ferrite_commands_total{command=\"SET\"} 50", "ferrite_keys_total{db=\"0\"} 7"] {
            assert!(page.lines().any(|of_it| of_it == line), "{line} in {page}");
        }
        assert!(self::page(&world, admin, "/healthz").await.ends_with("ok\n"));
    });
    task.await.expect("the client's host stays up");
}

async fn page(world: &SimWorld, admin: SocketAddr, path: &str) -> String {
    let mut stream = world.network().connect(admin).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", admin.ip());
    stream.write_all(request.as_bytes()).await.expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the server answers");
    answer
}

#[test]
fn a_scrape_tells_what_was_done_and_a_seed_has_one_history() {
    for seed in 0..4 {
        let (first, second) = (run(seed, &SCRAPED), run(seed, &SCRAPED));
        first.expect_success();
        assert_eq!((first.hash, first.last_events), (second.hash, second.last_events), "seed {seed}");
    }
}
