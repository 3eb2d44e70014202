//! So many a second, whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};

/// The generic cell rate algorithm (ITU-T I.371, annex A): the state is one time, shared by all workers. What is refused
/// changes nothing, so that an overload costs a look and no write.
#[derive(Debug)]
pub(super) struct Limiter {
    /// Nanoseconds that one takes of the time there is.
    interval_ns: u64,
    /// How far ahead of the clock the state may run: one second's worth, and one at least.
    ahead_ns: u64,
    /// When the next would be due if they came evenly.
    due_ns: AtomicU64,
}

/// 292 years.
const INTERVAL_NS_MAX: u64 = u64::MAX / 2;

impl Limiter {
    /// `per_second` is greater than 0.
    pub fn new(per_second: f64) -> Self {
        // Even the rarest is one at a time: an interval must be less than what a time can be.
        let interval_ns = ((1e9 / per_second) as u64).clamp(1, INTERVAL_NS_MAX);
        Self { interval_ns, ahead_ns: interval_ns.max(1_000_000_000), due_ns: AtomicU64::new(0) }
    }

    /// Whether one more may pass at this time.
    pub fn admit(&self, now_ns: u64) -> bool {
        let mut due_ns = self.due_ns.load(Ordering::Relaxed);
        loop {
            let next_ns = due_ns.max(now_ns).saturating_add(self.interval_ns);
            if next_ns.saturating_sub(now_ns) > self.ahead_ns {
                return false;
            }
            match self.due_ns.compare_exchange_weak(due_ns, next_ns, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => due_ns = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn admitted(limiter: &Limiter, times: impl Iterator<Item = u64>) -> usize {
        times.filter(|now_ns| limiter.admit(*now_ns)).count()
    }

    #[test]
    fn a_burst_is_a_second_s_worth_and_then_the_rate_holds() {
        let limiter = Limiter::new(100.0);
        let start = 50 * SECOND;
        assert_eq!(admitted(&limiter, (0..1000).map(|_| start)), 100);
        // Ten seconds, ten thousand a second.
        assert_eq!(admitted(&limiter, (1..=100_000).map(|n| start + n * SECOND / 10_000)), 1000);
        // What was not used in an hour is not saved up.
        assert_eq!(admitted(&limiter, (0..1000).map(|_| start + 3600 * SECOND)), 100);
    }

    #[test]
    fn less_than_one_a_second_is_one_now_and_then() {
        let limiter = Limiter::new(0.1);
        assert_eq!(admitted(&limiter, (0..1000).map(|n| 7 * SECOND + n * SECOND / 10)), 10);
    }

    #[test]
    fn tiny_rates_are_one_in_a_very_long_time() {
        for rate in [1e-9, 1e-10, 1e-15, f64::MIN_POSITIVE] {
            let limiter = Limiter::new(rate);
            assert_eq!(admitted(&limiter, (0..1000).map(|n| 7 * SECOND + n * 3600 * SECOND)), 1, "{rate}");
        }
    }

    proptest! {
        #[test]
        fn never_more_than_a_burst_and_the_rate(rate in 1u32..500, steps in proptest::collection::vec(0u64..SECOND / 20, 1..600)) {
            let limiter = Limiter::new(rate.into());
            let mut now_ns = SECOND;
            let mut passed = 0;
            for step in steps {
                now_ns += step;
                passed += usize::from(limiter.admit(now_ns));
            }
            let most = f64::from(rate) * (1.0 + (now_ns - SECOND) as f64 / SECOND as f64);
            prop_assert!(passed as f64 <= most + 1.0, "{passed} of at most {most}");
        }
    }
}
