//! Reading single records from the log file.

use crate::address::{Address, file_offset};
use crate::held::HeldRecord;
use crate::record::{HEADER, RecordError, peek_size, verify};
use crate::store::Store;
use crate::sync::Ordering;
use ferrite_io::{AlignedBuf, BLOCK, Clock, Disk, File, SubmissionId, World};
use ferrite_telemetry::schema::ExceptionType;
use ferrite_telemetry::{Exception, StackTrace};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

type DeviceFile<W> = <<W as World>::Disk as Disk>::File;

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
}

impl ReadError {
    /// The last submission for the record: the one that failed, or that brought the wrong bytes.
    pub fn submission(&self) -> SubmissionId {
        match self {
            Self::Io { id, .. } | Self::Short { id, .. } | Self::Damaged { id, .. } => *id,
        }
    }

    /// What the trace of the command says that needed the record.
    pub fn exception(&self) -> Exception {
        let (kind, stack) = match self {
            Self::Io { stack, .. } => (ExceptionType::ReadFailed, stack),
            Self::Short { stack, .. } => (ExceptionType::ReadShort, stack),
            Self::Damaged { stack, .. } => (ExceptionType::ReadDamaged, stack),
        };
        Exception { kind, message: self.to_string(), stack: Some(stack.clone()) }
    }
}

/// One worker's reader. Reads of one address at the same time share one I/O.
pub struct LogDevice<W: World> {
    store: Arc<Store>,
    world: W,
    file: DeviceFile<W>,
    flights: RefCell<BTreeMap<Address, Rc<Flight>>>,
    reads: Cell<u64>,
}

#[derive(Default)]
struct Flight {
    result: RefCell<Option<Result<DiskRead, ReadError>>>,
    landed: Notify,
}

impl<W: World> LogDevice<W> {
    /// `file` is the log file opened with [`ferrite_io::OpenMode::Device`] by this worker.
    pub fn new(store: Arc<Store>, world: W, file: DeviceFile<W>) -> Self {
        Self { store, world, file, flights: RefCell::default(), reads: Cell::new(0) }
    }

    /// Submissions so far.
    pub fn submissions(&self) -> u64 {
        self.reads.get()
    }

    /// Reads the record at an address that a look-up called cold, and verifies it.
    pub async fn read_record(&self, address: Address) -> Result<DiskRead, ReadError> {
        loop {
            let running = self.flights.borrow().get(&address).cloned();
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
        self.flights.borrow_mut().insert(address, flight.clone());
        let landing = Landing { flights: &self.flights, address, flight };
        let result = self.read_alone(address).await;
        if matches!(result, Err(ReadError::Damaged { .. })) {
            self.store.counters.checksum_errors.fetch_add(1, Ordering::Relaxed);
        }
        *landing.flight.result.borrow_mut() = Some(result.clone());
        result
    }

    async fn read_alone(&self, address: Address) -> Result<DiskRead, ReadError> {
        let submitted_ns = self.world.clock().monotonic_ns();
        let paging = self.store.log.paging;
        let room = paging.size() - paging.offset(address);
        let start = file_offset(address);
        let first_block = start / BLOCK as u64 * BLOCK as u64;
        let in_block = (start - first_block) as usize;
        // A page is a whole number of blocks, so a header that crosses a block has the next one in its page.
        let guess = (in_block + HEADER).next_multiple_of(BLOCK);
        let (mut buf, mut id) = self.blocks(AlignedBuf::zeroed(guess), first_block, address).await?;
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
        let completed_ns = self.world.clock().monotonic_ns();
        let record = HeldRecord::new(Rc::new(buf), in_block, size);
        Ok(DiskRead { record, id, submitted_ns, completed_ns, shared: false })
    }

    /// Reads whole blocks; a short read gives a shorter buffer.
    async fn blocks(
        &self,
        buf: AlignedBuf,
        offset: u64,
        address: Address,
    ) -> Result<(AlignedBuf, SubmissionId), ReadError> {
        self.reads.set(self.reads.get() + 1);
        self.store.counters.disk_reads.fetch_add(1, Ordering::Relaxed);
        let mut done = self.file.read_at(buf, offset).await;
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
    flights: &'l RefCell<BTreeMap<Address, Rc<Flight>>>,
    address: Address,
    flight: Rc<Flight>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.flights.borrow_mut().remove(&self.address);
        self.flight.landed.notify_waiters();
    }
}
