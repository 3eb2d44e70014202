//! The latch of an index bucket, in the spare bits of the bucket's overflow word.
//!
//! Bits 0..48 are the overflow link, bits 48..63 count readers, bit 63 is the writer. Nobody waits for
//! anything while holding one, so spinning is short.

use crate::mutant::Mutant;
use crate::sync::{AtomicU64, Backoff, Ordering};

const READER: u64 = 1 << 48;
const WRITER: u64 = 1 << 63;
const LATCHED: u64 = !(READER - 1);
/// The part of the word that is not the latch.
pub(crate) const LINK_MASK: u64 = READER - 1;

/// True if a writer had it. Other readers who count themselves in the same moment are no contention.
#[inline]
fn lock_shared(word: &AtomicU64) -> bool {
    let mut backoff = Backoff::new();
    let mut contended = false;
    loop {
        let seen = word.load(Ordering::Relaxed);
        if seen & WRITER == 0 || Mutant::ReaderIgnoresWriter.is_planted() {
            if word.compare_exchange_weak(seen, seen + READER, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return contended;
            }
        } else {
            contended = true;
        }
        backoff.wait();
    }
}

/// True if someone had it.
#[inline]
fn lock_exclusive(word: &AtomicU64) -> bool {
    let mut backoff = Backoff::new();
    let mut contended = false;
    loop {
        let seen = word.load(Ordering::Relaxed);
        if seen & LATCHED == 0 || Mutant::WriterIgnoresReaders.is_planted() {
            if word.compare_exchange_weak(seen, seen | WRITER, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return contended;
            }
        } else {
            contended = true;
        }
        backoff.wait();
    }
}

#[inline]
fn unlock_shared(word: &AtomicU64) {
    let before = word.fetch_sub(READER, Ordering::Release);
    debug_assert!(before & LATCHED & !WRITER != 0, "not latched for reading");
}

#[inline]
fn unlock_exclusive(word: &AtomicU64) {
    let before = word.fetch_and(!WRITER, Ordering::Release);
    debug_assert!(before & WRITER != 0, "not latched for writing");
}

/// For a store with a single worker, where nobody else can hold or want the latch: the word is
/// kept right, for the assertions, with plain loads and stores.
#[inline]
fn lock_alone(word: &AtomicU64, write: bool) {
    let seen = word.load(Ordering::Relaxed);
    debug_assert!(if write { seen & LATCHED == 0 } else { seen & WRITER == 0 }, "latched twice by one worker");
    word.store(seen + if write { WRITER } else { READER }, Ordering::Relaxed);
}

#[inline]
fn unlock_alone(word: &AtomicU64, write: bool) {
    let seen = word.load(Ordering::Relaxed);
    word.store(seen - if write { WRITER } else { READER }, Ordering::Relaxed);
}

/// Takes the latch, for writing or reading; `alone` if there is a single worker. True if it had to wait for another.
#[inline]
pub(crate) fn lock(word: &AtomicU64, write: bool, alone: bool) -> bool {
    match (alone, write) {
        (true, _) => {
            lock_alone(word, write);
            false
        }
        (false, true) => lock_exclusive(word),
        (false, false) => lock_shared(word),
    }
}

/// Undoes [`lock`].
#[inline]
pub(crate) fn unlock(word: &AtomicU64, write: bool, alone: bool) {
    match (alone, write) {
        (true, _) => unlock_alone(word, write),
        (false, true) => unlock_exclusive(word),
        (false, false) => unlock_shared(word),
    }
}

#[inline]
pub(crate) fn is_locked(word: u64) -> bool {
    word & LATCHED != 0
}

#[inline]
pub(crate) fn is_locked_exclusive(word: u64) -> bool {
    word & WRITER != 0
}

/// Sets the link, whose word the caller has latched for writing (or the whole store for itself).
pub(crate) fn set_link(word: &AtomicU64, link: u64) {
    debug_assert!(link <= LINK_MASK);
    // Only the latch holder changes the word while it is latched for writing.
    word.store(word.load(Ordering::Relaxed) & !LINK_MASK | link, Ordering::Release);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn latch_and_link_share_a_word() {
        let word = AtomicU64::new(0);
        assert!(!lock_exclusive(&word));
        set_link(&word, 77);
        assert!(is_locked_exclusive(word.load(Ordering::Relaxed)));
        unlock_exclusive(&word);
        assert!(!lock_shared(&word));
        assert!(!lock_shared(&word), "readers do not wait for each other");
        unlock_shared(&word);
        assert!(is_locked(word.load(Ordering::Relaxed)));
        unlock_shared(&word);
        assert_eq!(word.load(Ordering::Relaxed), 77);
    }

    /// Whether a thread that wants the latch finds it held, which another holds for so long.
    #[allow(clippy::disallowed_methods)] // Threads are what latches are for, and there is no World in them.
    fn waits(held: bool, wanted: bool, hold: std::time::Duration) -> bool {
        let word = AtomicU64::new(0);
        lock(&word, held, false);
        let began = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| {
                began.wait();
                let contended = lock(&word, wanted, false);
                unlock(&word, wanted, false);
                contended
            });
            began.wait();
            std::thread::sleep(hold);
            unlock(&word, held, false);
            waits.join().expect("it ends")
        })
    }

    #[test]
    fn who_had_to_wait_is_told_so() {
        for (held, wanted) in [(true, true), (true, false), (false, true)] {
            // A busy machine may let the other thread begin late.
            let told = (0..10).any(|longer| waits(held, wanted, std::time::Duration::from_millis(1 << longer)));
            assert!(told, "held for writing: {held}, wanted for writing: {wanted}");
        }
        assert!(!waits(false, false, std::time::Duration::from_millis(1)), "readers do not wait for each other");
    }
}

#[cfg(all(test, loom))]
mod loom_latch {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;

    struct Bucket {
        word: AtomicU64,
        record: UnsafeCell<(u32, u32)>,
    }

    fn write(bucket: &Bucket) {
        lock_exclusive(&bucket.word);
        // SAFETY: the writer latch excludes everyone; loom checks exactly that.
        bucket.record.with_mut(|record| unsafe {
            (*record).0 += 1;
            (*record).1 += 1;
        });
        unlock_exclusive(&bucket.word);
    }

    fn read(bucket: &Bucket) {
        lock_shared(&bucket.word);
        // SAFETY: the reader latch excludes writers.
        bucket.record.with(|record| unsafe { assert_eq!((*record).0, (*record).1) });
        unlock_shared(&bucket.word);
    }

    /// One thread beside another. Two words stand for a record: loom fails the model on any unsynchronised
    /// access, and the assertion on a torn read.
    fn model(mutant: Option<Mutant>, one: fn(&Bucket), other: fn(&Bucket)) {
        Mutant::plant(mutant);
        loom::model(move || {
            let bucket = Arc::new(Bucket { word: AtomicU64::new(5), record: UnsafeCell::new((0, 0)) });
            let thread = {
                let bucket = bucket.clone();
                loom::thread::spawn(move || one(&bucket))
            };
            other(&bucket);
            thread.join().unwrap();
            assert_eq!(bucket.word.load(Ordering::Relaxed), 5, "the link is untouched, the latch free");
        });
    }

    #[test]
    fn loom_a_writer_excludes_a_reader() {
        model(None, write, read);
    }

    #[test]
    fn loom_a_writer_excludes_a_writer() {
        model(None, write, write);
    }

    #[test]
    #[should_panic]
    fn loom_catches_a_reader_beside_a_writer() {
        model(Some(Mutant::ReaderIgnoresWriter), read, write);
    }

    #[test]
    #[should_panic]
    fn loom_catches_a_writer_beside_a_reader() {
        model(Some(Mutant::WriterIgnoresReaders), write, read);
    }
}
