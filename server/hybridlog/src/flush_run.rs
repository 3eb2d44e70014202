//! What the flush did, run by run, for traces and metrics. A run is the pages whose writes were begun together. A page that
//! the disk refuses ends its part of the run with that; each further attempt is a run of its own, so that an outage shows
//! while it lasts and not when it is over.

use crate::flush::{RETRY_MAX, RETRY_MIN};
use crate::space::StorageError;
use crate::store::Store;
use crate::sync::Ordering;
use ferrite_io::{AlignedBuf, Clock, File, World};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushRun {
    /// As [`Clock::monotonic_ns`].
    pub began_ns: u64,
    pub ended_ns: u64,
    /// Pages that it brought into the file.
    pub pages: u64,
    /// What it wrote: pages, and the objects of their records in whole blocks.
    pub bytes: u64,
    /// The epoch whose batches had to end before the pages could be written.
    pub epoch: u64,
    /// The last failure, if the disk refused a write.
    pub error: Option<StorageError>,
}

/// Told of each run that has ended.
pub(crate) type OnRun = Rc<dyn Fn(FlushRun)>;

/// The pages of a run that are on their way share it; the last to leave tells.
struct Run<W: World> {
    world: W,
    on_run: OnRun,
    so_far: RefCell<FlushRun>,
}

impl<W: World> Run<W> {
    fn begin(store: &Store, world: &W, on_run: &OnRun) -> Rc<Self> {
        let now_ns = world.clock().monotonic_ns();
        let epoch = store.log.sealed_epoch.load(Ordering::Acquire);
        let so_far = FlushRun { began_ns: now_ns, ended_ns: now_ns, pages: 0, bytes: 0, epoch, error: None };
        Rc::new(Self { world: world.clone(), on_run: on_run.clone(), so_far: RefCell::new(so_far) })
    }
}

impl<W: World> Drop for Run<W> {
    fn drop(&mut self) {
        let mut run = self.so_far.borrow().clone();
        run.ended_ns = self.world.clock().monotonic_ns();
        // A task that was ended with its runtime did nothing that anybody wants to hear of.
        if run.pages > 0 || run.error.is_some() {
            (self.on_run)(run);
        }
    }
}

/// Begins the reports of the pages of one run.
pub(crate) struct Runs<'f, W: World> {
    store: &'f Store,
    world: &'f W,
    on_run: &'f OnRun,
    run: Option<Rc<Run<W>>>,
}

impl<'f, W: World> Runs<'f, W> {
    pub(crate) fn new(store: &'f Store, world: &'f W, on_run: &'f OnRun) -> Self {
        Self { store, world, on_run, run: None }
    }

    /// One more page of the run.
    pub(crate) fn page(&mut self) -> PageReport<W> {
        let run = self.run.get_or_insert_with(|| Run::begin(self.store, self.world, self.on_run));
        PageReport { run: RefCell::new(Some(run.clone())), on_run: self.on_run.clone(), world: self.world.clone() }
    }
}

/// What happens to one page until it is in the file.
pub(crate) struct PageReport<W: World> {
    /// `None` after a failure, until the next attempt.
    run: RefCell<Option<Rc<Run<W>>>>,
    on_run: OnRun,
    world: W,
}

impl<W: World> PageReport<W> {
    /// Writes `buf` at `offset`, for as long as the disk refuses it, and gives it back.
    pub(crate) async fn write(&self, store: &Store, file: &impl File, mut buf: AlignedBuf, offset: u64) -> AlignedBuf {
        let (len, mut wait) = (buf.len(), RETRY_MIN);
        loop {
            self.run.borrow_mut().get_or_insert_with(|| Run::begin(store, &self.world, &self.on_run));
            let done = file.write_at(buf, offset).await;
            buf = done.buf;
            let error = match done.result {
                Ok(written) if written == len => break,
                Ok(_) => io::Error::from(io::ErrorKind::WriteZero),
                Err(error) => error,
            };
            tracing::warn!(offset, %error, "writing a page or its values failed; it stays in memory and is tried again");
            self.refused(store, &error);
            self.world.clock().sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
        *store.log.failing.lock() = None;
        self.wrote(store, len);
        buf
    }

    /// Bytes were written for the page.
    fn wrote(&self, store: &Store, bytes: usize) {
        store.counters.bytes_flushed.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(run) = &*self.run.borrow() {
            run.so_far.borrow_mut().bytes += bytes as u64;
        }
    }

    /// The disk refused a write, which will be tried again.
    fn refused(&self, store: &Store, error: &io::Error) {
        store.counters.flush_errors.fetch_add(1, Ordering::Relaxed);
        *store.log.failing.lock() = Some(error.to_string());
        store.log.space.notify_waiters();
        if let Some(run) = self.run.take() {
            run.so_far.borrow_mut().error = Some(StorageError::of(error));
        }
    }

    /// The page is in the file.
    pub(crate) fn end(self, store: &Store) {
        store.counters.pages_flushed.fetch_add(1, Ordering::Relaxed);
        if let Some(run) = self.run.take() {
            run.so_far.borrow_mut().pages += 1;
        }
    }
}
