//! What a checkpoint keeps of the databases: their spaces and counts, and the reminders of keys that expire.
//!
//! All integers are little-endian words of 8 bytes. The note of the cut: the next space, then for each database its space, the
//! address of the log below which it has nothing, its keys, those of them that expire, and the bytes of their records. Then for
//! each write that is still to be settled (see [`crate::unseen`]) as many words: its space with the top bit set, the hash, where
//! the chain goes on on disk, the record, and the time. A chunk: pairs of a key's hash and
//! the time it is due. A reminder may be there twice or be of a key that is gone: who takes it looks the key up.

use std::sync::atomic::Ordering::Relaxed;

use crate::databases::Databases;
use crate::unseen::Unseen;
use crate::wheel::Reminder;

const WORD: usize = 8;
const WORDS_OF_SLOT: usize = 5;
/// Tells the note of a write from a database.
const UNSEEN: u64 = 1 << 63;

/// A copy of the reminders that is made in steps while commands run. Dropped it ends.
pub struct Reminders<'d> {
    databases: &'d Databases,
}

impl Drop for Reminders<'_> {
    fn drop(&mut self) {
        self.databases.wheel.lock().end_copy();
    }
}

impl Reminders<'_> {
    /// Appends at most `max` reminders. False: those that there were have been copied.
    pub fn step(&mut self, max: usize, out: &mut Vec<u8>) -> bool {
        self.databases.wheel.lock().copy(max, |reminder| encode(reminder, out))
    }

    /// Appends what the steps may have missed, and ends the copy. After that a batch that has ended since the copy began has
    /// left no reminder out.
    pub fn finish(self, out: &mut Vec<u8>) {
        let journal = self.databases.wheel.lock().end_copy();
        journal.into_iter().flatten().for_each(|reminder| encode(reminder, out));
    }
}

/// The writes that were to be settled at the moment of a [`Databases::note`], whose bytes theirs follow. Dropped it ends.
pub struct UnseenCopy<'d> {
    databases: &'d Databases,
}

impl Drop for UnseenCopy<'_> {
    fn drop(&mut self) {
        self.databases.unseen.end_copy();
    }
}

impl UnseenCopy<'_> {
    /// Appends at most `max` of them. False: there were no more.
    pub fn step(&mut self, max: usize, out: &mut Vec<u8>) -> bool {
        let some = self.databases.unseen.copy(max);
        for &Unseen { space, hash, cold, record, at_ms } in &some {
            let words = [u64::from(space) | UNSEEN, hash, cold, record, at_ms];
            words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        }
        !some.is_empty()
    }
}

fn encode(reminder: Reminder, out: &mut Vec<u8>) {
    out.extend_from_slice(&reminder.hash.to_le_bytes());
    out.extend_from_slice(&reminder.due_ms.to_le_bytes());
}

fn words_of(bytes: &[u8]) -> Result<Vec<u64>, RestoreError> {
    let (words, rest) = bytes.as_chunks::<WORD>();
    if !rest.is_empty() {
        return Err(RestoreError::Malformed);
    }
    Ok(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
}

/// Why a checkpoint's words on the databases cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    #[error("database {db} holds {keys} keys and the server has {count} databases: raise server.databases")]
    TooFew { db: usize, keys: u64, count: u32 },
    #[error("what it says of the databases is not understood")]
    Malformed,
}

impl Databases {
    /// Begins a copy of the reminders: there is one at a time.
    pub fn copy_reminders(&self) -> Reminders<'_> {
        self.wheel.lock().begin_copy();
        Reminders { databases: self }
    }

    /// What a checkpoint keeps of this moment, but for the writes that are still to be settled, of which there may be many: they
    /// follow in steps. Exclusive mode only.
    pub fn note(&self) -> (Vec<u8>, UnseenCopy<'_>) {
        let mut out = u64::from(self.next_space.load(Relaxed)).to_le_bytes().to_vec();
        for slot in &self.slots {
            let words = [
                slot.space.load(Relaxed).into(),
                slot.since.load(Relaxed),
                slot.keys.load(Relaxed),
                slot.expires.load(Relaxed),
                slot.record_bytes.load(Relaxed),
            ];
            words.iter().for_each(|word: &u64| out.extend_from_slice(&word.to_le_bytes()));
        }
        self.unseen.begin_copy();
        (out, UnseenCopy { databases: self })
    }

    /// Puts back what [`Databases::note`] gave, and the reminders. Before there are any keys.
    pub fn restore(&self, note: &[u8], reminders: &[Vec<u8>]) -> Result<(), RestoreError> {
        let words = words_of(note)?;
        let (&next_space, slots) = words.split_first().ok_or(RestoreError::Malformed)?;
        let (slots, rest) = slots.as_chunks::<WORDS_OF_SLOT>();
        let mut next_space = u32::try_from(next_space).map_err(|_| RestoreError::Malformed)?;
        let (slots, unseen) = slots.split_at(slots.partition_point(|words| words[0] & UNSEEN == 0));
        let out_of_range = |words: &[u64; WORDS_OF_SLOT]| words[0] & !UNSEEN >= next_space.into();
        let mixed = unseen.iter().any(|words| words[0] & UNSEEN == 0);
        if !rest.is_empty() || mixed || slots.iter().chain(unseen).any(out_of_range) {
            return Err(RestoreError::Malformed);
        }
        let beyond = slots.iter().enumerate().skip(self.slots.len());
        if let Some((db, slot)) = beyond.into_iter().find(|(_, slot)| slot[2] > 0) {
            return Err(RestoreError::TooFew { db, keys: slot[2], count: self.count() });
        }
        for (at, slot) in self.slots.iter().enumerate() {
            let [space, since, keys, expires, record_bytes] = slots.get(at).copied().unwrap_or_else(|| {
                // A database that there was not.
                next_space += 1;
                [u64::from(next_space - 1), 0, 0, 0, 0]
            });
            slot.space.store(space as u32, Relaxed);
            slot.since.store(since, Relaxed);
            slot.keys.store(keys, Relaxed);
            slot.expires.store(expires, Relaxed);
            slot.record_bytes.store(record_bytes, Relaxed);
        }
        self.next_space.store(next_space, Relaxed);
        for &[space, hash, cold, record, at_ms] in unseen {
            self.unseen.restore(Unseen { space: (space & !UNSEEN) as u32, hash, cold, record, at_ms });
        }
        let mut wheel = self.wheel.lock();
        for chunk in reminders {
            let words = words_of(chunk)?;
            words.as_chunks().0.iter().for_each(|&[hash, due_ms]| wheel.add(Reminder { hash, due_ms }));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note_of(databases: &Databases) -> Vec<u8> {
        let (mut note, mut unseen) = databases.note();
        while unseen.step(1, &mut note) {}
        note
    }

    #[test]
    fn databases_and_reminders_come_back() {
        let databases = Databases::new(2);
        databases.count_change(0, None, Some((5, 48)));
        databases.count_change(1, None, Some((0, 48)));
        databases.empty(0, 640);
        databases.count_change(0, None, Some((7, 56)));
        databases.wheel.lock().add(Reminder { hash: 1, due_ms: 7 });
        let (mut chunk, mut late) = (Vec::new(), Vec::new());
        let mut copy = databases.copy_reminders();
        while copy.step(100, &mut chunk) {}
        databases.wheel.lock().add(Reminder { hash: 2, due_ms: 9 });
        copy.finish(&mut late);
        let note = note_of(&databases);

        let back = Databases::new(4);
        back.restore(&note, &[chunk, late]).expect("a note");
        assert_eq!((back.space(0), back.since(0), back.keys(0), back.expires(0)), (databases.space(0), 640, 1, 1));
        assert_eq!((back.space(1), back.keys(1), back.keys(2)), (1, 1, 0));
        let bytes = |databases: &Databases| [0, 1].map(|db| databases.data_bytes_of(db));
        assert_eq!(bytes(&back), bytes(&databases), "maxmemory goes by it");
        let spaces = [0, 1, 2, 3].map(|db| back.space(db));
        assert!(spaces.iter().enumerate().all(|(at, space)| !spaces[..at].contains(space)), "{spaces:?}");
        assert!(back.empty(3, 0) < back.space(3), "spaces are never used again");
        assert_eq!(back.wheel.lock().len(), 2);
    }

    #[test]
    fn writes_that_are_not_settled_come_back_with_the_counts() {
        let databases = Databases::new(2);
        let unseen = [1, 2].map(|cold| Unseen { space: 1, hash: cold << 60, cold, record: 900, at_ms: 7 });
        for unseen in unseen {
            databases.unseen.add(unseen, || databases.count_change(1, None, Some((0, 48))));
        }
        let note = note_of(&databases);
        let back = Databases::new(2);
        back.restore(&note, &[]).expect("a note");
        assert_eq!((back.keys(1), back.unseen.all()), (2, unseen.to_vec()));
        assert_eq!(back.unseen.all().iter().map(|unseen| unseen.cold).min(), Some(1));
        assert_eq!(note_of(&back), note);
        let words = note.as_chunks::<WORD>().0;
        let swapped = [&words[..6], &words[11..16], &words[6..11]].concat().concat();
        assert_eq!(Databases::new(2).restore(&swapped, &[]), Err(RestoreError::Malformed), "databases come first");
    }

    #[test]
    fn the_notes_of_the_cut_follow_in_steps_whatever_is_settled_meanwhile() {
        const NOTES: u64 = 5_000;
        const STEP: usize = 64;
        let databases = Databases::new(2);
        let add = |cold| {
            let unseen = Unseen { space: 1, hash: cold, cold, record: 900, at_ms: 7 };
            databases.unseen.add(unseen, || {});
        };
        let empty = databases.note().0.len();
        (0..NOTES).for_each(add);
        let (mut note, mut rest) = databases.note();
        assert_eq!(note.len(), empty, "the moment itself takes as long as without any");
        let (mut steps, mut before) = (0, note.len());
        while rest.step(STEP, &mut note) {
            assert!(note.len() - before <= STEP * WORDS_OF_SLOT * WORD);
            before = note.len();
            // Of those that were copied, of those that were not, and one that came later.
            [steps, NOTES - 1 - steps].into_iter().for_each(|number| databases.unseen.settle(number, None, &databases));
            add(NOTES + steps);
            steps += 1;
        }
        drop(rest);
        assert!(steps >= NOTES / STEP as u64);
        let words = words_of(&note[empty..]).expect("whole words");
        let mut colds: Vec<u64> = words.as_chunks::<WORDS_OF_SLOT>().0.iter().map(|words| words[2]).collect();
        colds.sort_unstable();
        assert_eq!(colds, (0..NOTES).collect::<Vec<_>>(), "each once, and no later one");
        databases.unseen.settle(NOTES / 2, None, &databases);
        assert!(databases.unseen.copy(STEP).is_empty(), "nothing is kept any more");
    }

    #[test]
    fn a_database_with_keys_is_not_dropped() {
        let databases = Databases::new(3);
        databases.count_change(1, None, Some((0, 48)));
        let note = note_of(&databases);
        let error = Databases::new(1).restore(&note, &[]).expect_err("too few");
        assert_eq!(error.to_string(), "database 1 holds 1 keys and the server has 1 databases: raise server.databases");
        Databases::new(2).restore(&note, &[]).expect("the third one was empty");
        assert_eq!(Databases::new(2).restore(&note[..9], &[]), Err(RestoreError::Malformed));
        assert_eq!(Databases::new(2).restore(&[], &[]), Err(RestoreError::Malformed));
    }
}
