//! The task that moves frames to the file: group commit, sync by policy, space allocated ahead, one segment after another.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ferrite_io::{AlignedBuf, Clock, Disk, File, World};
use ferrite_telemetry::StackTrace;

use super::frame::{HEADER, Header, MARK_MAX};
use super::segment::{AofFile, HEADER_LEN, next_sector};
use super::shared::{Aof, AofFailed, FsyncPolicy, NoSpace, SyncTimes, TaskGuard};
use crate::datadir::{FileError, SaveError, SegmentEntry};
use crate::space::StorageError;

/// Age of the oldest un-synced frame at which `everysec` syncs: a tenth of the second is left for the sync itself.
const EVERYSEC_NS: u64 = 900_000_000;

/// How long the log is idle before the mark after a sync is written on its own; earlier, it leads the next group.
const IDLE: Duration = Duration::from_millis(10);

/// After allocating failed, how long until it is tried again unasked.
const ALLOCATE_AGAIN_NS: u64 = 1_000_000_000;

/// After a full segment could not be left, how long until that is tried again; meanwhile it grows on.
const ROLL_AGAIN_NS: u64 = 1_000_000_000;

/// Each allocation ahead is this many times the one before, up to the configured limit.
const ALLOCATE_GROWTH: u64 = 4;

/// Longest single write; a group may be longer. Bounds the copy that the kernel holds.
const WRITE_MAX: usize = 4 << 20;

/// Group buffers that grew beyond this are given back to the allocator.
const KEEP_MAX: usize = 8 << 20;

/// The file of a world's disk.
pub(crate) type FileOf<W> = <<W as World>::Disk as Disk>::File;

/// Runs until [`Aof::close`] or a failure, which every waiter then gets. `on_sync` hears of each sync, for the
/// latency histogram.
pub async fn aof_task<W: World>(aof: Arc<Aof>, world: W, file: AofFile<W>, on_sync: impl FnMut(SyncTimes) + 'static) {
    let guard = TaskGuard { aof: &aof, path: file.path.clone() };
    aof.set_segment_bytes(file.end);
    let writer = Writer {
        aof: &aof,
        clock: world.clock(),
        allocated: file.end,
        end: file.end,
        written: aof.position(),
        synced: aof.position(),
        dirty_since_ns: 0,
        mark_due: true,
        mark_paid: true,
        allocate: file.allocate_min,
        allocate_again_ns: 0,
        roll_again_ns: 0,
        refused: false,
        pending: Vec::new(),
        file,
        on_sync,
    };
    match writer.run().await {
        Ok(()) => aof.closed(),
        Err(failed) => {
            tracing::error!(error = %failed, "the append-only file failed");
            aof.fail(failed);
        }
    }
    drop(guard);
}

struct Writer<'a, W: World, S> {
    aof: &'a Aof,
    clock: &'a W::Clock,
    file: AofFile<W>,
    on_sync: S,
    /// File offsets: up to here the space exists; up to here it is written.
    allocated: u64,
    end: u64,
    /// Positions.
    written: u64,
    synced: u64,
    /// When the first frame after `synced` was written.
    dirty_since_ns: u64,
    /// Everything written is durable: before anything else, a mark says so in the next sector.
    mark_due: bool,
    /// The space of the next mark is taken from the account.
    mark_paid: bool,
    /// Bytes to allocate ahead the next time.
    allocate: u64,
    allocate_again_ns: u64,
    roll_again_ns: u64,
    /// The disk had no room at the last try.
    refused: bool,
    /// Always empty between two steps.
    pending: Vec<u8>,
}

impl<W: World, S: FnMut(SyncTimes)> Writer<'_, W, S> {
    async fn run(mut self) -> Result<(), AofFailed> {
        loop {
            self.make_room().await;
            // Read before the frames are taken: nothing is appended after closing, so all are among them.
            let closing = self.aof.is_closing();
            self.write_group().await?;
            let sync = self.sync_is_due(closing);
            if sync {
                self.sync().await?;
            }
            // In the same turn as the sync: in the next one more may be written.
            if !closing && self.written == self.synced && self.roll_is_due() {
                self.roll_or_refuse().await?;
            } else if sync {
                // Frames may have come meanwhile.
            } else if closing {
                // After this mark, damage anywhere in the log is known for what it is.
                self.write_mark_alone().await?;
                return self.note_durable().await;
            } else if !self.wait_for_work().await && self.mark_due && self.mark_fits() {
                self.write(Vec::new(), true).await?;
                self.mark_paid = false;
            }
        }
    }

    /// Allocates file space ahead, and answers commands that wait for it.
    async fn make_room(&mut self) {
        let request = self.aof.space_request();
        let (free, over) = self.aof.space().map_or_else(|over| (0, over), |free| (free, 0));
        let wanted = request.map_or(0, |(_, bytes)| bytes);
        if free < wanted.max(self.allocate)
            && (request.is_some() || self.clock.monotonic_ns() >= self.allocate_again_ns)
        {
            let needed = (wanted + over).saturating_sub(free);
            let ahead = needed.max(self.allocate);
            let mut outcome = self.allocate(ahead).await;
            if outcome.is_err() && 0 < needed && needed < ahead {
                outcome = self.allocate(needed).await;
            }
            if let (Err(error), Some((ticket, _))) = (&outcome, request) {
                let (path, message, stack) = (self.file.path.clone(), error.to_string(), StackTrace::capture());
                let refused = match StorageError::is_full(error) {
                    true => NoSpace::Refused { path, bytes: needed, message, stack },
                    false => NoSpace::Unable { path, bytes: needed, message, stack },
                };
                // Enough may be left for this one although more could not be had.
                self.aof.answer_requests(ticket, if needed == 0 { Ok(()) } else { Err(refused) });
                return;
            }
        }
        if let Some((ticket, _)) = request {
            self.aof.answer_requests(ticket, Ok(()));
        }
    }

    async fn allocate(&mut self, bytes: u64) -> std::io::Result<()> {
        let outcome = self.file.file.allocate(self.allocated, bytes).await;
        let path = self.file.path.display();
        match &outcome {
            Ok(()) => {
                self.allocated += bytes;
                self.aof.grant(bytes);
                self.allocate = (self.allocate * ALLOCATE_GROWTH).min(self.file.allocate_max);
                if self.refused {
                    tracing::info!(%path, "the append-only file can grow again");
                }
            }
            Err(error) => {
                self.allocate_again_ns = self.clock.monotonic_ns() + ALLOCATE_AGAIN_NS;
                self.allocate = self.file.allocate_min;
                if !self.refused {
                    match StorageError::is_full(error) {
                        true => {
                            tracing::warn!(%path, %error, "no disk space for the append-only file: writes are refused once it is used up")
                        }
                        false => {
                            tracing::warn!(%path, %error, "the disk fails to reserve space for the append-only file: writes are refused once it is used up")
                        }
                    }
                }
            }
        }
        self.refused = outcome.is_err();
        outcome
    }

    async fn write_group(&mut self) -> Result<(), AofFailed> {
        let mut frames = std::mem::take(&mut self.pending);
        let group = self.aof.take_pending(&mut frames);
        if group.frames == 0 {
            self.pending = frames;
            return Ok(());
        }
        if self.written == self.synced {
            self.dirty_since_ns = self.clock.monotonic_ns();
        }
        let mut spare = group.frames * MARK_MAX;
        if self.mark_due {
            self.mark_paid = false;
        }
        if !self.mark_paid {
            spare -= MARK_MAX;
            self.mark_paid = true;
        }
        self.pending = self.write(frames, self.mark_due).await?;
        self.aof.give_back(spare);
        self.written = group.position;
        Ok(())
    }

    /// Writes frames after the end, with a mark in front if one is due; gives the emptied buffer back.
    async fn write(&mut self, mut frames: Vec<u8>, with_mark: bool) -> Result<Vec<u8>, AofFailed> {
        let mark = with_mark.then(|| Header::mark(self.written).encode(self.file.entry.salt));
        let mut lead = mark.as_ref().map_or(&[][..], |mark| &mark[..]);
        let before = self.end;
        if with_mark {
            self.end = next_sector(self.end);
        }
        let mut rest = &frames[..];
        while lead.len() + rest.len() > 0 {
            let (piece, later) = rest.split_at(rest.len().min(WRITE_MAX));
            let mut buf = AlignedBuf::zeroed(lead.len() + piece.len());
            buf[..lead.len()].copy_from_slice(lead);
            buf[lead.len()..].copy_from_slice(piece);
            let len = buf.len() as u64;
            let done = self.file.file.write_at(buf, self.end).await;
            done.result
                .map_err(|error| AofFailed::new(&self.file.path, format!("written at offset {}", self.end), &error))?;
            self.end += len;
            lead = &[];
            rest = later;
        }
        if with_mark {
            self.mark_due = false;
            let used = next_sector(before) - before + HEADER as u64;
            self.aof.give_back(MARK_MAX - used);
        }
        self.aof.set_segment_bytes(self.end);
        frames.clear();
        if frames.capacity() > KEEP_MAX {
            frames = Vec::new();
        }
        Ok(frames)
    }

    fn mark_fits(&self) -> bool {
        next_sector(self.end) + HEADER as u64 <= self.allocated
    }

    async fn write_mark_alone(&mut self) -> Result<(), AofFailed> {
        if self.mark_due && self.mark_fits() {
            self.write(Vec::new(), true).await?;
            self.sync_file().await?;
        }
        Ok(())
    }

    /// So that a later start misses whatever is cut off below. Each start does the same.
    async fn note_durable(&self) -> Result<(), AofFailed> {
        let noted = self.file.catalog.note_durable(self.synced).await;
        noted.map_err(|error| failed(&error.into_file_error()))
    }

    fn sync_is_due(&self, closing: bool) -> bool {
        self.written > self.synced
            && (closing
                || self.aof.sync_wanted() > self.synced
                || self.roll_is_due()
                || match self.aof.policy() {
                    FsyncPolicy::Always => true,
                    FsyncPolicy::EverySec => self.clock.monotonic_ns() >= self.dirty_since_ns + EVERYSEC_NS,
                    FsyncPolicy::No => false,
                })
    }

    async fn sync(&mut self) -> Result<(), AofFailed> {
        let started_ns = self.clock.monotonic_ns();
        self.sync_file().await?;
        let ended_ns = self.clock.monotonic_ns();
        self.synced = self.written;
        self.mark_due = true;
        let times = self.aof.became_durable(self.synced, started_ns, ended_ns);
        (self.on_sync)(times);
        Ok(())
    }

    fn roll_is_due(&self) -> bool {
        let full = self.end >= self.file.segment_max && self.written > self.file.entry.position;
        (full && self.clock.monotonic_ns() >= self.roll_again_ns) || self.aof.roll_request().is_some()
    }

    /// Lets the log go on in a new segment; everything written is synced.
    async fn roll_or_refuse(&mut self) -> Result<(), AofFailed> {
        debug_assert_eq!(self.written, self.synced, "a segment is sealed when nothing in it can be lost");
        let request = self.aof.roll_request();
        // A segment without a frame is as good as a new one.
        let outcome = if self.written == self.file.entry.position { Ok(()) } else { self.roll().await };
        let answer = match outcome {
            Ok(()) => Ok(self.file.entry.position),
            Err(SaveError::Unchanged(error)) => {
                self.roll_again_ns = self.clock.monotonic_ns() + ROLL_AGAIN_NS;
                tracing::warn!(%error, "no new segment of the append-only file could be begun; the old one grows on");
                Err(error.to_string())
            }
            // The next start may read either manifest, and frames can only go where one of them leads.
            Err(SaveError::Unknown(error)) => return Err(failed(&error)),
        };
        if let Some(ticket) = request {
            self.aof.answer_rolls(ticket, answer);
        }
        Ok(())
    }

    async fn roll(&mut self) -> Result<(), SaveError> {
        let catalog = self.file.catalog.clone();
        let new = catalog.new_segment(self.written).await.map_err(SaveError::Unchanged)?;
        // What was promised of the old file's space holds in the new one.
        let promised = self.allocated - self.end;
        let allocated = match promised {
            0 => Ok(()),
            bytes => new.file.allocate(HEADER_LEN, bytes).await,
        };
        let entry = SegmentEntry { number: new.number, salt: new.salt, position: self.written };
        let saved = match allocated {
            Ok(()) => catalog.add_segment(entry).await,
            Err(source) => {
                Err(SaveError::Unchanged(FileError { action: "allocate space for", path: new.path.clone(), source }))
            }
        };
        if let Err(SaveError::Unchanged(_)) = saved {
            catalog.forget(&new.path).await;
        }
        saved?;
        self.aof.switch_salt(new.salt);
        let old = std::mem::replace(&mut self.file.file, new.file);
        let (old_path, old_end) = (std::mem::replace(&mut self.file.path, new.path), self.end);
        let sealed = std::mem::replace(&mut self.file.entry, entry);
        self.end = HEADER_LEN;
        self.allocated = HEADER_LEN + promised;
        self.aof.file_sealed(sealed.number, old_end);
        self.aof.set_segment_bytes(self.end);
        // Zeros behind the last frame harm nobody; they are given back.
        if let Err(error) = old.set_len(old_end).await {
            tracing::warn!(path = %old_path.display(), %error, "a sealed segment could not be cut to its length");
        }
        Ok(())
    }

    async fn sync_file(&self) -> Result<(), AofFailed> {
        self.file.file.sync().await.map_err(|error| AofFailed::new(&self.file.path, "synced", &error))
    }

    /// True if there is work, false if the time has come for something.
    async fn wait_for_work(&self) -> bool {
        let sleep = if self.mark_due && self.mark_fits() {
            IDLE
        } else if self.written > self.synced && self.aof.policy() == FsyncPolicy::EverySec {
            let due_ns = self.dirty_since_ns + EVERYSEC_NS;
            Duration::from_nanos(due_ns.saturating_sub(self.clock.monotonic_ns()))
        } else {
            self.aof.work().await;
            return true;
        };
        first_of(self.aof.work(), self.clock.sleep(sleep)).await
    }
}

fn failed(manifest: &FileError) -> AofFailed {
    AofFailed::new(&manifest.path, "put in place", &manifest.source)
}

/// True if `first` finished, false if only `second` did. Looks at `first` first: the same every run.
async fn first_of(first: impl Future<Output = ()>, second: impl Future<Output = ()>) -> bool {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|context| {
        if first.as_mut().poll(context).is_ready() {
            return Poll::Ready(true);
        }
        second.as_mut().poll(context).map(|()| false)
    })
    .await
}
