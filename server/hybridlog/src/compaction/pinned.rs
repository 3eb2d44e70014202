//! What becomes of one record at the log's beginning.

use crate::address::Address;
use crate::held::{Held, HeldRecord};
use crate::index::Slot;
use crate::pinned::Pinned;
use crate::planted::Planted;
use crate::record::{NewRecord, Raw, record_size};
use crate::space::NeedSpace;

/// A verified record at the log's beginning.
#[derive(Clone, Debug)]
pub struct OldRecord {
    pub address: Address,
    /// Of its key: that of the latch.
    pub hash: u64,
    pub held: HeldRecord,
}

impl OldRecord {
    pub fn space(&self) -> u32 {
        self.held.raw().space()
    }

    pub fn is_tombstone(&self) -> bool {
        self.held.raw().is_tombstone()
    }

    /// Milliseconds since the Unix epoch; 0: never.
    pub fn expire_at_ms(&self) -> u64 {
        self.held.raw().expire_at_ms()
    }
}

/// Whether a record is its key's newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    Newest,
    Superseded,
    /// The record at this address is on disk and not held: read it, hold it, ask again.
    Cold(Address),
}

impl Pinned<'_> {
    /// Notes where the record's chain goes on in a page in quarantine: soon the record will be gone. The caller has latched its
    /// bucket for writing.
    pub fn judge(&self, record: &OldRecord, held: &Held) -> Old {
        self.debug_assert_latched(record.hash, true);
        let (quarantine, behind) = (&self.store.log.quarantine, record.held.raw().previous());
        if quarantine.has(behind) {
            quarantine.link(self.store.index.entry_of(record.hash), behind);
        }
        let Some(slot) = self.store.index.find(record.hash) else { return Old::Superseded };
        let own = record.held.raw();
        let head = self.store.log.regions.head();
        let mut address = slot.address();
        while address > record.address {
            let raw = if address >= head {
                // SAFETY: we are pinned and just found it at or above head.
                unsafe { self.store.log.at(address) }
            } else if let Some(record) = held.get(address) {
                record.raw()
            } else {
                return Old::Cold(address);
            };
            if has_same_key(raw, own) || Planted::NeighbourSupersedes.is_there() {
                return if Planted::SupersededIsKept.is_there() { Old::Newest } else { Old::Superseded };
            }
            address = raw.previous();
        }
        if address == record.address { Old::Newest } else { Old::Superseded }
    }

    /// Whether a tombstone has to stay: in front of a page in quarantine, of which nobody knows whether it has the key.
    pub fn may_hide(&self, record: &OldRecord) -> bool {
        self.debug_assert_latched(record.hash, true);
        self.behind_of(record.hash, record.address, record.held.raw().previous()).is_some()
    }

    /// Copies a record that is its key's newest to the tail. Gives the bytes that it took in the log and takes now, without
    /// its room to grow. The caller has latched its bucket for writing.
    pub fn keep(&self, record: &OldRecord) -> Result<(usize, usize), NeedSpace> {
        self.debug_assert_latched(record.hash, true);
        let slot = self.store.index.find(record.hash).expect("its key's newest record is found");
        let raw = record.held.raw();
        let expire_at_ms = if Planted::ExpiryIsForgotten.is_there() { 0 } else { raw.expire_at_ms() };
        let copied = self.copy(record.hash, raw, record.address, slot, expire_at_ms, true)?;
        if Planted::ExtentIsFreed.is_there() && raw.is_object() {
            self.release(raw);
        }
        Ok((raw.size(), copied))
    }

    /// The record is its key's newest, and a tombstone that hides nothing or of a space that nobody shows any more: forgets it.
    /// The caller has latched its bucket for writing.
    pub fn let_go(&self, record: &OldRecord) {
        self.debug_assert_latched(record.hash, true);
        let raw = record.held.raw();
        if raw.is_object() {
            self.release(raw);
        }
        if let Some(slot) = self.store.index.find(record.hash)
            && (slot.address() == record.address || Planted::ChainGoesWithTombstone.is_there())
        {
            match self.behind_of(record.hash, record.address, raw.previous()) {
                Some(left) if !Planted::ChainGoesWithTombstone.is_there() => slot.set_address(left),
                // All that is behind it is older: superseded, or gone before. A checkpoint's image may have the entry: what it
                // leads to is as dead there.
                _ => _ = self.store.index.remove(slot, self.worker),
            }
        }
    }

    /// Appends the record at `address`, its key's newest, as it is, but for its time of expiry and its room to grow. Gives the
    /// bytes that it takes.
    pub(crate) fn copy(
        &self,
        hash: u64,
        raw: Raw,
        address: Address,
        slot: Slot<'_>,
        expire_at_ms: u64,
        from_reserve: bool,
    ) -> Result<usize, NeedSpace> {
        let log = &self.store.log;
        // SAFETY: the record is held, or in memory while we are pinned; the latch keeps writers out.
        let (key, value) = unsafe { (raw.key(), raw.value()) };
        let size = record_size(key.len(), value.len());
        let to = match from_reserve {
            true => log.allocate_from_reserve(size, &self.store.epochs)?,
            false => log.allocate(size, &self.promised, &self.store.epochs)?,
        };
        let newest = slot.address();
        let previous = if newest == address { raw.previous() } else { newest };
        let record = NewRecord {
            previous: if self.ends_chain(previous) { 0 } else { previous },
            space: raw.space(),
            key,
            long_key: raw.has_long_key(),
            kind: raw.kind(),
            object: raw.is_object(),
            tombstone: raw.is_tombstone() && !Planted::TombstoneIsRevived.is_there(),
            expire_at_ms,
            access: raw.access(),
            value: &[value],
            value_len: value.len(),
            size,
        };
        self.place(hash, to, Some(slot), &record);
        Ok(size)
    }
}

fn has_same_key(a: Raw, b: Raw) -> bool {
    // SAFETY: both are held, or in memory while the caller is pinned; keys are never changed.
    a.key_word() == b.key_word() && a.space() == b.space() && unsafe { a.key() == b.key() }
}
