//! The World: everything that touches time, disk, network or randomness, as traits.
//!
//! Product crates above this one are generic over [`World`]; `ferrite-io-real` implements it on the
//! kernel, the simulator in memory. Futures are not `Send`: a World belongs to one worker thread.

mod buffer;
mod disk;
mod network;

pub use buffer::{AlignedBuf, BLOCK};
pub use disk::{Disk, Done, File, Mapping, OpenMode, SubmissionId};
pub use network::{Listener, Network, Stream};

use std::future::{Future, poll_fn};
use std::mem;
use std::task::Poll;
use std::time::Duration;

/// One worker's view of the outside. Cloning is cheap and gives the same worker's view.
pub trait World: Clone + 'static {
    type Network: Network;
    type Disk: Disk;
    type Clock: Clock;
    type Entropy: Entropy;

    fn network(&self) -> &Self::Network;
    fn disk(&self) -> &Self::Disk;
    fn clock(&self) -> &Self::Clock;
    fn entropy(&self) -> &Self::Entropy;

    /// Runs `task` on this worker. It ends when the worker's runtime ends.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);

    /// Where to have a job done that would keep a worker from its commands, as a plain function: it may be called by any
    /// worker, returns at once, and the job runs some time later on a thread that serves no commands, or never if the
    /// process ends.
    fn elsewhere() -> Elsewhere;
}

/// See [`World::elsewhere`].
pub type Elsewhere = fn(Job);

pub type Job = Box<dyn FnOnce() + Send>;

/// Time. Both readings are nanoseconds; neither is read anywhere else.
#[allow(async_fn_in_trait)]
pub trait Clock: Clone + 'static {
    /// The monotonic clock as a plain function: nanoseconds since an arbitrary start, the same origin on every
    /// worker. The recorder calls it several times a command.
    fn monotonic_source() -> fn() -> u64;

    fn monotonic_ns(&self) -> u64 {
        Self::monotonic_source()()
    }

    /// Nanoseconds since the Unix epoch; may jump.
    fn unix_ns(&self) -> u64;
    async fn sleep(&self, duration: Duration);
}

/// Randomness: seeds, trace ids, hash keys.
pub trait Entropy: Clone + 'static {
    fn fill(&self, bytes: &mut [u8]);

    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// Lets the worker's other tasks that are due run.
pub async fn give_way() {
    let mut gave = false;
    poll_fn(|context| {
        if mem::replace(&mut gave, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
