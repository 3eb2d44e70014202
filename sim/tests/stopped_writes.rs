//! `stop-writes-on-bgsave-error`: a disk that takes no checkpoint, and what clients are told meanwhile.

use std::net::SocketAddr;

use ferrite_node::config::{AppendFsync, Config};
use ferrite_sim::client::RawClient;
use ferrite_sim::resp::Reply;
use ferrite_sim::server::{config, serve};
use ferrite_sim::{FaultPlan, Scenario, ScenarioFuture, Sim, run};

const TOLD: &str = "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. ";

const FULL_DISK: Scenario = Scenario {
    name: "no-space-for-a-checkpoint",
    about: "with save points, writes are refused from a failed checkpoint to the next that succeeds",
    faults: |_| FaultPlan::none(),
    marks: &[],
    run: |sim| -> ScenarioFuture { Box::pin(full_disk(sim)) },
};

fn without_aof(address: SocketAddr) -> Config {
    let mut config = config(address, AppendFsync::No);
    config.aof.enabled = false;
    // They are never due: what fails is what a client asks for.
    config.storage.save = "1000000 1000000".to_owned();
    config
}

async fn ask(client: &mut RawClient, words: &[&str]) -> Reply {
    client.command(words).await.expect("the server answers")
}

/// Asks for a checkpoint and waits for its end: whether it succeeded.
async fn save(client: &mut RawClient) -> bool {
    match ask(client, &["SAVE"]).await {
        Reply::Error(_) => false,
        reply => reply == Reply::ok(),
    }
}

fn is_stopped(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(text) if text.starts_with(TOLD))
}

async fn full_disk(sim: Sim) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    server.spawn(move |world| serve(world, without_aof(address)));
    let task = sim.add_host("client").spawn(move |world| async move {
        let mut client = RawClient::connect_when_up(&world, address).await;
        let (set, ok) = (["SET", "key", "value"], Reply::ok());
        assert_eq!(ask(&mut client, &set).await, ok);
        let parameter = |value: &str| {
            Reply::Array(
                [&b"stop-writes-on-bgsave-error"[..], value.as_bytes()].map(|text| Reply::Bulk(text.to_vec())).into(),
            )
        };
        let get = ["CONFIG", "GET", "stop-writes-on-bgsave-error"];
        assert_eq!(ask(&mut client, &get).await, parameter("yes"), "as in Redis");
        server.set_disk_capacity(Some(server.disk_used()));
        assert!(!save(&mut client).await, "there is no space for its file");
        assert!(is_stopped(&ask(&mut client, &set).await) && is_stopped(&ask(&mut client, &["PING"]).await));
        assert_eq!(ask(&mut client, &["GET", "key"]).await, Reply::Bulk(b"value".to_vec()));
        // Who does not want that says so; and without save points nobody asks for checkpoints.
        assert_eq!(ask(&mut client, &["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]).await, ok);
        assert_eq!(ask(&mut client, &get).await, parameter("no"));
        assert_eq!(ask(&mut client, &set).await, ok);
        assert_eq!(ask(&mut client, &["CONFIG", "SET", "stop-writes-on-bgsave-error", "yes"]).await, ok);
        assert!(is_stopped(&ask(&mut client, &set).await));
        assert_eq!(ask(&mut client, &["CONFIG", "SET", "save", ""]).await, ok);
        assert_eq!(ask(&mut client, &set).await, ok);
        assert_eq!(ask(&mut client, &["CONFIG", "SET", "save", "1000000 1000000"]).await, ok);
        assert!(is_stopped(&ask(&mut client, &set).await));
        assert!(!save(&mut client).await, "still");
        server.set_disk_capacity(None);
        assert!(save(&mut client).await);
        assert_eq!(ask(&mut client, &set).await, ok);
        let refused = ask(&mut client, &["CONFIG", "SET", "stop-writes-on-bgsave-error", "perhaps"]).await;
        assert!(
            matches!(&refused, Reply::Error(text) if text.contains("argument must be 'yes' or 'no'")),
            "{refused:?}"
        );
    });
    task.await.expect("the client's host stays up");
}

#[test]
fn writes_are_refused_from_a_failed_checkpoint_to_the_next_good_one() {
    for seed in 0..4 {
        run(seed, &FULL_DISK).expect_success();
    }
}
