//! A server and a client of it, on which the scenarios of single commands are played.

use super::*;

/// Workers of the store that are not the server's: see [`elsewhere`].
const OTHER_WORKERS: usize = 1;

type Job = Box<dyn FnOnce() + Send>;

/// A thread beside the simulated one, for what happens between two threads alone. None can be made within a simulation.
#[allow(clippy::disallowed_methods, reason = "it is a real thread")]
pub static ELSEWHERE: LazyLock<Mutex<Sender<Job>>> = LazyLock::new(|| {
    let (sender, jobs) = channel::<Job>();
    std::thread::spawn(move || jobs.iter().for_each(|job| job()));
    Mutex::new(sender)
});

/// Has that thread do this.
fn elsewhere(job: impl FnOnce() + Send + 'static) {
    ELSEWHERE.lock().expect("nobody panics with it").send(Box::new(job)).expect("the thread lives as long as the test");
}

/// A running server and one connection to it.
pub struct Stage {
    pub sim: Sim,
    pub server: Host,
    pub address: SocketAddr,
    /// The client's.
    pub world: SimWorld,
    pub node: Arc<Node>,
    pub client: RawClient,
    /// What was exported before the script did something that is not to be seen.
    pub kept: Vec<Span>,
}

/// What the canonical form leaves out: a tree with a parent elsewhere belongs to the caller's span, others to new traces.
fn check_ids(spans: &[Span]) {
    let caller = RemoteContext::parse(TRACEPARENT.as_bytes(), b"").expect("well-formed");
    for span in spans {
        let in_same_process =
            |parent| spans.iter().any(|other| (other.trace_id, other.span_id) == (span.trace_id, parent));
        match span.parent {
            Some(parent) if in_same_process(parent) => {}
            Some(parent) => assert_eq!((span.trace_id, parent), (caller.trace_id, caller.span_id)),
            None => assert_ne!(span.trace_id, caller.trace_id),
        }
    }
}

pub type Script = for<'s> fn(&'s mut Stage) -> Pin<Box<dyn Future<Output = ()> + 's>>;

/// What differs between the servers of the scenarios.
#[derive(Clone, Copy)]
pub struct Server {
    appendfsync: AppendFsync,
    detail: SpanDetail,
    sample_rate: f64,
    propagators: Option<&'static str>,
    /// Its end is a part of the scenario.
    may_fail: bool,
}

pub const FULL: Server = Server {
    appendfsync: AppendFsync::Everysec,
    detail: SpanDetail::Full,
    sample_rate: 1.0,
    propagators: None,
    may_fail: false,
};
pub const B3: Server = Server { propagators: Some("b3,baggage"), ..FULL };
pub const STORAGE: Server = Server { detail: SpanDetail::Storage, ..FULL };
pub const ALWAYS: Server = Server { appendfsync: AppendFsync::Always, ..FULL };
pub const ALWAYS_UNTIL_IT_FAILS: Server = Server { may_fail: true, ..ALWAYS };
pub const NOT_SAMPLED: Server = Server { sample_rate: 0.0, ..FULL };

/// Runs `script` against a server and gives to the report what was exported after [`Stage::traced_from_here`].
pub async fn play(sim: Sim, server: Server, script: Script) {
    let server_host = sim.add_host("server");
    let address = SocketAddr::new(server_host.ip(), 6379);
    let started = server_host.spawn(move |world| async move {
        let mut config = config(address, server.appendfsync);
        config.telemetry.enabled = true;
        config.telemetry.sample_rate = server.sample_rate;
        config.telemetry.span_detail = server.detail;
        config.telemetry.propagators = server.propagators.map(str::to_owned);
        config.telemetry.baggage_extraction = true;
        config.telemetry.baggage_allowed_keys = ["tenant.id", "tenant.tier"].map(str::to_owned).into();
        let file: (PathBuf, RenderConfig) = (PathBuf::from(CONFIG_FILE), Box::new(|text, _| Ok(text.to_owned())));
        let starting = launch_beside(OTHER_WORKERS, &world, config, Some(file), move |id, result| {
            if let Err(error) = result {
                assert!(server.may_fail, "worker {id}: {error}");
            }
        });
        starting.ready().await;
        starting.node
    });
    let node = started.await.expect("no power loss is planned");
    let client = sim.add_host("client");
    let inner = sim.clone();
    let played = client.spawn(move |world| async move {
        let client = RawClient::connect(&world, address).await.expect("the server listens");
        let mut stage = Stage { sim: inner, server: server_host, address, world, node, client, kept: Vec::new() };
        script(&mut stage).await;
        stage.settle().await;
        let mut spans = std::mem::take(&mut stage.kept);
        spans.extend(stage.exported());
        check_ids(&spans);
        stage.sim.span(canonical(&spans));
    });
    played.await.expect("no power loss is planned");
}

impl Stage {
    pub async fn command(&mut self, line: &str) -> Reply {
        let words: Vec<&str> = line.split(' ').collect();
        self.client.command(&words).await.expect("the server answers")
    }

    /// A connection beside the one that the stage keeps.
    pub async fn connect(&self) -> RawClient {
        RawClient::connect(&self.world, self.address).await.expect("the server listens")
    }

    /// The spans of a batch are handed over after its replies have left.
    pub async fn settle(&self) {
        self.sim.sleep(Duration::from_millis(100)).await;
    }

    pub fn exported(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        loop {
            let traces = self.node.telemetry.queue.take();
            if traces.is_empty() {
                return spans;
            }
            spans.extend(traces.into_iter().flat_map(|queued| queued.into_spans().0).map(|span| Span::from(&span)));
        }
    }

    /// These go into the report, whatever else is thrown away.
    pub fn keep(&mut self, spans: Vec<Span>) {
        self.kept.extend(spans);
    }

    /// Only roots of this name go into the report, of all that was exported so far.
    pub async fn keep_named(&mut self, name: SpanName) {
        self.settle().await;
        let spans = self.exported().into_iter().filter(|span| span.name == name.as_str()).collect();
        self.keep(spans);
    }

    /// What was exported so far was the preparation.
    pub async fn traced_from_here(&mut self) {
        self.settle().await;
        self.exported();
    }

    /// Sends a command while another worker has the latch of its key; keeps its trace.
    #[allow(clippy::disallowed_methods, reason = "the other thread is real, and so is its time")]
    pub async fn command_behind_a_latch(&mut self, line: &str, key: &'static str) -> Reply {
        // A busy machine may let the latch go before this thread is there.
        for longer in 4.. {
            self.traced_from_here().await;
            let (store, space) = (Arc::clone(&self.node.store), self.node.databases.space(0));
            let (latched, is_latched) = channel();
            elsewhere(move || {
                let handle = store.worker(1);
                let pinned = handle.pin();
                let _latch = pinned.latch(pinned.key(space, key.as_bytes()).hash, true);
                latched.send(()).expect("it is waited for");
                std::thread::sleep(Duration::from_millis(1 << longer));
            });
            is_latched.recv().expect("the latch is free");
            let reply = self.command(line).await;
            self.settle().await;
            let spans = self.exported();
            let contended =
                |span: &Span| span.events.iter().any(|event| event.name == EventName::LatchContended.as_str());
            if spans.iter().any(contended) {
                self.keep(spans);
                return reply;
            }
        }
        unreachable!("each time it is held for longer")
    }

    /// Sets the key to a string of 100 bytes, then others until it is where it is wanted.
    pub async fn push_string_down(&mut self, key: &str, there: fn(u64, u64) -> bool) {
        let value = "v".repeat(100);
        assert_eq!(self.command(&format!("SET {key} {value}")).await, Reply::ok());
        self.push_down(there).await;
    }

    /// Sets other keys until `there` says that those before them are where they are wanted.
    pub async fn push_down(&mut self, there: fn(u64, u64) -> bool) {
        let page = PAGE_BYTES as u64;
        for number in 0.. {
            self.sim.sleep(Duration::from_millis(20)).await;
            let stats = self.node.store.stats();
            if there(stats.read_only / page, stats.head / page) {
                return;
            }
            assert!(number < 100, "{stats:?}");
            let pad = "p".repeat(1000);
            assert_eq!(self.command(&format!("SET pad:{number} {pad}")).await, Reply::ok());
        }
    }

    pub async fn push_to_read_only(&mut self, key: &str) {
        self.push_string_down(key, |read_only, head| read_only >= 1 && head == 0).await;
    }

    pub async fn push_to_disk(&mut self, key: &str) {
        self.push_string_down(key, |_, head| head >= 1).await;
    }
}
