//! Compaction goes on behind a page that it cannot read, and no key in it, or behind it in a chain, is silently missing.

use super::compaction::colliding;
use super::world::FakeWorld;
use super::{Engine, tiny};
use crate::checkpoint::Pinned;
use crate::compaction::{CompactionError, Compactor, Old};
use crate::{Held, Planted, ReadError};
use std::sync::atomic::Ordering;

const PAGE: u64 = 4096;

impl Engine {
    /// [`Engine::get`] on a disk that is not sound.
    fn look(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.get_within(usize::MAX, key)
    }

    /// Deletes without a look at what is on disk.
    fn delete_unread(&self, key: &[u8]) {
        let done = self.run(|pinned, held, trace| {
            let key = pinned.key(0, key);
            let _latch = pinned.latch(key.hash, true);
            Ok(pinned.delete(&key, held, trace)?)
        });
        assert_eq!(done, Ok(true));
    }

    fn damage(&self, address: u64) {
        // A byte of the key: nothing that the record says is believed.
        self.world.disk.bytes.lock().unwrap()[(PAGE + address + 41) as usize] ^= 4;
    }

    /// Deals with all that is on disk now as the node does, leaving behind what cannot be read.
    fn compact_past_damage(&self, compactor: &mut Compactor<FakeWorld>) {
        let end = compactor.limit();
        while compactor.at() < end {
            let piece = match self.world.block_on(compactor.read()) {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(CompactionError::Damaged { address, .. }) => {
                    assert!(compactor.leave(address));
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            if let Err(undecided) = piece.records.iter().try_for_each(|record| self.deal_with(record)) {
                compactor.leave(undecided);
                continue;
            }
            compactor.done(&piece);
            compactor.forget();
        }
        self.world.block_on(compactor.free(&Pinned::nothing())).unwrap();
    }

    /// Or the record's address, if what is newer cannot be read.
    fn deal_with(&self, record: &crate::compaction::OldRecord) -> Result<(), u64> {
        let mut held = Held::default();
        loop {
            let pinned = self.worker.pin();
            let latch = pinned.latch(record.hash, true);
            let need = match pinned.judge(record, &held) {
                Old::Cold(address) => {
                    drop(latch);
                    drop(pinned);
                    let read = self.world.block_on(self.device.read_header(address));
                    held.insert(address, read.map_err(|_| record.address)?.record);
                    continue;
                }
                Old::Superseded => return Ok(()),
                Old::Newest if record.is_tombstone() && !pinned.may_hide(record) => {
                    pinned.let_go(record);
                    return Ok(());
                }
                Old::Newest => match pinned.keep(record) {
                    Ok(_) => return Ok(()),
                    Err(need) => need,
                },
            };
            drop(latch);
            drop(pinned);
            self.world.block_on(self.store.wait_for_copy(&need)).unwrap();
        }
    }
}

#[test]
fn the_work_goes_on_behind_a_damaged_page_whose_bytes_stay() {
    let engine = Engine::new(tiny(1));
    let mut compactor = engine.compactor();
    engine.set(b"before", &[1; 3000]).unwrap();
    engine.set(b"damaged", &[2; 1500]).unwrap();
    engine.set(b"beside", &[3; 1500]).unwrap();
    engine.set(b"after", &[4; 3000]).unwrap();
    engine.push_out();
    let damaged = engine.address_of(b"damaged").unwrap();
    engine.damage(damaged);
    let page = engine.store.log.page_around(damaged);
    let bytes = || engine.world.disk.bytes.lock().unwrap()[(PAGE + page.0) as usize..(PAGE + page.1) as usize].to_vec();
    let before = bytes();
    for round in 0..4 {
        engine.push_out();
        engine.compact_past_damage(&mut compactor);
        let stats = engine.store.stats();
        assert!(stats.begin > page.1 + PAGE, "{stats:?}");
        assert_eq!((stats.quarantined_pages, stats.quarantined_bytes, stats.left_bytes), (1, PAGE, PAGE));
        assert_eq!(stats.file_bytes, stats.tail - stats.begin + PAGE);
        assert_eq!(bytes(), before, "round {round}");
        assert_eq!(engine.look(b"before"), Ok(Some(vec![1; 3000])));
        assert_eq!(engine.look(b"beside"), Ok(Some(vec![3; 1500])));
        assert_eq!(engine.look(b"after"), Ok(Some(vec![4; 3000])));
        assert!(matches!(engine.look(b"damaged"), Err(ReadError::Damaged { address, .. }) if address == damaged));
        assert_eq!(engine.look(b"missing"), Ok(None));
    }
    // What was given back is all but the page.
    assert_eq!(engine.world.disk.switches.punched.load(Ordering::Relaxed), engine.store.stats().begin - PAGE);
    engine.worker.pin().exclusive().forget_all();
    assert_eq!(engine.look(b"damaged"), Ok(None), "all were deleted");
    engine.push_out();
    engine.compact_past_damage(&mut compactor);
    let stats = engine.store.stats();
    assert_eq!((stats.quarantined_pages, stats.file_bytes), (0, stats.tail - stats.begin));
    assert_eq!(bytes(), vec![0; PAGE as usize], "and nobody needs the page");
}

#[test]
fn a_chain_goes_on_in_a_page_that_was_left_whatever_was_in_front() {
    left_chains();
}

#[test]
fn a_page_that_is_dropped_silently_is_noticed() {
    Planted::plant(Some(Planted::DamageIsForgotten));
    let caught = std::panic::catch_unwind(left_chains).is_err();
    Planted::plant(None);
    assert!(caught);
}

/// Keys of one entry of the index, a page for each, one of them damaged: whatever is deleted or written again, and however
/// often the log is compacted, those in front of the damage are right, and those that it hides are an error or right.
fn left_chains() {
    let keys = colliding(4);
    let mut left = 0;
    for damaged in 0..keys.len() {
        for deleted in 0..1u8 << keys.len() {
            for rewritten in [0, 0b0101, 0b1010, 0b1111] {
                left += left_chain(&keys, damaged, deleted, rewritten);
            }
        }
    }
    assert!(left > 200, "{left}");
}

fn left_chain(keys: &[Vec<u8>], damaged: usize, deleted: u8, rewritten: u8) -> usize {
    let engine = Engine::new(tiny(1));
    let mut compactor = engine.compactor();
    let is = |mask: u8, at: usize| mask & 1 << at != 0;
    for (at, key) in keys.iter().enumerate() {
        engine.set(key, &[at as u8; 300]).unwrap();
        engine.push_out();
        if at == damaged {
            engine.damage(engine.address_of(key).unwrap());
        }
    }
    engine.push_out();
    // Some of it before what is newer is written, some between, some after.
    let mut expected: Vec<Option<Option<Vec<u8>>>> = vec![None; keys.len()];
    for round in 0..6 {
        let at = round % keys.len();
        if round < keys.len() {
            if is(deleted, at) {
                engine.delete_unread(&keys[at]);
                expected[at] = Some(None);
            }
            if is(rewritten, at) {
                engine.set(&keys[at], &[99; 200]).unwrap();
                expected[at] = Some(Some(vec![99; 200]));
            }
        }
        engine.push_out();
        if round % 2 == 1 || damaged.is_multiple_of(2) {
            engine.compact_past_damage(&mut compactor);
        }
        let context = format!("damaged {damaged}, deleted {deleted:b}, rewritten {rewritten:b}, round {round}");
        for (at, key) in keys.iter().enumerate() {
            let found = engine.look(key);
            match (&expected[at], found) {
                (Some(expected), found) => assert_eq!(found.as_ref(), Ok(expected), "key {at}, {context}"),
                (None, Ok(found)) => {
                    assert_eq!(found, Some(vec![at as u8; 300]), "key {at}, {context}");
                    assert_ne!(at, damaged, "{context}");
                }
                (None, Err(_)) => assert!(at <= damaged, "key {at} is in front of the damage, {context}"),
            }
        }
    }
    let stats = engine.store.stats();
    assert!(stats.quarantined_pages <= 1 + damaged, "{stats:?}");
    stats.quarantined_pages
}

#[test]
fn a_scan_gives_what_can_be_read_of_a_page_that_was_left() {
    let engine = Engine::new(tiny(1));
    let mut compactor = engine.compactor();
    engine.set(b"a", &[1; 1000]).unwrap();
    engine.set(b"b", &[2; 1000]).unwrap();
    engine.push_out();
    // Both are left where they are, and read well.
    compactor.leave(engine.address_of(b"a").unwrap());
    for _ in 0..3 {
        engine.push_out();
        engine.compact_past_damage(&mut compactor);
    }
    assert!(engine.store.stats().begin > 2 * PAGE);
    let mut seen = engine.scan(3);
    seen.retain(|(key, _)| !key.starts_with(b"~"));
    seen.sort();
    assert_eq!(seen, [(b"a".to_vec(), vec![1; 1000]), (b"b".to_vec(), vec![2; 1000])]);
    engine.set(b"a", &[3; 10]).unwrap();
    assert_eq!(engine.delete(b"b"), Ok(true));
    engine.push_out();
    for _ in 0..3 {
        engine.push_out();
        engine.compact_past_damage(&mut compactor);
        assert_eq!((engine.get(b"a"), engine.get(b"b")), (Some(vec![3; 10]), None));
    }
    // A database that is emptied loses its entries, but for the page that was left.
    let pass = |engine: &Engine| {
        engine.worker.pin().exclusive().retire_space(0);
        let mut pass = engine.store.retired.begin().expect("a space");
        let mut held = Held::default();
        loop {
            let (_, cold) = engine.worker.pin().sweep(0, u64::MAX >> 1, &pass, &held);
            if cold.is_empty() {
                break;
            }
            for at in cold {
                match engine.world.block_on(engine.device.read_header(at)) {
                    Ok(read) => held.insert(at, read.record),
                    Err(_) => pass.give_up(at),
                }
            }
        }
    };
    pass(&engine);
    assert_eq!(engine.store.stats().index_entries, 0);
}
