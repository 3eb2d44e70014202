//! Threads with a World: workers, pinned to a core, and what runs beside them; started and joined.

use std::any::Any;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::{DiskChoice, RealWorld, Runtime, disk, priority};

/// Why a worker gave no result.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Its thread or runtime could not be set up.
    #[error("cannot start a worker: {0}")]
    Start(#[source] io::Error),
    /// It, or a task that it spawned, panicked.
    #[error("a worker panicked: {0}")]
    Panicked(String),
}

/// Runs a worker on this thread to its end.
pub fn run_worker<F, Fut>(choice: DiskChoice, worker: F) -> Result<Fut::Output, WorkerError>
where
    F: FnOnce(RealWorld) -> Fut,
    Fut: Future,
{
    let runtime = Runtime::new(choice).map_err(WorkerError::Start)?;
    // Unwinding drops the worker's future inside the runtime, and the runtime with all tasks after it.
    catch_unwind(AssertUnwindSafe(move || runtime.block_on(worker)))
        .unwrap_or_else(|payload| Err(WorkerError::Panicked(panic_message(&*payload))))
}

/// Starts a thread named `name` that runs a worker. With `core`, it is pinned to that one of the processors
/// that the process may use (counted from 0, wrapping around); where pinning is refused it runs anywhere.
pub fn spawn_worker_thread<F, Fut, T>(
    name: &str,
    core: Option<usize>,
    choice: DiskChoice,
    worker: F,
) -> io::Result<WorkerHandle<T>>
where
    F: FnOnce(RealWorld) -> Fut + Send + 'static,
    Fut: Future<Output = T>,
    T: Send + 'static,
{
    let place = move || {
        if let Some(core) = core {
            pin_to(core);
        }
    };
    spawn_thread(name, place, choice, worker)
}

/// Starts a thread named `name` with a World of its own, for what is not a command's: it has no core of its own, gives way to workers
/// where the kernel lets it, and its files, if it has any, are the pool's.
pub fn spawn_background_thread<F, Fut, T>(name: &str, task: F) -> io::Result<WorkerHandle<T>>
where
    F: FnOnce(RealWorld) -> Fut + Send + 'static,
    Fut: Future<Output = T>,
    T: Send + 'static,
{
    spawn_thread(name, priority::give_way, DiskChoice::IoThreads, task)
}

/// The kernel keeps so much of a thread's name; `top -H` shows no more.
const NAME_MAX: usize = 15;

fn spawn_thread<F, Fut, T>(
    name: &str,
    place: impl FnOnce() + Send + 'static,
    choice: DiskChoice,
    worker: F,
) -> io::Result<WorkerHandle<T>>
where
    F: FnOnce(RealWorld) -> Fut + Send + 'static,
    Fut: Future<Output = T>,
    T: Send + 'static,
{
    debug_assert!(name.len() <= NAME_MAX, "{name} would be cut");
    // Before it takes its place, which threads that it starts would inherit.
    disk::start_pool()?;
    let (done, result) = oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        place();
        // Nobody may be waiting any more.
        let _ = done.send(run_worker(choice, worker));
    })?;
    Ok(WorkerHandle { result })
}

/// A running worker. Awaiting or joining it gives its result once its runtime is gone; dropping it lets the
/// worker run.
#[derive(Debug)]
pub struct WorkerHandle<T> {
    result: oneshot::Receiver<Result<T, WorkerError>>,
}

impl<T> WorkerHandle<T> {
    /// Blocks until the worker ends. Not for use inside a runtime: await it there.
    pub fn join(self) -> Result<T, WorkerError> {
        self.result.blocking_recv().unwrap_or_else(|_| Err(lost()))
    }
}

impl<T> Future for WorkerHandle<T> {
    type Output = Result<T, WorkerError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.result).poll(cx).map(|result| result.unwrap_or_else(|_| Err(lost())))
    }
}

/// A panic while the runtime was being torn down: its message was printed, but cannot be carried.
fn lost() -> WorkerError {
    WorkerError::Panicked("while it was shutting down".to_owned())
}

pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or(payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message").to_owned()
}

/// Pins the calling thread. Only speed depends on it, so a refusal is not reported.
fn pin_to(core: usize) {
    // SAFETY: `cpu_set_t` is a plain bit set, for which zero is valid; both calls get its true size, and pid 0
    // is the calling thread.
    unsafe {
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut allowed) != 0 {
            return;
        }
        let usable: Vec<usize> =
            (0..libc::CPU_SETSIZE as usize).filter(|cpu| libc::CPU_ISSET(*cpu, &allowed)).collect();
        if usable.is_empty() {
            return;
        }
        let mut chosen: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(usable[core % usable.len()], &mut chosen);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &chosen);
    }
}
