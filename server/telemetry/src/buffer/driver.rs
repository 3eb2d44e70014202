//! What the session's driver calls while commands go through their stations.

use std::borrow::Cow;

use super::{
    ARENA_BYTES_MAX, COMMANDS_PER_BATCH_MAX, Checkpoint, ChildSlot, DiskSlot, ERROR_BYTES_MAX, NONE,
    STATEMENT_BYTES_MAX, SyncSlot, TraceBuffer, Wait,
};
use crate::context::{FLAG_RANDOM, FLAG_SAMPLED, RemoteContext, SpanId, TraceId};
use crate::record::{
    CHILD_FAILED, CommandRecord, DISCARDED, DISPATCHED, Detail, ERROR_CUT, EXECUTED, FINISHED, HAS_KEY, KEY_CUT,
    LEFT_OUT, LINKED, MORE_KEYS, PARSED, REMOTE, SERIALIZED, SpanRecord, WriteRecord,
};
use crate::redaction::{Keys, digits};
use crate::schema::{Outcome, SpanName, Tier};
use crate::values;

/// What the session's driver calls, in the order in which a command meets it.
impl TraceBuffer {
    /// Bytes are there: the first command begins now.
    #[inline]
    pub fn start_batch(&mut self) {
        if self.configured != 0 {
            self.mark = self.now();
        }
    }

    /// A command begins where the previous lap ended, before its bytes are parsed. It becomes the current one, as a new
    /// root until [`TraceBuffer::set_context`]. Gives its index for [`TraceBuffer::select`].
    pub fn begin_command(&mut self) -> usize {
        if self.configured == 0 {
            return 0;
        }
        if self.commands.len() >= COMMANDS_PER_BATCH_MAX || self.arena.len() >= ARENA_BYTES_MAX {
            self.lost += 1;
            self.current = NONE;
            self.level = 0;
            return usize::from(NONE);
        }
        let index = self.commands.len() as u16;
        let mut command = CommandRecord { start: self.mark, root: index, ..CommandRecord::default() };
        command.set_trace_id(self.ids.trace_id());
        command.span_id = self.ids.span_id().0;
        self.commands.push(command);
        self.current = index;
        self.refresh_level();
        usize::from(index)
    }

    /// The command's bytes are complete and parsed: `ferrite.resp.parse`. Directly after
    /// [`TraceBuffer::begin_command`].
    #[inline]
    pub fn parse(&mut self) {
        if self.level >= Detail::Storage as u8 {
            let (_, now) = self.lap_times();
            if let Some(command) = self.current_mut() {
                command.parse_end = now;
                command.flags |= PARSED;
            }
        }
    }

    /// The command came with a context: it continues that trace.
    pub fn set_context(&mut self, context: &RemoteContext<'_>) {
        if self.level == 0 {
            return;
        }
        let (at, len) = self.stores_text(context.tracestate.as_bytes(), usize::from(u16::MAX));
        let Some(rare) = self.rare_mut(self.current) else { return };
        rare.span_id = context.span_id.0;
        rare.trace_flags = context.flags;
        rare.deferred = context.deferred.into();
        (rare.tracestate_at, rare.tracestate_len) = (at, len);
        let Some(command) = self.current_mut() else { return };
        command.set_trace_id(context.trace_id);
        command.flags |= REMOTE;
    }

    /// What is taken of the caller's baggage: attributes of every span of the current command, and of those below it. No key
    /// comes twice.
    pub fn set_baggage<'b>(&mut self, members: impl Iterator<Item = (&'b str, Cow<'b, str>)>) {
        if self.level == 0 || self.current().is_none() {
            return;
        }
        let at = self.arena.len();
        values::put_baggage(members, &mut self.arena);
        let len = self.arena.len() - at;
        if len == 0 {
            return;
        }
        let Some(rare) = self.rare_mut(self.current) else { return };
        (rare.baggage_at, rare.baggage_len) = (at as u32, len as u16);
    }

    /// What the command is: `name` is the normalised name (`GET`, `CONFIG SET`) and `words` how many arguments it stands
    /// for, `argc` counts all arguments with those, `keys` are its keys. Values are never stored.
    #[inline]
    pub fn describe<'k>(&mut self, name: &str, words: usize, argc: usize, keys: impl IntoIterator<Item = &'k [u8]>) {
        if self.level == 0 || self.current().is_none() {
            return;
        }
        let redacted = self.keys;
        match redacted {
            Keys::Shown => self.statement(name, words, argc, keys),
            Keys::Hashed { salt } => {
                let hashed = keys.into_iter().map(|key| digits(salt, key));
                self.statement(name, words, argc, hashed);
            }
            Keys::Dropped => self.statement(name, words, argc, std::iter::empty::<&[u8]>()),
        }
    }

    #[inline]
    fn statement(&mut self, name: &str, words: usize, argc: usize, keys: impl IntoIterator<Item = impl AsRef<[u8]>>) {
        let at = self.arena.len();
        let name = &name.as_bytes()[..name.len().min(usize::from(u8::MAX))];
        self.arena.extend_from_slice(name);
        let mut named = words;
        let mut key_len = None;
        self.key_lens.clear();
        let mut key_cut = false;
        for key in keys {
            let key = key.as_ref();
            let room = STATEMENT_BYTES_MAX.saturating_sub(self.arena.len() - at + 1);
            let kept = &key[..key.len().min(room)];
            if key_len.is_none() || !kept.is_empty() {
                self.arena.push(b' ');
                self.arena.extend_from_slice(kept);
                match key_len {
                    None => key_len = Some(kept.len()),
                    Some(_) => self.key_lens.push(kept.len() as u16),
                }
            }
            if kept.len() < key.len() {
                key_cut = named == words;
                break;
            }
            named += 1;
        }
        let statement_len = (self.arena.len() - at) as u16;
        if !self.key_lens.is_empty() {
            self.arena.extend_from_slice(&(self.key_lens.len() as u16).to_le_bytes());
            self.arena.extend(self.key_lens.iter().flat_map(|len| len.to_le_bytes()));
        }
        let Some(command) = self.commands.get_mut(usize::from(self.current)) else { return };
        if !self.key_lens.is_empty() {
            command.flags |= MORE_KEYS;
        }
        command.statement_at = at as u32;
        command.statement_len = statement_len;
        command.name_len = name.len() as u8;
        command.argc = argc as u32;
        if let Some(key_len) = key_len {
            command.key_len = key_len as u16;
            command.flags |= HAS_KEY | if key_cut { KEY_CUT } else { 0 };
        }
        if named < argc {
            command.flags |= LEFT_OUT;
        }
    }

    /// The command was looked up and admitted: `ferrite.command.dispatch`.
    #[inline]
    pub fn dispatch(&mut self) {
        if self.level >= Detail::Full as u8 {
            let (start, now) = self.lap_times();
            if let Some(command) = self.current_mut() {
                command.before_dispatch = command.records;
                (command.dispatch_start, command.dispatch_end) = (start, now);
                command.flags |= DISPATCHED;
            }
        } else if self.level != 0 {
            self.mark = self.now();
        }
    }

    /// The worker has pinned the epoch for what follows.
    #[inline]
    pub fn pinned(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// The command function is about to be called: `ferrite.command.execute` opens. Directly after
    /// [`TraceBuffer::dispatch`].
    #[inline]
    pub fn execute_open(&mut self) {
        if self.level == 0 {
            self.mark = self.now();
        }
        self.exec_start = self.mark;
        self.exec_ns = 0;
        self.executing = true;
        if self.level >= Detail::Full as u8
            && let Some(command) = self.current_mut()
        {
            command.flags |= EXECUTED;
        }
    }

    /// Remembers what the current command has recorded, before a run that may pause.
    pub fn checkpoint(&self) -> Checkpoint {
        let root = self.current().map(|command| &self.commands[usize::from(command.root)]);
        Checkpoint {
            records: self.records.len(),
            commands: self.commands.len(),
            rare: self.rare.len(),
            events: self.events.len(),
            arena: self.arena.len(),
            current: self.current,
            tree_records: root.map_or(0, |root| root.records),
            nested: root.map_or(0, |root| root.nested),
            spans_dropped: root.map_or(0, |root| root.spans_dropped),
        }
    }

    /// Forgets what an abandoned run recorded. Only the command of the checkpoint may have recorded since.
    pub fn rollback(&mut self, checkpoint: Checkpoint) {
        self.records.truncate(checkpoint.records);
        self.commands.truncate(checkpoint.commands);
        self.events.truncate(checkpoint.events);
        // Those of nested commands: a command gets its own before it runs, or while it waits.
        self.rare.truncate(checkpoint.rare);
        self.arena.truncate(checkpoint.arena);
        self.current = checkpoint.current;
        if let Some(root) = self.current().map(|command| usize::from(command.root)) {
            self.commands[root].records = checkpoint.tree_records;
            self.commands[root].nested = checkpoint.nested;
            self.commands[root].spans_dropped = checkpoint.spans_dropped;
            self.commands[root].flags &= !CHILD_FAILED;
        }
        self.muted = false;
        self.refresh_level();
    }

    /// The current command stops being executed until [`TraceBuffer::resume`].
    pub fn pause(&mut self, wait: Wait) {
        let now = self.now();
        self.mark = now;
        self.exec_ns += now.saturating_sub(self.exec_start);
        self.paused = Some((wait, now));
    }

    /// The paused command goes on; it must be the current one again.
    pub fn resume(&mut self) {
        let now = self.now();
        if let Some((wait, since)) = self.paused.take() {
            // What a recorded command's own reads took is added when it ends; of another all of the wait counts.
            if wait == Wait::Space || self.level == 0 {
                self.exec_ns += now.saturating_sub(since);
            }
        }
        self.mark = now;
        self.exec_start = now;
    }

    /// Makes another command of the batch the current one, so that its spans go there.
    pub fn select(&mut self, command: usize) {
        self.current = u16::try_from(command).unwrap_or(NONE);
        self.refresh_level();
    }

    /// A disk read of the current command is about to be submitted.
    pub fn disk_read_open(&mut self) -> DiskSlot {
        let mut slot = DiskSlot { owner: NONE, opened: self.mark, record: None };
        if self.level == 0 {
            return slot;
        }
        slot.owner = self.current;
        let epoch = self.epoch;
        if let Some(rare) = self.rare_mut(self.current) {
            rare.epoch = epoch;
        }
        if self.level >= Detail::Storage as u8 {
            let record = SpanRecord::open(SpanName::StorageRead, self.current, self.mark, 0).with_tier(Tier::Disk);
            slot.record = self.push(record);
        }
        slot
    }

    /// The read completed; whichever command is current. The times are the driver's: a read that was shared began, for
    /// this command, no earlier than it was opened. `bytes`: the value's size, `None` if the record was not the key's.
    pub fn disk_read_close(
        &mut self,
        slot: DiskSlot,
        submitted: u64,
        completed: u64,
        bytes: Option<usize>,
        submission: u64,
    ) {
        let start = slot.opened.max(submitted);
        let end = completed.max(start);
        if let Some(record) = slot.record.and_then(|at| self.records.get_mut(at as usize)) {
            record.start = start;
            record.close(end);
            record.arg = submission;
            if let Some(bytes) = bytes {
                *record = record.with_bytes(bytes);
            }
        }
        if let Some(rare) = self.rare_mut(slot.owner) {
            let none_before = rare.wait_start == 0 && rare.wait_end == 0;
            rare.wait_start = if none_before { start } else { rare.wait_start.min(start) };
            rare.wait_end = rare.wait_end.max(end);
        }
    }

    /// Under `always`: the command's effects are appended, and its reply will wait until they are durable. The span
    /// begins where the last lap ended; call this before [`TraceBuffer::finish_command`].
    pub fn aof_sync_open(&mut self) -> SyncSlot {
        if self.level < Detail::Full as u8 {
            return SyncSlot(None);
        }
        SyncSlot(self.push(SpanRecord::open(SpanName::AofSync, self.current, self.mark, 0)))
    }

    /// The AOF is durable (`now`: a reading of the clock that many commands may share).
    pub fn aof_sync_close(&mut self, slot: SyncSlot, now: u64) {
        if let Some(record) = slot.0.and_then(|slot| self.records.get_mut(slot as usize)) {
            record.close(now);
            self.mark = self.mark.max(now);
        }
    }

    /// A queued command of the current one (EXEC) begins; it is described with [`TraceBuffer::describe`] and ended with
    /// [`TraceBuffer::finish_child`]. The context it was sent with becomes a link.
    pub fn begin_child(&mut self, context: Option<&RemoteContext<'_>>) -> ChildSlot {
        let level = self.level;
        if level < Detail::Storage as u8 {
            // Its parts must not be taken for its parent's.
            self.level = 0;
            return ChildSlot { child: None, level };
        }
        let index = self.commands.len() as u16;
        let record = SpanRecord::open(SpanName::Command, self.current, self.mark, u64::from(index));
        let pushed = if self.commands.len() < COMMANDS_PER_BATCH_MAX { self.push(record) } else { None };
        let Some(at) = pushed else {
            self.level = 0;
            return ChildSlot { child: None, level };
        };
        let flags = if context.is_some() { LINKED } else { 0 };
        self.commands.push(CommandRecord { start: self.mark, root: self.root, flags, ..CommandRecord::default() });
        if let Some(context) = context
            && let (at, len) = self.stores_text(context.tracestate.as_bytes(), usize::from(u16::MAX))
            && let Some(rare) = self.rare_mut(index)
        {
            (rare.tracestate_at, rare.tracestate_len) = (at, len);
            rare.trace_id = [(context.trace_id.0 >> 64) as u64, context.trace_id.0 as u64];
            rare.span_id = context.span_id.0;
            rare.trace_flags = context.flags;
        }
        self.commands[usize::from(self.root)].nested += 1;
        let parent = std::mem::replace(&mut self.current, index);
        ChildSlot { child: Some((parent, at)), level }
    }

    /// The nested command has its reply; its parent is the current command again.
    pub fn finish_child(&mut self, slot: ChildSlot, outcome: Outcome, error: &[u8]) {
        // Of one that is not recorded, too: its trace is told apart by it.
        if outcome == Outcome::Err
            && slot.level != 0
            && let Some(root) = self.commands.get_mut(usize::from(self.root))
        {
            root.flags |= CHILD_FAILED;
        }
        if let Some((parent, at)) = slot.child {
            let (_, now) = self.lap_times();
            self.store_result(outcome, error, now);
            self.records[at as usize].close(now);
            self.current = parent;
        }
        self.level = slot.level;
    }

    pub(super) fn store_result(&mut self, outcome: Outcome, error: &[u8], now: u64) {
        let (at, len) = if error.is_empty() { (0, 0) } else { self.stores_text(error, ERROR_BYTES_MAX) };
        let Some(command) = self.current_mut() else { return };
        (command.error_at, command.error_len) = (at, len);
        command.result = outcome as u8;
        command.end = now;
        command.flags |= FINISHED | if error.len() > ERROR_BYTES_MAX { ERROR_CUT } else { 0 };
    }

    /// The current command has its reply: `ferrite.resp.serialize`, and `ferrite.command.execute` closes if it was opened.
    /// `error` is the reply's text without its `-`, empty if it is none; `offset` the AOF position. Gives the execution
    /// time in nanoseconds, waits for the disk included: what SLOWLOG and `ferrite.command.duration` report. Zero if the
    /// command was not executed.
    pub fn finish_command(&mut self, outcome: Outcome, error: &[u8], offset: u64) -> u64 {
        if self.muted {
            self.mute(false);
        }
        if self.level == 0 && !self.executing {
            return 0;
        }
        let (start, now) = self.lap_times();
        let mut execution_ns = 0;
        if std::mem::take(&mut self.executing) {
            execution_ns = self.exec_ns + now.saturating_sub(self.exec_start);
        }
        if self.level != 0 {
            self.store_result(outcome, error, now);
            let full = self.level >= Detail::Full as u8;
            let Some(command) = self.commands.get_mut(usize::from(self.current)) else { return execution_ns };
            if let Some(rare) = usize::from(command.rare).checked_sub(1).and_then(|rare| self.rare.get(rare)) {
                execution_ns += rare.wait_end - rare.wait_start;
            }
            if full {
                command.serialize_start = start;
                command.flags |= SERIALIZED;
            }
            command.execution_ns = execution_ns;
            command.offset = offset;
        }
        execution_ns
    }

    /// The replies of every finished command were written: `ferrite.net.write`, from the last lap on, and their roots end.
    pub fn net_write(&mut self) {
        if self.configured == 0 {
            return;
        }
        let (start, end) = self.lap_times();
        let before = self.unwritten;
        while let Some(command) = self.commands.get(self.unwritten) {
            let nested = usize::from(command.root) != self.unwritten;
            if !nested && !command.has(FINISHED) && !command.has(DISCARDED) {
                break;
            }
            self.unwritten += 1;
        }
        if self.unwritten > before {
            self.writes.push(WriteRecord { until: self.unwritten as u64, start, end, reserved: 0 });
        }
    }

    /// The current command is neither shown by the ring nor exported.
    pub fn discard(&mut self) {
        if let Some(command) = self.current_mut() {
            command.flags |= DISCARDED;
        }
        self.refresh_level();
    }

    /// The trace and the span of the current command, for a log line or SLOWLOG; `None` if it is not recorded.
    pub fn ids(&self) -> Option<(TraceId, SpanId)> {
        if self.level == 0 {
            return None;
        }
        let command = self.current()?;
        let root = &self.commands[usize::from(command.root)];
        Some((root.trace_id(), SpanId(root.span_id)))
    }

    /// What the current command's caller sent under this key of its baggage, if that is taken; for a log line.
    pub fn baggage(&self, key: &str) -> Option<&[u8]> {
        if self.level == 0 {
            return None;
        }
        let root = &self.commands[usize::from(self.current()?.root)];
        let rare = self.rare.get(usize::from(root.rare).checked_sub(1)?)?;
        let at = rare.baggage_at as usize;
        values::baggage_value(&self.arena[at..at + usize::from(rare.baggage_len)], key)
    }

    /// Whether the caller of a command was sampled; `None` without a caller, or if it leaves that to us.
    #[inline]
    pub(crate) fn remote_parent_sampled(&self, command: usize) -> Option<bool> {
        let command = self.commands.get(command)?;
        let rare = self.rare.get(usize::from(command.rare).checked_sub(1)?)?;
        (command.has(REMOTE) && rare.deferred == 0).then_some(rare.trace_flags & FLAG_SAMPLED != 0)
    }

    /// The root of the current command's tree; `None` if it is not recorded.
    pub(crate) fn current_root(&self) -> Option<usize> {
        if self.level == 0 { None } else { Some(usize::from(self.current()?.root)) }
    }

    /// The `random` bit of the current command's trace.
    pub(crate) fn current_random_flag(&self) -> u8 {
        let Some(command) = self.current().filter(|command| command.has(REMOTE)) else { return FLAG_RANDOM };
        let rare = usize::from(command.rare).checked_sub(1).and_then(|at| self.rare.get(at));
        rare.map_or(0, |rare| rare.trace_flags & FLAG_RANDOM)
    }

    /// The root carries on another tracestate than it came with.
    pub(crate) fn set_tracestate(&mut self, root: usize, tracestate: &str) {
        let (at, len) = self.stores_text(tracestate.as_bytes(), usize::from(u16::MAX));
        if let Some(rare) = self.rare_mut(root as u16) {
            (rare.tracestate_at, rare.tracestate_len) = (at, len);
        }
    }

    /// Which tiers each root's tree visited, a bit each, by the root's index.
    pub(crate) fn tiers(&self, out: &mut Vec<u8>) {
        out.clear();
        out.resize(self.commands.len(), 0);
        for record in &self.records {
            if record.is(SpanName::StorageRead) || record.is(SpanName::StorageWrite) {
                let root = self.commands[usize::from(record.owner())].root;
                out[usize::from(root)] |= 1 << record.tier() as u8;
            }
        }
    }

    /// The last mark: a reading of the clock that is already there.
    pub fn mark(&self) -> u64 {
        self.mark
    }
}
