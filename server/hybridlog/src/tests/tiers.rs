//! What each tier answers and records, and when a page may leave it.

use super::{Engine, Wait, silent, tiny};
use crate::{Found, Held, Kind, NeedReason, NeedSpace, Store, ValueTooLarge};
use ferrite_telemetry::{Tier, TraceBuffer};
use std::sync::atomic::Ordering;

/// As many new keys, each with a page to itself; the first shares the page of what was small before it.
fn fill(engine: &Engine, pages: usize) {
    for n in 0..pages {
        let name = format!("fill{}", engine.store.stats().tail);
        engine.set(name.as_bytes(), &[n as u8; 3900]).unwrap();
        engine.world.run();
    }
}

fn tier_of(engine: &Engine, key: &[u8]) -> Option<Tier> {
    let pinned = engine.worker.pin();
    let key = pinned.key(0, key);
    let _latch = pinned.latch(key.hash, false);
    match pinned.find(&key, &Held::default(), &mut silent()) {
        Found::Record(record) => Some(record.tier),
        Found::Missing => None,
        Found::Cold(_) => Some(Tier::Disk),
    }
}

#[test]
fn a_key_goes_from_mutable_to_read_only_to_disk_and_back() {
    let engine = Engine::new(tiny(1));
    engine.set(b"key", b"value").unwrap();
    assert_eq!(tier_of(&engine, b"key"), Some(Tier::Mutable));
    fill(&engine, 3);
    assert_eq!(tier_of(&engine, b"key"), Some(Tier::ReadOnly));
    assert_eq!(engine.get(b"key").as_deref(), Some(&b"value"[..]));
    fill(&engine, 4);
    assert_eq!(tier_of(&engine, b"key"), Some(Tier::Disk));
    assert_eq!(engine.get(b"key").as_deref(), Some(&b"value"[..]));
    engine.set(b"key", b"new").unwrap();
    assert_eq!(tier_of(&engine, b"key"), Some(Tier::Mutable));
    let stats = engine.store.stats();
    assert!(stats.begin <= stats.head && stats.head <= stats.read_only && stats.read_only <= stats.tail);
    assert!(stats.page_bytes <= 4096 * (2 + 2 + 2 + 2), "{stats:?}");
}

#[test]
fn ten_times_more_data_than_memory_reads_back() {
    let engine = Engine::new(tiny(1));
    let value = |n: usize| vec![n as u8; 100 + n % 700];
    for n in 0..600 {
        engine.set(format!("key{n}").as_bytes(), &value(n)).unwrap();
    }
    assert!(engine.store.stats().disk_bytes > 10 * 4 * 4096);
    for n in 0..600 {
        assert_eq!(engine.get(format!("key{n}").as_bytes()), Some(value(n)), "key{n}");
    }
}

#[test]
fn a_mutable_value_is_updated_in_place_and_grows_into_its_slack() {
    let engine = Engine::new(tiny(1));
    engine.set(b"key", &[1; 100]).unwrap();
    let tail = engine.store.stats().tail;
    engine.set(b"key", &[2; 60]).unwrap();
    assert_eq!(engine.expire(b"key", 99), Some(0));
    assert_eq!(engine.store.stats().tail, tail);
    engine.append(b"key", &[3; 60]).unwrap();
    let grown = engine.store.stats().tail;
    assert!(grown > tail);
    engine.append(b"key", &[4; 40]).unwrap();
    assert_eq!(engine.store.stats().tail, grown, "the slack took it");
    assert_eq!(engine.get(b"key").unwrap(), [vec![2; 60], vec![3; 60], vec![4; 40]].concat());
    assert_eq!(engine.expire(b"key", 0), Some(99));
}

#[test]
fn a_promoted_record_is_mutable_again_without_its_slack() {
    let engine = Engine::new(tiny(1));
    let promote = |key: &[u8]| {
        engine
            .run(|pinned, held, trace| {
                let key = pinned.key(0, key);
                let _latch = pinned.latch(key.hash, true);
                match pinned.find(&key, held, trace) {
                    Found::Cold(address) => Err(Wait::Records(vec![address])),
                    _ => Ok(pinned.promote(&key, held)?),
                }
            })
            .unwrap()
    };
    engine.set(b"key", &[1; 100]).unwrap();
    engine.append(b"key", &[1; 10]).unwrap();
    engine.expire(b"key", 77);
    assert_eq!(promote(b"key"), None, "it is mutable");
    for pages in [3, 7] {
        fill(&engine, pages);
        let (before, after) = promote(b"key").expect("a record that is not mutable");
        assert_eq!(after, (40 + 3 + 110_usize).next_multiple_of(8));
        assert!(before >= after, "{before} {after}");
        assert_eq!(tier_of(&engine, b"key"), Some(Tier::Mutable));
        assert_eq!(engine.get(b"key"), Some(vec![1; 110]));
        assert_eq!(engine.expire(b"key", 77), Some(77));
    }
    assert_eq!(promote(b"missing"), None);
}

#[test]
fn the_regions_shrink_and_grow_with_their_budget() {
    let engine = Engine::new(crate::StoreConfig { mutable_pages: 16, read_only_pages: 8, ..tiny(1) });
    let pages = || engine.store.stats().page_bytes.div_ceil(4096);
    let mutable = || (engine.store.stats().tail - engine.store.stats().read_only).div_ceil(4096);
    let value = |n: usize| vec![n as u8; 1000 + n];
    let set = |numbers: std::ops::Range<usize>| {
        for n in numbers {
            engine.set(format!("key{n}").as_bytes(), &value(n)).unwrap();
            engine.world.run();
        }
    };
    set(0..150);
    assert!(mutable() == 16 && pages() >= 24, "{} {}", mutable(), pages());
    engine.store.set_page_budget(14 * 4096);
    engine.world.run();
    assert!(mutable() <= 8 && pages() <= 14, "{} {}", mutable(), pages());
    set(150..200);
    // Two spare pages come back after the flush of one.
    assert!(mutable() <= 8 && pages() <= 16, "{} {}", mutable(), pages());
    engine.store.set_page_budget(0);
    engine.world.run();
    set(200..230);
    assert!(mutable() <= 1 && pages() <= 5, "{} {}", mutable(), pages());
    for n in 0..230 {
        assert_eq!(engine.get(format!("key{n}").as_bytes()), Some(value(n)), "key{n}");
    }
    engine.store.set_page_budget(u64::MAX);
    set(230..350);
    assert!(mutable() == 16 && pages() >= 24, "{} {}", mutable(), pages());
}

#[test]
fn writes_tell_the_bytes_that_the_record_takes() {
    let engine = Engine::new(tiny(1));
    let set = |value: &[u8]| {
        let mut size = 0;
        engine
            .run(|pinned, held, trace| {
                let key = pinned.key(0, b"key");
                let _latch = pinned.latch(key.hash, true);
                size = pinned.upsert(&key, Kind::String, 0, &[value], held, trace)?;
                let crate::Before::Present { size: found, .. } = pinned.seek(&key, held).before() else {
                    panic!("the key is there")
                };
                assert_eq!(found, size);
                Ok(())
            })
            .unwrap();
        size
    };
    assert_eq!(set(&[1; 100]), 144);
    assert_eq!(set(&[1; 20]), 144, "in place");
    assert_eq!(set(&[1; 110]), (40 + 3 + 110 + 55_usize).next_multiple_of(8), "half of it as slack");
}

#[test]
fn spans_name_the_tiers_that_were_asked() {
    let engine = Engine::new(tiny(1));
    let spans = |key: &[u8]| {
        let mut trace = TraceBuffer::new(|| 0);
        trace.configure(Some(ferrite_telemetry::Detail::Full));
        trace.start_batch();
        trace.begin_command();
        let from = trace.recorded().len();
        engine
            .run(|pinned, held, _| {
                let key = pinned.key(0, key);
                let _latch = pinned.latch(key.hash, false);
                match pinned.find(&key, held, &mut trace) {
                    Found::Cold(address) => Err(Wait::Records(vec![address])),
                    _ => Ok(()),
                }
            })
            .unwrap();
        trace.recorded().split_off(from)
    };
    engine.set(b"cold", b"1").unwrap();
    fill(&engine, 5);
    engine.set(b"warm", b"22").unwrap();
    fill(&engine, 3);
    engine.set(b"hot", b"333").unwrap();
    let count = |spans: &[String], part: &str| spans.iter().filter(|span| span.contains(part)).count();
    let (missing, hot, warm, cold) = (spans(b"nothing"), spans(b"hot"), spans(b"warm"), spans(b"cold"));
    assert_eq!((missing.len(), count(&missing, "index")), (1, 1), "{missing:?}");
    assert_eq!((hot.len(), count(&hot, "storage.read")), (2, 1), "{hot:?}");
    assert_eq!((warm.len(), count(&warm, "storage.read")), (3, 2), "{warm:?}");
    assert_eq!((cold.len(), count(&cold, "storage.read")), (3, 2), "a held record adds nothing: {cold:?}");
}

#[test]
fn a_page_is_not_flushed_while_a_batch_may_write_it() {
    let engine = Engine::new(tiny(2));
    let other = engine.store.worker(1);
    engine.set(b"key", b"before").unwrap();
    let pinned = other.pin();
    let key = pinned.key(0, b"key");
    fill(&engine, 3);
    // read_only has passed the record, but worker 1 began before that.
    let stats = engine.store.stats();
    assert!(stats.read_only >= 4096);
    assert_eq!(stats.pages_flushed, 0, "flushed under a batch");
    assert_eq!(engine.world.disk.switches.writes.load(Ordering::Relaxed), 2, "the headers of the files alone");
    {
        let _latch = pinned.latch(key.hash, true);
        assert!(matches!(pinned.find(&key, &Held::default(), &mut silent()), Found::Record(_)));
    }
    drop(pinned);
    engine.world.run();
    assert!(engine.store.stats().pages_flushed > 0, "the batch's end lets it go");
}

#[test]
fn a_page_is_not_released_while_a_batch_may_read_it() {
    let engine = Engine::new(tiny(2));
    let other = engine.store.worker(1);
    engine.set(b"key", b"value").unwrap();
    fill(&engine, 3);
    let pinned = other.pin();
    let key = pinned.key(0, b"key");
    let held = Held::default();
    let found = {
        let _latch = pinned.latch(key.hash, false);
        pinned.find(&key, &held, &mut silent())
    };
    let Found::Record(view) = found else { panic!("{found:?}") };
    assert_eq!(view.tier, Tier::ReadOnly);
    // As many pages as the pinned batch lets through.
    for n in 0..40 {
        let pin = engine.worker.pin();
        let name = [n];
        let key = pin.key(0, &name);
        let latch = pin.latch(key.hash, true);
        let done = pin.upsert(&key, Kind::String, 0, &[&[n; 3900]], &held, &mut silent());
        drop(latch);
        drop(pin);
        engine.world.run();
        if let Err(need) = done {
            assert_eq!(need.reason, NeedReason::Memory);
            break;
        }
        assert!(n < 39, "the budget stops the writer");
    }
    assert_eq!(view.value, b"value", "the map is still there");
    drop(pinned);
    engine.world.run();
    fill(&engine, 6);
    assert_eq!(engine.get(b"key").as_deref(), Some(&b"value"[..]));
}

#[test]
fn room_once_given_holds_for_a_whole_command() {
    let engine = Engine::new(tiny(1));
    let held = Held::default();
    for turn in 0..30u8 {
        let values: Vec<Vec<u8>> = (0..20).map(|n| vec![turn ^ n; 100 + 190 * n as usize]).collect();
        let bytes: usize = values.iter().map(|value| value.len() + 2).sum();
        loop {
            let mut pinned = engine.worker.pin();
            let exclusive = pinned.exclusive();
            let Err(need) = exclusive.room_for(bytes, values.len()) else {
                for (n, value) in values.iter().enumerate() {
                    let name = [b'm', n as u8];
                    let key = exclusive.key(0, &name);
                    exclusive.upsert(&key, Kind::String, 0, &[value], &held, &mut silent()).expect("promised");
                }
                break;
            };
            drop(exclusive);
            drop(pinned);
            engine.world.block_on(engine.store.wait_for_space(&need)).unwrap();
        }
    }
    for n in 0..20u8 {
        assert_eq!(engine.get(&[b'm', n]).unwrap(), vec![29 ^ n; 100 + 190 * n as usize]);
    }
    let pinned = engine.worker.pin();
    for (bytes, records) in [(100_000_000, 1000), (1, 100_000_000), (usize::MAX, 1000), (usize::MAX, usize::MAX)] {
        let need = pinned.room_for(bytes, records).unwrap_err();
        let NeedReason::BurstTooLarge { max } = need.reason else { panic!("never, so waiting is no answer: {need:?}") };
        assert!(need.bytes == bytes && (max < bytes || max == 0), "{need:?}");
    }
    let many = 1000;
    let NeedReason::BurstTooLarge { max } = pinned.room_for(usize::MAX, many).unwrap_err().reason else { panic!() };
    assert!(!matches!(pinned.room_for(max, many), Err(NeedSpace { reason: NeedReason::BurstTooLarge { .. }, .. })));
    assert!(matches!(pinned.room_for(max + 1, many), Err(NeedSpace { reason: NeedReason::BurstTooLarge { .. }, .. })));
}

#[test]
fn a_value_of_any_length_is_compared_with_the_longest_there_may_be() {
    let engine = Engine::new(tiny(1));
    let max = 1 << 40;
    assert!(engine.store.check_value(3, max).is_ok());
    for bytes in [max + 1, usize::MAX] {
        assert_eq!(engine.store.check_value(3, bytes), Err(ValueTooLarge { bytes, max }));
    }
    assert_eq!(engine.store.check_value(usize::MAX, 1), Err(ValueTooLarge { bytes: 1, max: 0 }));
}

#[test]
fn a_deleted_key_stays_deleted_in_every_tier() {
    let engine = Engine::new(tiny(1));
    for n in 0..40u8 {
        engine.set(&[n], &[n; 600]).unwrap();
    }
    for n in (0..40u8).step_by(2) {
        assert!(engine.delete(&[n]).unwrap());
        assert!(!engine.delete(&[n]).unwrap());
    }
    fill(&engine, 8);
    for n in 0..40u8 {
        assert_eq!(engine.get(&[n]).is_some(), n % 2 == 1, "{n}");
    }
}

#[test]
fn a_store_without_a_device_works_within_its_memory() {
    let store = Store::new(crate::StoreConfig { mutable_pages: 64, ..tiny(1) });
    let worker = store.worker(0);
    let pinned = worker.pin();
    let key = pinned.key(1, b"key");
    {
        let _latch = pinned.latch(key.hash, true);
        pinned.upsert(&key, Kind::String, 5, &[b"va", b"lue"], &Held::default(), &mut silent()).unwrap();
        assert!(pinned.update_in_place(&key, &mut |value| value[0] = b'V', &mut silent()));
    }
    let _latch = pinned.latch(key.hash, false);
    let held = Held::default();
    let Found::Record(record) = pinned.find(&key, &held, &mut silent()) else { panic!("it was written") };
    assert_eq!((record.value, record.expire_at_ms, record.space), (&b"Value"[..], 5, 1));
}
