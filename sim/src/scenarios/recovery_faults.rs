//! The disk fails while a start reads what it has: refused, short, wrong and slow reads, failed syncs, power losses, again and
//! again. A start has all that was acknowledged, or says which file is in the way and destroys nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ferrite_io::{Entropy, World};
use ferrite_node::config::{AppendFsync, Config};

use super::NO_PROGRESS;
use super::checkpoint::{Historian, State, brief, found, reads};
use super::faulty::is_refusal;
use super::node::workers;
use crate::client::RawClient;
use crate::disk::ReadFault;
use crate::plan::FaultPlan;
use crate::resp::Reply;
use crate::rng::SimRng;
use crate::runner::{Scenario, ScenarioFuture};
use crate::server::{DATA, launch, watch};
use crate::sim::{Host, Sim, lock};
use crate::world::SimWorld;

/// Every fault that a start can meet while it reads.
pub(super) const RECOVERY: Scenario = Scenario {
    name: "recovery-faults",
    about: "a start whose reads err, are short, wrong or slow, and which loses power, has all data or names the file, and the next one has all",
    faults: |plan| FaultPlan { clock_jump: false, ..plan.without_disk_errors().with_quiet_network() },
    marks: &[
        "a checkpoint was taken",
        "a checkpoint was restored",
        "a large value was written to its extent",
        "a start among faults had everything",
        "a start was refused for the disk",
        "a start was refused for damage",
        "power was lost in a start",
        "a start met what has rotted for good",
    ],
    run: |sim| -> ScenarioFuture { Box::pin(recover(sim)) },
};

/// Lives before the faults, each with so many steps at most.
const LIVES: u64 = 3;
const STEPS: u64 = 60;
/// Starts among faults.
const STARTS: u64 = 8;
/// Reads that fail in one of them at most.
const AIMS_MAX: u64 = 4;
/// Reads and openings of a start, about: most of the faults hit one.
const READS: u64 = 60;
/// I/Os of a start, about.
const IOS: u64 = 160;
const SLOW_MAX: u64 = 3000;
/// So long a start takes at most.
const START_MAX: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(5);

/// What became of a start.
#[derive(Debug)]
enum Outcome {
    Up,
    Refused(String),
    PowerLost,
}

async fn recover(sim: Sim) {
    let mut rng = sim.rng("recovery faults");
    let has_aof = rng.below(4) > 0;
    let segment_size = *rng.pick(&[2 << 10, 16 << 10, 1 << 20]);
    let mut lab = Lab::new(&sim, has_aof, segment_size);
    let mut historian = Historian::new(&sim);
    for _ in 0..rng.between(1, LIVES) {
        assert!(matches!(lab.start().await, Outcome::Up), "no faults");
        historian = lab.work(historian, rng.between(1, STEPS), rng.below(4)).await;
        lab.end(rng.one_in(2));
    }
    for _ in 0..STARTS {
        lab.break_disk(&mut rng);
        let outcome = lab.start().await;
        sim.note(format!("the start: {outcome:?}"));
        let state = historian.states.last().expect("there is one").clone();
        match outcome {
            Outcome::Up => {
                sim.sometimes("a start among faults had everything");
                let is_up = lab.check(&state, false).await;
                if is_up && rng.below(3) > 0 && lab.mend() {
                    historian = lab.work(historian, rng.between(1, 12), rng.below(6)).await;
                }
            }
            Outcome::Refused(why) => {
                names_a_file(&why);
                sim.sometimes(if why.contains("damaged") || why.contains("cannot be used") {
                    "a start was refused for damage"
                } else {
                    "a start was refused for the disk"
                });
            }
            Outcome::PowerLost => sim.sometimes("power was lost in a start"),
        }
        lab.end(rng.one_in(3));
    }
    let state = historian.states.pop().expect("there is one");
    lab.mend();
    assert!(matches!(lab.start().await, Outcome::Up), "no faults are left");
    assert!(lab.check(&state, false).await, "nothing ends it");
    lab.end(false);
    if has_aof {
        rot(&sim, &mut lab, &mut rng, &state).await;
    }
}

/// A bit is wrong from now on, through starts that lose power. Once it is right again all is there.
async fn rot(sim: &Sim, lab: &mut Lab, rng: &mut SimRng, state: &State) {
    let files = lab.files();
    let victim = rng.pick(&files).clone();
    let len = lab.server.peek(&victim).expect("it is there").len() as u64;
    let bit = rng.below(len.max(1) * 8);
    sim.note(format!("bit {bit} of {victim} is rotten"));
    let flip = |server: &Host| {
        server.corrupt(&victim, |bytes| {
            if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
                *byte ^= 1 << (bit % 8);
            }
        });
    };
    flip(&lab.server);
    let rotten = lab.server.peek(&victim);
    for _ in 0..rng.below(3) {
        lab.server.power_loss_at_io(rng.between(1, IOS));
        let outcome = lab.start().await;
        sim.note(format!("the start: {outcome:?}"));
        if matches!(outcome, Outcome::Up) {
            lab.check(state, true).await;
        }
        lab.end(false);
    }
    lab.mend();
    let outcome = lab.start().await;
    sim.note(format!("the start: {outcome:?}"));
    sim.sometimes("a start met what has rotted for good");
    match outcome {
        Outcome::Up => assert!(lab.check(state, true).await, "nothing ends it"),
        Outcome::PowerLost => unreachable!("it stays on"),
        Outcome::Refused(why) => {
            names_a_file(&why);
            lab.end(false);
            // Who refuses leaves it as it is; but for what of the log no checkpoint leads to, which every start cuts off.
            let is_log = victim.contains("/hybrid.");
            assert!(is_log || lab.server.peek(&victim) == rotten, "a start wrote {victim} that was refused: {why}");
            flip(&lab.server);
            assert!(matches!(lab.start().await, Outcome::Up), "nothing is rotten any more");
            assert!(lab.check(state, false).await, "nothing ends it");
        }
    }
}

fn segment(number: u64) -> String {
    format!("{DATA}/appendonly-{number}.aof")
}

/// Who reads it knows where to look.
fn names_a_file(why: &str) {
    let known = ["the data directory", "MANIFEST", "appendonly-", "checkpoint-", "hybrid.log", "hybrid.extents"];
    assert!(why.contains(DATA) && known.iter().any(|name| why.contains(name)), "which file? {why}");
}

/// One server that is started over and over.
struct Lab {
    sim: Sim,
    server: Host,
    address: SocketAddr,
    has_aof: bool,
    segment_size: u64,
    /// Hosts that were made: each has a name of its own.
    hosts: u32,
    /// The power is to go some time.
    is_doomed: bool,
}

impl Lab {
    fn new(sim: &Sim, has_aof: bool, segment_size: u64) -> Self {
        let server = sim.add_host("server");
        let address = SocketAddr::new(server.ip(), 6379);
        Self { sim: sim.clone(), server, address, has_aof, segment_size, hosts: 0, is_doomed: false }
    }

    fn config(&self, world: &SimWorld) -> Config {
        let mut config = workers(self.address, AppendFsync::Always, 1 + world.entropy().next_u64() as usize % 2);
        config.aof.enabled = self.has_aof;
        config.aof.segment_size = self.segment_size;
        config
    }

    fn visitor(&mut self) -> Host {
        self.hosts += 1;
        self.sim.add_host(&format!("visitor {}", self.hosts))
    }

    /// The paths of the files that hold something.
    fn files(&self) -> Vec<String> {
        let names = ["MANIFEST", "hybrid.log", "hybrid.extents"].into_iter();
        let numbered = (1..60).flat_map(|number| {
            [
                segment(number),
                format!("{DATA}/appendonly-{number}.base.aof"),
                format!("{DATA}/checkpoint-{number}.ckpt"),
            ]
        });
        let paths = names.map(|name| format!("{DATA}/{name}")).chain(numbered);
        paths.filter(|path| self.server.peek(path).is_some_and(|bytes| !bytes.is_empty())).collect()
    }

    /// The next start meets faults.
    fn break_disk(&mut self, rng: &mut SimRng) {
        let fault = |rng: &mut SimRng| match rng.below(5) {
            0 => ReadFault::Refused,
            1 => ReadFault::Short,
            2 | 3 => ReadFault::Rotten,
            _ => ReadFault::Slow(Duration::from_millis(rng.between(1, SLOW_MAX))),
        };
        let reads = if rng.one_in(3) { READS / 6 } else { READS };
        let aims: Vec<_> = (0..rng.between(1, AIMS_MAX)).map(|_| (rng.below(reads), fault(rng))).collect();
        self.sim.note(format!("aimed at: {aims:?}"));
        self.server.aim_disk_reads(aims);
        if rng.one_in(2) {
            // The last of the append-only files is where acknowledged writes are that nothing else tells of.
            let last = (1..60).rev().map(segment).find(|path| self.server.peek(path).is_some());
            if let Some(last) = last {
                self.server.aim_disk_read_of(&last, rng.below(4), fault(rng));
            }
        }
        self.server.set_disk_syncs_fail(rng.one_in(12));
        self.is_doomed = rng.one_in(3);
        if self.is_doomed {
            self.server.power_loss_at_io(rng.between(1, IOS));
        }
    }

    /// No more faults, but for a power loss that is to come. True: there is none.
    fn mend(&self) -> bool {
        self.server.aim_disk_reads([]);
        self.server.set_disk_syncs_fail(false);
        !self.is_doomed
    }

    async fn start(&mut self) -> Outcome {
        let stopped = Arc::new(Mutex::new(None));
        let hears = stopped.clone();
        let config = self.config(&self.server.world());
        self.server.spawn(move |world| async move {
            let starting = launch(&world, config, None, move |_, result| {
                if let Err(error) = result {
                    lock(&hears).get_or_insert(error.to_string());
                }
            });
            watch(world, starting).await;
        });
        let (host, address, server) = (self.visitor(), self.address, self.server.clone());
        let task = host.spawn(move |world| async move {
            // It accepts before it has read its files, and answers after that.
            loop {
                if let Ok(mut client) = RawClient::connect(&world, address).await
                    && client.command(&["PING"]).await.is_ok()
                {
                    return;
                }
                madsim::time::sleep(LOOK).await;
            }
        });
        let begun = self.sim.elapsed();
        loop {
            if !server.is_up() {
                host.kill();
                return Outcome::PowerLost;
            }
            if let Some(why) = lock(&stopped).clone() {
                // Another worker may have served before this one could not open its files.
                host.kill();
                return Outcome::Refused(why);
            }
            if task.is_finished() {
                return Outcome::Up;
            }
            assert!(self.sim.elapsed() - begun < START_MAX, "a start neither serves nor ends");
            self.sim.sleep(LOOK).await;
        }
    }

    /// Ends what has started, and makes it ready for the next start.
    fn end(&mut self, by_kill: bool) {
        // A power loss that has not come by now is not to hit another.
        match by_kill && !self.is_doomed {
            true => self.server.kill(),
            false => self.server.power_loss(),
        }
        self.is_doomed = false;
        self.server.boot();
    }

    /// One client changes keys, and some checkpoints and rewrites are made. Without an append-only file one comes last.
    async fn work(&mut self, mut historian: Historian, steps: u64, orders: u64) -> Historian {
        let (host, address, has_aof) = (self.visitor(), self.address, self.has_aof);
        let mut rng = self.sim.rng(&format!("orders {}", self.hosts));
        let task = host.spawn(move |world| async move {
            let mut client = RawClient::connect_when_up(&world, address).await;
            let mut at: Vec<u64> = (0..orders).map(|_| rng.below(steps)).collect();
            at.sort_unstable();
            for step in 0..steps {
                historian.step(&mut client).await.expect("no faults");
                while at.pop_if(|&mut order| order == step).is_some() {
                    let order = *rng.pick(&["SAVE", "SAVE", "BGSAVE", if has_aof { "BGREWRITEAOF" } else { "SAVE" }]);
                    client.command(&[order]).await.expect("no faults");
                }
            }
            while !has_aof && client.command(&["SAVE"]).await.expect("no faults") != Reply::ok() {
                madsim::time::sleep(LOOK).await;
            }
            historian
        });
        let done = madsim::time::timeout(NO_PROGRESS, task).await;
        done.expect("every command is answered").expect("the client's host stays up")
    }

    /// Every key has its value, and there is no other. False: the power went meanwhile. What `is_rotten` may be an error for good.
    async fn check(&mut self, state: &State, is_rotten: bool) -> bool {
        let (host, address, expected) = (self.visitor(), self.address, state.clone());
        let task = host.spawn(move |world| async move {
            let mut client = RawClient::connect(&world, address).await?;
            for (key, read) in reads() {
                let reply = ask(&mut client, &[read, &key]).await?;
                if is_rotten && is_refusal(&reply) {
                    continue;
                }
                let (found, value) = (found(&reply), expected.get(&key).cloned());
                let of = |fields| State::from([(key.clone(), fields)]);
                let (found, value) = (found.map(of), value.map(of));
                assert!(found == value, "{:?} instead of {:?}", brief(found.as_ref()), brief(value.as_ref()));
            }
            let counted = ask(&mut client, &["DBSIZE"]).await?;
            let is_uncounted = is_rotten && is_refusal(&counted);
            assert!(is_uncounted || counted == Reply::Int(expected.len() as i64), "{counted:?}");
            Ok::<_, std::io::Error>(())
        });
        let server = self.server.clone();
        let begun = self.sim.elapsed();
        while !task.is_finished() {
            if !server.is_up() {
                host.kill();
                return false;
            }
            assert!(self.sim.elapsed() - begun < START_MAX, "a command is not answered");
            self.sim.sleep(LOOK).await;
        }
        match task.await.expect("the visitor's host stays up") {
            Ok(()) => true,
            // The server has ended: a failed sync does that.
            Err(_) => false,
        }
    }
}

/// How often a read may be refused because of the faults that are left.
const ATTEMPTS: u64 = 3 * AIMS_MAX;

/// Asks until the disk is no reason for an error, or has been one too often.
async fn ask(client: &mut RawClient, command: &[&str]) -> std::io::Result<Reply> {
    for _ in 0..ATTEMPTS {
        let reply = client.command(command).await?;
        if !is_refusal(&reply) {
            return Ok(reply);
        }
        madsim::time::sleep(LOOK).await;
    }
    client.command(command).await
}
