//! Why a data directory could not be opened. Each message says what happened, where, and what to do.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::manifest::ManifestError;
use crate::aof::{DecodeError, HeaderError};
use crate::checkpoint::Damage;

#[derive(Debug, Error)]
pub enum OpenError {
    #[error("cannot {action} {}: {source}. {}", path.display(), what_to_do(source))]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the checkpoint {0}")]
    SmallPages(String),
    #[error("the data directory {} is in use by another server: stop it, or choose another directory", .0.display())]
    Locked(PathBuf),
    #[error(
        "the data directory {} holds data ({}) but no MANIFEST. Not starting empty over it: restore the MANIFEST from a backup, \
         or move the files away to start without their data", path.display(), files.join(", ")
    )]
    ManifestMissing { path: PathBuf, files: Vec<String> },
    #[error(
        "the manifest {} cannot be used: {source}. Not starting empty over existing data: restore it from a backup, start the server \
         version that wrote it, or choose another directory", path.display()
    )]
    Manifest { path: PathBuf, source: ManifestError },
    #[error(
        "the append-only file {} is missing although the manifest names it. Restore it from a backup, or move the whole directory \
         away to start without its data", .0.display()
    )]
    SegmentMissing(PathBuf),
    #[error(
        "the append-only file {} is not the one that the manifest names: it is another server's, or of another time. Restore the \
         whole directory from one backup", .0.display()
    )]
    SegmentForeign(PathBuf),
    #[error(
        "the manifest {} is older than {}, which holds data and is not named in it. Not starting without that data: restore the \
         whole directory from one backup", manifest.display(), segment.display()
    )]
    ManifestOlder { manifest: PathBuf, segment: PathBuf },
    #[error(
        "the append-only file {} cannot be used: {source}. Restore it from a backup, or start the server version that wrote it", path.display()
    )]
    SegmentHeader { path: PathBuf, source: HeaderError },
    #[error(
        "the append-only file {} is damaged at offset {offset} (position {position}), within data that was durable up to position \
         {durable}. Not starting without it: restore the file from a backup or a replica", path.display()
    )]
    Corrupt { path: PathBuf, offset: u64, position: u64, durable: u64 },
    #[error(
        "the append-only file {} holds a valid frame at offset {offset} that this server does not understand: {source}. Start the server \
         version that wrote it", path.display()
    )]
    Decode { path: PathBuf, offset: u64, source: DecodeError },
    #[error("replaying the append-only file {} stopped at offset {offset}: {message}", path.display())]
    Apply { path: PathBuf, offset: u64, message: String },
    #[error("the log file {} cannot be used: {what}. No checkpoint leads into it: the next start makes it anew", path.display())]
    Log { path: PathBuf, what: String },
    #[error("{0}")]
    Damaged(Damage),
    #[error(
        "no checkpoint of {} can be used, and the append-only file does not go back to the beginning. {last}. Not starting without \
         the data: restore the whole directory from one backup", path.display()
    )]
    NoCheckpoint { path: PathBuf, last: String },
    #[error("the checkpoint {} cannot be restored: {message}", path.display())]
    Restore { path: PathBuf, message: String },
    #[error(
        "the data directory {} holds an append-only file but the server is told to run without one. Not starting empty over existing \
         data: enable it, or choose another directory", .0.display()
    )]
    AofDisabled(PathBuf),
}

/// What helps against a failure of the file system: most have nothing to do with the path or its permissions.
fn what_to_do(error: &io::Error) -> &'static str {
    use io::ErrorKind::{
        AlreadyExists, FileTooLarge, NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem,
        StorageFull,
    };
    match error.kind() {
        NotFound | NotADirectory | AlreadyExists => "Check that the path is right",
        PermissionDenied => "Check that this user may read and write there",
        ReadOnlyFilesystem => "Mount the file system for writing, or choose another directory",
        StorageFull | QuotaExceeded | FileTooLarge => "Free disk space or raise the quota, then start again",
        _ => {
            "The disk or the file system fails: look at the kernel's log, and restore from a backup what cannot be read"
        }
    }
}
