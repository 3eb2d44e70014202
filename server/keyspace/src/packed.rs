//! The packed form of a collection: the bytes of its record.
//!
//! ```text
//! 0  u32  number of elements; the top bit: it has outgrown what Redis keeps as a listpack
//! 4       the elements as byte strings, each with its length as LEB128 in front
//! ```
//! An element of a hash is two strings, the field and its value. Elements lie in the order in which they were added, as
//! in Redis's listpacks; a new value takes the place of the old one. The number is little-endian, and is 0 only while
//! the append-only file is replayed: the last element takes the key along.

use std::ops::Range;

use ferrite_hybridlog::{ByteStrings, Kind};

/// Bytes before the elements.
pub(crate) const HEADER: usize = 4;
const OUTGROWN: u32 = 1 << 31;

/// A collection in its record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed<'k> {
    header: u32,
    pub(crate) strings: ByteStrings<'k>,
}

impl<'k> Packed<'k> {
    /// The value of a record. Its checksum has vouched for it.
    pub(crate) fn of(value: &'k [u8]) -> Self {
        let (header, strings) = value.split_first_chunk::<HEADER>().expect("a packed collection has its header");
        Packed { header: u32::from_le_bytes(*header), strings: ByteStrings::trusted(strings) }
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        (self.header & !OUTGROWN) as usize
    }

    pub(crate) fn has_outgrown_listpack(&self) -> bool {
        self.header & OUTGROWN != 0
    }
}

/// The bytes before the elements of a collection.
pub(crate) fn header_of(len: usize, outgrown: bool) -> [u8; HEADER] {
    (len as u32 | if outgrown { OUTGROWN } else { 0 }).to_le_bytes()
}

/// What [`header_of`] was given.
pub(crate) fn split_header(header: [u8; HEADER]) -> (usize, bool) {
    let header = u32::from_le_bytes(header);
    ((header & !OUTGROWN) as usize, header & OUTGROWN != 0)
}

/// Whether `value` is a packed collection of this type: for bytes that come from a file.
pub(crate) fn is_well_formed(kind: Kind, value: &[u8]) -> bool {
    let Kind::Hash = kind else { return false };
    value.split_first_chunk::<HEADER>().is_some_and(|(header, strings)| {
        let elements = u64::from(u32::from_le_bytes(*header) & !OUTGROWN);
        ByteStrings::checked(strings).is_some_and(|strings| strings.count() as u64 == 2 * elements)
    })
}

/// A collection that is being changed, in a buffer of the worker's.
pub(crate) struct Draft {
    bytes: Vec<u8>,
    /// The key was there: its time of expiry, 0 for never.
    pub(crate) expire_at_ms: Option<u64>,
}

impl Draft {
    /// Begins with what `old` holds, in `buffer`.
    pub(crate) fn new(mut buffer: Vec<u8>, old: Option<(&[u8], u64)>) -> Self {
        buffer.clear();
        buffer.extend_from_slice(old.map_or(&[0; HEADER], |(value, _)| value));
        Draft { bytes: buffer, expire_at_ms: old.map(|(_, expire_at_ms)| expire_at_ms) }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn packed(&self) -> Packed<'_> {
        Packed::of(&self.bytes)
    }

    pub(crate) fn outgrow_listpack(&mut self) {
        self.set_header(self.header() | OUTGROWN);
    }

    /// Appends one element.
    pub(crate) fn push(&mut self, strings: &[&[u8]]) {
        for string in strings {
            ByteStrings::push(&mut self.bytes, string);
        }
        self.set_header(self.header() + 1);
    }

    /// Puts `string` in the place of the one at `at`, which counts from the first element.
    pub(crate) fn replace(&mut self, at: Range<usize>, string: &[u8]) {
        let (start, old) = (HEADER + at.start, at.len());
        let new = ByteStrings::size_of(string.len());
        // Behind everything first, then to its place, over what was there.
        ByteStrings::push(&mut self.bytes, string);
        if new == old {
            let end = self.bytes.len() - new;
            self.bytes.copy_within(end.., start);
            self.bytes.truncate(end);
        } else {
            self.bytes[start..].rotate_right(new);
            self.bytes.drain(start + new..start + new + old);
        }
    }

    /// Takes out the element at `at`, which counts from the first element.
    pub(crate) fn remove(&mut self, at: Range<usize>) {
        self.bytes.drain(HEADER + at.start..HEADER + at.end);
        self.set_header(self.header() - 1);
    }

    fn header(&self) -> u32 {
        self.packed().header
    }

    fn set_header(&mut self, header: u32) {
        self.bytes[..HEADER].copy_from_slice(&header.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(draft: &Draft) -> Vec<&[u8]> {
        draft.packed().strings.collect()
    }

    #[test]
    fn elements_are_pushed_replaced_and_removed() {
        let mut draft = Draft::new(vec![9; 9], None);
        draft.push(&[b"a", b"1"]);
        draft.push(&[b"b", b"2"]);
        assert_eq!(draft.as_bytes(), b"\x02\0\0\0\x01a\x011\x01b\x012");
        draft.replace(2..4, b"3");
        assert_eq!(strings(&draft), [b"a", b"3", b"b", b"2"]);
        let long = [7; 200];
        draft.replace(2..4, &long);
        assert_eq!(strings(&draft), [&b"a"[..], &long, b"b", b"2"]);
        draft.replace(2..204, b"");
        assert_eq!(strings(&draft), [&b"a"[..], b"", b"b", b"2"]);
        draft.outgrow_listpack();
        draft.remove(0..3);
        assert_eq!(draft.as_bytes(), b"\x01\0\0\x80\x01b\x012");
        assert_eq!((draft.packed().len(), draft.packed().has_outgrown_listpack()), (1, true));
    }

    #[test]
    fn a_draft_begins_with_the_old_value() {
        let draft = Draft::new(Vec::new(), Some((b"\x01\0\0\0\x01a\x011", 5)));
        assert_eq!(strings(&draft), [b"a", b"1"]);
        assert_eq!(draft.expire_at_ms, Some(5));
    }

    #[test]
    fn what_a_file_holds_is_checked() {
        assert!(is_well_formed(Kind::Hash, b"\x01\0\0\0\x01a\x011"));
        assert!(is_well_formed(Kind::Hash, b"\x01\0\0\x80\x01a\x011"));
        for (kind, bytes) in [
            (Kind::String, &b"\x01\0\0\0\x01a\x011"[..]),
            (Kind::Hash, b"\x01\0\0"),
            (Kind::Hash, b"\x02\0\0\0\x01a\x011"),
            (Kind::Hash, b"\x01\0\0\0\x01a\x02"),
        ] {
            assert!(!is_well_formed(kind, bytes), "{kind:?} {bytes:?}");
        }
    }
}
