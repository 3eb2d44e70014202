//! The latches that a batch takes on the index's buckets.

use crate::latch;
use crate::pinned::Pinned;
use crate::sync::{AtomicU64, Ordering};
use std::marker::PhantomData;

/// The latch of one bucket.
pub struct Latch<'p> {
    word: &'p AtomicU64,
    write: bool,
    /// With one worker nobody else can take it: no locked instructions needed.
    alone: bool,
    contended: bool,
    not_send: PhantomData<*const ()>,
}

impl Latch<'_> {
    /// Whether another worker had it, so that this one had to wait.
    #[inline]
    pub fn was_contended(&self) -> bool {
        self.contended
    }
}

impl Pinned<'_> {
    /// Latches the bucket of `hash`; spins. Take one at a time: a second one may be the same bucket.
    #[inline]
    pub fn latch(&self, hash: u64, write: bool) -> Latch<'_> {
        let alone = self.is_alone();
        let (word, contended) = self.store.index.latch(hash, write, alone);
        Latch { word, write, alone, contended, not_send: PhantomData }
    }

    /// The bucket at a cursor and its latch, which the exclusive mode does without; and the next cursor.
    pub(crate) fn latch_at(&self, cursor: u64, write: bool) -> (usize, u64, Option<Latch<'_>>) {
        let index = &self.store.index;
        if self.is_exclusive() {
            let visit = index.stand(cursor);
            return (visit.bucket, visit.next(), None);
        }
        let alone = self.is_alone();
        let (visit, word) = index.latch_at(cursor, write, alone);
        let latch = Latch { word, write, alone, contended: false, not_send: PhantomData };
        (visit.bucket, visit.next(), Some(latch))
    }

    /// No other worker exists.
    #[inline]
    pub(crate) fn is_alone(&self) -> bool {
        self.store.epochs.workers() == 1
    }

    #[inline]
    pub(crate) fn debug_assert_latched(&self, hash: u64, write: bool) {
        if cfg!(debug_assertions) && !self.is_exclusive() {
            let word = self.store.index.word(hash).load(Ordering::Relaxed);
            let held = if write { latch::is_locked_exclusive(word) } else { latch::is_locked(word) };
            assert!(held, "the bucket is not latched");
        }
    }
}

impl Drop for Latch<'_> {
    #[inline]
    fn drop(&mut self) {
        latch::unlock(self.word, self.write, self.alone);
    }
}
