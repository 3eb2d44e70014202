//! Zeroed memory for pages of the log and chunks of the index.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

/// What a processor translates at once where the operating system lets it. Memory of whole multiples of this is asked for
/// with this alignment: the binary's allocator takes that for the wish that it may be huge pages, and gives it zeroed but
/// untouched. Records and buckets lie anywhere, so with small pages most accesses would miss the translation cache too.
const HUGE_PAGE: usize = 2 << 20;
/// A cache line: a bucket is one.
const LINE: usize = 64;

/// A piece of it, at the start of a cache line.
pub(crate) struct Memory {
    at: *mut u8,
    len: usize,
}

// SAFETY: a plain owner; who may access the bytes is decided by latches and epochs.
unsafe impl Send for Memory {}

impl Memory {
    fn layout(len: usize) -> Layout {
        let align = if len.is_multiple_of(HUGE_PAGE) { HUGE_PAGE } else { LINE };
        Layout::from_size_align(len, align).expect("it fits the address space")
    }

    /// `len` is not zero.
    pub(crate) fn zeroed(len: usize) -> Self {
        assert!(len > 0);
        // SAFETY: the length is not zero.
        let at = unsafe { alloc_zeroed(Self::layout(len)) };
        if at.is_null() {
            handle_alloc_error(Self::layout(len));
        }
        Self { at, len }
    }

    pub(crate) fn first(&self) -> *mut u8 {
        self.at
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout.
        unsafe { dealloc(self.at, Self::layout(self.len)) }
    }
}
