//! Values and keys larger than a page: in every tier, on their way between them, and gone without a trace.

use super::{Engine, Wait, silent, tiny};
use crate::objects::Bytes;
use crate::{
    Found, Held, Kind, Load, LogDevice, LogFiles, NeedReason, Object, ReadError, Spot, StorageError, Store,
    StoreConfig, tend_index,
};
use proptest::prelude::*;
use std::any::Any;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 131 + at / 251 + seed * 17) as u8).collect()
}

/// Writes small values until everything before is on disk.
fn push_out(engine: &Engine) {
    for n in 0..12u8 {
        engine.set(&[b'p', n], &[n; 3900]).unwrap();
        engine.world.run();
    }
}

/// A write that looks the key up first, as every command does: so what it replaces is known.
fn replace(engine: &Engine, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
    engine.run(|pinned, held, trace| {
        let key = pinned.key(0, key);
        let _latch = pinned.latch(key.hash, true);
        let place = pinned.seek(&key, held);
        if let crate::Before::Cold(address) = place.before() {
            return Err(Wait::Records(vec![address]));
        }
        pinned.upsert_at(&place, &key, Kind::String, 0, &[value], held, trace)?;
        Ok(())
    })
}

#[test]
fn a_value_larger_than_all_regions_reads_back_from_every_tier() {
    let engine = Engine::new(tiny(1));
    let value = bytes(300_000, 1);
    engine.set(b"large", &value).unwrap();
    assert_eq!(engine.get(b"large"), Some(value.clone()));
    assert!(engine.store.stats().object_bytes >= 300_000);
    push_out(&engine);
    let stats = engine.store.stats();
    assert_eq!((stats.object_bytes, stats.extents), (0, 1), "{stats:?}");
    assert_eq!(stats.extent_bytes, 300_000u64.next_multiple_of(4096));
    assert_eq!(engine.get(b"large"), Some(value.clone()));
    engine.append(b"large", b"tail").unwrap();
    assert_eq!(engine.get(b"large"), Some([&value[..], b"tail"].concat()));
    assert!(engine.delete(b"large").unwrap());
    assert_eq!((engine.get(b"large"), engine.store.stats().extents), (None, 0));
}

#[test]
fn a_value_as_large_as_fits_stays_in_its_record() {
    let engine = Engine::new(tiny(1));
    let max = engine.store.inline_max(3);
    engine.set(b"key", &bytes(max, 1)).unwrap();
    assert_eq!(engine.store.stats().object_bytes, 0);
    engine.set(b"key", &bytes(max + 1, 2)).unwrap();
    assert!(engine.store.stats().object_bytes > max);
    assert_eq!(engine.get(b"key"), Some(bytes(max + 1, 2)));
    engine.set(b"key", b"small").unwrap();
    assert_eq!((engine.get(b"key").unwrap(), engine.store.stats().object_bytes), (b"small".to_vec(), 0));
}

#[test]
fn a_key_larger_than_a_page_is_a_key_as_any_other() {
    let engine = Engine::new(tiny(1));
    let (a, b) = (bytes(1 << 20, 1), bytes(1 << 20, 2));
    for key in [&a, &b] {
        engine.set(key, b"").unwrap();
        engine.set(key, &key[..5]).unwrap();
    }
    for round in 0..2 {
        assert_eq!(engine.get(&a).as_deref(), Some(&a[..5]), "round {round}");
        assert_eq!(engine.get(&a[1..]), None);
        let mut seen = engine.scan(3);
        seen.retain(|(key, _)| key.len() > 100);
        seen.sort();
        let mut all = vec![(a.clone(), a[..5].to_vec()), (b.clone(), b[..5].to_vec())];
        all.sort();
        assert!(seen == all, "round {round}");
        push_out(&engine);
    }
    assert_eq!(engine.expire(&a, 7), Some(0));
    assert_eq!(engine.expire(&a, 0), Some(7));
    assert!(engine.delete(&a).unwrap() && !engine.delete(&a).unwrap());
    engine.set(&a, b"again").unwrap();
    assert_eq!(engine.get(&a).as_deref(), Some(&b"again"[..]));
    push_out(&engine);
    assert!(engine.delete(&a).unwrap());
    push_out(&engine);
    assert_eq!((engine.get(&a), engine.get(&b).as_deref()), (None, Some(&b[..5])));
    assert_eq!(engine.store.stats().extents, 1);
}

#[test]
fn an_expiry_moves_the_object_and_copies_it_never_in_memory() {
    let engine = Engine::new(StoreConfig { read_only_pages: 40, ..tiny(1) });
    let value = bytes(50_000, 1);
    engine.set(b"large", &value).unwrap();
    let place = |engine: &Engine| {
        let pinned = engine.worker.pin();
        let key = pinned.key(0, b"large");
        let _latch = pinned.latch(key.hash, false);
        match pinned.find(&key, &Held::default(), &mut silent()) {
            Found::Record(record) => (record.value.as_ptr() as usize, record.tier),
            other => panic!("{other:?}"),
        }
    };
    let before = place(&engine);
    engine.set(b"other", &bytes(100_000, 2)).unwrap();
    engine.set(b"another", &bytes(4000, 2)).unwrap();
    engine.world.run();
    let engine_stats = engine.store.stats();
    assert_eq!(place(&engine).1, ferrite_telemetry::Tier::ReadOnly, "{engine_stats:?}");
    assert_eq!(engine.expire(b"large", 99), Some(0));
    assert_eq!(place(&engine), before, "it has moved to a mutable record");
    engine.world.run();
    assert_eq!(engine.get(b"large"), Some(value));
}

#[test]
fn memory_is_bounded_by_the_regions_whatever_the_size_of_the_values() {
    let engine = Engine::new(StoreConfig { mutable_pages: 8, ..tiny(1) });
    let mut most = 0;
    for n in 0..200usize {
        engine.set(format!("key{n}").as_bytes(), &bytes(6000, n)).unwrap();
        most = most.max(engine.store.stats().memory_bytes);
        if n % 3 == 0 {
            engine.world.run();
        }
    }
    let budget = (8 + 2 + 2 + 2 + 2) * 4096 + 6000;
    assert!(most <= budget + engine.store.stats().index_bytes, "{most} > {budget}");
    for n in 0..200usize {
        assert_eq!(engine.get(format!("key{n}").as_bytes()), Some(bytes(6000, n)), "key{n}");
    }
}

#[test]
fn a_full_disk_refuses_a_large_value_before_anything_changes() {
    let engine = Engine::new(tiny(1));
    engine.set(b"key", b"before").unwrap();
    engine.world.disk.switches.capacity.store(200_000, Ordering::Relaxed);
    assert!(matches!(engine.set(b"key", &bytes(400_000, 1)), Err(StorageError::Full(_))));
    assert_eq!(engine.get(b"key").as_deref(), Some(&b"before"[..]));
    engine.world.run();
    engine.set(b"key", &bytes(50_000, 1)).unwrap();
    engine.world.disk.switches.capacity.store(0, Ordering::Relaxed);
    engine.world.run();
    engine.set(b"key", &bytes(400_000, 2)).unwrap();
    assert_eq!(engine.get(b"key"), Some(bytes(400_000, 2)));
}

#[test]
fn a_damaged_extent_is_an_error_never_a_wrong_value() {
    let engine = Engine::new(tiny(1));
    engine.set(b"large", &bytes(10_000, 1)).unwrap();
    push_out(&engine);
    let address = engine.cold_address(b"large");
    let read = || engine.world.block_on(engine.device.read_record(address));
    assert_eq!(read().unwrap().record.value_len(), 10_000);
    for at in [4096, 4096 + 5000, 4096 + 9999] {
        engine.world.disk.extents.lock().unwrap()[at] ^= 1;
        assert!(matches!(read(), Err(ReadError::ExtentDamaged { offset: 4096, .. })), "{at}");
        assert_eq!(engine.world.block_on(engine.device.read_header(address)).unwrap().record.value_len(), 32);
        engine.world.disk.extents.lock().unwrap()[at] ^= 1;
    }
    engine.world.disk.extents.lock().unwrap().truncate(4096 + 4096);
    assert!(matches!(read(), Err(ReadError::ExtentDamaged { offset: 4096, .. })), "it is short");
    assert_eq!(engine.store.stats().checksum_errors, 4);
}

#[test]
fn an_extent_that_was_freed_while_it_was_read_is_no_damage() {
    let engine = Engine::new(tiny(1));
    engine.set(b"large", &bytes(10_000, 1)).unwrap();
    push_out(&engine);
    let mut held = Held::default();
    let address = engine.cold_address(b"large");
    let read = engine.device.read_record(address);
    replace(&engine, b"large", &bytes(9_000, 2)).unwrap();
    push_out(&engine);
    engine.world.disk.extents.lock().unwrap()[4096..8192].fill(0xee);
    let read = engine.world.block_on(read).unwrap();
    assert_eq!(read.record.value_len(), 32, "the object is not there");
    held.insert(address, read.record);
    assert_eq!(engine.store.stats().checksum_errors, 0);
}

#[test]
fn the_end_of_the_file_goes_while_the_store_is_in_use() {
    let engine = Engine::new(tiny(1));
    let value = bytes(1_000_000, 1);
    for name in 0..4u8 {
        engine.set(&[b'l', name], &value).unwrap();
        engine.world.run();
    }
    push_out(&engine);
    let len = || engine.world.disk.extents.lock().unwrap().len();
    assert!(len() > 4_000_000);
    for name in 1..4u8 {
        assert!(engine.delete(&[b'l', name]).unwrap());
    }
    engine.store.log.work.notify_one();
    engine.world.run();
    assert!((1_000_000..1_500_000).contains(&len()), "{}", len());
    assert_eq!(engine.get(b"l\0"), Some(value.clone()));
    // It grows again.
    engine.set(b"another", &value).unwrap();
    push_out(&engine);
    assert_eq!(engine.get(b"another"), Some(value.clone()));
    assert_eq!(engine.get(b"l\0"), Some(value));
}

#[test]
fn a_part_of_a_large_string_is_changed_where_it_lies() {
    let engine = Engine::new(tiny(1));
    let mut value = bytes(100_000, 1);
    engine.set(b"large", &value).unwrap();
    let splice = |offset: usize, part: &[u8]| {
        engine
            .run(|pinned, held, trace| {
                let key = pinned.key(0, b"large");
                let _latch = pinned.latch(key.hash, true);
                if let Found::Cold(address) = pinned.find(&key, held, trace) {
                    return Err(Wait::Records(vec![address]));
                }
                Ok(pinned.splice_object(&key, offset, part, held, trace)?)
            })
            .unwrap()
    };
    let place = || {
        let pinned = engine.worker.pin();
        let key = pinned.key(0, b"large");
        let _latch = pinned.latch(key.hash, false);
        match pinned.find(&key, &Held::default(), &mut silent()) {
            Found::Record(record) => record.value.as_ptr() as usize,
            other => panic!("{other:?}"),
        }
    };
    // The first that makes it longer gives it room for more.
    assert!(splice(100_000, b"more").is_some());
    value.extend_from_slice(b"more");
    let before = place();
    for (offset, part) in [(17, &b"inside"[..]), (100_010, b"behind zeros"), (100_000, b"MORE"), (100_022, b"!")] {
        let end = value.len().max(offset + part.len());
        value.resize(end, 0);
        value[offset..offset + part.len()].copy_from_slice(part);
        let size = splice(offset, part).expect("it is an object");
        assert!((end..end + 100).contains(&size), "{size} bytes with the record");
        assert_eq!(place(), before, "nothing was copied");
        assert_eq!(engine.get(b"large"), Some(value.clone()));
    }
    push_out(&engine);
    assert!(splice(50_000, b"from disk").is_some());
    value[50_000..50_009].copy_from_slice(b"from disk");
    assert_eq!(engine.get(b"large"), Some(value.clone()));
    push_out(&engine);
    assert_eq!(engine.get(b"large"), Some(value));
    assert_eq!(engine.store.stats().extents, 1, "that of before is free");
    engine.set(b"large", b"small").unwrap();
    assert_eq!(splice(0, b"x"), None, "it is no object");
}

/// As many as a sound disk needs.
const READS: usize = 4;

#[test]
fn a_record_whose_extent_is_nobodys_is_damage_and_not_looked_for_for_ever() {
    let engine = Engine::new(tiny(1));
    let mut compactor = engine.compactor();
    let long_key = vec![b'k'; 3000];
    for key in [b"on disk".as_slice(), b"replaced", &long_key] {
        engine.set(key, &bytes(20_000, 1)).unwrap();
    }
    push_out(&engine);
    assert_eq!(engine.get_within(READS, b"on disk"), Ok(Some(bytes(20_000, 1))));
    // As a checkpoint would leave it that does not name them.
    engine.store.log.objects.extents.free_all(0);
    let errors = engine.store.stats().checksum_errors;
    for key in [b"on disk".as_slice(), &long_key] {
        assert!(matches!(engine.get_within(READS, key), Err(ReadError::ExtentDamaged { .. })));
    }
    assert!(engine.store.stats().checksum_errors > errors);
    // The same for a record that is in memory again.
    assert!(engine.compact(&mut compactor).unwrap());
    assert!(matches!(engine.get_within(READS, b"on disk"), Err(ReadError::ExtentDamaged { .. })));
    // Another value ends that.
    engine.set(b"replaced", b"new").unwrap();
    assert_eq!(engine.get_within(READS, b"replaced"), Ok(Some(b"new".to_vec())));
}

#[test]
fn a_flushed_space_gives_its_extents_back_and_so_does_forgetting_all() {
    let engine = Engine::new(tiny(2));
    let write = |space: u32, n: usize| {
        engine
            .run(|pinned, held, trace| {
                let name = format!("key{n}");
                let key = pinned.key(space, name.as_bytes());
                let _latch = pinned.latch(key.hash, true);
                Ok(pinned.upsert(&key, Kind::String, 0, &[&bytes(5000 + n, n)], held, trace)?)
            })
            .unwrap();
        engine.world.run();
    };
    for n in 0..40 {
        write(1 + n as u32 % 2, n);
    }
    push_out(&engine);
    assert_eq!(engine.store.stats().extents, 40);
    engine.worker.pin().exclusive().retire_space(1);
    let (handle, world) = (engine.store.worker(1), engine.world.clone());
    let files = world.block_on(LogFiles::open(&world, Path::new("log"))).unwrap();
    let device = LogDevice::new(engine.store.clone(), world.clone(), files);
    engine.world.start(async move { tend_index(&handle, &device, &world).await });
    engine.world.run();
    assert_eq!(engine.store.stats().extents, 20);
    write(2, 41);
    assert!(engine.store.stats().object_bytes > 0);
    engine.worker.pin().exclusive().forget_all();
    engine.world.run();
    let stats = engine.store.stats();
    assert_eq!((stats.extents, stats.extent_bytes, stats.object_bytes), (0, 0, 0));
    assert!(!engine.store.log.objects.has_condemned(), "freed in pieces by now");
    write(3, 1);
    push_out(&engine);
    assert_eq!(engine.store.stats().extents, 1);
}

/// Numbers, of which the written form is eight bytes each: a collection to the engine.
#[derive(Clone)]
struct Numbers(Vec<u64>);

impl Object for Numbers {
    fn written_len(&self) -> usize {
        8 * self.0.len()
    }
    fn write_part(&self, from: Spot, out: &mut [u8]) -> Spot {
        let bytes = self.0[from.byte / 8..].iter().flat_map(|number| number.to_le_bytes()).skip(from.byte % 8);
        out.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
        Spot { byte: from.byte + out.len(), ..from }
    }
    fn memory(&self) -> usize {
        8 * self.0.len()
    }
    fn shed(&mut self) -> bool {
        false
    }
    fn duplicate(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }
}

fn decode_numbers(_: Kind, len: usize) -> Option<Box<dyn Load>> {
    Some(Box::new(Bytes::new(len, |bytes| {
        let numbers = bytes.as_chunks::<8>().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect();
        Some(Box::new(Numbers(numbers)))
    })))
}

#[test]
fn a_collection_is_changed_where_it_is_and_comes_back_from_disk() {
    let world = super::FakeWorld::new(super::FakeDisk::default());
    let engine = Engine::with(Store::with_objects(tiny(1), decode_numbers), world);
    let seek_and_put = |numbers: Numbers| {
        engine.run(|pinned, held, trace| {
            let key = pinned.key(0, b"list");
            let _latch = pinned.latch(key.hash, true);
            let place = pinned.seek(&key, held);
            Ok(pinned.upsert_object_at(&place, &key, Kind::List, 5, Box::new(numbers.clone()), held, trace)?)
        })
    };
    let push = |number: u64| {
        engine
            .run(|pinned, held, trace| {
                let key = pinned.key(0, b"list");
                let _latch = pinned.latch(key.hash, true);
                if let Found::Cold(address) = pinned.find(&key, held, trace) {
                    return Err(Wait::Records(vec![address]));
                }
                let done = pinned.update_object(&key, 8, held, trace, |object| {
                    let numbers = (object as &mut dyn Any).downcast_mut::<Numbers>().expect("numbers");
                    numbers.0.push(number);
                    numbers.0.len()
                })?;
                Ok(done.map(|(len, size)| {
                    assert_eq!(size, 80 + 8 * len, "the record, and the numbers");
                    len
                }))
            })
            .unwrap()
    };
    let all = || {
        engine
            .run(|pinned, held, trace| {
                let key = pinned.key(0, b"list");
                let _latch = pinned.latch(key.hash, false);
                match pinned.find(&key, held, trace) {
                    Found::Cold(address) => Err(Wait::Records(vec![address])),
                    Found::Missing => Ok(None),
                    Found::Record(record) => {
                        assert_eq!((record.kind, record.expire_at_ms, record.value.len()), (Kind::List, 5, 0));
                        let object: &dyn Any = record.object.expect("a collection");
                        Ok(Some(object.downcast_ref::<Numbers>().expect("numbers").0.clone()))
                    }
                }
            })
            .unwrap()
    };
    assert_eq!(push(0), None, "there is none");
    seek_and_put(Numbers((0..1000).collect())).unwrap();
    let tail = engine.store.stats().tail;
    for number in 1000..3000 {
        assert_eq!(push(number), Some(number as usize + 1));
    }
    assert_eq!(engine.store.stats().tail, tail, "a change in place writes no record");
    assert_eq!(
        engine.store.stats().object_bytes,
        3000 * 8 + size_of::<crate::objects::Stored>(),
        "its weight is known"
    );
    for number in 3000..3010 {
        push_out(&engine);
        assert_eq!(push(number), Some(number as usize + 1));
    }
    push_out(&engine);
    assert_eq!(all(), Some((0..3010).collect()));
    assert_eq!(engine.store.stats().extents, 1);
}

#[derive(Clone, Debug)]
enum Op {
    Get(u8),
    Set(u8, usize),
    Append(u8, usize),
    Delete(u8),
    Expire(u8, u64),
    Rename(u8, u8),
    Copy(u8, u8),
    PushOut,
    Scan(usize),
    /// Lets the flush go on, or not.
    Run,
    Forget,
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..12u8;
    let len = prop_oneof![2 => 0..200usize, 1 => 3900..4200usize, 3 => 4200..20_000usize];
    prop_oneof![
        4 => key.clone().prop_map(Op::Get),
        6 => (key.clone(), len).prop_map(|(key, len)| Op::Set(key, len)),
        2 => (key.clone(), 0..3000usize).prop_map(|(key, len)| Op::Append(key, len)),
        3 => key.clone().prop_map(Op::Delete),
        2 => (key.clone(), 0..3u64).prop_map(|(key, at)| Op::Expire(key, at)),
        4 => (key.clone(), key.clone()).prop_map(|(from, to)| Op::Rename(from, to)),
        2 => (key.clone(), key).prop_map(|(from, to)| Op::Copy(from, to)),
        1 => Just(Op::PushOut),
        1 => (1..5usize).prop_map(Op::Scan),
        2 => Just(Op::Run),
        1 => (0..8u8).prop_map(|one| if one == 0 { Op::Forget } else { Op::Run }),
    ]
}

/// As RENAME and COPY do it with an object: `None`, and nothing done, if there is none that can be moved.
fn transfer(engine: &Engine, moves: bool, from: &[u8], to: &[u8]) -> Option<usize> {
    if from == to {
        return None;
    }
    let mut held = Held::default();
    loop {
        let mut pinned = engine.worker.pin();
        let exclusive = pinned.exclusive();
        let (from, to) = (exclusive.key(0, from), exclusive.key(0, to));
        let mut cold = Vec::new();
        for key in [&from, &to] {
            if let Found::Cold(address) = exclusive.find(key, &held, &mut silent()) {
                cold.push(address);
            }
        }
        let done = match (cold.is_empty(), moves) {
            (false, _) => Ok(None),
            (true, true) => {
                exclusive.room_for(200_000, 2).and_then(|()| exclusive.rename_object(&from, &to, &held, &mut silent()))
            }
            (true, false) => exclusive.copy_object(&from, &to, &held, &mut silent()),
        };
        drop(exclusive);
        drop(pinned);
        match done {
            Ok(done) if cold.is_empty() => return done,
            Ok(_) => {}
            Err(need) => engine.world.block_on(engine.store.wait_for_space(&need)).unwrap(),
        }
        for address in cold {
            held.insert(address, engine.world.block_on(engine.device.read_record(address)).unwrap().record);
        }
    }
}

/// Some names are longer than a page.
fn name(key: u8) -> Vec<u8> {
    if key % 4 == 3 { bytes(2048 + 500 * key as usize, key as usize) } else { vec![b'k', key] }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_mix_of_large_and_small_answers_as_a_map_does_and_leaks_nothing(ops in proptest::collection::vec(op(), 1..100)) {
        let engine = Engine::new(tiny(1));
        let mut map: BTreeMap<Vec<u8>, (Vec<u8>, u64)> = BTreeMap::new();
        for (turn, op) in ops.into_iter().enumerate() {
            match op {
                Op::Get(key) => {
                    prop_assert_eq!(engine.get(&name(key)), map.get(&name(key)).map(|entry| entry.0.clone()));
                }
                Op::Set(key, len) => {
                    replace(&engine, &name(key), &bytes(len, turn)).unwrap();
                    map.insert(name(key), (bytes(len, turn), 0));
                }
                Op::Append(key, len) => {
                    engine.append(&name(key), &bytes(len, turn)).unwrap();
                    map.entry(name(key)).or_default().0.extend(bytes(len, turn));
                }
                Op::Delete(key) => {
                    prop_assert_eq!(engine.delete(&name(key)).unwrap(), map.remove(&name(key)).is_some());
                }
                Op::Expire(key, at) => {
                    let entry = map.get_mut(&name(key));
                    prop_assert_eq!(engine.expire(&name(key), at), entry.map(|entry| std::mem::replace(&mut entry.1, at)));
                }
                Op::Rename(from, to) | Op::Copy(from, to) => {
                    let moves = matches!(op, Op::Rename(..));
                    if let Some(size) = transfer(&engine, moves, &name(from), &name(to)) {
                        let entry = map.get(&name(from)).expect("it has an object").clone();
                        prop_assert!(size > entry.0.len());
                        map.insert(name(to), entry);
                        if moves {
                            map.remove(&name(from));
                        }
                    }
                }
                Op::PushOut => {
                    push_out(&engine);
                    for n in 0..12u8 {
                        map.insert(vec![b'p', n], (vec![n; 3900], 0));
                    }
                }
                Op::Scan(buckets) => {
                    let mut seen = engine.scan(buckets);
                    seen.sort();
                    let all: Vec<_> = map.iter().map(|(key, entry)| (key.clone(), entry.0.clone())).collect();
                    prop_assert!(seen == all);
                }
                Op::Run => engine.world.run(),
                Op::Forget => {
                    engine.worker.pin().exclusive().forget_all();
                    map.clear();
                }
            }
        }
        for (key, entry) in &map {
            prop_assert_eq!(engine.get(key), Some(entry.0.clone()));
        }
        for key in map.keys() {
            prop_assert!(engine.delete(key).unwrap());
        }
        engine.world.run();
        push_out(&engine);
        // What a store that was emptied leaves is looked at in steps.
        while engine.store.log.objects.extents.free_some(1) {}
        let (stats, extents) = (engine.store.stats(), engine.store.log.objects.extents.stats());
        prop_assert_eq!((stats.object_bytes, stats.extents, stats.extent_bytes), (0, 0, 0));
        prop_assert_eq!((extents.promised_bytes, extents.file_bytes), (0, 4096));
        prop_assert_eq!(engine.store.log.objects.unwritten_bytes(), 0);
    }
}

#[test]
fn room_for_many_large_values_is_given_at_once() {
    let engine = Engine::new(tiny(1));
    let held = Held::default();
    let values: Vec<Vec<u8>> = (0..5).map(|n| bytes(40_000, n)).collect();
    loop {
        let mut pinned = engine.worker.pin();
        let exclusive = pinned.exclusive();
        let need = match exclusive.room_for(5 * 40_002, 5) {
            Ok(()) => {
                for (n, value) in values.iter().enumerate() {
                    let name = [b'm', n as u8];
                    let key = exclusive.key(0, &name);
                    exclusive.upsert(&key, Kind::String, 0, &[value], &held, &mut silent()).expect("promised");
                }
                break;
            }
            Err(need) => need,
        };
        assert!(matches!(need.reason, NeedReason::ObjectFile | NeedReason::LogFile), "files grow: {need:?}");
        drop(exclusive);
        drop(pinned);
        engine.world.block_on(engine.store.wait_for_space(&need)).unwrap();
    }
    push_out(&engine);
    for (n, value) in values.iter().enumerate() {
        assert_eq!(engine.get(&[b'm', n as u8]).as_ref(), Some(value));
    }
    assert_eq!(engine.store.log.objects.extents.stats().promised_bytes, 0);
}

#[test]
fn who_asks_for_keys_alone_reads_no_large_value() {
    let engine = Engine::new(tiny(1));
    let names = [b"large".to_vec(), bytes(5000, 9)];
    for name in &names {
        engine.set(name, &bytes(40_000, 1)).unwrap();
        assert_eq!(engine.expire(name, 77), Some(0));
    }
    push_out(&engine);
    let mut held = Held::default();
    let read = |held: &mut Held, addresses: Vec<u64>| {
        for address in addresses {
            let read = engine.world.block_on(engine.device.read_header(address)).expect("the disk is sound");
            held.insert(address, read.record);
        }
    };
    let mut found = Vec::new();
    let pieces = loop {
        let mut keys = Vec::new();
        let scanned = engine.worker.pin().scan(0, usize::MAX, 0, false, &held, &mut |record| {
            if record.key.len() > 2 {
                keys.push((record.key.to_vec(), record.expire_at_ms));
            }
        });
        match scanned {
            Ok(_) => {
                found.extend(keys);
                break engine.store.stats().object_reads;
            }
            Err(cold) => read(&mut held, cold),
        }
    };
    found.sort();
    let mut expected = names.clone().map(|name| (name, 77));
    expected.sort();
    assert!(found == expected, "{} keys", found.len());
    assert_eq!(pieces, 1, "the one whose key lies with its value");
    for name in &names {
        let mut held = Held::default();
        loop {
            let pinned = engine.worker.pin();
            let hash = pinned.key(0, name).hash;
            let latch = pinned.latch(hash, false);
            let cold = match pinned.find_by_hash(hash, &held) {
                Found::Record(record) => {
                    assert!(record.key == name && record.expire_at_ms == 77);
                    break;
                }
                Found::Cold(address) => address,
                Found::Missing => panic!("it is there"),
            };
            drop(latch);
            drop(pinned);
            read(&mut held, vec![cold]);
        }
    }
    assert_eq!(engine.store.stats().object_reads, 2);
}

/// The file of extents has grown for somebody who needs so much, and who has not taken it.
fn grown_for(bytes: u64) -> (Engine, crate::NeedSpace) {
    let engine = Engine::new(tiny(1));
    assert!(!engine.store.log.objects.extents.promise_to_object(bytes), "the file is small");
    let need = crate::NeedSpace { reason: NeedReason::ObjectFile, bytes: bytes as usize };
    engine.world.block_on(engine.store.wait_for_space(&need)).unwrap();
    (engine, need)
}

/// The file has grown for it, and somebody else has taken that.
#[test]
fn who_waits_for_the_file_of_extents_has_it_grow_again() {
    const BYTES: u64 = 1 << 20;
    let (engine, need) = grown_for(BYTES);
    let extents = &engine.store.log.objects.extents;
    while extents.promise_to_object(4096) {}
    extents.forget_wanted();
    engine.world.run();
    engine.world.block_on(engine.store.wait_for_space(&need)).unwrap();
    assert!(extents.promise_to_object(BYTES));
}

#[test]
fn what_the_file_of_extents_has_grown_by_is_left_to_who_waited_for_it() {
    const BYTES: u64 = 8 << 20;
    let (engine, _) = grown_for(BYTES);
    let extents = &engine.store.log.objects.extents;
    // The flush goes round before that one has had its turn.
    for _ in 0..3 {
        engine.store.log.work.notify_one();
        engine.world.block_on(ferrite_io::give_way());
    }
    assert!(extents.promise_to_object(BYTES), "it is there yet");
    extents.end_promise_to_object(BYTES);
    engine.world.run();
    assert!(!extents.promise_to_object(BYTES), "nobody has come: it is given back");
}
