//! The index while it grows, shrinks, begins anew, and loses what was flushed.

use super::world::{FakeDisk, FakeWorld};
use super::{Engine, Wait, silent, tiny};
use crate::{Found, Held, Kind, Store, StoreConfig, WorkerHandle, tend_index};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A store without a device that holds all that a test writes.
fn in_memory(workers: usize) -> Arc<Store> {
    let config = StoreConfig { page_size: 1 << 20, mutable_pages: 40, ..tiny(workers) };
    Store::new(config)
}

fn set(worker: &WorkerHandle, space: u32, key: u64, value: u64) {
    let pinned = worker.pin();
    let name = key.to_le_bytes();
    let name = pinned.key(space, &name);
    let _latch = pinned.latch(name.hash, true);
    pinned
        .upsert(&name, Kind::String, 0, &[&value.to_le_bytes()], &Held::default(), &mut silent())
        .expect("memory for all of it");
}

fn get(worker: &WorkerHandle, space: u32, key: u64) -> Option<u64> {
    let pinned = worker.pin();
    let name = key.to_le_bytes();
    let name = pinned.key(space, &name);
    let _latch = pinned.latch(name.hash, false);
    match pinned.find(&name, &Held::default(), &mut silent()) {
        Found::Record(record) => Some(u64::from_le_bytes(record.value.try_into().unwrap())),
        Found::Missing => None,
        Found::Cold(_) => unreachable!("everything is in memory"),
    }
}

/// Every worker adds keys and rewrites them, so that buckets are split all the time, and looks for those of all others.
#[test]
fn no_key_and_no_update_is_lost_while_workers_grow_the_index() {
    const WORKERS: u64 = 3;
    const KEYS: u64 = 6_000;
    let store = in_memory(WORKERS as usize);
    // Of each worker: keys below this were written, with at least this much as value.
    let written: Vec<AtomicU64> = (0..WORKERS).map(|_| AtomicU64::new(0)).collect();
    let name = |worker: u64, n: u64| worker << 32 | n;
    std::thread::scope(|scope| {
        for id in 0..WORKERS {
            let (store, written) = (&store, &written);
            scope.spawn(move || {
                let worker = store.worker(id as usize);
                for n in 0..KEYS {
                    set(&worker, 0, name(id, n), n);
                    let earlier = n * 7919 % (n + 1);
                    set(&worker, 0, name(id, earlier), KEYS + n);
                    written[id as usize].store(n + 1, Ordering::Release);
                    let other = (id + 1 + n % (WORKERS - 1)) % WORKERS;
                    let there = written[other as usize].load(Ordering::Acquire);
                    if there > 0 {
                        let key = n * 104_729 % there;
                        let value = get(&worker, 0, name(other, key)).expect("a key was lost");
                        assert!(value == key || value >= KEYS, "the value of another key");
                    }
                    if n % 2000 == 0 {
                        worker.pin().exclusive().scan(0, usize::MAX, 0, true, &Held::default(), &mut |_| {}).unwrap();
                    }
                }
            });
        }
    });
    let worker = store.worker(0);
    for id in 0..WORKERS {
        let mut last: BTreeMap<u64, u64> = (0..KEYS).map(|n| (n, n)).collect();
        for n in 0..KEYS {
            last.insert(n * 7919 % (n + 1), KEYS + n);
        }
        // A key is written after it was rewritten only if it is its own `earlier`.
        for (n, value) in last {
            assert_eq!(get(&worker, 0, name(id, n)), Some(value), "key {n} of worker {id}");
        }
    }
    let stats = store.stats();
    // Of so many keys some have the same tag: four buckets to begin with leave 21 bits of a hash to tell keys by.
    assert!(stats.index_entries as u64 <= WORKERS * KEYS && stats.index_entries as u64 > WORKERS * KEYS * 98 / 100);
    let wanted = stats.index_entries / 5;
    // Who finds another worker splitting leaves it to later ones: how many that are hangs on whom the machine lets run.
    assert!(stats.index_buckets <= wanted && stats.index_buckets > wanted / 2, "{stats:?}");
    worker.pin().grow(wanted);
    assert_eq!(store.stats().index_buckets, wanted);
}

/// Scans in steps beside another worker that adds and deletes keys.
#[test]
fn a_scan_beside_growth_on_another_worker_meets_every_key_that_stays() {
    const STAY: u64 = 1500;
    let store = in_memory(2);
    let worker = store.worker(0);
    (0..STAY).for_each(|key| set(&worker, 0, key, 1));
    let before = store.index_buckets();
    let mut rounds = 0;
    std::thread::scope(|scope| {
        let grower = scope.spawn(|| {
            let worker = store.worker(1);
            (STAY..20 * STAY).for_each(|key| set(&worker, 0, key, 2));
        });
        while !grower.is_finished() || rounds < 3 {
            let (mut cursor, mut met) = (0, BTreeSet::new());
            loop {
                cursor = worker
                    .pin()
                    .scan(cursor, 3, 0, true, &Held::default(), &mut |record| {
                        met.insert(u64::from_le_bytes(record.key.try_into().unwrap()));
                    })
                    .unwrap();
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(met.range(..STAY).count() as u64, STAY);
            rounds += 1;
        }
    });
    assert!(store.index_buckets() > 10 * before, "it grew");
}

fn delete(worker: &WorkerHandle, space: u32, key: u64) -> bool {
    let pinned = worker.pin();
    let name = key.to_le_bytes();
    let name = pinned.key(space, &name);
    let _latch = pinned.latch(name.hash, true);
    pinned.delete(&name, &Held::default(), &mut silent()).expect("memory for all of it")
}

/// Lets the index's background work run until it waits.
fn tend(engine: Engine) -> (Arc<Store>, FakeWorld) {
    let Engine { store, world, worker, device, .. } = engine;
    let own = world.clone();
    world.start(async move { tend_index(&worker, &device, &own).await });
    world.run();
    (store, world)
}

#[test]
fn an_index_shrinks_by_itself_after_mass_deletion() {
    let engine = Engine::new(StoreConfig { page_size: 1 << 20, mutable_pages: 40, ..tiny(2) });
    let other = engine.store.worker(1);
    (0..20_000).for_each(|key| set(&engine.worker, 0, key, key));
    let (store, world) = tend(engine);
    let grown = store.stats();
    assert_eq!(grown.index_buckets, grown.index_entries / 5);
    for key in (0..20_000).filter(|key| key % 40 != 0) {
        assert!(delete(&other, 0, key));
    }
    world.run();
    let stats = store.stats();
    assert!(stats.index_buckets < grown.index_buckets / 20, "{stats:?}");
    assert!(
        stats.index_buckets >= stats.index_entries / 5 && stats.index_longest_chain <= grown.index_longest_chain + 1
    );
    assert!(stats.index_bytes < grown.index_bytes, "{} of {}", stats.index_bytes, grown.index_bytes);
    for key in 0..20_000 {
        assert_eq!(get(&other, 0, key), (key % 40 == 0).then_some(key), "key {key}");
    }
}

/// Each round adds keys and deletes them again while other workers split and merge, rewrite keys that stay and scan.
#[test]
fn no_key_and_no_update_is_lost_while_workers_shrink_the_index() {
    const ROUNDS: u64 = 6;
    const STAY: u64 = 300;
    let store = in_memory(3);
    let third = store.worker(2);
    (0..STAY).for_each(|key| set(&third, 0, key, 0));
    let over = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (over, store) = (&over, &store);
        scope.spawn(move || {
            let first = store.worker(0);
            let (mut most, mut least) = (0, u64::MAX);
            for round in 0..ROUNDS {
                let keys = 1000 + round * 100_000..5000 + round * 100_000;
                keys.clone().for_each(|key| set(&first, 0, key, key));
                most = most.max(store.index_buckets());
                assert!(keys.clone().all(|key| get(&first, 0, key) == Some(key)));
                assert!(keys.clone().all(|key| delete(&first, 0, key)));
                while first.pin().shrink(16) > 0 {}
                assert!(!keys.clone().any(|key| get(&first, 0, key).is_some()), "a key came back");
                least = least.min(store.index_buckets());
            }
            over.store(1, Ordering::Release);
            assert!(most > 6 * least, "from {most} to {least} buckets");
        });
        scope.spawn(move || {
            let second = store.worker(1);
            let mut turn = 0;
            while over.load(Ordering::Acquire) == 0 {
                turn += 1;
                for key in 0..STAY {
                    assert!(get(&second, 0, key).is_some_and(|value| value >= turn - 1), "an update was lost");
                    set(&second, 0, key, turn);
                }
                second.pin().shrink(3);
            }
        });
        while over.load(Ordering::Acquire) == 0 {
            let (mut cursor, mut met) = (0, BTreeSet::new());
            loop {
                cursor = third
                    .pin()
                    .scan(cursor, 3, 0, true, &Held::default(), &mut |record| {
                        met.insert(u64::from_le_bytes(record.key.try_into().unwrap()));
                    })
                    .unwrap();
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(met.range(..STAY).count() as u64, STAY);
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Between the steps of a scan most keys go, and buckets are merged, in every tier.
    #[test]
    fn a_scan_meets_every_key_that_stays_while_the_index_shrinks(
        stay in 1u16..100,
        steps in proptest::collection::vec((0usize..60, 1usize..6, 0usize..40), 1..30),
    ) {
        let engine = Engine::new(tiny(1));
        for key in 0..1000u16 {
            engine.set(&key.to_le_bytes(), &[7; 40]).unwrap();
        }
        let (mut cursor, mut met, mut next, mut turn) = (0, BTreeSet::<u16>::new(), stay, 0);
        loop {
            let (go, buckets, merges) = steps[turn % steps.len()];
            let mut found = Vec::new();
            cursor = engine
                .run(|pinned, held, _| {
                    found.clear();
                    let scan = pinned.scan(cursor, buckets, 0, true, held, &mut |record| {
                        found.push(u16::from_le_bytes(record.key.try_into().unwrap()));
                    });
                    scan.map_err(Wait::Records)
                })
                .unwrap();
            met.extend(found);
            if cursor == 0 {
                break;
            }
            for key in next..(next + go as u16).min(1000) {
                engine.delete(&key.to_le_bytes()).unwrap();
            }
            next = (next + go as u16).min(1000);
            engine.worker.pin().shrink(merges);
            turn += 1;
        }
        prop_assert_eq!(met.range(..stay).count(), usize::from(stay));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Between the steps of a scan keys come and go, records leave memory and buckets are split.
    #[test]
    fn a_scan_meets_every_key_that_stays_in_every_tier(
        stay in 1u16..200,
        steps in proptest::collection::vec((0u16..60, 1usize..6), 1..30),
    ) {
        let engine = Engine::new(tiny(1));
        for key in 0..stay {
            engine.set(&key.to_le_bytes(), &[7; 40]).unwrap();
        }
        let (mut cursor, mut met, mut next, mut turn) = (0, BTreeMap::<u16, usize>::new(), stay, 0);
        loop {
            let (add, buckets) = steps[turn % steps.len()];
            cursor = engine
                .run(|pinned, held, _| {
                    pinned
                        .scan(cursor, buckets, 0, true, held, &mut |record| {
                            *met.entry(u16::from_le_bytes(record.key.try_into().unwrap())).or_default() += 1;
                        })
                        .map_err(Wait::Records)
                })
                .unwrap();
            if cursor == 0 {
                break;
            }
            for key in next..next + add.min(2000 - next.min(2000)) {
                engine.set(&key.to_le_bytes(), &[8; 40]).unwrap();
                if key % 3 == 0 {
                    engine.delete(&key.to_le_bytes()).unwrap();
                }
            }
            next += add;
            turn += 1;
        }
        for key in 0..stay {
            prop_assert_eq!(met.get(&key), Some(&1), "key {}", key);
        }
    }
}

#[test]
fn a_new_index_takes_the_place_of_a_large_one_at_once_and_the_old_memory_goes_piece_by_piece() {
    let engine = Engine::new(StoreConfig { page_size: 1 << 20, mutable_pages: 4, ..tiny(2) });
    let first = engine.store.stats().index_bytes;
    (0..5000u64).for_each(|key| set(&engine.worker, 0, key, key));
    let grown = engine.store.stats();
    assert!(grown.index_bytes > 50 * first);
    // A batch of another worker keeps what it may be looking at, though it can see nothing of it any more.
    let other = engine.store.worker(1);
    engine.worker.pin().exclusive().forget_all();
    let reading = other.pin();
    let stats = engine.store.stats();
    assert_eq!((stats.index_buckets, stats.index_entries, stats.index_overflow_buckets), (4, 0, 0));
    assert_eq!(stats.index_bytes, grown.index_bytes + first);
    assert_eq!(get(&engine.worker, 0, 77), None);
    set(&engine.worker, 0, 77, 1);
    assert_eq!(get(&engine.worker, 0, 77), Some(1));
    drop(reading);
    let Engine { store, world, worker, device, .. } = engine;
    let own = world.clone();
    world.start(async move { tend_index(&worker, &device, &own).await });
    world.run();
    assert_eq!(store.stats().index_bytes, first, "all of it was freed");
}

/// What `space` shows, read as a driver reads it.
fn keys_of(engine: &Engine, space: u32, since: u64) -> usize {
    engine
        .run(|pinned, held, _| {
            let mut keys = 0;
            let all =
                pinned.scan(0, usize::MAX, since, true, held, &mut |record| keys += usize::from(record.space == space));
            all.map(|_| keys).map_err(Wait::Records)
        })
        .unwrap()
}

fn set_large(engine: &Engine, space: u32, key: u64) {
    engine
        .run(|pinned, held, trace| {
            let name = key.to_le_bytes();
            let name = pinned.key(space, &name);
            let _latch = pinned.latch(name.hash, true);
            pinned.upsert(&name, Kind::String, 0, &[&[1; 200]], held, trace)?;
            Ok(())
        })
        .unwrap();
}

#[test]
fn entries_of_a_retired_space_are_swept_in_memory_and_on_disk_and_others_stay() {
    let engine = Engine::on(tiny(1), FakeWorld::new(FakeDisk::default()));
    for key in 0..300 {
        set_large(&engine, 1, key);
        set_large(&engine, 2, key);
    }
    assert_eq!((keys_of(&engine, 1, 0), keys_of(&engine, 2, 0)), (300, 300));
    let before = engine.store.stats();
    assert!(before.disk_bytes > 100_000, "most of it is on disk: {before:?}");
    let since = {
        let mut pinned = engine.worker.pin();
        let exclusive = pinned.exclusive();
        exclusive.retire_space(1);
        exclusive.tail()
    };
    // The space that follows has no record yet, and a scan for it reads none of the flushed ones.
    let reads = engine.store.stats().disk_reads;
    assert_eq!(keys_of(&engine, 3, since), 0);
    assert_eq!(engine.store.stats().disk_reads, reads);

    for key in 0..40 {
        set_large(&engine, 3, key);
    }
    let Engine { store, world, worker, device, .. } = engine;
    let (worker, device) = (std::rc::Rc::new(worker), std::rc::Rc::new(device));
    {
        let (worker, device, own) = (worker.clone(), device.clone(), world.clone());
        world.start(async move { tend_index(&worker, &device, &own).await });
    }
    world.run();
    let stats = store.stats();
    assert_eq!(stats.index_entries, 340, "{stats:?}");
    let mut held = Held::default();
    let left = loop {
        let mut left = BTreeMap::<u32, usize>::new();
        let scan =
            worker.pin().scan(0, usize::MAX, 0, true, &held, &mut |record| *left.entry(record.space).or_default() += 1);
        match scan {
            Ok(_) => break left,
            Err(cold) => {
                for address in cold {
                    held.insert(address, world.block_on(device.read_record(address)).unwrap().record);
                }
            }
        }
    };
    assert_eq!(left, BTreeMap::from([(2, 300), (3, 40)]));
    // Nothing is left to do: a second sweep would read the disk again.
    let reads = store.stats().disk_reads;
    world.run();
    assert_eq!(store.stats().disk_reads, reads);
}
