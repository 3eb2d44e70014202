//! How much of the processors a thread gets beside the others of the process.

use std::mem::size_of;

/// By how much less urgent it is than the thread that made it. Beside a worker that never waits it gets a tenth of a processor (each
/// step is a factor of 1.25).
const NICE_MORE: i32 = 10;
const NICE_MAX: i32 = 19;

/// How long it would run in one go while others wait, in nanoseconds. Longer than anybody's who has not said anything (2.8 ms at most): by that
/// the kernel knows, from 6.12 on, that a worker which wakes up on the same processor is to have it at once. Else the worker would wait until
/// this thread sleeps or the clock ticks, as long as 4 ms. Older kernels pass over it.
const SLICE_NS: u64 = 4_000_000;

/// Has the calling thread, and those that it starts, give way to workers. Only speed depends on it, so a refusal is not reported.
///
/// It does not go as far as the kernel's idle class, which gets next to nothing on a machine that is fully used: everything that is to be
/// exported would be lost just when an operator wants it most.
pub(crate) fn give_way() {
    let nice = (nice() + NICE_MORE).min(NICE_MAX);
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        // It never takes a processor from a running thread when it wakes up.
        sched_policy: libc::SCHED_BATCH as u32,
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: SLICE_NS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads a structure of the size that it says itself, and 0 is the calling thread.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if set != 0 {
        // A profile may forbid the newer call and allow the older one.
        // SAFETY: it takes numbers alone, and 0 is the calling thread.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    }
}

/// The calling thread's, which threads that it starts begin with.
fn nice() -> i32 {
    // SAFETY: it takes numbers alone, and 0 is the calling thread.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_that_asks_gives_way_and_no_other() {
        let before = nice();
        let lowered = std::thread::spawn(move || {
            give_way();
            // SAFETY: it takes a number.
            (nice(), unsafe { libc::sched_getscheduler(0) })
        });
        assert_eq!(lowered.join().unwrap(), ((before + NICE_MORE).min(NICE_MAX), libc::SCHED_BATCH));
        assert_eq!(nice(), before);
    }
}
