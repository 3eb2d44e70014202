//! Spaces that nothing shows any more. Their entries are swept from the index by and by.

use crate::address::Address;
use crate::sync::Mutex;
use std::collections::{BTreeMap, BTreeSet};

/// Retired spaces whose entries may still be in the index, each with the log's tail when it was retired.
#[derive(Default)]
pub(crate) struct Retired(Mutex<Spaces>);

#[derive(Default)]
struct Spaces {
    unswept: BTreeMap<u32, Address>,
    /// Those swept while a checkpoint is taken: its image may have their entries.
    swept: Option<BTreeMap<u32, Address>>,
}

impl Retired {
    /// From now on no record of `space` is written: all lie below `tail`.
    pub(crate) fn add(&self, space: u32, tail: Address) {
        self.0.lock().unswept.insert(space, tail);
    }

    /// No entry of any space is left.
    pub(crate) fn clear(&self) {
        let mut spaces = self.0.lock();
        spaces.unswept.clear();
        spaces.swept.iter_mut().for_each(BTreeMap::clear);
    }

    /// From now on what is swept is kept in mind.
    pub(crate) fn begin_image(&self) {
        self.0.lock().swept = Some(BTreeMap::new());
    }

    /// All spaces that an image begun by [`Retired::begin_image`] may have entries of.
    pub(crate) fn of_image(&self) -> Vec<(u32, Address)> {
        let spaces = self.0.lock();
        let swept = spaces.swept.iter().flatten();
        swept.chain(&spaces.unswept).map(|(&space, &tail)| (space, tail)).collect()
    }

    pub(crate) fn end_image(&self) {
        self.0.lock().swept = None;
    }

    /// What is to be swept now, if anything is.
    pub(crate) fn begin(&self) -> Option<Pass> {
        let spaces = self.0.lock().unswept.clone();
        let below = spaces.values().copied().max()?;
        Some(Pass { spaces, below, unreadable: BTreeSet::new() })
    }

    /// The whole index was swept.
    pub(crate) fn end(&self, pass: &Pass) {
        let spaces = &mut *self.0.lock();
        let gone = spaces.unswept.extract_if(.., |space, _| pass.spaces.contains_key(space));
        match &mut spaces.swept {
            Some(swept) => swept.extend(gone),
            None => gone.for_each(drop),
        }
    }
}

/// One sweep through the index.
pub(crate) struct Pass {
    spaces: BTreeMap<u32, Address>,
    below: Address,
    /// Records that the disk does not give: they keep their entries.
    unreadable: BTreeSet<Address>,
}

impl Pass {
    /// Whether a record of a retired space may lie at the address.
    #[inline]
    pub(crate) fn may_own(&self, address: Address) -> bool {
        address < self.below && (self.unreadable.is_empty() || !self.unreadable.contains(&address))
    }

    #[inline]
    pub(crate) fn owns(&self, space: u32, address: Address) -> bool {
        self.spaces.get(&space).is_some_and(|&below| address < below)
    }

    pub(crate) fn give_up(&mut self, address: Address) {
        self.unreadable.insert(address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_owns_what_was_retired_before_it_began() {
        let retired = Retired::default();
        assert!(retired.begin().is_none());
        retired.add(3, 800);
        retired.add(1, 400);
        let mut pass = retired.begin().expect("two spaces");
        retired.add(7, 1600);
        assert!(pass.owns(3, 792) && !pass.owns(3, 800) && !pass.owns(1, 400) && !pass.owns(7, 64));
        assert!(pass.may_own(792) && !pass.may_own(800));
        pass.give_up(64);
        assert!(!pass.may_own(64));
        retired.end(&pass);
        let rest = retired.begin().expect("one came later");
        assert!(rest.owns(7, 64) && !rest.owns(3, 64));
        retired.clear();
        assert!(retired.begin().is_none());
    }

    #[test]
    fn an_image_names_spaces_that_were_swept_while_it_was_taken() {
        let retired = Retired::default();
        retired.add(3, 800);
        let pass = retired.begin().expect("a space");
        retired.begin_image();
        retired.end(&pass);
        retired.add(4, 900);
        assert_eq!(retired.of_image(), [(3, 800), (4, 900)]);
        retired.end_image();
        assert_eq!(retired.of_image(), [(4, 900)]);
    }
}
