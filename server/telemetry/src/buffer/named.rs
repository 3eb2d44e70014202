//! Traces that something beside the recorder names: an entry of SLOWLOG, a histogram's exemplar.

use std::sync::Arc;

use super::TraceBuffer;
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

    /// A bucket of the histogram of the current command's times has no exemplar of late, and this command fell into it.
    #[cold]
    pub fn exemplar(&mut self, command: usize, bucket: usize, value_ns: u64) {
        if self.level == 0 || self.candidates.len() >= CANDIDATES_MAX {
            return;
        }
        let Some(root) = self.current().map(|current| current.root) else { return };
        self.candidates.push(Candidate { root, command: command as u16, bucket: bucket as u8, value_ns });
    }
}
