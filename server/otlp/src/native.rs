//! Counts in exponential buckets, as a worker makes them: a few plain loads and stores a time, in memory that was
//! reserved at the start and is only touched where something is counted.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::exponential::{BUCKETS, Exponential, INDEX_MIN, index_of};

/// The least and the greatest of what was counted in one interval, by the interval's parity: that before is read while
/// this one is written.
#[derive(Debug, Default)]
struct Extremes {
    /// Of these two; before the first it is none.
    interval: AtomicU64,
    least: AtomicU64,
    greatest: AtomicU64,
}

/// What one writer has counted in one histogram, but for the buckets.
#[derive(Debug, Default)]
struct Rest {
    zero: AtomicU64,
    extremes: [Extremes; 2],
}

/// So many histograms with one writer at a time.
#[derive(Debug)]
pub(crate) struct NativeTimes {
    /// [`BUCKETS`] of each histogram, one histogram behind the other.
    buckets: Box<[AtomicU64]>,
    rest: Box<[Rest]>,
}

/// Intervals are numbered from here.
pub(crate) const FIRST_INTERVAL: u64 = 1;

impl NativeTimes {
    pub(crate) fn new(histograms: usize) -> Self {
        Self {
            // Fresh memory of the system's: what is never counted never becomes resident.
            buckets: bytemuck::zeroed_slice_box(histograms * BUCKETS),
            rest: (0..histograms).map(|_| Rest::default()).collect(),
        }
    }

    /// Counts one time. To be called by the owner only: two writers would lose counts.
    #[inline]
    pub(crate) fn count(&self, histogram: usize, interval: u64, ns: u64) {
        let rest = &self.rest[histogram];
        let counter = match index_of(ns) {
            Some(index) => &self.buckets[histogram * BUCKETS + (index - INDEX_MIN) as usize],
            None => &rest.zero,
        };
        counter.store(counter.load(Relaxed) + 1, Relaxed);
        let extremes = &rest.extremes[interval as usize & 1];
        if extremes.interval.load(Relaxed) != interval {
            extremes.least.store(ns, Relaxed);
            extremes.greatest.store(ns, Relaxed);
            extremes.interval.store(interval, Release);
        } else if ns < extremes.least.load(Relaxed) {
            extremes.least.store(ns, Relaxed);
        } else if ns > extremes.greatest.load(Relaxed) {
            extremes.greatest.store(ns, Relaxed);
        }
    }

    /// What is counted in this histogram of all of these; the extremes are those of one interval.
    pub(crate) fn collect<'t>(all: impl Iterator<Item = &'t Self>, histogram: usize, interval: u64) -> Exponential {
        let (mut zero, mut counts, mut extremes) = (0, vec![0; BUCKETS], None);
        for times in all {
            let rest = &times.rest[histogram];
            zero += rest.zero.load(Relaxed);
            let buckets = &times.buckets[histogram * BUCKETS..][..BUCKETS];
            counts.iter_mut().zip(buckets).for_each(|(sum, count)| *sum += count.load(Relaxed));
            let own = &rest.extremes[interval as usize & 1];
            if own.interval.load(Acquire) == interval {
                extremes = joined(extremes, Some((own.least.load(Relaxed), own.greatest.load(Relaxed))));
            }
        }
        Exponential { extremes, ..Exponential::new(zero, &counts) }
    }
}

/// The extremes of both.
pub(crate) fn joined(one: Option<(u64, u64)>, other: Option<(u64, u64)>) -> Option<(u64, u64)> {
    match (one, other) {
        (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_added_up_and_each_histogram_has_its_own() {
        let workers = [NativeTimes::new(3), NativeTimes::new(3)];
        for (worker, histogram, ns) in [(0, 1, 1_500), (1, 1, 1_500), (1, 1, 0), (0, 2, 7), (1, 1, 9_000_000_000)] {
            workers[worker].count(histogram, FIRST_INTERVAL, ns);
        }
        let collected = |histogram| NativeTimes::collect(workers.iter(), histogram, FIRST_INTERVAL);
        assert_eq!(collected(0), Exponential::default());
        let one = collected(1);
        assert_eq!((one.zero, one.count(), one.extremes), (1, 4, Some((0, 9_000_000_000))));
        assert_eq!((Some(one.first), one.counts[0]), (index_of(1_500), 2));
        assert_eq!(one.counts.len() as i32, index_of(9_000_000_000).unwrap() - one.first + 1);
        assert_eq!((collected(2).count(), collected(2).extremes), (1, Some((7, 7))));
    }

    #[test]
    fn extremes_are_those_of_their_interval() {
        let times = NativeTimes::new(1);
        let extremes = |interval| NativeTimes::collect(std::iter::once(&times), 0, interval).extremes;
        [50, 20, 90].iter().for_each(|&ns| times.count(0, 1, ns));
        times.count(0, 2, 60);
        assert_eq!((extremes(1), extremes(2), extremes(3)), (Some((20, 90)), Some((60, 60)), None));
        times.count(0, 3, 70);
        assert_eq!((extremes(1), extremes(3)), (None, Some((70, 70))));
    }

    #[test]
    fn counting_allocates_nothing() {
        let times = NativeTimes::new(2);
        let counted = allocation_counter::measure(|| (0..1_000).for_each(|ns| times.count(1, 1 + ns / 100, ns * ns)));
        assert_eq!(counted.count_total, 0);
        assert_eq!(NativeTimes::collect(std::iter::once(&times), 1, 10).count(), 1_000);
    }
}
