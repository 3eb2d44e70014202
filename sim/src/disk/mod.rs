//! SimDisk: files in memory whose I/O takes time, completes out of order, fails by plan, and stops with the power.

mod aimed;
mod inode;
mod state;

use std::future::pending;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ferrite_io::{AlignedBuf, BLOCK, Disk, Done, File, Mapping, OpenMode, SubmissionId};
use tokio::sync::oneshot;

use crate::log::{Event, IoKind, StableHasher, fingerprint};
use crate::plan::FaultPlan;
use crate::sim::{Core, HostState, lock};
use crate::world::Latency;
pub use aimed::ReadFault;
use inode::SECTOR;
pub(crate) use state::DiskState;

/// EIO and ENOSPC of Linux, so that the product meets the errors it would meet there.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// How soon a read that is held back sees that it is not any more.
const HELD_LOOK: Latency = Latency::Sleep(Duration::from_millis(1));

/// One process's view of its host's disk.
#[derive(Clone)]
pub struct SimDisk {
    core: Arc<Core>,
    host: Arc<HostState>,
    life: u64,
}

/// What the log says of an operation before it happens.
struct Request {
    io: IoKind,
    target: u64,
    offset: u64,
    len: u64,
    hash: u64,
}

impl Request {
    fn of_path(io: IoKind, path: &Path) -> Self {
        Self { io, target: StableHasher::of(path.as_os_str().as_encoded_bytes()), offset: 0, len: 0, hash: 0 }
    }
}

/// What an operation gives to its caller and what the log says of it.
struct Outcome<T> {
    value: T,
    result: Result<usize, ErrorKind>,
    hash: u64,
}

fn outcome<T>(result: io::Result<T>) -> Outcome<io::Result<T>> {
    let code = result.as_ref().map(|_| 0).map_err(io::Error::kind);
    Outcome { value: result, result: code, hash: 0 }
}

impl SimDisk {
    pub(crate) fn new(core: Arc<Core>, host: Arc<HostState>, life: u64) -> Self {
        Self { core, host, life }
    }

    /// Counts a disk event; true if it was the one at which the power goes.
    fn strikes(core: &Core, host: &HostState) -> bool {
        let now = lock(&host.disk).tick();
        if now {
            core.power_loss(host);
        }
        now
    }

    /// Runs `work` on the disk after a delay. It happens even if nobody waits for it any more, as a submitted SQE does,
    /// and it does not if the power goes first; then the caller waits for ever.
    async fn submit<T: Send + 'static>(
        &self,
        request: Request,
        on_submit: impl FnOnce(&mut DiskState, u64),
        work: impl FnOnce(&mut DiskState, &FaultPlan, u64) -> Outcome<T> + Send + 'static,
    ) -> (SubmissionId, T) {
        if self.host.is_over(self.life) {
            return pending().await;
        }
        let id = self.core.submissions.fetch_add(1, Ordering::Relaxed) + 1;
        let Request { io, target, offset, len, hash } = request;
        self.core.record(Event::Submit { host: self.host.id, id, io, target, offset, len, hash });
        let (session, latency) = {
            let mut disk = lock(&self.host.disk);
            on_submit(&mut disk, id);
            let slow = if io == IoKind::Read || io == IoKind::Open { disk.aimed.submit(id, target) } else { None };
            let spike = self.core.faults().disk_latency && disk.rng.one_in(20);
            let latency = if let Some(time) = slow {
                Latency::Sleep(time)
            } else if spike {
                Latency::Sleep(Duration::from_millis(disk.rng.between(5, 80)))
            } else {
                Latency::draw(&mut disk.rng)
            };
            (disk.session, latency)
        };
        if Self::strikes(&self.core, &self.host) {
            return pending().await;
        }
        let (sender, receiver) = oneshot::channel();
        let (core, host) = (self.core.clone(), self.host.clone());
        self.core.hardware.spawn(async move {
            latency.wait().await;
            while io == IoKind::Read && {
                let disk = lock(&host.disk);
                disk.reads_held && disk.session == session
            } {
                HELD_LOOK.wait().await;
            }
            let value = {
                let mut disk = lock(&host.disk);
                if disk.session != session {
                    return;
                }
                let Outcome { value, result, hash } = work(&mut disk, &core.faults(), id);
                core.record(Event::Done { host: host.id, id, result, hash });
                value
            };
            if !Self::strikes(&core, &host) {
                // The caller may have gone.
                let _ = sender.send(value);
            }
        });
        match receiver.await {
            Ok(value) if !self.host.is_over(self.life) => (SubmissionId(id), value),
            _ => pending().await,
        }
    }

    async fn on_names<T: Send + 'static>(
        &self,
        io: IoKind,
        path: &Path,
        work: impl FnOnce(&mut DiskState) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let request = Request::of_path(io, path);
        let work = move |disk: &mut DiskState, _: &FaultPlan, id: u64| match disk.aimed.take(id) {
            Some(ReadFault::Refused) => outcome(Err(io::Error::from_raw_os_error(EIO))),
            _ => outcome(work(disk)),
        };
        self.submit(request, |_, _| {}, work).await.1
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    type Lock = SimLock;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<SimFile> {
        let (wanted, create) = (path.to_path_buf(), mode != OpenMode::ReadOnly);
        let ino = self.on_names(IoKind::Open, path, move |disk| disk.open(&wanted, create)).await?;
        Ok(SimFile { disk: self.clone(), ino, mode })
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let wanted = path.to_path_buf();
        self.on_names(IoKind::Open, path, move |disk| disk.create_dir_all(&wanted)).await
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let wanted = path.to_path_buf();
        self.on_names(IoKind::Read, path, move |disk| disk.list(&wanted)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, wanted) = (from.to_path_buf(), to.to_path_buf());
        self.on_names(IoKind::Rename, to, move |disk| disk.rename(&from, &wanted)).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let wanted = path.to_path_buf();
        self.on_names(IoKind::Remove, path, move |disk| disk.remove(&wanted)).await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let wanted = path.to_path_buf();
        let request = Request::of_path(IoKind::SyncDir, path);
        let work = move |disk: &mut DiskState, faults: &FaultPlan, _| {
            if disk.syncs_fail || faults.disk_sync_error && disk.rng.one_in(50) {
                return outcome(Err(io::Error::from_raw_os_error(EIO)));
            }
            outcome(disk.sync_dir(&wanted))
        };
        self.submit(request, |_, _| {}, work).await.1
    }

    fn lock(&self, path: &Path) -> io::Result<SimLock> {
        let number = lock(&self.host.disk).lock(path)?;
        Ok(SimLock { host: self.host.clone(), path: path.to_path_buf(), number })
    }

    fn backend(&self) -> &'static str {
        "simulated"
    }
}

/// A held lock. It ends with the process that took it.
pub struct SimLock {
    host: Arc<HostState>,
    path: PathBuf,
    number: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        lock(&self.host.disk).unlock(&self.path, self.number);
    }
}

/// An open file.
#[derive(Clone)]
pub struct SimFile {
    disk: SimDisk,
    ino: u64,
    mode: OpenMode,
}

/// A copy of what a file held when it was mapped.
#[derive(Clone, Debug)]
pub struct SimMap(Arc<[u8]>);

impl AsRef<[u8]> for SimMap {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Mapping for SimMap {}

/// What O_DIRECT and mmap demand.
fn is_aligned(offset: u64, len: usize) -> bool {
    offset.is_multiple_of(BLOCK as u64) && len.is_multiple_of(BLOCK)
}

/// The bytes of `image` from `offset`, as many as `buf` takes.
fn copy_out(image: &[u8], offset: u64, buf: &mut [u8]) -> usize {
    let start = (offset as usize).min(image.len());
    let len = buf.len().min(image.len() - start);
    buf[..len].copy_from_slice(&image[start..start + len]);
    len
}

/// Reads with the faults by which a disk gives wrong bytes.
fn read(
    disk: &mut DiskState,
    faults: &FaultPlan,
    aimed: Option<ReadFault>,
    (ino, offset): (u64, u64),
    buf: &mut [u8],
) -> io::Result<usize> {
    let is_bad = disk.reads_fail || disk.is_bad(ino, offset, buf.len() as u64);
    if is_bad || aimed == Some(ReadFault::Refused) || faults.disk_read_error && disk.rng.one_in(100) {
        return Err(io::Error::from_raw_os_error(EIO));
    }
    let stale = faults.disk_stale_read && disk.rng.one_in(200);
    let misdirected = faults.disk_misdirected_read && disk.rng.one_in(200);
    let rotten = faults.disk_bit_rot && disk.rng.one_in(200);
    let blocks = disk.inode(ino).data().len() as u64 / BLOCK as u64;
    let from = if misdirected { disk.rng.below(blocks.max(1)) * BLOCK as u64 } else { offset };
    let short = faults.disk_short_read && disk.rng.one_in(100);
    let most = if short { disk.rng.below(buf.len() as u64 / SECTOR) * SECTOR } else { buf.len() as u64 };
    let most = if aimed == Some(ReadFault::Short) { aimed::short(&mut disk.rng, most as usize) as u64 } else { most };
    let inode = disk.inode(ino);
    let len = copy_out(if stale { inode.durable() } else { inode.data() }, from, &mut buf[..most as usize]);
    if rotten {
        aimed::flip(&mut disk.rng, &mut buf[..len]);
    }
    if aimed == Some(ReadFault::Rotten) {
        aimed::rot(&mut disk.rng, &mut buf[..len]);
    }
    Ok(len)
}

/// Writes all of `bytes`, or a part and an error.
fn write(disk: &mut DiskState, faults: &FaultPlan, ino: u64, offset: u64, bytes: &[u8]) -> io::Result<usize> {
    if disk.refuses_writes(ino) {
        return Err(io::Error::from_raw_os_error(EIO));
    }
    if faults.disk_write_error && disk.rng.one_in(100) {
        let sectors = disk.rng.below(bytes.len() as u64 / SECTOR + 1);
        disk.inode(ino).write(offset, &bytes[..(sectors * SECTOR) as usize]);
        return Err(io::Error::from_raw_os_error(EIO));
    }
    let needed = disk.inode(ino).space_needed(offset, bytes.len() as u64);
    if !disk.has_space(needed) {
        return Err(io::Error::from_raw_os_error(ENOSPC));
    }
    disk.inode(ino).write(offset, bytes);
    Ok(bytes.len())
}

impl SimFile {
    fn request(&self, io: IoKind, offset: u64, len: u64, hash: u64) -> Request {
        Request { io, target: self.ino, offset, len, hash }
    }

    fn refused(buf: AlignedBuf, kind: ErrorKind) -> Done {
        Done { result: Err(kind.into()), buf, id: SubmissionId(0) }
    }

    /// Runs `work` on this file's inode as one I/O.
    async fn on_inode<T: Send + 'static>(
        &self,
        request: Request,
        work: impl FnOnce(&mut DiskState, &FaultPlan, u64) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let ino = self.ino;
        self.disk.submit(request, |_, _| {}, move |disk, faults, _| outcome(work(disk, faults, ino))).await.1
    }
}

impl File for SimFile {
    type Map = SimMap;

    async fn read_at(&self, mut buf: AlignedBuf, offset: u64) -> Done {
        if self.mode == OpenMode::Device && !is_aligned(offset, buf.len()) {
            return Self::refused(buf, ErrorKind::InvalidInput);
        }
        let request = self.request(IoKind::Read, offset, buf.len() as u64, 0);
        let ino = self.ino;
        let work = move |disk: &mut DiskState, faults: &FaultPlan, id| {
            let aimed = disk.aimed.take(id);
            let result = read(disk, faults, aimed, (ino, offset), &mut buf);
            let hash = fingerprint(&buf[..*result.as_ref().unwrap_or(&0)]);
            let code = result.as_ref().copied().map_err(io::Error::kind);
            Outcome { value: (result, buf), result: code, hash }
        };
        let (id, (result, buf)) = self.disk.submit(request, |_, _| {}, work).await;
        Done { result, buf, id }
    }

    async fn write_at(&self, buf: AlignedBuf, offset: u64) -> Done {
        if self.mode == OpenMode::ReadOnly {
            return Self::refused(buf, ErrorKind::PermissionDenied);
        }
        let request = self.request(IoKind::Write, offset, buf.len() as u64, fingerprint(&buf));
        let ino = self.ino;
        let on_the_way = (ino, offset, buf.to_vec());
        let on_submit = move |disk: &mut DiskState, id: u64| {
            disk.on_the_way.insert(id, on_the_way);
        };
        let work = move |disk: &mut DiskState, faults: &FaultPlan, id: u64| {
            disk.on_the_way.remove(&id);
            let result = write(disk, faults, ino, offset, &buf);
            let code = result.as_ref().copied().map_err(io::Error::kind);
            Outcome { value: (result, buf), result: code, hash: 0 }
        };
        let (id, (result, buf)) = self.disk.submit(request, on_submit, work).await;
        Done { result, buf, id }
    }

    async fn sync(&self) -> io::Result<()> {
        if self.disk.host.is_over(self.disk.life) {
            return pending().await;
        }
        let point = lock(&self.disk.host.disk).inode(self.ino).sync_point();
        let work = move |disk: &mut DiskState, faults: &FaultPlan, ino: u64| {
            if disk.syncs_fail || faults.disk_sync_error && disk.rng.one_in(50) {
                let mut rng = disk.rng.clone();
                disk.inode(ino).fail_sync(&mut rng);
                disk.rng = rng;
                return Err(io::Error::from_raw_os_error(EIO));
            }
            disk.inode(ino).sync(point);
            Ok(())
        };
        self.on_inode(self.request(IoKind::Sync, 0, 0, 0), work).await
    }

    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let work = move |disk: &mut DiskState, _: &FaultPlan, ino: u64| {
            if disk.refuses_allocations(ino) {
                return Err(io::Error::from_raw_os_error(EIO));
            }
            let needed = disk.inode(ino).space_needed(offset, len);
            if !disk.has_space(needed) {
                return Err(io::Error::from_raw_os_error(ENOSPC));
            }
            disk.inode(ino).allocate(offset, len);
            Ok(())
        };
        self.on_inode(self.request(IoKind::Allocate, offset, len, 0), work).await
    }

    async fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        if !is_aligned(offset, len as usize) {
            return Err(ErrorKind::InvalidInput.into());
        }
        let work = move |disk: &mut DiskState, faults: &FaultPlan, ino: u64| {
            if faults.disk_write_error && disk.rng.one_in(100) {
                return Err(io::Error::from_raw_os_error(EIO));
            }
            disk.inode(ino).punch(offset, len);
            Ok(())
        };
        self.on_inode(self.request(IoKind::Punch, offset, len, 0), work).await
    }

    async fn len(&self) -> io::Result<u64> {
        if self.disk.host.is_over(self.disk.life) {
            return pending().await;
        }
        Ok(lock(&self.disk.host.disk).inode(self.ino).data().len() as u64)
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        let work = move |disk: &mut DiskState, _: &FaultPlan, ino: u64| {
            disk.inode(ino).set_len(len);
            Ok(())
        };
        self.on_inode(self.request(IoKind::SetLen, len, 0, 0), work).await
    }

    async fn map(&self, offset: u64, len: usize) -> io::Result<SimMap> {
        if !is_aligned(offset, len) {
            return Err(ErrorKind::InvalidInput.into());
        }
        // The tasks of a dead process are dropped, but the poll in which it died goes on.
        if self.disk.host.is_over(self.disk.life) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let mut disk = lock(&self.disk.host.disk);
        let data = disk.inode(self.ino).data();
        let start = offset as usize;
        match data.get(start..start + len) {
            Some(bytes) => Ok(SimMap(bytes.into())),
            // What populating a map past the end of a file answers: EFAULT.
            None => Err(io::Error::from_raw_os_error(14)),
        }
    }

    fn drop_cache(&self, _: u64, _: u64) {}
}
