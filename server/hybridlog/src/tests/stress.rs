//! Real threads: in-place updates, readers, the exclusive mode and the flush at the same time.

use super::world::{FakeDisk, FakeWorld};
use super::{silent, tiny};
use crate::{Found, Held, Kind, LogDevice, LogFiles, Pinned, Store, StoreConfig};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const KEYS: u64 = 40;
const ROUNDS: u64 = 4000;

/// Some times the same number, of which the first half is the key's and the second a counter that only grows. One in seven is
/// larger than a page.
fn payload(key: u64, count: u64) -> Vec<u8> {
    let times = if count % 7 == 3 { 600 } else { 8 + (count % 5) as usize * 20 };
    (key << 32 | count).to_le_bytes().repeat(times)
}

/// The counter in a payload; fails on a torn one.
fn counter(key: u64, value: &[u8]) -> u64 {
    let word = |at: &[u8]| u64::from_le_bytes(at.try_into().unwrap());
    let first = word(&value[..8]);
    assert!(value.chunks(8).all(|at| word(at) == first), "torn value");
    assert_eq!(first >> 32, key, "another key's value");
    first & 0xffff_ffff
}

struct Shared {
    store: Arc<Store>,
    disk: FakeDisk,
    running: AtomicUsize,
    stop: AtomicBool,
}

/// Reads the key and, with `write`, adds one to its counter. `false`: run again.
fn step(pinned: &Pinned<'_>, held: &Held, key: u64, write: bool, latch: bool) -> Result<u64, super::Wait> {
    let name = key.to_le_bytes();
    let name = pinned.key(0, &name);
    let _latch = latch.then(|| pinned.latch(name.hash, write));
    let mut trace = silent();
    let count = match pinned.find(&name, held, &mut trace) {
        Found::Record(record) => counter(key, record.value),
        Found::Missing => 0,
        Found::Cold(address) => return Err(super::Wait::Records(vec![address])),
    };
    if write {
        pinned.upsert(&name, Kind::String, 0, &[&payload(key, count + 1)], held, &mut trace)?;
    }
    Ok(count)
}

/// Returns how often it counted.
fn worker(shared: &Shared, id: usize, config: &StoreConfig) -> u64 {
    let world = FakeWorld::new(shared.disk.clone());
    let files = world.block_on(LogFiles::open(&world, Path::new("log"))).unwrap();
    if id == 0 {
        world.start(crate::flush_task(shared.store.clone(), world.clone(), files.clone(), |_| {}));
    }
    let device = LogDevice::new(shared.store.clone(), world.clone(), files);
    let handle = shared.store.worker(id);
    let mut last = [0; KEYS as usize];
    let mut counted = 0;
    let mut random = 88172645463325252u64 + id as u64 * config.hash_seed;
    let mut held = Held::default();
    for round in 0..ROUNDS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let key = random % KEYS;
        let (write, exclusive) = (random >> 32 & 1 == 1, random >> 40 & 63 == 0);
        held.clear();
        let count = loop {
            let mut pinned = handle.pin();
            let done = match exclusive {
                true => step(&pinned.exclusive(), &held, key, write, false),
                false => step(&pinned, &held, key, write, true),
            };
            drop(pinned);
            match done {
                Ok(count) => break count,
                Err(super::Wait::Records(addresses)) => {
                    for address in addresses {
                        held.insert(address, world.block_on(device.read_record(address)).unwrap().record);
                    }
                }
                Err(super::Wait::Space(need) | super::Wait::Copy(need)) => {
                    world.block_on(shared.store.wait_for_space(&need)).unwrap()
                }
            }
        };
        assert!(
            count >= last[key as usize],
            "key {key} went back from {} to {count} (round {round})",
            last[key as usize]
        );
        last[key as usize] = count + u64::from(write);
        counted += u64::from(write);
        world.turn();
    }
    shared.running.fetch_sub(1, Ordering::SeqCst);
    // The flush must go on for the others.
    while id == 0 && !shared.stop.load(Ordering::SeqCst) {
        if !world.turn() {
            std::thread::yield_now();
        }
        if shared.running.load(Ordering::SeqCst) == 0 {
            shared.stop.store(true, Ordering::SeqCst);
        }
    }
    counted
}

#[test]
fn no_update_is_lost_and_no_value_torn_between_two_workers_and_the_flush() {
    let config = tiny(2);
    let store = Store::new(config.clone());
    let disk = FakeDisk::default();
    let world = FakeWorld::new(disk.clone());
    let files = world.block_on(crate::create_log(&store, &world, Path::new("log"))).unwrap();
    let shared = Shared { store, disk, running: AtomicUsize::new(2), stop: AtomicBool::new(false) };
    let counted: u64 = std::thread::scope(|scope| {
        let (shared, config) = (&shared, &config);
        let threads: Vec<_> = (0..2).map(|id| scope.spawn(move || worker(shared, id, config))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let stats = shared.store.stats();
    assert!(stats.pages_flushed > 20 && stats.disk_reads > 20, "the tiers were crossed: {stats:?}");
    assert!(stats.object_reads > 5, "some of the large ones, too: {stats:?}");
    // What was being written when it stopped may be of a record that is gone.
    assert!(stats.extents <= KEYS as usize + crate::flush::IN_FLIGHT_MAX, "no extent outlives its record: {stats:?}");
    let world = FakeWorld::new(shared.disk.clone());
    let device = LogDevice::new(shared.store.clone(), world.clone(), files);
    let handle = shared.store.worker(0);
    let total: u64 = (0..KEYS)
        .map(|key| {
            let mut held = Held::default();
            loop {
                match step(&handle.pin(), &held, key, false, true) {
                    Ok(count) => break count,
                    Err(super::Wait::Records(cold)) => {
                        let read = world.block_on(device.read_record(cold[0])).unwrap();
                        held.insert(cold[0], read.record);
                    }
                    Err(super::Wait::Space(_) | super::Wait::Copy(_)) => unreachable!("a read needs no space"),
                }
            }
        })
        .sum();
    assert_eq!(total, counted, "updates were lost");
}
