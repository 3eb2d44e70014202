//! What became of the data points of metric exports. Nothing waits in a queue here: what does not arrive is collected anew.

use std::sync::atomic::{AtomicU64, Ordering};

/// Data points by what became of their export. Written by the export's task, read by any.
#[derive(Debug, Default)]
pub struct MetricExportCounts {
    exported: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
}

impl MetricExportCounts {
    /// Those that the backend accepted.
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// Those of exports that did not arrive, after all attempts.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Those that the backend refused for good.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    #[cfg(feature = "otel")]
    pub(crate) fn count_exported(&self, points: usize) {
        self.exported.fetch_add(points as u64, Ordering::Relaxed);
    }

    #[cfg(feature = "otel")]
    pub(crate) fn count_failed(&self, points: usize) {
        self.failed.fetch_add(points as u64, Ordering::Relaxed);
    }

    #[cfg(feature = "otel")]
    pub(crate) fn count_rejected(&self, points: usize) {
        self.rejected.fetch_add(points as u64, Ordering::Relaxed);
    }
}
