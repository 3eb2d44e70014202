//! The index's background work, in slices that other tasks run between: growth that a large command has left behind,
//! shrinking, the entries of retired spaces, the memory of an index that was given up, large values that nobody needs any more,
//! extents that were kept for a checkpoint, or given up with everything.

use crate::device::LogDevice;
use crate::held::Held;
use crate::retired::Pass;
use crate::store::WorkerHandle;
use ferrite_io::{Clock, World, give_way};
use futures_util::future::join_all;
use std::time::Duration;

/// Buckets split in a slice: some ten microseconds.
const SPLITS_PER_SLICE: usize = 128;
/// Buckets merged in a slice: as long, about.
const MERGES_PER_SLICE: usize = 128;
/// Buckets swept in a slice: a miss of the cache for each of their records, a tenth of a millisecond.
const SWEPT_PER_SLICE: u64 = 128;
/// Records read from disk at the same time by a sweep. What commands read comes beside it.
const READS_AT_ONCE: usize = 32;
/// Large values freed in a slice.
const OBJECTS_FREED_PER_SLICE: usize = 16;
/// Extents freed in a slice that only a checkpoint of the past has named: a microsecond each.
const EXTENTS_FREED_PER_SLICE: usize = 128;
/// How long to wait for batches that may still be reading what is to be freed.
const FREE_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Runs on one worker, for as long as it does.
pub async fn tend_index<W: World>(handle: &WorkerHandle, device: &LogDevice<W>, world: &W) {
    let store = handle.store();
    loop {
        let woken = store.index_work.notified();
        while store.index.wanted_splits() > 0 {
            handle.pin().grow(SPLITS_PER_SLICE);
            give_way().await;
        }
        while store.has_discarded() {
            // Each turn moves the collector's epoch on.
            handle.pin().guard.flush();
            match store.free_discarded() {
                true => give_way().await,
                false => world.clock().sleep(FREE_AGAIN_AFTER).await,
            }
        }
        while store.log.objects.has_condemned() {
            handle.pin().guard.flush();
            match store.log.objects.free_some(OBJECTS_FREED_PER_SLICE) {
                true => give_way().await,
                false => world.clock().sleep(FREE_AGAIN_AFTER).await,
            }
        }
        while store.log.objects.remains.free_some() {
            give_way().await;
        }
        while store.log.objects.extents.free_some(EXTENTS_FREED_PER_SLICE) {
            give_way().await;
        }
        if store.log.objects.extents.has_excess() {
            store.log.work.notify_one();
        }
        while let Some(mut pass) = store.retired.begin() {
            sweep(handle, device, &mut pass).await;
            store.retired.end(&pass);
        }
        // Behind the sweep, which goes by the numbers of buckets: a merge would take entries to numbers that it has passed.
        if store.index.wanted_merges() > 0 {
            shrink(handle, world).await;
            // What was retired meanwhile, and what of it was freed.
            continue;
        }
        woken.await;
    }
}

/// Merges buckets and frees what that leaves empty.
async fn shrink<W: World>(handle: &WorkerHandle, world: &W) {
    let store = handle.store();
    loop {
        let merged = handle.pin().shrink(MERGES_PER_SLICE);
        // Another worker may split.
        give_way().await;
        if merged == 0 {
            break;
        }
    }
    while handle.pin().retire_chunks() {
        let chunks = store.index.take_retired_chunks();
        if chunks.is_empty() {
            // Each turn moves the collector's epoch on.
            handle.pin().guard.flush();
            world.clock().sleep(FREE_AGAIN_AFTER).await;
        }
        for chunk in chunks {
            drop(chunk);
            give_way().await;
        }
    }
}

async fn sweep<W: World>(handle: &WorkerHandle, device: &LogDevice<W>, pass: &mut Pass) {
    let mut held = Held::default();
    let mut first = 0;
    loop {
        let (next, cold) = handle.pin().sweep(first, SWEPT_PER_SLICE, pass, &held);
        if cold.is_empty() {
            held.clear();
            match next {
                Some(next) => first = next,
                None => return,
            }
        }
        for addresses in cold.chunks(READS_AT_ONCE) {
            let reads = join_all(addresses.iter().map(|&address| device.read_header(address))).await;
            for (&address, read) in addresses.iter().zip(reads) {
                match read {
                    Ok(read) => held.insert(address, read.record),
                    Err(error) => {
                        tracing::warn!(%error, "a record of a flushed database cannot be read; its index entry stays");
                        pass.give_up(address);
                    }
                }
            }
        }
        give_way().await;
    }
}
