//! One trace in its compact form: what the flight recorder holds and what is queued for export.
//!
//! An entry is a sequence of 64-bit words in slots of four: a header (3 slots), the commands (3 slots each, the root
//! first), the spans (1 slot each, in the order of recording), the texts (each from a word on), the events (each followed by
//! its attributes). The span with position `n` among the spans has
//! the id `root + n + 1`.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use crate::buffer::TraceBuffer;
use crate::context::{FLAG_SAMPLED, SpanId, TraceId};
use crate::record::{
    CommandRecord, Detail, EventRecord, FINISHED, HAS_KEY, LEFT_OUT, LINKED, REMOTE, SpanRecord, WRITTEN,
};
use crate::schema::{Attribute, DB_SYSTEM, ErrorType, EventName, Operation, Outcome, Role, SpanKind, SpanName};
use crate::span::{Event, Link, Span, Status, Value, int, text};
use crate::values;

/// Words of a slot.
pub(crate) const SLOT_WORDS: usize = 4;
const HEADER_WORDS: usize = 3 * SLOT_WORDS;
const COMMAND_WORDS: usize = 3 * SLOT_WORDS;

const SAMPLED: u64 = 1;
const FROM_REMOTE: u64 = 1 << 1;
const HAS_PEER: u64 = 1 << 2;

/// Where the ring keeps the entry's length and its predecessor's, in slots.
pub(crate) const LENGTHS: usize = 0;
/// Where the trace id is, high half first.
pub(crate) const TRACE_ID: usize = 1;

/// Where an entry says how many events it has.
const EVENTS: usize = 10;
const EVENTS_AT: u32 = 16;
/// Words of an event before its attributes.
const EVENT_WORDS: usize = 2;

/// Words that a text takes: each begins at a word.
fn text_words(len: u16) -> usize {
    usize::from(len).div_ceil(8)
}

/// Writes the tree of `root` to `out`. `records` are its spans in the order of recording, between the first one (parse)
/// and the last (write), which the command itself holds. Gives how many spans it has.
pub(crate) fn encode<'r>(
    buffer: &TraceBuffer,
    root: u16,
    records: impl Iterator<Item = &'r SpanRecord> + Clone,
    sampled: bool,
    wall_offset: i64,
    out: &mut Vec<u64>,
) -> u16 {
    let command = &buffer.commands[usize::from(root)];
    let writes = command.flags & WRITTEN != 0 && buffer.detail() == Some(Detail::Full);
    let spans = command.spans + u16::from(writes);
    let nested = usize::from(command.nested);
    // Nested commands lie together in the batch, in the order in which they appear among the records.
    let first = if nested == 0 {
        usize::from(root)
    } else {
        let mut queued = records.clone().filter(|record| record.is(SpanName::Command));
        queued.next().map_or(usize::from(root), |record| record.arg as usize)
    };
    let queued = &buffer.commands[first..first + nested];

    let texts: usize = queued
        .iter()
        .chain([command])
        .map(|command| text_words(command.statement_len) + text_words(command.error_len))
        .sum();
    let texts = texts + text_words(command.tracestate_len);
    let events = if buffer.events.is_empty() { (0, 0) } else { events_size(buffer, root) };
    let texts = texts + events.0;
    let words = HEADER_WORDS + (nested + 1) * COMMAND_WORDS + usize::from(spans) * SLOT_WORDS + texts;
    out.resize(words.next_multiple_of(SLOT_WORDS), 0);
    // The whole entry is written below, but for what rounds it up to a slot.
    out[words..].fill(0);

    let mut rest = &mut out[..];
    header(buffer, command, sampled, wall_offset, spans, rest);
    rest = &mut rest[HEADER_WORDS..];

    let mut text_at = 0;
    describe_command(command, 0, &mut text_at, rest);
    rest = &mut rest[COMMAND_WORDS..];
    if nested != 0 {
        let before = 1 + u16::from(command.parsed());
        for (at, record) in records.clone().enumerate().filter(|(_, record)| record.is(SpanName::Command)) {
            describe_command(&buffer.commands[record.arg as usize], at as u16 + before, &mut text_at, rest);
            rest = &mut rest[COMMAND_WORDS..];
        }
    }

    let local = |owner: usize| if owner == usize::from(root) { 0 } else { owner - first + 1 };
    let (slots, rest) = rest.split_at_mut(usize::from(spans) * SLOT_WORDS);
    let mut slots = slots.as_chunks_mut::<SLOT_WORDS>().0.iter_mut();
    if command.parsed()
        && let Some(slot) = slots.next()
    {
        *slot = SpanRecord::lap(SpanName::RespParse, 0, command.start, command.parse_end, 0).to_words();
    }
    let closed = |mut record: SpanRecord| {
        if record.is_open() {
            record.end = command.end.max(record.start);
        }
        record
    };
    if nested == 0 {
        for (record, slot) in records.zip(slots.by_ref()) {
            *slot = closed(record.with_owner(0)).to_words();
        }
    } else {
        for (record, slot) in records.zip(slots.by_ref()) {
            let mut record = closed(record.with_owner(local(usize::from(record.owner())) as u16));
            if record.is(SpanName::Command) {
                record.arg = local(record.arg as usize) as u64;
            }
            *slot = record.to_words();
        }
    }
    if let Some(slot) = slots.next() {
        *slot = SpanRecord::lap(SpanName::NetWrite, 0, command.write_start, command.end, 0).to_words();
    }

    let mut rest = rest;
    for command in std::iter::once(command).chain(queued) {
        rest = put_text(rest, &buffer.arena, command.statement_at, command.statement_len);
        rest = put_text(rest, &buffer.arena, command.error_at, command.error_len);
    }
    rest = put_text(rest, &buffer.arena, command.tracestate_at, command.tracestate_len);
    if events.1 != 0 {
        put_events(buffer, root, |owner| local(owner), rest);
        out[EVENTS] |= u64::from(events.1) << EVENTS_AT;
    }
    out[LENGTHS] = (out.len() / SLOT_WORDS) as u64;
    spans + 1
}

/// Words of the events of a tree, and how many they are.
#[cold]
fn events_size(buffer: &TraceBuffer, root: u16) -> (usize, u16) {
    let sizes = events_of(buffer, root).map(|event| EVENT_WORDS + text_words(event.values_len));
    sizes.fold((0, 0), |(words, count), size| (words + size, count + 1))
}

fn events_of(buffer: &TraceBuffer, root: u16) -> impl Iterator<Item = &EventRecord> {
    buffer.events.iter().filter(move |event| buffer.commands[usize::from(event.command)].root == root)
}

/// Writes the events of a tree behind its texts, each with its attributes.
#[cold]
fn put_events(buffer: &TraceBuffer, root: u16, local: impl Fn(usize) -> usize, mut out: &mut [u64]) {
    for event in events_of(buffer, root) {
        out[0] = event.time;
        out[1] = event.name as u64 | (local(event.command.into()) as u64) << 16 | u64::from(event.values_len) << 32;
        out = put_text(&mut out[EVENT_WORDS..], &buffer.arena, event.values_at, event.values_len);
    }
}

fn header(buffer: &TraceBuffer, command: &CommandRecord, sampled: bool, wall_offset: i64, spans: u16, out: &mut [u64]) {
    let flag = |on: bool, flag: u64| if on { flag } else { 0 };
    let flags =
        flag(sampled, SAMPLED) | flag(command.flags & REMOTE != 0, FROM_REMOTE) | flag(buffer.peer.is_some(), HAS_PEER);
    let peer = buffer.peer.map_or(0, |peer| match peer.ip() {
        IpAddr::V4(ip) => u128::from(ip.to_ipv6_mapped()),
        IpAddr::V6(ip) => u128::from(ip),
    });
    out[..HEADER_WORDS].copy_from_slice(&[
        0,
        (command.trace_id >> 64) as u64,
        command.trace_id as u64,
        command.span_id,
        command.other_span,
        flags
            | u64::from(command.trace_flags) << 8
            | u64::from(spans) << 16
            | (u64::from(command.nested) + 1) << 32
            | u64::from(command.tracestate_len) << 48,
        buffer.connection,
        wall_offset as u64,
        (peer >> 64) as u64,
        peer as u64,
        u64::from(buffer.peer.map_or(0, |peer| peer.port())) | u64::from(command.spans_dropped) << 32,
        command.offset,
    ]);
}

/// `ordinal`: its position among the spans, zero for the root. `text_at`: the word at which its texts begin; moved behind
/// them.
fn describe_command(command: &CommandRecord, ordinal: u16, text_at: &mut usize, out: &mut [u64]) {
    out[..COMMAND_WORDS].copy_from_slice(&[
        command.start,
        command.end.max(command.start),
        command.epoch,
        u64::from(ordinal) | u64::from(command.argc) << 32,
        u64::from(command.statement_len)
            | u64::from(command.key_len) << 16
            | u64::from(command.error_len) << 32
            | u64::from(command.name_len) << 48,
        u64::from(command.result) | u64::from(command.flags) << 8 | u64::from(command.trace_flags) << 16,
        *text_at as u64,
        (command.other_trace >> 64) as u64,
        command.other_trace as u64,
        command.other_span,
        command.execution_ns,
        command.name as u64,
    ]);
    *text_at += text_words(command.statement_len) + text_words(command.error_len);
}

/// Writes a text, little-endian; gives what lies behind it.
fn put_text<'o>(out: &'o mut [u64], arena: &[u8], at: u32, len: u16) -> &'o mut [u64] {
    if len == 0 {
        return out;
    }
    let text = &arena[at as usize..at as usize + usize::from(len)];
    let (to, rest) = out.split_at_mut(text_words(len));
    let (words, tail) = text.as_chunks::<8>();
    for (to, word) in to.iter_mut().zip(words) {
        *to = u64::from_le_bytes(*word);
    }
    if !tail.is_empty() {
        let mut word = [0; 8];
        word[..tail.len()].copy_from_slice(tail);
        to[words.len()] = u64::from_le_bytes(word);
    }
    rest
}

/// One trace (of one command, or of one EXEC with its queued commands) in compact form: one allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptTrace {
    words: Box<[u64]>,
}

/// One command of an entry.
struct CommandView<'t> {
    words: &'t [u64],
    statement: &'t [u8],
    error: &'t [u8],
}

impl CommandView<'_> {
    fn flags(&self) -> u8 {
        (self.words[5] >> 8) as u8
    }

    fn has(&self, flag: u8) -> bool {
        self.flags() & flag != 0
    }

    fn name(&self) -> &[u8] {
        &self.statement[..usize::from((self.words[4] >> 48) as u8).min(self.statement.len())]
    }

    fn key(&self) -> Option<&[u8]> {
        let from = self.name().len() + 1;
        let len = usize::from((self.words[4] >> 16) as u16);
        self.has(HAS_KEY).then(|| self.statement.get(from..from + len)).flatten()
    }

    fn outcome(&self) -> Option<Outcome> {
        self.has(FINISHED).then(|| Outcome::from_u8(self.words[5] as u8)).flatten()
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl KeptTrace {
    /// `words` come from [`encode`].
    pub(crate) fn new(words: Box<[u64]>) -> Self {
        Self { words }
    }

    #[cfg(test)]
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// The id of the trace.
    pub fn trace_id(&self) -> TraceId {
        TraceId(u128::from(self.words[TRACE_ID]) << 64 | u128::from(self.words[TRACE_ID + 1]))
    }

    /// The span id of the root.
    pub fn root_id(&self) -> SpanId {
        SpanId(self.words[3])
    }

    /// Whether the sampler chose it.
    pub fn sampled(&self) -> bool {
        self.words[5] & SAMPLED != 0
    }

    /// How many spans it has, root included.
    pub fn span_count(&self) -> usize {
        usize::from((self.words[5] >> 16) as u16) + 1
    }

    /// When the root began, on the monotonic clock.
    pub fn start_ns(&self) -> u64 {
        self.words[HEADER_WORDS]
    }

    /// When the root ended, on the monotonic clock.
    pub fn end_ns(&self) -> u64 {
        self.words[HEADER_WORDS + 1]
    }

    /// What the root is: a command, or work that is none.
    pub fn name(&self) -> SpanName {
        self.words.get(HEADER_WORDS + 11).and_then(|name| SpanName::from_u8(*name as u8)).unwrap_or_default()
    }

    /// What to add to a monotonic reading of this trace to have nanoseconds since the Unix epoch.
    pub fn wall_offset_ns(&self) -> i64 {
        self.words[7] as i64
    }

    /// Execution and waits for the disk, in nanoseconds.
    pub fn execution_ns(&self) -> u64 {
        self.words[HEADER_WORDS + 10]
    }

    /// Every span, the root first, then in the order of their ids.
    pub fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        let texts: Vec<u8> = self.words[self.texts_at()..].iter().flat_map(|word| word.to_le_bytes()).collect();
        (0..self.span_count()).map(move |position| match position {
            0 => self.root(&texts),
            _ => self.child(position, &texts),
        })
    }

    fn commands(&self) -> usize {
        usize::from((self.words[5] >> 32) as u16)
    }

    fn records_at(&self) -> usize {
        HEADER_WORDS + self.commands() * COMMAND_WORDS
    }

    fn texts_at(&self) -> usize {
        self.records_at() + (self.span_count() - 1) * SLOT_WORDS
    }

    fn command<'t>(&'t self, index: usize, texts: &'t [u8]) -> CommandView<'t> {
        let at = HEADER_WORDS + index * COMMAND_WORDS;
        let words = &self.words[at..at + COMMAND_WORDS];
        let (statement_len, error_len) = (words[4] as u16, (words[4] >> 32) as u16);
        let (statement, rest) = texts[words[6] as usize * 8..].split_at(text_words(statement_len) * 8);
        CommandView {
            words,
            statement: &statement[..usize::from(statement_len)],
            error: &rest[..usize::from(error_len)],
        }
    }

    /// The caller's tracestate, the last of the texts, and what lies behind it.
    fn tracestate<'t>(&self, texts: &'t [u8]) -> (&'t [u8], &'t [u8]) {
        let last = self.command(self.commands() - 1, texts);
        let at = last.words[6] as usize + last.statement.len().div_ceil(8) + last.error.len().div_ceil(8);
        let len = (self.words[5] >> 48) as u16;
        let (tracestate, behind) = texts[at * 8..].split_at(text_words(len) * 8);
        (&tracestate[..usize::from(len)], behind)
    }

    /// The events of a command, which has this index among the commands.
    fn events(&self, command: usize, texts: &[u8]) -> Vec<Event> {
        let count = (self.words[EVENTS] >> EVENTS_AT) as u16;
        let mut rest = self.tracestate(texts).1;
        let mut events = Vec::new();
        for _ in 0..count {
            let (head, behind) = rest.split_at(EVENT_WORDS * 8);
            let [time_ns, about] = [0, 8].map(|at| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes")));
            let len = (about >> 32) as u16;
            let (attributes, behind) = behind.split_at(text_words(len) * 8);
            if usize::from((about >> 16) as u16) == command {
                let name = EventName::from_u8(about as u8).expect("encode wrote it");
                events.push(Event { name, time_ns, attributes: values::read(&attributes[..usize::from(len)]) });
            }
            rest = behind;
        }
        events
    }

    fn flags(&self) -> u8 {
        let from_caller = (self.words[5] >> 8) as u8 & !FLAG_SAMPLED;
        from_caller | u8::from(self.sampled())
    }

    fn root(&self, texts: &[u8]) -> Span {
        let command = self.command(0, texts);
        let remote = self.words[5] & FROM_REMOTE != 0;
        let mut span = self.span(self.name(), 0, command.words[0], command.words[1], texts);
        span.kind = self.name().root_kind();
        span.parent_span_id = remote.then_some(SpanId(self.words[4]));
        span.parent_is_remote = remote;
        span.events = self.events(0, texts);
        if self.name() == SpanName::Command {
            describe(&command, &mut span);
            self.describe_peer(&mut span);
            span.attributes.push((Attribute::ReplicationRole, text(Role::Primary.as_str())));
            span.attributes.push((Attribute::ReplicationOffset, int(self.words[11])));
            if self.words[10] >> 32 != 0 {
                span.attributes.push((Attribute::CommandSpansDropped, int(self.words[10] >> 32)));
            }
        } else {
            span.attributes.push((Attribute::DbSystem, text(DB_SYSTEM)));
            self.describe_peer(&mut span);
            span.attributes.extend(values::read(command.statement));
            if command.outcome() == Some(Outcome::Err) {
                fail(command.error, &mut span);
            }
        }
        span
    }

    /// Whose connection it is, or was done for.
    fn describe_peer(&self, span: &mut Span) {
        if self.words[5] & HAS_PEER != 0 {
            let ip = Ipv6Addr::from(u128::from(self.words[8]) << 64 | u128::from(self.words[9])).to_canonical();
            span.attributes.push((Attribute::NetPeerIp, Value::Str(ip.to_string().into())));
            span.attributes.push((Attribute::NetPeerPort, int(self.words[10] & 0xffff)));
        }
        span.attributes.push((Attribute::ConnectionId, int(self.words[6])));
    }

    fn child(&self, position: usize, texts: &[u8]) -> Span {
        let at = self.records_at() + (position - 1) * SLOT_WORDS;
        let record = SpanRecord::from_words(&self.words[at..at + SLOT_WORDS]).expect("encode wrote it");
        let owner = self.command(usize::from(record.owner()), texts);
        let mut span = self.span(record.name(), position, record.start, record.end, texts);
        span.parent_span_id = Some(self.root_id().nth_of_tree(owner.words[3] as u16));
        let mut add = |key: Attribute, value: Value| span.attributes.push((key, value));
        match record.name() {
            SpanName::Command => {
                let command = self.command(record.arg as usize, texts);
                describe(&command, &mut span);
                span.events = self.events(record.arg as usize, texts);
                if command.has(LINKED) {
                    span.links.push(Link {
                        trace_id: TraceId(u128::from(command.words[7]) << 64 | u128::from(command.words[8])),
                        span_id: SpanId(command.words[9]),
                        flags: (command.words[5] >> 16) as u8,
                    });
                }
            }
            SpanName::IndexLookup => add(Attribute::IndexBucket, int(record.arg)),
            SpanName::StorageRead | SpanName::StorageWrite => {
                let operation = match record.name() {
                    SpanName::StorageRead => Operation::Read,
                    _ => Operation::Write,
                };
                let on_disk = record.tier() == crate::schema::Tier::Disk;
                add(Attribute::StorageOperation, text(operation.as_str()));
                add(Attribute::StorageTier, record.tier().into());
                add(Attribute::StorageCacheHit, Value::Bool(record.cache_hit()));
                if let Some(bytes) = record.value_bytes() {
                    add(Attribute::StorageBytes, int(bytes.into()));
                }
                add(Attribute::StorageEpoch, int(if on_disk { owner.words[2] } else { record.arg }));
                if on_disk && operation == Operation::Read {
                    add(Attribute::IoUringSqeId, int(record.arg));
                }
            }
            SpanName::EpochProtect | SpanName::EpochAdvance => add(Attribute::StorageEpoch, int(record.arg)),
            SpanName::AofAppend => add(Attribute::AofBytes, int(record.value_bytes().unwrap_or(0).into())),
            _ => {}
        }
        span
    }

    fn span(&self, name: SpanName, position: usize, start_ns: u64, end_ns: u64, texts: &[u8]) -> Span {
        Span {
            trace_id: self.trace_id(),
            span_id: self.root_id().nth_of_tree(position as u16),
            parent_span_id: None,
            parent_is_remote: false,
            name,
            kind: SpanKind::Internal,
            start_ns,
            end_ns,
            attributes: Vec::new(),
            status: Status::Unset,
            links: Vec::new(),
            events: Vec::new(),
            tracestate: lossy(self.tracestate(texts).0),
            flags: self.flags(),
        }
    }
}

/// What a command says about itself, as root or as queued command.
fn describe(command: &CommandView<'_>, span: &mut Span) {
    let mut add = |key: Attribute, value: Value| span.attributes.push((key, value));
    let name = lossy(command.name());
    add(Attribute::DbSystem, text(DB_SYSTEM));
    if !name.is_empty() {
        let mut statement = name.replace('|', " ");
        statement.push_str(&String::from_utf8_lossy(&command.statement[command.name().len()..]));
        if command.has(LEFT_OUT) {
            statement.push_str(" ...");
        }
        add(Attribute::DbOperation, Value::Str(name.clone().into()));
        add(Attribute::DbStatement, Value::Str(statement.into()));
        add(Attribute::CommandName, Value::Str(name.into()));
    }
    if let Some(key) = command.key() {
        add(Attribute::CommandKey, Value::Str(lossy(key).into()));
    }
    let outcome = command.outcome();
    if let Some(outcome) = outcome {
        add(Attribute::CommandResult, text(outcome.as_str()));
    }
    add(Attribute::CommandArgsCount, int(command.words[3] >> 32));
    if outcome == Some(Outcome::Err) {
        fail(command.error, span);
    }
}

/// `error`: its type, then what happened, as an error reply has it.
fn fail(error: &[u8], span: &mut Span) {
    let message = lossy(error);
    let error_type = ErrorType::of_reply(&message).to_owned();
    span.attributes.push((Attribute::ErrorType, Value::Str(Cow::Owned(error_type))));
    span.status = Status::Error(message);
}
