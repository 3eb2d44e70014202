//! Writes that did not read what they replaced: each worker looks behind some of them, in the order of their addresses, all
//! of a batch at once. A batch is a trace of its own, since its reads belong to no command; how many there are, and how
//! many failed, are metrics.

use std::rc::Rc;

use ferrite_hybridlog::{Address, ReadError};
use ferrite_io::{Clock, World, give_way};
use ferrite_keyspace::{Ticket, Unseen, cannot_look_behind, look_behind};
use ferrite_telemetry::Value;
use ferrite_telemetry::schema::{Attribute, SpanName};
use futures_util::future::join_all;
use std::time::Duration;

use crate::failure::Failure;
use crate::worker::Worker;

/// Notes of one batch: as many reads at once. What commands read comes beside them.
const BATCH: usize = 64;
/// A record that cannot be read is tried again after this time, and twice that, and so on up to the longest.
const AGAIN_AFTER: Duration = Duration::from_millis(10);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(10);

/// Runs for as long as the worker does.
pub(crate) async fn run<W: World>(worker: Rc<Worker<W>>) {
    loop {
        let mut batch = worker.node.databases.unseen.take(BATCH).await;
        batch.sort_by_key(|(_, unseen)| unseen.cold);
        let began_ns = worker.now_ns();
        let looked = Looked::at(&worker, &batch).await;
        let told = |error: &ReadError| Failure { text: error.to_string(), exception: Some(error.exception()) };
        let failure = looked.failed.first().map(|(_, error)| told(error));
        let count = |number: usize| Value::Int(number as i64);
        let attributes =
            [(Attribute::UnseenKeysCount, count(batch.len())), (Attribute::UnseenReadsCount, count(looked.reads))];
        worker.record_work(SpanName::UnseenSettle, began_ns, &attributes, failure);
        for (note, error) in looked.failed {
            worker.world.spawn(again(worker.clone(), note, error));
        }
        give_way().await;
    }
}

/// Counts of the moment at which it is called, as exact as they can be made: for who cannot do with too high ones.
pub(crate) async fn settled<W: World>(worker: &Worker<W>) {
    let databases = &worker.node.databases;
    if !databases.unseen.is_empty() {
        let ticket = databases.unseen.ticket(databases, None);
        ticket.settled().await;
    }
}

/// Waits for the ticket, at most for as long as the patience lasts.
///
/// # Errors
/// What was replaced cannot be read, and there is no patience that could end.
pub(crate) async fn wait<W: World>(
    worker: &Worker<W>,
    ticket: &Ticket,
    patience: Option<Duration>,
) -> Result<(), ReadError> {
    let settled = std::pin::pin!(ticket.settled());
    match patience {
        Some(patience) => {
            futures_util::future::select(settled, std::pin::pin!(worker.world.clock().sleep(patience))).await;
            Ok(())
        }
        None => {
            settled.await;
            // Whatever the database: one cannot be read, all are uncertain.
            ticket.counts(0).map_or(Ok(()), |counts| counts.map(|_| ()))
        }
    }
}

/// How often it is looked whether a record that cannot be read was left behind meanwhile.
const LEFT_LOOK: Duration = Duration::from_millis(100);

/// Waits for all notes of now, but for those that cannot be settled because of a record that `is_left` for good.
///
/// # Errors
/// What another one has replaced cannot be read.
pub(crate) async fn wait_but<W: World>(worker: &Worker<W>, is_left: impl Fn(Address) -> bool) -> Result<(), ReadError> {
    let databases = &worker.node.databases;
    let ticket = databases.unseen.ticket(databases, None);
    loop {
        ticket.settled().await;
        let is_hopeless = |error: &ReadError| is_left(error.address());
        if let Some(result) = databases.unseen.settled_but(&ticket, is_hopeless) {
            return result;
        }
        // One can never be settled; the others may still be.
        worker.world.clock().sleep(LEFT_LOOK).await;
    }
}

type Numbered = (u64, Unseen);

/// What became of a batch.
#[derive(Default)]
struct Looked {
    reads: usize,
    failed: Vec<(Numbered, ReadError)>,
}

impl Looked {
    /// Follows each note's chain to its end.
    async fn at<W: World>(worker: &Worker<W>, batch: &[Numbered]) -> Self {
        let mut looked = Self::default();
        let mut left: Vec<(Address, Numbered)> = batch.iter().map(|&note| (note.1.cold, note)).collect();
        while !left.is_empty() {
            looked.reads += left.len();
            let reads = join_all(left.iter().map(|&(at, _)| worker.device.read_header(at))).await;
            let databases = &worker.node.databases;
            let pinned = worker.handle.pin();
            let mut further = Vec::new();
            for ((at, note), read) in left.into_iter().zip(reads) {
                match read {
                    Ok(read) => {
                        worker.stats().disk_reads.add(1);
                        let next = look_behind(&pinned, databases, note, at, &read.record);
                        further.extend(next.map(|next| (next, note)));
                    }
                    Err(error) => looked.failed.push((note, error)),
                }
            }
            left = further;
        }
        looked
    }
}

/// Tries one again until it can be read. Meanwhile DBSIZE says that it cannot.
async fn again<W: World>(worker: Rc<Worker<W>>, note: Numbered, mut error: ReadError) {
    let mut after = AGAIN_AFTER;
    loop {
        let attempts = cannot_look_behind(&worker.handle.pin(), &worker.node.databases, note, &error);
        if attempts == 0 {
            return;
        }
        if attempts.is_power_of_two() {
            tracing::warn!(%error, attempts, "what a write has replaced cannot be read: the number of keys is uncertain");
        }
        worker.world.clock().sleep(after).await;
        after = (2 * after).min(AGAIN_AFTER_MAX);
        match Looked::at(&worker, &[note]).await.failed.pop() {
            Some((_, again)) => error = again,
            None => return,
        }
    }
}
