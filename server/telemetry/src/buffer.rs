//! What a session records while it works through a batch of commands.
//!
//! Recording takes no lock, formats nothing and, once the buffers have grown, allocates nothing. Every child span is a
//! *lap*: it runs from the previous mark to now, so that neighbours share a reading of the clock. Spans of different
//! commands may interleave ([`TraceBuffer::select`]): each record names the command it belongs to.

mod driver;
mod engine;
mod events;
mod named;
mod spare;

use std::net::SocketAddr;

use crate::batch::{Batch, FULL, Header, Parts, SLOT_BYTES};
use crate::exemplar::Candidate;
use crate::ids::IdGenerator;
use crate::record::{CommandRecord, DISCARDED, Detail, EventRecord, RareRecord, SpanRecord, WriteRecord};
use crate::redaction::Keys;
use crate::schema::SpanName;
pub(crate) use spare::Budget;
use spare::{Spare, is_large, reset, worth_keeping};

/// Bytes of a statement (and so of a key) that are kept; what is beyond is left out.
const STATEMENT_BYTES_MAX: usize = 1024;
/// Bytes of an error's text that are kept.
const ERROR_BYTES_MAX: usize = 512;
/// Spans of one tree beside its stations, nested commands included; later ones are counted and left out, so that an MGET
/// of a million keys cannot push everything else out of the ring.
pub(crate) const RECORDS_PER_TREE_MAX: u16 = 1000;
/// Commands of one batch, nested ones included; later ones are not recorded. Indices are 16 bits wide.
const COMMANDS_PER_BATCH_MAX: usize = 16 * 1024;
/// Texts of one batch: offsets are 32 bits wide, and memory is bounded.
const ARENA_BYTES_MAX: usize = 16 * 1024 * 1024;

/// No command is being recorded.
const NONE: u16 = u16::MAX;

/// Where a command stood before a run that may be abandoned. See [`TraceBuffer::checkpoint`].
#[derive(Clone, Copy, Debug)]
pub struct Checkpoint {
    records: usize,
    commands: usize,
    rare: usize,
    events: usize,
    arena: usize,
    current: u16,
    tree_records: u16,
    nested: u16,
    spans_dropped: u32,
}

/// A disk read under way.
#[derive(Clone, Copy, Debug)]
pub struct DiskSlot {
    /// Whose wait it is; [`NONE`] if that command is not recorded.
    owner: u16,
    opened: u64,
    /// Its span, unless the detail is too low or the tree is full.
    record: Option<u32>,
}

/// A wait for the AOF under way. `None` inside: not recorded.
#[derive(Clone, Copy, Debug)]
pub struct SyncSlot(Option<u32>);

/// A nested command under way.
#[derive(Clone, Copy, Debug)]
#[must_use = "the nested command ends with finish_child"]
pub struct ChildSlot {
    child: Option<(u16, u32)>,
    level: u8,
}

/// What a paused command waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Reads from disk. Of the time until it goes on, what its own reads took counts as execution.
    Disk,
    /// Space in the log or the AOF: all of the time counts.
    Space,
}

/// The recorder's part that travels with a session. See the module's documentation.
pub struct TraceBuffer {
    time: fn() -> u64,
    /// Zero: record nothing; else a [`Detail`]. What the methods of the storage layers look at.
    level: u8,
    configured: u8,
    muted: bool,
    current: u16,
    /// The root of the current command's tree.
    root: u16,
    mark: u64,
    /// The epoch that the worker has announced.
    epoch: u64,
    exec_start: u64,
    exec_ns: u64,
    executing: bool,
    paused: Option<(Wait, u64)>,
    /// The first root that may still lack its write.
    unwritten: usize,
    pub(crate) commands: Vec<CommandRecord>,
    rare: Vec<RareRecord>,
    writes: Vec<WriteRecord>,
    records: Vec<SpanRecord>,
    events: Vec<EventRecord>,
    arena: Vec<u8>,
    /// Of the keys behind the first one of the command that is being described.
    key_lens: Vec<u16>,
    /// What the connection's batches have in common.
    header: Header,
    /// Some root is [`crate::record::PINNED`].
    pub(crate) pinned: bool,
    /// Commands that a histogram would show.
    pub(crate) candidates: Vec<Candidate>,
    /// Commands that found no room.
    pub(crate) lost: u64,
    ids: IdGenerator,
    keys: Keys,
    spare: Spare,
}

impl TraceBuffer {
    /// A buffer that records everything, with ids that follow from a fixed seed: for tests. Sessions get theirs from
    /// [`crate::Recorder::buffer`].
    pub fn new(time: fn() -> u64) -> Self {
        Self::with_ids(time, Some(Detail::Full), Keys::Shown, IdGenerator::new(0), Budget::default())
    }

    /// `None`: recording is off, and only execution is timed.
    pub(crate) fn with_ids(
        time: fn() -> u64,
        detail: Option<Detail>,
        keys: Keys,
        ids: IdGenerator,
        budget: Budget,
    ) -> Self {
        Self {
            time,
            level: 0,
            configured: detail.map_or(0, |detail| detail as u8),
            muted: false,
            current: NONE,
            root: NONE,
            mark: 0,
            epoch: 0,
            exec_start: 0,
            exec_ns: 0,
            executing: false,
            paused: None,
            unwritten: 0,
            commands: Vec::new(),
            rare: Vec::new(),
            writes: Vec::new(),
            records: Vec::new(),
            arena: Vec::new(),
            key_lens: Vec::new(),
            events: Vec::new(),
            header: Header::default(),
            pinned: false,
            candidates: Vec::new(),
            lost: 0,
            ids,
            keys,
            spare: Spare::new(budget),
        }
    }

    /// Says whose commands these are; part of every root span.
    pub fn connection(&mut self, id: u64, peer: Option<SocketAddr>) {
        self.header = Header { connection: id, ..Header::default() };
        if let Some(peer) = peer {
            self.header.set_peer(peer);
        }
    }

    /// Switches between batches: another detail, or `None` for off.
    pub fn configure(&mut self, detail: Option<Detail>) {
        debug_assert!(self.commands.is_empty(), "between batches");
        self.configured = detail.map_or(0, |detail| detail as u8);
    }

    /// What is recorded; `None` if recording is off.
    pub fn detail(&self) -> Option<Detail> {
        [Detail::Command, Detail::Storage, Detail::Full].into_iter().find(|detail| *detail as u8 == self.configured)
    }

    /// Whether anything is recorded.
    pub fn is_on(&self) -> bool {
        self.configured != 0
    }

    fn now(&self) -> u64 {
        (self.time)()
    }

    fn refresh_level(&mut self) {
        let quiet = match self.current() {
            None => true,
            Some(command) => {
                let (root, discarded) = (command.root, command.has(DISCARDED));
                self.root = root;
                self.muted || discarded
            }
        };
        self.level = if quiet { 0 } else { self.configured };
    }

    fn current(&self) -> Option<&CommandRecord> {
        self.commands.get(usize::from(self.current))
    }

    fn current_mut(&mut self) -> Option<&mut CommandRecord> {
        self.commands.get_mut(usize::from(self.current))
    }

    /// Adds a span of the current command to its tree, unless the tree is full. Gives its index.
    #[inline]
    fn push(&mut self, record: SpanRecord) -> Option<u32> {
        debug_assert_eq!(record.owner(), self.current);
        debug_assert_eq!(self.commands[usize::from(self.current)].root, self.root);
        let root = self.root;
        let tree = &mut self.commands[usize::from(root)];
        if tree.records >= RECORDS_PER_TREE_MAX {
            tree.spans_dropped += 1;
            return None;
        }
        tree.records += 1;
        self.records.push(record);
        Some(self.records.len() as u32 - 1)
    }

    /// Takes the mark; gives what it was.
    fn lap_times(&mut self) -> (u64, u64) {
        let now = self.now();
        (std::mem::replace(&mut self.mark, now), now)
    }

    fn lap(&mut self, name: SpanName, arg: u64) {
        let (start, end) = self.lap_times();
        self.push(SpanRecord::lap(name, self.current, start, end, arg));
    }

    /// The rare part of a command, made if it has none.
    fn rare_mut(&mut self, command: u16) -> Option<&mut RareRecord> {
        let command = self.commands.get_mut(usize::from(command))?;
        if command.rare == 0 {
            self.rare.push(RareRecord::default());
            command.rare = self.rare.len() as u16;
        }
        self.rare.get_mut(usize::from(command.rare) - 1)
    }

    fn stores_text(&mut self, text: &[u8], bytes_max: usize) -> (u32, u16) {
        let text = &text[..text.len().min(bytes_max)];
        let at = self.arena.len() as u32;
        self.arena.extend_from_slice(text);
        (at, text.len() as u16)
    }

    /// Roots below this have the write of their reply among their spans.
    pub(crate) fn written(&self) -> usize {
        match self.writes.last() {
            Some(write) if self.configured == Detail::Full as u8 => write.until as usize,
            _ => 0,
        }
    }

    /// What is recorded, for the ring.
    pub(crate) fn batch(&mut self, wall_offset: i64) -> Batch<'_> {
        self.arena.resize(self.arena.len().next_multiple_of(SLOT_BYTES), 0);
        let full = if self.configured == Detail::Full as u8 { FULL } else { 0 };
        let common = Header { wall_offset, flags: self.header.flags | full, ..self.header };
        let parts = Parts {
            commands: &self.commands,
            rare: &self.rare,
            writes: &self.writes,
            records: &self.records,
            events: &self.events,
            texts: &self.arena,
        };
        Batch::new(common, parts)
    }

    /// After a commit: ready for the next batch. Memory of an unusually large one is given back, unless it is used again and again.
    pub(crate) fn clear(&mut self) {
        let large = is_large(&self.commands)
            || is_large(&self.rare)
            || is_large(&self.writes)
            || is_large(&self.records)
            || is_large(&self.arena)
            || is_large(&self.events);
        if large || !self.spare.is_empty() {
            self.give_back();
        }
        self.commands.clear();
        self.rare.clear();
        self.writes.clear();
        self.records.clear();
        self.arena.clear();
        self.events.clear();
        self.candidates.clear();
        self.pinned = false;
        self.current = NONE;
        self.level = 0;
        self.muted = false;
        self.unwritten = 0;
        self.executing = false;
        self.paused = None;
        self.lost = 0;
    }

    #[cold]
    fn give_back(&mut self) {
        let worth = worth_keeping(&self.commands)
            + worth_keeping(&self.rare)
            + worth_keeping(&self.writes)
            + worth_keeping(&self.records)
            + worth_keeping(&self.arena)
            + worth_keeping(&self.events);
        let kept = self.spare.hold(worth);
        reset(&mut self.commands, kept);
        reset(&mut self.rare, kept);
        reset(&mut self.writes, kept);
        reset(&mut self.records, kept);
        reset(&mut self.arena, kept);
        reset(&mut self.events, kept);
    }

    /// The spans that the current command has recorded so far, in order, tiers in brackets: for tests of the layers that
    /// record.
    pub fn recorded(&self) -> Vec<String> {
        let root = self.current().map(|command| command.root);
        let mine = |record: &&SpanRecord| Some(self.commands[usize::from(record.owner())].root) == root;
        let name = |record: &SpanRecord| match record.name() {
            SpanName::StorageRead | SpanName::StorageWrite => format!("{}[{}]", record.name(), record.tier()),
            _ => record.name().to_string(),
        };
        self.records.iter().filter(mine).map(name).collect()
    }
}
