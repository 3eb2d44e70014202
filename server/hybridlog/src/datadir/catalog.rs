//! The manifest of a directory in use, and the files that it is about to name.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};

use ferrite_io::{AlignedBuf, Disk, Entropy, File, OpenMode, World};
use thiserror::Error;
use tokio::sync::Mutex;

use super::manifest::{BaseEntry, CheckpointEntry, LogName, Manifest, SegmentEntry};
use super::new_file::NewFile;
use crate::aof::segment::SegmentHeader;

pub(crate) const MANIFEST: &str = "MANIFEST";
pub(crate) const MANIFEST_NEW: &str = "MANIFEST.new";

/// An I/O on a named file that failed.
#[derive(Debug, Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub(crate) struct FileError {
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

pub(crate) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError { action, path: path.to_owned(), source }
}

/// Why the manifest could not be replaced.
#[derive(Debug, Error)]
pub(crate) enum SaveError {
    /// The one before is in force.
    #[error(transparent)]
    Unchanged(FileError),
    /// After a crash either may be found.
    #[error(transparent)]
    Unknown(FileError),
}

impl SaveError {
    pub fn into_file_error(self) -> FileError {
        match self {
            Self::Unchanged(error) | Self::Unknown(error) => error,
        }
    }
}

/// The manifest and who may change it: one at a time.
pub(crate) struct Catalog<W: World> {
    world: W,
    path: PathBuf,
    manifest: Mutex<Manifest>,
    /// The last number given to a file.
    number: Cell<u64>,
}

impl<W: World> Catalog<W> {
    pub fn new(world: W, path: PathBuf, manifest: Manifest) -> Self {
        let number = Cell::new(manifest.last_number());
        Self { world, path, manifest: Mutex::new(manifest), number }
    }

    pub fn path_of(&self, name: LogName) -> PathBuf {
        self.path.join(name.to_string())
    }

    /// Makes the file of a segment whose first frame is at `position`.
    pub async fn new_segment(&self, position: u64) -> Result<NewFile<W>, FileError> {
        self.new_file(LogName::Segment, |salt| SegmentHeader { base: position, salt }.encode()).await
    }

    /// Makes the file of a base. Its frames have positions of their own.
    pub async fn new_base(&self) -> Result<NewFile<W>, FileError> {
        self.new_file(LogName::Base, |salt| SegmentHeader { base: 0, salt }.encode()).await
    }

    /// Makes the file of a checkpoint; `header` gives its first bytes from its salt.
    pub async fn new_checkpoint<const LEN: usize>(
        &self,
        header: impl FnOnce(u64) -> [u8; LEN],
    ) -> Result<NewFile<W>, FileError> {
        self.new_file(LogName::Checkpoint, header).await
    }

    async fn new_file<const LEN: usize>(
        &self,
        name: impl FnOnce(u64) -> LogName,
        header: impl FnOnce(u64) -> [u8; LEN],
    ) -> Result<NewFile<W>, FileError> {
        let number = self.number.get() + 1;
        self.number.set(number);
        let path = self.path_of(name(number));
        let salt = self.world.entropy().next_u64();
        let header = header(salt);
        let disk = self.world.disk();
        let file = write_whole(disk, &path, &header).await.map_err(at("write", &path));
        let named = match file {
            Ok(file) => disk.sync_dir(&self.path).await.map(|()| file).map_err(at("sync", &path)),
            Err(error) => Err(error),
        };
        match named {
            Ok(file) => Ok(NewFile::new(number, salt, path, file, LEN as u64)),
            Err(error) => {
                self.forget(&path).await;
                Err(error)
            }
        }
    }

    /// Removes a file that no manifest names. If that fails, the next start does it.
    pub async fn forget(&self, path: &Path) {
        if let Err(error) = self.world.disk().remove(path).await
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a file that is not needed any more could not be removed");
        }
    }

    /// From now on the log goes on in `segment`; everything before its position is durable.
    pub async fn add_segment(&self, segment: SegmentEntry) -> Result<(), SaveError> {
        self.change(|manifest| {
            manifest.durable = segment.position;
            manifest.segments.push(segment);
        })
        .await
        .map(|_| ())
    }

    /// From now on `base` stands for everything below what it covers; the segments are durable up to `durable`. Removes the
    /// files that are not needed any more, and returns their numbers.
    pub async fn set_base(&self, base: BaseEntry, durable: u64) -> Result<Vec<u64>, SaveError> {
        self.change_and_clean(|manifest| {
            manifest.set_base(base);
            // A segment added meanwhile may say more.
            manifest.durable = manifest.durable.max(durable);
        })
        .await
    }

    /// From now on a start begins with `checkpoint`, or with the one before it; the segments are durable up to `durable`.
    /// Removes the files that are not needed any more, and returns their numbers.
    pub async fn add_checkpoint(&self, checkpoint: CheckpointEntry, durable: u64) -> Result<Vec<u64>, SaveError> {
        self.change_and_clean(|manifest| {
            manifest.add_checkpoint(checkpoint);
            manifest.durable = manifest.durable.max(durable);
        })
        .await
    }

    /// From now on there are these checkpoints only.
    pub async fn keep_checkpoints(&self, kept: &[CheckpointEntry]) -> Result<Vec<u64>, SaveError> {
        self.change_and_clean(|manifest| manifest.checkpoints = kept.to_vec()).await
    }

    /// The numbers of the checkpoints in force.
    pub async fn checkpoint_numbers(&self) -> Vec<u64> {
        self.manifest.lock().await.checkpoints.iter().map(|entry| entry.number).collect()
    }

    /// Those that the manifest names, the newest last.
    pub async fn checkpoints(&self) -> Vec<CheckpointEntry> {
        self.manifest.lock().await.checkpoints.clone()
    }

    pub fn disk(&self) -> &W::Disk {
        self.world.disk()
    }

    /// A position that no checkpoint has, for one made without an append-only log.
    pub async fn next_position(&self) -> u64 {
        self.manifest.lock().await.durable + 1
    }

    async fn change_and_clean(&self, change: impl FnOnce(&mut Manifest)) -> Result<Vec<u64>, SaveError> {
        let (before, after) = self.change(change).await?;
        let mut gone = Vec::new();
        for name in before.names().filter(|&name| after.names().all(|kept| kept != name)) {
            self.forget(&self.path_of(name)).await;
            gone.push(name.number());
        }
        Ok(gone)
    }

    pub async fn note_durable(&self, position: u64) -> Result<(), SaveError> {
        if self.manifest.lock().await.durable == position {
            return Ok(());
        }
        self.change(|manifest| manifest.durable = position).await.map(|_| ())
    }

    /// Replaces the manifest; what it was and what it is.
    async fn change(&self, change: impl FnOnce(&mut Manifest)) -> Result<(Manifest, Manifest), SaveError> {
        let mut manifest = self.manifest.lock().await;
        let mut next = manifest.clone();
        change(&mut next);
        save(self.world.disk(), &self.path, &next).await?;
        let before = std::mem::replace(&mut *manifest, next.clone());
        Ok((before, next))
    }
}

/// Writes the manifest of directory `dir`, synced, and puts it in the place of the old one.
pub(crate) async fn save<D: Disk>(disk: &D, dir: &Path, manifest: &Manifest) -> Result<(), SaveError> {
    let (new, path) = (dir.join(MANIFEST_NEW), dir.join(MANIFEST));
    let text = manifest.encode();
    write_whole(disk, &new, text.as_bytes()).await.map_err(at("write", &new)).map_err(SaveError::Unchanged)?;
    disk.rename(&new, &path).await.map_err(at("replace", &path)).map_err(SaveError::Unknown)?;
    // Named, but not for good.
    disk.sync_dir(dir).await.map_err(at("replace", &path)).map_err(SaveError::Unknown)
}

/// Makes a file hold exactly `bytes`, durably; its name is durable once the directory is synced.
pub(crate) async fn write_whole<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<D::File> {
    let file = disk.open(path, OpenMode::Sequential).await?;
    file.set_len(0).await?;
    file.write_at(AlignedBuf::copy_of(bytes), 0).await.result?;
    file.sync().await?;
    Ok(file)
}
