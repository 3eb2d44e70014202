//! Opening a data directory: lock, manifest, replay, and what a first start writes.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrite_io::{AlignedBuf, BLOCK, Disk, Entropy, File, OpenMode, World};

use super::error::OpenError;
use super::manifest::Manifest;
use crate::aof::segment::{HEADER_LEN, SegmentHeader};
use crate::aof::{Aof, AofFile, Effect, FileOf, FsyncPolicy, ReplayError, Replayed, replay};

const LOCK: &str = "LOCK";
const MANIFEST: &str = "MANIFEST";
const MANIFEST_NEW: &str = "MANIFEST.new";
const FIRST_SEGMENT: &str = "appendonly-1.aof";

/// Longer manifests are not ours: a thousand segments need 20 KiB.
const MANIFEST_LEN_MAX: u64 = 1 << 20;

/// Endings of files that hold a user's data. One of them without a manifest stops the start.
const DATA_ENDINGS: [&str; 2] = [".aof", ".log"];

#[derive(Clone, Debug)]
pub struct DataDirConfig {
    pub path: PathBuf,
    /// Whether there is an append-only file.
    pub aof: bool,
    pub policy: FsyncPolicy,
    /// Bytes by which the append-only file is allocated ahead: at first, and at most.
    pub allocate_min: u64,
    pub allocate_max: u64,
    /// Bytes read at a time during replay; rounded up to whole blocks.
    pub read_len: usize,
}

impl DataDirConfig {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            aof: true,
            policy: FsyncPolicy::default(),
            allocate_min: 1 << 20,
            allocate_max: 16 << 20,
            read_len: 1 << 20,
        }
    }
}

/// An open data directory, locked until this is dropped.
pub struct DataDir<W: World> {
    world: W,
    path: PathBuf,
    manifest: Manifest,
    _lock: <W::Disk as Disk>::Lock,
}

/// What was found, and what writes on.
pub struct Recovered<W: World> {
    pub dir: DataDir<W>,
    /// The shared side and the file for [`crate::aof::aof_task`]. None if the directory is used without.
    pub aof: Option<(Arc<Aof>, AofFile<FileOf<W>>)>,
    pub summary: Summary,
}

/// What the replay did, for the start-up log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub frames: u64,
    pub effects: u64,
    /// Position after the last frame.
    pub position: u64,
    /// Bytes of an unfinished last write that were cut off. They were never acknowledged under `always`.
    pub torn: u64,
}

/// Locks the directory, creates what a first start needs, and applies every effect of the append-only file in order.
///
/// `apply` may wait, for memory or for a key on disk; its error ends the start.
pub async fn open_data_dir<W: World, E: Display>(
    world: &W,
    config: &DataDirConfig,
    mut apply: impl AsyncFnMut(Effect<'_>) -> Result<(), E>,
) -> Result<Recovered<W>, OpenError> {
    let disk = world.disk();
    let path = &config.path;
    disk.create_dir_all(path).await.map_err(failed("create the data directory", path))?;
    let lock = lock(disk, path)?;
    let names = disk.list(path).await.map_err(failed("list the data directory", path))?;
    let found = match names.iter().any(|name| name == MANIFEST) {
        true => Some(read_manifest(disk, &path.join(MANIFEST)).await?),
        false => {
            refuse_data_without_manifest(disk, path, &names).await?;
            None
        }
    };
    let mut dir =
        DataDir { world: world.clone(), path: path.clone(), manifest: found.clone().unwrap_or_default(), _lock: lock };
    if !config.aof {
        if dir.manifest.segment.is_some() {
            return Err(OpenError::AofDisabled(path.clone()));
        }
        if found.is_none() {
            dir.write_manifest().await?;
        }
        return Ok(Recovered { dir, aof: None, summary: Summary::default() });
    }
    if dir.manifest.segment.is_none() {
        dir.create_segment().await?;
    }
    let (segment, summary) = dir.replay(config, &mut apply).await?;
    if found.as_ref() != Some(&dir.manifest) {
        dir.write_manifest().await?;
    }
    let aof = Aof::new(segment.path.clone(), segment.salt, config.policy, summary.position);
    Ok(Recovered { dir, aof: Some((Arc::new(aof), segment)), summary })
}

impl<W: World> DataDir<W> {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes in the manifest up to where the append-only file is durable, so that a later start misses whatever is cut
    /// off below. For a clean stop, after [`Aof::close`]; each start does the same.
    pub async fn note_durable(&mut self, position: u64) -> Result<(), OpenError> {
        if self.manifest.durable == position {
            return Ok(());
        }
        self.manifest.durable = position;
        self.write_manifest().await
    }

    async fn create_segment(&mut self) -> Result<(), OpenError> {
        let path = self.path.join(FIRST_SEGMENT);
        let header = SegmentHeader { base: self.manifest.durable, salt: self.world.entropy().next_u64() };
        let disk = self.world.disk();
        write_whole(disk, &path, &header.encode()).await.map_err(failed("write", &path))?;
        self.manifest.segment = Some(FIRST_SEGMENT.to_owned());
        self.sync().await
    }

    async fn write_manifest(&self) -> Result<(), OpenError> {
        let disk = self.world.disk();
        let (new, path) = (self.path.join(MANIFEST_NEW), self.path.join(MANIFEST));
        let text = self.manifest.encode();
        write_whole(disk, &new, text.as_bytes()).await.map_err(failed("write", &new))?;
        disk.rename(&new, &path).await.map_err(failed("replace", &path))?;
        self.sync().await
    }

    async fn sync(&self) -> Result<(), OpenError> {
        let disk = self.world.disk();
        disk.sync_dir(&self.path).await.map_err(failed("sync the data directory", &self.path))
    }

    /// Replays the segment, cuts a torn tail off, and makes what was read durable.
    async fn replay<E: Display>(
        &mut self,
        config: &DataDirConfig,
        apply: &mut impl AsyncFnMut(Effect<'_>) -> Result<(), E>,
    ) -> Result<(AofFile<FileOf<W>>, Summary), OpenError> {
        let name = self.manifest.segment.as_ref().expect("created if there was none");
        let path = self.path.join(name);
        let (file, header) = open_segment(self.world.disk(), &path).await?;
        let read_len = config.read_len.next_multiple_of(BLOCK);
        let replayed = replay(&file, header, self.manifest.durable, read_len, apply)
            .await
            .map_err(|error| replay_failed(&path, error))?;
        if replayed.torn > 0 {
            tracing::warn!(
                path = %path.display(),
                offset = replayed.end,
                bytes = replayed.torn,
                "the append-only file ends in an unfinished write: cut off"
            );
            // What is cut must be gone for good: appended frames could otherwise lead back into it.
            file.set_len(replayed.end).await.map_err(failed("truncate", &path))?;
        }
        // After a killed process the last frames may only be in the page cache, and clients will now read them.
        file.sync().await.map_err(failed("sync", &path))?;
        self.manifest.durable = replayed.position;
        let segment = AofFile {
            file,
            path,
            salt: header.salt,
            end: replayed.end,
            allocate_min: config.allocate_min,
            allocate_max: config.allocate_max,
        };
        let Replayed { position, frames, effects, torn, .. } = replayed;
        Ok((segment, Summary { frames, effects, position, torn }))
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { action, path: path.to_owned(), source }
}

fn replay_failed<E: Display>(path: &Path, error: ReplayError<E>) -> OpenError {
    let path = path.to_owned();
    match error {
        ReplayError::Read { source, .. } => OpenError::Io { action: "read", path, source },
        ReplayError::Corrupt { offset, position, durable } => OpenError::Corrupt { path, offset, position, durable },
        ReplayError::Decode { offset, source } => OpenError::Decode { path, offset, source },
        ReplayError::Apply { offset, source } => OpenError::Apply { path, offset, message: source.to_string() },
    }
}

fn lock<D: Disk>(disk: &D, dir: &Path) -> Result<D::Lock, OpenError> {
    let path = dir.join(LOCK);
    disk.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked(dir.to_owned()),
        _ => failed("lock", &path)(error),
    })
}

async fn read_manifest<D: Disk>(disk: &D, path: &Path) -> Result<Manifest, OpenError> {
    let file = disk.open(path, OpenMode::ReadOnly).await.map_err(failed("open", path))?;
    let bytes = read_start(&file, MANIFEST_LEN_MAX).await.map_err(failed("read", path))?;
    Manifest::decode(&bytes).map_err(|source| OpenError::Manifest { path: path.to_owned(), source })
}

/// Without a manifest there may be the segment of a first start that did not get further, and nothing else.
async fn refuse_data_without_manifest<D: Disk>(disk: &D, dir: &Path, names: &[String]) -> Result<(), OpenError> {
    let mut files = Vec::new();
    for name in names.iter().filter(|name| DATA_ENDINGS.iter().any(|ending| name.ends_with(ending))) {
        let path = dir.join(name);
        if name == FIRST_SEGMENT && holds_no_frame(disk, &path).await.map_err(failed("read", &path))? {
            disk.remove(&path).await.map_err(failed("remove", &path))?;
        } else {
            files.push(name.clone());
        }
    }
    match files.is_empty() {
        true => Ok(()),
        false => Err(OpenError::ManifestMissing { path: dir.to_owned(), files }),
    }
}

/// Frames begin behind the header, and file space is only allocated once a manifest names the file.
async fn holds_no_frame<D: Disk>(disk: &D, path: &Path) -> io::Result<bool> {
    Ok(disk.open(path, OpenMode::ReadOnly).await?.len().await? <= HEADER_LEN)
}

async fn open_segment<D: Disk>(disk: &D, path: &Path) -> Result<(D::File, SegmentHeader), OpenError> {
    // Opened read-only first: the other modes create what is missing.
    let file = disk.open(path, OpenMode::ReadOnly).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::SegmentMissing(path.to_owned()),
        _ => failed("open", path)(error),
    })?;
    let bytes = read_start(&file, HEADER_LEN).await.map_err(failed("read", path))?;
    let header =
        SegmentHeader::decode(&bytes).map_err(|source| OpenError::SegmentHeader { path: path.to_owned(), source })?;
    let file = disk.open(path, OpenMode::Sequential).await.map_err(failed("open", path))?;
    Ok((file, header))
}

/// The first `len_max` bytes of a file, or all of a shorter one.
async fn read_start<F: File>(file: &F, len_max: u64) -> io::Result<Vec<u8>> {
    let len = file.len().await?.min(len_max) as usize;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let done = file.read_at(AlignedBuf::zeroed(len - bytes.len()), bytes.len() as u64).await;
        match done.result? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&done.buf[..read]),
        }
    }
    Ok(bytes)
}

/// Makes a file hold exactly `bytes`, durably; its name is durable once the directory is synced.
async fn write_whole<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = disk.open(path, OpenMode::Sequential).await?;
    file.set_len(0).await?;
    file.write_at(AlignedBuf::copy_of(bytes), 0).await.result?;
    file.sync().await
}
