//! The form in which a batch of traces is kept: what the flight recorder holds and, for one trace alone, what is queued
//! for export.
//!
//! It is the recorded structs themselves, so that the writer only copies. All that follows from them (the ids of spans
//! below the root, their order, which span belongs to which tree) is left to the reader.
//!
//! ```text
//! Header         2 slots of 4 words
//! CommandRecord  4 slots each, in the order of the batch; nested ones behind all that were begun before them
//! RareRecord     2 slots each
//! WriteRecord    1 slot each
//! SpanRecord     1 slot each, in the order of recording
//! EventRecord    1 slot each
//! texts          bytes, rounded up to a slot
//! ```

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::Deref;

use bytemuck::{Pod, Zeroable, cast_slice};

use crate::entry::KeptTrace;
use crate::record::{CommandRecord, DISCARDED, EventRecord, HAS_KEY, MORE_KEYS, RareRecord, SpanRecord, WriteRecord};
use crate::schema::SpanName;

/// Net writes are spans.
pub(crate) const FULL: u16 = 1;
const HAS_PEER: u16 = 1 << 1;

/// What the ring is made of: four words.
pub(crate) const SLOT_WORDS: usize = 4;
pub(crate) const SLOT_BYTES: usize = SLOT_WORDS * size_of::<u64>();
pub(crate) const HEADER_SLOTS: usize = slots_of::<Header>(1);
pub(crate) const COMMAND_SLOTS: usize = slots_of::<CommandRecord>(1);

/// Some words of an entry.
pub(crate) type Slot = [u64; SLOT_WORDS];

/// What the batch's commands have in common, and how many of each there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Header {
    /// The ring's: the slots of this entry and, above them, of the one before.
    pub lengths: u64,
    pub commands: u16,
    pub rare: u16,
    pub writes: u16,
    pub flags: u16,
    pub records: u32,
    pub text_slots: u32,
    pub connection: u64,
    /// What to add to a time to have nanoseconds since the Unix epoch.
    pub wall_offset: i64,
    /// As an IPv6 address, high half first.
    pub peer_ip: [u64; 2],
    pub peer_port: u16,
    pub events: u16,
    pub reserved: u32,
}

impl Header {
    /// Slots of the entry, this header included.
    #[inline]
    pub fn slots(&self) -> usize {
        HEADER_SLOTS
            + slots_of::<CommandRecord>(self.commands.into())
            + slots_of::<RareRecord>(self.rare.into())
            + slots_of::<WriteRecord>(self.writes.into())
            + slots_of::<SpanRecord>(self.records as usize)
            + slots_of::<EventRecord>(self.events.into())
            + self.text_slots as usize
    }

    pub fn set_peer(&mut self, peer: SocketAddr) {
        let ip = match peer.ip() {
            IpAddr::V4(ip) => u128::from(ip.to_ipv6_mapped()),
            IpAddr::V6(ip) => u128::from(ip),
        };
        self.flags |= HAS_PEER;
        self.peer_ip = [(ip >> 64) as u64, ip as u64];
        self.peer_port = peer.port();
    }

    /// Address and port of the client.
    pub fn peer(&self) -> Option<(IpAddr, u16)> {
        let [high, low] = self.peer_ip.map(u128::from);
        (self.flags & HAS_PEER != 0).then(|| (Ipv6Addr::from(high << 64 | low).to_canonical(), self.peer_port))
    }
}

const fn slots_of<T>(count: usize) -> usize {
    const { assert!(size_of::<T>().is_multiple_of(SLOT_BYTES) && align_of::<T>() == align_of::<Slot>()) };
    count * (size_of::<T>() / SLOT_BYTES)
}

/// What a batch consists of, wherever it lies.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Parts<'b> {
    pub commands: &'b [CommandRecord],
    pub rare: &'b [RareRecord],
    pub writes: &'b [WriteRecord],
    pub records: &'b [SpanRecord],
    pub events: &'b [EventRecord],
    /// Whole slots.
    pub texts: &'b [u8],
}

/// A batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'b> {
    pub header: Header,
    parts: Parts<'b>,
}

impl<'b> Deref for Batch<'b> {
    type Target = Parts<'b>;

    #[inline]
    fn deref(&self) -> &Parts<'b> {
        &self.parts
    }
}

impl<'b> Batch<'b> {
    /// `common`: the header without its counts.
    #[inline]
    pub fn new(common: Header, parts: Parts<'b>) -> Self {
        debug_assert!(parts.texts.len().is_multiple_of(SLOT_BYTES));
        let mut header = Header {
            commands: parts.commands.len() as u16,
            rare: parts.rare.len() as u16,
            writes: parts.writes.len() as u16,
            events: parts.events.len() as u16,
            records: parts.records.len() as u32,
            text_slots: (parts.texts.len() / SLOT_BYTES) as u32,
            ..common
        };
        header.lengths = header.slots() as u64;
        Self { header, parts }
    }

    /// The inverse of [`Batch::to_slots`].
    pub fn from_slots(slots: &'b [Slot]) -> Self {
        let header: Header = cast_slice(&slots[..HEADER_SLOTS])[0];
        let mut rest = &slots[HEADER_SLOTS..];
        let mut take = |len: usize| {
            let (part, behind) = rest.split_at(len);
            rest = behind;
            part
        };
        let parts = Parts {
            commands: cast_slice(take(slots_of::<CommandRecord>(header.commands.into()))),
            rare: cast_slice(take(slots_of::<RareRecord>(header.rare.into()))),
            writes: cast_slice(take(slots_of::<WriteRecord>(header.writes.into()))),
            records: cast_slice(take(slots_of::<SpanRecord>(header.records as usize))),
            events: cast_slice(take(slots_of::<EventRecord>(header.events.into()))),
            texts: cast_slice(take(header.text_slots as usize)),
        };
        Self { header, parts }
    }

    /// The structs one after the other; the texts follow them.
    #[inline]
    pub fn structs(&self) -> [&[Slot]; 6] {
        [
            cast_slice(std::slice::from_ref(&self.header)),
            cast_slice(self.commands),
            cast_slice(self.rare),
            cast_slice(self.writes),
            cast_slice(self.records),
            cast_slice(self.events),
        ]
    }

    /// The texts as slots.
    #[inline]
    pub fn text_slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.texts.as_chunks::<SLOT_BYTES>().0.iter().map(|slot| bytemuck::cast(*slot))
    }

    /// All of it in one piece.
    pub fn to_slots(self) -> Box<[Slot]> {
        let mut slots = Vec::with_capacity(self.header.slots());
        for part in self.structs() {
            slots.extend_from_slice(part);
        }
        slots.extend(self.text_slots());
        slots.into_boxed_slice()
    }

    pub fn text(&self, at: u32, len: u16) -> &'b [u8] {
        &self.parts.texts[at as usize..at as usize + usize::from(len)]
    }

    /// The lengths of a command's keys behind the first one, as they were recorded; `None`: there are none.
    pub fn further_key_lens(&self, command: &CommandRecord) -> Option<impl ExactSizeIterator<Item = usize> + 'b> {
        let at = command.statement_at + u32::from(command.statement_len);
        let number = |at: u32| u16::from_le_bytes(self.text(at, 2).try_into().expect("two bytes"));
        command.has(MORE_KEYS).then(|| {
            let lens = self.text(at + 2, 2 * number(at)).as_chunks::<2>().0;
            lens.iter().map(|len| u16::from_le_bytes(*len).into())
        })
    }

    /// The command's own, if it has one.
    pub fn rare_of(&self, command: &CommandRecord) -> Option<&'b RareRecord> {
        self.parts.rare.get(usize::from(command.rare).checked_sub(1)?)
    }

    /// Beginning and end of the write of this root's reply, if it was written.
    pub fn write_of(&self, root: usize) -> Option<(u64, u64)> {
        let write = self.writes.iter().find(|write| (root as u64) < write.until)?;
        let start = write.start.max(self.commands[root].end);
        Some((start, write.end.max(start)))
    }

    /// A command's name and first key, as they were recorded.
    pub fn name_and_key(&self, command: &CommandRecord) -> (&'b [u8], Option<&'b [u8]>) {
        name_and_key(command, self.parts.texts)
    }

    /// What lies below a root, all of it together; looked for from `from` on, which is moved behind it. Roots have theirs in the
    /// order in which they were executed.
    pub fn below(&self, root: usize, from: &mut usize) -> Below<'b> {
        let count = usize::from(self.commands[root].nested);
        if count == 0 {
            return Below::default();
        }
        let is_below = |at: &usize| *at != root && usize::from(self.commands[*at].root) == root;
        let first = (*from..self.commands.len()).find(is_below).or_else(|| (0..*from).find(is_below)).unwrap_or(0);
        *from = first + count;
        Below { commands: &self.parts.commands[first..*from], texts: self.parts.texts }
    }

    /// Indices of the roots.
    pub fn roots(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        (0..self.commands.len()).filter(|&index| usize::from(self.commands[index].root) == index)
    }
}

/// The commands below one root.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Below<'b> {
    commands: &'b [CommandRecord],
    texts: &'b [u8],
}

impl<'b> Below<'b> {
    /// Name and first key of each, as they were recorded.
    pub fn names_and_keys(self) -> impl Iterator<Item = (&'b [u8], Option<&'b [u8]>)> {
        self.commands.iter().map(move |command| name_and_key(command, self.texts))
    }

    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}

/// Neither for work that is no command.
fn name_and_key<'b>(command: &CommandRecord, texts: &'b [u8]) -> (&'b [u8], Option<&'b [u8]>) {
    if command.name() != SpanName::Command {
        return (&[], None);
    }
    let at = command.statement_at as usize;
    let statement = &texts[at..at + usize::from(command.statement_len)];
    let (name, keys) = statement.split_at(usize::from(command.name_len).min(statement.len()));
    // A blank is between the name and the first key.
    (name, keys.get(1..1 + usize::from(command.key_len)).filter(|_| command.has(HAS_KEY)))
}

/// Takes batches apart into their traces. Its buffers are used again.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    /// The records' indices, tree by tree, and where those of each root begin.
    order: Vec<u32>,
    next_of_tree: Vec<u32>,
    commands: Vec<CommandRecord>,
    rare: Vec<RareRecord>,
    writes: Vec<WriteRecord>,
    records: Vec<SpanRecord>,
    events: Vec<EventRecord>,
    texts: Vec<u8>,
}

impl Splitter {
    /// Gives each trace of the batch whose root is wanted, in the order of the batch.
    pub fn split(
        &mut self,
        batch: &Batch<'_>,
        wanted: impl Fn(&CommandRecord) -> bool,
        mut found: impl FnMut(KeptTrace),
    ) {
        self.each(batch, wanted, |trace| found(KeptTrace::new(trace.to_slots())));
    }

    /// The same, each for as long as it is looked at.
    pub fn each(
        &mut self,
        batch: &Batch<'_>,
        wanted: impl Fn(&CommandRecord) -> bool,
        mut found: impl FnMut(Batch<'_>),
    ) {
        self.order_by_tree(batch);
        let mut from = 0;
        for root in batch.roots() {
            let command = &batch.commands[root];
            let to = from + usize::from(command.records);
            if !command.has(DISCARDED) && wanted(command) {
                found(self.extract(batch, root, from..to));
            }
            from = to;
        }
    }

    /// Puts the records into the order of their trees, those of a tree into the order of recording. A root knows how many
    /// records its tree has, so each goes to its place at once.
    fn order_by_tree(&mut self, batch: &Batch<'_>) {
        let mut at = 0;
        self.next_of_tree.clear();
        self.next_of_tree.extend(batch.commands.iter().enumerate().map(|(index, command)| {
            let first = at;
            if usize::from(command.root) == index {
                at += u32::from(command.records);
            }
            first
        }));
        self.order.clear();
        self.order.resize(batch.records.len(), 0);
        for (at, record) in batch.records.iter().enumerate() {
            let root = batch.commands[usize::from(record.owner())].root;
            let next = &mut self.next_of_tree[usize::from(root)];
            self.order[*next as usize] = at as u32;
            *next += 1;
        }
    }

    /// A batch of one trace: the root, then its nested commands.
    fn extract(&mut self, batch: &Batch<'_>, root: usize, records: std::ops::Range<usize>) -> Batch<'_> {
        self.commands.clear();
        self.rare.clear();
        self.records.clear();
        self.events.clear();
        self.texts.clear();
        let records = self.order[records].iter().map(|at| batch.records[*at as usize]);
        // Nested commands lie together in the batch, in the order in which they appear among the records.
        let first = records.clone().find(|record| record.is(SpanName::Command)).map_or(0, |record| record.arg as usize);
        let nested = first..first + usize::from(batch.commands[root].nested);
        let local = |owner: usize| if owner == root { 0 } else { owner - first + 1 };

        for index in std::iter::once(root).chain(nested) {
            let mut command = batch.commands[index];
            let mut text = |at: &mut u32, len: u16| {
                let text = batch.text(*at, len);
                *at = self.texts.len() as u32;
                self.texts.extend_from_slice(text);
            };
            let lengths = 2 * batch.further_key_lens(&command).map_or(0, |lens| lens.len() as u16 + 1);
            text(&mut command.statement_at, command.statement_len + lengths);
            text(&mut command.error_at, command.error_len);
            if let Some(rare) = batch.rare_of(&command) {
                let mut rare = *rare;
                text(&mut rare.tracestate_at, rare.tracestate_len);
                text(&mut rare.baggage_at, rare.baggage_len);
                self.rare.push(rare);
                command.rare = self.rare.len() as u16;
            }
            command.root = 0;
            self.commands.push(command);
        }
        // Where they lie in the batch tells nothing: few batches have any.
        for event in
            batch.events.iter().filter(|event| usize::from(batch.commands[usize::from(event.command)].root) == root)
        {
            let values = batch.text(event.values_at, event.values_len);
            let command = local(event.command.into()) as u16;
            self.events.push(EventRecord { command, values_at: self.texts.len() as u32, ..*event });
            self.texts.extend_from_slice(values);
        }
        self.texts.resize(self.texts.len().next_multiple_of(SLOT_BYTES), 0);
        self.records.extend(records.map(|record| {
            let mut record = record.with_owner(local(record.owner().into()) as u16);
            if record.is(SpanName::Command) {
                record.arg = local(record.arg as usize) as u64;
            }
            record
        }));
        let write = batch.writes.iter().find(|write| (root as u64) < write.until);
        self.writes.clear();
        self.writes.extend(write.map(|write| WriteRecord { until: 1, ..*write }));
        let mut common = batch.header;
        common.lengths = 0;
        let parts = Parts {
            commands: &self.commands,
            rare: &self.rare,
            writes: &self.writes,
            records: &self.records,
            events: &self.events,
            texts: &self.texts,
        };
        Batch::new(common, parts)
    }
}
