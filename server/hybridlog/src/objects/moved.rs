//! Objects whose records are in memory again and they are not: compaction copies the record and leaves the extent where it is.
//! Who asks for such an object puts the record here, and reads it as if it were on disk.

use crate::address::Address;
use crate::sync::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Records in memory, by their addresses. Each stays as long as its page is in memory: then it is read from disk.
#[derive(Default)]
pub(crate) struct MovedRecords(Mutex<BTreeMap<Address, Arc<[u8]>>>);

impl MovedRecords {
    /// Somebody will read the object of the record at `address`.
    pub(crate) fn want(&self, address: Address, record: &[u8]) {
        self.0.lock().entry(address).or_insert_with(|| record.into());
    }

    /// The record at `address`, if somebody wants its object.
    pub(crate) fn get(&self, address: Address) -> Option<Arc<[u8]>> {
        self.0.lock().get(&address).cloned()
    }

    /// These records have left memory.
    pub(crate) fn forget(&self, addresses: Range<Address>) {
        let mut wanted = self.0.lock();
        if !wanted.is_empty() {
            wanted.retain(|address, _| !addresses.contains(address));
        }
    }
}
