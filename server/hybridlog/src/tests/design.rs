//! `DESIGN.md` against the code.

use std::collections::BTreeMap;

use crate::aof::frame;
use crate::aof::segment::{self, SegmentHeader};
use crate::checkpoint::{ChunkHeader, ChunkKind, FileHeader};
use crate::objects::{self, Descriptor, Extent};
use crate::page_image::PageImage;
use crate::record::{self, Kind, NewRecord, Raw, TOMBSTONE};
use crate::{address, checkpoint, datadir, flush, index, log};

const PAGE: &str = include_str!("../../DESIGN.md");

/// The rows of the table whose head begins with this, without the backquotes of the first cell.
fn rows(head: &str) -> Vec<Vec<String>> {
    let mut lines = PAGE.lines().skip_while(|line| !line.starts_with(&format!("| {head} |")));
    assert!(lines.next().is_some(), "there is a table of {head}");
    let rows: Vec<Vec<String>> = lines
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`').to_owned()).collect())
        .collect();
    assert!(!rows.is_empty(), "the table of {head} has rows");
    rows
}

#[test]
fn the_numbers_are_the_codes() {
    let mut expected: BTreeMap<&str, u64> = [
        ("address::ADDRESS_BITS", u64::from(address::ADDRESS_BITS)),
        ("address::FIRST_ADDRESS", address::FIRST_ADDRESS),
        ("address::FILE_HEADER", address::FILE_HEADER),
        ("record::HEADER", record::HEADER as u64),
        ("record::ALIGN", record::ALIGN as u64),
        ("record::VERSION", record::VERSION),
        ("record::DIGEST", record::DIGEST as u64),
        ("log::RECORD_MAX", log::RECORD_MAX as u64),
        ("log::FILE_RESERVE", log::FILE_RESERVE),
        ("compaction::PIECE", crate::compaction::PIECE),
        ("log::COLLECTION_MIN", log::COLLECTION_MIN as u64),
        ("objects::DESCRIPTOR", objects::DESCRIPTOR as u64),
        ("objects::EXTENT_HEADER", objects::EXTENT_HEADER),
        ("objects::SUMMED", objects::SUMMED as u64),
        ("objects::IN_ONE_GO", objects::IN_ONE_GO as u64),
        ("objects::LOADED_IN_ONE_GO", objects::LOADED_IN_ONE_GO as u64),
        ("objects::FREED_IN_ONE_GO", objects::FREED_IN_ONE_GO as u64),
        ("objects::COPIED_MAX", objects::COPIED_MAX as u64),
        ("flush::VERSION", flush::VERSION.into()),
        ("flush::PAGES_AHEAD", flush::PAGES_AHEAD),
        ("page_image::PIECE", crate::page_image::PIECE as u64),
        ("flush::IN_FLIGHT_MAX", flush::IN_FLIGHT_MAX as u64),
        ("aof::SECTOR", segment::SECTOR),
        ("aof::SEGMENT_HEADER", segment::HEADER_LEN),
        ("aof::FRAME_HEADER", frame::HEADER as u64),
        ("aof::SEGMENT_VERSION", segment::VERSION.into()),
        ("manifest::VERSION", datadir::MANIFEST_VERSION.into()),
    ]
    .into();
    expected.extend(index::NUMBERS);
    expected.extend(checkpoint::NUMBERS);
    let table = rows("constant");
    let written: BTreeMap<&str, u64> =
        table.iter().map(|row| (row[0].as_str(), row[1].parse().expect("a number"))).collect();
    assert_eq!(written.len(), table.len(), "no constant twice");
    assert_eq!(written, expected);
}

/// The fields of a layout: where each begins, how many bytes it has.
fn layout(head: &str) -> BTreeMap<String, (usize, usize)> {
    let rows = rows(head);
    let fields: BTreeMap<_, _> = rows
        .iter()
        .map(|row| (row[0].clone(), (row[1].parse().expect("an offset"), row[2].parse().unwrap_or(0))))
        .collect();
    assert_eq!(fields.len(), rows.len(), "no field twice");
    // One after the other, without a gap.
    let mut at = 0;
    for row in &rows {
        assert_eq!(fields[&row[0]].0, at, "{} begins where the field before it ends", row[0]);
        at += fields[&row[0]].1;
    }
    fields
}

fn number(bytes: &[u8], (at, len): (usize, usize)) -> u64 {
    let mut word = [0; 8];
    word[..len].copy_from_slice(&bytes[at..at + len]);
    u64::from_le_bytes(word)
}

#[test]
fn a_record_lies_as_it_is_drawn() {
    let fields = layout("record field");
    let (key, value) = (b"a key".as_slice(), b"its value".as_slice());
    let size = record::record_size(key.len(), 20);
    let mut page = vec![0u64; 512];
    let new = NewRecord {
        previous: 0xabcd_ef01_2340,
        space: 77,
        key,
        long_key: false,
        kind: Kind::Hash,
        object: false,
        tombstone: true,
        expire_at_ms: 123_456_789_012,
        access: 4242,
        value: &[value],
        value_len: value.len(),
        size,
    };
    // SAFETY: the vector is 8-aligned and longer than the record.
    unsafe { Raw::new(page.as_mut_ptr().cast()).write_new(&new) };
    let page: &mut [u8] = bytes_of(&mut page);
    page[size..size + 8].copy_from_slice(&(record::FILLER | record::VERSION << 48).to_le_bytes());
    let mut sealed = vec![0; page.len()];
    PageImage::new(page, 8192, 0).copy(0, &mut sealed);
    let page = &sealed[..];
    let word = number(page, fields["word"]);
    assert_eq!(word & ((1 << address::ADDRESS_BITS) - 1), new.previous);
    assert_eq!(word >> 48 & 0xf, record::VERSION);
    assert_eq!(word >> 52 & 0xf, Kind::Hash as u64);
    assert_eq!(word & TOMBSTONE, 1 << 60, "the lowest flag");
    let sum = crc32c::crc32c(&8192u64.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &page[..8]);
    let end = record::HEADER + key.len() + value.len();
    assert_eq!(number(page, fields["checksum"]), crc32c::crc32c_append(sum, &page[12..end]).into());
    assert_eq!(number(page, fields["access"]), 4242);
    assert_eq!(number(page, fields["expiry"]), 123_456_789_012);
    assert_eq!(number(page, fields["space"]), 77);
    assert_eq!(number(page, fields["key_len"]), 5);
    assert_eq!(number(page, fields["value_len"]), 9);
    assert_eq!(number(page, fields["capacity"]), (size - record::HEADER - 5) as u64);
    let at = fields["key"].0;
    assert_eq!(&page[at..at + 14], b"a keyits value");
    assert_eq!(fields.len(), 9, "every field was looked at");
}

#[test]
fn a_descriptor_lies_as_it_is_drawn() {
    let fields = layout("descriptor field");
    let extent = Extent { offset: 8192, len: 77_777, crc: 0xc0ff_ee11, key_len: 4242 };
    let bytes = Descriptor { id: 0x1122_3344_5566_7788, extent: Some(extent) }.encode();
    for (name, value) in
        [("id", 0x1122_3344_5566_7788), ("offset", 8192), ("len", 77_777), ("crc", 0xc0ff_ee11), ("long_key", 4242)]
    {
        assert_eq!(number(&bytes, fields[name]), value, "{name}");
    }
    assert_eq!(fields.len(), 5, "every field was looked at");
}

fn bytes_of(words: &mut [u64]) -> &mut [u8] {
    let len = size_of_val(words);
    // SAFETY: the same memory; any bytes are a byte.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), len) }
}

#[test]
fn segments_and_frames_lie_as_they_are_drawn() {
    let fields = layout("segment field");
    let header = SegmentHeader { base: 0x0102_0304_0506_0708, salt: 0xf1f2_f3f4_f5f6_f7f8 }.encode();
    assert_eq!(&header[fields["magic"].0..8], b"FERRAOF\n");
    assert_eq!(number(&header, fields["version"]), segment::VERSION.into());
    assert_eq!(number(&header, fields["checksum"]), crc32c::crc32c(&header[16..]).into());
    assert_eq!(number(&header, fields["base"]), 0x0102_0304_0506_0708);
    assert_eq!(number(&header, fields["salt"]), 0xf1f2_f3f4_f5f6_f7f8);
    assert_eq!(fields.len(), 5, "every field was looked at");

    let fields = layout("frame field");
    let header = frame::Header::effects(b"payload", 987_654_321).encode(7);
    assert_eq!(number(&header, fields["payload_crc"]), crc32c::crc32c(b"payload").into());
    assert_eq!(number(&header, fields["len"]), 7);
    assert_eq!(&header[fields["kind"].0..][..2], b"FR");
    assert_eq!(number(&header, fields["position"]), 987_654_321);
    let other = frame::Header::effects(b"payload", 987_654_321).encode(8);
    let crc = fields["header_crc"];
    assert_ne!(number(&header, crc), number(&other, crc), "the salt is in it");
    assert_eq!(header[crc.1..], other[crc.1..], "and nowhere else");
    assert_eq!(fields.len(), 5, "every field was looked at");
}

#[test]
fn checkpoints_and_their_chunks_lie_as_they_are_drawn() {
    let fields = layout("checkpoint field");
    let version = FileHeader::VERSION;
    let header = FileHeader {
        salt: 0x11,
        log_id: 0x22 << 40,
        hash_seed: u64::MAX,
        first_buckets: 0x44,
        extents_id: 0x55,
        version,
    };
    let bytes = header.encode();
    assert_eq!(&bytes[fields["magic"].0..8], b"FERRCKP\n");
    assert_eq!(number(&bytes, fields["version"]), version.into());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[8..12]), &bytes[16..]);
    assert_eq!(number(&bytes, fields["checksum"]), sum.into());
    assert_eq!(number(&bytes, fields["salt"]), header.salt);
    assert_eq!(number(&bytes, fields["extents_id"]), header.extents_id);
    assert_eq!(number(&bytes, fields["log_id"]), header.log_id);
    assert_eq!(number(&bytes, fields["hash_seed"]), header.hash_seed);
    assert_eq!(number(&bytes, fields["first_buckets"]), header.first_buckets);
    assert_eq!(fields.len(), 8, "every field was looked at");

    let fields = layout("chunk field");
    let bytes = ChunkHeader::encode(ChunkKind::Upper, b"payload", 987_654_321, 7);
    assert_eq!(number(&bytes, fields["payload_crc"]), crc32c::crc32c(b"payload").into());
    assert_eq!(number(&bytes, fields["len"]), 7);
    assert_eq!(&bytes[fields["kind"].0..][..2], b"UP");
    assert_eq!(number(&bytes, fields["offset"]), 987_654_321);
    let other = ChunkHeader::encode(ChunkKind::Upper, b"payload", 987_654_321, 8);
    let crc = fields["header_crc"];
    assert_ne!(number(&bytes, crc), number(&other, crc), "the salt is in it");
    assert_eq!(bytes[crc.1..], other[crc.1..], "and nowhere else");
    assert_eq!(fields.len(), 5, "every field was looked at");
}
