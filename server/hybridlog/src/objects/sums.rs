//! Checksums of an extent, a piece at a time, so that a part of a large string is read without the rest of it.
//!
//! An extent of more than one piece has a table behind its bytes: a CRC-32C of each piece. The descriptor's checksum is then that
//! of the id and the table; of a shorter one it is that of the id and the bytes.

/// Bytes of a piece. Whole blocks; the last one may be shorter.
pub(crate) const SUMMED: usize = 64 << 10;
/// Bytes of a checksum in the table.
const SUM: usize = 4;

/// Bytes of the table of an extent of `len` bytes.
pub(crate) fn table_len(len: usize) -> usize {
    if len <= SUMMED { 0 } else { len.div_ceil(SUMMED) * SUM }
}

/// The checksums of an extent that is written, or read, from its beginning on.
pub(super) struct Sums {
    of_id: u32,
    /// Of the id and the first piece.
    of_first: u32,
    table: Vec<u8>,
}

impl Sums {
    pub(super) fn new(id: u64) -> Self {
        let of_id = checksum_of_id(id);
        Self { of_id, of_first: of_id, table: Vec::new() }
    }

    /// The next piece.
    pub(super) fn add(&mut self, piece: &[u8]) {
        debug_assert!(piece.len() <= SUMMED);
        if self.table.is_empty() {
            self.of_first = crc32c::crc32c_append(self.of_id, piece);
        }
        self.table.extend_from_slice(&crc32c::crc32c(piece).to_le_bytes());
    }

    /// The table that the extent has, once all pieces are added.
    pub(super) fn table(&self) -> &[u8] {
        if self.table.len() <= SUM { &[] } else { &self.table }
    }

    /// What the descriptor has.
    pub(super) fn total(&self) -> u32 {
        match self.table() {
            [] => self.of_first,
            table => crc32c::crc32c_append(self.of_id, table),
        }
    }
}

/// The checksum that a descriptor has of an extent with this table.
pub(super) fn total_of_table(id: u64, table: &[u8]) -> u32 {
    crc32c::crc32c_append(checksum_of_id(id), table)
}

/// Whether `bytes` are the piece of this number.
pub(super) fn is_piece(table: &[u8], number: usize, bytes: &[u8]) -> bool {
    table.get(number * SUM..(number + 1) * SUM) == Some(&crc32c::crc32c(bytes).to_le_bytes()[..])
}

fn checksum_of_id(id: u64) -> u32 {
    crc32c::crc32c(&id.to_le_bytes())
}
