//! A copy of the wheel that is made in steps while it changes: for a checkpoint.
//!
//! For every reminder that is in the wheel at any moment from the beginning of the copy to its end, the copy has one of that
//! hash which is not later. The steps go through the places in their order; what they would not see, since it comes to a place
//! that they have passed, or leaves one before they come to it, goes into the journal.

use super::{Reminder, Wheel};

/// Reminders of a piece of the journal.
const PIECE: usize = 4096;

/// Where a copy stands.
#[derive(Default)]
pub(super) struct Copying {
    /// Places below have been copied.
    passed: usize,
    /// In pieces, none of which is ever moved.
    journal: Vec<Vec<Reminder>>,
}

impl Copying {
    pub(super) fn bytes(&self) -> usize {
        self.journal.len() * PIECE * size_of::<Reminder>()
    }

    fn has_passed(&self, place: u32) -> bool {
        (place as usize) < self.passed
    }

    fn write(&mut self, reminder: Reminder) {
        match self.journal.last_mut() {
            Some(piece) if piece.len() < PIECE => piece.push(reminder),
            _ => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(reminder);
                self.journal.push(piece);
            }
        }
    }

    pub(super) fn added(&mut self, place: u32, reminder: Reminder) {
        if self.has_passed(place) {
            self.write(reminder);
        }
    }

    /// To another time.
    pub(super) fn moved(&mut self, place: u32, from: Reminder, to: Reminder) {
        match self.has_passed(place) {
            true if to.due_ms < from.due_ms => self.write(to),
            false if to.due_ms > from.due_ms => self.write(from),
            _ => {}
        }
    }

    /// `filled`: the place from which another one has come, and what that is.
    pub(super) fn removed(&mut self, place: u32, reminder: Reminder, filled: Option<(u32, Reminder)>) {
        if !self.has_passed(place) {
            self.write(reminder);
        } else if let Some((from, other)) = filled
            && !self.has_passed(from)
        {
            self.write(other);
        }
    }
}

impl Wheel {
    /// Begins a copy; there is one at a time.
    pub(crate) fn begin_copy(&mut self) {
        self.copying = Some(Copying::default());
    }

    /// Copies at most `max` reminders. False: there are no more, but for [`Wheel::end_copy`].
    pub(crate) fn copy(&mut self, max: usize, mut f: impl FnMut(Reminder)) -> bool {
        let Some(copying) = &mut self.copying else { return false };
        let end = self.entries.len().min(copying.passed.saturating_add(max));
        (copying.passed..end).for_each(|place| f(self.entries.reminder(place as u32)));
        if end >= self.entries.len() {
            // Whatever is added from here on is at a place that the steps have passed.
            copying.passed = usize::MAX;
            return false;
        }
        copying.passed = end;
        true
    }

    /// Ends a copy: what its steps may have missed, in pieces.
    pub(crate) fn end_copy(&mut self) -> Vec<Vec<Reminder>> {
        self.copying.take().map(|copying| copying.journal).unwrap_or_default()
    }
}
