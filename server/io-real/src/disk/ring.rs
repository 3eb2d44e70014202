//! The worker's own io_uring: transfers of the log device.
//!
//! Submissions made in one round of the worker's tasks reach the kernel together: a push only wakes the
//! driver task, which runs after the tasks that were already due and enters the kernel once for all of them.
//! The table of operations owns every buffer until its completion arrives, whoever still waits for it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ferrite_io::{AlignedBuf, SubmissionId};
use io_uring::{IoUring, opcode, squeue, types};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Submissions;

/// Operations in flight at most; further ones wait. NVMe drives are saturated well below this.
const DEPTH: u32 = 256;

/// Submissions that wait for the driver at most. It comes after the tasks that were due already, whose commands may take
/// longer than the disk needs for what it has: with so many it is told at once.
const WAITING_MAX: usize = 16;

/// Longest single transfer: the kernel cuts at 2 GiB - 4 KiB; this stays a multiple of the block size.
const TRANSFER_MAX: usize = 1 << 30;

/// Wait before entering the kernel again when it had no memory to take submissions.
const RETRY: Duration = Duration::from_millis(1);

/// One ring, used by one worker.
pub(super) struct Ring {
    state: RefCell<State>,
    /// One permit an operation: bounds what is in flight, so that neither queue can overflow.
    slots: Arc<Semaphore>,
    submissions: Rc<Submissions>,
}

struct State {
    uring: IoUring,
    operations: BTreeMap<u64, Operation>,
    driver: Option<Waker>,
    /// Whether the driver was already told of the submissions that wait.
    driver_told: bool,
    /// Scratch: who to wake once the state is no longer borrowed.
    wake: Vec<Waker>,
}

/// Everything the kernel refers to while it works, kept until it is done.
struct Operation {
    buf: Option<AlignedBuf>,
    _file: Arc<File>,
    phase: Phase,
}

enum Phase {
    InFlight {
        waiter: Option<Waker>,
        _slot: OwnedSemaphorePermit,
    },
    /// The future was dropped; the completion frees the buffer.
    Abandoned {
        _slot: OwnedSemaphorePermit,
    },
    Complete(i32),
}

/// A finished submission: the kernel's result (negative: errno) and the buffer.
struct Completion {
    id: SubmissionId,
    result: io::Result<usize>,
    buf: Option<AlignedBuf>,
}

/// A ring of `entries`, with the flags that save interrupts where the kernel knows them (5.19 / 6.0).
pub(crate) fn build(entries: u32) -> io::Result<IoUring> {
    match IoUring::builder().setup_coop_taskrun().setup_single_issuer().build(entries) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(entries),
        other => other,
    }
}

impl Ring {
    /// Creates the ring and spawns its driver on this worker.
    pub(super) fn start(submissions: Rc<Submissions>) -> io::Result<Rc<Self>> {
        let uring = build(DEPTH)?;
        // SAFETY: the driver is the descriptor's only user in epoll, and drops it before its own reference to
        // the ring, which keeps the descriptor open.
        let fd = unsafe { AsyncFd::register_with_interest(RingFd(uring.as_raw_fd()), Interest::READABLE) };
        let fd = fd.map_err(io::Error::from)?;
        let ring = Rc::new(Self {
            state: RefCell::new(State {
                uring,
                operations: BTreeMap::new(),
                driver: None,
                driver_told: false,
                wake: Vec::new(),
            }),
            slots: Arc::new(Semaphore::new(DEPTH as usize)),
            submissions,
        });
        let mut driver = Driver { fd, ring: ring.clone(), retry: None };
        tokio::task::spawn_local(poll_fn(move |cx| driver.poll(cx)));
        Ok(ring)
    }

    /// Reads into `buf[from..]`; the result counts the bytes of this one transfer.
    pub(super) async fn read(
        &self,
        file: &Arc<File>,
        mut buf: AlignedBuf,
        from: usize,
        offset: u64,
    ) -> (io::Result<usize>, AlignedBuf, SubmissionId) {
        let into = &mut buf[from..];
        let len = into.len().min(TRANSFER_MAX) as u32;
        let entry = opcode::Read::new(types::Fd(file.as_raw_fd()), into.as_mut_ptr(), len).offset(offset).build();
        self.transfer(entry, file, buf).await
    }

    /// Writes from `buf[from..]`; the result counts the bytes of this one transfer.
    pub(super) async fn write(
        &self,
        file: &Arc<File>,
        buf: AlignedBuf,
        from: usize,
        offset: u64,
    ) -> (io::Result<usize>, AlignedBuf, SubmissionId) {
        let bytes = &buf[from..];
        let len = bytes.len().min(TRANSFER_MAX) as u32;
        let entry = opcode::Write::new(types::Fd(file.as_raw_fd()), bytes.as_ptr(), len).offset(offset).build();
        self.transfer(entry, file, buf).await
    }

    pub(super) async fn sync(&self, file: &Arc<File>) -> io::Result<()> {
        let entry = opcode::Fsync::new(types::Fd(file.as_raw_fd())).flags(types::FsyncFlags::DATASYNC).build();
        self.submit(entry, file, None).await.result.map(drop)
    }

    pub(super) async fn allocate(&self, file: &Arc<File>, offset: u64, len: u64) -> io::Result<()> {
        self.fallocate(file, 0, offset, len).await
    }

    /// `mode` as fallocate(2) has it.
    pub(super) async fn fallocate(&self, file: &Arc<File>, mode: i32, offset: u64, len: u64) -> io::Result<()> {
        let entry = opcode::Fallocate::new(types::Fd(file.as_raw_fd()), len).mode(mode).offset(offset).build();
        self.submit(entry, file, None).await.result.map(drop)
    }

    async fn transfer(
        &self,
        entry: squeue::Entry,
        file: &Arc<File>,
        buf: AlignedBuf,
    ) -> (io::Result<usize>, AlignedBuf, SubmissionId) {
        let done = self.submit(entry, file, Some(buf)).await;
        (done.result, done.buf.expect("a transfer keeps its buffer"), done.id)
    }

    /// `entry` may refer to `buf`'s bytes and to `file`'s descriptor, to nothing else.
    async fn submit(&self, entry: squeue::Entry, file: &Arc<File>, buf: Option<AlignedBuf>) -> Completion {
        let slot = self.slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let id = self.submissions.next();
        let phase = Phase::InFlight { waiter: None, _slot: slot };
        self.push(entry.user_data(id.0), Operation { buf, _file: file.clone(), phase });
        InFlight { ring: self, id }.await
    }

    fn push(&self, entry: squeue::Entry, operation: Operation) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.operations.insert(entry.get_user_data(), operation);
        let mut queue = state.uring.submission();
        // SAFETY: the buffer and the file that the entry refers to were moved into `operations`, which keeps
        // them (a buffer's bytes do not move with it) until the completion with this id was reaped.
        unsafe { queue.push(&entry) }.expect("as many slots as queue entries");
        let waiting = queue.len();
        drop(queue);
        if waiting >= WAITING_MAX {
            // What the kernel does not take now the driver tries again.
            let _ = state.uring.submit();
        }
        if !state.driver_told
            && let Some(driver) = &state.driver
        {
            state.driver_told = true;
            driver.wake_by_ref();
        }
    }

    /// Takes every completion that is there and wakes who waits for it.
    fn reap(&self) {
        let mut state = self.state.borrow_mut();
        let State { uring, operations, wake, .. } = &mut *state;
        let mut abandoned = Vec::new();
        for entry in uring.completion() {
            let id = entry.user_data();
            let operation = operations.get_mut(&id).expect("a completion belongs to an operation in flight");
            match std::mem::replace(&mut operation.phase, Phase::Complete(entry.result())) {
                Phase::InFlight { waiter, .. } => wake.extend(waiter),
                Phase::Abandoned { .. } => abandoned.extend(operations.remove(&id)),
                Phase::Complete(_) => unreachable!("an operation completes once"),
            }
        }
        let mut wake = std::mem::take(wake);
        // Wakers and buffers run foreign code when they go: not while the state is borrowed.
        drop(state);
        drop(abandoned);
        wake.drain(..).for_each(Waker::wake);
        self.state.borrow_mut().wake = wake;
    }

    /// Hands the queued submissions to the kernel.
    fn enter(&self) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        state.driver_told = false;
        // The kernel stops at an entry it refuses at once, so one call need not take all of them.
        while !state.uring.submission().is_empty() {
            match state.uring.submit() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Ring {
    /// The kernel may still write into buffers: waits until it is done with all of them.
    fn drop(&mut self) {
        loop {
            self.reap();
            let state = self.state.get_mut();
            if state.operations.values().all(|operation| matches!(operation.phase, Phase::Complete(_))) {
                return;
            }
            match state.uring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Better to lose the memory than to let the kernel write into what another owns by then.
                Err(_) => return std::mem::forget(std::mem::take(&mut state.operations)),
            }
        }
    }
}

/// Waits for one operation.
struct InFlight<'a> {
    ring: &'a Ring,
    id: SubmissionId,
}

impl Future for InFlight<'_> {
    type Output = Completion;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Completion> {
        let mut state = self.ring.state.borrow_mut();
        let operation = state.operations.get_mut(&self.id.0).expect("polled again after it was ready");
        match &mut operation.phase {
            Phase::InFlight { waiter: Some(waiter), .. } => {
                waiter.clone_from(cx.waker());
                Poll::Pending
            }
            Phase::InFlight { waiter, .. } => {
                *waiter = Some(cx.waker().clone());
                Poll::Pending
            }
            Phase::Complete(result) => {
                let result = *result;
                let operation = state.operations.remove(&self.id.0);
                let result = if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result as usize) };
                Poll::Ready(Completion { id: self.id, result, buf: operation.and_then(|operation| operation.buf) })
            }
            Phase::Abandoned { .. } => unreachable!("only dropping the future abandons"),
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut state = self.ring.state.borrow_mut();
        let Some(operation) = state.operations.get_mut(&self.id.0) else {
            return;
        };
        let unused = match std::mem::replace(&mut operation.phase, Phase::Complete(0)) {
            Phase::InFlight { _slot, waiter } => {
                operation.phase = Phase::Abandoned { _slot };
                (None, waiter)
            }
            Phase::Complete(_) => (state.operations.remove(&self.id.0), None),
            Phase::Abandoned { .. } => unreachable!("dropped once"),
        };
        drop(state);
        drop(unused);
    }
}

/// The ring's descriptor is readable while completions wait.
struct RingFd(RawFd);

impl AsRawFd for RingFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

/// The worker's task that enters the kernel and reaps.
struct Driver {
    // First, so that it leaves epoll before the ring is closed and its number taken by another file.
    fd: AsyncFd<RingFd>,
    ring: Rc<Ring>,
    retry: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Driver {
    /// Never ready: it lives as long as the worker's runtime.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut state = self.ring.state.borrow_mut();
            match &mut state.driver {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        // Clearing before reaping: what completes in between sets readiness again.
        while let Poll::Ready(ready) = self.fd.poll_read_ready(cx) {
            match ready {
                Ok(mut ready) => ready.clear_ready(),
                // The runtime is shutting down.
                Err(_) => return Poll::Pending,
            }
        }
        if let Some(retry) = &mut self.retry {
            if retry.as_mut().poll(cx).is_pending() {
                self.ring.reap();
                return Poll::Pending;
            }
            self.retry = None;
        }
        if self.ring.enter().is_err() {
            // EAGAIN, EBUSY, ENOMEM: the kernel took nothing for want of memory. The submissions stay queued.
            let mut retry = Box::pin(tokio::time::sleep(RETRY));
            if retry.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            self.retry = Some(retry);
        }
        self.ring.reap();
        Poll::Pending
    }
}
