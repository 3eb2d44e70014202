//! A block-aligned buffer that is owned by whoever holds it: by the kernel while a transfer runs.

use std::fmt;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

/// Alignment of direct reads, in bytes.
pub const BLOCK: usize = 4096;

/// One block; exists so that `Vec` aligns the buffer without unsafe code.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK]);

/// Bytes that start at a multiple of [`BLOCK`] in memory. The capacity is a whole number of blocks, the
/// length any number up to it.
pub struct AlignedBuf {
    blocks: Vec<Block>,
    len: usize,
}

impl AlignedBuf {
    /// `len` zero bytes. Of large ones the allocator has zeroed memory: nothing touches them here.
    pub fn zeroed(len: usize) -> Self {
        Self { blocks: bytemuck::zeroed_vec(len.div_ceil(BLOCK)), len }
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buf = Self::zeroed(bytes.len());
        buf.copy_from_slice(bytes);
        buf
    }

    /// The longest that it can be.
    pub fn capacity(&self) -> usize {
        self.blocks.len() * BLOCK
    }

    /// `len` bytes again, whatever they hold: for a buffer that is filled anew.
    ///
    /// # Panics
    /// If that is more than the capacity.
    pub fn reuse(&mut self, len: usize) {
        assert!(len <= self.capacity(), "a buffer does not grow");
        self.len = len;
    }

    /// Shortens to `len` bytes; no effect if it is not longer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.blocks)[..self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.blocks)[..self.len]
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_at_a_block_and_holds_what_was_copied() {
        let bytes: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
        let mut buf = AlignedBuf::copy_of(&bytes);
        assert_eq!(buf.as_ptr() as usize % BLOCK, 0);
        assert_eq!(&buf[..], &bytes[..]);
        buf.truncate(3);
        assert_eq!(&buf[..], &bytes[..3]);
        buf.truncate(10);
        assert_eq!(buf.len(), 3);
        buf.reuse(5001);
        assert_eq!((&buf[..5000], buf[5000], buf.capacity()), (&bytes[..], 0, 2 * BLOCK));
    }
}
