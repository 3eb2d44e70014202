//! What a worker keeps: the ids, the sampler, the flight recorder, the counters; and the decision at a trace's end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::buffer::TraceBuffer;
use crate::context::TraceId;
use crate::entry::{KeptTrace, encode};
use crate::ids::IdGenerator;
use crate::record::{DISCARDED, Detail, FINISHED, SpanRecord};
use crate::ring::Ring;
use crate::sampler::{Sampler, SamplerChoice};

/// The size of the flight recorder if nothing else is said.
pub const RING_BYTES_DEFAULT: usize = 4 * 1024 * 1024;

/// How a worker records.
#[derive(Clone, Debug)]
pub struct RecorderConfig {
    /// `None`: recording is off (`traces_enabled = false`).
    pub detail: Option<Detail>,
    /// Bytes of the flight recorder.
    pub ring_bytes: usize,
    pub sampler: Sampler,
    /// Whether sampled traces are kept for export; if not, they are only marked.
    pub export: bool,
    /// Every id follows from it. Different for each worker.
    pub seed: u64,
}

impl Default for RecorderConfig {
    /// Everything is recorded, every trace is sampled, nothing is exported.
    fn default() -> Self {
        Self {
            detail: Some(Detail::Full),
            ring_bytes: RING_BYTES_DEFAULT,
            sampler: Sampler::new(SamplerChoice::AlwaysOn, false),
            export: false,
            seed: 0,
        }
    }
}

/// Counts of one worker's recorder, since it started. Written by that worker, read by any.
#[derive(Debug, Default)]
pub struct Counters {
    created: AtomicU64,
    sampled: AtomicU64,
    over_span_limit: AtomicU64,
    over_batch_limit: AtomicU64,
}

impl Counters {
    /// One thread writes, so that this needs no locked instruction.
    fn add(counter: &AtomicU64, count: u64) {
        counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// Spans recorded, exported or not.
    pub fn created(&self) -> u64 {
        self.created.load(Ordering::Relaxed)
    }

    /// Spans of traces that the sampler chose.
    pub fn sampled(&self) -> u64 {
        self.sampled.load(Ordering::Relaxed)
    }

    /// Spans left out of trees that had too many.
    pub fn over_span_limit(&self) -> u64 {
        self.over_span_limit.load(Ordering::Relaxed)
    }

    /// Commands left out of batches that had too many; each would have been at least one span.
    pub fn over_batch_limit(&self) -> u64 {
        self.over_batch_limit.load(Ordering::Relaxed)
    }
}

/// One worker's recorder. See the module's documentation.
pub struct Recorder {
    time: fn() -> u64,
    detail: Option<Detail>,
    sampler: Sampler,
    export: bool,
    ids: IdGenerator,
    ring: Arc<Ring>,
    counters: Arc<Counters>,
    wall_offset: i64,
    /// The entry being made.
    entry: Vec<u64>,
    /// The records of an interleaved batch, tree by tree, and where in it the next one of each tree goes.
    order: Vec<u32>,
    next_of_tree: Vec<u32>,
}

impl Recorder {
    /// `time` is the monotonic clock.
    pub fn new(time: fn() -> u64, config: &RecorderConfig) -> Self {
        Self {
            time,
            detail: config.detail,
            sampler: config.sampler,
            export: config.export,
            ids: IdGenerator::new(config.seed),
            ring: Arc::new(Ring::new(if config.detail.is_some() { config.ring_bytes } else { 0 })),
            counters: Arc::default(),
            wall_offset: 0,
            entry: Vec::new(),
            order: Vec::new(),
            next_of_tree: Vec::new(),
        }
    }

    /// A buffer for a new session, with ids of its own.
    pub fn buffer(&mut self) -> TraceBuffer {
        TraceBuffer::with_ids(self.time, self.detail, IdGenerator::new(self.ids.next_u64()))
    }

    /// The flight recorder, for any worker to read.
    pub fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.ring)
    }

    /// The counters, for the collection of metrics.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// The sampler in force.
    pub fn sampler(&self) -> Sampler {
        self.sampler
    }

    /// Says what both clocks show at one moment; traces from now on carry the difference. To be repeated now and then,
    /// since the wall clock may be set.
    pub fn set_wall_clock(&mut self, monotonic_ns: u64, unix_ns: u64) {
        self.wall_offset = unix_ns.wrapping_sub(monotonic_ns) as i64;
    }

    /// The batch's replies were written, or never will be: each of its traces goes into the ring, those that the sampler
    /// chose also to `kept`; then the buffer is empty again. A command without an end ends now.
    pub fn commit(&mut self, buffer: &mut TraceBuffer, mut kept: impl FnMut(KeptTrace)) {
        if buffer.commands.is_empty() {
            buffer.clear();
            return;
        }
        let now = (self.time)();
        if buffer.interleaved {
            self.order_by_tree(buffer);
        }
        let mut records_done = 0;
        let (mut created, mut chosen, mut over_span_limit) = (0, 0, 0);
        for index in 0..buffer.commands.len() {
            let command = &mut buffer.commands[index];
            if usize::from(command.root) != index {
                continue;
            }
            if command.flags & FINISHED == 0 {
                command.end = now.max(command.start);
            }
            let from = records_done;
            records_done += command.records();
            if command.flags & DISCARDED != 0 {
                continue;
            }
            over_span_limit += u64::from(command.spans_dropped);
            let parent = buffer.remote_parent_sampled(index);
            let sampled = self.sampler.decide(TraceId(buffer.commands[index].trace_id), parent);
            let root = index as u16;
            let range = from..records_done;
            let spans = if buffer.interleaved {
                let records = self.order[range].iter().map(|at| &buffer.records[*at as usize]);
                encode(buffer, root, records, sampled, self.wall_offset, &mut self.entry)
            } else {
                let records: std::slice::Iter<'_, SpanRecord> = buffer.records[range].iter();
                encode(buffer, root, records, sampled, self.wall_offset, &mut self.entry)
            };
            created += u64::from(spans);
            self.ring.push(&self.entry);
            if sampled {
                chosen += u64::from(spans);
                if self.export {
                    kept(KeptTrace::new(self.entry.as_slice().into()));
                }
            }
        }
        Counters::add(&self.counters.created, created);
        Counters::add(&self.counters.sampled, chosen);
        Counters::add(&self.counters.over_span_limit, over_span_limit);
        Counters::add(&self.counters.over_batch_limit, buffer.lost);
        buffer.clear();
    }

    /// Puts the records of an interleaved batch in the order of their trees, those of a tree in the order of recording.
    /// A root knows how many records its tree has, so each goes to its place at once.
    fn order_by_tree(&mut self, buffer: &TraceBuffer) {
        let mut at = 0;
        self.next_of_tree.clear();
        self.next_of_tree.extend(buffer.commands.iter().enumerate().map(|(index, command)| {
            let first = at;
            if usize::from(command.root) == index {
                at += command.records() as u32;
            }
            first
        }));
        self.order.clear();
        self.order.resize(buffer.records.len(), 0);
        for (at, record) in buffer.records.iter().enumerate() {
            let root = buffer.commands[usize::from(record.owner())].root;
            let next = &mut self.next_of_tree[usize::from(root)];
            self.order[*next as usize] = at as u32;
            *next += 1;
        }
    }
}
