//! Going through all keys of a database, and picking one by chance.

use ferrite_hybridlog::RecordView;

use crate::Pause;
use crate::scratch::has_expired;
use crate::view::Keyspace;

/// What RANDOMKEY may spend on fair draws before it takes the next key it finds.
const DRAWS_MAX: u32 = 512;
/// What a draw costs that waits for the disk.
const COLD_DRAWS: u32 = 64;
/// Keys of one bucket that a fair draw can tell apart, where there are fewer keys than buckets, and where there are more:
/// a bucket has five on average and twice that before it is split. A key beyond is never drawn fairly.
const PLACES_SPARSE: u64 = 8;
const PLACES: u64 = 24;
/// Buckets that are looked at in one go once no fair draw has hit.
const WALK_BUCKETS: usize = 16;

/// Where the search for a random key stands.
#[derive(Clone, Copy)]
pub(crate) enum RandomWalk {
    /// Looks for the key at place `pick` of this bucket.
    Draw { draws_left: u32, bucket: u64, pick: u64 },
    /// Takes one of the keys of the first buckets from `cursor` on that have any.
    Walk { cursor: u64, pick: u64, wrapped: bool },
}

impl Keyspace<'_> {
    /// Gives `f` the live keys, not the values of large ones, of `buckets` index buckets from `cursor` on; the next cursor, 0 at the end. To be called
    /// without a latch.
    pub fn scan(&mut self, cursor: u64, buckets: usize, f: &mut dyn FnMut(&RecordView<'_>)) -> Result<u64, Pause> {
        let (now_ms, db) = (self.now_ms(), self.db());
        let databases = self.databases();
        if databases.keys(db) == 0 {
            return Ok(0);
        }
        let (space, since) = (databases.space(db), databases.since(db));
        let expired = &mut self.lent.scratch.expired;
        self.lent
            .pinned
            .scan(cursor, buckets, since, false, self.lent.held, &mut |record| {
                if record.space != space {
                    return;
                }
                if has_expired(record.expire_at_ms, now_ms) {
                    expired.add(db, record.key);
                } else {
                    f(&record);
                }
            })
            .map_err(Pause::Headers)
    }

    /// A key of the database, by chance; `None` if there is none.
    ///
    /// Draws a bucket and a place in it until there is a key: so every key has the same chance, however full its bucket is.
    /// In a database of few keys among many buckets that may take too long: then the first key found does, which favours
    /// keys behind a gap.
    pub fn random_key(&mut self) -> Result<Option<Vec<u8>>, Pause> {
        if self.is_empty() {
            return Ok(None);
        }
        // Taken up after a pause where the records were fetched for: each search goes on, none begins anew.
        let mut walk = match self.lent.scratch.random_walk.take() {
            Some(walk) => walk,
            None => self.draw(DRAWS_MAX),
        };
        loop {
            let (cursor, buckets, only) = match walk {
                RandomWalk::Draw { bucket, pick, .. } => (bucket, 1, Some(pick)),
                RandomWalk::Walk { cursor, .. } => (cursor, WALK_BUCKETS, None),
            };
            let mut keys: Vec<Vec<u8>> = Vec::new();
            let mut at = 0;
            let next = self.scan(cursor, buckets, &mut |record| {
                if only.is_none_or(|only| only == at) {
                    keys.push(record.key.to_vec());
                }
                at += 1;
            });
            let next = match next {
                Ok(next) => Some(next),
                // In a transaction that has written nothing can be fetched any more: any key in memory will do.
                Err(Pause::Headers(_)) if self.has_written() => None,
                Err(pause) => {
                    if let RandomWalk::Draw { draws_left, .. } = &mut walk {
                        *draws_left = draws_left.saturating_sub(COLD_DRAWS);
                    }
                    self.lent.scratch.random_walk = Some(walk);
                    return Err(pause);
                }
            };
            walk = match walk {
                RandomWalk::Draw { .. } if !keys.is_empty() => return Ok(keys.pop()),
                RandomWalk::Walk { pick, .. } if !keys.is_empty() => {
                    let at = (pick % keys.len() as u64) as usize;
                    return Ok(Some(keys.swap_remove(at)));
                }
                RandomWalk::Draw { draws_left, .. } if draws_left > 0 => self.draw(draws_left - 1),
                RandomWalk::Draw { .. } => {
                    RandomWalk::Walk { cursor: self.random_bucket(), pick: self.random(), wrapped: false }
                }
                // A second round from the beginning meets what lies before the place where the first began.
                RandomWalk::Walk { cursor, pick, wrapped } => match next {
                    Some(0) if wrapped => return Ok(None),
                    Some(cursor) => RandomWalk::Walk { cursor, pick, wrapped: wrapped || cursor == 0 },
                    None => match self.lent.pinned.skip(cursor) {
                        0 if wrapped => return Ok(None),
                        cursor => RandomWalk::Walk { cursor, pick, wrapped: wrapped || cursor == 0 },
                    },
                },
            };
        }
    }

    fn draw(&mut self, draws_left: u32) -> RandomWalk {
        let is_sparse = self.len() < self.lent.pinned.buckets();
        let places = if is_sparse { PLACES_SPARSE } else { PLACES };
        RandomWalk::Draw { draws_left, bucket: self.random_bucket(), pick: self.random() % places }
    }

    fn random_bucket(&mut self) -> u64 {
        self.random() % self.lent.pinned.buckets()
    }
}
