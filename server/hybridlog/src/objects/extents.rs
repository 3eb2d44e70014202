//! The space of the file of extents: which blocks belong to which object, which are free, which are promised, which a
//! checkpoint keeps.
//!
//! What is promised to objects in memory lies behind everything in use, so that a flush never lacks space, however the free
//! blocks lie: `high + promised ≤ end`. A flush prefers free blocks, the smallest run that suffices.

use super::leaving::Leaving;
use super::limbo::{Cut, Limbo};
use super::sums::table_len;
use crate::refusal::Refusal;
use crate::sync::Mutex;
#[cfg(not(loom))]
use ferrite_io::BLOCK;
use std::collections::{BTreeMap, BTreeSet};

/// A block, where there are no files.
#[cfg(loom)]
const BLOCK: usize = 4096;

/// Bytes before the first extent: the file's header. So no extent has the offset 0.
pub(crate) const EXTENT_HEADER: u64 = BLOCK as u64;

/// Bytes of file that an object of `len` bytes takes, with the table of its checksums.
pub(crate) fn padded(len: usize) -> u64 {
    (len as u64 + table_len(len) as u64).next_multiple_of(BLOCK as u64)
}

/// What the file is given beyond need when it grows: an eighth, and no more than this.
const AHEAD_MAX: u64 = 64 << 20;
/// What it has beyond that is given back if it is more than a quarter, and than this: or a value that is written again and again
/// would make it grow and shrink.
const EXCESS_MIN: u64 = 1 << 20;

/// What a file that ends at `end` is given beyond need.
pub(super) fn ahead_of(end: u64) -> u64 {
    (end / 8).next_multiple_of(BLOCK as u64).min(AHEAD_MAX)
}

pub(crate) struct Extents {
    space: Mutex<Space>,
    /// How the last attempt to let the file grow failed.
    pub(crate) refusal: Refusal,
}

struct Space {
    /// Below it the file has space.
    end: u64,
    /// From here on nothing was ever used, or nothing is used any more.
    high: u64,
    /// To objects in memory, and to commands that will make some.
    promised_to_objects: u64,
    promised_to_commands: u64,
    /// Where the file should end for what is waited for.
    wanted: u64,
    /// Offset → bytes of every free run below `high`; neighbours are one.
    free: BTreeMap<u64, u64>,
    by_len: BTreeSet<(u64, u64)>,
    /// Offset → whose it is.
    used: BTreeMap<u64, Used>,
    /// Those of `used` that are being written: they outlive their objects until that ends.
    writing: BTreeSet<u64>,
    used_bytes: u64,
    /// What is neither free nor used.
    limbo: Limbo,
    /// What nobody has looked at since everything was given up: it goes to limbo, or is free.
    leaving: Leaving,
}

#[derive(Clone, Copy)]
pub(super) struct Used {
    pub(super) bytes: u64,
    pub(super) id: u64,
}

/// An extent as a checkpoint names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NamedExtent {
    pub(crate) id: u64,
    pub(crate) offset: u64,
    /// In the file: whole blocks.
    pub(crate) bytes: u64,
}

/// What becomes of an extent that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Its object is still there.
    Wanted,
    /// A checkpoint names it, and nothing else does.
    Kept,
    /// Nothing names it.
    Dead,
}

/// What the file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExtentStats {
    pub(crate) extents: usize,
    pub(crate) used_bytes: u64,
    pub(crate) file_bytes: u64,
    pub(crate) promised_bytes: u64,
    pub(crate) in_limbo: usize,
    pub(crate) limbo_bytes: u64,
    /// Between extents, or about to be.
    pub(crate) free_bytes: u64,
}

impl Extents {
    /// Without a file there is no lack of space.
    pub(crate) fn new() -> Self {
        let space = Space {
            end: u64::MAX / 2,
            high: EXTENT_HEADER,
            promised_to_objects: 0,
            promised_to_commands: 0,
            wanted: 0,
            free: BTreeMap::new(),
            by_len: BTreeSet::new(),
            used: BTreeMap::new(),
            writing: BTreeSet::new(),
            used_bytes: 0,
            limbo: Limbo::default(),
            leaving: Leaving::default(),
        };
        Self { space: Mutex::new(space), refusal: Refusal::default() }
    }

    /// The file has space up to `end`.
    pub(crate) fn set_end(&self, end: u64) {
        self.space.lock().end = end;
    }

    /// Where the file ends, and where it should end for what is waited for.
    pub(crate) fn ends(&self) -> (u64, u64) {
        let space = self.space.lock();
        (space.end, space.wanted)
    }

    /// Nobody waits any more for what the disk refused.
    pub(crate) fn forget_wanted(&self) {
        let mut space = self.space.lock();
        space.wanted = space.high.saturating_add(space.promised());
    }

    /// [`Extents::has_room`]; if there is none, the file is to grow.
    pub(crate) fn wants(&self, bytes: u64) -> bool {
        self.space.lock().want(bytes)
    }

    /// Whether `bytes` more could be promised.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.space.lock().has_room(bytes)
    }

    /// Promises space to an object in memory; false: the file has to grow first.
    pub(crate) fn promise_to_object(&self, bytes: u64) -> bool {
        let mut space = self.space.lock();
        let room = space.want(bytes);
        if room {
            space.promised_to_objects += bytes;
        }
        room
    }

    /// Promises space to a command; false: the file has to grow first.
    pub(crate) fn promise_to_command(&self, bytes: u64) -> bool {
        let mut space = self.space.lock();
        let room = space.want(bytes);
        if room {
            space.promised_to_commands += bytes;
        }
        room
    }

    /// An object of `bytes` was made by a command that `taken` of what it was promised goes to. What it was not promised
    /// the file has to get by the time of the flush.
    pub(crate) fn hand_to_object(&self, bytes: u64, taken: u64) {
        let mut space = self.space.lock();
        space.promised_to_commands -= taken;
        space.promised_to_objects += bytes;
        let end = space.high.saturating_add(space.promised());
        space.wanted = space.wanted.max(end);
    }

    pub(crate) fn end_promise_to_command(&self, bytes: u64) {
        self.space.lock().promised_to_commands -= bytes;
    }

    /// An object that was promised space is gone, or takes less.
    pub(crate) fn end_promise_to_object(&self, bytes: u64) {
        self.space.lock().promised_to_objects -= bytes;
    }

    /// Takes space for an object that was promised it, for writing. `None` if the file has no room, which it has but for
    /// what [`Extents::hand_to_object`] says.
    pub(crate) fn begin_writing(&self, bytes: u64, id: u64) -> Option<u64> {
        let mut space = self.space.lock();
        let offset = match space.by_len.range((bytes, 0)..).next().copied() {
            Some((len, offset)) => {
                space.unlist(offset, len);
                if len > bytes {
                    space.list(offset + bytes, len - bytes);
                }
                offset
            }
            None if space.high + bytes <= space.end => {
                let offset = space.high;
                space.high += bytes;
                offset
            }
            None => {
                let end = space.high + space.promised();
                space.wanted = space.wanted.max(end);
                return None;
            }
        };
        space.promised_to_objects -= bytes;
        space.used.insert(offset, Used { bytes, id });
        space.used_bytes += bytes;
        space.writing.insert(offset);
        Some(offset)
    }

    /// The extent was written.
    pub(crate) fn end_writing(&self, offset: u64, id: u64, written: Written) {
        let mut space = self.space.lock();
        space.writing.remove(&offset);
        match written {
            Written::Wanted => {}
            Written::Kept => space.free(offset, id),
            Written::Dead => space.free_for_good(offset, id),
        }
    }

    /// Whether the extent still belongs to that object.
    pub(crate) fn belongs(&self, offset: u64, id: u64) -> bool {
        self.space.lock().used.get(&offset).is_some_and(|used| used.id == id)
    }

    /// The object is gone. Does nothing if its extent went before, or is still being written.
    pub(crate) fn free(&self, offset: u64, id: u64) {
        let mut space = self.space.lock();
        if !space.writing.contains(&offset) {
            space.free(offset, id);
        }
    }

    /// Every object is gone, but for those with `promised` bytes that a checkpoint waits for. What is being written is freed
    /// by who writes it; what becomes of the others is left to [`Extents::free_some`]. True: there are some. Takes as long
    /// whatever there is: at most a few extents are being written.
    pub(crate) fn free_all(&self, promised: u64) -> bool {
        let mut space = self.space.lock();
        let space = &mut *space;
        let mut all = std::mem::take(&mut space.used);
        space.used = space.writing.iter().filter_map(|offset| all.remove_entry(offset)).collect();
        space.used_bytes = space.used.values().map(|used| used.bytes).sum();
        space.promised_to_objects = promised;
        space.leaving.add(all, space.limbo.newest());
        !space.leaving.is_empty()
    }

    /// A checkpoint is taken, and this is its cut. Exclusive mode only.
    pub(crate) fn add_cut(&self, number: u64, next_id: u64) {
        self.space.lock().limbo.add_cut(Cut { number, next_id, is_being_taken: true });
    }

    pub(crate) fn has_cut(&self, number: u64) -> bool {
        self.space.lock().limbo.has_cut(number)
    }

    /// See [`Limbo::cut_is_taken`].
    pub(crate) fn cut_is_taken(&self, number: u64) {
        self.space.lock().limbo.cut_is_taken(number);
    }

    /// A checkpoint was given up. [`Extents::free_some`] has work.
    pub(crate) fn drop_cut(&self, number: u64) {
        self.space.lock().limbo.drop_cut(number);
    }

    /// The checkpoints in force are these. [`Extents::free_some`] may have work.
    pub(crate) fn keep_cuts(&self, numbers: &[u64]) {
        self.space.lock().limbo.keep_cuts(numbers);
    }

    /// Looks at `most` extents that were given up with everything, or that only checkpoints named which are gone. False: there
    /// are no more.
    pub(crate) fn free_some(&self, most: usize) -> bool {
        let mut space = self.space.lock();
        for _ in 0..most {
            if let Some(leaver) = space.leaving.next() {
                if !space.limbo.take_as_of(leaver.newest, leaver.offset, leaver.bytes, leaver.id) {
                    space.give_back(leaver.offset, leaver.bytes);
                }
                continue;
            }
            match space.limbo.next_free() {
                Ok(Some((offset, bytes))) => space.give_back(offset, bytes),
                Ok(None) => {}
                Err(()) => return false,
            }
        }
        true
    }

    /// Up to `most` of the extents that the checkpoint with this cut names, all of which are written, from an offset on; and
    /// where to go on.
    pub(crate) fn of_cut(&self, number: u64, next_id: u64, from: u64, most: usize) -> (Vec<NamedExtent>, Option<u64>) {
        let space = self.space.lock();
        let used = space.used.range(from..).map(|(&offset, used)| (offset, used.bytes, used.id));
        let used = used.filter(|&(.., id)| id < next_id).take(most);
        let kept = space.limbo.of_cut(number, from).take(most);
        let leaving = space.leaving.of_cut(number, from, most).filter(|&(.., id)| id < next_id);
        let named = used.chain(kept).chain(leaving).map(|(offset, bytes, id)| NamedExtent { id, offset, bytes });
        let mut all: Vec<NamedExtent> = named.collect();
        all.sort_unstable_by_key(|extent| extent.offset);
        // The first ones of each are among them: so are the first ones of all.
        let more = all.len() >= most;
        all.truncate(most);
        let next = all.last().filter(|_| more).map(|last| last.offset + 1);
        (all, next)
    }

    /// The file is to end there, and has space up to there from now on: if it has much more than is needed.
    pub(crate) fn give_up_the_end(&self) -> Option<u64> {
        let mut space = self.space.lock();
        let to = space.end_without_excess()?;
        space.end = to;
        space.wanted = space.wanted.min(to);
        Some(to)
    }

    /// Whether [`Extents::give_up_the_end`] has something to give.
    pub(crate) fn has_excess(&self) -> bool {
        self.space.lock().end_without_excess().is_some()
    }

    /// What the file holds after a checkpoint was restored, and what is kept for the one before it. Only while nobody else uses
    /// the store, once.
    ///
    /// # Errors
    /// What is wrong with the extents; nothing has changed.
    pub(crate) fn restore(&self, cut: Cut, extents: &[NamedExtent]) -> Result<(), String> {
        let mut space = self.space.lock();
        let space = &mut *space;
        debug_assert!(space.used.is_empty() && !space.limbo.has_cuts());
        let mut used = BTreeMap::new();
        for extent in extents {
            extent.check(cut.next_id)?;
            used.insert(extent.offset, Used { bytes: extent.bytes, id: extent.id });
        }
        check_places(used.iter().map(|(&offset, used)| (offset, used.bytes)), extents.len())?;
        space.used_bytes = used.values().map(|used| used.bytes).sum();
        space.used = used;
        space.limbo.add_cut(cut);
        space.free_the_rest();
        Ok(())
    }

    /// What a checkpoint before the one that was restored needs stays as it is. As [`Extents::restore`].
    ///
    /// # Errors
    /// As [`Extents::restore`].
    pub(crate) fn keep(&self, cut: Cut, extents: &[NamedExtent]) -> Result<(), String> {
        let mut space = self.space.lock();
        let space = &mut *space;
        extents.iter().try_for_each(|extent| extent.check(cut.next_id))?;
        let is_used = |extent: &NamedExtent| {
            space.used.get(&extent.offset).is_some_and(|used| (used.id, used.bytes) == (extent.id, extent.bytes))
        };
        let kept: Vec<&NamedExtent> = extents.iter().filter(|extent| !is_used(extent)).collect();
        let used = space.used.iter().map(|(&offset, used)| (offset, used.bytes));
        let mut all: Vec<(u64, u64)> = used.chain(kept.iter().map(|extent| (extent.offset, extent.bytes))).collect();
        all.sort_unstable();
        check_places(all.iter().copied(), all.len())?;
        kept.iter().for_each(|extent| space.limbo.put(extent.offset, extent.bytes, extent.id, cut.number));
        space.limbo.add_cut_before(cut);
        space.free_the_rest();
        Ok(())
    }

    /// Where the last extent ends, free ones not counted.
    pub(crate) fn high(&self) -> u64 {
        self.space.lock().high
    }

    pub(crate) fn stats(&self) -> ExtentStats {
        let space = self.space.lock();
        ExtentStats {
            extents: space.used.len(),
            used_bytes: space.used_bytes,
            file_bytes: space.high,
            promised_bytes: space.promised(),
            in_limbo: space.limbo.len(),
            limbo_bytes: space.limbo.bytes(),
            free_bytes: space.high - EXTENT_HEADER - space.used_bytes - space.limbo.bytes(),
        }
    }
}

impl Space {
    fn promised(&self) -> u64 {
        self.promised_to_objects + self.promised_to_commands
    }

    fn has_room(&self, bytes: u64) -> bool {
        self.high.saturating_add(self.promised()).saturating_add(bytes) <= self.end
    }

    /// Where the file would end with what it is given ahead of need; `None`: it hardly has more, or somebody waits for more, or
    /// there is no file.
    fn end_without_excess(&self) -> Option<u64> {
        let needed = self.high.saturating_add(self.promised());
        let to = needed.saturating_add(ahead_of(needed));
        let is_much = self.end.saturating_sub(to) > EXCESS_MIN.max(to / 4);
        (is_much && self.end < u64::MAX / 2 && self.wanted <= self.end).then_some(to)
    }

    fn want(&mut self, bytes: u64) -> bool {
        let room = self.has_room(bytes);
        if !room {
            self.wanted = self.wanted.max(self.high.saturating_add(self.promised()).saturating_add(bytes));
        }
        room
    }

    fn list(&mut self, offset: u64, len: u64) {
        self.free.insert(offset, len);
        self.by_len.insert((len, offset));
    }

    fn unlist(&mut self, offset: u64, len: u64) {
        self.free.remove(&offset);
        self.by_len.remove(&(len, offset));
    }

    /// Nothing but a checkpoint needs the extent any more.
    fn free(&mut self, offset: u64, id: u64) {
        if let Some(bytes) = self.disown(offset, id)
            && !self.limbo.take(offset, bytes, id)
        {
            self.give_back(offset, bytes);
        }
    }

    fn free_for_good(&mut self, offset: u64, id: u64) {
        if let Some(bytes) = self.disown(offset, id) {
            self.give_back(offset, bytes);
        }
    }

    /// Its bytes, if the extent was that object's.
    fn disown(&mut self, offset: u64, id: u64) -> Option<u64> {
        self.used.get(&offset).filter(|used| used.id == id)?;
        let bytes = self.used.remove(&offset)?.bytes;
        self.used_bytes -= bytes;
        Some(bytes)
    }

    fn give_back(&mut self, mut offset: u64, mut len: u64) {
        if let Some((&before, &bytes)) = self.free.range(..offset).next_back()
            && before + bytes == offset
        {
            self.unlist(before, bytes);
            (offset, len) = (before, len + bytes);
        }
        if let Some(&bytes) = self.free.get(&(offset + len)) {
            self.unlist(offset + len, bytes);
            len += bytes;
        }
        if offset + len == self.high {
            self.high = offset;
        } else {
            self.list(offset, len);
        }
    }

    /// Free is what nothing takes.
    fn free_the_rest(&mut self) {
        self.free.clear();
        self.by_len.clear();
        self.high = EXTENT_HEADER;
        let used = self.used.iter().map(|(&offset, used)| (offset, used.bytes));
        let mut taken: Vec<(u64, u64)> = used.chain(self.limbo.places()).collect();
        taken.sort_unstable();
        for (offset, bytes) in taken {
            if offset > self.high {
                self.list(self.high, offset - self.high);
            }
            self.high = offset + bytes;
        }
    }
}

impl NamedExtent {
    /// Whether there can be such an extent.
    fn check(&self, next_id: u64) -> Result<(), String> {
        let block = BLOCK as u64;
        let is_whole = self.offset.is_multiple_of(block) && self.bytes.is_multiple_of(block) && self.bytes > 0;
        let is_inside = self.offset >= EXTENT_HEADER && self.offset.checked_add(self.bytes).is_some();
        match is_whole && is_inside && self.id < next_id {
            true => Ok(()),
            false => Err(format!(
                "there can be no extent of {} bytes at offset {} for id {}",
                self.bytes, self.offset, self.id
            )),
        }
    }
}

/// Whether extents, ascending by offset, are `count` and do not overlap.
fn check_places(places: impl Iterator<Item = (u64, u64)>, count: usize) -> Result<(), String> {
    let (mut end, mut seen) = (0, 0);
    for (offset, bytes) in places {
        if offset < end {
            return Err(format!("two extents lie at offset {offset}"));
        }
        (end, seen) = (offset + bytes, seen + 1);
    }
    if seen == count { Ok(()) } else { Err("two extents begin at one offset".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const K: u64 = BLOCK as u64;

    fn written(extents: &Extents, blocks: u64, id: u64) -> u64 {
        assert!(extents.promise_to_object(blocks * K));
        let offset = extents.begin_writing(blocks * K, id).expect("promised");
        extents.end_writing(offset, id, Written::Wanted);
        offset
    }

    #[test]
    fn freed_neighbours_become_one_run_and_the_end_falls_back() {
        let extents = Extents::new();
        let at: Vec<u64> = (0..4).map(|id| written(&extents, 2, id)).collect();
        assert_eq!(at, [K, 3 * K, 5 * K, 7 * K]);
        extents.free(at[0], 0);
        extents.free(at[2], 2);
        assert_eq!(written(&extents, 3, 9), 9 * K, "no run of three blocks");
        extents.free(at[1], 1);
        assert_eq!(written(&extents, 6, 10), K);
        extents.free(at[3], 77);
        assert!(extents.belongs(at[3], 3), "another's id frees nothing");
        for (offset, id) in [(at[3], 3), (K, 10), (9 * K, 9), (9 * K, 9)] {
            extents.free(offset, id);
        }
        assert_eq!(extents.stats(), ExtentStats { file_bytes: K, ..ExtentStats::default() });
    }

    #[test]
    fn what_is_promised_is_there_whatever_is_free() {
        let extents = Extents::new();
        extents.set_end(K + 4 * K);
        assert!(extents.promise_to_object(3 * K) && extents.promise_to_command(K));
        assert!(!extents.promise_to_object(K));
        assert_eq!(extents.ends(), (5 * K, 6 * K), "it says how large the file has to be");
        extents.hand_to_object(K, K);
        extents.end_promise_to_object(K);
        assert!(extents.promise_to_object(K));
        assert!(extents.begin_writing(3 * K, 1).is_some() && extents.begin_writing(K, 2).is_some());
    }

    #[test]
    fn an_extent_that_is_being_written_outlives_everything() {
        let extents = Extents::new();
        written(&extents, 2, 1);
        assert!(extents.promise_to_object(2 * K));
        let offset = extents.begin_writing(2 * K, 2).expect("promised");
        extents.free(offset, 2);
        assert!(extents.free_all(0));
        assert!(extents.belongs(offset, 2));
        assert_eq!(extents.stats().free_bytes, 2 * K, "nobody has looked at it yet, and nobody needs it");
        while extents.free_some(1) {}
        assert_eq!(written(&extents, 2, 3), K, "what lies before it is free");
        assert_eq!(written(&extents, 2, 4), offset + 2 * K);
        extents.end_writing(offset, 2, Written::Dead);
        assert_eq!(written(&extents, 2, 5), offset);
    }

    #[test]
    fn what_is_given_up_at_once_goes_in_steps_and_stays_what_a_checkpoint_of_before_names() {
        let extents = Extents::new();
        let at: Vec<u64> = (0..10).map(|id| written(&extents, 1, id)).collect();
        extents.add_cut(1, 5);
        extents.cut_is_taken(1);
        assert!(extents.free_all(0));
        assert_eq!((extents.stats().extents, extents.stats().used_bytes), (0, 0));
        let named = |extents: &Extents| {
            let (mut all, mut from) = (Vec::new(), Some(0));
            while let Some(at) = from {
                let (some, next) = extents.of_cut(1, 5, at, 2);
                all.extend(some.iter().map(|extent| extent.offset));
                from = next;
            }
            all
        };
        assert_eq!(named(&extents), at[..5], "whatever has been looked at");
        // One that is taken meanwhile names none of them.
        extents.add_cut(2, 20);
        for step in 0..10 {
            assert!(extents.free_some(1), "step {step}");
            assert_eq!(named(&extents), at[..5], "step {step}");
            assert_eq!(extents.of_cut(2, 20, 0, 100), (Vec::new(), None), "step {step}");
        }
        assert_eq!((extents.stats().in_limbo, extents.stats().file_bytes), (5, 6 * K));
        extents.drop_cut(1);
        while extents.free_some(1) {}
        assert_eq!(extents.stats(), ExtentStats { file_bytes: K, ..ExtentStats::default() });
    }

    #[test]
    fn a_checkpoint_that_goes_before_its_extents_are_looked_at_keeps_none() {
        let extents = Extents::new();
        (0..4).for_each(|id| _ = written(&extents, 1, id));
        extents.add_cut(1, 2);
        extents.add_cut(2, 4);
        extents.free_all(0);
        extents.drop_cut(2);
        while extents.free_some(1) {}
        assert_eq!(extents.stats().in_limbo, 2, "those that the one before names");
    }

    #[test]
    fn the_end_of_a_file_that_is_much_too_long_is_given_up() {
        let extents = Extents::new();
        assert_eq!(extents.give_up_the_end(), None, "without a file");
        extents.set_end(K);
        assert!(!extents.promise_to_object(1000 * K));
        extents.set_end(2000 * K);
        let offset = written(&extents, 1000, 1);
        assert!(extents.has_excess());
        assert_eq!(extents.give_up_the_end(), Some(1001 * K + ahead_of(1001 * K)));
        extents.free(offset, 1);
        assert!(extents.promise_to_command(K));
        assert_eq!(extents.give_up_the_end(), Some(2 * K + ahead_of(2 * K)), "but for what is promised");
        assert_eq!(extents.give_up_the_end(), None);
        let (end, wanted) = extents.ends();
        assert!(wanted <= end, "nobody waits");
        assert!(!extents.promise_to_object(1000 * K) && !extents.has_excess(), "somebody waits");
    }

    proptest! {
        #[test]
        fn extents_never_overlap_and_nothing_leaks(ops in prop::collection::vec((any::<bool>(), 1..6u64, any::<prop::sample::Index>()), 1..200)) {
            let extents = Extents::new();
            let mut all: Vec<(u64, u64, u64)> = Vec::new();
            for (id, (add, blocks, which)) in ops.into_iter().enumerate() {
                if add || all.is_empty() {
                    let offset = written(&extents, blocks, id as u64);
                    prop_assert!(all.iter().all(|&(other, len, _)| offset + blocks * K <= other || other + len * K <= offset));
                    all.push((offset, blocks, id as u64));
                } else {
                    let (offset, _, id) = all.swap_remove(which.index(all.len()));
                    extents.free(offset, id);
                }
                prop_assert_eq!(extents.stats().used_bytes, all.iter().map(|(_, blocks, _)| blocks * K).sum::<u64>());
            }
            for (offset, _, id) in all {
                extents.free(offset, id);
            }
            prop_assert_eq!(extents.stats(), ExtentStats { file_bytes: K, ..ExtentStats::default() });
        }
    }
}
