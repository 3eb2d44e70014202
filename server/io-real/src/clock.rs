//! Time and randomness from the kernel.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ferrite_io::{Clock, Entropy};

/// The calibrated counter and its reading when the process first asked for the time: the origin that all
/// workers share.
fn origin() -> &'static (quanta::Clock, u64) {
    static ORIGIN: OnceLock<(quanta::Clock, u64)> = OnceLock::new();
    ORIGIN.get_or_init(|| {
        let clock = quanta::Clock::new();
        let start = clock.raw();
        (clock, start)
    })
}

/// The time stamp counter (or `CLOCK_MONOTONIC` where it cannot be trusted) and the system's wall clock.
#[derive(Clone)]
pub struct RealClock {
    _calibrated: (),
}

impl Default for RealClock {
    fn default() -> Self {
        // Calibration takes up to 200 ms: at the start, not in the first command.
        origin();
        Self { _calibrated: () }
    }
}

impl Clock for RealClock {
    fn monotonic_source() -> fn() -> u64 {
        || {
            let (clock, start) = origin();
            // Zero, not a wrap-around, where another core's counter is a few ticks behind.
            clock.delta_as_nanos(*start, clock.raw())
        }
    }

    fn unix_ns(&self) -> u64 {
        // A wall clock set before 1970 reads as 1970; u64 nanoseconds last until 2554.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Bytes fetched from the kernel at a time: a trace id takes 24, so a refill serves about ten commands.
const BUFFERED: usize = 256;

/// `getrandom(2)`, buffered per worker.
#[derive(Clone)]
pub struct RealEntropy {
    buffer: Rc<RefCell<Buffer>>,
}

struct Buffer {
    bytes: [u8; BUFFERED],
    used: usize,
}

impl Default for RealEntropy {
    fn default() -> Self {
        Self { buffer: Rc::new(RefCell::new(Buffer { bytes: [0; BUFFERED], used: BUFFERED })) }
    }
}

impl Entropy for RealEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        if bytes.len() > BUFFERED {
            return from_kernel(bytes);
        }
        let mut buffer = self.buffer.borrow_mut();
        if BUFFERED - buffer.used < bytes.len() {
            from_kernel(&mut buffer.bytes);
            buffer.used = 0;
        }
        let from = buffer.used;
        let taken = from..from + bytes.len();
        bytes.copy_from_slice(&buffer.bytes[taken.clone()]);
        // What was handed out must not be found in a memory dump later.
        buffer.bytes[taken].fill(0);
        buffer.used += bytes.len();
    }
}

fn from_kernel(mut bytes: &mut [u8]) {
    while !bytes.is_empty() {
        // SAFETY: the pointer and length describe a live, writable slice.
        let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        if got < 0 {
            let error = io::Error::last_os_error();
            // The call exists since Linux 3.17 and has no other failure for a valid buffer.
            assert_eq!(error.kind(), io::ErrorKind::Interrupted, "getrandom: {error}");
            continue;
        }
        bytes = &mut bytes[got as usize..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_advances_from_one_origin() {
        let first = RealClock::default();
        let before = first.monotonic_ns();
        std::thread::sleep(Duration::from_millis(20));
        let elapsed = RealClock::default().monotonic_ns() - before;
        assert!((15_000_000..2_000_000_000).contains(&elapsed), "{elapsed} ns for 20 ms");
    }

    #[test]
    fn the_wall_clock_is_after_2020() {
        assert!(RealClock::default().unix_ns() > 1_577_836_800_000_000_000);
    }

    #[test]
    fn entropy_does_not_repeat_across_a_refill() {
        let entropy = RealEntropy::default();
        let mut drawn: Vec<u64> = (0..200).map(|_| entropy.next_u64()).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 200);
        let mut large = [0; 1000];
        entropy.fill(&mut large);
        assert!(large.iter().filter(|byte| **byte == 0).count() < 50);
    }
}
