//! The bytes of a checkpoint's file.
//!
//! All integers are little-endian. The file is a sector of 512 bytes, then chunks without gaps; it ends with the last chunk.
//!
//! | offset in the first sector | bytes | content |
//! |---|---|---|
//! | 0 | 8 | `FERRCKP\n` |
//! | 8 | 4 | format version |
//! | 12 | 4 | CRC-32C of the format version and the sector's bytes from 16 on |
//! | 16 | 8 | salt, random, part of every chunk's checksum |
//! | 24 | 8 | number of the log file that the image leads into |
//! | 32 | 8 | seed of the keys' hashes |
//! | 40 | 8 | buckets that the index began with |
//! | 48 | 8 | number of the file of extents that the log leads into |
//!
//! | offset in a chunk | bytes | content |
//! |---|---|---|
//! | 0 | 4 | CRC-32C of bytes 4..24 and the salt |
//! | 4 | 4 | CRC-32C of the payload |
//! | 8 | 6 | length of the payload |
//! | 14 | 2 | kind: `IX` index, `UP` of the layer above, `XT` extents, `EN` the last one |
//! | 16 | 8 | the chunk's offset in the file |
//!
//! An `IX` payload is groups of entries: a word with their number (16 bits) below their place (48), then a word an entry, as
//! in the index. An `XT` payload is extents, ascending by offset: id, offset in blocks of 4096 bytes, length in blocks. What an `UP` payload means the layer above knows. The `EN` payload is [`Meta`], in the order of its fields.
//!
//! Version 2 is read too: its `EN` payload has nothing of pages in quarantine, and its first checksum nothing of the version.

use ferrite_io::BLOCK;

use crate::address::Address;
use crate::log::RECORD_MAX;
use crate::objects::NamedExtent;
use crate::quarantine::Quarantined;

pub(crate) const HEADER_LEN: u64 = 512;
/// Bytes in front of a payload.
pub(crate) const CHUNK_HEADER: usize = 24;
/// Longer payloads are not ours: writers begin a new chunk long before.
pub(crate) const PAYLOAD_MAX: u64 = 1 << 30;

const MAGIC: [u8; 8] = *b"FERRCKP\n";
const VERSION: u32 = 3;
/// The oldest that is read: without pages in quarantine.
const VERSION_MIN: u32 = 2;

/// What `DESIGN.md` says of checkpoints.
#[cfg(test)]
pub(crate) const NUMBERS: [(&str, u64); 4] = [
    ("checkpoint::VERSION", VERSION as u64),
    ("checkpoint::VERSION_MIN", VERSION_MIN as u64),
    ("checkpoint::HEADER", HEADER_LEN),
    ("checkpoint::CHUNK_HEADER", CHUNK_HEADER as u64),
];

/// What the first sector says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub salt: u64,
    pub log_id: u64,
    pub hash_seed: u64,
    pub first_buckets: u64,
    pub extents_id: u64,
    /// Of the format: what is written now has the latest.
    pub version: u32,
}

impl FileHeader {
    pub const VERSION: u32 = VERSION;

    pub fn encode(&self) -> [u8; HEADER_LEN as usize] {
        let mut bytes = [0; HEADER_LEN as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        let words = [self.salt, self.log_id, self.hash_seed, self.first_buckets, self.extents_id];
        for (at, word) in (16..).step_by(8).zip(words) {
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        let crc = Self::checksum(&bytes, self.version);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn checksum(header: &[u8], version: u32) -> u32 {
        let of_version = if version == VERSION_MIN { 0 } else { crc32c::crc32c(&header[8..12]) };
        crc32c::crc32c_append(of_version, &header[16..])
    }

    /// Or what is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let Some(header) = bytes.get(..HEADER_LEN as usize) else {
            return Err("it is shorter than its header".to_owned());
        };
        let version = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        let crc = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
        match () {
            () if header[..8] != MAGIC => Err("it does not begin as a checkpoint of Ferrite does".to_owned()),
            () if !(VERSION_MIN..=VERSION).contains(&version) => Err(format!(
                "it has format version {version} and this server reads versions {VERSION_MIN} to {VERSION}"
            )),
            () if crc != Self::checksum(header, version) => Err("its header is damaged".to_owned()),
            () => {
                let mut words = Words(&header[16..]);
                let mut next = || words.next().expect("the header is long enough");
                let (salt, log_id, hash_seed, first_buckets, extents_id) = (next(), next(), next(), next(), next());
                Ok(Self { salt, log_id, hash_seed, first_buckets, extents_id, version })
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkKind {
    Index,
    Upper,
    Extents,
    End,
}

impl ChunkKind {
    const ALL: [Self; 4] = [Self::Index, Self::Upper, Self::Extents, Self::End];

    fn tag(self) -> [u8; 2] {
        match self {
            Self::Index => *b"IX",
            Self::Upper => *b"UP",
            Self::Extents => *b"XT",
            Self::End => *b"EN",
        }
    }
}

/// The header of a chunk that was read back intact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkHeader {
    pub kind: ChunkKind,
    pub len: u64,
    payload_crc: u32,
}

impl ChunkHeader {
    /// A chunk's bytes in front of its payload.
    pub fn encode(kind: ChunkKind, payload: &[u8], offset: u64, salt: u64) -> [u8; CHUNK_HEADER] {
        assert!(payload.len() as u64 <= PAYLOAD_MAX, "a chunk is begun anew before it is so long");
        let mut bytes = [0; CHUNK_HEADER];
        bytes[4..8].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        bytes[8..14].copy_from_slice(&(payload.len() as u64).to_le_bytes()[..6]);
        bytes[14..16].copy_from_slice(&kind.tag());
        bytes[16..24].copy_from_slice(&offset.to_le_bytes());
        let crc = header_crc(&bytes, salt);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` if it is not the header of a chunk at `offset`.
    pub fn decode(bytes: &[u8], offset: u64, salt: u64) -> Option<Self> {
        let bytes: &[u8; CHUNK_HEADER] = bytes.first_chunk()?;
        let [a, b, c, d, ..] = *bytes;
        let kind = ChunkKind::ALL.into_iter().find(|kind| kind.tag() == bytes[14..16])?;
        let is_intact = u32::from_le_bytes([a, b, c, d]) == header_crc(bytes, salt);
        let mut words = Words(&bytes[8..]);
        let (len, at) = (words.next()? & 0xffff_ffff_ffff, words.next()?);
        let payload_crc = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        (is_intact && at == offset && len <= PAYLOAD_MAX).then_some(Self { kind, len, payload_crc })
    }

    pub fn payload_is_intact(&self, payload: &[u8]) -> bool {
        crc32c::crc32c(payload) == self.payload_crc
    }
}

fn header_crc(bytes: &[u8; CHUNK_HEADER], salt: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[4..]), &salt.to_le_bytes())
}

/// What the last chunk says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Position of the AOF at the cut.
    pub position: u64,
    /// The cut: everything below, down to `begin`, is in the log file, nothing above is meant.
    pub tail: Address,
    pub begin: Address,
    pub scan_from: Address,
    /// CRC-32C of the log from `scan_from` to `tail`.
    pub scan_crc: u32,
    /// The image does not count: everything was forgotten after it had begun.
    pub forgotten: bool,
    /// Entries of the image.
    pub entries: u64,
    /// Extents named.
    pub extents: u64,
    /// The first id that no object had been given.
    pub next_id: u64,
    /// When the cut was, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// Page sizes of the log, each from an address on.
    pub eras: Vec<(Address, u64)>,
    /// Spaces that nothing shows any more, with the log's tail when they were retired.
    pub retired: Vec<(u32, Address)>,
    /// Entries removed from the index after the walk began: hash, and the log's tail at that time; ascending by tail.
    pub removed: Vec<(u64, Address)>,
    /// What compaction has left behind, since it cannot be read.
    pub quarantined: Quarantined,
    /// What the layer above said at the cut.
    pub upper: Vec<u8>,
}

impl Meta {
    /// Bytes of the longest record that the log may have, at most.
    pub fn longest_record(&self) -> u64 {
        let ends = self.eras.iter().skip(1).map(|&(start, _)| start).chain([Address::MAX]);
        let lowest = self.quarantined.pages.first().map_or(self.begin, |page| page.0.min(self.begin));
        let needed = self.eras.iter().zip(ends).filter(|&(_, end)| end > lowest).map(|(&(_, size), _)| size);
        needed.max().unwrap_or(0).min(RECORD_MAX as u64)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let fixed = [
            self.position,
            self.tail,
            self.begin,
            self.scan_from,
            self.scan_crc.into(),
            self.forgotten.into(),
            self.entries,
            self.extents,
            self.next_id,
            self.unix_ms,
        ];
        fixed.iter().for_each(|&word| put(&mut out, word));
        put_pairs(&mut out, self.eras.iter().copied());
        put_pairs(&mut out, self.retired.iter().map(|&(space, tail)| (space.into(), tail)));
        put_pairs(&mut out, self.removed.iter().copied());
        put_pairs(&mut out, self.quarantined.pages.iter().copied());
        put_pairs(&mut out, self.quarantined.links.iter().copied());
        out.extend_from_slice(&self.upper);
        out
    }

    /// Of a file with this version.
    pub fn decode(bytes: &[u8], version: u32) -> Option<Self> {
        let mut words = Words(bytes);
        Some(Self {
            position: words.next()?,
            tail: words.next()?,
            begin: words.next()?,
            scan_from: words.next()?,
            scan_crc: words.next()?.try_into().ok()?,
            forgotten: words.next()? != 0,
            entries: words.next()?,
            extents: words.next()?,
            next_id: words.next()?,
            unix_ms: words.next()?,
            eras: words.pairs()?,
            retired: words
                .pairs()?
                .into_iter()
                .map(|(space, tail)| Some((space.try_into().ok()?, tail)))
                .collect::<Option<_>>()?,
            removed: words.pairs()?,
            quarantined: match version {
                VERSION_MIN => Quarantined::default(),
                _ => Quarantined { pages: words.pairs()?, links: words.pairs()? },
            },
            upper: words.0.to_vec(),
        })
    }
}

/// Appends extents to the payload of a chunk.
pub(crate) fn put_extents(out: &mut Vec<u8>, extents: &[NamedExtent]) {
    for &NamedExtent { id, offset, bytes } in extents {
        [id, offset / BLOCK as u64, bytes / BLOCK as u64].into_iter().for_each(|word| put(out, word));
    }
}

/// The extents of a chunk; `None` if it is none of extents.
pub(crate) fn extents_of(payload: &[u8]) -> Option<Vec<NamedExtent>> {
    let mut words = Words(payload);
    let mut all = Vec::with_capacity(payload.len() / 24);
    while let Some(id) = words.next() {
        let mut bytes = || words.next()?.checked_mul(BLOCK as u64);
        all.push(NamedExtent { id, offset: bytes()?, bytes: bytes()? });
    }
    words.0.is_empty().then_some(all)
}

pub(crate) fn put(out: &mut Vec<u8>, word: u64) {
    out.extend_from_slice(&word.to_le_bytes());
}

fn put_pairs(out: &mut Vec<u8>, pairs: impl ExactSizeIterator<Item = (u64, u64)>) {
    put(out, pairs.len() as u64);
    for (a, b) in pairs {
        put(out, a);
        put(out, b);
    }
}

/// Reads words from the front of bytes.
pub(crate) struct Words<'a>(pub &'a [u8]);

impl Words<'_> {
    fn pairs(&mut self) -> Option<Vec<(u64, u64)>> {
        let count = self.next()?;
        // A count that lies is met before any memory is taken for it.
        (count <= self.0.len() as u64 / 16).then_some(())?;
        (0..count).map(|_| Some((self.next()?, self.next()?))).collect()
    }
}

impl Iterator for Words<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: FileHeader =
        FileHeader { salt: 1, log_id: u64::MAX, hash_seed: 3, first_buckets: 64, extents_id: 5, version: VERSION };

    #[test]
    fn a_header_reads_back_and_any_damage_of_it_is_noticed() {
        let bytes = HEADER.encode();
        assert_eq!(FileHeader::decode(&bytes), Ok(HEADER));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHeader::decode(&damaged).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(FileHeader::decode(&bytes[..cut]).is_err());
        }
        let mut newer = bytes;
        newer[8] = 4;
        let error = FileHeader::decode(&newer).expect_err("newer");
        assert_eq!(error, "it has format version 4 and this server reads versions 2 to 3");
    }

    #[test]
    fn a_chunk_is_one_at_its_offset_in_its_file_only() {
        let bytes = ChunkHeader::encode(ChunkKind::Upper, b"payload", 512, 9);
        let header = ChunkHeader::decode(&bytes, 512, 9).expect("intact");
        assert_eq!((header.kind, header.len), (ChunkKind::Upper, 7));
        assert!(header.payload_is_intact(b"payload") && !header.payload_is_intact(b"Payload"));
        assert_eq!(ChunkHeader::decode(&bytes, 520, 9), None);
        assert_eq!(ChunkHeader::decode(&bytes, 512, 8), None);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ChunkHeader::decode(&damaged, 512, 9), None, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn what_a_checkpoint_says_reads_back(
            words: [u64; 8], scan_crc: u32, forgotten: bool,
            eras in prop::collection::vec(any::<(u64, u64)>(), 0..3),
            retired in prop::collection::vec(any::<(u32, u64)>(), 0..5),
            removed in prop::collection::vec(any::<(u64, u64)>(), 0..5),
            pages in prop::collection::vec(any::<(u64, u64)>(), 0..3),
            links in prop::collection::vec(any::<(u64, u64)>(), 0..4),
            upper in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let [position, tail, begin, scan_from, entries, extents, next_id, unix_ms] = words;
            let meta = Meta {
                position, tail, begin, scan_from, scan_crc, forgotten, entries, extents, next_id, unix_ms, eras, retired,
                removed, quarantined: Quarantined { pages, links }, upper,
            };
            prop_assert_eq!(Meta::decode(&meta.encode(), VERSION), Some(meta.clone()));
            // Before pages in quarantine were named there were none.
            let mut older = Meta { quarantined: Quarantined::default(), upper: Vec::new(), ..meta.clone() }.encode();
            older.truncate(older.len() - 16);
            older.extend_from_slice(&meta.upper);
            prop_assert_eq!(Meta::decode(&older, 2), Some(Meta { quarantined: Quarantined::default(), ..meta }));
        }

        #[test]
        fn extents_read_back(extents in prop::collection::vec((any::<u64>(), 1..1u64 << 52, 1..1u64 << 52), 0..20), cut: usize) {
            let block = BLOCK as u64;
            let extents: Vec<_> = extents
                .into_iter()
                .map(|(id, offset, blocks)| NamedExtent { id, offset: offset * block, bytes: blocks * block })
                .collect();
            let mut payload = Vec::new();
            put_extents(&mut payload, &extents);
            let cut = cut % 24;
            prop_assert_eq!(extents_of(&payload[cut.min(payload.len())..]).is_none(), cut > 0 && !payload.is_empty());
            prop_assert_eq!(extents_of(&payload), Some(extents));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (extents_of(&bytes), Meta::decode(&bytes, VERSION), FileHeader::decode(&bytes), ChunkHeader::decode(&bytes, 0, 0));
        }
    }
}
