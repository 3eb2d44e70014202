//! A worker's way into the export queue: no lock, no allocation, and nothing that a less urgent thread could hold.

use std::sync::Arc;

use ferrite_telemetry::{ChosenTrace, OutboxWriter, outbox};

use crate::{ExportQueue, Queued};

/// Bytes of a worker's outbox for each span that may wait: more than spans take if a command has some of them. It only has to last until
/// the thread that exports comes round, but on a busy machine that may take as long as there is room in the queue.
const SPAN_BYTES: usize = 64;
/// However many may wait.
const OUTBOX_BYTES_MAX: usize = 16 << 20;

/// Where a worker puts the traces that were chosen.
pub struct Outgoing {
    queue: Arc<ExportQueue>,
    outbox: OutboxWriter,
}

impl Outgoing {
    /// `used`: whether any will be chosen. If not, there is next to no outbox.
    pub fn new(queue: Arc<ExportQueue>, used: bool) -> Self {
        let bytes = if used { queue.depth_max() * SPAN_BYTES } else { 0 };
        Self::with_bytes(queue, bytes.min(OUTBOX_BYTES_MAX))
    }

    fn with_bytes(queue: Arc<ExportQueue>, bytes: usize) -> Self {
        let (writer, mut reader) = outbox(bytes);
        queue.add_inlet(Box::new(move || reader.take().map(Queued::Trace)));
        Self { queue, outbox: writer }
    }

    /// Queues the trace for export, or drops it as a whole and counts it.
    #[inline]
    pub fn send(&mut self, trace: ChosenTrace<'_>) {
        let (spans, bytes) = (trace.span_count(), trace.bytes());
        let Some(room) = self.outbox.room(&trace) else {
            return self.send_without_room(trace);
        };
        let Some(admitted) = self.queue.admit(spans, size_of::<Queued>() + bytes) else { return };
        let touched = self.outbox.touched_bytes();
        self.outbox.put(&trace, room);
        if self.outbox.touched_bytes() > touched {
            self.queue.add_bytes(self.outbox.touched_bytes() - touched);
        }
        if room.is_half {
            self.queue.press();
        }
        self.queue.tell(admitted);
    }

    #[cold]
    fn send_without_room(&self, trace: ChosenTrace<'_>) {
        if trace.bytes() > self.outbox.bytes() {
            // It will never have any here; there are few so large.
            self.queue.push(trace.keep());
        } else {
            self.queue.count_queue_full(trace.span_count());
        }
    }
}

#[cfg(test)]
mod tests {
    use ferrite_telemetry::{Outcome, Recorder, RecorderConfig, TraceBuffer};

    use super::*;
    use crate::queue::Countable;

    /// Commits one command with so many children.
    fn command(recorder: &mut Recorder, buffer: &mut TraceBuffer, children: usize, outgoing: &mut Outgoing) {
        buffer.start_batch();
        buffer.begin_command();
        buffer.describe("EXEC", 1, 1, []);
        for _ in 0..children {
            let child = buffer.begin_child(None);
            buffer.describe("SET", 1, 3, [&b"key"[..]]);
            buffer.finish_child(child, Outcome::Ok, b"");
        }
        buffer.finish_command(Outcome::Ok, b"", 0);
        buffer.net_write();
        recorder.commit_to(buffer, |trace| outgoing.send(trace));
    }

    fn stage(depth_max: usize, bytes: usize) -> (Arc<ExportQueue>, Recorder, TraceBuffer, Outgoing) {
        let queue = Arc::new(ExportQueue::new(depth_max, 10));
        let mut recorder = Recorder::new(|| 1, &RecorderConfig { export: true, ..RecorderConfig::default() });
        let buffer = recorder.buffer();
        let outgoing = Outgoing::with_bytes(Arc::clone(&queue), bytes);
        (queue, recorder, buffer, outgoing)
    }

    #[test]
    fn what_a_worker_sends_is_queued_counted_and_taken_in_order() {
        let (queue, mut recorder, mut buffer, mut outgoing) = stage(1000, 1 << 16);
        assert_eq!(queue.counts().bytes, 0);
        (0..4).for_each(|children| command(&mut recorder, &mut buffer, children, &mut outgoing));
        let waiting = queue.counts();
        assert_eq!(waiting.depth, recorder.counters().sampled());
        let taken: Vec<Queued> =
            std::iter::from_fn(|| Some(queue.take()).filter(|batch| !batch.is_empty())).flatten().collect();
        assert_eq!(taken.len(), 4);
        assert!(taken.is_sorted_by(|a, b| a.count() < b.count()));
        // The outbox keeps what it has used.
        let used = outgoing.outbox.touched_bytes() as u64;
        assert_eq!(waiting.bytes - used, taken.iter().map(Countable::bytes).sum::<usize>() as u64);
        assert_eq!((queue.counts().depth, queue.counts().bytes), (0, used));
    }

    #[test]
    fn every_trace_that_finds_no_room_in_the_outbox_or_the_queue_is_counted_and_large_ones_go_around() {
        for (depth_max, bytes) in [(1000, 1 << 10), (15, 1 << 16)] {
            let (queue, mut recorder, mut buffer, mut outgoing) = stage(depth_max, bytes);
            (0..20).for_each(|_| command(&mut recorder, &mut buffer, 0, &mut outgoing));
            let counts = queue.counts();
            assert!(counts.dropped_queue_full > 0 && counts.depth > 0 && counts.depth <= depth_max as u64);
            assert_eq!(counts.depth + counts.dropped_queue_full, recorder.counters().sampled());
        }
        let (queue, mut recorder, mut buffer, mut outgoing) = stage(1000, 1 << 10);
        command(&mut recorder, &mut buffer, 50, &mut outgoing);
        assert_eq!((queue.counts().depth, queue.counts().dropped_queue_full), (recorder.counters().sampled(), 0));
        assert!(!queue.take().is_empty());
    }

    #[test]
    fn sending_allocates_nothing_once_warm() {
        let (queue, mut recorder, mut buffer, mut outgoing) = stage(100_000, 1 << 16);
        command(&mut recorder, &mut buffer, 3, &mut outgoing);
        let allocations = allocation_counter::measure(|| {
            (0..20).for_each(|_| command(&mut recorder, &mut buffer, 3, &mut outgoing));
        });
        assert_eq!(allocations.count_total, 0);
        assert_eq!(queue.counts().depth, recorder.counters().sampled());
    }

    #[tokio::test]
    async fn an_outbox_that_fills_is_emptied_before_it_is_full() {
        let (queue, mut recorder, mut buffer, mut outgoing) = stage(100_000, 1 << 12);
        let gathering = Arc::clone(&queue);
        let task = tokio::spawn(async move { gathering.gather_when_pressed().await });
        for _ in 0..200 {
            command(&mut recorder, &mut buffer, 1, &mut outgoing);
            tokio::task::yield_now().await;
        }
        task.abort();
        assert_eq!((queue.counts().depth, queue.counts().dropped_queue_full), (recorder.counters().sampled(), 0));
    }
}
