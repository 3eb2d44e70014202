//! A client of the commands without a node: what the unit tests talk through.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};

use ferrite_hybridlog::{Held, Store, StoreConfig, WorkerHandle};
use ferrite_keyspace::{Databases, Scratch, decode_object};
use ferrite_resp::{Args, Reply};
use ferrite_telemetry::{Recorder, RecorderConfig, Span, TraceBuffer};

use crate::admit::{Admission, admit};
use crate::call::{Env, execute};
use crate::host::{AofRewrite, BackgroundSave, ClientInfo, ConfigSetError, Host};
use crate::otel;
use crate::server::info::InfoSnapshot;
use crate::server::slowlog::Slowlog;
use crate::session::Session;

/// A host whose answers the test sets and whose orders it reads.
pub struct TestHost {
    pub unix_ns: Cell<u64>,
    pub password: RefCell<Option<Vec<u8>>>,
    pub debug_allowed: Cell<bool>,
    pub parameters: RefCell<Vec<(&'static str, String)>>,
    pub resets: Cell<usize>,
    pub info: RefCell<InfoSnapshot>,
    pub purges: Cell<usize>,
    pub slowlog: Slowlog,
    pub slowlog_trace_id_always: Cell<bool>,
    pub clients: RefCell<Vec<ClientInfo>>,
    pub killed: RefCell<Vec<u64>>,
    /// What it answers outside of a transaction.
    pub aof_rewrite: Cell<AofRewrite>,
    pub writes_are_stopped: Cell<bool>,
    pub background_save: Cell<BackgroundSave>,
    /// Whether each was to be scheduled, and in a transaction.
    pub saves_asked: RefCell<Vec<(bool, bool)>>,
}

impl Host for TestHost {
    fn unix_ns(&self) -> u64 {
        self.unix_ns.get()
    }

    fn config_get(&self, pattern: &[u8]) -> Vec<(Cow<'static, str>, Cow<'static, str>)> {
        let parameters = self.parameters.borrow();
        let matching = parameters.iter().filter(|(name, _)| crate::glob::matches(pattern, name.as_bytes(), true));
        matching.map(|(name, value)| ((*name).into(), value.clone().into())).collect()
    }

    fn config_set(&self, wanted: &[(&[u8], &[u8])]) -> Result<(), ConfigSetError> {
        let mut changed = self.parameters.borrow().clone();
        for (name, value) in wanted {
            let known = changed.iter_mut().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name));
            match known {
                Some((_, old)) => *old = String::from_utf8_lossy(value).into_owned(),
                None => return Err(ConfigSetError::Unknown(String::from_utf8_lossy(name).into_owned())),
            }
        }
        *self.parameters.borrow_mut() = changed;
        Ok(())
    }

    fn reset_statistics(&self) {
        self.resets.set(self.resets.get() + 1);
    }

    fn required_password(&self) -> Option<Vec<u8>> {
        self.password.borrow().clone()
    }

    fn debug_allowed(&self, _: &str) -> bool {
        self.debug_allowed.get()
    }

    fn info(&self) -> InfoSnapshot {
        self.info.borrow().clone()
    }

    fn purge_memory(&self) {
        self.purges.set(self.purges.get() + 1);
    }

    fn last_save(&self) -> u64 {
        1_600_000_000
    }

    fn rewrite_aof(&self, later: bool) -> AofRewrite {
        if later { AofRewrite::Scheduled } else { self.aof_rewrite.get() }
    }

    fn writes_are_stopped(&self) -> bool {
        self.writes_are_stopped.get()
    }

    fn background_save(&self, schedule: bool, in_transaction: bool) -> BackgroundSave {
        self.saves_asked.borrow_mut().push((schedule, in_transaction));
        self.background_save.get()
    }

    fn slowlog(&self) -> &Slowlog {
        &self.slowlog
    }

    fn slowlog_trace_id_always(&self) -> bool {
        self.slowlog_trace_id_always.get()
    }

    fn clients(&self) -> Vec<ClientInfo> {
        self.clients.borrow().clone()
    }

    fn kill_client(&self, id: u64) -> bool {
        self.killed.borrow_mut().push(id);
        true
    }
}

/// One connection to it, with the id 7, and an empty store.
pub struct Client {
    pub host: TestHost,
    pub session: Session,
    /// The names of the spans of the last command that ran, and the spans themselves.
    pub recorded: Vec<String>,
    pub spans: Vec<Span>,
    /// What may be recorded of the last reply, if it was an error.
    pub error: String,
    worker: WorkerHandle,
    pub databases: Databases,
    scratch: Scratch,
}

impl Client {
    pub fn new() -> Self {
        let host = TestHost {
            unix_ns: Cell::new(1_700_000_000_000_000_000),
            password: RefCell::new(None),
            debug_allowed: Cell::new(true),
            parameters: RefCell::new(vec![("appendfsync", "everysec".into()), ("appendonly", "yes".into())]),
            resets: Cell::new(0),
            info: RefCell::default(),
            purges: Cell::new(0),
            slowlog: Slowlog::default(),
            slowlog_trace_id_always: Cell::new(false),
            clients: RefCell::default(),
            killed: RefCell::default(),
            aof_rewrite: Cell::new(AofRewrite::Started),
            writes_are_stopped: Cell::new(false),
            background_save: Cell::new(BackgroundSave::Started),
            saves_asked: RefCell::default(),
        };
        let config = StoreConfig {
            page_size: 1 << 16,
            mutable_pages: 4,
            read_only_pages: 4,
            index_buckets: 1 << 8,
            workers: 1,
            hash_seed: 1,
        };
        let store = Store::with_objects(config, decode_object);
        Client {
            host,
            session: Session::new(7, "127.0.0.1:5000", "127.0.0.1:6379", true),
            recorded: Vec::new(),
            spans: Vec::new(),
            error: String::new(),
            worker: store.worker(0),
            databases: Databases::new(16),
            scratch: Scratch::new(1),
        }
    }

    pub fn with_password(password: &str) -> Self {
        let mut client = Client::new();
        *client.host.password.get_mut() = Some(password.as_bytes().to_vec());
        client.session.authenticated = false;
        client
    }

    /// Lets time pass.
    pub fn advance_ms(&mut self, ms: u64) {
        self.host.unix_ns.set(self.host.unix_ns.get() + ms * 1_000_000);
    }

    /// Runs the words of `command` as the node's driver does; gives what would be sent.
    pub fn run(&mut self, command: &str) -> String {
        let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        self.run_args(&args)
    }

    pub fn run_args(&mut self, args: &[&[u8]]) -> String {
        let (bytes, ranges) = flatten(args);
        let mut args = Args::new(&bytes, &ranges);
        let mut out = Vec::new();
        if let Some(wrapped) = otel::unwrap(args) {
            args = args.from(wrapped.skip);
        }
        let mut reply = Reply::new(&mut out, self.session.protocol);
        if let Admission::Run(spec) = admit(args, &mut self.session, &mut reply, &self.host) {
            self.session.last_command = spec.name;
            let now_s = (self.host.unix_ns.get() / 1_000_000_000) as u32;
            self.worker.set_access_clock(now_s, self.databases.limits.access_mode());
            let mut trace = TraceBuffer::new(|| 0);
            trace.begin_command();
            let mut env = Env {
                pinned: &mut self.worker.pin(),
                held: &Held::default(),
                trace: &mut trace,
                databases: &self.databases,
                aof: None,
                host: &self.host,
                now_ms: self.host.unix_ns.get() / 1_000_000,
                proto_max_bulk_len: 512 << 20,
                scratch: &mut self.scratch,
            };
            execute(spec, &mut env, args, &mut self.session, reply).expect("nothing is on disk and there is room");
            self.recorded = trace.recorded();
            let mut recorder =
                Recorder::new(|| 0, &RecorderConfig { export: true, ring_bytes: 0, ..RecorderConfig::default() });
            recorder.commit(&mut trace, |kept| self.spans = kept.spans().collect());
        }
        let error = out.strip_prefix(b"-").and_then(|text| text.strip_suffix(b"\r\n")).unwrap_or_default();
        self.error = String::from_utf8_lossy(self.session.recorded_error(error)).into_owned();
        if !self.session.end_command() {
            out.clear();
        }
        String::from_utf8(out).expect("the tests' replies are UTF-8")
    }
}

/// The words of a command as arguments.
pub fn words<T>(command: &str, then: impl FnOnce(Args<'_>) -> T) -> T {
    let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
    let (bytes, ranges) = flatten(&words);
    then(Args::new(&bytes, &ranges))
}

fn flatten(args: &[&[u8]]) -> (Vec<u8>, Vec<std::ops::Range<usize>>) {
    let mut bytes = Vec::new();
    let ranges = args
        .iter()
        .map(|arg| {
            bytes.extend_from_slice(arg);
            bytes.len() - arg.len()..bytes.len()
        })
        .collect();
    (bytes, ranges)
}
