//! The file of extents grows when somebody waits for it, and loses its end when that is of no use any more.

use super::extents::ahead_of;
use crate::flush::flush_again;
use crate::space::StorageError;
use crate::store::Store;
use ferrite_io::{Clock, File, World};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Wait after the disk refused space: the first and, doubling, the longest.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// What the file has grown by is left alone for so long: who waited for it has to come and take it. Without that, who is woken later
/// than the flush goes round again finds the file shrunk, asks anew, and neither gets on.
const KEPT: Duration = Duration::from_secs(1);

/// Lets the file grow and shrink.
#[derive(Default)]
pub(crate) struct ExtentReserve {
    /// It does not shrink before this time, [`Clock::monotonic_ns`].
    kept_until_ns: u64,
    /// Do not try before this time, [`Clock::monotonic_ns`].
    not_before_ns: u64,
    wait: Duration,
    unsupported: bool,
}

impl ExtentReserve {
    pub(crate) async fn run<W: World>(&mut self, store: &Arc<Store>, world: &W, file: &impl File) {
        let extents = &store.log.objects.extents;
        if world.clock().monotonic_ns() >= self.kept_until_ns
            && let Some(to) = extents.give_up_the_end()
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
                    self.kept_until_ns = world.clock().monotonic_ns() + KEPT.as_nanos() as u64;
                    flush_again(store, world, KEPT, |_| {});
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
        flush_again(store, world, self.wait, |store| _ = store.log.objects.extents.refusal.lift());
    }
}
