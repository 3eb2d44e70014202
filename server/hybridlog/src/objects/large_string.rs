//! A string that does not fit into a page.

use super::{Object, Spot};
use std::any::Any;

/// Bytes that are freed at a time.
const SHED: usize = 1 << 20;

pub(crate) struct LargeString(Vec<u8>);

impl LargeString {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The concatenation of `parts`, of `len` bytes.
    pub(crate) fn of(parts: &[&[u8]], len: usize) -> Self {
        let mut bytes = Vec::with_capacity(len);
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        Self(bytes)
    }

    pub(crate) fn of_mut(object: &mut dyn Object) -> Option<&mut Self> {
        (object as &mut dyn Any).downcast_mut()
    }

    /// Puts `insert` at `offset`, zeros before it where the string was shorter.
    pub(crate) fn splice(&mut self, offset: usize, insert: &[u8]) {
        let (len, end) = (self.0.len(), offset + insert.len());
        if end > self.0.capacity() {
            // What is appended to is appended to again; doubling would be much of a large string.
            self.0.reserve_exact((end - len).max(len / 8));
        }
        if end > len {
            self.0.resize(end, 0);
        }
        self.0[offset..end].copy_from_slice(insert);
    }
}

impl Object for LargeString {
    fn written_len(&self) -> usize {
        self.0.len()
    }

    fn write_part(&self, from: Spot, out: &mut [u8]) -> Spot {
        let end = from.byte + out.len();
        out.copy_from_slice(&self.0[from.byte..end]);
        Spot { byte: end, ..from }
    }

    fn as_written(&self) -> Option<&[u8]> {
        Some(&self.0)
    }

    fn memory(&self) -> usize {
        size_of::<Self>() + self.0.capacity()
    }

    fn shed(&mut self) -> bool {
        let Some(left) = self.0.capacity().checked_sub(SHED).filter(|&left| left > SHED) else { return false };
        self.0.truncate(left);
        // What is as large is mapped: its end goes back to the kernel, and nothing is copied.
        self.0.shrink_to(left);
        // An allocator that does not shrink it would be asked for ever.
        self.0.capacity() <= left
    }

    fn duplicate(&self) -> Box<dyn Object> {
        Box::new(Self(self.0.clone()))
    }
}
