//! The task behind the signals that are queued: batches, and what becomes of what nobody takes.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferrite_io::Clock;
use futures_util::FutureExt;
use futures_util::future::{Either, Shared, select};

use super::FLUSH_MAX;
use super::delivery::{Delivery, Fate};
use crate::queue::{Countable, Queue};
use crate::transport::Exchange;

pub(super) struct BatchExport<T, C, X, E> {
    pub(super) queue: Arc<Queue<T>>,
    pub(super) delivery: Delivery<C, X>,
    /// Makes the request of a batch.
    pub(super) encode: E,
    /// After which a batch that is not full goes.
    pub(super) batch_timeout: Duration,
    /// Writes each batch to the console, if it is wanted there.
    pub(super) console: Option<Console<T>>,
}

pub(super) type Console<T> = Box<dyn Fn(&[T])>;

impl<T: Countable, C: Clock, X: Exchange, E: FnMut(&[T]) -> Bytes> BatchExport<T, C, X, E> {
    /// Exports what comes into the queue until `shutdown` is ready, then what is still there, for at most [`FLUSH_MAX`].
    pub(super) async fn run(mut self, shutdown: impl Future<Output = ()>) {
        self.queue.attach_exporter();
        let shutdown = shutdown.shared();
        let queue = Arc::clone(&self.queue);
        let clock = self.delivery.clock().clone();
        // What was taken from the queue and has no fate yet.
        let in_flight = Cell::new(0);
        let bound = pin!(async {
            shutdown.clone().await;
            clock.sleep(FLUSH_MAX).await;
        });
        // Beside the work, which may wait for a backend.
        let gather = pin!(queue.gather_when_pressed());
        select(pin!(self.work(&shutdown, &in_flight)), select(bound, gather)).await;
        let mut lost = in_flight.get();
        loop {
            let left = queue.take();
            if left.is_empty() {
                break;
            }
            lost += count_of(&left);
        }
        if lost > 0 {
            queue.count_failed(lost);
            let signal = self.delivery.signal().as_str();
            tracing::warn!(signal, lost, "telemetry was not exported before the end");
        }
    }

    async fn work<S: Future<Output = ()>>(&mut self, shutdown: &Shared<S>, in_flight: &Cell<usize>) {
        loop {
            let stopping = self.batch_or_shutdown(shutdown).await;
            let batch = self.queue.take();
            if !batch.is_empty() {
                in_flight.set(count_of(&batch));
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

    /// Sends a batch or gives it up; all of it is counted.
    async fn send<S: Future<Output = ()>>(&mut self, batch: &[T], shutdown: &Shared<S>) {
        let count = count_of(batch);
        if let Some(console) = &self.console {
            console(batch);
        }
        let request = (self.encode)(batch);
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

fn count_of<T: Countable>(batch: &[T]) -> usize {
    batch.iter().map(Countable::count).sum()
}
