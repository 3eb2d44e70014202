//! What the server's own work has come to since the start: for the metrics.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ferrite_otlp::{Point, Series, Value};
use ferrite_telemetry::schema::{Metric, RunResult};

/// All kinds of it that nothing else counts.
#[derive(Default)]
pub struct Work {
    pub(crate) checkpoints: Runs,
    pub(crate) rewrites: Runs,
    pub(crate) evictions: Runs,
    /// How long the active expiry has worked, without what it waited for.
    pub(crate) expiry_ns: AtomicU64,
    /// What the start found in the data directory.
    pub(crate) recovery: OnceLock<Recovery>,
}

/// The start's way from the data directory to the databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recovery {
    pub took_ns: u64,
    /// Of the append-only file, from the position on that the checkpoint (or the base) covers.
    pub bytes: u64,
}

/// The runs of one kind of work.
#[derive(Default)]
pub(crate) struct Runs {
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// Written by those that succeeded.
    bytes: AtomicU64,
    last_took_ns: AtomicU64,
    /// On the Unix clock; 0: none has succeeded.
    last_success_ns: AtomicU64,
}

impl Runs {
    /// One has ended at `unix_ns`; `bytes` is what it has written, `None` if it failed.
    pub(crate) fn end(&self, bytes: Option<u64>, took_ns: u64, unix_ns: u64) {
        self.last_took_ns.store(took_ns, Relaxed);
        match bytes {
            Some(bytes) => {
                self.succeeded.fetch_add(1, Relaxed);
                self.bytes.fetch_add(bytes, Relaxed);
                self.last_success_ns.store(unix_ns, Relaxed);
            }
            None => _ = self.failed.fetch_add(1, Relaxed),
        }
    }

    fn by_result(&self, metric: Metric) -> Series {
        let point = |result: RunResult, count: &AtomicU64| Point {
            label: Some(result.as_str().to_owned()),
            value: Value::Integer(count.load(Relaxed)),
        };
        let points = vec![point(RunResult::Ok, &self.succeeded), point(RunResult::Error, &self.failed)];
        Series { metric, points }
    }

    fn took(&self, metric: Metric) -> Series {
        seconds(metric, Some(self.last_took_ns.load(Relaxed)))
    }

    fn written(&self, metric: Metric) -> Series {
        Series::single(metric, self.bytes.load(Relaxed))
    }

    fn last_success(&self, metric: Metric) -> Series {
        let last = self.last_success_ns.load(Relaxed);
        seconds(metric, (last != 0).then_some(last))
    }
}

fn seconds(metric: Metric, ns: Option<u64>) -> Series {
    let point = |ns: u64| Point { label: None, value: Value::Float(ns as f64 / 1e9) };
    Series { metric, points: ns.map(point).into_iter().collect() }
}

impl Work {
    pub(crate) fn series(&self) -> Vec<Series> {
        let Work { checkpoints, rewrites, evictions, recovery, expiry_ns: _ } = self;
        let recovery = recovery.get();
        vec![
            checkpoints.by_result(Metric::CHECKPOINTS),
            checkpoints.took(Metric::CHECKPOINT_DURATION),
            checkpoints.written(Metric::CHECKPOINT_BYTES),
            checkpoints.last_success(Metric::CHECKPOINT_LAST_SUCCESS),
            rewrites.by_result(Metric::REWRITES),
            rewrites.took(Metric::REWRITE_DURATION),
            rewrites.written(Metric::REWRITE_BYTES),
            rewrites.last_success(Metric::REWRITE_LAST_SUCCESS),
            evictions.by_result(Metric::EVICTION_RUNS),
            seconds(Metric::RECOVERY_DURATION, recovery.map(|recovery| recovery.took_ns)),
            Series::single(Metric::RECOVERY_BYTES, recovery.map_or(0, |recovery| recovery.bytes)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_does_not_hide_the_last_success() {
        let runs = Runs::default();
        let value = |series: Series| series.points.into_iter().map(|point| point.value).collect::<Vec<_>>();
        runs.end(None, 5, 1_000_000_000);
        assert_eq!(value(runs.last_success(Metric::CHECKPOINT_LAST_SUCCESS)), [], "there is none");
        runs.end(Some(70), 2_500_000_000, 3_000_000_000);
        runs.end(None, 500_000_000, 9_000_000_000);
        assert_eq!(value(runs.last_success(Metric::CHECKPOINT_LAST_SUCCESS)), [Value::Float(3.0)]);
        assert_eq!(value(runs.took(Metric::CHECKPOINT_DURATION)), [Value::Float(0.5)]);
        assert_eq!(value(runs.by_result(Metric::CHECKPOINTS)), [Value::Integer(1), Value::Integer(2)]);
        assert_eq!(value(runs.written(Metric::CHECKPOINT_BYTES)), [Value::Integer(70)]);
    }
}
