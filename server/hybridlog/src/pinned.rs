//! One batch of commands on the store: look-ups and writes of single keys.
//!
//! The caller holds the latch of the key's bucket (shared for `find`, exclusive for writes) or is in the exclusive mode.

use crate::access::AccessClock;
use crate::address::Address;
use crate::held::Held;
use crate::index::{SPLIT_CHECK_EVERY, SPLITS_PER_CALL, Slot};
use crate::key::Key;
use crate::pinned_object::Promise;
use crate::reclaim::Guard;
use crate::record::{HEADER, Kind, NewRecord, Raw, RecordView, record_size};
use crate::space::{NeedReason, NeedSpace, ValueTooLarge};
use crate::store::Store;
use crate::sync::Ordering;
use ferrite_telemetry::{Tier, TraceBuffer};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

/// Room to grow given to a value that outgrew its record: half its length, at most this.
const SLACK_MAX: usize = 512 * 1024;

/// A pinned epoch. Not `Send`, and not to be held across an `await`: while it lives, no page is flushed or
/// freed that the batch could be using.
pub struct Pinned<'p> {
    pub(crate) store: &'p Arc<Store>,
    pub(crate) worker: usize,
    epoch: u64,
    /// Pages promised by `room_for` and not used yet.
    pub(crate) promised: Cell<usize>,
    /// What `room_for` promised to objects.
    pub(crate) promise: Promise,
    own: &'p Own,
    /// Keeps the parts of the index that were replaced during the batch.
    pub(crate) guard: Guard,
    not_send: PhantomData<*const ()>,
}

/// What a worker keeps from one batch to the next.
pub(crate) struct Own {
    pub(crate) pinned: Cell<bool>,
    pub(crate) access: AccessClock,
    /// Index entries added since it last looked whether the index is to grow.
    inserted: Cell<u32>,
}

impl Own {
    pub(crate) fn new(seed: u64) -> Self {
        Self { pinned: Cell::new(false), access: AccessClock::new(seed), inserted: Cell::new(0) }
    }
}

/// What a look-up finds.
#[derive(Debug)]
pub enum Found<'s> {
    Record(RecordView<'s>),
    Missing,
    /// The record at this address is on disk and not held: read it, hold it, look again.
    Cold(Address),
}

/// The store to oneself: every other worker is out of its batch until this is dropped.
pub struct Exclusive<'x> {
    pinned: &'x Pinned<'x>,
}

/// Where a key's newest record is, for the write that follows under the same latch.
pub struct Place<'s> {
    pub(crate) slot: Option<Slot<'s>>,
    /// The newest record, deleted or not, if it is in memory or held, before anything cold.
    pub(crate) found: Option<(Address, Raw)>,
    /// The access clock of the key's record, wherever that is.
    pub(crate) access: Option<u32>,
    before: Before,
}

/// What there is of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    Missing,
    Present {
        /// Milliseconds since the Unix epoch; 0: never.
        expire_at_ms: u64,
        /// Bytes the record takes in the log, and those of the value that it owns.
        size: usize,
    },
    /// The record at this address is on disk and not held: read it, hold it, look again.
    Cold(Address),
}

impl Place<'_> {
    #[inline]
    pub fn before(&self) -> Before {
        self.before
    }
}

/// Where a key's newest record is.
pub(crate) enum Walk {
    Found { address: Address, raw: Raw, tier: Tier },
    Missing,
    Cold(Address),
}

impl<'p> Pinned<'p> {
    #[inline]
    pub(crate) fn enter(store: &'p Arc<Store>, worker: usize, own: &'p Own, guard: Guard) -> Self {
        let epoch = store.epochs.enter(worker);
        let (promised, promise) = (Cell::new(0), Promise::default());
        Self { store, worker, epoch, promised, promise, own, guard, not_send: PhantomData }
    }

    /// The epoch this batch has announced.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Announces the current epoch anew, which lets waiting pages go, and gives way to a worker that
    /// waits for the exclusive mode. Costs two loads if nothing happened. Returns the epoch.
    #[inline]
    pub fn refresh(&mut self) -> u64 {
        self.drop_promise();
        self.grow_if_due();
        self.epoch = self.store.epochs.refresh(self.worker, self.epoch);
        self.epoch
    }

    #[inline]
    fn grow_if_due(&self) {
        if self.own.inserted.get() >= SPLIT_CHECK_EVERY {
            self.own.inserted.set(0);
            self.grow(SPLITS_PER_CALL);
        }
    }

    /// Splits at most `most` buckets of the index, if it is to grow. Holding no latch.
    #[cold]
    pub(crate) fn grow(&self, most: usize) {
        debug_assert!(!self.is_exclusive(), "who is alone takes no latches, and nobody waits for a split");
        let store = self.store;
        if store.index.grow(most, &self.guard, self.is_alone()) == most && store.index.wanted_splits() > 0 {
            store.index_work.notify_one();
        }
    }

    /// Merges at most `most` buckets of the index, if it is to shrink. Holding no latch. Returns how many.
    pub(crate) fn shrink(&self, most: usize) -> usize {
        debug_assert!(!self.is_exclusive(), "who is alone takes no latches");
        self.store.index.shrink(most, &self.guard, self.is_alone())
    }

    /// Whether there is memory of the index that will be free to go once no batch of now is left.
    pub(crate) fn retire_chunks(&self) -> bool {
        self.store.index.retire_chunks(&self.guard)
    }

    #[inline]
    pub fn key<'a>(&self, space: u32, bytes: &'a [u8]) -> Key<'a> {
        self.store.key(space, bytes)
    }

    #[inline]
    pub fn bucket_of(&self, hash: u64) -> u64 {
        self.store.index.bucket_of(hash)
    }

    /// Brings the hash's index bucket into the cache. Call it for a whole batch first.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.store.index.prefetch(hash);
    }

    /// Brings the newest record under the hash into the cache. Call it for the batch after [`Pinned::prefetch`].
    #[inline]
    pub fn prefetch_record(&self, hash: u64) {
        self.store.log.prefetch(self.store.index.peek(hash));
    }

    /// Waits until all other workers are out of their batches; no latches are needed inside. Views taken
    /// before are gone: meanwhile this batch may have ended and begun anew.
    pub fn exclusive(&mut self) -> Exclusive<'_> {
        self.drop_promise();
        self.epoch = self.store.epochs.lock_exclusive(self.worker, self.epoch);
        Exclusive { pinned: self }
    }

    /// True in the exclusive mode of this worker.
    #[inline]
    pub(crate) fn is_exclusive(&self) -> bool {
        self.store.epochs.has_exclusive(self.worker)
    }

    /// Forgets every key, of all spaces, at once: the index begins anew, and the memory of the old one is freed later,
    /// piece by piece. Exclusive mode only.
    pub fn forget_all(&self) {
        debug_assert!(self.is_exclusive(), "another worker may be in a chain");
        self.store.retired.clear();
        if self.store.log.objects.forget_all(&self.guard) {
            self.store.index_work.notify_one();
        }
        self.store.imaging.forget_all(self.tail());
        self.store.log.quarantine.clear();
        self.store.log.forgotten.store(self.tail(), Ordering::Release);
        self.store.discard(self.store.index.clear(), &self.guard);
    }

    /// Nothing shows the keys of this space any more, nor ever will: their entries are dropped from the index by and by.
    /// Exclusive mode only.
    pub fn retire_space(&self, space: u32) {
        debug_assert!(self.is_exclusive(), "another worker may be adding to the space");
        self.store.retired.add(space, self.tail());
        self.store.index_work.notify_one();
    }

    /// The address that the next record has or will exceed.
    pub fn tail(&self) -> Address {
        self.store.log.regions.tail.load(Ordering::Acquire)
    }

    /// Looks a key up. Records `index_lookup` and the tiers that were asked, unless the answer took a held
    /// record: then the look-up that asked for it has recorded them.
    #[inline]
    pub fn find<'s>(&'s self, key: &Key<'_>, held: &'s Held, trace: &mut TraceBuffer) -> Found<'s> {
        self.debug_assert_latched(key.hash, false);
        let bucket = self.bucket_of(key.hash);
        let slot = self.store.index.find_in(bucket, key.hash);
        // Records held for other keys do not matter to this one's spans: so look first, record afterwards.
        let at_once = held.is_empty();
        if at_once {
            trace.index_lookup(bucket);
        }
        let Some(slot) = slot else {
            if !at_once {
                trace.index_lookup(bucket);
            }
            return Found::Missing;
        };
        let mut took_held = false;
        let walk = match self.walk(slot.address(), key, held, &mut took_held) {
            Walk::Found { address, raw, tier } if raw.is_object() && self.is_moved(raw, tier) => {
                took_held = self.moved_object(raw, address, held).is_some();
                if took_held { Walk::Found { address, raw, tier } } else { Walk::Cold(address) }
            }
            other => other,
        };
        if !took_held {
            if !at_once {
                trace.index_lookup(bucket);
            }
            match &walk {
                Walk::Missing => {}
                Walk::Found { raw, tier: Tier::Mutable, .. } => {
                    trace.storage_read(Tier::Mutable, true, self.value_len(*raw));
                }
                Walk::Found { raw, .. } => {
                    trace.storage_read(Tier::Mutable, false, 0);
                    trace.storage_read(Tier::ReadOnly, true, self.value_len(*raw));
                }
                Walk::Cold(_) => {
                    trace.storage_read(Tier::Mutable, false, 0);
                    trace.storage_read(Tier::ReadOnly, false, 0);
                }
            }
        }
        match walk {
            Walk::Found { address, raw, tier } => match self.view(raw, address, tier, held) {
                Some(record) => Found::Record(record),
                None => Found::Cold(address),
            },
            Walk::Missing => Found::Missing,
            Walk::Cold(address) => Found::Cold(address),
        }
    }

    /// Follows a chain to the key's newest record. A tombstone is `Missing`.
    #[inline]
    pub(crate) fn walk(&self, from: Address, key: &Key<'_>, held: &Held, took_held: &mut bool) -> Walk {
        let head = self.store.log.regions.head();
        let (mut address, mut above) = (from, Address::MAX);
        loop {
            let raw = if address >= head {
                // SAFETY: we are pinned and just found it at or above head.
                unsafe { self.store.log.at(address) }
            } else if self.ends_chain(address) {
                match self.linked(key.hash, above) {
                    Some(link) => address = link,
                    None => return Walk::Missing,
                }
                continue;
            } else if let Some(record) = held.get(address) {
                *took_held = true;
                record.raw()
            } else {
                return Walk::Cold(address);
            };
            if self.is_of(raw, key) {
                if raw.is_tombstone() {
                    return Walk::Missing;
                }
                let tier = match address {
                    _ if address < head => Tier::Disk,
                    _ if address < self.store.log.regions.read_only() => Tier::ReadOnly,
                    _ => Tier::Mutable,
                };
                return Walk::Found { address, raw, tier };
            }
            (above, address) = (address, raw.previous());
        }
    }

    /// Below the log's beginning, and at 0, there is nothing but pages in quarantine.
    #[inline]
    pub(crate) fn ends_chain(&self, address: Address) -> bool {
        address < self.store.log.regions.begin() && !self.store.log.quarantine.has(address)
    }

    /// Where a chain that ends behind the record at `above` goes on all the same: in a page in quarantine.
    #[inline]
    pub(crate) fn linked(&self, hash: u64, above: Address) -> Option<Address> {
        let quarantine = &self.store.log.quarantine;
        if quarantine.is_empty() { None } else { quarantine.linked(self.store.index.entry_of(hash), above) }
    }

    /// What a chain has behind the record at `address`, of which `previous` is said.
    pub(crate) fn behind_of(&self, hash: u64, address: Address, previous: Address) -> Option<Address> {
        if self.ends_chain(previous) { self.linked(hash, address) } else { Some(previous) }
    }

    /// Looks for the place of a write, of which it is the first half: one search serves both. Records nothing.
    #[inline]
    pub fn seek<'s>(&'s self, key: &Key<'_>, held: &'s Held) -> Place<'s> {
        self.debug_assert_latched(key.hash, true);
        let slot = self.store.index.find(key.hash);
        let mut place = Place { slot, found: None, access: None, before: Before::Missing };
        let head = self.store.log.regions.head();
        let (mut address, mut above) = (slot.map_or(0, Slot::address), Address::MAX);
        loop {
            let raw = if address >= head {
                // SAFETY: we are pinned and just found it at or above head.
                unsafe { self.store.log.at(address) }
            } else if self.ends_chain(address) {
                match self.linked(key.hash, above) {
                    Some(link) => address = link,
                    None => break,
                }
                continue;
            } else if let Some(record) = held.get(address) {
                record.raw()
            } else {
                place.before = Before::Cold(address);
                break;
            };
            if self.is_of(raw, key) {
                place.found = Some((address, raw));
                if !raw.is_tombstone() {
                    place.access = Some(raw.access());
                    place.before = Before::Present { expire_at_ms: raw.expire_at_ms(), size: self.size_of(raw) };
                }
                break;
            }
            (above, address) = (address, raw.previous());
        }
        place
    }

    /// Stores a value: over the old one if that is mutable and has the room, else in a new record. Never
    /// needs the disk. `value` is the concatenation of its parts, which may point into the key's old value.
    /// Views of the key are stale afterwards. Returns the bytes that the record takes in the log.
    ///
    /// # Errors
    /// Before anything changed; `NeedReason::ValueTooLarge` if no value may be as long.
    #[inline]
    pub fn upsert(
        &self,
        key: &Key<'_>,
        kind: Kind,
        expire_at_ms: u64,
        value: &[&[u8]],
        held: &Held,
        trace: &mut TraceBuffer,
    ) -> Result<usize, NeedSpace> {
        self.upsert_at(&self.seek(key, held), key, kind, expire_at_ms, value, held, trace)
    }

    /// [`Pinned::upsert`] at a place that was sought before, with nothing written in between.
    #[expect(clippy::too_many_arguments, reason = "a place, and what goes there")]
    #[inline]
    pub fn upsert_at(
        &self,
        place: &Place<'_>,
        key: &Key<'_>,
        kind: Kind,
        expire_at_ms: u64,
        value: &[&[u8]],
        held: &Held,
        trace: &mut TraceBuffer,
    ) -> Result<usize, NeedSpace> {
        self.debug_assert_latched(key.hash, true);
        let len = value.iter().map(|part| part.len()).sum();
        let mut capacity = len;
        if let Some((address, raw)) = place.found {
            if address >= self.store.log.regions.read_only()
                && len <= raw.capacity()
                && raw.is_plain()
                && raw.may_overwrite(value)
            {
                // SAFETY: mutable (seen while pinned, so it is not sealed before we leave), latched for writing, fits.
                unsafe {
                    raw.overwrite(kind, expire_at_ms, value, len);
                    raw.set_access(self.own.access.accessed(raw.access()));
                }
                trace.storage_write(Tier::Mutable, len);
                return Ok(raw.size());
            }
            if len > raw.value_len() && !raw.is_tombstone() {
                capacity += (len / 2).min(SLACK_MAX);
            }
        }
        let access = self.access_after(place.access);
        if !self.store.log.is_inline(key.bytes.len(), len) {
            return self.upsert_large(place, key, kind, expire_at_ms, value, len, held, trace);
        }
        let new = Append { kind, object: false, tombstone: false, expire_at_ms, value, len, capacity, access };
        let size = self.append(key, place.slot, held, &new)?;
        self.release_replaced(place.found);
        trace.storage_write(Tier::Mutable, len);
        Ok(size)
    }

    /// The key's newest record, if it is in memory before anything cold.
    #[inline]
    pub(crate) fn in_memory(&self, from: Address, key: &Key<'_>) -> Option<(Address, Raw)> {
        let head = self.store.log.regions.head();
        let mut address = from;
        // 0 ends the chain and lies below every head.
        while address >= head {
            // SAFETY: we are pinned and just found it at or above head.
            let raw = unsafe { self.store.log.at(address) };
            if self.is_of(raw, key) {
                return Some((address, raw));
            }
            address = raw.previous();
        }
        None
    }

    /// Changes a value in place without changing its length: `false` (and nothing done) if the record is
    /// not mutable. The caller has found the key and holds the latch for writing.
    pub fn update_in_place(&self, key: &Key<'_>, f: &mut dyn FnMut(&mut [u8]), trace: &mut TraceBuffer) -> bool {
        self.debug_assert_latched(key.hash, true);
        let found = self.store.index.find(key.hash).and_then(|slot| self.in_memory(slot.address(), key));
        match found {
            Some((address, raw))
                if address >= self.store.log.regions.read_only() && !raw.is_tombstone() && !raw.is_object() =>
            {
                // SAFETY: mutable and latched for writing; the slice is the value and does not outlive the call.
                f(unsafe { std::slice::from_raw_parts_mut(raw.value_ptr(), raw.value_len()) });
                // SAFETY: mutable.
                unsafe { raw.set_access(self.own.access.accessed(raw.access())) };
                trace.storage_write(Tier::Mutable, raw.value_len());
                true
            }
            _ => false,
        }
    }

    /// Sets or removes (0) the expiry: in place if mutable, else in a copy of the record. Returns the bytes that the
    /// record takes in the log; `None` if the key is missing, or cold and not held: look it up first.
    pub fn set_expiry(
        &self,
        key: &Key<'_>,
        expire_at_ms: u64,
        held: &Held,
        trace: &mut TraceBuffer,
    ) -> Result<Option<usize>, NeedSpace> {
        self.debug_assert_latched(key.hash, true);
        let Some(slot) = self.store.index.find(key.hash) else { return Ok(None) };
        let Walk::Found { address, raw, tier } = self.walk(slot.address(), key, held, &mut false) else {
            return Ok(None);
        };
        let (mut bytes, mut size) = (0, self.size_of(raw));
        if tier == Tier::Mutable {
            // SAFETY: mutable and latched for writing.
            unsafe { raw.set_expiry(expire_at_ms) };
        } else if raw.is_object() && self.is_moved(raw, tier) {
            self.copy(key.hash, raw, address, slot, expire_at_ms, false)?;
        } else if raw.is_object() {
            if self.move_object(key, slot, (address, raw), expire_at_ms, 0, held)?.is_none() {
                return Ok(None);
            }
        } else {
            bytes = raw.value_len();
            size = self.append_copy(key, slot, raw, expire_at_ms, raw.access(), held)?;
        }
        trace.storage_write(Tier::Mutable, bytes);
        Ok(Some(size))
    }

    /// Copies the key's record, as it is, to the tail if it is not mutable: there its access clock goes on. Records no
    /// span. Returns the bytes that it took in the log and takes now; `None`: there was nothing to do.
    pub fn promote(&self, key: &Key<'_>, held: &Held) -> Result<Option<(usize, usize)>, NeedSpace> {
        self.debug_assert_latched(key.hash, true);
        let Some(slot) = self.store.index.find(key.hash) else { return Ok(None) };
        let (address, raw, tier) = match self.walk(slot.address(), key, held, &mut false) {
            Walk::Found { address, raw, tier: tier @ (Tier::ReadOnly | Tier::Disk) } => (address, raw, tier),
            Walk::Found { .. } | Walk::Missing | Walk::Cold(_) => return Ok(None),
        };
        if raw.is_object() && self.is_moved(raw, tier) {
            self.copy(key.hash, raw, address, slot, raw.expire_at_ms(), false)?;
            return Ok(None);
        }
        if raw.is_object() {
            // Its size stays: the value moves as it is.
            self.move_object(key, slot, (address, raw), raw.expire_at_ms(), 0, held)?;
            return Ok(None);
        }
        let (before, access) = (raw.size(), self.own.access.accessed(raw.access()));
        Ok(Some((before, self.append_copy(key, slot, raw, raw.expire_at_ms(), access, held)?)))
    }

    /// Appends a copy of the key's record, which has no object, with another time of expiry and access clock. Returns the bytes
    /// that it takes.
    fn append_copy(
        &self,
        key: &Key<'_>,
        slot: Slot<'_>,
        raw: Raw,
        expire_at_ms: u64,
        access: u32,
        held: &Held,
    ) -> Result<usize, NeedSpace> {
        // SAFETY: the record stays while we are pinned and `held` is borrowed; the latch keeps writers out.
        let value: &[u8] = unsafe { raw.value() };
        let (kind, len) = (raw.kind(), value.len());
        let value = &[value];
        let new = Append { kind, object: false, tombstone: false, expire_at_ms, value, len, capacity: len, access };
        self.append(key, Some(slot), held, &new)
    }

    /// Deletes a key. `Ok(false)`: there was none. A record that is cold and not held is taken to be the
    /// key's: look it up first where the answer matters.
    pub fn delete(&self, key: &Key<'_>, held: &Held, trace: &mut TraceBuffer) -> Result<bool, NeedSpace> {
        self.debug_assert_latched(key.hash, true);
        let Some(slot) = self.store.index.find(key.hash) else { return Ok(false) };
        let walk = self.walk(slot.address(), key, held, &mut false);
        let descriptor = match walk {
            // SAFETY: as for what is done with the record below.
            Walk::Found { raw, .. } => unsafe { raw.descriptor() },
            Walk::Missing | Walk::Cold(_) => None,
        };
        match walk {
            Walk::Missing => return Ok(false),
            Walk::Found { address, raw, .. }
                if address == slot.address() && self.behind_of(key.hash, address, raw.previous()).is_none() =>
            {
                if self.store.index.remove(slot, self.worker) {
                    self.store.index_work.notify_one();
                }
                if self.store.imaging.is_on() {
                    self.store.imaging.removed(key.hash, self.tail());
                }
            }
            // SAFETY: mutable and latched for writing.
            Walk::Found { raw, tier: Tier::Mutable, .. } => unsafe { raw.set_tombstone() },
            Walk::Found { .. } | Walk::Cold(_) => {
                let new = Append {
                    kind: Kind::String,
                    object: false,
                    tombstone: true,
                    expire_at_ms: 0,
                    value: &[],
                    len: 0,
                    capacity: 0,
                    access: 0,
                };
                self.append(key, Some(slot), held, &new)?;
            }
        }
        if let Some(descriptor) = descriptor {
            self.store.log.objects.release(&descriptor, &self.guard);
        }
        trace.storage_write(Tier::Mutable, 0);
        Ok(true)
    }

    /// Sets a record's access clock, if it is mutable. `address` is of a view of this batch.
    #[inline]
    pub fn touch(&self, address: Address) {
        if address >= self.store.log.regions.read_only() {
            // SAFETY: in memory, for it is mutable; the field is atomic. Of two readers at once one access may be lost.
            unsafe {
                let raw = self.store.log.at(address);
                raw.set_access(self.own.access.accessed(raw.access()));
            }
        }
    }

    /// Appends a record that holds its key and its value. Returns its bytes.
    #[inline]
    fn append(&self, key: &Key<'_>, slot: Option<Slot<'_>>, held: &Held, new: &Append<'_>) -> Result<usize, NeedSpace> {
        let log = &self.store.log;
        if log.is_long(key.bytes.len()) {
            return self.append_tombstone_of_long_key(key, slot, held, new);
        }
        let capacity = new.capacity.min(log.inline_max(key.bytes.len()));
        let size = record_size(key.bytes.len(), capacity);
        let address = log.allocate(size, &self.promised, &self.store.epochs)?;
        self.publish(key, key.bytes, (address, size), slot, held, new);
        Ok(size)
    }

    /// A key that is not in its record needs none of its bytes to be gone.
    #[cold]
    fn append_tombstone_of_long_key(
        &self,
        key: &Key<'_>,
        slot: Option<Slot<'_>>,
        held: &Held,
        new: &Append<'_>,
    ) -> Result<usize, NeedSpace> {
        debug_assert!(new.tombstone, "the value of a long key is an object");
        let digest = self.store.hash_seed().digest(key);
        let size = record_size(digest.len(), 0);
        let address = self.store.log.allocate(size, &self.promised, &self.store.epochs)?;
        self.publish(key, &digest, (address, size), slot, held, new);
        Ok(size)
    }

    /// Writes a record into what was allocated for it, `inline_key` for its key, and points the index at it.
    #[inline]
    pub(crate) fn publish(
        &self,
        key: &Key<'_>,
        inline_key: &[u8],
        (address, size): (Address, usize),
        slot: Option<Slot<'_>>,
        held: &Held,
        new: &Append<'_>,
    ) {
        let record = NewRecord {
            previous: self.previous(slot.map_or(0, Slot::address), key, held),
            space: key.space,
            key: inline_key,
            long_key: self.store.log.is_long(key.bytes.len()),
            kind: new.kind,
            object: new.object,
            tombstone: new.tombstone,
            expire_at_ms: new.expire_at_ms,
            access: new.access,
            value: new.value,
            value_len: new.len,
            size,
        };
        self.place(key.hash, address, slot, &record);
    }

    /// Writes a record into its bytes, which the caller has allocated since it is pinned, and leads the entry of `hash` to it.
    #[inline]
    pub(crate) fn place(&self, hash: u64, address: Address, slot: Option<Slot<'_>>, record: &NewRecord<'_>) {
        // SAFETY: the bytes were allocated just now, while pinned: nobody else knows them, and the page
        // is not sealed before we leave.
        unsafe { self.store.log.at(address).write_new(record) };
        match slot {
            Some(slot) => slot.set_address(address),
            None => {
                self.store.index.insert(hash, address, self.worker, &self.guard);
                self.own.inserted.set(self.own.inserted.get() + 1);
            }
        }
    }

    /// What a new record of `key` points back to. Nobody asks for a superseded record, so one at the front
    /// of its chain is left out: a key written often does not grow a chain.
    fn previous(&self, newest: Address, key: &Key<'_>, held: &Held) -> Address {
        let raw = if newest >= self.store.log.regions.head() {
            // SAFETY: we are pinned and just found it at or above head.
            unsafe { self.store.log.at(newest) }
        } else if let Some(record) = held.get(newest) {
            record.raw()
        } else {
            return if self.ends_chain(newest) { 0 } else { newest };
        };
        if self.is_of(raw, key) { raw.previous() } else { newest }
    }

    /// Promises that the following writes of this batch, `records` of them with keys and values of `bytes` in
    /// all, do not lack space. Holds until the batch ends, is refreshed, or asks again; only in the
    /// exclusive mode can no other worker use it up. Does not look at single values: see [`Pinned::check_value`].
    pub fn room_for(&self, bytes: usize, records: usize) -> Result<(), NeedSpace> {
        self.drop_promise();
        // Alignment adds less than 8 bytes to each record; slack at most doubles a value. What is larger than a record
        // may be lies elsewhere.
        let headers = records.saturating_mul(HEADER + 8);
        let longest = records.saturating_mul(self.store.log.record_max());
        let needed = bytes.saturating_mul(2).saturating_add(headers).min(longest);
        let limit = self.store.log.burst_bytes();
        if needed > limit {
            let max = limit.saturating_sub(headers) / 2;
            return Err(NeedSpace { reason: NeedReason::BurstTooLarge { max }, bytes });
        }
        self.promise_objects(bytes, records)?;
        self.promised.set(self.store.log.promise(needed)?);
        Ok(())
    }

    /// Whether a collection of `len` bytes is to lie in its record beside a key of `key_len` bytes, or to be an object.
    pub fn keeps_in_record(&self, key_len: usize, len: usize) -> bool {
        len < self.store.log.object_min() && self.store.log.is_inline(key_len, len)
    }

    pub fn check_value(&self, key_len: usize, bytes: usize) -> Result<(), ValueTooLarge> {
        self.store.log.check_value(key_len, bytes)
    }

    fn drop_promise(&self) {
        let pages = self.promised.take();
        if pages > 0 {
            self.store.log.release_promise(pages);
        }
        if self.promise.is_given() {
            self.drop_object_promise();
        }
    }

    #[inline]
    fn is_of(&self, raw: Raw, key: &Key<'_>) -> bool {
        // A digest's length has its top bit set, so it never is the length of a key.
        // SAFETY: the callers are pinned or hold the record, and the latch keeps writers out.
        raw.key_word() as usize == key.bytes.len() && raw.space() == key.space && unsafe { raw.key() } == key.bytes
            || self.store.log.is_long(key.bytes.len()) && self.is_of_long(raw, key)
    }

    #[cold]
    fn is_of_long(&self, raw: Raw, key: &Key<'_>) -> bool {
        // SAFETY: as above.
        raw.has_long_key() && raw.space() == key.space && unsafe { raw.key() } == self.store.hash_seed().digest(key)
    }

    /// What a record's access clock shows after an access; `None`: a new record's.
    #[inline]
    pub(crate) fn access_after(&self, before: Option<u32>) -> u32 {
        let clock = &self.own.access;
        before.map_or_else(|| clock.fresh(), |before| clock.accessed(before))
    }
}

pub(crate) struct Append<'a> {
    pub(crate) kind: Kind,
    pub(crate) object: bool,
    pub(crate) tombstone: bool,
    pub(crate) expire_at_ms: u64,
    pub(crate) value: &'a [&'a [u8]],
    pub(crate) len: usize,
    pub(crate) capacity: usize,
    pub(crate) access: u32,
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.drop_promise();
        self.grow_if_due();
        self.store.epochs.leave(self.worker);
        self.own.pinned.set(false);
    }
}

impl<'x> Deref for Exclusive<'x> {
    type Target = Pinned<'x>;

    fn deref(&self) -> &Pinned<'x> {
        self.pinned
    }
}

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        self.pinned.drop_promise();
        self.pinned.store.epochs.unlock_exclusive(self.pinned.worker);
    }
}
