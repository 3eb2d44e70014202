//! How the spans of a trace are read back from what was recorded.
//!
//! The spans of a tree, in the order of their ids: the root, its stations as they were passed (parse, dispatch, execute,
//! serialise, write) with the other records between them, in the order of recording. The span with position `n` in this
//! order, the root being 0, has the id `root + n`.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;

use crate::batch::{Batch, FULL};
use crate::context::{FLAG_RANDOM, FLAG_SAMPLED, SpanId, TraceId};
use crate::entry::KeptTrace;
use crate::record::{
    CommandRecord, DISPATCHED, ERROR_CUT, EXECUTED, FINISHED, HAS_KEY, KEY_CUT, LEFT_OUT, LINKED, PARSED, REMOTE,
    SAMPLED, SERIALIZED, SpanRecord,
};
use crate::schema::{Attribute, DB_SYSTEM, ErrorType, EventName, Operation, Outcome, Role, SpanKind, SpanName, Tier};
use crate::sink::{Dropped, Excerpt, LinkRef, SpanHead, SpanSink, ValueRef};
use crate::values;

/// What the end of `db.statement` says if something was left out.
const MORE: &str = " ...";

/// Tells the spans of kept traces. Its buffers are used again: once they have grown, telling a trace allocates nothing unless a
/// text of it is not UTF-8.
#[derive(Debug, Default)]
pub struct Teller {
    /// Of each command's own span in its trace.
    positions: Vec<u16>,
    statement: String,
    /// The last client's address: that of most.
    peer: Option<(IpAddr, String)>,
}

impl Teller {
    /// Tells every span, the root first, then in the order of their ids.
    pub fn tell(&mut self, trace: &KeptTrace, sink: &mut impl SpanSink) {
        Telling::new(trace.batch(), self, sink).all();
    }

    /// Tells those at these positions alone, which count as [`Teller::tell`] has them.
    pub fn tell_some(&mut self, trace: &KeptTrace, wanted: Range<usize>, sink: &mut impl SpanSink) {
        self.tell(trace, &mut Excerpt::of(wanted, sink));
    }

    fn peer(&mut self, ip: IpAddr) -> &str {
        if self.peer.as_ref().is_none_or(|(known, _)| *known != ip) {
            self.peer = Some((ip, ip.to_string()));
        }
        self.peer.as_ref().map_or("", |(_, text)| text)
    }
}

/// Whether the write of the reply is a span.
pub(crate) fn shows_write(batch: &Batch<'_>) -> bool {
    batch.header.flags & FULL != 0 && !batch.writes.is_empty()
}

/// When the root ended: with the write of its reply, if there was one.
pub(crate) fn end_of(batch: &Batch<'_>) -> u64 {
    let command = &batch.commands[0];
    batch.write_of(0).map_or(command.end, |(_, end)| end).max(command.start)
}

/// A trace that is being told.
struct Telling<'t, 's, S> {
    batch: Batch<'t>,
    command: &'t CommandRecord,
    teller: &'s mut Teller,
    sink: &'s mut S,
    /// Of the span that is told.
    position: u16,
    tracestate: Cow<'t, str>,
    baggage: &'t [u8],
    /// Of the W3C trace context.
    flags: u8,
}

impl<'t, 's, S: SpanSink> Telling<'t, 's, S> {
    #[inline]
    fn new(batch: Batch<'t>, teller: &'s mut Teller, sink: &'s mut S) -> Self {
        let command = &batch.commands[0];
        let (mut tracestate, mut baggage, mut others) = (Cow::Borrowed(""), &[][..], FLAG_RANDOM);
        if let Some(rare) = batch.rare_of(command) {
            tracestate = lossy(batch.text(rare.tracestate_at, rare.tracestate_len));
            baggage = batch.text(rare.baggage_at, rare.baggage_len);
            // Our own ids are random.
            if command.has(REMOTE) {
                others = rare.trace_flags & !FLAG_SAMPLED;
            }
        }
        let flags = others | if command.has(SAMPLED) { FLAG_SAMPLED } else { 0 };
        Self { batch, command, teller, sink, position: 0, tracestate, baggage, flags }
    }

    #[inline]
    fn all(&mut self) {
        let command = self.command;
        self.teller.positions.clear();
        self.teller.positions.resize(self.batch.commands.len(), 0);
        self.root();
        let records = self.batch.records;
        let (before, after) = records.split_at(usize::from(command.before_dispatch).min(records.len()));
        if command.has(PARSED) {
            self.station(SpanName::RespParse, command.start, command.parse_end);
        }
        before.iter().for_each(|record| self.recorded(record));
        if command.has(DISPATCHED) {
            self.station(SpanName::CommandDispatch, command.dispatch_start, command.dispatch_end);
        }
        if command.has(EXECUTED) {
            let start = command.dispatch_end;
            self.station(SpanName::CommandExecute, start, command.end.max(start));
        }
        after.iter().for_each(|record| self.recorded(record));
        if command.has(SERIALIZED) {
            self.station(SpanName::RespSerialize, command.serialize_start, command.end);
        }
        if shows_write(&self.batch) {
            let (start, end) = self.batch.write_of(0).expect("it is shown only if there was one");
            self.station(SpanName::NetWrite, start, end);
        }
    }

    #[inline]
    fn head(&mut self, name: SpanName, parent: Option<SpanId>, start_ns: u64, end_ns: u64, error: Option<&str>) {
        let is_root = self.position == 0;
        self.sink.head(&SpanHead {
            trace_id: self.command.trace_id(),
            span_id: SpanId(self.command.span_id).nth_of_tree(self.position),
            parent_span_id: parent,
            parent_is_remote: is_root && parent.is_some(),
            name,
            kind: if is_root { name.root_kind() } else { SpanKind::Internal },
            start_ns,
            end_ns,
            tracestate: &self.tracestate,
            flags: self.flags,
            error,
        });
    }

    #[inline]
    fn members(&mut self) {
        if !self.baggage.is_empty() {
            for (key, value) in values::members(self.baggage) {
                self.sink.member(&lossy(key), &lossy(value));
            }
        }
    }

    /// What one span of every such command has no more to say about.
    #[inline]
    fn station(&mut self, name: SpanName, start_ns: u64, end_ns: u64) {
        self.position += 1;
        self.head(name, Some(SpanId(self.command.span_id)), start_ns, end_ns, None);
        self.members();
        self.sink.end(Dropped::default());
    }

    fn root(&mut self) {
        let command = self.command;
        let error = error_of(&self.batch, command);
        let rare = self.batch.rare_of(command).filter(|_| command.has(REMOTE));
        let parent = rare.map(|rare| SpanId(rare.span_id));
        let name = command.name();
        self.head(name, parent, command.start, end_of(&self.batch), error.as_deref());
        if name == SpanName::Command {
            self.describe(command, error.as_deref());
            self.describe_peer();
            self.sink.attribute(Attribute::ReplicationRole, ValueRef::Str(Role::Primary.as_str()));
            self.sink.attribute(Attribute::ReplicationOffset, command.offset.into());
            if command.spans_dropped != 0 {
                self.sink.attribute(Attribute::CommandSpansDropped, u64::from(command.spans_dropped).into());
            }
        } else {
            self.sink.attribute(Attribute::DbSystem, ValueRef::Str(DB_SYSTEM));
            // Work of the server's own belongs to no connection.
            if self.batch.header.connection != 0 {
                self.describe_peer();
            }
            let values = self.batch.text(command.statement_at, command.statement_len);
            values::each(values, |key, value| self.sink.attribute(key, value));
            if let Some(error) = &error {
                self.fail_work(error);
            }
        }
        self.members();
        self.events(0);
        self.sink.end(Dropped { events: command.events_dropped.into(), ..Dropped::default() });
    }

    /// What a command says about itself, as root or as queued command.
    fn describe(&mut self, command: &CommandRecord, error: Option<&str>) {
        let statement = self.batch.text(command.statement_at, command.statement_len);
        let (name, keys) = statement.split_at(usize::from(command.name_len).min(statement.len()));
        let Teller { statement: text, .. } = &mut *self.teller;
        let sink = &mut *self.sink;
        sink.attribute(Attribute::DbSystem, ValueRef::Str(DB_SYSTEM));
        if !name.is_empty() {
            let name = lossy(name);
            text.clear();
            text.push_str(&name);
            text.push_str(&lossy(keys));
            if command.has(LEFT_OUT) {
                text.push_str(MORE);
            }
            sink.attribute(Attribute::DbOperation, ValueRef::Str(&name));
            sink.attribute(Attribute::DbStatement, ValueRef::Str(text));
            sink.attribute(Attribute::CommandName, ValueRef::Str(&name));
        }
        // A blank is between the name and the first key.
        if let Some(key) = keys.get(1..1 + usize::from(command.key_len))
            && command.has(HAS_KEY)
        {
            sink.attribute(Attribute::CommandKey, ValueRef::Str(&told(key, command.has(KEY_CUT))));
        }
        if let Some(outcome) = outcome_of(command) {
            sink.attribute(Attribute::CommandResult, ValueRef::Str(outcome.as_str()));
        }
        sink.attribute(Attribute::CommandArgsCount, u64::from(command.argc).into());
        // An error reply's type comes first in it.
        if let Some(error) = error {
            sink.attribute(Attribute::ErrorType, ValueRef::Str(ErrorType::of_reply(error)));
        }
    }

    /// Whose connection it is, or was done for.
    #[inline]
    fn describe_peer(&mut self) {
        let header = &self.batch.header;
        if let Some((ip, port)) = header.peer() {
            self.sink.attribute(Attribute::NetPeerIp, ValueRef::Str(self.teller.peer(ip)));
            self.sink.attribute(Attribute::NetPeerPort, u64::from(port).into());
        }
        self.sink.attribute(Attribute::ConnectionId, header.connection.into());
    }

    /// Work of the server's own has the type of its exception; of a connection, its error tells why it was cut off.
    fn fail_work(&mut self, error: &str) {
        let mut is_told = false;
        let own = |event: &&crate::record::EventRecord| event.command == 0 && event.name == EventName::Exception as u16;
        if let Some(exception) = self.batch.events.iter().find(own) {
            values::each(self.batch.text(exception.values_at, exception.values_len), |key, kind| {
                if key == Attribute::ExceptionType && !is_told {
                    self.sink.attribute(Attribute::ErrorType, kind);
                    is_told = true;
                }
            });
        }
        if !is_told {
            self.sink.attribute(Attribute::ErrorType, ValueRef::Str(ErrorType::of_reply(error)));
        }
    }

    /// The events of the command with this index.
    #[inline]
    fn events(&mut self, command: usize) {
        for event in self.batch.events.iter().filter(|event| usize::from(event.command) == command) {
            self.sink.event(EventName::from_u8(event.name as u8).expect("made from a name"), event.time);
            let values = self.batch.text(event.values_at, event.values_len);
            values::each(values, |key, value| self.sink.event_attribute(key, value));
            self.sink.event_end(0);
        }
    }

    #[inline]
    fn recorded(&mut self, record: &SpanRecord) {
        self.position += 1;
        let name = record.name();
        let owner = usize::from(record.owner());
        let parent = SpanId(self.command.span_id).nth_of_tree(self.teller.positions[owner]);
        let end = if record.is_open() { self.command.end.max(record.start) } else { record.end };
        if name == SpanName::Command {
            return self.nested(record, parent, end);
        }
        self.head(name, Some(parent), record.start, end, None);
        match name {
            SpanName::IndexLookup => self.sink.attribute(Attribute::IndexBucket, record.arg.into()),
            SpanName::StorageRead => self.storage(Operation::Read, owner, record),
            SpanName::StorageWrite => self.storage(Operation::Write, owner, record),
            SpanName::EpochProtect | SpanName::EpochAdvance => {
                self.sink.attribute(Attribute::StorageEpoch, record.arg.into());
            }
            SpanName::AofAppend => {
                self.sink.attribute(Attribute::AofBytes, u64::from(record.value_bytes().unwrap_or(0)).into());
            }
            _ => {}
        }
        self.members();
        if record.is_miss() {
            self.sink.event(EventName::CacheMiss, end);
            self.sink.event_attribute(Attribute::StorageTier, record.tier().into());
            self.sink.event_end(0);
        }
        self.sink.end(Dropped::default());
    }

    #[inline]
    fn storage(&mut self, operation: Operation, owner: usize, record: &SpanRecord) {
        let from_disk = record.tier() == Tier::Disk && operation == Operation::Read;
        self.sink.attribute(Attribute::StorageOperation, ValueRef::Str(operation.as_str()));
        self.sink.attribute(Attribute::StorageTier, record.tier().into());
        self.sink.attribute(Attribute::StorageCacheHit, ValueRef::Bool(record.cache_hit()));
        if let Some(bytes) = record.value_bytes() {
            self.sink.attribute(Attribute::StorageBytes, u64::from(bytes).into());
        }
        if from_disk {
            let rare = self.batch.rare_of(&self.batch.commands[owner]);
            self.sink.attribute(Attribute::StorageEpoch, rare.map_or(0, |rare| rare.epoch).into());
            self.sink.attribute(Attribute::IoUringSqeId, record.arg.into());
        } else {
            self.sink.attribute(Attribute::StorageEpoch, record.arg.into());
        }
    }

    /// A queued command.
    #[cold]
    fn nested(&mut self, record: &SpanRecord, parent: SpanId, end_ns: u64) {
        let index = record.arg as usize;
        self.teller.positions[index] = self.position;
        let command = &self.batch.commands[index];
        let error = error_of(&self.batch, command);
        self.head(SpanName::Command, Some(parent), record.start, end_ns, error.as_deref());
        self.describe(command, error.as_deref());
        self.members();
        self.events(index);
        if let Some(rare) = self.batch.rare_of(command)
            && command.has(LINKED)
        {
            let tracestate = self.batch.text(rare.tracestate_at, rare.tracestate_len);
            self.sink.link(&LinkRef {
                trace_id: TraceId(u128::from(rare.trace_id[0]) << 64 | u128::from(rare.trace_id[1])),
                span_id: SpanId(rare.span_id),
                tracestate: &lossy(tracestate),
                flags: rare.trace_flags,
            });
        }
        self.sink.end(Dropped { events: command.events_dropped.into(), ..Dropped::default() });
    }
}

fn outcome_of(command: &CommandRecord) -> Option<Outcome> {
    command.has(FINISHED).then(|| Outcome::from_u8(command.result)).flatten()
}

/// What happened, as an error reply has it.
fn error_of<'t>(batch: &Batch<'t>, command: &CommandRecord) -> Option<Cow<'t, str>> {
    command.failed().then(|| told(batch.text(command.error_at, command.error_len), command.has(ERROR_CUT)))
}

/// A text of which only the beginning was kept ends with an ellipsis, and not within a character.
fn told(kept: &[u8], cut: bool) -> Cow<'_, str> {
    let text = lossy(kept);
    if !cut {
        return text;
    }
    let mut text = text.into_owned();
    text.truncate(text.trim_end_matches(char::REPLACEMENT_CHARACTER).len());
    text.push('…');
    text.into()
}

/// As text. What is one takes the short way: looking for the first byte that is none is slow even where there is no such byte.
#[inline]
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}
