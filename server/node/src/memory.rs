//! The accounts of the process's memory: the one place where they are added up.
//!
//! What is accounted for is what is resident: a page of the log counts as far as it is used, an index or a ring as a whole,
//! a buffer with its capacity. What is left out is small or short-lived: a worker's scratch buffers, connections' own state,
//! records while they are being read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ferrite_commands::server::info::MemoryAccounts;

use crate::node::Node;

/// The read cache gets this part of `maxmemory` at most.
const READ_CACHE_PART: u64 = 8;

/// What is remembered of the process's memory.
#[derive(Default)]
pub struct MemoryStatus {
    startup: AtomicU64,
    peak: AtomicU64,
    /// Of [`crate::held_reads::HeldReads`].
    pub(crate) held_reads: AtomicU64,
}

impl Node {
    /// Takes what the process has taken before it holds any data for an account of its own.
    pub(crate) fn account_for_startup(&self) {
        self.memory.startup.store(0, Relaxed);
        let resident = (self.process)().rss_bytes;
        self.memory.startup.store(resident.saturating_sub(self.memory_accounts().total()), Relaxed);
    }

    pub fn memory_accounts(&self) -> MemoryAccounts {
        let store = self.store.stats();
        let rings: usize = self.rings().iter().map(|ring| ring.bytes()).sum();
        let accounts = MemoryAccounts {
            startup: self.memory.startup.load(Relaxed),
            // The objects of their records weigh on the same budget.
            pages: (store.page_bytes + store.object_bytes) as u64,
            freeing: store.freeing_bytes as u64,
            // With what a checkpoint keeps of its entries.
            index: (store.index_bytes + store.imaging_bytes) as u64,
            expiry: self.databases.expiry_bytes() as u64,
            clients: self.clients.buffer_bytes(),
            watches: self.databases.watch_bytes() as u64,
            aof_buffer: self.aof().map_or(0, |aof| aof.buffer_bytes()),
            io_buffers: store.flush_bytes,
            read_cache: self.store.read_cache.stats().bytes as u64,
            held_reads: self.memory.held_reads.load(Relaxed),
            unseen_writes: self.databases.unseen.figures().bytes,
            telemetry: rings as u64
                + self.telemetry.queue.counts().bytes
                + self.telemetry.logs.counts().bytes
                + self.pins.bytes(),
        };
        self.memory.peak.fetch_max(accounts.total(), Relaxed);
        accounts
    }

    /// Gives the read cache its part, and the log's pages what `maxmemory` leaves beside the other accounts. Called when it is set, and now and then.
    pub(crate) fn fit_pages(&self) {
        let max = self.databases.limits.maxmemory.load(Relaxed);
        let most = if max == 0 { u64::MAX } else { max / READ_CACHE_PART };
        self.store.read_cache.set_limit(self.live.read_cache_bytes.load(Relaxed).min(most) as usize);
        let pages = match max {
            0 => u64::MAX,
            max => {
                let accounts = self.memory_accounts();
                max.saturating_sub(accounts.total() - accounts.pages)
            }
        };
        self.store.set_page_budget(pages);
    }

    /// The most that the accounts came to when somebody looked, at least once a second.
    pub(crate) fn memory_peak(&self) -> u64 {
        self.memory.peak.load(Relaxed)
    }

    /// CONFIG RESETSTAT.
    pub(crate) fn reset_memory_peak(&self) {
        self.memory.peak.store(0, Relaxed);
    }

    /// The limit in force, in bytes: that of the configuration, else the machine's memory, else the log's regions. Never 0.
    pub(crate) fn memory_max(&self) -> u64 {
        let configured = self.databases.limits.maxmemory.load(Relaxed);
        let regions = [self.config.storage.mutable_region_size_mb, self.config.storage.read_only_region_size_mb];
        let regions = (regions.iter().sum::<f64>() * f64::from(1 << 20)) as u64;
        let candidates = [configured, (self.process)().system_memory_bytes, regions.max(1)];
        candidates.into_iter().find(|bytes| *bytes > 0).expect("the last is not 0")
    }
}
