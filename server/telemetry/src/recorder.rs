//! What a worker keeps: the ids, the sampler, the flight recorder, the counters; and the decision at a trace's end.

use std::borrow::Cow;
use std::sync::Arc;

use crate::batch::Splitter;
use crate::buffer::{Budget, TraceBuffer};
use crate::context::FLAG_SAMPLED;
use crate::context::SpanId;
use crate::counter::Counter;
use crate::entry::KeptTrace;
use crate::exemplar::{Exemplar, NewExemplar};
use crate::ids::IdGenerator;
use crate::outbox::ChosenTrace;
use crate::pins::Pins;
use crate::record::{CHILD_FAILED, CommandRecord, DISCARDED, Detail, FINISHED, PINNED, SAMPLED};
use crate::redaction::Keys;
use crate::ring::Ring;
use crate::sampling::{Facts, Probability, Sampling, SamplingPolicy};
use crate::schema::SampledBy;

/// The size of the flight recorder if nothing else is said.
pub const RING_BYTES_DEFAULT: usize = 4 * 1024 * 1024;

/// How a worker records.
#[derive(Clone, Debug)]
pub struct RecorderConfig {
    /// `None`: recording is off (`traces_enabled = false`).
    pub detail: Option<Detail>,
    /// What is recorded of keys.
    pub keys: Keys,
    /// Bytes of the flight recorder.
    pub ring_bytes: usize,
    /// The flight recorder, if it was made before.
    pub ring: Option<Arc<Ring>>,
    pub sampling: Arc<Sampling>,
    /// Whether sampled traces are kept for export; if not, they are only marked.
    pub export: bool,
    /// Where traces go that something names.
    pub pins: Arc<Pins>,
    /// Every id follows from it. Different for each worker.
    pub seed: u64,
}

impl Default for RecorderConfig {
    /// Everything is recorded, every trace is sampled, nothing is exported.
    fn default() -> Self {
        Self {
            detail: Some(Detail::Full),
            keys: Keys::Shown,
            ring_bytes: RING_BYTES_DEFAULT,
            ring: None,
            sampling: Sampling::by_head(Probability::AlwaysOn, false),
            export: false,
            pins: Arc::default(),
            seed: 0,
        }
    }
}

/// Counts of one worker's recorder, since it started. Written by that worker, read by any.
#[derive(Debug, Default)]
pub struct Counters {
    created: Counter,
    sampled: [Counter; SampledBy::ALL.len()],
    over_span_limit: Counter,
    over_batch_limit: Counter,
}

impl Counters {
    /// Spans recorded, exported or not.
    pub fn created(&self) -> u64 {
        self.created.get()
    }

    /// Spans of traces that are exported, by the reason.
    pub fn sampled_by(&self, reason: SampledBy) -> u64 {
        self.sampled[reason as usize].get()
    }

    /// Spans of traces that are exported.
    pub fn sampled(&self) -> u64 {
        self.sampled.iter().map(Counter::get).sum()
    }

    /// Spans left out of trees that had too many.
    pub fn over_span_limit(&self) -> u64 {
        self.over_span_limit.get()
    }

    /// Commands left out of batches that had too many; each would have been at least one span.
    pub fn over_batch_limit(&self) -> u64 {
        self.over_batch_limit.get()
    }
}

/// One worker's recorder. See the module's documentation.
pub struct Recorder {
    time: fn() -> u64,
    detail: Option<Detail>,
    keys: Keys,
    sampling: Arc<Sampling>,
    /// Of this version.
    policy: Arc<SamplingPolicy>,
    version: u64,
    export: bool,
    ids: IdGenerator,
    ring: Arc<Ring>,
    counters: Arc<Counters>,
    pins: Arc<Pins>,
    /// What the last commits gave.
    exemplars: Vec<NewExemplar>,
    wall_offset: i64,
    splitter: Splitter,
    /// The tiers that each root's tree visited, a bit each; filled only if a rule asks for them.
    tiers: Vec<u8>,
    /// What its buffers keep.
    spare: Budget,
}

impl Recorder {
    /// `time` is the monotonic clock.
    pub fn new(time: fn() -> u64, config: &RecorderConfig) -> Self {
        Self {
            time,
            detail: config.detail,
            keys: config.keys,
            policy: config.sampling.policy(),
            version: config.sampling.version(),
            sampling: Arc::clone(&config.sampling),
            export: config.export,
            ids: IdGenerator::new(config.seed),
            ring: config
                .ring
                .clone()
                .unwrap_or_else(|| Arc::new(Ring::new(if config.detail.is_some() { config.ring_bytes } else { 0 }))),
            counters: Arc::default(),
            pins: Arc::clone(&config.pins),
            exemplars: Vec::new(),
            wall_offset: 0,
            splitter: Splitter::default(),
            tiers: Vec::new(),
            spare: Budget::default(),
        }
    }

    /// A buffer for a new session, with ids of its own.
    pub fn buffer(&mut self) -> TraceBuffer {
        let ids = IdGenerator::new(self.ids.next_u64());
        TraceBuffer::with_ids(self.time, self.detail, self.keys, ids, self.spare.clone())
    }

    /// The flight recorder, for any worker to read.
    pub fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.ring)
    }

    /// The counters, for the collection of metrics.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Says what both clocks show at one moment; traces from now on carry the difference. To be repeated now and then,
    /// since the wall clock may be set.
    pub fn set_wall_clock(&mut self, monotonic_ns: u64, unix_ns: u64) {
        self.wall_offset = unix_ns.wrapping_sub(monotonic_ns) as i64;
    }

    /// What the reply of the current command, which has just finished, can say of its trace, as a version 00 `traceresponse`
    /// (<https://w3c.github.io/trace-context/#traceresponse-header>). The decision about the trace is made now: all that it depends on is
    /// known but the time that the reply takes. `None`: it is not recorded.
    pub fn traceresponse(&mut self, buffer: &mut TraceBuffer) -> Option<String> {
        let (trace_id, span_id) = buffer.ids()?;
        let root = buffer.current_root()?;
        self.follow_policy();
        if self.policy.asks_for_tiers() {
            buffer.tiers(&mut self.tiers);
        }
        let mut limited = 0;
        let by = self.decide(buffer, root, &mut 0, &mut limited);
        buffer.commands[root].decide(by);
        if limited > 0 {
            self.sampling.count_limited(limited);
        }
        let sampled = if by.is_some() { FLAG_SAMPLED } else { 0 };
        Some(format!("00-{trace_id}-{span_id}-{:02x}", sampled | buffer.current_random_flag()))
    }

    /// The batch's replies were written, or never will be: its traces go into the ring, those that the sampler chose also
    /// to `kept`; then the buffer is empty again. A command without an end ends now.
    pub fn commit(&mut self, buffer: &mut TraceBuffer, mut kept: impl FnMut(KeptTrace)) {
        self.commit_to(buffer, |chosen| kept(chosen.keep()));
    }

    /// The same without a copy of what is chosen: `chosen` looks at each where it lies.
    pub fn commit_to(&mut self, buffer: &mut TraceBuffer, mut chosen: impl FnMut(ChosenTrace<'_>)) {
        let (mut created, mut sampled, mut over_span_limit, mut limited) = (0, 0, 0, 0);
        let mut below = 0;
        let written = buffer.written();
        self.follow_policy();
        if self.policy.asks_for_tiers() {
            buffer.tiers(&mut self.tiers);
        }
        for index in 0..buffer.commands.len() {
            let command = &mut buffer.commands[index];
            if usize::from(command.root) != index {
                continue;
            }
            if !command.has(FINISHED) {
                command.end = (self.time)().max(command.start);
            }
            if command.has(DISCARDED) {
                continue;
            }
            let spans = (command.spans() + usize::from(index < written)) as u64;
            created += spans;
            over_span_limit += u64::from(command.spans_dropped);
            if let Some(by) = self.decide(buffer, index, &mut below, &mut limited) {
                buffer.commands[index].flags |= SAMPLED;
                self.counters.sampled[by as usize].add(spans);
                sampled += spans;
            }
        }
        if !buffer.candidates.is_empty() {
            self.choose_exemplars(buffer);
        }
        if created > 0 {
            let named = buffer.pinned;
            let batch = buffer.batch(self.wall_offset);
            if !self.ring.push(&batch) {
                // Trace by trace, the newest of so large a batch find room.
                let ring = &self.ring;
                self.splitter.each(&batch, |_| true, |trace| _ = ring.push(&trace));
            }
            if sampled > 0 && self.export {
                self.splitter.each(&batch, |root| root.has(SAMPLED), |trace| chosen(ChosenTrace::new(trace)));
            }
            if named {
                let pins = &self.pins;
                self.splitter.split(&batch, |root| root.has(PINNED), |trace| pins.fill(trace));
            }
        }
        self.counters.created.add(created);
        self.counters.over_span_limit.add(over_span_limit);
        self.counters.over_batch_limit.add(buffer.lost);
        if limited > 0 {
            self.sampling.count_limited(limited);
        }
        buffer.clear();
    }

    /// Where traces are kept that something names.
    pub fn pins(&self) -> &Arc<Pins> {
        &self.pins
    }

    /// What the commits since the last call have given to histograms; nearly always nothing.
    #[inline]
    pub fn take_exemplars(&mut self) -> Vec<NewExemplar> {
        std::mem::take(&mut self.exemplars)
    }

    /// Of the candidates whose traces are chosen, the last of each bucket: who follows its id shall find it in the backend. Where
    /// nothing is exported every trace will do, since it can only be followed here.
    #[cold]
    fn choose_exemplars(&mut self, buffer: &mut TraceBuffer) {
        for at in (0..buffer.candidates.len()).rev() {
            let candidate = buffer.candidates[at];
            let root = &mut buffer.commands[usize::from(candidate.root)];
            let (command, bucket) = (usize::from(candidate.command), usize::from(candidate.bucket));
            let chosen = !root.has(DISCARDED) && (root.has(SAMPLED) || !self.export);
            if !chosen || self.exemplars.iter().any(|new| (new.command, new.bucket) == (command, bucket)) {
                continue;
            }
            root.flags |= PINNED;
            let exemplar = Exemplar {
                trace: self.pins.pin(root.trace_id(), SpanId(root.span_id)),
                value_ns: candidate.value_ns,
                unix_ns: root.end.wrapping_add_signed(self.wall_offset),
            };
            self.exemplars.push(NewExemplar { command, bucket, exemplar });
            buffer.pinned = true;
        }
    }

    fn follow_policy(&mut self) {
        let version = self.sampling.version();
        if version != self.version {
            self.policy = self.sampling.policy();
            self.version = version;
        }
    }

    /// The decision about a root's trace, unless it is made. `below`: from where on to look for what lies below it.
    #[inline]
    fn decide(
        &self,
        buffer: &mut TraceBuffer,
        index: usize,
        below: &mut usize,
        limited: &mut u64,
    ) -> Option<SampledBy> {
        let parent = buffer.remote_parent_sampled(index);
        let command = &buffer.commands[index];
        match command.decided() {
            Some(made) => made,
            None if self.policy.is_plain() => {
                let failed = command.failed() || command.has(CHILD_FAILED);
                self.policy.chooses_ended(command.trace_id(), parent, failed, command.execution_ns)
            }
            None => self.judge(buffer, index, parent, below, limited),
        }
    }

    /// Decides with all that is known of a root.
    fn judge(
        &self,
        buffer: &mut TraceBuffer,
        index: usize,
        parent: Option<bool>,
        below: &mut usize,
        limited: &mut u64,
    ) -> Option<SampledBy> {
        let batch = buffer.batch(self.wall_offset);
        let command: &CommandRecord = &batch.commands[index];
        let rare = batch.rare_of(command);
        let (name, key) = batch.name_and_key(command);
        let facts = Facts {
            trace_id: command.trace_id(),
            parent,
            name,
            key,
            below: batch.below(index, below),
            failed: command.failed() || command.has(CHILD_FAILED),
            execution_ns: command.execution_ns,
            tiers: self.tiers.get(index).copied().unwrap_or(0),
            peer: batch.header.peer().map(|(ip, _)| ip),
            baggage: rare.map_or(&[], |rare| batch.text(rare.baggage_at, rare.baggage_len)),
            tracestate: rare.map_or("", |rare| {
                std::str::from_utf8(batch.text(rare.tracestate_at, rare.tracestate_len)).unwrap_or_default()
            }),
            monotonic_ns: command.end,
            unix_ns: command.end.wrapping_add_signed(self.wall_offset),
        };
        let chosen = self.policy.decide(&facts, limited)?;
        let by = chosen.by;
        if let Cow::Owned(tracestate) = chosen.tracestate {
            buffer.set_tracestate(index, &tracestate);
        }
        Some(by)
    }
}
