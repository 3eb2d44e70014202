//! The hash index: buckets of one cache line, seven entries (tag and address) and a word with the latch and the link
//! to an overflow bucket. It grows and shrinks bucket by bucket while it is used.
//!
//! Entries are read and written under the bucket's latch or in the exclusive mode, hence relaxed. One entry leads to every
//! key of its bucket that has its tag, newest record first.
//!
//! # Which bucket
//! The index is a linear hash table (Litwin, VLDB 1980). Of `count` buckets the first `2^k` are those of level `k`, and the
//! first `count − 2^k` of them have been split: bucket `b` into `b` and `b + 2^k`. A hash's place is its low `k + 1` bits, or
//! `k` bits if there is no such bucket yet. So growth never copies the table, and moves only the entries of the bucket at hand;
//! shrinking is the same backwards.
//!
//! ```text
//!   hash    63              45          shift            0
//!            │     tag       │  first    │                │
//!                  …  ← k ───┴───────────┘   the place: the first size's bits, then the tag's from below
//! ```
//! A record on disk tells nothing without a read, so the bits by which a split divides come from the entry itself: the
//! place begins below the tag with as many bits as the first size needs, and each doubling takes one of the tag's 19. What
//! is left of the tag tells keys of one bucket apart: at 128 times the first size still 12 bits, by which one look-up in
//! 800 follows a neighbour's record. After 19 doublings the index grows no more and its chains do.

mod bucket;
#[cfg(all(test, not(loom)))]
mod chain_bound;
mod chunks;
mod cursor;
mod growth;
#[cfg(not(loom))]
mod image;
#[cfg(all(test, loom))]
mod loom_growth;
mod overflow;
mod shrink;

use crate::address::Address;
use crate::latch;
use crate::mutant::Mutant;
use crate::reclaim::Guard;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Mutex, Ordering};
use bucket::{Bucket, TAG_SHIFT, address, entry, is_tagged};
use chunks::{CHUNK_BUCKETS, Chunks};
use crossbeam_utils::CachePadded;
use growth::Growing;
use overflow::Overflow;

pub(crate) use bucket::{Chunk, Slot};
#[cfg(not(loom))]
pub(crate) use growth::{SPLIT_CHECK_EVERY, SPLITS_PER_CALL};

/// What `DESIGN.md` says of the index.
#[cfg(all(test, not(loom)))]
pub(crate) const NUMBERS: [(&str, u64); 9] = [
    ("index::BUCKET_BYTES", size_of::<Bucket>() as u64),
    ("index::ENTRIES", bucket::ENTRIES as u64),
    ("index::TAG_BITS", bucket::TAG_BITS as u64),
    ("index::CHUNK_BUCKETS", CHUNK_BUCKETS as u64),
    ("index::ENTRIES_PER_BUCKET", growth::ENTRIES_PER_BUCKET as u64),
    ("index::SPLIT_CHECK_EVERY", SPLIT_CHECK_EVERY as u64),
    ("index::SPLITS_PER_CALL", SPLITS_PER_CALL as u64),
    ("index::ENTRIES_BEGIN", shrink::ENTRIES_BEGIN as u64),
    ("index::ENTRIES_END", shrink::ENTRIES_END as u64),
];

pub(crate) struct Index {
    /// Buckets there are. Moves by one under the latches of the two that one was split into, or that were merged.
    count: AtomicUsize,
    /// The place begins at this bit of a hash. As `first`, it changes only while nobody else uses the index.
    shift: AtomicU32,
    /// Buckets at the beginning.
    first: AtomicUsize,
    buckets: Chunks,
    overflow: Overflow,
    /// Entries in use, counted by each worker for itself: one may be negative, only their sum means something.
    entries: Box<[CachePadded<AtomicUsize>]>,
    /// One splits at a time.
    growing: Mutex<Growing>,
}

impl Index {
    pub(crate) fn new(buckets: usize, workers: usize) -> Self {
        assert!(buckets.is_power_of_two() && buckets <= 1 << TAG_SHIFT, "index_buckets is a power of two");
        let chunk = buckets.min(CHUNK_BUCKETS);
        Self {
            count: AtomicUsize::new(buckets),
            shift: AtomicU32::new(TAG_SHIFT - buckets.trailing_zeros()),
            first: AtomicUsize::new(buckets),
            buckets: Chunks::new(buckets, chunk),
            overflow: Overflow::new(chunk),
            entries: (0..workers).map(|_| CachePadded::new(AtomicUsize::new(0))).collect(),
            growing: Mutex::new(Growing::default()),
        }
    }

    /// Has its memory made ahead, there: see [`crate::memory::Supply`].
    #[cfg(not(loom))]
    pub(crate) fn make_ahead(&self, elsewhere: ferrite_io::Elsewhere) {
        self.buckets.make_ahead(elsewhere);
        self.overflow.make_ahead(elsewhere);
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Overflow buckets in use.
    pub(crate) fn overflow_len(&self) -> usize {
        self.overflow.len()
    }

    /// Buckets of the longest chain, the first included; 33 stands for more.
    pub(crate) fn longest_chain(&self) -> usize {
        1 + self.overflow.longest()
    }

    /// Bytes of address space; what is touched of it is resident.
    pub(crate) fn bytes(&self) -> usize {
        self.buckets.bytes() + self.overflow.bytes()
    }

    #[inline]
    pub(crate) fn bucket_of(&self, hash: u64) -> u64 {
        self.place(hash, self.count.load(Ordering::Acquire)) as u64
    }

    /// The hash's bucket of `count` buckets. Exact for who has counted them and holds that bucket's latch; else a hint, and
    /// a bucket that is there as long as the batch.
    #[inline]
    fn place(&self, hash: u64, count: usize) -> usize {
        // The bits of a place that may count, `2^(k+1) − 1`. There is a bucket, which the compiler need not ask.
        let mask = (2 << (count | 1).ilog2()) - 1;
        let place = (hash >> self.shift.load(Ordering::Relaxed)) as usize & mask;
        if place < count { place } else { place & (mask >> 1) }
    }

    #[inline]
    fn main(&self, hash: u64) -> &Bucket {
        self.buckets.get(self.place(hash, self.count.load(Ordering::Acquire)))
    }

    /// The latch word of the bucket that a hash has now, for who holds the latch or the exclusive mode.
    pub(crate) fn word(&self, hash: u64) -> &AtomicU64 {
        &self.main(hash).latch_and_link
    }

    /// Latches the hash's bucket; spins. With `alone` there is no other worker, and nobody to wait for. Beside the latch, whether
    /// another had it.
    #[inline]
    pub(crate) fn latch(&self, hash: u64, write: bool, alone: bool) -> (&AtomicU64, bool) {
        let mut contended = false;
        loop {
            let count = self.count.load(Ordering::Acquire);
            let place = self.place(hash, count);
            let word = &self.buckets.get(place).latch_and_link;
            contended |= latch::lock(word, write, alone);
            // While we waited the bucket may have been split, and the hash's half have moved away; or it was merged.
            let now = self.count.load(Ordering::Acquire);
            if now == count || self.place(hash, now) == place || Mutant::NoSecondLook.is_planted() {
                return (word, contended);
            }
            latch::unlock(word, write, alone);
        }
    }

    /// Brings the bucket's line closer.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        prefetch(std::ptr::from_ref(self.main(hash)).cast());
    }

    /// The newest address under the hash's tag, without a latch: a hint. 0 if none.
    #[inline]
    pub(crate) fn peek(&self, hash: u64) -> Address {
        let words = self.main(hash).entries.iter().map(|entry| entry.load(Ordering::Relaxed));
        words.filter(|&word| is_tagged(word, hash)).map(address).next().unwrap_or(0)
    }

    /// The entry of the hash's tag, if there is one.
    #[inline]
    pub(crate) fn find(&self, hash: u64) -> Option<Slot<'_>> {
        self.find_in(self.bucket_of(hash), hash)
    }

    /// [`Index::find`] in the hash's bucket, whose number is known.
    #[inline]
    pub(crate) fn find_in(&self, bucket: u64, hash: u64) -> Option<Slot<'_>> {
        let mut bucket = self.buckets.get(bucket as usize);
        loop {
            for entry in &bucket.entries {
                if is_tagged(entry.load(Ordering::Relaxed), hash) {
                    return Some(Slot(entry));
                }
            }
            bucket = self.next(bucket)?;
        }
    }

    /// Adds an entry to the hash's bucket, which has none for its tag; latched for writing.
    pub(crate) fn insert(&self, hash: u64, to: Address, worker: usize, guard: &Guard) {
        self.put(self.main(hash), entry(hash, to), guard);
        self.count_entries(worker, 1);
    }

    /// Removes an entry; its bucket is latched for writing. True now and then, if the index is to shrink.
    pub(crate) fn remove(&self, slot: Slot<'_>, worker: usize) -> bool {
        slot.0.store(0, Ordering::Relaxed);
        self.count_entries(worker, usize::MAX);
        self.is_merge_check_due(worker) && self.wanted_merges() > 0
    }

    #[inline]
    fn count_entries(&self, worker: usize, by: usize) {
        // Its worker's alone: no locked instruction.
        let own = &self.entries[worker];
        own.store(own.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }

    /// Entries in use; while workers write, those of a moment ago.
    pub(crate) fn entries(&self) -> usize {
        let sum = self.entries.iter().fold(0usize, |sum, own| sum.wrapping_add(own.load(Ordering::Relaxed)));
        // What one worker adds and another removes may be seen in the other order.
        if sum > isize::MAX as usize { 0 } else { sum }
    }

    /// Puts a whole entry into a free place of the chain that begins at `bucket`.
    fn put<'i>(&'i self, mut bucket: &'i Bucket, word: u64, guard: &Guard) {
        for depth in 0.. {
            if let Some(free) = bucket.entries.iter().find(|entry| entry.load(Ordering::Relaxed) == 0) {
                return free.store(word, Ordering::Relaxed);
            }
            bucket = self.next(bucket).unwrap_or_else(|| {
                let next = self.overflow.take(depth, guard);
                latch::set_link(&bucket.latch_and_link, next);
                self.overflow.get(next)
            });
        }
    }

    /// Forgets everything at once and has its first size again. Gives what is to be dropped later, piece by piece. Only
    /// while nobody else uses the index.
    pub(crate) fn clear(&self) -> Vec<Chunk> {
        let first = self.first.load(Ordering::Relaxed);
        if self.len() == first && self.entries() == 0 && self.overflow_len() == 0 {
            return Vec::new();
        }
        self.restart(first)
    }

    /// Empty, with `first` buckets. Only while nobody else uses the index.
    fn restart(&self, first: usize) -> Vec<Chunk> {
        self.count.store(first, Ordering::Release);
        self.entries.iter().for_each(|own| own.store(0, Ordering::Relaxed));
        let mut old = self.buckets.replace(first);
        old.extend(self.overflow.clear());
        old
    }

    /// Every entry of a bucket's chain; latched, or in the exclusive mode.
    pub(crate) fn each<'i>(&'i self, bucket: usize, mut f: impl FnMut(Slot<'i>)) {
        let mut chain = Some(self.buckets.get(bucket));
        while let Some(bucket) = chain {
            for entry in &bucket.entries {
                if entry.load(Ordering::Relaxed) != 0 {
                    f(Slot(entry));
                }
            }
            chain = self.next(bucket);
        }
    }

    /// The next bucket of a chain.
    #[inline]
    fn next(&self, bucket: &Bucket) -> Option<&Bucket> {
        match link(bucket) {
            0 => None,
            next => Some(self.overflow.get(next)),
        }
    }
}

/// The number of the chain's next bucket; 0 at its end.
#[inline]
fn link(bucket: &Bucket) -> u64 {
    bucket.latch_and_link.load(Ordering::Relaxed) & latch::LINK_MASK
}

/// A hint to the cache; any address is fine.
#[inline]
pub(crate) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and cannot fault.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
