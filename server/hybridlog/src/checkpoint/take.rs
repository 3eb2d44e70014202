//! Taking a checkpoint: the file on its way to disk, and its name in the manifest. The module's documentation has the order
//! of things and the reason for it.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use ferrite_io::{Disk, OpenMode, World};
use thiserror::Error;

use super::file::{ChunkHeader, ChunkKind, FileHeader, Meta, put_extents};
use super::load::LoadError;
use super::pins::{Needs, Pins, TakingPin};
use super::scan::scan_log;
use crate::aof::{Aof, AofFailed, RollError};
use crate::datadir::{Catalog, CheckpointEntry, FileError, NewFile, SaveError};
use crate::device::LogDevice;
use crate::pinned::Exclusive;
use crate::space::StorageError;
use crate::store::{Store, WorkerHandle};
use crate::sync::Ordering;

/// Bytes of a chunk from which on it is written.
const CHUNK_BYTES: usize = 256 << 10;
/// Extents that are looked at while others wait for theirs: a chunk of them.
const EXTENTS_AT_ONCE: usize = 1024;

/// Why no checkpoint was made. Those that there are stay in force.
#[derive(Debug, Error)]
pub enum CheckpointError {
    #[error("no new segment of the append-only file could be begun: {0}")]
    Roll(#[from] RollError),
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("the log cannot be flushed: {0}")]
    Flush(#[from] StorageError),
    #[error("what was written to the log does not read back: {0}")]
    ReadBack(#[from] LoadError),
    #[error(transparent)]
    Failed(#[from] AofFailed),
}

impl From<FileError> for CheckpointError {
    fn from(FileError { action, path, source }: FileError) -> Self {
        Self::Io { action, path, source }
    }
}

/// A checkpoint that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of its file.
    pub bytes: u64,
    /// Entries of its index.
    pub entries: u64,
    /// Everything below this address of the log belongs to it.
    pub tail: u64,
}

/// Takes checkpoints of one data directory. On the worker that runs the AOF's task, if there is one.
pub struct Checkpoints<W: World> {
    aof: Option<Arc<Aof>>,
    catalog: Rc<Catalog<W>>,
    pins: Rc<Pins>,
}

impl<W: World> Checkpoints<W> {
    pub(crate) fn new(aof: Option<Arc<Aof>>, catalog: Rc<Catalog<W>>) -> Self {
        Self { aof, catalog, pins: Rc::default() }
    }

    pub(super) fn catalog(&self) -> &Catalog<W> {
        &self.catalog
    }

    pub(super) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Begins a checkpoint: there is one at a time. `begun` is called in the exclusive mode at the beginning of the walk.
    pub async fn begin(&self, handle: &WorkerHandle, begun: impl FnOnce()) -> Result<Taking<W>, CheckpointError> {
        if let Some(aof) = &self.aof {
            // So that the segments before can go.
            aof.roll().await?;
        }
        let store = handle.store().clone();
        let header = |salt| FileHeader {
            salt,
            log_id: store.log.id.load(Ordering::Acquire),
            hash_seed: store.seed_in_force().0,
            first_buckets: store.index.first() as u64,
            extents_id: store.log.objects.file_id.load(Ordering::Acquire),
            version: FileHeader::VERSION,
        };
        let file = self.catalog.new_checkpoint(|salt| header(salt).encode()).await?;
        let pin = self.pins.take(store.log.regions.begin());
        {
            let mut pinned = handle.pin();
            pinned.exclusive().begin_image();
            begun();
        }
        Ok(Taking {
            aof: self.aof.clone(),
            catalog: self.catalog.clone(),
            file,
            cursor: Some(0),
            entries: 0,
            pending: Vec::new(),
            meta: None,
            under_way: UnderWay { store, cut: None },
            pins: self.pins.clone(),
            _pin: pin,
        })
    }
}

/// Ends the store's part if a checkpoint is given up.
struct UnderWay {
    store: Arc<Store>,
    /// Its number, from the cut until the manifest may name it.
    cut: Option<u64>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.store.imaging.end();
        self.store.imaging.is_over();
        self.store.retired.end_image();
        let objects = &self.store.log.objects;
        objects.end_keeping();
        if let Some(number) = self.cut {
            objects.extents.drop_cut(number);
            self.store.index_work.notify_one();
        }
    }
}

/// A checkpoint under way. Dropped before it is in force it leaves a file that a later start removes; see
/// [`Taking::abandon`].
pub struct Taking<W: World> {
    aof: Option<Arc<Aof>>,
    catalog: Rc<Catalog<W>>,
    file: NewFile<W>,
    /// Where the walk stands; `None` at its end.
    cursor: Option<u64>,
    entries: u64,
    /// Of the image, not written yet.
    pending: Vec<u8>,
    /// After the cut.
    meta: Option<Meta>,
    under_way: UnderWay,
    pins: Rc<Pins>,
    _pin: TakingPin,
}

impl<W: World> Taking<W> {
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Walks over the next `buckets` buckets of the index. False: that was the last. Call [`Taking::write`] now and then.
    pub fn step(&mut self, handle: &WorkerHandle, buckets: usize) -> bool {
        let Some(cursor) = self.cursor else { return false };
        if self.under_way.store.imaging.was_forgotten() {
            // Nothing of the image counts any more.
            self.cursor = None;
            return false;
        }
        let (next, entries) = handle.pin().image(cursor, buckets, &mut self.pending);
        self.entries += entries;
        self.cursor = (next != 0).then_some(next);
        self.cursor.is_some()
    }

    /// Writes what the walk has gathered, if that is much or the walk is at its end.
    pub async fn write(&mut self) -> Result<(), CheckpointError> {
        if self.pending.len() >= CHUNK_BYTES || (self.cursor.is_none() && !self.pending.is_empty()) {
            let pending = std::mem::take(&mut self.pending);
            self.chunk(ChunkKind::Index, &pending).await?;
            self.pending = pending;
            self.pending.clear();
        }
        Ok(())
    }

    /// Keeps bytes of the layer above.
    pub async fn upper(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        match bytes.is_empty() {
            true => Ok(()),
            false => self.chunk(ChunkKind::Upper, bytes).await,
        }
    }

    /// The moment that the checkpoint shows. `upper` is what the layer above says of it. After the walk's end; what comes
    /// after this is I/O alone.
    pub fn cut(&mut self, alone: &Exclusive<'_>, unix_ms: u64, upper: Vec<u8>) {
        assert!(self.cursor.is_none() && self.pending.is_empty(), "the walk comes before the cut");
        let position = self.aof.as_ref().map_or(0, |aof| aof.position());
        let cut = alone.cut(self.file.number);
        self.under_way.cut = Some(self.file.number);
        self.meta = Some(Meta {
            position,
            tail: cut.tail,
            begin: cut.begin,
            scan_from: cut.since.scan_from,
            scan_crc: 0,
            forgotten: cut.since.forgotten,
            entries: self.entries,
            extents: 0,
            next_id: cut.next_id,
            unix_ms,
            eras: cut.eras,
            retired: cut.retired,
            removed: cut.since.removed,
            quarantined: cut.quarantined,
            upper,
        });
    }

    /// Adds to what the layer above says of the cut, in front of [`Taking::settle`].
    pub fn also_upper(&mut self, bytes: &[u8]) {
        self.meta.as_mut().expect("the cut comes before").upper.extend_from_slice(bytes);
    }

    /// Makes everything durable that the checkpoint names. `log` is the path of the log file.
    pub async fn settle(&mut self, device: &LogDevice<W>, log: &Path) -> Result<(), CheckpointError> {
        let meta = self.meta.as_mut().expect("the cut comes before");
        // Not at the cut, where everybody waits.
        meta.removed.sort_unstable_by_key(|&(_, tail)| tail);
        let (tail, next_id) = (meta.tail, meta.next_id);
        self.under_way.store.flushed(tail).await?;
        self.under_way.store.log.objects.end_keeping();
        let extents = self.name_extents(next_id).await?;
        let meta = self.meta.as_mut().expect("it was there before");
        meta.extents = extents;
        let failed = |action, source| CheckpointError::Io { action, path: log.to_owned(), source };
        device.sync().await.map_err(|source| failed("sync", source))?;
        let file = device.world().disk().open(log, OpenMode::ReadOnly).await;
        let file = file.map_err(|source| failed("open", source))?;
        meta.scan_crc = scan_log(&file, meta.scan(), &mut |_, _| {}).await.map_err(|error| error.of(log))?;
        Ok(())
    }

    /// Writes down which extents belong to it, now that all are written. How many they are.
    async fn name_extents(&mut self, next_id: u64) -> Result<u64, CheckpointError> {
        let (mut from, mut count, mut payload) = (Some(0), 0, Vec::new());
        while let Some(at) = from {
            let extents = &self.under_way.store.log.objects.extents;
            let (some, next) = extents.of_cut(self.file.number, next_id, at, EXTENTS_AT_ONCE);
            (from, count) = (next, count + some.len() as u64);
            payload.clear();
            put_extents(&mut payload, &some);
            if !payload.is_empty() {
                self.chunk(ChunkKind::Extents, &payload).await?;
            }
        }
        Ok(count)
    }

    /// Puts it in force, and removes the files that are not needed any more.
    pub async fn finish(mut self) -> Result<Taken, CheckpointError> {
        match self.put_in_force().await {
            Ok(taken) => Ok(taken),
            Err(Unfinished { error, may_be_named }) => {
                if !may_be_named {
                    self.abandon().await;
                }
                Err(error)
            }
        }
    }

    async fn put_in_force(&mut self) -> Result<Taken, Unfinished> {
        let mut meta = self.meta.take().expect("the cut comes before");
        let durable = match &self.aof {
            // The AOF must not end before the position that it is replayed from.
            Some(aof) => aof.sync().await.map_err(CheckpointError::from)?,
            None => {
                // A number of its own, so that a log that begins later begins after it.
                meta.position = self.catalog.next_position().await;
                meta.position
            }
        };
        self.chunk(ChunkKind::End, &meta.encode()).await?;
        self.file.sync().await.map_err(CheckpointError::from)?;
        let needs = Needs::of(&meta);
        let Meta { position, tail, .. } = meta;
        let NewFile { number, salt, .. } = self.file;
        let entry = CheckpointEntry { number, salt, position, tail, len: self.file.len() };
        self.pins.naming(number, needs);
        let added = self.catalog.add_checkpoint(entry, durable).await;
        let store = &self.under_way.store;
        if !matches!(added, Err(SaveError::Unchanged(_))) {
            // What it names stays, also if a crash decides whether it is in force.
            store.log.objects.extents.cut_is_taken(number);
            self.under_way.cut = None;
        }
        let removed = added.map_err(|error| {
            let may_be_named = matches!(error, SaveError::Unknown(_));
            if may_be_named {
                self.pins.named(number, false);
            }
            Unfinished { error: error.into_file_error().into(), may_be_named }
        })?;
        self.pins.named(number, true);
        store.checkpoints_kept(&self.catalog.checkpoint_numbers().await);
        if let Some(aof) = &self.aof
            && !removed.is_empty()
        {
            removed.into_iter().for_each(|number| aof.file_gone(number));
            // From here on growth is counted that a checkpoint has not made up for.
            aof.set_base_bytes(aof.size().current);
        }
        Ok(Taken { bytes: self.file.len(), entries: self.entries, tail })
    }

    /// Gives up: the file is removed.
    pub async fn abandon(self) {
        self.catalog.forget(&self.file.path).await;
    }

    async fn chunk(&mut self, kind: ChunkKind, payload: &[u8]) -> Result<(), CheckpointError> {
        let header = ChunkHeader::encode(kind, payload, self.file.len(), self.file.salt);
        Ok(self.file.append(&header, payload).await?)
    }
}

struct Unfinished {
    error: CheckpointError,
    /// A manifest with this checkpoint may be found after a crash: the file has to stay.
    may_be_named: bool,
}

impl From<CheckpointError> for Unfinished {
    fn from(error: CheckpointError) -> Self {
        Self { error, may_be_named: false }
    }
}
