//! What one write changed, and its encoding: absolute and complete, but for [`Effect::Rename`] and [`Effect::Copy`].

use thiserror::Error;

use crate::record::Kind;
use crate::strings::{ByteStrings, put_number};

/// One change of the data. Applying the effects of the log in order gives the data.
///
/// Encoded as a tag byte and the fields in the order below; integers are LEB128, byte strings have their length
/// in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<'a> {
    /// The key holds `value`; it expires at `expire_at_ms` since the Unix epoch, 0 never.
    Set { db: u32, key: &'a [u8], value: &'a [u8], expire_at_ms: u64 },
    /// The key is gone.
    Delete { db: u32, key: &'a [u8] },
    /// The key, unchanged otherwise, expires at `expire_at_ms`, 0 never.
    Expire { db: u32, key: &'a [u8], expire_at_ms: u64 },
    /// The database is empty.
    FlushDb { db: u32 },
    /// Every database is empty.
    FlushAll,
    /// The two databases changed places.
    SwapDb { a: u32, b: u32 },
    /// The key holds the collection `packed`, whatever it held; it expires at `expire_at_ms`, 0 never.
    Collection { db: u32, key: &'a [u8], kind: Kind, packed: &'a [u8], expire_at_ms: u64 },
    /// The hash, unchanged otherwise, has these fields, each followed by its value; of a field named twice the last
    /// counts.
    HashSet { db: u32, key: &'a [u8], pairs: ByteStrings<'a> },
    /// The hash, unchanged otherwise, has the fields of `added` behind all others, in this order, and then those of `pairs` as
    /// [`Effect::HashSet`] has them. So a field that was deleted and added again lies where it was put last, also if this is
    /// replayed over a state that is ahead of it.
    HashAdd { db: u32, key: &'a [u8], added: ByteStrings<'a>, pairs: ByteStrings<'a> },
    /// The hash, unchanged otherwise, lacks these fields.
    HashDelete { db: u32, key: &'a [u8], fields: ByteStrings<'a> },
    /// The string, unchanged otherwise, has `bytes` at `offset`, behind zeros where it was shorter.
    Splice { db: u32, key: &'a [u8], offset: u64, bytes: &'a [u8] },
    /// What the key held, its time of expiry included, is what `to` in database `to_db` holds, whatever that held; the key is gone.
    /// Says nothing by itself: it may follow only what gives the exact state before it (see [`crate::aof`]).
    Rename { db: u32, key: &'a [u8], to_db: u32, to: &'a [u8] },
    /// As [`Effect::Rename`], but the key is as it was.
    Copy { db: u32, key: &'a [u8], to_db: u32, to: &'a [u8] },
}

const SET: u8 = 1;
const DELETE: u8 = 2;
const EXPIRE: u8 = 3;
const FLUSH_DB: u8 = 4;
const FLUSH_ALL: u8 = 5;
const SWAP_DB: u8 = 6;
const COLLECTION: u8 = 7;
const HASH_SET: u8 = 8;
const HASH_DELETE: u8 = 9;
const HASH_ADD: u8 = 10;
const SPLICE: u8 = 11;
const RENAME: u8 = 12;
const COPY: u8 = 13;

/// Bytes that are not effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("an effect of unknown kind {0}")]
    UnknownKind(u8),
    #[error("an effect that ends too early")]
    Truncated,
    #[error("a number that is too large for its field")]
    NumberTooLarge,
    #[error("a collection of unknown type {0}")]
    UnknownType(u8),
    #[error("a list of elements that ends too early")]
    Elements,
}

impl<'a> Effect<'a> {
    /// Appends the encoding.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        match *self {
            Effect::Set { db, key, value, expire_at_ms } => {
                out.reserve(key.len() + value.len() + 24);
                out.push(SET);
                put_number(out, db.into());
                put_bytes(out, key);
                put_bytes(out, value);
                put_number(out, expire_at_ms);
            }
            Effect::Delete { db, key } => {
                out.push(DELETE);
                put_number(out, db.into());
                put_bytes(out, key);
            }
            Effect::Expire { db, key, expire_at_ms } => {
                out.push(EXPIRE);
                put_number(out, db.into());
                put_bytes(out, key);
                put_number(out, expire_at_ms);
            }
            Effect::FlushDb { db } => {
                out.push(FLUSH_DB);
                put_number(out, db.into());
            }
            Effect::FlushAll => out.push(FLUSH_ALL),
            Effect::SwapDb { a, b } => {
                out.push(SWAP_DB);
                put_number(out, a.into());
                put_number(out, b.into());
            }
            Effect::Collection { db, key, kind, packed, expire_at_ms } => {
                out.reserve(key.len() + packed.len() + 32);
                out.push(COLLECTION);
                put_number(out, db.into());
                put_bytes(out, key);
                out.push(kind as u8);
                put_bytes(out, packed);
                put_number(out, expire_at_ms);
            }
            Effect::HashSet { db, key, pairs } => put_elements(out, HASH_SET, db, key, pairs),
            Effect::HashAdd { db, key, added, pairs } => {
                put_elements(out, HASH_ADD, db, key, added);
                put_bytes(out, pairs.as_bytes());
            }
            Effect::HashDelete { db, key, fields } => put_elements(out, HASH_DELETE, db, key, fields),
            Effect::Splice { db, key, offset, bytes } => {
                out.reserve(key.len() + bytes.len() + 24);
                out.push(SPLICE);
                put_number(out, db.into());
                put_bytes(out, key);
                put_number(out, offset);
                put_bytes(out, bytes);
            }
            Effect::Rename { db, key, to_db, to } => put_pair(out, RENAME, [(db, key), (to_db, to)]),
            Effect::Copy { db, key, to_db, to } => put_pair(out, COPY, [(db, key), (to_db, to)]),
        }
    }

    /// Reads one effect; returns it and the bytes after it.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), DecodeError> {
        let mut input = Input(bytes);
        let effect = match input.byte()? {
            SET => Effect::Set {
                db: input.u32()?,
                key: input.bytes()?,
                value: input.bytes()?,
                expire_at_ms: input.number()?,
            },
            DELETE => Effect::Delete { db: input.u32()?, key: input.bytes()? },
            EXPIRE => Effect::Expire { db: input.u32()?, key: input.bytes()?, expire_at_ms: input.number()? },
            FLUSH_DB => Effect::FlushDb { db: input.u32()? },
            FLUSH_ALL => Effect::FlushAll,
            SWAP_DB => Effect::SwapDb { a: input.u32()?, b: input.u32()? },
            COLLECTION => Effect::Collection {
                db: input.u32()?,
                key: input.bytes()?,
                kind: input.kind()?,
                packed: input.bytes()?,
                expire_at_ms: input.number()?,
            },
            HASH_SET => Effect::HashSet { db: input.u32()?, key: input.bytes()?, pairs: input.elements()? },
            HASH_ADD => Effect::HashAdd {
                db: input.u32()?,
                key: input.bytes()?,
                added: input.elements()?,
                pairs: input.elements()?,
            },
            HASH_DELETE => Effect::HashDelete { db: input.u32()?, key: input.bytes()?, fields: input.elements()? },
            SPLICE => {
                Effect::Splice { db: input.u32()?, key: input.bytes()?, offset: input.number()?, bytes: input.bytes()? }
            }
            RENAME => Effect::Rename { db: input.u32()?, key: input.bytes()?, to_db: input.u32()?, to: input.bytes()? },
            COPY => Effect::Copy { db: input.u32()?, key: input.bytes()?, to_db: input.u32()?, to: input.bytes()? },
            kind => return Err(DecodeError::UnknownKind(kind)),
        };
        Ok((effect, input.0))
    }
}

/// The effects of one frame, one after the other; ends after an error.
pub struct Effects<'a>(&'a [u8]);

impl<'a> Effects<'a> {
    pub fn new(payload: &'a [u8]) -> Self {
        Self(payload)
    }
}

impl<'a> Iterator for Effects<'a> {
    type Item = Result<Effect<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let decoded = Effect::decode(self.0);
        self.0 = decoded.as_ref().map_or(&[], |(_, rest)| rest);
        Some(decoded.map(|(effect, _)| effect))
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_elements(out: &mut Vec<u8>, tag: u8, db: u32, key: &[u8], elements: ByteStrings<'_>) {
    out.reserve(key.len() + elements.as_bytes().len() + 24);
    out.push(tag);
    put_number(out, db.into());
    put_bytes(out, key);
    put_bytes(out, elements.as_bytes());
}

fn put_pair(out: &mut Vec<u8>, tag: u8, keys: [(u32, &[u8]); 2]) {
    out.push(tag);
    for (db, key) in keys {
        put_number(out, db.into());
        put_bytes(out, key);
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.0.split_first().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(first)
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(DecodeError::NumberTooLarge);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::NumberTooLarge)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.number()?).map_err(|_| DecodeError::NumberTooLarge)
    }

    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(self.number()?).map_err(|_| DecodeError::NumberTooLarge)?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn elements(&mut self) -> Result<ByteStrings<'a>, DecodeError> {
        ByteStrings::checked(self.bytes()?).ok_or(DecodeError::Elements)
    }

    fn kind(&mut self) -> Result<Kind, DecodeError> {
        let byte = self.byte()?;
        Kind::of(byte).ok_or(DecodeError::UnknownType(byte))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_effect((kind, db, key, value, number): (u8, u32, Vec<u8>, Vec<u8>, u64), check: impl FnOnce(Effect<'_>)) {
        let mut elements = Vec::new();
        value.chunks(7).for_each(|element| ByteStrings::push(&mut elements, element));
        check(match kind {
            0 => Effect::Set { db, key: &key, value: &value, expire_at_ms: number },
            1 => Effect::Delete { db, key: &key },
            2 => Effect::Expire { db, key: &key, expire_at_ms: number },
            3 => Effect::FlushDb { db },
            4 => Effect::FlushAll,
            5 => Effect::SwapDb { a: db, b: number as u32 },
            6 => Effect::Collection { db, key: &key, kind: Kind::Hash, packed: &value, expire_at_ms: number },
            7 => Effect::HashSet { db, key: &key, pairs: ByteStrings::trusted(&elements) },
            8 => {
                let elements = ByteStrings::trusted(&elements);
                Effect::HashAdd { db, key: &key, added: elements, pairs: elements }
            }
            9 => Effect::HashDelete { db, key: &key, fields: ByteStrings::trusted(&elements) },
            10 => Effect::Splice { db, key: &key, offset: number, bytes: &value },
            11 => Effect::Rename { db, key: &key, to_db: number as u32, to: &value },
            _ => Effect::Copy { db, key: &key, to_db: number as u32, to: &value },
        });
    }

    #[test]
    fn a_plain_set_costs_five_bytes_more_than_its_data() {
        let mut out = Vec::new();
        Effect::Set { db: 0, key: b"k", value: b"v", expire_at_ms: 0 }.encode_into(&mut out);
        assert_eq!(out, [1, 0, 1, b'k', 1, b'v', 0]);
    }

    #[test]
    fn refuses_what_is_no_effect() {
        let decode = |bytes: &'static [u8]| Effect::decode(bytes).map(|(effect, _)| effect);
        assert_eq!(decode(&[]), Err(DecodeError::Truncated));
        assert_eq!(decode(&[99]), Err(DecodeError::UnknownKind(99)));
        assert_eq!(decode(&[DELETE, 0, 5, b'k']), Err(DecodeError::Truncated));
        let endless = [FLUSH_DB, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255];
        assert_eq!(Effect::decode(&endless), Err(DecodeError::NumberTooLarge));
        assert_eq!(decode(&[FLUSH_DB, 255, 255, 255, 255, 31]), Err(DecodeError::NumberTooLarge));
        assert_eq!(Effects::new(&[FLUSH_ALL, 99, FLUSH_ALL]).count(), 2);
        assert_eq!(decode(&[COLLECTION, 0, 1, b'k', 9, 0, 0]), Err(DecodeError::UnknownType(9)));
        assert_eq!(decode(&[HASH_SET, 0, 1, b'k', 2, 4, b'f']), Err(DecodeError::Elements));
    }

    #[test]
    fn one_field_costs_its_bytes_and_those_of_the_key() {
        let mut pairs = Vec::new();
        ByteStrings::push(&mut pairs, b"f");
        ByteStrings::push(&mut pairs, b"v");
        let mut out = Vec::new();
        Effect::HashSet { db: 0, key: b"k", pairs: ByteStrings::trusted(&pairs) }.encode_into(&mut out);
        assert_eq!(out, [8, 0, 1, b'k', 4, 1, b'f', 1, b'v']);
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            fields in (0u8..13, any::<u32>(), prop::collection::vec(any::<u8>(), 0..300), prop::collection::vec(any::<u8>(), 0..300), any::<u64>()),
            after in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            with_effect(fields, |effect| {
                let mut out = Vec::new();
                effect.encode_into(&mut out);
                let whole = out.len();
                out.extend_from_slice(&after);
                assert_eq!(Effect::decode(&out), Ok((effect, &after[..])));
                for cut in 0..whole {
                    assert_eq!(Effect::decode(&out[..cut]), Err(DecodeError::Truncated));
                }
            });
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(Effects::new(&bytes).count() <= bytes.len());
        }
    }
}
