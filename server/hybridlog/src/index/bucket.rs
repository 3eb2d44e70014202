//! A bucket: one cache line of seven entries and a word with the latch and the link to an overflow bucket.
//!
//! An entry is a tag of 19 bits, the highest of the hash, above an address without its three low bits, which are zero.

use crate::address::{ADDRESS_BITS, Address};
#[cfg(not(loom))]
use crate::memory::{Memory, Supply};
use crate::sync::{AtomicU64, Ordering};

/// Loom looks at every access: two entries show what seven would.
pub(super) const ENTRIES: usize = if cfg!(loom) { 2 } else { 7 };
/// Records begin at multiples of 8: their addresses are kept without these bits.
const ALIGN_BITS: u32 = 3;
/// The tag begins at this bit, in an entry as in a hash.
pub(super) const TAG_SHIFT: u32 = ADDRESS_BITS - ALIGN_BITS;
/// Bits of a tag. The index can double this often: see [`super::Index`].
pub(super) const TAG_BITS: u32 = u64::BITS - TAG_SHIFT;
pub(super) const TAG_MASK: u64 = u64::MAX << TAG_SHIFT;

#[repr(C, align(64))]
pub(super) struct Bucket {
    pub(super) entries: [AtomicU64; ENTRIES],
    /// In a main bucket latch and link, in an overflow bucket the link alone.
    pub(super) latch_and_link: AtomicU64,
}

const _: () = assert!(cfg!(loom) || size_of::<Bucket>() == 64);

/// Where an entry is, for as long as the bucket stays latched.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'i>(pub(super) &'i AtomicU64);

impl Slot<'_> {
    #[inline]
    pub(crate) fn address(self) -> Address {
        address(self.0.load(Ordering::Relaxed))
    }

    /// Tag and address as they lie in the bucket.
    #[cfg(not(loom))]
    pub(crate) fn word(self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Where an entry's word leads.
    #[cfg(not(loom))]
    pub(crate) fn address_of(word: u64) -> Address {
        address(word)
    }

    /// Lets an entry in use lead to another record.
    #[inline]
    pub(crate) fn set_address(self, to: Address) {
        debug_assert!(to != 0);
        self.0.store(self.0.load(Ordering::Relaxed) & TAG_MASK | to >> ALIGN_BITS, Ordering::Relaxed);
    }
}

#[inline]
pub(super) fn entry(hash: u64, address: Address) -> u64 {
    debug_assert!(address != 0 && address < 1 << ADDRESS_BITS && address.is_multiple_of(1 << ALIGN_BITS));
    hash & TAG_MASK | address >> ALIGN_BITS
}

/// 0 in an unused entry.
#[inline]
pub(super) fn address(entry: u64) -> Address {
    (entry & !TAG_MASK) << ALIGN_BITS
}

/// True for an entry in use with the hash's tag.
#[inline]
pub(super) fn is_tagged(entry: u64, hash: u64) -> bool {
    (entry ^ hash) & TAG_MASK == 0 && entry & !TAG_MASK != 0
}

/// Memory for buckets, which are valid as they are: zero is an empty entry, no latch, no link.
#[cfg(not(loom))]
pub(crate) struct Chunk(Memory);

#[cfg(not(loom))]
impl Chunk {
    pub(super) fn zeroed(len: usize) -> Self {
        Self(Memory::zeroed(len * size_of::<Bucket>()))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// The first of its buckets.
    pub(super) fn first(&self) -> *mut Bucket {
        self.0.first().cast()
    }
}

/// Chunks are made ahead from so many on: before, one that nobody uses yet would be much of what there is.
#[cfg(not(loom))]
const AHEAD_FROM: usize = 4;

/// Makes chunks of one size.
#[cfg(not(loom))]
pub(super) struct Chunkery(Supply);

#[cfg(not(loom))]
impl Chunkery {
    /// Of `len` buckets each.
    pub(super) fn new(len: usize) -> Self {
        Self(Supply::new(len * size_of::<Bucket>()))
    }

    /// See [`Supply::make_ahead`].
    pub(super) fn make_ahead(&self, elsewhere: ferrite_io::Elsewhere) {
        self.0.make_ahead(elsewhere);
    }

    /// One more beside `there` of them; the next will be needed.
    pub(super) fn make(&self, there: usize) -> Chunk {
        let chunk = Chunk(self.0.take().memory);
        if there >= AHEAD_FROM {
            self.0.ask();
        }
        chunk
    }

    /// Bytes of chunks made ahead.
    pub(super) fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

#[cfg(loom)]
pub(super) struct Chunkery(usize);

#[cfg(loom)]
impl Chunkery {
    pub(super) fn new(len: usize) -> Self {
        Self(len)
    }

    pub(super) fn make(&self, _: usize) -> Chunk {
        Chunk::zeroed(self.0)
    }

    pub(super) fn bytes(&self) -> usize {
        0
    }
}

/// Loom's atomics are no plain words: they are made one by one.
#[cfg(loom)]
pub(crate) struct Chunk(Box<[Bucket]>);

#[cfg(loom)]
impl Chunk {
    pub(super) fn zeroed(len: usize) -> Self {
        let bucket =
            || Bucket { entries: std::array::from_fn(|_| AtomicU64::new(0)), latch_and_link: AtomicU64::new(0) };
        Self((0..len).map(|_| bucket()).collect())
    }

    pub(super) fn first(&self) -> *mut Bucket {
        self.0.as_ptr().cast_mut()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_entry_keeps_the_tag_and_every_address() {
        let hash = 0x8765_4321_0fed_cba9;
        for at in [8, 64, 1 << 20, (1 << ADDRESS_BITS) - 8] {
            let entry = entry(hash, at);
            assert_eq!(address(entry), at);
            assert!(is_tagged(entry, hash) && !is_tagged(entry, hash ^ 1 << TAG_SHIFT) && !is_tagged(entry, !hash));
        }
        assert!(!is_tagged(0, 0), "an unused entry has no tag");
    }

    #[test]
    fn an_entry_that_is_led_elsewhere_keeps_its_tag() {
        let word = AtomicU64::new(entry(u64::MAX, 4096));
        Slot(&word).set_address(64);
        assert_eq!(word.load(Ordering::Relaxed), entry(u64::MAX, 64));
    }
}
