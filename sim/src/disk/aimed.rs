//! Faults of single reads, chosen by their order: for scenarios that need one where it hurts.

use std::collections::BTreeMap;
use std::time::Duration;

use super::inode::SECTOR;
use crate::rng::SimRng;

/// What becomes of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFault {
    /// EIO; of an opening too.
    Refused,
    /// Fewer bytes than there are, one sector at least.
    Short,
    /// One bit is wrong, this time: the next read gets what was written.
    Rotten,
    /// It takes so long, and others overtake it.
    Slow(Duration),
}

/// The reads to come that fail, and what was drawn for those under way.
#[derive(Default)]
pub(super) struct Aimed {
    /// By how many come before it.
    coming: BTreeMap<u64, ReadFault>,
    submitted: u64,
    /// The same for the reads of one file: its number, and how many come before.
    of_file: BTreeMap<(u64, u64), ReadFault>,
    /// By submission.
    due: BTreeMap<u64, ReadFault>,
}

impl Aimed {
    /// From now on. The first read has number 0.
    pub fn aim(&mut self, faults: impl IntoIterator<Item = (u64, ReadFault)>) {
        self.coming = faults.into_iter().collect();
        self.submitted = 0;
        self.of_file.clear();
    }

    /// From now on, beside those of [`Aimed::aim`]: a read of one file.
    pub fn aim_at(&mut self, file: u64, number: u64, fault: ReadFault) {
        self.of_file.insert((file, number), fault);
    }

    /// A read is submitted, of that file. How long it takes beyond others.
    pub fn submit(&mut self, id: u64, file: u64) -> Option<Duration> {
        let of_any = self.coming.remove(&self.submitted);
        self.submitted += 1;
        let of_file = self.of_file.remove(&(file, 0));
        let others: Vec<_> = self.of_file.extract_if((file, 1)..=(file, u64::MAX), |_, _| true).collect();
        self.of_file.extend(others.into_iter().map(|((file, number), fault)| ((file, number - 1), fault)));
        match of_file.or(of_any)? {
            ReadFault::Slow(time) => Some(time),
            fault => {
                self.due.insert(id, fault);
                None
            }
        }
    }

    /// The read happens: what becomes of it.
    pub fn take(&mut self, id: u64) -> Option<ReadFault> {
        self.due.remove(&id)
    }

    /// Those that were submitted never happen.
    pub fn session_ended(&mut self) {
        self.due.clear();
    }
}

/// Bytes of `len` that a short read gives.
pub(super) fn short(rng: &mut SimRng, len: usize) -> usize {
    let sectors = len as u64 / SECTOR;
    if sectors < 2 { len } else { (rng.between(1, sectors - 1) * SECTOR) as usize }
}

/// Flips one bit; of one of the last bytes that are not zero as often as of any other.
pub(super) fn rot(rng: &mut SimRng, bytes: &mut [u8]) {
    let written = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let range = match rng.one_in(2) && written > 0 {
        true => written.saturating_sub(SECTOR as usize)..written,
        false => 0..bytes.len(),
    };
    flip(rng, &mut bytes[range]);
}

/// Flips one bit, any.
pub(super) fn flip(rng: &mut SimRng, bytes: &mut [u8]) {
    if !bytes.is_empty() {
        let bit = rng.below(bytes.len() as u64 * 8);
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
}
