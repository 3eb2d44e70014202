//! Looking at every file of a data directory without changing any: what a start would read, and what it would stop at or
//! pass over.

use std::path::Path;

use ferrite_io::{Disk, File, OpenMode, World};

use super::catalog::MANIFEST;
use super::error::OpenError;
use super::manifest::{LogName, Manifest};
use super::open::{Files, LOCK, NamedCheckpoint, ReplayOnly, failed, holds_no_frame, lock, read_manifest, read_start};
use crate::address::FILE_HEADER;
use crate::aof::segment::{HEADER_LEN, SegmentHeader};
use crate::aof::{Effect, Extent, Replayed};
use crate::checkpoint;
use crate::device::extents_path;
use crate::flush::{EXTENTS_MAGIC, LOG_MAGIC, check_file_header};

/// Bytes read at a time.
const READ_LEN: usize = 1 << 20;

/// What was found in a data directory.
#[derive(Debug, Default)]
pub struct Report {
    /// A line for each file that is as it should be.
    pub sound: Vec<String>,
    pub damage: Vec<OpenError>,
}

/// Reads every file of a data directory that no server uses: the manifest, each file of the append-only log to its end, the
/// checkpoints, and of the log file `log` every record that they can lead to; its header alone if there is none.
///
/// # Errors
/// Only if the directory cannot be looked at: it is not there, or in use.
pub async fn check_data_dir<W: World>(world: &W, dir: &Path, log: &str) -> Result<Report, OpenError> {
    let disk = world.disk();
    let names = disk.list(dir).await.map_err(failed("list the data directory", dir))?;
    // Taking a lock would make its file.
    let _lock = match names.iter().any(|name| name == LOCK) {
        true => Some(lock(disk, dir)?),
        false => None,
    };
    let files = Files { disk, dir, read_len: READ_LEN, mode: OpenMode::ReadOnly };
    let mut check = Check { files, report: Report::default() };
    let manifest = check.manifest(&names).await;
    match &manifest {
        Some(manifest) => check.named(manifest).await,
        None => check.unnamed(&names).await,
    }
    if let Some(manifest) = &manifest {
        check.left_over(manifest, &names).await;
    }
    let extents = extents_path(Path::new(log));
    match &manifest {
        Some(manifest) if !manifest.checkpoints.is_empty() => check.checkpoints(manifest, log).await,
        _ => {
            for (name, magic) in [(log, LOG_MAGIC), (&*extents.to_string_lossy(), EXTENTS_MAGIC)] {
                if names.iter().any(|there| there == name) {
                    check.device(name, magic).await;
                }
            }
        }
    }
    Ok(check.report)
}

struct Check<'a, D> {
    files: Files<'a, D>,
    report: Report,
}

impl<D: Disk> Check<'_, D> {
    fn sound(&mut self, name: impl std::fmt::Display, what: impl std::fmt::Display) {
        self.report.sound.push(format!("{}: {what}", self.files.dir.join(name.to_string()).display()));
    }

    async fn manifest(&mut self, names: &[String]) -> Option<Manifest> {
        let (disk, dir) = (self.files.disk, self.files.dir);
        if !names.iter().any(|name| name == MANIFEST) {
            let files: Vec<String> = names.iter().filter(|name| LogName::parse(name).is_some()).cloned().collect();
            if !files.is_empty() {
                self.report.damage.push(OpenError::ManifestMissing { path: dir.to_owned(), files });
            }
            return None;
        }
        match read_manifest(disk, &dir.join(MANIFEST)).await {
            Ok(manifest) => {
                let (files, durable) = (manifest.names().count(), manifest.durable);
                self.sound(MANIFEST, format_args!("names {files} files, durable up to position {durable}"));
                Some(manifest)
            }
            Err(error) => {
                self.report.damage.push(error);
                None
            }
        }
    }

    /// The files that a start would read.
    async fn named(&mut self, manifest: &Manifest) {
        if let Some(base) = &manifest.base {
            let (header, extent) = base.extent();
            self.read(base.name(), header, extent).await;
        }
        for (index, segment) in manifest.segments.iter().enumerate() {
            let (header, extent) = manifest.extent_of(index, 0);
            self.read(segment.name(), header, extent).await;
        }
    }

    /// Without a manifest nothing is known of a file but what it says itself.
    async fn unnamed(&mut self, names: &[String]) {
        for name in names {
            let Some(parsed) = LogName::parse(name) else { continue };
            if let LogName::Checkpoint(_) = parsed {
                self.sound(name, "cannot be judged without the manifest");
                continue;
            }
            let path = self.files.dir.join(name);
            match self.header(&path).await {
                Ok(header) => self.read(parsed, header, Extent::default()).await,
                Err(error) => self.report.damage.push(error),
            }
        }
    }

    async fn header(&self, path: &Path) -> Result<SegmentHeader, OpenError> {
        let file = self.files.disk.open(path, OpenMode::ReadOnly).await.map_err(failed("open", path))?;
        let bytes = read_start(&file, HEADER_LEN).await.map_err(failed("read", path))?;
        SegmentHeader::decode(&bytes).map_err(|source| OpenError::SegmentHeader { path: path.to_owned(), source })
    }

    async fn read(&mut self, name: LogName, header: SegmentHeader, extent: Extent) {
        let everything = Extent { apply_from: 0, ..extent };
        let mut count = ReplayOnly(async |_: Effect<'_>| Ok::<(), std::convert::Infallible>(()));
        match self.files.read(name, header, everything, &mut count).await {
            Ok((_, _, Replayed { frames, effects, end, torn: 0, .. })) => {
                self.sound(name, format_args!("{frames} frames, {effects} effects, {end} bytes"));
            }
            Ok((_, _, Replayed { frames, end, torn, .. })) => self.sound(
                name,
                format_args!(
                    "{frames} frames, then {torn} bytes of an unfinished write at offset {end}: a start cuts them off"
                ),
            ),
            Err(error) => self.report.damage.push(error),
        }
    }

    /// Files of the log that the manifest does not name.
    async fn left_over(&mut self, manifest: &Manifest, names: &[String]) {
        let youngest = manifest.segments.last().map_or(0, |segment| segment.number);
        for name in names {
            let Some(parsed) = LogName::parse(name).filter(|&parsed| manifest.names().all(|named| named != parsed))
            else {
                continue;
            };
            if let LogName::Checkpoint(_) = parsed {
                self.sound(name, "not named by the manifest: a start removes it");
                continue;
            }
            let path = self.files.dir.join(name);
            let young = matches!(parsed, LogName::Segment(number) if number > youngest);
            match holds_no_frame(self.files.disk, &path).await {
                Ok(false) if young => {
                    let manifest = self.files.dir.join(MANIFEST);
                    self.report.damage.push(OpenError::ManifestOlder { manifest, segment: path });
                }
                Ok(_) => self.sound(name, "not named by the manifest: a start removes it"),
                Err(error) => self.report.damage.push(failed("read", &path)(error)),
            }
        }
    }

    async fn checkpoints(&mut self, manifest: &Manifest, log: &str) {
        let dir = self.files.dir;
        let named = |entry: &super::CheckpointEntry| NamedCheckpoint {
            path: dir.join(entry.name().to_string()),
            entry: *entry,
        };
        let named: Vec<NamedCheckpoint> = manifest.checkpoints.iter().map(named).collect();
        let found = checkpoint::check(self.files.disk, &named, &dir.join(log)).await;
        self.report.sound.extend(found.sound);
        self.report.damage.extend(found.damage.into_iter().map(|error| match error {
            checkpoint::LoadError::Damaged(damage) => OpenError::Damaged(damage),
            checkpoint::LoadError::Read { path, source } => OpenError::Io { action: "read", path, source },
            checkpoint::LoadError::SmallPages { .. } => OpenError::SmallPages(error.to_string()),
        }));
    }

    async fn device(&mut self, name: &str, magic: [u8; 8]) {
        let path = self.files.dir.join(name);
        let start = async {
            let file = self.files.disk.open(&path, OpenMode::ReadOnly).await?;
            Ok((read_start(&file, FILE_HEADER).await?, file.len().await?))
        };
        match start.await.map_err(failed("read", &path)) {
            Ok((start, len)) => match check_file_header(&start, magic) {
                Ok(_) => {
                    self.sound(name, format_args!("{len} bytes; without a checkpoint it is made anew at each start"))
                }
                Err(what) => self.report.damage.push(OpenError::Log { path, what }),
            },
            Err(error) => self.report.damage.push(error),
        }
    }
}
