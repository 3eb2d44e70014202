//! One trace as it was kept. How its spans are read back has [`crate::teller`].

use std::ops::Range;

use crate::batch::{Batch, Slot};
use crate::context::{SpanId, TraceId};
use crate::outbox::span_count;
use crate::record::{CommandRecord, SAMPLED};
use crate::schema::SpanName;
use crate::sink::Collected;
use crate::span::Span;
use crate::teller::{Teller, end_of};

/// One trace (of one command, or of one EXEC with its queued commands) in compact form: one allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptTrace {
    slots: Box<[Slot]>,
}

impl KeptTrace {
    /// `slots`: a [`Batch`] of one trace, its root first.
    pub(crate) fn new(slots: Box<[Slot]>) -> Self {
        Self { slots }
    }

    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch::from_slots(&self.slots)
    }

    fn root_command(&self) -> &CommandRecord {
        &self.batch().commands[0]
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    /// The id of the trace.
    pub fn trace_id(&self) -> TraceId {
        self.root_command().trace_id()
    }

    /// The span id of the root.
    pub fn root_id(&self) -> SpanId {
        SpanId(self.root_command().span_id)
    }

    /// Whether the sampler chose it.
    pub fn sampled(&self) -> bool {
        self.root_command().has(SAMPLED)
    }

    /// How many spans it has, root included.
    pub fn span_count(&self) -> usize {
        span_count(&self.batch())
    }

    /// When the root began, on the monotonic clock.
    pub fn start_ns(&self) -> u64 {
        self.root_command().start
    }

    /// When the root ended, on the monotonic clock.
    pub fn end_ns(&self) -> u64 {
        end_of(&self.batch())
    }

    /// What the root is: a command, or work that is none.
    pub fn name(&self) -> SpanName {
        self.root_command().name()
    }

    /// What to add to a monotonic reading of this trace to have nanoseconds since the Unix epoch.
    pub fn wall_offset_ns(&self) -> i64 {
        self.batch().header.wall_offset
    }

    /// Execution and waits for the disk, in nanoseconds.
    pub fn execution_ns(&self) -> u64 {
        self.root_command().execution_ns
    }

    /// Every span, the root first, then in the order of their ids.
    pub fn spans(&self) -> impl Iterator<Item = Span> {
        self.spans_at(0..usize::MAX)
    }

    /// Those at these positions among [`KeptTrace::spans`].
    pub fn spans_at(&self, positions: Range<usize>) -> impl Iterator<Item = Span> {
        let mut collected = Collected::default();
        Teller::default().tell_some(self, positions, &mut collected);
        collected.spans.into_iter()
    }
}
