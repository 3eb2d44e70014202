//! The part of a batch that deals with objects: looking at them, changing them, and making records that own them.

use crate::address::Address;
use crate::held::Held;
use crate::index::Slot;
use crate::key::Key;
use crate::objects::{DESCRIPTOR, Descriptor, LargeString, Moved, Object, Stored, padded};
use crate::pinned::{Append, Pinned, Place};
use crate::record::{DIGEST, Kind, Raw, RecordView, record_size};
use crate::space::{NeedReason, NeedSpace};
use ferrite_io::BLOCK;
use ferrite_telemetry::{Tier, TraceBuffer};
use std::cell::Cell;
use std::ptr::NonNull;

/// What [`Pinned::room_for`] promised to objects.
#[derive(Default)]
pub(crate) struct Promise {
    /// Writes cannot pause any more.
    covered: Cell<bool>,
    /// Bytes of the file of extents that are not used yet.
    bytes: Cell<u64>,
}

impl Promise {
    #[inline]
    pub(crate) fn is_given(&self) -> bool {
        self.covered.get()
    }
}

/// An object on its way to a record.
pub(crate) struct NewObject {
    pub(crate) moved: Moved,
    pub(crate) kind: Kind,
    pub(crate) expire_at_ms: u64,
    pub(crate) access: u32,
}

impl Pinned<'_> {
    /// What a reader sees of a record. `None`: it is an object that was not read with its record.
    ///
    /// The caller found it while pinned, or holds it, and has the latch.
    #[inline]
    pub(crate) fn view<'s>(&'s self, raw: Raw, address: Address, tier: Tier, held: &'s Held) -> Option<RecordView<'s>> {
        // SAFETY: in memory the record stays while `self` is pinned, held it stays while `held` is borrowed; the latch
        // keeps writers out.
        let view = unsafe { raw.view(address, tier) };
        if raw.is_object() { self.view_of_object(view, raw, held) } else { Some(view) }
    }

    #[cold]
    fn view_of_object<'s>(&'s self, view: RecordView<'s>, raw: Raw, held: &'s Held) -> Option<RecordView<'s>> {
        let Some(stored) = self.stored(raw, view.address, view.tier, held) else {
            self.look_for_lost(raw, view.address, held);
            return None;
        };
        Some(RecordView {
            key: stored.key.as_deref().unwrap_or(view.key),
            value: stored.value.as_written().unwrap_or_default(),
            size: view.size + stored.written_len(),
            object: Some(&*stored.value),
            ..view
        })
    }

    /// [`Pinned::view`] for who asks for the key: an object that was not read may be missing. `None`: it has the key.
    pub(crate) fn view_of_key<'s>(
        &'s self,
        raw: Raw,
        address: Address,
        tier: Tier,
        held: &'s Held,
    ) -> Option<RecordView<'s>> {
        if let Some(view) = self.view(raw, address, tier, held) {
            return Some(view);
        }
        if raw.has_long_key() {
            return None;
        }
        // SAFETY: as in `view`.
        let view = unsafe { raw.view(address, tier) };
        Some(RecordView { value: &[], size: self.size_of(raw), ..view })
    }

    pub(crate) fn stored<'s>(&'s self, raw: Raw, address: Address, tier: Tier, held: &'s Held) -> Option<&'s Stored> {
        // In memory first: the record may have left its tier since it was looked at, but not its memory.
        let object = self.store.log.objects.get(descriptor_of(raw).id).or_else(|| match tier {
            Tier::Disk => held.get(address)?.object(),
            Tier::Mutable | Tier::ReadOnly => self.moved_object(raw, address, held),
        })?;
        // SAFETY: it stays while we are pinned: one in memory leaves with its page, or through the collector whose guard we have;
        // a held one stays with `held`, or becomes one in memory. The latch keeps writers out; who writes himself has no use for
        // what he saw before.
        Some(unsafe { &*object.as_ptr() })
    }

    /// Whether the object of a record, if that is in memory, was left where it is when the record was copied there: in its
    /// extent.
    #[cold]
    pub(crate) fn is_moved(&self, raw: Raw, tier: Tier) -> bool {
        let descriptor = descriptor_of(raw);
        tier != Tier::Disk && descriptor.extent.is_some() && self.store.log.objects.get(descriptor.id).is_none()
    }

    /// Whether nothing is left of the object of a record, which is of a space that nobody shows then, or was replaced.
    #[cold]
    pub(crate) fn is_object_gone(&self, raw: Raw) -> bool {
        let (descriptor, objects) = (descriptor_of(raw), &self.store.log.objects);
        let has_extent = descriptor.extent.is_some_and(|extent| objects.extents.belongs(extent.offset, descriptor.id));
        !has_extent && objects.get(descriptor.id).is_none()
    }

    /// A record that is its key's newest was read, and its object was not. As long as it is the newest its extent is its own:
    /// if it is not, reading again would find as little. The caller has the latch.
    #[cold]
    pub(crate) fn look_for_lost(&self, raw: Raw, address: Address, held: &Held) {
        if held.get(address).is_some() && self.is_object_gone(raw) {
            self.store.log.objects.lose(descriptor_of(raw).id);
        }
    }

    /// Such an object, if it was read. If not it can be, from now on, as if its record at `address` were on disk.
    #[cold]
    pub(crate) fn moved_object(&self, raw: Raw, address: Address, held: &Held) -> Option<NonNull<Stored>> {
        let descriptor = descriptor_of(raw);
        let object = held.object_of(address, descriptor.id);
        if object.is_none() && descriptor.extent.is_some() {
            // SAFETY: in memory while we are pinned; the latch keeps writers out.
            self.store.log.objects.moved.want(address, unsafe { raw.bytes() });
            self.look_for_lost(raw, address, held);
        }
        object
    }

    /// Bytes of a record in the log and of what it owns, as it is written.
    #[inline]
    pub(crate) fn size_of(&self, raw: Raw) -> usize {
        if raw.is_object() { raw.size() + self.owned_len(raw) } else { raw.size() }
    }

    #[cold]
    fn owned_len(&self, raw: Raw) -> usize {
        let descriptor = descriptor_of(raw);
        if let Some(extent) = descriptor.extent {
            return extent.len as usize;
        }
        let object = self.store.log.objects.get(descriptor.id);
        // SAFETY: as in `stored`.
        object.map_or(0, |object| unsafe { object.as_ref() }.written_len())
    }

    /// Bytes of a record's value, wherever that is in memory.
    #[inline]
    pub(crate) fn value_len(&self, raw: Raw) -> usize {
        if raw.is_object() { self.object_len(raw) } else { raw.value_len() }
    }

    #[cold]
    fn object_len(&self, raw: Raw) -> usize {
        let descriptor = descriptor_of(raw);
        match self.store.log.objects.get(descriptor.id) {
            // SAFETY: as in `stored`.
            Some(object) => unsafe { object.as_ref() }.value.written_len(),
            None => descriptor.extent.map_or(0, |extent| (extent.len - u64::from(extent.key_len)) as usize),
        }
    }

    /// The second half of [`Pinned::upsert_at`] for a value that its record cannot hold.
    #[cold]
    #[expect(clippy::too_many_arguments, reason = "those of upsert_at")]
    pub(crate) fn upsert_large(
        &self,
        place: &Place<'_>,
        key: &Key<'_>,
        kind: Kind,
        expire_at_ms: u64,
        value: &[&[u8]],
        len: usize,
        held: &Held,
        trace: &mut TraceBuffer,
    ) -> Result<usize, NeedSpace> {
        self.store.log.check_value(key.bytes.len(), len)?;
        // The space first: the copy of what is refused would be in vain.
        self.check_object_room(len)?;
        debug_assert_eq!(kind, Kind::String, "a collection that its record does not hold comes as an object");
        let value = Box::new(LargeString::of(value, len));
        self.upsert_object_at(place, key, kind, expire_at_ms, value, held, trace)
    }

    /// Stores an object at a place that was sought before, whatever the key held. Views of the key are stale afterwards.
    /// Returns the bytes of record and object.
    ///
    /// # Errors
    /// Before anything changed.
    #[expect(clippy::too_many_arguments, reason = "a place, and what goes there")]
    pub fn upsert_object_at(
        &self,
        place: &Place<'_>,
        key: &Key<'_>,
        kind: Kind,
        expire_at_ms: u64,
        value: Box<dyn Object>,
        held: &Held,
        trace: &mut TraceBuffer,
    ) -> Result<usize, NeedSpace> {
        self.debug_assert_latched(key.hash, true);
        let len = value.written_len();
        let long_key = self.store.log.is_long(key.bytes.len()).then(|| key.bytes.into());
        let stored = self.store.log.objects.stored(long_key, value);
        let room = self.room_for_object(key, stored.written_len(), stored.memory())?;
        let (access, size) = (self.access_after(place.access), room.size + stored.written_len());
        let moved = Moved { stored, twin: None };
        self.publish_object(key, place.slot, held, room, NewObject { moved, kind, expire_at_ms, access });
        self.release_replaced(place.found);
        trace.storage_write(Tier::Mutable, len);
        Ok(size)
    }

    /// Changes the object that the key owns, whose written form grows by at most `growth` bytes: where it is if its record is
    /// mutable, else in a new record, to which it moves if it is in memory. `Ok(None)`: the key has no object, or it is cold
    /// and not held. Else also the bytes of record and object.
    ///
    /// # Errors
    /// Before anything changed.
    pub fn update_object<T>(
        &self,
        key: &Key<'_>,
        growth: usize,
        held: &Held,
        trace: &mut TraceBuffer,
        f: impl FnOnce(&mut dyn Object) -> T,
    ) -> Result<Option<(T, usize)>, NeedSpace> {
        self.debug_assert_latched(key.hash, true);
        let objects = &self.store.log.objects;
        let place = self.seek(key, held);
        let Some((address, raw)) = place.found.filter(|(_, raw)| raw.is_object()) else { return Ok(None) };
        let is_mutable = address >= self.store.log.regions.read_only();
        let is_here = is_mutable && !self.is_moved(raw, Tier::Mutable);
        if (!is_here || objects.is_keeping()) && !self.promise.is_given() {
            self.check_changeable(raw)?;
        }
        let (id, more) = if is_here {
            let id = descriptor_of(raw).id;
            if !self.promise.is_given() && objects.is_shared(id) {
                return Err(NeedSpace { reason: NeedReason::ObjectShared { id }, bytes: self.owned_len(raw) });
            }
            let more = self.promise_growth(raw, growth)?;
            // SAFETY: mutable.
            unsafe { raw.set_access(self.access_after(Some(raw.access()))) };
            (id, more)
        } else {
            let slot = place.slot.expect("a record was found under it");
            match self.move_object(key, slot, (address, raw), raw.expire_at_ms(), growth, held)? {
                Some(id) => (id, 0),
                None => return Ok(None),
            }
        };
        let mut object = objects.get_mut(id).expect("a key's record in memory has its object");
        // SAFETY: it stays while we are pinned, and the latch keeps everybody else out.
        let stored = unsafe { object.as_mut() };
        let done = f(&mut *stored.value);
        // The record takes as much wherever it is: of the key and a descriptor.
        let size = raw.size() + stored.written_len();
        objects.changed(id, more);
        trace.storage_write(Tier::Mutable, growth);
        Ok(Some((done, size)))
    }

    /// Puts `insert` at `offset` of the large string that the key holds, as [`Pinned::update_object`] changes an object.
    /// `Ok(None)`: it holds none, or it is cold and not held. Else the bytes of record and object.
    ///
    /// # Errors
    /// Before anything changed.
    pub fn splice_object(
        &self,
        key: &Key<'_>,
        offset: usize,
        insert: &[u8],
        held: &Held,
        trace: &mut TraceBuffer,
    ) -> Result<Option<usize>, NeedSpace> {
        let len = match self.seek(key, held).found {
            Some((_, raw)) if raw.is_object() && raw.kind() == Kind::String => self.object_len(raw),
            _ => return Ok(None),
        };
        let growth = (offset + insert.len()).saturating_sub(len);
        let spliced = self.update_object(key, growth, held, trace, |object| {
            LargeString::of_mut(object).expect("the object of a string is a large string").splice(offset, insert);
        })?;
        Ok(spliced.map(|((), size)| size))
    }

    /// Whether the object that the key owns can be changed, or the write that is to change it has to wait until it is written.
    /// For who cannot wait later.
    ///
    /// # Errors
    /// It has to wait.
    pub fn object_is_changeable(&self, key: &Key<'_>, held: &Held) -> Result<(), NeedSpace> {
        match self.seek(key, held).found {
            Some((_, raw)) if raw.is_object() => self.check_changeable(raw),
            _ => Ok(()),
        }
    }

    fn check_changeable(&self, raw: Raw) -> Result<(), NeedSpace> {
        let descriptor = descriptor_of(raw);
        match self.store.log.objects.waits_for(descriptor.id) {
            Some(id) => Err(NeedSpace { reason: NeedReason::ObjectUnwritten { id }, bytes: self.owned_len(raw) }),
            None if self.store.log.objects.is_shared(descriptor.id) => {
                let reason = NeedReason::ObjectShared { id: descriptor.id };
                Err(NeedSpace { reason, bytes: self.owned_len(raw) })
            }
            None => Ok(()),
        }
    }

    /// Gives the object of a record to a new one, with another time of expiry and room to grow. Its id there; `None` if it is
    /// cold and was not read.
    pub(crate) fn move_object(
        &self,
        key: &Key<'_>,
        slot: Slot<'_>,
        (address, raw): (Address, Raw),
        expire_at_ms: u64,
        growth: usize,
        held: &Held,
    ) -> Result<Option<u64>, NeedSpace> {
        let tier = self.tier_of(address, self.store.log.regions.head());
        let Some(stored) = self.stored(raw, address, tier, held) else { return Ok(None) };
        let room = self.room_for_object(key, stored.written_len() + growth, stored.memory())?;
        let (kind, access) = (raw.kind(), self.access_after(Some(raw.access())));
        let moved = self.take_object(address, raw, held);
        let new = NewObject { moved, kind, expire_at_ms, access };
        Ok(Some(self.publish_object(key, Some(slot), held, room, new)))
    }

    /// Everything that the record of an object of `len` bytes needs. After this nothing can fail.
    pub(crate) fn room_for_object(&self, key: &Key<'_>, len: usize, memory: usize) -> Result<Room, NeedSpace> {
        let log = &self.store.log;
        let digest = log.is_long(key.bytes.len()).then(|| self.store.hash_seed().digest(key));
        let key_len = digest.map_or(key.bytes.len(), |digest| digest.len());
        let size = record_size(key_len, DESCRIPTOR);
        let promised = padded(len);
        self.promise_to_object(promised)?;
        let covered = self.promise.is_given();
        let address = if !covered && !log.has_object_room(memory) {
            Err(NeedSpace { reason: NeedReason::ObjectMemory, bytes: memory })
        } else if covered {
            log.allocate(size, &self.promised, &self.store.epochs)
        } else {
            log.allocate_for_object(size, memory, &self.promised, &self.store.epochs)
        };
        match address {
            Ok(address) => Ok(Room { address, size, promised, digest }),
            Err(need) => {
                log.objects.extents.end_promise_to_object(promised);
                Err(need)
            }
        }
    }

    /// Before a large value is copied: whether it is any use.
    fn check_object_room(&self, len: usize) -> Result<(), NeedSpace> {
        let log = &self.store.log;
        if self.promise.is_given() {
            Ok(())
        } else if !log.objects.extents.wants(padded(len)) {
            Err(NeedSpace { reason: NeedReason::ObjectFile, bytes: len })
        } else if !log.has_object_room(len) {
            Err(NeedSpace { reason: NeedReason::ObjectMemory, bytes: len })
        } else {
            Ok(())
        }
    }

    /// What a mutable object lacks of the file's space for growing. Gives how much that is; it is promised then.
    fn promise_growth(&self, raw: Raw, growth: usize) -> Result<u64, NeedSpace> {
        let objects = &self.store.log.objects;
        let id = descriptor_of(raw).id;
        let key_len = match raw.has_long_key() {
            true => objects.get(id).map_or(0, |stored| {
                // SAFETY: as in `stored`.
                unsafe { stored.as_ref() }.key_len()
            }),
            false => 0,
        };
        let more = padded(key_len + self.object_len(raw) + growth).saturating_sub(objects.promised(id));
        if more > 0 {
            self.promise_to_object(more)?;
        }
        Ok(more)
    }

    fn promise_to_object(&self, bytes: u64) -> Result<(), NeedSpace> {
        let extents = &self.store.log.objects.extents;
        if self.promise.is_given() {
            let taken = bytes.min(self.promise.bytes.get());
            self.promise.bytes.set(self.promise.bytes.get() - taken);
            extents.hand_to_object(bytes, taken);
            return Ok(());
        }
        match extents.promise_to_object(bytes) {
            true => Ok(()),
            false => Err(NeedSpace { reason: NeedReason::ObjectFile, bytes: bytes as usize }),
        }
    }

    /// Writes the record of an object, and takes the object in. Gives its id.
    pub(crate) fn publish_object(
        &self,
        key: &Key<'_>,
        slot: Option<Slot<'_>>,
        held: &Held,
        room: Room,
        new: NewObject,
    ) -> u64 {
        let Room { address, size, promised, digest } = room;
        let log = &self.store.log;
        let id = log.objects.new_id();
        let descriptor = Descriptor::in_memory(id).encode();
        let record = Append {
            kind: new.kind,
            object: true,
            tombstone: false,
            expire_at_ms: new.expire_at_ms,
            value: &[&descriptor],
            len: DESCRIPTOR,
            capacity: DESCRIPTOR,
            access: new.access,
        };
        let inline_key = digest.as_ref().map_or(key.bytes, |digest| digest);
        // Before the record can be found.
        log.objects.insert(id, log.paging.page(address), new.moved, promised);
        self.publish(key, inline_key, (address, size), slot, held, &record);
        id
    }

    /// The record that was at a place has been replaced: what it owned goes.
    #[inline]
    pub(crate) fn release_replaced(&self, found: Option<(Address, Raw)>) {
        if let Some((_, raw)) = found
            && raw.is_object()
        {
            self.release(raw);
        }
    }

    #[cold]
    pub(crate) fn release(&self, raw: Raw) {
        self.store.log.objects.release(&descriptor_of(raw), &self.guard);
    }

    /// The part of [`Pinned::room_for`] that is for objects.
    pub(crate) fn promise_objects(&self, bytes: usize, records: usize) -> Result<(), NeedSpace> {
        self.promise.covered.set(true);
        // No smaller value becomes an object.
        let smallest = self.store.log.object_min();
        if bytes < smallest {
            return Ok(());
        }
        let objects = records.min(bytes / smallest + 1);
        let bytes = padded(bytes) + (objects * BLOCK) as u64;
        if !self.store.log.objects.extents.promise_to_command(bytes) {
            return Err(NeedSpace { reason: NeedReason::ObjectFile, bytes: bytes as usize });
        }
        self.promise.bytes.set(bytes);
        Ok(())
    }

    #[cold]
    pub(crate) fn drop_object_promise(&self) {
        self.promise.covered.set(false);
        let bytes = self.promise.bytes.take();
        if bytes > 0 {
            self.store.log.objects.extents.end_promise_to_command(bytes);
        }
    }
}

/// What was taken for the record of an object.
pub(crate) struct Room {
    address: Address,
    size: usize,
    /// Of the file of extents.
    promised: u64,
    /// Of a key that is too long for the record.
    digest: Option<[u8; DIGEST]>,
}

impl Room {
    /// Bytes of the record.
    pub(crate) fn size(&self) -> usize {
        self.size
    }
}

/// The caller found the record of an object while pinned, or holds it, and has the latch.
pub(crate) fn descriptor_of(raw: Raw) -> Descriptor {
    // SAFETY: see above; the descriptor of a published record is not written again.
    unsafe { raw.descriptor() }.expect("the record of an object has a descriptor")
}
