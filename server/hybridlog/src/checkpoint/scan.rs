//! Reading the log file from front to back, piece by piece.

use ferrite_io::{AlignedBuf, BLOCK, File};

use crate::address::{Address, FIRST_ADDRESS, file_offset};
use crate::compaction::PIECE;
use crate::record::{FILLER, HEADER, RawRecord, peek_size, verify};

/// Bytes read at a time: what is done with them takes the worker well below a millisecond. A record that does not fit is read
/// with [`PIECE`], into which any does.
const READ_LEN: u64 = 512 << 10;

/// Which part of a log file is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan {
    /// Where a record begins, or a page.
    pub from: Address,
    pub to: Address,
    pub page_size: u64,
}

/// Why a scan ended early; `offset` is one of the file.
#[derive(Debug)]
pub(crate) enum ScanError {
    Read { offset: u64, source: std::io::Error },
    Damaged { offset: u64, what: String },
}

/// Gives `f` the records in the order of their addresses, each verified, with its address. The CRC-32C of
/// everything that was read.
pub(crate) async fn scan_log<F: File>(
    file: &F,
    scan: Scan,
    f: &mut impl FnMut(Address, RawRecord<'_>),
) -> Result<u32, ScanError> {
    let Scan { from, to, page_size } = scan;
    let mut crc = 0;
    // The next record, and the first byte that `crc` does not cover: behind it where a piece ended inside of a record, before
    // it where a page ends with a filler.
    let (mut at, mut summed) = (from.max(FIRST_ADDRESS), from.max(FIRST_ADDRESS));
    let (mut buf, mut len) = (None, READ_LEN);
    while summed < to || at < to {
        let first = at.min(summed);
        let (begin, page_end) = (first / BLOCK as u64 * BLOCK as u64, (first / page_size + 1) * page_size);
        // A record that began late in a long piece may end behind it: what follows is read again from there, up to where the
        // piece ended at least.
        let bytes = read(file, begin, (begin + len).max(summed).min(page_end), buf.take()).await?;
        let end = (begin + bytes.len() as u64).min(to);
        let part = |from: Address| &bytes[(from - begin) as usize..(end - begin) as usize];
        crc = crc32c::crc32c_append(crc, part(summed));
        summed = end;
        if at < end {
            let is_all = end == page_end.min(to) || len == PIECE;
            let next = records(part(at), at, page_end, is_all, f)?;
            // A record that does not fit: it is read in one go.
            len = if next == at { PIECE } else { READ_LEN };
            at = next;
        }
        buf = Some(bytes);
    }
    Ok(crc)
}

/// The records from the one at `first` on, which `bytes` begin with, up to one that ends behind them. Where that one begins.
/// If there `is_all` that a record can have, the first one has to end.
fn records(
    bytes: &[u8],
    first: Address,
    page_end: Address,
    is_all: bool,
    f: &mut impl FnMut(Address, RawRecord<'_>),
) -> Result<Address, ScanError> {
    let mut at = 0;
    while at < bytes.len() {
        let (rest, address) = (&bytes[at..], first + at as u64);
        if rest.first_chunk().is_some_and(|&word| u64::from_le_bytes(word) & FILLER != 0) {
            return Ok(page_end);
        }
        let room = (page_end - address) as usize;
        let is_cut = rest.len() < HEADER || peek_size(rest, room).is_ok_and(|size| size > rest.len());
        if is_cut && (at > 0 || !is_all) {
            break;
        }
        let size = verify(rest, address, room)
            .map_err(|error| ScanError::Damaged { offset: file_offset(address), what: error.to_string() })?;
        debug_assert!(size >= HEADER);
        f(address, RawRecord(rest));
        at += size;
    }
    Ok(first + at as u64)
}

/// The bytes of the log from `begin` to `end`. `spare` is taken for them if it has the right length.
async fn read<F: File>(
    file: &F,
    begin: Address,
    end: Address,
    spare: Option<AlignedBuf>,
) -> Result<AlignedBuf, ScanError> {
    debug_assert!(file_offset(begin).is_multiple_of(BLOCK as u64));
    let (offset, len) = (file_offset(begin), (end - begin) as usize);
    let failed = |offset, source| ScanError::Read { offset, source };
    let mut whole: Option<AlignedBuf> = None;
    let mut have = 0;
    let mut spare = spare.filter(|buf| buf.len() == len);
    while have < len {
        let at = offset + have as u64;
        let buf = spare.take().unwrap_or_else(|| AlignedBuf::zeroed(len - have));
        let done = file.read_at(buf, at).await;
        match done.result.map_err(|source| failed(at, source))? {
            0 => return Err(ScanError::Damaged { offset: at, what: "it ends here".to_owned() }),
            read if read == len => return Ok(done.buf),
            read => {
                let buf = whole.get_or_insert_with(|| AlignedBuf::zeroed(len));
                buf[have..have + read].copy_from_slice(&done.buf[..read]);
                have += read;
            }
        }
    }
    Ok(whole.unwrap_or_else(|| AlignedBuf::zeroed(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::RECORD_MAX;
    use crate::page_image::PageImage;
    use crate::tests::pages::page;
    use crate::tests::{FakeDisk, FakeWorld};
    use ferrite_io::{Disk, OpenMode, World};
    use proptest::prelude::*;
    use std::path::Path;

    const PAGE: u64 = 2 << 20;

    /// Pages of records with values of these lengths, as they lie in a file.
    fn log(pages: &[Vec<usize>]) -> AlignedBuf {
        let mut bytes = vec![0; file_offset(0) as usize];
        for (number, values) in pages.iter().enumerate() {
            let (start, from) = (number as u64 * PAGE, if number == 0 { FIRST_ADDRESS as usize } else { 0 });
            let mut unsealed = vec![0; from];
            for &len in values {
                let record = page(&[9, 9], len, 0);
                // The second one: the first would be an object's.
                let record = &record[crate::record::record_size(9, crate::objects::DESCRIPTOR)..];
                if unsealed.len() + record.len() + 8 > PAGE as usize {
                    break;
                }
                unsealed.extend(record);
            }
            unsealed.extend(page(&[], 0, (PAGE as usize - unsealed.len()) / 8));
            let at = bytes.len();
            bytes.resize(at + PAGE as usize, 0);
            PageImage::new(&unsealed, start, from).copy(0, &mut bytes[at..]);
        }
        AlignedBuf::copy_of(&bytes)
    }

    fn scan(bytes: AlignedBuf, from: Address, to: Address) -> Result<(u32, Vec<(Address, usize)>), ScanError> {
        let world = FakeWorld::new(FakeDisk::default());
        world.block_on(async {
            let file = world.disk().open(Path::new("log"), OpenMode::Device).await.unwrap();
            file.write_at(bytes, 0).await.result.unwrap();
            let mut found = Vec::new();
            let mut seen = |address, record: RawRecord<'_>| {
                found.push((address, peek_size(record.0, record.0.len()).unwrap()));
            };
            let crc = scan_log(&file, Scan { from, to, page_size: PAGE }, &mut seen).await;
            crc.map(|crc| (crc, found))
        })
    }

    fn values() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(prop_oneof![3 => 0usize..5000, 1 => 0usize..RECORD_MAX - 200], 0..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn every_record_is_seen_once_in_order_and_the_sum_is_that_of_all_bytes(
            pages in prop::collection::vec(values(), 1..3),
            skipped in any::<prop::sample::Index>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = log(&pages);
            let whole = pages.len() as u64 * PAGE;
            let (_, all) = scan(AlignedBuf::copy_of(&bytes), 0, whole).unwrap();
            prop_assert!(all.windows(2).all(|two| two[0].0 + two[0].1 as u64 <= two[1].0));
            // From any record to the end of any.
            let mut bounds: Vec<_> = all.iter().map(|&(at, size)| (at, at + size as u64)).collect();
            bounds.push((whole, whole));
            let (from, to) = (skipped.index(bounds.len()), cut.index(bounds.len()));
            let (from, to) = (bounds[from.min(to)].0, bounds[from.max(to)].1);
            let (crc, some) = scan(AlignedBuf::copy_of(&bytes), from, to).unwrap();
            let between: Vec<_> = all.iter().copied().filter(|&(at, _)| at >= from && at < to).collect();
            prop_assert_eq!(some, between);
            let (first, last) = (file_offset(from) as usize, file_offset(to) as usize);
            prop_assert_eq!(crc, crc32c::crc32c(&bytes[first..last]));
        }
    }

    #[test]
    fn a_long_record_at_the_end_of_a_long_piece_is_read_again() {
        // The second is a little longer than a piece, and the third ends behind the long piece that the second takes.
        let (bytes, sizes) = (log(&[vec![1664, 522_456, 528_328]]), [1664, 522_456, 528_328]);
        let (crc, all) = scan(AlignedBuf::copy_of(&bytes), 0, PAGE).unwrap();
        let found = all.iter().zip(sizes).filter(|&(&(_, size), value)| size > value);
        assert_eq!((all.len(), found.count()), (3, 3));
        assert_eq!(crc, crc32c::crc32c(&bytes[file_offset(FIRST_ADDRESS) as usize..file_offset(PAGE) as usize]));
    }

    #[test]
    fn a_length_that_cannot_be_is_named_and_ends_the_scan() {
        let mut bytes = log(&[vec![100, RECORD_MAX / 2, 100]]);
        let at = file_offset(FIRST_ADDRESS) as usize + crate::record::record_size(9, 100);
        // Value and capacity, more than any record has and less than the page.
        for field in [32, 36] {
            bytes[at + field..at + field + 4].copy_from_slice(&(RECORD_MAX as u32 + 5000).to_le_bytes());
        }
        match scan(bytes, 0, PAGE) {
            Err(ScanError::Damaged { offset, .. }) => assert_eq!(offset, at as u64),
            other => panic!("{other:?}"),
        }
    }
}
