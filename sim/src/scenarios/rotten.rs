//! Keys that nobody touches, one of which rots on the disk for good: compaction has to go on behind it, and nobody may be
//! told that there is no such key.

use std::net::SocketAddr;

use super::faulty::{ask, is_refusal};
use crate::client::RawClient;
use crate::resp::Reply;
use crate::rng::SimRng;
use crate::server::DATA;
use crate::sim::{Host, Sim};
use crate::world::SimWorld;

/// Three times what memory has pages for: the first of them are on disk then.
const KEYS: usize = 72;
const VALUE_BYTES: usize = 900;
/// Bytes of a record before its key.
const RECORD_HEADER: usize = 40;
/// The one that rots is among the first.
const OLDEST: u64 = 12;

/// The keys, and what is known of them.
pub(super) struct Rotten {
    sim: Sim,
    address: SocketAddr,
    /// Which key has rotted.
    victim: usize,
    /// It was written again since.
    pub replaced: bool,
}

fn name(number: usize) -> Vec<u8> {
    format!("rotten:{number:03}").into_bytes()
}

fn value(number: usize) -> Vec<u8> {
    format!("{number}:{}", "r".repeat(VALUE_BYTES)).into_bytes()
}

impl Rotten {
    /// Writes the keys; and flips a bit of a record of the log on `server`'s disk. Now and then the key is written again, which
    /// leaves the old record in its chain.
    pub async fn new(sim: &Sim, server: &Host, address: SocketAddr) -> Self {
        let mut rng = sim.rng("rot");
        let victim = rng.below(OLDEST) as usize;
        let mut rotten = Self { sim: sim.clone(), address, victim, replaced: false };
        let task = sim.add_host("writes what will rot").spawn(move |world| async move {
            let mut client = RawClient::connect_when_up(&world, address).await;
            for number in 0..KEYS {
                set(&mut client, number, value(number)).await;
            }
        });
        super::compaction_faults::progress(task).await;
        server.corrupt(&format!("{DATA}/hybrid.log"), |bytes| flip(bytes, &name(victim), &mut rng));
        if rng.one_in(3) {
            rotten.replaced = true;
            let task = sim.add_host("writes what has rotted").spawn(move |world| async move {
                let mut client = RawClient::connect_when_up(&world, address).await;
                set(&mut client, victim, value(KEYS + victim)).await;
            });
            super::compaction_faults::progress(task).await;
        }
        rotten
    }

    /// Every key has its value, but for the one that has rotted, which is an error until the log is made anew. How many keys
    /// there are.
    pub async fn check_all(&self, world: &SimWorld) -> i64 {
        let mut client = RawClient::connect_when_up(world, self.address).await;
        for number in 0..KEYS {
            let is_lost = number == self.victim && !self.replaced;
            let expected = value(if number == self.victim && self.replaced { KEYS + number } else { number });
            let get = [b"GET".to_vec(), name(number)];
            let reply = match is_lost {
                true => ask_rotten(&mut client, &get).await,
                false => ask(&mut client, &get).await.expect("no faults are left"),
            };
            match reply {
                Reply::Bulk(found) if found == expected => {}
                reply if is_lost && is_damaged(&reply) => self.sim.sometimes("a rotten key was an error"),
                other => panic!("rotten:{number:03} is {other:?}, and {} has rotted", self.victim),
            }
        }
        KEYS as i64
    }

    /// What DBSIZE says may be an error if a write has replaced what cannot be read.
    pub fn may_be_uncounted(&self, reply: &Reply) -> bool {
        self.replaced && is_refusal(reply)
    }
}

async fn set(client: &mut RawClient, number: usize, value: Vec<u8>) {
    let reply = ask(client, &[b"SET".to_vec(), name(number), value]).await.expect("no crash yet");
    assert_eq!(reply, Reply::Simple("OK".to_owned()));
}

fn is_damaged(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(text) if text.starts_with("ERR the log file is damaged"))
}

/// [`ask`], where damage is an answer.
async fn ask_rotten(client: &mut RawClient, command: &[Vec<u8>]) -> Reply {
    loop {
        let reply = client.command(command).await.expect("no faults are left");
        if !is_refusal(&reply) || is_damaged(&reply) {
            return reply;
        }
    }
}

/// Flips a bit of the record of `key`: anywhere behind the clock of its last access, which no checksum covers.
fn flip(log: &mut [u8], key: &[u8], rng: &mut SimRng) {
    let at = log.windows(key.len()).position(|bytes| bytes == key).expect("its page is in the file");
    let offset = rng.between((at - RECORD_HEADER + 16) as u64, (at + VALUE_BYTES) as u64) as usize;
    log[offset] ^= 1 << rng.below(8);
}
