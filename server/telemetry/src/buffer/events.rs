//! What is rare: events, failures found only after a command had ended, work that is no command.

use super::TraceBuffer;
use crate::context::{SpanId, TraceId};
use crate::exception::Exception;
use crate::record::{CommandRecord, DISCARDED, Detail, EventRecord, FINISHED};
use crate::schema::{Attribute, EventName, Outcome, SpanName};
use crate::span::{Value, int};
use crate::values;

/// Events of one command, exceptions not counted: as many as the specification has a span keep. Those beyond are counted.
const EVENTS_PER_COMMAND_MAX: usize = 128;
/// Events of one batch, exceptions not counted, of which each command has two at most: their number has 16 bits.
const EVENTS_PER_BATCH_MAX: usize = 4 * 1024;

impl TraceBuffer {
    /// Something happened within the current command, now.
    pub fn event(&mut self, name: EventName, attributes: &[(Attribute, Value)]) {
        if self.level != 0 {
            let time = self.now();
            self.event_of(self.current, name, time, attributes);
        }
    }

    /// The latch of the current command's bucket was taken just now, from another worker. What it waited is the time since the
    /// last lap, of which the wait is nearly all.
    #[cold]
    pub fn latch_contended(&mut self, bucket: u64) {
        if self.level >= Detail::Storage as u8 {
            let time = self.now();
            let attributes =
                [(Attribute::IndexBucket, int(bucket)), (Attribute::LatchWaitNs, int(time.saturating_sub(self.mark)))];
            self.event_of(self.current, EventName::LatchContended, time, &attributes);
        }
    }

    /// The current command, or the work that was just recorded, is tried again: the `count`th time, this long after the attempt
    /// before had ended.
    #[cold]
    pub fn retry(&mut self, count: u32, delay_ns: u64, at_ns: u64) {
        if self.configured == 0 || self.current().is_none_or(|command| command.has(DISCARDED)) {
            return;
        }
        let attributes =
            [(Attribute::RetryCount, int(count.into())), (Attribute::RetryDelayMs, int(delay_ns / 1_000_000))];
        self.event_of(self.current, EventName::RetryAttempt, at_ns, &attributes);
    }

    fn event_of(&mut self, command: u16, name: EventName, time: u64, attributes: &[(Attribute, Value)]) {
        if name != EventName::Exception && !self.has_room_for_event(command) {
            let dropped = &mut self.commands[usize::from(command)].events_dropped;
            *dropped = dropped.saturating_add(1);
            return;
        }
        let (values_at, values_len) = self.stores_values(attributes);
        self.events.push(EventRecord {
            name: name as u16,
            command,
            values_len,
            values_at,
            time,
            ..EventRecord::default()
        });
    }

    fn has_room_for_event(&self, command: u16) -> bool {
        let own = self.events.iter().filter(|event| event.command == command);
        self.events.len() < EVENTS_PER_BATCH_MAX && own.count() < EVENTS_PER_COMMAND_MAX
    }

    fn stores_values(&mut self, attributes: &[(Attribute, Value)]) -> (u32, u16) {
        let at = self.arena.len();
        values::put(attributes, usize::from(u16::MAX), &mut self.arena);
        (at as u32, (self.arena.len() - at) as u16)
    }

    /// The current command fails for a reason that is not its client's: its error reply follows.
    #[cold]
    pub fn exception(&mut self, exception: &Exception) {
        if self.level != 0 {
            self.event(EventName::Exception, &attributes_of(exception));
        }
    }

    /// Commands that had their replies get this error instead, because of something that failed before these were
    /// written. Each of their roots has the exception. Gives who they are.
    #[cold]
    pub fn fail_unwritten(&mut self, error: &[u8], exception: &Exception) -> Vec<(TraceId, SpanId)> {
        let mut failed = Vec::new();
        let attributes = attributes_of(exception);
        let now = self.now();
        let before = self.current;
        for index in self.unwritten..self.commands.len() {
            let command = &self.commands[index];
            if usize::from(command.root) != index || !command.has(FINISHED) || command.has(DISCARDED) {
                continue;
            }
            failed.push((command.trace_id(), SpanId(command.span_id)));
            // Its serialisation ended before the wait.
            let end = command.end;
            self.current = index as u16;
            self.event_of(index as u16, EventName::Exception, now, &attributes);
            self.store_result(Outcome::Err, error, end);
        }
        self.current = before;
        failed
    }

    /// Work of the server's own has ended, as [`TraceBuffer::root`] tells it. The root has the exception, if it failed by one.
    #[cold]
    pub fn work(
        &mut self,
        name: SpanName,
        start_ns: u64,
        attributes: &[(Attribute, Value)],
        error: Option<&str>,
        exception: Option<&Exception>,
    ) {
        self.root(name, start_ns, attributes, error);
        if let (Some(exception), Some(root)) = (exception, self.commands.first()) {
            self.event_of(0, EventName::Exception, root.end, &attributes_of(exception));
        }
    }

    /// Work that was no command has ended, between two batches: a root of this name, in a trace of its own. `error`: a
    /// failure's type and text.
    #[cold]
    pub fn root(&mut self, name: SpanName, start_ns: u64, attributes: &[(Attribute, Value)], error: Option<&str>) {
        debug_assert!(self.commands.is_empty() && name != SpanName::Command, "between batches");
        if self.configured == 0 {
            return;
        }
        let end = self.now().max(start_ns);
        let (statement_at, statement_len) = self.stores_values(attributes);
        let mut record = CommandRecord { start: start_ns, name: name as u8, ..CommandRecord::default() };
        record.set_trace_id(self.ids.trace_id());
        record.span_id = self.ids.span_id().0;
        (record.statement_at, record.statement_len) = (statement_at, statement_len);
        self.commands.push(record);
        self.current = 0;
        let outcome = if error.is_some() { Outcome::Err } else { Outcome::Ok };
        self.store_result(outcome, error.unwrap_or_default().as_bytes(), end);
    }
}

fn attributes_of(exception: &Exception) -> Vec<(Attribute, Value)> {
    let text = |text: String| Value::Str(text.into());
    let mut attributes = vec![
        (Attribute::ExceptionType, Value::Str(exception.kind.as_str().into())),
        (Attribute::ExceptionMessage, text(exception.message.clone())),
    ];
    attributes.extend(exception.stack.as_ref().map(|stack| (Attribute::ExceptionStacktrace, text(stack.to_string()))));
    attributes
}
