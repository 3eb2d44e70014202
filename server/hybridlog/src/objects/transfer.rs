//! Objects to their extents and back.

use super::extents::padded;
use super::{Descriptor, Extent, Object, Spot, Stored};
use crate::flush_run::PageReport;
use crate::page_image::PageImage;
use crate::record::Kind;
use crate::store::Store;
use crate::sync::Ordering;
use ferrite_io::{AlignedBuf, BLOCK, Clock, File, SubmissionId, World, give_way};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Longest single transfers: they bound the copies that we hold. Whole blocks.
const WRITTEN_AT_ONCE: usize = crate::page_image::PIECE;
const READ_AT_ONCE: usize = 1 << 20;
/// Bytes of a written form that are made, or checked, in one go: some ten microseconds, elements of a few bytes included.
pub(crate) const IN_ONE_GO: usize = 64 << 10;
/// Bytes that become an object in one go: that takes several times as long, since each element is to be found.
pub(crate) const LOADED_IN_ONE_GO: usize = 16 << 10;
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

/// Piece by piece: a worker that wrote the form of a million elements down in one go would serve nobody meanwhile. The object
/// stays as it is: its record is read-only, and who changes it later has a copy, or waits.
async fn write<W: World>(
    store: &Store,
    file: &impl File,
    report: &PageReport<W>,
    id: u64,
    stored: &Stored,
    offset: u64,
) -> Extent {
    let len = stored.written_len();
    let (mut form, mut crc) = (Form::of(stored), checksum_of_id(id));
    let mut piece = AlignedBuf::zeroed((padded(len) as usize).min(WRITTEN_AT_ONCE));
    let held = piece.len() as u64;
    store.counters.flush_bytes.fetch_add(held, Ordering::Relaxed);
    let mut at = 0;
    while at < len {
        let filled = (len - at).min(piece.len());
        piece.truncate(filled.next_multiple_of(BLOCK));
        piece[filled..].fill(0);
        for (number, part) in piece[..filled].chunks_mut(IN_ONE_GO).enumerate() {
            if number > 0 {
                give_way().await;
            }
            form.fill(part);
            crc = crc32c::crc32c_append(crc, part);
        }
        piece = report.write(store, file, piece, offset + at as u64).await;
        at += filled;
    }
    store.counters.flush_bytes.fetch_sub(held, Ordering::Relaxed);
    Extent { offset, len: len as u64, crc, key_len: stored.key_len() as u32 }
}

/// What an extent gets of an object, from its beginning on: the key, if that is long, then the value.
struct Form<'s> {
    key: &'s [u8],
    value: &'s dyn Object,
    from: Spot,
}

impl<'s> Form<'s> {
    fn of(stored: &'s Stored) -> Self {
        Self { key: stored.key.as_deref().unwrap_or_default(), value: &*stored.value, from: Spot::default() }
    }

    /// The next bytes, of which there are as many.
    fn fill(&mut self, out: &mut [u8]) {
        let (of_key, of_value) = out.split_at_mut(self.key.len().min(out.len()));
        let (now, rest) = self.key.split_at(of_key.len());
        of_key.copy_from_slice(now);
        self.key = rest;
        if !of_value.is_empty() {
            self.from = self.value.write_part(self.from, of_value);
        }
    }
}

/// Reads an object back: as many transfers as it takes, each counted by `count`. Gives the last one's id, too. What is read is
/// checked and made an object of part by part; what comes of it is nobody's before its checksum was right.
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
    let Some(value_len) = len.checked_sub(key_len) else { return Err(ExtentError::Damaged(None)) };
    let Some(mut value) = objects.load(kind, value_len) else { return Err(ExtentError::Damaged(None)) };
    let (mut key, mut crc, mut at, mut last) = (Vec::with_capacity(key_len), checksum_of_id(id), 0, None);
    let mut read = async || {
        while at < len {
            count();
            let (piece, id) = read_piece(file, &extent, at).await?;
            if piece.len() < (len - at).min(READ_AT_ONCE) {
                return Err(ExtentError::Short(id));
            }
            for (number, part) in piece.chunks(IN_ONE_GO).enumerate() {
                if number > 0 {
                    give_way().await;
                }
                crc = crc32c::crc32c_append(crc, part);
                let (of_key, of_value) = part.split_at((key_len - key.len()).min(part.len()));
                key.extend_from_slice(of_key);
                for some in of_value.chunks(LOADED_IN_ONE_GO) {
                    value.take(some);
                    if of_value.len() > LOADED_IN_ONE_GO {
                        give_way().await;
                    }
                }
            }
            (at, last) = (at + piece.len(), Some(id));
        }
        Ok(())
    };
    let result = read().await;
    if !objects.extents.belongs(extent.offset, id) {
        // Freed while we read: what we have may be another's.
        return Err(ExtentError::Gone);
    }
    result?;
    if crc != extent.crc {
        return Err(ExtentError::Damaged(last));
    }
    let value = value.finish().ok_or(ExtentError::Damaged(last))?;
    let key = (key_len > 0).then(|| key.into_boxed_slice());
    Ok((objects.stored(key, value), last))
}

/// Reads what an extent has from `at` on, a piece at most.
async fn read_piece(file: &impl File, extent: &Extent, at: usize) -> Result<(AlignedBuf, SubmissionId), ExtentError> {
    let left = extent.len as usize - at;
    let buf = AlignedBuf::zeroed(left.next_multiple_of(BLOCK).min(READ_AT_ONCE));
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
