//! A hash with so many bytes that it is an object of its own: finding, setting and deleting a field touches O(log n) of it.
//!
//! Pairs lie in a tree in the order in which their fields were added. Another tree orders them by their fields' hash values,
//! which is how a field is found, and the order of a scan. A list of all of them, in any order, is what fair draws draw from.
//!
//! `written_hash` has the way to disk and back.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ferrite_hybridlog::{ByteStrings, Object, Spot};
use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

use crate::packed::{HEADER, Packed, header_of};
use crate::written_hash::{SEED, write_part};

/// How many hashes there were in this process.
static NUMBERINGS: AtomicU64 = AtomicU64::new(0);

/// Bits of a field's hash value: a cursor is exact as a double, too.
const CURSOR_BITS: u32 = 48;
/// Numbers in one chunk of the list: what a growing hash allocates at once.
const CHUNK: usize = 512;
/// Pairs that are freed at a time.
const SHED: usize = 256;
/// What a pair takes beside its bytes: the allocator's own, its places in the list and in the trees with what their nodes leave
/// unused.
const PAIR_OVERHEAD: usize = 16 + 8 + 26 + 85;

/// A field and its value in one allocation.
#[derive(Clone)]
struct Pair {
    bytes: Box<[u8]>,
    field_len: u32,
}

impl Pair {
    fn new(field: &[u8], value: &[u8]) -> Self {
        let bytes = [field, value].concat().into_boxed_slice();
        Pair { bytes, field_len: field.len() as u32 }
    }

    fn split(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at(self.field_len as usize)
    }

    /// Bytes of its written form.
    fn written_len(&self) -> usize {
        let (field, value) = self.split();
        ByteStrings::size_of(field.len()) + ByteStrings::size_of(value.len())
    }

    fn memory(&self) -> usize {
        self.bytes.len() + PAIR_OVERHEAD
    }
}

/// A pair and its index in the list.
#[derive(Clone)]
struct Place {
    pair: Pair,
    index: usize,
}

/// See [`LargeHash::place_of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlaceInHash {
    numbering: u64,
    number: u64,
}

#[derive(Clone)]
pub(crate) struct LargeHash {
    seed: u64,
    secrets: RapidSecrets,
    /// By their numbers, which are given in the order of their fields.
    pairs: BTreeMap<u64, Place>,
    next_number: u64,
    /// Every number once. A deleted one's place is taken by the last.
    list: Vec<Vec<u64>>,
    /// Hash value of a field, number of its pair.
    order: BTreeSet<(u64, u64)>,
    outgrown: bool,
    /// Who has the numbers from: whatever is made anew, or read from disk, gives them anew. Copies have the same.
    numbering: u64,
    /// Of all pairs.
    written: usize,
    memory: usize,
    /// Pairs looked at or moved so far: what the tests count.
    #[cfg(test)]
    touched: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl LargeHash {
    /// An empty one. The seed is random: no client can aim at one hash value.
    pub fn new(seed: u64) -> Self {
        LargeHash {
            seed,
            secrets: RapidSecrets::seed(seed),
            pairs: BTreeMap::new(),
            next_number: 0,
            list: Vec::new(),
            order: BTreeSet::new(),
            outgrown: false,
            numbering: NUMBERINGS.fetch_add(1, Relaxed),
            written: 0,
            memory: 0,
            #[cfg(test)]
            touched: Default::default(),
        }
    }

    pub fn from_packed(packed: Packed<'_>, seed: u64) -> Self {
        let mut hash = LargeHash::new(seed);
        hash.outgrown = packed.has_outgrown_listpack();
        let mut strings = packed.strings;
        while let (Some(field), Some(value)) = (strings.next(), strings.next()) {
            hash.set(field, value);
        }
        hash
    }

    /// The hash that an object is.
    pub fn of(object: &dyn Object) -> Option<&Self> {
        (object as &dyn Any).downcast_ref()
    }

    pub fn of_mut(object: &mut dyn Object) -> Option<&mut Self> {
        (object as &mut dyn Any).downcast_mut()
    }

    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    pub fn has_outgrown_listpack(&self) -> bool {
        self.outgrown
    }

    pub fn outgrow_listpack(&mut self) {
        self.outgrown = true;
    }

    /// Bytes that a pair adds to the written form at most.
    pub fn growth_of(field: &[u8], value: &[u8]) -> usize {
        ByteStrings::size_of(field.len()) + ByteStrings::size_of(value.len())
    }

    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        self.find(field).map(|number| self.pair(number).split().1)
    }

    /// The pair at an index of the list, below [`LargeHash::len`].
    pub fn at(&self, index: usize) -> (&[u8], &[u8]) {
        self.pair(self.list[index / CHUNK][index % CHUNK]).split()
    }

    /// All pairs, in the order in which their fields were added.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.pairs.values().map(|place| place.pair.split())
    }

    /// True: the field is new.
    pub fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        let new = Pair::new(field, value);
        self.written += new.written_len();
        self.memory += new.memory();
        match self.find(field) {
            Some(number) => {
                let old = std::mem::replace(&mut self.place(number).pair, new);
                self.forget(&old);
                false
            }
            None => {
                let (number, index) = (self.next_number, self.len());
                self.next_number += 1;
                self.order.insert((self.hash(field), number));
                if index.is_multiple_of(CHUNK) {
                    self.list.push(Vec::with_capacity(CHUNK));
                }
                self.list.last_mut().expect("there is room in one").push(number);
                self.pairs.insert(number, Place { pair: new, index });
                true
            }
        }
    }

    /// True: the field was there.
    pub fn delete(&mut self, field: &[u8]) -> bool {
        let Some(number) = self.find(field) else { return false };
        self.order.remove(&(self.hash(field), number));
        let Place { pair, index } = self.pairs.remove(&number).expect("found just now");
        let chunk = self.list.last_mut().expect("as many are in the list");
        let last = chunk.pop().expect("no chunk is empty");
        if chunk.is_empty() {
            self.list.pop();
        }
        if last != number {
            self.list[index / CHUNK][index % CHUNK] = last;
            self.place(last).index = index;
        }
        self.forget(&pair);
        true
    }

    /// Gives `found` about `count` fields from `cursor` on; the next cursor, 0 at the end. A field that is there from the
    /// first call to the last is found once, whatever else changes: the order is that of the fields' own hash values.
    pub fn scan<'k>(&'k self, cursor: u64, count: usize, found: &mut dyn FnMut(&'k [u8], &'k [u8])) -> u64 {
        let mut taken = 0;
        let mut last = None;
        let next = self.order.range((cursor, 0)..).try_for_each(|&(hash, number)| {
            // Fields of one hash value come together, or the next cursor would lose some.
            if taken >= count && last != Some(hash) {
                return ControlFlow::Break(hash);
            }
            let (field, value) = self.pair(number).split();
            found(field, value);
            taken += 1;
            last = Some(hash);
            ControlFlow::Continue(())
        });
        next.break_value().unwrap_or(0)
    }

    fn hash(&self, field: &[u8]) -> u64 {
        rapidhash_v3_seeded(field, &self.secrets) >> (u64::BITS - CURSOR_BITS)
    }

    /// The number of a field's pair.
    fn find(&self, field: &[u8]) -> Option<u64> {
        let hash = self.hash(field);
        let mut same = self.order.range((hash, 0)..=(hash, u64::MAX)).map(|(_, number)| *number);
        same.find(|&number| self.pair(number).split().0 == field)
    }

    fn pair(&self, number: u64) -> &Pair {
        #[cfg(test)]
        self.touched.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        &self.pairs[&number].pair
    }

    fn place(&mut self, number: u64) -> &mut Place {
        #[cfg(test)]
        self.touched.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.pairs.get_mut(&number).expect("a number that is known has a pair")
    }

    fn forget(&mut self, old: &Pair) {
        self.written -= old.written_len();
        self.memory -= old.memory();
    }

    /// A place among the pairs that stays what it is, whatever is added or deleted, for this hash and its copies alone.
    pub fn place_of(&self, number: u64) -> PlaceInHash {
        PlaceInHash { numbering: self.numbering, number }
    }

    /// Appends the pairs from a place on, as the packed form has them: `fields_max` of them, fewer if that makes more than `bytes_max`
    /// bytes, but at least one. Gives their number and where to go on. `None`: the place is another hash's.
    pub fn piece(
        &self,
        from: PlaceInHash,
        (fields_max, bytes_max): (usize, usize),
        out: &mut Vec<u8>,
    ) -> Option<(usize, Option<PlaceInHash>)> {
        if from.numbering != self.numbering {
            return None;
        }
        let (begin, mut count) = (out.len(), 0);
        for (&number, place) in self.pairs.range(from.number..) {
            let full = count >= fields_max || count > 0 && out.len() - begin + place.pair.written_len() > bytes_max;
            if full {
                return Some((count, Some(self.place_of(number))));
            }
            let (field, value) = place.pair.split();
            ByteStrings::push(out, field);
            ByteStrings::push(out, value);
            count += 1;
        }
        Some((count, None))
    }

    /// The packed form, which the append-only file has.
    pub fn packed(&self) -> Vec<u8> {
        let mut packed = Vec::with_capacity(self.packed_len());
        packed.extend_from_slice(&header_of(self.len(), self.outgrown));
        for (field, value) in self.iter() {
            ByteStrings::push(&mut packed, field);
            ByteStrings::push(&mut packed, value);
        }
        packed
    }

    pub fn packed_len(&self) -> usize {
        HEADER + self.written
    }
}

impl Object for LargeHash {
    fn written_len(&self) -> usize {
        SEED + self.packed_len()
    }

    fn write_part(&self, from: Spot, out: &mut [u8]) -> Spot {
        let pairs = self.pairs.range(from.element.saturating_sub(1)..);
        let pairs = pairs.map(|(&number, place)| (number, place.pair.split()));
        write_part(self.seed, (self.len(), self.outgrown), pairs, from, out)
    }

    fn memory(&self) -> usize {
        size_of::<Self>() + self.list.capacity() * size_of::<Vec<u64>>() + self.memory
    }

    fn shed(&mut self) -> bool {
        for _ in 0..SHED {
            let Some((_, Place { pair, .. })) = self.pairs.pop_first() else { break };
            self.forget(&pair);
            self.order.pop_first();
            #[cfg(test)]
            self.touched.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        let chunks = self.pairs.len().div_ceil(CHUNK);
        self.list.truncate(chunks);
        !self.pairs.is_empty()
    }

    fn duplicate(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::written_hash::tests::{read_back, written_in};

    fn field(n: usize) -> Vec<u8> {
        format!("field:{n}").into_bytes()
    }

    fn hash_of(fields: usize) -> LargeHash {
        let mut hash = LargeHash::new(7);
        hash.outgrow_listpack();
        for n in 0..fields {
            assert!(hash.set(&field(n), b"value"));
        }
        hash
    }

    #[test]
    fn a_change_of_a_field_among_a_million_touches_two_pairs() {
        let mut hash = hash_of(1_000_000);
        let mut touched = |change: &mut dyn FnMut(&mut LargeHash)| {
            let before = hash.touched.load(Relaxed);
            change(&mut hash);
            hash.touched.load(Relaxed) - before
        };
        assert!(touched(&mut |hash| assert!(!hash.set(b"field:5", b"new"))) <= 2);
        assert!(touched(&mut |hash| assert!(hash.set(b"another", b"new"))) <= 1);
        assert!(touched(&mut |hash| assert!(hash.delete(b"field:6"))) <= 2);
        assert!(touched(&mut |hash| assert_eq!(hash.get(b"field:5"), Some(&b"new"[..]))) <= 2);
        assert!(touched(&mut |hash| assert_ne!(hash.scan(1 << 40, 10, &mut |_, _| {}), 0)) <= 10);
        assert_eq!(hash.len(), 1_000_000);
    }

    #[test]
    fn a_large_hash_is_freed_some_pairs_at_a_time() {
        let (mut hash, fields) = (hash_of(100_000), 100_000);
        let (mut steps, mut before, mut memory) = (0, hash.touched.load(Relaxed), hash.memory());
        while hash.shed() {
            let (touched, now) = (hash.touched.load(Relaxed), hash.memory());
            assert!(touched - before <= SHED && now < memory, "{touched} pairs, {now} bytes");
            (steps, before, memory) = (steps + 1, touched, now);
        }
        assert!(steps >= fields / SHED);
        assert!(hash.pairs.is_empty() && hash.order.is_empty() && hash.list.is_empty() && hash.written == 0);
    }

    #[test]
    fn fields_keep_their_order_whatever_goes() {
        let mut hash = LargeHash::new(7);
        for n in 0..300 {
            hash.set(&field(n), b"");
        }
        for n in (0..300).step_by(3) {
            assert!(hash.delete(&field(n)) && !hash.delete(&field(n)));
        }
        hash.set(b"field:1", b"at its place");
        let rest = (0..300).filter(|n| n % 3 != 0).map(field);
        assert!(hash.iter().map(|(field, _)| field.to_vec()).eq(rest));
        assert!((0..300).all(|n| hash.get(&field(n)).is_some() == (n % 3 != 0)));
    }

    #[test]
    fn a_scan_finds_each_field_once_whatever_comes_and_goes() {
        let mut hash = hash_of(500);
        let (mut cursor, mut found, mut calls) = (0, BTreeSet::new(), 0);
        loop {
            let mut page = Vec::new();
            cursor = hash.scan(cursor, 10, &mut |field, _| page.push(field.to_vec()));
            assert!(page.len() >= 10 || cursor == 0);
            assert!(page.into_iter().all(|field| found.insert(field)), "found twice");
            calls += 1;
            let gone = found.iter().next_back().expect("at least one").clone();
            hash.delete(&gone);
            hash.set(format!("new{calls}").as_bytes(), b"");
            if calls == 20 {
                // The way to disk and back.
                let read = read_back(&written_in(&hash, 100), 33).expect("well-formed");
                hash = LargeHash::of(&*read).expect("a hash").clone();
            }
            if cursor == 0 {
                break;
            }
        }
        assert!(calls >= 50);
        assert_eq!(found.iter().filter(|field| field.starts_with(b"field")).count(), 500);
    }

    proptest! {
        #[test]
        fn answers_as_a_map_does(
            ops in prop::collection::vec((0..60usize, prop::option::of(0..300usize)), 0..400),
            outgrown: bool,
            part in 1..500usize,
        ) {
            let mut hash = LargeHash::new(3);
            if outgrown {
                hash.outgrow_listpack();
            }
            let empty = hash.memory();
            let mut map = BTreeMap::new();
            for (n, value) in ops {
                match value {
                    Some(len) => prop_assert_eq!(hash.set(&field(n), &vec![1; len]), map.insert(field(n), vec![1; len]).is_none()),
                    None => prop_assert_eq!(hash.delete(&field(n)), map.remove(&field(n)).is_some()),
                }
                prop_assert_eq!(hash.len(), map.len());
            }
            let written = written_in(&hash, part);
            let read = read_back(&written, part).expect("well-formed");
            for hash in [&hash, LargeHash::of(&*read).expect("a hash")] {
                let pairs: BTreeMap<_, _> = hash.iter().map(|(field, value)| (field.to_vec(), value.to_vec())).collect();
                prop_assert_eq!(&pairs, &map);
                prop_assert!((0..60).all(|n| hash.get(&field(n)) == map.get(&field(n)).map(Vec::as_slice)));
                prop_assert!((0..map.len()).all(|at| map.contains_key(hash.at(at).0)));
            }
            for n in 0..60 {
                hash.delete(&field(n));
            }
            prop_assert_eq!((hash.len(), hash.packed_len()), (0, HEADER));
            prop_assert!(hash.memory() <= empty + 32 * size_of::<Vec<u64>>());
        }
    }
}
