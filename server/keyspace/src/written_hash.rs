//! The written form of a large hash, part by part: on its way to disk, and back.
//!
//! It is the seed of the hash values, so that a cursor survives that way, and the packed form.

use ferrite_hybridlog::{ByteStrings, Load, Object, Spot};

use crate::large_hash::LargeHash;
use crate::packed::{HEADER, header_of, split_header};

/// Bytes before the packed form: the seed.
pub(crate) const SEED: usize = 8;
/// Bytes before the first pair.
const HEAD: usize = SEED + HEADER;

/// Fills `out` with what the written form has from `from` on. `pairs` are those from `from`'s on, with their numbers; to a [`Spot`]
/// the head is element 0, and a pair the one behind its number.
pub(crate) fn write_part<'h>(
    seed: u64,
    (len, outgrown): (usize, bool),
    pairs: impl Iterator<Item = (u64, (&'h [u8], &'h [u8]))>,
    from: Spot,
    out: &mut [u8],
) -> Spot {
    let mut part = Part { out, filled: 0 };
    let Spot { element, byte: mut skip } = from;
    if element == 0 {
        let mut head = [0; HEAD];
        head[..SEED].copy_from_slice(&seed.to_le_bytes());
        head[SEED..].copy_from_slice(&header_of(len, outgrown));
        if let Some(byte) = part.put(&[&head], skip) {
            return Spot { element, byte };
        }
        skip = 0;
    }
    let mut lengths = [Vec::with_capacity(LENGTH_MAX), Vec::with_capacity(LENGTH_MAX)];
    let mut next = element.max(1);
    for (number, pair) in pairs {
        if part.is_full() {
            break;
        }
        for (length, string) in lengths.iter_mut().zip([pair.0, pair.1]) {
            length.clear();
            ByteStrings::push_length(length, string.len());
        }
        debug_assert!(skip == 0 || number + 1 == element, "a hash has changed while it was written");
        if let Some(byte) = part.put(&[&lengths[0], pair.0, &lengths[1], pair.1], skip) {
            return Spot { element: number + 1, byte };
        }
        (skip, next) = (0, number + 2);
    }
    debug_assert!(part.is_full(), "more is asked for than there is");
    Spot { element: next, byte: 0 }
}

/// Bytes of a string's length at most.
const LENGTH_MAX: usize = 10;

/// What is being filled.
struct Part<'o> {
    out: &'o mut [u8],
    filled: usize,
}

impl Part<'_> {
    fn is_full(&self) -> bool {
        self.filled == self.out.len()
    }

    /// Takes the strings' bytes behind the first `skip`. If there is no room for all: how many of them are in this part or before.
    fn put(&mut self, strings: &[&[u8]], skip: usize) -> Option<usize> {
        let mut done = 0;
        for string in strings {
            let from = skip.saturating_sub(done).min(string.len());
            let rest = &string[from..];
            let now = rest.len().min(self.out.len() - self.filled);
            self.out[self.filled..self.filled + now].copy_from_slice(&rest[..now]);
            self.filled += now;
            if now < rest.len() {
                return Some(done + from + now);
            }
            done += string.len();
        }
        None
    }
}

/// A hash on its way into memory.
pub(crate) struct LoadHash {
    /// Once its seed and header are there.
    hash: Option<LargeHash>,
    /// How many pairs its header tells of.
    len: usize,
    /// What has come and is not in the hash: less than the head, or than a pair.
    rest: Vec<u8>,
}

impl LoadHash {
    pub(crate) fn new() -> Self {
        Self { hash: None, len: 0, rest: Vec::new() }
    }

    /// Takes in what `bytes` have to their end or to one that is missing; how many they were.
    fn take_whole(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        if self.hash.is_none() {
            let Some((head, _)) = bytes.split_first_chunk::<HEAD>() else { return 0 };
            let (seed, header) = head.split_first_chunk::<SEED>().expect("a head has a seed");
            let (len, outgrown) = split_header(header.try_into().expect("and a header"));
            let mut hash = LargeHash::new(u64::from_le_bytes(*seed));
            if outgrown {
                hash.outgrow_listpack();
            }
            (self.hash, self.len, taken) = (Some(hash), len, HEAD);
        }
        let hash = self.hash.as_mut().expect("it was made");
        while let Some((field, field_size)) = ByteStrings::first(&bytes[taken..])
            && let Some((value, value_size)) = ByteStrings::first(&bytes[taken + field_size..])
        {
            hash.set(field, value);
            taken += field_size + value_size;
        }
        taken
    }
}

impl Load for LoadHash {
    fn take(&mut self, part: &[u8]) {
        if self.rest.is_empty() {
            let taken = self.take_whole(part);
            self.rest.extend_from_slice(&part[taken..]);
            return;
        }
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(part);
        let taken = self.take_whole(&rest);
        rest.drain(..taken);
        self.rest = rest;
    }

    fn finish(self: Box<Self>) -> Option<Box<dyn Object>> {
        let hash = self.hash.filter(|hash| hash.len() == self.len && self.rest.is_empty())?;
        Some(Box::new(hash))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The written form, made in parts of `part` bytes.
    pub(crate) fn written_in(hash: &LargeHash, part: usize) -> Vec<u8> {
        let (mut written, mut from) = (vec![0; hash.written_len()], Spot::default());
        for part in written.chunks_mut(part) {
            from = hash.write_part(from, part);
        }
        written
    }

    pub(crate) fn read_back(written: &[u8], part: usize) -> Option<Box<dyn Object>> {
        let mut load = Box::new(LoadHash::new());
        written.chunks(part).for_each(|part| load.take(part));
        load.finish()
    }

    #[test]
    fn the_written_form_is_the_seed_and_the_packed_form_however_it_is_cut() {
        let mut hash = LargeHash::new(0x0807_0605_0403_0201);
        hash.outgrow_listpack();
        // Strings whose lengths take one byte, two and three.
        for (n, len) in [0, 1, 127, 128, 300, 20_000].into_iter().enumerate() {
            hash.set(&vec![b'f'; n + len], &vec![b'v'; len]);
        }
        hash.delete(b"ff");
        let expected = [&[1, 2, 3, 4, 5, 6, 7, 8], &hash.packed()[..]].concat();
        for part in (1..40).chain([4096, expected.len() - 1, expected.len()]) {
            assert!(written_in(&hash, part) == expected, "in parts of {part}");
            let read = read_back(&expected, part).expect("well-formed");
            let read = LargeHash::of(&*read).expect("a hash");
            assert!(read.iter().eq(hash.iter()) && read.has_outgrown_listpack(), "in parts of {part}");
        }
    }

    #[test]
    fn what_is_no_hash_is_not_loaded() {
        for bytes in [
            &b""[..],
            b"1234567",
            b"12345678",
            b"12345678\x02\0\0\0\x01a\x011",
            b"12345678\x01\0\0\0\x01a\x021",
            b"12345678\x01\0\0\0\x01a\x011\x01b\x011",
            b"12345678\x02\0\0\0\x01a\x011\x01a\x011",
            b"12345678\x01\0\0\0\x01a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            for part in 1..4 {
                assert!(read_back(bytes, part).is_none(), "{bytes:?}");
            }
        }
        assert!(crate::decode_object(ferrite_hybridlog::Kind::Set, 12).is_none());
    }
}
