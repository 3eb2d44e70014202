//! The table of announced epochs: when may a page be flushed, unmapped or freed? And the exclusive mode.
//!
//! A worker announces the current epoch when it begins a batch and 0 when it leaves. Whoever changes
//! something that a batch may still be looking at (a region's limit) first makes the change, then moves the epoch on
//! with [`EpochTable::bump`], and acts once [`EpochTable::safe`] is beyond that epoch: then every worker has left or
//! announced anew since, and so sees the change.
//!
//! Both sides order "my store, then my load of yours" with a full fence, so that at least one sees the other.

use crate::mutant::Mutant;
use crate::sync::{AtomicU64, AtomicUsize, Backoff, Mutex, Ordering, fence, store_and_fence};
use crossbeam_utils::CachePadded;

type Action = Box<dyn FnOnce() + Send>;

/// Not announced: the worker is out of its batch.
const OUT: u64 = 0;

pub(crate) struct EpochTable {
    /// Starts at 1 and only grows.
    global: CachePadded<AtomicU64>,
    /// 0, or 1 + the worker that has or wants the store to itself.
    exclusive: CachePadded<AtomicUsize>,
    announced: Box<[CachePadded<AtomicU64>]>,
    /// What to do once its epoch is safe, and how many there are.
    drain: Mutex<Vec<(u64, Action)>>,
    draining: AtomicUsize,
}

impl EpochTable {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            global: CachePadded::new(AtomicU64::new(1)),
            exclusive: CachePadded::new(AtomicUsize::new(0)),
            announced: (0..workers).map(|_| CachePadded::new(AtomicU64::new(OUT))).collect(),
            drain: Mutex::new(Vec::new()),
            draining: AtomicUsize::new(0),
        }
    }

    pub(crate) fn workers(&self) -> usize {
        self.announced.len()
    }

    pub(crate) fn current(&self) -> u64 {
        self.global.load(Ordering::Acquire)
    }

    /// Announces the current epoch; waits while another worker is in the exclusive mode.
    #[inline]
    pub(crate) fn enter(&self, worker: usize) -> u64 {
        loop {
            let epoch = self.current();
            match Mutant::AnnouncedLate.is_planted() {
                true => self.announced[worker].store(epoch, Ordering::Release),
                false => store_and_fence(&self.announced[worker], epoch),
            }
            if self.exclusive.load(Ordering::Acquire) == 0 {
                return epoch;
            }
            self.announced[worker].store(OUT, Ordering::Release);
            let mut backoff = Backoff::new();
            while self.exclusive.load(Ordering::Acquire) != 0 {
                backoff.wait();
            }
        }
    }

    /// Leaves, and does what had waited for this worker.
    #[inline]
    pub(crate) fn leave(&self, worker: usize) {
        // The fence: either we see the drain list's new entry, or its author sees that we are out.
        store_and_fence(&self.announced[worker], OUT);
        if self.draining.load(Ordering::Relaxed) != 0 {
            self.drain();
        }
    }

    /// Announces the current epoch anew; gives way to a worker that wants the exclusive mode.
    #[inline]
    pub(crate) fn refresh(&self, worker: usize, announced: u64) -> u64 {
        let exclusive = self.exclusive.load(Ordering::Relaxed);
        if exclusive == worker + 1 || exclusive == 0 && self.current() == announced {
            return announced;
        }
        self.leave(worker);
        self.enter(worker)
    }

    /// Moves the epoch on. What was changed before the call is seen by all once the returned epoch is safe.
    pub(crate) fn bump(&self) -> u64 {
        self.global.fetch_add(1, Ordering::SeqCst)
    }

    /// The lowest epoch that a worker may be in: every batch that began in an earlier one has ended.
    pub(crate) fn safe(&self) -> u64 {
        // Read before the announcements: a worker that enters during the scan announces at least this.
        let current = self.current();
        fence(Ordering::SeqCst);
        self.announced.iter().map(|slot| slot.load(Ordering::Acquire)).filter(|&e| e != OUT).fold(current, u64::min)
    }

    /// Does `action` once `epoch` is safe: at once, or on the worker that leaves last. It must be short.
    pub(crate) fn defer(&self, epoch: u64, action: impl FnOnce() + Send + 'static) {
        {
            let mut list = self.drain.lock();
            list.push((epoch, Box::new(action)));
            self.draining.store(list.len(), Ordering::Release);
        }
        fence(Ordering::SeqCst);
        self.drain();
    }

    /// Does the deferred actions whose epoch has become safe, in the order of their epochs.
    pub(crate) fn drain(&self) {
        let safe = self.safe() + u64::from(Mutant::SafeTooEarly.is_planted());
        let ready: Vec<(u64, Action)> = {
            let mut list = self.drain.lock();
            let ready: Vec<_> = list.extract_if(.., |(epoch, _)| *epoch < safe).collect();
            self.draining.store(list.len(), Ordering::Release);
            ready
        };
        for (_, action) in ready {
            action();
        }
    }

    /// Takes the store for `worker`, which has announced: returns when all others are out of their batches.
    /// If another worker wants the same, this one leaves its batch first: the two cannot wait on each
    /// other. Returns the epoch announced now.
    pub(crate) fn lock_exclusive(&self, worker: usize, announced: u64) -> u64 {
        let mut epoch = announced;
        while self.exclusive.compare_exchange(0, worker + 1, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            self.leave(worker);
            epoch = self.enter(worker);
        }
        fence(Ordering::SeqCst);
        if Mutant::ExclusiveAtOnce.is_planted() {
            return epoch;
        }
        for (other, slot) in self.announced.iter().enumerate() {
            let mut backoff = Backoff::new();
            while other != worker && slot.load(Ordering::Acquire) != OUT {
                backoff.wait();
            }
        }
        epoch
    }

    pub(crate) fn unlock_exclusive(&self, worker: usize) {
        debug_assert_eq!(self.exclusive.load(Ordering::Relaxed), worker + 1);
        self.exclusive.store(0, Ordering::Release);
    }

    /// True if `worker` has the store to itself.
    pub(crate) fn has_exclusive(&self, worker: usize) -> bool {
        self.exclusive.load(Ordering::Relaxed) == worker + 1
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_deferred_action_waits_for_every_announced_worker() {
        let table = EpochTable::new(2);
        let done = Arc::new(AtomicBool::new(false));
        table.enter(0);
        table.enter(1);
        let epoch = table.bump();
        let flag = done.clone();
        table.defer(epoch, move || flag.store(true, Ordering::SeqCst));
        table.leave(0);
        assert!(table.safe() <= epoch && !done.load(Ordering::SeqCst));
        // Announcing anew is as good as leaving.
        assert_eq!(table.refresh(1, epoch), epoch + 1);
        assert!(table.safe() > epoch && done.load(Ordering::SeqCst));
        table.leave(1);
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn two_workers_that_want_exclusive_at_once_both_get_it() {
        let table = Arc::new(EpochTable::new(2));
        let inside = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..2)
            .map(|id| {
                let (table, inside) = (table.clone(), inside.clone());
                std::thread::spawn(move || {
                    for _ in 0..if cfg!(miri) { 10 } else { 2000 } {
                        let epoch = table.enter(id);
                        table.lock_exclusive(id, epoch);
                        assert!(!inside.swap(true, Ordering::SeqCst), "two workers inside");
                        inside.store(false, Ordering::SeqCst);
                        table.unlock_exclusive(id);
                        table.leave(id);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }
}

#[cfg(all(test, loom))]
mod loom_exclusive {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;

    struct Model {
        epochs: EpochTable,
        store: UnsafeCell<u32>,
    }

    // SAFETY: loom checks the accesses to the store.
    unsafe impl Sync for Model {}
    // SAFETY: loom checks the accesses to the store.
    unsafe impl Send for Model {}

    fn model(mutant: Option<Mutant>, other: impl Fn(&Model) + Copy + Send + Sync + 'static) {
        Mutant::plant(mutant);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.max_branches = 20_000;
        builder.check(move || {
            let model = Arc::new(Model { epochs: EpochTable::new(2), store: UnsafeCell::new(0) });
            let thread = {
                let model = model.clone();
                loom::thread::spawn(move || other(&model))
            };
            alone(&model, 0);
            thread.join().unwrap();
        });
    }

    fn alone(model: &Model, worker: usize) {
        let epoch = model.epochs.enter(worker);
        model.epochs.lock_exclusive(worker, epoch);
        // SAFETY: a write without a latch; that it is alone is what the model checks.
        model.store.with_mut(|store| unsafe { *store += 1 });
        model.epochs.unlock_exclusive(worker);
        model.epochs.leave(worker);
    }

    fn batch(model: &Model) {
        model.epochs.enter(1);
        // SAFETY: a read in a batch.
        model.store.with(|store| unsafe { assert!(*store <= 1) });
        model.epochs.leave(1);
    }

    #[test]
    fn loom_the_exclusive_mode_excludes_a_batch() {
        model(None, batch);
    }

    #[test]
    fn loom_two_that_want_the_exclusive_mode_get_it_one_after_the_other() {
        model(None, |model| alone(model, 1));
    }

    #[test]
    #[should_panic]
    fn loom_catches_an_exclusive_mode_that_waits_for_nobody() {
        model(Some(Mutant::ExclusiveAtOnce), batch);
    }

    #[test]
    #[should_panic]
    fn loom_catches_a_batch_that_announces_itself_too_late() {
        model(Some(Mutant::AnnouncedLate), batch);
    }
}
