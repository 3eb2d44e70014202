//! The header of a segment, and an open segment on its way to the task that writes it.

use std::path::PathBuf;
use std::rc::Rc;

use ferrite_io::World;
use thiserror::Error;

use super::task::FileOf;
use crate::datadir::{Catalog, SegmentEntry};

/// What a disk writes as a whole. Groups start at its multiples, so that no durable sector is written again.
pub(crate) const SECTOR: u64 = 512;

/// The first frame's offset: the header has a sector of its own.
pub(crate) const HEADER_LEN: u64 = SECTOR;

const MAGIC: [u8; 8] = *b"FERRAOF\n";
pub(crate) const VERSION: u32 = 1;

/// First sector of a segment: magic (8), version (4), CRC-32C of the sector's bytes from 16 on (4), position of the first
/// frame (8), salt (8), zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Bytes of all frames in earlier segments.
    pub base: u64,
    /// Random; part of every frame's checksum.
    pub salt: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    #[error("it does not begin as an append-only file of Ferrite does")]
    Foreign,
    #[error("it has format version {0} and this server reads version {VERSION}")]
    Version(u32),
    #[error("its header is damaged")]
    Damaged,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; HEADER_LEN as usize] {
        let mut bytes = [0; HEADER_LEN as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.base.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `bytes` may be shorter than a header: then the file is.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        if bytes.len() < HEADER_LEN as usize {
            let known = bytes.len().min(MAGIC.len());
            return Err(if bytes[..known] == MAGIC[..known] { HeaderError::Damaged } else { HeaderError::Foreign });
        }
        if bytes[..8] != MAGIC {
            return Err(HeaderError::Foreign);
        }
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if word(8) != VERSION {
            return Err(HeaderError::Version(word(8)));
        }
        if word(12) != crc32c::crc32c(&bytes[16..HEADER_LEN as usize]) {
            return Err(HeaderError::Damaged);
        }
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Ok(Self { base: long(16), salt: long(24) })
    }
}

/// A segment that was replayed to its end and is ready for more; [`crate::aof::aof_task`] writes it, and the segments
/// after it.
pub struct AofFile<W: World> {
    pub(crate) file: FileOf<W>,
    pub(crate) path: PathBuf,
    pub(crate) entry: SegmentEntry,
    /// File offset after the last frame.
    pub(crate) end: u64,
    /// Bytes by which the file is allocated ahead: the first time, and at most.
    pub(crate) allocate_min: u64,
    pub(crate) allocate_max: u64,
    /// Bytes from which on the log goes on in another segment.
    pub(crate) segment_max: u64,
    pub(crate) catalog: Rc<Catalog<W>>,
}

pub(crate) fn next_sector(offset: u64) -> u64 {
    offset.next_multiple_of(SECTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_tells_what_is_wrong() {
        let header = SegmentHeader { base: 1 << 40, salt: 7 };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0..8 => HeaderError::Foreign,
                8..12 => HeaderError::Version(1 ^ 1 << (bit - 64)),
                _ => HeaderError::Damaged,
            };
            assert_eq!(SegmentHeader::decode(&damaged), Err(expected));
        }
        assert_eq!(SegmentHeader::decode(&bytes[..100]), Err(HeaderError::Damaged));
        assert_eq!(SegmentHeader::decode(b"REDIS0011"), Err(HeaderError::Foreign));
    }
}
