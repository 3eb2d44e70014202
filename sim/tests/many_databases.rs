//! More databases than sixteen, by configuration.

use std::net::SocketAddr;

use ferrite_node::config::AppendFsync;
use ferrite_sim::client::RawClient;
use ferrite_sim::resp::Reply;
use ferrite_sim::server::{config, serve};
use ferrite_sim::{FaultPlan, Host, Scenario, ScenarioFuture, Sim, run};

const MANY: Scenario = Scenario {
    name: "many-databases",
    about: "64 databases are selected, swapped, emptied and recovered",
    faults: |_| FaultPlan::none(),
    marks: &[],
    run: |sim| -> ScenarioFuture { Box::pin(many(sim)) },
};

async fn many(sim: Sim) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    let boot = move |host: &Host| {
        host.spawn(move |world| {
            let mut config = config(address, AppendFsync::Always);
            config.server.databases = 64;
            serve(world, config)
        })
    };
    boot(&server);
    let client = sim.add_host("client");
    let with_checkpoint = sim.seed().is_multiple_of(2);
    let task = client.spawn(move |world| async move {
        let mut client = RawClient::connect_when_up(&world, address).await;
        let Reply::Error(text) = client.ask("SELECT 64").await else { panic!("there is none") };
        assert!(text.contains("out of range"), "{text}");
        for db in 0..64 {
            assert_eq!(client.ask(&format!("SELECT {db}")).await, Reply::ok());
            assert_eq!(client.ask(&format!("SET of {db}")).await, Reply::ok());
        }
        assert_eq!(client.ask("SWAPDB 0 63").await, Reply::ok());
        if with_checkpoint {
            assert_eq!(client.ask("SAVE").await, Reply::ok());
        }
        assert_eq!(client.ask("SELECT 62").await, Reply::ok());
        assert_eq!(client.ask("FLUSHDB").await, Reply::ok());
        assert_eq!(client.ask("SET after FLUSHDB").await, Reply::ok());
        check(&mut client).await;
    });
    task.await.expect("the client's host stays up");
    server.power_loss();
    sim.sleep(std::time::Duration::from_millis(50)).await;
    server.boot();
    boot(&server);
    let task = client.spawn(move |world| async move {
        check(&mut RawClient::connect_when_up(&world, address).await).await;
    });
    task.await.expect("the client's host stays up");
}

async fn check(client: &mut RawClient) {
    for db in 0..64 {
        assert_eq!(client.ask(&format!("SELECT {db}")).await, Reply::ok());
        assert_eq!(client.ask("DBSIZE").await, Reply::Int(1), "{db}");
        let shown = match db {
            0 => "63".to_owned(),
            63 => "0".to_owned(),
            62 => {
                assert_eq!(client.ask("GET after").await, Reply::Bulk(b"FLUSHDB".to_vec()));
                continue;
            }
            db => db.to_string(),
        };
        assert_eq!(client.ask("GET of").await, Reply::Bulk(shown.into_bytes()), "{db}");
    }
}

#[test]
fn sixty_four_databases_are_as_sixteen() {
    for seed in 0..4 {
        run(seed, &MANY).expect_success();
    }
}
