//! The limits between the regions: `begin ≤ head ≤ read_only ≤ tail`.
//!
//! A limit only grows. Whoever moves one gets the epoch that must be safe before it acts on what was passed:
//! a worker in an earlier batch may have seen the old limit.

use crate::address::Address;
use crate::epoch::EpochTable;
use crate::mutant::Mutant;
use crate::sync::{AtomicU64, Ordering};
use crossbeam_utils::CachePadded;

pub(crate) struct Regions {
    /// The next record's address. Every worker moves it.
    pub(crate) tail: CachePadded<AtomicU64>,
    limits: CachePadded<Limits>,
}

struct Limits {
    /// Nothing below it belongs to the log any more.
    begin: AtomicU64,
    read_only: AtomicU64,
    /// `read_only` as every worker has seen it: below it no record is written any more.
    safe_read_only: AtomicU64,
    head: AtomicU64,
}

impl Regions {
    pub(crate) fn new(begin: Address, tail: Address) -> Self {
        Self {
            tail: CachePadded::new(AtomicU64::new(tail)),
            limits: CachePadded::new(Limits {
                begin: AtomicU64::new(begin),
                read_only: AtomicU64::new(begin),
                safe_read_only: AtomicU64::new(begin),
                head: AtomicU64::new(begin),
            }),
        }
    }

    /// Everything from `begin` to `to` is on disk, and nothing is in memory. Only while nobody else uses the log.
    #[cfg(not(loom))]
    pub(crate) fn restore(&self, begin: Address, to: Address) {
        let limits = &self.limits;
        limits.begin.store(begin, Ordering::Release);
        for limit in [&*self.tail, &limits.read_only, &limits.safe_read_only, &limits.head] {
            limit.store(to, Ordering::Release);
        }
    }

    /// The log's first record lies here, or above.
    #[inline]
    pub(crate) fn begin(&self) -> Address {
        self.limits.begin.load(Ordering::Acquire)
    }

    /// Moves `begin` up to `to`, below which no key's newest record lies. Who has latched a bucket since that came true sees
    /// it, or meets old records that are of no use; nobody in a batch holds one of them: all left memory before.
    pub(crate) fn shift_begin(&self, to: Address) {
        debug_assert!(to <= self.head(), "the log's beginning is on disk");
        self.limits.begin.fetch_max(to, Ordering::AcqRel);
    }

    /// Records from here on are updated in place.
    #[inline]
    pub(crate) fn read_only(&self) -> Address {
        self.limits.read_only.load(Ordering::Acquire)
    }

    pub(crate) fn safe_read_only(&self) -> Address {
        self.limits.safe_read_only.load(Ordering::Acquire)
    }

    /// Records from here on are in memory (anonymous or mapped).
    #[inline]
    pub(crate) fn head(&self) -> Address {
        self.limits.head.load(Ordering::Acquire)
    }

    /// Moves `read_only` up to `to`. Returns the epoch after which nobody writes below it, if it moved.
    pub(crate) fn shift_read_only(&self, to: Address, epochs: &EpochTable) -> Option<u64> {
        Self::shift(&self.limits.read_only, to, epochs)
    }

    /// Call when the epoch of [`Regions::shift_read_only`] is safe.
    pub(crate) fn read_only_is_safe(&self, to: Address) {
        debug_assert!(to <= self.read_only());
        self.limits.safe_read_only.fetch_max(to, Ordering::AcqRel);
    }

    /// Moves `head` up to `to`. Returns the epoch after which nobody reads below it, if it moved.
    pub(crate) fn shift_head(&self, to: Address, epochs: &EpochTable) -> Option<u64> {
        debug_assert!(to <= self.safe_read_only(), "a page leaves memory only after it was flushed");
        Self::shift(&self.limits.head, to, epochs)
    }

    fn shift(limit: &AtomicU64, to: Address, epochs: &EpochTable) -> Option<u64> {
        if Mutant::BumpedFirst.is_planted() {
            let epoch = epochs.bump();
            return (limit.fetch_max(to, Ordering::SeqCst) < to).then_some(epoch);
        }
        if limit.fetch_max(to, Ordering::SeqCst) >= to { None } else { Some(epochs.bump()) }
    }
}

#[cfg(all(test, loom))]
mod loom_page_release {
    //! One worker uses a page as a batch does, the other thread takes it away as the flush task does. loom fails
    //! the model if the two accesses to the page can overlap.
    use super::*;
    use crate::sync::AtomicBool;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;

    const PAGE: Address = 64;
    const NEXT: Address = 4096;

    struct Model {
        epochs: EpochTable,
        regions: Regions,
        page: UnsafeCell<u32>,
        done: AtomicBool,
    }

    // SAFETY: loom checks the accesses to the page.
    unsafe impl Sync for Model {}
    // SAFETY: loom checks the accesses to the page.
    unsafe impl Send for Model {}

    fn new_model() -> Arc<Model> {
        Arc::new(Model {
            epochs: EpochTable::new(1),
            regions: Regions::new(PAGE, NEXT),
            page: UnsafeCell::new(0),
            done: AtomicBool::new(false),
        })
    }

    fn flush(mutant: Option<Mutant>) {
        Mutant::plant(mutant);
        loom::model(|| {
            let model = new_model();
            let worker = {
                let model = model.clone();
                loom::thread::spawn(move || {
                    model.epochs.enter(0);
                    if PAGE >= model.regions.read_only() {
                        // SAFETY: an in-place update; that it is alone is what the model checks.
                        model.page.with_mut(|page| unsafe { *page += 1 });
                    }
                    model.epochs.leave(0);
                })
            };
            let epoch = model.regions.shift_read_only(NEXT, &model.epochs).expect("it moved");
            let flush = model.clone();
            model.epochs.defer(epoch, move || {
                flush.regions.read_only_is_safe(NEXT);
                // SAFETY: the flush reads the page; that nobody writes it is what the model checks.
                flush.page.with(|page| unsafe { assert!(*page <= 1) });
                flush.done.store(true, Ordering::Relaxed);
            });
            worker.join().unwrap();
            assert!(model.done.load(Ordering::Relaxed), "the last to leave does what was deferred");
            assert_eq!(model.regions.safe_read_only(), NEXT);
        });
    }

    fn free(mutant: Option<Mutant>) {
        Mutant::plant(mutant);
        loom::model(|| {
            let model = new_model();
            model.regions.shift_read_only(NEXT, &model.epochs).expect("it moved");
            model.regions.read_only_is_safe(NEXT);
            let worker = {
                let model = model.clone();
                loom::thread::spawn(move || {
                    model.epochs.enter(0);
                    if PAGE >= model.regions.head() {
                        // SAFETY: a read; that the page is not freed meanwhile is what the model checks.
                        model.page.with(|page| unsafe { assert_eq!(*page, 0) });
                    }
                    model.epochs.leave(0);
                })
            };
            let epoch = model.regions.shift_head(NEXT, &model.epochs).expect("it moved");
            let release = model.clone();
            model.epochs.defer(epoch, move || {
                // SAFETY: this stands for freeing.
                release.page.with_mut(|page| unsafe { *page = u32::MAX });
                release.done.store(true, Ordering::Relaxed);
            });
            worker.join().unwrap();
            assert!(model.done.load(Ordering::Relaxed));
        });
    }

    #[test]
    fn loom_a_page_is_flushed_only_after_safe_read_only() {
        flush(None);
    }

    #[test]
    fn loom_an_announced_epoch_keeps_a_page_from_being_freed() {
        free(None);
    }

    #[test]
    #[should_panic]
    fn loom_catches_a_page_flushed_while_it_is_updated_in_place() {
        flush(Some(Mutant::SafeTooEarly));
    }

    #[test]
    #[should_panic]
    fn loom_catches_a_page_freed_while_it_is_read() {
        free(Some(Mutant::SafeTooEarly));
    }

    #[test]
    #[should_panic]
    fn loom_catches_an_epoch_that_moves_on_before_the_limit() {
        free(Some(Mutant::BumpedFirst));
    }

    #[test]
    #[should_panic]
    fn loom_catches_an_announcement_that_comes_after_the_limit_was_read() {
        free(Some(Mutant::AnnouncedLate));
    }
}
