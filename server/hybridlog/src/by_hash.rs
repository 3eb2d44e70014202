//! Looking a key up by its hash, for work that does not keep keys.

use crate::held::Held;
use crate::pinned::{Found, Pinned};
use crate::scan::Chain;

impl Pinned<'_> {
    /// The newest record whose key has this hash. Two keys of one hash, which chance makes one in billions of billions,
    /// are not told apart. The value of a large one may be missing. Records no span. The caller holds the latch of `hash`, or is in the exclusive mode.
    pub fn find_by_hash<'s>(&'s self, hash: u64, held: &'s Held) -> Found<'s> {
        let Some(slot) = self.store.index.find(hash) else { return Found::Missing };
        let head = self.store.log.regions.head();
        for step in Chain::of(self, hash, slot.address(), head, held) {
            let (address, raw) = match step {
                Ok(found) => found,
                Err(address) => return Found::Cold(address),
            };
            // SAFETY: the record stays while we are pinned and `held` is borrowed; keys are never changed.
            let own = self.store.hash_of(raw.space(), unsafe { raw.key() }, raw.has_long_key());
            if own == hash {
                return match raw.is_tombstone() {
                    true => Found::Missing,
                    false => match self.view_of_key(raw, address, self.tier_of(address, head), held) {
                        Some(record) => Found::Record(record),
                        None => Found::Cold(address),
                    },
                };
            }
        }
        Found::Missing
    }
}
