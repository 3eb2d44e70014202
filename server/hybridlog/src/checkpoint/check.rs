//! Verifying checkpoints, and the log that they lead into, while no server uses them.

use std::collections::BTreeSet;
use std::path::Path;

use ferrite_io::{AlignedBuf, Disk};

use super::file::Words;
use super::load::{Contents, Damage, LoadError, Owners, open_extents_of, open_log_of, read_checkpoint};
use super::scan::{Scan, ScanError, scan_log};
use crate::address::{Address, FIRST_ADDRESS, file_offset, is_unwritten, page_in};
use crate::datadir::NamedCheckpoint;
use crate::device::extents_path;
use crate::index::Slot;
use crate::objects::{NamedExtent, verify_extent};
use crate::quarantine::Range;
use crate::record::RawRecord;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// A line for each file that is as it should be.
    pub sound: Vec<String>,
    pub damage: Vec<LoadError>,
}

/// Which part of the log was written with pages of which size, and the extents that it leads to.
struct Log {
    id: u64,
    begin: Address,
    tail: Address,
    eras: Vec<(Address, u64)>,
    extents_id: u64,
    /// Pages that compaction has left behind.
    quarantined: BTreeSet<Range>,
    /// Of all checkpoints.
    extents: Vec<NamedExtent>,
}

/// Reads checkpoints whole, every record of the log at `log` that they can lead to, and every extent that they name; each entry
/// of an image must lead to the beginning of a record, and each extent belong to one.
pub(crate) async fn check<D: Disk>(disk: &D, checkpoints: &[NamedCheckpoint], log: &Path) -> Found {
    let mut found = Found::default();
    let (mut addresses, mut newest): (_, Option<Log>) = (BTreeSet::new(), None);
    for named in checkpoints {
        let mut entries = Vec::new();
        match read_checkpoint(disk, named, &mut |image| addresses_of(image, &mut entries)).await {
            Ok(Contents { header, meta, mut extents }) => {
                let count = entries.len();
                found.sound.push(format!("{}: {count} entries, {} bytes", named.path.display(), named.entry.len));
                let begin = meta.begin;
                if !meta.forgotten {
                    addresses.extend(entries.into_iter().filter(|&address| address >= begin));
                }
                let before = newest.take();
                let begin = before.as_ref().map_or(begin, |before| before.begin.min(begin));
                let eras = join(before.as_ref().map_or_else(Vec::new, |before| before.eras.clone()), meta.eras);
                let mut quarantined: BTreeSet<Range> = meta.quarantined.pages.into_iter().collect();
                if let Some(before) = before {
                    extents.extend(before.extents);
                    quarantined.extend(before.quarantined);
                }
                let (id, extents_id) = (header.log_id, header.extents_id);
                newest = Some(Log { id, begin, tail: meta.tail, eras, extents_id, quarantined, extents });
            }
            Err(error) => found.damage.push(error),
        }
    }
    // Without any that is good nothing tells which part of the log counts.
    if let Some(mut newest) = newest {
        newest.extents.sort_unstable_by_key(|extent| (extent.offset, extent.id));
        newest.extents.dedup();
        match open_log_of(disk, log, newest.id, newest.tail).await {
            Ok(file) => {
                let before = found.damage.len();
                let owners = records(&file, &newest, addresses, log, &mut found).await;
                let all_read = found.damage.len() == before;
                extents(disk, &newest, owners, all_read, log, &mut found).await;
            }
            Err(error) => found.damage.push(error),
        }
    }
    found
}

/// Reads every extent, by what the records of the log say of it. If not `all_read` the log is damaged, and some of them may be
/// missing.
async fn extents<D: Disk>(disk: &D, newest: &Log, owners: Owners, all_read: bool, log: &Path, found: &mut Found) {
    let path = extents_path(log);
    let file = match open_extents_of(disk, log, newest.extents_id, &newest.extents).await {
        Ok(file) => file,
        Err(error) => return found.damage.push(error),
    };
    let (mut bytes, before) = (0, found.damage.len());
    for named in &newest.extents {
        bytes += named.bytes;
        let result = match owners.found.get(&named.id) {
            Some(&extent) => verify_extent(&file, named.id, extent).await.map_err(|error| error.of(&path, extent)),
            None if !all_read => continue,
            None => {
                let what = "a checkpoint names an extent there, and no record of the log leads to it".to_owned();
                Err(Damage { path: path.clone(), offset: named.offset, what }.into())
            }
        };
        found.damage.extend(result.err());
    }
    if all_read && found.damage.len() == before {
        let count = newest.extents.len();
        found.sound.push(format!("{}: {count} extents, {bytes} bytes, that checkpoints lead to", path.display()));
    }
}

/// The page sizes of all that two checkpoints need, of which the older one needs what lies further down.
fn join(mut older: Vec<(Address, u64)>, newer: Vec<(Address, u64)>) -> Vec<(Address, u64)> {
    match older.last() {
        Some(&(last, _)) => {
            older.extend(newer.into_iter().filter(|&(from, _)| from > last));
            older
        }
        None => newer,
    }
}

/// Whether a page is nothing but zeros, as far as it can be read.
async fn is_empty<F: ferrite_io::File>(file: &F, offset: u64, page_size: u64) -> bool {
    let done = file.read_at(AlignedBuf::zeroed(page_size as usize), offset).await;
    done.result.is_ok_and(|read| is_unwritten(&done.buf[..read]))
}

fn addresses_of(image: &[u8], out: &mut Vec<Address>) {
    let mut words = Words(image);
    while let Some(group) = words.next() {
        out.extend(words.by_ref().take((group & u64::from(u16::MAX)) as usize).map(Slot::address_of));
    }
}

async fn records<F: ferrite_io::File>(
    file: &F,
    log: &Log,
    mut addresses: BTreeSet<Address>,
    path: &Path,
    found: &mut Found,
) -> Owners {
    let mut owners = Owners::of(&log.extents);
    let (mut count, before) = (0u64, found.damage.len());
    for &(from, to) in &log.quarantined {
        let bytes = to - from;
        let what =
            format!("compaction could not read the page of {bytes} bytes that begins there, and has left it behind");
        found.damage.push(Damage { path: path.to_owned(), offset: file_offset(from), what }.into());
    }
    for (index, &(from, page_size)) in log.eras.iter().enumerate() {
        let to = log.eras.get(index + 1).map_or(log.tail, |&(next, _)| next);
        let mut at = from.max(log.begin).max(FIRST_ADDRESS);
        while at < to {
            let mut seen = |address: Address, record: RawRecord<'_>| {
                owners.seen(record);
                count += 1;
                addresses.remove(&address);
            };
            let Err(error) = scan_log(file, Scan { from: at, to, page_size }, &mut seen).await else { break };
            let (ScanError::Read { offset, .. } | ScanError::Damaged { offset, .. }) = error;
            let address = offset - file_offset(0);
            let (page_end, may_be_empty) = page_in(&log.eras, address);
            if may_be_empty && is_empty(file, offset, page_size).await {
                at = page_end;
                continue;
            }
            found.damage.push(error.of(path));
            // What follows in the page cannot be found, and entries that lead there say nothing more.
            at = page_end;
            addresses.retain(|&led| led < address || led >= at);
        }
    }
    for address in &addresses {
        let what = "the index leads there, and no record begins there".to_owned();
        found.damage.push(Damage { path: path.to_owned(), offset: file_offset(*address), what }.into());
    }
    if found.damage.len() == before {
        let bytes = file_offset(log.tail);
        found.sound.push(format!("{}: {count} records, {bytes} bytes that checkpoints lead into", path.display()));
    }
    owners
}
