//! One command's view of the databases.

use ferrite_hybridlog::aof::{Aof, Effect};
use ferrite_hybridlog::{Address, Before, Found, Held, Key, Kind, NeedSpace, Pinned, RecordView};
use ferrite_telemetry::{Tier, TraceBuffer};

use crate::databases::{Databases, State};
use crate::image::value_effect;
use crate::scratch::{Lookup, Presence, Scratch, has_expired};
use crate::watch::{Touch, WatchSet};
use crate::wheel::Reminder;
use crate::{Pause, WRONG_TYPE};

/// Bytes of one encoded effect, and of its frame, beside key and value.
const EFFECT_OVERHEAD: usize = 64;

/// What a [`Keyspace`] is made of: lent by the worker.
pub struct Lent<'a> {
    pub pinned: &'a Pinned<'a>,
    pub held: &'a Held,
    pub trace: &'a mut TraceBuffer,
    pub databases: &'a Databases,
    /// `None`: no append-only file.
    pub aof: Option<&'a Aof>,
    pub scratch: &'a mut Scratch,
    /// Unix time of the command in milliseconds.
    pub now_ms: u64,
}

impl Lent<'_> {
    /// The same, lent on.
    pub fn again(&mut self) -> Lent<'_> {
        let Lent { pinned, held, ref mut trace, databases, aof, ref mut scratch, now_ms } = *self;
        Lent { pinned, held, trace, databases, aof, scratch, now_ms }
    }
}

/// One command's view. Who makes it holds the latch of the one key the command works on, or the exclusive mode.
///
/// Methods take the key's database from [`Keyspace::db`]. A method that pauses has changed nothing; a command that writes
/// more than once calls [`Keyspace::reserve`] before the first write, so that none of them can pause.
pub struct Keyspace<'a> {
    pub(crate) lent: Lent<'a>,
    db: u32,
    space: u32,
    /// CLIENT NO-TOUCH: reads leave the access clock alone.
    pub no_touch: bool,
}

/// What becomes of a key's time of expiry when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    Keep,
    Never,
    /// Milliseconds since the Unix epoch, not 0.
    At(u64),
}

impl<'a> Keyspace<'a> {
    /// A view for a new command on database `db`.
    pub fn new(lent: Lent<'a>, db: u32) -> Self {
        debug_assert!(!lent.scratch.wrote && lent.scratch.effects.is_empty(), "the command before was not finished");
        let space = lent.databases.space(db);
        Keyspace { lent, db, space, no_touch: false }
    }

    /// A view for work that is not a command's: nothing of it is traced. To be ended.
    pub fn silent(lent: Lent<'a>, db: u32) -> Self {
        lent.scratch.silent = true;
        lent.trace.mute(true);
        Self::new(lent, db)
    }

    /// Deletes a key whose time has come, if that is still so, and ends the view. What pauses is kept for later.
    pub fn delete_expired(mut self, key: &[u8]) -> Result<(), Pause> {
        let now_ms = self.lent.now_ms;
        // The value is not asked for: a large one may not have been read.
        let result = match self.presence_for_write(key) {
            Ok(presence @ Presence::Present { .. }) if presence.live(now_ms).is_none() => {
                self.remove(key, presence, Touch::Expired)
            }
            Ok(_) => {
                self.lent.scratch.expired.forget(self.db, key);
                Ok(())
            }
            Err(pause) => Err(pause),
        };
        match result {
            Ok(()) => self.commit(),
            Err(_) => {
                self.abandon();
                self.lent.scratch.expired.add(self.db, key);
            }
        }
        self.end_silence();
        result
    }

    /// After the end of a silent view.
    pub(crate) fn end_silence(&mut self) {
        self.lent.scratch.silent = false;
        self.lent.trace.mute(false);
    }

    /// The same command's view, lent on: for the commands of a transaction.
    pub fn lend(&mut self) -> Keyspace<'_> {
        Keyspace { lent: self.lent.again(), db: self.db, space: self.space, no_touch: self.no_touch }
    }

    pub fn db(&self) -> u32 {
        self.db
    }

    /// Turns to another database, for the keys named from here on.
    pub fn select(&mut self, db: u32) {
        self.db = db;
        self.space = self.lent.databases.space(db);
    }

    pub fn databases(&self) -> &'a Databases {
        self.lent.databases
    }

    pub fn now_ms(&self) -> u64 {
        self.lent.now_ms
    }

    pub fn trace(&mut self) -> &mut TraceBuffer {
        self.lent.trace
    }

    /// The key's value for a reader: counted as hit or miss, its access clock set. An expired key is missing.
    #[inline]
    pub fn read(&mut self, key: &[u8]) -> Result<Option<RecordView<'_>>, Pause> {
        let record = self.counted(key)?;
        if let Some(record) = record
            && !self.no_touch
        {
            match record.tier {
                Tier::Mutable => self.lent.pinned.touch(record.address),
                Tier::ReadOnly | Tier::Disk => self.promote_later(key),
            }
        }
        Ok(record)
    }

    /// As [`Keyspace::read`], without an access: for commands that ask about a key, not for its value.
    pub fn look(&mut self, key: &[u8]) -> Result<Option<RecordView<'_>>, Pause> {
        self.counted(key)
    }

    #[inline]
    fn counted(&mut self, key: &[u8]) -> Result<Option<RecordView<'a>>, Pause> {
        // Counted only once known: a pause comes back.
        let record = self.lookup(key)?;
        let counters = &mut self.lent.scratch.counters;
        match record {
            Some(record) => counters.hits[record.tier as usize] += 1,
            None => counters.misses += 1,
        }
        Ok(record)
    }

    /// The string's bytes for a reader.
    #[inline]
    pub fn read_string(&mut self, key: &[u8]) -> Result<Option<&[u8]>, Pause> {
        string(self.read(key)?)
    }

    /// The key's value for a writer: not counted.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<RecordView<'_>>, Pause> {
        self.lookup(key)
    }

    /// The string's bytes for a writer.
    pub fn get_string(&mut self, key: &[u8]) -> Result<Option<&[u8]>, Pause> {
        string(self.get(key)?)
    }

    /// Is there such a key, of whatever type? Not counted.
    pub fn exists(&mut self, key: &[u8]) -> Result<bool, Pause> {
        Ok(self.presence(key)?.live(self.lent.now_ms).is_some())
    }

    /// Writes a string, whatever the key held.
    pub fn set(&mut self, key: &[u8], value: &[u8], expiry: Expiry) -> Result<(), Pause> {
        self.put(key, Kind::String, value, expiry)
    }

    /// Writes a value, whatever the key held.
    #[inline]
    pub fn put(&mut self, key: &[u8], kind: Kind, value: &[u8], expiry: Expiry) -> Result<(), Pause> {
        self.put_over(key, kind, value, expiry, false)
    }

    /// [`Keyspace::put`]; with `unread` what lies on disk is not read first, if there is room for a note of that.
    #[inline]
    pub(crate) fn put_over(
        &mut self,
        key: &[u8],
        kind: Kind,
        value: &[u8],
        expiry: Expiry,
        unread: bool,
    ) -> Result<(), Pause> {
        if kind != Kind::String && !self.keeps_in_record(key, value.len()) {
            return self.put_packed_hash(key, value, expiry);
        }
        let target = self.key(key);
        let pinned = self.lent.pinned;
        let place = pinned.seek(&target, self.lent.held);
        let before = match self.remembered() {
            Some(presence) => presence,
            None => match place.before() {
                Before::Cold(cold) if unread && self.may_leave_unread(1) => {
                    return self.put_unread(&place, &target, cold, kind, value, expiry);
                }
                before => self.found_for_write(&target, before)?,
            },
        };
        let expire_at_ms = match expiry {
            Expiry::Never => 0,
            Expiry::At(at) => at,
            Expiry::Keep => before.live(self.lent.now_ms).unwrap_or(0),
        };
        self.prepare(key.len() + value.len())?;
        let Lent { held, ref mut trace, .. } = self.lent;
        let written = pinned.upsert_at(&place, &target, kind, expire_at_ms, &[value], held, trace);
        let size = self.written(written)?;
        self.effect(value_effect(self.db, key, kind, value, expire_at_ms));
        self.changed(key, before, Some((expire_at_ms, size)), Touch::Changed);
        Ok(())
    }

    /// Deletes the key; false if there was none.
    pub fn delete(&mut self, key: &[u8]) -> Result<bool, Pause> {
        let before = self.presence_for_write(key)?;
        if before.live(self.lent.now_ms).is_none() {
            return Ok(false);
        }
        self.remove(key, before, Touch::Changed)?;
        Ok(true)
    }

    /// Sets (`None`: ends) the time of expiry of a live key.
    pub fn expire(&mut self, key: &[u8], at_ms: Option<u64>) -> Result<(), Pause> {
        let before = self.presence_for_write(key)?;
        debug_assert!(before.live(self.lent.now_ms).is_some());
        let at_ms = at_ms.unwrap_or(0);
        self.write_key(key, Some(at_ms), 0, |pinned, target, held, trace| {
            let size = pinned.set_expiry(target, at_ms, held, trace)?;
            Ok(((), size.expect("the key is there, and in memory or held")))
        })?;
        self.effect(Effect::Expire { db: self.db, key, expire_at_ms: at_ms });
        Ok(())
    }

    /// Makes sure that the writes to come, of at most `records` records with `bytes` of keys and values, cannot pause.
    pub fn reserve(&mut self, bytes: usize, records: usize) -> Result<(), Pause> {
        self.reserve_for_effects(bytes, records, bytes)
    }

    /// [`Keyspace::reserve`] for writes whose effects have only `effect_bytes` of keys and values.
    pub(crate) fn reserve_for_effects(
        &mut self,
        bytes: usize,
        records: usize,
        effect_bytes: usize,
    ) -> Result<(), Pause> {
        if self.lent.scratch.covered {
            return Ok(());
        }
        debug_assert!(!self.lent.scratch.wrote, "reserve comes before the first write");
        self.lent.pinned.room_for(bytes, records).map_err(Pause::Space)?;
        self.reserve_frame(effect_bytes + records * EFFECT_OVERHEAD)?;
        self.lent.scratch.covered = true;
        Ok(())
    }

    /// Refuses a value longer than any may be. Writers of several values ask before the first.
    pub fn check_value(&self, key: &[u8], value_len: usize) -> Result<(), Pause> {
        self.lent.pinned.check_value(key.len(), value_len).map_err(|error| Pause::Space(error.into()))
    }

    /// The longest value that there can be.
    pub fn value_max(&self) -> usize {
        self.lent.pinned.check_value(0, usize::MAX).map_or_else(|error| error.max, |()| usize::MAX)
    }

    /// Empties one database, at once. Exclusive mode only.
    pub fn flush_db(&mut self) -> Result<(), Pause> {
        self.prepare(0)?;
        self.lent.scratch.wrote = true;
        let databases = self.lent.databases;
        if databases.total_keys() == databases.keys(self.db) {
            // Nobody has keys but this one: nothing is left for a sweep.
            self.forget_all();
            self.empty(self.db);
        } else if databases.keys(self.db) > 0 {
            let retired = self.empty(self.db);
            self.lent.pinned.retire_space(retired);
        }
        self.effect(Effect::FlushDb { db: self.db });
        Ok(())
    }

    /// Empties all databases, at once. Exclusive mode only.
    pub fn flush_all(&mut self) -> Result<(), Pause> {
        self.prepare(0)?;
        self.lent.scratch.wrote = true;
        for db in 0..self.lent.databases.count() {
            self.empty(db);
        }
        self.forget_all();
        self.effect(Effect::FlushAll);
        Ok(())
    }

    /// Exchanges what two databases show. Exclusive mode only.
    pub fn swap_db(&mut self, a: u32, b: u32) -> Result<(), Pause> {
        self.prepare(0)?;
        self.lent.scratch.wrote = true;
        self.lent.databases.swap(a, b);
        if !self.lent.databases.watchers.is_empty() {
            for db in [a, b] {
                self.touch_all(db);
            }
        }
        // What waited for deletion waits under the wrong number now; the next read finds it again.
        self.lent.scratch.expired.clear();
        self.lent.scratch.last = None;
        self.lent.scratch.counters.changes += 1;
        self.select(self.db);
        self.effect(Effect::SwapDb { a, b });
        Ok(())
    }

    /// Number of keys, without those that reads of this command (or transaction) found expired.
    pub fn len(&self) -> u64 {
        let waiting = self.lent.scratch.expired.count(self.db) as u64;
        self.lent.databases.keys(self.db).saturating_sub(waiting)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Watches the key for `set`'s connection.
    pub fn watch(&mut self, key: &[u8], set: &mut WatchSet) -> Result<(), Pause> {
        if !set.contains(self.db, key) {
            let state = self.presence(key)?.live(self.lent.now_ms);
            set.add(&self.lent.databases.watchers, self.db, key, state);
        }
        Ok(())
    }

    /// A number for RANDOMKEY and its like.
    pub fn random(&mut self) -> u64 {
        self.lent.scratch.random.next_u64()
    }

    /// Whether the command, or the transaction it is part of, has changed something already.
    pub fn has_written(&self) -> bool {
        self.lent.scratch.wrote
    }

    /// The length of the key's value, 0 without a live one; and whether it has to be fetched first.
    pub fn value_len(&mut self, key: &[u8]) -> Result<usize, Address> {
        let target = self.key(key);
        self.mute(true);
        let Lent { pinned, held, ref mut trace, .. } = self.lent;
        let found = pinned.find(&target, held, trace);
        self.mute(false);
        match found {
            Found::Record(record) => Ok(record.value_len()),
            Found::Missing => Ok(0),
            Found::Cold(address) => Err(address),
        }
    }

    /// Whether a large value that the key holds can be changed now: see [`ferrite_hybridlog::NeedReason::ObjectUnwritten`]. For a
    /// transaction, whose commands cannot wait. Exclusive mode only.
    pub fn is_changeable(&mut self, key: &[u8]) -> Result<(), Pause> {
        let target = self.key(key);
        self.lent.pinned.object_is_changeable(&target, self.lent.held).map_err(Pause::Space)
    }

    /// Adds the address that a lookup of the key waits for, if it is on disk.
    pub fn cold(&mut self, key: &[u8], into: &mut Vec<Address>) {
        let target = self.key(key);
        self.mute(true);
        let Lent { pinned, held, ref mut trace, .. } = self.lent;
        if let Found::Cold(address) = pinned.find(&target, held, trace) {
            into.push(address);
        }
        self.mute(false);
    }

    /// The bucket latch's hash of a key in this database.
    pub fn hash(&mut self, key: &[u8]) -> u64 {
        self.key(key).hash
    }

    /// Ends the command: its effects become one frame of the append-only file. The latch is still held.
    pub fn commit(&mut self) {
        if self.lent.scratch.wrote {
            let Lent { pinned, ref mut trace, aof, ref mut scratch, .. } = self.lent;
            // The worker announces it anew once the latch is released: before, nobody may pass us.
            trace.epoch_advance(pinned.epoch());
            if let Some(aof) = aof {
                aof.append(&scratch.effects);
                trace.aof_append(scratch.effects.len());
            }
        }
        self.forget();
    }

    /// Ends a command that paused: nothing has changed.
    pub fn abandon(&mut self) {
        assert!(!self.lent.scratch.wrote, "a command paused after its first write");
        self.forget();
    }

    fn forget(&mut self) {
        let scratch = &mut *self.lent.scratch;
        if let Some(aof) = self.lent.aof.filter(|_| scratch.reserved != 0) {
            aof.release(scratch.reserved);
        }
        scratch.reserved = 0;
        scratch.effects.clear();
        scratch.shrink();
        scratch.covered = false;
        scratch.wrote = false;
        scratch.last = None;
    }

    /// What is known of the key last asked for.
    #[inline]
    fn remembered(&self) -> Option<Presence> {
        self.lent.scratch.last.and_then(|last| last.found)
    }

    /// A write that does not read the key's value has looked for it: the trace shows the index alone.
    #[inline]
    fn found_for_write(&mut self, key: &Key<'_>, before: Before) -> Result<Presence, Pause> {
        let presence = match before {
            Before::Missing => Presence::Missing,
            Before::Present { expire_at_ms, size } => Presence::Present { expire_at_ms, size },
            Before::Cold(_) => return Err(Pause::Keys),
        };
        self.lent.trace.index_lookup(self.lent.pinned.bucket_of(key.hash));
        Ok(presence)
    }

    /// The key with its hash, computed once.
    #[inline]
    pub(crate) fn key<'k>(&mut self, bytes: &'k [u8]) -> Key<'k> {
        let (key_at, key_len, space) = (bytes.as_ptr() as usize, bytes.len(), self.space);
        match self.lent.scratch.last {
            Some(last) if last.key_at == key_at && last.key_len == key_len && last.space == space => {
                debug_assert_eq!(last.hash, self.lent.pinned.key(space, bytes).hash);
                Key { space, bytes, hash: last.hash }
            }
            _ => {
                let key = self.lent.pinned.key(space, bytes);
                self.lent.scratch.last = Some(Lookup { key_at, key_len, space, hash: key.hash, found: None });
                key
            }
        }
    }

    /// The record of a live key. What has expired is noted for deletion.
    #[inline]
    pub(crate) fn lookup(&mut self, bytes: &[u8]) -> Result<Option<RecordView<'a>>, Pause> {
        let key = self.key(bytes);
        let Lent { pinned, held, ref mut trace, now_ms, .. } = self.lent;
        match pinned.find(&key, held, trace) {
            Found::Missing => {
                self.remember(Presence::Missing);
                Ok(None)
            }
            Found::Cold(_) => Err(Pause::Keys),
            Found::Record(record) => {
                self.remember(Presence::Present { expire_at_ms: record.expire_at_ms, size: record.size });
                if has_expired(record.expire_at_ms, now_ms) {
                    self.lent.scratch.expired.add(self.db, bytes);
                    return Ok(None);
                }
                Ok(Some(record))
            }
        }
    }

    /// [`Keyspace::lookup`] for a write that depends on the value: what the command has looked up before is not shown in its
    /// trace again.
    pub(crate) fn lookup_for_change(&mut self, bytes: &[u8]) -> Result<Option<RecordView<'a>>, Pause> {
        self.key(bytes);
        if self.remembered().is_none() {
            return self.lookup(bytes);
        }
        self.mute(true);
        let record = self.lookup(bytes);
        self.mute(false);
        record
    }

    /// Whether there is a record of the key; not searched again after [`Keyspace::lookup`].
    pub(crate) fn presence(&mut self, bytes: &[u8]) -> Result<Presence, Pause> {
        self.key(bytes);
        if let Some(presence) = self.remembered() {
            return Ok(presence);
        }
        self.lookup(bytes)?;
        let last = self.lent.scratch.last.expect("just looked up");
        Ok(last.found.expect("just found"))
    }

    /// [`Keyspace::presence`] for a write that does not read the value: the trace shows the index alone.
    pub(crate) fn presence_for_write(&mut self, bytes: &[u8]) -> Result<Presence, Pause> {
        let key = self.key(bytes);
        if let Some(presence) = self.remembered() {
            return Ok(presence);
        }
        let before = self.lent.pinned.seek(&key, self.lent.held).before();
        let presence = self.found_for_write(&key, before)?;
        self.remember(presence);
        if presence != Presence::Missing && presence.live(self.lent.now_ms).is_none() {
            self.lent.scratch.expired.add(self.db, bytes);
        }
        Ok(presence)
    }

    /// `mute` of the trace does not nest: in a view that is silent as a whole it stays.
    fn mute(&mut self, on: bool) {
        if !self.lent.scratch.silent {
            self.lent.trace.mute(on);
        }
    }

    pub(crate) fn remember(&mut self, presence: Presence) {
        if let Some(last) = &mut self.lent.scratch.last {
            last.found = Some(presence);
        }
    }

    /// Deletes a record that is there, expired or not.
    pub(crate) fn remove(&mut self, key: &[u8], before: Presence, touch: Touch) -> Result<(), Pause> {
        self.prepare(key.len())?;
        let target = self.key(key);
        let Lent { pinned, held, ref mut trace, .. } = self.lent;
        let written = pinned.delete(&target, held, trace);
        self.written(written)?;
        self.effect(Effect::Delete { db: self.db, key });
        self.changed(key, before, None, touch);
        Ok(())
    }

    /// What a write of a key goes through that was looked up before: its place in the append-only file, for an effect of
    /// `effect_len` bytes beside the key, the write itself, and the counts. `write` gives the bytes of the record and of what that
    /// owns, too. Without an `expire_at_ms` the key's time of expiry stays. The caller tells the effect afterwards.
    pub(crate) fn write_key<T>(
        &mut self,
        key: &[u8],
        expire_at_ms: Option<u64>,
        effect_len: usize,
        write: impl FnOnce(&Pinned<'_>, &Key<'_>, &Held, &mut TraceBuffer) -> Result<(T, usize), NeedSpace>,
    ) -> Result<T, Pause> {
        let before = self.presence(key)?;
        self.prepare(key.len() + effect_len)?;
        let target = self.key(key);
        let Lent { pinned, held, ref mut trace, now_ms, .. } = self.lent;
        let written = write(pinned, &target, held, trace);
        let (done, size) = self.written(written)?;
        let expire_at_ms = expire_at_ms.or_else(|| before.live(now_ms)).expect("what was looked up has not expired");
        self.changed(key, before, Some((expire_at_ms, size)), Touch::Changed);
        Ok(done)
    }

    /// Before a write: makes sure of its place in the append-only file.
    pub(crate) fn prepare(&mut self, bytes: usize) -> Result<(), Pause> {
        if self.lent.scratch.covered {
            return Ok(());
        }
        debug_assert!(!self.lent.scratch.wrote, "a second write needs `reserve` before the first");
        self.reserve_frame(bytes + EFFECT_OVERHEAD)
    }

    fn reserve_frame(&mut self, bytes: usize) -> Result<(), Pause> {
        if let Some(aof) = self.lent.aof {
            aof.reserve(bytes).map_err(Pause::Space)?;
            self.lent.scratch.reserved += bytes;
        }
        Ok(())
    }

    pub(crate) fn written<T>(&mut self, result: Result<T, NeedSpace>) -> Result<T, Pause> {
        let done = result.map_err(Pause::Space)?;
        self.lent.scratch.wrote = true;
        Ok(done)
    }

    pub(crate) fn effect(&mut self, effect: Effect<'_>) {
        if self.lent.aof.is_some() {
            effect.encode_into(&mut self.lent.scratch.effects);
        }
    }

    #[inline]
    pub(crate) fn changed(&mut self, key: &[u8], before: Presence, after: Option<State>, touch: Touch) {
        let databases = self.lent.databases;
        databases.count_change(self.db, before.state(), after);
        self.tell_of_change(key, before, after, touch);
    }

    /// [`Keyspace::changed`] once it is counted.
    #[inline]
    pub(crate) fn tell_of_change(&mut self, key: &[u8], before: Presence, after: Option<State>, touch: Touch) {
        let databases = self.lent.databases;
        let expiry = |state: Option<State>| state.map(|(expire_at_ms, _)| expire_at_ms);
        self.remind(key, expiry(before.state()), expiry(after));
        self.remember(match after {
            None => Presence::Missing,
            Some((expire_at_ms, size)) => Presence::Present { expire_at_ms, size },
        });
        let before = expiry(before.state());
        let scratch = &mut *self.lent.scratch;
        scratch.counters.changes += 1;
        if before.is_some_and(|at| has_expired(at, self.lent.now_ms)) {
            scratch.counters.expired += 1;
        }
        if !scratch.expired.is_empty() {
            scratch.expired.forget(self.db, key);
        }
        if !databases.watchers.is_empty() {
            databases.watchers.touch(self.db, key, touch);
        }
    }

    /// Tells the active cycle of a key's time of expiry. One that is moved on changes nothing: the reminder that there is
    /// finds the new time when it comes.
    #[inline]
    fn remind(&mut self, key: &[u8], before: Option<u64>, after: Option<u64>) {
        let (before, due_ms) = (before.unwrap_or(0), after.unwrap_or(0));
        if due_ms < before || before == 0 && due_ms != 0 {
            let hash = self.key(key).hash;
            self.lent.scratch.reminders.push(Reminder { hash, due_ms });
        }
    }

    /// Forgets every key, and when those that expire do: all workers have told what they knew of that.
    fn forget_all(&mut self) {
        self.lent.pinned.forget_all();
        self.lent.scratch.reminders.clear();
        self.lent.databases.wheel.lock().clear();
    }

    /// Returns the space that the database showed.
    fn empty(&mut self, db: u32) -> u32 {
        self.lent.scratch.counters.changes += self.lent.databases.keys(db);
        let space = self.lent.databases.empty(db, self.lent.pinned.tail());
        self.lent.databases.watchers.touch_all(db, |_| false);
        self.lent.scratch.expired.clear();
        self.lent.scratch.last = None;
        self.select(self.db);
        space
    }

    fn touch_all(&mut self, db: u32) {
        let databases = self.lent.databases;
        let (pinned, held, space) = (self.lent.pinned, self.lent.held, databases.space(db));
        self.mute(true);
        databases.watchers.touch_all(db, |key| {
            // A record on disk counts as there: a transaction fails needlessly, which it may, rather than wait here.
            !matches!(pinned.find(&pinned.key(space, key), held, self.lent.trace), Found::Missing)
        });
        self.mute(false);
    }
}

fn string(record: Option<RecordView<'_>>) -> Result<Option<&[u8]>, Pause> {
    match record {
        None => Ok(None),
        Some(record) if record.kind == Kind::String => Ok(Some(record.value)),
        Some(_) => Err(WRONG_TYPE),
    }
}
