//! Hashes: what their commands read and change.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use ferrite_hybridlog::ByteStrings;
use ferrite_hybridlog::aof::Effect;

use crate::collection::of_kind;
use crate::packed::{Draft, Packed};
use crate::view::Keyspace;
use crate::watch::Touch;
use crate::{Kind, Pause, RecordView};

/// Bits of a field's hash that order a scan: a cursor is exact as a double, too.
const CURSOR_BITS: u32 = 48;

/// A hash as a reader sees it.
#[derive(Clone, Copy, Debug)]
pub struct Hash<'k>(Packed<'k>);

/// A field and its value.
pub type Pair<'k> = (&'k [u8], &'k [u8]);

/// Where a field is, counted from the first.
struct Place<'k> {
    pair: Range<usize>,
    /// The value with its length.
    value_string: Range<usize>,
    value: &'k [u8],
}

impl<'k> Hash<'k> {
    /// The hash that a record of this type holds.
    pub fn of(record: &RecordView<'k>) -> Self {
        debug_assert_eq!(record.kind, Kind::Hash);
        Hash(Packed::of(record.value))
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, field: &[u8]) -> Option<&'k [u8]> {
        find(self.0.strings, field).map(|place| place.value)
    }

    /// All fields, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = Pair<'k>> + use<'k> {
        pairs(self.0.strings)
    }

    /// Whether Redis would keep it as a listpack: such a hash is small, and is scanned in one go.
    pub fn is_listpack(&self) -> bool {
        !self.0.has_outgrown_listpack()
    }

    /// Gives `found` about `count` fields from `cursor` on; the next cursor, 0 at the end. A field that is there from the
    /// first call to the last is found once, whatever else changes: the order is that of the fields' own hash values.
    pub fn scan(&self, cursor: u64, count: usize, found: &mut dyn FnMut(&'k [u8], &'k [u8])) -> u64 {
        if self.is_listpack() {
            self.iter().for_each(|(field, value)| found(field, value));
            return 0;
        }
        let hashed = |(field, value): Pair<'k>| (field_hash(field), field, value);
        let mut left: Vec<_> = self.iter().map(hashed).filter(|(hash, ..)| *hash >= cursor).collect();
        let next = if count < left.len() {
            let bound = left.select_nth_unstable_by_key(count, |(hash, ..)| *hash).1.0;
            // Fields of one hash value come together, or the next cursor would lose some.
            let is_progress = left.iter().any(|(hash, ..)| *hash < bound);
            let beyond = || left.iter().map(|(hash, ..)| *hash).filter(|&hash| hash > bound).min();
            if is_progress { bound } else { beyond().unwrap_or(0) }
        } else {
            0
        };
        for (_, field, value) in left.iter().filter(|(hash, ..)| next == 0 || *hash < next) {
            found(field, value);
        }
        next
    }
}

fn field_hash(field: &[u8]) -> u64 {
    rapidhash::v3::rapidhash_v3(field) >> (u64::BITS - CURSOR_BITS)
}

fn pairs(mut strings: ByteStrings<'_>) -> impl Iterator<Item = Pair<'_>> {
    std::iter::from_fn(move || Some((strings.next()?, strings.next()?)))
}

fn find<'k>(strings: ByteStrings<'k>, field: &[u8]) -> Option<Place<'k>> {
    let len = strings.as_bytes().len();
    let mut rest = strings;
    loop {
        let start = len - rest.as_bytes().len();
        let name = rest.next()?;
        let value_start = len - rest.as_bytes().len();
        let value = rest.next()?;
        if name == field {
            let end = len - rest.as_bytes().len();
            return Some(Place { pair: start..end, value_string: value_start..end, value });
        }
    }
}

impl Keyspace<'_> {
    /// The hash for a reader; `None` if there is no such key.
    pub fn read_hash(&mut self, key: &[u8]) -> Result<Option<Hash<'_>>, Pause> {
        Ok(of_kind(self.read(key)?, Kind::Hash)?.as_ref().map(Hash::of))
    }

    /// The hash for a writer: not counted.
    pub fn get_hash(&mut self, key: &[u8]) -> Result<Option<Hash<'_>>, Pause> {
        Ok(of_kind(self.get(key)?, Kind::Hash)?.as_ref().map(Hash::of))
    }

    /// Sets fields, of a new hash if there is none; how many of them were not there. The time of expiry stays.
    pub fn set_fields<'p>(
        &mut self,
        key: &[u8],
        pairs: impl Iterator<Item = (&'p [u8], &'p [u8])>,
    ) -> Result<usize, Pause> {
        let mut draft = self.draft(key, Kind::Hash)?;
        let mut change = std::mem::take(&mut self.lent.scratch.elements);
        change.clear();
        let encodings = &self.databases().encodings;
        let value_max = encodings.hash_max_listpack_value.load(Relaxed);
        let (mut added, mut longest) = (0, 0);
        for (field, value) in pairs {
            added += usize::from(set_field(&mut draft, field, value));
            longest = longest.max(field.len()).max(value.len());
            ByteStrings::push(&mut change, field);
            ByteStrings::push(&mut change, value);
        }
        if longest > value_max || draft.packed().len() > encodings.hash_max_listpack_entries.load(Relaxed) {
            draft.outgrow_listpack();
        }
        let effect = Effect::HashSet { db: self.db(), key, pairs: ByteStrings::trusted(&change) };
        let written = self.keep(key, Kind::Hash, draft, effect, change.len());
        self.lent.scratch.elements = change;
        written.map(|()| added)
    }

    /// Deletes fields, and the key with the last one; how many of them were there.
    pub fn delete_fields<'p>(&mut self, key: &[u8], fields: impl Iterator<Item = &'p [u8]>) -> Result<usize, Pause> {
        self.delete_fields_of(key, fields, false)
    }

    /// [`Keyspace::delete_fields`], and whether the key outlives its last field.
    ///
    /// In a replay it does: what is replayed may lie behind the state that it is applied to, and then a later effect adds
    /// fields to the key, with its time of expiry.
    pub(crate) fn delete_fields_of<'p>(
        &mut self,
        key: &[u8],
        fields: impl Iterator<Item = &'p [u8]>,
        keep_empty: bool,
    ) -> Result<usize, Pause> {
        let mut draft = self.draft(key, Kind::Hash)?;
        let mut change = std::mem::take(&mut self.lent.scratch.elements);
        change.clear();
        let mut deleted = 0;
        for field in fields {
            if let Some(Place { pair, .. }) = find(draft.packed().strings, field) {
                draft.remove(pair);
                ByteStrings::push(&mut change, field);
                deleted += 1;
            }
        }
        let written = if deleted == 0 {
            self.discard(draft);
            Ok(())
        } else if draft.packed().len() == 0 && !keep_empty {
            self.discard(draft);
            let before = self.presence(key)?;
            self.remove(key, before, Touch::Changed)
        } else {
            let effect = Effect::HashDelete { db: self.db(), key, fields: ByteStrings::trusted(&change) };
            self.keep(key, Kind::Hash, draft, effect, change.len())
        };
        self.lent.scratch.elements = change;
        written.map(|()| deleted)
    }
}

/// True: the field is new.
fn set_field(draft: &mut Draft, field: &[u8], value: &[u8]) -> bool {
    match find(draft.packed().strings, field).map(|place| place.value_string) {
        Some(place) => {
            draft.replace(place, value);
            false
        }
        None => {
            draft.push(&[field, value]);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn draft_of(fields: impl Iterator<Item = u32>) -> Draft {
        let mut draft = Draft::new(Vec::new(), None);
        fields.for_each(|n| assert!(set_field(&mut draft, format!("f{n}").as_bytes(), n.to_string().as_bytes())));
        draft
    }

    #[test]
    fn fields_are_found_in_the_order_they_came() {
        let mut draft = draft_of(0..300);
        assert!(!set_field(&mut draft, b"f7", b"seven, and longer than before"));
        let hash = Hash(draft.packed());
        assert_eq!(hash.len(), 300);
        assert_eq!(hash.get(b"f299"), Some(&b"299"[..]));
        assert_eq!(hash.get(b"f7"), Some(&b"seven, and longer than before"[..]));
        assert_eq!((hash.get(b"f300"), hash.get(b"")), (None, None));
        assert!(hash.iter().map(|(field, _)| field.to_vec()).eq((0..300).map(|n| format!("f{n}").into_bytes())));
    }

    #[test]
    fn a_small_hash_is_scanned_in_one_go() {
        let draft = draft_of(0..5);
        let mut found = 0;
        assert_eq!(Hash(draft.packed()).scan(77, 1, &mut |_, _| found += 1), 0);
        assert_eq!(found, 5);
    }

    #[test]
    fn a_scan_finds_each_field_once_whatever_is_deleted_meanwhile() {
        let mut draft = draft_of(0..500);
        draft.outgrow_listpack();
        let (mut cursor, mut found, mut calls) = (0, BTreeSet::new(), 0);
        loop {
            let mut page = 0;
            cursor = Hash(draft.packed()).scan(cursor, 10, &mut |field, _| {
                assert!(found.insert(field.to_vec()), "found twice");
                page += 1;
            });
            calls += 1;
            assert!(page >= 10 || cursor == 0);
            // One that was found goes, and one that was never there from the beginning comes.
            let gone = found.iter().next_back().expect("at least one").clone();
            if let Some(Place { pair, .. }) = find(draft.packed().strings, &gone) {
                draft.remove(pair);
            }
            set_field(&mut draft, format!("new{calls}").as_bytes(), b"");
            if cursor == 0 {
                break;
            }
        }
        assert!(calls >= 50);
        let found_of_old = found.iter().filter(|field| field.starts_with(b"f")).count();
        assert_eq!(found_of_old, 500);
    }
}
