//! The file of extents grows when somebody waits for it, and loses its end when that is of no use any more.

use super::extents::ahead_of;
use crate::space::StorageError;
use crate::store::Store;
use ferrite_io::{Clock, File, World};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Wait after the disk refused space: the first and, doubling, the longest.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Lets the file grow and shrink.
#[derive(Default)]
pub(crate) struct ExtentReserve {
    /// Do not try before this time, [`Clock::monotonic_ns`].
    not_before_ns: u64,
    wait: Duration,
    unsupported: bool,
}

impl ExtentReserve {
    pub(crate) async fn run<W: World>(&mut self, store: &Arc<Store>, world: &W, file: &impl File) {
        let extents = &store.log.objects.extents;
        if let Some(to) = extents.give_up_the_end()
            && let Err(error) = file.set_len(to).await
        {
            // It is longer than it has to be.
            tracing::warn!(%error, "the end of the file of extents cannot be given back");
        }
        let (mut end, wanted) = extents.ends();
        if wanted <= end || world.clock().monotonic_ns() < self.not_before_ns {
            return;
        }
        let mut to = wanted + ahead_of(end);
        loop {
            let result = match self.unsupported {
                true => file.set_len(to).await,
                false => file.allocate(end, to - end).await,
            };
            match result {
                Ok(()) => {
                    end = to;
                    extents.set_end(end);
                    self.wait = Duration::ZERO;
                    if extents.refusal.lift() {
                        tracing::info!("the file of extents can grow again");
                    }
                    store.log.space.notify_waiters();
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Unsupported && !self.unsupported => {
                    self.unsupported = true;
                }
                // What the disk has left may be less than the usual step.
                Err(_) if to > wanted => to = wanted,
                Err(error) => return self.refused(store, world, &error),
            }
        }
    }

    fn refused<W: World>(&mut self, store: &Arc<Store>, world: &W, error: &io::Error) {
        if store.log.objects.extents.refusal.set(error) {
            match StorageError::is_full(error) {
                true => tracing::error!(%error, "no space for the file of extents: large values are refused"),
                false => {
                    tracing::error!(%error, "the disk fails to reserve space for the file of extents: large values are refused");
                }
            }
        }
        // What was waited for is refused; who tries again says so again.
        store.log.objects.extents.forget_wanted();
        store.log.space.notify_waiters();
        self.wait = (self.wait * 2).clamp(RETRY_MIN, RETRY_MAX);
        self.not_before_ns = world.clock().monotonic_ns() + self.wait.as_nanos() as u64;
        let (clock, wait, log) = (world.clock().clone(), self.wait, store.log.clone());
        world.spawn(async move {
            clock.sleep(wait).await;
            log.objects.extents.refusal.lift();
            log.work.notify_one();
        });
    }
}
