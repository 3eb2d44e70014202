//! The real server on a disk that reads wrongly, or is full: an error instead of a wrong value, and a connection that
//! goes on.

use std::net::SocketAddr;
use std::time::Duration;

use ferrite_node::config::AppendFsync;
use redis::ProtocolVersion;

use super::NO_PROGRESS;
use super::redis::{dump, operator};
use crate::client::{Client, RawClient, connect_redis};
use crate::model::{ClientView, Command, Generator, Profile};
use crate::plan::FaultPlan;
use crate::resp::Reply;
use crate::rng::SimRng;
use crate::runner::{Scenario, ScenarioFuture};
use crate::server::{PAGE_BYTES, config, serve, with_read_cache};
use crate::sim::{Host, Sim};
use crate::world::SimWorld;

/// Reads fail, or give another block, an old one, or a flipped bit.
pub(super) const BAD_READS: Scenario = Scenario {
    name: "bad-reads",
    about: "a read that fails or gives wrong bytes is answered with an error, never with a wrong value",
    faults: |plan| {
        let any = plan.disk_read_error || plan.disk_bit_rot || plan.disk_misdirected_read || plan.disk_stale_read;
        FaultPlan {
            disk_read_error: plan.disk_read_error || !any,
            disk_bit_rot: plan.disk_bit_rot,
            disk_misdirected_read: plan.disk_misdirected_read,
            disk_stale_read: plan.disk_stale_read,
            ..plan.without_disk_errors().with_quiet_network()
        }
    },
    marks: &["a read failed", "a record was read from disk"],
    run: |sim| -> ScenarioFuture { Box::pin(bad_reads(sim)) },
};

/// No space, and space again.
pub(super) const FULL: Scenario = Scenario {
    name: "full-disk",
    about: "a full disk refuses writes before they change anything, reads go on, and space comes back",
    faults: |plan| plan.without_disk_errors().with_quiet_network(),
    marks: &["a write was refused", "a write succeeded while others were refused", "a record was read from disk"],
    run: |sim| -> ScenarioFuture { Box::pin(full(sim)) },
};

/// What a command may be answered with when its read fails.
const READ_ERRORS: &[&str] = &[
    "ERR reading the log file",
    "ERR the log file is damaged",
    "ERR the log file ends",
    "ERR the file of extents is damaged",
];
/// What a write may be answered with while the disk is full.
const FULL_ERRORS: &[&str] = &["ERR no space left on the disk of the log file", "ERR the append-only file /data/"];
const PIPELINE_MAX: u64 = 12;
/// So many that most lie on disk.
const KEYS: u64 = 160;

async fn bad_reads(sim: Sim) {
    // A server that cannot read what it finds at its start does not start.
    sim.stop_faults();
    let (server, address) = server(&sim);
    let (checks, plan) = (sim.clone(), sim.plan());
    on_client(&sim, address, move |mut load| async move {
        checks.resume_faults();
        for _ in 0..80 {
            let refused = load.batch(READ_ERRORS).await;
            if refused > 0 {
                checks.sometimes("a read failed");
            }
        }
        checks.stop_faults();
        // A read that was wrong was not believed, and what is on the disk is right.
        for _ in 0..10 {
            assert_eq!(load.batch(READ_ERRORS).await, 0, "no fault is left of {plan}");
        }
        load.check_all().await;
    })
    .await;
    assert!(server.is_up());
}

async fn full(sim: Sim) {
    let (server, address) = server(&sim);
    let operator = operator(&sim, address, &["BGREWRITEAOF"], 120);
    let (checks, disk) = (sim.clone(), server.clone());
    let mut rng = sim.rng("full disk");
    let load = on_client(&sim, address, move |mut load| async move {
        for _ in 0..rng.between(1, 40) {
            assert_eq!(load.batch(FULL_ERRORS).await, 0, "there is space");
        }
        disk.set_disk_capacity(Some(disk.disk_used() + rng.between(0, 40 * PAGE_BYTES as u64)));
        for number in 0..40 {
            let refused = load.batch(FULL_ERRORS).await;
            if refused > 0 {
                checks.sometimes("a write was refused");
            }
            if refused < load.last_writes {
                checks.sometimes("a write succeeded while others were refused");
            }
            if number % 8 == 7 {
                load.check_all().await;
            }
        }
        disk.set_disk_capacity(None);
        // The server tries again within seconds.
        checks.sleep(Duration::from_secs(20)).await;
        let mut left = 3;
        for _ in 0..30 {
            // The first writes after it may still find no space: they are what asks for it.
            match load.batch(FULL_ERRORS).await {
                0 => {}
                _ if left > 0 => left -= 1,
                _ => panic!("there is space again, and writes are still refused"),
            }
        }
        load.check_all().await;
        load
    })
    .await;
    operator.kill();
    server.power_loss();
    server.boot();
    server.spawn(move |world| serve(world, config(address, AppendFsync::Always)));
    let after = sim.add_host("after");
    let task = after.spawn(move |world| async move {
        let mut load = load.moved_to(connect(&world, address).await);
        load.check_all().await;
    });
    task.await.expect("the client's host stays up");
}

fn server(sim: &Sim) -> (Host, SocketAddr) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    server.spawn(move |world| {
        let config = with_read_cache(&world, config(address, AppendFsync::Always));
        serve(world, config)
    });
    server.start_clock_faults();
    (server, address)
}

/// Runs `work` with a client on a host of its own.
async fn on_client<T, F>(sim: &Sim, address: SocketAddr, work: impl FnOnce(LoadClient) -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let host = sim.add_host("client");
    let mut rng = sim.rng("client");
    let (library, profile) = (
        rng.one_in(2),
        Profile {
            keys: KEYS,
            payload_max: 900,
            // A FLUSHDB would leave nothing on disk.
            whole_database: false,
            transactions: true,
            ..Profile::default()
        },
    );
    let generator = Generator::new(profile, sim.rng("commands")).cut_by(sim.script("client"));
    let mut fill = sim.rng("fill");
    let task = host.spawn(move |world| async move {
        let mut client = connect(&world, address).await;
        if library {
            let made = connect_redis(&world, address, ProtocolVersion::RESP3).await;
            client = Client::Library(made.expect("the server listens"));
        }
        let view = ClientView::new();
        let mut load = LoadClient { client, generator, view, last_writes: 0 };
        load.fill(&mut fill).await;
        work(load).await
    });
    task.await.expect("the client's host stays up")
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

/// The one client of these scenarios: its connection lives to the end.
struct LoadClient {
    client: Client,
    generator: Generator,
    view: ClientView,
    /// Commands of the last batch that may need space.
    last_writes: usize,
}

impl LoadClient {
    fn moved_to(self, client: Client) -> Self {
        Self { client, ..self }
    }

    /// Gives every key a long value, so that most of them go to disk.
    async fn fill(&mut self, rng: &mut SimRng) {
        for (number, key) in self.generator.keys().into_iter().enumerate() {
            let mut value = vec![0; rng.between(300, 900) as usize];
            rng.fill(&mut value);
            let command = match Generator::is_for_hashes(number as u64) {
                true => [vec![b"HSET".to_vec(), key, self.generator.field(), value]],
                false => [vec![b"SET".to_vec(), key, value]],
            };
            self.view.sent(command[0].clone());
            let view = &mut self.view;
            let sent = self.client.pipeline(&command, |reply| {
                view.answered(&reply).unwrap_or_else(|why| panic!("{why}"));
            });
            sent.await.expect("the connection survives");
        }
    }

    /// Sends one batch and compares what is not refused with one of `errors`. How many were.
    async fn batch(&mut self, errors: &[&str]) -> usize {
        let batch = self.generator.batch(PIPELINE_MAX);
        let writes = writes(&batch);
        self.last_writes = writes.iter().filter(|writes| **writes).count();
        batch.iter().for_each(|command| self.view.sent(command.clone()));
        let (view, mut refused, mut at) = (&mut self.view, 0, 0);
        let sent = self.client.pipeline(&batch, |reply| {
            let may_fail = errors == READ_ERRORS || writes[at];
            at += 1;
            match &reply {
                Reply::Error(text) if may_fail && errors.iter().any(|error| text.starts_with(error)) => {
                    refused += 1;
                    view.refused();
                }
                reply => view.answered(reply).unwrap_or_else(|why| panic!("{why}")),
            }
        });
        let answered = madsim::time::timeout(NO_PROGRESS, sent).await;
        answered.expect("every command is answered").expect("the connection survives");
        refused
    }

    /// Every key holds what the model says: reads work whatever the disk refuses.
    async fn check_all(&mut self) {
        let found = dump(&mut self.client, self.generator.keys()).await.expect("the connection survives");
        let same = self.view.clone().resolve(&found);
        same.unwrap_or_else(|why| panic!("{why}"));
    }
}

/// Which commands of a batch may need space. A queued one does not: EXEC needs it.
fn writes(batch: &[Command]) -> Vec<bool> {
    let mut open = false;
    let needs_space = |command: &Command| match command[0].as_slice() {
        b"EXEC" => {
            open = false;
            true
        }
        b"MULTI" => {
            open = true;
            false
        }
        b"DISCARD" => {
            open = false;
            false
        }
        b"GET" | b"MGET" | b"EXISTS" | b"STRLEN" | b"GETRANGE" | b"DBSIZE" | b"HGET" | b"HMGET" | b"HGETALL" => false,
        b"HLEN" | b"HEXISTS" | b"HSTRLEN" | b"PEXPIRETIME" | b"WATCH" | b"UNWATCH" => false,
        _ => !open,
    };
    batch.iter().map(needs_space).collect()
}
