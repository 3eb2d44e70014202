//! Writing a base: the log's beginning, shortened to what the keys hold. The module's documentation says why it may be done
//! while commands run.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use ferrite_io::World;
use thiserror::Error;

use super::frame::Header;
use super::segment::HEADER_LEN;
use super::shared::{Aof, AofFailed, AofWalk, RollError};
use crate::datadir::{BaseEntry, Catalog, FileError, NewFile, SaveError};

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

    /// The checkpoints in force: a base takes the place of those before it. For [`crate::Store::checkpoints_kept`].
    pub async fn checkpoints(&self) -> Vec<u64> {
        self.catalog.checkpoint_numbers().await
    }

    /// Lets the log go on in a new segment, so that those before can go, and makes the file of a base.
    pub async fn begin(&self) -> Result<BaseWriter<W>, RewriteError> {
        self.aof.roll().await?;
        let file = self.catalog.new_base().await?;
        let walk = Some(self.aof.walk());
        Ok(BaseWriter { aof: self.aof.clone(), catalog: self.catalog.clone(), file, walk })
    }
}

/// A base on its way to disk.
pub struct BaseWriter<W: World> {
    aof: Arc<Aof>,
    catalog: Rc<Catalog<W>>,
    file: NewFile<W>,
    /// Until everything is written.
    walk: Option<AofWalk>,
}

impl<W: World> BaseWriter<W> {
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.file.len()
    }

    /// Appends effects, as one frame.
    pub async fn append(&mut self, effects: &[u8]) -> Result<(), RewriteError> {
        if effects.is_empty() {
            return Ok(());
        }
        let header = Header::effects(effects, self.file.len() - HEADER_LEN);
        Ok(self.file.append(&header.encode(self.file.salt), effects).await?)
    }

    /// Puts the base in the place of everything in the log below the position `covers`, once all that the walk has seen is
    /// durable, and removes the files that are not needed any more.
    pub async fn finish(mut self, covers: u64) -> Result<(), RewriteError> {
        self.walk = None;
        let done = self.put_in_place(covers).await;
        if let Err(keep) = &done
            && !keep.may_be_named
        {
            self.catalog.forget(&self.file.path).await;
        }
        done.map_err(|unfinished| unfinished.error)
    }

    async fn put_in_place(&mut self, covers: u64) -> Result<(), Unfinished> {
        self.file.sync().await.map_err(RewriteError::from)?;
        // No crash may take from the segments what the base shows already.
        let durable = self.aof.sync().await.map_err(RewriteError::from)?;
        let NewFile { number, salt, .. } = self.file;
        let entry = BaseEntry { number, salt, covers, len: self.file.len() - HEADER_LEN };
        let removed = self.catalog.set_base(entry, durable).await.map_err(|error| {
            let may_be_named = matches!(error, SaveError::Unknown(_));
            Unfinished { error: error.into_file_error().into(), may_be_named }
        })?;
        removed.into_iter().for_each(|number| self.aof.file_gone(number));
        self.aof.file_sealed(number, self.file.len());
        self.aof.set_base_bytes(self.aof.size().current);
        Ok(())
    }

    /// Gives up: the file is removed.
    pub async fn abandon(self) {
        self.catalog.forget(&self.file.path).await;
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
