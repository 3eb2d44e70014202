//! Applying the effects of the append-only file at start.

use ferrite_hybridlog::Address;
use ferrite_hybridlog::aof::Effect;

use crate::packed::is_well_formed;
use crate::scratch::Presence;
use crate::view::{Expiry, Keyspace};
use crate::watch::Touch;
use crate::{Kind, Pause};

/// What effects that are to be applied will ask the disk for.
#[derive(Debug, Default)]
pub struct Foresight {
    /// Records; perhaps some of them more than once.
    pub cold: Vec<Address>,
    /// Keys that are written without being read.
    unread: usize,
}

impl Keyspace<'_> {
    /// Notes what [`Keyspace::replay`] of the effect would wait for, were it applied now; and ends the view. It is a guess: what is
    /// applied before it may change that.
    pub fn foresee(mut self, effect: Effect<'_>, foresight: &mut Foresight) {
        if let Effect::Rename { to_db, to, .. } | Effect::Copy { to_db, to, .. } = effect
            && self.turn_to(to_db).is_ok()
        {
            self.cold(to, &mut foresight.cold);
        }
        let (db, key, is_read) = match effect {
            Effect::Set { db, key, .. } | Effect::Collection { db, key, .. } => (db, key, false),
            Effect::Delete { db, key }
            | Effect::Expire { db, key, .. }
            | Effect::HashSet { db, key, .. }
            | Effect::HashAdd { db, key, .. }
            | Effect::HashDelete { db, key, .. }
            | Effect::Splice { db, key, .. }
            | Effect::Rename { db, key, .. }
            | Effect::Copy { db, key, .. } => (db, key, true),
            Effect::FlushDb { .. } | Effect::FlushAll | Effect::SwapDb { .. } => return,
        };
        if self.turn_to(db).is_ok() {
            let known = foresight.cold.len();
            self.cold(key, &mut foresight.cold);
            if !is_read && foresight.cold.len() > known && self.may_leave_unread(foresight.unread + 1) {
                foresight.unread += 1;
                foresight.cold.truncate(known);
            }
        }
        self.abandon();
    }

    /// Applies one effect; the view is one without an append-only file, in the exclusive mode.
    ///
    /// # Errors
    /// A pause, after which the effect is applied again. A database beyond the configured number is refused.
    pub fn replay(&mut self, effect: Effect<'_>) -> Result<(), Pause> {
        debug_assert!(self.lent.aof.is_none(), "what is replayed is in the file already");
        let result = self.apply(effect);
        match result {
            Ok(()) => self.commit(),
            Err(_) => self.abandon(),
        }
        result
    }

    fn apply(&mut self, effect: Effect<'_>) -> Result<(), Pause> {
        match effect {
            Effect::Set { db, key, value, expire_at_ms } => {
                self.turn_to(db)?;
                self.replace(key, Kind::String, value, expire_at_ms)
            }
            Effect::Delete { db, key } => {
                self.turn_to(db)?;
                self.fetched(key)?;
                match self.presence(key)? {
                    Presence::Missing => Ok(()),
                    present => self.remove(key, present, Touch::Changed),
                }
            }
            Effect::Expire { db, key, expire_at_ms } => {
                self.turn_to(db)?;
                self.fetched(key)?;
                match self.presence(key)? {
                    Presence::Missing => Ok(()),
                    Presence::Present { .. } => self.expire(key, Some(expire_at_ms)),
                }
            }
            Effect::FlushDb { db } => {
                self.turn_to(db)?;
                self.flush_db()
            }
            Effect::FlushAll => self.flush_all(),
            Effect::SwapDb { a, b } => {
                self.turn_to(a)?;
                self.turn_to(b)?;
                self.swap_db(a, b)
            }
            Effect::Collection { db, key, kind, packed, expire_at_ms } => {
                self.turn_to(db)?;
                if !is_well_formed(kind, packed) {
                    return Err(Pause::Refused("the append-only file holds a collection that this build cannot read"));
                }
                self.replace(key, kind, packed, expire_at_ms)
            }
            Effect::HashSet { db, key, mut pairs } => {
                self.turn_to(db)?;
                if !self.holds(key, Kind::Hash)? {
                    return Ok(());
                }
                let pairs = std::iter::from_fn(|| Some((pairs.next()?, pairs.next()?)));
                self.set_fields(key, pairs).map(|_| ())
            }
            Effect::HashAdd { db, key, added, pairs } => {
                self.turn_to(db)?;
                if !self.holds(key, Kind::Hash)? {
                    return Ok(());
                }
                let anew = added.count() / 2;
                let mut all = added.chain(pairs);
                let all = std::iter::from_fn(|| Some((all.next()?, all.next()?)));
                self.set_fields_of(key, all, anew).map(|_| ())
            }
            Effect::HashDelete { db, key, fields } => {
                self.turn_to(db)?;
                if !self.holds(key, Kind::Hash)? {
                    return Ok(());
                }
                self.delete_fields_of(key, fields, true).map(|_| ())
            }
            Effect::Splice { db, key, offset, bytes } => {
                self.turn_to(db)?;
                if !self.holds(key, Kind::String)? {
                    return Ok(());
                }
                let offset = usize::try_from(offset).unwrap_or(usize::MAX);
                self.check_value(key, offset.saturating_add(bytes.len()))?;
                self.splice(key, offset, bytes).map(|_| ())
            }
            Effect::Rename { db, key, to_db, to } => {
                self.both_fetched((db, key), (to_db, to))?;
                self.rename(key, to_db, to)
            }
            Effect::Copy { db, key, to_db, to } => {
                self.both_fetched((db, key), (to_db, to))?;
                self.copy(key, to_db, to)
            }
        }
    }

    /// Writes a value whatever the key held. What lies on disk is not read, as long as there is room for notes of that.
    fn replace(&mut self, key: &[u8], kind: Kind, value: &[u8], expire_at_ms: u64) -> Result<(), Pause> {
        let expiry = if expire_at_ms == 0 { Expiry::Never } else { Expiry::At(expire_at_ms) };
        match self.put_over(key, kind, value, expiry, true) {
            Err(Pause::Keys) => {
                self.fetched(key)?;
                self.put_over(key, kind, value, expiry, true)
            }
            result => result,
        }
    }

    /// Whether the key holds a collection of this type. An effect on an element of another one says nothing: it is
    /// replayed over a state that is ahead of it, and what made that state follows.
    fn holds(&mut self, key: &[u8], kind: Kind) -> Result<bool, Pause> {
        self.fetched(key)?;
        Ok(self.get(key)?.is_some_and(|record| record.kind == kind))
    }

    /// Turns to the database of `from`, which has to be there: what names it follows the exact state before it.
    fn both_fetched(&mut self, from: (u32, &[u8]), to: (u32, &[u8])) -> Result<(), Pause> {
        for (db, key) in [to, from] {
            self.turn_to(db)?;
            self.fetched(key)?;
        }
        if !self.exists(from.1)? {
            return Err(Pause::Refused("the append-only file moves or copies a key that is not there"));
        }
        Ok(())
    }

    fn turn_to(&mut self, db: u32) -> Result<(), Pause> {
        if db >= self.databases().count() {
            return Err(Pause::Refused(
                "the append-only file names a database that is not configured: raise `databases`",
            ));
        }
        self.select(db);
        Ok(())
    }

    /// Nobody prefetches for a replay, so it names the record itself.
    fn fetched(&mut self, key: &[u8]) -> Result<(), Pause> {
        let mut cold = Vec::new();
        self.cold(key, &mut cold);
        if cold.is_empty() { Ok(()) } else { Err(Pause::Records(cold)) }
    }
}
