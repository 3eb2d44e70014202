//! The active cycle: keys are deleted when their time has come, though nobody asks for them.

use std::collections::BTreeSet;

use ferrite_hybridlog::{Address, Found, Held, Pinned};

use crate::Pause;
use crate::databases::Databases;
use crate::scratch::has_expired;
use crate::view::{Keyspace, Lent};
use crate::wheel::Reminder;

/// So many more reminders than keys that expire, and a part of those, are left to their time.
const STALE_MIN: u64 = 4096;
const STALE_PART: u64 = 4;
/// What there is beyond is looked for a part at a time, once a call.
const SWEEP_PART: u64 = 16;

/// Reminders taken from the wheel: of keys whose time has come, or some of any. Until each is settled, by [`expire_due`] or
/// [`Databases::put_back`], nobody else gets it.
#[derive(Default)]
pub struct Due {
    reminders: Vec<Reminder>,
    deleted: Deleted,
}

/// What [`expire_due`] has deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    pub keys: u64,
    /// In which databases.
    pub databases: BTreeSet<u32>,
}

impl Due {
    pub fn is_empty(&self) -> bool {
        self.reminders.is_empty()
    }

    /// What was deleted since this was asked last.
    pub fn take_deleted(&mut self) -> Deleted {
        std::mem::take(&mut self.deleted)
    }

    pub(crate) fn take(&mut self) -> Option<Reminder> {
        self.reminders.pop()
    }

    /// Gives up the key that [`expire_due`] would look at next: a read that meets it will find that it has expired.
    pub fn skip(&mut self, databases: &Databases) {
        if let Some(reminder) = self.reminders.pop() {
            databases.settle_reminder(reminder.hash, None);
        }
    }
}

impl Databases {
    /// Takes at most `max` keys that may have expired before `now_ms`, or are gone; true: there may be more.
    pub fn take_due(&self, now_ms: u64, max: usize, due: &mut Due) -> bool {
        // What was emptied is freed without the lock.
        let (more, _garbage) = {
            let mut wheel = self.wheel.lock();
            (wheel.take_due(now_ms, max, &mut due.reminders), wheel.take_garbage())
        };
        more
    }

    /// How many reminders should be looked at now, since there are more than keys that expire: a database that is emptied
    /// beside others leaves its reminders, as does what is overwritten without being read.
    pub fn stale_reminders(&self) -> usize {
        let expiring: u64 = (0..self.count()).map(|db| self.expires(db)).sum();
        let surplus = self.reminders().saturating_sub(expiring);
        if surplus > expiring / STALE_PART + STALE_MIN { (surplus / SWEEP_PART) as usize } else { 0 }
    }

    /// Takes at most `max` reminders of any time, going round.
    pub fn take_stale(&self, max: usize, due: &mut Due) {
        self.wheel.lock().sample(max, &mut due.reminders);
    }

    /// Takes one of all reminders, the one that `random` points to, if there is any.
    pub(crate) fn take_any(&self, random: u64, due: &mut Due) {
        self.wheel.lock().take_any(random, &mut due.reminders);
    }

    /// What a look at the key of a reminder that was taken has found: when it expires; `None`: never, or it is gone.
    pub(crate) fn settle_reminder(&self, hash: u64, due_ms: Option<u64>) {
        self.wheel.lock().settle(hash, due_ms);
    }

    /// Puts back what was taken.
    pub fn put_back(&self, due: &mut Due) {
        let mut wheel = self.wheel.lock();
        due.reminders.drain(..).for_each(|reminder| wheel.settle(reminder.hash, Some(reminder.due_ms)));
    }

    /// Bytes that watched keys take.
    pub fn watch_bytes(&self) -> usize {
        self.watchers.bytes()
    }

    /// Reminders that there are: one for each key that expires, and some of keys that no longer do.
    pub fn reminders(&self) -> u64 {
        self.wheel.lock().len() as u64
    }

    /// Bytes that the times of expiry take beside the keys.
    pub fn expiry_bytes(&self) -> usize {
        self.wheel.lock().bytes()
    }
}

/// The addresses of what has to be read before [`expire_due`] can decide, one step of each key's chain.
pub fn cold_records(pinned: &Pinned<'_>, held: &Held, due: &Due) -> Vec<Address> {
    let cold = due.reminders.iter().filter_map(|reminder| {
        let _latch = pinned.latch(reminder.hash, false);
        match pinned.find_by_hash(reminder.hash, held) {
            Found::Cold(address) => Some(address),
            Found::Record(_) | Found::Missing => None,
        }
    });
    cold.collect()
}

/// Looks up one of the keys in `due`, deletes it if its time has come, and reminds of it again if it is still to come.
/// The worker is not in the exclusive mode and holds no latch. `Ok(false)`: none was left.
///
/// # Errors
/// A pause; the key stays in `due`. [`Pause::Records`] names what to read.
pub fn expire_due(lent: Lent<'_>, due: &mut Due) -> Result<bool, Pause> {
    let Some(&reminder) = due.reminders.last() else { return Ok(false) };
    let Lent { pinned, held, databases, now_ms, .. } = lent;
    let _latch = pinned.latch(reminder.hash, true);
    let expiring = match pinned.find_by_hash(reminder.hash, held) {
        Found::Cold(address) => return Err(Pause::Records(vec![address])),
        Found::Record(record) if record.expire_at_ms != 0 => databases.db_of(record.space).map(|db| (db, record)),
        // Deleted, or it stays for ever: the reminder has done its work.
        Found::Record(_) | Found::Missing => None,
    };
    let later = match expiring {
        Some((db, record)) if has_expired(record.expire_at_ms, now_ms) => {
            let key = record.key.to_vec();
            Keyspace::silent(lent, db).delete_expired(&key)?;
            due.deleted.keys += 1;
            due.deleted.databases.insert(db);
            None
        }
        other => other.map(|(_, record)| record.expire_at_ms),
    };
    databases.settle_reminder(reminder.hash, later);
    Ok(due.reminders.pop().is_some())
}
