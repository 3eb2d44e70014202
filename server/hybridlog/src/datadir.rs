//! The data directory: locked, described by a manifest, and never started empty over existing data.
//!
//! | file | content |
//! |---|---|
//! | `LOCK` | empty; locked while a server uses the directory |
//! | `MANIFEST` | which files make up the append-only file, and up to where it was durable ([`manifest`]) |
//! | `appendonly-<n>.aof` | its segments; their format is in [`crate::aof`] |
//! | `appendonly-<n>.base.aof` | its beginning as the last rewrite left it, if there was one |
//! | `checkpoint-<n>.ckpt` | the last two checkpoints ([`crate::checkpoint`]) |
//! | `hybrid.log` | the log device; without a checkpoint it is made anew at each start |
//! | `hybrid.extents` | large values, likewise |
//!
//! The manifest is written last: to `MANIFEST.new`, synced, renamed, and the directory synced. So a file that it names
//! exists whole. A file that it does not name is what was not finished, or not needed any more, when the process ended; a
//! start removes it. But a segment with frames that is younger than every one of the manifest's means that somebody has
//! put an old manifest back: that stops the start.

mod catalog;
mod check;
mod error;
mod manifest;
mod new_file;
mod open;
mod page_size;
mod surely;

#[cfg(test)]
mod tests;

pub(crate) use catalog::{Catalog, FileError, SaveError};
pub use check::{Report, check_data_dir};
pub use error::OpenError;
pub use manifest::ManifestError;
pub(crate) use manifest::{BaseEntry, CheckpointEntry, SegmentEntry};
pub(crate) use new_file::NewFile;
pub use open::{
    DataDir, DataDirConfig, NamedCheckpoint, Recover, Recovered, RecoveredAof, Summary, open_data_dir, recover_data_dir,
};
pub use page_size::page_size_needed;
pub(crate) use surely::{READINGS_MAX, unsteady};
#[cfg(test)]
pub(crate) use {manifest::VERSION as MANIFEST_VERSION, open::ReplayOnly, open::named_checkpoints};
