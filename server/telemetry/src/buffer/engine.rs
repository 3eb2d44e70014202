//! What the layers below the driver call.

use super::TraceBuffer;
use crate::record::{Detail, SpanRecord};
use crate::schema::{SpanName, Tier};

/// What the engine and the keyspace call. Each is a lap; each does nothing when recording is off, the detail too low or
/// the command muted.
impl TraceBuffer {
    /// The key was hashed and its bucket searched.
    #[inline]
    pub fn index_lookup(&mut self, bucket: u64) {
        if self.level >= Detail::Storage as u8 {
            self.lap(SpanName::IndexLookup, bucket);
        }
    }

    /// A tier in memory was searched; `bytes` is the value's size if it was found. Reads from disk have
    /// [`TraceBuffer::disk_read_open`].
    #[inline]
    pub fn storage_read(&mut self, tier: Tier, found: bool, bytes: usize) {
        if self.level >= Detail::Storage as u8 {
            let (start, end) = self.lap_times();
            let mut record = SpanRecord::lap(SpanName::StorageRead, self.current, start, end, self.epoch)
                .with_tier(tier)
                .with_cache_hit(found && tier != Tier::Disk);
            if found {
                record = record.with_bytes(bytes);
            }
            self.push(record);
        }
    }

    /// A record of this value size was written to a tier.
    #[inline]
    pub fn storage_write(&mut self, tier: Tier, bytes: usize) {
        if self.level >= Detail::Storage as u8 {
            let (start, end) = self.lap_times();
            let record = SpanRecord::lap(SpanName::StorageWrite, self.current, start, end, self.epoch)
                .with_tier(tier)
                .with_cache_hit(tier == Tier::Mutable)
                .with_bytes(bytes);
            self.push(record);
        }
    }

    /// The epoch was pinned for a read that outlives the batch.
    #[inline]
    pub fn epoch_protect(&mut self, epoch: u64) {
        self.epoch = epoch;
        if self.level >= Detail::Storage as u8 {
            self.lap(SpanName::EpochProtect, epoch);
        }
    }

    /// The worker announced the epoch anew.
    #[inline]
    pub fn epoch_advance(&mut self, epoch: u64) {
        self.epoch = epoch;
        if self.level >= Detail::Full as u8 {
            self.lap(SpanName::EpochAdvance, epoch);
        }
    }

    /// A frame of this size went into the AOF's buffer.
    #[inline]
    pub fn aof_append(&mut self, bytes: usize) {
        if self.level >= Detail::Storage as u8 {
            let (start, end) = self.lap_times();
            let record = SpanRecord::lap(SpanName::AofAppend, self.current, start, end, 0).with_bytes(bytes);
            self.push(record);
        }
    }

    /// Stops and restarts recording within the current command, for work that is not the command's own. Does not nest.
    #[inline]
    pub fn mute(&mut self, on: bool) {
        self.muted = on;
        self.refresh_level();
    }
}
