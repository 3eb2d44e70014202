//! Reading what is to be written again, or cut off: a disk that gives a wrong byte once does no lasting harm.

use std::io;

use ferrite_io::{AlignedBuf, File};

/// Readings of the same bytes before it is said that they differ.
pub(crate) const READINGS_MAX: usize = 8;

/// At most `len` bytes at `offset`, as two readings in a row have them.
///
/// # Errors
/// The disk's; `UnexpectedEof` where the file ends; `InvalidData` if no reading is like the one before.
pub(super) async fn read_surely<F: File>(file: &F, offset: u64, len: usize) -> io::Result<AlignedBuf> {
    let mut before: Option<AlignedBuf> = None;
    for _ in 0..READINGS_MAX {
        let done = file.read_at(AlignedBuf::zeroed(len), offset).await;
        let (read, mut buf) = (done.result?, done.buf);
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buf.truncate(read);
        if let Some(before) = before {
            let both = buf.len().min(before.len());
            if buf[..both] == before[..both] {
                buf.truncate(both);
                return Ok(buf);
            }
        }
        before = Some(buf);
    }
    Err(unsteady())
}

/// What the disk gives is something else each time.
pub(crate) fn unsteady() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the disk gives other bytes each time that the same are read")
}
