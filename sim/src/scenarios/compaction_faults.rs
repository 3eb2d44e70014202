//! The log is compacted while the disk fails: reads that err, are short or wrong, writes of the log that are refused, a full
//! disk, power losses, a record that rots for good. Whatever a client was told holds, and what is deleted or has expired stays
//! away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::NO_PROGRESS;
use super::compaction::{check_space, configured, info};
use super::faulty::{Owner, is_refusal};
use super::mortal::Mortal;
use super::rotten::Rotten;
use crate::client::RawClient;
use crate::model::Generator;
use crate::model::Profile;
use crate::plan::FaultPlan;
use crate::resp::Reply;
use crate::rng::SimRng;
use crate::runner::{Scenario, ScenarioFuture};
use crate::server::{DATA, PAGE_BYTES, serve};
use crate::sim::{Host, Sim};

/// Every fault that a disk can have without ending the server, one after the other and at once.
pub(super) const FAULTS: Scenario = Scenario {
    name: "compaction-faults",
    about: "compaction on a disk that errs, lies, is slow, full, or loses power loses nothing and brings nothing back",
    faults: |plan| FaultPlan {
        // A failed write or sync of the append-only file ends the server: `aof-failure`. Those of the log are the gremlin's.
        disk_write_error: false,
        disk_sync_error: false,
        // A clock that jumps would make keys expire at other times than their oracle says.
        clock_jump: false,
        clock_drift: false,
        ..plan.with_quiet_network()
    },
    marks: &[
        "server crashed",
        "a record was read from disk",
        "a large value was read from its extent",
        "the log was compacted",
        "an old record was copied",
        "space was given back",
        "a compaction failed",
        "a command was refused for the disk",
        "a key expired",
        "a checkpoint was taken",
        "a checkpoint was restored",
        "the files take at most twice the data",
        "a rotten key was an error",
        "a page was left behind",
    ],
    run: |sim| -> ScenarioFuture { Box::pin(faults(sim)) },
};

/// Commands that each client sends.
const COMMANDS: u32 = 260;
const KEYS: u64 = 48;
const PAYLOAD_MAX: u64 = 2500;
/// What a key lives at most that expires, in milliseconds, and how late its deletion may be.
const DEAD_AFTER: Duration = Duration::from_secs(8);

async fn faults(sim: Sim) {
    let mut power = Power::new(&sim);
    power.start().await;
    let (address, mut rng) = (power.address, sim.rng("compaction faults"));
    let rotten = Rotten::new(&sim, &power.server, address).await;
    let mut owners = Vec::new();
    for number in 0..rng.between(1, 2) {
        let profile = Profile {
            prefix: format!("client{number}:"),
            whole_database: false,
            keys: KEYS,
            payload_max: PAYLOAD_MAX,
            transactions: true,
        };
        let name = format!("client {number}");
        let generator = Generator::new(profile, sim.rng(&format!("commands {number}"))).cut_by(sim.script(&name));
        let mut owner = Owner::new(&sim, address, generator);
        owners.push(sim.add_host(&name).spawn(move |world| async move {
            owner.run(&world, COMMANDS).await;
            owner
        }));
    }
    let mut mortal = Mortal::new(&sim, address);
    let mortals = sim.add_host("mortals").spawn(move |world| async move {
        mortal.run(&world, COMMANDS).await;
        mortal
    });
    let gremlin = gremlin(&sim, &power);
    for _ in 0..rng.below(4) {
        power.fail(rng.between(1, 400)).await;
        sim.sometimes("server crashed");
        power.start().await;
    }
    let mut all = Vec::new();
    for task in owners {
        all.push(progress(task).await);
    }
    let mortal = progress(mortals).await;
    gremlin.kill();
    quiet(&power.server);
    sim.stop_faults();
    sim.sleep(DEAD_AFTER).await;
    let mut keys = (all, mortal, rotten);
    keys = check(&sim, "after the load", address, keys).await;
    check_space(&sim, &power.server, address).await;
    keys = check(&sim, "after compaction", address, keys).await;
    power.fail(1).await;
    power.start().await;
    check(&sim, "after a restart", address, keys).await;
}

pub(super) async fn progress<T>(task: madsim::task::JoinHandle<T>) -> T {
    let done = madsim::time::timeout(NO_PROGRESS, task).await;
    done.expect("every command is answered, or its connection lost").expect("client hosts stay up")
}

/// Every key holds what it has to, and there are no others.
async fn check(
    sim: &Sim,
    name: &str,
    address: SocketAddr,
    (mut owners, mut mortal, rotten): (Vec<Owner>, Mortal, Rotten),
) -> (Vec<Owner>, Mortal, Rotten) {
    let checks = sim.clone();
    let task = sim.add_host(name).spawn(move |world| async move {
        let mut keys = 0;
        for owner in &mut owners {
            keys += owner.check_all(&world).await;
        }
        keys += mortal.check_all(&world).await + rotten.check_all(&world).await;
        let mut client = RawClient::connect_when_up(&world, address).await;
        let count = client.ask("DBSIZE").await;
        assert!(count == Reply::Int(keys) || rotten.may_be_uncounted(&count), "{count:?}, and there are {keys}");
        if info(&mut client).await["ferrite_quarantined_pages"] > 0 {
            checks.sometimes("a page was left behind");
        }
        (owners, mortal, rotten)
    });
    progress(task).await
}

/// The server's power switch. A server that cannot read what it finds at its start does not start: it boots without faults.
struct Power {
    sim: Sim,
    server: Host,
    address: SocketAddr,
    boots: u32,
    /// The server is up and has read its files.
    serves: Arc<AtomicBool>,
}

impl Power {
    fn new(sim: &Sim) -> Self {
        let server = sim.add_host("server");
        let address = SocketAddr::new(server.ip(), 6379);
        Self { sim: sim.clone(), server, address, boots: 0, serves: Arc::default() }
    }

    async fn start(&mut self) {
        let address = self.address;
        self.sim.stop_faults();
        quiet(&self.server);
        if !self.server.is_up() {
            self.server.boot();
        }
        self.server.spawn(move |world| async move { serve(world.clone(), configured(&world, address, 1)).await });
        self.boots += 1;
        // It accepts before it has read its files, and answers after that.
        let probe = self.sim.add_host(&format!("probe {}", self.boots)).spawn(move |world| async move {
            let mut client = RawClient::connect_when_up(&world, address).await;
            client.ask("PING").await
        });
        assert_eq!(progress(probe).await, Reply::Simple("PONG".to_owned()));
        self.serves.store(true, Relaxed);
        self.sim.resume_faults();
    }

    /// At the `io`th I/O from now, or when there are not as many.
    async fn fail(&self, io: u64) {
        self.server.power_loss_at_io(io);
        if madsim::time::timeout(Duration::from_secs(3), self.server.died()).await.is_err() {
            self.server.power_loss();
        }
        self.serves.store(false, Relaxed);
    }
}

/// All faults that the gremlin made are gone.
fn quiet(server: &Host) {
    server.set_disk_capacity(None);
    server.set_disk_writes_fail(None);
    server.set_disk_reads_fail(false);
}

/// Breaks the server's disk for a while, again and again, and asks for checkpoints and rewrites.
fn gremlin(sim: &Sim, power: &Power) -> Host {
    let host = sim.add_host("gremlin");
    let Power { server, address, serves, .. } = power;
    let (server, address, serves) = (server.clone(), *address, serves.clone());
    let (mut rng, plan) = (sim.rng("gremlin"), sim.plan());
    host.spawn(move |world| async move {
        let wait = |rng: &mut SimRng, ms: u64| madsim::time::sleep(Duration::from_millis(rng.between(1, ms)));
        loop {
            wait(&mut rng, 150).await;
            if !serves.load(Relaxed) {
                continue;
            }
            match rng.below(8) {
                0 => server.set_disk_writes_fail(Some(&format!("{DATA}/hybrid.log"))),
                1 => server.set_disk_writes_fail(Some(&format!("{DATA}/hybrid.extents"))),
                2 if plan.disk_read_error => server.set_disk_reads_fail(true),
                3 | 4 if plan.disk_full => {
                    server.set_disk_capacity(Some(server.disk_used() + rng.between(0, 8 * PAGE_BYTES as u64)));
                }
                order => {
                    // Whatever becomes of it.
                    if let Ok(mut client) = RawClient::connect(&world, address).await {
                        let order = if order == 5 { "BGREWRITEAOF" } else { "BGSAVE" };
                        let _ = client.command(&[order]).await;
                    }
                    continue;
                }
            }
            wait(&mut rng, 120).await;
            quiet(&server);
        }
    });
    host
}

/// Whether the reply says that the disk is the reason why nothing has changed.
pub(super) fn refused(sim: &Sim, reply: &Reply) -> bool {
    let refused = is_refusal(reply);
    if refused {
        sim.sometimes("a command was refused for the disk");
    }
    refused
}
