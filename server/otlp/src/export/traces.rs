//! The task that exports traces.

use std::future::Future;
use std::sync::Arc;

use ferrite_io::{Entropy, World};

use super::batches::{BatchExport, Console};
use super::console;
use super::delivery::Delivery;
use super::encode::SpanEncoder;
use super::settings::ExportSettings;
use crate::transport::{Exchange, Signal};
use crate::{ExportQueue, Queued};

/// Exports what comes into `queue` until `shutdown` is ready, then what is still there, for at most
/// [`FLUSH_MAX`](super::FLUSH_MAX).
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
    let delivery = Delivery::new(world.clock().clone(), exchange, Signal::Traces, &settings, seed);
    let mut encoder = SpanEncoder::new(&settings);
    let encode = move |batch: &[Queued]| encoder.encode(batch);
    let batch_timeout = settings.batch_timeout;
    let console = console::begin(&settings, Signal::Traces).map(|print| -> Console<Queued> {
        let shape = Arc::clone(&settings.shape);
        Box::new(move |batch| console::spans(batch, &shape, &*print))
    });
    BatchExport { queue, delivery, encode, batch_timeout, console }.run(shutdown).await;
}

#[cfg(test)]
mod tests;
