//! The way of one worker's chosen traces to the thread that exports them: a ring of fixed memory, written by the one, read by the other.
//!
//! Both copy. So neither ever waits for the other, nor frees what the other's allocator has given, whose lock it would hold: the thread
//! that exports is the less urgent one and may be stopped anywhere. What finds no room is the worker's to drop and to count.
//!
//! Whenever it is empty the writer goes back to the beginning of the memory. So of a ring that has to outlast a reader which does not come
//! round for long, no more is touched, and kept in the caches, than is in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::batch::{Batch, SLOT_BYTES, SLOT_WORDS, Slot};
use crate::entry::KeptTrace;
use crate::ring::store_slot;
use crate::teller::shows_write;

/// A trace that was chosen for export, where it was recorded.
#[derive(Clone, Copy, Debug)]
pub struct ChosenTrace<'b> {
    /// Of one trace, its root first.
    batch: Batch<'b>,
}

impl<'b> ChosenTrace<'b> {
    pub(crate) fn new(batch: Batch<'b>) -> Self {
        Self { batch }
    }

    /// A copy of its own.
    pub fn keep(&self) -> KeptTrace {
        KeptTrace::new(self.batch.to_slots())
    }

    /// How many spans it has, root included; as [`KeptTrace::span_count`].
    pub fn span_count(&self) -> usize {
        span_count(&self.batch)
    }

    /// What it takes in memory; as [`KeptTrace::bytes`].
    pub fn bytes(&self) -> usize {
        self.batch.header.slots() * SLOT_BYTES
    }
}

pub(crate) fn span_count(batch: &Batch<'_>) -> usize {
    batch.commands[0].spans() + usize::from(shows_write(batch))
}

/// Bytes that are left behind before it is worth going back to the beginning: about what is written from one batch to the next.
const BEHIND_BYTES: u64 = 64 << 10;

/// What both ends share. Positions count slots since the beginning, those that were passed over too; an entry is a batch of one trace,
/// whose first word tells its length.
#[derive(Debug)]
struct Shared {
    /// A power of two of them.
    slots: Box<[[AtomicU64; SLOT_WORDS]]>,
    /// Behind the last whole entry. The writer's.
    written: Line,
    /// Before it, entries have been taken and may be overwritten. The reader's.
    taken: Line,
    /// The last position at which nothing was left to take and the writer went back: what follows lies where the ring begins anew. Published
    /// with `written`.
    went_back: AtomicU64,
}

/// No position.
const NEVER: u64 = u64::MAX;

/// A position in a cache line of its own: one side writes it all the time, the other another.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line(AtomicU64);

impl Shared {
    fn slot(&self, position: u64) -> &[AtomicU64; SLOT_WORDS] {
        &self.slots[position as usize & (self.slots.len() - 1)]
    }
}

/// An outbox of this many bytes, rounded up to a power of two: the worker's end and the other.
pub fn outbox(bytes: usize) -> (OutboxWriter, OutboxReader) {
    let slots = bytes.div_ceil(SLOT_BYTES).next_power_of_two();
    let shared = Arc::new(Shared {
        slots: bytemuck::zeroed_slice_box(slots),
        written: Line::default(),
        taken: Line::default(),
        went_back: AtomicU64::new(NEVER),
    });
    (OutboxWriter { shared: Arc::clone(&shared), touched: 0 }, OutboxReader { shared })
}

/// The worker's end.
#[derive(Debug)]
pub struct OutboxWriter {
    shared: Arc<Shared>,
    /// Slots that were ever written.
    touched: usize,
}

/// How a trace lies in an outbox that takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Behind what is there.
    end: u64,
    from: u64,
    /// With this trace the outbox becomes more than half full.
    pub is_half: bool,
}

impl OutboxWriter {
    /// Whether it can take this trace; nobody else takes that room away. `None`: not now, or never, if the trace is larger than all of it.
    #[inline]
    pub fn room(&self, trace: &ChosenTrace<'_>) -> Option<Room> {
        let (end, len) = (self.shared.written.0.load(Ordering::Relaxed), trace.batch.header.slots() as u64);
        let all = self.shared.slots.len() as u64;
        // What was read there has been read before it may be overwritten.
        let taken = match self.shared.taken.0.load(Ordering::Acquire) {
            taken if taken == self.shared.went_back.load(Ordering::Relaxed) => taken.next_multiple_of(all),
            taken => taken,
        };
        let (before, behind) = (end - taken, (end & (all - 1)) * SLOT_BYTES as u64);
        let goes_back = before == 0 && behind >= BEHIND_BYTES.min(all * SLOT_BYTES as u64 / 2);
        let from = if goes_back { end.next_multiple_of(all) } else { end };
        (before + len <= all).then_some(Room { end, from, is_half: before * 2 <= all && (before + len) * 2 > all })
    }

    /// Puts it where [`Self::room`] has found room for it.
    #[inline]
    pub fn put(&mut self, trace: &ChosenTrace<'_>, room: Room) {
        debug_assert_eq!(room.end, self.shared.written.0.load(Ordering::Relaxed), "nothing came in between");
        if room.from != room.end {
            self.shared.went_back.store(room.end, Ordering::Relaxed);
        }
        let mut at = room.from;
        let mut store = |slot: &Slot| {
            store_slot(self.shared.slot(at), slot);
            at += 1;
        };
        trace.batch.structs().into_iter().for_each(|part| part.iter().for_each(&mut store));
        trace.batch.text_slots().for_each(|slot| store(&slot));
        debug_assert_eq!(at, room.from + trace.batch.header.slots() as u64);
        self.shared.written.0.store(at, Ordering::Release);
        // Beyond the end of the ring it goes on at its beginning.
        let all = self.shared.slots.len();
        let reached = (room.from as usize & (all - 1)) + (at - room.from) as usize;
        self.touched = self.touched.max(reached.min(all));
    }

    /// Bytes of memory that it has.
    pub fn bytes(&self) -> usize {
        self.shared.slots.len() * SLOT_BYTES
    }

    /// Bytes of it that were ever used: what it takes of the machine's memory.
    #[inline]
    pub fn touched_bytes(&self) -> usize {
        self.touched * SLOT_BYTES
    }
}

/// The end of who exports.
#[derive(Debug)]
pub struct OutboxReader {
    shared: Arc<Shared>,
}

impl OutboxReader {
    /// The oldest trace that was not taken yet.
    pub fn take(&mut self) -> Option<KeptTrace> {
        let mut from = self.shared.taken.0.load(Ordering::Relaxed);
        if from == self.shared.written.0.load(Ordering::Acquire) {
            return None;
        }
        let read = |at: u64| -> Slot { self.shared.slot(at).each_ref().map(|word| word.load(Ordering::Relaxed)) };
        if from == self.shared.went_back.load(Ordering::Relaxed) {
            from = from.next_multiple_of(self.shared.slots.len() as u64);
        }
        let len = read(from)[0];
        let slots = (from..from + len).map(read).collect();
        self.shared.taken.0.store(from + len, Ordering::Release);
        Some(KeptTrace::new(slots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Header, Parts};
    use crate::record::{CommandRecord, SpanRecord};
    use crate::schema::SpanName;

    /// A trace with this id and so many records.
    fn with_trace<T>(id: u64, records: usize, look: impl FnOnce(ChosenTrace<'_>) -> T) -> T {
        let command = CommandRecord { trace_id: [0, id], span_id: id, records: records as u16, ..Default::default() };
        let records = vec![SpanRecord::lap(SpanName::IndexLookup, 0, 0, id, 0); records];
        let texts = [id as u8; SLOT_BYTES];
        let parts = Parts { commands: &[command], records: &records, texts: &texts, ..Parts::default() };
        look(ChosenTrace::new(Batch::new(Header::default(), parts)))
    }

    fn put(writer: &mut OutboxWriter, id: u64, records: usize) -> Option<bool> {
        with_trace(id, records, |trace| {
            let room = writer.room(&trace)?;
            writer.put(&trace, room);
            Some(room.is_half)
        })
    }

    fn kept(id: u64, records: usize) -> KeptTrace {
        with_trace(id, records, |trace| {
            assert_eq!((trace.keep().bytes(), trace.keep().span_count()), (trace.bytes(), trace.span_count()));
            trace.keep()
        })
    }

    #[test]
    fn traces_come_out_as_they_went_in_however_the_ring_ends() {
        let (mut writer, mut reader) = outbox(1 << 10);
        for id in 0..500 {
            assert!(put(&mut writer, id, (id % 7) as usize).is_some());
            assert_eq!(reader.take(), Some(kept(id, (id % 7) as usize)));
            assert_eq!(reader.take(), None);
        }
    }

    #[test]
    fn no_more_memory_is_touched_than_is_in_use() {
        let (mut writer, mut reader) = outbox(1 << 20);
        let (mut id, mut highest) = (0, 0);
        for in_use in [1, 10, 1, 1000, 1] {
            for _ in 0..3000 {
                let first = id;
                for _ in 0..in_use {
                    assert!(put(&mut writer, id, (id % 7) as usize).is_some());
                    id += 1;
                }
                (first..id).for_each(|id| assert_eq!(reader.take(), Some(kept(id, (id % 7) as usize))));
                if in_use == 1000 {
                    break;
                }
            }
            highest = highest.max(in_use as usize * kept(0, 6).bytes());
            let touched = writer.touched_bytes();
            assert!((BEHIND_BYTES as usize..=BEHIND_BYTES as usize + highest).contains(&touched), "{touched}");
        }
    }

    #[test]
    fn all_of_it_is_room_wherever_it_went_back() {
        let (mut writer, mut reader) = outbox(1 << 12);
        let fit = (writer.bytes() / kept(0, 0).bytes()) as u64;
        for taken_before in 0..3 * fit {
            (0..taken_before).for_each(|id| {
                assert!(put(&mut writer, id, 0).is_some());
                assert_eq!(reader.take(), Some(kept(id, 0)));
            });
            let halves: Vec<bool> = (0..fit).map(|id| put(&mut writer, id, 0).expect("there is room")).collect();
            assert_eq!(halves.iter().filter(|half| **half).count(), 1);
            assert_eq!(put(&mut writer, 0, 0), None);
            (0..fit).for_each(|id| assert_eq!(reader.take(), Some(kept(id, 0))));
            assert_eq!(reader.take(), None);
        }
    }

    #[test]
    fn what_finds_no_room_stays_out_until_something_is_taken() {
        let (mut writer, mut reader) = outbox(1 << 10);
        let len = kept(0, 0).bytes();
        let fit = writer.bytes() / len;
        let halves: Vec<Option<bool>> = (0..fit as u64).map(|id| put(&mut writer, id, 0)).collect();
        assert!(halves.iter().all(Option::is_some));
        // Told once, by the one with which it became so.
        let half = halves.iter().position(|half| *half == Some(true)).expect("it is full");
        assert_eq!((halves.iter().flatten().filter(|half| **half).count(), half), (1, writer.bytes() / 2 / len));
        assert_eq!((put(&mut writer, 99, 0), put(&mut writer, 99, 1000)), (None, None));
        assert_eq!(reader.take(), Some(kept(0, 0)));
        assert_eq!(put(&mut writer, 100, 0), Some(false));
        let rest: Vec<u64> = std::iter::from_fn(|| reader.take()).map(|trace| trace.root_id().0).collect();
        assert_eq!(rest, (1..fit as u64).chain([100]).collect::<Vec<_>>());
    }

    #[test]
    fn a_reader_on_another_thread_gets_every_trace_whole_and_in_order() {
        let count = if cfg!(miri) { 100 } else { 20_000 };
        let (mut writer, mut reader) = outbox(4 << 10);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for id in 0..count {
                    let trace = loop {
                        match reader.take() {
                            Some(trace) => break trace,
                            None => std::thread::yield_now(),
                        }
                    };
                    assert_eq!(trace, kept(id, (id % 11) as usize));
                }
            });
            for id in 0..count {
                while put(&mut writer, id, (id % 11) as usize).is_none() {
                    std::thread::yield_now();
                }
            }
        });
    }
}
