//! Writes that do not read what they replace; see [`crate::unseen`].

use std::sync::Arc;

use ferrite_hybridlog::{Address, Before, Key, Kind, Place};

use crate::Pause;
use crate::image::value_effect;
use crate::scratch::Presence;
use crate::unseen::{Counts, Ticket, Unseen};
use crate::view::{Expiry, Keyspace, Lent};
use crate::watch::Touch;

impl Keyspace<'_> {
    /// Writes a string, whatever the key held; if that lies on disk, without a wait for it.
    #[inline]
    pub fn overwrite(&mut self, key: &[u8], value: &[u8], expiry: Expiry) -> Result<(), Pause> {
        let unread = expiry != Expiry::Keep;
        self.put_over(key, Kind::String, value, expiry, unread)
    }

    /// Makes sure that [`Keyspace::overwrite`] of these keys will not pause for the disk, for who overwrites several with
    /// nobody else in between.
    pub fn may_overwrite<'k>(&mut self, keys: impl Iterator<Item = &'k [u8]>) -> Result<(), Pause> {
        let mut unread = 0;
        for key in keys {
            let target = self.key(key);
            let place = self.lent.pinned.seek(&target, self.lent.held);
            unread += usize::from(matches!(place.before(), Before::Cold(_)));
        }
        if unread > 0 && !self.may_leave_unread(unread) { Err(Pause::Keys) } else { Ok(()) }
    }

    #[cold]
    pub(crate) fn may_leave_unread(&self, keys: usize) -> bool {
        self.databases().unseen.has_room(keys)
    }

    /// The rest of [`Keyspace::overwrite`] where the key's chain goes on on disk.
    #[cold]
    pub(crate) fn put_unread(
        &mut self,
        place: &Place<'_>,
        target: &Key<'_>,
        cold: Address,
        kind: Kind,
        value: &[u8],
        expiry: Expiry,
    ) -> Result<(), Pause> {
        let (db, key) = (self.db(), target.bytes);
        let expire_at_ms = if let Expiry::At(at) = expiry { at } else { 0 };
        self.prepare(key.len() + value.len())?;
        let Lent { pinned, held, ref mut trace, databases, now_ms, .. } = self.lent;
        trace.index_lookup(pinned.bucket_of(target.hash));
        let written = pinned.upsert_at(place, target, kind, expire_at_ms, &[value], held, trace);
        let size = self.written(written)?;
        self.effect(value_effect(db, key, kind, value, expire_at_ms));
        let after = Some((expire_at_ms, size));
        let (hash, record) = (target.hash, pinned.newest(target.hash));
        let unseen = Unseen { space: target.space, hash, cold, record, at_ms: now_ms };
        databases.unseen.add(unseen, || databases.count_change(db, None, after));
        self.tell_of_change(key, Presence::Missing, after, Touch::Changed);
        Ok(())
    }

    /// Counts of the database, as they were at one moment of the command's run: now, or when `ticket` was taken.
    ///
    /// # Errors
    /// They are not known: wait for the ticket in [`Pause::Counts`] and come back with it.
    pub fn counts(&self, db: u32, ticket: Option<Arc<Ticket>>) -> Result<Counts, Pause> {
        if let Some(Ok(counts)) = ticket.and_then(|ticket| ticket.counts(db)) {
            return Ok(counts);
        }
        let databases = self.databases();
        if databases.unseen.is_empty() {
            return Ok(databases.counts(db));
        }
        let ticket = databases.unseen.ticket(databases, Some(db));
        match ticket.counts(db) {
            Some(Ok(counts)) => Ok(counts),
            _ => Err(Pause::Counts { ticket, patience: None }),
        }
    }

    /// How many keys of a database reads of this command (or transaction) found expired: they will be deleted.
    pub fn expired_so_far(&self, db: u32) -> u64 {
        self.lent.scratch.expired.count(db) as u64
    }
}
