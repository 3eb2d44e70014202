//! Where a page's bytes are: anonymous memory, a map of the file, or nowhere.

use crate::memory::Memory;
use crate::sync::{AtomicPtr, Mutex, Ordering};

/// What keeps a frame's bytes in place.
pub(crate) enum Owner {
    Nothing,
    Anonymous(Memory),
    Mapped(Box<dyn AsRef<[u8]> + Send + Sync>),
}

impl Owner {
    fn base(&self) -> *mut u8 {
        match self {
            Self::Nothing => std::ptr::null_mut(),
            Self::Anonymous(memory) => memory.first(),
            Self::Mapped(map) => (**map).as_ref().as_ptr().cast_mut(),
        }
    }
}

struct Frame {
    base: AtomicPtr<u8>,
    owner: Mutex<Owner>,
}

/// A ring of frames: page `n` has frame `n % len` while it is in memory.
pub(crate) struct Frames(Box<[Frame]>);

impl Frames {
    pub(crate) fn new(len: usize) -> Self {
        assert!(len.is_power_of_two());
        let empty = || Frame { base: AtomicPtr::new(std::ptr::null_mut()), owner: Mutex::new(Owner::Nothing) };
        Self((0..len).map(|_| empty()).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn frame(&self, page: u64) -> &Frame {
        &self.0[page as usize & (self.0.len() - 1)]
    }

    /// The page's first byte; null if it is not in memory.
    #[inline]
    pub(crate) fn base(&self, page: u64) -> *mut u8 {
        self.frame(page).base.load(Ordering::Acquire)
    }

    /// Puts the page's bytes elsewhere. The old owner must be kept until the epoch has passed.
    pub(crate) fn replace(&self, page: u64, owner: Owner) -> Owner {
        let frame = self.frame(page);
        let mut old = frame.owner.lock();
        frame.base.store(owner.base(), Ordering::Release);
        std::mem::replace(&mut *old, owner)
    }
}
