//! Keys found expired by reads, which must not write: they are deleted when the reading command is over.

/// A small set of keys. Its order is that of discovery.
#[derive(Default)]
pub(crate) struct ExpiredKeys {
    keys: Vec<(u32, Box<[u8]>)>,
}

/// More than this many wait only if the disk is full; what is dropped is found again by the next read.
const WAITING_MAX: usize = 4096;

impl ExpiredKeys {
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(crate) fn add(&mut self, db: u32, key: &[u8]) {
        if self.keys.len() < WAITING_MAX && !self.contains(db, key) {
            self.keys.push((db, key.into()));
        }
    }

    /// To be called when the key is written or deleted: it no longer waits.
    pub(crate) fn forget(&mut self, db: u32, key: &[u8]) {
        self.keys.retain(|(other_db, other)| *other_db != db || **other != *key);
    }

    pub(crate) fn contains(&self, db: u32, key: &[u8]) -> bool {
        self.keys.iter().any(|(other_db, other)| *other_db == db && **other == *key)
    }

    pub(crate) fn count(&self, db: u32) -> usize {
        self.keys.iter().filter(|(other, _)| *other == db).count()
    }

    pub(crate) fn take(&mut self) -> Option<(u32, Box<[u8]>)> {
        self.keys.pop()
    }

    pub(crate) fn clear(&mut self) {
        self.keys.clear();
    }
}
