//! Byte strings one after the other, each with its length in front as LEB128: what a packed collection consists of, and
//! how an effect names several elements.

/// Bits of a length in one byte; the top bit says that another byte follows.
const LENGTH_BITS: u32 = 7;
const MORE: u8 = 1 << LENGTH_BITS;

/// A well-formed sequence of byte strings, and the iterator over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteStrings<'a>(&'a [u8]);

impl<'a> ByteStrings<'a> {
    /// What [`ByteStrings::push`] has written.
    pub fn trusted(bytes: &'a [u8]) -> Self {
        debug_assert!(Self::checked(bytes).is_some(), "a sequence of byte strings is damaged");
        Self(bytes)
    }

    /// `None` if `bytes` are no such sequence.
    pub fn checked(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        while !rest.is_empty() {
            (_, rest) = split(rest)?;
        }
        Some(Self(bytes))
    }

    /// Appends one string.
    pub fn push(out: &mut Vec<u8>, string: &[u8]) {
        Self::push_length(out, string.len());
        out.extend_from_slice(string);
    }

    /// Appends what a string of `len` bytes has in front.
    pub fn push_length(out: &mut Vec<u8>, len: usize) {
        put_number(out, len as u64);
    }

    /// The first string of bytes that may end within it, and how many it takes; `None` if it does not end here, or is none.
    pub fn first(bytes: &[u8]) -> Option<(&[u8], usize)> {
        let (string, rest) = split(bytes)?;
        Some((string, bytes.len() - rest.len()))
    }

    /// Bytes that a string of this length takes.
    pub fn size_of(len: usize) -> usize {
        (usize::BITS - (len | 1).leading_zeros()).div_ceil(LENGTH_BITS) as usize + len
    }

    /// The bytes of what has not been iterated over.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl<'a> Iterator for ByteStrings<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (string, rest) = split(self.0)?;
        self.0 = rest;
        Some(string)
    }
}

/// The first string and what follows it; `None` at the end and in front of what is none.
#[inline]
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first & MORE == 0 {
        return rest.split_at_checked(first.into());
    }
    let (mut len, mut rest, mut shift) = (u64::from(first & !MORE), rest, LENGTH_BITS);
    loop {
        let (&byte, after) = rest.split_first()?;
        // No string has a length of more than eight such bytes.
        if shift > 7 * LENGTH_BITS {
            return None;
        }
        len |= u64::from(byte & !MORE) << shift;
        rest = after;
        if byte & MORE == 0 {
            return rest.split_at_checked(usize::try_from(len).ok()?);
        }
        shift += LENGTH_BITS;
    }
}

/// Appends a number as LEB128.
pub(crate) fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= u64::from(MORE) {
        out.push(value as u8 | MORE);
        value >>= LENGTH_BITS;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_those_of_the_encoding() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 70_000] {
            let mut out = Vec::new();
            ByteStrings::push(&mut out, &vec![7; len]);
            assert_eq!(out.len(), ByteStrings::size_of(len), "{len}");
        }
    }

    #[test]
    fn refuses_what_is_no_sequence() {
        for bytes in [&[1][..], &[0x80], &[2, 7], &[0xff; 12], &[0, 3, 1, 2]] {
            assert_eq!(ByteStrings::checked(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_pushed_comes_back(strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20)) {
            let mut out = Vec::new();
            strings.iter().for_each(|string| ByteStrings::push(&mut out, string));
            let read = ByteStrings::checked(&out).expect("well-formed");
            prop_assert!(read.eq(strings.iter().map(Vec::as_slice)));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let read = ByteStrings::checked(&bytes);
            prop_assert!(read.is_none_or(|strings| strings.count() <= bytes.len()));
        }
    }
}
