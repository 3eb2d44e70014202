//! The flight recorder: the last traces of one worker in fixed memory, overwritten oldest first, readable by any worker
//! at any time, even while the writer is stuck in a command.
//!
//! It is a seqlock over a ring (Boehm, "Can seqlocks get along with programming language memory models?", 2012): the
//! writer first moves `reserved` past what it is about to overwrite, then writes, then publishes the entry's position. A
//! reader copies an entry and keeps the copy only if `reserved` still leaves it alone. All words are atomics, so a copy
//! that raced is garbage, not undefined, and is thrown away.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::context::TraceId;
use crate::entry::{KeptTrace, LENGTHS, SLOT_WORDS, TRACE_ID};
use crate::schema::SpanName;

/// One worker's last traces. One thread writes, through its [`crate::Recorder`].
#[derive(Debug)]
pub struct Ring {
    words: Box<[AtomicU64]>,
    /// Slots ever reserved: everything more than one ring length before this may be overwritten.
    reserved: AtomicU64,
    /// Position of the newest whole entry, plus one; zero before the first.
    newest: AtomicU64,
}

impl Ring {
    /// A ring of about this many bytes, at least 4 KiB.
    pub fn new(bytes: usize) -> Self {
        let slots = (bytes / (8 * SLOT_WORDS)).max(128);
        let words = (0..slots * SLOT_WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { words, reserved: AtomicU64::new(0), newest: AtomicU64::new(0) }
    }

    fn capacity(&self) -> u64 {
        (self.words.len() / SLOT_WORDS) as u64
    }

    /// Where the words of the slot at this position begin.
    fn index(&self, position: u64) -> usize {
        (position % self.capacity()) as usize * SLOT_WORDS
    }

    /// Appends an entry (whole slots, its own length in place). Gives false for one that would take more than half of the
    /// ring. Only the one writer may call this.
    pub(crate) fn push(&self, entry: &[u64]) -> bool {
        let slots = (entry.len() / SLOT_WORDS) as u64;
        debug_assert_eq!(entry.len() % SLOT_WORDS, 0);
        debug_assert_eq!(entry[LENGTHS], slots);
        if slots > self.capacity() / 2 {
            return false;
        }
        let start = self.reserved.load(Ordering::Relaxed);
        let newest = self.newest.load(Ordering::Relaxed);
        // The predecessor lies directly before, so the distance is its length; zero ends the chain.
        let before = if newest == 0 { 0 } else { start - (newest - 1) };
        self.reserved.store(start + slots, Ordering::Relaxed);
        fence(Ordering::Release);

        let at = self.index(start);
        let (first, second) = entry.split_at(entry.len().min(self.words.len() - at));
        for (to, from) in self.words[at..].iter().zip(first) {
            to.store(*from, Ordering::Relaxed);
        }
        for (to, from) in self.words.iter().zip(second) {
            to.store(*from, Ordering::Relaxed);
        }
        self.words[at + LENGTHS].store(slots | before << 32, Ordering::Relaxed);
        self.newest.store(start + 1, Ordering::Release);
        true
    }

    /// Whether the entry at this position was whole until now: call after reading it.
    fn intact(&self, position: u64) -> bool {
        fence(Ordering::Acquire);
        position + self.capacity() >= self.reserved.load(Ordering::Relaxed)
    }

    fn word(&self, position: u64, word: usize) -> u64 {
        self.words[self.index(position) + word].load(Ordering::Relaxed)
    }

    fn copy(&self, position: u64, slots: u64) -> Box<[u64]> {
        let at = self.index(position);
        let len = slots as usize * SLOT_WORDS;
        let (tail, head) = (&self.words[at..], &self.words[..at]);
        let mut words: Box<[u64]> =
            tail.iter().chain(head).take(len).map(|word| word.load(Ordering::Relaxed)).collect();
        words[LENGTHS] = slots;
        words
    }

    /// Walks from the newest entry to the oldest, copying those that `wanted` accepts by their trace id, until `count`
    /// commands are found. Of what lies between them and is no command as many are given at most.
    fn walk(&self, count: usize, wanted: impl Fn(TraceId) -> bool) -> Vec<KeptTrace> {
        let mut found = Vec::new();
        let (mut commands, mut others) = (0, 0);
        let Some(mut position) = self.newest.load(Ordering::Acquire).checked_sub(1) else { return found };
        while commands < count {
            let lengths = self.word(position, LENGTHS);
            let [high, low] = [0, 1].map(|half| u128::from(self.word(position, TRACE_ID + half)));
            // Nothing read so far may be believed before this.
            if !self.intact(position) {
                break;
            }
            let (slots, before) = (lengths & 0xffff_ffff, lengths >> 32);
            if wanted(TraceId(high << 64 | low)) {
                let words = self.copy(position, slots);
                if !self.intact(position) {
                    break;
                }
                let trace = KeptTrace::new(words);
                let of_its_kind = if trace.name() == SpanName::Command { &mut commands } else { &mut others };
                *of_its_kind += 1;
                if *of_its_kind <= count {
                    found.push(trace);
                }
            }
            if before == 0 {
                break;
            }
            position -= before;
        }
        found
    }

    /// The traces of the last `count` commands, newest first, and of what else ended among them.
    pub fn last(&self, count: usize) -> Vec<KeptTrace> {
        self.walk(count, |_| true)
    }

    /// Every trace with this id that is still there, newest first.
    pub fn find(&self, trace_id: TraceId) -> Vec<KeptTrace> {
        self.walk(usize::MAX, |id| id == trace_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An entry whose every word but the length follows from `id`.
    fn entry(id: u64, slots: usize) -> Vec<u64> {
        let mut words = vec![id; slots * SLOT_WORDS];
        words[LENGTHS] = slots as u64;
        words
    }

    fn words_of(trace: &KeptTrace) -> Vec<u64> {
        trace.words().to_vec()
    }

    #[test]
    fn an_empty_ring_has_nothing() {
        assert!(Ring::new(0).last(9).is_empty());
    }

    #[test]
    fn what_is_too_large_is_refused_and_hurts_nothing() {
        let ring = Ring::new(0);
        assert!(ring.push(&entry(1, 64)));
        assert!(!ring.push(&entry(2, 65)));
        assert_eq!(ring.last(9).iter().map(words_of).collect::<Vec<_>>(), [entry(1, 64)]);
    }

    proptest! {
        #[test]
        fn the_newest_entries_that_fit_are_there_and_whole(sizes in proptest::collection::vec(1usize..64, 1..300)) {
            let ring = Ring::new(0);
            for (id, slots) in sizes.iter().enumerate() {
                prop_assert!(ring.push(&entry(id as u64, *slots)));
            }
            let mut room = 128;
            let expected: Vec<Vec<u64>> = sizes.iter().enumerate().rev()
                .take_while(|(_, slots)| { room -= **slots as i64; room >= 0 })
                .map(|(id, slots)| entry(id as u64, *slots))
                .collect();
            prop_assert_eq!(ring.last(usize::MAX).iter().map(words_of).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_reader_beside_the_writer_sees_only_whole_entries() {
        let ring = Ring::new(0);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for id in 0..20_000u64 {
                    assert!(ring.push(&entry(id, 1 + (id % 17) as usize)));
                }
            });
            let mut seen = 0;
            while !writer.is_finished() {
                let mut newer = u64::MAX;
                for trace in ring.last(usize::MAX) {
                    let words = words_of(&trace);
                    let id = words[1];
                    assert_eq!(words, entry(id, 1 + (id % 17) as usize));
                    assert!(newer == u64::MAX || id + 1 == newer, "{id} after {newer}");
                    newer = id;
                    seen += 1;
                }
            }
            writer.join().expect("the writer asserts");
            assert!(ring.last(1)[0].words()[1] == 19_999 && seen > 0);
        });
    }

    #[test]
    fn traces_are_found_by_their_id() {
        let ring = Ring::new(0);
        for id in [1, 2, 1] {
            ring.push(&entry(id, 2));
        }
        assert_eq!(ring.find(TraceId(1 << 64 | 1)).len(), 2);
        assert!(ring.find(TraceId(5)).is_empty());
    }
}
