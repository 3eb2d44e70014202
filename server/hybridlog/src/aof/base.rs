//! Writing a base: the log's beginning, shortened to what the keys hold. The module's documentation says why it may be done
//! while commands run.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use ferrite_io::{AlignedBuf, File, World};
use thiserror::Error;

use super::frame::Header;
use super::segment::HEADER_LEN;
use super::shared::{Aof, AofFailed, RollError};
use crate::datadir::{BaseEntry, Catalog, FileError, NewFile, SaveError};

/// Bytes between two syncs: at the end little is left to be made durable at once.
const SYNC_EVERY: u64 = 8 << 20;

/// Why a rewrite ended. The log is what it was before.
#[derive(Debug, Error)]
pub enum RewriteError {
    #[error("no new segment could be begun: {0}")]
    Roll(#[from] RollError),
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Failed(#[from] AofFailed),
}

impl From<FileError> for RewriteError {
    fn from(FileError { action, path, source }: FileError) -> Self {
        Self::Io { action, path, source }
    }
}

/// Begins rewrites. On the worker that runs [`crate::aof::aof_task`].
pub struct Rewriter<W: World> {
    aof: Arc<Aof>,
    catalog: Rc<Catalog<W>>,
}

impl<W: World> Rewriter<W> {
    pub(crate) fn new(aof: Arc<Aof>, catalog: Rc<Catalog<W>>) -> Self {
        Self { aof, catalog }
    }

    pub fn aof(&self) -> &Arc<Aof> {
        &self.aof
    }

    /// Lets the log go on in a new segment, so that those before can go, and makes the file of a base.
    pub async fn begin(&self) -> Result<BaseWriter<W>, RewriteError> {
        self.aof.roll().await?;
        let NewFile { number, salt, path, file } = self.catalog.new_base().await?;
        let (aof, catalog) = (self.aof.clone(), self.catalog.clone());
        Ok(BaseWriter { aof, catalog, number, salt, path, file, end: HEADER_LEN, synced: HEADER_LEN })
    }
}

/// A base on its way to disk.
pub struct BaseWriter<W: World> {
    aof: Arc<Aof>,
    catalog: Rc<Catalog<W>>,
    number: u64,
    salt: u64,
    path: PathBuf,
    file: super::FileOf<W>,
    /// File offsets.
    end: u64,
    synced: u64,
}

impl<W: World> BaseWriter<W> {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// Appends effects, as one frame.
    pub async fn append(&mut self, effects: &[u8]) -> Result<(), RewriteError> {
        if effects.is_empty() {
            return Ok(());
        }
        let header = Header::effects(effects, self.end - HEADER_LEN);
        let encoded = header.encode(self.salt);
        let mut buf = AlignedBuf::zeroed(encoded.len() + effects.len());
        buf[..encoded.len()].copy_from_slice(&encoded);
        buf[encoded.len()..].copy_from_slice(effects);
        let len = buf.len() as u64;
        // First the space: a full disk is met before anything is written.
        let allocated = self.file.allocate(self.end, len).await;
        allocated.map_err(|source| self.failed("allocate space for", source))?;
        let written = self.file.write_at(buf, self.end).await.result;
        written.map_err(|source| self.failed("write", source))?;
        self.end += len;
        if self.end - self.synced >= SYNC_EVERY {
            self.sync().await?;
        }
        Ok(())
    }

    /// Puts the base in the place of everything in the log below the position `covers`, once all that the walk has seen is
    /// durable, and removes the files that are not needed any more.
    pub async fn finish(mut self, covers: u64) -> Result<(), RewriteError> {
        let done = self.put_in_place(covers).await;
        if let Err(keep) = &done
            && !keep.may_be_named
        {
            self.catalog.forget(&self.path).await;
        }
        done.map_err(|unfinished| unfinished.error)
    }

    async fn put_in_place(&mut self, covers: u64) -> Result<(), Unfinished> {
        self.sync().await?;
        // No crash may take from the segments what the base shows already.
        let durable = self.aof.sync().await.map_err(RewriteError::from)?;
        let entry = BaseEntry { number: self.number, salt: self.salt, covers, len: self.end - HEADER_LEN };
        let removed = self.catalog.set_base(entry, durable).await.map_err(|error| {
            let may_be_named = matches!(error, SaveError::Unknown(_));
            Unfinished { error: error.into_file_error().into(), may_be_named }
        })?;
        removed.into_iter().for_each(|number| self.aof.file_gone(number));
        self.aof.file_sealed(self.number, self.end);
        self.aof.set_base_bytes(self.aof.size().current);
        Ok(())
    }

    /// Gives up: the file is removed.
    pub async fn abandon(self) {
        self.catalog.forget(&self.path).await;
    }

    async fn sync(&mut self) -> Result<(), RewriteError> {
        let synced = self.file.sync().await;
        synced.map_err(|source| self.failed("sync", source))?;
        self.synced = self.end;
        Ok(())
    }

    fn failed(&self, action: &'static str, source: std::io::Error) -> RewriteError {
        RewriteError::Io { action, path: self.path.clone(), source }
    }
}

struct Unfinished {
    error: RewriteError,
    /// A manifest with this base may be found after a crash: the file has to stay.
    may_be_named: bool,
}

impl From<RewriteError> for Unfinished {
    fn from(error: RewriteError) -> Self {
        Self { error, may_be_named: false }
    }
}
