//! The log's memory: allocation at the tail, opening of pages, and the budgets that make a write wait.

use crate::address::{Address, FIRST_ADDRESS, Paging, page_in};
use crate::epoch::EpochTable;
use crate::frames::{Frames, Owner};
use crate::memory::{Memory, Supplied, Supply};
use crate::objects::Objects;
use crate::page_budget::PageBudget;
use crate::quarantine::Quarantine;
use crate::record::{HEADER, LONG_KEY, Raw};
use crate::refusal::Refusal;
use crate::regions::Regions;
use crate::space::{NeedReason, NeedSpace, ValueTooLarge};
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering};
use std::cell::Cell;
use std::sync::Arc;
use tokio::sync::Notify;

/// File pages that are known to exist when there is no device at all.
pub(crate) const NO_DEVICE: u64 = u64::MAX;

/// The longest record, whatever the size of pages: what does not fit into the rest of a page leaves it unused, and space in
/// the log is not given back before the space of an extent is.
pub(crate) const RECORD_MAX: usize = 1 << 20;
/// From so many bytes on a collection is an object.
pub(crate) const COLLECTION_MIN: usize = 4096;

/// Pages are made ahead from so many on: before, a page that nobody uses yet would be much of what there is.
const AHEAD_FROM: usize = 32;

/// Pages of file space that ordinary writers leave: with them the log can be compacted on a full disk.
pub(crate) const FILE_RESERVE: u64 = 2;

/// The longest value: more than any machine holds, and every length below it can be added up.
const VALUE_MAX: usize = 1 << 40;

pub(crate) struct Log {
    pub(crate) paging: Paging,
    /// What the records do not hold themselves.
    pub(crate) objects: Objects,
    /// The longest record.
    inline_bytes: usize,
    pub(crate) regions: Regions,
    pub(crate) budget: PageBudget,
    frames: Frames,
    opener: Mutex<Opener>,
    /// Makes memory for pages.
    supply: Supply,
    /// Anonymous pages: mutable, on their way to the file, or waiting for an epoch to be freed.
    anonymous: AtomicUsize,
    /// Pages served from a map.
    mapped: AtomicUsize,
    /// Pages below this are in the file.
    pub(crate) flushed: AtomicU64,
    /// The epoch that became safe before `safe_read_only` moved the last time.
    pub(crate) sealed_epoch: AtomicU64,
    /// Names the log file: what its header says.
    pub(crate) id: AtomicU64,
    /// The sizes that its pages have had, each from an address on: a restart may bring another.
    pub(crate) eras: Mutex<Vec<(Address, u64)>>,
    /// A record on disk lies within a page of this size.
    largest_page: AtomicU64,
    /// Pages below this have left memory and their frames are free.
    released: AtomicU64,
    /// Pages below this have space in the file.
    pub(crate) file_pages: AtomicU64,
    /// The file has no space below this address: see [`crate::compaction`].
    pub(crate) punched: AtomicU64,
    /// No key has a record below this address: all were forgotten when it was the tail.
    pub(crate) forgotten: AtomicU64,
    /// Pages that compaction has left behind, since it cannot read them.
    pub(crate) quarantine: Quarantine,
    /// Pages below this are asked for by writers.
    pub(crate) wanted_pages: AtomicU64,
    /// How the last attempt to reserve file space failed.
    pub(crate) refusal: Refusal,
    /// Space was given back since, and whether there is some again is not known yet.
    pub(crate) given_back: AtomicBool,
    /// How the last write of a page failed, until one succeeds.
    pub(crate) failing: Mutex<Option<String>>,
    /// Wakes the flush task.
    pub(crate) work: Notify,
    /// Wakes those who wait for space.
    pub(crate) space: Notify,
}

struct Opener {
    /// The page that was opened last in memory that nobody had touched, if none was opened since.
    untouched: Option<u64>,
    /// Pages promised by [`Log::promise`] and not opened yet.
    promised: usize,
    /// Memory of flushed pages, to be used again: saves the kernel clearing it.
    spare: Vec<Memory>,
}

impl Log {
    pub(crate) fn new(page_size: usize, mutable_pages: usize, read_only_pages: usize, objects: Objects) -> Arc<Self> {
        assert!(page_size.is_power_of_two() && page_size >= 4096, "page_size is a power of two of at least 4096");
        let budget = PageBudget::new(mutable_pages, read_only_pages);
        // Room for a burst of one command's writes beyond the budget: see `burst_pages`.
        let frames = (Self::burst(mutable_pages) + budget.total_max() + 2).next_power_of_two();
        let paging = Paging::new(page_size);
        let log = Arc::new(Self {
            paging,
            inline_bytes: page_size.min(RECORD_MAX),
            objects,
            regions: Regions::new(FIRST_ADDRESS, FIRST_ADDRESS),
            budget,
            frames: Frames::new(frames),
            opener: Mutex::new(Opener { untouched: Some(0), promised: 0, spare: Vec::new() }),
            supply: Supply::new(page_size),
            anonymous: AtomicUsize::new(1),
            mapped: AtomicUsize::new(0),
            flushed: AtomicU64::new(0),
            sealed_epoch: AtomicU64::new(0),
            id: AtomicU64::new(0),
            eras: Mutex::new(vec![(0, page_size as u64)]),
            largest_page: AtomicU64::new(page_size as u64),
            released: AtomicU64::new(0),
            file_pages: AtomicU64::new(NO_DEVICE),
            punched: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
            quarantine: Quarantine::default(),
            wanted_pages: AtomicU64::new(0),
            refusal: Refusal::default(),
            given_back: AtomicBool::new(false),
            failing: Mutex::new(None),
            work: Notify::new(),
            space: Notify::new(),
        });
        log.frames.replace(0, Owner::Anonymous(Memory::zeroed(page_size)));
        log
    }

    /// Has memory for pages made ahead, there.
    pub(crate) fn make_ahead(&self, elsewhere: ferrite_io::Elsewhere) {
        self.supply.make_ahead(elsewhere);
    }

    /// Pages one command may write at once, whatever the budget.
    const fn burst(mutable_pages: usize) -> usize {
        if mutable_pages > 16 { 4 * mutable_pages } else { 64 }
    }

    /// The largest value that lies in a record beside a key of `key_len` bytes.
    #[inline]
    pub(crate) fn inline_max(&self, key_len: usize) -> usize {
        if self.is_long(key_len) { 0 } else { self.inline_bytes - HEADER - key_len }
    }

    /// Whether a value of `len` bytes lies in the record, its key too.
    #[inline]
    pub(crate) fn is_inline(&self, key_len: usize, len: usize) -> bool {
        HEADER + key_len + len <= self.inline_bytes && !self.is_long(key_len)
    }

    /// No smaller value becomes an object.
    pub(crate) fn object_min(&self) -> usize {
        COLLECTION_MIN.min(self.inline_bytes / 4)
    }

    /// The longest record, with or without slack.
    pub(crate) fn record_max(&self) -> usize {
        self.inline_bytes
    }

    /// Whether a record has the digest of such a key alone. That a key is long does not depend on its value.
    #[inline]
    pub(crate) fn is_long(&self, key_len: usize) -> bool {
        key_len > self.inline_bytes / 2
    }

    /// The record's first byte.
    ///
    /// # Safety
    /// The caller is pinned, and found `address ≥ head` since it was.
    #[inline]
    pub(crate) unsafe fn at(&self, address: Address) -> Raw {
        let base = self.frames.base(self.paging.page(address));
        debug_assert!(!base.is_null(), "address {address:#x} is not in memory");
        // SAFETY: the page is in memory while the caller is pinned, and the offset lies inside it.
        unsafe { Raw::new(base.add(self.paging.offset(address))) }
    }

    /// Takes `size` bytes at the tail. `promised` are pages the caller may open come what may. The caller is
    /// pinned, and writes the record before it leaves.
    #[inline]
    pub(crate) fn allocate(
        self: &Arc<Self>,
        size: usize,
        promised: &Cell<usize>,
        epochs: &EpochTable,
    ) -> Result<Address, NeedSpace> {
        debug_assert!(size <= self.paging.size());
        let mut tail = self.regions.tail.load(Ordering::Acquire);
        while self.fits_open_page(tail, size) {
            match self.regions.tail.compare_exchange_weak(tail, tail + size as u64, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Ok(tail),
                Err(moved) => tail = moved,
            }
        }
        self.allocate_in_next_page(size, size, promised, FILE_RESERVE, epochs)
    }

    /// [`Log::allocate`] for a record that lets an old page go: with file space that other writers leave alone.
    pub(crate) fn allocate_from_reserve(
        self: &Arc<Self>,
        size: usize,
        epochs: &EpochTable,
    ) -> Result<Address, NeedSpace> {
        let mut tail = self.regions.tail.load(Ordering::Acquire);
        while self.fits_open_page(tail, size) {
            match self.move_tail(tail, tail + size as u64) {
                true => return Ok(tail),
                false => tail = self.regions.tail.load(Ordering::Acquire),
            }
        }
        self.allocate_in_next_page(size, size, &Cell::new(0), 0, epochs)
    }

    /// [`Log::allocate`] for the record of an object of `bytes`. What the objects of a page weigh goes with the page: so the
    /// page is left early if it is enough.
    pub(crate) fn allocate_for_object(
        self: &Arc<Self>,
        size: usize,
        bytes: usize,
        promised: &Cell<usize>,
        epochs: &EpochTable,
    ) -> Result<Address, NeedSpace> {
        let page = self.paging.page(self.regions.tail.load(Ordering::Acquire));
        let in_page = self.objects.bytes_in(page..=page);
        if in_page > 0 && in_page + bytes > self.objects_of_page() {
            return self.allocate_in_next_page(size, self.paging.size(), promised, FILE_RESERVE, epochs);
        }
        self.allocate(size, promised, epochs)
    }

    /// Bytes of objects that a page may have before the next object goes to the next one: what that leaves unused of the log
    /// is an eighth of what the objects take.
    fn objects_of_page(&self) -> usize {
        (self.budget.mutable() * self.paging.size() / 8).max(self.paging.size())
    }

    /// Whether an object of `bytes` may come into memory beside those that wait for the flush.
    pub(crate) fn has_object_room(&self, bytes: usize) -> bool {
        let unwritten = self.objects.unwritten_bytes();
        if unwritten + bytes <= self.budget.anonymous() * self.paging.size() {
            return true;
        }
        let mutable = self.paging.page(self.regions.read_only())..=self.next_page();
        // What never fits the budget may exceed it once everything that can be flushed is.
        unwritten <= self.objects.bytes_in(mutable)
    }

    /// The first of the pages up to `last` that weigh no more than `budget` pages, their objects included; at least `last`
    /// is one of them.
    pub(crate) fn first_within(&self, budget: usize, last: u64) -> u64 {
        let by_count = (last + 1).saturating_sub(budget as u64);
        if self.objects.bytes() == 0 {
            return by_count;
        }
        let size = self.paging.size();
        let mut left = budget * size;
        let mut first = last + 1;
        while first > by_count {
            let weight = size + self.objects.bytes_in(first - 1..=first - 1);
            if weight > left {
                break;
            }
            left -= weight;
            first -= 1;
        }
        first
    }

    /// A tail at offset 0 is the start of a page that is not open yet.
    #[inline]
    fn fits_open_page(&self, tail: Address, size: usize) -> bool {
        let offset = self.paging.offset(tail);
        offset != 0 && offset + size <= self.paging.size()
    }

    #[cold]
    fn allocate_in_next_page(
        self: &Arc<Self>,
        size: usize,
        // What the open page must have left to be used after all.
        enough: usize,
        promised: &Cell<usize>,
        // Pages of file space that are to be left.
        reserve: u64,
        epochs: &EpochTable,
    ) -> Result<Address, NeedSpace> {
        let mut opener = self.opener.lock();
        let mut installed = false;
        loop {
            let tail = self.regions.tail.load(Ordering::Acquire);
            if self.fits_open_page(tail, enough) {
                // Another worker opened the page while we waited for the lock.
                debug_assert!(!installed);
                if self.move_tail(tail, tail + size as u64) {
                    return Ok(tail);
                }
                continue;
            }
            let offset = self.paging.offset(tail);
            let page = self.paging.page(tail) + u64::from(offset != 0);
            if !installed {
                if promised.get() > 0 {
                    promised.set(promised.get() - 1);
                    opener.promised -= 1;
                } else {
                    self.room(page, 1, opener.promised, reserve)?;
                }
                let memory = self.memory_for(page, &mut opener);
                let before = self.frames.replace(page, Owner::Anonymous(memory));
                debug_assert!(matches!(before, Owner::Nothing), "frame of page {page} is in use");
                installed = true;
            }
            let start = self.paging.start(page);
            // Only smaller records can slip in before us, so the page to open stays the same.
            if self.move_tail(tail, start + size as u64) {
                if offset != 0 {
                    // SAFETY: the rest of the old page is ours: nobody else can get it from the tail any more, and
                    // we are pinned since before, so the page is still there and unsealed.
                    unsafe { self.at(tail).write_filler() };
                }
                drop(opener);
                self.shift_read_only(page, epochs);
                return Ok(start);
            }
        }
    }

    fn memory_for(&self, page: u64, opener: &mut Opener) -> Memory {
        let anonymous = self.anonymous.fetch_add(1, Ordering::Relaxed) + 1;
        opener.untouched = None;
        if let Some(memory) = opener.spare.pop() {
            return memory;
        }
        let Supplied { memory, touched } = self.supply.take();
        if !touched {
            opener.untouched = Some(page);
        }
        // Beyond the budget pages take the memory of those that leave.
        if (AHEAD_FROM..self.budget.anonymous()).contains(&anonymous) {
            self.supply.ask();
        }
        memory
    }

    fn move_tail(&self, from: Address, to: Address) -> bool {
        self.regions.tail.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Keeps as many pages up to `last` mutable as the budget has.
    fn shift_read_only(self: &Arc<Self>, last: u64, epochs: &EpochTable) {
        // The page at the tail is mutable, whatever it weighs.
        let first = self.first_within(self.budget.mutable(), last).min(last);
        self.shift_read_only_to(self.paging.start(first), epochs);
    }

    /// Closes the page at the tail, so that no record below the tail changes any more, and all of them will be flushed.
    /// Returns the tail, where a page begins. Exclusive mode only.
    pub(crate) fn fold_over(self: &Arc<Self>, epochs: &EpochTable) -> Address {
        let tail = self.regions.tail.load(Ordering::Acquire);
        if self.paging.offset(tail) == 0 {
            self.shift_read_only_to(tail, epochs);
            return tail;
        }
        // SAFETY: the rest of the page is ours: everybody else is out of its batch, and we are pinned, so the page is
        // still there and unsealed.
        unsafe { self.at(tail).write_filler() };
        let cut = self.paging.start(self.paging.page(tail) + 1);
        self.regions.tail.store(cut, Ordering::Release);
        self.shift_read_only_to(cut, epochs);
        cut
    }

    /// The log, which begins at `begin`, goes on behind `tail`, below which everything is on disk. Returns where. Only while
    /// nobody else uses it.
    pub(crate) fn restore(&self, begin: Address, tail: Address, eras: &[(Address, u64)]) -> Address {
        let page_size = self.paging.size() as u64;
        let to = tail.next_multiple_of(page_size);
        let page = self.paging.page(to);
        let mut known = self.eras.lock();
        *known = eras.to_vec();
        if known.last().is_none_or(|&(_, size)| size != page_size) {
            known.push((to, page_size));
        }
        let largest = known.iter().map(|&(_, size)| size).max().unwrap_or(page_size);
        drop(known);
        self.largest_page.store(largest, Ordering::Release);
        drop(self.frames.replace(0, Owner::Nothing));
        self.opener.lock().untouched = None;
        self.anonymous.store(0, Ordering::Release);
        self.released.store(page, Ordering::Release);
        self.flushed.store(page, Ordering::Release);
        self.regions.restore(begin, to);
        to
    }

    /// Where the page of an address on disk ends; and whether nothing at all may lie in the page: after a restart with larger
    /// pages the log goes on at the beginning of one.
    pub(crate) fn page_on_disk(&self, address: Address) -> (Address, bool) {
        page_in(&self.eras.lock(), address)
    }

    /// The page on disk around an address: where it begins and ends.
    pub(crate) fn page_around(&self, address: Address) -> (Address, Address) {
        let eras = self.eras.lock();
        let (end, _) = page_in(&eras, address);
        let next = eras.partition_point(|&(from, _)| from <= address);
        (end - eras[next.saturating_sub(1)].1, end)
    }

    /// The lowest address that anything is asked for at.
    pub(crate) fn lowest(&self) -> Address {
        let begin = self.regions.begin();
        self.quarantine.lowest().map_or(begin, |page| page.min(begin))
    }

    /// The page sizes of what lies at `begin` and above.
    pub(crate) fn eras_from(&self, begin: Address) -> Vec<(Address, u64)> {
        let eras = self.eras.lock();
        let first = eras.partition_point(|&(from, _)| from <= begin).saturating_sub(1);
        let mut rest = eras[first..].to_vec();
        rest[0].0 = rest[0].0.max(begin);
        rest
    }

    /// Bytes from an address on disk to where its page ends at the latest.
    pub(crate) fn room_on_disk(&self, address: Address) -> usize {
        let size = self.largest_page.load(Ordering::Relaxed);
        (size - (address & (size - 1))) as usize
    }

    fn shift_read_only_to(self: &Arc<Self>, to: Address, epochs: &EpochTable) {
        if let Some(epoch) = self.regions.shift_read_only(to, epochs) {
            let log = self.clone();
            epochs.defer(epoch, move || {
                log.sealed_epoch.fetch_max(epoch, Ordering::AcqRel);
                log.regions.read_only_is_safe(to);
                log.work.notify_one();
            });
        }
        self.work.notify_one();
    }

    /// May `pages` pages from `page` on be opened, besides `promised` ones, if `reserve` more are to be left in the file?
    fn room(&self, page: u64, pages: usize, promised: usize, reserve: u64) -> Result<(), NeedSpace> {
        let bytes = pages * self.paging.size();
        let need = |reason| Err(NeedSpace { reason, bytes });
        let total = pages + promised;
        let end = page + total as u64;
        if end > self.file_pages.load(Ordering::Acquire).saturating_sub(reserve) {
            self.wanted_pages.fetch_max(end + reserve, Ordering::AcqRel);
            return need(NeedReason::LogFile);
        }
        if end - self.released.load(Ordering::Acquire) > self.frames.len() as u64 {
            return need(NeedReason::Memory);
        }
        let anonymous = self.anonymous.load(Ordering::Acquire);
        // What never fits the budget may exceed it once everything that can be flushed is.
        let burst = pages > self.budget.in_flight() && promised == 0 && anonymous <= self.budget.mutable();
        if anonymous + total <= self.budget.anonymous() || burst { Ok(()) } else { need(NeedReason::Memory) }
    }

    /// More than half of the pages are taken that may be on their way to the file: soon writers will wait for one.
    pub(crate) fn flush_is_behind(&self) -> bool {
        let on_their_way = self.anonymous.load(Ordering::Acquire).saturating_sub(self.budget.mutable());
        2 * on_their_way > self.budget.in_flight()
    }

    pub(crate) fn next_page(&self) -> u64 {
        let tail = self.regions.tail.load(Ordering::Acquire);
        self.paging.page(tail) + u64::from(self.paging.offset(tail) != 0)
    }

    /// True if what `need` says would not be said again.
    pub(crate) fn has_room(&self, need: &NeedSpace, reserve: u64) -> bool {
        let opener = self.opener.lock();
        self.room(self.next_page(), need.bytes.div_ceil(self.paging.size()), opener.promised, reserve).is_ok()
    }

    /// The bytes of records, headers included, that one command may write.
    pub(crate) fn burst_bytes(&self) -> usize {
        // The inverse of what `promise` makes of bytes.
        Self::burst(self.budget.mutable_max()).div_ceil(2) * self.paging.size()
    }

    /// Promises that records of `bytes` in all, headers included, at most [`Log::burst_bytes`], can be appended. Returns
    /// the pages promised.
    pub(crate) fn promise(&self, bytes: usize) -> Result<usize, NeedSpace> {
        debug_assert!(bytes <= self.burst_bytes());
        let mut opener = self.opener.lock();
        let tail = self.regions.tail.load(Ordering::Acquire);
        if self.fits_open_page(tail, bytes) {
            return Ok(0);
        }
        // Any two neighbouring pages hold together more than one page of records, or the second would not be.
        let pages = (2 * bytes.div_ceil(self.paging.size())).saturating_sub(1);
        self.room(self.next_page(), pages, opener.promised, FILE_RESERVE)?;
        opener.promised += pages;
        Ok(pages)
    }

    pub(crate) fn release_promise(&self, pages: usize) {
        self.opener.lock().promised -= pages;
        self.space.notify_waiters();
    }

    /// The bytes of a sealed page.
    ///
    /// # Safety
    /// The page lies below `safe_read_only` and has not left memory; it stays while the slice is used.
    pub(crate) unsafe fn sealed_bytes(&self, page: u64) -> &[u8] {
        debug_assert!(self.paging.start(page + 1) <= self.regions.safe_read_only(), "page {page} may still be written");
        // SAFETY: the caller's contract; nobody writes below safe_read_only.
        unsafe { std::slice::from_raw_parts(self.frames.base(page), self.paging.size()) }
    }

    /// Serves a flushed page from `map`; its memory is freed once no batch can be reading it.
    pub(crate) fn map_page(self: &Arc<Self>, page: u64, map: Box<dyn AsRef<[u8]> + Send + Sync>, epochs: &EpochTable) {
        debug_assert_eq!(map.as_ref().as_ref().len(), self.paging.size());
        let old = self.frames.replace(page, Owner::Mapped(map));
        self.mapped.fetch_add(1, Ordering::Relaxed);
        let log = self.clone();
        epochs.defer(epochs.bump(), move || log.recycle(old));
    }

    fn recycle(&self, owner: Owner) {
        match owner {
            Owner::Anonymous(memory) => {
                let mut opener = self.opener.lock();
                if opener.spare.len() < self.budget.in_flight() {
                    opener.spare.push(memory);
                }
                drop(opener);
                self.anonymous.fetch_sub(1, Ordering::Release);
            }
            Owner::Mapped(map) => {
                drop(map);
                self.mapped.fetch_sub(1, Ordering::Relaxed);
            }
            Owner::Nothing => {}
        }
        self.space.notify_waiters();
        self.work.notify_one();
    }

    /// Pages below this are beyond the budget of both regions in memory. Counted from the tail: where a checkpoint has closed
    /// the mutable region, what it held is read-only and stays as long as it would have.
    pub(crate) fn surplus(&self) -> u64 {
        let budget = self.budget.mutable() + self.budget.read_only();
        self.next_page().checked_sub(1).map_or(0, |last| self.first_within(budget, last))
    }

    /// Takes the pages below `to`, all flushed, out of memory once no batch can be reading them.
    pub(crate) fn evict_below(self: &Arc<Self>, to: u64, epochs: &EpochTable) {
        let from = self.paging.page(self.regions.head());
        if let Some(epoch) = self.regions.shift_head(self.paging.start(to), epochs) {
            let log = self.clone();
            epochs.defer(epoch, move || {
                for page in from..to {
                    let owner = log.frames.replace(page, Owner::Nothing);
                    log.objects.page_left(page);
                    log.objects.moved.forget(log.paging.start(page)..log.paging.start(page + 1));
                    log.recycle(owner);
                }
                log.released.fetch_max(to, Ordering::AcqRel);
                log.space.notify_waiters();
                log.work.notify_one();
            });
        }
    }

    pub(crate) fn lacks_file_space(&self, need: &NeedSpace, reserve: u64) -> bool {
        let opener = self.opener.lock();
        let pages = need.bytes.div_ceil(self.paging.size()) + opener.promised;
        self.next_page() + pages as u64 > self.file_pages.load(Ordering::Acquire).saturating_sub(reserve)
    }

    /// Whoever needs more of the file is refused.
    pub(crate) fn is_refused(&self) -> bool {
        self.refusal.is_refused() && !self.given_back.load(Ordering::Acquire)
    }

    pub(crate) fn released(&self) -> u64 {
        self.released.load(Ordering::Acquire)
    }

    /// Bytes of all pages in memory, mapped and spare ones included; what nobody has touched yet of the last one is not
    /// there.
    pub(crate) fn bytes(&self) -> usize {
        let opener = self.opener.lock();
        let pages = self.anonymous.load(Ordering::Relaxed) + self.mapped.load(Ordering::Relaxed) + opener.spare.len();
        let tail = self.regions.tail.load(Ordering::Acquire);
        // At offset 0 the tail is that of a page to come.
        let untouched = match opener.untouched == Some(self.paging.page(tail)) {
            true => self.paging.size() - self.paging.offset(tail),
            false => 0,
        };
        pages * self.paging.size() - untouched + self.supply.bytes()
    }

    /// Makes the regions as small as memory of `bytes` needs, or as large as it allows, up to what is configured. What is
    /// beyond leaves as it would have later.
    pub(crate) fn fit(self: &Arc<Self>, bytes: u64, epochs: &EpochTable) {
        if self.budget.fit(usize::try_from(bytes / self.paging.size() as u64).unwrap_or(usize::MAX)) {
            self.shift_read_only(self.next_page() - 1, epochs);
            self.purge();
            // There may be room for who waits.
            self.space.notify_waiters();
        }
    }

    /// Frees spare pages.
    pub(crate) fn purge(&self) {
        // Out of the lock: whoever opens a page waits for it.
        let spare = std::mem::take(&mut self.opener.lock().spare);
        drop((spare, self.supply.purge()));
    }

    /// Brings a record's first line closer, if it is in memory. A hint: unlatched.
    #[inline]
    pub(crate) fn prefetch(&self, address: Address) {
        if address >= self.regions.head() {
            let base = self.frames.base(self.paging.page(address));
            crate::index::prefetch(base.wrapping_add(self.paging.offset(address)));
        }
    }

    /// [`ValueTooLarge`] if no record can have such a key or such a value.
    #[inline]
    pub(crate) fn check_value(&self, key_len: usize, bytes: usize) -> Result<(), ValueTooLarge> {
        // The top bit of a record's word for the key's length is taken.
        let max = if key_len < LONG_KEY as usize { VALUE_MAX } else { 0 };
        if bytes > max || max == 0 { Err(ValueTooLarge { bytes, max }) } else { Ok(()) }
    }
}
