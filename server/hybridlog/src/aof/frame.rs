//! Frames and marks: their bytes, and what makes one valid. The layout is in the module's documentation.

use super::segment::SECTOR;

/// Bytes in front of a payload; a mark is a header alone.
pub(crate) const HEADER: usize = 24;

/// Most bytes that a mark takes: itself and the zeros to the sector where it begins.
pub(crate) const MARK_MAX: u64 = SECTOR - 1 + HEADER as u64;

/// Longest payload the length field can tell.
const PAYLOAD_MAX: u64 = (1 << 48) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Effects of one command or of one EXEC.
    Effects,
    /// Everything below the position was durable.
    Mark,
}

impl Kind {
    fn tag(self) -> [u8; 2] {
        match self {
            Kind::Effects => *b"FR",
            Kind::Mark => *b"MK",
        }
    }
}

/// A header that was read back and is intact; so its length can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: Kind,
    pub len: u64,
    pub position: u64,
    payload_crc: u32,
}

impl Header {
    pub fn effects(payload: &[u8], position: u64) -> Self {
        let len = payload.len() as u64;
        assert!(len <= PAYLOAD_MAX, "no machine holds a longer command");
        Self { kind: Kind::Effects, len, position, payload_crc: crc32c::crc32c(payload) }
    }

    pub fn mark(position: u64) -> Self {
        Self { kind: Kind::Mark, len: 0, position, payload_crc: 0 }
    }

    pub fn encode(&self, salt: u64) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[4..8].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[8..14].copy_from_slice(&self.len.to_le_bytes()[..6]);
        bytes[14..16].copy_from_slice(&self.kind.tag());
        bytes[16..24].copy_from_slice(&self.position.to_le_bytes());
        let crc = header_crc(&bytes, salt);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// None if this is not an intact header of the segment with this salt.
    pub fn decode(bytes: &[u8; HEADER], salt: u64) -> Option<Self> {
        let kind = [Kind::Effects, Kind::Mark].into_iter().find(|kind| kind.tag() == bytes[14..16])?;
        if bytes[..4] != header_crc(bytes, salt).to_le_bytes() {
            return None;
        }
        let mut len = [0; 8];
        len[..6].copy_from_slice(&bytes[8..14]);
        Some(Self {
            kind,
            len: u64::from_le_bytes(len),
            position: u64::from_le_bytes(*bytes[16..24].as_array().expect("eight bytes")),
            payload_crc: u32::from_le_bytes(*bytes[4..8].as_array().expect("four bytes")),
        })
    }

    /// Bytes of header and payload together.
    pub fn frame_len(&self) -> u64 {
        HEADER as u64 + self.len
    }

    pub fn payload_is_intact(&self, payload: &[u8]) -> bool {
        crc32c::crc32c(payload) == self.payload_crc
    }
}

/// Gives whole frames, one after the other, another segment's salt.
pub(crate) fn resalt(mut frames: &mut [u8], from: u64, to: u64) {
    while let Some((bytes, rest)) = frames.split_first_chunk_mut::<HEADER>() {
        let header = Header::decode(bytes, from).expect("frames that were appended are intact");
        *bytes = header.encode(to);
        frames = &mut rest[header.len as usize..];
    }
}

fn header_crc(bytes: &[u8; HEADER], salt: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[4..]), &salt.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn zeros_are_no_frame() {
        for salt in [0, 1, u64::MAX] {
            assert_eq!(Header::decode(&[0; HEADER], salt), None);
        }
    }

    proptest! {
        #[test]
        fn a_header_reads_back_only_intact_and_in_its_segment(
            payload in prop::collection::vec(any::<u8>(), 0..100),
            position: u64,
            salt: u64,
            mark: bool,
            bit in 0..HEADER * 8,
            other: u64,
        ) {
            let header = if mark { Header::mark(position) } else { Header::effects(&payload, position) };
            let mut bytes = header.encode(salt);
            prop_assert_eq!(Header::decode(&bytes, salt), Some(header));
            if other != salt {
                prop_assert_eq!(Header::decode(&bytes, other), None);
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Header::decode(&bytes, salt), None);
        }

        #[test]
        fn frames_take_another_salt(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..5), salts: [u64; 2]) {
            let frames = |salt| payloads.iter().zip(1..).flat_map(|(payload, position)| {
                [&Header::effects(payload, position).encode(salt)[..], payload].concat()
            }).collect::<Vec<u8>>();
            let mut moved = frames(salts[0]);
            resalt(&mut moved, salts[0], salts[1]);
            prop_assert_eq!(moved, frames(salts[1]));
        }

        #[test]
        fn a_flipped_bit_breaks_the_payload(mut payload in prop::collection::vec(any::<u8>(), 1..100), bit: prop::sample::Index) {
            let header = Header::effects(&payload, 0);
            prop_assert!(header.payload_is_intact(&payload));
            let bit = bit.index(payload.len() * 8);
            payload[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!header.payload_is_intact(&payload));
        }
    }
}
