//! Shrinking: after mass deletion the last bucket is merged into the one it was split from, one after the other, and chunks
//! that no bucket lies in any more are freed.
//!
//! A merge is a split backwards, and moves entries by the same bit. It latches both buckets, so who looks at either of them
//! looks again once it has the latch. A number of buckets may come back, which a split alone never brings about: hence a
//! split latches the bucket that it fills, too.
//!
//! Who counted the buckets before a merge may still look into the one that is gone: at no entry, since it looks again after
//! its latch, but at the latch, and at what a hint reads. So a chunk stays where it is until every batch of that time has
//! ended, and if the index grows again meanwhile it is used as it lies.
//!
//! Work is bounded as that of growth: `tend_index` merges some buckets between other tasks. It begins when a bucket holds
//! less than [`ENTRIES_BEGIN`] entries on average and ends at [`ENTRIES_END`], well below what makes it grow: so each merge is
//! paid for by three deletions at least, and none is undone by the next few inserts.

use super::growth::{ENTRIES_PER_BUCKET, Growing};
use super::{Bucket, Chunk, Index, link};
use crate::latch;
use crate::mutant::Mutant;
use crate::reclaim::Guard;
use crate::sync::Ordering;

/// Entries a bucket holds on average when merging begins, and when it ends.
pub(super) const ENTRIES_BEGIN: usize = 2;
pub(super) const ENTRIES_END: usize = 4;
/// A worker looks whether the index is to shrink each time its count of entries is a multiple of this after a removal.
const MERGE_CHECK_EVERY: usize = 64;

const _: () =
    assert!(ENTRIES_BEGIN < ENTRIES_END && ENTRIES_END < ENTRIES_PER_BUCKET, "merging ends, and is not undone");

impl Index {
    /// Whether it is time to ask for [`Index::wanted_merges`], after a removal by `worker`.
    #[inline]
    pub(super) fn is_merge_check_due(&self, worker: usize) -> bool {
        self.entries[worker].load(Ordering::Relaxed).is_multiple_of(MERGE_CHECK_EVERY)
    }

    /// Buckets that are to be merged into others; 0 unless there are far more than what the index holds needs.
    pub(crate) fn wanted_merges(&self) -> usize {
        match self.entries() / ENTRIES_BEGIN < self.len() {
            true => self.surplus_buckets(),
            false => 0,
        }
    }

    fn surplus_buckets(&self) -> usize {
        self.len().saturating_sub((self.entries() / ENTRIES_END).max(self.first.load(Ordering::Relaxed)))
    }

    /// Merges buckets, `most` of them and none that is needed; none if another worker splits. Called without a latch, not in
    /// the exclusive mode. Returns how many it has merged.
    pub(crate) fn shrink(&self, most: usize, guard: &Guard, alone: bool) -> usize {
        let Some(mut growing) = self.growing.try_lock() else { return 0 };
        let merges = self.surplus_buckets().min(most);
        for _ in 0..merges {
            self.merge(&mut growing, guard, alone);
        }
        merges
    }

    /// Undoes the last split.
    pub(super) fn merge(&self, growing: &mut Growing, guard: &Guard, alone: bool) {
        // Only who holds `growing` moves it.
        let last = self.count.load(Ordering::Relaxed) - 1;
        debug_assert!(last >= self.first.load(Ordering::Relaxed));
        let (target, source) = (self.buckets.get(last - (1 << last.ilog2())), self.buckets.get(last));
        let unlatched = Mutant::MergeUnlatched.is_planted();
        latch::lock(&target.latch_and_link, true, alone);
        // Nobody else waits for a latch while it holds one.
        if !unlatched {
            latch::lock(&source.latch_and_link, true, alone);
        }
        self.empty(source, &mut growing.move_on);
        for word in growing.move_on.drain(..) {
            self.put(target, word, guard);
        }
        self.count.store(last, Ordering::Release);
        if !unlatched {
            latch::unlock(&source.latch_and_link, true, alone);
        }
        latch::unlock(&target.latch_and_link, true, alone);
    }

    /// Takes all entries out of a chain, and gives back its overflow buckets.
    fn empty(&self, first: &Bucket, entries: &mut Vec<u64>) {
        debug_assert!(entries.is_empty());
        let mut take = |bucket: &Bucket| {
            for entry in &bucket.entries {
                match entry.load(Ordering::Relaxed) {
                    0 => {}
                    word => {
                        entries.push(word);
                        entry.store(0, Ordering::Relaxed);
                    }
                }
            }
        };
        take(first);
        let mut rest = link(first);
        if rest != 0 {
            latch::set_link(&first.latch_and_link, 0);
        }
        for depth in 0.. {
            if rest == 0 {
                break;
            }
            let bucket = self.overflow.get(rest);
            take(bucket);
            let next = link(bucket);
            bucket.latch_and_link.store(0, Ordering::Relaxed);
            self.overflow.give_back(rest, depth);
            rest = next;
        }
    }

    /// Whether there are chunks that no bucket lies in: they will be free to go once no batch of now is left.
    pub(crate) fn retire_chunks(&self, guard: &Guard) -> bool {
        // Nobody grows into them meanwhile.
        let _growing = self.growing.lock();
        self.buckets.retire_beyond(self.len(), guard)
    }

    /// The retired chunks, if no batch can be looking at them; nothing if the index has grown into them again.
    pub(crate) fn take_retired_chunks(&self) -> Vec<Chunk> {
        let _growing = self.growing.lock();
        self.buckets.take_retired()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::chunks::CHUNK_BUCKETS;
    use super::*;
    use crate::reclaim::Reclaim;
    use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};
    use std::collections::BTreeSet;

    fn hash(n: u64) -> u64 {
        rapidhash_v3_seeded(&n.to_le_bytes(), &RapidSecrets::seed(11))
    }

    fn filled(first: usize, keys: u64, guard: &Guard) -> (Index, BTreeSet<u64>) {
        let index = Index::new(first, 1);
        let mut there = BTreeSet::new();
        for n in 1..=keys {
            // One entry stands for all keys of its tag.
            if index.find(hash(n)).is_none() {
                index.insert(hash(n), n * 8, 0, guard);
                there.insert(n);
            }
            index.grow(8, guard, true);
        }
        (index, there)
    }

    fn remove_all_but(index: &Index, there: &mut BTreeSet<u64>, keep: usize) {
        while there.len() > keep {
            let n = there.pop_first().expect("more than none");
            index.remove(index.find(hash(n)).expect("it is there"), 0);
        }
    }

    fn check(index: &Index, there: &BTreeSet<u64>) {
        for &n in there {
            assert_eq!(index.find(hash(n)).map(|slot| slot.address()), Some(n * 8));
        }
        let mut entries = 0;
        (0..index.len()).for_each(|bucket| index.each(bucket, |_| entries += 1));
        assert_eq!((entries, index.entries()), (there.len(), there.len()));
    }

    #[test]
    fn what_is_left_after_mass_deletion_is_found_in_a_smaller_index() {
        let reclaim = Reclaim::new();
        let guard = reclaim.register().pin();
        let keys = if cfg!(miri) { 1_000 } else { 20_000 };
        for keep in [keys / 2, keys / 20, keys / 200, 0] {
            let (index, mut there) = filled(16, keys as u64, &guard);
            let (grown, overflow) = (index.len(), index.overflow_len());
            remove_all_but(&index, &mut there, keep);
            if keep == keys / 2 {
                // 2.5 entries a bucket: a few more deletions are waited for.
                assert_eq!(index.wanted_merges(), 0);
                continue;
            }
            let mut steps = 0;
            while index.wanted_merges() > 0 || steps > 0 && index.surplus_buckets() > 0 {
                let (before, wanted) = (index.len(), index.surplus_buckets());
                assert_eq!(index.shrink(32, &guard, true), wanted.min(32));
                assert_eq!(index.len(), before - wanted.min(32));
                steps += 1;
            }
            assert_eq!(index.len(), (keep / ENTRIES_END).max(16));
            assert!(index.len() < grown && index.overflow_len() < overflow, "{} of {overflow}", index.overflow_len());
            check(&index, &there);
            assert_eq!(index.wanted_splits(), 0, "it is not undone");
            // And grows again as before.
            for n in 30_001..=30_001 + keys as u64 / 2 {
                if index.find(hash(n)).is_none() {
                    index.insert(hash(n), n * 8, 0, &guard);
                    there.insert(n);
                }
                index.grow(8, &guard, true);
            }
            check(&index, &there);
        }
    }

    #[test]
    fn a_merge_undoes_a_split_and_its_chains() {
        let reclaim = Reclaim::new();
        let (index, guard) = (Index::new(1, 1), reclaim.register().pin());
        let tagged = |tag: u64| tag << super::super::TAG_SHIFT;
        for n in 1..=40 {
            index.insert(tagged(n), n * 8, 0, &guard);
        }
        let before = (index.len(), index.overflow_len(), index.longest_chain());
        assert_eq!(before, (1, 5, 6));
        let mut growing = Growing::default();
        for _ in 0..6 {
            index.split(&mut growing, &guard, true);
        }
        assert!(index.overflow_len() < 5 && index.longest_chain() < 6);
        for _ in 0..6 {
            index.merge(&mut growing, &guard, true);
        }
        assert_eq!((index.len(), index.overflow_len(), index.longest_chain()), before);
        for n in 1..=40 {
            assert_eq!(index.find(tagged(n)).map(|slot| slot.address()), Some(n * 8));
        }
    }

    #[test]
    fn chunks_are_freed_when_no_batch_can_see_them_and_not_if_the_index_grows_again() {
        let reclaim = Reclaim::new();
        let (other, own) = (reclaim.register(), reclaim.register());
        let index = Index::new(CHUNK_BUCKETS, 1);
        let mut growing = Growing::default();
        let guard = own.pin();
        (0..CHUNK_BUCKETS + 1).for_each(|_| index.split(&mut growing, &guard, true));
        let (three, two) = (index.bytes(), 2 * index.bytes() / 3);
        assert!(!index.retire_chunks(&guard), "all are in use");
        index.merge(&mut growing, &guard, true);
        drop(guard);

        let turns = || (0..8).for_each(|_| own.pin().flush());
        let reading = other.pin();
        assert!(index.retire_chunks(&own.pin()));
        turns();
        assert!(index.take_retired_chunks().is_empty() && index.bytes() == three, "a batch may see it");
        drop(reading);
        turns();
        // Before they are taken the index grows into them, and away again: who reads now may see them.
        index.split(&mut growing, &own.pin(), true);
        index.merge(&mut growing, &own.pin(), true);
        let reading = other.pin();
        assert!(index.take_retired_chunks().is_empty() && index.bytes() == three);
        assert!(index.retire_chunks(&own.pin()));
        turns();
        assert!(index.take_retired_chunks().is_empty());
        drop(reading);
        turns();
        assert_eq!(index.take_retired_chunks().len(), 1);
        assert_eq!(index.bytes(), two);
        assert!(!index.retire_chunks(&own.pin()), "nothing is left to retire");
        index.split(&mut growing, &own.pin(), true);
        assert_eq!(index.bytes(), three);
    }
}
