//! The driver of a batch: prefetch, then commit. Commands run synchronously and in order; only between two of them, or
//! when one asks for more before it has changed anything, does the connection wait.

use std::sync::atomic::Ordering::Relaxed;

use ferrite_commands::call::{Env, execute, keys_of};
use ferrite_commands::spec::flag;
use ferrite_commands::{Admission, CommandSpec, Deferred, admit, otel, table};
use ferrite_hybridlog::aof::FsyncPolicy;
use ferrite_hybridlog::{NeedReason, NeedSpace, Pinned};
use ferrite_io::{Clock, World};
use ferrite_keyspace::{Pause, Room};
use ferrite_resp::{Args, Protocol, Reply};
use ferrite_telemetry::schema::REQUEST_ID;
use ferrite_telemetry::{Checkpoint, Outcome, Wait};

use crate::command_log;
use crate::config::LogCommands;
use crate::context;
use crate::deferred;
use crate::evict;
use crate::failure::Failure;
use crate::host::NodeHost;
use crate::node::Node;
use crate::prefetch;
use crate::session::{Connection, OUTPUT_FLUSH_BYTES};
use crate::unseen;

/// Where a batch stands between two synchronous stretches.
#[derive(Default)]
struct Progress {
    /// The next command.
    at: usize,
    /// There is room for the command at `at`, or it is known that there is none.
    looked_for_room: bool,
    /// The command at `at` was admitted and has paused.
    paused: Option<Paused>,
    /// The read cache was asked for what the batch's keys lead to.
    asked_cache: bool,
}

/// A command that waits.
struct Paused {
    spec: &'static CommandSpec,
    /// What its trace held before its first run.
    checkpoint: Checkpoint,
    /// Bytes of the wrapper before its own name, in arguments.
    skip: usize,
    /// It has waited for its keys before.
    waited: bool,
    /// How often it was tried again because what it had waited for was not enough.
    retries: u32,
}

/// Why a synchronous stretch ended.
enum Stop {
    Done,
    Pause(Pause),
    Deferred(Deferred, &'static CommandSpec),
    /// Enough replies have gathered.
    Output,
    /// There is more data than the next command may find.
    MakeRoom,
}

impl<W: World> Connection<W> {
    /// Runs the first `count` commands, or those up to one that ends the connection, and writes their replies. False: the
    /// client cannot be written to.
    pub(crate) async fn run_batch(&mut self, count: usize) -> bool {
        let mut progress = Progress::default();
        let alive = self.drive(&mut progress, count).await;
        self.tally.commands += progress.at as u64;
        self.forget(progress.at, count);
        alive && self.finish_batch().await
    }

    /// Commands `from..count` never ran, since the connection ends before them: what was begun when they were parsed is
    /// no trace.
    fn forget(&mut self, from: usize, count: usize) {
        for pending in &self.commands[from..count] {
            self.trace.select(pending.trace);
            self.trace.discard();
        }
    }

    /// Runs the batch. False: the client cannot be written to.
    async fn drive(&mut self, progress: &mut Progress, count: usize) -> bool {
        loop {
            match self.run_stretch(progress, count) {
                Stop::Done => return true,
                Stop::Output => {
                    if !self.flush().await {
                        return false;
                    }
                }
                Stop::MakeRoom => self.make_room(progress).await,
                Stop::Pause(pause) => self.wait(pause, progress, count).await,
                Stop::Deferred(deferred, spec) => {
                    // What was asked before it is answered before it: SHUTDOWN and DEBUG SLEEP may take their time.
                    if !self.flush().await {
                        // It has been called, though nothing came of it.
                        progress.at += 1;
                        return false;
                    }
                    let start = self.output.len();
                    deferred::perform(self, deferred).await;
                    self.finish(progress, start, Some(spec));
                }
            }
        }
    }

    /// Runs commands until one of them needs something that takes time. The epoch is pinned once.
    fn run_stretch(&mut self, progress: &mut Progress, count: usize) -> Stop {
        let worker = self.worker.clone();
        let node = &*worker.node;
        let clock = worker.world.clock();
        let unix_ns = clock.unix_ns();
        let proto_max_bulk_len = node.live.proto_max_bulk_len.load(Relaxed) as usize;
        let host = NodeHost { node, unix_ns, monotonic_ns: self.trace.mark() };
        let limits = &node.databases.limits;
        self.session.writes_may_be_stopped = node.writes_are_stopped();
        worker.handle.set_access_clock((unix_ns / 1_000_000_000) as u32, limits.access_mode());
        let mut pinned = worker.handle.pin();
        let mut scratch = worker.scratch.borrow_mut();
        self.trace.pinned(pinned.epoch());
        if progress.at == 0 {
            self.prefetch_memory(&pinned, count);
        }
        self.session.over_quota = node.is_over_quota();
        let stop = loop {
            if progress.at == count || self.session.close_after_reply {
                break Stop::Done;
            }
            if self.output.len() >= OUTPUT_FLUSH_BYTES {
                break Stop::Output;
            }
            if progress.paused.is_none() && !progress.looked_for_room {
                match node.databases.room() {
                    Room::Evict => break Stop::MakeRoom,
                    Room::Full if !node.databases.unseen.is_empty() => break Stop::MakeRoom,
                    room => self.session.out_of_memory = room == Room::Full,
                }
            }
            let Connection { commands, input, session, trace, output, held, .. } = self;
            let pending = &commands[progress.at];
            let all = pending.parsed.args(&input[pending.at..]);
            let reply_start = output.len();
            let (spec, skip) = match &progress.paused {
                Some(paused) => {
                    trace.select(pending.trace);
                    trace.resume();
                    (paused.spec, paused.skip)
                }
                None => {
                    trace.select(pending.trace);
                    let attributes = pending.parsed.attributes(&input[pending.at..]);
                    let skip = context::resolve(all, attributes, session, trace, &node.context_in);
                    let args = all.from(skip);
                    let mut reply = Reply::new(output, session.protocol);
                    match admit(args, session, &mut reply, &host) {
                        Admission::Run(spec) => {
                            session.last_command = spec.name;
                            describe(trace, spec, args);
                            trace.dispatch();
                            trace.execute_open();
                            (spec, skip)
                        }
                        Admission::Answered => {
                            describe_answered(trace, args);
                            trace.dispatch();
                            self.finish(progress, reply_start, None);
                            continue;
                        }
                    }
                }
            };
            let checkpoint = match &progress.paused {
                Some(paused) => paused.checkpoint,
                None => trace.checkpoint(),
            };
            if let Some((space, hash)) = pending.hashed {
                scratch.expect(all.get(1), space, hash);
            }
            let mut env = Env {
                pinned: &mut pinned,
                held,
                trace,
                databases: &node.databases,
                aof: node.aof().map(|aof| &**aof),
                host: &host,
                now_ms: unix_ns / 1_000_000,
                scratch: &mut scratch,
                proto_max_bulk_len,
            };
            let reply = Reply::new(output, session.protocol);
            match execute(spec, &mut env, all.from(skip), session, reply) {
                Ok(()) => match session.deferred.take() {
                    Some(deferred) => break Stop::Deferred(deferred, spec),
                    None => self.finish(progress, reply_start, Some(spec)),
                },
                Err(pause) => {
                    output.truncate(reply_start);
                    if let Pause::Refused(error) = pause {
                        Reply::new(output, session.protocol).error(error);
                        self.finish(progress, reply_start, Some(spec));
                        continue;
                    }
                    let (waited, retries) =
                        progress.paused.as_ref().map_or((false, 0), |paused| (paused.waited, paused.retries));
                    progress.paused = Some(Paused { spec, checkpoint, skip, waited, retries });
                    if matches!(pause, Pause::Keys) && self.finds_in_cache(progress, &pinned, count) {
                        continue;
                    }
                    break Stop::Pause(pause);
                }
            }
        };
        node.databases.absorb(&mut scratch);
        stop
    }

    /// Looks into the read cache for what the paused command needs, and for those behind it while it is at it. True: the
    /// command is to be run again.
    #[cold]
    fn finds_in_cache(&mut self, progress: &mut Progress, pinned: &Pinned<'_>, count: usize) -> bool {
        let paused = progress.paused.as_mut().expect("a command has just paused");
        // What the batch finds there it has found at its first miss.
        if !self.worker.node.store.read_cache.is_on() || std::mem::replace(&mut progress.asked_cache, true) {
            return false;
        }
        self.trace.rollback(paused.checkpoint);
        self.trace.pause(Wait::Disk);
        let found = prefetch::from_cache(self, pinned, progress.at, count);
        // What was recorded stays, whatever becomes of the next run.
        paused.checkpoint = self.trace.checkpoint();
        found
    }

    /// Brings what the batch's keys lead to into the cache, all index buckets and then all records, so that their misses
    /// overlap. The first argument stands for the key: where a command has another one, a line is fetched in vain, which
    /// costs less than a look at the table for each.
    fn prefetch_memory(&mut self, pinned: &Pinned<'_>, count: usize) {
        let space = self.worker.node.databases.space(self.session.db);
        let input = &self.input;
        for pending in &mut self.commands[..count] {
            let args = pending.parsed.args(&input[pending.at..]);
            pending.hashed = (args.len() > 1).then(|| {
                let hash = pinned.key(space, args.get(1)).hash;
                pinned.prefetch(hash);
                (space, hash)
            });
        }
        // One command alone: its bucket is on its way while it is looked up in the table, its record has to wait for that.
        if count > 1 {
            for (_, hash) in self.commands[..count].iter().filter_map(|pending| pending.hashed) {
                pinned.prefetch_record(hash);
            }
        }
    }

    /// The command at hand has its reply, from `reply_start` on.
    fn finish(&mut self, progress: &mut Progress, reply_start: usize, spec: Option<&'static CommandSpec>) {
        progress.paused = None;
        progress.looked_for_room = false;
        self.held.release();
        let worker = &*self.worker;
        let node = &*worker.node;
        let at = progress.at;
        progress.at += 1;
        let (outcome, error) = outcome_of(&self.output[reply_start..]);
        let mut position = 0;
        if let Some(aof) = node.aof() {
            position = aof.position();
            if aof.policy() == FsyncPolicy::Always && position > aof.durable() {
                self.syncs.push(self.trace.aof_sync_open());
            }
        }
        let mut recorded = error;
        if outcome == Outcome::Err {
            worker.stats().errors.add(1);
            node.count_error(error);
            recorded = self.session.recorded_error(error);
        }
        let execution_ns = self.trace.finish_command(outcome, recorded, position);
        worker.stats().commands.add(1);
        if let Some(spec) = spec {
            let failed = outcome == Outcome::Err;
            if let Some(bucket) = node.telemetry.metrics.command(worker.id, spec.index(), execution_ns, failed) {
                self.trace.exemplar(spec.index(), bucket, execution_ns);
            }
            let duration_us = execution_ns / 1000;
            let slow = node.slowlog.takes(duration_us) && !spec.has(flag::SKIP_SLOWLOG);
            let logged = match node.config.logging.commands {
                LogCommands::Off => false,
                LogCommands::Slow => slow,
                LogCommands::All => true,
            };
            if slow || logged {
                self.log_command(spec, at, duration_us, outcome, slow, logged);
            }
        }
        if self.session.end_command() {
            self.unanswered += 1;
            if self.session.trace_responses || self.session.trace_response {
                self.add_trace_response(reply_start);
            }
        } else {
            self.output.truncate(reply_start);
        }
    }

    /// Puts in front of a reply which trace served it.
    #[cold]
    fn add_trace_response(&mut self, reply_start: usize) {
        self.session.trace_response = false;
        let Some(traceresponse) = self.worker.recorder.borrow_mut().traceresponse(&mut self.trace) else { return };
        if self.session.protocol == Protocol::Resp3 {
            let mut attribute = Vec::new();
            otel::write_trace_response(&mut Reply::new(&mut attribute, Protocol::Resp3), &traceresponse);
            self.output.splice(reply_start..reply_start, attribute);
        }
    }

    /// Keys go before the next command is admitted. The time this takes is nobody's command.
    async fn make_room(&mut self, progress: &mut Progress) {
        self.session.out_of_memory = !evict::make_room(&self.worker).await;
        progress.looked_for_room = true;
        self.trace.resume();
    }

    /// Writes the command that just ended into SLOWLOG, the log, or both.
    #[cold]
    fn log_command(
        &mut self,
        spec: &'static CommandSpec,
        at: usize,
        duration_us: u64,
        outcome: Outcome,
        slow: bool,
        logged: bool,
    ) {
        let pending = &self.commands[at];
        let all = pending.parsed.args(&self.input[pending.at..]);
        // The command as it ran, without the wrapper that it may have come in.
        let args = all.from(otel::unwrap(all).map_or(0, |wrapped| wrapped.skip));
        let ids = self.trace.ids();
        let (node, session) = (&self.worker.node, &self.session);
        if logged {
            let request_id = self.trace.baggage(REQUEST_ID);
            let caller = command_log::Caller { client: &session.addr, ids, request_id };
            command_log::write(spec, args, duration_us, outcome, caller, node);
        }
        if slow {
            let trace = self.trace.pin(&node.pins);
            let unix_s = self.worker.world.clock().unix_ns() / 1_000_000_000;
            node.slowlog.record(args, duration_us, unix_s, &session.addr, &session.name, trace);
        }
    }

    /// Waits for what a command has asked for; afterwards it is run again.
    async fn wait(&mut self, pause: Pause, progress: &mut Progress, count: usize) {
        let checkpoint = progress.paused.as_ref().expect("a paused command").checkpoint;
        let command = self.commands[progress.at].trace;
        self.trace.select(command);
        let began_ns = self.worker.now_ns();
        let for_keys = matches!(pause, Pause::Keys);
        let for_space = matches!(pause, Pause::Space(_));
        match pause {
            Pause::Keys => {
                self.trace.rollback(checkpoint);
                self.trace.pause(Wait::Disk);
                if let Err(failure) = prefetch::keys(self, progress.at, count).await {
                    self.refuse(progress, failure);
                }
            }
            Pause::Records(addresses) => {
                self.trace.rollback(checkpoint);
                self.trace.pause(Wait::Disk);
                if let Err(failure) = prefetch::records(self, &addresses, true).await {
                    self.refuse(progress, failure);
                }
            }
            Pause::Headers(addresses) => {
                self.trace.rollback(checkpoint);
                self.trace.pause(Wait::Disk);
                if let Err(failure) = prefetch::records(self, &addresses, false).await {
                    self.refuse(progress, failure);
                }
            }
            Pause::Part { address, range } => {
                self.trace.rollback(checkpoint);
                self.trace.pause(Wait::Disk);
                if let Err(error) = prefetch::part(self, address, range).await {
                    self.refuse(progress, error);
                }
            }
            Pause::Counts { ticket, patience } => {
                self.trace.rollback(checkpoint);
                self.trace.pause(Wait::Disk);
                match unseen::wait(&self.worker, &ticket, patience).await {
                    Ok(()) => self.session.counted = Some(ticket),
                    Err(error) => {
                        let Failure { text, exception } = error.into();
                        let text = format!("keys cannot be counted for now: {text}");
                        self.refuse(progress, Failure { text, exception });
                    }
                }
            }
            Pause::Space(need) => {
                self.trace.rollback(checkpoint);
                self.trace.pause(Wait::Space);
                if let Err(error) = wait_for_space(&self.worker.node, need).await {
                    self.refuse(progress, error);
                }
            }
            Pause::Refused(_) => unreachable!("answered where it ran"),
        }
        // What was recorded while it waited stays, whatever becomes of the next run.
        self.trace.select(command);
        if let Some(paused) = &mut progress.paused {
            // To wait for a key once is how a command reads from disk; to wait for it again, or for room, is to try again.
            if for_space || for_keys && std::mem::replace(&mut paused.waited, true) {
                paused.retries += 1;
                let now_ns = self.worker.now_ns();
                self.trace.retry(paused.retries, now_ns - began_ns, now_ns);
            }
            paused.checkpoint = self.trace.checkpoint();
        }
    }

    /// The paused command cannot go on: it is answered with an error, having changed nothing.
    fn refuse(&mut self, progress: &mut Progress, failure: Failure) {
        let start = self.output.len();
        Reply::new(&mut self.output, self.session.protocol).error(format!("ERR {}", failure.text));
        let spec = progress.paused.as_ref().map(|paused| paused.spec);
        if self.session.multi.is_some() {
            // Of what may come between MULTI and EXEC only EXEC pauses: it ends the transaction whatever it is answered.
            self.session.discard_transaction();
        }
        self.trace.select(self.commands[progress.at].trace);
        self.trace.resume();
        if let Some(exception) = failure.exception {
            self.record_exception(exception);
        }
        self.finish(progress, start, spec);
    }
}

/// Waits for what a write lacked; the failure says why waiting does not help.
pub(crate) async fn wait_for_space(node: &Node, need: NeedSpace) -> Result<(), Failure> {
    match need.reason {
        NeedReason::AofFile => {
            let aof = node.aof().expect("a need of AOF space comes from an AOF");
            Ok(aof.wait_for_space(need.bytes).await?)
        }
        NeedReason::Memory
        | NeedReason::LogFile
        | NeedReason::ObjectMemory
        | NeedReason::ObjectFile
        | NeedReason::ObjectUnwritten { .. }
        | NeedReason::ObjectShared { .. }
        | NeedReason::ValueTooLarge { .. }
        | NeedReason::BurstTooLarge { .. } => Ok(node.store.wait_for_space(&need).await?),
    }
}

fn describe(trace: &mut ferrite_telemetry::TraceBuffer, spec: &'static CommandSpec, args: Args<'_>) {
    if trace.is_on() {
        trace.describe(spec.trace_name(), spec.words(), args.len(), keys_of(spec, args).map(|at| args.get(at)));
    }
}

/// A command that was queued or refused, or is not in the table: the name of that one is the client's, so it is not taken
/// for one. Where keys lie is known only if the number of arguments is right.
fn describe_answered(trace: &mut ferrite_telemetry::TraceBuffer, args: Args<'_>) {
    if !trace.is_on() {
        return;
    }
    match table::resolve(args) {
        Some(spec) if spec.arity_allows(args.len()) => describe(trace, spec, args),
        Some(spec) => trace.describe(spec.trace_name(), spec.words(), args.len(), std::iter::empty()),
        None => trace.describe("UNKNOWN", 1, args.len(), std::iter::empty()),
    }
}

/// What the reply says of the command: an error with its text, a null, or success.
fn outcome_of(reply: &[u8]) -> (Outcome, &[u8]) {
    match reply {
        [b'-', text @ ..] => {
            let end = text.iter().position(|&byte| byte == b'\r').unwrap_or(text.len());
            (Outcome::Err, &text[..end])
        }
        b"$-1\r\n" | b"*-1\r\n" | b"_\r\n" => (Outcome::Nil, b""),
        _ => (Outcome::Ok, b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_is_read_off_the_reply() {
        assert_eq!(outcome_of(b"-ERR no\r\n"), (Outcome::Err, b"ERR no".as_slice()));
        assert_eq!(outcome_of(b"$-1\r\n"), (Outcome::Nil, b"".as_slice()));
        assert_eq!(outcome_of(b"_\r\n"), (Outcome::Nil, b"".as_slice()));
        assert_eq!(outcome_of(b"$2\r\n-1\r\n"), (Outcome::Ok, b"".as_slice()));
        assert_eq!(outcome_of(b""), (Outcome::Ok, b"".as_slice()));
    }
}
