//! The bounded queues between what records spans or logs and the exporters. What finds no room is dropped and counted.
//!
//! The traces of commands come in by the workers' outboxes ([`crate::Outgoing`]), without a lock. Whatever else there is (spans of a start or
//! a stop, traces larger than an outbox, log lines) is pushed, under a lock that the exporter takes only to exchange two lists.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ferrite_telemetry::{KeptTrace, Span, SpanSink, Teller, Value};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::LogRecord;

/// Spans or log records by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    pub exported: u64,
    pub dropped_queue_full: u64,
    pub dropped_export_failed: u64,
    pub dropped_rejected: u64,
    /// Waiting now.
    pub depth: u64,
    /// What those take in memory, and what keeps room for them.
    pub bytes: u64,
    /// Of all these, the spans of cold paths: no recorder has counted them.
    pub cold: u64,
}

/// A finished span of a cold path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdSpan {
    pub span: Span,
    /// From the monotonic clock to nanoseconds since the Unix epoch.
    pub wall_offset_ns: i64,
}

/// What waits for its export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Queued {
    /// A command's trace.
    Trace(KeptTrace),
    /// Some spans of one that is larger than a batch.
    Part(TracePart),
    /// One span: those of a cold path end one by one, hours apart if a replay takes that long.
    Cold(Box<ColdSpan>),
}

/// Spans of a trace, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracePart {
    trace: Arc<KeptTrace>,
    spans: Range<usize>,
}

impl TracePart {
    pub fn trace(&self) -> &KeptTrace {
        &self.trace
    }

    pub fn spans(&self) -> impl Iterator<Item = Span> {
        self.trace.spans_at(self.spans.clone())
    }

    /// Tells its spans alone.
    pub fn tell(&self, teller: &mut Teller, sink: &mut impl SpanSink) {
        teller.tell_some(&self.trace, self.spans.clone(), sink);
    }

    /// The first `count` spans, which become another part.
    fn split_off(&mut self, count: usize) -> Self {
        let middle = self.spans.start + count;
        let first = Self { trace: Arc::clone(&self.trace), spans: self.spans.start..middle };
        self.spans.start = middle;
        first
    }
}

/// What a queue holds: traces count for as many as they have spans.
pub trait Countable: Sized {
    fn count(&self) -> usize;

    /// What it takes in memory, about.
    fn bytes(&self) -> usize;

    /// Takes the first of it away, so much that it counts for `count`; `None`: it cannot be taken apart.
    fn split_off(&mut self, count: usize) -> Option<Self>;
}

impl Countable for Queued {
    fn count(&self) -> usize {
        match self {
            Self::Trace(trace) => trace.span_count(),
            Self::Part(part) => part.spans.len(),
            Self::Cold(_) => 1,
        }
    }

    fn bytes(&self) -> usize {
        let beside = match self {
            Self::Trace(trace) => trace.bytes(),
            // Its share of what all parts hold.
            Self::Part(part) => part.trace.bytes() * part.spans.len() / part.trace.span_count().max(1),
            Self::Cold(cold) => {
                size_of::<ColdSpan>() + cold.span.attributes.len() * size_of::<(ferrite_telemetry::Attribute, Value)>()
            }
        };
        size_of::<Self>() + beside
    }

    fn split_off(&mut self, count: usize) -> Option<Self> {
        if let Self::Trace(trace) = self {
            let spans = 0..trace.span_count();
            *self = Self::Part(TracePart { trace: Arc::new(trace.clone()), spans });
        }
        match self {
            Self::Part(part) => Some(Self::Part(part.split_off(count))),
            Self::Trace(_) | Self::Cold(_) => None,
        }
    }
}

impl Queued {
    /// Its spans, and what takes their times to nanoseconds since the Unix epoch.
    pub fn into_spans(self) -> (Vec<Span>, i64) {
        match self {
            Self::Trace(trace) => (trace.spans().collect(), trace.wall_offset_ns()),
            Self::Part(part) => (part.spans().collect(), part.trace.wall_offset_ns()),
            Self::Cold(cold) => (vec![cold.span], cold.wall_offset_ns),
        }
    }
}

impl From<KeptTrace> for Queued {
    fn from(trace: KeptTrace) -> Self {
        Self::Trace(trace)
    }
}

/// Spans on their way out.
pub type ExportQueue = Queue<Queued>;

/// Log records on their way out.
pub type LogQueue = Queue<LogRecord>;

/// What has been taken into account.
pub(crate) struct Admitted {
    fills_batch: bool,
}

/// Gives what came in by one way, the oldest first.
pub(crate) type Inlet<T> = Box<dyn FnMut() -> Option<T> + Send>;

/// What is to be taken, and where more comes from.
struct Taking<T> {
    queued: VecDeque<T>,
    /// Empty, with room for what is pushed next.
    pushed: Vec<T>,
    inlets: Vec<Inlet<T>>,
}

/// See [`ExportQueue`] and [`LogQueue`].
pub struct Queue<T> {
    /// What was pushed lately.
    pushed: Mutex<Vec<T>>,
    /// The exporter's side; no worker ever needs it.
    taking: Mutex<Taking<T>>,
    /// What is in both and in the inlets, as it counts.
    depth: AtomicUsize,
    /// What that takes in memory.
    bytes: AtomicUsize,
    /// What the inlets keep, whatever is in them.
    inlet_bytes: AtomicUsize,
    depth_max: usize,
    exported: AtomicU64,
    dropped_queue_full: AtomicU64,
    dropped_export_failed: AtomicU64,
    dropped_rejected: AtomicU64,
    /// Spans have come in.
    filled: Notify,
    /// An inlet will soon have no room.
    pressed: Notify,
    /// Spans that were taken have met their fate.
    settled: Notify,
    /// Spans of cold paths that came in.
    cold: AtomicU64,
    /// Spans that came in and found room.
    accepted: AtomicU64,
    /// Somebody takes what comes in.
    has_exporter: AtomicBool,
    /// No batch waits to become full.
    hurried: AtomicBool,
    /// Spans of a batch at most; so many need not wait any longer.
    batch: usize,
}

impl ExportQueue {
    /// Queues, or drops, a span that no recorder has counted.
    pub fn push_cold(&self, span: ColdSpan) {
        self.cold.fetch_add(1, Ordering::Relaxed);
        self.push(Queued::Cold(Box::new(span)));
    }
}

impl<T: Countable> Queue<T> {
    /// At most `depth_max` spans or records wait; `batch` of them wake the exporter.
    pub fn new(depth_max: usize, batch: usize) -> Self {
        Self {
            pushed: Mutex::default(),
            taking: Mutex::new(Taking { queued: VecDeque::new(), pushed: Vec::new(), inlets: Vec::new() }),
            depth: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            inlet_bytes: AtomicUsize::new(0),
            depth_max,
            exported: AtomicU64::new(0),
            dropped_queue_full: AtomicU64::new(0),
            dropped_export_failed: AtomicU64::new(0),
            dropped_rejected: AtomicU64::new(0),
            filled: Notify::new(),
            pressed: Notify::new(),
            settled: Notify::new(),
            cold: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            has_exporter: AtomicBool::new(false),
            hurried: AtomicBool::new(false),
            batch: batch.max(1),
        }
    }

    /// Queues a trace, or drops it if it does not fit as a whole: half a trace would be a broken one.
    pub fn push(&self, item: impl Into<T>) {
        let item = item.into();
        let count = item.count();
        if let Some(admitted) = self.admit(count, item.bytes()) {
            self.pushed.lock().push(item);
            self.tell(admitted);
        }
    }

    /// Takes so many spans of that size into account before they are queued or put into an inlet, or drops them.
    #[inline]
    pub(crate) fn admit(&self, count: usize, bytes: usize) -> Option<Admitted> {
        let fits = |depth: usize| Some(depth + count).filter(|depth| *depth <= self.depth_max);
        let Ok(before) = self.depth.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) else {
            self.count_queue_full(count);
            return None;
        };
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Before an exporter can take it: what has met its fate was accepted.
        self.accepted.fetch_add(count as u64, Ordering::Relaxed);
        Some(Admitted { fills_batch: before < self.batch && before + count >= self.batch })
    }

    /// What was admitted is there.
    #[inline]
    pub(crate) fn tell(&self, admitted: Admitted) {
        if admitted.fills_batch {
            self.filled.notify_one();
        }
    }

    /// They found no room.
    pub(crate) fn count_queue_full(&self, spans: usize) {
        self.dropped_queue_full.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// From now on more comes in by this way.
    pub(crate) fn add_inlet(&self, inlet: Inlet<T>) {
        self.taking.lock().inlets.push(inlet);
    }

    /// So many bytes more are kept for what comes.
    pub(crate) fn add_bytes(&self, bytes: usize) {
        self.inlet_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How many spans or records may wait.
    pub(crate) fn depth_max(&self) -> usize {
        self.depth_max
    }

    /// An inlet is half full: without this it would be emptied with the next batch.
    pub(crate) fn press(&self) {
        self.pressed.notify_one();
    }

    /// Empties the inlets whenever one has been pressed. Never returns.
    #[cfg(any(feature = "otel", test))]
    pub(crate) async fn gather_when_pressed(&self) {
        loop {
            self.pressed.notified().await;
            self.gather(&mut self.taking.lock());
        }
    }

    fn gather(&self, taking: &mut Taking<T>) {
        std::mem::swap(&mut *self.pushed.lock(), &mut taking.pushed);
        taking.queued.extend(taking.pushed.drain(..));
        for inlet in &mut taking.inlets {
            taking.queued.extend(std::iter::from_fn(inlet));
        }
    }

    /// Takes a batch: whole traces as long as they fit, or a part of one that does not fit into any.
    pub fn take(&self) -> Vec<T> {
        let mut taking = self.taking.lock();
        self.gather(&mut taking);
        let queued = &mut taking.queued;
        let (mut count, mut spans, mut bytes) = (0, 0, 0);
        for item in queued.iter() {
            if spans + item.count() > self.batch {
                break;
            }
            count += 1;
            spans += item.count();
            bytes += item.bytes();
        }
        let mut taken: Vec<T> = queued.drain(..count).collect();
        if taken.is_empty()
            && let Some(first) = queued.front_mut()
        {
            let before = first.bytes();
            // What cannot be taken apart goes as it is.
            let (part, left) = match first.split_off(self.batch) {
                Some(part) => (part, first.bytes()),
                None => (queued.pop_front().expect("it is there"), 0),
            };
            bytes = before - left.min(before);
            spans = part.count();
            taken.push(part);
        }
        self.depth.fetch_sub(spans, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        taken
    }

    /// Returns once a batch is full, or is wanted as it is; at once if one is.
    pub async fn full_batch(&self) {
        loop {
            let depth = self.depth.load(Ordering::Relaxed);
            if depth >= self.batch || depth > 0 && self.hurried.load(Ordering::Relaxed) {
                return;
            }
            self.filled.notified().await;
        }
    }

    /// From now on somebody takes what comes in, and tells what became of it.
    pub fn attach_exporter(&self) {
        self.has_exporter.store(true, Ordering::Relaxed);
    }

    /// Has everything that is queued exported, and what comes later without delay. Returns when it has arrived or was
    /// given up; at once if nobody exports. To be bounded by the caller: a backend may keep silent.
    pub async fn flush(&self) {
        if !self.has_exporter.load(Ordering::Relaxed) {
            return;
        }
        let wanted = self.accepted.load(Ordering::Relaxed);
        self.hurried.store(true, Ordering::Relaxed);
        self.filled.notify_one();
        loop {
            // Registered before the counters are read, so that no change is missed.
            let settled = self.settled.notified();
            let counts = self.counts();
            if counts.exported + counts.dropped_export_failed + counts.dropped_rejected >= wanted {
                return;
            }
            settled.await;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.depth.load(Ordering::Relaxed) == 0
    }

    /// The backend accepted them.
    pub fn count_exported(&self, spans: usize) {
        self.exported.fetch_add(spans as u64, Ordering::Relaxed);
        self.settled.notify_waiters();
    }

    /// The backend refused them for good.
    pub fn count_rejected(&self, spans: usize) {
        self.dropped_rejected.fetch_add(spans as u64, Ordering::Relaxed);
        self.settled.notify_waiters();
    }

    /// The backend did not take them, after all retries.
    pub fn count_failed(&self, spans: usize) {
        self.dropped_export_failed.fetch_add(spans as u64, Ordering::Relaxed);
        self.settled.notify_waiters();
    }

    pub fn counts(&self) -> QueueCounts {
        QueueCounts {
            exported: self.exported.load(Ordering::Relaxed),
            dropped_queue_full: self.dropped_queue_full.load(Ordering::Relaxed),
            dropped_export_failed: self.dropped_export_failed.load(Ordering::Relaxed),
            dropped_rejected: self.dropped_rejected.load(Ordering::Relaxed),
            depth: self.depth.load(Ordering::Relaxed) as u64,
            bytes: (self.bytes.load(Ordering::Relaxed) + self.inlet_bytes.load(Ordering::Relaxed)) as u64,
            cold: self.cold.load(Ordering::Relaxed),
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
        let queue = ExportQueue::new(2 * spans, spans);
        (0..3).for_each(|_| queue.push(trace()));
        let counts = queue.counts();
        assert_eq!((counts.depth, counts.dropped_queue_full), (2 * spans as u64, spans as u64));
        assert_eq!(queue.take().len(), 1);
        assert_eq!(queue.counts().depth, spans as u64);
        queue.push(trace());
        assert_eq!(queue.counts().dropped_queue_full, spans as u64);
    }

    #[test]
    fn a_batch_has_no_more_spans_than_it_may_and_traces_stay_whole_if_they_can() {
        let spans = trace().span_count();
        assert!(spans > 2);
        let counts = |batch: &[Queued]| batch.iter().map(Countable::count).collect::<Vec<_>>();
        // Two fit, and almost a third.
        let queue = ExportQueue::new(100, 3 * spans - 1);
        (0..5).for_each(|_| queue.push(trace()));
        assert_eq!(counts(&queue.take()), [spans; 2]);
        assert_eq!(counts(&queue.take()), [spans; 2]);
        assert_eq!(counts(&queue.take()), [spans]);
        assert!(queue.take().is_empty() && queue.is_empty());
        assert_eq!(queue.counts().bytes, 0);
        // Not even one does: its spans come one batch after the other, each once and in order.
        let queue = ExportQueue::new(100, 2);
        queue.push(trace());
        queue.push(trace());
        let mut told = Vec::new();
        while !queue.is_empty() {
            let batch = queue.take();
            assert!(counts(&batch).iter().sum::<usize>() <= 2);
            told.extend(batch.into_iter().flat_map(|item| item.into_spans().0));
        }
        let expected: Vec<Span> =
            [trace(), trace()].iter().flat_map(|trace| trace.spans().collect::<Vec<_>>()).collect();
        assert_eq!(told, expected);
        assert_eq!((queue.counts().depth, queue.counts().bytes), (0, 0));
    }

    #[test]
    fn what_waits_is_accounted_for_with_its_bytes() {
        let queue = ExportQueue::new(100, 50);
        queue.push(trace());
        let one = queue.counts().bytes;
        assert!(one as usize >= trace().bytes() + size_of::<Queued>());
        queue.push(trace());
        assert_eq!(queue.counts().bytes, 2 * one);
        let logs = LogQueue::new(1, 1);
        let record = LogRecord {
            unix_ns: 1,
            level: tracing::Level::INFO,
            target: "ferrite".to_owned(),
            message: "m".repeat(1000),
            ids: None,
            fields: vec![("field", serde_json::Value::from("v".repeat(500)))],
        };
        logs.push(record.clone());
        // No room: it does not count.
        logs.push(record);
        let bytes = logs.counts().bytes;
        assert!((1500..2500).contains(&bytes), "{bytes}");
        assert_eq!((logs.take().len(), logs.counts().bytes), (1, 0));
    }
}
