//! Traces that something beside the recorder names: an entry of SLOWLOG, a histogram's exemplar.

use std::sync::Arc;

use super::{SyncSlot, TraceBuffer};
use crate::context::SpanId;
use crate::exemplar::Candidate;
use crate::pins::{Pinned, Pins};
use crate::record::PINNED;

/// Candidates of one batch: that many buckets hardly lack an exemplar at the same time.
const CANDIDATES_MAX: usize = 64;

impl TraceBuffer {
    /// Has the trace of the current command kept for as long as what this gives is held; `None` if it is not recorded.
    #[cold]
    pub fn pin(&mut self, pins: &Arc<Pins>) -> Option<Arc<Pinned>> {
        if self.level == 0 {
            return None;
        }
        let root = usize::from(self.current()?.root);
        self.pinned = true;
        let root = &mut self.commands[root];
        root.flags |= PINNED;
        Some(pins.pin(root.trace_id(), SpanId(root.span_id)))
    }

    /// A bucket of a histogram has no exemplar of late, and the current command, or the work that was just recorded, fell into
    /// it. `subject`: whose histogram, the command's index in the table or what else has a number behind those.
    #[cold]
    pub fn exemplar(&mut self, subject: usize, bucket: usize, value_ns: u64) {
        self.candidate(self.current, subject, bucket, value_ns);
    }

    /// The same of the command that waited for the AOF.
    #[cold]
    pub fn exemplar_of_sync(&mut self, slot: SyncSlot, subject: usize, bucket: usize, value_ns: u64) {
        if let Some(record) = slot.0.and_then(|at| self.records.get(at as usize)) {
            self.candidate(record.owner(), subject, bucket, value_ns);
        }
    }

    fn candidate(&mut self, command: u16, subject: usize, bucket: usize, value_ns: u64) {
        if self.configured == 0 || self.candidates.len() >= CANDIDATES_MAX {
            return;
        }
        let Some(root) = self.commands.get(usize::from(command)).map(|command| command.root) else { return };
        self.candidates.push(Candidate { root, command: subject as u16, bucket: bucket as u8, value_ns });
    }
}
