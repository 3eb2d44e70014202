//! A part of a large string, read without the rest of it.

use super::sums::{SUMMED, is_piece, table_len, total_of_table};
use super::transfer::{ExtentError, IN_ONE_GO, READ_AT_ONCE};
use super::whole_read::{Access, read_whole};
use super::{Descriptor, Extent};
use crate::store::Store;
use ferrite_io::{BLOCK, File, SubmissionId, give_way};
use std::ops::Range;

/// Bytes of a value.
#[derive(Debug)]
pub(crate) struct Part {
    /// Where the first of them lies in the value.
    pub(crate) from: usize,
    pub(crate) bytes: Vec<u8>,
}

impl Part {
    /// These bytes of the value, if they are all here.
    pub(crate) fn get(&self, range: &Range<usize>) -> Option<&[u8]> {
        self.bytes.get(range.start.checked_sub(self.from)?..range.end.checked_sub(self.from)?)
    }
}

/// Whether parts of the extent can be read alone: it has more than one piece.
pub(crate) fn has_parts(extent: &Extent) -> bool {
    table_len(extent.len as usize) > 0
}

/// Reads the pieces that hold `range` of the value, and the table of their checksums first; each transfer is counted by `count`.
/// Gives the last one's id, too.
pub(crate) async fn read_part(
    store: &Store,
    file: &impl File,
    Descriptor { id, extent }: Descriptor,
    range: Range<usize>,
    mut count: impl FnMut(),
) -> Result<(Part, SubmissionId), ExtentError> {
    let extents = &store.log.objects.extents;
    let Some(extent) = extent.filter(|extent| extents.belongs(extent.offset, id)) else {
        return Err(ExtentError::Gone);
    };
    let read = read_pieces(file, id, extent, range, &mut count).await;
    // If it was freed while we read, what we have may be another's.
    if extents.belongs(extent.offset, id) { read } else { Err(ExtentError::Gone) }
}

async fn read_pieces(
    file: &impl File,
    id: u64,
    extent: Extent,
    range: Range<usize>,
    count: &mut impl FnMut(),
) -> Result<(Part, SubmissionId), ExtentError> {
    let len = extent.len as usize;
    let (table, submission) = read_exact(file, extent.offset, len..len + table_len(len), count).await?;
    if total_of_table(id, &table) != extent.crc {
        return Err(ExtentError::Damaged(Some(submission)));
    }
    let wanted = range.start + extent.key_len as usize..range.end + extent.key_len as usize;
    if wanted.end > len {
        return Err(ExtentError::Damaged(Some(submission)));
    }
    let (mut bytes, mut last) = (Vec::with_capacity(range.len()), submission);
    let pieces = wanted.start / SUMMED * SUMMED..wanted.end.next_multiple_of(SUMMED).min(len);
    for at in pieces.clone().step_by(READ_AT_ONCE) {
        let end = (at + READ_AT_ONCE).min(pieces.end);
        let (read, submission) = read_exact(file, extent.offset, at..end, count).await?;
        last = submission;
        for (number, piece) in read.chunks(IN_ONE_GO).enumerate() {
            if number > 0 {
                give_way().await;
            }
            let from = at + number * SUMMED;
            if !is_piece(&table, from / SUMMED, piece) {
                return Err(ExtentError::Damaged(Some(submission)));
            }
            let wanted = wanted.start.clamp(from, from + piece.len())..wanted.end.clamp(from, from + piece.len());
            bytes.extend_from_slice(&piece[wanted.start - from..wanted.end - from]);
        }
    }
    Ok((Part { from: range.start, bytes }, last))
}

/// What lies at `range` behind `offset`, where blocks begin.
async fn read_exact(
    file: &impl File,
    offset: u64,
    range: Range<usize>,
    count: &mut impl FnMut(),
) -> Result<(Vec<u8>, SubmissionId), ExtentError> {
    let from = range.start / BLOCK * BLOCK;
    let (read, submission) = read_whole(file, Access::Direct, offset + from as u64, range.end - from, count).await?;
    Ok((read[range.start - from..].to_vec(), submission))
}
