//! Read-only maps of the log file that cannot fault later.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use ferrite_io::{AlignedBuf, BLOCK, Mapping};
use memmap2::{Advice, Mmap, MmapOptions};

/// A mapped range: locked in memory, or a copy where the lock was refused.
#[derive(Debug)]
pub struct RealMap(Bytes);

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Copied(AlignedBuf),
}

impl AsRef<[u8]> for RealMap {
    fn as_ref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Mapped(map) => map,
            Bytes::Copied(buf) => buf,
        }
    }
}

impl Mapping for RealMap {}

impl RealMap {
    /// Whether the bytes are a copy in anonymous memory.
    pub fn is_copy(&self) -> bool {
        matches!(self.0, Bytes::Copied(_))
    }
}

/// Maps `len` bytes from `offset`. Only bytes inside the file can be mapped: a touch past its end is SIGBUS.
pub(super) fn map(file: &File, offset: u64, len: usize) -> io::Result<RealMap> {
    let aligned = offset.is_multiple_of(BLOCK as u64) && len.is_multiple_of(BLOCK);
    if !aligned || len == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a map of {len} bytes at {offset}")));
    }
    let file_len = file.metadata()?.len();
    if offset.checked_add(len as u64).is_none_or(|end| end > file_len) {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("a map of {len} bytes at {offset} ends past the file's {file_len}"),
        ));
    }
    // SAFETY: the range is inside the file, the log never rewrites or cuts pages that it has handed out as
    // maps, and the data directory's lock keeps other processes of ours away from the file.
    let map = unsafe { MmapOptions::new().offset(offset).len(len).map(file)? };
    match map.advise(Advice::PopulateRead) {
        Ok(()) => {}
        // Linux before 5.14 does not know the advice.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return copy(file, offset, len),
        // EFAULT: the file was cut meanwhile, or the disk failed.
        Err(error) => return Err(error),
    }
    // Without the lock the kernel may evict the page and a later touch would block the worker on the disk,
    // or kill the process if that read fails.
    match map.lock() {
        Ok(()) => Ok(RealMap(Bytes::Mapped(map))),
        Err(_) => copy(file, offset, len),
    }
}

fn copy(file: &File, offset: u64, len: usize) -> io::Result<RealMap> {
    let mut buf = AlignedBuf::zeroed(len);
    file.read_exact_at(&mut buf, offset)?;
    Ok(RealMap(Bytes::Copied(buf)))
}
