//! For the tests of the exporters: traces as the server records them, a clock, and a backend on a socket.

mod backend;

pub use backend::{Backend, Received, Reply, TestNetwork};

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferrite_io::Clock;
use ferrite_telemetry::schema::Tier;
use ferrite_telemetry::{KeptTrace, Outcome, Recorder, RecorderConfig, RemoteContext, TraceBuffer};
use parking_lot::Mutex;

use super::ExportSettings;
use super::delivery::Delivery;
use crate::logging::{LogFormat, LogSettings, subscriber};
use crate::transport::{
    Accepted, Compression, Destination, Endpoint, Exchange, OtlpExchange, Protocol, Refusal, Retry, Signal, Spawn,
};

/// A caller's context.
pub const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Where recorded traces lie on the wall clock.
const WALL_OFFSET_NS: u64 = 1_753_000_000_000_000_000;

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(1) };
    static TICKS: Cell<u64> = const { Cell::new(1_000) };
}

fn tick() -> u64 {
    TICKS.set(TICKS.get() + 100);
    TICKS.get()
}

/// The trace of the command that is recorded.
pub fn recorded(record: impl FnOnce(&mut TraceBuffer)) -> KeptTrace {
    SEED.set(SEED.get() + 1);
    let mut recorder =
        Recorder::new(tick, &RecorderConfig { export: true, seed: SEED.get(), ..RecorderConfig::default() });
    recorder.set_wall_clock(0, WALL_OFFSET_NS);
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    record(&mut buffer);
    buffer.net_write();
    let mut kept = Vec::new();
    recorder.commit(&mut buffer, |trace| kept.push(trace));
    kept.remove(0)
}

/// `GET k`, answered from memory; perhaps with a caller's traceparent and tracestate.
pub fn get(caller: Option<(&str, &str)>) -> KeptTrace {
    recorded(|buffer| {
        buffer.begin_command();
        buffer.parse();
        if let Some((parent, state)) = caller {
            buffer.set_context(&RemoteContext::parse(parent.as_bytes(), state.as_bytes()).expect("it is valid"));
        }
        buffer.describe("GET", 1, 2, [&b"k"[..]]);
        buffer.index_lookup(7);
        buffer.storage_read(Tier::Mutable, true, 5);
        buffer.finish_command(Outcome::Ok, b"", 0);
    })
}

/// `GET k` of something that is not a string.
pub fn failed_get() -> KeptTrace {
    recorded(|buffer| {
        buffer.begin_command();
        buffer.parse();
        buffer.describe("GET", 1, 2, [&b"k"[..]]);
        buffer.finish_command(Outcome::Err, b"WRONGTYPE not a string", 0);
    })
}

/// Usual settings.
pub fn settings() -> ExportSettings {
    ExportSettings { service_namespace: Some("production".to_owned()), ..ExportSettings::new("ferrite", "1.0.0") }
}

/// What brings metrics to this exchange.
pub(in crate::export) fn metrics_delivery<X: Exchange>(exchange: X) -> Delivery<TestClock, X> {
    Delivery::new(TestClock, exchange, Signal::Metrics, &settings(), 1)
}

/// A usual destination, over gRPC.
pub fn destination(signal: Signal, endpoint: Endpoint) -> Destination {
    Destination {
        signal,
        endpoint,
        protocol: Protocol::Grpc,
        headers: Default::default(),
        timeout: Duration::from_secs(10),
        compression: Compression::None,
        insecure: false,
        tls: Arc::default(),
    }
}

/// The exchange on a worker's kind of runtime.
pub fn exchange(destination: &Destination) -> OtlpExchange<TestNetwork> {
    let spawn: Spawn = Rc::new(|task| drop(tokio::task::spawn_local(task)));
    OtlpExchange::new(destination, TestNetwork, spawn).expect("the destination is good")
}

/// How a [`Scripted`] exchange answers.
pub enum Answer {
    Accept(Accepted),
    Refuse(Refusal),
    Silence,
}

impl Answer {
    pub fn refuse(retry: Retry) -> Self {
        Self::Refuse(Refusal { reason: "refused".to_owned(), retry })
    }
}

/// Answers as it is told, then takes everything.
#[derive(Clone, Default)]
pub struct Scripted(Rc<RefCell<Script>>);

#[derive(Default)]
struct Script {
    answers: VecDeque<Answer>,
    /// Each attempt, and when it was made.
    attempts: Vec<(Bytes, u64)>,
}

impl Scripted {
    pub fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self(Rc::new(RefCell::new(Script { answers: answers.into_iter().collect(), attempts: Vec::new() })))
    }

    /// What was sent, and when, in milliseconds.
    pub fn attempts(&self) -> Vec<(Bytes, u64)> {
        self.0.borrow().attempts.clone()
    }

    pub fn times_ms(&self) -> Vec<u64> {
        self.attempts().into_iter().map(|(_, time)| time).collect()
    }
}

impl Exchange for Scripted {
    async fn send(&self, request: Bytes) -> Result<Accepted, Refusal> {
        let answer = {
            let mut script = self.0.borrow_mut();
            script.attempts.push((request, TestClock.monotonic_ns() / 1_000_000));
            script.answers.pop_front()
        };
        match answer {
            None => Ok(Accepted::default()),
            Some(Answer::Accept(accepted)) => Ok(accepted),
            Some(Answer::Refuse(refusal)) => Err(refusal),
            Some(Answer::Silence) => std::future::pending().await,
        }
    }
}

/// tokio's clock, which a test may pause.
#[derive(Clone)]
pub struct TestClock;

thread_local! {
    static START: Cell<Option<tokio::time::Instant>> = const { Cell::new(None) };
}

impl Clock for TestClock {
    fn monotonic_source() -> fn() -> u64 {
        || {
            let now = tokio::time::Instant::now();
            let start = START.get().unwrap_or(now);
            START.set(Some(start));
            now.duration_since(start).as_nanos() as u64
        }
    }

    fn unix_ns(&self) -> u64 {
        WALL_OFFSET_NS + self.monotonic_ns()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Runs a test on a worker's kind of runtime, with virtual time that starts at zero.
pub fn paused<T>(test: impl Future<Output = T>) -> T {
    on_runtime(true, test)
}

/// The same with real time, for sockets.
pub fn real(test: impl Future<Output = ()>) {
    on_runtime(false, test);
}

fn on_runtime<T>(start_paused: bool, test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(start_paused).build();
    tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime can be built"), async {
        START.set(Some(tokio::time::Instant::now()));
        test.await
    })
}

/// Looks again and again, for at most half a minute.
pub async fn wait_until(condition: impl Fn() -> bool) {
    for _ in 0..30_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("what was waited for did not happen");
}

/// What a subscriber wrote.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    pub fn writer(&self) -> impl Fn() -> Self + Send + Sync + 'static {
        let lines = self.clone();
        move || lines.clone()
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).expect("lines are text")
    }
}

/// What is logged by `scope`, in the text format.
pub fn captured_log(scope: impl FnOnce()) -> String {
    let lines = Lines::default();
    let settings = LogSettings { filter: "info".to_owned(), format: LogFormat::Text, unix_ns: || 0 };
    let subscriber = subscriber(&settings, lines.writer(), None, None).expect("the filter is valid");
    tracing::subscriber::with_default(subscriber, scope);
    lines.text()
}
