//! What the keys hold, as effects that make it: for the base of a rewritten append-only file.

use ferrite_hybridlog::aof::Effect;
use ferrite_hybridlog::{Address, Held, Kind, Pinned, RecordView};

use crate::databases::Databases;
use crate::image_rest::{Rest, put_first_piece};
use crate::large_hash::LargeHash;

/// Which space each database showed at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spaces(Vec<u32>);

impl Databases {
    /// To be called in the exclusive mode: spaces change in it.
    pub fn spaces(&self) -> Spaces {
        Spaces((0..self.count()).map(|db| self.space(db)).collect())
    }
}

impl Spaces {
    fn database_of(&self, space: u32) -> Option<u32> {
        self.0.iter().position(|&shown| shown == space).map(|db| db as u32)
    }
}

/// Appends an effect for each key of `buckets` index buckets from `cursor` on whose space `spaces` shows, under the number
/// that its database had then. Expired keys are keys, until their deletion is in the log. The next cursor, 0 at the end; to
/// be called without a latch. Of a large hash there is the first piece; what follows goes to `rests`.
///
/// # Errors
/// The cold records to read and hold first; nothing was appended then.
pub fn images(
    pinned: &Pinned<'_>,
    cursor: u64,
    buckets: usize,
    held: &Held,
    spaces: &Spaces,
    into: &mut Vec<u8>,
    rests: &mut Vec<Rest>,
) -> Result<u64, Vec<Address>> {
    pinned.scan(cursor, buckets, 0, true, held, &mut |record| {
        if let Some(db) = spaces.database_of(record.space) {
            rests.extend(put_first_piece(db, record.key, &record, into));
        }
    })
}

/// Appends the effect that makes a key hold what a record does, with its time of expiry.
pub(crate) fn put_value(db: u32, key: &[u8], record: &RecordView<'_>, into: &mut Vec<u8>) {
    let (kind, expire_at_ms) = (record.kind, record.expire_at_ms);
    match record.object.and_then(LargeHash::of) {
        Some(hash) => value_effect(db, key, kind, &hash.packed(), expire_at_ms).encode_into(into),
        None => value_effect(db, key, kind, record.value, expire_at_ms).encode_into(into),
    }
}

/// The effect that makes a key hold this value, whatever its type.
pub(crate) fn value_effect<'a>(db: u32, key: &'a [u8], kind: Kind, value: &'a [u8], expire_at_ms: u64) -> Effect<'a> {
    match kind {
        Kind::String => Effect::Set { db, key, value, expire_at_ms },
        _ => Effect::Collection { db, key, kind, packed: value, expire_at_ms },
    }
}
