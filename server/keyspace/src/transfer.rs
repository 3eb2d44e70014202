//! A value under another key, or in another database: RENAME, MOVE and COPY.
//!
//! A large one moves as it is, and the append-only file is told which key has it now. While that file is rewritten it gets the whole
//! value ([`ferrite_hybridlog::aof`] says why), as it does of a small one at any time: so a replay has no need to read that.

use ferrite_hybridlog::Key;
use ferrite_hybridlog::aof::{Aof, Effect};

use crate::image::put_value;
use crate::view::{Expiry, Keyspace, Lent};
use crate::watch::Touch;
use crate::{Kind, Pause};

/// Bytes from which on the effect of a value in its record names the key that it came from, too: about what a read of it costs a
/// replay.
const RELATIVE_MIN: usize = 4096;

/// A value that is to be had under another key.
struct Source<'k> {
    db: u32,
    key: &'k [u8],
    kind: Kind,
    /// Bytes of the value.
    len: usize,
    expire_at_ms: u64,
    is_object: bool,
}

/// How an object comes to another key.
#[derive(Clone, Copy)]
enum Transfer {
    Move,
    Copy,
}

impl Keyspace<'_> {
    /// Gives value and time of expiry of the live key `from` to `to` in database `to_db`, over what is there; `from` is gone. Both
    /// keys were looked up.
    pub fn rename(&mut self, from: &[u8], to_db: u32, to: &[u8]) -> Result<(), Pause> {
        let source = self.source(from)?;
        self.check_value(to, source.len)?;
        let (names, is_relative) = (from.len() + to.len(), self.may_be_relative(&source));
        let effect_bytes = if is_relative { names } else { names + source.len };
        self.reserve_for_effects(names + source.len, 2, effect_bytes)?;
        if source.is_object {
            let before = self.presence_for_write(from)?;
            let effect = Effect::Rename { db: source.db, key: from, to_db, to };
            if self.transfer(&source, to_db, to, Transfer::Move, effect)? {
                if !is_relative {
                    self.effect(Effect::Delete { db: source.db, key: from });
                }
                self.key(from);
                self.changed(from, before, None, Touch::Changed);
                return Ok(());
            }
        }
        self.copy_of(&source, to_db, to)?;
        self.delete(from).map(|_| ())
    }

    /// Copies value and time of expiry of the live key `from` to `to` in database `to_db`, over what is there. Both keys were looked
    /// up.
    pub fn copy(&mut self, from: &[u8], to_db: u32, to: &[u8]) -> Result<(), Pause> {
        let source = self.source(from)?;
        self.copy_of(&source, to_db, to)
    }

    fn source<'k>(&mut self, key: &'k [u8]) -> Result<Source<'k>, Pause> {
        let db = self.db();
        let record = self.get(key)?.expect("the caller has looked the key up");
        let (kind, len, expire_at_ms) = (record.kind, record.value_len(), record.expire_at_ms);
        // A short string is an object only beside a long key: under another it has a place in its record. An empty one has none
        // in a file of extents.
        let is_object = record.object.is_some() && (kind != Kind::String || len >= RELATIVE_MIN);
        Ok(Source { db, key, kind, len, expire_at_ms, is_object })
    }

    /// Whether the append-only file may be told of the value by the key that has it. In the exclusive mode, as a command over two
    /// keys is.
    fn may_be_relative(&self, source: &Source<'_>) -> bool {
        (source.is_object || source.len >= RELATIVE_MIN) && !self.lent.aof.is_some_and(Aof::is_walked)
    }

    fn copy_of(&mut self, source: &Source<'_>, to_db: u32, to: &[u8]) -> Result<(), Pause> {
        let effect = Effect::Copy { db: source.db, key: source.key, to_db, to };
        if source.is_object {
            let is_copied = self.transfer(source, to_db, to, Transfer::Copy, effect)?;
            assert!(is_copied, "an object that was looked up is there");
            return Ok(());
        }
        let mut value = std::mem::take(&mut self.lent.scratch.value);
        value.clear();
        value.extend_from_slice(self.get(source.key)?.expect("it was there just now").value);
        let (kind, expire_at_ms) = (source.kind, source.expire_at_ms);
        let expiry = if expire_at_ms == 0 { Expiry::Never } else { Expiry::At(expire_at_ms) };
        let is_relative = self.may_be_relative(source);
        self.select(to_db);
        let written = match is_relative {
            false => self.put(to, kind, &value, expiry),
            true => self.write_key(to, Some(expire_at_ms), source.key.len(), |pinned, target, held, trace| {
                Ok(((), pinned.upsert(target, kind, expire_at_ms, &[&value], held, trace)?))
            }),
        };
        if is_relative && written.is_ok() {
            self.effect(effect);
        }
        self.select(source.db);
        self.lent.scratch.value = value;
        written
    }

    /// Has an object under another key. False, and nothing has changed: the engine cannot do it.
    fn transfer(
        &mut self,
        source: &Source<'_>,
        to_db: u32,
        to: &[u8],
        transfer: Transfer,
        effect: Effect<'_>,
    ) -> Result<bool, Pause> {
        let mut effects = Vec::new();
        match self.may_be_relative(source) {
            true => effect.encode_into(&mut effects),
            false if self.lent.aof.is_some() => {
                let record = self.get(source.key)?.expect("it was there just now");
                put_value(to_db, to, &record, &mut effects);
            }
            false => {}
        }
        let from = self.key(source.key);
        self.select(to_db);
        let done = self.transfer_to(&from, source.expire_at_ms, to, transfer, &effects);
        self.select(source.db);
        done
    }

    fn transfer_to(
        &mut self,
        from: &Key<'_>,
        expire_at_ms: u64,
        to: &[u8],
        transfer: Transfer,
        effects: &[u8],
    ) -> Result<bool, Pause> {
        let before = self.presence_for_write(to)?;
        self.prepare(effects.len())?;
        let target = self.key(to);
        let Lent { pinned, held, ref mut trace, .. } = self.lent;
        let done = match transfer {
            Transfer::Move => pinned.rename_object(from, &target, held, trace),
            Transfer::Copy => pinned.copy_object(from, &target, held, trace),
        };
        let Some(size) = done.map_err(Pause::Space)? else { return Ok(false) };
        self.lent.scratch.wrote = true;
        if self.lent.aof.is_some() {
            self.lent.scratch.effects.extend_from_slice(effects);
        }
        self.changed(to, before, Some((expire_at_ms, size)), Touch::Changed);
        Ok(true)
    }
}
