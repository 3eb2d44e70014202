//! Files and directories. Calls take owned buffers, and failures are values.

use std::io;
use std::path::Path;

use crate::AlignedBuf;

/// Identifies one submission to the disk: with io_uring the user data of its SQE. Unique in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubmissionId(pub u64);

/// A finished transfer: the buffer comes back whatever happened.
#[derive(Debug)]
pub struct Done {
    /// Bytes transferred. A read past the end of the file is short; a write is whole or an error.
    pub result: io::Result<usize>,
    pub buf: AlignedBuf,
    pub id: SubmissionId,
}

/// How a file will be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// The log device: buffered writes, direct (uncached) block-aligned random reads, maps. Created if missing.
    Device,
    /// Read and written in order (AOF, checkpoint, manifest). Created if missing.
    Sequential,
    /// An existing file, never written. `NotFound` if missing.
    ReadOnly,
}

#[allow(async_fn_in_trait)]
pub trait Disk: Clone + 'static {
    type File: File;
    /// Held while the data directory is in use; dropping it unlocks.
    type Lock: 'static;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Self::File>;
    async fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// File names in a directory, sorted.
    async fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Atomic within a directory; durable after [`Disk::sync_dir`].
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    async fn remove(&self, path: &Path) -> io::Result<()>;
    async fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes an exclusive lock on a file that is created if missing; `WouldBlock` if another holds it.
    fn lock(&self, path: &Path) -> io::Result<Self::Lock>;
    /// What serves the disk, for the start-up log: `io_uring`, `io-threads` or `simulated`.
    fn backend(&self) -> &'static str;
}

#[allow(async_fn_in_trait, clippy::len_without_is_empty)]
pub trait File: Clone + 'static {
    type Map: Mapping;

    /// Fills `buf` up to its length from `offset`. For [`crate::OpenMode::Device`], offset and length are
    /// multiples of [`crate::BLOCK`].
    async fn read_at(&self, buf: AlignedBuf, offset: u64) -> Done;
    /// Writes the whole of `buf`.
    async fn write_at(&self, buf: AlignedBuf, offset: u64) -> Done;
    /// Makes data and length durable (fdatasync).
    async fn sync(&self) -> io::Result<()>;
    /// Reserves space so that later writes below `offset + len` cannot fail with `StorageFull`. Extends the file with zeros.
    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Gives the space of a range back, which reads as zeros from then on; the length stays. Offset and length are multiples
    /// of [`crate::BLOCK`]. After a power loss a range that was not synced may hold any of what it held. `Unsupported` where
    /// the file system has no holes.
    async fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    async fn len(&self) -> io::Result<u64>;
    async fn set_len(&self, len: u64) -> io::Result<()>;
    /// Maps a range read-only and populated; offset and length are multiples of [`crate::BLOCK`]. A range past the
    /// end of the file is an error, never a later fault.
    async fn map(&self, offset: u64, len: usize) -> io::Result<Self::Map>;
    /// Advises that the range is not needed in the page cache. What is mapped stays there, and what is still to be written
    /// is begun to be: it leaves when it is advised again.
    fn drop_cache(&self, offset: u64, len: u64);
}

/// Mapped bytes; they stay at the same place until dropped. Shared between workers.
pub trait Mapping: AsRef<[u8]> + Send + Sync + 'static {}
