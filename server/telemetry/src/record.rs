//! What is recorded: fixed structs of whole slots of 4 words, so that the flight recorder takes them as they are. One
//! command with the stations that every command passes is 16 words, each further span below it is 4; texts lie in an
//! arena beside them.

use bytemuck::{Pod, Zeroable};

use crate::context::TraceId;
use crate::schema::{Outcome, SampledBy, SpanName, Tier};

/// How much of a command is recorded (`[telemetry] span_detail`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Detail {
    /// `ferrite.command` alone.
    Command = 1,
    /// And parse, index, tiers, epoch, AOF.
    Storage = 2,
    /// And dispatch, execute, epoch advance, AOF sync, serialise, socket write.
    Full = 3,
}

impl Detail {
    /// `command`, `storage` or `full`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "command" => Some(Self::Command),
            "storage" => Some(Self::Storage),
            "full" => Some(Self::Full),
            _ => None,
        }
    }

    /// The inverse of [`Detail::parse`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Storage => "storage",
            Self::Full => "full",
        }
    }
}

/// Where the fields of a record's first word begin.
const FLAGS_AT: u32 = 8;
const OWNER_AT: u32 = 16;
const BYTES_AT: u32 = 32;

/// The tier takes the low two bits of the flags.
const TIER_MASK: u64 = 0b11 << FLAGS_AT;
/// The found / written value's size is known.
const HAS_BYTES: u64 = 1 << (FLAGS_AT + 2);
/// The value was found in this memory tier.
const CACHE_HIT: u64 = 1 << (FLAGS_AT + 3);
/// Not closed yet.
const OPEN: u64 = 1 << (FLAGS_AT + 4);
const OWNER_MASK: u64 = 0xffff << OWNER_AT;

/// One span below a command that not every command has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct SpanRecord {
    /// Name (8 bits), tier and flags (8), owner (16), bytes (32).
    head: u64,
    pub start: u64,
    pub end: u64,
    /// Bucket, epoch or submission id; for a nested command its index.
    pub arg: u64,
}

impl SpanRecord {
    /// `owner`: the command this belongs to, an index into the batch.
    #[inline]
    pub fn lap(name: SpanName, owner: u16, start: u64, end: u64, arg: u64) -> Self {
        Self { head: name as u64 | u64::from(owner) << OWNER_AT, start, end, arg }
    }

    #[inline]
    pub fn open(name: SpanName, owner: u16, start: u64, arg: u64) -> Self {
        let mut record = Self::lap(name, owner, start, start, arg);
        record.head |= OPEN;
        record
    }

    #[inline]
    pub fn with_tier(mut self, tier: Tier) -> Self {
        self.head = self.head & !TIER_MASK | (tier as u64) << FLAGS_AT;
        self
    }

    #[inline]
    pub fn with_bytes(mut self, bytes: usize) -> Self {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.head = self.head & u64::from(u32::MAX) | HAS_BYTES | u64::from(bytes) << BYTES_AT;
        self
    }

    #[inline]
    pub fn with_cache_hit(mut self, hit: bool) -> Self {
        if hit {
            self.head |= CACHE_HIT;
        }
        self
    }

    #[inline]
    pub fn with_owner(mut self, owner: u16) -> Self {
        self.head = self.head & !OWNER_MASK | u64::from(owner) << OWNER_AT;
        self
    }

    pub fn close(&mut self, end: u64) {
        self.end = end.max(self.start);
        self.head &= !OPEN;
    }

    pub fn is_open(&self) -> bool {
        self.head & OPEN != 0
    }

    pub fn is(&self, name: SpanName) -> bool {
        self.head as u8 == name as u8
    }

    pub fn name(&self) -> SpanName {
        SpanName::from_u8(self.head as u8).expect("made from a name")
    }

    #[inline]
    pub fn owner(&self) -> u16 {
        (self.head >> OWNER_AT) as u16
    }

    pub fn tier(&self) -> Tier {
        Tier::from_u8(((self.head & TIER_MASK) >> FLAGS_AT) as u8).unwrap_or(Tier::Disk)
    }

    pub fn value_bytes(&self) -> Option<u32> {
        (self.head & HAS_BYTES != 0).then_some((self.head >> BYTES_AT) as u32)
    }

    pub fn cache_hit(&self) -> bool {
        self.head & CACHE_HIT != 0
    }

    /// A tier in memory was searched in vain.
    pub fn is_miss(&self) -> bool {
        self.is(SpanName::StorageRead) && self.tier() != Tier::Disk && !self.cache_hit()
    }
}

/// Has a parent in another process.
pub(crate) const REMOTE: u16 = 1;
/// `db.statement` leaves something out.
pub(crate) const LEFT_OUT: u16 = 1 << 1;
/// The first key is known.
pub(crate) const HAS_KEY: u16 = 1 << 2;
/// A nested command that links to the context it was sent with.
pub(crate) const LINKED: u16 = 1 << 3;
/// Neither exported nor shown by the ring.
pub(crate) const DISCARDED: u16 = 1 << 4;
/// [`CommandRecord::result`] and the end are set.
pub(crate) const FINISHED: u16 = 1 << 5;
/// The sampler chose the trace of this root.
pub(crate) const SAMPLED: u16 = 1 << 6;
/// The command passed `ferrite.resp.parse`, `ferrite.command.dispatch`, and so on, at a detail that shows it.
pub(crate) const PARSED: u16 = 1 << 7;
pub(crate) const DISPATCHED: u16 = 1 << 8;
pub(crate) const EXECUTED: u16 = 1 << 9;
pub(crate) const SERIALIZED: u16 = 1 << 10;
/// Something names the trace of this root: it is kept beyond the ring.
pub(crate) const PINNED: u16 = 1 << 11;
/// It has further keys: behind the statement follow how many, and the length of each, in 2 bytes each, little-endian.
pub(crate) const MORE_KEYS: u16 = 1 << 12;
/// A command below this root failed, whether or not it is recorded.
pub(crate) const CHILD_FAILED: u16 = 1 << 13;
/// The first key is longer than what is kept of it.
pub(crate) const KEY_CUT: u16 = 1 << 14;
/// The error's text is.
pub(crate) const ERROR_CUT: u16 = 1 << 15;

/// One command of a batch, or a queued command below its EXEC. Times are on the monotonic clock.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct CommandRecord {
    /// High half first.
    pub trace_id: [u64; 2],
    pub span_id: u64,
    pub start: u64,
    pub parse_end: u64,
    pub dispatch_start: u64,
    /// Where execution begins.
    pub dispatch_end: u64,
    /// It ends with the command.
    pub serialize_start: u64,
    /// When it had its reply; a root ends with the write of it.
    pub end: u64,
    pub execution_ns: u64,
    /// Of the AOF.
    pub offset: u64,
    /// Statement and error in the arena.
    pub statement_at: u32,
    pub error_at: u32,
    pub statement_len: u16,
    pub key_len: u16,
    pub error_len: u16,
    pub name_len: u8,
    pub result: u8,
    pub argc: u32,
    pub spans_dropped: u32,
    /// Span records of the whole tree; only a root counts.
    pub records: u16,
    /// Those of them that came before dispatch.
    pub before_dispatch: u16,
    /// Nested commands of the whole tree; only a root counts.
    pub nested: u16,
    /// The index of the root of its tree; its own for a root.
    pub root: u16,
    pub flags: u16,
    /// One more than the index of its [`RareRecord`]; zero: it has none.
    pub rare: u16,
    /// What a root is; if not a command, its statement is its attributes as [`crate::values`] has them.
    pub name: u8,
    /// What was decided before the end of the trace of this root, see [`CommandRecord::decided`].
    pub decision: u8,
    /// Events that found no room.
    pub events_dropped: u16,
}

impl CommandRecord {
    /// The decision that was made before the trace's end; `None`: none was.
    pub fn decided(&self) -> Option<Option<SampledBy>> {
        let by = self.decision.checked_sub(1)?;
        Some(by.checked_sub(1).and_then(|by| SampledBy::ALL.get(usize::from(by)).copied()))
    }

    pub fn decide(&mut self, by: Option<SampledBy>) {
        self.decision = by.map_or(1, |by| 2 + by as u8);
    }

    #[inline]
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// What a root is: a command, or work that is none.
    pub fn name(&self) -> SpanName {
        SpanName::from_u8(self.name).unwrap_or_default()
    }

    /// It was answered with an error.
    #[inline]
    pub fn failed(&self) -> bool {
        self.has(FINISHED) && self.result == Outcome::Err as u8
    }

    #[inline]
    pub fn trace_id(&self) -> TraceId {
        TraceId(u128::from(self.trace_id[0]) << 64 | u128::from(self.trace_id[1]))
    }

    #[inline]
    pub fn set_trace_id(&mut self, id: TraceId) {
        self.trace_id = [(id.0 >> 64) as u64, id.0 as u64];
    }

    /// Spans of the tree of this root, root included, the write of the reply not.
    #[inline]
    pub fn spans(&self) -> usize {
        let stations = self.flags & (PARSED | DISPATCHED | EXECUTED | SERIALIZED);
        1 + stations.count_ones() as usize + usize::from(self.records)
    }
}

/// What few commands have: a context that they came with, reads from disk.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct RareRecord {
    /// The linked trace of a nested command; high half first.
    pub trace_id: [u64; 2],
    /// The caller's span (with [`REMOTE`]), or the linked one of a nested command (with [`LINKED`]).
    pub span_id: u64,
    /// Of the context that the command came with, or of the linked one.
    pub tracestate_at: u32,
    pub tracestate_len: u16,
    /// The flags byte of the context.
    pub trace_flags: u8,
    /// 1: the caller left the decision to us.
    pub deferred: u8,
    /// From the first submission to the last completion of its own disk reads; zero if there were none.
    pub wait_start: u64,
    pub wait_end: u64,
    /// In which it read from disk.
    pub epoch: u64,
    /// What is taken of the caller's baggage, in the arena, as [`crate::values`] has it.
    pub baggage_at: u32,
    pub baggage_len: u16,
    pub reserved: u16,
}

/// One write of replies: of all roots of the batch below `until` that no earlier one wrote.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct WriteRecord {
    pub until: u64,
    pub start: u64,
    pub end: u64,
    pub reserved: u64,
}

/// Something that happened within a command.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct EventRecord {
    pub time: u64,
    /// The code of its [`crate::schema::EventName`].
    pub name: u16,
    /// An index into the batch.
    pub command: u16,
    /// Its attributes in the arena, as [`crate::values`] has them.
    pub values_len: u16,
    pub reserved: u16,
    pub values_at: u32,
    pub reserved_half: u32,
    pub reserved_word: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_what_it_is_given() {
        let record = SpanRecord::lap(SpanName::StorageRead, 513, 7, 9, u64::MAX)
            .with_tier(Tier::Disk)
            .with_bytes(4096)
            .with_cache_hit(false);
        assert_eq!((record.name(), record.owner()), (SpanName::StorageRead, 513));
        assert_eq!((record.tier(), record.value_bytes(), record.cache_hit()), (Tier::Disk, Some(4096), false));
        assert_eq!((record.with_owner(7).owner(), record.with_owner(7).name()), (7, SpanName::StorageRead));
    }

    #[test]
    fn an_end_is_never_before_its_start() {
        let mut record = SpanRecord::open(SpanName::AofSync, 0, 10, 0);
        assert!(record.is_open());
        record.close(3);
        assert_eq!((record.is_open(), record.start, record.end), (false, 10, 10));
    }
}
