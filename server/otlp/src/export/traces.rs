//! The task that exports traces: batches, attempts, and what becomes of spans that nobody takes.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ferrite_io::{Clock, Entropy, World};
use ferrite_telemetry::{IdGenerator, Shape};
use futures_util::FutureExt;
use futures_util::future::{Either, Shared, select};
use opentelemetry_otlp::{RetryPolicy, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

use super::FLUSH_MAX;
use super::convert::span_data;
use super::outage::Outage;
use super::settings::{ExportError, ExportSettings};
use crate::{ExportQueue, Queued};

/// How often one batch is sent before it is given up.
const ATTEMPTS_MAX: u32 = 5;
/// The pause after the first failed attempt; it doubles from one to the next.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The OTLP exporter over gRPC. It connects when it is first used and again after the backend was away. To be called on
/// the worker that exports, inside its tokio runtime, since the connection is a task there.
pub fn grpc_span_exporter(settings: &ExportSettings) -> Result<opentelemetry_otlp::SpanExporter, ExportError> {
    let metadata = settings.metadata()?;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_channel(settings.channel()?)
        .with_timeout(settings.timeout)
        .with_retry_policy(RetryPolicy::disabled())
        // The builder reads OTEL_EXPORTER_OTLP_HEADERS by itself and puts it over everything: a command line that says
        // otherwise would lose. So its headers are replaced.
        .with_interceptor(move |mut request: tonic::Request<()>| {
            metadata.clone_into(request.metadata_mut());
            Ok(request)
        })
        .build()?;
    Ok(exporter)
}

/// Exports what comes into `queue` until `shutdown` is ready, then what is still there, for at most [`FLUSH_MAX`].
///
/// A batch that is refused is sent again, up to five times, with growing pauses. Meanwhile the queue fills, and drops.
pub async fn export_traces<W: World, E: SpanExporter>(
    world: W,
    queue: Arc<ExportQueue>,
    mut exporter: E,
    settings: ExportSettings,
    shutdown: impl Future<Output = ()>,
) {
    exporter.set_resource(&settings.resource());
    let export = TraceExport {
        clock: world.clock().clone(),
        queue,
        exporter,
        shape: Arc::clone(&settings.shape),
        timeout: settings.timeout,
        batch_timeout: settings.batch_timeout,
        outage: Outage::none("traces"),
        jitter: IdGenerator::new(world.entropy().next_u64()),
    };
    export.run(shutdown).await;
}

struct TraceExport<C, E> {
    clock: C,
    queue: Arc<ExportQueue>,
    exporter: E,
    shape: Arc<Shape>,
    timeout: Duration,
    batch_timeout: Duration,
    outage: Outage,
    jitter: IdGenerator,
}

impl<C: Clock, E: SpanExporter> TraceExport<C, E> {
    async fn run(mut self, shutdown: impl Future<Output = ()>) {
        self.queue.attach_exporter();
        let shutdown = shutdown.shared();
        let queue = Arc::clone(&self.queue);
        let clock = self.clock.clone();
        // Spans that were taken from the queue and have no fate yet.
        let in_flight = Cell::new(0);
        let bound = pin!(async {
            shutdown.clone().await;
            clock.sleep(FLUSH_MAX).await;
        });
        select(pin!(self.work(&shutdown, &in_flight)), bound).await;
        let mut lost = in_flight.get();
        while !queue.is_empty() {
            lost += spans_of(&queue.take());
        }
        if lost > 0 {
            queue.count_failed(lost);
            tracing::warn!(lost, "spans were not exported before the end");
        }
    }

    async fn work<S: Future<Output = ()>>(&mut self, shutdown: &Shared<S>, in_flight: &Cell<usize>) {
        loop {
            let stopping = self.batch_or_shutdown(shutdown).await;
            let batch = self.queue.take();
            if !batch.is_empty() {
                in_flight.set(spans_of(&batch));
                self.send(&batch, shutdown).await;
                in_flight.set(0);
            } else if stopping {
                return;
            }
        }
    }

    /// Returns when there may be something to send; whether the shutdown has come.
    async fn batch_or_shutdown<S: Future<Output = ()>>(&self, shutdown: &Shared<S>) -> bool {
        let full = pin!(self.queue.full_batch());
        let late = pin!(self.clock.sleep(self.batch_timeout));
        matches!(select(shutdown.clone(), select(full, late)).await, Either::Left(_))
    }

    /// Sends a batch or gives it up; either is counted.
    async fn send<S: Future<Output = ()>>(&mut self, batch: &[Queued], shutdown: &Shared<S>) {
        let count = spans_of(batch);
        let mut pause = PAUSE_FIRST;
        for attempt in 1..=ATTEMPTS_MAX {
            // Converted anew for each attempt: an exporter takes its spans, and most batches need only one.
            let failure = match self.attempt(span_data(batch, &self.shape)).await {
                Ok(()) => {
                    tracing::debug!(spans = count, attempt, "spans exported");
                    self.queue.count_exported(count);
                    self.outage.over(self.clock.monotonic_ns());
                    return;
                }
                Err(failure) => failure,
            };
            self.outage.failed(self.clock.monotonic_ns(), &failure);
            if failure.is_final() {
                break;
            }
            if attempt < ATTEMPTS_MAX {
                self.pause(pause, shutdown).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        self.queue.count_failed(count);
        self.outage.lost(count);
    }

    async fn attempt(&self, spans: Vec<SpanData>) -> Result<(), Failure> {
        let export = pin!(self.exporter.export(spans));
        let limit = pin!(self.clock.sleep(self.timeout));
        match select(export, limit).await {
            Either::Left((result, _)) => result.map_err(Failure),
            Either::Right(_) => Err(Failure(OTelSdkError::Timeout(self.timeout))),
        }
    }

    /// Waits for half to all of `longest`, so that servers which lost the same backend do not come back in step. A
    /// shutdown cuts it short: there is little time for another attempt.
    async fn pause<S: Future<Output = ()>>(&mut self, longest: Duration, shutdown: &Shared<S>) {
        let half = longest.as_nanos() as u64 / 2;
        let pause = self.clock.sleep(Duration::from_nanos(half + self.jitter.next_u64() % (half + 1)));
        if shutdown.peek().is_some() {
            pause.await;
        } else {
            select(shutdown.clone(), pin!(pause)).await;
        }
    }
}

fn spans_of(batch: &[Queued]) -> usize {
    batch.iter().map(Queued::span_count).sum()
}

/// Why an attempt failed.
struct Failure(OTelSdkError);

/// The codes with which a backend says that it will never take this batch (OTLP, "Failures"). `UNKNOWN` and `INTERNAL`
/// are not among them, since a connection that breaks shows as these.
const FINAL_CODES: [&str; 7] = [
    "InvalidArgument",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "FailedPrecondition",
    "Unimplemented",
    "Unauthenticated",
];

impl Failure {
    /// Whether another attempt is pointless. The SDK keeps nothing of the status but its code in the message.
    fn is_final(&self) -> bool {
        match &self.0 {
            OTelSdkError::AlreadyShutdown => true,
            OTelSdkError::Timeout(_) => false,
            OTelSdkError::InternalFailure(message) => {
                let code = message.split_once("gRPC code: ").map_or("", |(_, rest)| rest);
                FINAL_CODES.contains(&code.split(':').next().unwrap_or_default())
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            OTelSdkError::AlreadyShutdown => f.write_str("the exporter is shut down"),
            OTelSdkError::Timeout(limit) => write!(f, "no answer within {limit:?}"),
            OTelSdkError::InternalFailure(message) => f.write_str(message),
        }
    }
}

#[cfg(test)]
mod tests;
