//! One trace as it was kept, and how its spans are read back from what was recorded.
//!
//! The spans of a tree, in the order of their ids: the root, its stations as they were passed (parse, dispatch, execute,
//! serialise, write) with the other records between them, in the order of recording. The span with position `n` in this
//! order, the root being 0, has the id `root + n`.

use std::sync::Arc;

use crate::batch::{Batch, FULL, Slot};
use crate::context::{FLAG_RANDOM, FLAG_SAMPLED, SpanId, TraceId};
use crate::record::{
    CommandRecord, DISPATCHED, ERROR_CUT, EXECUTED, FINISHED, HAS_KEY, KEY_CUT, LEFT_OUT, LINKED, PARSED, REMOTE,
    SAMPLED, SERIALIZED, SpanRecord,
};
use crate::schema::{Attribute, DB_SYSTEM, ErrorType, EventName, Operation, Outcome, Role, SpanKind, SpanName, Tier};
use crate::span::{Event, Link, Span, Status, Value, int, text};
use crate::values;

/// One trace (of one command, or of one EXEC with its queued commands) in compact form: one allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptTrace {
    slots: Box<[Slot]>,
}

/// A span below the root, before it is made.
#[derive(Clone, Copy)]
enum Part {
    Parse,
    Dispatch,
    Execute,
    Record(SpanRecord),
    Serialize,
    Write,
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A text of which only the beginning was kept ends with an ellipsis, and not within a character.
fn told(kept: &[u8], cut: bool) -> String {
    let mut text = lossy(kept);
    if cut {
        text.truncate(text.trim_end_matches(char::REPLACEMENT_CHARACTER).len());
        text.push('…');
    }
    text
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
        let batch = self.batch();
        batch.commands[0].spans() + usize::from(shows_write(&batch))
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
    pub fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        let tree = Tree::new(self.batch());
        (0..=tree.parts.len()).map(move |position| match position {
            0 => tree.root(),
            _ => tree.child(position),
        })
    }
}

fn shows_write(batch: &Batch<'_>) -> bool {
    batch.header.flags & FULL != 0 && !batch.writes.is_empty()
}

/// When the root ended: with the write of its reply, if there was one.
fn end_of(batch: &Batch<'_>) -> u64 {
    let command = &batch.commands[0];
    batch.write_of(0).map_or(command.end, |(_, end)| end).max(command.start)
}

/// A trace with the positions of its spans.
struct Tree<'t> {
    batch: Batch<'t>,
    command: &'t CommandRecord,
    /// In the order of their ids, from 1 on.
    parts: Vec<Part>,
    /// The position of each command's own span.
    positions: Vec<u16>,
    tracestate: String,
    baggage: Arc<[(String, String)]>,
    /// Of the W3C trace context.
    flags: u8,
    end_ns: u64,
}

impl<'t> Tree<'t> {
    fn new(batch: Batch<'t>) -> Self {
        let command = &batch.commands[0];
        let (before, after) = batch.records.split_at(usize::from(command.before_dispatch).min(batch.records.len()));
        let station = |flag: u16, part: Part| command.has(flag).then_some(part);
        let parts: Vec<Part> = station(PARSED, Part::Parse)
            .into_iter()
            .chain(before.iter().copied().map(Part::Record))
            .chain(station(DISPATCHED, Part::Dispatch))
            .chain(station(EXECUTED, Part::Execute))
            .chain(after.iter().copied().map(Part::Record))
            .chain(station(SERIALIZED, Part::Serialize))
            .chain(shows_write(&batch).then_some(Part::Write))
            .collect();
        let mut positions = vec![0; batch.commands.len()];
        for (at, part) in parts.iter().enumerate() {
            if let Part::Record(record) = part
                && record.is(SpanName::Command)
            {
                positions[record.arg as usize] = at as u16 + 1;
            }
        }
        let rare = batch.rare_of(command);
        let tracestate = rare.map_or(String::new(), |rare| lossy(batch.text(rare.tracestate_at, rare.tracestate_len)));
        let baggage =
            rare.map_or(Vec::new(), |rare| values::read_baggage(batch.text(rare.baggage_at, rare.baggage_len))).into();
        // Our own ids are random.
        let others = match rare {
            Some(rare) if command.has(REMOTE) => rare.trace_flags & !FLAG_SAMPLED,
            _ => FLAG_RANDOM,
        };
        let flags = others | if command.has(SAMPLED) { FLAG_SAMPLED } else { 0 };
        let end_ns = end_of(&batch);
        Self { batch, command, parts, positions, tracestate, baggage, flags, end_ns }
    }

    fn root(&self) -> Span {
        let command = self.command;
        let mut span = self.span(command.name(), 0, command.start, self.end_ns);
        span.kind = command.name().root_kind();
        span.events = self.events(0);
        span.dropped_events = command.events_dropped.into();
        if let Some(rare) = self.batch.rare_of(command)
            && command.has(REMOTE)
        {
            span.parent_span_id = Some(SpanId(rare.span_id));
            span.parent_is_remote = true;
        }
        if command.name() == SpanName::Command {
            describe(&self.batch, command, &mut span);
            self.describe_peer(&mut span);
            span.attributes.push((Attribute::ReplicationRole, text(Role::Primary.as_str())));
            span.attributes.push((Attribute::ReplicationOffset, int(command.offset)));
            if command.spans_dropped != 0 {
                span.attributes.push((Attribute::CommandSpansDropped, int(command.spans_dropped.into())));
            }
        } else {
            span.attributes.push((Attribute::DbSystem, text(DB_SYSTEM)));
            // Work of the server's own belongs to no connection.
            if self.batch.header.connection != 0 {
                self.describe_peer(&mut span);
            }
            span.attributes.extend(values::read(self.batch.text(command.statement_at, command.statement_len)));
            if outcome_of(command) == Some(Outcome::Err) {
                fail(&self.batch, command, &mut span);
            }
        }
        span
    }

    /// Whose connection it is, or was done for.
    fn describe_peer(&self, span: &mut Span) {
        let header = &self.batch.header;
        if let Some((ip, port)) = header.peer() {
            span.attributes.push((Attribute::NetPeerIp, Value::Str(ip.to_string().into())));
            span.attributes.push((Attribute::NetPeerPort, int(port.into())));
        }
        span.attributes.push((Attribute::ConnectionId, int(header.connection)));
    }

    /// The events of the command with this index.
    fn events(&self, command: usize) -> Vec<Event> {
        let own = self.batch.events.iter().filter(|event| usize::from(event.command) == command);
        own.map(|event| Event {
            name: EventName::from_u8(event.name as u8).expect("made from a name"),
            time_ns: event.time,
            attributes: values::read(self.batch.text(event.values_at, event.values_len)),
            dropped_attributes: 0,
        })
        .collect()
    }

    fn child(&self, position: usize) -> Span {
        let command = self.command;
        let station = |name: SpanName, start: u64, end: u64| {
            let mut span = self.span(name, position, start, end);
            span.parent_span_id = Some(SpanId(command.span_id));
            span
        };
        match self.parts[position - 1] {
            Part::Parse => station(SpanName::RespParse, command.start, command.parse_end),
            Part::Dispatch => station(SpanName::CommandDispatch, command.dispatch_start, command.dispatch_end),
            Part::Execute => {
                station(SpanName::CommandExecute, command.dispatch_end, command.end.max(command.dispatch_end))
            }
            Part::Serialize => station(SpanName::RespSerialize, command.serialize_start, command.end),
            Part::Write => {
                let (start, end) = self.batch.write_of(0).expect("it is shown only if there was one");
                station(SpanName::NetWrite, start, end)
            }
            Part::Record(record) => self.recorded(position, &record),
        }
    }

    fn recorded(&self, position: usize, record: &SpanRecord) -> Span {
        let owner = usize::from(record.owner());
        let end = if record.is_open() { self.command.end.max(record.start) } else { record.end };
        let mut span = self.span(record.name(), position, record.start, end);
        span.parent_span_id = Some(SpanId(self.command.span_id).nth_of_tree(self.positions[owner]));
        let mut add = |key: Attribute, value: Value| span.attributes.push((key, value));
        match record.name() {
            SpanName::Command => {
                let nested = &self.batch.commands[record.arg as usize];
                describe(&self.batch, nested, &mut span);
                span.events = self.events(record.arg as usize);
                span.dropped_events = nested.events_dropped.into();
                if let Some(rare) = self.batch.rare_of(nested)
                    && nested.has(LINKED)
                {
                    span.links.push(Link {
                        trace_id: TraceId(u128::from(rare.trace_id[0]) << 64 | u128::from(rare.trace_id[1])),
                        span_id: SpanId(rare.span_id),
                        tracestate: lossy(self.batch.text(rare.tracestate_at, rare.tracestate_len)),
                        flags: rare.trace_flags,
                    });
                }
            }
            SpanName::IndexLookup => add(Attribute::IndexBucket, int(record.arg)),
            SpanName::StorageRead | SpanName::StorageWrite => {
                let operation = match record.name() {
                    SpanName::StorageRead => Operation::Read,
                    _ => Operation::Write,
                };
                let from_disk = record.tier() == Tier::Disk && operation == Operation::Read;
                add(Attribute::StorageOperation, text(operation.as_str()));
                add(Attribute::StorageTier, record.tier().into());
                add(Attribute::StorageCacheHit, Value::Bool(record.cache_hit()));
                if let Some(bytes) = record.value_bytes() {
                    add(Attribute::StorageBytes, int(bytes.into()));
                }
                if from_disk {
                    let rare = self.batch.rare_of(&self.batch.commands[owner]);
                    add(Attribute::StorageEpoch, int(rare.map_or(0, |rare| rare.epoch)));
                    add(Attribute::IoUringSqeId, int(record.arg));
                } else {
                    add(Attribute::StorageEpoch, int(record.arg));
                }
                if record.is_miss() {
                    span.events.push(Event {
                        name: EventName::CacheMiss,
                        time_ns: end,
                        attributes: vec![(Attribute::StorageTier, record.tier().into())],
                        dropped_attributes: 0,
                    });
                }
            }
            SpanName::EpochProtect | SpanName::EpochAdvance => add(Attribute::StorageEpoch, int(record.arg)),
            SpanName::AofAppend => add(Attribute::AofBytes, int(record.value_bytes().unwrap_or(0).into())),
            _ => {}
        }
        span
    }

    fn span(&self, name: SpanName, position: usize, start_ns: u64, end_ns: u64) -> Span {
        Span {
            trace_id: self.command.trace_id(),
            span_id: SpanId(self.command.span_id).nth_of_tree(position as u16),
            parent_span_id: None,
            parent_is_remote: false,
            name,
            kind: SpanKind::Internal,
            start_ns,
            end_ns,
            attributes: Vec::new(),
            baggage: Arc::clone(&self.baggage),
            status: Status::Unset,
            links: Vec::new(),
            events: Vec::new(),
            tracestate: self.tracestate.clone(),
            flags: self.flags,
            dropped_attributes: 0,
            dropped_events: 0,
            dropped_links: 0,
        }
    }
}

/// What a command says about itself, as root or as queued command.
fn describe(batch: &Batch<'_>, command: &CommandRecord, span: &mut Span) {
    let statement = batch.text(command.statement_at, command.statement_len);
    let (name, keys) = statement.split_at(usize::from(command.name_len).min(statement.len()));
    let mut add = |key: Attribute, value: Value| span.attributes.push((key, value));
    let name_text = lossy(name);
    add(Attribute::DbSystem, text(DB_SYSTEM));
    if !name.is_empty() {
        let mut statement = name_text.clone();
        statement.push_str(&String::from_utf8_lossy(keys));
        if command.has(LEFT_OUT) {
            statement.push_str(" ...");
        }
        add(Attribute::DbOperation, Value::Str(name_text.clone().into()));
        add(Attribute::DbStatement, Value::Str(statement.into()));
        add(Attribute::CommandName, Value::Str(name_text.into()));
    }
    // A blank is between the name and the first key.
    if let Some(key) = keys.get(1..1 + usize::from(command.key_len))
        && command.has(HAS_KEY)
    {
        add(Attribute::CommandKey, Value::Str(told(key, command.has(KEY_CUT)).into()));
    }
    let outcome = outcome_of(command);
    if let Some(outcome) = outcome {
        add(Attribute::CommandResult, text(outcome.as_str()));
    }
    add(Attribute::CommandArgsCount, int(command.argc.into()));
    if outcome == Some(Outcome::Err) {
        fail(batch, command, span);
    }
}

fn outcome_of(command: &CommandRecord) -> Option<Outcome> {
    command.has(FINISHED).then(|| Outcome::from_u8(command.result)).flatten()
}

/// What happened, as an error reply has it: its type comes first. Work of the server's own has that of its exception.
fn fail(batch: &Batch<'_>, command: &CommandRecord, span: &mut Span) {
    let message = told(batch.text(command.error_at, command.error_len), command.has(ERROR_CUT));
    let exception = || {
        let values = &span.events.iter().find(|event| event.name == EventName::Exception)?.attributes;
        values.iter().find(|(key, _)| *key == Attribute::ExceptionType).map(|(_, kind)| kind.clone())
    };
    let error_type = match command.name() {
        SpanName::Command => None,
        _ => exception(),
    };
    let error_type = error_type.unwrap_or_else(|| Value::Str(ErrorType::of_reply(&message).to_owned().into()));
    span.attributes.push((Attribute::ErrorType, error_type));
    span.status = Status::Error(message);
}
