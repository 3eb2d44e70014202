//! Every atomic, lock and spin hint of this crate comes from here, so that loom can replace them.

#[cfg(all(test, not(loom)))]
mod counted;

#[cfg(all(test, not(loom)))]
pub(crate) use counted::steps;

#[cfg(all(test, not(loom)))]
mod imp {
    pub(crate) use super::counted::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Mutex};
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{Ordering, fence};
    pub(crate) use std::thread::yield_now;
}

#[cfg(not(any(test, loom)))]
mod imp {
    pub(crate) use parking_lot::Mutex;
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
    pub(crate) use std::thread::yield_now;
}

#[cfg(loom)]
mod imp {
    #![allow(unused_imports)]
    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
    pub(crate) use loom::thread::yield_now;

    /// loom's mutex with parking_lot's face.
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Self::new(T::default())
        }
    }

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("no model panics while it holds a lock")
        }

        pub(crate) fn try_lock(&self) -> Option<loom::sync::MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }
}

pub(crate) use imp::*;

/// Spins a little, then lets another thread have the core: there may be more workers than cores.
pub(crate) struct Backoff(u32);

impl Backoff {
    /// Spins before the first yield: about what a latch is held for.
    const SPINS: u32 = 64;

    pub(crate) fn new() -> Self {
        Self(0)
    }

    pub(crate) fn wait(&mut self) {
        if cfg!(loom) || self.0 >= Self::SPINS {
            yield_now();
        } else {
            self.0 += 1;
            spin_loop();
        }
    }
}

/// Stores and then orders every later load after it, as `store` + `fence(SeqCst)` do.
#[inline]
pub(crate) fn store_and_fence(word: &AtomicU64, value: u64) {
    // A locked exchange is the cheaper full barrier on x86 (an `mfence` also drains what it need not).
    #[cfg(all(target_arch = "x86_64", not(loom), not(miri)))]
    {
        word.swap(value, Ordering::SeqCst);
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
    }
    #[cfg(not(all(target_arch = "x86_64", not(loom), not(miri))))]
    {
        word.store(value, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }
}
