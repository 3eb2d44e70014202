//! Eviction: which keys go when there is more data than `maxmemory`.
//!
//! As in Redis it is approximate. For each key that goes some are drawn, by chance, and the best of them join the best of
//! earlier draws; the best of all goes. All keys are drawn from the index, those with a time of expiry from the timing
//! wheel. A key whose record lies on disk is drawn like any other, and has to be read before it can be judged and deleted:
//! under most policies it is the one to go, since what is asked for lies in memory. A deletion is one like DEL's: in the
//! append-only file, for the watchers, in the counts.

use std::sync::atomic::Ordering::Relaxed;

use ferrite_hybridlog::{Found, RecordView};

use crate::Pause;
use crate::active::{Due, cold_records};
use crate::databases::Databases;
use crate::limits::{Policy, Rank};
use crate::random::Random;
use crate::scratch::{Presence, has_expired};
use crate::view::{Keyspace, Lent};
use crate::watch::Touch;

/// The best keys of earlier draws that are kept.
const CANDIDATES_MAX: usize = 16;
/// Keys looked at for deletion in one slice: some tens of microseconds.
const SLICE_KEYS: usize = 64;
/// Buckets looked at in one slice.
const SLICE_BUCKETS: usize = 1024;

/// The best keys of earlier draws, which may have changed since.
#[derive(Default)]
pub struct Candidates {
    /// Scores of one policy cannot be compared with another's.
    policy: Option<Policy>,
    /// The best at the end.
    sorted: Vec<Candidate>,
}

struct Candidate {
    score: (u64, u64),
    db: u32,
    key: Box<[u8]>,
}

impl Candidates {
    fn of(self, policy: Policy) -> Self {
        match self.policy == Some(policy) {
            true => self,
            false => Candidates { policy: Some(policy), sorted: Vec::new() },
        }
    }

    fn offer(&mut self, score: (u64, u64), db: u32, key: &[u8]) {
        if self.sorted.len() == CANDIDATES_MAX && self.sorted[0].score >= score {
            return;
        }
        self.sorted.retain(|other| other.db != db || *other.key != *key);
        let at = self.sorted.partition_point(|other| other.score < score);
        self.sorted.insert(at, Candidate { score, db, key: key.into() });
        if self.sorted.len() > CANDIDATES_MAX {
            self.sorted.remove(0);
        }
    }
}

/// How a slice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// The data is as small as was asked for.
    Enough,
    /// There is more to do.
    More,
    /// No key may go.
    Nothing,
}

/// One run of eviction, which makes the data as small as `target`, slice by slice.
pub struct Evictor {
    policy: Policy,
    target: u64,
    random: Random,
    candidates: Candidates,
    /// Keys drawn for the next one that goes.
    drawn: usize,
    /// The bucket to go on with: its records are read, or the one before was empty.
    cursor: Option<u64>,
    /// Empty buckets in a row.
    empty: u64,
    /// Reminders taken from the wheel.
    due: Due,
    pub keys_evicted: u64,
    /// Of the data, as it is counted against the limit.
    pub bytes_freed: u64,
}

impl Evictor {
    /// `None`: nothing is to be evicted, or nothing may be. `candidates` are those that an earlier run left.
    pub fn new(databases: &Databases, seed: u64, candidates: Candidates) -> Option<Self> {
        let policy = databases.limits.policy();
        policy.rank()?;
        let max = databases.limits.data_max()?;
        Some(Evictor {
            policy,
            target: max - (max / HEADROOM_PART).min(HEADROOM_MAX),
            random: Random::new(seed),
            candidates: candidates.of(policy),
            drawn: 0,
            cursor: None,
            empty: 0,
            due: Due::default(),
            keys_evicted: 0,
            bytes_freed: 0,
        })
    }

    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Gives up what [`evict_slice`] paused for.
    pub fn skip(&mut self, databases: &Databases) {
        self.cursor = None;
        self.candidates.sorted.clear();
        databases.put_back(&mut self.due);
    }

    /// Ends the run; for the next one.
    pub fn finish(mut self, databases: &Databases) -> Candidates {
        databases.put_back(&mut self.due);
        self.candidates
    }

    /// Draws until there are enough to choose from.
    fn draw(&mut self, lent: &Lent<'_>, rank: Rank) -> Result<Slice, Pause> {
        let wanted = match rank {
            Rank::Random => 1,
            // More than there are keys would be drawn twice.
            _ => lent.databases.limits.samples.load(Relaxed).min(lent.databases.total_keys() as usize).max(1),
        };
        for _ in 0..SLICE_BUCKETS {
            if self.drawn >= wanted {
                return Ok(Slice::Enough);
            }
            let more = match self.policy.is_volatile() {
                true => self.draw_expiring(lent, rank, wanted)?,
                false => self.draw_bucket(lent, rank)?,
            };
            if !more {
                return Ok(if self.candidates.sorted.is_empty() { Slice::Nothing } else { Slice::Enough });
            }
        }
        Ok(Slice::More)
    }

    /// The keys of one bucket. False: there was none in the whole index.
    fn draw_bucket(&mut self, lent: &Lent<'_>, rank: Rank) -> Result<bool, Pause> {
        let buckets = lent.pinned.buckets();
        if self.empty > buckets {
            return Ok(false);
        }
        let cursor = self.cursor.take().unwrap_or_else(|| self.random.next_u64() % buckets);
        let Evictor { candidates, random, drawn, .. } = self;
        let before = *drawn;
        let next = lent.pinned.scan(cursor, 1, 0, false, lent.held, &mut |record| {
            if consider(lent, rank, random, candidates, &record) {
                *drawn += 1;
            }
        });
        match next {
            Err(cold) => {
                self.cursor = Some(cursor);
                Err(Pause::Headers(cold))
            }
            Ok(next) => {
                if self.drawn == before {
                    self.cursor = Some(next);
                    self.empty += 1;
                } else {
                    self.empty = 0;
                }
                Ok(true)
            }
        }
    }

    /// Some keys with a time of expiry. False: there is none.
    fn draw_expiring(&mut self, lent: &Lent<'_>, rank: Rank, wanted: usize) -> Result<bool, Pause> {
        let Lent { pinned, held, databases, .. } = *lent;
        if self.due.is_empty() {
            for _ in self.drawn..wanted {
                databases.take_any(self.random.next_u64(), &mut self.due);
            }
        }
        if self.due.is_empty() {
            return Ok(false);
        }
        let cold = cold_records(pinned, held, &self.due);
        if !cold.is_empty() {
            return Err(Pause::Headers(cold));
        }
        while let Some(reminder) = self.due.take() {
            let _latch = pinned.latch(reminder.hash, false);
            let record = match pinned.find_by_hash(reminder.hash, held) {
                Found::Record(record) if record.expire_at_ms != 0 => Some(record),
                Found::Record(_) | Found::Missing | Found::Cold(_) => None,
            };
            let shown = record.filter(|record| consider(lent, rank, &mut self.random, &mut self.candidates, record));
            self.drawn += usize::from(shown.is_some());
            // One that is of no use any more goes.
            databases.settle_reminder(reminder.hash, shown.map(|record| record.expire_at_ms));
        }
        Ok(true)
    }

    /// Deletes the best of the candidates, if it still is what it was.
    fn evict_best(&mut self, lent: &mut Lent<'_>, rank: Rank) -> Result<(), Pause> {
        let Some(best) = self.candidates.sorted.pop() else {
            // Whatever was drawn has been given up.
            self.drawn = 0;
            return Ok(());
        };
        let (databases, pinned, now_ms) = (lent.databases, lent.pinned, lent.now_ms);
        let mut keys = Keyspace::silent(lent.again(), best.db);
        let _latch = pinned.latch(keys.hash(&best.key), true);
        let volatile = self.policy.is_volatile();
        let evicted = keys.evict(&best.key, |record| {
            let asked_for = databases.limits.score(rank, record, now_ms).0 < best.score.0 && rank != Rank::Random;
            !asked_for && (!volatile || record.expire_at_ms != 0)
        });
        match evicted {
            Ok(Some(bytes)) => {
                self.drawn = 0;
                self.keys_evicted += 1;
                self.bytes_freed += bytes as u64;
            }
            Ok(None) => {}
            Err(pause) => {
                self.candidates.sorted.push(best);
                return Err(pause);
            }
        }
        if rank == Rank::Random {
            // Each goes by a draw of its own.
            self.candidates.sorted.clear();
            self.drawn = 0;
        }
        Ok(())
    }
}

/// A run ends this far below the limit, so that not every write begins another: a part of the limit, and at most so many
/// bytes.
const HEADROOM_PART: u64 = 64;
const HEADROOM_MAX: u64 = 16 << 10;

/// Offers a key that a database shows; false for one that none does.
fn consider(
    lent: &Lent<'_>,
    rank: Rank,
    random: &mut Random,
    candidates: &mut Candidates,
    record: &RecordView<'_>,
) -> bool {
    let Some(db) = lent.databases.db_of(record.space) else { return false };
    let score = match rank {
        Rank::Random => (random.next_u64(), 0),
        _ => lent.databases.limits.score(rank, record, lent.now_ms),
    };
    candidates.offer(score, db, record.key);
    true
}

/// Deletes some keys. The worker is not in the exclusive mode and holds no latch.
///
/// # Errors
/// A pause, after which it is called again; [`Pause::Headers`] names what to read. Where that cannot be read, call
/// [`Evictor::skip`].
pub fn evict_slice(mut lent: Lent<'_>, evictor: &mut Evictor) -> Result<Slice, Pause> {
    let Some(rank) = evictor.policy.rank() else { return Ok(Slice::Nothing) };
    for _ in 0..SLICE_KEYS {
        if lent.databases.data_bytes() <= evictor.target {
            return Ok(Slice::Enough);
        }
        match evictor.draw(&lent, rank)? {
            Slice::Enough => evictor.evict_best(&mut lent, rank)?,
            other => return Ok(other),
        }
    }
    Ok(Slice::More)
}

impl Keyspace<'_> {
    /// Deletes a key if `still` says so of its record, and ends the view. Returns by how many bytes the data has shrunk;
    /// `None`: the key stays, or there was none.
    pub(crate) fn evict(
        mut self,
        key: &[u8],
        still: impl FnOnce(&RecordView<'_>) -> bool,
    ) -> Result<Option<usize>, Pause> {
        let result = self.evict_if(key, still);
        match result {
            Ok(_) => self.commit(),
            Err(_) => self.abandon(),
        }
        self.end_silence();
        result
    }

    fn evict_if(&mut self, key: &[u8], still: impl FnOnce(&RecordView<'_>) -> bool) -> Result<Option<usize>, Pause> {
        let hash = self.hash(key);
        let Lent { pinned, held, .. } = self.lent;
        // The value is not asked for: a large one has not been read.
        let goes = match pinned.find_by_hash(hash, held) {
            Found::Cold(address) => return Err(Pause::Headers(vec![address])),
            Found::Missing => false,
            Found::Record(record) => record.key == key && still(&record),
        };
        let presence = self.presence_for_write(key)?;
        let Presence::Present { expire_at_ms, size } = presence else { return Ok(None) };
        let touch = match has_expired(expire_at_ms, self.now_ms()) {
            true => Touch::Expired,
            false if goes => Touch::Changed,
            false => return Ok(None),
        };
        self.remove(key, presence, touch)?;
        if touch == Touch::Changed {
            self.lent.scratch.counters.evicted += 1;
        }
        Ok(Some(crate::limits::key_bytes(size, expire_at_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_keep_the_best_and_each_key_once() {
        let mut candidates = Candidates::default();
        for n in 0..100u64 {
            candidates.offer((n * 37 % 100, 0), 0, &[(n * 37 % 100) as u8]);
        }
        let scores: Vec<u64> = candidates.sorted.iter().map(|candidate| candidate.score.0).collect();
        assert_eq!(scores, (84..100).collect::<Vec<_>>());
        candidates.offer((99, 1), 0, &[90]);
        assert_eq!(candidates.sorted.len(), CANDIDATES_MAX);
        assert_eq!(*candidates.sorted[15].key, [90], "of two with one score the one written first");
        assert_eq!(candidates.sorted.iter().filter(|candidate| *candidate.key == [90]).count(), 1);
        assert!(candidates.of(Policy::AllkeysLfu).sorted.is_empty(), "scores of another policy");
    }
}
