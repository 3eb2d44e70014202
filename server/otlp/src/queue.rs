//! The bounded queue between the workers and the exporter. Pushing never waits: what finds no room is dropped and
//! counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ferrite_telemetry::KeptTrace;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Spans by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    pub exported: u64,
    pub dropped_queue_full: u64,
    pub dropped_export_failed: u64,
    /// Waiting now.
    pub depth: u64,
}

/// Kept traces on their way out. Only traces that are exported take its lock.
pub struct ExportQueue {
    traces: Mutex<VecDeque<KeptTrace>>,
    /// Spans in `traces`.
    depth: AtomicUsize,
    spans_max: usize,
    exported: AtomicU64,
    dropped_queue_full: AtomicU64,
    dropped_export_failed: AtomicU64,
    /// Spans have come in.
    filled: Notify,
    /// Spans from which a batch need not wait any longer.
    batch: usize,
}

impl ExportQueue {
    /// At most `spans_max` spans wait; `batch` of them wake the exporter.
    pub fn new(spans_max: usize, batch: usize) -> Self {
        Self {
            traces: Mutex::default(),
            depth: AtomicUsize::new(0),
            spans_max,
            exported: AtomicU64::new(0),
            dropped_queue_full: AtomicU64::new(0),
            dropped_export_failed: AtomicU64::new(0),
            filled: Notify::new(),
            batch,
        }
    }

    /// Queues a trace, or drops it if it does not fit as a whole: half a trace would be a broken one.
    pub fn push(&self, trace: KeptTrace) {
        let spans = trace.span_count();
        let mut traces = self.traces.lock();
        let depth = self.depth.load(Ordering::Relaxed) + spans;
        if depth > self.spans_max {
            drop(traces);
            self.dropped_queue_full.fetch_add(spans as u64, Ordering::Relaxed);
            return;
        }
        traces.push_back(trace);
        self.depth.store(depth, Ordering::Relaxed);
        drop(traces);
        if depth >= self.batch && depth - spans < self.batch {
            self.filled.notify_one();
        }
    }

    /// Takes traces of at least `batch` spans together, or all that there are.
    pub fn take(&self) -> Vec<KeptTrace> {
        let mut traces = self.traces.lock();
        let (mut count, mut spans) = (0, 0);
        for trace in traces.iter() {
            if spans >= self.batch {
                break;
            }
            count += 1;
            spans += trace.span_count();
        }
        self.depth.fetch_sub(spans, Ordering::Relaxed);
        traces.drain(..count).collect()
    }

    /// Returns once a batch is full; at once if one is.
    pub async fn full_batch(&self) {
        while self.depth.load(Ordering::Relaxed) < self.batch {
            self.filled.notified().await;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.depth.load(Ordering::Relaxed) == 0
    }

    /// The backend accepted them.
    pub fn count_exported(&self, spans: usize) {
        self.exported.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// The backend did not take them, after all retries.
    pub fn count_failed(&self, spans: usize) {
        self.dropped_export_failed.fetch_add(spans as u64, Ordering::Relaxed);
    }

    pub fn counts(&self) -> QueueCounts {
        QueueCounts {
            exported: self.exported.load(Ordering::Relaxed),
            dropped_queue_full: self.dropped_queue_full.load(Ordering::Relaxed),
            dropped_export_failed: self.dropped_export_failed.load(Ordering::Relaxed),
            depth: self.depth.load(Ordering::Relaxed) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use ferrite_telemetry::{Outcome, Recorder, RecorderConfig};

    use super::*;

    /// A trace of one command, recorded as the server does.
    fn trace() -> KeptTrace {
        let mut recorder = Recorder::new(|| 1, &RecorderConfig { export: true, ..RecorderConfig::default() });
        let mut buffer = recorder.buffer();
        buffer.start_batch();
        buffer.begin_command();
        buffer.parse();
        buffer.describe("PING", 1, 1, []);
        buffer.finish_command(Outcome::Ok, b"", 0);
        buffer.net_write();
        let mut kept = Vec::new();
        recorder.commit(&mut buffer, |trace| kept.push(trace));
        kept.remove(0)
    }

    #[test]
    fn what_does_not_fit_is_dropped_whole_and_counted() {
        let spans = trace().span_count();
        let queue = ExportQueue::new(2 * spans, 1);
        (0..3).for_each(|_| queue.push(trace()));
        let counts = queue.counts();
        assert_eq!((counts.depth, counts.dropped_queue_full), (2 * spans as u64, spans as u64));
        assert_eq!(queue.take().len(), 1);
        assert_eq!(queue.counts().depth, spans as u64);
        queue.push(trace());
        assert_eq!(queue.counts().dropped_queue_full, spans as u64);
    }
}
