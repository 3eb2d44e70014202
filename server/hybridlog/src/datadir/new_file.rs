//! A file that grows until it is whole and the manifest names it.

use std::path::PathBuf;

use ferrite_io::{AlignedBuf, File, World};

use super::catalog::{FileError, at};
use crate::aof::FileOf;

/// Bytes between two syncs: at the end little is left to be made durable at once.
const SYNC_EVERY: u64 = 8 << 20;

/// A new file with its header, durable, not yet named by the manifest.
pub(crate) struct NewFile<W: World> {
    pub number: u64,
    pub salt: u64,
    pub path: PathBuf,
    pub file: FileOf<W>,
    /// File offsets.
    end: u64,
    synced: u64,
}

impl<W: World> NewFile<W> {
    /// `len` bytes of it are durable.
    pub fn new(number: u64, salt: u64, path: PathBuf, file: FileOf<W>, len: u64) -> Self {
        Self { number, salt, path, file, end: len, synced: len }
    }

    /// Bytes written so far.
    pub fn len(&self) -> u64 {
        self.end
    }

    /// Appends a payload behind its header, in one write.
    pub async fn append(&mut self, header: &[u8], payload: &[u8]) -> Result<(), FileError> {
        let mut buf = AlignedBuf::zeroed(header.len() + payload.len());
        buf[..header.len()].copy_from_slice(header);
        buf[header.len()..].copy_from_slice(payload);
        let len = buf.len() as u64;
        // First the space: a full disk is met before anything is written.
        self.file.allocate(self.end, len).await.map_err(at("allocate space for", &self.path))?;
        self.file.write_at(buf, self.end).await.result.map_err(at("write", &self.path))?;
        self.end += len;
        if self.end - self.synced >= SYNC_EVERY {
            self.sync().await?;
        }
        Ok(())
    }

    pub async fn sync(&mut self) -> Result<(), FileError> {
        self.file.sync().await.map_err(at("sync", &self.path))?;
        self.synced = self.end;
        Ok(())
    }
}
