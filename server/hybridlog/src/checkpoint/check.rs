//! Verifying checkpoints, and the log that they lead into, while no server uses them.

use std::collections::BTreeSet;
use std::path::Path;

use ferrite_io::Disk;

use super::file::Words;
use super::load::{Damage, LoadError, open_log_of, read_checkpoint};
use super::scan::{Scan, ScanError, scan_log};
use crate::address::{Address, FIRST_ADDRESS, file_offset};
use crate::datadir::NamedCheckpoint;
use crate::index::Slot;
use crate::record::RawRecord;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// A line for each file that is as it should be.
    pub sound: Vec<String>,
    pub damage: Vec<LoadError>,
}

/// Which part of the log was written with pages of which size.
struct Log {
    id: u64,
    tail: Address,
    eras: Vec<(Address, u64)>,
}

/// Reads checkpoints whole, and every record of the log at `log` that they can lead to; each entry of an image must lead to
/// the beginning of a record.
pub(crate) async fn check<D: Disk>(disk: &D, checkpoints: &[NamedCheckpoint], log: &Path) -> Found {
    let mut found = Found::default();
    let (mut addresses, mut newest) = (BTreeSet::new(), None);
    for named in checkpoints {
        let mut entries = Vec::new();
        match read_checkpoint(disk, named, &mut |image| addresses_of(image, &mut entries)).await {
            Ok((header, meta)) => {
                let count = entries.len();
                found.sound.push(format!("{}: {count} entries, {} bytes", named.path.display(), named.entry.len));
                if !meta.forgotten {
                    addresses.extend(entries);
                }
                newest = Some(Log { id: header.log_id, tail: meta.tail, eras: meta.eras });
            }
            Err(error) => found.damage.push(error),
        }
    }
    // Without any that is good nothing tells which part of the log counts.
    if let Some(newest) = newest {
        match open_log_of(disk, log, newest.id, newest.tail).await {
            Ok(file) => records(&file, &newest, addresses, log, &mut found).await,
            Err(error) => found.damage.push(error),
        }
    }
    found
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
) {
    let (mut count, before) = (0u64, found.damage.len());
    for (index, &(from, page_size)) in log.eras.iter().enumerate() {
        let to = log.eras.get(index + 1).map_or(log.tail, |&(next, _)| next);
        let mut at = from.max(FIRST_ADDRESS);
        while at < to {
            let mut seen = |address: Address, _: RawRecord<'_>| {
                count += 1;
                addresses.remove(&address);
            };
            let Err(error) = scan_log(file, Scan { from: at, to, page_size }, &mut seen).await else { break };
            let (ScanError::Read { offset, .. } | ScanError::Damaged { offset, .. }) = error;
            found.damage.push(error.of(path));
            // What follows in the page cannot be found, and entries that lead there say nothing more.
            let address = offset - file_offset(0);
            at = (address / page_size + 1) * page_size;
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
}
