//! The runtime of a worker thread, and the World inside it.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use ferrite_io::{Elsewhere, World};
use io_uring::{Probe, opcode};
use tokio::task::LocalSet;

use crate::gate::gated;
use crate::worker::{WorkerError, panic_message};
use crate::{RealClock, RealDisk, RealEntropy, RealNetwork, disk};

/// Which backend serves the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskChoice {
    /// io_uring, or `io-threads` where it is forbidden.
    #[default]
    Auto,
    /// io_uring, or no start.
    IoUring,
    /// A pool of threads with pread and pwrite.
    IoThreads,
}

/// Tells whether io_uring can be used here, and if not, why.
pub fn probe_io_uring() -> io::Result<()> {
    let refused = |call: &str, error: io::Error| {
        let hint = match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => " (forbidden by a seccomp profile or kernel.io_uring_disabled)",
            Some(libc::ENOSYS) => " (this kernel has no io_uring, or a seccomp profile hides it)",
            Some(libc::ENOMEM) => " (RLIMIT_MEMLOCK is too low for this kernel)",
            _ => "",
        };
        io::Error::new(error.kind(), format!("{call}: {error}{hint}"))
    };
    let mut ring = disk::ring::build(4).map_err(|error| refused("io_uring_setup", error))?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|error| refused("io_uring_register", error))?;
    for code in [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE, opcode::Fallocate::CODE] {
        if !probe.is_supported(code) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("this kernel's io_uring lacks operation {code}: Linux 5.6 or later is needed"),
            ));
        }
    }
    // A profile may allow the set-up and forbid the use.
    // SAFETY: a no-op refers to nothing.
    unsafe { ring.submission().push(&opcode::Nop::new().build()) }.expect("the queue is empty");
    ring.submit_and_wait(1).map_err(|error| refused("io_uring_enter", error))?;
    Ok(())
}

/// A worker thread's runtime: single-threaded, with sockets and timers, and with tokio-uring's driver unless
/// threads serve the disk.
pub struct Runtime {
    host: Host,
    fallback: Option<String>,
}

enum Host {
    TokioUring(tokio_uring::Runtime),
    Tokio { tasks: LocalSet, runtime: tokio::runtime::Runtime },
}

impl Runtime {
    /// Fails if `choice` is [`DiskChoice::IoUring`] and io_uring cannot be used, or if the process lacks the
    /// descriptors or memory for a runtime.
    pub fn new(choice: DiskChoice) -> io::Result<Self> {
        let uring = match choice {
            DiskChoice::IoThreads => Err(io::Error::other("chosen by configuration")),
            DiskChoice::Auto | DiskChoice::IoUring => {
                probe_io_uring().and_then(|()| tokio_uring::Runtime::new(&tokio_uring::builder()))
            }
        };
        match uring {
            Ok(runtime) => Ok(Self { host: Host::TokioUring(runtime), fallback: None }),
            Err(error) if choice == DiskChoice::IoUring => Err(error),
            Err(error) => Ok(Self {
                host: Host::Tokio {
                    tasks: LocalSet::new(),
                    // The threads that look up names.
                    runtime: tokio::runtime::Builder::new_current_thread()
                        .thread_name("ferrite-resolve")
                        .enable_all()
                        .build()?,
                },
                fallback: Some(error.to_string()),
            }),
        }
    }

    /// Runs `worker` to its end with this thread's World. A task of the World that panics ends it with
    /// [`WorkerError::Panicked`]; a panic of `worker` itself unwinds.
    pub fn block_on<F, Fut>(&self, worker: F) -> Result<Fut::Output, WorkerError>
    where
        F: FnOnce(RealWorld) -> Fut,
        Fut: Future,
    {
        let alarm = Rc::new(Alarm::default());
        let main = async {
            let world = RealWorld {
                network: RealNetwork::new(),
                disk: RealDisk::new(self.fallback.clone()).map_err(WorkerError::Start)?,
                clock: RealClock::default(),
                entropy: RealEntropy::default(),
                alarm: alarm.clone(),
            };
            let mut worker = pin!(worker(world));
            gated(pin!(poll_fn(|cx| {
                if let Some(message) = alarm.poll(cx.waker()) {
                    return Poll::Ready(Err(WorkerError::Panicked(message)));
                }
                worker.as_mut().poll(cx).map(Ok)
            })))
            .await
        };
        match &self.host {
            Host::TokioUring(runtime) => runtime.block_on(main),
            Host::Tokio { tasks, runtime } => tasks.block_on(runtime, main),
        }
    }
}

/// Carries the first panic of a task to the worker: a server that lost a task in the middle of something is
/// in no state that it knows.
#[derive(Default)]
struct Alarm {
    state: RefCell<(Option<String>, Option<Waker>)>,
}

impl Alarm {
    fn raise(&self, message: String) {
        let mut state = self.state.borrow_mut();
        state.0.get_or_insert(message);
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    fn poll(&self, waker: &Waker) -> Option<String> {
        let mut state = self.state.borrow_mut();
        match &mut state.1 {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        state.0.take()
    }
}

/// One worker's view of the real world; see [`Runtime::block_on`].
#[derive(Clone)]
pub struct RealWorld {
    network: RealNetwork,
    disk: RealDisk,
    clock: RealClock,
    entropy: RealEntropy,
    alarm: Rc<Alarm>,
}

impl World for RealWorld {
    type Network = RealNetwork;
    type Disk = RealDisk;
    type Clock = RealClock;
    type Entropy = RealEntropy;

    fn network(&self) -> &RealNetwork {
        &self.network
    }

    fn disk(&self) -> &RealDisk {
        &self.disk
    }

    fn clock(&self) -> &RealClock {
        &self.clock
    }

    fn entropy(&self) -> &RealEntropy {
        &self.entropy
    }

    /// A task that panics ends the worker: [`Runtime::block_on`] returns the message.
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let alarm = self.alarm.clone();
        tokio::task::spawn_local(async move {
            let mut task = pin!(task);
            let panicked = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(())) => Poll::Ready(None),
                Err(payload) => Poll::Ready(Some(panic_message(&*payload))),
            });
            if let Some(message) = panicked.await {
                alarm.raise(message);
            }
        });
    }

    fn elsewhere() -> Elsewhere {
        disk::later
    }
}
