//! What a write has replaced without reading it, found out afterwards: the key's newest record on disk at the time of the
//! write is in the part of the chain that begins where the write met the disk. That part never changes, whatever becomes
//! of the key.

use crate::address::Address;
use crate::held::HeldRecord;
use crate::index::Slot;
use crate::pinned::Pinned;

/// What a record of a chain on disk says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// It is the key's.
    Key {
        /// Milliseconds since the Unix epoch; 0: never.
        expire_at_ms: u64,
        /// Bytes of the record and of what it owns.
        size: usize,
    },
    /// There was no such key.
    Nothing,
    /// It is a neighbour's; the chain goes on here.
    Older(Address),
}

impl Pinned<'_> {
    /// What the record that was read from disk at `address` says of the key with this hash. Two keys of one hash are not told apart, as in
    /// [`Pinned::find_by_hash`].
    pub fn behind(&self, address: Address, record: &HeldRecord, space: u32, hash: u64) -> Behind {
        let raw = record.raw();
        // SAFETY: nobody writes what was read.
        let own = raw.space() == space && self.store.hash_of(space, unsafe { raw.key() }, raw.has_long_key()) == hash;
        match self.behind_of(hash, address, raw.previous()) {
            _ if own && raw.is_tombstone() => Behind::Nothing,
            _ if own => Behind::Key { expire_at_ms: raw.expire_at_ms(), size: self.size_of(raw) },
            None => Behind::Nothing,
            Some(older) => Behind::Older(older),
        }
    }

    /// The newest record under this hash, 0 without one: after a write that appended, the one it wrote. Under the latch of
    /// the hash.
    pub fn newest(&self, hash: u64) -> Address {
        self.debug_assert_latched(hash, false);
        self.store.index.find(hash).map_or(0, Slot::address)
    }

    /// The record at `old`, of a key that has another one at `new` since, is of no use any more. What it owned goes; and if
    /// `new` is still mutable and right in front of it, the chain leaves it out: a key that is written again and again,
    /// each time after its record went to disk, does not grow one. To be called without a latch.
    pub fn give_up_replaced(&self, hash: u64, new: Address, old: Address, record: &HeldRecord) {
        let raw = record.raw();
        let _latch = (!self.is_exclusive()).then(|| self.latch(hash, true));
        if raw.is_object() {
            self.release(raw);
        }
        let regions = &self.store.log.regions;
        if new >= regions.read_only() {
            // SAFETY: mutable, seen while pinned, and a record begins there: it was written there by who gives the address.
            // Latched for writing, so nobody follows the chain meanwhile.
            unsafe {
                let front = self.store.log.at(new);
                if front.previous() == old {
                    front.set_previous(raw.previous());
                }
            }
        }
    }
}
