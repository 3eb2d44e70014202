//! The in-memory side of the append-only file, shared by all workers.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ferrite_telemetry::schema::ExceptionType;
use ferrite_telemetry::{Exception, StackTrace};
use thiserror::Error;
use tokio::sync::Notify;

use super::frame::{HEADER, Header, MARK_MAX, resalt};
use crate::space::{NeedReason, NeedSpace};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering};

/// When the log is synced: Redis's `appendfsync`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum FsyncPolicy {
    /// Before a reply leaves. Nothing acknowledged is ever lost.
    Always = 0,
    /// About once a second. A crash of the machine loses at most the last second.
    #[default]
    EverySec = 1,
    /// When the operating system likes.
    No = 2,
}

impl FsyncPolicy {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::EverySec => "everysec",
            Self::No => "no",
        }
    }
}

/// The log cannot be written any more. The process must end with an error: what it holds in memory and what the disk
/// holds have parted, and a failed sync must not be tried again as if it had worked.
#[derive(Clone, Debug, Error)]
#[error(
    "the append-only file {} could not be {action} ({message}); writes not yet durable may be lost. \
     Check the disk, then start the server again: it replays what is durable", path.display()
)]
pub struct AofFailed {
    pub path: PathBuf,
    /// `written` at an offset, `synced`, …
    pub action: String,
    pub kind: io::ErrorKind,
    message: String,
    stack: StackTrace,
}

impl AofFailed {
    pub(super) fn new(path: &Path, action: impl Into<String>, error: &io::Error) -> Self {
        Self {
            path: path.into(),
            action: action.into(),
            kind: error.kind(),
            message: error.to_string(),
            stack: StackTrace::capture(),
        }
    }

    /// What the traces of the commands say that waited for it.
    pub fn exception(&self) -> Exception {
        Exception { kind: ExceptionType::AofFailed, message: self.to_string(), stack: Some(self.stack.clone()) }
    }

    fn stopped(path: &Path) -> Self {
        Self::new(path, "written any more", &io::Error::other("its task has ended"))
    }
}

/// Why a command is refused: nothing was changed, and later ones may succeed.
#[derive(Clone, Debug, Error)]
pub enum NoSpace {
    #[error("the append-only file {} cannot grow by {bytes} bytes ({message}): free disk space and try again", path.display())]
    Refused { path: PathBuf, bytes: u64, message: String, stack: StackTrace },
    /// The disk has space, or would have.
    #[error("the append-only file {} cannot grow by {bytes} bytes: the disk fails ({message})", path.display())]
    Unable { path: PathBuf, bytes: u64, message: String, stack: StackTrace },
    #[error(transparent)]
    Failed(#[from] AofFailed),
}

impl NoSpace {
    /// What the trace of the refused command says.
    pub fn exception(&self) -> Exception {
        match self {
            Self::Refused { stack, .. } => {
                Exception { kind: ExceptionType::AofFull, message: self.to_string(), stack: Some(stack.clone()) }
            }
            Self::Unable { stack, .. } => {
                Exception { kind: ExceptionType::AofUnable, message: self.to_string(), stack: Some(stack.clone()) }
            }
            Self::Failed(failed) => failed.exception(),
        }
    }
}

/// Why the log does not go on in a new segment. Nothing is lost by it.
#[derive(Clone, Debug, Error)]
pub enum RollError {
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Failed(#[from] AofFailed),
}

/// Bytes of the log's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AofSize {
    /// Everything.
    pub current: u64,
    /// The base, when it was read at the start; everything, after a rewrite. 0 without a base.
    pub base: u64,
}

/// When the last sync ran, on the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncTimes {
    /// Syncs so far.
    pub count: u64,
    pub started_ns: u64,
    pub ended_ns: u64,
}

/// Frames on their way to the file. Cheap to append to from any worker, under a latch: never waits for the disk.
pub struct Aof {
    policy: AtomicU32,
    pending: Mutex<Pending>,
    /// `pending.position`, readable without the lock.
    position: AtomicU64,
    durable: AtomicU64,
    /// Position up to which somebody wants a sync whatever the policy says.
    sync_wanted: AtomicU64,
    /// File space in bytes, counted from the first offset written by this process: allocated, and promised away.
    granted: AtomicU64,
    taken: AtomicU64,
    requests: Mutex<Requests>,
    rolls: Mutex<Rolls>,
    /// Bytes of the buffer that the task took over last.
    writing_bytes: AtomicU64,
    /// Bytes of the segment that is written.
    segment_bytes: AtomicU64,
    /// Bytes of every other file, by its number.
    sealed: Mutex<BTreeMap<u64, u64>>,
    /// [`AofSize::base`].
    base_bytes: AtomicU64,
    /// To the task: there is something to do.
    work: Notify,
    /// From the task: durable moved, requests were answered, it failed or it closed.
    news: Notify,
    failure: OnceLock<AofFailed>,
    closing: AtomicBool,
    closed: AtomicBool,
    /// Walks over the keys that are under way, for a base each.
    walks: AtomicU32,
    sync_times: Mutex<SyncTimes>,
}

struct Pending {
    /// Of the segment that is written.
    salt: u64,
    bytes: Vec<u8>,
    frames: u64,
    /// After the last frame in `bytes`.
    position: u64,
}

/// Commands that wait for file space.
struct Requests {
    asked: u64,
    answered: u64,
    bytes_max: u64,
    answer: Result<(), NoSpace>,
}

/// Those who want a new segment.
struct Rolls {
    asked: u64,
    answered: u64,
    /// Position of the new segment's first frame.
    answer: Result<u64, String>,
}

/// What the task took over to write.
pub(super) struct Group {
    pub frames: u64,
    pub position: u64,
}

/// What one frame may add to the file besides its payload: its header and the mark after the sync that follows.
const OVERHEAD: u64 = HEADER as u64 + MARK_MAX;

/// A walk that is under way.
pub(super) struct AofWalk(Arc<Aof>);

impl Drop for AofWalk {
    fn drop(&mut self) {
        self.0.walks.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Aof {
    /// All below `position` is in the file and durable. Nothing can be reserved before the task allocated space.
    pub(crate) fn new(salt: u64, policy: FsyncPolicy, position: u64) -> Self {
        Self {
            policy: AtomicU32::new(policy as u32),
            pending: Mutex::new(Pending { salt, bytes: Vec::new(), frames: 0, position }),
            position: AtomicU64::new(position),
            durable: AtomicU64::new(position),
            sync_wanted: AtomicU64::new(0),
            granted: AtomicU64::new(0),
            // The mark that the task writes first.
            taken: AtomicU64::new(MARK_MAX),
            requests: Mutex::new(Requests { asked: 0, answered: 0, bytes_max: 0, answer: Ok(()) }),
            rolls: Mutex::new(Rolls { asked: 0, answered: 0, answer: Ok(position) }),
            writing_bytes: AtomicU64::new(0),
            segment_bytes: AtomicU64::new(0),
            sealed: Mutex::new(BTreeMap::new()),
            base_bytes: AtomicU64::new(0),
            work: Notify::new(),
            news: Notify::new(),
            failure: OnceLock::new(),
            closing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            walks: AtomicU32::new(0),
            sync_times: Mutex::new(SyncTimes::default()),
        }
    }

    /// Promises that one frame with `bytes` of effects can be appended and written. Called before the command's first
    /// visible write; ended with [`Aof::release`] of the same number, appended or not.
    pub fn reserve(&self, bytes: usize) -> Result<(), NeedSpace> {
        let cost = bytes as u64 + OVERHEAD;
        let granted = self.granted.load(Ordering::Acquire);
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |taken| {
                taken.checked_add(cost).filter(|&taken| taken <= granted)
            })
            .map(|_| ())
            .map_err(|_| NeedSpace { reason: NeedReason::AofFile, bytes })
    }

    /// Ends a reservation of `bytes`.
    pub fn release(&self, bytes: usize) {
        self.give_back(bytes as u64 + OVERHEAD);
    }

    /// Waits until a reservation of `bytes` is likely to succeed, or says why it will not. Never waits for space to
    /// be freed by somebody else: the command is refused then.
    pub async fn wait_for_space(&self, bytes: usize) -> Result<(), NoSpace> {
        let ticket = {
            let mut requests = self.requests.lock();
            requests.asked += 1;
            requests.bytes_max = requests.bytes_max.max(bytes as u64 + OVERHEAD);
            requests.asked
        };
        self.work.notify_one();
        self.until(|| {
            let requests = self.requests.lock();
            (requests.answered >= ticket).then(|| requests.answer.clone())
        })
        .await?
    }

    /// Appends the effects of one command, or of one whole EXEC, as one frame: after a crash all of them are there or
    /// none. Called under the latch of the keys, so that the order in the log is the order in which writes became
    /// visible. Returns the position to pass to [`Aof::wait_durable`]. Cannot fail: the space is reserved.
    pub fn append(&self, effects: &[u8]) -> u64 {
        if effects.is_empty() {
            return self.position();
        }
        let mut header = Header::effects(effects, 0);
        self.taken.fetch_add(effects.len() as u64 + OVERHEAD, Ordering::AcqRel);
        let mut pending = self.pending.lock();
        let was_empty = pending.frames == 0;
        header.position = pending.position;
        let salt = pending.salt;
        pending.bytes.extend_from_slice(&header.encode(salt));
        pending.bytes.extend_from_slice(effects);
        pending.frames += 1;
        pending.position += header.frame_len();
        let position = pending.position;
        self.position.store(position, Ordering::Release);
        drop(pending);
        if was_empty {
            self.work.notify_one();
        }
        position
    }

    /// Whether a base is being made of what the keys hold: then every effect has to be absolute. To be asked in the exclusive mode.
    pub fn is_walked(&self) -> bool {
        self.walks.load(Ordering::Acquire) > 0
    }

    /// A walk for a base begins; it ends when this is dropped. Before the position is taken that the base covers.
    pub(super) fn walk(self: &Arc<Self>) -> AofWalk {
        self.walks.fetch_add(1, Ordering::AcqRel);
        AofWalk(self.clone())
    }

    /// After the last frame appended.
    pub fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    /// Every frame below survives a power loss.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Waits until everything below `position` is durable. Under `always` no reply, of reads included, may leave
    /// before. Under another policy this waits for the next sync, which under `no` may never come.
    pub async fn wait_durable(&self, position: u64) -> Result<(), AofFailed> {
        self.until(|| (self.durable() >= position).then_some(())).await
    }

    /// Has everything appended so far synced, whatever the policy, and waits for it. Returns its position.
    pub async fn sync(&self) -> Result<u64, AofFailed> {
        let position = self.position();
        self.sync_wanted.fetch_max(position, Ordering::AcqRel);
        self.work.notify_one();
        self.wait_durable(position).await?;
        Ok(position)
    }

    /// Lets the log go on in a new segment, and waits for it. Returns the position of its first frame: whatever was appended
    /// before the call lies below.
    pub async fn roll(&self) -> Result<u64, RollError> {
        let ticket = {
            let mut rolls = self.rolls.lock();
            rolls.asked += 1;
            rolls.asked
        };
        self.work.notify_one();
        let answer = self
            .until(|| {
                if self.closed.load(Ordering::Acquire) {
                    return Some(Err("the append-only file is closed".to_owned()));
                }
                let rolls = self.rolls.lock();
                (rolls.answered >= ticket).then(|| rolls.answer.clone())
            })
            .await?;
        answer.map_err(RollError::Refused)
    }

    /// Bytes of the buffers for frames that wait and that are being written.
    pub fn buffer_bytes(&self) -> u64 {
        self.pending.lock().bytes.capacity() as u64 + self.writing_bytes.load(Ordering::Relaxed)
    }

    pub fn size(&self) -> AofSize {
        AofSize {
            current: self.segment_bytes.load(Ordering::Relaxed) + self.sealed.lock().values().sum::<u64>(),
            base: self.base_bytes.load(Ordering::Relaxed),
        }
    }

    /// Whether the log has failed.
    pub fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }

    pub fn policy(&self) -> FsyncPolicy {
        match self.policy.load(Ordering::Acquire) {
            0 => FsyncPolicy::Always,
            1 => FsyncPolicy::EverySec,
            _ => FsyncPolicy::No,
        }
    }

    /// Takes effect at once, also for what was appended before.
    pub fn set_policy(&self, policy: FsyncPolicy) {
        self.policy.store(policy as u32, Ordering::Release);
        self.work.notify_one();
    }

    pub fn last_sync(&self) -> SyncTimes {
        *self.sync_times.lock()
    }

    /// Writes and syncs what was appended and ends the task. Nothing may be appended afterwards.
    pub async fn close(&self) -> Result<(), AofFailed> {
        self.closing.store(true, Ordering::Release);
        self.work.notify_one();
        self.until(|| self.closed.load(Ordering::Acquire).then_some(())).await
    }

    /// Resolves once the log cannot be written any more; the process then ends with this error.
    pub async fn failed(&self) -> AofFailed {
        match self.until(|| None::<std::convert::Infallible>).await {
            Ok(never) => match never {},
            Err(failed) => failed,
        }
    }

    /// Waits for `check` to give a value, looking again whenever the task has news.
    async fn until<T>(&self, check: impl Fn() -> Option<T>) -> Result<T, AofFailed> {
        loop {
            // Made before the check: news between the check and the await is not missed.
            let news = self.news.notified();
            if let Some(value) = check() {
                return Ok(value);
            }
            if let Some(failed) = self.failure.get() {
                return Err(failed.clone());
            }
            news.await;
        }
    }

    pub(super) async fn work(&self) {
        self.work.notified().await;
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Swaps the frames appended so far into the empty `into`.
    pub(super) fn take_pending(&self, into: &mut Vec<u8>) -> Group {
        let mut pending = self.pending.lock();
        mem::swap(&mut pending.bytes, into);
        self.writing_bytes.store(into.capacity() as u64, Ordering::Relaxed);
        Group { frames: mem::take(&mut pending.frames), position: pending.position }
    }

    /// Bytes that can still be promised, or how many too many are.
    pub(super) fn space(&self) -> Result<u64, u64> {
        let (granted, taken) = (self.granted.load(Ordering::Acquire), self.taken.load(Ordering::Acquire));
        granted.checked_sub(taken).ok_or(taken.saturating_sub(granted))
    }

    /// The last of the requests for a new segment that are not answered yet.
    pub(super) fn roll_request(&self) -> Option<u64> {
        let rolls = self.rolls.lock();
        (rolls.asked > rolls.answered).then_some(rolls.asked)
    }

    pub(super) fn answer_rolls(&self, ticket: u64, answer: Result<u64, String>) {
        let mut rolls = self.rolls.lock();
        rolls.answered = ticket;
        rolls.answer = answer;
        drop(rolls);
        self.news.notify_waiters();
    }

    pub(super) fn sync_wanted(&self) -> u64 {
        self.sync_wanted.load(Ordering::Acquire)
    }

    /// The log goes on in a segment with another salt: what waits to be written takes that.
    pub(super) fn switch_salt(&self, salt: u64) {
        let mut pending = self.pending.lock();
        let before = mem::replace(&mut pending.salt, salt);
        resalt(&mut pending.bytes, before, salt);
    }

    pub(super) fn set_segment_bytes(&self, bytes: u64) {
        self.segment_bytes.store(bytes, Ordering::Relaxed);
    }

    /// A file, other than the segment that is written, belongs to the log.
    pub(crate) fn file_sealed(&self, number: u64, bytes: u64) {
        self.sealed.lock().insert(number, bytes);
    }

    /// A file belongs to the log no more.
    pub(crate) fn file_gone(&self, number: u64) {
        self.sealed.lock().remove(&number);
    }

    pub(crate) fn set_base_bytes(&self, bytes: u64) {
        self.base_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn grant(&self, bytes: u64) {
        self.granted.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(super) fn give_back(&self, bytes: u64) {
        let before = self.taken.fetch_sub(bytes, Ordering::AcqRel);
        debug_assert!(before >= bytes, "gives back {bytes} bytes of {before} taken");
    }

    /// The last of the requests not yet answered, and the largest of them in bytes.
    pub(super) fn space_request(&self) -> Option<(u64, u64)> {
        let requests = self.requests.lock();
        (requests.asked > requests.answered).then_some((requests.asked, requests.bytes_max))
    }

    pub(super) fn answer_requests(&self, ticket: u64, answer: Result<(), NoSpace>) {
        let mut requests = self.requests.lock();
        requests.answered = ticket;
        requests.answer = answer;
        if requests.asked == ticket {
            requests.bytes_max = 0;
        }
        drop(requests);
        self.news.notify_waiters();
    }

    pub(super) fn became_durable(&self, position: u64, started_ns: u64, ended_ns: u64) -> SyncTimes {
        let times = {
            let mut times = self.sync_times.lock();
            *times = SyncTimes { count: times.count + 1, started_ns, ended_ns };
            *times
        };
        self.durable.store(position, Ordering::Release);
        self.news.notify_waiters();
        times
    }

    pub(super) fn fail(&self, failed: AofFailed) {
        if self.failure.set(failed).is_ok() {
            self.news.notify_waiters();
        }
    }

    pub(super) fn closed(&self) {
        self.closed.store(true, Ordering::Release);
        self.news.notify_waiters();
    }
}

/// Fails the log when its task ends in any other way than by closing, so that nobody waits for ever.
pub(super) struct TaskGuard<'a> {
    pub aof: &'a Aof,
    /// The segment at the start.
    pub path: PathBuf,
}

impl Drop for TaskGuard<'_> {
    fn drop(&mut self) {
        if !self.aof.closed.load(Ordering::Acquire) {
            self.aof.fail(AofFailed::stopped(&self.path));
        }
    }
}
