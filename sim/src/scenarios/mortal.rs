//! A client whose keys expire while it looks: each is there until its time has come, and never again.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ferrite_io::{Clock, World};

use super::faulty::ask;
use crate::client::RawClient;
use crate::resp::Reply;
use crate::rng::SimRng;
use crate::server::PAGE_BYTES;
use crate::sim::Sim;
use crate::world::SimWorld;

const KEYS: u64 = 32;
/// What a key that expires lives, in milliseconds.
const LIFE_MS: u64 = 2_500;
const NEVER: u64 = u64::MAX;

/// What a key was given last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    value: String,
    /// Unix milliseconds.
    until_ms: u64,
}

/// The client, and what its keys hold.
pub(super) struct Mortal {
    sim: Sim,
    address: SocketAddr,
    rng: SimRng,
    keys: BTreeMap<String, State>,
    /// A key whose last change was not answered, and what it has if that happened.
    doubt: Option<(String, Option<State>)>,
    values: u64,
}

fn now_ms(world: &SimWorld) -> u64 {
    world.clock().unix_ns() / 1_000_000
}

impl Mortal {
    pub(super) fn new(sim: &Sim, address: SocketAddr) -> Self {
        let (sim, rng) = (sim.clone(), sim.rng("mortal"));
        Self { sim, address, rng, keys: BTreeMap::new(), doubt: None, values: 0 }
    }

    /// Sends commands, whatever becomes of the server meanwhile.
    pub(super) async fn run(&mut self, world: &SimWorld, commands: u32) {
        let mut left = commands;
        while left > 0 || self.doubt.is_some() {
            let mut client = RawClient::connect_when_up(world, self.address).await;
            if self.settle(world, &mut client).await.is_err() {
                continue;
            }
            while left > 0 {
                left -= 1;
                if self.step(world, &mut client).await.is_err() {
                    // The server died.
                    break;
                }
            }
        }
    }

    async fn step(&mut self, world: &SimWorld, client: &mut RawClient) -> io::Result<()> {
        let key = format!("mortal:{}", self.rng.below(KEYS));
        let soon = now_ms(world) + self.rng.between(20, LIFE_MS);
        match self.rng.below(10) {
            0..=3 => {
                let until_ms = if self.rng.one_in(4) { NEVER } else { soon };
                let state = State { value: self.value(), until_ms };
                let mut command = vec!["SET".to_owned(), key.clone(), state.value.clone()];
                if until_ms != NEVER {
                    command.extend(["PXAT".to_owned(), until_ms.to_string()]);
                }
                self.change(client, &key, Some(state), command).await?;
            }
            4 => {
                let changed = self.keys.get(&key).map(|state| State { until_ms: soon, ..state.clone() });
                let command = ["PEXPIREAT", &key, &soon.to_string()].map(str::to_owned).to_vec();
                self.change_if_there(world, client, &key, changed, command).await?;
            }
            5 => {
                let changed = self.keys.get(&key).map(|state| State { until_ms: NEVER, ..state.clone() });
                self.change_if_there(world, client, &key, changed, vec!["PERSIST".to_owned(), key.clone()]).await?;
            }
            6 => self.change(client, &key, None, vec!["DEL".to_owned(), key.clone()]).await?,
            _ => self.look(world, client, &key).await?,
        }
        if self.rng.one_in(2) {
            self.sim.sleep(Duration::from_millis(self.rng.between(1, 30))).await;
        }
        Ok(())
    }

    /// Each another one; some are objects.
    fn value(&mut self) -> String {
        self.values += 1;
        let len = match self.rng.below(8) {
            0 => self.rng.between(PAGE_BYTES as u64, 2 * PAGE_BYTES as u64),
            _ => self.rng.between(50, 900),
        };
        format!("{}:{}", self.values, "m".repeat(len as usize))
    }

    /// Changes a key for good, unless the disk refuses.
    async fn change(
        &mut self,
        client: &mut RawClient,
        key: &str,
        to: Option<State>,
        command: Vec<String>,
    ) -> io::Result<()> {
        self.doubt = Some((key.to_owned(), to));
        let reply = client.command(&command).await?;
        let (_, to) = self.doubt.take().expect("it was put there");
        if !super::compaction_faults::refused(&self.sim, &reply) {
            assert!(matches!(reply, Reply::Simple(_) | Reply::Int(_)), "{command:?} was answered with {reply:?}");
            self.put(key, to);
        }
        Ok(())
    }

    /// The same for what changes nothing without a key: near the end of its time nobody knows whether there is one, and so
    /// nothing is done.
    async fn change_if_there(
        &mut self,
        world: &SimWorld,
        client: &mut RawClient,
        key: &str,
        to: Option<State>,
        command: Vec<String>,
    ) -> io::Result<()> {
        // Twice the longest pause of a network that stands still.
        const NEAR_MS: u64 = 20_000;
        let lives_on = self.keys.get(key).is_some_and(|state| state.until_ms > now_ms(world) + NEAR_MS);
        match lives_on {
            true => self.change(client, key, to, command).await,
            false => self.look(world, client, key).await,
        }
    }

    fn put(&mut self, key: &str, state: Option<State>) {
        match state {
            Some(state) => _ = self.keys.insert(key.to_owned(), state),
            None => _ = self.keys.remove(key),
        }
    }

    /// The key holds what it was given, until its time has come.
    async fn look(&mut self, world: &SimWorld, client: &mut RawClient, key: &str) -> io::Result<()> {
        let (before_ms, found, after_ms) = self.read(world, client, key).await?;
        let state = self.keys.get(key);
        if let Err(why) = self.explains(state, before_ms, found.as_deref(), after_ms) {
            panic!("{key}: {why}");
        }
        Ok(())
    }

    async fn read(
        &self,
        world: &SimWorld,
        client: &mut RawClient,
        key: &str,
    ) -> io::Result<(u64, Option<String>, u64)> {
        let before_ms = now_ms(world);
        let found = match ask(client, &[b"GET".to_vec(), key.as_bytes().to_vec()]).await? {
            Reply::Null => None,
            Reply::Bulk(value) => Some(String::from_utf8(value).expect("what was written")),
            other => panic!("GET {key} was answered with {other:?}"),
        };
        Ok((before_ms, found, now_ms(world)))
    }

    /// Whether a key with this state may have been found so between two moments.
    fn explains(&self, state: Option<&State>, from_ms: u64, found: Option<&str>, to_ms: u64) -> Result<(), String> {
        let brief = |value: &str| value.chars().take(12).collect::<String>();
        match (state, found) {
            (None, None) => Ok(()),
            (Some(state), None) if to_ms >= state.until_ms => {
                self.sim.sometimes("a key expired");
                Ok(())
            }
            (Some(state), Some(found)) if found == state.value && from_ms <= state.until_ms => Ok(()),
            (state, found) => Err(format!(
                "found {:?} between {from_ms} and {to_ms}, with {:?}",
                found.map(brief),
                state.map(|state| (brief(&state.value), state.until_ms))
            )),
        }
    }

    /// Finds out what became of the change in doubt.
    async fn settle(&mut self, world: &SimWorld, client: &mut RawClient) -> io::Result<()> {
        let Some((key, to)) = self.doubt.clone() else { return Ok(()) };
        let (before_ms, found, after_ms) = self.read(world, client, &key).await?;
        let may_be = |state: Option<&State>| self.explains(state, before_ms, found.as_deref(), after_ms);
        let old = self.keys.get(&key).cloned();
        let (was, is) = (may_be(old.as_ref()), may_be(to.as_ref()));
        let same_value = old.as_ref().zip(to.as_ref()).is_some_and(|(old, to)| old.value == to.value);
        match (was, is) {
            // Only the time tells them apart: another value does.
            (Ok(()), Ok(())) if same_value && found.is_some() => {
                let value = self.value();
                let state = State { value, until_ms: NEVER };
                self.doubt = Some((key.clone(), Some(state.clone())));
                let set = [b"SET".to_vec(), key.as_bytes().to_vec(), state.value.as_bytes().to_vec()];
                ask(client, &set).await?;
                self.keys.insert(key, state);
            }
            (_, Ok(())) => self.put(&key, to),
            (Ok(()), _) => {}
            (Err(was), Err(is)) => panic!("{key}: neither {was} nor {is}"),
        }
        self.doubt = None;
        Ok(())
    }

    /// After the last key's time: every key holds what it has to. How many there are.
    pub(super) async fn check_all(&mut self, world: &SimWorld) -> i64 {
        let mut client = RawClient::connect_when_up(world, self.address).await;
        let mut there = 0;
        for number in 0..KEYS {
            let key = format!("mortal:{number}");
            self.look(world, &mut client, &key).await.expect("no faults are left");
            there += i64::from(self.keys.get(&key).is_some_and(|state| state.until_ms == NEVER));
        }
        there
    }
}
