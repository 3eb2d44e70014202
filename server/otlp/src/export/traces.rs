//! The task that exports traces: batches, attempts, and what becomes of spans that nobody takes.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ferrite_io::{Clock, Entropy, World};
use futures_util::FutureExt;
use futures_util::future::{Either, Shared, select};

use super::FLUSH_MAX;
use super::delivery::{Delivery, Fate};
use super::encode::Encoder;
use super::settings::ExportSettings;
use crate::transport::{Exchange, Signal};
use crate::{ExportQueue, Queued};

/// Exports what comes into `queue` until `shutdown` is ready, then what is still there, for at most [`FLUSH_MAX`].
///
/// A batch that is refused is sent again, up to five times, with growing pauses. Meanwhile the queue fills, and drops.
pub async fn export_traces<W: World, X: Exchange>(
    world: W,
    queue: Arc<ExportQueue>,
    exchange: X,
    settings: ExportSettings,
    shutdown: impl Future<Output = ()>,
) {
    let seed = world.entropy().next_u64();
    let delivery = Delivery::new(world.clock().clone(), exchange, Signal::Traces, settings.timeout, seed);
    TraceExport::new(queue, delivery, &settings).run(shutdown).await;
}

struct TraceExport<C, X> {
    queue: Arc<ExportQueue>,
    delivery: Delivery<C, X>,
    encoder: Encoder,
    batch_timeout: Duration,
}

impl<C: Clock, X: Exchange> TraceExport<C, X> {
    fn new(queue: Arc<ExportQueue>, delivery: Delivery<C, X>, settings: &ExportSettings) -> Self {
        let encoder = Encoder::new(&settings.resource(), Arc::clone(&settings.shape));
        Self { queue, delivery, encoder, batch_timeout: settings.batch_timeout }
    }

    async fn run(mut self, shutdown: impl Future<Output = ()>) {
        self.queue.attach_exporter();
        let shutdown = shutdown.shared();
        let queue = Arc::clone(&self.queue);
        let clock = self.delivery.clock().clone();
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
        let late = pin!(self.delivery.clock().sleep(self.batch_timeout));
        matches!(select(shutdown.clone(), select(full, late)).await, Either::Left(_))
    }

    /// Sends a batch or gives it up; every span of it is counted.
    async fn send<S: Future<Output = ()>>(&mut self, batch: &[Queued], shutdown: &Shared<S>) {
        let count = spans_of(batch);
        let request = self.encoder.encode(batch);
        match self.delivery.deliver(count, request, shutdown).await {
            Fate::Accepted { rejected } => {
                self.queue.count_rejected(rejected);
                self.queue.count_exported(count - rejected);
            }
            Fate::Refused => self.queue.count_rejected(count),
            Fate::GivenUp => self.queue.count_failed(count),
        }
    }
}

fn spans_of(batch: &[Queued]) -> usize {
    batch.iter().map(Queued::span_count).sum()
}

#[cfg(test)]
mod tests;
