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
    /// By submission.
    due: BTreeMap<u64, ReadFault>,
}

impl Aimed {
    /// From now on. The first read has number 0.
    pub fn aim(&mut self, faults: impl IntoIterator<Item = (u64, ReadFault)>) {
        self.coming = faults.into_iter().collect();
        self.submitted = 0;
    }

    /// A read is submitted. How long it takes beyond others.
    pub fn submit(&mut self, id: u64) -> Option<Duration> {
        let fault = self.coming.remove(&self.submitted);
        self.submitted += 1;
        match fault? {
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

/// Flips one bit.
pub(super) fn rot(rng: &mut SimRng, bytes: &mut [u8]) {
    if !bytes.is_empty() {
        let bit = rng.below(bytes.len() as u64 * 8);
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
}
