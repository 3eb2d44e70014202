//! How much of the processors a thread gets beside the others of the process.

/// By how much less urgent it is than the thread that made it. Beside a worker that never waits it gets a tenth of a processor (each
/// step is a factor of 1.25).
///
/// The kernel's idle class would make workers wait even less for it, but gets next to nothing on a machine that is fully used: everything
/// that is to be exported would be lost just when an operator wants it most, and a lock that it holds would be held for a second.
const NICE_MORE: i32 = 10;
const NICE_MAX: i32 = 19;

/// Has the calling thread, and those that it starts, give way to workers. Only speed depends on it, so a refusal is not reported.
pub(crate) fn give_way() {
    // SAFETY: the parameter lives for the call, all else are numbers, and 0 is the calling thread.
    unsafe {
        // It takes no processor from a thread that runs when it wakes up.
        libc::sched_setscheduler(0, libc::SCHED_BATCH, &libc::sched_param { sched_priority: 0 });
        libc::setpriority(libc::PRIO_PROCESS, 0, (nice() + NICE_MORE).min(NICE_MAX));
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
