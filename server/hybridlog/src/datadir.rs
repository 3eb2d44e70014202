//! The data directory: locked, described by a manifest, and never started empty over existing data.
//!
//! | file | content |
//! |---|---|
//! | `LOCK` | empty; locked while a server uses the directory |
//! | `MANIFEST` | name of the append-only file's segment, and up to where it was durable |
//! | `appendonly-1.aof` | the segment; its format is in [`crate::aof`] |
//!
//! The manifest is written last: to `MANIFEST.new`, synced, renamed, and the directory synced. So a file that it names
//! exists whole, and a file that it does not name is the rest of an interrupted first start, or data that somebody
//! took the manifest from.

mod error;
mod manifest;
mod open;

#[cfg(test)]
mod tests;

pub use error::OpenError;
pub use manifest::ManifestError;
pub use open::{DataDir, DataDirConfig, Recovered, Summary, open_data_dir};
