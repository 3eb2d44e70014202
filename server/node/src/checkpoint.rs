//! The task that takes checkpoints: [`ferrite_hybridlog::checkpoint`] says what one is.
//!
//! What it may cost the others: for one stretch of at most [`STRETCH_NS`] and one step of the walk its worker serves nobody,
//! then it rests for [`REST`]. At its beginning and at its cut all workers are out of their batches for as long as it takes to
//! read a few numbers a database, whatever the number of keys. After the cut, hot keys are written to new records once.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use ferrite_hybridlog::checkpoint::{CheckpointError, Checkpoints, Taken, Taking};
use ferrite_io::{Clock, World, give_way};
use ferrite_keyspace::Reminders;
use ferrite_telemetry::schema::{Attribute, ExceptionType, SpanName};
use ferrite_telemetry::{Exception, Value};
use futures_util::future::select;

use crate::failure::Failure;
use crate::start::log_path;
use crate::worker::Worker;

/// How often the save points are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Work between two rests, and a rest: the walk takes a third of its worker at most.
const STRETCH_NS: u64 = 500_000;
const REST: Duration = Duration::from_millis(1);
/// Buckets of one step, and reminders.
const BUCKETS: usize = 64;
const REMINDERS: usize = 2048;
/// Notes of writes that are to be settled: who settles one waits for that long.
const NOTES: usize = 256;
/// Bytes of reminders that are written at a time; whole ones.
const CHUNK_BYTES: usize = 256 << 10;

/// Why there is no checkpoint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SaveError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("the server ends")]
    Shutdown,
}

impl SaveError {
    /// What the trace says.
    fn failure(&self) -> Failure {
        let text = self.to_string();
        let exception = match self {
            Self::Checkpoint(_) => {
                Some(Exception { kind: ExceptionType::CheckpointFailed, message: text.clone(), stack: None })
            }
            Self::Shutdown => None,
        };
        Failure { text, exception }
    }
}

/// Takes a checkpoint whenever a client or a save point asks for it, until the node ends. On the worker that writes the AOF.
pub(crate) async fn run<W: World>(worker: Rc<Worker<W>>, checkpoints: Rc<Checkpoints<W>>) {
    let node = worker.node.clone();
    let status = &node.saves;
    while !node.shutdown.is_raised() {
        select(pin!(status.wished()), pin!(worker.world.clock().sleep(LOOK))).await;
        let changes = node.databases.figures().changes;
        let due = {
            let points = node.live.save_points.lock();
            status.is_due(&points, changes, node.started_monotonic_ns, worker.now_ns())
        };
        if !node.shutdown.is_raised() && (due || status.figures().wanted) {
            // It is in the log and in INFO.
            let _ = save(&worker, &checkpoints, true).await;
        }
    }
    status.close();
}

/// Takes one checkpoint, once no rewrite of the append-only file runs; with `may_stop` not beyond the end of the node.
pub(crate) async fn save<W: World>(
    worker: &Worker<W>,
    checkpoints: &Checkpoints<W>,
    may_stop: bool,
) -> Result<(), SaveError> {
    let node = &worker.node;
    let _turn = node.background.lock().await;
    let began_ns = worker.now_ns();
    node.saves.begin(began_ns);
    tracing::info!("a checkpoint is taken");
    let result = take(worker, checkpoints, may_stop).await;
    let now = worker.world.clock();
    let saved = result.as_ref().ok().map(|&(_, changes)| (changes, now.unix_ns() / 1_000_000_000));
    node.saves.end(saved, worker.now_ns());
    let bytes = result.as_ref().ok().map(|(taken, _)| taken.bytes);
    node.work.checkpoints.end(bytes, worker.now_ns() - began_ns, now.unix_ns());
    record(worker, began_ns, &result);
    match result {
        Ok((taken, _)) => {
            tracing::info!(
                bytes = taken.bytes,
                entries = taken.entries,
                log_tail = taken.tail,
                "a checkpoint was taken"
            );
            Ok(())
        }
        Err(SaveError::Shutdown) => Err(SaveError::Shutdown),
        Err(error) => {
            tracing::error!(%error, "no checkpoint was taken; those that there are stay in force");
            Err(error)
        }
    }
}

/// The checkpoint as a trace of its own.
fn record<W: World>(worker: &Worker<W>, began_ns: u64, result: &Result<(Taken, u64), SaveError>) {
    let failure = result.as_ref().err().map(SaveError::failure);
    let number = |number: u64| Value::Int(number as i64);
    let attributes = result.as_ref().map_or_else(
        |_| Vec::new(),
        |(taken, _)| {
            vec![
                (Attribute::CheckpointBytes, number(taken.bytes)),
                (Attribute::CheckpointEntries, number(taken.entries)),
                (Attribute::CheckpointLogTail, number(taken.tail)),
            ]
        },
    );
    worker.record_work(SpanName::Checkpoint, began_ns, &attributes, failure);
}

/// Gives the checkpoint, and how many changes there had been at its cut.
async fn take<W: World>(
    worker: &Worker<W>,
    checkpoints: &Checkpoints<W>,
    may_stop: bool,
) -> Result<(Taken, u64), SaveError> {
    let mut reminders = None;
    let begun = || reminders = Some(worker.node.databases.copy_reminders());
    let mut taking = checkpoints.begin(&worker.handle, begun).await?;
    let reminders = reminders.expect("it was begun");
    match fill(worker, &mut taking, reminders, may_stop).await {
        Ok(changes) => Ok((taking.finish().await?, changes)),
        Err(error) => {
            taking.abandon().await;
            Err(error)
        }
    }
}

async fn fill<W: World>(
    worker: &Worker<W>,
    taking: &mut Taking<W>,
    mut reminders: Reminders<'_>,
    may_stop: bool,
) -> Result<u64, SaveError> {
    let stretches = Stretches { worker, may_stop };
    let mut more = true;
    while more {
        let rest_at_ns = stretches.begin();
        while more && worker.now_ns() < rest_at_ns {
            more = taking.step(&worker.handle, BUCKETS);
            taking.write().await?;
        }
        stretches.rest().await?;
    }
    let mut chunk = Vec::new();
    let mut more = true;
    while more {
        let rest_at_ns = stretches.begin();
        while more && worker.now_ns() < rest_at_ns {
            more = reminders.step(REMINDERS, &mut chunk);
            if chunk.len() >= CHUNK_BYTES || !more {
                taking.upper(&chunk).await?;
                chunk.clear();
            }
        }
        stretches.rest().await?;
    }
    let (changes, mut unseen) = {
        let mut pinned = worker.handle.pin();
        // Nobody is between a write and its place in the log.
        let alone = pinned.exclusive();
        let databases = &worker.node.databases;
        let (note, unseen) = databases.note();
        taking.cut(&alone, worker.world.clock().unix_ns() / 1_000_000, note);
        (databases.figures().changes, unseen)
    };
    let mut notes = Vec::new();
    while unseen.step(NOTES, &mut notes) {
        give_way().await;
    }
    drop(unseen);
    taking.also_upper(&notes);
    drop(notes);
    taking.settle(&worker.device, &log_path(&worker.node)).await?;
    // Not before: a batch that was under way at the cut may have handed its reminders over only since.
    reminders.finish(&mut chunk);
    for some in chunk.chunks(CHUNK_BYTES) {
        taking.upper(some).await?;
    }
    Ok(changes)
}

/// Work in stretches with rests between them.
struct Stretches<'w, W: World> {
    worker: &'w Worker<W>,
    may_stop: bool,
}

impl<W: World> Stretches<'_, W> {
    /// When to rest.
    fn begin(&self) -> u64 {
        self.worker.now_ns() + STRETCH_NS
    }

    async fn rest(&self) -> Result<(), SaveError> {
        if self.may_stop && self.worker.node.shutdown.is_raised() {
            return Err(SaveError::Shutdown);
        }
        self.worker.world.clock().sleep(REST).await;
        Ok(())
    }
}
