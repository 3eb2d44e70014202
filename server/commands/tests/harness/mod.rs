//! A store with its device, a connection, and the driver's part, for tests of commands on several tiers.

use std::borrow::Cow;
use std::sync::Arc;

use ferrite_commands::{
    Admission, AofRewrite, BackgroundSave, ClientInfo, ConfigSetError, Env, Host, InfoSnapshot, Session, Slowlog,
    admit, execute,
};
use ferrite_hybridlog::aof::Aof;
use ferrite_hybridlog::{
    Address, Found, Held, LogDevice, NeedReason, NeedSpace, Store, StoreConfig, WorkerHandle, create_log, flush_task,
};
use ferrite_io::World;
use ferrite_io_real::RealWorld;
use ferrite_keyspace::{Databases, Pause, Scratch, decode_object, look_behind};
use ferrite_resp::{Args, Reply};
use ferrite_telemetry::TraceBuffer;

pub struct NoHost(Slowlog);

impl Host for NoHost {
    fn unix_ns(&self) -> u64 {
        0
    }
    fn config_get(&self, _: &[u8]) -> Vec<(Cow<'static, str>, Cow<'static, str>)> {
        Vec::new()
    }
    fn config_set(&self, _: &[(&[u8], &[u8])]) -> Result<(), ConfigSetError> {
        Ok(())
    }
    fn reset_statistics(&self) {}
    fn required_password(&self) -> Option<Vec<u8>> {
        None
    }
    fn debug_allowed(&self, _: &str) -> bool {
        false
    }
    fn info(&self) -> InfoSnapshot {
        InfoSnapshot::default()
    }
    fn last_save(&self) -> u64 {
        0
    }
    fn writes_are_stopped(&self) -> bool {
        false
    }
    fn background_save(&self, _: bool, _: bool) -> BackgroundSave {
        BackgroundSave::OtherActive
    }
    fn rewrite_aof(&self, _: bool) -> AofRewrite {
        AofRewrite::Impossible
    }
    fn purge_memory(&self) {}
    fn slowlog(&self) -> &Slowlog {
        &self.0
    }
    fn slowlog_trace_id_always(&self) -> bool {
        false
    }
    fn clients(&self) -> Vec<ClientInfo> {
        Vec::new()
    }
    fn kill_client(&self, _: u64) -> bool {
        false
    }
}

/// A store with its device, a connection, and the driver's part: waiting for what a command lacks.
pub struct Node {
    pub store: Arc<Store>,
    pub worker: WorkerHandle,
    pub device: LogDevice<RealWorld>,
    pub databases: Databases,
    pub scratch: Scratch,
    pub held: Held,
    pub trace: TraceBuffer,
    pub session: Session,
    pub host: NoHost,
    pub aof: Option<Arc<Aof>>,
    pub disk_reads: usize,
}

impl Node {
    pub async fn new(world: &RealWorld, log: &std::path::Path, mutable_pages: usize) -> Self {
        let config = StoreConfig {
            page_size: 4096,
            mutable_pages,
            read_only_pages: 1,
            index_buckets: 64,
            workers: 1,
            hash_seed: 7,
        };
        let store = Store::with_objects(config, decode_object);
        let files = create_log(&store, world, log).await.expect("the log's files");
        world.spawn(flush_task(store.clone(), world.clone(), files.clone(), |_| {}));
        Node {
            worker: store.worker(0),
            device: LogDevice::new(store.clone(), world.clone(), files),
            store,
            databases: Databases::new(3),
            scratch: Scratch::new(1),
            held: Held::default(),
            trace: TraceBuffer::new(|| 0),
            session: Session::new(1, "", "", true),
            host: NoHost(Slowlog::default()),
            aof: None,
            disk_reads: 0,
        }
    }

    pub async fn run(&mut self, now_ms: u64, words: &[Vec<u8>]) -> Vec<u8> {
        let (mut bytes, mut ranges) = (Vec::new(), Vec::new());
        for word in words {
            ranges.push(bytes.len()..bytes.len() + word.len());
            bytes.extend_from_slice(word);
        }
        let args = Args::new(&bytes, &ranges);
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, self.session.protocol);
        let Admission::Run(spec) = admit(args, &mut self.session, &mut reply, &self.host) else { return out };
        loop {
            let pause = {
                let mut env = Env {
                    pinned: &mut self.worker.pin(),
                    held: &self.held,
                    trace: &mut self.trace,
                    databases: &self.databases,
                    aof: self.aof.as_deref(),
                    host: &self.host,
                    now_ms,
                    proto_max_bulk_len: 16 << 20,
                    scratch: &mut self.scratch,
                };
                let reply = Reply::new(&mut out, self.session.protocol);
                match execute(spec, &mut env, args, &mut self.session, reply) {
                    Ok(()) => break,
                    Err(pause) => pause,
                }
            };
            assert!(out.is_empty(), "a paused command leaves no reply");
            let keys = ferrite_commands::keys_of(spec, args).map(|at| args.get(at));
            match pause {
                Pause::Keys if spec.reads_parts => {
                    // As a session does: the record first, and its value if the command still asks for its key.
                    let cold = self.cold(keys);
                    let (held, alone): (Vec<_>, Vec<_>) = cold.into_iter().partition(|&at| self.held.get(at).is_some());
                    self.wait(Pause::Headers(alone), std::iter::empty()).await;
                    self.fetch(&held).await;
                }
                pause => self.wait(pause, keys).await,
            }
        }
        self.held.clear();
        self.trace.finish_command(ferrite_telemetry::Outcome::Ok, b"", 0);
        out
    }

    pub async fn wait<'k>(&mut self, pause: Pause, keys: impl Iterator<Item = &'k [u8]>) {
        match pause {
            Pause::Keys => {
                let cold = self.cold(keys);
                assert!(!cold.is_empty(), "a pause for keys has a cold one");
                self.fetch(&cold).await;
            }
            Pause::Records(addresses) => self.fetch(&addresses).await,
            Pause::Headers(addresses) => {
                for address in addresses {
                    let read = self.device.read_header(address).await.expect("the record");
                    self.held.insert(address, read.record);
                    self.disk_reads += 1;
                }
            }
            Pause::Part { address, range } => {
                let record = self.held.get(address).expect("who asks for a part has the record").clone();
                let read = self.device.read_part(address, record, range).await.expect("the part");
                self.held.insert(address, read.record);
                self.disk_reads += 1;
            }
            Pause::Counts { ticket, .. } => {
                self.settle().await;
                self.session.counted = Some(ticket);
            }
            Pause::Space(need) => self.space(&need).await,
            Pause::Refused(_) => unreachable!("execute answers it"),
        }
    }

    /// Looks behind all writes that did not read what they replaced.
    pub async fn settle(&mut self) {
        while !self.databases.unseen.is_empty() {
            for note in self.databases.unseen.take(64).await {
                let mut next = Some(note.1.cold);
                while let Some(at) = next {
                    let read = self.device.read_header(at).await.expect("the record");
                    next = look_behind(&self.worker.pin(), &self.databases, note, at, &read.record);
                }
            }
        }
    }

    fn cold<'k>(&mut self, keys: impl Iterator<Item = &'k [u8]>) -> Vec<Address> {
        let pinned = self.worker.pin();
        let space = self.databases.space(self.session.db);
        let mut cold = Vec::new();
        for key in keys {
            let key = pinned.key(space, key);
            let _latch = pinned.latch(key.hash, false);
            if let Found::Cold(address) = pinned.find(&key, &self.held, &mut self.trace) {
                cold.push(address);
            }
        }
        cold
    }

    async fn fetch(&mut self, addresses: &[Address]) {
        for &address in addresses {
            let read = self.device.read_record(address).await.expect("the record");
            self.held.insert(address, read.record);
            self.disk_reads += 1;
        }
    }

    async fn space(&self, need: &NeedSpace) {
        match need.reason {
            NeedReason::AofFile => {
                let aof = self.aof.as_ref().expect("an append-only file");
                aof.wait_for_space(need.bytes).await.expect("space");
            }
            _ => self.store.wait_for_space(need).await.expect("space"),
        }
    }
}

pub fn words(command: &str) -> Vec<Vec<u8>> {
    command.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}
