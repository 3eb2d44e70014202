//! Reads of records that are not mutable. Their access clock stands still, and a policy that goes by it would take the key
//! for idle: so where there is one, the record is copied to the tail once the reading command is over, and is found in
//! memory by the next one.

use crate::scratch::Scratch;
use crate::view::{Keyspace, Lent};

/// Keys of one command that are copied: a command that reads more is no sign of interest in each.
const KEYS_MAX: usize = 64;

#[derive(Default)]
pub(crate) struct Promotions(Vec<(u32, Box<[u8]>)>);

impl Scratch {
    /// Reads have found keys that are to be copied.
    #[inline]
    pub fn has_promotions(&self) -> bool {
        !self.promotions.0.is_empty()
    }

    /// Takes the database and name of one of them, for [`Keyspace::promote`].
    pub fn next_promotion(&mut self) -> Option<(u32, Box<[u8]>)> {
        self.promotions.0.pop()
    }
}

impl Keyspace<'_> {
    #[cold]
    pub(crate) fn promote_later(&mut self, key: &[u8]) {
        let (db, wanted) = (self.db(), self.databases().limits.wants_access());
        let keys = &mut self.lent.scratch.promotions.0;
        if wanted && keys.len() < KEYS_MAX {
            keys.push((db, key.into()));
        }
    }

    /// Copies the key's record to the tail, if there is room for it, and ends the view. The value stays as it is: nothing
    /// is to be written into the append-only file, and no watcher to be told.
    pub fn promote(mut self, key: &[u8]) {
        let (db, target) = (self.db(), self.key(key));
        let Lent { pinned, held, databases, .. } = self.lent;
        // Without room it is copied another time.
        if let Ok(Some((before, after))) = pinned.promote(&target, held) {
            databases.count_bytes(db, before, after);
        }
        self.abandon();
        self.end_silence();
    }
}
