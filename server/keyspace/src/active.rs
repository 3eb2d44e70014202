//! The active cycle: keys are deleted when their time has come, though nobody asks for them.

use std::collections::BTreeSet;

use ferrite_hybridlog::{Address, Found, Held, Pinned};

use crate::Pause;
use crate::databases::Databases;
use crate::scratch::has_expired;
use crate::view::{Keyspace, Lent};
use crate::wheel::Reminder;

/// Below this, keys that are gone are left to their time.
const STALE_MIN: u64 = 64 * 1024;

/// Reminders taken from the wheel: of keys whose time has come, or some of any.
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
    pub fn skip(&mut self) {
        self.reminders.pop();
    }
}

impl Databases {
    /// Takes at most `max` keys that may have expired before `now_ms`; true: there may be more.
    pub fn take_due(&self, now_ms: u64, max: usize, due: &mut Due) -> bool {
        self.wheel.lock().take_due(now_ms, max, &mut due.reminders)
    }

    /// Takes at most `max` reminders of any time if most of them must be of keys that are gone. A key that is deleted
    /// leaves its reminder behind, since finding it would cost more than keeping it.
    pub fn take_stale(&self, max: usize, due: &mut Due) {
        let expiring: u64 = (0..self.count()).map(|db| self.expires(db)).sum();
        let mut wheel = self.wheel.lock();
        if wheel.len() as u64 > 2 * expiring + STALE_MIN {
            wheel.sample(max, &mut due.reminders);
        }
    }

    /// Takes one of all reminders, the one that `random` points to, if there is any.
    pub(crate) fn take_any(&self, random: u64, due: &mut Due) {
        due.reminders.extend(self.wheel.lock().take_any(random));
    }

    pub(crate) fn remind(&self, reminder: Reminder) {
        self.wheel.lock().add(reminder);
    }

    /// Puts back what was taken.
    pub fn put_back(&self, due: &mut Due) {
        let mut wheel = self.wheel.lock();
        due.reminders.drain(..).for_each(|reminder| wheel.add(reminder));
    }

    /// Bytes that watched keys take.
    pub fn watch_bytes(&self) -> usize {
        self.watchers.bytes()
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
    let (db, key, expire_at_ms) = match pinned.find_by_hash(reminder.hash, held) {
        Found::Cold(address) => return Err(Pause::Records(vec![address])),
        Found::Record(record) if record.expire_at_ms != 0 => match databases.db_of(record.space) {
            Some(db) => (db, record.key.to_vec(), record.expire_at_ms),
            None => return Ok(due.reminders.pop().is_some()),
        },
        // Deleted, or it stays for ever: the reminder has done its work.
        Found::Record(_) | Found::Missing => return Ok(due.reminders.pop().is_some()),
    };
    if has_expired(expire_at_ms, now_ms) {
        Keyspace::silent(lent, db).delete_expired(&key)?;
        due.deleted.keys += 1;
        due.deleted.databases.insert(db);
    } else {
        databases.wheel.lock().add(Reminder { hash: reminder.hash, due_ms: expire_at_ms });
    }
    Ok(due.reminders.pop().is_some())
}
