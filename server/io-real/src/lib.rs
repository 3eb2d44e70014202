//! The World on the real kernel: epoll sockets, io_uring disk, tokio-uring files.
//!
//! A [`RealWorld`] exists only inside a [`Runtime`], one per worker thread; [`spawn_worker_thread`] starts
//! such a thread. Where io_uring is forbidden the disk is served by a small pool of threads instead
//! ([`RealDisk::fallback_reason`] says why).

// The one crate whose job is to name the operating system: everything above reaches it through the World.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod allocator;
mod clock;
mod disk;
pub mod dump;
mod gate;
mod network;
mod priority;
mod runtime;
mod worker;

pub use allocator::Allocator;
pub use clock::{RealClock, RealEntropy};
pub use disk::{RealDisk, RealFile, RealLock, RealMap};
pub use network::{RealListener, RealNetwork, RealStream};
pub use runtime::{DiskChoice, RealWorld, Runtime, probe_io_uring};
pub use worker::{WorkerError, WorkerHandle, run_worker, spawn_background_thread, spawn_worker_thread};
