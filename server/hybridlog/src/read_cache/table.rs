//! Which entry has the record at an address, and which addresses are remembered.
//!
//! Open addressing, since a map's insides cannot be asked for ahead: what an address leads to is one line of memory, most often, and
//! that line is known without looking at another one. A slot has 32 bits of the address's hash and a number; entries know their
//! address themselves, and of a remembered address the 32 bits are enough: to take another one for it lets a record in too early, in
//! one of thousands of millions of cases.

use crate::address::Address;

/// Stands for a remembered address in place of an entry's number.
pub(super) const GHOST: u32 = u32::MAX - 1;

/// One more than the number (half a slot, so that 0 is none), and above it the hash.
type Slot = u64;
const EMPTY: Slot = 0;
const HASH_AT: u32 = 32;
/// Slots in use, of five.
const FULL: usize = 4;
const SLOTS_MIN: usize = 16;

/// Shared by nobody: a shard's lock is around it. At most 2^32 slots.
#[derive(Default)]
pub(super) struct Table {
    /// A power of two of them, or none.
    slots: Box<[Slot]>,
    used: usize,
}

fn hash(address: Address) -> u32 {
    // Addresses are multiples of 8 that lie close together: of the product the high bits are well mixed.
    (address.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) as u32
}

fn slot(address: Address, number: u32) -> Slot {
    (Slot::from(hash(address)) << HASH_AT) + Slot::from(number) + 1
}

fn number(slot: Slot) -> u32 {
    (slot as u32).wrapping_sub(1)
}

impl Table {
    fn home(&self, slot: Slot) -> usize {
        (slot >> HASH_AT) as usize & (self.slots.len() - 1)
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    /// Asks for the line in which the address's slot is, or begins to be looked for.
    pub fn prefetch(&self, address: Address) {
        if !self.slots.is_empty() {
            let home = self.home(slot(address, 0));
            crate::index::prefetch(std::ptr::from_ref(&self.slots[home]).cast());
        }
    }

    /// What may be the address's: numbers whose hash is the same.
    pub fn numbers(&self, address: Address) -> impl Iterator<Item = u32> + '_ {
        let wanted = slot(address, 0);
        let mut at = if self.slots.is_empty() { 0 } else { self.home(wanted) };
        std::iter::from_fn(move || {
            loop {
                let found = *self.slots.get(at).filter(|slot| **slot != EMPTY)?;
                at = self.next(at);
                if found >> HASH_AT == wanted >> HASH_AT {
                    return Some(number(found));
                }
            }
        })
    }

    pub fn insert(&mut self, address: Address, number: u32) {
        if (self.used + 1) * 5 > self.slots.len() * FULL {
            self.grow();
        }
        self.used += 1;
        self.place(slot(address, number));
    }

    fn place(&mut self, slot: Slot) {
        let mut at = self.home(slot);
        while self.slots[at] != EMPTY {
            at = self.next(at);
        }
        self.slots[at] = slot;
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(SLOTS_MIN);
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; slots].into_boxed_slice());
        old.into_iter().filter(|slot| *slot != EMPTY).for_each(|slot| self.place(slot));
    }

    /// False: it was not there.
    pub fn remove(&mut self, address: Address, number: u32) -> bool {
        if self.slots.is_empty() {
            return false;
        }
        let wanted = slot(address, number);
        let mut hole = self.home(wanted);
        while self.slots[hole] != wanted {
            if self.slots[hole] == EMPTY {
                return false;
            }
            hole = self.next(hole);
        }
        self.used -= 1;
        // Who comes behind and would not be found over the hole moves into it, which leaves another one.
        let mut at = self.next(hole);
        while self.slots[at] != EMPTY {
            let (slot, mask) = (self.slots[at], self.slots.len() - 1);
            let from_home = at.wrapping_sub(self.home(slot)) & mask;
            if from_home >= (at.wrapping_sub(hole) & mask) {
                self.slots[hole] = slot;
                hole = at;
            }
            at = self.next(at);
        }
        self.slots[hole] = EMPTY;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_empty_one_has_nothing() {
        let mut table = Table::default();
        table.prefetch(8);
        assert_eq!(table.numbers(8).count(), 0);
        assert!(!table.remove(8, 0));
    }

    proptest! {
        /// Whatever comes and goes, each is found until it goes.
        #[test]
        fn what_is_in_it_is_found(steps in prop::collection::vec((0u64..80, 0u32..3, any::<bool>()), 1..800)) {
            let (mut table, mut there) = (Table::default(), BTreeSet::new());
            for (number, entry, comes) in steps {
                let (address, entry) = (number * 8, if entry == 2 { GHOST } else { entry });
                if comes && there.insert((address, entry)) {
                    table.insert(address, entry);
                } else if !comes {
                    prop_assert_eq!(table.remove(address, entry), there.remove(&(address, entry)));
                }
                prop_assert_eq!(table.used, there.len());
            }
            for number in 0..80 {
                let mut found: Vec<u32> = table.numbers(number * 8).collect();
                found.sort_unstable();
                let expected: Vec<u32> = there.range((number * 8, 0)..=(number * 8, GHOST)).map(|(_, entry)| *entry).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
