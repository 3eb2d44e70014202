//! Reads from disk for commands that wait: all of a batch's cold keys at once, so that their I/O overlaps.
//!
//! Large values are another matter, since their number is a client's and memory is not: what is read ahead is bounded, and beyond
//! that a value is read when its command's turn has come, one after the other, and given up when it is over.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use ferrite_commands::call::keys_of;
use ferrite_commands::{otel, table};
use ferrite_hybridlog::{Address, Found, Pinned};
use ferrite_io::World;
use ferrite_telemetry::{DiskSlot, Tier};
use futures_util::future::join_all;

use crate::failure::Failure;
use crate::session::{Connection, Pending};

/// A key of a waiting command whose record is on disk.
pub(crate) struct ColdKey {
    /// Index in the batch.
    command: usize,
    hash: u64,
    address: Address,
    /// The record alone: the command will say what it needs of a large value.
    alone: bool,
    slot: DiskSlot,
    /// An earlier read of the same key met an older neighbour: its span goes on.
    again: bool,
}

/// Bytes of large values that are read at once, and of one that always is.
const AT_ONCE: u64 = 32 << 20;
const SMALL_MIN: u64 = 16 << 10;

/// Of how large a value one of `count` reads brings along.
fn share_of(count: usize) -> u64 {
    (AT_ONCE / count as u64).max(SMALL_MIN)
}

/// The disk spans of the batch at hand, by command and key hash.
pub(crate) type DiskSlots = Vec<(usize, u64, DiskSlot)>;

/// Fetches the records that the keys of commands `from..count` lead to. What a read finds is at times not yet the key's
/// own record but a neighbour in its chain: the command is then called again, pauses again, and the chain is followed
/// one step further.
///
/// # Errors
/// One of the first command's keys cannot be read, or they are too much for the memory that there is.
pub(crate) async fn keys<W: World>(connection: &mut Connection<W>, from: usize, count: usize) -> Result<(), Failure> {
    let mut cold = find_cold(connection, from, count, false);
    if !cold.iter().any(|key| key.command == from) {
        // It has the records of all its keys, and still asks for one: for its value.
        cold.extend(find_cold(connection, from, from + 1, true));
    }
    if cold.is_empty() {
        return Ok(());
    }
    let worker = connection.worker.clone();
    let own = cold.iter().filter(|key| key.command == from).count();
    let share = share_of(cold.len());
    let read = |key: &ColdKey| match (key.alone, own == 1 && key.command == from) {
        (true, _) => worker.device.read_up_to(key.address, 0),
        (false, true) => worker.device.read_up_to(key.address, u64::MAX),
        (false, false) => worker.device.read_up_to(key.address, share),
    };
    let results = join_all(cold.iter().map(read)).await;
    let mut failed = None;
    for (key, mut result) in cold.iter().zip(results) {
        if key.command == from && !key.alone && result.as_ref().is_ok_and(|read| !read.record.is_whole()) {
            check_memory(connection)?;
            result = worker.device.read_record(key.address).await;
        }
        match result {
            Ok(read) => {
                let submitted_ns = if key.again { 0 } else { read.submitted_ns };
                let bytes = Some(read.record.value_len());
                connection.trace.disk_read_close(key.slot, submitted_ns, read.completed_ns, bytes, read.id.0);
                worker.node.store.read_cache.offer(key.address, &read.record);
                connection.held.insert(key.address, read.record);
                worker.stats().disk_reads.add(1);
            }
            Err(error) => {
                let submission = error.submission().0;
                connection.trace.disk_read_close(key.slot, 0, worker.now_ns(), None, submission);
                // Only the paused command answers for its own keys; a later one will meet the error itself.
                if key.command == from {
                    failed = Some(error);
                }
            }
        }
    }
    connection.held.account();
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// Before another large value is read for the command at hand, which needs all of them together.
fn check_memory<W: World>(connection: &mut Connection<W>) -> Result<(), Failure> {
    connection.held.account();
    let node = &connection.worker.node;
    let (held, max) = (node.memory.held_reads.load(Relaxed), node.memory_max());
    if held < max {
        return Ok(());
    }
    let text = format!(
        "the values on disk that the command needs together do not fit into memory: {held} bytes are read, of {max} that there are"
    );
    Err(Failure { text, exception: None })
}

/// Takes from the read cache what the keys of commands `from..count` lead to. True: that of the first of them is among it,
/// and it can be run again at once.
pub(crate) fn from_cache<W: World>(
    connection: &mut Connection<W>,
    pinned: &Pinned<'_>,
    from: usize,
    count: usize,
) -> bool {
    let Connection { worker, commands, input, session, trace, held, .. } = connection;
    let node = &worker.node;
    let space = node.databases.space(session.db);
    let (mut asked, mut addresses) = (Vec::new(), Vec::new());
    trace.mute(true);
    for (command, pending) in commands.iter().enumerate().take(count).skip(from) {
        each_key(pending, input, command == from, |bytes, _| {
            let key = pinned.key(space, bytes);
            let latch = pinned.latch(key.hash, false);
            let found = pinned.find(&key, held, trace);
            drop(latch);
            if let Found::Cold(address) = found {
                asked.push((command, key.hash));
                addresses.push(address);
            }
        });
    }
    trace.mute(false);
    let (mut found, mut first) = (Vec::new(), false);
    for (((command, hash), &address), record) in
        asked.into_iter().zip(&addresses).zip(node.store.read_cache.get_all(&addresses))
    {
        let Some(record) = record else { continue };
        trace.select(commands[command].trace);
        trace.index_lookup(pinned.bucket_of(hash));
        trace.storage_read(Tier::Mutable, false, 0);
        trace.storage_read(Tier::ReadOnly, true, record.value_len());
        first |= command == from;
        found.push((address, record));
    }
    // Not before: each command that asks for a key shows where it was found.
    for (address, record) in found {
        held.insert(address, record);
    }
    trace.select(commands[from].trace);
    first
}

/// Gives `f` each key of a command of the batch, if it has to be known what the key holds: a write that overwrites it does
/// not wait for that, unless it has paused for it. The second argument: its record is to be read alone.
fn each_key(pending: &Pending, input: &[u8], paused: bool, mut f: impl FnMut(&[u8], bool)) {
    let all = pending.parsed.args(&input[pending.at..]);
    let skip = otel::unwrap(all).map_or(0, |wrapped| wrapped.skip);
    let args = all.from(skip);
    let Some(spec) = table::resolve(args) else { return };
    if spec.arity_allows(args.len()) && (paused || !(spec.overwrites)(&args)) {
        keys_of(spec, args).for_each(|at| f(args.get(at), spec.reads_parts));
    }
}

/// Looks up the keys of commands `from..count`, in order, and records for each cold one what was asked before the disk
/// is. Keys in memory are left to their command; so are those whose record alone is wanted and here, unless values are wanted `whole`.
fn find_cold<W: World>(connection: &mut Connection<W>, from: usize, count: usize, whole: bool) -> Vec<ColdKey> {
    let Connection { worker, commands, input, session, trace, held, disk_slots, .. } = connection;
    let space = worker.node.databases.space(session.db);
    let pinned = worker.handle.pin();
    let epoch = pinned.epoch();
    trace.pinned(epoch);
    let mut cold = Vec::new();
    for (command, pending) in commands.iter().enumerate().take(count).skip(from) {
        each_key(pending, input, command == from, |bytes, alone| {
            trace.select(pending.trace);
            let key = pinned.key(space, bytes);
            let latch = pinned.latch(key.hash, false);
            if latch.was_contended() {
                trace.latch_contended(pinned.bucket_of(key.hash));
            }
            trace.mute(true);
            let found = match pinned.find(&key, held, trace) {
                Found::Cold(address) => Some(address),
                Found::Record(_) | Found::Missing => None,
            };
            drop(latch);
            trace.mute(false);
            let Some(address) = found else { return };
            let alone = alone && !whole;
            if alone && held.get(address).is_some() {
                // The record is here; what of its value is wanted, the command says when it runs.
                return;
            }
            let known = disk_slots.iter().find(|(owner, hash, _)| (*owner, *hash) == (command, key.hash));
            let slot = match known {
                Some((_, _, slot)) => *slot,
                None => {
                    trace.index_lookup(pinned.bucket_of(key.hash));
                    trace.storage_read(Tier::Mutable, false, 0);
                    trace.storage_read(Tier::ReadOnly, false, 0);
                    trace.epoch_protect(epoch);
                    trace.disk_read_open()
                }
            };
            if cold.iter().any(|other: &ColdKey| (other.command, other.hash) == (command, key.hash)) {
                return;
            }
            cold.push(ColdKey { command, hash: key.hash, address, alone, slot, again: known.is_some() });
            if known.is_none() {
                disk_slots.push((command, key.hash, slot));
            }
        });
    }
    cold
}

/// Fetches these bytes of the large string of a record that is held without it.
pub(crate) async fn part<W: World>(
    connection: &mut Connection<W>,
    address: Address,
    range: Range<usize>,
) -> Result<(), Failure> {
    let worker = connection.worker.clone();
    let slot = connection.trace.disk_read_open();
    let record = connection.held.get(address).expect("who asks for a part has the record").clone();
    let len = range.len();
    let result = worker.device.read_part(address, record, range).await;
    let (submitted_ns, completed_ns, bytes, id) = match &result {
        Ok(read) => (read.submitted_ns, read.completed_ns, Some(len), read.id),
        Err(error) => (0, worker.now_ns(), None, error.submission()),
    };
    connection.trace.disk_read_close(slot, submitted_ns, completed_ns, bytes, id.0);
    let read = result?;
    connection.held.insert(address, read.record);
    connection.held.account();
    worker.stats().disk_reads.add(1);
    Ok(())
}

/// Fetches records that a scan has met, or EXEC's queued commands, with their large values or without.
pub(crate) async fn records<W: World>(
    connection: &mut Connection<W>,
    addresses: &[Address],
    values: bool,
) -> Result<(), Failure> {
    let worker = connection.worker.clone();
    let slot = connection.trace.disk_read_open();
    let device = &worker.device;
    let share = if values { share_of(addresses.len().max(1)) } else { 0 };
    let results = join_all(addresses.iter().map(|&address| device.read_up_to(address, share))).await;
    let (mut first, mut last, mut id, mut bytes) = (u64::MAX, 0, 0, 0);
    let mut failed = None;
    for (&address, mut result) in addresses.iter().zip(results) {
        if values && result.as_ref().is_ok_and(|read| !read.record.is_whole()) {
            if let Err(failure) = check_memory(connection) {
                connection.trace.disk_read_close(slot, first.min(last), last, Some(bytes), id);
                return Err(failure);
            }
            result = device.read_record(address).await;
        }
        match result {
            Ok(read) => {
                first = first.min(read.submitted_ns);
                last = last.max(read.completed_ns);
                id = id.max(read.id.0);
                bytes += read.record.value_len();
                connection.held.insert(address, read.record);
                worker.stats().disk_reads.add(1);
            }
            Err(error) => {
                last = worker.now_ns();
                id = id.max(error.submission().0);
                failed = Some(error);
            }
        }
    }
    connection.held.account();
    connection.trace.disk_read_close(slot, first.min(last), last, Some(bytes), id);
    failed.map_or(Ok(()), |error| Err(error.into()))
}
