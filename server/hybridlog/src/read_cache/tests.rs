use super::ReadCache;
use super::shard::{ENTRY_BYTES, Shard};
use crate::held::HeldRecord;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn record(address: u64, words: usize) -> Arc<[u64]> {
    vec![address; words].into()
}

fn read(shard: &mut Shard, address: u64, limit: usize) -> bool {
    let hit = shard.get(address).inspect(|record| assert_eq!(record[0], address)).is_some();
    if !hit {
        shard.offer(address, limit, || record(address, 4));
    }
    hit
}

const EACH: usize = 32 + ENTRY_BYTES;

#[test]
fn what_is_asked_for_again_survives_a_scan() {
    let (mut shard, limit) = (Shard::default(), 200 * EACH);
    for _ in 0..4 {
        (1..=100).for_each(|hot| _ = read(&mut shard, hot * 8, limit));
    }
    // Ten times what there is room for, each once.
    (1..=2000).for_each(|cold| assert!(!read(&mut shard, (1 << 20) + cold * 8, limit)));
    let kept = (1..=100).filter(|hot| read(&mut shard, hot * 8, limit)).count();
    assert!(kept >= 95, "{kept} of 100 are left");
}

#[test]
fn what_comes_back_soon_is_let_in() {
    let (mut shard, limit) = (Shard::default(), 100 * EACH);
    // Fills the main part.
    for _ in 0..3 {
        (1..=90).for_each(|hot| _ = read(&mut shard, hot * 8, limit));
    }
    for round in 0..4 {
        // Others come in between: too many for the small queue, few enough to be remembered.
        for at in 0..20 {
            let hit = read(&mut shard, (1 << 20) + at * 8, limit);
            assert!(round < 2 || hit, "it was asked for {round} times before");
        }
    }
}

#[test]
fn a_smaller_limit_holds_at_once_and_none_turns_it_off() {
    let cache = ReadCache::new(1);
    assert!(!cache.is_on());
    cache.set_limit(64 * EACH);
    let held = |address: u64| HeldRecord::copied(record(address, 16));
    (1..200).for_each(|at| cache.offer(at * 8, &held(at)));
    let full = cache.stats();
    assert!(full.bytes <= full.limit && full.records > 10, "{full:?}");
    cache.set_limit(32 * EACH);
    assert!(cache.stats().bytes <= 32 * EACH);
    cache.set_limit(0);
    let off = cache.stats();
    assert_eq!((off.bytes, off.records, cache.is_on()), (0, 0, false));
    cache.offer(8, &held(1));
    assert!(cache.get(8).is_none());
    assert_eq!(cache.stats().misses, 1);
}

proptest! {
    /// Whatever is asked for: what comes is what was put in, and the limit holds.
    #[test]
    fn a_record_is_its_own_and_the_limit_holds(
        steps in prop::collection::vec((1u64..60, 1usize..40, 0u8..20), 1..600),
        limit in 0usize..6000,
    ) {
        let (mut shard, mut limit) = (Shard::default(), limit);
        let mut lengths = BTreeMap::new();
        for (number, words, what) in steps {
            let address = number * 8;
            if what == 0 {
                limit = words * 150;
                shard.shrink_to(limit);
            } else if let Some(found) = shard.get(address) {
                prop_assert_eq!(&found[..], &record(address, lengths[&address])[..]);
            } else if limit > 0 {
                lengths.insert(address, words);
                shard.offer(address, limit, || record(address, words));
            }
            let stats = shard.stats();
            prop_assert!(stats.bytes <= limit, "{} of {}", stats.bytes, limit);
        }
    }
}
