//! Traces that something names, an entry of SLOWLOG or an exemplar: kept beyond the flight recorder for as long as that is
//! there, so that its id can be looked up.
//!
//! Whoever names a trace holds a [`Pinned`]; the trace comes into it when its batch is committed, and goes with the last
//! holder.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use crate::batch::Batch;
use crate::context::{SpanId, TraceId};
use crate::entry::KeptTrace;
use crate::filter::{self, TraceFilter};

/// Bytes of all traces that are kept. Beyond it no further one is, and its id resolves only while the flight recorder has it.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of one trace that is kept: an EXEC of thousands of commands must not push out all others.
const TRACE_BYTES_MAX: u64 = BYTES_MAX / 16;

/// A trace with this id, whose root is this span; several may share a trace id.
type Ids = (u128, u64);

/// What is kept, shared by the workers.
#[derive(Debug, Default)]
pub struct Pins {
    by_ids: Mutex<BTreeMap<Ids, Weak<Pinned>>>,
    bytes: AtomicU64,
    refused: AtomicU64,
}

/// Holds on to one trace.
#[derive(Debug)]
pub struct Pinned {
    trace_id: TraceId,
    root_id: SpanId,
    trace: OnceLock<KeptTrace>,
    pins: Weak<Pins>,
}

impl Pins {
    /// Asks for a trace whose batch is not committed yet.
    pub fn pin(self: &Arc<Self>, trace_id: TraceId, root_id: SpanId) -> Arc<Pinned> {
        let mut by_ids = self.by_ids.lock();
        let known = by_ids.entry((trace_id.0, root_id.0)).or_default();
        if let Some(pinned) = known.upgrade() {
            return pinned;
        }
        let pins = Arc::downgrade(self);
        let pinned = Arc::new(Pinned { trace_id, root_id, trace: OnceLock::new(), pins });
        *known = Arc::downgrade(&pinned);
        pinned
    }

    /// The trace of a batch that was committed, if it is still asked for.
    pub(crate) fn fill(&self, trace: KeptTrace) {
        let ids = (trace.trace_id().0, trace.root_id().0);
        let Some(pinned) = self.by_ids.lock().get(&ids).and_then(Weak::upgrade) else { return };
        let bytes = trace.bytes() as u64;
        if bytes > TRACE_BYTES_MAX || self.bytes.load(Ordering::Relaxed) + bytes > BYTES_MAX {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if pinned.trace.set(trace).is_ok() {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// The traces with this id.
    pub fn find(&self, trace_id: TraceId) -> Vec<KeptTrace> {
        let by_ids = self.by_ids.lock();
        let same = by_ids.range((trace_id.0, 0)..=(trace_id.0, u64::MAX)).filter_map(|(_, pinned)| pinned.upgrade());
        let found: Vec<Arc<Pinned>> = same.collect();
        // The last holder of one may have gone meanwhile: it takes the lock.
        drop(by_ids);
        found.iter().filter_map(|pinned| pinned.trace.get().cloned()).collect()
    }

    /// Those that are looked for, in no order.
    pub fn search(&self, filter: &TraceFilter) -> Vec<KeptTrace> {
        let all: Vec<Arc<Pinned>> = self.by_ids.lock().values().filter_map(Weak::upgrade).collect();
        let mut tiers = Vec::new();
        let mut wanted = |trace: &KeptTrace| {
            let batch: Batch<'_> = trace.batch();
            if filter.connection.is_some_and(|connection| connection != batch.header.connection) {
                return false;
            }
            if filter.asks_for_tiers() {
                filter::tiers(&batch, &mut tiers);
            }
            filter.matches(&batch, 0, &tiers)
        };
        all.iter().filter_map(|pinned| pinned.trace.get()).filter(|trace| wanted(trace)).cloned().collect()
    }

    /// Bytes of the traces that are kept.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Traces that were named but found no room.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Pinned {
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// The span id of the root.
    pub fn root_id(&self) -> SpanId {
        self.root_id
    }
}

/// Who names the same trace holds the same.
impl PartialEq for Pinned {
    fn eq(&self, other: &Self) -> bool {
        (self.trace_id, self.root_id) == (other.trace_id, other.root_id)
    }
}

impl Eq for Pinned {}

impl Drop for Pinned {
    fn drop(&mut self) {
        let Some(pins) = self.pins.upgrade() else { return };
        let mut by_ids = pins.by_ids.lock();
        let ids = (self.trace_id.0, self.root_id.0);
        // Another may have asked for the same trace since the last holder of this one went.
        if by_ids.get(&ids).is_some_and(|pinned| pinned.strong_count() == 0) {
            by_ids.remove(&ids);
        }
        if let Some(trace) = self.trace.get() {
            pins.bytes.fetch_sub(trace.bytes() as u64, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Header, Parts};
    use crate::record::CommandRecord;

    fn trace(id: u64, records: usize) -> KeptTrace {
        let command = CommandRecord { trace_id: [0, id], span_id: id, records: records as u16, ..Default::default() };
        let record = crate::record::SpanRecord::lap(crate::schema::SpanName::IndexLookup, 0, 0, 0, 0);
        let records = vec![record; records];
        let parts = Parts { commands: &[command], records: &records, ..Parts::default() };
        KeptTrace::new(Batch::new(Header::default(), parts).to_slots())
    }

    fn pin(pins: &Arc<Pins>, id: u64) -> Arc<Pinned> {
        pins.pin(TraceId(id.into()), SpanId(id))
    }

    #[test]
    fn a_trace_is_there_as_long_as_somebody_names_it() {
        let pins = Arc::<Pins>::default();
        let slowlog = pin(&pins, 7);
        pins.fill(trace(7, 3));
        pins.fill(trace(8, 3));
        let exemplar = pin(&pins, 7);
        assert!(Arc::ptr_eq(&slowlog, &exemplar));
        assert_eq!((pins.find(TraceId(7)), pins.find(TraceId(8)).len()), (vec![trace(7, 3)], 0));
        assert_eq!(pins.bytes(), trace(7, 3).bytes() as u64);
        drop(slowlog);
        assert_eq!(pins.search(&TraceFilter::default()).len(), 1);
        drop(exemplar);
        assert_eq!((pins.find(TraceId(7)).len(), pins.bytes(), pins.by_ids.lock().len()), (0, 0, 0));
    }

    #[test]
    fn memory_is_bounded_and_what_finds_no_room_is_counted() {
        let pins = Arc::<Pins>::default();
        let large = trace(1, 30_000).bytes() as u64;
        let count = BYTES_MAX / large;
        let mut held: Vec<_> = (0..=count).map(|id| pin(&pins, id)).collect();
        (0..=count).for_each(|id| pins.fill(trace(id, 30_000)));
        assert_eq!((pins.bytes(), pins.refused()), (count * large, 1));
        held.remove(0);
        held.push(pin(&pins, 1_000));
        pins.fill(trace(1_000, 30_000));
        assert_eq!((pins.bytes(), pins.refused()), (count * large, 1));
        pins.pin(TraceId(2), SpanId(2));
        held.clear();
        let too_large = pin(&pins, 3);
        pins.fill(trace(3, 40_000));
        assert_eq!((pins.bytes(), pins.refused(), too_large.trace_id()), (0, 2, TraceId(3)));
    }
}
