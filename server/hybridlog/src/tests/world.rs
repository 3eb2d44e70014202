//! A World with a log's two files in memory, switches for its faults, and an executor that stops when nothing can go on.

use ferrite_io::{
    AlignedBuf, Clock, Disk, Done, Entropy, File, Listener, Mapping, Network, OpenMode, Stream, SubmissionId, World,
};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What the tests turn.
#[derive(Default)]
pub(crate) struct Switches {
    /// The file may not grow beyond this and what it gave back; 0: no limit.
    pub(crate) capacity: AtomicU64,
    pub(crate) writes_fail: AtomicBool,
    pub(crate) maps_fail: AtomicBool,
    pub(crate) writes: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    /// A read gives so many bytes at most; 0: all.
    pub(crate) read_max: AtomicU64,
    /// Reads that go beyond this offset fail; 0: none does.
    pub(crate) unreadable_from: AtomicU64,
    /// Bytes given back.
    pub(crate) punched: AtomicU64,
    submissions: AtomicU64,
}

#[derive(Clone, Default)]
pub(crate) struct FakeDisk {
    pub(crate) bytes: Arc<Mutex<Vec<u8>>>,
    pub(crate) extents: Arc<Mutex<Vec<u8>>>,
    pub(crate) switches: Arc<Switches>,
}

pub(crate) type FakeFile = FakeDisk;

pub(crate) struct Lock;

impl Disk for FakeDisk {
    type File = FakeFile;
    type Lock = Lock;

    async fn open(&self, path: &Path, _: OpenMode) -> io::Result<FakeFile> {
        let mut file = self.clone();
        if path.extension().is_some_and(|extension| extension == "extents") {
            file.bytes = self.extents.clone();
        }
        Ok(file)
    }
    async fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    async fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
    async fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }
    async fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    async fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, _: &Path) -> io::Result<Lock> {
        Ok(Lock)
    }
    fn backend(&self) -> &'static str {
        "memory"
    }
}

/// Answers on the next turn, so that operations overlap.
async fn later() {
    let mut first = true;
    std::future::poll_fn(|cx| {
        if std::mem::take(&mut first) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await
}

impl FakeDisk {
    fn done(&self, result: io::Result<usize>, buf: AlignedBuf) -> Done {
        Done { result, buf, id: SubmissionId(self.switches.submissions.fetch_add(1, Ordering::Relaxed)) }
    }

    fn grow(&self, end: u64) -> io::Result<()> {
        let capacity = self.switches.capacity.load(Ordering::Relaxed);
        if capacity != 0 && end > capacity + self.switches.punched.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut bytes = self.bytes.lock().unwrap();
        if bytes.len() < end as usize {
            bytes.resize(end as usize, 0);
        }
        Ok(())
    }
}

impl File for FakeFile {
    type Map = FakeMap;

    async fn read_at(&self, mut buf: AlignedBuf, offset: u64) -> Done {
        assert!(offset.is_multiple_of(4096) && buf.len().is_multiple_of(4096), "direct reads are aligned");
        self.switches.reads.fetch_add(1, Ordering::Relaxed);
        self.switches.read_bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        later().await;
        let unreadable_from = self.switches.unreadable_from.load(Ordering::Relaxed);
        if unreadable_from != 0 && offset + buf.len() as u64 > unreadable_from {
            return self.done(Err(io::Error::from_raw_os_error(5)), buf);
        }
        let read = {
            let bytes = self.bytes.lock().unwrap();
            let from = bytes.get(offset as usize..).unwrap_or(&[]);
            let most = match self.switches.read_max.load(Ordering::Relaxed) {
                0 => usize::MAX,
                most => most as usize,
            };
            let read = from.len().min(buf.len()).min(most);
            buf[..read].copy_from_slice(&from[..read]);
            read
        };
        self.done(Ok(read), buf)
    }
    async fn write_at(&self, buf: AlignedBuf, offset: u64) -> Done {
        self.switches.writes.fetch_add(1, Ordering::Relaxed);
        later().await;
        if self.switches.writes_fail.load(Ordering::Relaxed) {
            return self.done(Err(io::Error::from_raw_os_error(5)), buf);
        }
        let end = offset + buf.len() as u64;
        if let Err(error) = self.grow(end) {
            return self.done(Err(error), buf);
        }
        self.bytes.lock().unwrap()[offset as usize..end as usize].copy_from_slice(&buf);
        let len = buf.len();
        self.done(Ok(len), buf)
    }
    async fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.grow(offset + len)
    }
    async fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        assert!(offset.is_multiple_of(4096) && len.is_multiple_of(4096), "holes are of whole blocks");
        let mut bytes = self.bytes.lock().unwrap();
        let end = bytes.len().min((offset + len) as usize);
        bytes[offset as usize..end].fill(0);
        self.switches.punched.fetch_add(end as u64 - offset, Ordering::Relaxed);
        Ok(())
    }
    async fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }
    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }
    async fn map(&self, offset: u64, len: usize) -> io::Result<FakeMap> {
        if self.switches.maps_fail.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let bytes = self.bytes.lock().unwrap();
        let range = bytes.get(offset as usize..offset as usize + len).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(FakeMap(AlignedBuf::copy_of(range)))
    }
    fn drop_cache(&self, _: u64, _: u64) {}
}

pub(crate) struct FakeMap(AlignedBuf);

impl AsRef<[u8]> for FakeMap {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
impl Mapping for FakeMap {}

impl Drop for FakeMap {
    fn drop(&mut self) {
        // Whoever reads a released page reads this.
        self.0.fill(0xdd);
    }
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// One worker's view; its tasks run in [`FakeWorld::run`].
#[derive(Clone)]
pub(crate) struct FakeWorld {
    pub(crate) disk: FakeDisk,
    network: FakeNetwork,
    clock: FakeClock,
    entropy: FakeEntropy,
    tasks: Rc<RefCell<Tasks>>,
}

#[derive(Default)]
struct Tasks {
    all: Vec<Option<(Arc<Flag>, Task)>>,
    new: VecDeque<Task>,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl FakeWorld {
    pub(crate) fn new(disk: FakeDisk) -> Self {
        Self { disk, network: FakeNetwork, clock: FakeClock, entropy: FakeEntropy, tasks: Rc::default() }
    }

    pub(crate) fn start(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.borrow_mut().new.push_back(Box::pin(task));
    }

    /// Runs tasks until none can go on.
    pub(crate) fn run(&self) {
        while self.turn() {}
    }

    /// Polls every woken task once.
    pub(crate) fn turn(&self) -> bool {
        let mut any = false;
        let mut at = 0;
        loop {
            let mut task = {
                let mut tasks = self.tasks.borrow_mut();
                while let Some(new) = tasks.new.pop_front() {
                    tasks.all.push(Some((Arc::new(Flag(AtomicBool::new(true))), new)));
                }
                if at == tasks.all.len() {
                    tasks.all.retain(Option::is_some);
                    return any;
                }
                at += 1;
                match &tasks.all[at - 1] {
                    Some((flag, _)) if flag.0.swap(false, Ordering::SeqCst) => tasks.all[at - 1].take().unwrap(),
                    _ => continue,
                }
            };
            any = true;
            let waker = Waker::from(task.0.clone());
            if task.1.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                self.tasks.borrow_mut().all[at - 1] = Some(task);
            }
        }
    }

    /// Runs the tasks until `future` is done; panics if it never will be.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(flag.clone());
        for idle in 0.. {
            if flag.0.swap(false, Ordering::SeqCst)
                && let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return value;
            }
            if self.turn() || flag.0.load(Ordering::SeqCst) {
                continue;
            }
            assert!(idle < 10_000_000, "waits for ever");
            std::thread::yield_now();
        }
        unreachable!()
    }
}

impl World for FakeWorld {
    type Network = FakeNetwork;
    type Disk = FakeDisk;
    type Clock = FakeClock;
    type Entropy = FakeEntropy;

    fn network(&self) -> &FakeNetwork {
        &self.network
    }
    fn disk(&self) -> &FakeDisk {
        &self.disk
    }
    fn clock(&self) -> &FakeClock {
        &self.clock
    }
    fn entropy(&self) -> &FakeEntropy {
        &self.entropy
    }
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.start(task);
    }

    fn elsewhere() -> ferrite_io::Elsewhere {
        |job| job()
    }
}

/// Moves only when someone sleeps.
#[derive(Clone)]
pub(crate) struct FakeClock;

static NOW: AtomicU64 = AtomicU64::new(1);

impl Clock for FakeClock {
    fn monotonic_source() -> fn() -> u64 {
        || NOW.load(Ordering::Relaxed)
    }
    fn unix_ns(&self) -> u64 {
        1
    }
    async fn sleep(&self, duration: Duration) {
        for _ in 0..20 {
            later().await;
        }
        NOW.fetch_add(duration.as_nanos() as u64, Ordering::Relaxed);
    }
}

#[derive(Clone)]
pub(crate) struct FakeEntropy;

impl Entropy for FakeEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(4);
    }
}

#[derive(Clone)]
pub(crate) struct FakeNetwork;

/// There is no network.
pub(crate) enum Never {}

impl Network for FakeNetwork {
    type Bound = ();
    type Listener = Never;
    type Stream = Never;

    fn bind(&self, _: SocketAddr) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn bound_address(&self, _: &()) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn listen(&self, _: &()) -> io::Result<Never> {
        Err(io::ErrorKind::Unsupported.into())
    }
    async fn connect(&self, _: SocketAddr) -> io::Result<Never> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Listener for Never {
    type Stream = Never;
    async fn accept(&self) -> io::Result<(Never, SocketAddr)> {
        match *self {}
    }
}
impl Stream for Never {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        match *self {}
    }
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        match *self {}
    }
}
impl AsyncRead for Never {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }
}
impl AsyncWrite for Never {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        match *self {}
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }
}
