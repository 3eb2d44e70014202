//! All databases: which generation of keys each shows, how many there are, who watches them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::encodings::Encodings;
use crate::limits::MemoryLimits;
use crate::scratch::{Counters, Scratch};
use crate::unseen::{Counts, UnseenWrites};
use crate::watch::Registry;
use crate::wheel::{Reminder, Wheel};
use ferrite_hybridlog::Address;
use ferrite_telemetry::Tier;

/// The databases, shared by all workers.
///
/// A database is a *space*: the generation that its keys carry in the engine. Emptying a database gives it a new
/// space, swapping two swaps their spaces: both are done at once, whatever the number of keys. Spaces change only in the
/// exclusive mode, so that a command sees one space from its beginning to its end.
pub struct Databases {
    pub(crate) slots: Box<[Slot]>,
    pub(crate) next_space: AtomicU32,
    pub(crate) watchers: Arc<Registry>,
    pub(crate) wheel: Mutex<Wheel>,
    active_expiry: AtomicBool,
    pub encodings: Encodings,
    pub limits: MemoryLimits,
    /// By [`Tier`].
    hits: [AtomicU64; 3],
    /// Until it is empty the counts are too high by what its notes will find.
    pub unseen: UnseenWrites,
    misses: AtomicU64,
    expired: AtomicU64,
    evicted: AtomicU64,
    changes: AtomicU64,
    /// What CONFIG RESETSTAT hides.
    hidden: Mutex<Figures>,
}

pub(crate) struct Slot {
    pub(crate) space: AtomicU32,
    /// No record of the space lies below this address of the log.
    pub(crate) since: AtomicU64,
    pub(crate) keys: AtomicU64,
    pub(crate) expires: AtomicU64,
    /// Of the keys' records, wherever they lie.
    pub(crate) record_bytes: AtomicU64,
}

/// What counts of a key that is there: its time of expiry, 0 for never, and the bytes of its record.
pub(crate) type State = (u64, usize);

/// Counts since the start (or [`Databases::reset_figures`]), over all databases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Reads that found their key, by the [`Tier`] in which it lay.
    pub tier_hits: [u64; 3],
    pub keyspace_misses: u64,
    pub expired_keys: u64,
    pub evicted_keys: u64,
    /// Changes since the start; never reset.
    pub changes: u64,
}

impl Figures {
    pub fn keyspace_hits(&self) -> u64 {
        self.tier_hits.iter().sum()
    }

    pub fn tier_hits(&self, tier: Tier) -> u64 {
        self.tier_hits[tier as usize]
    }
}

impl Databases {
    pub fn new(count: u32) -> Self {
        let slot = |space| Slot {
            space: AtomicU32::new(space),
            since: AtomicU64::new(0),
            keys: AtomicU64::new(0),
            expires: AtomicU64::new(0),
            record_bytes: AtomicU64::new(0),
        };
        Databases {
            slots: (0..count).map(slot).collect(),
            next_space: AtomicU32::new(count),
            watchers: Arc::default(),
            wheel: Mutex::default(),
            active_expiry: AtomicBool::new(true),
            encodings: Encodings::default(),
            limits: MemoryLimits::default(),
            hits: Default::default(),
            unseen: UnseenWrites::default(),
            misses: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            hidden: Mutex::default(),
        }
    }

    pub fn with_encodings(self, encodings: Encodings) -> Self {
        Databases { encodings, ..self }
    }

    pub fn with_limits(self, limits: MemoryLimits) -> Self {
        Databases { limits, ..self }
    }

    /// Number of databases.
    pub fn count(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The generation that the database shows now.
    pub fn space(&self, db: u32) -> u32 {
        self.slots[db as usize].space.load(Relaxed)
    }

    /// The database that shows this generation; `None`: none does any more.
    pub(crate) fn db_of(&self, space: u32) -> Option<u32> {
        self.slots.iter().position(|slot| slot.space.load(Relaxed) == space).map(|db| db as u32)
    }

    /// DEBUG SET-ACTIVE-EXPIRE: whether keys are deleted when their time has come, or only when they are met.
    pub fn set_active_expiry(&self, on: bool) {
        self.active_expiry.store(on, Relaxed);
    }

    pub fn active_expiry(&self) -> bool {
        self.active_expiry.load(Relaxed)
    }

    /// The address below which the log has no record of the database's space.
    pub(crate) fn since(&self, db: u32) -> Address {
        self.slots[db as usize].since.load(Relaxed)
    }

    /// Number of keys, those that have expired unseen included, as in Redis.
    pub fn keys(&self, db: u32) -> u64 {
        self.slots[db as usize].keys.load(Relaxed)
    }

    /// Number of keys that have a time of expiry.
    pub fn expires(&self, db: u32) -> u64 {
        self.slots[db as usize].expires.load(Relaxed)
    }

    pub fn total_keys(&self) -> u64 {
        self.slots.iter().map(|slot| slot.keys.load(Relaxed)).sum()
    }

    /// Since the start.
    pub fn figures(&self) -> Figures {
        Figures {
            tier_hits: self.hits.each_ref().map(|hits| hits.load(Relaxed)),
            keyspace_misses: self.misses.load(Relaxed),
            expired_keys: self.expired.load(Relaxed),
            evicted_keys: self.evicted.load(Relaxed),
            changes: self.changes.load(Relaxed),
        }
    }

    /// Since the last [`Databases::reset_figures`].
    pub fn figures_since_reset(&self) -> Figures {
        let (now, hidden) = (self.figures(), *self.hidden.lock());
        Figures {
            tier_hits: std::array::from_fn(|tier| now.tier_hits[tier] - hidden.tier_hits[tier]),
            keyspace_misses: now.keyspace_misses - hidden.keyspace_misses,
            expired_keys: now.expired_keys - hidden.expired_keys,
            evicted_keys: now.evicted_keys - hidden.evicted_keys,
            changes: now.changes,
        }
    }

    /// CONFIG RESETSTAT. Exported counters never go back.
    pub fn reset_figures(&self) {
        *self.hidden.lock() = self.figures();
    }

    /// Adds what a worker counted; to be called once per batch.
    pub fn absorb(&self, scratch: &mut Scratch) {
        let Counters { hits, misses, expired, evicted, changes } = std::mem::take(&mut scratch.counters);
        let [mutable, read_only, disk] = &self.hits;
        for (figure, by) in [
            (mutable, hits[0]),
            (read_only, hits[1]),
            (disk, hits[2]),
            (&self.misses, misses),
            (&self.expired, expired),
            (&self.evicted, evicted),
            (&self.changes, changes),
        ] {
            if by != 0 {
                figure.fetch_add(by, Relaxed);
            }
        }
        if !scratch.reminders.is_empty() {
            self.tell_wheel(&mut scratch.reminders);
        }
    }

    /// What writes say of times of expiry.
    fn tell_wheel(&self, reminders: &mut Vec<Reminder>) {
        /// Some ten microseconds: other workers wait for the lock.
        const AT_ONCE: usize = 64;
        for some in reminders.chunks(AT_ONCE) {
            let mut wheel = self.wheel.lock();
            some.iter().for_each(|&reminder| wheel.note(reminder));
        }
        reminders.clear();
    }

    /// All that is counted of a database.
    pub(crate) fn counts(&self, db: u32) -> Counts {
        let slot = &self.slots[db as usize];
        Counts {
            space: slot.space.load(Relaxed),
            keys: slot.keys.load(Relaxed),
            expires: slot.expires.load(Relaxed),
            record_bytes: slot.record_bytes.load(Relaxed),
        }
    }

    /// A key that had expired was found by who overwrote it.
    pub(crate) fn count_expired(&self) {
        self.expired.fetch_add(1, Relaxed);
    }

    /// Keeps the counts when a key goes from one state to another; `None` is no key.
    pub(crate) fn count_change(&self, db: u32, before: Option<State>, after: Option<State>) {
        let slot = &self.slots[db as usize];
        match (before, after) {
            (None, Some(_)) => _ = slot.keys.fetch_add(1, Relaxed),
            (Some(_), None) => _ = slot.keys.fetch_sub(1, Relaxed),
            _ => {}
        }
        let expires = |state: Option<State>| state.is_some_and(|(at, _)| at != 0);
        match (expires(before), expires(after)) {
            (false, true) => _ = slot.expires.fetch_add(1, Relaxed),
            (true, false) => _ = slot.expires.fetch_sub(1, Relaxed),
            _ => {}
        }
        let size = |state: Option<State>| state.map_or(0, |(_, size)| size);
        self.count_bytes(db, size(before), size(after));
    }

    /// A key's record takes as many bytes more or less.
    #[inline]
    pub(crate) fn count_bytes(&self, db: u32, before: usize, after: usize) {
        if before != after {
            // Of an unsigned number: what wraps in between comes out right.
            self.slots[db as usize].record_bytes.fetch_add(after.wrapping_sub(before) as u64, Relaxed);
        }
    }

    /// Bytes of the records of all keys, with what they own, as they are written. Exact at any moment, but for what batches
    /// under way have changed and not counted yet.
    pub fn live_bytes(&self) -> u64 {
        self.slots.iter().map(|slot| slot.record_bytes.load(Relaxed)).sum()
    }

    /// A database's part of [`Databases::data_bytes`].
    pub fn data_bytes_of(&self, db: u32) -> u64 {
        self.counts(db).data_bytes()
    }

    /// Gives the database a new space, whose records will lie at `tail` and above; returns the one it had. Exclusive mode
    /// only.
    pub(crate) fn empty(&self, db: u32, tail: Address) -> u32 {
        let slot = &self.slots[db as usize];
        slot.since.store(tail, Relaxed);
        slot.keys.store(0, Relaxed);
        slot.expires.store(0, Relaxed);
        slot.record_bytes.store(0, Relaxed);
        slot.space.swap(self.next_space.fetch_add(1, Relaxed), Relaxed)
    }

    /// Exclusive mode only.
    pub(crate) fn swap(&self, a: u32, b: u32) {
        let (a, b) = (&self.slots[a as usize], &self.slots[b as usize]);
        b.space.store(a.space.swap(b.space.load(Relaxed), Relaxed), Relaxed);
        b.since.store(a.since.swap(b.since.load(Relaxed), Relaxed), Relaxed);
        b.keys.store(a.keys.swap(b.keys.load(Relaxed), Relaxed), Relaxed);
        b.expires.store(a.expires.swap(b.expires.load(Relaxed), Relaxed), Relaxed);
        b.record_bytes.store(a.record_bytes.swap(b.record_bytes.load(Relaxed), Relaxed), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_the_keys_and_their_expiry() {
        let databases = Databases::new(2);
        databases.count_change(0, None, Some((0, 48)));
        databases.count_change(0, None, Some((5, 56)));
        databases.count_change(0, Some((0, 48)), Some((9, 40)));
        assert_eq!((databases.keys(0), databases.expires(0)), (2, 2));
        assert_eq!(databases.data_bytes_of(0), 40 + 56 + 2 * (8 + 32));
        databases.count_change(0, Some((5, 56)), None);
        assert_eq!((databases.keys(0), databases.expires(0)), (1, 1));
        assert_eq!(databases.data_bytes(), 40 + 8 + 32);
        assert_eq!(databases.keys(1), 0);
    }

    #[test]
    fn emptying_gives_a_space_never_seen_and_swapping_swaps_it() {
        let databases = Databases::new(2);
        databases.count_change(1, None, Some((0, 48)));
        assert_eq!(databases.empty(0, 640), 0);
        let fresh = databases.space(0);
        assert!(fresh >= 2);
        databases.swap(0, 1);
        assert_eq!((databases.since(1), databases.since(0)), (640, 0));
        assert_eq!((databases.space(1), databases.space(0)), (fresh, 1));
        assert_eq!((databases.keys(0), databases.keys(1)), (1, 0));
        assert_eq!((databases.data_bytes_of(0), databases.data_bytes_of(1)), (56, 0));
    }
}
