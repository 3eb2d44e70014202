//! What all types of collections share while they are packed: how one is found, changed and written back.
//!
//! A type has a file of its own with what its commands call (`hash.rs`): a view for readers and methods of [`Keyspace`]
//! that change elements. The commands never see how elements are kept. An element's change reaches the append-only file
//! as an effect of its own size, whatever the size of the collection; only a new collection, or a copy, is written whole.

use ferrite_hybridlog::aof::Effect;

use crate::packed::Draft;
use crate::view::Keyspace;
use crate::{Kind, Pause, RecordView, WRONG_TYPE};

impl Keyspace<'_> {
    /// Begins to change the packed collection of a record that was looked up, an empty one if there is none.
    pub(crate) fn draft_of(&mut self, old: Option<RecordView<'_>>) -> Draft {
        let buffer = std::mem::take(&mut self.lent.scratch.value);
        Draft::new(buffer, old.map(|record| (record.value, record.expire_at_ms)))
    }

    /// Writes a changed collection back; its time of expiry stays. `change` tells the append-only file what has changed
    /// if the collection was there, in `change_len` bytes beside the key.
    pub(crate) fn keep(
        &mut self,
        key: &[u8],
        kind: Kind,
        draft: Draft,
        change: Effect<'_>,
        change_len: usize,
    ) -> Result<(), Pause> {
        let packed = draft.as_bytes();
        let whole = Effect::Collection { db: self.db(), key, kind, packed, expire_at_ms: 0 };
        let (effect, effect_len) = match draft.expire_at_ms {
            Some(_) => (change, change_len),
            None => (whole, packed.len()),
        };
        let written = self.write(key, kind, packed, draft.expire_at_ms.unwrap_or(0), effect, effect_len);
        self.discard(draft);
        written
    }

    fn write(
        &mut self,
        key: &[u8],
        kind: Kind,
        packed: &[u8],
        expire_at_ms: u64,
        effect: Effect<'_>,
        effect_len: usize,
    ) -> Result<(), Pause> {
        self.write_key(key, Some(expire_at_ms), effect_len, |pinned, target, held, trace| {
            Ok(((), pinned.upsert(target, kind, expire_at_ms, &[packed], held, trace)?))
        })?;
        self.effect(effect);
        Ok(())
    }

    /// Ends a draft that is not written.
    pub(crate) fn discard(&mut self, draft: Draft) {
        self.lent.scratch.value = draft.into_buffer();
    }
}

/// The record, if it is of that type.
pub(crate) fn of_kind(record: Option<RecordView<'_>>, kind: Kind) -> Result<Option<RecordView<'_>>, Pause> {
    match record {
        Some(record) if record.kind != kind => Err(WRONG_TYPE),
        record => Ok(record),
    }
}
