//! Random string and hash commands and transactions over few keys, so that they meet each other.

use super::Command;
use crate::cuts::Script;
use crate::rng::SimRng;

/// What to generate.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Comes before every key, so that clients with a model each do not meet.
    pub prefix: String,
    /// How many keys there are.
    pub keys: u64,
    /// The longest payload, in bytes.
    pub payload_max: u64,
    /// With FLUSHDB and DBSIZE: only for a client that has the database to itself.
    pub whole_database: bool,
    /// Some batches hold a transaction.
    pub transactions: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Self { prefix: String::new(), keys: 16, payload_max: 6000, whole_database: true, transactions: false }
    }
}

/// Of so many keys one is for hashes.
const HASH_EVERY: u64 = 3;

/// How often each command comes, relative to the others.
const WEIGHTS: &[(&str, u64)] = &[
    ("SET", 30),
    ("GET", 25),
    ("APPEND", 10),
    ("INCRBY", 8),
    ("DEL", 6),
    ("MSET", 5),
    ("MGET", 5),
    ("GETDEL", 4),
    ("EXISTS", 4),
    ("STRLEN", 4),
    ("SETRANGE", 6),
    ("GETRANGE", 6),
    ("RENAME", 6),
    ("COPY", 4),
    ("HSET", 22),
    ("HSETNX", 3),
    ("HGET", 8),
    ("HMGET", 4),
    ("HGETALL", 6),
    ("HDEL", 8),
    ("HINCRBY", 5),
    ("HLEN", 2),
    ("HEXISTS", 2),
    ("HSTRLEN", 2),
    ("PEXPIREAT", 8),
    ("PERSIST", 2),
    ("PEXPIRETIME", 2),
    ("DBSIZE", 2),
    ("FLUSHDB", 1),
];

/// Makes commands from a profile and a generator of random numbers.
#[derive(Clone, Debug)]
pub struct Generator {
    profile: Profile,
    rng: SimRng,
    /// What may leave some of the commands out.
    script: Option<Script>,
}

impl Generator {
    /// The commands that follow from `rng`.
    pub fn new(profile: Profile, rng: SimRng) -> Self {
        Self { profile, rng, script: None }
    }

    /// The same, of which `script` may leave some out.
    pub fn cut_by(self, script: Script) -> Self {
        Self { script: Some(script), ..self }
    }

    fn keeps_next(&self) -> bool {
        self.script.as_ref().is_none_or(Script::keeps_next)
    }

    /// Every key that a command may name.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        (0..self.profile.keys).map(|number| self.key_of(number)).collect()
    }

    /// Commands to be sent together: mostly one, at times up to `most`; none if all of them are left out.
    pub fn batch(&mut self, most: u64) -> Vec<Command> {
        let count = if self.rng.one_in(2) { 1 } else { self.rng.between(1, most.max(1)) };
        let mut batch = Vec::new();
        let mut add = |commands: Vec<Command>, kept: bool| batch.extend(commands.into_iter().filter(|_| kept));
        for _ in 0..count {
            add(vec![self.command()], self.keeps_next());
        }
        if self.profile.transactions && self.rng.one_in(5) {
            add(self.transaction(), self.keeps_next());
            if self.rng.one_in(2) {
                add(vec![self.command()], self.keeps_next());
            }
        }
        batch
    }

    /// From WATCH or MULTI to EXEC or DISCARD.
    fn transaction(&mut self) -> Vec<Command> {
        let alone = |name: &str| vec![name.as_bytes().to_vec()];
        let mut commands = Vec::new();
        if self.rng.one_in(3) {
            let keys = self.rng.between(1, 3);
            commands.push([alone("WATCH"), (0..keys).map(|_| self.key()).collect()].concat());
            if self.rng.one_in(2) {
                commands.push(self.command());
            }
            if self.rng.one_in(6) {
                commands.push(alone("UNWATCH"));
            }
        }
        commands.push(alone("MULTI"));
        for _ in 0..self.rng.below(4) {
            commands.push(self.command());
        }
        if self.rng.one_in(12) {
            // It cannot be queued.
            commands.push(alone("GET"));
        }
        commands.push(alone(if self.rng.one_in(8) { "DISCARD" } else { "EXEC" }));
        commands
    }

    /// The next command.
    pub fn command(&mut self) -> Command {
        let name = self.name();
        let mut command = vec![name.as_bytes().to_vec()];
        match name {
            "SET" => {
                command.extend([self.key(), self.payload()]);
                if self.rng.one_in(4) {
                    command.push(self.rng.pick(&[b"NX", b"XX"]).to_vec());
                }
                if self.rng.one_in(6) {
                    command.push(b"GET".to_vec());
                }
                match self.rng.below(20) {
                    0..=1 => command.push(b"KEEPTTL".to_vec()),
                    2 => command.extend([b"PXAT".to_vec(), self.far_time()]),
                    _ => {}
                }
            }
            "APPEND" => command.extend([self.key(), self.payload()]),
            "INCRBY" => {
                let by = match self.rng.below(10) {
                    0 => i64::MAX,
                    1 => i64::MIN,
                    _ => self.rng.below(2000) as i64 - 1000,
                };
                command.extend([self.key(), by.to_string().into_bytes()]);
            }
            "DEL" | "EXISTS" | "MGET" => {
                for _ in 0..self.rng.between(1, 5) {
                    command.push(self.key());
                }
            }
            "MSET" => {
                for _ in 0..self.rng.between(1, 4) {
                    command.extend([self.key(), self.payload()]);
                }
            }
            "SETRANGE" => {
                let offset = self.rng.below(300);
                command.extend([self.key(), offset.to_string().into_bytes(), self.payload()]);
            }
            "GETRANGE" => {
                let [start, end] = [0, 1].map(|_| self.rng.below(200) as i64 - 100);
                command.extend([self.key(), start.to_string().into_bytes(), end.to_string().into_bytes()]);
            }
            "RENAME" | "COPY" => {
                // Hashes as often as strings: they are what is large.
                let key = |one: &mut Self| if one.rng.one_in(2) { one.key() } else { one.hash_key() };
                command.extend([key(self), key(self)]);
                if name == "COPY" && self.rng.one_in(2) {
                    command.push(b"REPLACE".to_vec());
                }
            }
            "HSET" => {
                command.push(self.hash_key());
                for _ in 0..self.rng.between(1, 3) {
                    command.extend([self.field(), self.payload()]);
                }
            }
            "HSETNX" => command.extend([self.hash_key(), self.field(), self.payload()]),
            "HGET" | "HEXISTS" | "HSTRLEN" => command.extend([self.hash_key(), self.field()]),
            "HMGET" | "HDEL" => {
                command.push(self.hash_key());
                for _ in 0..self.rng.between(1, 4) {
                    command.push(self.field());
                }
            }
            "HGETALL" | "HLEN" => command.push(self.hash_key()),
            "HINCRBY" => {
                let by = if self.rng.one_in(10) { i64::MAX } else { self.rng.below(2000) as i64 - 1000 };
                command.extend([self.hash_key(), self.field(), by.to_string().into_bytes()]);
            }
            "PEXPIREAT" => {
                // A hash as often as a string.
                let key = if self.rng.one_in(2) { self.key() } else { self.hash_key() };
                let at = if self.rng.one_in(6) { b"1".to_vec() } else { self.far_time() };
                command.extend([key, at]);
                if self.rng.one_in(3) {
                    command.push(self.rng.pick(&[b"NX", b"XX", b"GT", b"LT"]).to_vec());
                }
            }
            "DBSIZE" | "FLUSHDB" => {}
            _ => command.push(self.key()),
        }
        command
    }

    fn name(&mut self) -> &'static str {
        let whole = self.profile.whole_database;
        let allowed = |name: &str| whole || !matches!(name, "DBSIZE" | "FLUSHDB");
        let weights = || WEIGHTS.iter().filter(|(name, _)| allowed(name));
        let mut left = self.rng.below(weights().map(|(_, weight)| weight).sum());
        for (name, weight) in weights() {
            if left < *weight {
                return name;
            }
            left -= weight;
        }
        unreachable!("a number below the sum of the weights falls into one of them")
    }

    fn key_of(&self, number: u64) -> Vec<u8> {
        // Keys of several lengths, one of them empty when there is no prefix, one with bytes that end lines, one that does
        // not fit into a page.
        let tail = match number {
            0 => String::new(),
            1 => "\r\n".to_string(),
            2 => "long".repeat(40),
            4 => "longer".repeat(800),
            _ => format!("k{number}"),
        };
        format!("{}{tail}", self.profile.prefix).into_bytes()
    }

    fn key(&mut self) -> Vec<u8> {
        let number = self.rng.below(self.profile.keys);
        let other = if Self::is_for_hashes(number) && !self.rng.one_in(6) { number - 1 } else { number };
        self.key_of(other)
    }

    /// Types meet each other, but seldom enough that both live for a while.
    fn hash_key(&mut self) -> Vec<u8> {
        let number = self.rng.below(self.profile.keys);
        let other = number / HASH_EVERY * HASH_EVERY + HASH_EVERY - 1;
        let seldom = self.rng.one_in(12);
        self.key_of(if other < self.profile.keys && !seldom { other } else { number })
    }

    /// Whether hash commands mostly go to the key of this number.
    pub fn is_for_hashes(number: u64) -> bool {
        number % HASH_EVERY == HASH_EVERY - 1
    }

    /// A field's name, one of few.
    pub fn field(&mut self) -> Vec<u8> {
        match self.rng.below(8) {
            0 => Vec::new(),
            1 => b"\r\n".to_vec(),
            number => format!("f{number}").into_bytes(),
        }
    }

    /// A time beyond any run, in milliseconds: one of few, so that GT and LT meet equal ones.
    fn far_time(&mut self) -> Vec<u8> {
        (9_000_000_000_000 + self.rng.below(6)).to_string().into_bytes()
    }

    fn payload(&mut self) -> Vec<u8> {
        let most = self.profile.payload_max;
        let len = match self.rng.below(16) {
            0 => 0,
            1..=2 => return self.rng.below(100_000).to_string().into_bytes(),
            3..=7 => self.rng.between(1, 16),
            8..=12 => self.rng.between(17, 300),
            13..=14 => self.rng.between(300, 6000),
            _ => self.rng.between(4000, 20_000),
        };
        let mut bytes = vec![0; len.min(most) as usize];
        self.rng.fill(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::Model;
    use crate::resp::Reply;

    #[test]
    fn every_command_comes_and_the_model_knows_it() {
        let mut generator = Generator::new(Profile::default(), SimRng::derive(1, "test"));
        let keys: BTreeSet<_> = generator.keys().into_iter().collect();
        let mut model = Model::new();
        let (mut names, mut hits, mut hash_hits, mut expiries) = (BTreeSet::new(), 0, 0, 0);
        for _ in 0..4000 {
            let command = generator.command();
            let reply = model.apply(&command);
            hits += u32::from(command[0] == b"GET" && matches!(reply, Reply::Bulk(_)));
            hash_hits += u32::from(command[0] == b"HGET" && matches!(reply, Reply::Bulk(_)));
            expiries += model.dump().expiries.len();
            names.insert(command[0].clone());
        }
        assert_eq!(names.len(), WEIGHTS.len());
        assert!(hits > 150 && hash_hits > 20, "keys collide: {hits}, {hash_hits}");
        assert!(expiries > 4000, "one key in three has a time of expiry: {expiries}");
        assert!(model.dump().values.keys().all(|key| keys.contains(key)));
    }

    #[test]
    fn one_of_several_clients_keeps_to_its_keys() {
        let profile = Profile { prefix: "a:".to_string(), whole_database: false, ..Profile::default() };
        let mut generator = Generator::new(profile, SimRng::derive(2, "test"));
        let mut model = Model::new();
        for _ in 0..2000 {
            let command = generator.command();
            assert!(!matches!(command[0].as_slice(), b"FLUSHDB" | b"DBSIZE"));
            model.apply(&command);
        }
        assert!(model.dump().values.keys().all(|key| key.starts_with(b"a:")));
    }
}
