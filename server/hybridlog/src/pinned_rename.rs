//! An object under another key: moved there, or copied.

use crate::address::Address;
use crate::held::Held;
use crate::key::Key;
use crate::objects::{Moved, Stored};
use crate::pinned::Pinned;
use crate::pinned_object::{NewObject, Room, descriptor_of};
use crate::record::Raw;
use crate::space::NeedSpace;
use ferrite_telemetry::{Tier, TraceBuffer};

impl Pinned<'_> {
    /// Gives the object of `from` to `to`, whatever that held, with its time of expiry and without a copy of it; `from` is gone.
    /// For who was promised room for two records ([`Pinned::room_for`]), in the exclusive mode. The bytes of the new record and
    /// object; `None`, and nothing has changed: `from` has no object, or it is cold and not held, or one of the keys is too long
    /// for its record.
    ///
    /// # Errors
    /// Before anything changed.
    pub fn rename_object(
        &self,
        from: &Key<'_>,
        to: &Key<'_>,
        held: &Held,
        trace: &mut TraceBuffer,
    ) -> Result<Option<usize>, NeedSpace> {
        debug_assert!(self.promise.is_given(), "the second record cannot be refused");
        let is_long = |key: &Key<'_>| self.store.log.is_long(key.bytes.len());
        if is_long(from) || is_long(to) {
            return Ok(None);
        }
        let Some((address, raw, stored)) = self.object_of_key(from, held) else { return Ok(None) };
        let (len, memory) = (stored.written_len(), stored.memory());
        let room = self.room_for_object(to, len, memory)?;
        let size = room.size() + len;
        let moved = self.take_object(address, raw, held);
        self.put_object(to, raw, moved, room, held);
        trace.storage_write(Tier::Mutable, 0);
        // What the record owned is another's by now.
        self.delete(from, held, trace)?;
        Ok(Some(size))
    }

    /// Gives `to`, whatever it held, a copy of the object of `from`, with its time of expiry. The bytes of the new record and object;
    /// `None`, and nothing has changed: `from` has no object, or it is cold and not held.
    ///
    /// # Errors
    /// Before anything changed.
    pub fn copy_object(
        &self,
        from: &Key<'_>,
        to: &Key<'_>,
        held: &Held,
        trace: &mut TraceBuffer,
    ) -> Result<Option<usize>, NeedSpace> {
        let Some((_, raw, stored)) = self.object_of_key(from, held) else { return Ok(None) };
        let long_key: Option<Box<[u8]>> = self.store.log.is_long(to.bytes.len()).then(|| to.bytes.into());
        let len = long_key.as_ref().map_or(0, |key| key.len()) + stored.value.written_len();
        // The space first: a copy that is refused would be in vain.
        let room = self.room_for_object(to, len, stored.memory())?;
        let size = room.size() + len;
        let copy = self.store.log.objects.stored(long_key, stored.value.duplicate());
        self.put_object(to, raw, Moved { stored: copy, twin: None }, room, held);
        trace.storage_write(Tier::Mutable, len);
        Ok(Some(size))
    }

    fn object_of_key<'s>(&'s self, key: &Key<'_>, held: &'s Held) -> Option<(Address, Raw, &'s Stored)> {
        let (address, raw) = self.seek(key, held).found.filter(|(_, raw)| raw.is_object())?;
        let tier = self.tier_of(address, self.store.log.regions.head());
        Some((address, raw, self.stored(raw, address, tier, held)?))
    }

    /// `raw` is the record that the object, or what it is a copy of, came from.
    fn put_object(&self, to: &Key<'_>, raw: Raw, moved: Moved, room: Room, held: &Held) {
        let place = self.seek(to, held);
        let access = self.access_after(place.access);
        let new = NewObject { moved, kind: raw.kind(), expire_at_ms: raw.expire_at_ms(), access };
        self.publish_object(to, place.slot, held, room, new);
        self.release_replaced(place.found);
    }

    /// Takes the object of a record out of memory, or out of what is held.
    pub(crate) fn take_object(&self, address: Address, raw: Raw, held: &Held) -> Moved {
        let (descriptor, objects) = (descriptor_of(raw), &self.store.log.objects);
        objects.take(descriptor.id).unwrap_or_else(|| {
            objects.release(&descriptor, &self.guard);
            let stored = held.take_object_of(address, descriptor.id).expect("who takes it has seen it");
            Moved { stored, twin: None }
        })
    }
}
