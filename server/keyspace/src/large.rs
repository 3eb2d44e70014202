//! Writing large hashes: as objects, whole or by a change of some fields.

use std::sync::atomic::Ordering::Relaxed;

use ferrite_hybridlog::aof::Effect;

use crate::image::value_effect;
use crate::large_hash::LargeHash;
use crate::packed::Packed;
use crate::view::{Expiry, Keyspace};
use crate::{Kind, Pause};

/// What Redis keeps as a listpack.
pub(crate) struct ListpackLimits {
    pub entries: usize,
    /// Bytes of a field or a value.
    pub value: usize,
}

impl Keyspace<'_> {
    pub(crate) fn listpack_limits(&self) -> ListpackLimits {
        let encodings = &self.databases().encodings;
        ListpackLimits {
            entries: encodings.hash_max_listpack_entries.load(Relaxed),
            value: encodings.hash_max_listpack_value.load(Relaxed),
        }
    }

    /// Whether a collection of `len` packed bytes stays in the record of this key. Whether it once became an object is
    /// another matter: it stays one.
    pub(crate) fn keeps_in_record(&self, key: &[u8], len: usize) -> bool {
        self.lent.pinned.keeps_in_record(key.len(), len)
    }

    /// [`Keyspace::put`] of a packed hash that its record does not hold.
    #[cold]
    pub(crate) fn put_packed_hash(&mut self, key: &[u8], packed: &[u8], expiry: Expiry) -> Result<(), Pause> {
        let hash = LargeHash::from_packed(Packed::of(packed), self.random());
        self.put_hash(key, hash, expiry)
    }

    /// Writes a hash, whatever the key held; to the append-only file as a whole.
    pub(crate) fn put_hash(&mut self, key: &[u8], hash: LargeHash, expiry: Expiry) -> Result<(), Pause> {
        let expire_at_ms = match expiry {
            Expiry::Never => 0,
            Expiry::At(at) => at,
            Expiry::Keep => self.presence(key)?.live(self.lent.now_ms).unwrap_or(0),
        };
        let packed = if self.lent.aof.is_some() { hash.packed() } else { Vec::new() };
        let effect = value_effect(self.db(), key, Kind::Hash, &packed, expire_at_ms);
        self.write_hash(key, hash, expire_at_ms, effect, packed.len())
    }

    /// Writes a hash, whatever the key held; `effect` tells the append-only file, in `effect_len` bytes beside the key.
    pub(crate) fn write_hash(
        &mut self,
        key: &[u8],
        hash: LargeHash,
        expire_at_ms: u64,
        effect: Effect<'_>,
        effect_len: usize,
    ) -> Result<(), Pause> {
        self.write_key(key, Some(expire_at_ms), effect_len, |pinned, target, held, trace| {
            let (place, hash) = (pinned.seek(target, held), Box::new(hash));
            Ok(((), pinned.upsert_object_at(&place, target, Kind::Hash, expire_at_ms, hash, held, trace)?))
        })?;
        self.effect(effect);
        Ok(())
    }

    /// Changes the large hash that the key holds, which grows by at most `growth` bytes. The caller tells the append-only file
    /// afterwards, in `effect_len` bytes beside the key.
    pub(crate) fn update_hash<T>(
        &mut self,
        key: &[u8],
        growth: usize,
        effect_len: usize,
        change: impl FnOnce(&mut LargeHash) -> T,
    ) -> Result<T, Pause> {
        self.write_key(key, None, effect_len, |pinned, target, held, trace| {
            let updated = pinned.update_object(target, growth, held, trace, |object| {
                change(LargeHash::of_mut(object).expect("the object of a hash is a large hash"))
            })?;
            Ok(updated.expect("the caller has looked the hash up"))
        })
    }
}
