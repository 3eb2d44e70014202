//! `maxmemory` and its relatives: how large the data may get, and who goes when it is larger.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use ferrite_hybridlog::{AccessMode, frequency, idle_seconds};

use crate::RecordView;
use crate::databases::Databases;
use crate::scratch::has_expired;

/// A key's entry in the index.
pub const INDEX_ENTRY_BYTES: usize = 8;
/// A key's place in the timing wheel, and in the table that finds it there.
pub const EXPIRY_BYTES: usize = 32;

/// `maxmemory-policy`: Redis's, and Ferrite's own default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Policy {
    VolatileLru,
    VolatileLfu,
    VolatileRandom,
    VolatileTtl,
    AllkeysLru,
    AllkeysLfu,
    AllkeysRandom,
    /// Writes are refused.
    NoEviction,
    /// The data may be larger than memory: nothing is evicted and nothing refused, what memory has no room for lies on disk.
    Spill,
}

/// By what a policy chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    Idle,
    Rare,
    Random,
    Soonest,
}

impl Policy {
    const ALL: [Self; 9] = [
        Self::VolatileLru,
        Self::VolatileLfu,
        Self::VolatileRandom,
        Self::VolatileTtl,
        Self::AllkeysLru,
        Self::AllkeysLfu,
        Self::AllkeysRandom,
        Self::NoEviction,
        Self::Spill,
    ];

    /// Only keys with a time of expiry may go.
    pub fn is_volatile(self) -> bool {
        matches!(self, Self::VolatileLru | Self::VolatileLfu | Self::VolatileRandom | Self::VolatileTtl)
    }

    /// The access clock counts accesses.
    pub fn is_lfu(self) -> bool {
        matches!(self, Self::VolatileLfu | Self::AllkeysLfu)
    }

    pub fn is_lru(self) -> bool {
        matches!(self, Self::VolatileLru | Self::AllkeysLru)
    }

    /// `None`: nothing is evicted.
    pub(crate) fn rank(self) -> Option<Rank> {
        Some(match self {
            Self::VolatileLru | Self::AllkeysLru => Rank::Idle,
            Self::VolatileLfu | Self::AllkeysLfu => Rank::Rare,
            Self::VolatileRandom | Self::AllkeysRandom => Rank::Random,
            Self::VolatileTtl => Rank::Soonest,
            Self::NoEviction | Self::Spill => return None,
        })
    }
}

/// CONFIG's parameters of the same names. Each is read on its own: a command may see one of two that were set together.
pub struct MemoryLimits {
    /// Bytes; 0: no limit.
    pub maxmemory: AtomicU64,
    policy: AtomicU8,
    /// Keys looked at for one that goes.
    pub samples: AtomicUsize,
    pub lfu_log_factor: AtomicU32,
    /// Minutes; 0: counters do not decay.
    pub lfu_decay_time: AtomicU32,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        MemoryLimits {
            maxmemory: AtomicU64::new(0),
            policy: AtomicU8::new(Policy::Spill as u8),
            samples: AtomicUsize::new(5),
            lfu_log_factor: AtomicU32::new(10),
            lfu_decay_time: AtomicU32::new(1),
        }
    }
}

/// What the limit says before a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Free,
    /// Keys have to go first.
    Evict,
    /// None may go.
    Full,
}

impl MemoryLimits {
    #[inline]
    pub fn policy(&self) -> Policy {
        Policy::ALL[self.policy.load(Relaxed) as usize]
    }

    pub fn set_policy(&self, policy: Policy) {
        self.policy.store(policy as u8, Relaxed);
    }

    /// What the access clocks of records tell.
    #[inline]
    pub fn access_mode(&self) -> AccessMode {
        if self.policy().is_lfu() {
            AccessMode::Lfu {
                log_factor: self.lfu_log_factor.load(Relaxed),
                decay_minutes: self.lfu_decay_time.load(Relaxed),
            }
        } else {
            AccessMode::Lru
        }
    }

    /// Whether reads are to bring a record to where its access clock can be set: only where a policy goes by it.
    #[inline]
    pub(crate) fn wants_access(&self) -> bool {
        let policy = self.policy();
        (policy.is_lru() || policy.is_lfu()) && self.maxmemory.load(Relaxed) != 0
    }

    /// The data may grow to this; `None`: without limit. `spill` bounds memory, not the data.
    pub fn data_max(&self) -> Option<u64> {
        let max = self.maxmemory.load(Relaxed);
        (max != 0 && self.policy() != Policy::Spill).then_some(max)
    }

    /// How much a key deserves to go: who has the most goes first. Of two keys alike, the one written first.
    pub(crate) fn score(&self, rank: Rank, record: &RecordView<'_>, now_ms: u64) -> (u64, u64) {
        let now_s = (now_ms / 1000) as u32;
        let score = match rank {
            _ if has_expired(record.expire_at_ms, now_ms) => u64::MAX,
            Rank::Idle => u64::from(idle_seconds(record.access, now_s)),
            Rank::Rare => {
                let decay = self.lfu_decay_time.load(Relaxed);
                u64::from(u8::MAX - frequency(record.access, now_s, decay))
            }
            Rank::Soonest => u64::MAX - record.expire_at_ms,
            Rank::Random => 0,
        };
        (score, u64::MAX - record.address)
    }
}

impl Databases {
    /// What `maxmemory` bounds under every policy but `spill`: for each key its record, wherever it lies, its index entry
    /// and its place in the timing wheel. The sum of MEMORY USAGE over all keys.
    pub fn data_bytes(&self) -> u64 {
        (0..self.count()).map(|db| self.data_bytes_of(db)).sum()
    }

    /// Whether there is room for more data.
    #[inline]
    pub fn room(&self) -> Room {
        match self.limits.data_max() {
            Some(max) if self.data_bytes() > max => self.full(),
            _ => Room::Free,
        }
    }

    #[cold]
    fn full(&self) -> Room {
        if self.limits.policy() == Policy::NoEviction { Room::Full } else { Room::Evict }
    }
}

/// What a key counts for, with a record of `size` bytes.
pub fn key_bytes(size: usize, expire_at_ms: u64) -> usize {
    size + INDEX_ENTRY_BYTES + if expire_at_ms == 0 { 0 } else { EXPIRY_BYTES }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_is_kept_as_it_was_set() {
        let limits = MemoryLimits::default();
        assert_eq!(limits.policy(), Policy::Spill);
        for policy in Policy::ALL {
            limits.set_policy(policy);
            assert_eq!(limits.policy(), policy);
            assert_eq!(policy.rank().is_none(), matches!(policy, Policy::NoEviction | Policy::Spill));
        }
    }

    #[test]
    fn only_spill_lets_the_data_outgrow_the_limit() {
        let databases = Databases::new(1);
        databases.count_change(0, None, Some((0, 1000)));
        databases.limits.maxmemory.store(100, Relaxed);
        assert_eq!(databases.room(), Room::Free);
        databases.limits.set_policy(Policy::NoEviction);
        assert_eq!(databases.room(), Room::Full);
        databases.limits.set_policy(Policy::VolatileTtl);
        assert_eq!(databases.room(), Room::Evict);
        databases.limits.maxmemory.store(1008, Relaxed);
        assert_eq!(databases.room(), Room::Free, "the record and its entry in the index");
        databases.limits.maxmemory.store(0, Relaxed);
        assert_eq!(databases.room(), Room::Free);
    }
}
