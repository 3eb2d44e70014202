//! What one connection is to the commands: who it is, its database, its transaction, its trace context.

use std::sync::Arc;

use ferrite_keyspace::{Gate, Ticket, WatchSet};
use ferrite_resp::{ArgRange, Args, Protocol};
use ferrite_telemetry::RemoteContext;

use crate::echo::Echo;
use crate::host::Deferred;
use crate::spec::CommandSpec;

/// One connection's state. Owned by the connection's task and lent to each of its commands.
pub struct Session {
    pub id: u64,
    /// `ip:port` of the client and of the socket it came to, as CLIENT LIST shows them.
    pub addr: Box<str>,
    pub laddr: Box<str>,
    pub db: u32,
    pub protocol: Protocol,
    /// False until AUTH where a password is required.
    pub authenticated: bool,
    /// Empty: none.
    pub name: Vec<u8>,
    pub lib_name: Vec<u8>,
    pub lib_ver: Vec<u8>,
    /// Open from MULTI to EXEC or DISCARD.
    pub multi: Option<Queue>,
    /// The keys of WATCH, registered with the keyspace until EXEC, UNWATCH or the end of the connection.
    pub watched: WatchSet,
    pub reply_mode: ReplyMode,
    pub no_evict: bool,
    pub no_touch: bool,
    /// Set by OTEL.CONTEXT.
    pub context: ConnectionContext,
    /// The context that came with the command at hand (wrapper or attribute, else the connection's); the driver sets it
    /// before admission where a transaction is open: a queued command takes it along.
    pub command_context: Option<RemoteContext<'static>>,
    /// Every reply says which trace served it, since OTEL.CONTEXT RESPONSE ON.
    pub trace_responses: bool,
    /// The reply of the command at hand does.
    pub trace_response: bool,
    /// There is more data than `maxmemory` and none may go: commands that take memory are refused. Set by the driver before
    /// admission.
    pub out_of_memory: bool,
    /// Writes may be refused since no checkpoint can be taken: the host knows. Set by the driver before admission.
    pub writes_may_be_stopped: bool,
    /// What a command has waited for that counts keys; it takes it when it runs again.
    pub counted: Option<Arc<Ticket>>,
    /// Held by a transaction that counts keys until its end.
    pub(crate) gate: Option<Gate>,
    /// The data directory takes all that it may take; set by the driver as well.
    pub over_quota: bool,
    /// What the command that just ran leaves to the node; the node takes it and writes its reply.
    pub deferred: Option<Deferred>,
    /// The connection ends once its replies are written (QUIT, CLIENT KILL of itself).
    pub close_after_reply: bool,
    /// Lower-case name of the last command; `NULL` before the first.
    pub last_command: &'static str,
    /// The last error that repeated what the client sent.
    pub(crate) echo: Option<Echo>,
}

/// The commands of an open transaction.
#[derive(Default)]
pub struct Queue {
    pub commands: Vec<QueuedCommand>,
    /// A command was refused: EXEC answers EXECABORT.
    pub dirty: bool,
}

/// A command copied out of the input buffer.
pub struct QueuedCommand {
    pub spec: &'static CommandSpec,
    pub context: Option<RemoteContext<'static>>,
    bytes: Box<[u8]>,
    ranges: Box<[ArgRange]>,
}

impl QueuedCommand {
    pub fn new(spec: &'static CommandSpec, args: Args<'_>, context: Option<RemoteContext<'static>>) -> Self {
        let mut bytes = Vec::with_capacity(args.iter().map(<[u8]>::len).sum());
        let ranges = args
            .iter()
            .map(|arg| {
                let start = bytes.len();
                bytes.extend_from_slice(arg);
                start..bytes.len()
            })
            .collect();
        QueuedCommand { spec, context, bytes: bytes.into_boxed_slice(), ranges }
    }

    pub fn args(&self) -> Args<'_> {
        Args::new(&self.bytes, &self.ranges)
    }
}

/// CLIENT REPLY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyMode {
    #[default]
    On,
    Off,
    /// The command at hand was CLIENT REPLY SKIP: it and the next one stay unanswered.
    SkipNext,
    Skip,
}

/// The connection's own trace context.
#[derive(Clone, Debug, Default)]
pub enum ConnectionContext {
    #[default]
    None,
    /// For the next command only.
    Once(Told),
    /// Until cleared.
    Set(Told),
}

/// What a connection was told of its caller.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub context: RemoteContext<'static>,
    /// W3C's, as its header has it; empty if there is none.
    pub baggage: Box<[u8]>,
}

impl ConnectionContext {
    /// What is for the next command only. It is used up.
    pub fn take_once(&mut self) -> Option<Told> {
        if !matches!(self, ConnectionContext::Once(_)) {
            return None;
        }
        match std::mem::take(self) {
            ConnectionContext::Once(told) => Some(told),
            ConnectionContext::None | ConnectionContext::Set(_) => None,
        }
    }

    /// What holds until it is cleared.
    pub fn lasting(&self) -> Option<&Told> {
        match self {
            ConnectionContext::Set(told) => Some(told),
            ConnectionContext::None | ConnectionContext::Once(_) => None,
        }
    }
}

impl Session {
    /// A new connection. `authenticated`: no password is required.
    pub fn new(id: u64, addr: impl Into<Box<str>>, laddr: impl Into<Box<str>>, authenticated: bool) -> Self {
        Session {
            id,
            addr: addr.into(),
            laddr: laddr.into(),
            db: 0,
            protocol: Protocol::Resp2,
            authenticated,
            name: Vec::new(),
            lib_name: Vec::new(),
            lib_ver: Vec::new(),
            multi: None,
            watched: WatchSet::default(),
            reply_mode: ReplyMode::On,
            no_evict: false,
            no_touch: false,
            context: ConnectionContext::None,
            command_context: None,
            trace_responses: false,
            trace_response: false,
            out_of_memory: false,
            writes_may_be_stopped: false,
            counted: None,
            gate: None,
            over_quota: false,
            deferred: None,
            close_after_reply: false,
            last_command: "NULL",
            echo: None,
        }
    }

    /// To be called after each command: whether its reply is to be sent. What it wrote is dropped otherwise.
    pub fn end_command(&mut self) -> bool {
        match self.reply_mode {
            ReplyMode::On => true,
            ReplyMode::Off => false,
            ReplyMode::SkipNext => {
                self.reply_mode = ReplyMode::Skip;
                false
            }
            ReplyMode::Skip => {
                self.reply_mode = ReplyMode::On;
                false
            }
        }
    }

    /// Forgets the transaction and the watched keys.
    pub fn discard_transaction(&mut self) {
        self.multi = None;
        self.gate = None;
        self.watched.clear();
    }

    /// EXEC will answer EXECABORT.
    pub fn mark_dirty(&mut self) {
        if let Some(queue) = &mut self.multi {
            queue.dirty = true;
        }
    }
}
