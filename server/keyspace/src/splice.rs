//! Writing a part of a string: where it lies, if it is large, and as a small effect in the append-only file in any case.

use ferrite_hybridlog::aof::Effect;

use crate::view::{Expiry, Keyspace};
use crate::{Kind, Pause, WRONG_TYPE};

/// What of a string the effect of a part of it has to save before it is told instead of the whole.
const SAVES_MIN: usize = 16;

impl Keyspace<'_> {
    /// Puts `insert` into the string at `offset`, zeros before it where the string was shorter; the new length. The time
    /// of expiry stays.
    pub fn splice(&mut self, key: &[u8], offset: usize, insert: &[u8]) -> Result<usize, Pause> {
        let old = match self.get(key)? {
            Some(record) if record.kind != Kind::String => return Err(WRONG_TYPE),
            Some(record) => Some((record.value.len(), record.object.is_some(), record.expire_at_ms)),
            None => None,
        };
        match old {
            Some((len, true, _)) => self.splice_large(key, len, offset, insert),
            old => self.splice_small(key, old.map(|(len, _, expire_at_ms)| (len, expire_at_ms)), offset, insert),
        }
    }

    /// Changes it where it is.
    #[cold]
    fn splice_large(&mut self, key: &[u8], len: usize, offset: usize, insert: &[u8]) -> Result<usize, Pause> {
        let new_len = len.max(offset + insert.len());
        self.check_value(key, new_len)?;
        self.write_key(key, None, insert.len(), |pinned, target, held, trace| {
            let size = pinned.splice_object(target, offset, insert, held, trace)?;
            Ok(((), size.expect("the caller has looked the string up")))
        })?;
        self.effect(Effect::Splice { db: self.db(), key, offset: offset as u64, bytes: insert });
        Ok(new_len)
    }

    /// `old` are the length and the time of expiry of a string that is there.
    fn splice_small(
        &mut self,
        key: &[u8],
        old: Option<(usize, u64)>,
        offset: usize,
        insert: &[u8],
    ) -> Result<usize, Pause> {
        let mut value = std::mem::take(&mut self.lent.scratch.value);
        value.clear();
        value.extend_from_slice(self.get_string(key)?.unwrap_or_default());
        let end = offset + insert.len();
        if value.len() < end {
            value.resize(end, 0);
        }
        value[offset..end].copy_from_slice(insert);
        let written = match old {
            Some((_, expire_at_ms)) if insert.len() + SAVES_MIN <= value.len() => {
                self.put_spliced(key, &value, expire_at_ms, offset, insert)
            }
            _ => self.set(key, &value, Expiry::Keep),
        };
        let len = value.len();
        self.lent.scratch.value = value;
        written.map(|()| len)
    }

    fn put_spliced(
        &mut self,
        key: &[u8],
        value: &[u8],
        expire_at_ms: u64,
        offset: usize,
        insert: &[u8],
    ) -> Result<(), Pause> {
        self.write_key(key, Some(expire_at_ms), insert.len(), |pinned, target, held, trace| {
            Ok(((), pinned.upsert(target, Kind::String, expire_at_ms, &[value], held, trace)?))
        })?;
        self.effect(Effect::Splice { db: self.db(), key, offset: offset as u64, bytes: insert });
        Ok(())
    }
}
