//! Extents of a store that was emptied: there may be millions, so they go in steps while commands run.

use super::extents::Used;
use super::limbo::Cut;
use std::collections::BTreeMap;

/// An extent that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaver {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) id: u64,
    /// The newest checkpoint when it was given up: what was taken later does not name it.
    pub(super) newest: Option<Cut>,
}

#[derive(Default)]
pub(super) struct Leaving(Vec<Batch>);

/// All that there was at one moment.
struct Batch {
    extents: BTreeMap<u64, Used>,
    newest: Option<Cut>,
}

impl Leaving {
    pub(super) fn add(&mut self, extents: BTreeMap<u64, Used>, newest: Option<Cut>) {
        if !extents.is_empty() {
            self.0.push(Batch { extents, newest });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes one out.
    pub(super) fn next(&mut self) -> Option<Leaver> {
        let batch = self.0.last_mut()?;
        let (offset, Used { bytes, id }) = batch.extents.pop_first().expect("an empty batch does not stay");
        let newest = batch.newest;
        if batch.extents.is_empty() {
            self.0.pop();
        }
        Some(Leaver { offset, bytes, id, newest })
    }

    /// Offset, bytes and id of those that were given up while the checkpoint of this number was the newest, from an offset on,
    /// in no order but with the first `most` of each batch among them.
    pub(super) fn of_cut(&self, number: u64, from: u64, most: usize) -> impl Iterator<Item = (u64, u64, u64)> {
        let batches = self.0.iter().filter(move |batch| batch.newest.is_some_and(|newest| newest.number == number));
        batches.flat_map(move |batch| {
            batch.extents.range(from..).take(most).map(|(&offset, used)| (offset, used.bytes, used.id))
        })
    }
}
