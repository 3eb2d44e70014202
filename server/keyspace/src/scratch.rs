//! What a worker keeps from one command to the next, so that a command allocates nothing.

use crate::databases::State;
use crate::expired::ExpiredKeys;
use crate::promote::Promotions;
use crate::random::Random;
use crate::scan::RandomWalk;
use crate::wheel::Reminder;

/// Bytes of a buffer that is kept from one command to the next.
const KEPT_MAX: usize = 1 << 20;

/// Buffers and the state of the command at hand. One per worker; commands of one worker run one after the other.
pub struct Scratch {
    /// Encoded effects of the command at hand, until its frame is appended.
    pub(crate) effects: Vec<u8>,
    /// Values put together before they are written.
    pub(crate) value: Vec<u8>,
    /// Elements of a collection that the command at hand changes, for its effect.
    pub(crate) elements: Vec<u8>,
    /// Whether each field that a command set was new.
    pub(crate) added: Vec<bool>,
    /// Bytes reserved in the append-only file for the command at hand.
    pub(crate) reserved: usize,
    /// Room for all of the command's writes has been reserved: from here on none of them can fail.
    pub(crate) covered: bool,
    /// The command at hand has changed something: from here on it cannot pause.
    pub(crate) wrote: bool,
    /// The last key looked up by the command at hand.
    pub(crate) last: Option<Lookup>,
    /// Keys that reads found expired, to be deleted once the reading command is over.
    pub(crate) expired: ExpiredKeys,
    /// Times of expiry that the batch has set, on their way to the wheel.
    pub(crate) reminders: Vec<Reminder>,
    /// Keys that reads found where their access clock stands still.
    pub(crate) promotions: Promotions,
    pub(crate) counters: Counters,
    /// The view at hand does work that is not the command's own: its trace stays muted.
    pub(crate) silent: bool,
    /// Where RANDOMKEY waits for records.
    pub(crate) random_walk: Option<RandomWalk>,
    pub(crate) random: Random,
}

/// What is known of a key, so that a write after a read (and a read after the latch) does not hash and search again.
#[derive(Clone, Copy)]
pub(crate) struct Lookup {
    /// Where the caller's key lies: arguments stay where they are during a command.
    pub key_at: usize,
    pub key_len: usize,
    pub space: u32,
    pub hash: u64,
    pub found: Option<Presence>,
}

/// Whether a key is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Missing,
    /// There is a record, expired or not.
    Present {
        expire_at_ms: u64,
        /// Bytes the record takes.
        size: usize,
    },
}

impl Presence {
    /// The time of expiry of a key that has not expired at `now_ms`; 0: never.
    pub(crate) fn live(self, now_ms: u64) -> Option<u64> {
        match self {
            Presence::Present { expire_at_ms, .. } if !has_expired(expire_at_ms, now_ms) => Some(expire_at_ms),
            _ => None,
        }
    }

    /// As the databases count it.
    pub(crate) fn state(self) -> Option<State> {
        match self {
            Presence::Missing => None,
            Presence::Present { expire_at_ms, size } => Some((expire_at_ms, size)),
        }
    }
}

/// A key whose time is reached is gone at that very millisecond and after.
pub(crate) fn has_expired(expire_at_ms: u64, now_ms: u64) -> bool {
    expire_at_ms != 0 && expire_at_ms < now_ms
}

/// Counted per worker, added to the shared figures once per batch.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counters {
    /// By [`Tier`](ferrite_telemetry::Tier).
    pub hits: [u64; 3],
    pub misses: u64,
    pub expired: u64,
    pub evicted: u64,
    pub changes: u64,
}

impl Scratch {
    /// `seed` is for RANDOMKEY and its like only.
    pub fn new(seed: u64) -> Self {
        Scratch {
            effects: Vec::new(),
            value: Vec::new(),
            elements: Vec::new(),
            added: Vec::new(),
            reserved: 0,
            covered: false,
            wrote: false,
            last: None,
            expired: ExpiredKeys::default(),
            reminders: Vec::new(),
            promotions: Promotions::default(),
            counters: Counters::default(),
            silent: false,
            random_walk: None,
            random: Random::new(seed),
        }
    }

    /// Gives back what a large value has left behind.
    #[inline]
    pub(crate) fn shrink(&mut self) {
        if self.effects.capacity().max(self.value.capacity()).max(self.elements.capacity()) > KEPT_MAX {
            self.shrink_now();
        }
    }

    #[cold]
    fn shrink_now(&mut self) {
        for buffer in [&mut self.effects, &mut self.value, &mut self.elements] {
            if buffer.capacity() > KEPT_MAX {
                *buffer = Vec::new();
            }
        }
    }

    /// The next command's key, of which the hash is known already. It stays a hint: a command that asks for another key,
    /// or for this one in another space, computes its own.
    #[inline]
    pub fn expect(&mut self, key: &[u8], space: u32, hash: u64) {
        self.last = Some(Lookup { key_at: key.as_ptr() as usize, key_len: key.len(), space, hash, found: None });
    }

    /// A number to begin other random numbers with.
    pub fn random_seed(&mut self) -> u64 {
        self.random.next_u64()
    }

    /// Reads have found expired keys that are still to be deleted.
    #[inline]
    pub fn has_expired(&self) -> bool {
        !self.expired.is_empty()
    }

    /// Takes the database and name of one of them, for [`crate::Keyspace::delete_expired`].
    pub fn next_expired(&mut self) -> Option<(u32, Box<[u8]>)> {
        self.expired.take()
    }
}
