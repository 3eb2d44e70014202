//! The images of large hashes, piece by piece: a worker that wrote a million fields into the base of a rewritten append-only file in
//! one go would serve nobody meanwhile.
//!
//! The first piece is a hash of its own, the others add fields to it. Between two of them the hash may change. What changes is in the
//! log behind the base, as of the walk's beginning, and effects are absolute: so it is enough that each field that stays is in one of
//! the pieces, in its order. Pieces go by the numbers that the hash gives its fields. If the key has another hash meanwhile, or the same
//! one was read back from disk, the image begins again, and replaces what there was of it.

use ferrite_hybridlog::aof::Effect;
use ferrite_hybridlog::{Address, ByteStrings, Found, Held, Kind, Pinned, RecordView};
use ferrite_telemetry::TraceBuffer;

use crate::image::put_value;
use crate::large_hash::{LargeHash, PlaceInHash};
use crate::packed::header_of;

/// Fields, and bytes of them, of a piece; one that is longer is a piece.
pub const PIECE_FIELDS: usize = 512;
pub const PIECE_BYTES: usize = 64 << 10;
/// An image that has begun again as often is written in one go: or a hash that leaves memory and comes back all the time would keep a
/// rewrite from its end.
const ANEW_MAX: u32 = 8;

/// What is left of the image of a large hash.
#[derive(Debug)]
pub struct Rest {
    db: u32,
    space: u32,
    key: Vec<u8>,
    from: PlaceInHash,
    anew: u32,
}

/// [`put_value`], but of a large hash no more than the first piece; and what is left then.
pub(crate) fn put_first_piece(db: u32, key: &[u8], record: &RecordView<'_>, into: &mut Vec<u8>) -> Option<Rest> {
    let Some(hash) = record.object.and_then(LargeHash::of) else {
        put_value(db, key, record, into);
        return None;
    };
    let mut packed = header_of(0, false).to_vec();
    let first = hash.place_of(0);
    let (count, next) = hash.piece(first, (PIECE_FIELDS, PIECE_BYTES), &mut packed).expect("the place is its own");
    let header = header_of(count, hash.has_outgrown_listpack());
    packed[..header.len()].copy_from_slice(&header);
    let expire_at_ms = record.expire_at_ms;
    Effect::Collection { db, key, kind: Kind::Hash, packed: &packed, expire_at_ms }.encode_into(into);
    next.map(|from| Rest { db, space: record.space, key: key.to_vec(), from, anew: 0 })
}

impl Rest {
    /// Appends the next piece; what is left then. To be called without a latch.
    ///
    /// # Errors
    /// The cold record to read and hold first, and the rest as it was; nothing was appended then.
    pub fn put(
        self,
        pinned: &Pinned<'_>,
        held: &Held,
        trace: &mut TraceBuffer,
        into: &mut Vec<u8>,
    ) -> Result<Option<Self>, (Address, Self)> {
        let key = pinned.key(self.space, &self.key);
        let _latch = pinned.latch(key.hash, false);
        let record = match pinned.find(&key, held, trace) {
            Found::Record(record) => record,
            // Its deletion is in the log.
            Found::Missing => return Ok(None),
            Found::Cold(address) => return Err((address, self)),
        };
        let mut pairs = Vec::new();
        let hash = record.object.and_then(LargeHash::of);
        let piece = hash.and_then(|hash| hash.piece(self.from, (PIECE_FIELDS, PIECE_BYTES), &mut pairs));
        if let Some((_, next)) = piece {
            let (added, none) = (ByteStrings::trusted(&pairs), ByteStrings::trusted(&[]));
            if !pairs.is_empty() {
                Effect::HashAdd { db: self.db, key: &self.key, added, pairs: none }.encode_into(into);
            }
            return Ok(next.map(|from| Self { from, ..self }));
        }
        if self.anew == ANEW_MAX {
            put_value(self.db, &self.key, &record, into);
            return Ok(None);
        }
        Ok(put_first_piece(self.db, &self.key, &record, into).map(|rest| Self { anew: self.anew + 1, ..rest }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: usize = 1_000_000;

    #[test]
    fn a_hash_of_a_million_fields_is_taken_some_hundred_at_a_time_and_each_once() {
        let mut hash = LargeHash::new(7);
        for n in 0..FIELDS {
            hash.set(format!("field:{n}").as_bytes(), b"value");
        }
        let (mut from, mut seen, mut pieces) = (Some(hash.place_of(0)), 0, 0);
        while let Some(place) = from {
            let mut out = Vec::new();
            let (count, next) = hash.piece(place, (PIECE_FIELDS, PIECE_BYTES), &mut out).expect("its own place");
            assert!(count <= PIECE_FIELDS && out.len() <= PIECE_BYTES, "{count} fields, {} bytes", out.len());
            for field in ByteStrings::trusted(&out).step_by(2) {
                assert_eq!(field, format!("field:{seen}").as_bytes());
                seen += 1;
            }
            (from, pieces) = (next, pieces + 1);
        }
        assert_eq!((seen, pieces), (FIELDS, FIELDS.div_ceil(PIECE_FIELDS)));
    }

    #[test]
    fn a_piece_goes_by_bytes_too_and_another_hash_has_none_there() {
        let mut hash = LargeHash::new(7);
        for n in 0..10 {
            hash.set(&[n], &vec![n; 30_000]);
        }
        hash.set(b"long", &vec![1; 5 * PIECE_BYTES]);
        let (mut from, mut counts) = (Some(hash.place_of(0)), Vec::new());
        while let Some(place) = from {
            let (count, next) = hash.piece(place, (PIECE_FIELDS, PIECE_BYTES), &mut Vec::new()).expect("its own place");
            // What is deleted meanwhile is passed by, and a copy has the same places.
            hash.delete(&[5]);
            hash = hash.clone();
            counts.push(count);
            from = next;
        }
        assert_eq!(counts, [2, 2, 2, 2, 1, 1]);
        let other = LargeHash::new(7);
        assert!(other.piece(hash.place_of(0), (1, 1), &mut Vec::new()).is_none());
    }
}
