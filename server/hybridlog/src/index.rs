//! The hash index: buckets of one cache line, seven entries (tag and address) and a word with the latch
//! and the link to an overflow bucket.
//!
//! Entries are read and written under the bucket's latch or in the exclusive mode, hence relaxed. One
//! entry leads to every key of its bucket that has its tag, newest record first.

use crate::address::{ADDRESS_BITS, ADDRESS_MASK, Address};
use crate::latch;
use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Mutex, Ordering};

const ENTRIES: usize = 7;
/// Overflow buckets in the first chunk; each further chunk doubles.
const FIRST_CHUNK: usize = 64;
/// Chunks: together 64 × 2³² overflow buckets, more than memory holds.
const CHUNKS: usize = 32;

#[repr(C, align(64))]
struct Bucket {
    entries: [AtomicU64; ENTRIES],
    /// In a main bucket latch and link, in an overflow bucket the link alone.
    latch_and_link: AtomicU64,
}

const _: () = assert!(cfg!(loom) || size_of::<Bucket>() == 64);

/// Memory for buckets, zeroed by the kernel as it is touched: an untouched bucket costs nothing.
struct Buckets {
    first: *mut Bucket,
    len: usize,
    raw: *mut u8,
}

// SAFETY: a plain owner of atomics.
unsafe impl Send for Buckets {}
// SAFETY: a plain owner of atomics.
unsafe impl Sync for Buckets {}

impl Buckets {
    fn layout(len: usize) -> std::alloc::Layout {
        // With an alignment above 16 the allocator would clear the memory itself and so touch it: align by hand.
        std::alloc::Layout::from_size_align((len + 1) * size_of::<Bucket>(), 16)
            .expect("the index fits the address space")
    }

    fn zeroed(len: usize) -> Self {
        // SAFETY: the size is not zero.
        let raw = unsafe { std::alloc::alloc_zeroed(Self::layout(len)) };
        if raw.is_null() {
            std::alloc::handle_alloc_error(Self::layout(len));
        }
        // SAFETY: there is one bucket more than asked for, so aligning up stays inside.
        let first = unsafe { raw.add(raw.align_offset(align_of::<Bucket>())) }.cast::<Bucket>();
        Self { first, len, raw }
    }

    #[inline]
    fn get(&self, at: usize) -> &Bucket {
        debug_assert!(at < self.len);
        // SAFETY: in range; zero bytes are a valid bucket (seven empty entries, no latch, no link).
        unsafe { &*self.first.add(at) }
    }
}

impl Drop for Buckets {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout.
        unsafe { std::alloc::dealloc(self.raw, Self::layout(self.len)) }
    }
}

/// Overflow buckets, numbered from 1; a chunk never moves.
struct Overflow {
    chunks: [AtomicPtr<Buckets>; CHUNKS],
    used: AtomicUsize,
    grow: Mutex<()>,
}

impl Overflow {
    fn place(number: u64) -> (usize, usize) {
        let at = number as usize - 1 + FIRST_CHUNK;
        let chunk = at.ilog2() - FIRST_CHUNK.ilog2();
        (chunk as usize, at - (FIRST_CHUNK << chunk))
    }

    #[inline]
    fn get(&self, number: u64) -> &Bucket {
        let (chunk, at) = Self::place(number);
        // SAFETY: a number is handed out after its chunk was stored, and chunks live as long as `self`.
        unsafe { &*self.chunks[chunk].load(Ordering::Acquire) }.get(at)
    }

    fn take(&self) -> u64 {
        let _guard = self.grow.lock();
        let number = self.used.load(Ordering::Relaxed) as u64 + 1;
        let (chunk, _) = Self::place(number);
        if self.chunks[chunk].load(Ordering::Relaxed).is_null() {
            let buckets = Box::new(Buckets::zeroed(FIRST_CHUNK << chunk));
            self.chunks[chunk].store(Box::into_raw(buckets), Ordering::Release);
        }
        self.used.store(number as usize, Ordering::Relaxed);
        number
    }
}

impl Drop for Overflow {
    fn drop(&mut self) {
        for chunk in &self.chunks {
            let chunk = chunk.load(Ordering::Relaxed);
            if !chunk.is_null() {
                // SAFETY: came from `Box::into_raw` in `take`, and nobody else is left.
                drop(unsafe { Box::from_raw(chunk) });
            }
        }
    }
}

pub(crate) struct Index {
    buckets: Buckets,
    overflow: Overflow,
    mask: u64,
}

/// Where an entry is, for as long as the bucket stays latched.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'i>(&'i AtomicU64);

impl Slot<'_> {
    #[inline]
    pub(crate) fn address(self) -> Address {
        self.0.load(Ordering::Relaxed) & ADDRESS_MASK
    }

    #[inline]
    pub(crate) fn set(self, hash: u64, address: Address) {
        debug_assert!(address != 0 && address <= ADDRESS_MASK);
        self.0.store(tag(hash) | address, Ordering::Relaxed);
    }

    pub(crate) fn clear(self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[inline]
fn tag(hash: u64) -> u64 {
    hash & !ADDRESS_MASK
}

impl Index {
    pub(crate) fn new(buckets: usize) -> Self {
        assert!(buckets.is_power_of_two() && buckets as u64 <= 1 << ADDRESS_BITS, "index_buckets is a power of two");
        Self {
            buckets: Buckets::zeroed(buckets),
            overflow: Overflow {
                chunks: std::array::from_fn(|_| AtomicPtr::new(std::ptr::null_mut())),
                used: AtomicUsize::new(0),
                grow: Mutex::new(()),
            },
            mask: buckets as u64 - 1,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.buckets.len
    }

    pub(crate) fn overflow_len(&self) -> usize {
        self.overflow.used.load(Ordering::Relaxed)
    }

    /// Bytes of address space; what is touched of it is resident.
    pub(crate) fn bytes(&self) -> usize {
        (self.len() + self.overflow_len()) * size_of::<Bucket>()
    }

    #[inline]
    pub(crate) fn bucket_of(&self, hash: u64) -> u64 {
        hash & self.mask
    }

    #[inline]
    pub(crate) fn latch(&self, bucket: u64) -> &AtomicU64 {
        &self.buckets.get(bucket as usize).latch_and_link
    }

    /// Brings the bucket's line closer.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        prefetch(std::ptr::from_ref(self.buckets.get(self.bucket_of(hash) as usize)).cast());
    }

    /// The newest address under the hash's tag, without a latch: a hint. 0 if none.
    #[inline]
    pub(crate) fn peek(&self, hash: u64) -> Address {
        let bucket = self.buckets.get(self.bucket_of(hash) as usize);
        for entry in &bucket.entries {
            let word = entry.load(Ordering::Relaxed);
            if tag(word) == tag(hash) {
                return word & ADDRESS_MASK;
            }
        }
        0
    }

    /// The entry of the hash's tag, if there is one.
    #[inline]
    pub(crate) fn find(&self, hash: u64) -> Option<Slot<'_>> {
        let mut bucket = self.buckets.get(self.bucket_of(hash) as usize);
        loop {
            for entry in &bucket.entries {
                let word = entry.load(Ordering::Relaxed);
                if tag(word) == tag(hash) && word & ADDRESS_MASK != 0 {
                    return Some(Slot(entry));
                }
            }
            match bucket.latch_and_link.load(Ordering::Relaxed) & latch::LINK_MASK {
                0 => return None,
                next => bucket = self.overflow.get(next),
            }
        }
    }

    /// A free entry in the hash's bucket, which has none for its tag; latched for writing.
    pub(crate) fn vacant(&self, hash: u64) -> Slot<'_> {
        let mut bucket = self.buckets.get(self.bucket_of(hash) as usize);
        loop {
            if let Some(free) = bucket.entries.iter().find(|entry| entry.load(Ordering::Relaxed) == 0) {
                return Slot(free);
            }
            let next = match bucket.latch_and_link.load(Ordering::Relaxed) & latch::LINK_MASK {
                0 => {
                    let next = self.overflow.take();
                    latch::set_link(&bucket.latch_and_link, next);
                    next
                }
                next => next,
            };
            bucket = self.overflow.get(next);
        }
    }

    /// Empties every chain. Only while nobody else uses the index.
    pub(crate) fn clear(&self) {
        for bucket in 0..self.len() {
            let mut bucket = self.buckets.get(bucket);
            loop {
                for entry in &bucket.entries {
                    // Most buckets of an index are empty: what was never written is not written now.
                    if entry.load(Ordering::Relaxed) != 0 {
                        entry.store(0, Ordering::Relaxed);
                    }
                }
                match bucket.latch_and_link.load(Ordering::Relaxed) & latch::LINK_MASK {
                    0 => break,
                    next => bucket = self.overflow.get(next),
                }
            }
        }
    }

    /// The newest address of every chain of a bucket.
    pub(crate) fn each(&self, bucket: u64, mut f: impl FnMut(Address)) {
        let mut bucket = self.buckets.get(bucket as usize);
        loop {
            for entry in &bucket.entries {
                match entry.load(Ordering::Relaxed) & ADDRESS_MASK {
                    0 => {}
                    address => f(address),
                }
            }
            match bucket.latch_and_link.load(Ordering::Relaxed) & latch::LINK_MASK {
                0 => return,
                next => bucket = self.overflow.get(next),
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_beyond_seven_go_to_overflow_buckets_and_freed_ones_are_used_again() {
        let index = Index::new(1);
        let hash = |n: u64| n << ADDRESS_BITS;
        for n in 1..=5000u64 {
            assert!(index.find(hash(n)).is_none());
            index.vacant(hash(n)).set(hash(n), n * 64);
        }
        for n in 1..=5000u64 {
            assert_eq!(index.find(hash(n)).unwrap().address(), n * 64);
        }
        let overflow = index.overflow_len();
        assert_eq!(overflow, 5000usize.div_ceil(ENTRIES) - 1);
        index.find(hash(77)).unwrap().clear();
        assert!(index.find(hash(77)).is_none());
        index.vacant(hash(7777)).set(hash(7777), 8);
        assert_eq!(index.overflow_len(), overflow);
        let mut seen = 0;
        index.each(0, |_| seen += 1);
        assert_eq!(seen, 5000);
    }
}
