//! Going through all keys of a database.

use ferrite_hybridlog::RecordView;

use crate::Pause;
use crate::scratch::has_expired;
use crate::view::Keyspace;

/// Buckets that RANDOMKEY looks at in one go.
const RANDOM_BUCKETS: usize = 16;

impl Keyspace<'_> {
    /// Gives `f` the live keys of `buckets` index buckets from `cursor` on; the next cursor, 0 at the end. To be called
    /// without a latch.
    pub fn scan(&mut self, cursor: u64, buckets: usize, f: &mut dyn FnMut(&RecordView<'_>)) -> Result<u64, Pause> {
        let (now_ms, db) = (self.now_ms(), self.db());
        let space = self.databases().space(db);
        let expired = &mut self.lent.scratch.expired;
        self.lent
            .pinned
            .scan(cursor, buckets, self.lent.held, &mut |record| {
                if record.space != space {
                    return;
                }
                if has_expired(record.expire_at_ms, now_ms) {
                    expired.add(db, record.key);
                } else {
                    f(&record);
                }
            })
            .map_err(Pause::Records)
    }

    /// A key of the database, by chance; `None` if there is none.
    pub fn random_key(&mut self) -> Result<Option<Vec<u8>>, Pause> {
        if self.is_empty() {
            return Ok(None);
        }
        // Taken up after a pause where the records were fetched for: each run goes on, none begins anew.
        let (first, pick) = match self.lent.scratch.random_walk.take() {
            Some(walk) => walk,
            None => {
                let start = self.random();
                (self.lent.pinned.bucket_of(start), self.random())
            }
        };
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let mut cursor = first;
        let mut wrapped = false;
        while keys.is_empty() && !(wrapped && cursor >= first) {
            let next = self.scan(cursor, RANDOM_BUCKETS, &mut |record| keys.push(record.key.to_vec()));
            cursor = match next {
                Ok(next) => next,
                // In a transaction that has written nothing can be fetched any more: any key in memory will do.
                Err(Pause::Records(_)) if self.has_written() => self.next_cursor(cursor),
                Err(pause) => {
                    self.lent.scratch.random_walk = Some((cursor, pick));
                    return Err(pause);
                }
            };
            wrapped |= cursor == 0;
            if cursor == 0 && first == 0 {
                break;
            }
        }
        let at = (pick % keys.len().max(1) as u64) as usize;
        Ok((!keys.is_empty()).then(|| keys.swap_remove(at)))
    }

    fn next_cursor(&self, cursor: u64) -> u64 {
        let next = cursor + RANDOM_BUCKETS as u64;
        // The highest bucket is that of a hash of ones.
        if next > self.lent.pinned.bucket_of(u64::MAX) { 0 } else { next }
    }
}
