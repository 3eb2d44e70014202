//! Opening a data directory: lock, manifest, checkpoint, replay, and what a first start writes.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use ferrite_io::{AlignedBuf, BLOCK, Disk, File, OpenMode, World};
use ferrite_telemetry::{Attribute, cold, cold_span};

use super::catalog::{Catalog, FileError, MANIFEST, SaveError, save};
use super::error::OpenError;
use super::manifest::{CheckpointEntry, LogName, Manifest, SegmentEntry};
use super::surely::read_surely;
use crate::aof::frame::HEADER as FRAME_HEADER;
use crate::aof::segment::{HEADER_LEN, SegmentHeader};
use crate::aof::{Aof, AofFile, Effect, Extent, FsyncPolicy, ReplayError, Replayed, Rewriter, replay};
use crate::checkpoint::{Checkpoints, LoadError};
use crate::planted::Planted;

pub(super) const LOCK: &str = "LOCK";
/// What a first start makes before there is a manifest.
const FIRST_SEGMENT: LogName = LogName::Segment(1);

/// Longer manifests are not ours: a thousand segments need 20 KiB.
const MANIFEST_LEN_MAX: u64 = 1 << 20;

/// A checkpoint is damaged, or its disk refuses to read, if so many looks in a row say the same; and how often it is read at most.
const VERDICTS: usize = 3;
const LOOKS_MAX: usize = 10;

/// Endings of files that hold a user's data. One of them without a manifest stops the start.
const DATA_ENDINGS: [&str; 4] = [".aof", ".log", ".extents", ".ckpt"];

#[derive(Clone, Debug)]
pub struct DataDirConfig {
    pub path: PathBuf,
    /// Whether there is an append-only file.
    pub aof: bool,
    pub policy: FsyncPolicy,
    /// Bytes by which the append-only file is allocated ahead: at first, and at most.
    pub allocate_min: u64,
    pub allocate_max: u64,
    /// Bytes of a segment from which on the log goes on in a new one.
    pub segment_max: u64,
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
            segment_max: 128 << 20,
            read_len: 1 << 20,
        }
    }
}

/// An open data directory, locked until this is dropped.
pub struct DataDir<W: World> {
    path: PathBuf,
    _lock: <W::Disk as Disk>::Lock,
}

impl<W: World> DataDir<W> {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What was found, and what writes on.
pub struct Recovered<W: World> {
    pub dir: DataDir<W>,
    /// None if the directory is used without an append-only file.
    pub aof: Option<RecoveredAof<W>>,
    pub checkpoints: Checkpoints<W>,
    pub summary: Summary,
}

/// A checkpoint that a manifest names.
#[derive(Clone, Debug)]
pub struct NamedCheckpoint {
    pub path: PathBuf,
    pub(crate) entry: CheckpointEntry,
}

/// What a start does with what it finds.
#[allow(async_fn_in_trait)]
pub trait Recover {
    type Error: Display;

    /// Puts a checkpoint in force; once, before any effect. If it is damaged, nothing has changed, and the one before
    /// comes next.
    async fn restore(&mut self, checkpoint: &NamedCheckpoint) -> Result<Result<(), LoadError>, Self::Error>;

    /// A checkpoint before the one that was put in force is to be fallen back to some time: what it needs must stay as it is.
    /// If it cannot be read, nothing has changed, and it is forgotten.
    async fn keep(&mut self, checkpoint: &NamedCheckpoint) -> Result<Result<(), LoadError>, Self::Error>;

    /// Applies effects of the append-only file that follow one another, in their order. May wait, for memory or for keys on
    /// disk. An error ends the start; it comes with the index of the effect that it is about.
    async fn apply(&mut self, effects: &[Effect<'_>]) -> Result<(), (usize, Self::Error)>;
}

/// Without checkpoints, one effect at a time.
pub(crate) struct ReplayOnly<F>(pub F);

impl<E: Display, F: AsyncFnMut(Effect<'_>) -> Result<(), E>> Recover for ReplayOnly<F> {
    type Error = E;

    async fn restore(&mut self, checkpoint: &NamedCheckpoint) -> Result<Result<(), LoadError>, E> {
        let source = io::Error::other("only an append-only file is expected");
        Ok(Err(LoadError::Read { path: checkpoint.path.clone(), source }))
    }

    async fn keep(&mut self, _: &NamedCheckpoint) -> Result<Result<(), LoadError>, E> {
        unreachable!("nothing was restored")
    }

    async fn apply(&mut self, effects: &[Effect<'_>]) -> Result<(), (usize, E)> {
        for (at, &effect) in effects.iter().enumerate() {
            (self.0)(effect).await.map_err(|error| (at, error))?;
        }
        Ok(())
    }
}

/// The append-only file after its replay.
pub struct RecoveredAof<W: World> {
    pub shared: Arc<Aof>,
    /// For [`crate::aof::aof_task`].
    pub file: AofFile<W>,
    /// For rewrites, on the same worker.
    pub rewriter: Rewriter<W>,
}

/// What the replay did, for the start-up log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub frames: u64,
    pub effects: u64,
    /// Bytes of all frames read, their headers included: not of those that a checkpoint stands for and that were passed over.
    pub bytes: u64,
    /// Position after the last frame.
    pub position: u64,
    /// Bytes of an unfinished last write that were cut off. They were never acknowledged under `always`.
    pub torn: u64,
}

/// [`recover_data_dir`] of a directory that never has checkpoints.
pub async fn open_data_dir<W: World, E: Display>(
    world: &W,
    config: &DataDirConfig,
    apply: impl AsyncFnMut(Effect<'_>) -> Result<(), E>,
) -> Result<Recovered<W>, OpenError> {
    recover_data_dir(world, config, &mut ReplayOnly(apply)).await
}

/// Locks the directory, creates what a first start needs, restores the newest checkpoint that is good, and applies every
/// effect of the append-only file from there on in order.
pub async fn recover_data_dir<W: World, R: Recover>(
    world: &W,
    config: &DataDirConfig,
    recover: &mut R,
) -> Result<Recovered<W>, OpenError> {
    let disk = world.disk();
    let path = &config.path;
    disk.create_dir_all(path).await.map_err(failed("create the data directory", path))?;
    let dir = DataDir { path: path.clone(), _lock: lock(disk, path)? };
    let names = disk.list(path).await.map_err(failed("list the data directory", path))?;
    let found = match names.iter().any(|name| name == MANIFEST) {
        true => {
            let manifest = read_manifest(disk, &path.join(MANIFEST)).await?;
            // A killed process may have left it named in memory alone. Before anything builds on it, files that it does
            // not name are removed included, it must be what a start after a power loss would find too.
            disk.sync_dir(path).await.map_err(failed("sync the data directory", path))?;
            remove_unnamed(disk, path, &manifest, &names).await?;
            manifest
        }
        false => {
            refuse_data_without_manifest(disk, path, &names).await?;
            let manifest = Manifest::default();
            if !config.aof {
                save(disk, path, &manifest).await.map_err(save_failed)?;
            }
            manifest
        }
    };
    let mut manifest = found;
    if !config.aof && !manifest.segments.is_empty() {
        return Err(OpenError::AofDisabled(path.clone()));
    }
    let catalog = Rc::new(Catalog::new(world.clone(), path.clone(), manifest.clone()));
    let kept = &restore_newest(path, &manifest, recover).await?;
    let restored = kept.last().copied();
    if kept.len() < manifest.checkpoints.len() {
        // Before anything is written behind those that are kept.
        catalog.keep_checkpoints(kept).await.map_err(save_failed)?;
        manifest.checkpoints.clone_from(kept);
    }
    if !config.aof {
        let checkpoints = Checkpoints::new(None, catalog);
        return Ok(Recovered { dir, aof: None, checkpoints, summary: Summary::default() });
    }
    if manifest.segments.is_empty() {
        let position = manifest.durable;
        let new = catalog.new_segment(position).await.map_err(file_failed)?;
        let entry = SegmentEntry { number: new.number, salt: new.salt, position };
        catalog.add_segment(entry).await.map_err(save_failed)?;
        manifest.segments.push(entry);
    }
    let files =
        Files { disk, dir: path, read_len: config.read_len.next_multiple_of(BLOCK), mode: OpenMode::Sequential };
    let recovery = Recovery { files, manifest: &manifest, restored };
    let span = cold_span!(AofReplay, AofRecords, AofBytes, AofTornBytes);
    let found = cold::step(&span, recovery.run(recover)).await?;
    let Found { last, summary, .. } = found;
    cold::set(&span, Attribute::AofRecords, summary.frames);
    cold::set(&span, Attribute::AofBytes, summary.bytes);
    cold::set(&span, Attribute::AofTornBytes, summary.torn);
    drop(span);
    catalog.note_durable(summary.position).await.map_err(save_failed)?;
    let shared = Arc::new(Aof::new(last.entry.salt, config.policy, summary.position));
    found.sealed.iter().for_each(|&(number, bytes)| shared.file_sealed(number, bytes));
    shared.set_base_bytes(found.base_bytes);
    let file = AofFile {
        file: last.file,
        path: last.path,
        entry: last.entry,
        end: last.end,
        allocate_min: config.allocate_min,
        allocate_max: config.allocate_max,
        segment_max: config.segment_max,
        catalog: catalog.clone(),
    };
    let rewriter = Rewriter::new(shared.clone(), catalog.clone());
    let checkpoints = Checkpoints::new(Some(shared.clone()), catalog);
    Ok(Recovered { dir, aof: Some(RecoveredAof { shared, file, rewriter }), checkpoints, summary })
}

/// Restores the newest checkpoint that is good. Gives it and those before it, none if the append-only file is all that there
/// is to start from.
async fn restore_newest<R: Recover>(
    dir: &Path,
    manifest: &Manifest,
    recover: &mut R,
) -> Result<Vec<CheckpointEntry>, OpenError> {
    let mut refused = None;
    for (index, entry) in manifest.checkpoints.iter().enumerate().rev() {
        let named = NamedCheckpoint { path: dir.join(entry.name().to_string()), entry: *entry };
        if !manifest.log_reaches(entry) {
            let message = "the append-only file begins after it";
            tracing::warn!(checkpoint = %named.path.display(), "a checkpoint cannot be used: {message}");
            refused = Some(format!("{}: {message}", named.path.display()));
            continue;
        }
        match surely(&named, async || recover.restore(&named).await).await? {
            Ok(()) => return keep_older(dir, &manifest.checkpoints[..=index], recover).await,
            Err(LoadError::Damaged(damage)) => {
                tracing::warn!(
                    checkpoint = %named.path.display(),
                    path = %damage.path.display(),
                    offset = damage.offset,
                    what = damage.what,
                    "a checkpoint is damaged: falling back to what was before it"
                );
                refused = Some(damage.to_string());
            }
            // It may be sound: whether to do without it is not the server's to decide.
            Err(LoadError::Read { path, source }) => return Err(OpenError::Io { action: "read", path, source }),
            Err(error @ LoadError::SmallPages { .. }) => return Err(OpenError::SmallPages(error.to_string())),
        }
    }
    match refused {
        Some(last) if !manifest.log_is_whole() => Err(OpenError::NoCheckpoint { path: dir.to_owned(), last }),
        _ => Ok(Vec::new()),
    }
}

/// Looks at a checkpoint until it is good, or it is clear that it is not: what is given up is gone for good, and the disk may read
/// it well another time.
async fn surely<E: Display>(
    named: &NamedCheckpoint,
    mut look: impl AsyncFnMut() -> Result<Result<(), LoadError>, E>,
) -> Result<Result<(), LoadError>, OpenError> {
    let mut before = (None, 0);
    for looks in 1.. {
        let result = look().await;
        let result =
            result.map_err(|error| OpenError::Restore { path: named.path.clone(), message: error.to_string() })?;
        let verdict = match &result {
            Err(LoadError::Damaged(damage)) => Some(damage.clone()),
            Err(LoadError::Read { .. }) => None,
            Ok(()) | Err(LoadError::SmallPages { .. }) => return Ok(result),
        };
        before = if before.0 == verdict { (verdict, before.1 + 1) } else { (verdict, 1) };
        if before.1 == VERDICTS || looks == LOOKS_MAX || Planted::CondemnedAtOneLook.is_there() {
            return Ok(result);
        }
        if let Err(error) = result {
            tracing::info!(checkpoint = %named.path.display(), %error, "a checkpoint is read again");
        }
    }
    unreachable!("there is a last look")
}

/// The last of these was restored; those before it stay, but for any that cannot be read: the start does not need them.
async fn keep_older<R: Recover>(
    dir: &Path,
    checkpoints: &[CheckpointEntry],
    recover: &mut R,
) -> Result<Vec<CheckpointEntry>, OpenError> {
    let (newest, older) = checkpoints.split_last().expect("one was restored");
    let mut kept = vec![*newest];
    for entry in older.iter().rev() {
        let named = NamedCheckpoint { path: dir.join(entry.name().to_string()), entry: *entry };
        match surely(&named, async || recover.keep(&named).await).await? {
            Ok(()) => kept.insert(0, *entry),
            Err(error) => tracing::warn!(
                checkpoint = %named.path.display(),
                %error,
                "a checkpoint before the one in force cannot be fallen back to, and is forgotten"
            ),
        }
    }
    Ok(kept)
}

/// Reads the files that a manifest names.
struct Recovery<'a, D> {
    files: Files<'a, D>,
    manifest: &'a Manifest,
    /// What the log is replayed over.
    restored: Option<CheckpointEntry>,
}

/// How the files of the append-only log are read.
pub(super) struct Files<'a, D> {
    pub disk: &'a D,
    pub dir: &'a Path,
    /// Bytes read at a time; whole blocks.
    pub read_len: usize,
    pub mode: OpenMode,
}

impl<D: Disk> Files<'_, D> {
    /// Reads the file of that name, which must have that header, and applies its effects.
    pub async fn read(
        &self,
        name: LogName,
        expected: SegmentHeader,
        extent: Extent,
        recover: &mut impl Recover,
    ) -> Result<(PathBuf, D::File, Replayed), OpenError> {
        let path = self.dir.join(name.to_string());
        let (file, header) = open_segment(self.disk, &path, self.mode).await?;
        let replayed = match header == expected {
            true => replay(&file, header, extent, self.read_len, recover).await,
            false => return Err(OpenError::SegmentForeign(path)),
        };
        let replayed = replayed.map_err(|error| replay_failed(&path, error))?;
        if extent.sealed && replayed.position != extent.durable {
            return Err(OpenError::SegmentForeign(path));
        }
        Ok((path, file, replayed))
    }
}

impl<D: Disk> Files<'_, D> {
    /// The bytes of a file of which nothing is applied: a checkpoint stands for it. It must still be there and the right one.
    async fn passed_over(&self, name: LogName, expected: SegmentHeader) -> Result<u64, OpenError> {
        let path = self.dir.join(name.to_string());
        let (file, header) = open_segment(self.disk, &path, OpenMode::ReadOnly).await?;
        match header == expected {
            true => file.len().await.map_err(failed("read", &path)),
            false => Err(OpenError::SegmentForeign(path)),
        }
    }
}

/// The segment in which the log goes on.
struct Last<F> {
    file: F,
    path: PathBuf,
    entry: SegmentEntry,
    end: u64,
}

/// What the files held.
struct Found<F> {
    last: Last<F>,
    summary: Summary,
    /// Numbers and bytes of all files but the last segment.
    sealed: Vec<(u64, u64)>,
    /// Bytes from which growth is counted.
    base_bytes: u64,
}

impl<D: Disk> Recovery<'_, D> {
    async fn run(&self, recover: &mut impl Recover) -> Result<Found<D::File>, OpenError> {
        let (mut summary, mut sealed) = (Summary::default(), Vec::new());
        let from = self.restored.map_or(self.manifest.covered(), |checkpoint| checkpoint.position);
        if let Some(base) = &self.manifest.base {
            let (header, extent) = base.extent();
            let bytes = match self.restored {
                Some(_) => self.files.passed_over(base.name(), header).await?,
                None => {
                    let (.., replayed) = self.files.read(base.name(), header, extent, recover).await?;
                    summary.add(&replayed);
                    replayed.end
                }
            };
            sealed.push((base.number, bytes));
        }
        let mut last = None;
        for (index, segment) in self.manifest.segments.iter().enumerate() {
            let (header, extent) = self.manifest.extent_of(index, from);
            if extent.sealed && extent.durable <= from {
                sealed.push((segment.number, self.files.passed_over(segment.name(), header).await?));
                continue;
            }
            let (path, file, replayed) = self.files.read(segment.name(), header, extent, recover).await?;
            summary.add(&replayed);
            match extent.sealed {
                true => sealed.push((segment.number, replayed.end)),
                false => last = Some((path, file, replayed, segment)),
            }
        }
        let (path, file, replayed, segment) = last.expect("a log has a segment");
        self.make_durable(&path, &file, &replayed).await?;
        summary.position = replayed.position;
        summary.torn = replayed.torn;
        let last = Last { file, path, entry: *segment, end: replayed.end };
        let sealed_bytes = || sealed.iter().map(|&(_, bytes)| bytes).sum::<u64>();
        let base_bytes = match (&self.restored, &self.manifest.base) {
            // Growth is counted from here on.
            (Some(_), _) => sealed_bytes() + last.end,
            (None, Some(_)) => sealed.first().map_or(0, |&(_, bytes)| bytes),
            (None, None) => 0,
        };
        Ok(Found { last, summary, sealed, base_bytes })
    }

    /// Cuts a torn tail off, and makes what was read durable.
    async fn make_durable(&self, path: &Path, file: &D::File, replayed: &Replayed) -> Result<(), OpenError> {
        if replayed.torn > 0 {
            tracing::warn!(
                path = %path.display(),
                offset = replayed.end,
                bytes = replayed.torn,
                "the append-only file ends in an unfinished write: cut off"
            );
            // What is cut must be gone for good: appended frames could otherwise lead back into it.
            file.set_len(replayed.end).await.map_err(failed("truncate", path))?;
        }
        // After a killed process the last frames may only be in the page cache, and clients will now read them. After a
        // failed sync they may be there and nowhere else, and a sync would not write them: so they are written again.
        let mut at = replayed.marked;
        while at < replayed.end {
            let len = (replayed.end - at).min(self.files.read_len as u64) as usize;
            let buf = match Planted::WrittenAsReadOnce.is_there() {
                true => read_once(file, at, len).await,
                false => read_surely(file, at, len).await,
            };
            let buf = buf.map_err(failed("read", path))?;
            let read = buf.len() as u64;
            file.write_at(buf, at).await.result.map_err(failed("write", path))?;
            at += read;
        }
        file.sync().await.map_err(failed("sync", path))
    }
}

/// At most `len` bytes at `offset`, one at least.
async fn read_once<F: File>(file: &F, offset: u64, len: usize) -> io::Result<AlignedBuf> {
    let mut done = file.read_at(AlignedBuf::zeroed(len), offset).await;
    match done.result? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => {
            done.buf.truncate(read);
            Ok(done.buf)
        }
    }
}

impl Summary {
    fn add(&mut self, replayed: &Replayed) {
        self.frames += replayed.frames;
        self.effects += replayed.effects;
        self.bytes += replayed.end - replayed.begin;
    }
}

fn file_failed(FileError { action, path, source }: FileError) -> OpenError {
    OpenError::Io { action, path, source }
}

fn save_failed(error: SaveError) -> OpenError {
    file_failed(error.into_file_error())
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
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

pub(super) fn lock<D: Disk>(disk: &D, dir: &Path) -> Result<D::Lock, OpenError> {
    let path = dir.join(LOCK);
    disk.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked(dir.to_owned()),
        _ => failed("lock", &path)(error),
    })
}

pub(super) async fn read_manifest<D: Disk>(disk: &D, path: &Path) -> Result<Manifest, OpenError> {
    let file = disk.open(path, OpenMode::ReadOnly).await.map_err(failed("open", path))?;
    let bytes = read_start(&file, MANIFEST_LEN_MAX).await.map_err(failed("read", path))?;
    Manifest::decode(&bytes).map_err(|source| OpenError::Manifest { path: path.to_owned(), source })
}

/// The checkpoints in force.
#[cfg(test)]
pub(crate) async fn named_checkpoints<D: Disk>(disk: &D, dir: &Path) -> Vec<NamedCheckpoint> {
    let manifest = read_manifest(disk, &dir.join(MANIFEST)).await.expect("a manifest");
    let named = |entry: &CheckpointEntry| NamedCheckpoint { path: dir.join(entry.name().to_string()), entry: *entry };
    manifest.checkpoints.iter().map(named).collect()
}

/// Removes the files of the append-only log that the manifest does not name: what was not finished when the process ended,
/// or not needed any more.
async fn remove_unnamed<D: Disk>(disk: &D, dir: &Path, manifest: &Manifest, names: &[String]) -> Result<(), OpenError> {
    let youngest = manifest.segments.last().map_or(0, |segment| segment.number);
    for name in names {
        let Some(parsed) = LogName::parse(name).filter(|&parsed| manifest.names().all(|named| named != parsed)) else {
            continue;
        };
        let path = dir.join(name);
        if let LogName::Segment(number) = parsed
            && number > youngest
            && !holds_no_frame(disk, &path).await.map_err(failed("read", &path))?
        {
            return Err(OpenError::ManifestOlder { manifest: dir.join(MANIFEST), segment: path });
        }
        tracing::info!(path = %path.display(), "a file that the manifest does not name is removed");
        disk.remove(&path).await.map_err(failed("remove", &path))?;
    }
    Ok(())
}

/// Without a manifest there may be the segment of a first start that did not get further, and nothing else.
async fn refuse_data_without_manifest<D: Disk>(disk: &D, dir: &Path, names: &[String]) -> Result<(), OpenError> {
    let mut files = Vec::new();
    for name in names.iter().filter(|name| DATA_ENDINGS.iter().any(|ending| name.ends_with(ending))) {
        let path = dir.join(name);
        if *name == FIRST_SEGMENT.to_string() && holds_no_frame(disk, &path).await.map_err(failed("read", &path))? {
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

/// Space may have been allocated for frames before the manifest named the file; a frame, or a mark, not.
pub(super) async fn holds_no_frame<D: Disk>(disk: &D, path: &Path) -> io::Result<bool> {
    let file = disk.open(path, OpenMode::ReadOnly).await?;
    let start = read_start(&file, HEADER_LEN + FRAME_HEADER as u64).await?;
    Ok(start.get(HEADER_LEN as usize..).is_none_or(|frame| frame.iter().all(|&byte| byte == 0)))
}

async fn open_segment<D: Disk>(disk: &D, path: &Path, mode: OpenMode) -> Result<(D::File, SegmentHeader), OpenError> {
    // Opened read-only first: the other modes create what is missing.
    let file = disk.open(path, OpenMode::ReadOnly).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::SegmentMissing(path.to_owned()),
        _ => failed("open", path)(error),
    })?;
    let bytes = read_start(&file, HEADER_LEN).await.map_err(failed("read", path))?;
    let header =
        SegmentHeader::decode(&bytes).map_err(|source| OpenError::SegmentHeader { path: path.to_owned(), source })?;
    let file = disk.open(path, mode).await.map_err(failed("open", path))?;
    Ok((file, header))
}

/// The first `len_max` bytes of a file, or all of a shorter one.
pub(super) async fn read_start<F: File>(file: &F, len_max: u64) -> io::Result<Vec<u8>> {
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
