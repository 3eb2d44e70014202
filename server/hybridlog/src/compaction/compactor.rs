//! Reading the log's beginning piece by piece, moving `begin`, and giving the file's space back.

use super::OldRecord;
use crate::address::{Address, FILE_HEADER, FIRST_ADDRESS, file_offset, is_unwritten};
use crate::checkpoint::Pinned;
use crate::device::LogFiles;
use crate::held::HeldRecord;
use crate::log::RECORD_MAX;
use crate::planted::Planted;
use crate::record::{Next, RecordError, next_in_page, peek_size};
use crate::store::Store;
use crate::sync::Ordering;
use ferrite_io::{AlignedBuf, BLOCK, File, World};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes read at a time: any record fits.
pub(crate) const PIECE: u64 = (RECORD_MAX + BLOCK) as u64;
/// Bytes given back to the file system at a time.
const PUNCH: u64 = 64 << 20;

/// Why a piece of the log's beginning could not be dealt with. It stays, and all behind it.
#[derive(Debug, thiserror::Error)]
pub enum CompactionError {
    /// `address` is where the piece begins.
    #[error("the log file cannot be read at offset {offset}: {source}")]
    Read { address: Address, offset: u64, source: io::Error },
    #[error("the log file gives fewer bytes than were asked for at offset {offset}")]
    Short { address: Address, offset: u64 },
    #[error("the log file is damaged at offset {}: {error}", file_offset(*address))]
    Damaged { address: Address, error: RecordError },
}

/// Some records at the log's beginning, in the order of their addresses.
#[derive(Debug, Default)]
pub struct Piece {
    pub records: Vec<OldRecord>,
    /// Bytes read.
    pub bytes: u64,
    /// Where the next piece begins.
    next: Address,
}

/// Of one store; on one worker.
pub struct Compactor<W: World> {
    store: Arc<Store>,
    files: LogFiles<W>,
    /// Every record below it, and at or above `begin`, was dealt with.
    at: Address,
    /// Where the last page of these ends.
    pages_done: Address,
}

impl<W: World> Compactor<W> {
    /// `files` are the log's, opened by this worker.
    pub fn new(store: Arc<Store>, files: LogFiles<W>) -> Self {
        let at = store.log.regions.begin();
        // What was given back by a process before is given back again: that is quick.
        store.log.punched.fetch_max(FIRST_ADDRESS, Ordering::AcqRel);
        Self { store, files, at, pages_done: at }
    }

    /// Up to here there may be something to be done: what lies above is in memory, or needed by a checkpoint that is being
    /// taken.
    pub fn limit(&self) -> Address {
        let log = &self.store.log;
        let on_disk = log.paging.start(log.released());
        on_disk.min(self.store.imaging.scan_from().unwrap_or(on_disk))
    }

    /// Where the work stands.
    pub fn at(&self) -> Address {
        self.at
    }

    /// Reads the next piece; `None`: there is nothing more on disk. After it was dealt with, [`Compactor::done`]; otherwise the
    /// same piece is read again. What is done stays in the log until [`Compactor::forget`].
    pub async fn read(&mut self) -> Result<Option<Piece>, CompactionError> {
        self.skip_forgotten();
        let (page_end, may_be_empty) = self.store.log.page_on_disk(self.at);
        if page_end > self.limit() {
            return Ok(None);
        }
        if self.store.log.quarantine.has(self.at) {
            return Ok(Some(Piece { next: page_end, ..Piece::default() }));
        }
        if Planted::BeginsTooEarly.is_there() {
            self.store.log.regions.shift_begin(page_end);
        }
        // A page was begun anew with larger ones behind it.
        let begin = self.at / BLOCK as u64 * BLOCK as u64;
        let buf = self.bytes(begin, (page_end - begin).min(PIECE)).await?;
        let mut piece = Piece { bytes: buf.len() as u64, next: self.at, ..Piece::default() };
        if may_be_empty && is_unwritten(&buf) {
            piece.next = page_end;
            return Ok(Some(piece));
        }
        while piece.next < page_end {
            let (at, room) = ((piece.next - begin) as usize, (page_end - piece.next) as usize);
            let next = next_of(&buf[at..], piece.next, room).map_err(|error| {
                self.store.counters.checksum_errors.fetch_add(1, Ordering::Relaxed);
                CompactionError::Damaged { address: piece.next, error }
            })?;
            match next {
                Next::End => piece.next = page_end,
                Next::Cut => break,
                Next::Record(size) => {
                    let held = HeldRecord::new(buf.clone(), at, size);
                    let raw = held.raw();
                    // SAFETY: nobody writes a held record.
                    let hash = self.store.hash_of(raw.space(), unsafe { raw.key() }, raw.has_long_key());
                    piece.records.push(OldRecord { address: piece.next, hash, held });
                    piece.next += size as u64;
                }
            }
        }
        debug_assert!(piece.next > self.at, "any record fits into a piece");
        Ok(Some(piece))
    }

    /// Everything in the piece was dealt with.
    pub fn done(&mut self, piece: &Piece) {
        debug_assert!(piece.next > self.at);
        // What was forgotten meanwhile lies further on.
        let (page_end, _) = self.store.log.page_on_disk(self.at);
        self.at = piece.next;
        if self.at == page_end {
            self.pages_done = page_end;
        }
    }

    /// Leaves the page around an address where it is, for good: not all of its records can be read, or told to be of no use.
    /// False: that was done before.
    pub fn leave(&mut self, address: Address) -> bool {
        let log = &self.store.log;
        let page = log.page_around(address);
        let is_new = Planted::DamageIsForgotten.is_there() || log.quarantine.add(page);
        if page.0 <= self.at && self.at < page.1 {
            (self.at, self.pages_done) = (page.1, page.1);
        }
        is_new
    }

    /// Where the log's page around an address begins in its file.
    pub fn page_offset(&self, address: Address) -> u64 {
        file_offset(self.store.log.page_around(address).0)
    }

    /// Bytes of the log that are done and not forgotten.
    pub fn ahead(&self) -> u64 {
        self.pages_done.saturating_sub(self.store.log.regions.begin())
    }

    /// `begin` moves behind the pages all of whose pieces are done: nobody needs the records in them any more.
    pub fn forget(&self) {
        if self.pages_done > self.store.log.regions.begin() {
            self.store.log.regions.shift_begin(self.pages_done);
        }
    }

    /// Gives space of the file back up to `begin`, or to where the lowest of the checkpoints begins; but for what is in
    /// quarantine, and what of that they need. Gives the bytes.
    pub async fn free(&self, checkpoints: &Pinned) -> io::Result<u64> {
        let log = &self.store.log;
        let begin = log.regions.begin();
        let from = checkpoints.from.filter(|_| !Planted::PinIsIgnored.is_there());
        let to = begin.min(from.unwrap_or(begin)) / BLOCK as u64 * BLOCK as u64;
        let kept = checkpoints.quarantined.as_deref();
        let mut freed = 0;
        loop {
            let from = log.punched.load(Ordering::Acquire) / BLOCK as u64 * BLOCK as u64;
            if from >= to {
                break;
            }
            let left = log.quarantine.first_in((from, to), kept.unwrap_or_default());
            if let Some(page) = left.filter(|page| page.0 <= from) {
                log.quarantine.free_later(page);
                log.punched.fetch_max(page.1, Ordering::AcqRel);
                continue;
            }
            let end = left.map_or(to, |page| page.0);
            freed += self.punch((from, end.min(from + PUNCH))).await?;
        }
        while let Some(page) = kept.and_then(|kept| log.quarantine.take_freed(to, kept)) {
            match self.punch(page).await {
                Ok(bytes) => freed += bytes,
                Err(error) => {
                    log.quarantine.free_later(page);
                    return Err(error);
                }
            }
        }
        Ok(freed)
    }

    async fn punch(&self, (from, to): (Address, Address)) -> io::Result<u64> {
        let log = &self.store.log;
        self.files.log.punch(FILE_HEADER + from, to - from).await?;
        log.punched.fetch_max(to, Ordering::AcqRel);
        if log.refusal.is_refused() {
            log.given_back.store(true, Ordering::Release);
        }
        log.work.notify_one();
        Ok(to - from)
    }

    /// Where everything was forgotten nothing need be read.
    fn skip_forgotten(&mut self) {
        let log = &self.store.log;
        let forgotten = log.forgotten.load(Ordering::Acquire).min(self.limit());
        while let (page_end, _) = log.page_on_disk(self.at)
            && page_end <= forgotten
        {
            (self.at, self.pages_done) = (page_end, page_end);
        }
    }

    async fn bytes(&self, begin: Address, len: u64) -> Result<Rc<AlignedBuf>, CompactionError> {
        let offset = file_offset(begin);
        self.store.counters.disk_reads.fetch_add(1, Ordering::Relaxed);
        let done = self.files.log.read_at(AlignedBuf::zeroed(len as usize), offset).await;
        match done.result {
            Ok(read) if read as u64 == len => Ok(Rc::new(done.buf)),
            Ok(_) => Err(CompactionError::Short { address: self.at, offset }),
            Err(source) => Err(CompactionError::Read { address: self.at, offset, source }),
        }
    }

    /// Whether the disk reads anything of the log's file: its first block.
    pub async fn disk_reads(&self) -> bool {
        let done = self.files.log.read_at(AlignedBuf::zeroed(BLOCK), 0).await;
        done.result.is_ok_and(|read| read == BLOCK)
    }
}

fn next_of(bytes: &[u8], address: Address, room: usize) -> Result<Next, RecordError> {
    if Planted::ChecksumIsIgnored.is_there()
        && let Ok(size) = peek_size(bytes, room)
        && size <= bytes.len()
    {
        return Ok(Next::Record(size));
    }
    next_in_page(bytes, address, room)
}
