//! Overflow buckets, numbered from 1. A split gives back those that it has emptied.
//!
//! Of each it is known how deep in its chain it lies, so that the longest chain is known without a walk: chains change where
//! buckets are taken and given back, which is rare.

use super::bucket::{Bucket, Chunk};
use super::chunks::Chunks;
use crate::reclaim::Guard;
use crate::sync::{AtomicUsize, Mutex, Ordering};

/// Depths that are told apart; a chain beyond them counts as of the last.
const DEPTHS: usize = if cfg!(loom) { 2 } else { 32 };

pub(super) struct Overflow {
    buckets: Chunks,
    free: Mutex<Free>,
    used: AtomicUsize,
    /// By depth, from 0 on: how many chains have an overflow bucket there.
    at_depth: [AtomicUsize; DEPTHS],
}

#[derive(Default)]
struct Free {
    /// Numbers handed out so far are 1 to this.
    highest: u64,
    given_back: Vec<u64>,
}

impl Overflow {
    pub(super) fn new(chunk_buckets: usize) -> Self {
        Self {
            buckets: Chunks::new(0, chunk_buckets),
            free: Mutex::new(Free::default()),
            used: AtomicUsize::new(0),
            at_depth: std::array::from_fn(|_| AtomicUsize::new(0)),
        }
    }

    #[inline]
    pub(super) fn get(&self, number: u64) -> &Bucket {
        self.buckets.get(number as usize - 1)
    }

    /// The number of an empty bucket, which is to be linked behind `depth` others of its chain.
    pub(super) fn take(&self, depth: usize, guard: &Guard) -> u64 {
        let mut free = self.free.lock();
        let number = match free.given_back.pop() {
            Some(number) => number,
            None => {
                free.highest += 1;
                self.buckets.reach(free.highest as usize - 1, guard);
                free.highest
            }
        };
        self.used.fetch_add(1, Ordering::Relaxed);
        self.at_depth[depth.min(DEPTHS - 1)].fetch_add(1, Ordering::Relaxed);
        number
    }

    /// Takes back an empty bucket that no chain leads to. It lay behind `depth` others.
    pub(super) fn give_back(&self, number: u64, depth: usize) {
        self.free.lock().given_back.push(number);
        self.used.fetch_sub(1, Ordering::Relaxed);
        self.at_depth[depth.min(DEPTHS - 1)].fetch_sub(1, Ordering::Relaxed);
    }

    /// Of the chain that has the most, at most 32 are told.
    pub(super) fn longest(&self) -> usize {
        self.at_depth.iter().rposition(|chains| chains.load(Ordering::Relaxed) > 0).map_or(0, |deepest| deepest + 1)
    }

    /// In use.
    pub(super) fn len(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Has them made ahead, there.
    #[cfg(not(loom))]
    pub(super) fn make_ahead(&self, elsewhere: ferrite_io::Elsewhere) {
        self.buckets.make_ahead(elsewhere);
    }

    /// Of all made, in use or not.
    pub(super) fn bytes(&self) -> usize {
        self.buckets.bytes()
    }

    /// Gives up all of them. Only while nobody else uses the index.
    pub(super) fn clear(&self) -> Vec<Chunk> {
        *self.free.lock() = Free::default();
        self.used.store(0, Ordering::Relaxed);
        self.at_depth.iter().for_each(|chains| chains.store(0, Ordering::Relaxed));
        self.buckets.replace(0)
    }
}
