//! The flight recorder: the last batches of one worker in fixed memory, overwritten oldest first, readable by any worker
//! at any time, even while the writer is stuck in a command.
//!
//! It is a seqlock over a ring (Boehm, "Can seqlocks get along with programming language memory models?", 2012): the
//! writer first moves `reserved` past what it is about to overwrite, then writes, then publishes the entry's position. A
//! reader copies an entry and keeps the copy only if `reserved` still leaves it alone. All words are atomics, so a copy
//! that raced is garbage, not undefined, and is thrown away.

use std::ops::ControlFlow;
use std::slice::from_ref;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::batch::{Batch, COMMAND_SLOTS, HEADER_SLOTS, Header, SLOT_BYTES, SLOT_WORDS, Slot, Splitter};
use crate::context::TraceId;
use crate::entry::KeptTrace;
use crate::filter::{self, TraceFilter};
use crate::record::{CommandRecord, DISCARDED};
use crate::schema::{SpanName, Tier};

/// Where in an entry's first slot its own length (low half) and its predecessor's are, in slots.
const LENGTHS: usize = 0;
/// The least that a ring has.
const SLOTS_MIN: usize = 128;

/// How long a command took that a tier served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierTime {
    pub tier: Tier,
    /// Execution and waits for the disk.
    pub execution_ns: u64,
    pub trace_id: TraceId,
}

/// One worker's last traces. One thread writes, through its [`crate::Recorder`].
#[derive(Debug)]
pub struct Ring {
    /// A power of two of them.
    slots: Box<[[AtomicU64; SLOT_WORDS]]>,
    /// Slots ever reserved: everything more than one ring length before this may be overwritten.
    reserved: AtomicU64,
    /// Position of the newest whole entry, plus one; zero before the first.
    newest: AtomicU64,
}

impl Ring {
    /// A ring of this many bytes, rounded up to a power of two of at least 4 KiB.
    pub fn new(bytes: usize) -> Self {
        let slots = (bytes / SLOT_BYTES).max(SLOTS_MIN).next_power_of_two();
        let slots = (0..slots).map(|_| Default::default()).collect();
        Self { slots, reserved: AtomicU64::new(0), newest: AtomicU64::new(0) }
    }

    /// Bytes of memory, all of them touched.
    pub fn bytes(&self) -> usize {
        self.slots.len() * SLOT_BYTES
    }

    /// All of it, in an order in which a copy can be judged: what was overwritten while the slots were read is told by
    /// what is reserved afterwards.
    pub(crate) fn memory(&self) -> [&[AtomicU64]; 3] {
        [from_ref(&self.newest), self.slots.as_flattened(), from_ref(&self.reserved)]
    }

    /// A copy of such memory, to be read; `None` if it is none.
    pub(crate) fn from_words(newest: u64, words: &[u64], reserved: u64) -> Option<Self> {
        let (slots, []) = words.as_chunks::<SLOT_WORDS>() else { return None };
        if !slots.len().is_power_of_two() || slots.len() < SLOTS_MIN || newest > reserved {
            return None;
        }
        let slots = slots.iter().map(|slot| slot.map(AtomicU64::new)).collect();
        Some(Self { slots, reserved: AtomicU64::new(reserved), newest: AtomicU64::new(newest) })
    }

    #[inline]
    fn slot(&self, position: u64) -> &[AtomicU64; SLOT_WORDS] {
        &self.slots[position as usize & (self.slots.len() - 1)]
    }

    /// Appends a batch. Gives false for one that would take more than half of the ring. Only the one writer may call this.
    #[inline]
    pub(crate) fn push(&self, batch: &Batch<'_>) -> bool {
        let len = batch.header.slots();
        if len > self.slots.len() / 2 {
            return false;
        }
        let start = self.reserved.load(Ordering::Relaxed);
        let newest = self.newest.load(Ordering::Relaxed);
        // The predecessor lies directly before, so the distance is its length; zero ends the chain.
        let before = if newest == 0 { 0 } else { start - (newest - 1) };
        self.reserved.store(start + len as u64, Ordering::Relaxed);
        fence(Ordering::Release);

        let mut at = start;
        for part in batch.structs() {
            at = self.store(at, part);
        }
        at = self.store_texts(at, batch);
        debug_assert_eq!(at, start + len as u64);
        self.slot(start)[LENGTHS].store(len as u64 | before << 32, Ordering::Relaxed);
        self.newest.store(start + 1, Ordering::Release);
        true
    }

    /// Writes slots from this position on, round the end if need be; gives the position behind them.
    #[inline]
    fn store(&self, mut position: u64, mut slots: &[Slot]) -> u64 {
        while !slots.is_empty() {
            let room = &self.slots[position as usize & (self.slots.len() - 1)..];
            let (now, later) = slots.split_at(slots.len().min(room.len()));
            for (to, slot) in room.iter().zip(now) {
                store_slot(to, slot);
            }
            position += now.len() as u64;
            slots = later;
        }
        position
    }

    /// The same with the texts, which are bytes.
    #[inline]
    fn store_texts(&self, mut position: u64, batch: &Batch<'_>) -> u64 {
        for slot in batch.text_slots() {
            store_slot(self.slot(position), &slot);
            position += 1;
        }
        position
    }

    /// Whether the entry at this position was whole until now: call after reading it.
    fn intact(&self, position: u64) -> bool {
        fence(Ordering::Acquire);
        position + self.slots.len() as u64 >= self.reserved.load(Ordering::Relaxed)
    }

    fn read(&self, position: u64) -> Slot {
        self.slot(position).each_ref().map(|word| word.load(Ordering::Relaxed))
    }

    fn header(&self, position: u64) -> Header {
        let slots: [Slot; HEADER_SLOTS] = std::array::from_fn(|at| self.read(position + at as u64));
        bytemuck::cast(slots)
    }

    /// The trace ids of an entry's commands, which they begin with; nested ones included.
    fn trace_ids(&self, position: u64, commands: u16) -> impl Iterator<Item = TraceId> + '_ {
        (0..usize::from(commands)).map(move |command| {
            let [high, low, ..] = self.read(position + (HEADER_SLOTS + command * COMMAND_SLOTS) as u64);
            TraceId(u128::from(high) << 64 | u128::from(low))
        })
    }

    /// Walks from the newest entry to the oldest over those that `looks` is interested in, until `visit` has enough.
    /// `looks` may see what is being overwritten, and is not believed then.
    fn walk(&self, looks: impl Fn(u64, &Header) -> bool, mut visit: impl FnMut(&Batch<'_>) -> ControlFlow<()>) {
        let Some(mut position) = self.newest.load(Ordering::Acquire).checked_sub(1) else { return };
        let mut slots: Vec<Slot> = Vec::new();
        loop {
            let header = self.header(position);
            // Nothing read so far may be believed before this.
            if !self.intact(position) {
                return;
            }
            if looks(position, &header) {
                let len = header.slots() as u64;
                slots.clear();
                slots.extend((position..position + len).map(|position| self.read(position)));
                if !self.intact(position) || visit(&Batch::from_slots(&slots)).is_break() {
                    return;
                }
            }
            let before = header.lengths >> 32;
            if before == 0 {
                return;
            }
            position -= before;
        }
    }

    /// The traces of the last `count` commands, newest first, and of what else ended among them, but of that as many at
    /// most.
    pub fn last(&self, count: usize) -> Vec<KeptTrace> {
        let mut found = Vec::new();
        if count == 0 {
            return found;
        }
        let (mut splitter, mut traces) = (Splitter::default(), Vec::new());
        let (mut commands, mut others) = (0, 0);
        self.walk(
            |_, _| true,
            |batch| {
                splitter.split(batch, |_| true, |trace| traces.push(trace));
                while let Some(trace) = traces.pop() {
                    let of_its_kind = if trace.name() == SpanName::Command { &mut commands } else { &mut others };
                    *of_its_kind += 1;
                    if *of_its_kind <= count {
                        found.push(trace);
                    }
                }
                if commands < count { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        );
        found
    }

    /// Every trace with this id that is still there, newest first.
    pub fn find(&self, trace_id: TraceId) -> Vec<KeptTrace> {
        let mut found = Vec::new();
        let (mut splitter, mut traces) = (Splitter::default(), Vec::new());
        self.walk(
            |position, header| self.trace_ids(position, header.commands).any(|id| id == trace_id),
            |batch| {
                splitter.split(batch, |root| root.trace_id() == trace_id, |trace| traces.push(trace));
                found.extend(traces.drain(..).rev());
                ControlFlow::Continue(())
            },
        );
        found
    }

    /// Gives to `seen` the last `count` commands that found or wrote a value, each with the slowest tier where it did.
    pub fn tier_times(&self, count: usize, mut seen: impl FnMut(TierTime)) {
        let (mut tiers, mut left) = (Vec::new(), count);
        self.walk(
            |_, _| true,
            |batch| {
                filter::tiers(batch, &mut tiers);
                for root in batch.roots().rev() {
                    let command = &batch.commands[root];
                    let slowest = Tier::ALL.iter().rfind(|tier| tiers[root] & 1 << **tier as u8 != 0);
                    let Some(tier) = slowest.filter(|_| left > 0 && !command.has(DISCARDED)) else { continue };
                    left -= 1;
                    seen(TierTime { tier: *tier, execution_ns: command.execution_ns, trace_id: command.trace_id() });
                }
                if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        );
    }

    /// The newest `count` traces that are looked for, newest first.
    pub fn search(&self, filter: &TraceFilter, count: usize) -> Vec<KeptTrace> {
        let mut found = Vec::new();
        if count == 0 {
            return found;
        }
        let (mut splitter, mut traces, mut tiers) = (Splitter::default(), Vec::new(), Vec::new());
        self.walk(
            |_, header| filter.connection.is_none_or(|connection| header.connection == connection),
            |batch| {
                if filter.asks_for_tiers() {
                    filter::tiers(batch, &mut tiers);
                }
                let wanted = |root: &CommandRecord| filter.matches(batch, usize::from(root.root), &tiers);
                splitter.split(batch, wanted, |trace| traces.push(trace));
                found.extend(traces.drain(..).rev());
                if found.len() < count { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        );
        found.truncate(count);
        found
    }
}

#[inline]
pub(crate) fn store_slot(to: &[AtomicU64; SLOT_WORDS], slot: &Slot) {
    for (to, word) in to.iter().zip(slot) {
        to.store(*word, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Parts;
    use crate::record::CommandRecord;
    use proptest::prelude::*;

    /// Pushes a batch of `commands` roots in which everything follows from `id`.
    fn push(ring: &Ring, id: u64, commands: usize) -> bool {
        let record =
            |root| CommandRecord { trace_id: [id, id], span_id: id, start: id, offset: id, root, ..Default::default() };
        let commands: Vec<CommandRecord> = (0..commands as u16).map(record).collect();
        let common = Header { connection: id, ..Header::default() };
        ring.push(&Batch::new(common, Parts { commands: &commands, ..Parts::default() }))
    }

    /// The id of a trace of such a batch, which must be whole.
    fn id_of(trace: &KeptTrace) -> u64 {
        let batch = trace.batch();
        let (id, command) = (batch.header.connection, &batch.commands[0]);
        assert_eq!([command.trace_id[0], command.trace_id[1], command.span_id, command.start, command.offset], [id; 5]);
        id
    }

    #[test]
    fn an_empty_ring_has_nothing() {
        assert!(Ring::new(0).last(9).is_empty());
    }

    #[test]
    fn what_is_too_large_is_refused_and_hurts_nothing() {
        let ring = Ring::new(0);
        assert!(push(&ring, 1, 15));
        assert!(!push(&ring, 2, 16), "128 slots of ring, 2 + 16 * 4 of entry");
        assert_eq!(ring.last(99).iter().map(id_of).collect::<Vec<_>>(), [1; 15]);
    }

    proptest! {
        #[test]
        fn the_newest_entries_that_fit_are_there_and_whole(sizes in proptest::collection::vec(1usize..16, 1..300)) {
            let ring = Ring::new(0);
            for (id, commands) in sizes.iter().enumerate() {
                prop_assert!(push(&ring, id as u64, *commands));
            }
            let mut room = 128;
            let expected: Vec<u64> = sizes.iter().enumerate().rev()
                .take_while(|(_, commands)| { room -= (HEADER_SLOTS + **commands * COMMAND_SLOTS) as i64; room >= 0 })
                .flat_map(|(id, commands)| std::iter::repeat_n(id as u64, *commands))
                .collect();
            prop_assert_eq!(ring.last(usize::MAX).iter().map(id_of).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_reader_beside_the_writer_sees_only_whole_entries() {
        let ring = Ring::new(0);
        let commands = |id: u64| 1 + (id % 5) as usize;
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for id in 0..20_000u64 {
                    assert!(push(&ring, id, commands(id)));
                }
            });
            let mut seen = 0;
            while !writer.is_finished() {
                let ids: Vec<u64> = ring.last(usize::MAX).iter().map(id_of).collect();
                let mut rest = &ids[..];
                while let Some(&id) = rest.first() {
                    let (entry, older) = rest.split_at(commands(id).min(rest.len()));
                    assert_eq!(entry, vec![id; commands(id)]);
                    assert!(older.first().is_none_or(|&next| next + 1 == id), "{id} before {older:?}");
                    rest = older;
                    seen += 1;
                }
            }
            writer.join().expect("the writer asserts");
            assert!(id_of(&ring.last(1)[0]) == 19_999 && seen > 0);
        });
    }

    #[test]
    fn a_ring_is_read_back_from_its_memory() {
        let rings = [Ring::new(0), Ring::new(1 << 14)];
        for id in 0..100 {
            push(&rings[0], id, 2);
            push(&rings[1], id, 1);
        }
        let mut file = crate::dump::dump_header(&[&rings[0], &rings[1]], "notes");
        for part in rings.iter().flat_map(crate::dump::dump_memory) {
            part.iter().for_each(|word| file.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes()));
        }
        let (notes, read) = crate::dump::read_dump(&file).expect("it is whole");
        assert_eq!((notes.as_str(), read.len()), ("notes", 2));
        for (ring, read) in rings.iter().zip(&read) {
            assert_eq!(read.last(usize::MAX), ring.last(usize::MAX));
        }
        // What was overwritten while it was copied is left out.
        let words: Vec<u64> = rings[0].memory()[1].iter().map(|word| word.load(Ordering::Relaxed)).collect();
        let [newest, reserved] = [&rings[0].newest, &rings[0].reserved].map(|word| word.load(Ordering::Relaxed));
        let torn = Ring::from_words(newest, &words, reserved + 100).expect("a ring");
        assert_eq!(torn.last(usize::MAX).iter().map(id_of).collect::<Vec<_>>(), [99, 99, 98, 98]);
        use crate::dump::{DumpError, read_dump};
        assert_eq!(read_dump(&file[..file.len() - 1]).unwrap_err(), DumpError::Damaged);
        assert_eq!(read_dump(b"something else").unwrap_err(), DumpError::NoDump);
        file[8] = 99;
        assert_eq!(read_dump(&file).unwrap_err(), DumpError::Version(99));
    }

    #[test]
    fn traces_are_found_by_their_id() {
        let ring = Ring::new(0);
        for id in [1, 2, 1] {
            push(&ring, id, 2);
        }
        assert_eq!(ring.find(TraceId(1 << 64 | 1)).len(), 4);
        assert_eq!(ring.last(3).iter().map(id_of).collect::<Vec<_>>(), [1, 1, 2]);
        assert!(ring.find(TraceId(5)).is_empty());
    }

    #[test]
    fn traces_are_found_by_what_they_are() {
        let ring = Ring::new(0);
        let mut texts = Vec::new();
        let mut text = |text: &str| {
            let at = texts.len() as u32;
            texts.extend_from_slice(text.as_bytes());
            (at, text.len() as u16)
        };
        let mut command = |root: u16, statement: &str, name_len: u8, key_len: u16, result: u8, execution_ns: u64| {
            let (statement_at, statement_len) = text(statement);
            let mut flags = crate::record::FINISHED | if key_len > 0 { crate::record::HAS_KEY } else { 0 };
            if name_len == 4 && key_len > 0 {
                // One further key of one byte.
                text("\u{1}\0\u{1}\0");
                flags |= crate::record::MORE_KEYS;
            }
            let trace_id = [0, u64::from(root) + 1];
            let (spans, records) = (0, u16::from(statement.starts_with("GET")));
            CommandRecord {
                trace_id,
                statement_at,
                statement_len,
                name_len,
                key_len,
                result,
                execution_ns,
                root,
                flags,
                records,
                spans_dropped: spans,
                ..Default::default()
            }
        };
        let err = crate::schema::Outcome::Err as u8;
        let mut commands = vec![
            command(0, "GET a b", 3, 3, 0, 50),
            command(1, "MGET a c", 4, 1, 0, 500),
            command(2, "CONFIG SET", 10, 0, err, 5),
            command(3, "EXEC", 4, 0, 0, 7),
            command(3, "SET c", 3, 1, err, 0),
        ];
        commands[3].nested = 1;
        let nested = crate::record::SpanRecord::lap(SpanName::Command, 3, 0, 0, 4);
        commands[3].records = 1;
        let read = crate::record::SpanRecord::lap(SpanName::StorageRead, 0, 0, 0, 0);
        let read = read.with_tier(crate::schema::Tier::Disk);
        texts.resize(texts.len().next_multiple_of(SLOT_BYTES), 0);
        let common = Header { connection: 9, ..Header::default() };
        let records = [read, nested];
        let parts = Parts { commands: &commands, texts: &texts, records: &records, ..Parts::default() };
        assert!(ring.push(&Batch::new(common, parts)));
        push(&ring, 7, 1);

        let found = |filter: TraceFilter| {
            ring.search(&filter, 9).iter().map(|trace| trace.trace_id().0 as u64).collect::<Vec<_>>()
        };
        let key = |key: &str| TraceFilter { keys: vec![key.as_bytes().to_vec()], ..Default::default() };
        let named = |name: &str| TraceFilter { command: Some(name.to_owned()), ..Default::default() };
        assert_eq!(found(TraceFilter::default()), [7, 4, 3, 2, 1]);
        assert_eq!(found(TraceFilter { connection: Some(9), ..Default::default() }), [4, 3, 2, 1]);
        assert_eq!(found(key("a b")), [1]);
        assert_eq!(found(key("a")), [2]);
        assert_eq!(found(key("c")), [4, 2], "a further key, and one of a queued command");
        assert_eq!(found(key("a*")), [2, 1]);
        assert_eq!(found(named("CONFIG")), [3]);
        assert_eq!(found(named("GET")), [1]);
        assert_eq!(found(TraceFilter { failed: true, ..named("SET") }), [4]);
        assert_eq!(found(TraceFilter { failed: true, ..Default::default() }), [4, 3]);
        assert_eq!(found(TraceFilter { duration_min_ns: 50, ..Default::default() }), [2, 1]);
        assert_eq!(found(TraceFilter { tier: Some(crate::schema::Tier::Disk), ..Default::default() }), [1]);
        assert!(found(TraceFilter { tier: Some(crate::schema::Tier::Mutable), ..Default::default() }).is_empty());
        assert_eq!(ring.search(&TraceFilter::default(), 2).len(), 2);
        let mut times = Vec::new();
        ring.tier_times(9, |time| times.push(time));
        let read = TierTime { tier: Tier::Disk, execution_ns: 50, trace_id: TraceId(1) };
        assert_eq!(times, [read]);
    }
}
