//! A store's side of a checkpoint: the walk over its index, the cut, and putting both back.

use super::file::{Words, put};
use crate::address::Address;
use crate::imaging::Since;
use crate::pinned::Pinned;
use crate::quarantine::Quarantined;

/// Entries of one group: what fits into 16 bits.
const GROUP_MAX: usize = u16::MAX as usize;
const COUNT_BITS: u32 = 16;

/// What the cut took of the store.
pub(super) struct Cut {
    pub tail: Address,
    pub since: Since,
    pub retired: Vec<(u32, Address)>,
    pub eras: Vec<(Address, u64)>,
    pub begin: Address,
    /// The first id that no object had been given.
    pub next_id: u64,
    pub quarantined: Quarantined,
}

impl Pinned<'_> {
    /// Notes from now on what a walk over the index could miss. Exclusive mode only.
    pub(super) fn begin_image(&self) {
        debug_assert!(self.is_exclusive(), "another worker may be about to remove an entry");
        self.store.retired.begin_image();
        self.store.imaging.begin(self.tail());
    }

    /// Appends the entries of `buckets` buckets from `cursor` on to an image. The next cursor, 0 at the end; and how many.
    pub(super) fn image(&self, cursor: u64, buckets: usize, out: &mut Vec<u8>) -> (u64, u64) {
        let index = &self.store.index;
        let (mut at, mut entries) = (cursor, 0);
        for _ in 0..buckets {
            let (bucket, next, _latch) = self.latch_at(at, false);
            let place = index.place_of(bucket) << COUNT_BITS;
            let (mut group, mut count) = (out.len(), 0);
            index.each(bucket, |slot| {
                if count == 0 {
                    group = out.len();
                    put(out, place);
                }
                put(out, slot.word());
                count += 1;
                out[group..group + 8].copy_from_slice(&(place | count as u64).to_le_bytes());
                entries += 1;
                count %= GROUP_MAX;
            });
            at = next;
            if at == 0 {
                break;
            }
        }
        (at, entries)
    }

    /// Closes the log at its tail, for the checkpoint of this number, and ends the image. Exclusive mode only.
    pub(super) fn cut(&self, number: u64) -> Cut {
        debug_assert!(self.is_exclusive(), "another worker may be writing a record");
        let tail = self.store.log.fold_over(&self.store.epochs);
        let since = self.store.imaging.end();
        let retired = self.store.retired.of_image();
        self.store.retired.end_image();
        let next_id = self.store.log.objects.cut(number);
        let begin = self.store.log.regions.begin();
        let eras = self.store.log.eras_from(self.store.log.lowest());
        let quarantined = self.store.log.quarantine.all();
        Cut { tail, since, retired, eras, begin, next_id, quarantined }
    }

    /// Puts the entries of an image back; `None` if it is none. Gives their number. Only while nobody else uses the store.
    pub(super) fn put_back(&self, image: &[u8]) -> Option<u64> {
        let mut words = Words(image);
        let mut entries = 0;
        while let Some(group) = words.next() {
            let (place, count) = (group >> COUNT_BITS, group & GROUP_MAX as u64);
            for _ in 0..count {
                self.store.index.put_back(place, words.next()?, &self.guard);
            }
            entries += count;
        }
        words.0.is_empty().then_some(entries)
    }

    /// Leads the entry of a record found in the log to it. Only while nobody else uses the store.
    pub(super) fn lead(&self, hash: u64, address: Address) {
        self.store.index.lead(hash, address, &self.guard);
    }
}
