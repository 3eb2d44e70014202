//! Reads of the file of extents that give all that was asked for.

use super::transfer::ExtentError;
use ferrite_io::{AlignedBuf, BLOCK, File, SubmissionId};

/// Where a read may begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// The file of a server that runs, which is read past the kernel's cache: where a block begins.
    Direct,
    /// A file that was opened for reading: anywhere.
    Buffered,
}

/// Reads `len` bytes from `offset` on, where a block begins. A disk may answer with less than it was asked for; that is no end: the
/// rest is asked for again, until nothing comes. Each transfer is counted by `count`; the last one's id is given, too.
pub(super) async fn read_whole(
    file: &impl File,
    access: Access,
    offset: u64,
    len: usize,
    count: &mut impl FnMut(),
) -> Result<(AlignedBuf, SubmissionId), ExtentError> {
    count();
    let mut done = file.read_at(AlignedBuf::zeroed(len.next_multiple_of(BLOCK)), offset).await;
    let (mut buf, mut have, mut at) = (AlignedBuf::zeroed(0), 0, 0);
    loop {
        let read = match done.result {
            Ok(read) => read,
            Err(error) => return Err(ExtentError::Io(error, done.id)),
        };
        if at == 0 {
            buf = done.buf;
        } else {
            buf[at..at + read].copy_from_slice(&done.buf[..read]);
        }
        if at + read >= len {
            buf.truncate(len);
            return Ok((buf, done.id));
        }
        have = have.max(at + read);
        let next = if access == Access::Direct { have / BLOCK * BLOCK } else { have };
        if next <= at {
            return Err(ExtentError::Short(done.id));
        }
        at = next;
        count();
        done = file.read_at(AlignedBuf::zeroed(buf.len() - at), offset + at as u64).await;
    }
}
