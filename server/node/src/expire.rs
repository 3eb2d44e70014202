//! The active cycle: deletes keys whose time has come, a few at a time between the commands.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ferrite_hybridlog::Held;
use ferrite_io::{Clock, World, give_way};
use ferrite_keyspace::{Deleted, Due, Pause, cold_records, expire_due};
use ferrite_telemetry::schema::{Attribute, SpanName};
use ferrite_telemetry::{TraceBuffer, Value};
use futures_util::future::join_all;

use crate::batch::wait_for_space;
use crate::failure::Failure;
use crate::worker::Worker;

/// As often as Redis does it with `hz 10`.
const CYCLE: Duration = Duration::from_millis(100);
/// Keys looked at before the commands that have come meanwhile have their turn: some tens of microseconds.
const SLICE: usize = 64;
/// When a cycle looks no more for keys that are gone; in slices, of which each gives way.
const SWEEP_NS: u64 = 20_000_000;

/// Runs until the node is shut down; on one worker.
pub(crate) async fn run<W: World>(worker: Rc<Worker<W>>) {
    let databases = &worker.node.databases;
    let clock = worker.world.clock();
    let mut due = Due::default();
    // A disk that refuses deletions is told of once.
    let mut is_refused = false;
    loop {
        clock.sleep(CYCLE).await;
        if worker.node.shutdown.is_raised() {
            return;
        }
        if !databases.active_expiry() {
            continue;
        }
        let began_ns = worker.now_ns();
        let mut result = cycle(&worker, &mut due).await;
        if result.is_ok() {
            result = sweep(&worker, &mut due, began_ns + SWEEP_NS).await;
        }
        let was_refused = std::mem::replace(&mut is_refused, result.is_err());
        let deleted = due.take_deleted();
        if deleted.keys > 0 || is_refused && !was_refused {
            record(&worker, began_ns, &deleted, result.err());
        }
    }
}

/// Deletes what is due.
async fn cycle<W: World>(worker: &Worker<W>, due: &mut Due) -> Result<(), Failure> {
    let databases = &worker.node.databases;
    loop {
        let more = databases.take_due(worker.world.clock().unix_ns() / 1_000_000, SLICE, due);
        if let Err(failure) = delete(worker, due).await {
            // The disk is full or fails; so that nothing is forgotten, later again.
            databases.put_back(due);
            return Err(failure);
        }
        if !more {
            return Ok(());
        }
        give_way().await;
    }
}

/// Looks at reminders of any time where too many keys are gone, up to a time: what is left has its turn in the next cycle.
async fn sweep<W: World>(worker: &Worker<W>, due: &mut Due, end_ns: u64) -> Result<(), Failure> {
    let databases = &worker.node.databases;
    let mut left = databases.stale_reminders();
    while left > 0 && worker.now_ns() < end_ns {
        databases.take_stale(left.min(SLICE), due);
        left = left.saturating_sub(SLICE);
        if let Err(failure) = delete(worker, due).await {
            databases.put_back(due);
            return Err(failure);
        }
        give_way().await;
    }
    Ok(())
}

/// The cycle as a trace of its own.
fn record<W: World>(worker: &Worker<W>, began_ns: u64, deleted: &Deleted, failure: Option<Failure>) {
    let count = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let attributes = [
        (Attribute::ExpiryKeysCount, count(deleted.keys)),
        (Attribute::ExpiryDatabasesCount, count(deleted.databases.len() as u64)),
    ];
    worker.record_work(SpanName::Expiry, began_ns, &attributes, failure);
}

/// Deletes those of the keys that have expired.
///
/// # Errors
/// There is no room for it.
async fn delete<W: World>(worker: &Worker<W>, due: &mut Due) -> Result<(), Failure> {
    let mut held = Held::default();
    let mut unreadable = BTreeSet::new();
    let mut trace = TraceBuffer::new(W::Clock::monotonic_source());
    trace.configure(None);
    while !due.is_empty() {
        let cold = cold_records(&worker.handle.pin(), &held, due);
        let reads = join_all(cold.iter().map(|&address| worker.device.read_header(address))).await;
        for (&address, read) in cold.iter().zip(reads) {
            match read {
                Ok(read) => held.insert(address, read.record),
                // Whoever asks for the key gets the error.
                Err(_) => _ = unreadable.insert(address),
            }
        }
        match delete_in_memory(worker, due, &held, &mut trace) {
            Ok(()) => {}
            Err(Pause::Records(addresses)) => {
                if addresses.iter().any(|address| unreadable.contains(address)) {
                    due.skip(&worker.node.databases);
                }
            }
            Err(Pause::Space(need)) => {
                if let Err(failure) = wait_for_space(&worker.node, need).await {
                    tracing::debug!(error = failure.text, "expired keys cannot be deleted");
                    return Err(failure);
                }
            }
            Err(Pause::Keys | Pause::Headers(_) | Pause::Part { .. } | Pause::Counts { .. } | Pause::Refused(_)) => {
                unreachable!("a deletion names its records and is never refused")
            }
        }
    }
    Ok(())
}

fn delete_in_memory<W: World>(
    worker: &Worker<W>,
    due: &mut Due,
    held: &Held,
    trace: &mut TraceBuffer,
) -> Result<(), Pause> {
    let (began_ns, now_ms) = (worker.now_ns(), worker.world.clock().unix_ns() / 1_000_000);
    let pinned = worker.handle.pin();
    let mut scratch = worker.scratch.borrow_mut();
    let result = loop {
        match expire_due(worker.lend(&pinned, held, trace, &mut scratch, now_ms), due) {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(pause) => break Err(pause),
        }
    };
    worker.node.databases.absorb(&mut scratch);
    worker.node.work.expiry_ns.fetch_add(worker.now_ns() - began_ns, Relaxed);
    result
}
