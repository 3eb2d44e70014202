//! Reading a part of a string, its length, or what a record tells alone: of a large value on disk no more is read than that takes.

use std::ops::Range;

use ferrite_hybridlog::Unread;
use ferrite_telemetry::Tier;

use crate::scratch::{Presence, has_expired};
use crate::view::{Keyspace, Lent};
use crate::{Kind, Pause, WRONG_TYPE};

/// What a key's record tells without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    pub kind: Kind,
    /// Milliseconds since the Unix epoch; 0: never.
    pub expire_at_ms: u64,
}

impl<'a> Keyspace<'a> {
    /// The length of the string for a reader; 0 without one.
    pub fn read_len(&mut self, key: &[u8]) -> Result<usize, Pause> {
        match self.unread(key)? {
            Some(Some(unread)) => {
                self.lent.scratch.counters.hits[Tier::Disk as usize] += 1;
                Ok(unread.value_len)
            }
            Some(None) => {
                self.lent.scratch.counters.misses += 1;
                Ok(0)
            }
            None => Ok(self.read_string(key)?.map_or(0, <[u8]>::len)),
        }
    }

    /// The length of the string for a writer, if there is one: not counted.
    pub fn string_len(&mut self, key: &[u8]) -> Result<Option<usize>, Pause> {
        match self.unread(key)? {
            Some(unread) => Ok(unread.map(|unread| unread.value_len)),
            None => Ok(self.get_string(key)?.map(<[u8]>::len)),
        }
    }

    /// The bytes of the string that `pick` asks for, which is told its length; a missing one is empty.
    pub fn read_range(&mut self, key: &[u8], pick: impl FnOnce(usize) -> Range<usize>) -> Result<&[u8], Pause> {
        match self.unread(key)? {
            Some(Some(unread)) => {
                let range = pick(unread.value_len);
                let part = if range.is_empty() { Some(&[][..]) } else { unread.part(&range) };
                let bytes = part.ok_or(Pause::Part { address: unread.address, range })?;
                self.lent.scratch.counters.hits[Tier::Disk as usize] += 1;
                Ok(bytes)
            }
            Some(None) => {
                self.lent.scratch.counters.misses += 1;
                Ok(&[])
            }
            None => {
                let value = self.read_string(key)?.unwrap_or_default();
                Ok(&value[pick(value.len())])
            }
        }
    }

    /// Type and time of expiry of what the key holds, for commands that ask no more of it: counted, and no access.
    pub fn glance(&mut self, key: &[u8]) -> Result<Option<Glance>, Pause> {
        match self.alone(key) {
            Some(Some(Unread { kind, expire_at_ms, .. })) => {
                self.lent.scratch.counters.hits[Tier::Disk as usize] += 1;
                Ok(Some(Glance { kind, expire_at_ms }))
            }
            Some(None) => {
                self.lent.scratch.counters.misses += 1;
                Ok(None)
            }
            None => {
                let record = self.look(key)?;
                Ok(record.map(|record| Glance { kind: record.kind, expire_at_ms: record.expire_at_ms }))
            }
        }
    }

    /// [`Keyspace::exists`] for who will ask no more of a large value.
    pub fn is_there(&mut self, key: &[u8]) -> Result<bool, Pause> {
        match self.alone(key) {
            Some(unread) => Ok(unread.is_some()),
            None => self.exists(key),
        }
    }

    /// The string of a live key whose record was read without it. `Some(None)`: the key has expired; `None`: the key is in memory, on
    /// disk and not read, or read with its value.
    fn unread(&mut self, key: &[u8]) -> Result<Option<Option<Unread<'a>>>, Pause> {
        match self.alone(key) {
            Some(Some(unread)) if unread.kind != Kind::String => Err(WRONG_TYPE),
            found => Ok(found),
        }
    }

    /// [`Keyspace::unread`] of whatever type.
    fn alone(&mut self, bytes: &[u8]) -> Option<Option<Unread<'a>>> {
        if self.lent.held.is_empty() {
            return None;
        }
        let key = self.key(bytes);
        let Lent { pinned, held, now_ms, .. } = self.lent;
        let unread = pinned.unread(&key, held)?;
        self.remember(Presence::Present { expire_at_ms: unread.expire_at_ms, size: unread.size });
        if has_expired(unread.expire_at_ms, now_ms) {
            let db = self.db();
            self.lent.scratch.expired.add(db, bytes);
            return Some(None);
        }
        Some(Some(unread))
    }
}
