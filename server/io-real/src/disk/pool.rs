//! A small pool of threads for file operations that would block a worker.
//!
//! It serves the whole `io-threads` backend, and under io_uring what has no asynchronous form
//! (opening, renaming, listing). One pool per process, shared by the workers.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, PoisonError};

use ferrite_io::Job;
use tokio::sync::oneshot;

/// A disk's own queue is short; more threads than this only contend for it.
const THREADS: usize = 4;

struct Pool {
    started: Mutex<bool>,
    jobs: Mutex<VecDeque<Job>>,
    arrived: Condvar,
}

static POOL: Pool = Pool { started: Mutex::new(false), jobs: Mutex::new(VecDeque::new()), arrived: Condvar::new() };

/// Starts the threads if they do not run yet. They end with the process.
pub(crate) fn start() -> io::Result<()> {
    let mut started = POOL.started.lock().unwrap_or_else(PoisonError::into_inner);
    if !*started {
        for n in 0..THREADS {
            std::thread::Builder::new().name(format!("ferrite-io-{n}")).spawn(serve)?;
        }
        *started = true;
    }
    Ok(())
}

/// Runs `job` on one of the threads. It runs to its end even if the caller stops waiting, so what it owns
/// (a buffer, a file) lives as long as the kernel uses it.
pub(super) async fn run<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = oneshot::channel();
    let job = move || {
        // Nobody may be waiting any more; the result is dropped then.
        let _ = done.send(job());
    };
    later(Box::new(job));
    result.await.expect("file jobs do not panic")
}

/// [`run`] for who does not wait.
pub(crate) fn later(job: Job) {
    POOL.jobs.lock().unwrap_or_else(PoisonError::into_inner).push_back(job);
    POOL.arrived.notify_one();
}

fn serve() {
    loop {
        let mut jobs = POOL.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let job = loop {
            match jobs.pop_front() {
                Some(job) => break job,
                None => jobs = POOL.arrived.wait(jobs).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(jobs);
        job();
    }
}
