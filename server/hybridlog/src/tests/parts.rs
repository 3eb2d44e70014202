//! A part of a large string on disk is read without the rest of it, and checked.

use super::{Engine, tiny};
use crate::objects::SUMMED;
use crate::{Held, HeldRecord, Kind, ReadError};
use proptest::prelude::*;
use std::sync::atomic::Ordering;

const LEN: usize = 1_000_003;
const EXTENT: usize = 4096;

fn value() -> Vec<u8> {
    (0..LEN).map(|at| (at * 131 + at / 251) as u8).collect()
}

/// A string on disk, and its record.
fn engine() -> (Engine, u64, HeldRecord) {
    engine_with(&value())
}

fn engine_with(value: &[u8]) -> (Engine, u64, HeldRecord) {
    let engine = Engine::new(tiny(1));
    engine.set(b"large", value).unwrap();
    for n in 0..12u8 {
        engine.set(&[b'p', n], &[n; 3900]).unwrap();
        engine.world.run();
    }
    let address = engine.cold_address(b"large");
    let record = engine.world.block_on(engine.device.read_header(address)).expect("the disk is sound").record;
    (engine, address, record)
}

/// These bytes as a reader gets them.
fn part(
    engine: &Engine,
    address: u64,
    record: &HeldRecord,
    range: std::ops::Range<usize>,
) -> Result<Vec<u8>, ReadError> {
    let read = engine.world.block_on(engine.device.read_part(address, record.clone(), range.clone()))?;
    let mut held = Held::default();
    held.insert(address, record.clone());
    held.insert(address, read.record);
    let pinned = engine.worker.pin();
    let key = pinned.key(0, b"large");
    let _latch = pinned.latch(key.hash, false);
    let unread = pinned.unread(&key, &held).expect("its value was not read");
    assert_eq!((unread.kind, unread.value_len, unread.address), (Kind::String, LEN, address));
    assert_eq!(unread.part(&(range.start..range.end + 1)), None, "more was not asked for");
    Ok(unread.part(&range).expect("it was read").to_vec())
}

#[test]
fn a_part_takes_one_read_beside_that_of_the_table() {
    let (engine, address, record) = engine();
    let value = value();
    for range in [0..1, SUMMED - 1..SUMMED + 1, 500_000..500_100, LEN - 1..LEN, 300_000..300_000 + SUMMED] {
        let before = engine.store.stats();
        assert!(part(&engine, address, &record, range.clone()).unwrap() == value[range.clone()], "{range:?}");
        let after = engine.store.stats();
        assert_eq!((after.disk_reads - before.disk_reads, after.object_reads - before.object_reads), (2, 0));
    }
    assert!(part(&engine, address, &record, 0..LEN).unwrap() == value);
}

#[test]
fn what_is_read_for_a_part_is_bounded_by_a_piece_and_the_table_however_large_the_string_is() {
    let len = 64 << 20;
    let (engine, address, record) = engine_with(&vec![7; len]);
    let at = len / 2 + 1000;
    let read_bytes = &engine.world.disk.switches.read_bytes;
    let before = read_bytes.load(Ordering::Relaxed);
    let read = engine.world.block_on(engine.device.read_part(address, record, at..at + 100)).unwrap();
    assert_eq!(read.record.part(&(at..at + 100)), Some(&[7; 100][..]));
    let table = (len / SUMMED * 4) as u64;
    assert_eq!(read_bytes.load(Ordering::Relaxed) - before, SUMMED as u64 + table.next_multiple_of(4096));
}

#[test]
fn damage_is_met_by_who_reads_the_piece_and_by_who_reads_all() {
    let (engine, address, record) = engine();
    let table = EXTENT + LEN;
    for at in [0, 70_000, LEN - 1] {
        let flip = || engine.world.disk.extents.lock().unwrap()[EXTENT + at] ^= 1;
        flip();
        let piece = at / SUMMED * SUMMED;
        let within = piece..(piece + SUMMED).min(LEN);
        let errors = engine.store.stats().checksum_errors;
        for range in [within.start..within.start + 1, within.end - 1..within.end, 0..LEN] {
            let error = part(&engine, address, &record, range);
            assert!(matches!(error, Err(ReadError::ExtentDamaged { .. })), "{at}: {error:?}");
        }
        assert!(engine.world.block_on(engine.device.read_record(address)).is_err());
        assert_eq!(engine.store.stats().checksum_errors - errors, 4);
        let elsewhere = (piece + SUMMED) % LEN / SUMMED * SUMMED;
        assert!(part(&engine, address, &record, elsewhere..elsewhere + 10).is_ok(), "the others are sound");
        flip();
    }
    engine.world.disk.extents.lock().unwrap()[table] ^= 1;
    assert!(part(&engine, address, &record, 5..6).is_err(), "the table is damaged");
    engine.world.disk.extents.lock().unwrap()[table] ^= 1;
    engine.world.disk.switches.unreadable_from.store((EXTENT + 8 * SUMMED) as u64, Ordering::Relaxed);
    assert!(matches!(part(&engine, address, &record, 5..6), Err(ReadError::Io { .. })));
}

#[test]
fn a_short_read_is_no_end() {
    let (engine, address, record) = engine();
    let read_max = &engine.world.disk.switches.read_max;
    for most in [4096, 10_000] {
        read_max.store(most, Ordering::Relaxed);
        assert!(part(&engine, address, &record, 5..200_000).unwrap() == value()[5..200_000]);
        let read = engine.world.block_on(engine.device.read_record(address)).expect("the disk is sound");
        assert!(read.record.is_whole());
    }
    // Not even a block at a time: it is not asked for ever.
    read_max.store(1000, Ordering::Relaxed);
    assert!(matches!(part(&engine, address, &record, 5..9), Err(ReadError::ExtentDamaged { .. })));
}

#[test]
fn a_part_of_what_is_replaced_meanwhile_is_no_damage() {
    let (engine, address, record) = engine();
    let read = engine.device.read_part(address, record.clone(), 5..9);
    assert!(engine.delete(b"large").unwrap());
    let read = engine.world.block_on(read).expect("no damage");
    let mut held = Held::default();
    held.insert(address, read.record);
    let pinned = engine.worker.pin();
    let key = pinned.key(0, b"large");
    let _latch = pinned.latch(key.hash, false);
    assert!(pinned.unread(&key, &held).is_none(), "there is no such key");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_range_is_what_was_written(ranges in prop::collection::vec((0..LEN, 0..3 * SUMMED), 1..8)) {
        let (engine, address, record) = engine();
        let value = value();
        for (start, len) in ranges {
            let range = start..(start + len.max(1)).min(LEN);
            prop_assert!(part(&engine, address, &record, range.clone()).unwrap() == value[range]);
        }
    }
}
