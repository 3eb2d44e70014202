//! Objects that nobody needs any more. One of a million elements takes long to free, so it goes in steps, between which its worker
//! serves others; whoever was the last to hold it leaves it here.

use super::Object;
use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering};

/// An object of no more memory is freed by who drops it: in some ten microseconds.
pub(crate) const FREED_IN_ONE_GO: usize = 64 << 10;

/// What has objects freed that were left here: it is woken for each of them.
pub(crate) type Wake = Box<dyn Fn() + Send + Sync>;

pub(crate) struct Remains {
    objects: Mutex<Vec<Box<dyn Object>>>,
    /// Of those that are left, the one in [`Remains::free_some`]'s hands included.
    count: AtomicUsize,
    bytes: AtomicUsize,
    freed: AtomicU64,
    wake: Wake,
}

impl Remains {
    pub(super) fn new(wake: Wake) -> Self {
        Self {
            objects: Mutex::new(Vec::new()),
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            freed: AtomicU64::new(0),
            wake,
        }
    }

    /// Takes what nobody looks at any more.
    pub(super) fn take(&self, object: Box<dyn Object>) {
        self.bytes.fetch_add(object.memory(), Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.objects.lock().push(object);
        (self.wake)();
    }

    /// Frees a part of one; false: there is nothing.
    pub(crate) fn free_some(&self) -> bool {
        let Some(mut object) = self.objects.lock().pop() else { return false };
        let before = object.memory();
        if object.shed() {
            self.bytes.fetch_sub(before.saturating_sub(object.memory()), Ordering::Relaxed);
            self.objects.lock().push(object);
        } else {
            drop(object);
            self.bytes.fetch_sub(before, Ordering::Relaxed);
            self.count.fetch_sub(1, Ordering::Relaxed);
            self.freed.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// How many are left, and the bytes of memory that they take.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.count.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// How many there were and are no more.
    pub(crate) fn freed(&self) -> u64 {
        self.freed.load(Ordering::Relaxed)
    }
}

/// The object of one whose own was taken.
pub(super) struct Nothing;

impl Object for Nothing {
    fn written_len(&self) -> usize {
        0
    }

    fn write_part(&self, from: super::Spot, _: &mut [u8]) -> super::Spot {
        from
    }

    fn memory(&self) -> usize {
        0
    }

    fn shed(&mut self) -> bool {
        false
    }

    fn duplicate(&self) -> Box<dyn Object> {
        Box::new(Self)
    }
}
