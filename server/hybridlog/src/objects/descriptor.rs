//! What an object's record holds for a value.
//!
//! ```text
//!  0  u64  id of the object
//!  8  u64  offset of its extent in the file; 0: it has not been written
//! 16  u64  bytes of the extent, without the table of checksums and the padding
//! 24  u32  crc32c of id and bytes, or of id and table
//! 28  u32  how many of the bytes are the key
//! ```

/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR: usize = 32;

/// Which object a record owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) id: u64,
    pub(crate) extent: Option<Extent>,
}

/// Where an object was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) crc: u32,
    pub(crate) key_len: u32,
}

impl Descriptor {
    pub(crate) fn in_memory(id: u64) -> Self {
        Self { id, extent: None }
    }

    pub(crate) fn encode(&self) -> [u8; DESCRIPTOR] {
        let Extent { offset, len, crc, key_len } =
            self.extent.unwrap_or(Extent { offset: 0, len: 0, crc: 0, key_len: 0 });
        let mut bytes = [0; DESCRIPTOR];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..16].copy_from_slice(&offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&len.to_le_bytes());
        bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        bytes[28..].copy_from_slice(&key_len.to_le_bytes());
        bytes
    }

    /// `None` if there are not enough bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; DESCRIPTOR] = bytes.first_chunk()?;
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let extent = Extent { offset: u64_at(8), len: u64_at(16), crc: u32_at(24), key_len: u32_at(28) };
        Some(Self { id: u64_at(0), extent: (extent.offset != 0).then_some(extent) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_reads_back() {
        let written = Extent { offset: 8192, len: 5 << 30, crc: 0xdead_beef, key_len: 1 << 20 };
        for descriptor in [Descriptor::in_memory(7), Descriptor { id: u64::MAX, extent: Some(written) }] {
            assert_eq!(Descriptor::decode(&descriptor.encode()), Some(descriptor));
        }
        assert_eq!(Descriptor::decode(&[0; DESCRIPTOR - 1]), None);
    }
}
