//! What a store notes while a checkpoint walks over its index: see [`crate::checkpoint`].

use crate::address::Address;
use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering};

#[derive(Default)]
pub(crate) struct Imaging {
    /// Changes in the exclusive mode: who is in a batch sees what was set before the batch.
    on: AtomicBool,
    since: Mutex<Since>,
    /// Of [`Since::removed`] on the heap, from the beginning of the walk until the checkpoint is over: it keeps them until then.
    bytes: AtomicUsize,
}

/// What happened since the walk began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Since {
    /// The log's tail at the beginning, or when everything was forgotten.
    pub scan_from: Address,
    /// The index began anew: what was walked before does not count.
    pub forgotten: bool,
    /// Entries that were removed: the key's hash, and the log's tail at that time. In no order.
    pub removed: Vec<(u64, Address)>,
}

impl Imaging {
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Exclusive mode only.
    pub(crate) fn begin(&self, tail: Address) {
        *self.since.lock() = Since { scan_from: tail, ..Since::default() };
        self.on.store(true, Ordering::Relaxed);
    }

    /// The entry of `hash` was removed, under its latch, when the tail was at `tail`.
    #[cold]
    pub(crate) fn removed(&self, hash: u64, tail: Address) {
        let removed = &mut self.since.lock().removed;
        removed.push((hash, tail));
        self.bytes.store(removed.capacity() * size_of::<(u64, Address)>(), Ordering::Relaxed);
    }

    /// Bytes on the heap for the checkpoint that is taken.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Exclusive mode only.
    pub(crate) fn forget_all(&self, tail: Address) {
        if self.is_on() {
            *self.since.lock() = Since { scan_from: tail, forgotten: true, removed: Vec::new() };
            self.bytes.store(0, Ordering::Relaxed);
        }
    }

    /// While a walk is under way: a recovery reads the log from here on.
    pub(crate) fn scan_from(&self) -> Option<Address> {
        self.is_on().then(|| self.since.lock().scan_from)
    }

    pub(crate) fn was_forgotten(&self) -> bool {
        self.since.lock().forgotten
    }

    /// The checkpoint is in force or given up.
    pub(crate) fn is_over(&self) {
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// Ends it.
    pub(crate) fn end(&self) -> Since {
        self.on.store(false, Ordering::Relaxed);
        std::mem::take(&mut self.since.lock())
    }
}
