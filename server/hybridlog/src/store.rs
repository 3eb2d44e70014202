//! The store that all workers share, and the handle each worker has on it.

use crate::access::AccessMode;
use crate::address::Address;
use crate::epoch::EpochTable;
use crate::imaging::Imaging;
use crate::index::{Chunk, Index};
use crate::key::{HashSeed, Key, hash_in};
use crate::log::{FILE_RESERVE, Log};
use crate::objects::{Decode, Objects, decode_bytes, padded};
use crate::pinned::{Own, Pinned};
use crate::read_cache::ReadCache;
use crate::reclaim::{Guard, Participant, Reclaim, defer};
use crate::retired::Retired;
use crate::space::{BurstTooLarge, NeedReason, NeedSpace, StorageError, ValueTooLarge};
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering};
use ferrite_io::Elsewhere;
use ferrite_telemetry::StackTrace;
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Bytes; a power of two of at least 4096. A record does not cross pages.
    pub page_size: usize,
    /// Pages updated in place; at least 1.
    pub mutable_pages: usize,
    /// Pages served from a map of the log file; may be 0.
    pub read_only_pages: usize,
    /// Buckets of 64 bytes that the index begins with, a power of two; it grows from five keys a bucket on.
    pub index_buckets: usize,
    pub workers: usize,
    pub hash_seed: u64,
}

/// The engine without its device. Shared by all workers.
pub struct Store {
    pub(crate) index: Index,
    pub(crate) log: Arc<Log>,
    pub(crate) epochs: EpochTable,
    pub(crate) retired: Retired,
    /// Off until it is given a limit.
    pub read_cache: ReadCache,
    /// What a checkpoint under way has to know.
    pub(crate) imaging: Imaging,
    /// Wakes [`crate::tend_index`].
    pub(crate) index_work: Arc<Notify>,
    /// Of an index that was given up: what no batch reads any more, to be freed piece by piece.
    discarded: Arc<Mutex<Vec<Chunk>>>,
    /// Bytes of such an index that are not freed yet.
    discarded_bytes: AtomicUsize,
    reclaim: Reclaim,
    seed: (u64, HashSeed),
    /// That of a checkpoint that was restored: its index knows keys by it. Set before there is any other key.
    restored_seed: OnceLock<(u64, HashSeed)>,
    /// Which worker ids have a handle.
    claimed: Box<[AtomicBool]>,
    pub(crate) counters: Counters,
}

/// What the background work counts.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) pages_flushed: AtomicU64,
    pub(crate) bytes_flushed: AtomicU64,
    pub(crate) pages_in_flight: AtomicU64,
    /// Bytes of the copies that are being written.
    pub(crate) flush_bytes: AtomicU64,
    pub(crate) flush_errors: AtomicU64,
    pub(crate) disk_reads: AtomicU64,
    pub(crate) object_reads: AtomicU64,
    pub(crate) checksum_errors: AtomicU64,
}

/// Sizes and positions at one moment. The limits are read one after another while they move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    pub begin: Address,
    pub head: Address,
    pub read_only: Address,
    pub tail: Address,
    pub epoch: u64,
    /// Every batch that began in an earlier epoch has ended.
    pub safe_epoch: u64,
    /// Bytes of log in each tier, superseded records included.
    pub mutable_bytes: u64,
    pub read_only_bytes: u64,
    pub disk_bytes: u64,
    pub index_buckets: usize,
    /// Buckets beyond the first of a chain.
    pub index_overflow_buckets: usize,
    /// Buckets of the index's longest chain, the first included; 33 stands for more.
    pub index_longest_chain: usize,
    /// Entries of the index: one for each key, but for the few that share one.
    pub index_entries: usize,
    /// What a checkpoint that is being taken keeps of deletions.
    pub imaging_bytes: usize,
    /// Bytes of the index, and of one given up that is not freed yet; untouched buckets are counted though not resident.
    pub index_bytes: usize,
    /// Anonymous and mapped pages, as far as they have been touched.
    pub page_bytes: usize,
    /// Large values in memory.
    pub object_bytes: usize,
    /// Large values that nobody needs any more and that are not freed yet, the bytes of memory that they take, and how many were
    /// freed that way.
    pub objects_freeing: usize,
    pub freeing_bytes: usize,
    pub objects_freed: u64,
    /// Values in the file of extents, and the bytes that they take there.
    pub extents: usize,
    pub extent_bytes: u64,
    /// Values there that are no key's any more and that a checkpoint names, and the bytes that they take.
    pub extents_in_limbo: usize,
    pub extent_limbo_bytes: u64,
    /// Bytes of their file up to the last of them.
    pub extent_file_bytes: u64,
    /// Of these, what no extent takes.
    pub extent_free_bytes: u64,
    /// `index_bytes + page_bytes + object_bytes + freeing_bytes`.
    pub memory_bytes: usize,
    pub pages_flushed: u64,
    /// Written by the flush: pages, and the objects of their records in whole blocks.
    pub bytes_flushed: u64,
    /// Pages that are being written.
    pub pages_in_flight: u64,
    /// Bytes of the copies of pages that are being written.
    pub flush_bytes: u64,
    pub flush_errors: u64,
    pub disk_reads: u64,
    /// Large values read from disk, each with one of `disk_reads` or more.
    pub object_reads: u64,
    pub checksum_errors: u64,
    /// Pages of the log that compaction could not read and has left, and their bytes.
    pub quarantined_pages: usize,
    pub quarantined_bytes: u64,
    /// Bytes of these below `begin`.
    pub left_bytes: u64,
    /// Bytes of the log in its file, between what was given back to the disk and the tail, and those left below.
    pub file_bytes: u64,
    /// The disk of the log file was full at the last attempt to reserve space.
    pub disk_full: bool,
    /// The disk refuses to make room for the log or the extents for another reason.
    pub disk_failing: bool,
}

impl Store {
    /// # Panics
    /// If the configuration is out of its documented ranges.
    pub fn new(config: StoreConfig) -> Arc<Self> {
        Self::with_objects(config, decode_bytes)
    }

    /// A store whose large collections are what `decode` makes of them.
    ///
    /// # Panics
    /// As [`Store::new`].
    pub fn with_objects(config: StoreConfig, decode: Decode) -> Arc<Self> {
        assert!(config.workers >= 1, "a store has at least one worker");
        let index_work: Arc<Notify> = Arc::default();
        let work = index_work.clone();
        let objects = Objects::new(decode, Box::new(move || work.notify_one()));
        Arc::new(Self {
            index: Index::new(config.index_buckets, config.workers),
            log: Log::new(config.page_size, config.mutable_pages, config.read_only_pages, objects),
            epochs: EpochTable::new(config.workers),
            retired: Retired::default(),
            read_cache: ReadCache::new(config.workers),
            imaging: Imaging::default(),
            index_work,
            discarded: Arc::default(),
            discarded_bytes: AtomicUsize::new(0),
            reclaim: Reclaim::new(),
            seed: (config.hash_seed, HashSeed::new(config.hash_seed)),
            restored_seed: OnceLock::new(),
            claimed: (0..config.workers).map(|_| AtomicBool::new(false)).collect(),
            counters: Counters::default(),
        })
    }

    /// From now on memory for the index and the log is made ahead, there, and no command waits until the kernel has it. Two
    /// pieces of the index and a page at most are made that are not used yet.
    pub fn make_ahead(&self, elsewhere: Elsewhere) {
        self.index.make_ahead(elsewhere);
        self.log.make_ahead(elsewhere);
    }

    /// The handle of worker `id`, of which there is one at a time.
    ///
    /// # Panics
    /// If the worker has one already, or `id` is not below `StoreConfig::workers`.
    pub fn worker(self: &Arc<Self>, id: usize) -> WorkerHandle {
        assert!(!self.claimed[id].swap(true, Ordering::AcqRel), "worker {id} has a handle already");
        let own = Own::new(Key::new(&self.seed.1, id as u32, b"access").hash);
        WorkerHandle { store: self.clone(), id, own, participant: self.reclaim.register() }
    }

    /// Takes what an index consisted of, to be freed by [`crate::tend_index`] once no batch reads it.
    pub(crate) fn discard(&self, chunks: Vec<Chunk>, guard: &Guard) {
        if chunks.is_empty() {
            return;
        }
        self.discarded_bytes.fetch_add(chunks.iter().map(Chunk::bytes).sum(), Ordering::AcqRel);
        let discarded = self.discarded.clone();
        defer(guard, move || discarded.lock().extend(chunks));
        self.index_work.notify_one();
    }

    /// True while there is something to be freed.
    pub(crate) fn has_discarded(&self) -> bool {
        self.discarded_bytes.load(Ordering::Acquire) > 0
    }

    /// Frees one piece; false if a batch may still be reading all that there is.
    pub(crate) fn free_discarded(&self) -> bool {
        let Some(chunk) = self.discarded.lock().pop() else { return false };
        self.discarded_bytes.fetch_sub(chunk.bytes(), Ordering::AcqRel);
        true
    }

    #[inline]
    pub fn key<'a>(&self, space: u32, bytes: &'a [u8]) -> Key<'a> {
        Key::new(self.hash_seed(), space, bytes)
    }

    #[inline]
    pub fn hash_seed(&self) -> &HashSeed {
        &self.seed_in_force().1
    }

    #[inline]
    pub(crate) fn seed_in_force(&self) -> &(u64, HashSeed) {
        self.restored_seed.get().unwrap_or(&self.seed)
    }

    /// After a manifest was put in force: it names these checkpoints and no others. What only others named is free, by and by.
    pub fn checkpoints_kept(&self, numbers: &[u64]) {
        self.log.objects.extents.keep_cuts(numbers);
        self.index_work.notify_one();
    }

    /// The hash of a record's key, or of the key whose digest it has.
    pub(crate) fn hash_of(&self, space: u32, key: &[u8], is_digest: bool) -> u64 {
        if is_digest { hash_in(key) } else { self.key(space, key).hash }
    }

    /// From now on keys are hashed as they were by the store of a checkpoint. Once, before there are any keys.
    pub(crate) fn restore_seed(&self, seed: u64) {
        let set = self.restored_seed.set((seed, HashSeed::new(seed)));
        assert!(set.is_ok(), "one checkpoint is restored");
    }

    /// Waits until every page below `address` is in the log file; not yet durably. It is below `read_only`.
    ///
    /// # Errors
    /// The disk refuses to be written. What is in memory stays there and will be tried again.
    pub(crate) async fn flushed(&self, address: Address) -> Result<(), StorageError> {
        debug_assert!(address <= self.log.regions.read_only());
        loop {
            let woken = self.log.space.notified();
            let mut woken = std::pin::pin!(woken);
            woken.as_mut().enable();
            if self.log.paging.start(self.log.flushed.load(Ordering::Acquire)) >= address {
                return Ok(());
            }
            if let Some(message) = self.log.failing.lock().clone() {
                return Err(StorageError::Failed { message, stack: StackTrace::capture() });
            }
            self.log.work.notify_one();
            woken.await;
        }
    }

    pub fn page_size(&self) -> usize {
        self.log.paging.size()
    }

    /// Buckets of the index, which numbers them from 0.
    pub fn index_buckets(&self) -> u64 {
        self.index.len() as u64
    }

    /// The largest value that lies in a record beside a key of `key_len` bytes: a larger one becomes an object.
    pub fn inline_max(&self, key_len: usize) -> usize {
        self.log.inline_max(key_len)
    }

    /// An error if a value of `bytes` can never be stored under a key of `key_len` bytes.
    pub fn check_value(&self, key_len: usize, bytes: usize) -> Result<(), ValueTooLarge> {
        self.log.check_value(key_len, bytes)
    }

    /// Waits until what `need` lacked is there; then the command is run again. Answers an error at once while
    /// the disk is full or refuses writes, and for what waiting cannot help. `NeedReason::AofFile` is the
    /// AOF's to wait for and is not accepted here.
    ///
    /// Never call it while pinned: the flush waits for the batch to end.
    pub async fn wait_for_space(&self, need: &NeedSpace) -> Result<(), StorageError> {
        self.wait_for(need, FILE_RESERVE).await
    }

    /// [`Store::wait_for_space`] for a copy that compaction makes.
    pub async fn wait_for_copy(&self, need: &NeedSpace) -> Result<(), StorageError> {
        self.wait_for(need, 0).await
    }

    async fn wait_for(&self, need: &NeedSpace, reserve: u64) -> Result<(), StorageError> {
        loop {
            let woken = self.log.space.notified();
            let mut woken = std::pin::pin!(woken);
            // Registered before the check: a wake between check and await is not lost.
            woken.as_mut().enable();
            match need.reason {
                NeedReason::ValueTooLarge { max } => return Err(ValueTooLarge { bytes: need.bytes, max }.into()),
                NeedReason::BurstTooLarge { max } => return Err(BurstTooLarge { bytes: need.bytes, max }.into()),
                NeedReason::ObjectFile => {
                    let extents = &self.log.objects.extents;
                    if extents.has_room(padded(need.bytes)) {
                        return Ok(());
                    }
                    if extents.refusal.is_refused() {
                        return Err(extents.refusal.error());
                    }
                    // Others may have taken what the file grew by: it has to grow again.
                    extents.wants(padded(need.bytes));
                }
                NeedReason::ObjectMemory => {
                    if self.log.has_object_room(need.bytes) {
                        return Ok(());
                    }
                    if let Some(message) = self.log.failing.lock().clone() {
                        return Err(StorageError::Failed { message, stack: StackTrace::capture() });
                    }
                }
                NeedReason::ObjectUnwritten { id } => {
                    if !self.log.objects.is_unwritten(id) {
                        return Ok(());
                    }
                    if let Some(message) = self.log.failing.lock().clone() {
                        return Err(StorageError::Failed { message, stack: StackTrace::capture() });
                    }
                }
                NeedReason::ObjectShared { id } => {
                    if !self.log.objects.is_shared(id) {
                        return Ok(());
                    }
                    if let Some(message) = self.log.failing.lock().clone() {
                        return Err(StorageError::Failed { message, stack: StackTrace::capture() });
                    }
                }
                _ if self.log.has_room(need, reserve) => return Ok(()),
                // By now it may be memory that lacks.
                NeedReason::LogFile if self.log.is_refused() && self.log.lacks_file_space(need, reserve) => {
                    return Err(self.log.refusal.error());
                }
                NeedReason::Memory => {
                    if let Some(message) = self.log.failing.lock().clone() {
                        return Err(StorageError::Failed { message, stack: StackTrace::capture() });
                    }
                    // Memory may be short because the page after it has no place in the file.
                    if self.log.is_refused() && self.log.lacks_file_space(need, reserve) {
                        return Err(self.log.refusal.error());
                    }
                }
                NeedReason::LogFile => {}
                NeedReason::AofFile => {
                    debug_assert!(false, "the AOF waits for its own space");
                    return Ok(());
                }
            }
            self.log.work.notify_one();
            woken.await;
        }
    }

    /// Bounds the memory of the log's pages, from now on: the regions shrink, or grow again up to their configured sizes. One
    /// page stays mutable in any case, and two more may be on their way to the file.
    pub fn set_page_budget(&self, bytes: u64) {
        self.log.fit(bytes, &self.epochs);
    }

    /// Gives back the memory of flushed pages that is kept for new ones.
    pub fn purge(&self) {
        self.log.purge();
    }

    /// Whether the address lies in a page that compaction could not read and has left.
    pub fn is_left_behind(&self, address: Address) -> bool {
        self.log.quarantine.has(address)
    }

    pub fn stats(&self) -> StoreStats {
        let log = &self.log;
        let (head, read_only, tail) =
            (log.regions.head(), log.regions.read_only(), log.regions.tail.load(Ordering::Acquire));
        let (index_bytes, page_bytes) =
            (self.index.bytes() + self.discarded_bytes.load(Ordering::Relaxed), log.bytes());
        let (object_bytes, extents) = (log.objects.bytes(), log.objects.extents.stats());
        let (objects_freeing, freeing_bytes) = log.objects.remains.waiting();
        let punched = log.punched.load(Ordering::Relaxed);
        StoreStats {
            begin: log.regions.begin(),
            head,
            read_only,
            tail,
            // The safe one first: it never passes the current one.
            safe_epoch: self.epochs.safe(),
            epoch: self.epochs.current(),
            mutable_bytes: tail.saturating_sub(read_only),
            read_only_bytes: read_only.saturating_sub(head),
            disk_bytes: head - log.regions.begin() + log.quarantine.bytes_below(log.regions.begin()),
            index_buckets: self.index.len(),
            index_overflow_buckets: self.index.overflow_len(),
            index_longest_chain: self.index.longest_chain(),
            index_entries: self.index.entries(),
            index_bytes,
            imaging_bytes: self.imaging.bytes(),
            page_bytes,
            object_bytes,
            objects_freeing,
            freeing_bytes,
            objects_freed: log.objects.remains.freed(),
            extents: extents.extents,
            extent_bytes: extents.used_bytes,
            extents_in_limbo: extents.in_limbo,
            extent_limbo_bytes: extents.limbo_bytes,
            extent_file_bytes: extents.file_bytes,
            extent_free_bytes: extents.free_bytes,
            memory_bytes: index_bytes + page_bytes + object_bytes + freeing_bytes,
            pages_flushed: self.counters.pages_flushed.load(Ordering::Relaxed),
            bytes_flushed: self.counters.bytes_flushed.load(Ordering::Relaxed),
            pages_in_flight: self.counters.pages_in_flight.load(Ordering::Relaxed),
            flush_bytes: self.counters.flush_bytes.load(Ordering::Relaxed),
            flush_errors: self.counters.flush_errors.load(Ordering::Relaxed),
            disk_reads: self.counters.disk_reads.load(Ordering::Relaxed),
            object_reads: self.counters.object_reads.load(Ordering::Relaxed),
            checksum_errors: self.counters.checksum_errors.load(Ordering::Relaxed),
            quarantined_pages: log.quarantine.count(),
            quarantined_bytes: log.quarantine.bytes_below(Address::MAX),
            left_bytes: log.quarantine.bytes_below(log.regions.begin()),
            file_bytes: tail.saturating_sub(punched)
                + log.quarantine.bytes_below(punched)
                + log.quarantine.freed_below(punched),
            disk_full: log.refusal.is_full(),
            disk_failing: log.refusal.is_failing() || log.objects.extents.refusal.is_failing(),
        }
    }
}

/// A worker's way to the store, on the thread that asked for it.
pub struct WorkerHandle {
    store: Arc<Store>,
    id: usize,
    own: Own,
    participant: Participant,
}

impl WorkerHandle {
    /// Pins the epoch for a batch of commands. Waits, spinning, while another worker is in the exclusive mode.
    ///
    /// # Panics
    /// If the worker is pinned already.
    #[inline]
    pub fn pin(&self) -> Pinned<'_> {
        assert!(!self.own.pinned.replace(true), "worker {} is pinned already", self.id);
        Pinned::enter(&self.store, self.id, &self.own, self.participant.pin())
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// What the access clock of records written or touched from now on tells: `now_s` is Unix time in seconds.
    #[inline]
    pub fn set_access_clock(&self, now_s: u32, mode: AccessMode) {
        self.own.access.set(now_s, mode);
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        self.store.claimed[self.id].store(false, Ordering::Release);
    }
}
