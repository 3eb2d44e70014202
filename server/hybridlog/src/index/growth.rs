//! Growth: one bucket after the other is divided in two.
//!
//! A bucket of seven entries is to hold five on average. Just before its split one has about ten, just after it five; with
//! random hashes fewer than one bucket in 10 000 ever has more than 21 entries, two overflow buckets, and none of a million
//! more than 35. More to a bucket would save little memory for many overflow buckets (each a miss of the cache), fewer
//! would waste memory: between 4.5 and 7 the index takes 16 to 13 bytes a key.
//!
//! Work is bounded: whoever has added [`SPLIT_CHECK_EVERY`] entries splits at most [`SPLITS_PER_CALL`] buckets once it holds
//! no latch, each some ten entries of two or three cache lines and now and then a chunk of zeroed memory. That is more
//! than twice what keeps up; what a large command leaves behind is done by later ones and by `tend_index`.

use super::bucket::{Bucket, ENTRIES, TAG_BITS, TAG_SHIFT};
use super::{Index, link};
use crate::latch;
use crate::mutant::Mutant;
use crate::reclaim::Guard;
use crate::sync::Ordering;

/// Entries a bucket holds on average.
pub(super) const ENTRIES_PER_BUCKET: usize = 5;
/// A worker looks whether the index is to grow each time it has added as many entries.
pub(crate) const SPLIT_CHECK_EVERY: u32 = 16;
/// As many buckets does one call of a command's batch split at most.
pub(crate) const SPLITS_PER_CALL: usize = 8;

const _: () = assert!(SPLITS_PER_CALL * ENTRIES_PER_BUCKET > SPLIT_CHECK_EVERY as usize, "growth keeps up");
const _: () = assert!(cfg!(loom) || ENTRIES_PER_BUCKET < ENTRIES, "growth begins before buckets overflow");

/// Kept from one split to the next, so that a split allocates nothing.
#[derive(Default)]
pub(super) struct Growing {
    stay: Vec<u64>,
    pub(super) move_on: Vec<u64>,
}

impl Index {
    /// Buckets that are still to be split for what the index holds.
    pub(crate) fn wanted_splits(&self) -> usize {
        let wanted = self.entries() / ENTRIES_PER_BUCKET;
        wanted.min(self.first.load(Ordering::Relaxed) << TAG_BITS).saturating_sub(self.len())
    }

    /// Splits buckets, `most` of them and no more than are wanted; none if another worker does. Called without a latch,
    /// not in the exclusive mode. Returns how many it has split.
    pub(crate) fn grow(&self, most: usize, guard: &Guard, alone: bool) -> usize {
        let Some(mut growing) = self.growing.try_lock() else { return 0 };
        let splits = self.wanted_splits().min(most);
        for _ in 0..splits {
            self.split(&mut growing, guard, alone);
        }
        splits
    }

    /// Splits the next bucket.
    pub(super) fn split(&self, growing: &mut Growing, guard: &Guard, alone: bool) {
        // Only who holds `growing` moves it.
        let count = self.count.load(Ordering::Relaxed);
        let level = count.ilog2();
        let source = self.buckets.get(count - (1 << level));
        self.buckets.reach(count, guard);
        let unlatched = Mutant::SplitUnlatched.is_planted();
        if !unlatched {
            latch::lock(&source.latch_and_link, true, alone);
        }
        if Mutant::AnnouncedEarly.is_planted() {
            self.count.store(count + 1, Ordering::Release);
        }
        // The bit by which the two differ lies in the entry where it lies in the hash.
        let bit = self.shift.load(Ordering::Relaxed) + level;
        debug_assert!((TAG_SHIFT..u64::BITS).contains(&bit));
        let Growing { stay, move_on } = growing;
        self.divide(source, 1 << bit, stay, move_on);
        // Nobody finds the new bucket before it is counted; but who counted it before it was merged may be at its latch.
        let target = self.buckets.get(count);
        let target_unlatched = Mutant::TargetUnlatched.is_planted();
        if !target_unlatched {
            latch::lock(&target.latch_and_link, true, alone);
        }
        for word in move_on.drain(..) {
            self.put(target, word, guard);
        }
        self.count.store(count + 1, Ordering::Release);
        if !target_unlatched {
            latch::unlock(&target.latch_and_link, true, alone);
        }
        if !unlatched {
            latch::unlock(&source.latch_and_link, true, alone);
        }
    }

    /// Takes the entries with `bit` out of a chain and closes the gaps, so that no more overflow buckets are kept than are
    /// needed.
    fn divide(&self, source: &Bucket, bit: u64, stay: &mut Vec<u64>, move_on: &mut Vec<u64>) {
        debug_assert!(stay.is_empty() && move_on.is_empty());
        let mut chain = Some(source);
        while let Some(bucket) = chain {
            for entry in &bucket.entries {
                match entry.load(Ordering::Relaxed) {
                    0 => {}
                    word if word & bit == 0 => stay.push(word),
                    word => move_on.push(word),
                }
            }
            chain = self.next(bucket);
        }
        if move_on.is_empty() {
            return stay.clear();
        }
        let mut stay = stay.drain(..);
        let (mut last, mut depth) = (source, 0);
        loop {
            last.entries.iter().for_each(|entry| entry.store(stay.next().unwrap_or(0), Ordering::Relaxed));
            if stay.len() == 0 {
                break;
            }
            last = self.next(last).expect("the chain held them before");
            depth += 1;
        }
        let mut rest = link(last);
        if rest != 0 {
            latch::set_link(&last.latch_and_link, 0);
        }
        while rest != 0 {
            let emptied = self.overflow.get(rest);
            let next = link(emptied);
            emptied.entries.iter().for_each(|entry| entry.store(0, Ordering::Relaxed));
            emptied.latch_and_link.store(0, Ordering::Relaxed);
            self.overflow.give_back(rest, depth);
            (rest, depth) = (next, depth + 1);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::reclaim::Reclaim;
    use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

    fn hash(n: u64) -> u64 {
        rapidhash_v3_seeded(&n.to_le_bytes(), &RapidSecrets::seed(11))
    }

    /// Buckets of the longest chain as they are, not as they are counted.
    fn longest(index: &Index) -> usize {
        let length =
            |bucket| std::iter::successors(Some(index.buckets.get(bucket)), |bucket| index.next(bucket)).count();
        (0..index.len()).map(length).max().expect("there are buckets")
    }

    /// Entries of the longest chain, and of all of them.
    fn chains(index: &Index) -> (usize, usize) {
        let lengths = (0..index.len()).map(|bucket| {
            let mut length = 0;
            index.each(bucket, |_| length += 1);
            length
        });
        assert_eq!(index.longest_chain(), longest(index), "it is known without a walk");
        lengths.fold((0, 0), |(longest, all), length| (longest.max(length), all + length))
    }

    #[test]
    fn growth_keeps_up_with_inserts_in_bounded_steps_and_loses_nothing() {
        let reclaim = Reclaim::new();
        let (index, guard) = (Index::new(64, 1), reclaim.register().pin());
        let keys: u64 = if cfg!(miri) { 2000 } else { 100_000 };
        let mut longest = 0;
        for n in 1..=keys {
            index.insert(hash(n), n * 8, 0, &guard);
            if n % u64::from(SPLIT_CHECK_EVERY) == 0 {
                let before = index.len();
                let split = index.grow(SPLITS_PER_CALL, &guard, true);
                assert!(split <= SPLITS_PER_CALL && index.len() == before + split);
                assert_eq!(index.wanted_splits(), 0, "it keeps up");
            }
            if n % 997 == 0 {
                let (now, all) = chains(&index);
                assert_eq!(all as u64, n);
                longest = longest.max(now);
            }
        }
        assert!(longest > ENTRIES && longest <= 5 * ENTRIES, "the longest chain had {longest} entries");
        assert_eq!(index.len(), keys as usize / ENTRIES_PER_BUCKET);
        assert!(index.overflow_len() * 4 < index.len(), "{} of {}", index.overflow_len(), index.len());
        for n in 1..=keys {
            // Another key with the tag may have been there first.
            let found = index.find(hash(n)).expect("an entry").address();
            assert!(found == n * 8 || index.bucket_of(hash(found / 8)) == index.bucket_of(hash(n)));
        }
    }

    #[test]
    fn what_a_large_command_left_behind_is_made_up_for() {
        let reclaim = Reclaim::new();
        let (index, guard) = (Index::new(4, 1), reclaim.register().pin());
        for n in 1..=5000u64 {
            index.insert(hash(n), n * 8, 0, &guard);
        }
        let overflow = index.overflow_len();
        while index.wanted_splits() > 0 {
            let wanted = index.wanted_splits();
            assert_eq!(index.grow(SPLITS_PER_CALL, &guard, true), wanted.min(SPLITS_PER_CALL));
        }
        assert_eq!(index.len(), 1000);
        assert_eq!(chains(&index).1, 5000);
        assert!(index.overflow_len() < overflow / 2, "emptied overflow buckets are used again");
        assert!(index.overflow.bytes() < 2 * overflow * size_of::<Bucket>());
    }

    #[test]
    fn overflow_buckets_that_a_split_empties_are_used_again() {
        let reclaim = Reclaim::new();
        let (index, guard) = (Index::new(1, 1), reclaim.register().pin());
        // Three times seven entries with the lowest bit of the tag, one without.
        for n in 1..=21 {
            index.insert((2 * n + 1) << TAG_SHIFT, n * 8, 0, &guard);
        }
        index.insert(2 << TAG_SHIFT, 800, 0, &guard);
        assert_eq!(index.overflow_len(), 3);
        index.split(&mut Growing::default(), &guard, true);
        assert_eq!((index.len(), index.overflow_len(), index.longest_chain()), (2, 2, longest(&index)));
        assert_eq!(index.find(2 << TAG_SHIFT).map(|slot| slot.address()), Some(800));
        for n in 1..=21 {
            assert_eq!(index.find((2 * n + 1) << TAG_SHIFT).map(|slot| slot.address()), Some(n * 8));
        }
        assert_eq!(index.overflow.take(0, &guard), 1, "given back, so given out");
    }

    #[test]
    fn growth_ends_when_the_tag_is_used_up() {
        let index = Index::new(2, 1);
        index.entries[0].store(usize::MAX / 4, Ordering::Relaxed);
        assert_eq!(index.wanted_splits(), (2 << TAG_BITS) - 2);
    }
}
