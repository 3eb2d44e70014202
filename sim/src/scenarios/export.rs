//! Ten minutes beside a backend that is dead, silent, slow, refuses, answers garbage: commands do not notice, memory stays
//! bounded, and every span is counted where it went.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ferrite_io::{Clock, Entropy, Listener, Network, World};
use ferrite_node::config::AppendFsync;
use ferrite_otlp::{
    Compression, Destination, Endpoint, ExportSettings, OtlpExchange, Protocol, Signal, Value, export_traces,
};
use ferrite_telemetry::schema::{DropReason, Metric};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tokio::io::AsyncWriteExt;

use crate::client::RawClient;
use crate::net::SimStream;
use crate::plan::FaultPlan;
use crate::runner::{Scenario, ScenarioFuture};
use crate::server::{config, start};
use crate::sim::{Sim, lock};
use crate::world::SimWorld;

const OUTAGES: Duration = Duration::from_secs(600);
/// Between two commands.
const PACE: Duration = Duration::from_millis(700);
/// An export may take ten seconds for an attempt: a command that waited for one would take that long.
const COMMAND_MAX: Duration = Duration::from_millis(300);
const ATTEMPT_MAX: Duration = Duration::from_secs(10);
/// Some minutes of commands: an outage fills it.
const QUEUE_SPANS: usize = 700;
const BATCH_SPANS: usize = 100;

pub(super) const EXPORT: Scenario = Scenario {
    name: "export",
    about: "ten minutes of a backend that is dead, silent, slow, refuses or answers garbage, over gRPC or HTTP",
    // A command's time is to tell of the exporter alone.
    faults: |plan| FaultPlan {
        net_split: plan.net_split,
        clock_jump: plan.clock_jump,
        clock_drift: plan.clock_drift,
        ..FaultPlan::none()
    },
    marks: &[
        "the export queue was full",
        "a batch was given up",
        "a batch was refused for good",
        "a part of a batch was refused",
        "exported over gRPC",
        "exported over HTTP",
    ],
    run: |sim| -> ScenarioFuture { Box::pin(outages(sim)) },
};

/// What the backend does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Good,
    /// Closes what is opened.
    Dead,
    Silent,
    Slow,
    /// For now, and says when to come again.
    Busy,
    /// For good.
    Refusing,
    /// Takes all but one span.
    Picky,
    Garbage,
}

const MOODS: [Mood; 8] =
    [Mood::Good, Mood::Dead, Mood::Silent, Mood::Slow, Mood::Busy, Mood::Refusing, Mood::Picky, Mood::Garbage];

/// The backend as its host and the scenario share it.
struct Backend {
    mood: Mood,
    /// Spans that it took.
    taken: usize,
}

type Shared = Arc<Mutex<Backend>>;

async fn outages(sim: Sim) {
    let mut rng = sim.rng("export");
    let protocol = if rng.one_in(2) { Protocol::Grpc } else { Protocol::Http };
    let compression = if rng.one_in(2) { Compression::Gzip } else { Compression::None };
    let shared: Shared = Arc::new(Mutex::new(Backend { mood: Mood::Good, taken: 0 }));
    let collector = sim.add_host("collector");
    let backend = SocketAddr::new(collector.ip(), 4317);
    let own = shared.clone();
    collector.spawn(move |world| serve(world, backend, protocol, own));

    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let checks = sim.clone();
    let served = server.spawn(move |world| async move {
        let mut config = config(address, AppendFsync::No);
        config.telemetry.enabled = true;
        config.telemetry.queue_size = QUEUE_SPANS;
        config.telemetry.batch_size = BATCH_SPANS;
        let starting = start(&world, config);
        let destination = destination(backend, protocol, compression);
        let exchange = OtlpExchange::on(&world, &destination).expect("the destination is good");
        let queue = starting.node.telemetry.queue.clone();
        let export = export_traces(world.clone(), queue, exchange, settings(), async { drop(stopped.await) });
        starting.ready().await;
        export.await;
        counts(&checks, &ferrite_node::collect(&starting.node))
    });

    let client = sim.add_host("client");
    let load = client.spawn(move |world| load(world, address));
    let mut moods = Vec::new();
    while sim.elapsed() < OUTAGES {
        let mood = *rng.pick(&MOODS);
        moods.push(mood);
        lock(&shared).mood = mood;
        sim.sleep(Duration::from_secs(rng.between(20, 120))).await;
    }
    lock(&shared).mood = Mood::Good;
    // Whatever pause the exporter is in ends, and the queue empties.
    sim.sleep(Duration::from_secs(60)).await;
    let slowest = load.await.expect("the client's host stays up");
    assert!(slowest < COMMAND_MAX, "a command took {slowest:?} beside {moods:?}");
    sim.sleep(Duration::from_secs(30)).await;
    stop.send(()).expect("the exporter runs");
    let exported = served.await.expect("the server's host stays up");
    assert_eq!(exported, lock(&shared).taken, "what was counted as exported is what the backend took: {moods:?}");
    sim.sometimes(match protocol {
        Protocol::Grpc => "exported over gRPC",
        Protocol::Http => "exported over HTTP",
    });
}

fn destination(backend: SocketAddr, protocol: Protocol, compression: Compression) -> Destination {
    Destination {
        signal: Signal::Traces,
        endpoint: Endpoint::General(format!("http://{backend}")),
        protocol,
        headers: Default::default(),
        timeout: ATTEMPT_MAX,
        compression,
        insecure: false,
        tls: Arc::default(),
    }
}

fn settings() -> ExportSettings {
    ExportSettings { timeout: ATTEMPT_MAX, ..ExportSettings::new("ferrite", "1.0.0") }
}

/// Every span that was chosen went somewhere; gives how many were exported.
fn counts(sim: &Sim, series: &[ferrite_otlp::Series]) -> usize {
    let sum = |metric: Metric, label: Option<&str>| -> usize {
        let points = series.iter().filter(|series| series.metric == metric).flat_map(|series| &series.points);
        let wanted = points.filter(|point| label.is_none() || point.label.as_deref() == label);
        let values = wanted.map(|point| match point.value {
            Value::Integer(value) => value as usize,
            _ => panic!("{} counts", metric.name),
        });
        values.sum()
    };
    let dropped = |reason: DropReason| sum(Metric::SPANS_DROPPED, Some(reason.as_str()));
    let (full, failed, rejected) =
        (dropped(DropReason::QueueFull), dropped(DropReason::ExportFailed), dropped(DropReason::Rejected));
    let exported = sum(Metric::SPANS_EXPORTED, None);
    assert_eq!(
        sum(Metric::SPANS_SAMPLED, None),
        exported + full + failed + rejected + sum(Metric::QUEUE_DEPTH, None),
        "{exported} exported, {full} without room, {failed} given up, {rejected} refused"
    );
    if full > 0 {
        sim.sometimes("the export queue was full");
    }
    if failed > 0 {
        sim.sometimes("a batch was given up");
    }
    if rejected >= BATCH_SPANS {
        sim.sometimes("a batch was refused for good");
    }
    if rejected % BATCH_SPANS != 0 {
        sim.sometimes("a part of a batch was refused");
    }
    exported
}

/// Commands at a steady pace through all outages; gives the longest that one took.
async fn load(world: SimWorld, address: SocketAddr) -> Duration {
    let mut client = RawClient::connect_when_up(&world, address).await;
    let (begin, mut slowest) = (world.clock().monotonic_ns(), 0);
    let mut number = 0;
    while world.clock().monotonic_ns() - begin < OUTAGES.as_nanos() as u64 {
        number += 1;
        let before = world.clock().monotonic_ns();
        client.ask(&format!("SET key:{} {number}", number % 7)).await;
        slowest = slowest.max(world.clock().monotonic_ns() - before);
        world.clock().sleep(PACE).await;
    }
    Duration::from_nanos(slowest)
}

async fn serve(world: SimWorld, address: SocketAddr, protocol: Protocol, shared: Shared) {
    let bound = world.network().bind(address).expect("the address is free");
    let listener = world.network().listen(&bound).expect("a bound address can be listened on");
    loop {
        let (stream, _) = listener.accept().await.expect("accepting does not fail");
        world.spawn(connection(world.clone(), stream, protocol, shared.clone()));
    }
}

async fn connection(world: SimWorld, mut stream: SimStream, protocol: Protocol, shared: Shared) {
    let mood = lock(&shared).mood;
    if mood == Mood::Dead {
        return;
    }
    if mood == Mood::Garbage {
        let mut garbage = [0; 100];
        world.entropy().fill(&mut garbage);
        // Whoever is gone does not want it.
        let _ = stream.write_all(&garbage).await;
        return;
    }
    let own = world.clone();
    let service = service_fn(move |request| answer(own.clone(), request, protocol, shared.clone()));
    let socket = TokioIo::new(stream);
    // It ends as the service says.
    let _ended = match protocol {
        Protocol::Grpc => {
            let mut server = hyper::server::conn::http2::Builder::new(OnHost(world));
            server.auto_date_header(false).serve_connection(socket, service).await
        }
        Protocol::Http => {
            let mut server = hyper::server::conn::http1::Builder::new();
            server.auto_date_header(false).serve_connection(socket, service).await
        }
    };
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// An error closes the connection.
async fn answer(
    world: SimWorld,
    request: Request<Incoming>,
    protocol: Protocol,
    shared: Shared,
) -> Result<Response<Body>, &'static str> {
    let gzip = request.headers().contains_key("content-encoding");
    let body = request.into_body().collect().await.map_err(|_| "the client is gone")?.to_bytes();
    let mood = lock(&shared).mood;
    match mood {
        Mood::Dead | Mood::Garbage => return Err("closed"),
        Mood::Silent => return std::future::pending().await,
        Mood::Slow => world.clock().sleep(Duration::from_secs(7)).await,
        Mood::Busy => return Ok(busy(protocol)),
        Mood::Refusing => return Ok(refusal(protocol)),
        Mood::Good | Mood::Picky => {}
    }
    let spans = match protocol {
        Protocol::Grpc => spans_of(&body[5..], body[0] == 1),
        Protocol::Http => spans_of(&body, gzip),
    };
    let rejected = usize::from(mood == Mood::Picky).min(spans);
    lock(&shared).taken += spans - rejected;
    let partial = (rejected > 0).then(|| ExportTracePartialSuccess {
        rejected_spans: rejected as i64,
        error_message: "not that one".to_owned(),
    });
    let message = ExportTraceServiceResponse { partial_success: partial }.encode_to_vec();
    Ok(match protocol {
        Protocol::Http => respond(200, &[], message, HeaderMap::new()),
        Protocol::Grpc => grpc(0, message),
    })
}

fn spans_of(message: &[u8], gzip: bool) -> usize {
    let mut plain = Vec::new();
    let message = match gzip {
        false => message,
        true => {
            let mut decoder = flate2::read::GzDecoder::new(message);
            std::io::Read::read_to_end(&mut decoder, &mut plain).expect("it is gzip");
            &plain
        }
    };
    let request = ExportTraceServiceRequest::decode(message).expect("it is one");
    request.resource_spans.iter().flat_map(|resource| &resource.scope_spans).map(|scope| scope.spans.len()).sum()
}

fn busy(protocol: Protocol) -> Response<Body> {
    const UNAVAILABLE: u8 = 14;
    match protocol {
        Protocol::Http => respond(503, &[("retry-after", "20")], Vec::new(), HeaderMap::new()),
        Protocol::Grpc => grpc(UNAVAILABLE, Vec::new()),
    }
}

fn refusal(protocol: Protocol) -> Response<Body> {
    const INVALID_ARGUMENT: u8 = 3;
    match protocol {
        Protocol::Http => respond(400, &[], Vec::new(), HeaderMap::new()),
        Protocol::Grpc => grpc(INVALID_ARGUMENT, Vec::new()),
    }
}

fn grpc(code: u8, message: Vec<u8>) -> Response<Body> {
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", u16::from(code).into());
    respond(200, &[("content-type", "application/grpc")], frame, trailers)
}

fn respond(
    status: u16,
    headers: &[(&'static str, &'static str)],
    body: Vec<u8>,
    trailers: HeaderMap,
) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    let body = Full::new(Bytes::from(body));
    let body = match trailers.is_empty() {
        true => body.boxed_unsync(),
        false => body.with_trailers(async { Some(Ok(trailers)) }).boxed_unsync(),
    };
    response.body(body).expect("it is a response")
}

#[derive(Clone)]
struct OnHost(SimWorld);

impl<F: Future + 'static> hyper::rt::Executor<F> for OnHost {
    fn execute(&self, task: F) {
        self.0.spawn(async {
            task.await;
        });
    }
}
