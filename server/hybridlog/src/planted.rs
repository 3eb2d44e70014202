//! Faults of compaction and of recovery that a simulation plants to show that it would see them. They are there in tests and with
//! the feature `planted` alone, which only tests ask for; without it none of them costs anything.

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A record counts as superseded if its chain has a newer one, be it another key's.
    NeighbourSupersedes,
    /// A record counts as its key's newest though a newer one lies in front of it.
    SupersededIsKept,
    /// The log's beginning moves before the records are copied.
    BeginsTooEarly,
    /// The copy of a record never expires.
    ExpiryIsForgotten,
    /// Space is given back though a checkpoint leads there.
    PinIsIgnored,
    /// What deletes a key is copied as if it were a value.
    TombstoneIsRevived,
    /// With a tombstone goes whatever its chain holds.
    ChainGoesWithTombstone,
    /// A record is believed though its checksum is not that of its bytes.
    ChecksumIsIgnored,
    /// The extent of a copied record is freed.
    ExtentIsFreed,
    /// What was superseded goes before those who wrote over it without a look have looked.
    UnseenIsForgotten,
    /// An expired key goes without a word to anybody.
    ExpiredIsDropped,
    /// A page that cannot be read is left behind, and forgotten.
    DamageIsForgotten,
    /// What is no frame, read once, is cut off the append-only file.
    TornAtOneLook,
    /// The end of the append-only file is written again as it was read once.
    WrittenAsReadOnce,
    /// A checkpoint is damaged that was read wrong once.
    CondemnedAtOneLook,
}

impl Planted {
    /// Each of compaction. The first two are about chains of several keys, which no simulation has: tests of this crate see them.
    #[cfg(any(test, feature = "planted"))]
    pub const OF_COMPACTION: [Self; 12] = [
        Self::NeighbourSupersedes,
        Self::ChainGoesWithTombstone,
        Self::SupersededIsKept,
        Self::BeginsTooEarly,
        Self::ExpiryIsForgotten,
        Self::PinIsIgnored,
        Self::TombstoneIsRevived,
        Self::ChecksumIsIgnored,
        Self::ExtentIsFreed,
        Self::UnseenIsForgotten,
        Self::ExpiredIsDropped,
        Self::DamageIsForgotten,
    ];

    /// Each that a start may have.
    #[cfg(any(test, feature = "planted"))]
    pub const OF_RECOVERY: [Self; 3] = [Self::TornAtOneLook, Self::WrittenAsReadOnce, Self::CondemnedAtOneLook];

    #[cfg(not(any(test, feature = "planted")))]
    #[inline(always)]
    pub fn is_there(self) -> bool {
        false
    }

    #[cfg(any(test, feature = "planted"))]
    pub fn is_there(self) -> bool {
        now::PLANTED.get() == Some(self)
    }

    /// From now on this thread has this fault, or none.
    #[cfg(any(test, feature = "planted"))]
    pub fn plant(fault: Option<Self>) {
        now::PLANTED.set(fault);
    }
}

#[cfg(any(test, feature = "planted"))]
mod now {
    use super::Planted;
    use std::cell::Cell;

    thread_local! {
        /// A simulation runs all its servers on one thread of its own.
        pub(super) static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
    }
}
