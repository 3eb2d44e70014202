//! How much disk space the data takes: what compaction goes by, the quota, and what INFO and the metrics say of both.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use ferrite_commands::server::info::SpaceInfo;
use ferrite_hybridlog::StoreStats;

use crate::node::Node;

/// Below the quota by this part of it, and by so much at most, writes are taken again.
const HEADROOM_PART: u64 = 64;
const HEADROOM_MAX: u64 = 16 << 20;

/// What compaction has done since the start, and what is known of the disk.
#[derive(Default)]
pub struct SpaceStatus {
    pub runs: AtomicU64,
    pub failures: AtomicU64,
    /// Bytes of the log that were read.
    pub bytes_read: AtomicU64,
    /// Bytes of records that were copied.
    pub bytes_kept: AtomicU64,
    /// Bytes that were given back to the file system.
    pub bytes_freed: AtomicU64,
    pub(crate) running: AtomicBool,
    pub(crate) checkpoint_bytes: AtomicU64,
    over_quota: AtomicBool,
}

/// The bytes of data and files at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    /// Of the keys' records and of what they own, as they are written.
    pub live: u64,
    /// Of the log, from its beginning to its tail and what could not be read below, and of the extents in use.
    pub needed: u64,
    /// As `needed`, with what the file of the log still has of before its beginning.
    pub file: u64,
    /// Below which nothing is compacted, whatever it holds: as configured, what of the log is in memory, and what cannot be read.
    pub floor: u64,
    pub page: u64,
}

impl Space {
    fn of(node: &Node, store: &StoreStats) -> Self {
        Self {
            live: node.databases.live_bytes(),
            needed: store.tail - store.begin + store.left_bytes + store.extent_bytes,
            file: store.file_bytes + store.extent_bytes,
            floor: node.live.auto_compaction_min_size.load(Relaxed) + (store.tail - store.head) + store.left_bytes,
            page: node.store.page_size() as u64,
        }
    }

    /// File bytes to live bytes; 1 without data.
    pub fn amplification(&self) -> f64 {
        if self.live == 0 { 1.0 } else { self.file as f64 / self.live as f64 }
    }
}

impl Node {
    pub(crate) fn space(&self) -> Space {
        Space::of(self, &self.store.stats())
    }

    /// What the quota counts: log, extents, append-only files and checkpoints; not what is reserved ahead of their ends.
    fn quota_used(&self) -> u64 {
        let store = self.store.stats();
        let aof = self.aof().map_or(0, |aof| aof.size().current);
        store.file_bytes + store.extent_file_bytes + aof + self.space_status.checkpoint_bytes.load(Relaxed)
    }

    /// Whether writes that need space are refused. Asked once for a batch of commands.
    #[inline]
    pub(crate) fn is_over_quota(&self) -> bool {
        match self.live.disk_quota.load(Relaxed) {
            0 => false,
            quota => self.look_at_quota(quota),
        }
    }

    #[cold]
    fn look_at_quota(&self, quota: u64) -> bool {
        let used = self.quota_used();
        let was_over = self.space_status.over_quota.load(Relaxed);
        let headroom = (quota / HEADROOM_PART).min(HEADROOM_MAX);
        let over = used >= if was_over { quota - headroom } else { quota };
        if over != was_over && self.space_status.over_quota.swap(over, Relaxed) != over {
            match over {
                true => tracing::error!(used, quota, "the disk quota is reached: writes that need space are refused"),
                false => tracing::info!(used, quota, "there is space in the disk quota again"),
            }
        }
        over
    }

    pub(crate) fn space_info(&self) -> SpaceInfo {
        let (space, store) = (self.space(), self.store.stats());
        let status = &self.space_status;
        SpaceInfo {
            live: space.live,
            file: space.file,
            extents_free: store.extent_free_bytes,
            amplification: space.amplification(),
            quota: self.live.disk_quota.load(Relaxed),
            quota_used: self.quota_used(),
            over_quota: self.is_over_quota(),
            compaction_running: status.running.load(Relaxed),
            compactions: status.runs.load(Relaxed),
            compaction_failures: status.failures.load(Relaxed),
            compaction_read: status.bytes_read.load(Relaxed),
            compaction_kept: status.bytes_kept.load(Relaxed),
            compaction_freed: status.bytes_freed.load(Relaxed),
            quarantined_pages: store.quarantined_pages as u64,
            quarantined: store.quarantined_bytes,
        }
    }
}
