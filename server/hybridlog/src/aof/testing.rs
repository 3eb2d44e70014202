//! A world in memory for tests of files: a disk that loses what was not synced, virtual time, and nothing else.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use ferrite_io::{
    AlignedBuf, Clock, Disk, Done, Entropy, File, Listener, Mapping, Network, OpenMode, Stream, SubmissionId, World,
};

/// One machine: its disk outlives the worlds (processes) that run on it.
#[derive(Clone, Default)]
pub(crate) struct TestWorld {
    pub disk: TestDisk,
    pub clock: TestClock,
    spawned: Rc<RefCell<Vec<Task>>>,
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

impl TestWorld {
    /// The machine after `disk` was put into it.
    pub fn with_disk(disk: TestDisk) -> Self {
        Self { disk, ..Self::default() }
    }

    /// What was spawned, to be run beside a test by [`run_with`]. Never ready.
    pub async fn tasks(&self) {
        let mut running: Vec<Task> = Vec::new();
        poll_fn(|context| {
            running.append(&mut self.spawned.borrow_mut());
            running.retain_mut(|task| task.as_mut().poll(context).is_pending());
            if !self.spawned.borrow().is_empty() {
                context.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        })
        .await;
    }
}

/// Runs a future to its end; time passes only while it waits. Panics if it waits for something that never comes.
pub(crate) fn run<T>(clock: &TestClock, main: impl Future<Output = T>) -> T {
    run_with(clock, main, std::future::pending())
}

/// The same with a task beside it, which is dropped when `main` ends.
pub(crate) fn run_with<T>(clock: &TestClock, main: impl Future<Output = T>, task: impl Future<Output = ()>) -> T {
    struct Flag(AtomicBool);
    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(flag.clone());
    let mut context = Context::from_waker(&waker);
    let (mut main, mut task) = (pin!(main), pin!(task));
    let mut task_ended = false;
    loop {
        flag.0.store(false, Ordering::SeqCst);
        if let Poll::Ready(value) = main.as_mut().poll(&mut context) {
            return value;
        }
        if !task_ended {
            task_ended = task.as_mut().poll(&mut context).is_ready();
        }
        if !flag.0.load(Ordering::SeqCst) && !task_ended {
            assert!(clock.advance_to_next_sleeper(), "every task waits for something that never comes");
        }
    }
}

impl World for TestWorld {
    type Network = NoNetwork;
    type Disk = TestDisk;
    type Clock = TestClock;
    type Entropy = TestEntropy;

    fn network(&self) -> &NoNetwork {
        &NoNetwork
    }

    fn disk(&self) -> &TestDisk {
        &self.disk
    }

    fn clock(&self) -> &TestClock {
        &self.clock
    }

    fn entropy(&self) -> &TestEntropy {
        &TestEntropy
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.spawned.borrow_mut().push(Box::pin(task));
    }

    fn elsewhere() -> ferrite_io::Elsewhere {
        |job| job()
    }
}

#[derive(Clone, Default)]
pub(crate) struct TestClock(Rc<ClockState>);

#[derive(Default)]
struct ClockState {
    now_ns: Cell<u64>,
    sleepers: RefCell<BTreeMap<u64, Vec<Waker>>>,
}

impl TestClock {
    fn advance_to_next_sleeper(&self) -> bool {
        let Some((due_ns, wakers)) = self.0.sleepers.borrow_mut().pop_first() else { return false };
        self.0.now_ns.set(self.0.now_ns.get().max(due_ns));
        wakers.into_iter().for_each(Waker::wake);
        true
    }
}

impl Clock for TestClock {
    fn monotonic_source() -> fn() -> u64 {
        unreachable!("tests ask their own clock");
    }

    fn monotonic_ns(&self) -> u64 {
        self.0.now_ns.get()
    }

    fn unix_ns(&self) -> u64 {
        self.0.now_ns.get()
    }

    async fn sleep(&self, duration: Duration) {
        let due_ns = self.0.now_ns.get() + duration.as_nanos() as u64;
        poll_fn(|context| {
            if self.0.now_ns.get() >= due_ns {
                return Poll::Ready(());
            }
            self.0.sleepers.borrow_mut().entry(due_ns).or_default().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

pub(crate) struct TestEntropy;

impl Clone for TestEntropy {
    fn clone(&self) -> Self {
        Self
    }
}

impl Entropy for TestEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0x5a);
    }
}

/// What goes wrong.
#[derive(Default)]
pub(crate) struct Faults {
    pub fail_sync: bool,
    pub fail_write: bool,
    /// Bytes that may still be allocated; None for endless.
    pub free: Option<u64>,
    /// Seen: writes that made a file with content longer, into space that nobody had reserved.
    pub unreserved_writes: u64,
}

#[derive(Clone, Default)]
pub(crate) struct TestDisk {
    state: Rc<RefCell<DiskState>>,
    pub faults: Rc<RefCell<Faults>>,
}

#[derive(Default)]
struct DiskState {
    /// Names as seen now, and as they were when the directory was synced last.
    names: BTreeMap<PathBuf, Rc<RefCell<Content>>>,
    durable_names: BTreeMap<PathBuf, Rc<RefCell<Content>>>,
    locks: BTreeMap<PathBuf, std::rc::Weak<()>>,
}

#[derive(Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
}

const SECTOR: usize = 512;

impl TestDisk {
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        self.state.borrow().names[path].borrow().live.clone()
    }

    pub fn exists(&self, path: &Path) -> bool {
        self.state.borrow().names.contains_key(path)
    }

    /// Replaces a file's content behind the server's back, durably.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let content = Rc::new(RefCell::new(Content { live: bytes.to_vec(), durable: bytes.to_vec() }));
        let mut state = self.state.borrow_mut();
        state.names.insert(path.to_owned(), content.clone());
        state.durable_names.insert(path.to_owned(), content);
    }

    pub fn delete(&self, path: &Path) {
        let mut state = self.state.borrow_mut();
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    /// The disk after a power loss now: of each sector that differs from what was synced, `fate` says what became of it.
    /// Names that were not synced are kept or lost together, as `names_kept` says.
    pub fn after_power_loss(&self, names_kept: bool, mut fate: impl FnMut() -> Fate) -> TestDisk {
        let state = self.state.borrow();
        let names = if names_kept { &state.names } else { &state.durable_names };
        let after = TestDisk::default();
        for (path, content) in names {
            let content = content.borrow();
            let len = content.live.len().max(content.durable.len());
            let sector = |bytes: &[u8], at: usize| {
                let mut sector = [0; SECTOR];
                let part = bytes.get(at..bytes.len().min(at + SECTOR)).unwrap_or_default();
                sector[..part.len()].copy_from_slice(part);
                sector
            };
            let mut bytes = Vec::new();
            for at in (0..len).step_by(SECTOR) {
                let (live, durable) = (sector(&content.live, at), sector(&content.durable, at));
                bytes.extend_from_slice(&match () {
                    () if live == durable => live,
                    () => match fate() {
                        Fate::Kept => live,
                        Fate::Lost => durable,
                        Fate::Garbage => [0xa5; SECTOR],
                    },
                });
            }
            bytes.truncate(len);
            after.put(path, &bytes);
        }
        after
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Kept,
    Lost,
    Garbage,
}

/// Lets other tasks run, as a real transfer does. More than once, so that a crash can fall between what another task
/// sees and the transfer's end.
async fn transfer() {
    let mut rounds = 2;
    poll_fn(|context| {
        if rounds == 0 {
            return Poll::Ready(());
        }
        rounds -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Disk for TestDisk {
    type File = TestFile;
    type Lock = Rc<()>;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<TestFile> {
        transfer().await;
        let mut state = self.state.borrow_mut();
        if mode == OpenMode::ReadOnly && !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let content = state.names.entry(path.to_owned()).or_default().clone();
        Ok(TestFile { content, faults: self.faults.clone(), is_device: mode == OpenMode::Device })
    }

    async fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        transfer().await;
        let state = self.state.borrow();
        let inside = state.names.keys().filter(|name| name.parent() == Some(path));
        Ok(inside.filter_map(|name| Some(name.file_name()?.to_str()?.to_owned())).collect())
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        transfer().await;
        let mut state = self.state.borrow_mut();
        let content = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), content);
        Ok(())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.state.borrow_mut().names.remove(path).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    async fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        transfer().await;
        let mut state = self.state.borrow_mut();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Rc<()>> {
        let mut state = self.state.borrow_mut();
        if state.locks.get(path).is_some_and(|lock| lock.strong_count() > 0) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let lock = Rc::new(());
        state.locks.insert(path.to_owned(), Rc::downgrade(&lock));
        Ok(lock)
    }

    fn backend(&self) -> &'static str {
        "test"
    }
}

#[derive(Clone)]
pub(crate) struct TestFile {
    content: Rc<RefCell<Content>>,
    faults: Rc<RefCell<Faults>>,
    is_device: bool,
}

impl File for TestFile {
    type Map = NoMap;

    async fn read_at(&self, mut buf: AlignedBuf, offset: u64) -> Done {
        transfer().await;
        let content = self.content.borrow();
        let rest = content.live.get(offset as usize..).unwrap_or_default();
        // Short now and then, as a real read may be, but for a direct one.
        let len = rest.len().min(buf.len()).min(if self.is_device { usize::MAX } else { 3000 });
        buf[..len].copy_from_slice(&rest[..len]);
        Done { result: Ok(len), buf, id: SubmissionId(0) }
    }

    async fn write_at(&self, buf: AlignedBuf, offset: u64) -> Done {
        transfer().await;
        if self.faults.borrow().fail_write {
            return Done { result: Err(io::Error::other("planned write error")), buf, id: SubmissionId(0) };
        }
        let mut content = self.content.borrow_mut();
        let end = offset as usize + buf.len();
        if content.live.len() < end {
            self.faults.borrow_mut().unreserved_writes += u64::from(!content.live.is_empty());
            content.live.resize(end, 0);
        }
        content.live[offset as usize..end].copy_from_slice(&buf);
        Done { result: Ok(buf.len()), buf, id: SubmissionId(0) }
    }

    async fn sync(&self) -> io::Result<()> {
        let at_start = self.content.borrow().live.clone();
        transfer().await;
        if self.faults.borrow().fail_sync {
            return Err(io::Error::other("planned sync error"));
        }
        self.content.borrow_mut().durable = at_start;
        Ok(())
    }

    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        transfer().await;
        if let Some(free) = &mut self.faults.borrow_mut().free {
            *free = free.checked_sub(len).ok_or(io::ErrorKind::StorageFull)?;
        }
        let mut content = self.content.borrow_mut();
        let end = (offset + len) as usize;
        if content.live.len() < end {
            content.live.resize(end, 0);
        }
        Ok(())
    }

    async fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut content = self.content.borrow_mut();
        let end = content.live.len().min((offset + len) as usize);
        content.live[offset as usize..end].fill(0);
        Ok(())
    }

    async fn len(&self) -> io::Result<u64> {
        Ok(self.content.borrow().live.len() as u64)
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.content.borrow_mut().live.resize(len as usize, 0);
        Ok(())
    }

    async fn map(&self, _offset: u64, _len: usize) -> io::Result<NoMap> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn drop_cache(&self, _offset: u64, _len: u64) {}
}

pub(crate) enum NoMap {}

impl AsRef<[u8]> for NoMap {
    fn as_ref(&self) -> &[u8] {
        match *self {}
    }
}

impl Mapping for NoMap {}

#[derive(Clone)]
pub(crate) struct NoNetwork;

pub(crate) enum NoStream {}

impl Network for NoNetwork {
    type Bound = ();
    type Listener = NoStream;
    type Stream = NoStream;

    fn bind(&self, _address: SocketAddr) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn bound_address(&self, (): &()) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn listen(&self, (): &()) -> io::Result<NoStream> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect(&self, _address: SocketAddr) -> io::Result<NoStream> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Listener for NoStream {
    type Stream = NoStream;

    async fn accept(&self) -> io::Result<(NoStream, SocketAddr)> {
        match *self {}
    }
}

impl Stream for NoStream {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        match *self {}
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        match *self {}
    }
}

impl tokio::io::AsyncRead for NoStream {
    fn poll_read(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        _buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match *self {}
    }
}

impl tokio::io::AsyncWrite for NoStream {
    fn poll_write(self: Pin<&mut Self>, _context: &mut Context<'_>, _buf: &[u8]) -> Poll<io::Result<usize>> {
        match *self {}
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }
}
