//! Objects to their extents and back.

use super::extents::padded;
use super::sums::{SUMMED, Sums, table_len};
use super::whole_read::{Access, read_whole};
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
pub(super) const READ_AT_ONCE: usize = 1 << 20;
/// Bytes of a written form that are made, or checked, in one go: some ten microseconds, elements of a few bytes included.
pub(crate) const IN_ONE_GO: usize = SUMMED;
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
    let end = len + table_len(len);
    let (mut form, mut sums) = (Form::of(stored), Sums::new(id));
    let mut piece = AlignedBuf::zeroed((padded(len) as usize).min(WRITTEN_AT_ONCE));
    let held = piece.len() as u64;
    store.counters.flush_bytes.fetch_add(held, Ordering::Relaxed);
    let mut at = 0;
    while at < end {
        let filled = (end - at).min(piece.len());
        piece.truncate(filled.next_multiple_of(BLOCK));
        piece[filled..].fill(0);
        for (number, part) in piece[..filled].chunks_mut(IN_ONE_GO).enumerate() {
            if number > 0 {
                give_way().await;
            }
            let from = at + number * IN_ONE_GO;
            let (of_form, of_table) = part.split_at_mut(len.saturating_sub(from).min(part.len()));
            if !of_form.is_empty() {
                form.fill(of_form);
                sums.add(of_form);
            }
            if !of_table.is_empty() {
                let table = &sums.table()[from + of_form.len() - len..];
                of_table.copy_from_slice(&table[..of_table.len()]);
            }
        }
        piece = report.write(store, file, piece, offset + at as u64).await;
        at += filled;
    }
    store.counters.flush_bytes.fetch_sub(held, Ordering::Relaxed);
    Extent { offset, len: len as u64, crc: sums.total(), key_len: stored.key_len() as u32 }
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
    let (mut key, mut sums, mut at, mut last) = (Vec::with_capacity(key_len), Sums::new(id), 0, None);
    let mut read = async || {
        while at < len {
            let (piece, id) = read_piece(file, Access::Direct, extent.offset, len, at, &mut count).await?;
            for (number, part) in piece.chunks(IN_ONE_GO).enumerate() {
                if number > 0 {
                    give_way().await;
                }
                sums.add(part);
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
    if sums.total() != extent.crc {
        return Err(ExtentError::Damaged(last));
    }
    let value = value.finish().ok_or(ExtentError::Damaged(last))?;
    let key = (key_len > 0).then(|| key.into_boxed_slice());
    Ok((objects.stored(key, value), last))
}

/// Reads what lies at `at` of the `len` bytes behind `offset`: as much as is read at once, or all that is left.
async fn read_piece(
    file: &impl File,
    access: Access,
    offset: u64,
    len: usize,
    at: usize,
    count: &mut impl FnMut(),
) -> Result<(AlignedBuf, SubmissionId), ExtentError> {
    read_whole(file, access, offset + at as u64, (len - at).min(READ_AT_ONCE), count).await
}

/// Whether an extent is what was written, the table of its checksums too. The file is not open for direct I/O.
pub(crate) async fn verify_extent(file: &impl File, id: u64, extent: Extent) -> Result<(), ExtentError> {
    let len = extent.len as usize;
    let end = len + table_len(len);
    let (mut sums, mut table, mut at, mut last) = (Sums::new(id), Vec::new(), 0, None);
    while at < end {
        let (piece, submission) = read_piece(file, Access::Buffered, extent.offset, end, at, &mut || ()).await?;
        for (number, part) in piece.chunks(SUMMED).enumerate() {
            let (of_form, of_table) = part.split_at(len.saturating_sub(at + number * SUMMED).min(part.len()));
            if !of_form.is_empty() {
                sums.add(of_form);
            }
            table.extend_from_slice(of_table);
        }
        (at, last) = (at + piece.len(), Some(submission));
    }
    let is_sound = sums.total() == extent.crc && sums.table() == table;
    if is_sound { Ok(()) } else { Err(ExtentError::Damaged(last)) }
}
