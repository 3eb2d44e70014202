//! Objects to their extents and back.

use super::extents::padded;
use super::{Descriptor, Extent, Object, Stored};
use crate::flush_run::PageReport;
use crate::page_image::PageImage;
use crate::record::Kind;
use crate::store::Store;
use ferrite_io::{AlignedBuf, BLOCK, Clock, File, SubmissionId, World};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Longest single transfer: bounds the copy that the kernel or we hold. Whole blocks.
const PIECE: usize = 1 << 20;
/// Wait before the file of extents is asked again whether it has grown.
const GROWN_AFTER: Duration = Duration::from_millis(10);

/// Why an object could not be read.
pub(crate) enum ExtentError {
    Io(io::Error, SubmissionId),
    Short(SubmissionId),
    /// The bytes are not those that were written.
    Damaged(Option<SubmissionId>),
    /// The extent is another's, or nobody's, by now.
    Gone,
}

/// Writes the objects of the records that are sealed below `end` of a page, and has the page say where they are. Tries until
/// the disk takes them: the page stays in memory as long.
pub(crate) async fn write_page_objects<W: World>(
    store: &Store,
    world: &W,
    file: &impl File,
    report: &PageReport<W>,
    page: &mut PageImage<'_>,
    end: usize,
) {
    for (at, id) in page.objects_below(end) {
        let Some((stored, offset)) = begin(store, world, id).await else { continue };
        let extent = write(store, file, report, id, &stored, offset).await;
        drop(stored);
        store.log.objects.end_writing(id, extent);
        store.log.space.notify_waiters();
        page.place(at, Descriptor { id, extent: Some(extent) });
    }
}

async fn begin<W: World>(store: &Store, world: &W, id: u64) -> Option<(Arc<Stored>, u64)> {
    loop {
        match store.log.objects.begin_writing(id) {
            Ok(taken) => return taken,
            Err(()) => {
                // Its promise came too late for the file to grow before. The flush task lets it grow now.
                store.log.work.notify_one();
                world.clock().sleep(GROWN_AFTER).await;
            }
        }
    }
}

async fn write<W: World>(
    store: &Store,
    file: &impl File,
    report: &PageReport<W>,
    id: u64,
    stored: &Stored,
    offset: u64,
) -> Extent {
    let mut made = Vec::new();
    let value = match stored.value.as_written() {
        Some(bytes) => bytes,
        None => {
            made.reserve_exact(stored.value.written_len());
            stored.value.write(&mut made);
            debug_assert_eq!(made.len(), stored.value.written_len());
            &made
        }
    };
    let key = stored.key.as_deref().unwrap_or_default();
    let len = key.len() + value.len();
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(checksum_of_id(id), key), value);
    let mut at = 0;
    while at < len {
        let mut piece = AlignedBuf::zeroed((padded(len) as usize - at).min(PIECE));
        let end = (at + piece.len()).min(len);
        copy_range([key, value], at, &mut piece[..end - at]);
        report.write(store, file, piece, offset + at as u64).await;
        at = end;
    }
    Extent { offset, len: len as u64, crc, key_len: key.len() as u32 }
}

/// Copies what lies at `at` of the concatenation of two parts.
fn copy_range([first, second]: [&[u8]; 2], at: usize, into: &mut [u8]) {
    let of_first = first.get(at..).unwrap_or_default();
    let split = of_first.len().min(into.len());
    let (begin, rest) = into.split_at_mut(split);
    begin.copy_from_slice(&of_first[..split]);
    let from = (at + split) - first.len().min(at + split);
    rest.copy_from_slice(&second[from..from + rest.len()]);
}

/// Reads an object back: as many transfers as it takes, each counted by `count`. Gives the last one's id, too.
pub(crate) async fn read_extent(
    store: &Store,
    file: &impl File,
    kind: Kind,
    id: u64,
    extent: Extent,
    mut count: impl FnMut(),
) -> Result<(Arc<Stored>, Option<SubmissionId>), ExtentError> {
    let objects = &store.log.objects;
    let (len, key_len) = (extent.len as usize, extent.key_len as usize);
    if !objects.extents.belongs(extent.offset, id) {
        return Err(ExtentError::Gone);
    }
    let mut bytes = Vec::with_capacity(len);
    let mut last = None;
    let mut read = async || {
        while bytes.len() < len {
            count();
            let at = bytes.len();
            let (piece, id) = read_piece(file, &extent, at).await?;
            if piece.len() < (len - at).min(PIECE) {
                return Err(ExtentError::Short(id));
            }
            bytes.extend_from_slice(&piece);
            last = Some(id);
        }
        Ok(())
    };
    let result = read().await;
    if !objects.extents.belongs(extent.offset, id) {
        // Freed while we read: what we have may be another's.
        return Err(ExtentError::Gone);
    }
    result?;
    let is_whole = key_len <= len && crc32c::crc32c_append(checksum_of_id(id), &bytes) == extent.crc;
    if !is_whole {
        return Err(ExtentError::Damaged(last));
    }
    let (key, value) = match key_len {
        0 => (None, bytes),
        _ => {
            let value = bytes.split_off(key_len);
            (Some(bytes.into_boxed_slice()), value)
        }
    };
    let value: Box<dyn Object> = objects.decode(kind, value).ok_or(ExtentError::Damaged(last))?;
    Ok((Arc::new(Stored { key, value }), last))
}

/// Reads what an extent has from `at` on, a piece at most.
async fn read_piece(file: &impl File, extent: &Extent, at: usize) -> Result<(AlignedBuf, SubmissionId), ExtentError> {
    let left = extent.len as usize - at;
    let buf = AlignedBuf::zeroed(left.next_multiple_of(BLOCK).min(PIECE));
    let mut done = file.read_at(buf, extent.offset + at as u64).await;
    match done.result {
        Ok(0) => Err(ExtentError::Short(done.id)),
        Ok(read) => {
            done.buf.truncate(read.min(left));
            Ok((done.buf, done.id))
        }
        Err(error) => Err(ExtentError::Io(error, done.id)),
    }
}

/// Whether an extent is what was written. The file is not open for direct I/O: it may be read from anywhere.
pub(crate) async fn verify_extent(file: &impl File, id: u64, extent: Extent) -> Result<(), ExtentError> {
    let (mut crc, mut at, mut last) = (checksum_of_id(id), 0, None);
    while at < extent.len as usize {
        let (piece, submission) = read_piece(file, &extent, at).await?;
        crc = crc32c::crc32c_append(crc, &piece);
        (at, last) = (at + piece.len(), Some(submission));
    }
    if crc == extent.crc { Ok(()) } else { Err(ExtentError::Damaged(last)) }
}

fn checksum_of_id(id: u64) -> u32 {
    crc32c::crc32c(&id.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_two_parts() {
        let parts = [&b"abc"[..], b"defgh"];
        for at in 0..8 {
            for end in at..=8 {
                let mut out = vec![0; end - at];
                copy_range(parts, at, &mut out);
                assert_eq!(out, b"abcdefgh"[at..end], "{at}..{end}");
            }
        }
    }
}
