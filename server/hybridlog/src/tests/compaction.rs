//! The log's beginning moves on, and nobody misses what lay there.

use super::world::{FakeDisk, FakeWorld};
use super::{Engine, Wait, silent, tiny};
use crate::checkpoint::Pinned;
use crate::compaction::{CompactionError, Compactor, Old};
use crate::{Before, FIRST_ADDRESS, Found, Held, Key, LogFiles, Planted, StorageError};
use std::path::Path;
use std::sync::atomic::Ordering;

const PAGE: u64 = 4096;

impl Engine {
    pub(crate) fn compactor(&self) -> Compactor<FakeWorld> {
        let files = self.world.block_on(LogFiles::open(&self.world, Path::new("log"))).unwrap();
        Compactor::new(self.store.clone(), files)
    }

    /// Deals with one piece; false: there was none.
    pub(crate) fn compact(&self, compactor: &mut Compactor<FakeWorld>) -> Result<bool, CompactionError> {
        let Some(piece) = self.world.block_on(compactor.read())? else {
            self.world.block_on(compactor.free(&Pinned::nothing())).unwrap();
            return Ok(false);
        };
        for record in &piece.records {
            let kept = self.run(|pinned, held, _| {
                let _latch = pinned.latch(record.hash, true);
                match pinned.judge(record, held) {
                    Old::Cold(address) => return Err(Wait::Records(vec![address])),
                    Old::Superseded => {}
                    Old::Newest if record.is_tombstone() => pinned.let_go(record),
                    Old::Newest => _ = pinned.keep(record).map_err(Wait::Copy)?,
                }
                Ok(())
            });
            kept.expect("there is space for the copy");
        }
        compactor.done(&piece);
        compactor.forget();
        self.world.block_on(compactor.free(&Pinned::nothing())).unwrap();
        Ok(true)
    }

    /// All that is on disk now: the copies push other pages there.
    fn compact_all(&self, compactor: &mut Compactor<FakeWorld>) {
        let end = compactor.limit();
        while compactor.at() < end && self.compact(compactor).unwrap() {}
    }

    /// Pages are opened until what was written before is on disk.
    pub(super) fn push_out(&self) {
        for n in 0..9u8 {
            self.set(&[b'~', n], &[n; 3900]).unwrap();
            self.world.run();
        }
    }

    pub(super) fn address_of(&self, key: &[u8]) -> Option<u64> {
        let pinned = self.worker.pin();
        let key = pinned.key(0, key);
        let _latch = pinned.latch(key.hash, false);
        match pinned.find(&key, &Held::default(), &mut silent()) {
            Found::Record(record) => Some(record.address),
            Found::Cold(address) => Some(address),
            Found::Missing => None,
        }
    }
}

#[test]
fn what_is_live_moves_to_the_tail_with_its_expiry_and_the_file_loses_the_rest() {
    let engine = Engine::new(tiny(1));
    let mut compactor = engine.compactor();
    engine.set(b"kept", &[7; 500]).unwrap();
    engine.set(b"deleted", &[8; 500]).unwrap();
    engine.expire(b"kept", 77);
    engine.push_out();
    assert_eq!(engine.delete(b"deleted"), Ok(true));
    for _ in 0..20 {
        engine.push_out();
        engine.compact_all(&mut compactor);
    }
    let stats = engine.store.stats();
    assert!(stats.begin > 100 * PAGE && stats.tail - stats.begin < 30 * PAGE, "{stats:?}");
    assert!(stats.file_bytes <= stats.tail - stats.begin + PAGE, "{stats:?}");
    assert!(engine.world.disk.switches.punched.load(Ordering::Relaxed) >= stats.begin - PAGE);
    assert_eq!(engine.get(b"kept"), Some(vec![7; 500]));
    assert_eq!(engine.expire(b"kept", 0), Some(77));
    assert_eq!(engine.get(b"deleted"), None);
    assert_eq!(stats.index_entries, 1 + 9, "that of a deleted key goes with its tombstone");
    for n in 0..9u8 {
        assert_eq!(engine.get(&[b'~', n]), Some(vec![n; 3900]));
    }
}

/// Keys that share one entry of an index of four buckets, which does not grow for so few.
pub(super) fn colliding(count: usize) -> Vec<Vec<u8>> {
    let store = crate::Store::new(tiny(1));
    let places = |key: &[u8]| Key::new(store.hash_seed(), 0, key).hash >> 43;
    let wanted = places(b"k0");
    (0u64..).map(|n| format!("k{n}").into_bytes()).filter(|key| places(key) == wanted).take(count).collect()
}

#[test]
fn a_chain_of_several_keys_is_followed_from_newest_to_oldest() {
    compact_chains();
}

#[test]
fn faults_planted_in_how_chains_are_compacted_are_caught() {
    for fault in [Planted::NeighbourSupersedes, Planted::ChainGoesWithTombstone, Planted::SupersededIsKept] {
        Planted::plant(Some(fault));
        let caught = std::panic::catch_unwind(compact_chains).is_err();
        Planted::plant(None);
        assert!(caught, "nobody noticed {fault:?}");
    }
}

fn compact_chains() {
    let keys = colliding(4);
    for deleted in 0..1u8 << keys.len() {
        for rewritten in [0, 0b0101, 0b1111] {
            let engine = Engine::new(tiny(1));
            let mut compactor = engine.compactor();
            let is = |mask: u8, at: usize| mask & 1 << at != 0;
            let mut expected: Vec<Option<Vec<u8>>> = Vec::new();
            for (at, key) in keys.iter().enumerate() {
                engine.set(key, &[at as u8; 300]).unwrap();
                expected.push(Some(vec![at as u8; 300]));
                engine.push_out();
            }
            assert_eq!(engine.store.stats().index_entries, 1 + 9, "they share an entry");
            for (at, key) in keys.iter().enumerate() {
                if is(deleted, at) {
                    assert_eq!(engine.delete(key), Ok(true));
                    expected[at] = None;
                }
                if is(rewritten, at) {
                    engine.set(key, &[99; 200]).unwrap();
                    expected[at] = Some(vec![99; 200]);
                }
            }
            for _ in 0..3 {
                engine.push_out();
                engine.compact_all(&mut compactor);
                for (key, value) in keys.iter().zip(&expected) {
                    assert_eq!(engine.get(key), *value, "{deleted:b} {rewritten:b}");
                }
            }
            let mut seen: Vec<Vec<u8>> = engine.scan(3).into_iter().map(|(key, _)| key).collect();
            seen.retain(|key| keys.contains(key));
            let left = expected.iter().flatten().count();
            assert_eq!(seen.len(), left, "each once");
            assert_eq!(engine.store.stats().index_entries, usize::from(left > 0) + 9, "{deleted:b} {rewritten:b}");
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_page_stops_the_work_before_it_or_changes_nothing() {
    let keys: Vec<Vec<u8>> = (0..5u8).map(|n| vec![b'k', n]).collect();
    let world = || FakeWorld::new(FakeDisk::default());
    let prepared = |world: FakeWorld| {
        let engine = Engine::on(tiny(1), world);
        for (n, key) in keys.iter().enumerate() {
            engine.set(key, &vec![n as u8; 100 + 7 * n]).unwrap();
        }
        engine.push_out();
        engine
    };
    let (mut stopped, mut harmless) = (0, 0);
    // Bits of what is read, and some of what nobody reads.
    for bit in (0..1200 * 8).step_by(17).chain((1200 * 8..4096 * 8).step_by(401)) {
        let engine = prepared(world());
        let mut compactor = engine.compactor();
        engine.world.disk.bytes.lock().unwrap()[(PAGE + bit / 8) as usize] ^= 1 << (bit % 8);
        match engine.compact(&mut compactor) {
            Err(CompactionError::Damaged { .. }) => {
                assert_eq!(engine.store.stats().begin, FIRST_ADDRESS, "the page stays");
                stopped += 1;
            }
            Ok(true) => {
                engine.compact_all(&mut compactor);
                for (n, key) in keys.iter().enumerate() {
                    assert_eq!(engine.get(key), Some(vec![n as u8; 100 + 7 * n]), "bit {bit}");
                }
                harmless += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(stopped > 200 && harmless > 50, "{stopped} {harmless}");
}

#[test]
fn who_reads_what_was_compacted_away_looks_the_key_up_again() {
    let engine = Engine::new(tiny(1));
    let mut compactor = engine.compactor();
    engine.set(b"key", &[3; 900]).unwrap();
    engine.push_out();
    let cold = engine.address_of(b"key").expect("it is there");
    while engine.store.stats().begin <= cold {
        assert!(engine.compact(&mut compactor).unwrap());
    }
    let begin = engine.store.stats().begin;
    let read = engine.world.block_on(engine.device.read_record(cold)).expect("no error");
    let mut held = Held::default();
    held.insert(cold, read.record);
    let pinned = engine.worker.pin();
    let key = pinned.key(0, b"key");
    let latch = pinned.latch(key.hash, true);
    match pinned.find(&key, &held, &mut silent()) {
        Found::Record(record) => assert!(record.address >= begin && record.value == [3; 900]),
        other => panic!("{other:?}"),
    }
    assert!(matches!(pinned.seek(&key, &held).before(), Before::Present { .. }));
    drop(latch);
}

#[test]
fn a_full_disk_is_compacted_with_what_other_writers_leave() {
    let engine = Engine::new(tiny(1));
    let mut compactor = engine.compactor();
    // What is given back can be used again.
    let switches = engine.world.disk.switches.clone();
    engine.set(b"live", &[1; 900]).unwrap();
    engine.push_out();
    switches.capacity.store(40 * PAGE, Ordering::Relaxed);
    let error = (0u32..1000).find_map(|n| engine.set(&[b'c', n as u8 % 7], &[n as u8; 2500]).err());
    assert!(matches!(error, Some(StorageError::Full(_))), "{error:?}");
    (0..50).for_each(|_| _ = engine.world.turn());
    assert!(matches!(engine.set(b"other", &[1; 3900]), Err(StorageError::Full(_))));
    // Without the reserve there would be no room for the copies.
    let begin = engine.store.stats().begin;
    engine.compact_all(&mut compactor);
    assert!(engine.store.stats().begin > begin + 20 * PAGE);
    assert_eq!(engine.get(b"live"), Some(vec![1; 900]));
    let recovered = (0..1000).any(|_| {
        (0..100).for_each(|_| _ = engine.world.turn());
        engine.set(b"other", &[1; 3900]).is_ok()
    });
    assert!(recovered);
}

#[test]
fn a_large_value_stays_where_it_is_and_is_found_by_its_new_record() {
    let engine = Engine::new(tiny(1));
    let mut compactor = engine.compactor();
    let long_key = vec![b'l'; 3000];
    let value = |n: u8| (0..20_000u32).map(|at| (at as u8).wrapping_mul(n)).collect::<Vec<u8>>();
    for key in [b"large".as_slice(), b"appended", b"expiring", b"gone", &long_key] {
        engine.set(key, &value(key[0])).unwrap();
    }
    engine.push_out();
    let extents = engine.world.disk.extents.lock().unwrap().clone();
    let before = engine.store.stats();
    while engine.store.stats().begin == FIRST_ADDRESS {
        assert!(engine.compact(&mut compactor).unwrap());
    }
    // In memory again, and their values are not.
    let after = engine.store.stats();
    assert_eq!((after.object_reads, after.object_bytes), (before.object_reads, before.object_bytes));
    assert_eq!((after.extents, after.extent_bytes), (before.extents, before.extent_bytes));
    let in_memory = engine.address_of(b"large").expect("it is there") >= after.head;
    assert!(in_memory, "{after:?}");
    for round in 0..3 {
        assert_eq!(engine.get(b"large"), Some(value(b'l')), "round {round}");
        assert_eq!(engine.get(&long_key), Some(value(b'l')), "round {round}");
        engine.push_out();
        engine.compact_all(&mut compactor);
    }
    assert_eq!(*engine.world.disk.extents.lock().unwrap(), extents, "nothing was written again");
    assert_eq!(engine.expire(b"expiring", 99), Some(0));
    engine.append(b"appended", b"more").unwrap();
    assert_eq!(engine.delete(b"gone"), Ok(true));
    assert_eq!(engine.get(b"appended"), Some([value(b'a'), b"more".to_vec()].concat()));
    let mut seen: Vec<(Vec<u8>, Vec<u8>)> = engine.scan(2);
    seen.retain(|(key, _)| !key.starts_with(b"~"));
    let names = seen.iter().map(|(key, value)| (key.escape_ascii().to_string(), value.len())).collect::<Vec<_>>();
    assert_eq!(seen.len(), 4, "{names:?}");
    assert!(seen.iter().all(|(_, value)| value.len() >= 20_000), "each with its value");
    engine.push_out();
    engine.compact_all(&mut compactor);
    assert_eq!(engine.expire(b"expiring", 0), Some(99));
    assert_eq!(engine.get(b"expiring"), Some(value(b'e')));
    assert_eq!(engine.get(b"gone"), None);
    engine.push_out();
    assert_eq!(engine.store.stats().extents, 4);
}

#[test]
fn what_was_forgotten_is_not_read() {
    let engine = Engine::new(tiny(1));
    let mut compactor = engine.compactor();
    (0..5).for_each(|_| engine.push_out());
    engine.worker.pin().exclusive().forget_all();
    let tail = engine.store.stats().tail;
    engine.push_out();
    let reads = engine.world.disk.switches.reads.load(Ordering::Relaxed);
    engine.compact(&mut compactor).unwrap();
    assert!(engine.store.stats().begin >= tail / PAGE * PAGE);
    assert!(engine.world.disk.switches.reads.load(Ordering::Relaxed) <= reads + 1);
    for n in 0..9u8 {
        assert_eq!(engine.get(&[b'~', n]), Some(vec![n; 3900]));
    }
}
