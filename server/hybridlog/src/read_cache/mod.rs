//! Copies of records that lie on disk, for keys that are read again and again.
//!
//! A record on disk never changes and its address is never used again, so there is nothing to invalidate: what has been
//! superseded, or dropped from the log, is not asked for any more and goes as what is not asked for does. Objects are left
//! out: their extents can be freed, and one of them would take the place of thousands.
//!
//! Who goes is decided as in S3-FIFO (Yang et al., SOSP 2023): a small queue for what is new, a large one for what was asked
//! for again while it was there, or soon after; and the addresses of what left the small one. A scan passes through a tenth
//! of the memory and leaves the rest as it is.

mod shard;
mod table;

use crate::address::Address;
use crate::held::HeldRecord;
use crate::sync::{AtomicUsize, Mutex, Ordering};
use shard::Shard;

/// Parts with a lock of their own, a worker.
const SHARDS_PER_WORKER: usize = 8;

/// Shared by all workers; see the module's documentation.
pub struct ReadCache {
    shards: Box<[Mutex<Shard>]>,
    /// Bytes of all shards together, what each record takes beside its own included.
    limit: AtomicUsize,
}

/// Since the start, and now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCacheStats {
    pub hits: u64,
    pub misses: u64,
    /// Bytes of memory, and the most that there may be.
    pub bytes: usize,
    pub limit: usize,
    pub records: usize,
}

impl ReadCache {
    pub(crate) fn new(workers: usize) -> Self {
        let shards = (workers * SHARDS_PER_WORKER).next_power_of_two();
        Self { shards: (0..shards).map(|_| Mutex::new(Shard::default())).collect(), limit: AtomicUsize::new(0) }
    }

    /// Bounds its memory; 0 turns it off. What is beyond the bound goes at once.
    pub fn set_limit(&self, bytes: usize) {
        if self.limit.swap(bytes, Ordering::AcqRel) != bytes {
            let each = self.limit_of_shard();
            self.shards.iter().for_each(|shard| shard.lock().shrink_to(each));
        }
    }

    #[inline]
    pub fn is_on(&self) -> bool {
        self.limit.load(Ordering::Relaxed) > 0
    }

    pub fn stats(&self) -> ReadCacheStats {
        let mut sum = ReadCacheStats { limit: self.limit.load(Ordering::Relaxed), ..ReadCacheStats::default() };
        for shard in &self.shards {
            let shard = shard.lock();
            let of_shard = shard.stats();
            sum.hits += of_shard.hits;
            sum.misses += of_shard.misses;
            sum.bytes += of_shard.bytes;
            sum.records += of_shard.records;
        }
        sum
    }

    /// The record at an address that a look-up called cold.
    pub fn get(&self, address: Address) -> Option<HeldRecord> {
        self.shard(address).lock().get(address).map(HeldRecord::copied)
    }

    /// The same for several, in their order. Each is looked for in steps, and one step for all of them comes before the next, so that
    /// they wait for memory together.
    pub fn get_all(&self, addresses: &[Address]) -> impl Iterator<Item = Option<HeldRecord>> {
        if addresses.len() > 1 {
            for step in [Shard::prefetch_slot, Shard::prefetch_entry, Shard::prefetch_record] {
                addresses.iter().for_each(|&address| step(&self.shard(address).lock(), address));
            }
        }
        addresses.iter().map(|&address| self.get(address))
    }

    /// Takes in what was read from the disk for a command.
    pub fn offer(&self, address: Address, record: &HeldRecord) {
        if self.is_on() && !record.raw().is_object() {
            let limit = self.limit_of_shard();
            self.shard(address).lock().offer(address, limit, record.words());
        }
    }

    fn limit_of_shard(&self) -> usize {
        self.limit.load(Ordering::Acquire) / self.shards.len()
    }

    fn shard(&self, address: Address) -> &Mutex<Shard> {
        // The highest bits of the product: those that the shard's own map goes by less.
        let mixed = address.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.shards[(mixed >> 40) as usize & (self.shards.len() - 1)]
    }
}

#[cfg(test)]
mod tests;
