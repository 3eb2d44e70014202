//! Buckets by number, in chunks of one size. A chunk never moves; the directory that leads to the chunks is replaced by
//! one of twice its length when it is full. Chunks at the end are freed in two steps: they are retired, and taken once every
//! batch of that time has ended. Until then they stay as they are, so that who used them before and who uses them again
//! mean the same latches.

use super::bucket::{Bucket, Chunk, Chunkery};
use crate::reclaim::{Guard, defer};
use crate::sync::{AtomicBool, AtomicPtr, Mutex, Ordering};
use std::ptr::NonNull;
use std::sync::Arc;

/// Buckets of a chunk, 2 MiB, a huge page: what is zeroed, and later freed, in one go. Either takes well below a millisecond.
pub(super) const CHUNK_BUCKETS: usize = if cfg!(miri) { 1 << 6 } else { 1 << 15 };

pub(super) struct Chunks {
    /// The first of the directory's slots, one for each chunk. Whoever reads it is pinned.
    directory: AtomicPtr<AtomicPtr<Bucket>>,
    /// Buckets of a chunk as a power of two.
    chunk_bits: u32,
    /// Makes those beyond the first ones.
    chunkery: Chunkery,
    owned: Mutex<Owned>,
}

/// What the pointers point to.
struct Owned {
    chunks: Vec<Chunk>,
    directory: Directory,
    retired: Option<RetiredChunks>,
}

/// Chunks that no bucket in use lies in.
struct RetiredChunks {
    /// The first of them.
    from: usize,
    /// No batch of that time is left.
    unseen: Arc<AtomicBool>,
}

impl Owned {
    fn new(buckets: usize, chunk_buckets: usize) -> Self {
        let chunks: Vec<Chunk> = (0..buckets.div_ceil(chunk_buckets)).map(|_| Chunk::zeroed(chunk_buckets)).collect();
        let directory = Directory::of(&chunks, chunks.len().max(1));
        Self { chunks, directory, retired: None }
    }
}

/// Owned as a `Box` would, but without a box's claim that nobody else looks at it: readers do, through the pointer.
struct Directory(NonNull<[AtomicPtr<Bucket>]>);

// SAFETY: an owner of atomics.
unsafe impl Send for Directory {}

impl Directory {
    fn of(chunks: &[Chunk], len: usize) -> Self {
        let slot = |at: usize| AtomicPtr::new(chunks.get(at).map_or(std::ptr::null_mut(), Chunk::first));
        let slots: Box<[AtomicPtr<Bucket>]> = (0..len).map(slot).collect();
        Self(NonNull::from(Box::leak(slots)))
    }

    fn slots(&self) -> &[AtomicPtr<Bucket>] {
        // SAFETY: it is ours until we drop it, and is only read: what changes are its atomics.
        unsafe { self.0.as_ref() }
    }

    fn first(&self) -> *mut AtomicPtr<Bucket> {
        self.0.as_ptr().cast()
    }

    /// What a reader would meet if the directory were freed at once.
    #[cfg(loom)]
    fn poison(&self) {
        self.slots().iter().for_each(|slot| slot.store(std::ptr::null_mut(), Ordering::Relaxed));
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // SAFETY: leaked by `of`, and nobody reads it any more.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl Chunks {
    /// `buckets` of them to begin with, a power of two or none.
    pub(super) fn new(buckets: usize, chunk_buckets: usize) -> Self {
        debug_assert!(chunk_buckets.is_power_of_two() && buckets.is_multiple_of(chunk_buckets));
        let owned = Owned::new(buckets, chunk_buckets);
        Self {
            directory: AtomicPtr::new(owned.directory.first()),
            chunk_bits: chunk_buckets.trailing_zeros(),
            chunkery: Chunkery::new(chunk_buckets),
            owned: Mutex::new(owned),
        }
    }

    /// A bucket that [`Chunks::reach`] has made. Its number came to the caller through an acquire that is after that, or
    /// under a latch that was.
    #[inline]
    pub(super) fn get(&self, at: usize) -> &Bucket {
        let chunk = at >> self.chunk_bits;
        // SAFETY: a directory has a slot for every bucket made before it was published; one that was replaced is not
        // freed while we are pinned.
        let first = unsafe { &*self.directory.load(Ordering::Acquire).add(chunk) }.load(Ordering::Acquire);
        assert!(!cfg!(loom) || !first.is_null(), "the directory was freed");
        // SAFETY: the chunk has this bucket, and lives as long as `self`, or until `replace` in the exclusive mode.
        unsafe { &*first.add(at & ((1 << self.chunk_bits) - 1)) }
    }

    /// Makes the buckets up to `at`, which is at most one chunk away.
    pub(super) fn reach(&self, at: usize, guard: &Guard) {
        let chunk = at >> self.chunk_bits;
        let mut owned = self.owned.lock();
        if owned.retired.as_ref().is_some_and(|retired| retired.from <= chunk) {
            owned.retired = None;
        }
        if chunk < owned.chunks.len() {
            return;
        }
        debug_assert_eq!(chunk, owned.chunks.len());
        owned.chunks.push(self.chunkery.make(chunk));
        if chunk < owned.directory.slots().len() {
            owned.directory.slots()[chunk].store(owned.chunks[chunk].first(), Ordering::Release);
            return;
        }
        let longer = Directory::of(&owned.chunks, 2 * owned.directory.slots().len());
        self.directory.store(longer.first(), Ordering::Release);
        let old = std::mem::replace(&mut owned.directory, longer);
        #[cfg(loom)]
        if crate::mutant::Mutant::FreeAtOnce.is_planted() {
            old.poison();
        }
        defer(guard, move || drop(old));
    }

    /// Retires the chunks beyond the first `buckets` buckets; true while there are any that were not taken yet. No other
    /// worker reaches for a bucket meanwhile.
    pub(super) fn retire_beyond(&self, buckets: usize, guard: &Guard) -> bool {
        let from = buckets.div_ceil(1 << self.chunk_bits);
        let mut owned = self.owned.lock();
        if owned.retired.is_some() || from >= owned.chunks.len() {
            return owned.retired.is_some();
        }
        let unseen = Arc::new(AtomicBool::new(false));
        owned.retired = Some(RetiredChunks { from, unseen: unseen.clone() });
        #[cfg(loom)]
        if crate::mutant::Mutant::ReleaseAtOnce.is_planted() {
            unseen.store(true, Ordering::Release);
        }
        defer(guard, move || unseen.store(true, Ordering::Release));
        true
    }

    /// The retired chunks, if no batch can be looking at them.
    pub(super) fn take_retired(&self) -> Vec<Chunk> {
        let mut owned = self.owned.lock();
        let from = match &owned.retired {
            Some(retired) if retired.unseen.load(Ordering::Acquire) => retired.from,
            _ => return Vec::new(),
        };
        owned.retired = None;
        for slot in &owned.directory.slots()[from..] {
            slot.store(std::ptr::null_mut(), Ordering::Release);
        }
        owned.chunks.split_off(from)
    }

    /// Begins anew with at least `buckets` of them and gives back the old ones. Only while nobody else uses the index.
    pub(super) fn replace(&self, buckets: usize) -> Vec<Chunk> {
        let fresh = Owned::new(buckets, 1 << self.chunk_bits);
        let mut owned = self.owned.lock();
        self.directory.store(fresh.directory.first(), Ordering::Release);
        std::mem::replace(&mut *owned, fresh).chunks
    }

    /// Has chunks made ahead, there.
    #[cfg(not(loom))]
    pub(super) fn make_ahead(&self, elsewhere: ferrite_io::Elsewhere) {
        self.chunkery.make_ahead(elsewhere);
    }

    /// Bytes of all buckets made, those ahead included.
    pub(super) fn bytes(&self) -> usize {
        self.len() * size_of::<Bucket>() + self.chunkery.bytes()
    }

    /// Buckets made.
    pub(super) fn len(&self) -> usize {
        self.owned.lock().chunks.len() << self.chunk_bits
    }
}
