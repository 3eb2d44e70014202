//! One file's transfers on each backend, continued until they are whole.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;

use ferrite_io::{AlignedBuf, BLOCK, Done, SubmissionId};
use tokio_uring::buf::{BoundedBuf, IoBuf, IoBufMut, Slice};

use super::ring::Ring;
use super::{Submissions, pool};

/// What moves a file's bytes.
pub(super) enum Transfers {
    /// The log device's: the id of a transfer is its SQE's user data.
    Ring(Rc<Ring>),
    /// tokio-uring keeps its SQEs' user data to itself: ids are numbered here.
    TokioUring(tokio_uring::fs::File),
    Threads,
}

impl Transfers {
    /// Fills `buf` from `offset` up to the end of the file.
    pub(super) async fn read(
        &self,
        file: &Arc<File>,
        is_direct: bool,
        mut buf: AlignedBuf,
        offset: u64,
        submissions: &Submissions,
    ) -> Done {
        let mut read = 0;
        loop {
            let (result, back, id) = self.read_some(file, buf, read, offset + read as u64, submissions).await;
            buf = back;
            match result {
                Ok(n) => {
                    read += n;
                    // A direct read ends inside a block only where the file does.
                    let at_end = n == 0 || (is_direct && !n.is_multiple_of(BLOCK));
                    if at_end || read == buf.len() {
                        return Done { result: Ok(read), buf, id };
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Done { result: Err(error), buf, id };
                }
            }
        }
    }

    /// Writes the whole of `buf` at `offset`.
    pub(super) async fn write(
        &self,
        file: &Arc<File>,
        mut buf: AlignedBuf,
        offset: u64,
        submissions: &Submissions,
    ) -> Done {
        let mut written = 0;
        loop {
            let (result, back, id) = self.write_some(file, buf, written, offset + written as u64, submissions).await;
            buf = back;
            match result {
                Ok(n) => {
                    written += n;
                    if written == buf.len() {
                        return Done { result: Ok(written), buf, id };
                    }
                    if n == 0 {
                        return Done { result: Err(io::ErrorKind::WriteZero.into()), buf, id };
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Done { result: Err(error), buf, id };
                }
            }
        }
    }

    pub(super) async fn sync(&self, file: &Arc<File>) -> io::Result<()> {
        match self {
            Self::Ring(ring) => ring.sync(file).await,
            Self::TokioUring(file) => file.sync_data().await,
            Self::Threads => {
                let file = file.clone();
                pool::run(move || file.sync_data()).await
            }
        }
    }

    pub(super) async fn allocate(&self, file: &Arc<File>, offset: u64, len: u64) -> io::Result<()> {
        match self {
            Self::Ring(ring) => ring.allocate(file, offset, len).await,
            Self::TokioUring(file) => file.fallocate(offset, len, 0).await,
            Self::Threads => {
                let file = file.clone();
                pool::run(move || fallocate(&file, 0, offset, len)).await
            }
        }
    }

    pub(super) async fn punch(&self, file: &Arc<File>, offset: u64, len: u64) -> io::Result<()> {
        match self {
            Self::Ring(ring) => ring.fallocate(file, PUNCH, offset, len).await,
            Self::TokioUring(file) => file.fallocate(offset, len, PUNCH).await,
            Self::Threads => {
                let file = file.clone();
                pool::run(move || fallocate(&file, PUNCH, offset, len)).await
            }
        }
    }

    async fn read_some(
        &self,
        file: &Arc<File>,
        mut buf: AlignedBuf,
        from: usize,
        offset: u64,
        submissions: &Submissions,
    ) -> (io::Result<usize>, AlignedBuf, SubmissionId) {
        match self {
            Self::Ring(ring) => ring.read(file, buf, from, offset).await,
            Self::TokioUring(file) => {
                let id = submissions.next();
                let (result, slice) = file.read_at(rest(buf, from), offset).await;
                (result, slice.into_inner().0, id)
            }
            Self::Threads => {
                let id = submissions.next();
                let file = file.clone();
                let (result, buf) = pool::run(move || (file.read_at(&mut buf[from..], offset), buf)).await;
                (result, buf, id)
            }
        }
    }

    async fn write_some(
        &self,
        file: &Arc<File>,
        buf: AlignedBuf,
        from: usize,
        offset: u64,
        submissions: &Submissions,
    ) -> (io::Result<usize>, AlignedBuf, SubmissionId) {
        match self {
            Self::Ring(ring) => ring.write(file, buf, from, offset).await,
            Self::TokioUring(file) => {
                let id = submissions.next();
                let (result, slice) = file.write_at(rest(buf, from), offset).submit().await;
                (result, slice.into_inner().0, id)
            }
            Self::Threads => {
                let id = submissions.next();
                let file = file.clone();
                let (result, buf) = pool::run(move || (file.write_at(&buf[from..], offset), buf)).await;
                (result, buf, id)
            }
        }
    }
}

fn rest(buf: AlignedBuf, from: usize) -> Slice<Owned> {
    Owned(buf).slice(from..)
}

/// fallocate(2)'s mode for a hole.
const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;

fn fallocate(file: &File, mode: i32, offset: u64, len: u64) -> io::Result<()> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let (offset, len) = (offset.try_into().map_err(invalid)?, len.try_into().map_err(invalid)?);
    loop {
        // SAFETY: the descriptor is open, and the call touches no memory of ours.
        if unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Lends an [`AlignedBuf`] to tokio-uring.
struct Owned(AlignedBuf);

// SAFETY: the bytes are on the heap, so they stay where they are when the buffer moves; all of them are
// initialised.
unsafe impl IoBuf for Owned {
    fn stable_ptr(&self) -> *const u8 {
        self.0.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.0.len()
    }

    fn bytes_total(&self) -> usize {
        self.0.len()
    }
}

// SAFETY: as above; the length never changes, and no byte is ever uninitialised.
unsafe impl IoBufMut for Owned {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    unsafe fn set_init(&mut self, _: usize) {}
}
