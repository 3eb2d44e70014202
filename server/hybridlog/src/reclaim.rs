//! Memory that another worker's batch may still be reading: freed by `crossbeam-epoch` once no batch can.
//!
//! Every engine has a collector of its own, every worker a handle in it; a batch holds a guard. With the global
//! collector what one simulated server frees would depend on what the process did before.
//!
//! Loom cannot look into `crossbeam-epoch`: under loom what is retired is kept until the end of the model, and a model
//! that frees it at once instead must fail.

#[cfg(not(loom))]
mod imp {
    use crossbeam_epoch::{Collector, LocalHandle};

    /// An engine's collector.
    pub(crate) struct Reclaim(Collector);

    /// A worker's part in it; it stays on the worker's thread.
    pub(crate) struct Participant(LocalHandle);

    /// While it lives, nothing is freed that was reachable when it was made.
    pub(crate) type Guard = crossbeam_epoch::Guard;

    impl Reclaim {
        pub(crate) fn new() -> Self {
            Self(Collector::new())
        }

        pub(crate) fn register(&self) -> Participant {
            Participant(self.0.register())
        }
    }

    impl Participant {
        #[inline]
        pub(crate) fn pin(&self) -> Guard {
            self.0.pin()
        }
    }

    /// Does `action`, which must be short, when every guard of now is gone.
    pub(crate) fn defer(guard: &Guard, action: impl FnOnce() + Send + 'static) {
        guard.defer(action);
        // Or it would wait for 63 others to come: there may never be as many.
        guard.flush();
    }
}

#[cfg(loom)]
mod imp {
    use std::sync::{Arc, Mutex};

    /// What was deferred, kept until the model ends. No part of the model: hence std's mutex.
    #[derive(Clone, Default)]
    pub(crate) struct Reclaim(Arc<Mutex<Vec<Box<dyn FnOnce() + Send>>>>);

    pub(crate) type Guard = Reclaim;

    impl Reclaim {
        pub(crate) fn new() -> Self {
            Self::default()
        }
    }

    pub(crate) fn defer(guard: &Guard, action: impl FnOnce() + Send + 'static) {
        guard.0.lock().expect("no model panics here").push(Box::new(action));
    }
}

pub(crate) use imp::*;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Counted(Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn what_is_retired_outlives_the_guards_of_that_moment_and_no_more() {
        let reclaim = Reclaim::new();
        let (reader, writer) = (reclaim.register(), reclaim.register());
        let freed = Arc::new(AtomicUsize::new(0));
        let reading = reader.pin();
        let garbage = Counted(freed.clone());
        defer(&writer.pin(), move || drop(garbage));
        for _ in 0..1000 {
            writer.pin().flush();
        }
        assert_eq!(freed.load(Ordering::SeqCst), 0, "a guard of before is there");
        drop(reading);
        // A few turns of the epoch: one retired thing does not wait for others.
        for _ in 0..8 {
            writer.pin().flush();
        }
        assert_eq!(freed.load(Ordering::SeqCst), 1);
    }
}
