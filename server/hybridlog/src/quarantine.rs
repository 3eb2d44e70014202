//! Pages that compaction leaves where they are, since it cannot read all of their records; and where chains go on in them.
//!
//! A page in quarantine belongs to the log though it lies below the log's beginning: its bytes stay in the file, chains lead
//! into it, and who asks for a record in it that is damaged gets the error, not the answer that there is no such key.
//!
//! # Chains
//! A chain that led into such a page through a record that is gone by now would end too early: [`Quarantine::link`] keeps where
//! it goes on, for all keys of one entry of the index. Below a record whose `previous` leads nowhere the chain goes on at the
//! highest of these addresses below that record. Addresses fall along a chain, so that is the next record that is left of it.
//! As long as an entry of the index has such addresses it stays, and so does a tombstone above them: nobody knows what it hides.

use crate::address::{Address, FIRST_ADDRESS};
use crate::sync::{AtomicBool, Mutex, Ordering};
use std::collections::{BTreeMap, BTreeSet};

/// From the one up to the other.
pub(crate) type Range = (Address, Address);

#[derive(Default)]
pub(crate) struct Quarantine {
    /// Set before `begin` of the log passes the first page: who finds that a chain ends below `begin` sees it.
    is_any: AtomicBool,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    /// Where they end, by where they begin. They do not overlap.
    ends: BTreeMap<Address, Address>,
    /// Entries of the index, and where their chains go on in one of the pages.
    links: BTreeSet<(u64, Address)>,
    /// Not in quarantine any more, and still in the file.
    freed: BTreeSet<Range>,
}

/// What there is of it at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quarantined {
    pub pages: Vec<Range>,
    /// By the place of an entry ([`crate::index::Index::entry_of`]).
    pub links: Vec<(u64, Address)>,
}

impl Quarantine {
    #[inline]
    pub fn is_empty(&self) -> bool {
        !self.is_any.load(Ordering::Acquire)
    }

    /// Whether the address lies in one of the pages.
    #[inline]
    pub fn has(&self, address: Address) -> bool {
        !self.is_empty() && self.pages.lock().has(address)
    }

    /// False: it was there already.
    pub fn add(&self, page: Range) -> bool {
        debug_assert!(page.0 < page.1);
        let mut pages = self.pages.lock();
        if pages.has(page.1 - 1) {
            return false;
        }
        pages.ends.insert(page.0, page.1);
        self.is_any.store(true, Ordering::Release);
        true
    }

    /// The chain of an entry goes on at `to`, in one of the pages.
    #[cold]
    pub fn link(&self, entry: u64, to: Address) {
        self.pages.lock().links.insert((entry, to));
    }

    /// Where the chain of an entry goes on below `above`.
    #[cold]
    pub fn linked(&self, entry: u64, above: Address) -> Option<Address> {
        let pages = self.pages.lock();
        pages.links.range((entry, 0)..(entry, above)).next_back().map(|&(_, to)| to)
    }

    /// Nobody's key is in any of them: all were forgotten. Exclusive mode only.
    pub fn clear(&self) {
        let pages = &mut *self.pages.lock();
        pages.freed.extend(std::mem::take(&mut pages.ends));
        pages.links.clear();
        self.is_any.store(false, Ordering::Release);
    }

    pub fn restore(&self, quarantined: &Quarantined) {
        let mut pages = self.pages.lock();
        pages.ends = quarantined.pages.iter().copied().collect();
        pages.links = quarantined.links.iter().copied().collect();
        self.is_any.store(!pages.ends.is_empty(), Ordering::Release);
    }

    pub fn all(&self) -> Quarantined {
        let pages = self.pages.lock();
        let ranges = pages.ends.iter().map(|(&from, &to)| (from, to));
        Quarantined { pages: ranges.collect(), links: pages.links.iter().copied().collect() }
    }

    pub fn count(&self) -> usize {
        if self.is_empty() { 0 } else { self.pages.lock().ends.len() }
    }

    /// Bytes of the pages below an address.
    pub fn bytes_below(&self, address: Address) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let pages = self.pages.lock();
        pages.ends.iter().map(|(&from, &to)| to.min(address).saturating_sub(from)).sum()
    }

    /// Bytes of what is in quarantine no more and still in the file, below an address.
    pub fn freed_below(&self, address: Address) -> u64 {
        self.pages.lock().freed.iter().map(|&(from, to)| to.min(address).saturating_sub(from)).sum()
    }

    /// The lowest address of any page.
    pub fn lowest(&self) -> Option<Address> {
        if self.is_empty() { None } else { self.pages.lock().ends.keys().next().copied() }
    }

    /// The first page that overlaps these addresses, of those that are or were in quarantine, and of `others`.
    pub fn first_in(&self, (from, to): Range, others: &[Range]) -> Option<Range> {
        let pages = self.pages.lock();
        let own = pages.ends.iter().map(|(&from, &to)| (from, to));
        own.chain(pages.freed.iter().copied())
            .chain(others.iter().copied())
            .filter(|page| page.0 < to && page.1 > from)
            .min()
    }

    /// A page stays in the file that is not in quarantine.
    pub fn free_later(&self, page: Range) {
        let mut pages = self.pages.lock();
        if !pages.has(page.1 - 1) {
            pages.freed.insert(page);
        }
    }

    /// A page below `to` whose space nobody needs, but for `kept`.
    pub fn take_freed(&self, to: Address, kept: &[Range]) -> Option<Range> {
        let mut pages = self.pages.lock();
        let page = *pages.freed.iter().find(|page| page.1 <= to && !kept.contains(page))?;
        pages.freed.remove(&page);
        Some(page)
    }
}

impl Pages {
    fn has(&self, address: Address) -> bool {
        // 0 is no address.
        address >= FIRST_ADDRESS && self.ends.range(..=address).next_back().is_some_and(|(_, &end)| address < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_goes_on_at_the_highest_address_below_the_record_at_hand() {
        let quarantine = Quarantine::default();
        assert!(quarantine.is_empty() && !quarantine.has(4096) && quarantine.linked(7, u64::MAX).is_none());
        assert!(quarantine.add((4096, 8192)) && !quarantine.add((4096, 8192)) && quarantine.add((16384, 20480)));
        for (address, is_in) in [(4095, false), (4096, true), (8191, true), (8192, false), (16384, true)] {
            assert_eq!(quarantine.has(address), is_in, "{address}");
        }
        for to in [4104, 5000, 16400] {
            quarantine.link(7, to);
        }
        quarantine.link(8, 4200);
        let below = |above| quarantine.linked(7, above);
        assert_eq!(
            [below(u64::MAX), below(16400), below(5000), below(4104)],
            [Some(16400), Some(5000), Some(4104), None]
        );
        assert_eq!((quarantine.count(), quarantine.bytes_below(17000)), (2, 4096 + 616));
        assert_eq!(quarantine.first_in((0, 4096), &[]), None);
        assert_eq!(quarantine.first_in((0, 40960), &[(0, 512)]), Some((0, 512)));
        assert_eq!(quarantine.first_in((5000, 40960), &[]), Some((4096, 8192)));
    }

    #[test]
    fn no_address_is_in_quarantine_with_the_first_page() {
        let quarantine = Quarantine::default();
        assert!(quarantine.add((0, 4096)) && !quarantine.add((0, 4096)));
        assert!(!quarantine.has(0) && quarantine.has(FIRST_ADDRESS));
    }

    #[test]
    fn what_was_forgotten_is_given_back_once_nobody_keeps_it() {
        let quarantine = Quarantine::default();
        quarantine.add((4096, 8192));
        quarantine.link(7, 5000);
        let before = quarantine.all();
        quarantine.clear();
        assert_eq!((quarantine.all(), quarantine.linked(7, 9000)), (Quarantined::default(), None));
        assert_eq!((quarantine.bytes_below(9000), quarantine.freed_below(9000)), (0, 4096));
        assert_eq!(quarantine.take_freed(8192, &[(4096, 8192)]), None);
        assert_eq!(quarantine.take_freed(8000, &[]), None);
        assert_eq!(quarantine.take_freed(8192, &[]), Some((4096, 8192)));
        assert_eq!(quarantine.take_freed(8192, &[]), None);
        quarantine.restore(&before);
        assert_eq!((quarantine.all(), quarantine.lowest(), quarantine.has(5000)), (before, Some(4096), true));
    }
}
