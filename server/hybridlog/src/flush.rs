//! The log's background work: file space ahead of the tail, sealed pages to the file, flushed pages out
//! of memory.
//!
//! A page's way: `read_only` passes it (the worker that opens a page moves it) → every batch that may still write it
//! has ended (`safe_read_only`) → copied, sealed with checksums and written piece by piece → served from a map of the file → `head`
//! passes it → every batch that may still read it has ended → unmapped, dropped from the page cache.

use crate::address::{FILE_HEADER, FIRST_ADDRESS, file_offset};
use crate::device::LogFiles;
use crate::flush_run::{FlushRun, OnRun, PageReport, Runs};
use crate::log::Log;
use crate::objects::{EXTENT_HEADER, ExtentReserve, write_page_objects};
use crate::page_image::{PIECE, PageImage};
use crate::space::StorageError;
use crate::store::Store;
use crate::sync::Ordering;
use ferrite_io::{AlignedBuf, BLOCK, Clock, Disk, Entropy, File, World, give_way};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

type DeviceFile<W> = <<W as World>::Disk as Disk>::File;

/// File space is reserved this many pages ahead of the tail.
pub(crate) const PAGES_AHEAD: u64 = 8;
/// Pages being written at the same time.
pub(crate) const IN_FLIGHT_MAX: usize = 4;
/// Wait after a failed write or reservation: the first and, doubling, the longest.
pub(crate) const RETRY_MIN: Duration = Duration::from_millis(10);
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(1);
/// The worker serves others between two pieces that are compared, for so long while writers have the memory that they need.
const REST: Duration = Duration::from_millis(1);

/// How a log file begins.
pub(crate) const LOG_MAGIC: [u8; 8] = *b"FERRLOG\0";
/// How a file of extents begins.
pub(crate) const EXTENTS_MAGIC: [u8; 8] = *b"FERREXT\0";
pub(crate) const VERSION: u32 = 4;

/// A file's first block: magic (8), version (4), page size (4), checksum of the rest (4), zeros (4), the file's own number (8);
/// then zeros.
fn file_header(magic: [u8; 8], page_size: usize, id: u64) -> AlignedBuf {
    let mut header = AlignedBuf::zeroed(FILE_HEADER as usize);
    header[..8].copy_from_slice(&magic);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&(page_size as u32).to_le_bytes());
    header[24..32].copy_from_slice(&id.to_le_bytes());
    let sum = header_sum(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    header
}

fn header_sum(header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..16]), &header[20..32])
}

/// The number of the log file, or file of extents, that begins with these bytes, or what is wrong with them.
pub(crate) fn check_file_header(bytes: &[u8], magic: [u8; 8]) -> Result<u64, String> {
    let Some(header) = bytes.get(..32) else { return Err("it is shorter than its header".to_owned()) };
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    match () {
        () if header[..8] != magic => Err("it does not begin as such a file of Ferrite does".to_owned()),
        () if word(8) != VERSION => {
            Err(format!("it has format version {} and this server reads version {VERSION}", word(8)))
        }
        () if word(16) != header_sum(header) => Err("its header is damaged".to_owned()),
        () => Ok(u64::from(word(24)) | u64::from(word(28)) << 32),
    }
}

/// Makes an empty log file at `path`, whatever was there (nothing that is still named leads into it), with space for the
/// first pages, and an empty file of extents beside it. From here on the store appends only where the files have space, so
/// [`flush_task`] must run.
pub async fn create_log<W: World>(store: &Store, world: &W, path: &Path) -> Result<LogFiles<W>, StorageError> {
    let failed = |error: io::Error| StorageError::of(&error);
    debug_assert_eq!(FILE_HEADER as usize % BLOCK, 0);
    debug_assert_eq!(FILE_HEADER, EXTENT_HEADER);
    let files = LogFiles::open(world, path).await.map_err(failed)?;
    let page_size = store.log.paging.size();
    let id = world.entropy().next_u64();
    files.log.set_len(0).await.map_err(failed)?;
    files.log.write_at(file_header(LOG_MAGIC, page_size, id), 0).await.result.map_err(failed)?;
    store.log.id.store(id, Ordering::Release);
    make_extents(store, world, &files).await.map_err(failed)?;
    sync(&files).await.map_err(failed)?;
    reserve_first(store, &files.log).await.map_err(failed)?;
    Ok(files)
}

/// Opens the log file that a restored checkpoint leads into, without what a process wrote behind the checkpoint, and the file
/// of extents, without what lies behind the last one that a checkpoint names.
pub async fn open_log<W: World>(store: &Store, world: &W, path: &Path) -> Result<LogFiles<W>, StorageError> {
    let failed = |error: io::Error| StorageError::of(&error);
    let files = LogFiles::open(world, path).await.map_err(failed)?;
    let tail = store.log.regions.read_only();
    files.log.set_len(file_offset(tail)).await.map_err(failed)?;
    let extents = &store.log.objects.extents;
    let high = extents.high();
    files.extents.set_len(high).await.map_err(failed)?;
    extents.set_end(high);
    sync(&files).await.map_err(failed)?;
    reserve_first(store, &files.log).await.map_err(failed)?;
    Ok(files)
}

/// What a process before has written at addresses that are given again is gone, also for a disk that shows what was durable
/// instead of what was written since: a record's checksum does not tell them apart.
async fn sync<W: World>(files: &LogFiles<W>) -> io::Result<()> {
    files.log.sync().await?;
    files.extents.sync().await
}

async fn make_extents<W: World>(store: &Store, world: &W, files: &LogFiles<W>) -> io::Result<()> {
    let (id, page_size) = (world.entropy().next_u64(), store.log.paging.size());
    files.extents.set_len(0).await?;
    files.extents.write_at(file_header(EXTENTS_MAGIC, page_size, id), 0).await.result?;
    store.log.objects.file_id.store(id, Ordering::Release);
    store.log.objects.extents.set_end(EXTENT_HEADER);
    Ok(())
}

async fn reserve_first<F: File>(store: &Store, file: &F) -> io::Result<()> {
    let (first, size) = (store.log.released(), store.log.paging.size() as u64);
    let pages = store.log.next_page() + PAGES_AHEAD;
    file.allocate(FILE_HEADER + first * size, (pages - first) * size).await?;
    store.log.file_pages.store(pages, Ordering::Release);
    Ok(())
}

/// Runs for as long as the worker does; `files` are what [`create_log`] or [`open_log`] gave. `on_run` hears of each run
/// that has ended.
pub async fn flush_task<W: World>(
    store: Arc<Store>,
    world: W,
    files: LogFiles<W>,
    on_run: impl Fn(FlushRun) + 'static,
) {
    let on_run: OnRun = Rc::new(on_run);
    let progress = Rc::new(RefCell::new(Progress::from(store.log.released())));
    let (mut reserve, mut extent_reserve) = (Reserve::default(), ExtentReserve::default());
    let file = files.log.clone();
    loop {
        let woken = store.log.work.notified();
        store.epochs.drain();
        reserve.run(&store, &world, &file).await;
        extent_reserve.run(&store, &world, &files.extents).await;
        start_writes(&store, &world, &files, &on_run, &progress);
        evict(&store, &file, &progress);
        woken.await;
    }
}

struct Progress {
    /// The next page to start writing.
    next: u64,
    in_flight: usize,
    /// Written out of order, at or above `flushed`.
    written: BTreeSet<u64>,
    /// Pages below this are in the file.
    flushed: u64,
    /// Pages below this have left the page cache.
    dropped: u64,
    /// What it was before.
    advised: u64,
}

impl Progress {
    /// Nothing at or above page `first` was ever in memory.
    fn from(first: u64) -> Self {
        Self { next: first, in_flight: 0, written: BTreeSet::new(), flushed: first, advised: first, dropped: first }
    }

    fn finish(&mut self, page: u64) {
        self.in_flight -= 1;
        self.written.insert(page);
        while self.written.remove(&self.flushed) {
            self.flushed += 1;
        }
    }
}

/// Starts as many writes as may run.
fn start_writes<W: World>(
    store: &Arc<Store>,
    world: &W,
    files: &LogFiles<W>,
    on_run: &OnRun,
    progress: &Rc<RefCell<Progress>>,
) {
    let mut runs = Runs::new(store, world, on_run);
    let safe = store.log.paging.page(store.log.regions.safe_read_only());
    let mut state = progress.borrow_mut();
    while state.next < safe && state.in_flight < IN_FLIGHT_MAX {
        let page = state.next;
        state.next += 1;
        state.in_flight += 1;
        store.counters.pages_in_flight.fetch_add(1, Ordering::Relaxed);
        let report = runs.page();
        let (store, files, progress) = (store.clone(), files.clone(), progress.clone());
        let task_world = world.clone();
        world.spawn(async move {
            flush_page(&store, &task_world, &files, &report, page).await;
            report.end(&store);
            store.counters.pages_in_flight.fetch_sub(1, Ordering::Relaxed);
            progress.borrow_mut().finish(page);
            store.log.flushed.store(progress.borrow().flushed, Ordering::Release);
            store.log.space.notify_waiters();
            store.log.work.notify_one();
        });
    }
}

/// Writes one page until it is in the file, then serves it from there. The page stays in memory as long as
/// the disk refuses it.
async fn flush_page<W: World>(store: &Arc<Store>, world: &W, files: &LogFiles<W>, report: &PageReport<W>, page: u64) {
    let (log, file) = (&store.log, &files.log);
    let (start, size) = (log.paging.start(page), log.paging.size());
    let from = if page == 0 { FIRST_ADDRESS as usize } else { 0 };
    // SAFETY: below safe_read_only, and it leaves memory only after `Progress::finish`.
    let mut image = PageImage::new(unsafe { log.sealed_bytes(page) }, start, from);
    let mut sums = Vec::with_capacity(size.div_ceil(PIECE));
    let mut buf = AlignedBuf::zeroed(size.min(PIECE));
    let held = buf.len() as u64;
    store.counters.flush_bytes.fetch_add(held, Ordering::Relaxed);
    for at in (0..size).step_by(PIECE) {
        buf.truncate(size - at);
        // Objects first: the page says where they are.
        write_page_objects(store, world, &files.extents, report, &mut image, at + buf.len()).await;
        image.copy(at, &mut buf);
        sums.push(crc32c::crc32c(&buf));
        buf = report.write(store, file, buf, file_offset(start) + at as u64).await;
    }
    drop(buf);
    store.counters.flush_bytes.fetch_sub(held, Ordering::Relaxed);
    match file.map(file_offset(start), size).await {
        Ok(map) if shows(log, world, map.as_ref(), &sums).await => {
            return log.map_page(page, Box::new(map), &store.epochs);
        }
        Ok(_) => {
            store.counters.checksum_errors.fetch_add(1, Ordering::Relaxed);
            tracing::error!(page, "the log file does not show what was written to it; the page is served from memory");
        }
        Err(error) => tracing::warn!(page, %error, "a page of the log file cannot be mapped; it is served from memory"),
    }
    let mut whole = AlignedBuf::zeroed(size);
    image.copy_whole(&mut whole);
    log.map_page(page, Box::new(Copied(whole)), &store.epochs);
}

/// Whether the pieces of `bytes` have these checksums.
async fn shows<W: World>(log: &Log, world: &W, bytes: &[u8], sums: &[u32]) -> bool {
    for (number, (piece, &sum)) in bytes.chunks(PIECE).zip(sums).enumerate() {
        match number {
            0 => {}
            _ if log.flush_is_behind() => give_way().await,
            _ => world.clock().sleep(REST).await,
        }
        if crc32c::crc32c(piece) != sum {
            return false;
        }
    }
    true
}

/// Stands in for a map: the bytes that were written.
struct Copied(AlignedBuf);

impl AsRef<[u8]> for Copied {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Takes flushed pages beyond the budget out of memory, and those that have left out of the page cache.
fn evict<F: File>(store: &Arc<Store>, file: &F, progress: &Rc<RefCell<Progress>>) {
    let log = &store.log;
    let flushed = progress.borrow().flushed;
    log.evict_below(flushed.min(log.surplus()), &store.epochs);
    let mut state = progress.borrow_mut();
    let released = log.released();
    if released > state.dropped {
        // With those of the last time, which were still to be written then.
        let pages = released - state.advised;
        file.drop_cache(file_offset(log.paging.start(state.advised)), pages * log.paging.size() as u64);
        state.advised = std::mem::replace(&mut state.dropped, released);
    }
}

/// Keeps file space reserved ahead of the tail.
#[derive(Default)]
struct Reserve {
    /// Do not try before this time, [`Clock::monotonic_ns`].
    not_before_ns: u64,
    wait: Duration,
    unsupported: bool,
    /// The disk has refused more than a page.
    in_small_steps: bool,
}

impl Reserve {
    async fn run<W: World>(&mut self, store: &Arc<Store>, world: &W, file: &DeviceFile<W>) {
        let log = &store.log;
        let size = log.paging.size() as u64;
        loop {
            let have = log.file_pages.load(Ordering::Acquire);
            let wanted = log.wanted_pages.load(Ordering::Acquire);
            let mut ahead = (log.next_page() + PAGES_AHEAD).max(wanted);
            if self.in_small_steps {
                ahead = have + 1;
            }
            // Half of the reserve used up: fill it. Fewer, larger reservations fragment the file less.
            let needed = wanted > have || log.next_page() + PAGES_AHEAD / 2 > have;
            if !needed {
                self.in_small_steps = false;
                return;
            }
            if !log.given_back.load(Ordering::Acquire) && world.clock().monotonic_ns() < self.not_before_ns {
                return;
            }
            log.given_back.store(false, Ordering::Release);
            let offset = FILE_HEADER + have * size;
            let result = match self.unsupported {
                true => file.set_len(FILE_HEADER + ahead * size).await,
                false => file.allocate(offset, (ahead - have) * size).await,
            };
            match result {
                Ok(()) => {
                    log.file_pages.store(ahead, Ordering::Release);
                    self.wait = Duration::ZERO;
                    if log.refusal.lift() {
                        tracing::info!("the log file can grow again");
                    }
                    log.space.notify_waiters();
                }
                Err(error) if error.kind() == io::ErrorKind::Unsupported && !self.unsupported => {
                    tracing::warn!("the file system cannot reserve space: a full disk will be noticed late");
                    self.unsupported = true;
                }
                // What the disk has left may be less than the usual step: nobody is refused before that is known.
                Err(error) if StorageError::is_full(&error) && !self.in_small_steps => self.in_small_steps = true,
                Err(error) => return self.refused(store, world, &error),
            }
        }
    }

    /// Remembers that there is no space to be had and why, lets waiting writers be refused, and tries again later.
    fn refused<W: World>(&mut self, store: &Arc<Store>, world: &W, error: &io::Error) {
        let log = &store.log;
        if log.refusal.set(error) {
            match StorageError::is_full(error) {
                true => tracing::error!(%error, "no space for the log file: writes that need it are refused"),
                false => {
                    tracing::error!(%error, "the disk fails to reserve space for the log file: writes that need it are refused");
                }
            }
        }
        log.space.notify_waiters();
        self.wait = (self.wait * 2).clamp(RETRY_MIN, RETRY_MAX);
        self.not_before_ns = world.clock().monotonic_ns() + self.wait.as_nanos() as u64;
        flush_again(store, world, self.wait, |_| {});
    }
}

/// Has the flush go round after some time, behind `before`.
pub(crate) fn flush_again<W: World>(store: &Arc<Store>, world: &W, after: Duration, before: fn(&Store)) {
    let (clock, store) = (world.clock().clone(), Arc::downgrade(store));
    world.spawn(async move {
        clock.sleep(after).await;
        if let Some(store) = store.upgrade() {
            before(&store);
            store.log.work.notify_one();
        }
    });
}
