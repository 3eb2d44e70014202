//! The reminders themselves: one after the other in chunks, so that none is copied when there are more; doubly linked into lists, so
//! that each can leave its list at once; and chained by their hash, which leads to each.
//!
//! What is removed is replaced by the last one: places have no holes, and one that is drawn by chance is a reminder. The table of
//! chains grows and shrinks by a bucket at a time (linear hashing, Litwin 1980), so that nothing here takes longer the more
//! reminders there are.

use super::Reminder;

/// Reminders of a chunk, and buckets of one.
const CHUNK: usize = 1024;
/// No place.
const NONE: u32 = u32::MAX;
/// In `prev`: the first of the list with the number that is left.
const HEAD: u32 = u32::MAX - 0xffff;
/// More reminders than this are not remembered: their keys go when they are met.
const PLACES_MAX: usize = HEAD as usize;
/// Times are kept in the bits below.
const DUE_BITS: u32 = 48;
const DUE_MAX: u64 = (1 << DUE_BITS) - 1;
/// In `due`: somebody looks at the key.
const CLAIMED: u64 = 1 << DUE_BITS;

/// Four bytes of alignment, since there are five words of four.
#[repr(C, packed(4))]
#[derive(Clone, Copy)]
struct Entry {
    hash: u64,
    /// Milliseconds, and [`CLAIMED`].
    due: u64,
    next: u32,
    prev: u32,
    /// The next of the same bucket.
    chain: u32,
}

const _: () = assert!(size_of::<Entry>() == 28 && size_of::<Entry>() + size_of::<u32>() == crate::limits::EXPIRY_BYTES);

const VACANT: Entry = Entry { hash: 0, due: 0, next: NONE, prev: NONE, chain: NONE };

pub(super) struct Entries {
    chunks: Vec<Box<[Entry]>>,
    len: usize,
    /// The first place of each list.
    heads: Box<[u32]>,
    /// The first place of each bucket.
    buckets: Vec<Box<[u32]>>,
    bucket_count: usize,
}

/// Memory that is to be given back in pieces.
#[derive(Default)]
pub(crate) struct Garbage {
    chunks: Vec<Box<[Entry]>>,
    buckets: Vec<Box<[u32]>>,
}

impl Garbage {
    pub(super) fn bytes(&self) -> usize {
        bytes_of(&self.chunks, &self.buckets)
    }

    /// Takes a piece of it, small enough to be freed in one go.
    pub(super) fn take_some(&mut self) -> Self {
        /// Some hundred microseconds.
        const PIECE: usize = 64;
        let from = self.chunks.len().saturating_sub(PIECE);
        let buckets_from = self.buckets.len().saturating_sub(PIECE);
        Garbage { chunks: self.chunks.split_off(from), buckets: self.buckets.split_off(buckets_from) }
    }
}

fn bytes_of(chunks: &[Box<[Entry]>], buckets: &[Box<[u32]>]) -> usize {
    CHUNK * (chunks.len() * size_of::<Entry>() + buckets.len() * size_of::<u32>())
}

impl Entries {
    pub(super) fn new(lists: usize) -> Self {
        let heads = vec![NONE; lists].into_boxed_slice();
        Self { chunks: Vec::new(), len: 0, heads, buckets: Vec::new(), bucket_count: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> usize {
        bytes_of(&self.chunks, &self.buckets)
    }

    /// Forgets all.
    pub(super) fn clear(&mut self, garbage: &mut Garbage) {
        garbage.chunks.append(&mut self.chunks);
        garbage.buckets.append(&mut self.buckets);
        (self.len, self.bucket_count) = (0, 0);
        self.heads.fill(NONE);
    }

    fn at(&self, place: u32) -> &Entry {
        &self.chunks[place as usize / CHUNK][place as usize % CHUNK]
    }

    fn at_mut(&mut self, place: u32) -> &mut Entry {
        &mut self.chunks[place as usize / CHUNK][place as usize % CHUNK]
    }

    pub(super) fn reminder(&self, place: u32) -> Reminder {
        let Entry { hash, due, .. } = *self.at(place);
        Reminder { hash, due_ms: due & DUE_MAX }
    }

    pub(super) fn is_claimed(&self, place: u32) -> bool {
        self.at(place).due & CLAIMED != 0
    }

    /// Who claims it has taken it from its list; who unclaims it puts it into one.
    pub(super) fn set_claimed(&mut self, place: u32, claimed: bool) {
        let entry = self.at_mut(place);
        entry.due = entry.due & DUE_MAX | if claimed { CLAIMED } else { 0 };
    }

    pub(super) fn set_due(&mut self, place: u32, due_ms: u64) {
        let entry = self.at_mut(place);
        entry.due = entry.due & CLAIMED | due_ms.min(DUE_MAX);
    }

    pub(super) fn first(&self, list: usize) -> Option<u32> {
        Some(self.heads[list]).filter(|place| *place != NONE)
    }

    /// Puts what is in no list at the beginning of one.
    pub(super) fn link(&mut self, place: u32, list: usize) {
        let next = std::mem::replace(&mut self.heads[list], place);
        if next != NONE {
            self.at_mut(next).prev = place;
        }
        let entry = self.at_mut(place);
        (entry.prev, entry.next) = (HEAD + list as u32, next);
    }

    /// Takes it from the list that it is in. That list, if nothing is left in it.
    pub(super) fn unlink(&mut self, place: u32) -> Option<usize> {
        let Entry { next, prev, .. } = *self.at(place);
        self.point(prev, next);
        if next != NONE {
            self.at_mut(next).prev = prev;
        }
        (prev >= HEAD && next == NONE).then(|| (prev - HEAD) as usize)
    }

    /// What comes after `prev` in its list: an entry, or the list's beginning.
    fn point(&mut self, prev: u32, next: u32) {
        match prev.checked_sub(HEAD) {
            Some(list) => self.heads[list as usize] = next,
            None => self.at_mut(prev).next = next,
        }
    }

    /// Makes one list, which must be empty, of another, whatever its length.
    pub(super) fn move_list(&mut self, from: usize, to: usize) {
        debug_assert_eq!(self.heads[to], NONE, "what was in it would be lost");
        let first = std::mem::replace(&mut self.heads[from], NONE);
        self.heads[to] = first;
        if first != NONE {
            self.at_mut(first).prev = HEAD + to as u32;
        }
    }

    pub(super) fn find(&self, hash: u64) -> Option<u32> {
        if self.bucket_count == 0 {
            return None;
        }
        let mut place = *self.bucket(self.bucket_of(hash));
        while place != NONE {
            let Entry { hash: other, chain, .. } = *self.at(place);
            if other == hash {
                return Some(place);
            }
            place = chain;
        }
        None
    }

    /// Adds one whose hash there is not yet, in no list. `None`: there are as many as there can be.
    pub(super) fn insert(&mut self, reminder: Reminder) -> Option<u32> {
        if self.len >= PLACES_MAX {
            return None;
        }
        let place = self.len as u32;
        if self.len == self.chunks.len() * CHUNK {
            self.chunks.push(vec![VACANT; CHUNK].into_boxed_slice());
        }
        self.len += 1;
        *self.at_mut(place) = Entry { hash: reminder.hash, due: reminder.due_ms.min(DUE_MAX), ..VACANT };
        if self.bucket_count < self.len {
            self.split();
        }
        self.enchain(place);
        Some(place)
    }

    /// Removes one that is in no list. The place that the last one had, which is now here; `None`: it was the last.
    pub(super) fn remove(&mut self, place: u32) -> Option<u32> {
        self.unchain(place);
        self.len -= 1;
        let last = self.len as u32;
        if last != place {
            let Entry { hash, due, next, prev, .. } = *self.at(last);
            let before = self.before_in_chain(last, hash);
            match before {
                Some(before) => self.at_mut(before).chain = place,
                None => {
                    let bucket = self.bucket_of(hash);
                    *self.bucket_mut(bucket) = place;
                }
            }
            if due & CLAIMED == 0 {
                self.point(prev, place);
                if next != NONE {
                    self.at_mut(next).prev = place;
                }
            }
            let moved = *self.at(last);
            *self.at_mut(place) = moved;
        }
        // One is kept, for who removes and adds by turns.
        if self.chunks.len() * CHUNK >= self.len + 2 * CHUNK {
            self.chunks.pop();
        }
        while self.bucket_count > 2 * self.len.max(CHUNK) {
            self.merge();
        }
        (last != place).then_some(last)
    }

    fn bucket(&self, bucket: usize) -> &u32 {
        &self.buckets[bucket / CHUNK][bucket % CHUNK]
    }

    fn bucket_mut(&mut self, bucket: usize) -> &mut u32 {
        &mut self.buckets[bucket / CHUNK][bucket % CHUNK]
    }

    fn bucket_of(&self, hash: u64) -> usize {
        let mask = self.bucket_count.next_power_of_two() - 1;
        let bucket = hash as usize & mask;
        if bucket < self.bucket_count { bucket } else { bucket & (mask >> 1) }
    }

    /// The bucket from which this one was split.
    fn parent(bucket: usize) -> usize {
        bucket & !(1 << bucket.ilog2())
    }

    fn enchain(&mut self, place: u32) {
        let bucket = self.bucket_of(self.at(place).hash);
        self.at_mut(place).chain = *self.bucket(bucket);
        *self.bucket_mut(bucket) = place;
    }

    fn before_in_chain(&self, place: u32, hash: u64) -> Option<u32> {
        let mut at = *self.bucket(self.bucket_of(hash));
        let mut before = None;
        while at != place {
            before = Some(at);
            at = self.at(at).chain;
        }
        before
    }

    fn unchain(&mut self, place: u32) {
        let Entry { hash, chain, .. } = *self.at(place);
        match self.before_in_chain(place, hash) {
            Some(before) => self.at_mut(before).chain = chain,
            None => {
                let bucket = self.bucket_of(hash);
                *self.bucket_mut(bucket) = chain;
            }
        }
    }

    /// One bucket more, with its part of the one that had it so far.
    fn split(&mut self) {
        let new = self.bucket_count;
        if new == self.buckets.len() * CHUNK {
            self.buckets.push(vec![NONE; CHUNK].into_boxed_slice());
        }
        self.bucket_count += 1;
        *self.bucket_mut(new) = NONE;
        if new > 0 {
            self.rechain(Self::parent(new));
        }
    }

    /// One bucket less.
    fn merge(&mut self) {
        self.bucket_count -= 1;
        let last = self.bucket_count;
        self.rechain(last);
        if self.buckets.len() * CHUNK >= self.bucket_count + 2 * CHUNK {
            self.buckets.pop();
        }
    }

    /// Puts what is in a bucket where it belongs.
    fn rechain(&mut self, bucket: usize) {
        let mut place = std::mem::replace(self.bucket_mut(bucket), NONE);
        while place != NONE {
            let next = self.at(place).chain;
            self.enchain(place);
            place = next;
        }
    }
}

#[cfg(test)]
impl Entries {
    /// Where the first reminders lie.
    pub(super) fn first_chunk(&self) -> *const u8 {
        self.chunks[0].as_ptr().cast()
    }

    /// Every entry is found by its hash, every list leads both ways, and what is claimed is in none.
    pub(super) fn check(&self) {
        for place in 0..self.len as u32 {
            assert_eq!(self.find(self.at(place).hash), Some(place));
        }
        let mut linked = 0;
        for list in 0..self.heads.len() {
            let (mut prev, mut place) = (HEAD + list as u32, self.heads[list]);
            while place != NONE {
                assert!(!self.is_claimed(place) && { self.at(place).prev } == prev);
                (prev, place) = (place, self.at(place).next);
                linked += 1;
            }
        }
        let claimed = (0..self.len as u32).filter(|place| self.is_claimed(*place)).count();
        assert_eq!(linked + claimed, self.len);
        assert!(self.bucket_count <= 2 * self.len.max(CHUNK) && self.bucket_count >= self.len);
    }
}
