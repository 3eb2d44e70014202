//! Zeroed memory for pages of the log and chunks of the index.

use crate::sync::Mutex;
use ferrite_io::Elsewhere;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::sync::{Arc, OnceLock};

/// What a processor translates at once where the operating system lets it. Memory of whole multiples of this is asked for
/// with this alignment: the binary's allocator takes that for the wish that it may be huge pages, and gives it zeroed but
/// untouched. Records and buckets lie anywhere, so with small pages most accesses would miss the translation cache too.
const HUGE_PAGE: usize = 2 << 20;
/// The least that it translates.
const SMALL_PAGE: usize = 4096;
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

    /// Has the kernel back all of it.
    fn touch(&mut self) {
        for at in (0..self.len).step_by(SMALL_PAGE) {
            // SAFETY: within the allocation, which is ours alone; volatile, or the store of what is there would be left out.
            unsafe { self.at.add(at).write_volatile(0) };
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout.
        unsafe { dealloc(self.at, Self::layout(self.len)) }
    }
}

/// Makes memory of one length. What is to be huge pages can be made ahead and elsewhere: the first access to such a page waits
/// until the kernel has one, for which it may have to move other memory about. Loading ten million keys, commands were seen
/// to wait 20 ms for that.
pub(crate) struct Supply {
    len: usize,
    elsewhere: OnceLock<Elsewhere>,
    ahead: Arc<Mutex<Ahead>>,
}

#[derive(Default)]
struct Ahead {
    made: Option<Memory>,
    /// Somebody is at it.
    asked: bool,
}

/// What [`Supply::take`] gives, and whether it has been touched.
pub(crate) struct Supplied {
    pub(crate) memory: Memory,
    pub(crate) touched: bool,
}

impl Supply {
    /// Of pieces of `len` bytes.
    pub(crate) fn new(len: usize) -> Self {
        Self { len, elsewhere: OnceLock::new(), ahead: Arc::default() }
    }

    /// From now on pieces are made ahead, there.
    pub(crate) fn make_ahead(&self, elsewhere: Elsewhere) {
        if self.len.is_multiple_of(HUGE_PAGE) {
            let _ = self.elsewhere.set(elsewhere);
        }
    }

    /// The piece that was made ahead, or one that nobody has touched.
    pub(crate) fn take(&self) -> Supplied {
        let made = self.ahead.lock().made.take();
        let touched = made.is_some();
        Supplied { memory: made.unwrap_or_else(|| Memory::zeroed(self.len)), touched }
    }

    /// Another one will be taken soon.
    pub(crate) fn ask(&self) {
        let Some(elsewhere) = self.elsewhere.get() else { return };
        {
            let mut ahead = self.ahead.lock();
            if ahead.made.is_some() || std::mem::replace(&mut ahead.asked, true) {
                return;
            }
        }
        let (len, ahead) = (self.len, self.ahead.clone());
        elsewhere(Box::new(move || {
            let mut memory = Memory::zeroed(len);
            memory.touch();
            *ahead.lock() = Ahead { made: Some(memory), asked: false };
        }));
    }

    /// Bytes made ahead.
    pub(crate) fn bytes(&self) -> usize {
        if self.ahead.lock().made.is_some() { self.len } else { 0 }
    }

    /// What was made ahead, to be freed.
    pub(crate) fn purge(&self) -> Option<Memory> {
        self.ahead.lock().made.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex as Held;

    static JOBS: Held<Vec<ferrite_io::Job>> = Held::new(Vec::new());

    #[test]
    fn a_piece_is_made_ahead_once_and_taken_once() {
        let supply = Supply::new(HUGE_PAGE);
        supply.ask();
        assert!(!supply.take().touched, "nobody makes any");
        supply.make_ahead(|job| JOBS.lock().expect("no test panics with it").push(job));
        supply.ask();
        supply.ask();
        assert!(!supply.take().touched, "who needs it before does not wait for it");
        let jobs = std::mem::take(&mut *JOBS.lock().expect("no test panics with it"));
        assert_eq!((jobs.len(), supply.bytes()), (1, 0), "asked for twice, made once");
        jobs.into_iter().for_each(|job| job());
        assert_eq!(supply.bytes(), HUGE_PAGE);
        supply.ask();
        assert!(JOBS.lock().expect("no test panics with it").is_empty(), "there is one");
        let Supplied { memory, touched } = supply.take();
        assert!(touched && memory.len() == HUGE_PAGE);
        // SAFETY: within the allocation, which is ours.
        assert_eq!(unsafe { (*memory.first(), *memory.first().add(HUGE_PAGE - 1)) }, (0, 0));
        assert_eq!((supply.take().touched, supply.bytes()), (false, 0));
    }

    #[test]
    fn small_pieces_are_not_worth_it() {
        let supply = Supply::new(SMALL_PAGE);
        supply.make_ahead(|job| job());
        supply.ask();
        assert_eq!((supply.take().touched, supply.bytes()), (false, 0));
    }

    #[test]
    fn what_was_made_ahead_can_be_given_up() {
        let supply = Supply::new(2 * HUGE_PAGE);
        supply.make_ahead(|job| job());
        supply.ask();
        assert_eq!(supply.purge().map(|memory| memory.len()), Some(2 * HUGE_PAGE));
        assert_eq!(supply.bytes(), 0);
    }
}
