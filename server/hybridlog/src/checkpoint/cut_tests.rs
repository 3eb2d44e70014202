//! What stops the world: the cut takes as many steps whatever there is.

use std::sync::Arc;

use ferrite_telemetry::TraceBuffer;

use crate::sync::steps;
use crate::{Held, Kind, Store, StoreConfig, WorkerHandle};

/// A record of these with its key is 56 bytes long: a million fit into the mutable region.
const VALUE: &[u8] = b"value";

fn write(worker: &WorkerHandle, name: u32, value: &[u8]) {
    let (pinned, mut trace) = (worker.pin(), TraceBuffer::new(|| 0));
    let name = name.to_le_bytes();
    let key = pinned.key(0, &name);
    let _latch = pinned.latch(key.hash, true);
    pinned.upsert(&key, Kind::String, 0, &[value], &Held::default(), &mut trace).expect("there is room");
}

fn delete(worker: &WorkerHandle, name: u32) {
    let (pinned, mut trace) = (worker.pin(), TraceBuffer::new(|| 0));
    let name = name.to_le_bytes();
    let key = pinned.key(0, &name);
    let _latch = pinned.latch(key.hash, true);
    assert_eq!(pinned.delete(&key, &Held::default(), &mut trace), Ok(true));
}

/// The steps of the cut with so many keys, of which a few are large ones, and of which some are deleted beside the
/// walk; and those of the walk, which meets them all.
fn cut_of(keys: u32) -> (u64, u64) {
    let store: Arc<Store> = Store::new(StoreConfig {
        page_size: 1 << 20,
        mutable_pages: 256,
        read_only_pages: 2,
        index_buckets: 1024,
        workers: 1,
        hash_seed: 7,
    });
    let worker = store.worker(0);
    let large = vec![7; (1 << 20) + 1];
    (0..keys).for_each(|name| write(&worker, name, if name % 100_000 == 7 { &large } else { VALUE }));
    worker.pin().exclusive().begin_image();
    let (image, walk) = steps(|| worker.pin().image(0, usize::MAX, &mut Vec::new()));
    assert_eq!(image.0, 0, "the walk is at its end");
    (0..keys / 10).for_each(|name| delete(&worker, name));
    let (cut, steps) = steps(|| worker.pin().exclusive().cut(1));
    assert!(cut.since.removed.len() as u32 > keys / 20, "entries went beside the walk");
    (steps, walk)
}

#[test]
fn what_a_checkpoint_keeps_of_deletions_is_accounted_for_until_it_is_over() {
    let store: Arc<Store> = Store::new(StoreConfig {
        page_size: 1 << 20,
        mutable_pages: 4,
        read_only_pages: 2,
        index_buckets: 1024,
        workers: 1,
        hash_seed: 7,
    });
    let worker = store.worker(0);
    let bytes = || store.stats().imaging_bytes;
    const KEYS: u32 = 5_000;
    (0..KEYS).for_each(|name| write(&worker, name, VALUE));
    (0..KEYS / 5).for_each(|name| delete(&worker, name));
    assert_eq!(bytes(), 0, "nobody takes one");
    worker.pin().exclusive().begin_image();
    (KEYS / 5..KEYS).for_each(|name| delete(&worker, name));
    let cut = worker.pin().exclusive().cut(1);
    let least = cut.since.removed.len() * 16;
    assert!(least > KEYS as usize * 8, "entries went beside the walk");
    assert!((least..=2 * least).contains(&bytes()), "{} bytes for {least}", bytes());
    store.imaging.is_over();
    assert_eq!(bytes(), 0);
    // FLUSHALL forgets them as well.
    worker.pin().exclusive().begin_image();
    write(&worker, 1, VALUE);
    delete(&worker, 1);
    assert!(bytes() > 0);
    worker.pin().exclusive().forget_all();
    assert_eq!(bytes(), 0);
}

#[test]
fn the_cut_takes_as_many_steps_with_a_million_keys_as_with_a_thousand() {
    let (few, walk_of_few) = cut_of(1_000);
    let (many, walk_of_many) = cut_of(1_000_000);
    assert!(walk_of_few > 1_000 && walk_of_many > 1_000_000, "who looks at every entry is counted");
    assert!(many <= few + 2, "{few} steps, and {many} with a thousand times the keys");
    assert!(many < 100, "{many} steps stop the world");
}
