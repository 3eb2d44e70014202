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
        shard.offer(address, limit, &record(address, 4));
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
fn what_somebody_still_reads_is_not_written_over() {
    let (mut shard, limit) = (Shard::default(), 20 * EACH);
    let mut reading = Vec::new();
    for address in (8..8000).step_by(8) {
        assert!(!read(&mut shard, address, limit));
        let record = shard.get(address).expect("it was let in just now");
        // Some stay with a reader while they go from the cache, and others come in their place.
        if address % 24 == 0 {
            reading.push((address, record));
        }
    }
    assert_eq!(reading.len(), 333);
    assert!(reading.iter().all(|(address, record)| **record == [*address; 4]));
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

/// Keys asked for by Zipf's law with this exponent; a uniform number gives the key.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(keys: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=keys)
                .map(|rank| {
                    sum += (rank as f64).powf(-exponent);
                    sum
                })
                .collect(),
        )
    }

    fn key(&self, number: u64) -> u64 {
        let at = number as f64 / u64::MAX as f64 * self.0[self.0.len() - 1];
        self.0.partition_point(|&sum| sum <= at) as u64
    }

    /// The part of the requests that goes to the keys that are asked for most.
    fn share(&self, keys: usize) -> f64 {
        self.0[keys - 1] / self.0[self.0.len() - 1]
    }
}

#[test]
#[cfg_attr(miri, ignore = "a million requests")]
fn by_zipfs_law_nearly_as_much_is_hit_as_can_be() {
    let (keys, cached) = (40_000, 2_600);
    let words = 128;
    let (zipf, mut shard, limit) = (Zipf::new(keys, 0.99), Shard::default(), cached * (8 * words + ENTRY_BYTES));
    let (mut hits, requests) = (0, 1_000_000);
    let mut state = 1u64;
    for at in 0..requests {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let address = (1 + zipf.key(mixed ^ (mixed >> 31))) * 8;
        let hit = shard.get(address).is_some();
        if !hit {
            shard.offer(address, limit, &record(address, words));
        }
        hits += u64::from(hit && at >= requests / 2);
    }
    let (rate, best) = (hits as f64 / (requests / 2) as f64, zipf.share(cached));
    assert!(rate > 0.965 * best, "{rate:.3} of the requests hit; the best there is are {best:.3}");
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

#[test]
fn several_come_in_the_order_in_which_they_are_asked_for() {
    let cache = ReadCache::new(2);
    cache.set_limit(1 << 20);
    let addresses: Vec<u64> = (1..=60).map(|at| at * 8).collect();
    let there = |address: u64| !address.is_multiple_of(3);
    let offered = addresses.iter().filter(|address| there(**address));
    offered.for_each(|&address| cache.offer(address, &HeldRecord::copied(record(address, 16))));
    let twice: Vec<u64> = addresses.iter().rev().chain(&addresses).copied().collect();
    let found: Vec<_> = cache.get_all(&twice).collect();
    assert_eq!(found.len(), 120);
    for (address, found) in twice.iter().zip(found) {
        assert_eq!(found.map(|found| found.words()[0]), there(*address).then_some(*address));
    }
    assert_eq!((cache.stats().hits, cache.stats().misses), (80, 40));
    assert_eq!(cache.get_all(&[]).count(), 0);
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
                shard.offer(address, limit, &record(address, words));
            }
            let stats = shard.stats();
            prop_assert!(stats.bytes <= limit, "{} of {}", stats.bytes, limit);
        }
    }
}
