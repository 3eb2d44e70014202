//! Faults that a model plants to show that it would see them. In the product none of them costs anything, or is there.

/// A fault.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Who wants a latch for reading does not mind a writer.
    ReaderIgnoresWriter,
    /// Who wants a latch for writing does not mind readers.
    WriterIgnoresReaders,
    /// A worker that begins a batch does not order its announcement before what it reads then.
    AnnouncedLate,
    /// What was deferred is done when the last batch of its epoch may still run.
    SafeTooEarly,
    /// The epoch moves on before the limit that it stands for.
    BumpedFirst,
    /// The exclusive mode begins without waiting for the batches of others.
    ExclusiveAtOnce,
    /// Who waited for a latch does not look whether the hash's half of the bucket has moved away.
    NoSecondLook,
    /// A split does not latch the bucket that it divides.
    SplitUnlatched,
    /// The new bucket is announced before its entries are in it.
    AnnouncedEarly,
    /// A split does not latch the bucket that it fills.
    TargetUnlatched,
    /// A merge does not latch the bucket that goes.
    MergeUnlatched,
    /// Who removes an entry looks before its batch whether a checkpoint is taken.
    #[cfg(loom)]
    LooksBeforeItsBatch,
    /// An object is changed where it lies though the flush is reading it.
    ChangedWhileWritten,
    /// Who has written an extent does not look whether its record is still there.
    WrittenForNobody,
    /// A directory that was replaced is freed without waiting for its readers.
    #[cfg(loom)]
    FreeAtOnce,
    /// So is a chunk that no bucket lies in any more.
    #[cfg(loom)]
    ReleaseAtOnce,
}

impl Mutant {
    #[cfg(not(all(test, loom)))]
    #[inline(always)]
    pub(crate) fn is_planted(self) -> bool {
        false
    }

    #[cfg(all(test, loom))]
    pub(crate) fn is_planted(self) -> bool {
        planted::NOW.get() == Some(self)
    }

    /// The next model of this thread has this fault, or none.
    #[cfg(all(test, loom))]
    pub(crate) fn plant(mutant: Option<Self>) {
        planted::NOW.set(mutant);
    }
}

#[cfg(all(test, loom))]
mod planted {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        /// Loom runs the threads of a model on the one that runs the test.
        pub(super) static NOW: Cell<Option<Mutant>> = const { Cell::new(None) };
    }
}
