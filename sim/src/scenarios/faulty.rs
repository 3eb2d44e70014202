//! A client of a server whose disk fails: it has its keys to itself, sends one command at a time, and knows what they may hold.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::client::RawClient;
use crate::model::{ClientView, Dump, Generator, Value};
use crate::resp::{Reply, show_command};
use crate::rng::SimRng;
use crate::sim::Sim;
use crate::world::SimWorld;

/// What a command may be answered with for the disk's sake. Nothing has changed then.
const REFUSALS: &[&str] = &[
    "ERR reading the log file",
    "ERR the log file is damaged",
    "ERR the log file ends",
    "ERR the file of extents is damaged",
    "ERR no space left",
    "ERR the append-only file /data/",
    "ERR writing the log file fails",
    "ERR keys cannot be counted",
];

pub(super) fn is_refusal(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(text) if REFUSALS.iter().any(|start| text.starts_with(start)))
}

/// So often a read is refused by chance, and no more, and for as long as the gremlin breaks the disk.
const ATTEMPTS_MAX: u32 = 400;

/// Asks until the disk is no reason for an error.
pub(super) async fn ask(client: &mut RawClient, command: &[Vec<u8>]) -> io::Result<Reply> {
    let mut refusal = None;
    for _ in 0..ATTEMPTS_MAX {
        let reply = client.command(command).await?;
        if !is_refusal(&reply) {
            return Ok(reply);
        }
        refusal = Some(reply);
        madsim::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the disk is well, and {} is still refused: {refusal:?}", show_command(command))
}

/// The client, and what is known of its keys.
pub(super) struct Owner {
    sim: Sim,
    address: SocketAddr,
    generator: Generator,
    view: ClientView,
    rng: SimRng,
}

impl Owner {
    pub(super) fn new(sim: &Sim, address: SocketAddr, generator: Generator) -> Self {
        let rng = sim.rng(&format!("owner of {}", generator.keys()[0].escape_ascii()));
        Self { sim: sim.clone(), address, generator, view: ClientView::new(), rng }
    }

    /// Sends commands, whatever becomes of the server meanwhile.
    pub(super) async fn run(&mut self, world: &SimWorld, commands: u32) {
        let mut left = commands;
        while left > 0 {
            let mut client = RawClient::connect_when_up(world, self.address).await;
            if self.look(&mut client).await.is_err() {
                continue;
            }
            while left > 0 {
                left -= 1;
                if self.batch(&mut client).await.is_err() {
                    // The server died.
                    break;
                }
            }
        }
        // What was in doubt at the end is no more.
        while self.view.is_in_doubt() {
            let mut client = RawClient::connect_when_up(world, self.address).await;
            let _ = self.look(&mut client).await;
        }
    }

    /// One command after the other, so that at most one is in doubt: of several some could have been refused.
    async fn batch(&mut self, client: &mut RawClient) -> io::Result<()> {
        for command in self.generator.batch(1) {
            self.view.sent(command.clone());
            let reply = client.command(&command).await?;
            match super::compaction_faults::refused(&self.sim, &reply) {
                true => self.view.refused(),
                false => self.view.answered(&reply).unwrap_or_else(|why| panic!("{why}")),
            }
        }
        if self.rng.one_in(3) {
            self.sim.sleep(Duration::from_millis(self.rng.between(1, 4))).await;
        }
        Ok(())
    }

    /// Finds out what has happened of what was in doubt.
    async fn look(&mut self, client: &mut RawClient) -> io::Result<()> {
        if self.view.is_in_doubt() {
            let found = self.dump(client).await?;
            self.view.resolve(&found).unwrap_or_else(|why| panic!("{why}"));
        }
        Ok(())
    }

    async fn dump(&self, client: &mut RawClient) -> io::Result<Dump> {
        let mut dump = Dump::default();
        for key in self.generator.keys() {
            let mut replies = Vec::new();
            for read in ["GET", "HGETALL", "PEXPIRETIME"] {
                replies.push(ask(client, &[read.as_bytes().to_vec(), key.clone()]).await?);
            }
            let value = match &replies[..2] {
                [Reply::Bulk(value), Reply::Error(_)] => Value::String(value.clone()),
                [Reply::Error(_), Reply::Array(items)] => super::redis::hash_of(items),
                [Reply::Null, Reply::Array(items)] if items.is_empty() => continue,
                other => panic!("GET and HGETALL of {} were answered with {other:?}", key.escape_ascii()),
            };
            match replies[2] {
                Reply::Int(-1) => {}
                Reply::Int(at) if at > 0 => _ = dump.expiries.insert(key.clone(), at),
                ref other => panic!("PEXPIRETIME of {} was answered with {other:?}", key.escape_ascii()),
            }
            dump.values.insert(key, value);
        }
        Ok(dump)
    }

    /// Every key holds what it has to. How many there are.
    pub(super) async fn check_all(&mut self, world: &SimWorld) -> i64 {
        let mut client = RawClient::connect_when_up(world, self.address).await;
        let found = self.dump(&mut client).await.expect("no faults are left");
        self.view.resolve(&found).unwrap_or_else(|why| panic!("at the end, {why}"));
        found.values.len() as i64
    }
}
