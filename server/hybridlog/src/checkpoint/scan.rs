//! Reading the log file from front to back, page by page.

use ferrite_io::{AlignedBuf, BLOCK, File};

use crate::address::{Address, FIRST_ADDRESS, file_offset};
use crate::record::{FILLER, HEADER, RawRecord, verify};

/// Bytes read at a time at least.
const READ_LEN: u64 = 1 << 20;

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
    let stride = READ_LEN.next_multiple_of(page_size);
    let (mut crc, mut at) = (0, from);
    while at < to {
        // Whole pages, but where the scan begins in the middle of one.
        let begin = at / page_size * page_size;
        let end = (begin + stride).min(to.next_multiple_of(page_size));
        let bytes = read(file, begin, end).await?;
        for page in (begin..end).step_by(page_size as usize) {
            let page_end = page + page_size;
            let first = at.max(page).max(FIRST_ADDRESS);
            let part = &bytes[(first - begin) as usize..(page_end.min(to) - begin) as usize];
            crc = crc32c::crc32c_append(crc, part);
            records(part, first, page_end, f)?;
        }
        at = end;
    }
    Ok(crc)
}

/// The records of a page from the one at `first` on.
fn records(
    page: &[u8],
    first: Address,
    page_end: Address,
    f: &mut impl FnMut(Address, RawRecord<'_>),
) -> Result<(), ScanError> {
    let mut at = 0;
    while at < page.len() {
        let (rest, address) = (&page[at..], first + at as u64);
        if rest.first_chunk().is_some_and(|&word| u64::from_le_bytes(word) & FILLER != 0) {
            return Ok(());
        }
        let size = verify(rest, address, (page_end - address) as usize)
            .map_err(|error| ScanError::Damaged { offset: file_offset(address), what: error.to_string() })?;
        debug_assert!(size >= HEADER);
        let record = RawRecord(rest);
        f(address, record);
        at += size;
    }
    Ok(())
}

/// The bytes of the log from `begin` to `end`.
async fn read<F: File>(file: &F, begin: Address, end: Address) -> Result<AlignedBuf, ScanError> {
    debug_assert!(file_offset(begin).is_multiple_of(BLOCK as u64));
    let (offset, len) = (file_offset(begin), (end - begin) as usize);
    let failed = |offset, source| ScanError::Read { offset, source };
    let mut whole: Option<AlignedBuf> = None;
    let mut have = 0;
    while have < len {
        let at = offset + have as u64;
        let done = file.read_at(AlignedBuf::zeroed(len - have), at).await;
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
