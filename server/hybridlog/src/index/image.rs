//! Taking the entries out of an index, and putting them into another one.
//!
//! An entry's hash is not kept, but all of it that an index ever looks at is: the tag lies in the entry, and the bits
//! below it that the first size takes are those of the bucket's number. So an entry and those bits, its *place*, find the
//! entry's bucket in an index of any count that began with the same first size.

use super::bucket::{TAG_MASK, TAG_SHIFT, address};
use super::{Index, SPLIT_CHECK_EVERY, SPLITS_PER_CALL, Slot};
use crate::address::Address;
use crate::reclaim::Guard;
use crate::sync::Ordering;

impl Index {
    /// Buckets that it began with.
    pub(crate) fn first(&self) -> usize {
        self.first.load(Ordering::Relaxed)
    }

    /// The place of a bucket's entries.
    pub(crate) fn place_of(&self, bucket: usize) -> u64 {
        (bucket & (self.first() - 1)) as u64
    }

    /// What all keys of one entry have in common, and no others: the bits of their hash that an index looks at. They stay
    /// whatever its count of buckets is.
    pub(crate) fn entry_of(&self, hash: u64) -> u64 {
        hash >> self.shift.load(Ordering::Relaxed)
    }

    /// A hash of the entry: of which the bits that no index looks at are zero.
    pub(crate) fn hash_of(&self, bucket: usize, slot: Slot<'_>) -> u64 {
        slot.word() & TAG_MASK | self.place_of(bucket) << self.shift.load(Ordering::Relaxed)
    }

    /// A hash of an entry, from [`Index::entry_of`].
    pub(crate) fn hash_of_entry(&self, entry: u64) -> u64 {
        entry << self.shift.load(Ordering::Relaxed)
    }

    /// Empty, and as if it had begun with `first` buckets. Only while nobody else uses the index.
    pub(crate) fn begin_with(&self, first: usize) {
        debug_assert!(Self::may_begin_with(first as u64));
        self.first.store(first, Ordering::Relaxed);
        self.shift.store(TAG_SHIFT - first.trailing_zeros(), Ordering::Relaxed);
        drop(self.restart(first));
    }

    pub(crate) fn may_begin_with(first: u64) -> bool {
        first.is_power_of_two() && first <= 1 << TAG_SHIFT
    }

    /// Puts an entry back; it grows as it would under a worker's inserts. Only while nobody else uses the index.
    pub(crate) fn put_back(&self, place: u64, word: u64, guard: &Guard) {
        let hash = word & TAG_MASK | place << self.shift.load(Ordering::Relaxed);
        self.lead(hash, address(word), guard);
    }

    /// Lets the hash's entry lead to the record at `to` if it does not lead to a younger one. Only while nobody else uses
    /// the index.
    pub(crate) fn lead(&self, hash: u64, to: Address, guard: &Guard) {
        match self.find(hash) {
            Some(slot) if slot.address() < to => slot.set_address(to),
            Some(_) => {}
            None => {
                self.insert(hash, to, 0, guard);
                if self.entries().is_multiple_of(SPLIT_CHECK_EVERY as usize) {
                    self.grow(SPLITS_PER_CALL, guard, true);
                }
            }
        }
    }

    /// Removes the entries that lead below `begin`, but for those to a record that is `left` there. Only while nobody else
    /// uses the index.
    pub(crate) fn drop_below(&self, begin: Address, left: impl Fn(Address) -> bool) {
        for bucket in 0..self.len() {
            self.each(bucket, |slot| {
                if slot.address() < begin && !left(slot.address()) {
                    self.remove(slot, 0);
                }
            });
        }
    }

    /// Removes the hash's entry if the record that it leads to is older than `than`. Only while nobody else uses the index.
    pub(crate) fn remove_older(&self, hash: u64, than: Address) {
        if let Some(slot) = self.find(hash)
            && slot.address() < than
        {
            self.remove(slot, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reclaim::Reclaim;
    use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

    fn hash(n: u64) -> u64 {
        rapidhash_v3_seeded(&n.to_le_bytes(), &RapidSecrets::seed(3))
    }

    #[test]
    fn entries_are_found_in_an_index_that_began_with_another_size_and_has_another_count() {
        let keys: u64 = if cfg!(miri) { 300 } else { 20_000 };
        for (first, other) in [(64, 64), (64, 4096), (4096, 64), (1 << 15, 64), (16, 1 << 15)] {
            let reclaim = Reclaim::new();
            let guard = reclaim.register().pin();
            let (from, to) = (Index::new(first, 1), Index::new(other, 2));
            for n in 1..=keys {
                from.lead(hash(n), n * 8, &guard);
            }
            to.begin_with(first);
            for bucket in 0..from.len() {
                from.each(bucket, |slot| to.put_back(from.place_of(bucket), slot.word(), &guard));
            }
            assert_eq!((to.entries(), to.first()), (from.entries(), first), "{first} {other}");
            for n in 1..=keys {
                assert_eq!(to.find(hash(n)).map(|slot| slot.address()), from.find(hash(n)).map(|slot| slot.address()));
            }
        }
    }

    #[test]
    fn the_youngest_record_wins_and_what_is_older_than_a_removal_goes() {
        let reclaim = Reclaim::new();
        let guard = reclaim.register().pin();
        let index = Index::new(4, 1);
        for to in [80, 160, 88] {
            index.lead(hash(1), to, &guard);
        }
        let found = || index.find(hash(1)).map(|slot| slot.address());
        assert_eq!(found(), Some(160));
        index.remove_older(hash(1), 160);
        assert_eq!(found(), Some(160));
        index.remove_older(hash(1), 168);
        assert_eq!((found(), index.entries()), (None, 0));
        index.remove_older(hash(1), 168);
    }
}
