//! Going through the buckets while they are split and merged.
//!
//! A cursor is a place: its low bits name a bucket. The order is that of the places read backwards, lowest bit first, as
//! Redis's SCAN has it (P. Noordhuis, antirez/redis#579): so the two halves of a bucket follow one another, and what a
//! cursor has behind it is the same set of hashes whatever was split meanwhile. A key that is there from the first
//! call to the last is met at least once, and once only unless the index began anew in between (FLUSHALL) or buckets were
//! merged: a cursor between the two halves of a bucket that is one again meets the first half's keys once more. A cursor has
//! no more bits than a place, so it fits any client's 64-bit integer.

use super::Index;
use crate::latch;
use crate::sync::{AtomicU64, Ordering};

/// The bucket a cursor stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visit {
    pub(crate) bucket: usize,
    /// The bits of a place that tell this bucket from others.
    mask: usize,
}

impl Visit {
    /// The cursor of the bucket that follows this one; 0 after the last.
    pub(crate) fn next(self) -> u64 {
        let above = (self.bucket | !self.mask) as u64;
        above.reverse_bits().wrapping_add(1).reverse_bits()
    }
}

impl Index {
    /// The bucket at a cursor; latched, or in the exclusive mode, it stays that one.
    pub(crate) fn stand(&self, cursor: u64) -> Visit {
        let count = self.count.load(Ordering::Acquire);
        let level = 1 << count.ilog2();
        let place = cursor as usize;
        let is_split = place & (level - 1) < count - level;
        let mask = if is_split { 2 * level - 1 } else { level - 1 };
        Visit { bucket: place & mask, mask }
    }

    /// Latches the bucket at a cursor; spins.
    pub(crate) fn latch_at(&self, cursor: u64, write: bool, alone: bool) -> (Visit, &AtomicU64) {
        loop {
            let visit = self.stand(cursor);
            let word = &self.buckets.get(visit.bucket).latch_and_link;
            latch::lock(word, write, alone);
            // It may have been split or merged while we waited.
            if self.stand(cursor) == visit {
                return (visit, word);
            }
            latch::unlock(word, write, alone);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::reclaim::Reclaim;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A hash whose place is `bits`, in an index that began with four buckets.
    fn hash(bits: u64) -> u64 {
        bits << (super::super::TAG_SHIFT - 2)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_whole_iteration_meets_every_entry_once_whatever_is_split_meanwhile(
            places in proptest::collection::btree_set(0u64..1 << 21, 1..150),
            splits_before in 0usize..40,
            splits in proptest::collection::vec(0usize..9, 1..40),
        ) {
            let reclaim = Reclaim::new();
            let (index, guard) = (Index::new(4, 1), reclaim.register().pin());
            for &place in &places {
                match index.find(hash(place)) {
                    // One entry stands for all keys of its tag.
                    Some(_) => {}
                    None => index.insert(hash(place), (place + 1) * 8, 0, &guard),
                }
            }
            let split = |times: usize| (0..times).for_each(|_| index.split(&mut index.growing.lock(), &guard, true));
            split(splits_before);
            let (mut met, mut cursor, mut turn) = (BTreeMap::<u64, usize>::new(), 0, 0);
            loop {
                let visit = index.stand(cursor);
                index.each(visit.bucket, |slot| *met.entry(slot.address()).or_default() += 1);
                cursor = visit.next();
                prop_assert!(cursor < 2 * index.len() as u64, "as few bits as a place");
                if cursor == 0 {
                    break;
                }
                split(splits[turn % splits.len()].min(300_usize.saturating_sub(index.len())));
                turn += 1;
            }
            prop_assert_eq!(met.len(), index.entries());
            prop_assert!(met.values().all(|&times| times == 1), "{:?}", met);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_whole_iteration_meets_every_entry_whatever_is_split_and_merged_meanwhile(
            places in proptest::collection::btree_set(0u64..1 << 21, 1..150),
            splits_before in 0usize..100,
            steps in proptest::collection::vec(-40isize..20, 1..40),
        ) {
            let reclaim = Reclaim::new();
            let (index, guard) = (Index::new(4, 1), reclaim.register().pin());
            for &place in &places {
                if index.find(hash(place)).is_none() {
                    index.insert(hash(place), (place + 1) * 8, 0, &guard);
                }
            }
            let mut growing = index.growing.lock();
            (0..splits_before).for_each(|_| index.split(&mut growing, &guard, true));
            let (mut met, mut cursor, mut turn, mut visits) = (BTreeMap::<u64, usize>::new(), 0, 0, 0);
            loop {
                let visit = index.stand(cursor);
                index.each(visit.bucket, |slot| *met.entry(slot.address()).or_default() += 1);
                let next = visit.next();
                prop_assert!(next == 0 || next.reverse_bits() > cursor.reverse_bits(), "it goes on");
                cursor = next;
                if cursor == 0 {
                    break;
                }
                for _ in 0..steps[turn % steps.len()].unsigned_abs() {
                    match steps[turn % steps.len()] > 0 {
                        true if index.len() < 300 => index.split(&mut growing, &guard, true),
                        false if index.len() > 4 => index.merge(&mut growing, &guard, true),
                        _ => {}
                    }
                }
                turn += 1;
                visits += 1;
                prop_assert!(visits < 2000);
            }
            prop_assert_eq!(met.len(), index.entries(), "{:?}", met);
        }
    }

    #[test]
    fn any_number_is_a_cursor_and_comes_to_an_end() {
        let reclaim = Reclaim::new();
        let (index, guard) = (Index::new(4, 1), reclaim.register().pin());
        index.split(&mut index.growing.lock(), &guard, true);
        for start in [0, 1, 5, 99_999_999_999, u64::MAX, 1 << 63] {
            let (mut cursor, mut steps) = (start, 0);
            loop {
                cursor = index.stand(cursor).next();
                steps += 1;
                if cursor == 0 {
                    break;
                }
            }
            assert!(steps <= index.len());
        }
    }
}
