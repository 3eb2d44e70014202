//! What a worker does for a large object between two moments at which it serves others. Counted in bytes and elements, not in time.

use super::{Engine, FakeDisk, FakeWorld, Wait, silent, tiny};
use crate::objects::{IN_ONE_GO, LOADED_IN_ONE_GO};
use crate::{Found, Held, Kind, Load, LogDevice, LogFiles, Object, Spot, Store, StoreConfig, tend_index};
use std::cell::Cell;
use std::rc::Rc;

thread_local! {
    /// Bytes of written forms that were made, or taken in, so far.
    static WORK: Cell<usize> = const { Cell::new(0) };
}

fn did(work: usize) {
    WORK.set(WORK.get() + work);
}

/// A collection that counts what is done with it.
struct Counted(usize);

/// Bytes that are freed at a time.
const SHED: usize = 10_000;

fn byte(at: usize) -> u8 {
    (at * 7 + at / 253) as u8
}

impl Object for Counted {
    fn written_len(&self) -> usize {
        self.0
    }
    fn write_part(&self, from: Spot, out: &mut [u8]) -> Spot {
        did(out.len());
        assert!(from.byte + out.len() <= self.0, "more is asked for than there is");
        out.iter_mut().enumerate().for_each(|(at, place)| *place = byte(from.byte + at));
        Spot { byte: from.byte + out.len(), ..from }
    }
    fn memory(&self) -> usize {
        self.0
    }
    fn shed(&mut self) -> bool {
        did(self.0.min(SHED));
        self.0 = self.0.saturating_sub(SHED);
        self.0 > 0
    }
    fn duplicate(&self) -> Box<dyn Object> {
        panic!("a large object is copied")
    }
}

struct LoadCounted {
    len: usize,
    taken: usize,
}

impl Load for LoadCounted {
    fn take(&mut self, part: &[u8]) {
        did(part.len());
        assert!(part.iter().enumerate().all(|(at, &found)| found == byte(self.taken + at)));
        self.taken += part.len();
    }
    fn finish(self: Box<Self>) -> Option<Box<dyn Object>> {
        (self.taken == self.len).then(|| Box::new(Counted(self.len)) as Box<dyn Object>)
    }
}

fn engine() -> Engine {
    engine_of(16)
}

fn engine_of(mutable_pages: usize) -> Engine {
    let decode = |_, len| Some(Box::new(LoadCounted { len, taken: 0 }) as Box<dyn Load>);
    let config = StoreConfig { mutable_pages, ..tiny(2) };
    Engine::with(Store::with_objects(config, decode), FakeWorld::new(FakeDisk::default()))
}

fn put(engine: &Engine, key: &[u8], len: usize) {
    engine
        .run(|pinned, held, trace| {
            let key = pinned.key(0, key);
            let _latch = pinned.latch(key.hash, true);
            let place = pinned.seek(&key, held);
            Ok(pinned.upsert_object_at(&place, &key, Kind::List, 0, Box::new(Counted(len)), held, trace)?)
        })
        .unwrap();
}

/// The most that is done in one turn of all tasks, until none can go on.
fn most_in_a_turn(engine: &Engine) -> usize {
    let (mut most, mut before) = (0, WORK.get());
    while engine.world.turn() {
        most = most.max(WORK.get() - before);
        before = WORK.get();
    }
    most
}

/// Writes small values until everything before has left memory; the most that is done in a turn meanwhile.
fn push_out(engine: &Engine) -> usize {
    let mut most = 0;
    for n in 0..40u8 {
        let before = WORK.get();
        engine.set(&[b'p', n], &[n; 3900]).unwrap();
        assert_eq!(WORK.get(), before, "who writes small values has the room");
        most = most.max(most_in_a_turn(engine));
    }
    most
}

#[test]
fn an_object_is_written_and_read_a_piece_at_a_time_whatever_its_size() {
    for len in [IN_ONE_GO - 1, IN_ONE_GO, 1_000_003, 5 << 20] {
        let engine = engine();
        let long_key = vec![b'k'; 3000];
        for key in [b"list".as_slice(), &long_key] {
            let before = WORK.get();
            put(&engine, key, len);
            let written = push_out(&engine);
            assert_eq!(WORK.get() - before, len, "it is written once");
            assert!(written <= IN_ONE_GO, "{written} bytes of {len} in one go");
            let address = engine.cold_address(key);
            let files = engine.world.block_on(LogFiles::open(&engine.world, std::path::Path::new("log"))).unwrap();
            let device = LogDevice::new(engine.store.clone(), engine.world.clone(), files);
            let before = WORK.get();
            let found: Rc<Cell<usize>> = Rc::default();
            let read = found.clone();
            engine.world.start(async move {
                let record = device.read_record(address).await.expect("the disk is sound").record;
                read.set(record.value_len());
            });
            let loaded = most_in_a_turn(&engine);
            assert_eq!((WORK.get() - before, found.get()), (len, len), "it is read once");
            assert!(loaded <= LOADED_IN_ONE_GO, "{loaded} bytes of {len} in one go");
        }
    }
}

/// Every way in which an object goes.
#[test]
fn a_large_object_is_freed_a_piece_at_a_time_however_it_goes() {
    const LEN: usize = 1_000_003;
    type Way = (&'static str, fn(&Engine));
    let ways: [Way; 4] = [
        ("deleted", |engine| assert!(engine.delete(b"list").unwrap())),
        ("replaced", |engine| engine.set(b"list", b"small").unwrap()),
        ("forgotten with all", |engine| engine.worker.pin().exclusive().forget_all()),
        ("gone to disk", |engine| {
            push_out(engine);
        }),
    ];
    for (way, go) in ways {
        let engine = engine();
        let (handle, world) = (engine.store.worker(1), engine.world.clone());
        let files = world.block_on(LogFiles::open(&world, std::path::Path::new("log"))).unwrap();
        let device = LogDevice::new(engine.store.clone(), world.clone(), files);
        engine.world.start(async move { tend_index(&handle, &device, &world).await });
        engine.world.run();
        put(&engine, b"list", LEN);
        assert!(engine.store.stats().object_bytes > LEN);
        // An attempt that lacked space has left one, too.
        engine.world.run();
        let (before, freed) = (WORK.get(), engine.store.stats().objects_freed);
        go(&engine);
        // What is deferred until no batch looks at it wants batches.
        for _ in 0..20 {
            drop(engine.worker.pin());
            engine.worker.pin().guard.flush();
        }
        let stats = engine.store.stats();
        assert_eq!(stats.object_bytes, 0, "{way}");
        let most = most_in_a_turn(&engine);
        let written = if way == "gone to disk" { LEN } else { 0 };
        assert!(WORK.get() - before >= LEN + written, "{way}: {} bytes freed", WORK.get() - before);
        assert!(most <= SHED, "{way}: {most} bytes freed in one go");
        let stats = engine.store.stats();
        assert_eq!((stats.objects_freeing, stats.freeing_bytes, stats.objects_freed), (0, 0, freed + 1), "{way}");
    }
}

fn change(engine: &Engine) {
    let changed = engine.run(|pinned, held, trace| {
        let key = pinned.key(0, b"list");
        let _latch = pinned.latch(key.hash, true);
        if let Found::Cold(address) = pinned.find(&key, held, trace) {
            return Err(Wait::Records(vec![address]));
        }
        Ok(pinned.update_object(&key, 0, held, trace, |object| object.written_len())?)
    });
    assert!(matches!(changed, Ok(Some(_))), "{changed:?}");
}

#[test]
fn the_first_change_of_a_cold_object_takes_it_into_memory_and_copies_nothing() {
    let engine = engine();
    put(&engine, b"list", 1_000_003);
    push_out(&engine);
    assert_eq!(engine.store.stats().object_bytes, 0);
    let before = WORK.get();
    change(&engine);
    assert_eq!(WORK.get() - before, 1_000_003, "it was read");
    change(&engine);
    assert_eq!(WORK.get() - before, 1_000_003, "and is in memory from then on");
}

#[test]
fn a_rename_moves_the_object_wherever_it_is_and_copies_nothing() {
    for is_cold in [false, true] {
        let engine = engine();
        put(&engine, b"before", 1_000_003);
        if is_cold {
            push_out(&engine);
        }
        let mut held = Held::default();
        if is_cold {
            let address = engine.cold_address(b"before");
            held.insert(address, engine.world.block_on(engine.device.read_record(address)).unwrap().record);
        }
        let before = WORK.get();
        let renamed = loop {
            let mut pinned = engine.worker.pin();
            let exclusive = pinned.exclusive();
            let (from, to) = (exclusive.key(0, b"before"), exclusive.key(0, b"list"));
            let renamed = exclusive
                .room_for(1_000_020, 2)
                .and_then(|()| exclusive.rename_object(&from, &to, &held, &mut silent()));
            drop(exclusive);
            drop(pinned);
            match renamed {
                Ok(renamed) => break renamed,
                Err(need) => engine.world.block_on(engine.store.wait_for_space(&need)).unwrap(),
            }
        };
        assert!(renamed.is_some_and(|size| size > 1_000_003), "{renamed:?}");
        assert_eq!(WORK.get(), before, "it is neither read nor written");
        assert_eq!((engine.get(b"before"), engine.store.stats().extents), (None, 0));
        drop(held);
        change(&engine);
        push_out(&engine);
        assert_eq!(engine.store.stats().extents, 1);
        change(&engine);
    }
}

#[test]
fn a_change_waits_for_the_flush_of_a_record_that_the_object_has_left() {
    const LEN: usize = 400_000;
    let engine = engine_of(256);
    put(&engine, b"list", LEN);
    let before = WORK.get();
    for n in 0..250u8 {
        if WORK.get() > before {
            break;
        }
        engine.set(&[b'p', n], &[n; 3900]).unwrap();
        engine.world.turn();
    }
    let written = WORK.get() - before;
    assert!((1..LEN / 2).contains(&written), "{written} bytes were written so far");
    assert_eq!(engine.expire(b"list", 77), Some(0), "that moves it to another record");
    assert!(WORK.get() - before < LEN, "and does not wait for that");
    change(&engine);
    assert_eq!(WORK.get() - before, LEN, "the change has waited");
    assert_eq!(engine.expire(b"list", 0), Some(77));
}
