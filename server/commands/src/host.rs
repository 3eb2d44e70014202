//! What the commands ask of the node: cold paths only, hence one object behind `dyn`.

use std::borrow::Cow;
use std::time::Duration;

use ferrite_telemetry::{TraceFilter, TraceId};

use crate::server::info::InfoSnapshot;
use crate::server::slowlog::Slowlog;

/// What a command leaves to the node to do asynchronously after it returned `Ok`. The command has written nothing; the
/// node writes the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deferred {
    /// Gather from every worker, then [`crate::otel::write_traces`].
    Traces(TracesQuery),
    Shutdown(Shutdown),
    /// DEBUG SLEEP: then `+OK`. Only this connection waits.
    Sleep(Duration),
    /// Write the configuration back to its file, then [`crate::server::config::write_rewritten`].
    ConfigRewrite,
    /// Take a checkpoint, then [`crate::server::persistence::write_saved`]. Only this connection waits.
    Save,
}

/// What OTEL.TRACES is to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracesQuery {
    pub wanted: TracesWanted,
    /// Each trace as a line of OTLP/JSON instead of a text tree.
    pub json: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TracesWanted {
    /// The last traces, the newest first.
    Last(usize),
    Get(TraceId),
    Search(Searched),
}

/// The newest traces of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Searched {
    /// Its keys are as the client wrote them.
    pub filter: TraceFilter,
    /// By the member of the baggage that names tenants.
    pub tenant: Option<String>,
    pub count: usize,
}

/// SHUTDOWN's options. There is no reply when the server ends. `Abort` is answered by
/// [`crate::server::shutdown::write_abort`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    Begin { save: Option<bool>, now: bool, force: bool },
    Abort,
}

/// Services of the node. Every call may lock; none waits for I/O.
pub trait Host {
    /// Nanoseconds since the Unix epoch.
    fn unix_ns(&self) -> u64;

    // Configuration.

    /// All parameters whose name matches the glob, with their values, in the registry's order.
    fn config_get(&self, pattern: &[u8]) -> Vec<(Cow<'static, str>, Cow<'static, str>)>;
    /// Sets all parameters or none.
    fn config_set(&self, parameters: &[(&[u8], &[u8])]) -> Result<(), ConfigSetError>;
    /// CONFIG RESETSTAT: counters of INFO, slow log excluded.
    fn reset_statistics(&self);
    /// The password of `requirepass`; `None` when empty.
    fn required_password(&self) -> Option<Vec<u8>>;
    /// `enable-debug-command` allows it (`local`: for connections from this host).
    fn debug_allowed(&self, addr: &str) -> bool;

    // Server.

    fn info(&self) -> InfoSnapshot;
    /// Unix time in seconds of the last checkpoint of this process, or of its start.
    fn last_save(&self) -> u64;
    /// The last checkpoint failed, and save points ask for some: see `stop-writes-on-bgsave-error`.
    fn writes_are_stopped(&self) -> bool;
    /// BGSAVE; with `schedule`, or in a transaction, it may also begin later.
    fn background_save(&self, schedule: bool, in_transaction: bool) -> BackgroundSave;
    /// BGREWRITEAOF; `later` leaves it to a moment after the command at hand.
    fn rewrite_aof(&self, later: bool) -> AofRewrite;
    fn slowlog(&self) -> &Slowlog;
    /// `slowlog-trace-id always`: SLOWLOG entries carry the trace id as a seventh field.
    fn slowlog_trace_id_always(&self) -> bool;

    /// MEMORY PURGE: gives back memory that is kept for later.
    fn purge_memory(&self);

    // Clients, on every worker, in the order of connection.

    fn clients(&self) -> Vec<ClientInfo>;
    /// Ends a connection, wherever it waits; false if there is none with this id.
    fn kill_client(&self, id: u64) -> bool;
}

/// What became of the wish for a rewrite of the append-only file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AofRewrite {
    Started,
    Scheduled,
    /// One runs already.
    InProgress,
    /// There is nothing to rewrite, or it cannot be written any more; the log says which.
    Impossible,
}

/// What became of the wish for a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackgroundSave {
    Started,
    Scheduled,
    /// One runs already.
    InProgress,
    /// A rewrite of the append-only file runs.
    OtherActive,
}

/// Why CONFIG SET changed nothing. Names are as the client wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigSetError {
    Unknown(String),
    Duplicate(String),
    Immutable(String),
    /// The value was refused; the reason is a clause such as `argument must be 'yes' or 'no'`.
    Refused {
        name: String,
        reason: String,
    },
}

/// One connection as CLIENT LIST shows it.
#[derive(Clone, Debug, Default)]
pub struct ClientInfo {
    pub id: u64,
    pub addr: String,
    pub laddr: String,
    /// File descriptor; -1 if there is none.
    pub fd: i64,
    pub name: Vec<u8>,
    pub lib_name: Vec<u8>,
    pub lib_ver: Vec<u8>,
    pub age_s: u64,
    pub idle_s: u64,
    pub db: u32,
    /// 2 or 3.
    pub resp: u8,
    /// Queued commands; -1 outside MULTI.
    pub multi: i64,
    pub watching: usize,
    pub no_evict: bool,
    pub no_touch: bool,
    pub blocked: bool,
    /// `NULL` before the first command.
    pub last_command: Cow<'static, str>,
    /// Bytes of the query buffer in use, and free.
    pub query_buffer: u64,
    pub query_buffer_free: u64,
    /// Bytes: arguments of a half-received command, queue of MULTI, output buffer (its size, its peak, what waits in it,
    /// what it takes beyond its first size), everything together.
    pub argument_memory: u64,
    pub multi_memory: u64,
    pub output_capacity: u64,
    pub output_peak: u64,
    pub output_buffer: u64,
    pub output_memory: u64,
    pub total_memory: u64,
}
