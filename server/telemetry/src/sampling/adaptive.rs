//! A target of traces a second, reached by a ratio that follows the load.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{WHOLE, bound};

/// How often the ratio is set anew.
const WINDOW_NS: u64 = 1_000_000_000;
/// How much likelier a failed or an unusually slow command is chosen.
const BOOST: u64 = 10;
/// A command is unusually slow if it took as many times the mean of late.
const SLOW_FACTOR: u64 = 10;

/// Shared by all workers. Counts are exact, the ratio is the one that the last window would have needed, smoothed by half
/// with those before: so a burst is over the target for a second or two at most.
#[derive(Debug)]
pub(super) struct Adaptive {
    target: f64,
    window_start_ns: AtomicU64,
    /// Commands of this window, the boosted ones as often as they are boosted.
    weight: AtomicU64,
    commands: AtomicU64,
    execution_ns: AtomicU64,
    /// Commands a second, weighted, as bits of a float: smoothed.
    rate: AtomicU64,
    /// Nanoseconds that a command takes in the mean, smoothed.
    mean_ns: AtomicU64,
    bound: AtomicU64,
}

impl Adaptive {
    /// Traces a second; greater than 0.
    pub fn new(target: f64) -> Self {
        Self {
            target,
            window_start_ns: AtomicU64::new(0),
            weight: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            execution_ns: AtomicU64::new(0),
            rate: AtomicU64::new(0),
            mean_ns: AtomicU64::new(0),
            bound: AtomicU64::new(WHOLE),
        }
    }

    /// The part of ordinary commands that is chosen now.
    pub fn ratio(&self) -> f64 {
        self.bound.load(Ordering::Relaxed) as f64 / WHOLE as f64
    }

    /// Whether to choose a command with this number of 63 bits, and counts it.
    pub fn choose(&self, number: u64, now_ns: u64, failed: bool, execution_ns: u64) -> bool {
        let mean_ns = self.mean_ns.load(Ordering::Relaxed);
        let boost =
            if failed || (mean_ns > 0 && execution_ns > mean_ns.saturating_mul(SLOW_FACTOR)) { BOOST } else { 1 };
        self.weight.fetch_add(boost, Ordering::Relaxed);
        self.commands.fetch_add(1, Ordering::Relaxed);
        self.execution_ns.fetch_add(execution_ns, Ordering::Relaxed);
        self.turn_window(now_ns);
        // Divided, not multiplied: nothing overflows, and what is chosen without the boost is chosen with it.
        number / boost < self.bound.load(Ordering::Relaxed)
    }

    fn turn_window(&self, now_ns: u64) {
        let start_ns = self.window_start_ns.load(Ordering::Relaxed);
        let elapsed_ns = now_ns.saturating_sub(start_ns);
        if elapsed_ns < WINDOW_NS
            || self.window_start_ns.compare_exchange(start_ns, now_ns, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        let weight = self.weight.swap(0, Ordering::Relaxed);
        let commands = self.commands.swap(0, Ordering::Relaxed).max(1);
        let mean_ns = self.execution_ns.swap(0, Ordering::Relaxed) / commands;
        if start_ns == 0 {
            // Since when it counts is not known: the next window tells.
            return;
        }
        let rate = weight as f64 * 1e9 / elapsed_ns as f64;
        let smoothed = match f64::from_bits(self.rate.load(Ordering::Relaxed)) {
            0.0 => rate,
            before => (before + rate) / 2.0,
        };
        self.rate.store(smoothed.to_bits(), Ordering::Relaxed);
        let before_ns = self.mean_ns.load(Ordering::Relaxed);
        self.mean_ns.store(if before_ns == 0 { mean_ns } else { before_ns.midpoint(mean_ns) }, Ordering::Relaxed);
        // A rise is followed at once, a fall smoothly.
        self.bound.store(bound(self.target / smoothed.max(rate)), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::IdGenerator;

    const SECOND: u64 = 1_000_000_000;

    /// How many of `rate` commands a second are chosen in each of so many seconds, failed and others.
    fn run(adaptive: &Adaptive, from_s: u64, seconds: u64, rate: u64, failed_every: u64) -> Vec<(u64, u64)> {
        let mut ids = IdGenerator::new(from_s);
        let mut chosen = Vec::new();
        for second in 0..seconds {
            let (mut failed, mut others) = (0, 0);
            for n in 0..rate {
                let now_ns = (from_s + second) * SECOND + n * SECOND / rate;
                let is_failed = n % failed_every == 0;
                let taken = adaptive.choose(ids.next_u64() >> 1, now_ns, is_failed, 2000);
                *(if is_failed { &mut failed } else { &mut others }) += u64::from(taken);
            }
            chosen.push((failed, others));
        }
        chosen
    }

    #[test]
    fn the_target_is_met_at_any_load() {
        for rate in [50, 1000, 20_000] {
            let adaptive = Adaptive::new(100.0);
            let seconds = run(&adaptive, 1000, 12, rate, u64::MAX);
            let settled: u64 = seconds[2..].iter().map(|(_, others)| others).sum();
            // 1000 are expected: five standard deviations.
            let expected = rate.min(100) * 10;
            assert!(settled.abs_diff(expected) < 160, "{rate}/s: {seconds:?}");
        }
    }

    #[test]
    fn a_rise_is_followed_within_two_seconds() {
        let adaptive = Adaptive::new(100.0);
        run(&adaptive, 1000, 5, 200, u64::MAX);
        let after = run(&adaptive, 1005, 6, 20_000, u64::MAX);
        assert!(after[2..].iter().all(|(_, others)| *others < 160), "{after:?}");
    }

    #[test]
    fn failures_and_slow_commands_are_ten_times_as_likely_and_the_target_holds() {
        let adaptive = Adaptive::new(200.0);
        let seconds = run(&adaptive, 1000, 22, 10_000, 10);
        let (failed, others) = seconds[2..].iter().fold((0, 0), |sum, second| (sum.0 + second.0, sum.1 + second.1));
        // Of 1000 failed and 9000 others a second, with weights 10 and 1: 105 and 95 of the 200.
        assert!(
            (failed as f64 / 2105.0 - 1.0).abs() < 0.12 && (others as f64 / 1895.0 - 1.0).abs() < 0.12,
            "{failed} {others}"
        );
        let of_many = |execution_ns| {
            let number = |n: u64| ((u128::from(n) << 63) / 100_000) as u64;
            (0..100_000).filter(|n| adaptive.choose(number(*n), 1022 * SECOND, false, execution_ns)).count()
        };
        let (slow, usual) = (of_many(30_000), of_many(2000));
        assert!((slow as f64 / usual as f64 - 10.0).abs() < 0.5, "{slow} {usual}");
    }
}
