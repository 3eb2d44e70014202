//! A page on its way to the file, piece by piece.
//!
//! What the file gets is not what lies in memory: records have checksums there, and objects' records say where their
//! objects lie. Readers may be reading the page meanwhile, so the changes are made in copies, and in copies of pieces: a page
//! may have 32 MiB, and a worker that copied one in one go would serve nobody for 20 ms.

use crate::address::Address;
use crate::objects::{DESCRIPTOR, Descriptor};
use crate::record::{SEAL_ENDS, Sealing, seal_at};

/// Bytes that are copied, checked or compared in one go. Whole blocks, so that no checksum lies across two pieces.
pub(crate) const PIECE: usize = 256 << 10;

/// A page that nobody writes any more, as its file gets it.
pub(crate) struct PageImage<'p> {
    page: &'p [u8],
    start: Address,
    /// Where the first record begins.
    from: usize,
    /// The record or filler from which on nobody has looked for objects.
    searched: usize,
    /// The record or filler whose checksum is the first that was not copied.
    next: usize,
    /// By offset: descriptors of objects that have been written.
    placed: Vec<(usize, [u8; DESCRIPTOR])>,
}

impl<'p> PageImage<'p> {
    /// `page` begins at `start`; records begin at `from`.
    pub(crate) fn new(page: &'p [u8], start: Address, from: usize) -> Self {
        debug_assert!(page.len().is_multiple_of(8) && from.is_multiple_of(8));
        Self { page, start, from, searched: from, next: from, placed: Vec::new() }
    }

    /// Objects whose records have to be sealed in what lies below `end`, and were not given before: where the descriptor lies,
    /// and the object's id.
    pub(crate) fn objects_below(&mut self, end: usize) -> Vec<(usize, u64)> {
        let mut found = Vec::new();
        while self.searched + SEAL_ENDS <= end {
            match seal_at(self.page, self.searched) {
                Sealing::Record { size, object } => {
                    found.extend(object.map(|(at, descriptor)| (at, descriptor.id)));
                    self.searched += size;
                }
                Sealing::Filler | Sealing::Nothing => self.searched = self.page.len(),
            }
        }
        found
    }

    /// The object whose descriptor lies at `at` was written.
    pub(crate) fn place(&mut self, at: usize, descriptor: Descriptor) {
        debug_assert!(self.placed.last().is_none_or(|&(last, _)| last < at));
        self.placed.push((at, descriptor.encode()));
    }

    /// The piece that begins at `at`. Pieces are copied from the page's beginning on, one after the other.
    pub(crate) fn copy(&mut self, at: usize, piece: &mut [u8]) {
        let end = at + piece.len();
        piece.copy_from_slice(&self.page[at..end]);
        let first = self.placed.partition_point(|&(place, _)| place + DESCRIPTOR <= at);
        for (place, descriptor) in self.placed[first..].iter().take_while(|&&(place, _)| place < end) {
            // A descriptor may lie across two pieces.
            let (from, to) = ((*place).max(at), (place + DESCRIPTOR).min(end));
            piece[from - at..to - at].copy_from_slice(&descriptor[from - place..to - place]);
        }
        while self.next + SEAL_ENDS <= end {
            self.seal(at, piece);
        }
    }

    /// Puts the checksum of what begins at `next` into the piece that begins at `at`.
    fn seal(&mut self, at: usize, piece: &mut [u8]) {
        let (offset, address) = (self.next, self.start + self.next as u64);
        let sealing = seal_at(self.page, offset);
        let sum = match &sealing {
            Sealing::Record { size, object } => {
                let record = &self.page[offset..offset + size];
                match object.as_ref().and_then(|&(place, _)| self.placed_at(place).map(|placed| (place, placed))) {
                    None => sealing.sum(record, address),
                    Some((place, placed)) => {
                        let mut record = record.to_vec();
                        record[place - offset..place - offset + DESCRIPTOR].copy_from_slice(placed);
                        sealing.sum(&record, address)
                    }
                }
            }
            Sealing::Filler | Sealing::Nothing => sealing.sum(&self.page[offset..], address),
        };
        if let Some(sum) = sum {
            let place = offset + SEAL_ENDS - 4 - at;
            piece[place..place + 4].copy_from_slice(&sum.to_le_bytes());
        }
        self.next = match sealing {
            Sealing::Record { size, .. } => offset + size,
            Sealing::Filler => self.page.len(),
            Sealing::Nothing => {
                // Only a bug can bring us here; what follows stays unsealed, so a reader gets an error, not a wrong record.
                debug_assert!(false, "the page at {} has no record at offset {offset}", self.start);
                self.page.len()
            }
        };
    }

    fn placed_at(&self, place: usize) -> Option<&[u8; DESCRIPTOR]> {
        let found = self.placed.binary_search_by_key(&place, |&(at, _)| at).ok()?;
        Some(&self.placed[found].1)
    }

    /// The whole page once more, with the objects where they were placed.
    pub(crate) fn copy_whole(&mut self, into: &mut [u8]) {
        self.next = self.from;
        self.copy(0, into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Extent;
    use crate::record::{Next, next_in_page};
    use crate::tests::pages::page;
    use proptest::prelude::*;

    const START: Address = 3 << 20;

    fn extent(id: u64) -> Extent {
        Extent { offset: 4096 * (id + 1), len: id + 9, crc: !id as u32, key_len: 3 }
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_are_the_page_and_every_record_in_it_is_sealed_and_names_its_extent(
            keys in prop::collection::vec(0usize..90, 0..40),
            filler in 0usize..20,
            piece in (1usize..60).prop_map(|words| words * 8),
        ) {
            let page = page(&keys, 5, filler);
            let mut image = PageImage::new(&page, START, 0);
            let (mut bytes, mut objects) = (Vec::new(), Vec::new());
            for at in (0..page.len()).step_by(piece) {
                let mut buf = vec![0; piece.min(page.len() - at)];
                for (place, id) in image.objects_below(at + buf.len()) {
                    objects.push(id);
                    image.place(place, Descriptor { id, extent: Some(extent(id)) });
                }
                image.copy(at, &mut buf);
                bytes.extend(buf);
            }
            prop_assert_eq!(objects, (0..keys.len() as u64).filter(|id| id % 3 == 0).collect::<Vec<_>>());
            let mut at = 0;
            for (number, &len) in keys.iter().enumerate() {
                let Ok(Next::Record(size)) = next_in_page(&bytes[at..], START + at as u64, page.len() - at) else {
                    panic!("record {number} at {at} is not sealed");
                };
                let key = at + crate::record::HEADER;
                prop_assert_eq!(&bytes[key..key + len], &page[key..key + len]);
                if number % 3 == 0 {
                    let placed = Descriptor::decode(&bytes[key + len..]);
                    let id = number as u64;
                    prop_assert_eq!(placed, Some(Descriptor { id, extent: Some(extent(id)) }));
                }
                at += size;
            }
            prop_assert_eq!(page.len() - at, filler * 8);
            prop_assert_eq!(next_in_page(&bytes[at..], START + at as u64, page.len() - at), Ok(Next::End));
            let mut whole = vec![0; page.len()];
            image.copy_whole(&mut whole);
            prop_assert_eq!(whole, bytes);
        }
    }
}
