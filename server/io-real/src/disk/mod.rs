//! Files. The log device runs on the worker's own ring, sequential files on tokio-uring; without io_uring
//! both run on a pool of threads.

mod map;
mod pool;
pub(crate) mod ring;
mod transfer;

pub(crate) use pool::{later, start as start_pool};

pub use map::RealMap;

use std::cell::{Cell, OnceCell};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ferrite_io::{AlignedBuf, Disk, Done, File, OpenMode, SubmissionId};

use ring::Ring;
use transfer::Transfers;

/// Where the worker's number begins in a submission's id: below it are 8 years at a million submissions a second.
const WORKER_SHIFT: u32 = 48;

/// Numbers the submissions of one worker, uniquely in the process. The first worker's are 1, 2, 3 …
pub(crate) struct Submissions {
    next: Cell<u64>,
}

impl Submissions {
    fn new() -> Self {
        static WORKERS: AtomicU64 = AtomicU64::new(0);
        let worker = WORKERS.fetch_add(1, Ordering::Relaxed);
        // An id is exported as a signed integer.
        assert!(worker < 1 << (63 - WORKER_SHIFT), "more workers than submission ids provide for");
        Self { next: Cell::new((worker << WORKER_SHIFT) + 1) }
    }

    fn next(&self) -> SubmissionId {
        SubmissionId(self.next.replace(self.next.get() + 1))
    }
}

/// One worker's disk.
#[derive(Clone)]
pub struct RealDisk {
    shared: Rc<Shared>,
}

/// What a worker's files have in common.
struct Shared {
    /// `None`: io_uring may be used. Otherwise why not.
    fallback: Option<String>,
    ring: OnceCell<Rc<Ring>>,
    submissions: Rc<Submissions>,
    direct_refused: Cell<bool>,
    map_copies: Cell<bool>,
}

impl RealDisk {
    /// `fallback` is the reason why io_uring does not serve; `None` promises a tokio-uring runtime around.
    pub(crate) fn new(fallback: Option<String>) -> io::Result<Self> {
        start_pool()?;
        Ok(Self {
            shared: Rc::new(Shared {
                fallback,
                ring: OnceCell::new(),
                submissions: Rc::new(Submissions::new()),
                direct_refused: Cell::new(false),
                map_copies: Cell::new(false),
            }),
        })
    }

    /// Why `io-threads` serves and not io_uring; `None` if io_uring does.
    pub fn fallback_reason(&self) -> Option<&str> {
        self.shared.fallback.as_deref()
    }

    /// Whether a file system refused `O_DIRECT`, so that device reads go through the page cache.
    pub fn direct_refused(&self) -> bool {
        self.shared.direct_refused.get()
    }

    /// Whether a map had to be copied to anonymous memory because `mlock` was refused (`RLIMIT_MEMLOCK`).
    pub fn map_copies(&self) -> bool {
        self.shared.map_copies.get()
    }

    fn ring(&self) -> io::Result<Rc<Ring>> {
        if let Some(ring) = self.shared.ring.get() {
            return Ok(ring.clone());
        }
        let ring = Ring::start(self.shared.submissions.clone())?;
        Ok(self.shared.ring.get_or_init(|| ring).clone())
    }
}

impl Disk for RealDisk {
    type File = RealFile;
    type Lock = RealLock;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<RealFile> {
        let path = path.to_owned();
        let (file, direct) = pool::run(move || open(&path, mode)).await?;
        let file = Arc::new(file);
        let direct = match direct {
            Some(Ok(direct)) => Some(Arc::new(direct)),
            Some(Err(_)) => {
                self.shared.direct_refused.set(true);
                None
            }
            None => None,
        };
        let transfers = match (&self.shared.fallback, mode) {
            (None, OpenMode::Device) => Transfers::Ring(self.ring()?),
            (None, OpenMode::Sequential | OpenMode::ReadOnly) => {
                Transfers::TokioUring(tokio_uring::fs::File::from_std(file.try_clone()?))
            }
            (Some(_), _) => Transfers::Threads,
        };
        Ok(RealFile { open: Rc::new(Open { file, direct, transfers, shared: self.shared.clone() }) })
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        pool::run(move || fs::create_dir_all(path)).await
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let path = path.to_owned();
        pool::run(move || list(&path)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        pool::run(move || fs::rename(from, to)).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        pool::run(move || fs::remove_file(path)).await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        pool::run(move || fs::File::open(path)?.sync_all()).await
    }

    fn lock(&self, path: &Path) -> io::Result<RealLock> {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(RealLock { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn backend(&self) -> &'static str {
        if self.shared.fallback.is_none() { "io_uring" } else { "io-threads" }
    }
}

/// Opens for buffered access, and a device once more for direct reads (the inner result: `O_DIRECT` refused).
fn open(path: &Path, mode: OpenMode) -> io::Result<(fs::File, Option<io::Result<fs::File>>)> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    match mode {
        OpenMode::ReadOnly => Ok((options.open(path)?, None)),
        OpenMode::Sequential => Ok((options.write(true).create(true).truncate(false).open(path)?, None)),
        OpenMode::Device => {
            let file = options.write(true).create(true).truncate(false).open(path)?;
            match fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path) {
                Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(error),
                direct => Ok((file, Some(direct))),
            }
        }
    }
}

fn list(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The lock on a data directory: `flock(2)` on an open file, which the kernel releases even after `kill -9`.
#[derive(Debug)]
pub struct RealLock {
    _file: fs::File,
}

/// An open file of one worker.
#[derive(Clone)]
pub struct RealFile {
    open: Rc<Open>,
}

struct Open {
    file: Arc<fs::File>,
    direct: Option<Arc<fs::File>>,
    transfers: Transfers,
    shared: Rc<Shared>,
}

impl File for RealFile {
    type Map = RealMap;

    async fn read_at(&self, buf: AlignedBuf, offset: u64) -> Done {
        let Open { file, direct, transfers, shared } = &*self.open;
        let (file, is_direct) = direct.as_ref().map_or((file, false), |direct| (direct, true));
        transfers.read(file, is_direct, buf, offset, &shared.submissions).await
    }

    async fn write_at(&self, buf: AlignedBuf, offset: u64) -> Done {
        self.open.transfers.write(&self.open.file, buf, offset, &self.open.shared.submissions).await
    }

    async fn sync(&self) -> io::Result<()> {
        self.open.transfers.sync(&self.open.file).await
    }

    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.open.transfers.allocate(&self.open.file, offset, len).await
    }

    async fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.open.transfers.punch(&self.open.file, offset, len).await
    }

    async fn len(&self) -> io::Result<u64> {
        // The inode of an open file is in memory: no wait.
        Ok(self.open.file.metadata()?.len())
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        let file = self.open.file.clone();
        pool::run(move || file.set_len(len)).await
    }

    /// Elsewhere: where the lock is refused, the range is read and copied.
    async fn map(&self, offset: u64, len: usize) -> io::Result<RealMap> {
        let file = self.open.file.clone();
        let map = pool::run(move || map::map(&file, offset, len)).await?;
        if map.is_copy() {
            self.open.shared.map_copies.set(true);
        }
        Ok(map)
    }

    fn drop_cache(&self, offset: u64, len: u64) {
        let (Ok(offset), Ok(len)) = (offset.try_into(), len.try_into()) else {
            return;
        };
        let file = self.open.file.clone();
        // Elsewhere: the kernel submits the writes before it returns.
        later(Box::new(move || drop_cache(&file, offset, len)));
    }
}

/// What was written and has not reached the disk is begun to be written, and stays cached. A failure is none of the caller's:
/// the pages only stay cached. (`sync_file_range` would wait for them, but take the error of a write away from the next sync.)
fn drop_cache(file: &fs::File, offset: i64, len: i64) {
    // SAFETY: the descriptor is open; the call changes no memory of ours.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, len, libc::POSIX_FADV_DONTNEED) };
}
