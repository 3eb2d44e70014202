//! The objects in memory: whose they are, what they weigh, and how each of them leaves.

use super::extents::Written;
use super::extents::padded;
use super::remains::Wake;
use super::{Decode, Descriptor, Extent, Extents, Load, MovedRecords, Object, Remains, Stored, decode_bytes};
use crate::mutant::Mutant;
use crate::reclaim::{Guard, defer};
use crate::record::Kind;
use crate::sync::{Arc, AtomicU64, AtomicUsize, Mutex, Ordering};
use std::collections::{BTreeMap, BTreeSet};
use std::ptr::NonNull;

/// Locks over the objects: two workers seldom want the same.
const SHARDS: u64 = 16;
/// What is being written and weighs no more is copied for a change: that takes as long as a stretch of a checkpoint's walk.
/// Who wants to change more waits until it is written.
pub(crate) const COPIED_MAX: usize = 256 << 10;

pub(crate) struct Objects {
    /// Id → object.
    shards: [Mutex<BTreeMap<u64, Entry>>; SHARDS as usize],
    /// The objects whose records lie in each page.
    pages: Mutex<BTreeMap<u64, PageObjects>>,
    next_id: AtomicU64,
    /// The number of the file of extents: what its header says.
    pub(crate) file_id: AtomicU64,
    /// Ids below this are of objects that a checkpoint needs as they are, until they are written; changes in the exclusive mode.
    keep_below: AtomicU64,
    /// Number of that checkpoint.
    keep_for: AtomicU64,
    bytes: AtomicUsize,
    /// Of objects that have not been written.
    unwritten_bytes: AtomicUsize,
    pub(crate) extents: Extents,
    pub(crate) moved: MovedRecords,
    /// Ids that a key's newest record has and whose objects are nowhere.
    lost: Mutex<BTreeSet<u64>>,
    /// Of a store that was emptied: no batch looks at them any more.
    condemned: Arc<Mutex<Vec<BTreeMap<u64, Entry>>>>,
    condemned_count: Arc<AtomicUsize>,
    pub(crate) remains: std::sync::Arc<Remains>,
    decode: Decode,
}

#[derive(Default)]
struct PageObjects {
    /// Also of objects that are gone.
    ids: Vec<u64>,
    bytes: usize,
}

struct Entry {
    stored: Arc<Stored>,
    page: u64,
    /// What it was found to weigh last.
    bytes: usize,
    state: State,
    /// No record needs it any more, but this checkpoint does.
    orphan_of: Option<u64>,
    /// Another that was the same object when it became an orphan.
    twin: Option<u64>,
}

impl Entry {
    fn is_written(&self) -> bool {
        matches!(self.state, State::Written(_))
    }
}

/// An object on its way from one record to another.
pub(crate) struct Moved {
    pub(crate) stored: Arc<Stored>,
    /// The id under which it is kept until it is written.
    pub(crate) twin: Option<u64>,
}

/// Whether an object is left to who writes it for a checkpoint.
enum Orphan {
    No,
    Now(Arc<Stored>),
    Before,
}

#[derive(Clone, Copy)]
enum State {
    /// With so many bytes of the file of extents promised.
    Memory {
        promised: u64,
    },
    Writing,
    Written(Extent),
}

impl Objects {
    /// `wake` has [`Objects::remains`] freed.
    pub(crate) fn new(decode: Decode, wake: Wake) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::new(BTreeMap::new())),
            pages: Mutex::default(),
            next_id: AtomicU64::new(1),
            file_id: AtomicU64::new(0),
            keep_below: AtomicU64::new(0),
            keep_for: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            unwritten_bytes: AtomicUsize::new(0),
            extents: Extents::new(),
            moved: MovedRecords::default(),
            lost: Mutex::default(),
            condemned: Arc::default(),
            condemned_count: Arc::default(),
            remains: std::sync::Arc::new(Remains::new(wake)),
            decode,
        }
    }

    fn shard(&self, id: u64) -> &Mutex<BTreeMap<u64, Entry>> {
        &self.shards[(id % SHARDS) as usize]
    }

    pub(crate) fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// No id was given that is as high.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.load(Ordering::Relaxed)
    }

    /// Ids go on where they were when a checkpoint was taken. Only while nobody else uses the store.
    pub(crate) fn restore_next_id(&self, next_id: u64) {
        self.next_id.store(next_id, Ordering::Relaxed);
    }

    /// Checkpoint `number` shows this moment: what its records own stays as it is until it is written. Gives the first id after
    /// it. Exclusive mode only.
    pub(crate) fn cut(&self, number: u64) -> u64 {
        let next_id = self.next_id();
        self.extents.add_cut(number, next_id);
        self.keep_for.store(number, Ordering::Relaxed);
        self.keep_below.store(next_id, Ordering::Release);
        next_id
    }

    /// All that the checkpoint needs is written, or it was given up.
    pub(crate) fn end_keeping(&self) {
        self.keep_below.store(0, Ordering::Release);
    }

    /// Objects of records that are not written, or not to their end.
    #[cfg(test)]
    pub(crate) fn unwritten_count(&self) -> usize {
        let of = |entry: &Entry| matches!(entry.state, State::Memory { .. }) && entry.orphan_of.is_none();
        self.shards.iter().map(|shard| shard.lock().values().filter(|entry| of(entry)).count()).sum()
    }

    /// Whether a checkpoint still waits for objects that are to be written as they are.
    #[inline]
    pub(crate) fn is_keeping(&self) -> bool {
        self.keep_below.load(Ordering::Acquire) > 0
    }

    /// Whether an object still waits to be written.
    pub(crate) fn is_unwritten(&self, id: u64) -> bool {
        self.shard(id).lock().get(&id).is_some_and(|entry| !entry.is_written())
    }

    /// Whom a change of the object has to wait for, since it is being written, or will be, as it is, and is no small thing to
    /// copy.
    pub(crate) fn waits_for(&self, id: u64) -> Option<u64> {
        let twin = {
            let shard = self.shard(id).lock();
            let entry = shard.get(&id).filter(|entry| entry.bytes > COPIED_MAX)?;
            match entry.state {
                State::Writing => return Some(id),
                State::Memory { .. } if id < self.keep_below.load(Ordering::Acquire) => return Some(id),
                State::Memory { .. } | State::Written(_) => entry.twin?,
            }
        };
        self.is_unwritten(twin).then_some(twin)
    }

    /// An object for a record, which has not the key if that is given here.
    pub(crate) fn stored(&self, key: Option<Box<[u8]>>, value: Box<dyn Object>) -> Arc<Stored> {
        Arc::new(Stored { key, value, remains: self.remains.clone() })
    }

    /// See [`Decode`].
    pub(crate) fn load(&self, kind: Kind, len: usize) -> Option<Box<dyn Load>> {
        match kind {
            Kind::String => decode_bytes(kind, len),
            _ => (self.decode)(kind, len),
        }
    }

    /// The object with this id is nowhere, though the record that owns it is its key's newest: nothing but damage does that.
    #[cold]
    pub(crate) fn lose(&self, id: u64) {
        self.lost.lock().insert(id);
    }

    #[cold]
    pub(crate) fn is_lost(&self, id: u64) -> bool {
        self.lost.lock().contains(&id)
    }

    /// Bytes of all objects in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn unwritten_bytes(&self) -> usize {
        self.unwritten_bytes.load(Ordering::Acquire)
    }

    /// Whether a record may own an object, in memory or in the file.
    pub(crate) fn are_there(&self) -> bool {
        self.bytes() > 0 || self.extents.stats().extents > 0
    }

    /// Bytes of the objects whose records lie in these pages.
    pub(crate) fn bytes_in(&self, pages: std::ops::RangeInclusive<u64>) -> usize {
        self.pages.lock().range(pages).map(|(_, page)| page.bytes).sum()
    }

    /// Takes an object, `promised` space in the file, whose record lies in `page` and is not published yet.
    pub(crate) fn insert(&self, id: u64, page: u64, Moved { stored, twin }: Moved, promised: u64) {
        let bytes = stored.memory();
        debug_assert!(promised > 0, "what takes no space in the file cannot be found there");
        {
            let mut pages = self.pages.lock();
            let of_page = pages.entry(page).or_default();
            of_page.ids.push(id);
            of_page.bytes += bytes;
        }
        // After the page's: who compares the two never finds more to wait for than there is.
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.unwritten_bytes.fetch_add(bytes, Ordering::Release);
        let entry = Entry { stored, page, bytes, state: State::Memory { promised }, orphan_of: None, twin };
        let before = self.shard(id).lock().insert(id, entry);
        debug_assert!(before.is_none(), "ids are given once");
    }

    /// The object under an id, which stays while the caller is pinned and holds the latch of its record's bucket.
    pub(crate) fn get(&self, id: u64) -> Option<NonNull<Stored>> {
        self.shard(id).lock().get(&id).map(|entry| NonNull::from(&*entry.stored))
    }

    /// Whether the flush still writes the object for a record that it has left, and it is no small thing to copy for a change.
    pub(crate) fn is_shared(&self, id: u64) -> bool {
        let mut shard = self.shard(id).lock();
        let large = shard.get_mut(&id).filter(|entry| entry.bytes > COPIED_MAX);
        large.is_some_and(|entry| Arc::get_mut(&mut entry.stored).is_none())
    }

    /// The object for changing it; the caller, who holds the latch for writing, calls [`Objects::changed`] afterwards.
    pub(crate) fn get_mut(&self, id: u64) -> Option<NonNull<Stored>> {
        let mut shard = self.shard(id).lock();
        let entry = shard.get_mut(&id)?;
        if Mutant::ChangedWhileWritten.is_planted() {
            return Some(NonNull::from(&*entry.stored));
        }
        if Arc::get_mut(&mut entry.stored).is_none() {
            // It has moved here while the flush was reading it, or is to: that keeps what it reads.
            entry.stored = Arc::new(entry.stored.duplicate());
        }
        Arc::get_mut(&mut entry.stored).map(NonNull::from)
    }

    /// Bytes of the file that an object in memory was promised.
    pub(crate) fn promised(&self, id: u64) -> u64 {
        match self.shard(id).lock().get(&id) {
            Some(Entry { state: State::Memory { promised }, .. }) => *promised,
            _ => 0,
        }
    }

    /// An object was changed, and promised `more` before: puts down what it weighs now, and gives back what it does not need.
    pub(crate) fn changed(&self, id: u64, more: u64) {
        let mut shard = self.shard(id).lock();
        let Some(entry) = shard.get_mut(&id) else { return };
        let (before, now) = (entry.bytes, entry.stored.memory());
        entry.bytes = now;
        // Both directions in one: the sum of all changes is never negative.
        let change = now.wrapping_sub(before);
        let change_page = || {
            if let Some(of_page) = self.pages.lock().get_mut(&entry.page) {
                of_page.bytes = of_page.bytes.wrapping_add(change);
            }
        };
        // The page weighs no less at any time than what of it is to be written: see `insert`.
        if now > before {
            change_page();
        }
        self.bytes.fetch_add(change, Ordering::Relaxed);
        if let State::Memory { promised } = &mut entry.state {
            let needed = padded(entry.stored.written_len());
            let have = *promised + more;
            debug_assert!(needed <= have, "an object has grown beyond what was promised");
            *promised = needed.min(have);
            self.extents.end_promise_to_object(have - *promised);
            self.unwritten_bytes.fetch_add(change, Ordering::Release);
        }
        if now < before {
            change_page();
        }
    }

    /// The record that owns the object is replaced or deleted.
    pub(crate) fn release(&self, descriptor: &Descriptor, guard: &Guard) {
        match self.orphan(descriptor.id) {
            Orphan::Now(stored) => {
                // Whoever writes it may be done before a batch that looks at it.
                return defer(guard, move || drop(stored));
            }
            Orphan::Before => return,
            Orphan::No => {}
        }
        match self.remove(descriptor.id) {
            Some(entry) => {
                self.let_go(descriptor.id, entry.state);
                let stored = entry.stored;
                defer(guard, move || drop(stored));
            }
            None => {
                if let Some(extent) = descriptor.extent {
                    self.extents.free(extent.offset, descriptor.id);
                }
            }
        }
    }

    /// Takes an object in memory from a record that is being replaced.
    pub(crate) fn take(&self, id: u64) -> Option<Moved> {
        match self.orphan(id) {
            Orphan::Now(stored) => return Some(Moved { stored, twin: Some(id) }),
            Orphan::Before => return None,
            Orphan::No => {}
        }
        let entry = self.remove(id)?;
        self.let_go(id, entry.state);
        Some(Moved { stored: entry.stored, twin: entry.twin })
    }

    /// Leaves an object that a checkpoint needs and does not have yet to who writes it.
    fn orphan(&self, id: u64) -> Orphan {
        if id >= self.keep_below.load(Ordering::Acquire) {
            return Orphan::No;
        }
        let mut shard = self.shard(id).lock();
        match shard.get_mut(&id) {
            Some(entry) if entry.orphan_of.is_some() => Orphan::Before,
            Some(entry) if !entry.is_written() => {
                entry.orphan_of = Some(self.keep_for.load(Ordering::Relaxed));
                Orphan::Now(entry.stored.clone())
            }
            _ => Orphan::No,
        }
    }

    fn let_go(&self, id: u64, state: State) {
        match state {
            State::Memory { promised } => self.extents.end_promise_to_object(promised),
            // Who writes it will see that it is gone.
            State::Writing => {}
            State::Written(extent) => self.extents.free(extent.offset, id),
        }
    }

    fn remove(&self, id: u64) -> Option<Entry> {
        let entry = self.shard(id).lock().remove(&id)?;
        self.bytes.fetch_sub(entry.bytes, Ordering::Relaxed);
        if !entry.is_written() {
            self.unwritten_bytes.fetch_sub(entry.bytes, Ordering::Relaxed);
        }
        if let Some(of_page) = self.pages.lock().get_mut(&entry.page) {
            of_page.bytes -= entry.bytes;
        }
        Some(entry)
    }

    /// Takes an object for writing, and its place in the file. `None`: its record is dead, or it has been written.
    ///
    /// # Errors
    /// The file has no room, against all promises.
    pub(crate) fn begin_writing(&self, id: u64) -> Result<Option<(Arc<Stored>, u64)>, ()> {
        let mut shard = self.shard(id).lock();
        let Some(entry) = shard.get_mut(&id) else { return Ok(None) };
        let State::Memory { promised } = entry.state else { return Ok(None) };
        let offset = self.extents.begin_writing(promised, id).ok_or(())?;
        entry.state = State::Writing;
        Ok(Some((entry.stored.clone(), offset)))
    }

    /// An object has been written: it stays in memory until its page goes. If its record died meanwhile, the extent is free, or
    /// kept for the checkpoint that needed it.
    pub(crate) fn end_writing(&self, id: u64, extent: Extent) {
        let mut shard = self.shard(id).lock();
        let end = |written| self.extents.end_writing(extent.offset, id, written);
        let Some(entry) = shard.get_mut(&id) else {
            return end(if Mutant::WrittenForNobody.is_planted() { Written::Wanted } else { Written::Dead });
        };
        let Some(number) = entry.orphan_of else {
            end(Written::Wanted);
            entry.state = State::Written(extent);
            self.unwritten_bytes.fetch_sub(entry.bytes, Ordering::Relaxed);
            return;
        };
        // A checkpoint that was given up needs nothing, nor does one after it.
        end(if self.extents.has_cut(number) { Written::Kept } else { Written::Dead });
        drop(shard);
        self.remove(id);
    }

    /// A page has left memory, and no batch looks at its records: nor at their objects.
    pub(crate) fn page_left(&self, page: u64) {
        let ids = self.pages.lock().remove(&page).unwrap_or_default().ids;
        for id in ids {
            let entry = self.remove(id);
            debug_assert!(entry.is_none_or(|entry| matches!(entry.state, State::Written(_))), "it was not written");
        }
    }

    /// Every record is gone. In the exclusive mode. True: [`Objects::free_some`], or [`Extents::free_some`], has work.
    pub(crate) fn forget_all(&self, guard: &Guard) -> bool {
        let mut all = Vec::new();
        let (keep_below, keep_for) = (self.keep_below.load(Ordering::Acquire), self.keep_for.load(Ordering::Relaxed));
        let mut kept_pages: BTreeMap<u64, PageObjects> = BTreeMap::new();
        let (mut kept_bytes, mut promised_to_kept) = (0, 0);
        for shard in &self.shards {
            let mut shard = shard.lock();
            let mut entries = std::mem::take(&mut *shard);
            if keep_below > 0 {
                let is_kept = |id: &u64, entry: &mut Entry| *id < keep_below && !entry.is_written();
                *shard = entries.extract_if(.., is_kept).collect();
            }
            for (&id, entry) in shard.iter_mut() {
                entry.orphan_of.get_or_insert(keep_for);
                let of_page = kept_pages.entry(entry.page).or_default();
                of_page.ids.push(id);
                of_page.bytes += entry.bytes;
                kept_bytes += entry.bytes;
                if let State::Memory { promised } = entry.state {
                    promised_to_kept += promised;
                }
            }
            if !entries.is_empty() {
                all.push(entries);
            }
        }
        let any_extents = self.extents.free_all(promised_to_kept);
        *self.pages.lock() = kept_pages;
        self.bytes.store(kept_bytes, Ordering::Relaxed);
        self.unwritten_bytes.store(kept_bytes, Ordering::Relaxed);
        let any = !all.is_empty();
        if any {
            self.condemned_count.fetch_add(all.len(), Ordering::AcqRel);
            let condemned = self.condemned.clone();
            defer(guard, move || condemned.lock().extend(all));
        }
        any || any_extents
    }

    pub(crate) fn has_condemned(&self) -> bool {
        self.condemned_count.load(Ordering::Acquire) > 0
    }

    /// Frees some objects of a store that was emptied; false if a batch may still be looking at all that there are.
    pub(crate) fn free_some(&self, most: usize) -> bool {
        let mut condemned = self.condemned.lock();
        let Some(entries) = condemned.last_mut() else { return false };
        let mut some = Vec::with_capacity(most);
        while some.len() < most
            && let Some((_, entry)) = entries.pop_first()
        {
            some.push(entry);
        }
        if entries.is_empty() {
            condemned.pop();
            self.condemned_count.fetch_sub(1, Ordering::AcqRel);
        }
        drop(condemned);
        true
    }
}
