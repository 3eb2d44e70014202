//! When keys expire: a hierarchical timing wheel (Varghese and Lauck 1987) of key hashes.
//!
//! It remembers a key's hash and a time, wherever the record lies, so that nobody has to look for expired keys: the wheel names
//! them when they are due. There is one reminder a hash, never later than the key's time. It is a reminder, not a promise: who
//! takes it looks the key up, and tells the wheel what it found ([`Wheel::settle`]). So a time that is moved on, as a session's is,
//! changes nothing here; one that is moved to an earlier moment moves the reminder; a key that is deleted, or expires no more, makes
//! its reminder doubtful, which is then looked at soon.
//!
//! Workers tell of their writes once a batch, so the wheel hears of two writes of one key in any order. Hence it
//! never believes that a key is gone because somebody has said so: it is the look at the key that decides, and a write of which
//! the wheel hears between that look and its outcome keeps the reminder.

mod copy;
mod entries;
#[cfg(test)]
mod tests;

use copy::Copying;
use entries::Entries;
pub(crate) use entries::Garbage;

/// Entries of one tick come due together.
const TICK_MS_SHIFT: u32 = 6;
/// Slots of a level: each of its slots covers all of the level below.
const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
const LEVELS: usize = 7;
/// Later ticks, 8,900 years from the epoch, are put here: they are looked at and put back.
const TICK_MAX: u64 = (1 << (LEVEL_BITS * LEVELS as u32)) - 1;

/// Lists: the slots, level by level; what was in a slot of an upper level whose time has begun, still to be put into the levels
/// below; what is to be looked at; what somebody looks at is in none.
const FALLING: usize = LEVELS * SLOTS;
const READY: usize = FALLING + 1;
const LISTS: usize = READY + 1;

/// A reminder that the key with this hash expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reminder {
    pub hash: u64,
    /// Milliseconds since the Unix epoch; of what a write says of its key, 0: it is gone, or no longer expires.
    pub due_ms: u64,
}

/// See the module's documentation.
pub(crate) struct Wheel {
    /// The tick at hand: what comes before it is ready.
    cursor: u64,
    /// Of each level, bit `i`: slot `i` holds something.
    occupied: [u64; LEVELS],
    entries: Entries,
    /// Where [`Wheel::sample`] goes on.
    sampled: usize,
    copying: Option<Copying>,
    garbage: Garbage,
}

impl Default for Wheel {
    fn default() -> Self {
        Self {
            cursor: 0,
            occupied: [0; LEVELS],
            entries: Entries::new(LISTS),
            sampled: 0,
            copying: None,
            garbage: Garbage::default(),
        }
    }
}

impl Wheel {
    /// Reminders, those that somebody looks at included.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.bytes() + self.garbage.bytes() + self.copying.as_ref().map_or(0, Copying::bytes)
    }

    /// What a write says of its key.
    pub(crate) fn note(&mut self, reminder: Reminder) {
        match reminder.due_ms {
            0 => self.doubt(reminder.hash),
            _ => self.add(reminder),
        }
    }

    /// A key expires at this time, or was to at some time.
    pub(crate) fn add(&mut self, reminder: Reminder) {
        let Reminder { hash, due_ms } = reminder;
        let Some(place) = self.entries.find(hash) else { return self.insert(reminder) };
        let known = self.entries.reminder(place).due_ms;
        if self.entries.is_claimed(place) {
            // Who looks at it may have done so before there was this key.
            self.entries.set_claimed(place, false);
            self.change_due(place, known, due_ms.min(known));
            self.place(place);
        } else if due_ms < known {
            self.unlink(place);
            self.change_due(place, known, due_ms);
            self.place(place);
        }
    }

    fn insert(&mut self, reminder: Reminder) {
        let Some(place) = self.entries.insert(reminder) else { return };
        if let Some(copying) = &mut self.copying {
            copying.added(place, reminder);
        }
        self.place(place);
    }

    /// The key is perhaps gone: it is to be looked at soon.
    fn doubt(&mut self, hash: u64) {
        let Some(place) = self.entries.find(hash) else { return };
        if !self.entries.is_claimed(place) {
            self.unlink(place);
            self.entries.link(place, READY);
        }
    }

    fn change_due(&mut self, place: u32, from_ms: u64, to_ms: u64) {
        if let Some(copying) = &mut self.copying {
            let hash = self.entries.reminder(place).hash;
            copying.moved(place, Reminder { hash, due_ms: from_ms }, Reminder { hash, due_ms: to_ms });
        }
        self.entries.set_due(place, to_ms);
    }

    /// Puts what is in no list where its time says.
    fn place(&mut self, place: u32) {
        let tick = tick_of(self.entries.reminder(place).due_ms);
        match tick < self.cursor {
            true => self.entries.link(place, READY),
            false => self.put_into_slot(place, tick),
        }
    }

    fn put_into_slot(&mut self, place: u32, tick: u64) {
        // The highest digit in which it differs from now chooses the level.
        let level = (tick ^ self.cursor).checked_ilog2().map_or(0, |bit| bit / LEVEL_BITS);
        let slot = slot_of(tick, level);
        self.entries.link(place, level as usize * SLOTS + slot);
        self.occupied[level as usize] |= 1 << slot;
    }

    fn unlink(&mut self, place: u32) {
        if let Some(list) = self.entries.unlink(place)
            && list < FALLING
        {
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        }
    }

    /// Takes it out of its list, for somebody who looks at its key and will settle it.
    fn claim(&mut self, place: u32, out: &mut Vec<Reminder>) {
        self.unlink(place);
        self.entries.set_claimed(place, true);
        out.push(self.entries.reminder(place));
    }

    /// What a look at the key of a claimed reminder has found: when it expires, or `None`, that it does not or is gone. Or that
    /// nobody has looked, then with the reminder's own time.
    pub(crate) fn settle(&mut self, hash: u64, due_ms: Option<u64>) {
        let Some(place) = self.entries.find(hash) else {
            // Another one has looked at it meanwhile, too.
            return due_ms.map_or((), |due_ms| self.insert(Reminder { hash, due_ms }));
        };
        if !self.entries.is_claimed(place) {
            return due_ms.map_or((), |due_ms| self.add(Reminder { hash, due_ms }));
        }
        match due_ms {
            Some(due_ms) => {
                self.entries.set_claimed(place, false);
                self.change_due(place, self.entries.reminder(place).due_ms, due_ms);
                // Not among what is ready: that would be taken at once, again and again, by a clock that was set back.
                self.put_into_slot(place, tick_of(due_ms).max(self.cursor));
            }
            None => {
                let reminder = self.entries.reminder(place);
                let moved = self.entries.remove(place);
                if let Some(copying) = &mut self.copying {
                    copying.removed(place, reminder, moved.map(|from| (from, self.entries.reminder(place))));
                }
            }
        }
    }

    /// Claims at most `max` reminders that are doubtful or whose time is before `now_ms`, at most a tick late. True: there may be
    /// more.
    pub(crate) fn take_due(&mut self, now_ms: u64, max: usize, out: &mut Vec<Reminder>) -> bool {
        let now = tick_of(now_ms);
        for _ in 0..max {
            if let Some(place) = self.entries.first(FALLING) {
                self.unlink(place);
                self.place(place);
            } else if let Some(place) = self.entries.first(READY) {
                self.claim(place, out);
            } else if !self.turn(now) {
                return false;
            }
        }
        true
    }

    /// Goes on to the next slot that holds something, at most to the tick `now`, whose end is still to come. False: there
    /// is none.
    fn turn(&mut self, now: u64) -> bool {
        if self.cursor >= now {
            return false;
        }
        // What lies here and later in the level, this slot of the lowest level included.
        let here = slot_of(self.cursor, 0);
        let later = self.occupied[0] >> here;
        let next = if later != 0 {
            Some((0, self.cursor + u64::from(later.trailing_zeros())))
        } else {
            (1..LEVELS as u32).find_map(|level| {
                let here = slot_of(self.cursor, level);
                // Two shifts: one by 64 bits is none.
                let later = self.occupied[level as usize] >> here >> 1;
                let ticks = LEVEL_BITS * level;
                let slots = 1 + u64::from(later.trailing_zeros());
                (later != 0).then(|| (level, ((self.cursor >> ticks) + slots) << ticks))
            })
        };
        let Some((level, tick)) = next.filter(|(level, tick)| *tick < now || *level > 0 && *tick <= now) else {
            self.cursor = now;
            return false;
        };
        self.cursor = tick;
        let slot = slot_of(tick, level);
        self.occupied[level as usize] &= !(1 << slot);
        let list = level as usize * SLOTS + slot;
        self.entries.move_list(list, if level == 0 { READY } else { FALLING });
        true
    }

    /// Claims some of at most `max` reminders of any time, going round: to find those whose key is gone.
    pub(crate) fn sample(&mut self, max: usize, out: &mut Vec<Reminder>) {
        for _ in 0..max.min(self.len()) {
            self.sampled = if self.sampled == 0 { self.len() } else { self.sampled.min(self.len()) } - 1;
            self.claim_free(self.sampled, out);
        }
    }

    /// Claims the reminder that a random number points to, each with the same chance, or one beside it if somebody looks at that.
    pub(crate) fn take_any(&mut self, random: u64, out: &mut Vec<Reminder>) {
        /// Looked at, one after the other, for one that nobody has.
        const PLACES: usize = 64;
        let Some(place) = random.checked_rem(self.len() as u64) else { return };
        for by in 0..self.len().min(PLACES) {
            if self.claim_free((place as usize + by) % self.len(), out) {
                return;
            }
        }
    }

    fn claim_free(&mut self, place: usize, out: &mut Vec<Reminder>) -> bool {
        let place = place as u32;
        let is_free = !self.entries.is_claimed(place);
        if is_free {
            self.claim(place, out);
        }
        is_free
    }

    /// Forgets all reminders, whatever their number: there are no keys any more.
    pub(crate) fn clear(&mut self) {
        self.entries.clear(&mut self.garbage);
        self.occupied = [0; LEVELS];
        self.sampled = 0;
    }

    /// A part of what [`Wheel::clear`] has left, to be freed.
    pub(crate) fn take_garbage(&mut self) -> Garbage {
        self.garbage.take_some()
    }
}

fn tick_of(due_ms: u64) -> u64 {
    (due_ms >> TICK_MS_SHIFT).min(TICK_MAX)
}

fn slot_of(tick: u64, level: u32) -> usize {
    (tick >> (LEVEL_BITS * level)) as usize % SLOTS
}
