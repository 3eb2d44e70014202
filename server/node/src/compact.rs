//! The task that compacts the log: [`ferrite_hybridlog::compaction`] says how.
//!
//! It works while the files take more than the live data, a configured part of it, and a floor. What it may cost the others:
//! one piece of the log is read at a time (1 MiB), its records are looked up in slices of [`SLICE`] between which the worker's
//! other tasks have their turn, and behind each piece it rests for [`REST`], unless the log grows faster than it is compacted.

use std::collections::BTreeSet;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ferrite_hybridlog::checkpoint::Checkpoints;
use ferrite_hybridlog::compaction::{CompactionError, Compactor, Old, OldRecord, Piece};
use ferrite_hybridlog::{Address, Held, LogFiles, Planted, ReadError, StorageError};
use ferrite_io::{Clock, World, give_way};
use ferrite_keyspace::{Compacted, Pause, compact};
use ferrite_telemetry::schema::{Attribute, CompactionReason, ExceptionType, SpanName};
use ferrite_telemetry::{Exception, TraceBuffer, Value};
use futures_util::future::{join_all, select};

use crate::batch::wait_for_space;
use crate::failure::Failure;
use crate::space::Space;
use crate::start::log_path;
use crate::unseen;
use crate::worker::Worker;

/// How often it is looked whether there is too much.
const LOOK: Duration = Duration::from_millis(100);
/// Records looked up before the commands that have come meanwhile have their turn: some tens of microseconds.
const SLICE: usize = 64;
const REST: Duration = Duration::from_millis(1);
/// Bytes that are dealt with before they leave the log: then writes that have not read what they replaced are waited for.
const FORGET_BYTES: u64 = 32 << 20;
/// Records that are held to tell whether others are superseded.
const HELD_MAX: usize = 256;
/// Bytes read by one run: then it is in the traces, and the next begins.
const RUN_BYTES_MAX: u64 = 1 << 30;
/// Runs in a row that end at one damaged record before its page is left behind: the disk may read it well again. And at one that the
/// disk refuses to read, while it reads others: a controller that is reset takes some seconds.
const DAMAGED_RUNS: u32 = 3;
const REFUSED_RUNS: u32 = 5;
/// Wait after a failure: the first and, doubling, the longest.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A run is in vain if it gains no more than this part of what it has read. Others are followed by the next: what was written
/// meanwhile may be garbage too.
const GAIN_PART: u64 = 8;
/// A run that was in vain is followed by another once the log, or what of it is on disk, has grown by this part of the data or
/// by so many pages, or the data has shrunk by as much.
const GROWTH_PART: u64 = 8;
const GROWTH_PAGES: u64 = 8;

/// Without a change for so long nobody writes.
const IDLE: Duration = Duration::from_secs(5);
/// While nobody writes a checkpoint is asked for at most so often.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// And so many times: the page that one closes may be compacted, and then another frees that.
const ASKS_MAX: u32 = 3;

/// Why a run ended before its end.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Log(#[from] CompactionError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Space(#[from] StorageError),
    #[error("the space of old records cannot be given back: {0}")]
    Punch(#[from] std::io::Error),
}

impl RunError {
    /// Where a record is that cannot be read, and whether because the disk refuses.
    fn unreadable(&self) -> Option<(Address, bool)> {
        match *self {
            Self::Log(CompactionError::Damaged { address, .. })
            | Self::Read(ReadError::Damaged { address, .. } | ReadError::ExtentDamaged { address, .. }) => {
                Some((address, false))
            }
            Self::Log(CompactionError::Read { address, .. } | CompactionError::Short { address, .. })
            | Self::Read(ReadError::Io { address, .. } | ReadError::Short { address, .. }) => Some((address, true)),
            Self::Space(_) | Self::Punch(_) => None,
        }
    }

    /// What the trace says.
    fn failure(&self) -> Failure {
        let text = self.to_string();
        let told = |kind| Some(Exception { kind, message: text.clone(), stack: None });
        let exception = match self {
            Self::Log(CompactionError::Read { .. }) => told(ExceptionType::ReadFailed),
            Self::Log(CompactionError::Short { .. }) => told(ExceptionType::ReadShort),
            Self::Log(CompactionError::Damaged { .. }) => told(ExceptionType::ReadDamaged),
            Self::Read(error) => Some(error.exception()),
            Self::Space(error) => error.exception(),
            Self::Punch(_) => told(ExceptionType::LogFailed),
        };
        Failure { text, exception }
    }
}

/// What one run did.
#[derive(Default)]
struct Run {
    bytes_read: u64,
    bytes_kept: u64,
    bytes_freed: u64,
    kept: u64,
    dropped: u64,
    expired: u64,
    /// Of the records that were dropped or deleted.
    bytes_dropped: u64,
    /// Everything there was on disk was looked at.
    whole: bool,
}

/// Runs until the node is shut down; on the worker that takes checkpoints.
pub(crate) async fn run<W: World>(worker: Rc<Worker<W>>, checkpoints: Rc<Checkpoints<W>>) {
    let Some(files) = open_files(&worker).await else { return };
    let compactor = Compactor::new(worker.node.store.clone(), files);
    let mut trace = TraceBuffer::new(W::Clock::monotonic_source());
    trace.configure(None);
    let (wait, held) = (Duration::ZERO, Held::default());
    let quiet = Quiet::default();
    let pass = Pass::default();
    let (in_vain, asked, unreadable, piece_at) = (None, None, None, None);
    let mut task =
        Task { worker, checkpoints, compactor, in_vain, pass, wait, unreadable, piece_at, asked, quiet, held, trace };
    while !task.worker.node.shutdown.is_raised() {
        let (shutdown, pause) =
            (task.worker.node.shutdown.wait(), task.worker.world.clock().sleep(LOOK.max(task.wait)));
        select(pin!(shutdown), pin!(pause)).await;
        task.look().await;
    }
}

/// The log's files for reads of this task's own; tried until the disk opens them. `None`: the node is shut down.
async fn open_files<W: World>(worker: &Worker<W>) -> Option<LogFiles<W>> {
    let mut wait = Duration::ZERO;
    while !worker.node.shutdown.is_raised() {
        match LogFiles::open(&worker.world, &log_path(&worker.node)).await {
            Ok(files) => return Some(files),
            Err(error) => {
                worker.node.space_status.failures.fetch_add(1, Relaxed);
                if wait.is_zero() {
                    tracing::error!(%error, "the log file cannot be opened for compaction now; it is tried again");
                }
            }
        }
        wait = (wait * 2).clamp(RETRY_MIN, RETRY_MAX);
        let (shutdown, pause) = (worker.node.shutdown.wait(), worker.world.clock().sleep(wait));
        select(pin!(shutdown), pin!(pause)).await;
    }
    None
}

struct Task<W: World> {
    worker: Rc<Worker<W>>,
    checkpoints: Rc<Checkpoints<W>>,
    compactor: Compactor<W>,
    /// The last run, or pass, that was in vain.
    in_vain: Option<InVain>,
    pass: Pass,
    /// After a failure.
    wait: Duration,
    /// Where the last runs met what cannot be read, and how many of them.
    unreadable: Option<(Address, u32)>,
    /// The piece whose records are being dealt with.
    piece_at: Option<Address>,
    /// When a checkpoint was asked for in place of the last one.
    asked: Option<Asked>,
    quiet: Quiet,
    held: Held,
    trace: TraceBuffer,
}

/// Runs that together have read as much as there is on disk.
#[derive(Default)]
struct Pass {
    read: u64,
    gained: u64,
}

/// What there was at the end of a run that was in vain: as long as that has hardly changed, another would find as little.
struct InVain {
    tail: Address,
    limit: Address,
    live: u64,
    /// So much of any of them is a change.
    change: u64,
}

/// What there was when a checkpoint was asked for.
#[derive(Clone, Copy)]
struct Asked {
    tail: Address,
    /// As [`Quiet::changes`].
    changes: u64,
    at_ns: u64,
    /// How often it was, this time included, with as many changes.
    times: u32,
}

/// Since when there was no change, and how many there had been.
#[derive(Clone, Copy, Default)]
struct Quiet {
    changes: u64,
    since_ns: u64,
}

/// Between these a run works.
struct Bounds {
    begin_above: u64,
    end_at: u64,
}

impl Bounds {
    fn of(space: &Space, percentage: u64, is_short: bool) -> Self {
        let allowed = if is_short { space.live / 16 } else { (space.live as u128 * percentage as u128 / 100) as u64 };
        // What is in memory cannot be compacted.
        let floor = if is_short { space.page } else { space.floor };
        let begin_above = space.live + allowed + floor;
        Self { begin_above, end_at: begin_above - allowed / 16 }
    }
}

impl<W: World> Task<W> {
    /// Why there is work; `None`: there is none.
    fn reason(&self) -> Option<CompactionReason> {
        let node = &self.worker.node;
        if node.live.auto_compaction_percentage.load(Relaxed) == 0 {
            return None;
        }
        match () {
            () if node.is_over_quota() => Some(CompactionReason::DiskQuota),
            () if node.store.stats().disk_full => Some(CompactionReason::DiskFull),
            () => Some(CompactionReason::SpaceAmplification),
        }
    }

    fn bounds(&self, space: &Space, reason: CompactionReason) -> Bounds {
        let percentage = self.worker.node.live.auto_compaction_percentage.load(Relaxed);
        Bounds::of(space, percentage, reason != CompactionReason::SpaceAmplification)
    }

    async fn look(&mut self) {
        let pinned = self.checkpoints.pinned().await;
        let node = self.worker.node.clone();
        node.space_status.checkpoint_bytes.store(pinned.bytes, Relaxed);
        let changes = node.databases.figures().changes;
        if changes != self.quiet.changes {
            self.quiet = Quiet { changes, since_ns: self.worker.now_ns() };
        }
        let Some(reason) = self.reason() else { return };
        let space = node.space();
        let above = self.bounds(&space, reason).begin_above;
        let result = if space.needed > above && self.may_gain(&space) {
            let result = self.compact(reason).await;
            // Runs may follow each other without an end where every page has a part that is unused. What checkpoints keep
            // meanwhile has to go all the same.
            let after = node.space();
            if result.is_ok() && after.file - after.needed > after.live {
                self.unpin(&after).await;
            }
            result
        } else if space.file > space.needed {
            let freed = self.free().await;
            if freed.is_ok() && space.file > above {
                self.unpin(&space).await;
            }
            freed.map(drop).map_err(RunError::from)
        } else {
            return;
        };
        self.wait = match result {
            Ok(()) => {
                self.unreadable = None;
                Duration::ZERO
            }
            Err(error) if self.leave_unreadable(&error).await => Duration::ZERO,
            Err(error) => {
                let first = self.wait.is_zero();
                node.space_status.failures.fetch_add(1, Relaxed);
                if first {
                    tracing::error!(%error, "the log cannot be compacted now; nothing is lost, and it is tried again");
                } else {
                    tracing::debug!(%error, "the log still cannot be compacted");
                }
                (self.wait * 2).clamp(RETRY_MIN, RETRY_MAX)
            }
        };
    }

    /// Whether the error is that of one page for good, which is left where it is from now on: the work goes on behind it.
    async fn leave_unreadable(&mut self, error: &RunError) -> bool {
        let Some((address, is_refused)) = error.unreadable() else {
            self.unreadable = None;
            return false;
        };
        let runs = self.unreadable.filter(|&(at, _)| at == address).map_or(1, |(_, runs)| runs + 1);
        self.unreadable = Some((address, runs));
        let enough = if is_refused { REFUSED_RUNS } else { DAMAGED_RUNS };
        // A disk that refuses everything is not well: to leave page after page would not help.
        if runs < enough || is_refused && !self.compactor.disk_reads().await {
            return false;
        }
        self.unreadable = None;
        // Where it cannot be told whether a record is of use because of a newer one, that one's page stays as well.
        for page in [Some(address), self.piece_at].into_iter().flatten() {
            if self.compactor.leave(page) {
                let offset = self.compactor.page_offset(page);
                tracing::error!(
                    %error, offset,
                    "a page of the log file cannot be compacted: it is left where it is, and the rest is compacted"
                );
            }
        }
        true
    }

    /// Whether the log has grown since the last run that was in vain, or data has gone to disk, or has gone altogether.
    fn may_gain(&self, space: &Space) -> bool {
        let Some(InVain { tail, limit, live, change }) = self.in_vain else { return true };
        let grown = self.worker.node.store.stats().tail - tail;
        let on_disk = self.compactor.limit().saturating_sub(limit);
        grown.max(on_disk).max(live.saturating_sub(space.live)) >= change
    }

    /// Gives space back as far as no checkpoint needs it.
    async fn free(&self) -> std::io::Result<u64> {
        let pinned = self.checkpoints.pinned().await;
        let freed = self.compactor.free(&pinned).await?;
        self.worker.node.space_status.bytes_freed.fetch_add(freed, Relaxed);
        Ok(freed)
    }

    /// Checkpoints need so much of the log's past that the files are too large.
    async fn unpin(&mut self, space: &Space) {
        let pinned = self.checkpoints.pinned().await;
        let node = &self.worker.node;
        let stats = node.store.stats();
        if pinned.count > 1 && pinned.without_older > pinned.from {
            tracing::info!(
                bytes = space.file - space.needed,
                "the checkpoint before the last one is given up: the log that it leads into takes too much space"
            );
            if let Err(error) = self.checkpoints.give_up_older(&node.store).await {
                tracing::warn!(%error, "a checkpoint cannot be given up");
            }
            return;
        }
        // A checkpoint closes a page and so makes garbage of its own: not one after the other because of that.
        let growth = (space.live / GROWTH_PART).max(GROWTH_PAGES * space.page);
        let may_ask = self.asked.is_none_or(|asked| stats.tail - asked.tail > growth || self.is_time_after(asked));
        if pinned.count > 0 && may_ask && pinned.from.is_some_and(|from| from < stats.begin) {
            let changes = self.quiet.changes;
            let times = self.asked.filter(|asked| asked.changes == changes).map_or(1, |asked| asked.times + 1);
            self.asked = Some(Asked { tail: stats.tail, changes, at_ns: self.worker.now_ns(), times });
            tracing::info!("a checkpoint is asked for: the log that the last one leads into takes too much space");
            node.saves.want(true, false);
        }
    }

    /// Whether nobody writes any more, and it was not asked too often since: then the log does not grow, and what the last
    /// checkpoint keeps of it would stay.
    fn is_time_after(&self, asked: Asked) -> bool {
        let now_ns = self.worker.now_ns();
        let for_as_long =
            |since_ns: u64, time: Duration| u128::from(now_ns.saturating_sub(since_ns)) >= time.as_nanos();
        (asked.changes != self.quiet.changes || asked.times < ASKS_MAX)
            && for_as_long(self.quiet.since_ns, IDLE)
            && for_as_long(asked.at_ns, ASK_EVERY)
    }

    /// One run, as a trace of its own.
    async fn compact(&mut self, reason: CompactionReason) -> Result<(), RunError> {
        let node = self.worker.node.clone();
        let (began_ns, before) = (self.worker.now_ns(), node.store.stats());
        let mut run = Run::default();
        node.space_status.running.store(true, Relaxed);
        self.piece_at = None;
        let result = self.pieces(reason, &mut run).await;
        self.held.clear();
        node.space_status.running.store(false, Relaxed);
        node.space_status.runs.fetch_add(1, Relaxed);
        let stats = node.store.stats();
        let space = node.space();
        // What pages have unused behind their last records is gained only if the copies lie closer: who wrote meanwhile hides
        // that, and will have left garbage.
        let packed = (stats.begin - before.begin).saturating_sub(stats.tail - before.tail);
        let gained = run.bytes_dropped.max(packed);
        let limit = self.compactor.limit();
        self.pass.read += run.bytes_read;
        self.pass.gained += gained;
        // Runs that end early, since what they copied counted as memory's for a while, follow one another; together they are one.
        let is_pass = run.whole || self.pass.read >= limit.saturating_sub(stats.begin);
        let run_in_vain = run.whole && gained <= run.bytes_read / GAIN_PART;
        let pass_in_vain = is_pass && self.pass.gained <= self.pass.read / GAIN_PART;
        let is_amplified = reason == CompactionReason::SpaceAmplification;
        if run_in_vain && space.needed > self.bounds(&space, reason).end_at || pass_in_vain && is_amplified {
            // All of it is live, or cannot be packed better.
            let change = (space.live / GROWTH_PART).max(GROWTH_PAGES * space.page);
            self.in_vain = Some(InVain { tail: stats.tail, limit, live: space.live, change });
        }
        if is_pass {
            self.pass = Pass::default();
        }
        if run.bytes_read > 0 || result.is_err() {
            let failure = result.as_ref().err().map(RunError::failure);
            record(&self.worker, began_ns, reason, &run, [before.begin, stats.begin], failure);
        }
        result
    }

    async fn pieces(&mut self, reason: CompactionReason, run: &mut Run) -> Result<(), RunError> {
        let node = self.worker.node.clone();
        let end = self.compactor.limit();
        loop {
            let Some(piece) = self.compactor.read().await? else {
                run.whole = true;
                break;
            };
            run.bytes_read += piece.bytes;
            node.space_status.bytes_read.fetch_add(piece.bytes, Relaxed);
            self.piece_at = piece.records.first().map(|record| record.address);
            self.records(&piece, run).await?;
            self.piece_at = None;
            self.compactor.done(&piece);
            run.whole = self.compactor.at() >= end;
            if self.compactor.ahead() >= FORGET_BYTES || run.whole {
                run.bytes_freed += self.forget().await?;
            }
            let space = node.space();
            let (needed, bounds) = (space.needed - self.compactor.ahead(), self.bounds(&space, reason));
            if run.whole || needed <= bounds.end_at || run.bytes_read >= RUN_BYTES_MAX || node.shutdown.is_raised() {
                break;
            }
            match needed > bounds.begin_above + bounds.begin_above / 4 {
                true => give_way().await,
                false => self.worker.world.clock().sleep(REST).await,
            }
        }
        run.bytes_freed += self.forget().await?;
        Ok(())
    }

    /// Lets go of what is done. Gives the bytes of the file that are given back.
    async fn forget(&mut self) -> Result<u64, RunError> {
        let databases = &self.worker.node.databases;
        if !databases.unseen.is_empty() && !Planted::UnseenIsForgotten.is_there() {
            // Writes that did not read what they replaced may still have to, and what they superseded was dropped.
            // Who cannot look for damage that is left behind will not get any further.
            let is_left = |address| self.worker.node.store.is_left_behind(address);
            unseen::wait_but(&self.worker, is_left).await?;
        }
        self.compactor.forget();
        Ok(self.free().await?)
    }

    async fn records(&mut self, piece: &Piece, run: &mut Run) -> Result<(), RunError> {
        let mut may_expire = self.worker.node.databases.active_expiry();
        let mut at = 0;
        while at < piece.records.len() {
            self.hold_newer(&piece.records[at..]).await?;
            let (done, pause) = self.slice(&piece.records[at..], may_expire, run);
            at += done;
            match pause {
                None => {}
                Some(Pause::Headers(addresses) | Pause::Records(addresses)) => {
                    // Not what the record at hand has waited for already.
                    if self.held.len() > HELD_MAX && done > 0 {
                        self.held.clear();
                    }
                    for address in addresses {
                        let own = (address == piece.records[at].address).then(|| piece.records[at].held.clone());
                        let record = match own {
                            Some(own) if own.key().is_some() => own,
                            // A key too long for its record comes with what that owns.
                            _ => self.worker.device.read_header(address).await?.record,
                        };
                        if address == piece.records[at].address && record.key().is_none() {
                            may_expire = false;
                        }
                        self.held.insert(address, record);
                    }
                }
                // Where there is no room for deletions, what has expired is copied like others.
                Some(Pause::Space(need)) if may_expire => {
                    may_expire = wait_for_space(&self.worker.node, need).await.is_ok();
                }
                Some(Pause::Space(need)) => self.worker.node.store.wait_for_copy(&need).await?,
                Some(Pause::Keys | Pause::Part { .. } | Pause::Counts { .. } | Pause::Refused(_)) => {
                    unreachable!("a deletion names its records and is never refused")
                }
            }
            give_way().await;
        }
        Ok(())
    }

    /// Reads what tells whether the next records are superseded, all of it at once: one after the other, a piece of small
    /// records would take as many reads.
    async fn hold_newer(&mut self, records: &[OldRecord]) -> Result<(), RunError> {
        if self.held.len() > HELD_MAX {
            self.held.clear();
        }
        let cold = {
            let pinned = self.worker.handle.pin();
            let newer = |record: &OldRecord| {
                let _latch = pinned.latch(record.hash, true);
                match pinned.judge(record, &self.held) {
                    Old::Cold(address) => Some(address),
                    Old::Newest | Old::Superseded => None,
                }
            };
            let cold: BTreeSet<Address> = records.iter().take(SLICE).filter_map(newer).collect();
            cold
        };
        let device = &self.worker.device;
        let reads = cold.iter().map(|&address| async move { (address, device.read_header(address).await) });
        for (address, read) in join_all(reads).await {
            self.held.insert(address, read?.record);
        }
        Ok(())
    }

    /// Deals with some records. Gives how many, and what the next one waits for.
    fn slice(&mut self, records: &[OldRecord], may_expire: bool, run: &mut Run) -> (usize, Option<Pause>) {
        let (worker, trace) = (&*self.worker, &mut self.trace);
        let now_ms = worker.world.clock().unix_ns() / 1_000_000;
        let pinned = worker.handle.pin();
        let mut scratch = worker.scratch.borrow_mut();
        let mut done = 0;
        let mut pause = None;
        for record in records.iter().take(SLICE) {
            match compact(worker.lend(&pinned, &self.held, trace, &mut scratch, now_ms), record, may_expire) {
                Ok(Compacted::Kept(bytes)) => {
                    run.kept += 1;
                    run.bytes_kept += bytes as u64;
                    worker.node.space_status.bytes_kept.fetch_add(bytes as u64, Relaxed);
                }
                Ok(gone) => {
                    match gone {
                        Compacted::Expired => run.expired += 1,
                        _ => run.dropped += 1,
                    }
                    run.bytes_dropped += record.held.bytes().len() as u64;
                }
                Err(waits) => {
                    pause = Some(waits);
                    break;
                }
            }
            done += 1;
        }
        worker.node.databases.absorb(&mut scratch);
        (done, pause)
    }
}

/// The run as a trace of its own.
fn record<W: World>(
    worker: &Worker<W>,
    began_ns: u64,
    reason: CompactionReason,
    run: &Run,
    [before, after]: [Address; 2],
    failure: Option<Failure>,
) {
    let count = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let attributes = [
        (Attribute::CompactionReason, Value::Str(reason.as_str().into())),
        (Attribute::CompactionBytesRead, count(run.bytes_read)),
        (Attribute::CompactionBytesFreed, count(run.bytes_freed)),
        (Attribute::CompactionRecordsKept, count(run.kept)),
        (Attribute::CompactionRecordsDropped, count(run.dropped)),
        (Attribute::CompactionRecordsExpired, count(run.expired)),
        (Attribute::CompactionBeginBefore, count(before)),
        (Attribute::CompactionBeginAfter, count(after)),
    ];
    worker.record_work(SpanName::Compaction, began_ns, &attributes, failure);
}
