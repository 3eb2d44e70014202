//! Damaged, full and failing disks.

use super::world::{FakeDisk, FakeWorld};
use super::{Engine, silent, tiny};
use crate::{Found, Held, ReadError, StorageError, StoreConfig};
use std::sync::atomic::Ordering;

/// A key on disk and its address.
fn cold_key(engine: &Engine) -> u64 {
    engine.set(b"cold", &[7; 500]).unwrap();
    for n in 0..10u8 {
        engine.set(&[n], &[n; 3900]).unwrap();
    }
    engine.world.run();
    let pinned = engine.worker.pin();
    let key = pinned.key(0, b"cold");
    let _latch = pinned.latch(key.hash, false);
    let held = Held::default();
    let Found::Cold(address) = pinned.find(&key, &held, &mut silent()) else { panic!("still in memory") };
    address
}

#[test]
fn one_changed_byte_anywhere_in_a_record_is_an_error_never_a_wrong_record() {
    let engine = Engine::new(tiny(1));
    let mut address = cold_key(&engine);
    // Chains are short here but keys share buckets: take the record the look-up asked for.
    let read = |address| engine.world.block_on(engine.device.read_record(address));
    let sound = read(address).unwrap().record;
    let size = sound.bytes().len();
    let at = crate::address::file_offset(address) as usize;
    let used = crate::record::HEADER + 4 + sound.value_len();
    for offset in 0..size {
        engine.world.disk.bytes.lock().unwrap()[at + offset] ^= 0x10;
        match read(address) {
            Err(ReadError::Damaged { .. }) => {}
            Ok(read) if offset >= used => assert_eq!(read.record.value_len(), sound.value_len()),
            other => panic!("byte {offset}: {other:?}"),
        }
        engine.world.disk.bytes.lock().unwrap()[at + offset] ^= 0x10;
    }
    assert!(engine.store.stats().checksum_errors >= used as u64);
    // A sound record at the wrong place is no record either.
    let bytes = sound.bytes().to_vec();
    address += 8;
    engine.world.disk.bytes.lock().unwrap()[at + 8..at + 8 + size].copy_from_slice(&bytes);
    assert!(matches!(read(address), Err(ReadError::Damaged { .. })));
}

#[test]
fn a_record_is_read_with_one_io_if_it_lies_in_a_block_and_waiters_share_it() {
    let engine = Engine::new(tiny(1));
    let address = cold_key(&engine);
    let reads = &engine.world.disk.switches.reads;
    let before = reads.load(Ordering::Relaxed);
    let (device, world) = (&engine.device, &engine.world);
    let (a, b) = world.block_on(async {
        let mut a = std::pin::pin!(device.read_record(address));
        let mut b = std::pin::pin!(device.read_record(address));
        let (mut first, mut second) = (None, None);
        std::future::poll_fn(|cx| {
            use std::task::Poll;
            if first.is_none()
                && let Poll::Ready(read) = a.as_mut().poll(cx)
            {
                first = Some(read);
            }
            if second.is_none()
                && let Poll::Ready(read) = b.as_mut().poll(cx)
            {
                second = Some(read);
            }
            if first.is_some() && second.is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        (first.unwrap().unwrap(), second.unwrap().unwrap())
    });
    assert_eq!(reads.load(Ordering::Relaxed), before + 1);
    assert_eq!((a.id, a.shared, b.shared), (b.id, false, true));
    // Who waits for a reader that goes away reads itself.
    let c = world.block_on(async {
        let mut waiter = std::pin::pin!(device.read_record(address));
        let mut reader = Some(Box::pin(device.read_record(address)));
        std::future::poll_fn(|cx| {
            if let Some(mut reader) = reader.take() {
                assert!(reader.as_mut().poll(cx).is_pending());
                assert!(waiter.as_mut().poll(cx).is_pending());
                return std::task::Poll::Pending.or_drop(reader);
            }
            waiter.as_mut().poll(cx)
        })
        .await
    });
    assert_eq!(c.unwrap().record.bytes(), a.record.bytes());
}

/// Keys with values of `len` bytes on disk: their addresses, in order.
fn cold_addresses(engine: &Engine, len: usize) -> Vec<u64> {
    for n in 0..100u8 {
        engine.set(&[n], &vec![n; len]).unwrap();
    }
    engine.world.run();
    let pinned = engine.worker.pin();
    let (held, mut addresses) = (Held::default(), Vec::new());
    for n in 0..100u8 {
        let key = [n];
        let key = pinned.key(0, &key);
        let _latch = pinned.latch(key.hash, false);
        if let Found::Cold(address) = pinned.find(&key, &held, &mut silent()) {
            addresses.push(address);
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[test]
fn a_record_that_crosses_a_block_is_read_with_one_io_once_another_of_its_length_was() {
    let engine = Engine::new(StoreConfig { page_size: 16 << 10, index_buckets: 256, ..tiny(1) });
    let addresses = cold_addresses(&engine, 1000);
    let reads = &engine.world.disk.switches.reads;
    let read = |address| engine.world.block_on(engine.device.read_record(address)).unwrap();
    read(addresses[0]);
    let before = reads.load(Ordering::Relaxed);
    let crossing = addresses.iter().filter(|&&address| address % 4096 + 1000 > 4096).count();
    assert!(crossing >= 8, "{crossing} of {}", addresses.len());
    for &address in &addresses {
        assert!(read(address).record.value_len() >= 1000);
    }
    assert_eq!(reads.load(Ordering::Relaxed) - before, addresses.len() as u64);
}

#[test]
fn a_record_is_read_also_if_what_lies_behind_it_cannot_be() {
    let engine = Engine::new(StoreConfig { page_size: 16 << 10, index_buckets: 256, ..tiny(1) });
    engine.set(b"long", &[7; 3000]).unwrap();
    let addresses = cold_addresses(&engine, 1000);
    let switches = &engine.world.disk.switches;
    let read = |address| engine.world.block_on(engine.device.read_record(address));
    assert_eq!(engine.get(b"long").map(|value| value.len()), Some(3000));
    let (mut whole, mut broken) = (0, 0);
    for &address in &addresses {
        let block_end = crate::address::file_offset(address) / 4096 * 4096 + 4096;
        switches.unreadable_from.store(block_end, Ordering::Relaxed);
        match read(address) {
            Ok(_) => whole += 1,
            Err(ReadError::Io { .. }) => broken += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(whole >= 8 && broken >= 8, "{whole} lie in one block and {broken} in two");
}

/// Drops a value and passes the other on.
trait OrDrop: Sized {
    fn or_drop<T>(self, dropped: T) -> Self {
        drop(dropped);
        self
    }
}
impl<T> OrDrop for std::task::Poll<T> {}

#[test]
fn a_full_disk_refuses_writes_before_they_change_anything_and_recovers() {
    let engine = Engine::new(tiny(1));
    let switches = engine.world.disk.switches.clone();
    switches.capacity.store(20 * 4096, Ordering::Relaxed);
    let mut written = 0u8;
    let error = loop {
        match engine.set(&[b'k', written], &[written; 3900]) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StorageError::Full(_)), "{error}");
    assert!(written >= 16, "the space there was is used, but for what compaction needs: {written}");
    assert_eq!(engine.get(&[b'k', written]), None);
    // What is in place needs no space; what was written is there.
    engine.set(&[b'k', written - 1], &[0xff; 3900]).unwrap();
    for n in 0..written - 1 {
        assert_eq!(engine.get(&[b'k', n]).unwrap(), [n; 3900]);
    }
    assert!(matches!(engine.set(b"again", &[1; 3900]), Err(StorageError::Full(_))));
    switches.capacity.store(0, Ordering::Relaxed);
    let recovered = (0..1000).any(|_| {
        for _ in 0..100 {
            engine.world.turn();
        }
        engine.set(b"again", &[1; 3900]).is_ok()
    });
    assert!(recovered, "the task tries again by itself");
    assert!(!engine.store.stats().disk_full);
}

#[test]
fn a_disk_too_small_for_the_first_pages_is_an_error_at_the_start() {
    let disk = FakeDisk::default();
    disk.switches.capacity.store(8192, Ordering::Relaxed);
    let world = FakeWorld::new(disk);
    let store = crate::Store::new(tiny(1));
    let made = world.block_on(crate::create_log(&store, &world, std::path::Path::new("log")));
    assert!(matches!(made, Err(StorageError::Full(_))));
}

#[test]
fn a_page_whose_write_fails_stays_in_memory_and_is_written_later() {
    let engine = Engine::new(tiny(1));
    let switches = engine.world.disk.switches.clone();
    switches.writes_fail.store(true, Ordering::Relaxed);
    let mut written = 0u8;
    let error = loop {
        match engine.set(&[b'k', written], &[written; 3900]) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StorageError::Failed { .. }), "{error}");
    for n in 0..written {
        assert_eq!(engine.get(&[b'k', n]).unwrap(), [n; 3900]);
    }
    assert!(engine.store.stats().flush_errors > 0);
    switches.writes_fail.store(false, Ordering::Relaxed);
    engine.world.run();
    for n in 0..30u8 {
        engine.set(&[b'l', n], &[n; 3900]).unwrap();
    }
    for n in 0..written {
        assert_eq!(engine.get(&[b'k', n]).unwrap(), [n; 3900]);
    }
}

#[test]
fn a_page_that_cannot_be_mapped_is_served_from_memory() {
    let engine = Engine::new(tiny(1));
    engine.world.disk.switches.maps_fail.store(true, Ordering::Relaxed);
    for n in 0..30u8 {
        engine.set(&[n], &[n; 3900]).unwrap();
    }
    for n in 0..30u8 {
        assert_eq!(engine.get(&[n]).unwrap(), [n; 3900]);
    }
}
