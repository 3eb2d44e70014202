//! Reading single records from the log file.

use crate::address::{Address, file_offset};
use crate::held::HeldRecord;
use crate::objects::{Descriptor, ExtentError, has_parts, read_extent, read_part};
use crate::record::{HEADER, RecordError, peek_size, verify};
use crate::spares::{Lent, Spares};
use crate::store::Store;
use crate::sync::Ordering;
use ferrite_io::{AlignedBuf, BLOCK, Clock, Disk, File, OpenMode, SubmissionId, World};
use ferrite_telemetry::schema::ExceptionType;
use ferrite_telemetry::{Exception, StackTrace};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

type DeviceFile<W> = <<W as World>::Disk as Disk>::File;

/// The two files of a log.
pub struct LogFiles<W: World> {
    pub(crate) log: DeviceFile<W>,
    /// What its records do not hold themselves.
    pub(crate) extents: DeviceFile<W>,
}

impl<W: World> Clone for LogFiles<W> {
    fn clone(&self) -> Self {
        Self { log: self.log.clone(), extents: self.extents.clone() }
    }
}

impl<W: World> LogFiles<W> {
    /// Opens them for this worker: the log at `path`, its extents beside it.
    pub async fn open(world: &W, path: &Path) -> io::Result<Self> {
        let open = |path: PathBuf| async move { world.disk().open(&path, OpenMode::Device).await };
        Ok(Self { log: open(path.into()).await?, extents: open(extents_path(path)).await? })
    }
}

/// Where the extents of the log at `path` are.
pub fn extents_path(path: &Path) -> PathBuf {
    path.with_extension("extents")
}

/// A record from disk and when its last submission ran.
#[derive(Clone, Debug)]
pub struct DiskRead {
    pub record: HeldRecord,
    pub id: SubmissionId,
    /// [`Clock::monotonic_ns`] before the first submission and after the last completion.
    pub submitted_ns: u64,
    pub completed_ns: u64,
    /// This call waited for another's I/O.
    pub shared: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("reading the log file at address {address:#x} fails: {message}")]
    Io { address: Address, message: String, id: SubmissionId, stack: StackTrace },
    #[error("the log file ends before the record at address {address:#x}")]
    Short { address: Address, id: SubmissionId, stack: StackTrace },
    #[error("the log file is damaged at address {address:#x}: {error}")]
    Damaged { address: Address, error: RecordError, id: SubmissionId, stack: StackTrace },
    /// Not the bytes that were written, or too few.
    #[error("the file of extents is damaged at offset {offset}, the value of the record at address {address:#x}")]
    ExtentDamaged { address: Address, offset: u64, id: SubmissionId, stack: StackTrace },
}

impl ReadError {
    /// The last submission for the record: the one that failed, or that brought the wrong bytes.
    pub fn submission(&self) -> SubmissionId {
        match self {
            Self::Io { id, .. }
            | Self::Short { id, .. }
            | Self::Damaged { id, .. }
            | Self::ExtentDamaged { id, .. } => *id,
        }
    }

    /// Of the record that cannot be read.
    pub fn address(&self) -> Address {
        match self {
            Self::Io { address, .. }
            | Self::Short { address, .. }
            | Self::Damaged { address, .. }
            | Self::ExtentDamaged { address, .. } => *address,
        }
    }

    /// What the trace of the command says that needed the record.
    pub fn exception(&self) -> Exception {
        let (kind, stack) = match self {
            Self::Io { stack, .. } => (ExceptionType::ReadFailed, stack),
            Self::Short { stack, .. } => (ExceptionType::ReadShort, stack),
            Self::Damaged { stack, .. } | Self::ExtentDamaged { stack, .. } => (ExceptionType::ReadDamaged, stack),
        };
        Exception { kind, message: self.to_string(), stack: Some(stack.clone()) }
    }
}

/// One worker's reader. Reads of one address at the same time share one I/O.
pub struct LogDevice<W: World> {
    store: Arc<Store>,
    world: W,
    files: LogFiles<W>,
    /// By address, and how large an object comes along.
    flights: RefCell<BTreeMap<(Address, u64), Rc<Flight>>>,
    reads: Cell<u64>,
    sizes: Sizes,
    spares: Rc<Spares>,
}

/// What records lately read were long: as much is read at once, so that one that crosses a block is one read, not two.
#[derive(Default)]
struct Sizes(Cell<usize>);

impl Sizes {
    /// What is read beyond a record for nothing is bounded by this: the larger ones are worth a second read.
    const MAX: usize = 4 * BLOCK;
    /// One in so many records may be longer than what is expected without making it grow for good.
    const DECAY: usize = 64;

    fn expected(&self) -> usize {
        self.0.get().max(HEADER)
    }

    fn met(&self, size: usize) {
        let (size, expected) = (size.min(Self::MAX), self.0.get());
        self.0.set(if size >= expected { size } else { expected - (expected - size).div_ceil(Self::DECAY) });
    }
}

#[derive(Default)]
struct Flight {
    result: RefCell<Option<Result<DiskRead, ReadError>>>,
    landed: Notify,
}

impl<W: World> LogDevice<W> {
    /// `files` are the log's, opened by this worker.
    pub fn new(store: Arc<Store>, world: W, files: LogFiles<W>) -> Self {
        Self {
            store,
            world,
            files,
            flights: RefCell::default(),
            reads: Cell::new(0),
            sizes: Sizes::default(),
            spares: Rc::default(),
        }
    }

    /// Submissions so far.
    pub fn submissions(&self) -> u64 {
        self.reads.get()
    }

    /// Reads the record at an address that a look-up called cold, and the object that it owns, and verifies both. An object
    /// that is gone by then is left out: who looks its key up again finds another record.
    pub async fn read_record(&self, address: Address) -> Result<DiskRead, ReadError> {
        self.read(address, u64::MAX).await
    }

    /// [`LogDevice::read_record`] for who asks for the key alone: without the object, but for that of a long key.
    pub async fn read_header(&self, address: Address) -> Result<DiskRead, ReadError> {
        self.read(address, 0).await
    }

    /// [`LogDevice::read_record`] with objects of at most `object_max` bytes: of a larger one the record comes alone. Who reads the
    /// same address at the same time with another bound reads for itself.
    pub async fn read_up_to(&self, address: Address, object_max: u64) -> Result<DiskRead, ReadError> {
        self.read(address, object_max).await
    }

    async fn read(&self, address: Address, object_max: u64) -> Result<DiskRead, ReadError> {
        loop {
            let running = self.flights.borrow().get(&(address, object_max)).cloned();
            let Some(flight) = running else { break };
            let landed = flight.landed.notified();
            let mut landed = std::pin::pin!(landed);
            landed.as_mut().enable();
            landed.await;
            // No result: whoever read was dropped half-way. Then it is our turn, or the next one's.
            if let Some(result) = &*flight.result.borrow() {
                return result.clone().map(|read| DiskRead { shared: true, ..read });
            }
        }
        let flight = Rc::new(Flight::default());
        self.flights.borrow_mut().insert((address, object_max), flight.clone());
        let landing = Landing { flights: &self.flights, at: (address, object_max), flight };
        let mut result = match self.store.log.objects.moved.get(address) {
            // Only its object is not in memory.
            Some(record) => Ok(self.no_read(HeldRecord::copy_of(&record))),
            None => self.read_alone(address).await,
        };
        if let Ok(read) = &result
            && read.record.raw().is_object()
            && (object_max > 0 && read.record.extent_bytes() <= object_max || read.record.raw().has_long_key())
        {
            result = self.read_object(address, read.clone()).await;
        }
        let is_left = |address| address >= self.store.log.regions.begin() || self.store.log.quarantine.has(address);
        if result.is_err() && !is_left(address) {
            // Compacted away meanwhile: what its place holds says nothing.
            result = Ok(self.no_read(HeldRecord::gone()));
        }
        if matches!(result, Err(ReadError::Damaged { .. } | ReadError::ExtentDamaged { .. })) {
            self.store.counters.checksum_errors.fetch_add(1, Ordering::Relaxed);
        }
        *landing.flight.result.borrow_mut() = Some(result.clone());
        result
    }

    async fn read_alone(&self, address: Address) -> Result<DiskRead, ReadError> {
        let submitted_ns = self.world.clock().monotonic_ns();
        let room = self.store.log.room_on_disk(address);
        let start = file_offset(address);
        let first_block = start / BLOCK as u64 * BLOCK as u64;
        let in_block = (start - first_block) as usize;
        // A page is a whole number of blocks, so a header that crosses a block has the next one in its page.
        let least = (in_block + HEADER).next_multiple_of(BLOCK);
        let guess = (in_block + self.sizes.expected().min(room)).next_multiple_of(BLOCK);
        let (mut buf, mut id) = match self.blocks(self.spares.take(guess), first_block, address).await {
            // What cannot be read may be behind the record.
            Err(_) if guess > least => self.blocks(self.spares.take(least), first_block, address).await?,
            read => read?,
        };
        let damaged = |error, id| ReadError::Damaged { address, error, id, stack: StackTrace::capture() };
        let short = |id| ReadError::Short { address, id, stack: StackTrace::capture() };
        if buf.len() < in_block + HEADER {
            return Err(short(id));
        }
        let size = peek_size(&buf[in_block..], room).map_err(|error| damaged(error, id))?;
        if in_block + size > buf.len() {
            let have = buf.len();
            let want = (in_block + size).next_multiple_of(BLOCK);
            let (rest, rest_id) =
                self.blocks(AlignedBuf::zeroed(want - have), first_block + have as u64, address).await?;
            let mut whole = AlignedBuf::zeroed(have + rest.len());
            whole[..have].copy_from_slice(&buf);
            whole[have..].copy_from_slice(&rest);
            (buf, id) = (whole, rest_id);
            if buf.len() < in_block + size {
                return Err(short(id));
            }
        }
        verify(&buf[in_block..], address, room).map_err(|error| damaged(error, id))?;
        self.sizes.met(size);
        let completed_ns = self.world.clock().monotonic_ns();
        let record = HeldRecord::lent(Lent::new(buf, self.spares.clone()), in_block, size);
        Ok(DiskRead { record, id, submitted_ns, completed_ns, shared: false })
    }

    /// A record that needed none.
    fn no_read(&self, record: HeldRecord) -> DiskRead {
        let now_ns = self.world.clock().monotonic_ns();
        DiskRead { record, id: SubmissionId(0), submitted_ns: now_ns, completed_ns: now_ns, shared: false }
    }

    /// Adds the object to a record that owns one.
    async fn read_object(&self, address: Address, read: DiskRead) -> Result<DiskRead, ReadError> {
        let raw = read.record.raw();
        // SAFETY: nobody writes the buffer, which `read` keeps.
        let Some(descriptor) = (unsafe { raw.descriptor() }) else { return Ok(read) };
        let Descriptor { id, extent: Some(extent) } = descriptor else { return Ok(read) };
        let result =
            read_extent(&self.store, &self.files.extents, raw.kind(), id, extent, || self.count_submission()).await;
        match result {
            Ok((object, last)) => {
                self.store.counters.object_reads.fetch_add(1, Ordering::Relaxed);
                Ok(DiskRead {
                    record: read.record.with_object(object),
                    id: last.unwrap_or(read.id),
                    completed_ns: self.world.clock().monotonic_ns(),
                    ..read
                })
            }
            Err(error) => self.unread(address, read, descriptor, error),
        }
    }

    /// Reads these bytes of the large string that a record owns, which was read at `address` without it; the whole string if that
    /// is short. If it is gone the record comes back as it was: who looks its key up again finds another.
    pub async fn read_part(
        &self,
        address: Address,
        record: HeldRecord,
        range: Range<usize>,
    ) -> Result<DiskRead, ReadError> {
        // SAFETY: nobody writes the buffer, which `record` keeps.
        let descriptor = unsafe { record.raw().descriptor() };
        let Some(descriptor) = descriptor.filter(|descriptor| descriptor.extent.as_ref().is_some_and(has_parts)) else {
            return self.read_record(address).await;
        };
        let read = self.no_read(record);
        let result = read_part(&self.store, &self.files.extents, descriptor, range, || self.count_submission()).await;
        let result = match result {
            Ok((part, id)) => {
                let record = read.record.with_part(part);
                Ok(DiskRead { record, id, completed_ns: self.world.clock().monotonic_ns(), ..read })
            }
            Err(error) => self.unread(address, read, descriptor, error),
        };
        if matches!(result, Err(ReadError::ExtentDamaged { .. })) {
            self.store.counters.checksum_errors.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// What a read comes to whose extent could not be read.
    fn unread(
        &self,
        address: Address,
        read: DiskRead,
        descriptor: Descriptor,
        error: ExtentError,
    ) -> Result<DiskRead, ReadError> {
        let offset = descriptor.extent.map_or(0, |extent| extent.offset);
        let damaged = |id| ReadError::ExtentDamaged { address, offset, id, stack: StackTrace::capture() };
        match error {
            ExtentError::Gone if self.store.log.objects.is_lost(descriptor.id) => Err(damaged(read.id)),
            ExtentError::Gone => Ok(read),
            ExtentError::Io(error, id) => {
                Err(ReadError::Io { address, message: error.to_string(), id, stack: StackTrace::capture() })
            }
            ExtentError::Short(id) => Err(damaged(id)),
            ExtentError::Damaged(id) => Err(damaged(id.unwrap_or(read.id))),
        }
    }

    fn count_submission(&self) {
        self.reads.set(self.reads.get() + 1);
        self.store.counters.disk_reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes durable what was flushed: extents, and the pages that lead to them.
    pub(crate) async fn sync(&self) -> std::io::Result<()> {
        self.files.extents.sync().await?;
        self.files.log.sync().await
    }

    pub(crate) fn world(&self) -> &W {
        &self.world
    }

    /// Reads whole blocks; a short read gives a shorter buffer.
    async fn blocks(
        &self,
        buf: AlignedBuf,
        offset: u64,
        address: Address,
    ) -> Result<(AlignedBuf, SubmissionId), ReadError> {
        self.count_submission();
        let mut done = self.files.log.read_at(buf, offset).await;
        let read = done.result.map_err(|error| ReadError::Io {
            address,
            message: error.to_string(),
            id: done.id,
            stack: StackTrace::capture(),
        })?;
        done.buf.truncate(read);
        Ok((done.buf, done.id))
    }
}

/// Wakes the waiters when a read ends, even if its future is dropped.
struct Landing<'l> {
    flights: &'l RefCell<BTreeMap<(Address, u64), Rc<Flight>>>,
    at: (Address, u64),
    flight: Rc<Flight>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.flights.borrow_mut().remove(&self.at);
        self.flight.landed.notify_waiters();
    }
}
