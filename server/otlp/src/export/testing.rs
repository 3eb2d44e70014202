//! For the tests of the exporters: traces as the server records them, a clock, and a backend on a socket.

use std::cell::Cell;
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ferrite_io::Clock;
use ferrite_telemetry::schema::Tier;
use ferrite_telemetry::{KeptTrace, Outcome, Recorder, RecorderConfig, RemoteContext, TraceBuffer};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use parking_lot::Mutex;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

use super::{ExportSettings, Protocol};
use crate::logging::{LogFormat, LogSettings, subscriber};

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

fn recorded(record: impl FnOnce(&mut TraceBuffer)) -> KeptTrace {
    SEED.set(SEED.get() + 1);
    let mut recorder =
        Recorder::new(tick, &RecorderConfig { export: true, seed: SEED.get(), ..RecorderConfig::default() });
    recorder.set_wall_clock(0, WALL_OFFSET_NS);
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    buffer.begin_command();
    buffer.parse();
    record(&mut buffer);
    buffer.net_write();
    let mut kept = Vec::new();
    recorder.commit(&mut buffer, |trace| kept.push(trace));
    kept.remove(0)
}

/// `GET k`, answered from memory; perhaps with a caller's traceparent and tracestate.
pub fn get(caller: Option<(&str, &str)>) -> KeptTrace {
    recorded(|buffer| {
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
        buffer.describe("GET", 1, 2, [&b"k"[..]]);
        buffer.finish_command(Outcome::Err, b"WRONGTYPE not a string", 0);
    })
}

/// Usual settings.
pub fn settings(endpoint: &str) -> ExportSettings {
    ExportSettings {
        shape: std::sync::Arc::default(),
        endpoint: endpoint.to_owned(),
        protocol: Protocol::Grpc,
        headers: Default::default(),
        timeout: Duration::from_secs(10),
        service_name: "ferrite".to_owned(),
        service_version: "1.0.0".to_owned(),
        service_namespace: Some("production".to_owned()),
        resource_attributes: Default::default(),
        batch_timeout: Duration::from_secs(5),
        metrics_interval: Duration::from_secs(60),
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
pub fn paused(test: impl Future<Output = ()>) {
    on_runtime(true, test);
}

/// The same with real time, for sockets.
pub fn real(test: impl Future<Output = ()>) {
    on_runtime(false, test);
}

fn on_runtime(start_paused: bool, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(start_paused).build();
    tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime can be built"), async {
        START.set(Some(tokio::time::Instant::now()));
        test.await;
    });
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
    let subscriber = subscriber(&settings, lines.writer(), None).expect("the filter is valid");
    tracing::subscriber::with_default(subscriber, scope);
    lines.text()
}

/// What a [`Backend`] got.
#[derive(Clone, Default)]
pub struct Received {
    pub spans: Vec<ResourceSpans>,
    pub metrics: Vec<ResourceMetrics>,
    /// Of the last request.
    pub authorization: Option<String>,
    pub requests: usize,
}

#[derive(Clone, Default)]
struct Service {
    received: Arc<Mutex<Received>>,
    refusal: Option<Code>,
}

impl Service {
    fn take<T, R: Default>(
        &self,
        request: Request<T>,
        keep: impl FnOnce(&mut Received, T),
    ) -> Result<Response<R>, Status> {
        let mut received = self.received.lock();
        received.requests += 1;
        let authorization = request.metadata().get("authorization");
        received.authorization = authorization.and_then(|value| value.to_str().ok()).map(str::to_owned);
        if let Some(code) = self.refusal {
            return Err(Status::new(code, "a message that may show secrets"));
        }
        keep(&mut received, request.into_inner());
        Ok(Response::new(R::default()))
    }
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take(request, |received, request| received.spans.extend(request.resource_spans))
    }
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.take(request, |received, request| received.metrics.extend(request.resource_metrics))
    }
}

/// An OTLP server on a socket, until it is dropped.
pub struct Backend {
    address: SocketAddr,
    service: Service,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Backend {
    /// On a free port of loopback, or again where another one was.
    pub async fn start(address: Option<SocketAddr>) -> Self {
        Self::answering(address, None).await
    }

    /// Refuses everything with this code.
    pub async fn refusing(code: Code) -> Self {
        Self::answering(None, Some(code)).await
    }

    async fn answering(address: Option<SocketAddr>, refusal: Option<Code>) -> Self {
        let wanted = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        // tokio's listener sets SO_REUSEADDR, so that a port can be bound again at once.
        let listener = tokio::net::TcpListener::bind(wanted).await.expect("the port is free");
        let address = listener.local_addr().expect("it is bound");
        let service = Service { refusal, ..Service::default() };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = Server::builder()
            .add_service(TraceServiceServer::new(service.clone()))
            .add_service(MetricsServiceServer::new(service.clone()))
            .serve_with_incoming_shutdown(TcpIncoming::from(listener), async {
                let _ = stopped.await;
            });
        let task = tokio::spawn(async {
            serving.await.expect("the server runs");
        });
        Self { address, service, stop: Some(stop), task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn received(&self) -> Received {
        self.service.received.lock().clone()
    }

    /// Closes the port and every connection; gives what had come.
    pub async fn stop(mut self) -> Received {
        let _ = self.stop.take().expect("it runs").send(());
        (&mut self.task).await.expect("the server ends");
        self.received()
    }
}
