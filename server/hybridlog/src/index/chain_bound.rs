//! How long the chains of buckets get while the index grows, and that nobody can choose a key's bucket.

use super::*;
use crate::key::{HashSeed, Key};
use crate::reclaim::Reclaim;

/// No chain has more buckets, the first included: DESIGN.md has the distribution.
const LONGEST: usize = 6;

/// The longest chain that there was while these keys came, one after the other.
fn longest_of(keys: impl Iterator<Item = u64>, seed: u64) -> usize {
    let (reclaim, seed) = (Reclaim::new(), HashSeed::new(seed));
    let guard = reclaim.register().pin();
    let index = Index::new(16, 1);
    let (mut longest, mut inserted) = (0, 0u64);
    for key in keys {
        let name = key.to_le_bytes();
        inserted += 1;
        // It grows as it would under a worker's inserts.
        index.lead(Key::new(&seed, 0, &name).hash, 8 * inserted, &guard);
        longest = longest.max(index.longest_chain());
    }
    assert!(index.len() as u64 * 6 > inserted, "it has grown: {} of {inserted}", index.len());
    longest
}

#[test]
fn no_chain_is_longer_than_the_bound_at_any_count_of_keys() {
    let keys = if cfg!(miri) { 1_000 } else { 700_000 };
    for seed in [1, 2] {
        let longest = longest_of(0..keys, seed);
        assert!((2..=LONGEST).contains(&longest), "{longest} with seed {seed}");
    }
}

/// A client that knew the seed could aim at one bucket; with another seed the same keys are like any others.
#[test]
fn keys_that_meet_under_one_seed_are_spread_by_another() {
    let (known, keys) = (HashSeed::new(7), if cfg!(miri) { 100 } else { 1_000 });
    // The bits right below the tag choose the bucket of an index that began with sixteen, and the tag's from below then.
    let place = |key: u64| Key::new(&known, 0, &key.to_le_bytes()).hash >> (TAG_SHIFT - 4) & 0xff;
    let chosen: Vec<u64> = (0u64..).filter(|&key| place(key) == 0).take(keys).collect();
    let aimed = longest_of(chosen.iter().copied(), 7);
    assert!(aimed > 2 * LONGEST, "{aimed}: they meet");
    for seed in 8..12 {
        let spread = longest_of(chosen.iter().copied(), seed);
        assert!(spread <= LONGEST, "{spread} with seed {seed}");
    }
}
