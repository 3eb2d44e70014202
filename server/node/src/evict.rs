//! Eviction on its way: before a command that finds more data than `maxmemory`, and now and then for all.
//!
//! A run works in slices; between two of them the worker's other tasks have their turn. It makes a little more room than is
//! needed, so that not every write begins another, and is a trace of its own. The command that waits for it is admitted
//! when there is room, and takes memory then: so the data exceeds the limit by what one command a worker adds at most.

use std::time::Duration;

use std::rc::Rc;

use ferrite_hybridlog::{Address, Held, ReadError};
use ferrite_io::{Clock, World, give_way};
use ferrite_keyspace::{Evictor, Pause, Room, Slice, evict_slice};
use ferrite_telemetry::schema::{Attribute, SpanName};
use ferrite_telemetry::{TraceBuffer, Value};
use futures_util::future::join_all;

use crate::batch::wait_for_space;
use crate::config::Choice;
use crate::failure::Failure;
use crate::unseen;
use crate::worker::Worker;

/// How often it is looked whether the limit has been lowered, or data has grown in another way than by a command.
const LOOK: Duration = Duration::from_millis(100);
/// Reads that fail before a run gives up.
const FAILURES_MAX: usize = 8;
/// Records that a run holds at the same time.
const HELD_MAX: usize = 256;

/// Keeps the data below the limit while no command does; on one worker, until the node is shut down.
pub(crate) async fn run<W: World>(worker: Rc<Worker<W>>) {
    loop {
        worker.world.clock().sleep(LOOK).await;
        if worker.node.shutdown.is_raised() {
            return;
        }
        if worker.node.databases.room() == Room::Evict {
            make_room(&worker).await;
        }
    }
}

/// Deletes keys until there is room. False: no key may go any more, and there still is none.
pub(crate) async fn make_room<W: World>(worker: &Worker<W>) -> bool {
    let databases = &worker.node.databases;
    // What only seems to be too much is no reason.
    unseen::settled(worker).await;
    if databases.room() == Room::Free {
        return true;
    }
    let candidates = std::mem::take(&mut *worker.candidates.borrow_mut());
    let seed = worker.scratch.borrow_mut().random_seed();
    let Some(mut evictor) = Evictor::new(databases, seed, candidates) else {
        return databases.room() == Room::Free;
    };
    let began_ns = worker.now_ns();
    let failure = slices(worker, &mut evictor).await.err();
    let bytes = failure.is_none().then_some(evictor.bytes_freed);
    worker.node.work.evictions.end(bytes, worker.now_ns() - began_ns, worker.world.clock().unix_ns());
    // As long as no run succeeds, the first that did not is told of.
    let failed_before = worker.eviction_fails.replace(failure.is_some());
    if evictor.keys_evicted > 0 || failure.is_some() && !failed_before {
        record(worker, began_ns, &evictor, failure);
    }
    *worker.candidates.borrow_mut() = evictor.finish(databases);
    databases.room() == Room::Free
}

/// # Errors
/// The disk refuses what it takes.
async fn slices<W: World>(worker: &Worker<W>, evictor: &mut Evictor) -> Result<(), Failure> {
    let databases = &worker.node.databases;
    let mut held = Held::default();
    let mut trace = TraceBuffer::new(W::Clock::monotonic_source());
    trace.configure(None);
    let mut failures = 0;
    loop {
        match slice(worker, evictor, &held, &mut trace) {
            Ok(Slice::Enough | Slice::Nothing) => return Ok(()),
            Ok(Slice::More) => {
                held.clear();
                give_way().await;
                unseen::settled(worker).await;
            }
            Err(Pause::Headers(addresses)) => {
                if held.len() > HELD_MAX {
                    held.clear();
                }
                if let Err(error) = fetch(worker, &addresses, &mut held).await {
                    evictor.skip(databases);
                    failures += 1;
                    if failures == FAILURES_MAX {
                        tracing::warn!(%error, "keys cannot be evicted: their records cannot be read");
                        return Err(error.into());
                    }
                }
            }
            Err(Pause::Space(need)) => {
                if let Err(failure) = wait_for_space(&worker.node, need).await {
                    tracing::debug!(error = failure.text, "keys cannot be evicted");
                    return Err(failure);
                }
            }
            Err(Pause::Keys | Pause::Records(_) | Pause::Part { .. } | Pause::Counts { .. } | Pause::Refused(_)) => {
                unreachable!("a deletion names its records and is never refused")
            }
        }
        if worker.node.shutdown.is_raised() {
            return Ok(());
        }
    }
}

fn slice<W: World>(
    worker: &Worker<W>,
    evictor: &mut Evictor,
    held: &Held,
    trace: &mut TraceBuffer,
) -> Result<Slice, Pause> {
    let now_ms = worker.world.clock().unix_ns() / 1_000_000;
    let pinned = worker.handle.pin();
    let mut scratch = worker.scratch.borrow_mut();
    let result = evict_slice(worker.lend(&pinned, held, trace, &mut scratch, now_ms), evictor);
    worker.node.databases.absorb(&mut scratch);
    result
}

/// Reads the records alone: what large values hold decides nothing.
///
/// # Errors
/// One of them cannot be read. Whoever asks for its key gets the error.
async fn fetch<W: World>(worker: &Worker<W>, addresses: &[Address], held: &mut Held) -> Result<(), ReadError> {
    let reads = join_all(addresses.iter().map(|&address| worker.device.read_header(address))).await;
    let mut failed = None;
    for (&address, read) in addresses.iter().zip(reads) {
        match read {
            Ok(read) => {
                held.insert(address, read.record);
                worker.stats().disk_reads.add(1);
            }
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// The run as a trace of its own.
fn record<W: World>(worker: &Worker<W>, began_ns: u64, evictor: &Evictor, failure: Option<Failure>) {
    let count = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let attributes = [
        (Attribute::EvictionPolicy, Value::Str(evictor.policy().name().into())),
        (Attribute::EvictionKeysCount, count(evictor.keys_evicted)),
        (Attribute::EvictionBytes, count(evictor.bytes_freed)),
    ];
    worker.record_work(SpanName::Eviction, began_ns, &attributes, failure);
}
