//! Strings on disk of which only a part is asked for: whoever asks sees the record, and says what of the value it needs.

use crate::address::Address;
use crate::held::Held;
use crate::key::Key;
use crate::pinned::{Pinned, Walk};
use crate::record::Kind;
use std::ops::Range;

/// A key's newest record, without the large value that it owns.
#[derive(Clone, Copy)]
pub struct Unread<'s> {
    pub address: Address,
    pub kind: Kind,
    /// Milliseconds since the Unix epoch; 0: never.
    pub expire_at_ms: u64,
    /// Bytes of the record, and of the value that it owns.
    pub size: usize,
    /// Bytes of the value.
    pub value_len: usize,
    held: &'s Held,
}

impl<'s> Unread<'s> {
    /// These bytes of the value, if they were read ([`crate::LogDevice::read_part`]).
    pub fn part(&self, range: &Range<usize>) -> Option<&'s [u8]> {
        self.held.get(self.address)?.part(range)
    }
}

impl Pinned<'_> {
    /// The record of a key, if it was read ([`crate::LogDevice::read_header`]) and the large value that it owns was not. Records
    /// nothing. The caller has the latch.
    pub fn unread<'s>(&'s self, key: &Key<'_>, held: &'s Held) -> Option<Unread<'s>> {
        if held.is_empty() || self.store.log.is_long(key.bytes.len()) {
            return None;
        }
        self.debug_assert_latched(key.hash, false);
        let slot = self.store.index.find(key.hash)?;
        let Walk::Found { address, raw, tier } = self.walk(slot.address(), key, held, &mut false) else { return None };
        if !raw.is_object() || held.get(address).is_none() || self.stored(raw, address, tier, held).is_some() {
            return None;
        }
        self.look_for_lost(raw, address, held);
        let (kind, expire_at_ms) = (raw.kind(), raw.expire_at_ms());
        let (size, value_len) = (self.size_of(raw), self.value_len(raw));
        Some(Unread { address, kind, expire_at_ms, size, value_len, held })
    }
}
