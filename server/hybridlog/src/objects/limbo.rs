//! Extents that are no object's any more and that a checkpoint names: they are in limbo until no checkpoint does.
//!
//! A checkpoint names the extents of all objects whose ids were given before its *cut* and that were there at the cut. Ids only
//! grow: so who frees an extent knows by its id whether the newest checkpoint names it, and an older one's limbo holds what
//! was freed before the newest cut. If a checkpoint goes, what it alone named is free; what the one before it names too waits
//! for that.

use std::collections::{BTreeMap, BTreeSet};

/// A checkpoint that is in force, or may come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Of its file.
    pub(crate) number: u64,
    /// The first id that was given after the cut.
    pub(crate) next_id: u64,
    /// Nothing is known of it by the manifest yet.
    pub(crate) is_being_taken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    bytes: u64,
    id: u64,
    /// The newest checkpoint that names it.
    until: u64,
}

#[derive(Default)]
pub(super) struct Limbo {
    /// In the order of their numbers, and of their cuts.
    cuts: Vec<Cut>,
    /// By offset.
    waiting: BTreeMap<u64, Waiting>,
    /// Number of the checkpoint waited for, offset.
    by_cut: BTreeSet<(u64, u64)>,
    /// Checkpoints that are gone and may still be waited for.
    gone: BTreeSet<u64>,
    bytes: u64,
}

impl Limbo {
    pub(super) fn add_cut(&mut self, cut: Cut) {
        debug_assert!(self.cuts.last().is_none_or(|last| last.number < cut.number && last.next_id <= cut.next_id));
        self.cuts.push(cut);
    }

    /// A start finds the newest first.
    pub(super) fn add_cut_before(&mut self, cut: Cut) {
        debug_assert!(self.cuts.first().is_none_or(|first| cut.number < first.number && cut.next_id <= first.next_id));
        self.cuts.insert(0, cut);
    }

    pub(super) fn has_cuts(&self) -> bool {
        !self.cuts.is_empty()
    }

    pub(super) fn has_cut(&self, number: u64) -> bool {
        self.cuts.iter().any(|cut| cut.number == number)
    }

    /// The manifest names the checkpoint, or a crash decides whether it does.
    pub(super) fn cut_is_taken(&mut self, number: u64) {
        self.cuts.iter_mut().filter(|cut| cut.number == number).for_each(|cut| cut.is_being_taken = false);
    }

    /// The checkpoint is gone.
    pub(super) fn drop_cut(&mut self, number: u64) {
        if self.has_cut(number) {
            self.cuts.retain(|cut| cut.number != number);
            self.gone.insert(number);
        }
    }

    /// All checkpoints are gone but these and those that are being taken.
    pub(super) fn keep_cuts(&mut self, numbers: &[u64]) {
        let gone = self.cuts.extract_if(.., |cut| !cut.is_being_taken && !numbers.contains(&cut.number));
        self.gone.extend(gone.map(|cut| cut.number));
    }

    pub(super) fn newest(&self) -> Option<Cut> {
        self.cuts.last().copied()
    }

    /// Takes an extent that was freed; false if no checkpoint names it.
    pub(super) fn take(&mut self, offset: u64, bytes: u64, id: u64) -> bool {
        self.take_as_of(self.newest(), offset, bytes, id)
    }

    /// Takes an extent that was freed when `newest` was the newest checkpoint; false if none names it, or none any more.
    pub(super) fn take_as_of(&mut self, newest: Option<Cut>, offset: u64, bytes: u64, id: u64) -> bool {
        let Some(newest) = newest else { return false };
        let names = |cut: &&Cut| cut.number <= newest.number && id < cut.next_id;
        let Some(&Cut { number: until, .. }) = self.cuts.iter().rev().find(names) else { return false };
        self.insert(offset, Waiting { bytes, id, until });
        true
    }

    /// Takes an extent that a checkpoint other than the newest names.
    pub(super) fn put(&mut self, offset: u64, bytes: u64, id: u64, until: u64) {
        self.insert(offset, Waiting { bytes, id, until });
    }

    fn insert(&mut self, offset: u64, waiting: Waiting) {
        self.bytes += waiting.bytes;
        self.by_cut.insert((waiting.until, offset));
        let before = self.waiting.insert(offset, waiting);
        debug_assert!(before.is_none(), "two extents at one place");
    }

    /// One that waits for a checkpoint that is gone, and for no other: its offset and bytes. `Ok(None)`: this one waits on.
    ///
    /// # Errors
    /// There are none.
    pub(super) fn next_free(&mut self) -> Result<Option<(u64, u64)>, ()> {
        while let Some(&number) = self.gone.first() {
            let Some(&(_, offset)) = self.by_cut.range((number, 0)..=(number, u64::MAX)).next() else {
                self.gone.pop_first();
                continue;
            };
            self.by_cut.remove(&(number, offset));
            let waiting = self.waiting.remove(&offset).expect("both maps have it");
            self.bytes -= waiting.bytes;
            let before = self.cuts.iter().rev().find(|cut| cut.number < number && waiting.id < cut.next_id);
            return Ok(match before.copied() {
                Some(cut) => {
                    self.insert(offset, Waiting { until: cut.number, ..waiting });
                    None
                }
                None => Some((offset, waiting.bytes)),
            });
        }
        Err(())
    }

    /// Offsets and bytes, ascending.
    pub(super) fn places(&self) -> impl Iterator<Item = (u64, u64)> {
        self.waiting.iter().map(|(&offset, waiting)| (offset, waiting.bytes))
    }

    /// Offset, bytes and id of what waits for this checkpoint, from an offset on, ascending.
    pub(super) fn of_cut(&self, number: u64, from: u64) -> impl Iterator<Item = (u64, u64, u64)> {
        let offsets = self.by_cut.range((number, from)..=(number, u64::MAX));
        offsets.map(|&(_, offset)| (offset, self.waiting[&offset].bytes, self.waiting[&offset].id))
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}
