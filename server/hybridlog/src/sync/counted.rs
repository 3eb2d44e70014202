//! Atomics and locks that count how often a thread uses one: what tests go by that bound the work in the exclusive mode. Whatever
//! looks at an entry of the index, a record, an object or an extent uses at least one.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::atomic;

thread_local! {
    static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// How many atomics and locks this thread has used while `f` ran.
pub(crate) fn steps<T>(f: impl FnOnce() -> T) -> (T, u64) {
    let before = STEPS.get();
    let done = f();
    (done, STEPS.get() - before)
}

macro_rules! counted {
    ($($name:ident($inner:ty, $value:ty);)*) => { $(
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub(crate) struct $name($inner);

        impl $name {
            pub(crate) const fn new(value: $value) -> Self {
                Self(<$inner>::new(value))
            }
        }

        impl Deref for $name {
            type Target = $inner;

            #[inline]
            fn deref(&self) -> &$inner {
                STEPS.set(STEPS.get() + 1);
                &self.0
            }
        }
    )* };
}

counted! {
    AtomicBool(atomic::AtomicBool, bool);
    AtomicU32(atomic::AtomicU32, u32);
    AtomicU64(atomic::AtomicU64, u64);
    AtomicUsize(atomic::AtomicUsize, usize);
}

#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct AtomicPtr<T>(atomic::AtomicPtr<T>);

impl<T> AtomicPtr<T> {
    pub(crate) const fn new(value: *mut T) -> Self {
        Self(atomic::AtomicPtr::new(value))
    }
}

impl<T> Deref for AtomicPtr<T> {
    type Target = atomic::AtomicPtr<T>;

    #[inline]
    fn deref(&self) -> &atomic::AtomicPtr<T> {
        STEPS.set(STEPS.get() + 1);
        &self.0
    }
}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }
}

impl<T> Deref for Mutex<T> {
    type Target = parking_lot::Mutex<T>;

    #[inline]
    fn deref(&self) -> &parking_lot::Mutex<T> {
        STEPS.set(STEPS.get() + 1);
        &self.0
    }
}
