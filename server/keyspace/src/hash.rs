//! Hashes: what their commands read and change. A small one is packed bytes in its record, a large one an object.

use std::collections::BTreeSet;
use std::ops::Range;

use ferrite_hybridlog::ByteStrings;
use ferrite_hybridlog::aof::Effect;

use crate::collection::of_kind;
use crate::large_hash::LargeHash;
use crate::packed::{Draft, Packed};
use crate::view::{Expiry, Keyspace};
use crate::watch::Touch;
use crate::{Kind, Pause, RecordView};

/// A hash as a reader sees it.
#[derive(Clone, Copy)]
pub struct Hash<'k>(Form<'k>);

#[derive(Clone, Copy)]
enum Form<'k> {
    Packed(Packed<'k>),
    Large(&'k LargeHash),
}

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
        Hash(match record.object.and_then(LargeHash::of) {
            Some(large) => Form::Large(large),
            None => Form::Packed(Packed::of(record.value)),
        })
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        match self.0 {
            Form::Packed(packed) => packed.len(),
            Form::Large(large) => large.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of fields and values, and a few more.
    pub fn bytes(&self) -> usize {
        match self.0 {
            Form::Packed(packed) => packed.strings.as_bytes().len(),
            Form::Large(large) => large.packed_len(),
        }
    }

    pub fn get(&self, field: &[u8]) -> Option<&'k [u8]> {
        match self.0 {
            Form::Packed(packed) => find(packed.strings, field).map(|place| place.value),
            Form::Large(large) => large.get(field),
        }
    }

    /// Whether [`Hash::at`] takes as long wherever the pair is.
    pub fn is_indexed(&self) -> bool {
        matches!(self.0, Form::Large(_))
    }

    /// The pair at an index below [`Hash::len`].
    pub fn at(&self, index: usize) -> Pair<'k> {
        match self.0 {
            Form::Packed(packed) => pairs(packed.strings).nth(index).expect("a hash has as many fields as it counts"),
            Form::Large(large) => large.at(index),
        }
    }

    /// All fields, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = Pair<'k>> + use<'k> {
        let (packed, large) = match self.0 {
            Form::Packed(packed) => (Some(pairs(packed.strings)), None),
            Form::Large(large) => (None, Some(large.iter())),
        };
        packed.into_iter().flatten().chain(large.into_iter().flatten())
    }

    /// Whether Redis would keep it as a listpack: such a hash is scanned in one go.
    pub fn is_listpack(&self) -> bool {
        match self.0 {
            Form::Packed(packed) => !packed.has_outgrown_listpack(),
            Form::Large(large) => !large.has_outgrown_listpack(),
        }
    }

    /// Gives `found` about `count` fields from `cursor` on; the next cursor, 0 at the end. A field that is there from the
    /// first call to the last is found, and once, whatever else changes. What lies in a record comes in one go.
    pub fn scan(&self, cursor: u64, count: usize, found: &mut dyn FnMut(&'k [u8], &'k [u8])) -> u64 {
        if let Form::Large(large) = self.0
            && large.has_outgrown_listpack()
        {
            return large.scan(cursor, count, found);
        }
        self.iter().for_each(|(field, value)| found(field, value));
        0
    }
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
        self.set_fields_of(key, pairs, 0)
    }

    /// [`Keyspace::set_fields`]; the first `anew` of them, of which none comes twice, go behind all others, there or not.
    pub(crate) fn set_fields_of<'p>(
        &mut self,
        key: &[u8],
        pairs: impl Iterator<Item = (&'p [u8], &'p [u8])>,
        anew: usize,
    ) -> Result<usize, Pause> {
        let mut change = std::mem::take(&mut self.lent.scratch.elements);
        let mut added = std::mem::take(&mut self.lent.scratch.added);
        change.clear();
        added.clear();
        let mut longest = 0;
        for (field, value) in pairs {
            longest = longest.max(field.len()).max(value.len());
            ByteStrings::push(&mut change, field);
            ByteStrings::push(&mut change, value);
        }
        let result = self.set_changed(key, Change { pairs: ByteStrings::trusted(&change), longest, anew }, &mut added);
        (self.lent.scratch.elements, self.lent.scratch.added) = (change, added);
        result
    }

    /// Puts down in `added` which fields were new.
    fn set_changed(&mut self, key: &[u8], change: Change<'_>, added: &mut Vec<bool>) -> Result<usize, Pause> {
        let Change { pairs: change, longest, anew } = change;
        let (db, change_len) = (self.db(), change.as_bytes().len());
        let mut split = [Vec::new(), Vec::new()];
        let set_all = |hash: &mut LargeHash, added: &mut Vec<bool>| {
            for (at, (field, value)) in pairs(change).enumerate() {
                if at < anew {
                    hash.delete(field);
                }
                added.push(hash.set(field, value));
            }
        };
        let limits = self.listpack_limits();
        let outgrows = |len: usize| longest > limits.value || len > limits.entries;
        let old = of_kind(self.lookup_for_change(key)?, Kind::Hash)?;
        if old.as_ref().is_some_and(is_large) {
            let growth = pairs(change).map(|(field, value)| LargeHash::growth_of(field, value)).sum();
            self.update_hash(key, growth, change_len, |hash| {
                set_all(hash, added);
                if outgrows(hash.len()) {
                    hash.outgrow_listpack();
                }
            })?;
            self.effect(effect_of_set(db, key, change, added, &mut split));
            return Ok(count(added));
        }
        let mut draft = self.draft_of(old);
        if !self.keeps_in_record(key, draft.as_bytes().len() + change_len) {
            let mut hash = LargeHash::from_packed(draft.packed(), self.random());
            let expire_at_ms = draft.expire_at_ms;
            self.discard(draft);
            set_all(&mut hash, added);
            if outgrows(hash.len()) {
                hash.outgrow_listpack();
            }
            let effect = effect_of_set(db, key, change, added, &mut split);
            match expire_at_ms {
                Some(expire_at_ms) => self.write_hash(key, hash, expire_at_ms, effect, change_len)?,
                None => self.put_hash(key, hash, Expiry::Never)?,
            }
            return Ok(count(added));
        }
        for (at, (field, value)) in pairs(change).enumerate() {
            if at < anew
                && let Some(Place { pair, .. }) = find(draft.packed().strings, field)
            {
                draft.remove(pair);
            }
            added.push(set_field(&mut draft, field, value));
        }
        if outgrows(draft.packed().len()) {
            draft.outgrow_listpack();
        }
        let effect = effect_of_set(db, key, change, added, &mut split);
        self.keep(key, Kind::Hash, draft, effect, change_len).map(|()| count(added))
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
        let mut change = std::mem::take(&mut self.lent.scratch.elements);
        change.clear();
        let old = self.lookup_for_change(key).and_then(|record| of_kind(record, Kind::Hash));
        let deleted = match old {
            Ok(Some(record)) if is_large(&record) => {
                self.delete_of_large(key, &record, fields, keep_empty, &mut change)
            }
            Ok(record) => self.delete_of_packed(key, record, fields, keep_empty, &mut change),
            Err(pause) => Err(pause),
        };
        self.lent.scratch.elements = change;
        deleted
    }

    fn delete_of_packed<'p>(
        &mut self,
        key: &[u8],
        old: Option<RecordView<'_>>,
        fields: impl Iterator<Item = &'p [u8]>,
        keep_empty: bool,
        change: &mut Vec<u8>,
    ) -> Result<usize, Pause> {
        let mut draft = self.draft_of(old);
        let mut deleted = 0;
        for field in fields {
            if let Some(Place { pair, .. }) = find(draft.packed().strings, field) {
                draft.remove(pair);
                ByteStrings::push(change, field);
                deleted += 1;
            }
        }
        if deleted == 0 {
            self.discard(draft);
        } else if draft.packed().len() == 0 && !keep_empty {
            self.discard(draft);
            let before = self.presence(key)?;
            self.remove(key, before, Touch::Changed)?;
        } else {
            let effect = Effect::HashDelete { db: self.db(), key, fields: ByteStrings::trusted(change) };
            self.keep(key, Kind::Hash, draft, effect, change.len())?;
        }
        Ok(deleted)
    }

    fn delete_of_large<'p>(
        &mut self,
        key: &[u8],
        record: &RecordView<'_>,
        fields: impl Iterator<Item = &'p [u8]>,
        keep_empty: bool,
        change: &mut Vec<u8>,
    ) -> Result<usize, Pause> {
        let hash = Hash::of(record);
        let there: BTreeSet<&[u8]> = fields.filter(|field| hash.get(field).is_some()).collect();
        if there.is_empty() {
            return Ok(0);
        }
        if there.len() == hash.len() && !keep_empty {
            let before = self.presence(key)?;
            self.remove(key, before, Touch::Changed)?;
            return Ok(there.len());
        }
        there.iter().for_each(|field| ByteStrings::push(change, field));
        let fields = ByteStrings::trusted(change);
        let effect = Effect::HashDelete { db: self.db(), key, fields };
        let deleted =
            self.update_hash(key, 0, change.len(), |hash| fields.filter(|field| hash.delete(field)).count())?;
        self.effect(effect);
        Ok(deleted)
    }
}

/// Fields and values to be set.
struct Change<'c> {
    pairs: ByteStrings<'c>,
    /// Bytes of the longest string.
    longest: usize,
    /// So many of the first go behind all others.
    anew: usize,
}

fn count(added: &[bool]) -> usize {
    added.iter().filter(|&&added| added).count()
}

/// What a change of fields is to the append-only file, which has to know those that were new. `split` holds what it names.
fn effect_of_set<'e>(
    db: u32,
    key: &'e [u8],
    change: ByteStrings<'e>,
    added: &[bool],
    split: &'e mut [Vec<u8>; 2],
) -> Effect<'e> {
    let none = ByteStrings::trusted(&[]);
    match count(added) {
        0 => Effect::HashSet { db, key, pairs: change },
        all if all == added.len() => Effect::HashAdd { db, key, added: change, pairs: none },
        _ => {
            for ((field, value), &added) in pairs(change).zip(added) {
                let part = &mut split[usize::from(!added)];
                ByteStrings::push(part, field);
                ByteStrings::push(part, value);
            }
            let [added, pairs] = &*split;
            Effect::HashAdd { db, key, added: ByteStrings::trusted(added), pairs: ByteStrings::trusted(pairs) }
        }
    }
}

fn is_large(record: &RecordView<'_>) -> bool {
    record.object.and_then(LargeHash::of).is_some()
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
        let hash = Hash(Form::Packed(draft.packed()));
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
        assert_eq!(Hash(Form::Packed(draft.packed())).scan(77, 1, &mut |_, _| found += 1), 0);
        assert_eq!(found, 5);
    }
}
