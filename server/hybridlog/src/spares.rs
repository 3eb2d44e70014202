//! Buffers of single records that were read, kept for the next reads: one is taken for each record and given back a few
//! commands later, and the system's allocator takes its time for what is aligned to blocks.

use ferrite_io::AlignedBuf;
use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;

/// Buffers that are kept, about as many as there are reads under way.
const KEPT_MAX: usize = 128;
/// What is longer is rare and goes back to the allocator.
const KEPT_LEN_MAX: usize = 4 * ferrite_io::BLOCK;

/// One worker's.
#[derive(Default)]
pub(crate) struct Spares(RefCell<Vec<AlignedBuf>>);

impl Spares {
    /// A buffer of `len` bytes, which hold anything.
    pub(crate) fn take(&self, len: usize) -> AlignedBuf {
        let mut kept = self.0.borrow_mut();
        // The last one is still in the processor's cache, and mostly they are all of one length.
        match kept.pop_if(|buf| buf.capacity() >= len) {
            Some(mut buf) => {
                buf.reuse(len);
                buf
            }
            None => AlignedBuf::zeroed(len),
        }
    }

    pub(crate) fn give_back(&self, buf: AlignedBuf) {
        let mut kept = self.0.borrow_mut();
        if buf.capacity() > KEPT_LEN_MAX {
            return;
        }
        if kept.len() < KEPT_MAX {
            kept.push(buf);
        } else if let Some(last) = kept.last_mut().filter(|last| last.capacity() < buf.capacity()) {
            // Reads have become longer.
            *last = buf;
        }
    }

    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.0.borrow().len()
    }
}

/// A buffer that goes back to where it came from.
pub(crate) struct Lent {
    buf: AlignedBuf,
    to: Rc<Spares>,
}

impl Lent {
    pub(crate) fn new(buf: AlignedBuf, to: Rc<Spares>) -> Self {
        Self { buf, to }
    }
}

impl Deref for Lent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buf
    }
}

impl std::fmt::Debug for Lent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.buf.fmt(f)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.to.give_back(std::mem::replace(&mut self.buf, AlignedBuf::zeroed(0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_and_is_taken_again() {
        let spares = Rc::new(Spares::default());
        let first = Lent::new(spares.take(8192), spares.clone());
        let at = first.as_ptr();
        let second = Lent::new(spares.take(4096), spares.clone());
        drop(first);
        let again = spares.take(4096);
        assert_eq!((again.as_ptr(), again.len(), spares.kept()), (at, 4096, 0));
        drop(second);
        assert_eq!((spares.take(8192).len(), spares.kept()), (8192, 1), "what is too short stays");
    }

    #[test]
    fn few_are_kept_and_no_long_ones() {
        let spares = Spares::default();
        spares.give_back(AlignedBuf::zeroed(KEPT_LEN_MAX + 1));
        assert_eq!(spares.kept(), 0);
        (0..2 * KEPT_MAX).for_each(|_| spares.give_back(AlignedBuf::zeroed(4096)));
        assert_eq!(spares.kept(), KEPT_MAX);
        spares.give_back(AlignedBuf::zeroed(8192));
        assert_eq!((spares.kept(), spares.take(8192).capacity()), (KEPT_MAX, 8192));
    }
}
