//! Writes that replaced what they did not read.
//!
//! A plain SET of a key whose chain goes on on disk does not wait for the disk: it writes, is counted as if the key were
//! new, and leaves a note here. A background task reads what was there and takes it out of the counts. What it finds does
//! not depend on what has become of the key: each note is about the one record that its write replaced, and the counts
//! forget that record, once.
//!
//! So while there are notes the counts of a database are too high by what they will find. Who must be exact asks for a
//! [`Ticket`]: it knows the counts of one moment and which notes there were, and is settled when these are, whatever has
//! been added since.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use ferrite_hybridlog::{Address, Behind, HeldRecord, Pinned, ReadError};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::databases::{Databases, State};
use crate::limits::{EXPIRY_BYTES, INDEX_ENTRY_BYTES};
use crate::scratch::has_expired;

/// Notes that wait at most: some 100 bytes each. A write beyond them reads first.
const NOTES_MAX: usize = 16 * 1024;
/// Reads of a record that fail before it is taken for unreadable. It is tried again all the same.
const ATTEMPTS_MIN: u32 = 3;
/// What a note takes in memory with its place in the map, about.
const NOTE_BYTES: usize = 96;

/// The note of a write that did not read what it replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unseen {
    pub(crate) space: u32,
    pub(crate) hash: u64,
    /// Where the key's chain went on on disk.
    pub cold: Address,
    /// What was written.
    pub(crate) record: Address,
    /// When, in milliseconds since the Unix epoch: what had expired by then was gone.
    pub(crate) at_ms: u64,
}

/// The notes, of all databases. See the module's documentation.
pub struct UnseenWrites {
    queue: Mutex<Queue>,
    /// Notes in `queue`.
    len: AtomicUsize,
    max: AtomicUsize,
    /// [`Gate`]s that are closed.
    gates: Arc<AtomicUsize>,
    work: Notify,
    settled: AtomicU64,
    existed: AtomicU64,
    read_errors: AtomicU64,
    waited: AtomicU64,
}

#[derive(Default)]
struct Queue {
    next: u64,
    notes: BTreeMap<u64, Note>,
    /// Those that nobody has taken yet.
    waiting: VecDeque<u64>,
    tickets: Vec<Weak<Ticket>>,
    copying: Option<Copying>,
}

/// A copy of the notes of one moment that is made after it, in steps.
struct Copying {
    /// Notes from this number on came later.
    below: u64,
    /// Those before it were copied.
    at: u64,
    /// Were settled since that moment, before they were copied.
    settled: Vec<Unseen>,
}

struct Note {
    unseen: Unseen,
    attempts: u32,
    /// The last attempt's, after [`ATTEMPTS_MIN`] of them.
    error: Option<ReadError>,
}

/// What has been done since the start, and what there is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnseenFigures {
    pub pending: u64,
    pub settled: u64,
    /// Of those settled: there was a key.
    pub existed: u64,
    pub read_errors: u64,
    /// Tickets that were not settled at once.
    pub waited: u64,
    /// Bytes of memory, about.
    pub bytes: u64,
}

/// While it lives, no write leaves a note: it reads first.
pub struct Gate(Arc<AtomicUsize>);

impl Drop for Gate {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Default for UnseenWrites {
    fn default() -> Self {
        Self {
            queue: Mutex::default(),
            len: AtomicUsize::new(0),
            max: AtomicUsize::new(NOTES_MAX),
            gates: Arc::default(),
            work: Notify::new(),
            settled: AtomicU64::new(0),
            existed: AtomicU64::new(0),
            read_errors: AtomicU64::new(0),
            waited: AtomicU64::new(0),
        }
    }
}

impl UnseenWrites {
    /// Every write has been settled.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len.load(Relaxed) == 0
    }

    pub fn figures(&self) -> UnseenFigures {
        let pending = self.len.load(Relaxed) as u64;
        UnseenFigures {
            pending,
            settled: self.settled.load(Relaxed),
            existed: self.existed.load(Relaxed),
            read_errors: self.read_errors.load(Relaxed),
            waited: self.waited.load(Relaxed),
            bytes: pending * NOTE_BYTES as u64,
        }
    }

    /// As many notes as there may be.
    pub fn max(&self) -> usize {
        self.max.load(Relaxed)
    }

    /// Bounds the notes; what there is beyond stays.
    pub fn set_max(&self, notes: usize) {
        self.max.store(notes, Relaxed);
    }

    /// Whether so many writes may leave a note now. Other workers may take the room: the bound is exceeded by one of each.
    pub(crate) fn has_room(&self, notes: usize) -> bool {
        self.len.load(Relaxed) + notes <= self.max.load(Relaxed) && self.gates.load(Relaxed) == 0
    }

    /// From now on writes read first; the notes that there are will be settled by and by, and then the counts are exact for
    /// as long as the gate lives.
    pub fn close(&self) -> Gate {
        self.gates.fetch_add(1, Relaxed);
        Gate(self.gates.clone())
    }

    /// Leaves a note; `count` counts the write as that of a new key. Nobody sees one without the other.
    pub(crate) fn add(&self, unseen: Unseen, count: impl FnOnce()) {
        let mut queue = self.queue.lock();
        count();
        queue.push(unseen);
        self.len.store(queue.notes.len(), Relaxed);
        if queue.waiting.len() == 1 {
            self.work.notify_one();
        }
    }

    /// Takes at most `max` notes, oldest first, to look behind each. Waits until there is one.
    pub async fn take(&self, max: usize) -> Vec<(u64, Unseen)> {
        loop {
            {
                let mut queue = self.queue.lock();
                let count = queue.waiting.len().min(max);
                let numbers: Vec<u64> = queue.waiting.drain(..count).collect();
                if !queue.waiting.is_empty() {
                    // For another worker.
                    self.work.notify_one();
                }
                let taken = numbers.into_iter().filter_map(|at| Some((at, queue.notes.get(&at)?.unseen)));
                let taken: Vec<_> = taken.collect();
                if !taken.is_empty() {
                    return taken;
                }
            }
            self.work.notified().await;
        }
    }

    /// The record could not be read. How often that has happened; 0: it does not matter any more, since the database was
    /// emptied.
    fn failed(&self, number: u64, error: &ReadError, databases: &Databases) -> u32 {
        self.read_errors.fetch_add(1, Relaxed);
        let queue = &mut *self.queue.lock();
        let Some(note) = queue.notes.get_mut(&number) else { return 0 };
        if databases.db_of(note.unseen.space).is_none() {
            return 0;
        }
        note.attempts += 1;
        if note.attempts >= ATTEMPTS_MIN {
            note.error = Some(error.clone());
            let space = note.unseen.space;
            queue.tickets.retain(|ticket| {
                let Some(ticket) = ticket.upgrade() else { return false };
                ticket.fail(number, space, error);
                !ticket.is_settled()
            });
        }
        note.attempts
    }

    /// The note is settled: `state` is what its write replaced.
    pub(crate) fn settle(&self, number: u64, state: Option<State>, databases: &Databases) {
        let queue = &mut *self.queue.lock();
        let Some(note) = queue.notes.remove(&number) else { return };
        if let Some(copying) = &mut queue.copying
            && (copying.at..copying.below).contains(&number)
        {
            copying.settled.push(note.unseen);
        }
        self.len.store(queue.notes.len(), Relaxed);
        self.settled.fetch_add(1, Relaxed);
        let Unseen { space, at_ms, .. } = note.unseen;
        if let Some((expire_at_ms, _)) = state {
            self.existed.fetch_add(1, Relaxed);
            // Of a database that was emptied since nothing is counted any more.
            if let Some(db) = databases.db_of(space) {
                databases.count_change(db, state, None);
            }
            if has_expired(expire_at_ms, at_ms) {
                databases.count_expired();
            }
        }
        queue.tickets.retain(|ticket| {
            let Some(ticket) = ticket.upgrade() else { return false };
            ticket.settle(number, space, state);
            !ticket.is_settled()
        });
    }

    /// The counts of this moment, to be waited for; of one database, or of all.
    pub fn ticket(&self, databases: &Databases, db: Option<u32>) -> Arc<Ticket> {
        let queue = &mut *self.queue.lock();
        let of = db.map(|db| databases.space(db));
        let concerned = queue.notes.values().filter(|note| of.is_none_or(|space| note.unseen.space == space));
        let (mut left, mut error) = (0, None);
        for note in concerned {
            left += 1;
            error = error.or(note.error.as_ref());
        }
        let counts = (0..databases.count()).map(|db| databases.counts(db)).collect();
        let tally = Tally { left, error: error.cloned(), counts };
        let ticket = Arc::new(Ticket { below: queue.next, of, tally: Mutex::new(tally), done: Notify::new() });
        if !ticket.is_settled() {
            self.waited.fetch_add(1, Relaxed);
            queue.tickets.push(Arc::downgrade(&ticket));
        }
        ticket
    }

    /// Whether all notes of the ticket are settled, but for those that fail in a way that `is_hopeless`; `None`: not yet.
    ///
    /// # Errors
    /// How another one fails.
    pub fn settled_but(
        &self,
        ticket: &Ticket,
        is_hopeless: impl Fn(&ReadError) -> bool,
    ) -> Option<Result<(), ReadError>> {
        let queue = self.queue.lock();
        let mut waits = false;
        for (&number, note) in &queue.notes {
            if !ticket.concerns(number, note.unseen.space) {
                continue;
            }
            match &note.error {
                Some(error) if is_hopeless(error) => {}
                Some(error) => return Some(Err(error.clone())),
                None => waits = true,
            }
        }
        (!waits).then_some(Ok(()))
    }

    /// Begins a copy of the notes of this moment, for a checkpoint, which holds the counts as they are. There is one at a time.
    pub(crate) fn begin_copy(&self) {
        let queue = &mut *self.queue.lock();
        queue.copying = Some(Copying { below: queue.next, at: 0, settled: Vec::new() });
    }

    /// Gives at most `max` of them. Empty: that was all.
    pub(crate) fn copy(&self, max: usize) -> Vec<Unseen> {
        let queue = &mut *self.queue.lock();
        let Some(copying) = &mut queue.copying else { return Vec::new() };
        let left = queue.notes.range(copying.at..copying.below).take(max);
        let mut some = Vec::new();
        for (&number, note) in left {
            copying.at = number + 1;
            some.push(note.unseen);
        }
        if some.is_empty() {
            let from = copying.settled.len().saturating_sub(max);
            some = copying.settled.split_off(from);
        }
        some
    }

    pub(crate) fn end_copy(&self) {
        self.queue.lock().copying = None;
    }

    #[cfg(test)]
    pub(crate) fn all(&self) -> Vec<Unseen> {
        self.queue.lock().notes.values().map(|note| note.unseen).collect()
    }

    /// Those of a checkpoint.
    pub(crate) fn restore(&self, unseen: Unseen) {
        self.add(unseen, || {});
    }
}

impl Queue {
    fn push(&mut self, unseen: Unseen) {
        self.notes.insert(self.next, Note { unseen, attempts: 0, error: None });
        self.waiting.push_back(self.next);
        self.next += 1;
    }
}

/// Looks at the record that was read for a note at its `cold` address, or where the last look has led. Gives the address of
/// the next one to read, `None` once the note is settled.
pub fn look_behind(
    pinned: &Pinned<'_>,
    databases: &Databases,
    (number, unseen): (u64, Unseen),
    at: Address,
    record: &HeldRecord,
) -> Option<Address> {
    let state = match pinned.behind(at, record, unseen.space, unseen.hash) {
        Behind::Older(older) => return Some(older),
        Behind::Nothing => None,
        Behind::Key { expire_at_ms, size } => {
            pinned.give_up_replaced(unseen.hash, unseen.record, at, record);
            Some((expire_at_ms, size))
        }
    };
    // Pinned: nobody empties or swaps databases meanwhile, and no checkpoint is cut.
    databases.unseen.settle(number, state, databases);
    None
}

/// What was to be looked at for a note cannot be read. How often that has happened; 0: the note has settled itself.
pub fn cannot_look_behind(
    _pinned: &Pinned<'_>,
    databases: &Databases,
    (number, _): (u64, Unseen),
    error: &ReadError,
) -> u32 {
    let attempts = databases.unseen.failed(number, error, databases);
    if attempts == 0 {
        databases.unseen.settle(number, None, databases);
    }
    attempts
}

/// Counts of one database at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub(crate) space: u32,
    /// As [`Databases::keys`].
    pub keys: u64,
    /// As [`Databases::expires`].
    pub expires: u64,
    pub(crate) record_bytes: u64,
}

impl Counts {
    /// As [`Databases::data_bytes_of`].
    pub fn data_bytes(&self) -> u64 {
        self.record_bytes + self.keys * INDEX_ENTRY_BYTES as u64 + self.expires * EXPIRY_BYTES as u64
    }
}

/// Exact counts of one moment, once they are known.
pub struct Ticket {
    /// Notes from this number on came later.
    below: u64,
    /// The space whose notes matter; `None`: all.
    of: Option<u32>,
    tally: Mutex<Tally>,
    done: Notify,
}

struct Tally {
    left: usize,
    error: Option<ReadError>,
    /// By the number that each database had.
    counts: Vec<Counts>,
}

impl Ticket {
    fn concerns(&self, number: u64, space: u32) -> bool {
        number < self.below && self.of.is_none_or(|of| of == space)
    }

    fn settle(&self, number: u64, space: u32, state: Option<State>) {
        if !self.concerns(number, space) {
            return;
        }
        let tally = &mut *self.tally.lock();
        if let (Some((expire_at_ms, size)), Some(counts)) =
            (state, tally.counts.iter_mut().find(|counts| counts.space == space))
        {
            counts.keys -= 1;
            counts.expires -= u64::from(expire_at_ms != 0);
            counts.record_bytes = counts.record_bytes.wrapping_sub(size as u64);
        }
        tally.left -= 1;
        if tally.left == 0 {
            self.done.notify_waiters();
        }
    }

    fn fail(&self, number: u64, space: u32, error: &ReadError) {
        if self.concerns(number, space) {
            self.tally.lock().error = Some(error.clone());
            self.done.notify_waiters();
        }
    }

    fn is_settled(&self) -> bool {
        let tally = self.tally.lock();
        tally.left == 0 || tally.error.is_some()
    }

    /// Waits until the counts are known, or it is clear that they cannot be for now.
    pub async fn settled(&self) {
        loop {
            let done = self.done.notified();
            let mut done = std::pin::pin!(done);
            done.as_mut().enable();
            if self.is_settled() {
                return;
            }
            done.await;
        }
    }

    /// The counts of a database by the number that it had; `None`: they are not known yet.
    ///
    /// # Errors
    /// What was replaced cannot be read. That is tried again and again: ask later.
    pub fn counts(&self, db: u32) -> Option<Result<Counts, ReadError>> {
        let tally = self.tally.lock();
        match &tally.error {
            Some(error) => Some(Err(error.clone())),
            None => (tally.left == 0).then(|| Ok(tally.counts[db as usize])),
        }
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket({} left)", self.tally.lock().left)
    }
}
