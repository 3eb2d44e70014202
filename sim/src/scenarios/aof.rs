//! The real server whose append-only file cannot be written any more.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ferrite_node::config::{AppendFsync, Config};

use super::NO_PROGRESS;
use super::redis::{dump, operator};
use crate::client::{Client, RawClient};
use crate::model::{ClientView, Generator, Profile};
use crate::plan::FaultPlan;
use crate::resp::Reply;
use crate::runner::{Scenario, ScenarioFuture};
use crate::server::{config, launch, serve, watch};
use crate::sim::{Host, Sim, lock};
use crate::world::SimWorld;

/// A write or a sync fails.
pub(super) const FAILURE: Scenario = Scenario {
    name: "aof-failure",
    about: "a failed write or sync of the append-only file answers with an error and ends the server; nothing acknowledged is lost",
    faults: |plan| {
        let power = FaultPlan { power_reorder: plan.power_reorder, power_tear: plan.power_tear, ..FaultPlan::none() };
        FaultPlan {
            disk_write_error: plan.disk_write_error || !plan.disk_sync_error,
            disk_sync_error: plan.disk_sync_error,
            disk_latency: plan.disk_latency,
            ..power
        }
    },
    marks: &[
        "the append-only file failed",
        "a client was told",
        "a rewrite failed",
        "unanswered lost",
        "unanswered happened",
    ],
    run: |sim| -> ScenarioFuture { Box::pin(failure(sim)) },
};

/// What the client gets instead of a reply.
const TOLD: &str = "MISCONF Errors writing to the AOF file: the append-only file /data/";
/// A write that changed nothing, because the log device fails too.
const REFUSED: &[&str] = &["ERR writing the log file fails", "ERR the append-only file /data/"];
const BATCHES: u32 = 400;
const PIPELINE_MAX: u64 = 6;

/// Why the process ended, once it has.
type Ended = Arc<Mutex<Vec<Result<(), String>>>>;

async fn failure(sim: Sim) {
    let mut rng = sim.rng("failure");
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    // A server whose first files cannot be written does not start: that is another matter.
    sim.stop_faults();
    let ended = Ended::default();
    let hears = ended.clone();
    server.spawn(move |world| async move {
        let starting = launch(&world, small(address), None, move |_, result| {
            lock(&hears).push(result.map_err(|error| error.to_string()));
        });
        watch(world, starting).await;
    });
    let mut view = ClientView::new();
    let profile =
        Profile { keys: 60, payload_max: 600, whole_database: false, transactions: true, ..Profile::default() };
    let mut generator = Generator::new(profile, sim.rng("commands")).cut_by(sim.script("client"));
    let client = sim.add_host("client");
    let operator = operator(&sim, address, &["BGREWRITEAOF"], 6);
    let checks = sim.clone();
    let (view_now, generator_now) = (view, generator);
    let load = client.spawn(move |world| async move {
        let (mut view, mut generator) = (view_now, generator_now);
        let mut client = connect(&world, address).await;
        // It is accepted before the server has opened its files; an answer comes after that.
        let served = client.pipeline(&[vec![b"DBSIZE".to_vec()]], |reply| assert_eq!(reply, Reply::Int(0))).await;
        served.expect("nothing fails yet");
        checks.resume_faults();
        let told = write_until_told(&mut client, &mut view, &mut generator).await;
        if told {
            checks.sometimes("a client was told");
        }
        (view, generator)
    });
    (view, generator) =
        madsim::time::timeout(NO_PROGRESS, load).await.expect("progress").expect("a client's host stays up");
    operator.kill();
    // Every way to a failure ends the process with an error that says what and where.
    if !lock(&ended).is_empty() || view.is_in_doubt() {
        while lock(&ended).is_empty() {
            sim.sleep(Duration::from_millis(10)).await;
        }
        sim.sometimes("the append-only file failed");
        let result = lock(&ended)[0].clone();
        let error = result.expect_err("a server that has lost its log does not end as if all were well");
        assert!(error.starts_with("the append-only file /data/") && error.contains("could not be"), "{error}");
    }
    // As a process that has ended; and a machine whose power goes soon after, or much later.
    server.kill();
    if rng.one_in(2) {
        server.boot();
        server.power_loss();
    }
    sim.stop_faults();
    server.boot();
    server.spawn(move |world| serve(world, small(address)));
    view = check(&sim, "after the failure", address, view, &generator).await;
    // What a client has now seen must not go with the power either.
    server.power_loss();
    server.boot();
    server.spawn(move |world| serve(world, small(address)));
    check(&sim, "after the power loss", address, view, &generator).await;
}

fn small(address: SocketAddr) -> Config {
    let mut config = config(address, AppendFsync::Always);
    config.aof.segment_size = 64 << 10;
    config
}

async fn connect(world: &SimWorld, address: SocketAddr) -> Client {
    loop {
        match RawClient::connect(world, address).await {
            Ok(client) => return Client::Raw(client),
            // It starts, or recovers.
            Err(_) => madsim::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// True if the server said that what was written may be lost; false if it was gone, or the batches are at their end. What
/// it did not answer with a reply stays in doubt.
async fn write_until_told(client: &mut Client, view: &mut ClientView, generator: &mut Generator) -> bool {
    for _ in 0..BATCHES {
        let batch = generator.batch(PIPELINE_MAX);
        batch.iter().for_each(|command| view.sent(command.clone()));
        let mut told = false;
        let sent = client.pipeline(&batch, |reply| match &reply {
            Reply::Error(text) if text.starts_with(TOLD) => told = true,
            Reply::Error(text) if !told && REFUSED.iter().any(|error| text.starts_with(error)) => view.refused(),
            reply => {
                assert!(!told, "a reply after the one that said that all may be lost: {reply:?}");
                view.answered(reply).unwrap_or_else(|why| panic!("{why}"));
            }
        });
        let sent = sent.await;
        if told || sent.is_err() {
            return told;
        }
    }
    false
}

/// Every key holds what was acknowledged, or what was in doubt; what is found is what is expected from then on.
async fn check(sim: &Sim, name: &str, address: SocketAddr, mut view: ClientView, generator: &Generator) -> ClientView {
    let host: Host = sim.add_host(name);
    let (keys, checks) = (generator.keys(), sim.clone());
    let task = host.spawn(move |world| async move {
        let mut client = connect(&world, address).await;
        let found = dump(&mut client, keys).await.expect("no faults are left");
        let doubtful = view.is_in_doubt();
        let happened = view.resolve(&found).unwrap_or_else(|why| panic!("{why}"));
        if doubtful {
            checks.sometimes(if happened == 0 { "unanswered lost" } else { "unanswered happened" });
        }
        view
    });
    let checked = madsim::time::timeout(NO_PROGRESS, task).await;
    checked.expect("without faults the server answers").expect("the checker's host stays up")
}
