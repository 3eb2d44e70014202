//! What is recorded: one span in 32 bytes, one command in a fixed struct; texts lie in an arena beside them.

use crate::schema::{EventName, SpanName, Tier};

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

/// One span below a command. Exactly 32 bytes: the ring's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpanRecord {
    /// Name (8 bits), tier and flags (8), owner (16), bytes (32).
    head: u64,
    pub start: u64,
    pub end: u64,
    /// Bucket, epoch or submission id; for a nested command its index.
    pub arg: u64,
}

const _: () = assert!(size_of::<SpanRecord>() == 32);

impl SpanRecord {
    /// `owner`: the command this belongs to, an index into the batch, in the ring into the entry.
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

    #[inline]
    pub fn is_open(&self) -> bool {
        self.head & OPEN != 0
    }

    #[inline]
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

    /// The record as a slot of the ring.
    #[inline]
    pub fn to_words(self) -> [u64; 4] {
        [self.head, self.start, self.end, self.arg]
    }

    /// The inverse of [`SpanRecord::to_words`]; `None` for words that it never makes.
    pub fn from_words(words: &[u64]) -> Option<Self> {
        let [head, start, end, arg] = *words else { return None };
        SpanName::from_u8(head as u8)?;
        Some(Self { head, start, end, arg })
    }
}

/// Has a parent in another process.
pub(crate) const REMOTE: u8 = 1;
/// `db.statement` leaves something out.
pub(crate) const LEFT_OUT: u8 = 1 << 1;
/// The first key is known.
pub(crate) const HAS_KEY: u8 = 1 << 2;
/// A nested command that links to the context it was sent with.
pub(crate) const LINKED: u8 = 1 << 3;
/// Neither exported nor kept in the ring.
pub(crate) const DISCARDED: u8 = 1 << 4;
/// [`CommandRecord::result`] is set.
pub(crate) const FINISHED: u8 = 1 << 5;
/// The reply was written; the root has ended.
pub(crate) const WRITTEN: u8 = 1 << 6;
/// [`CommandRecord::parse_end`] is set.
pub(crate) const PARSED: u8 = 1 << 7;

/// One command of a batch, or a queued command below its EXEC.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CommandRecord {
    pub trace_id: u128,
    pub span_id: u64,
    /// The caller's span (with [`REMOTE`]), or the linked one of a nested command (with [`LINKED`]).
    pub other_span: u64,
    /// The linked trace of a nested command.
    pub other_trace: u128,
    pub start: u64,
    /// The end of its first span, which is not among the records: a batch is parsed before it is executed, and every
    /// batch of more than one command would be interleaved.
    pub parse_end: u64,
    pub end: u64,
    pub write_start: u64,
    pub execution_ns: u64,
    /// From the first submission to the last completion of its own disk reads; zero if there were none.
    pub wait_start: u64,
    pub wait_end: u64,
    pub epoch: u64,
    pub offset: u64,
    pub argc: u32,
    /// Statement, then error, then tracestate, one after the other in the arena as far as they are set.
    pub statement_at: u32,
    pub error_at: u32,
    pub tracestate_at: u32,
    pub statement_len: u16,
    pub key_len: u16,
    pub error_len: u16,
    pub tracestate_len: u16,
    /// Spans below the root, nested commands among them, of the whole tree; only a root counts.
    pub spans: u16,
    /// Nested commands of the whole tree; only a root counts.
    pub nested: u16,
    pub spans_dropped: u32,
    /// The index of the root of its tree; its own for a root.
    pub root: u16,
    pub name_len: u8,
    pub result: u8,
    pub flags: u8,
    /// The flags byte of the remote context.
    pub trace_flags: u8,
    /// What a root is, if not a command; then its statement is its attributes as [`crate::values`] has them.
    pub name: SpanName,
}

impl CommandRecord {
    /// Whether the tree has `ferrite.resp.parse`: one of its spans that is not among the records.
    #[inline]
    pub fn parsed(&self) -> bool {
        self.flags & PARSED != 0
    }

    /// Records of the tree of this root.
    #[inline]
    pub fn records(&self) -> usize {
        usize::from(self.spans) - usize::from(self.parsed())
    }
}

/// Something that happened within a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventRecord {
    pub name: EventName,
    /// An index into the batch.
    pub command: u16,
    pub time: u64,
    /// Its attributes in the arena, as [`crate::values`] has them.
    pub values_at: u32,
    pub values_len: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_slot() {
        let record = SpanRecord::lap(SpanName::StorageRead, 513, 7, 9, u64::MAX)
            .with_tier(Tier::Disk)
            .with_bytes(4096)
            .with_cache_hit(false);
        assert_eq!(SpanRecord::from_words(&record.to_words()), Some(record));
        assert_eq!((record.name(), record.owner()), (SpanName::StorageRead, 513));
        assert_eq!((record.tier(), record.value_bytes(), record.cache_hit()), (Tier::Disk, Some(4096), false));
        assert_eq!(record.with_owner(7), SpanRecord::from_words(&record.with_owner(7).to_words()).expect("a record"));
        assert_eq!(SpanRecord::from_words(&[0xff, 0, 0, 0]), None);
    }

    #[test]
    fn an_end_is_never_before_its_start() {
        let mut record = SpanRecord::open(SpanName::AofSync, 0, 10, 0);
        assert!(record.is_open());
        record.close(3);
        assert_eq!((record.is_open(), record.start, record.end), (false, 10, 10));
    }
}
