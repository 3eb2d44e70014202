//! When keys expire: a hierarchical timing wheel (Varghese and Lauck 1987) of key hashes.
//!
//! It remembers a key's hash and a time, 16 bytes, wherever the record lies, so that nobody has to look for expired keys:
//! the wheel names them when they are due. An entry is a reminder, not a promise. Who takes it looks the key up; where the
//! time of expiry has moved meanwhile, the entry is put back for the new one. So a key whose time is moved on and on, as
//! a session's is, has one entry, not one a command.

/// Entries of one tick come due together.
const TICK_MS_SHIFT: u32 = 6;
/// Slots of a level: each of its slots covers all of the level below.
const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
const LEVELS: usize = 7;
/// Later ticks, 8,900 years from the epoch, are put here: they are looked at and put back.
const TICK_MAX: u64 = (1 << (LEVEL_BITS * LEVELS as u32)) - 1;

/// A reminder that the key with this hash expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reminder {
    pub hash: u64,
    /// Milliseconds since the Unix epoch.
    pub due_ms: u64,
}

struct Level {
    /// Bit `i`: slot `i` holds something.
    occupied: u64,
    slots: [Vec<Reminder>; SLOTS],
}

/// See the module's documentation.
pub(crate) struct Wheel {
    /// The tick at hand: what comes before it lies in `ready`.
    cursor: u64,
    levels: [Level; LEVELS],
    /// From a slot of an upper level whose time has begun, still to be put into the levels below.
    falling: Vec<Reminder>,
    ready: Vec<Reminder>,
    len: usize,
    /// Where [`Wheel::sample`] goes on.
    sampled: usize,
    /// While a copy is made: what was put somewhere, or taken, since it began.
    journal: Option<Vec<Reminder>>,
}

/// Where a copy of the wheel stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Copying {
    slot: usize,
    /// Reminders of the slot that were copied.
    done: usize,
}

impl Default for Wheel {
    fn default() -> Self {
        let level = |_| Level { occupied: 0, slots: std::array::from_fn(|_| Vec::new()) };
        Self {
            cursor: 0,
            levels: std::array::from_fn(level),
            falling: Vec::new(),
            ready: Vec::new(),
            len: 0,
            sampled: 0,
            journal: None,
        }
    }
}

impl Wheel {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        let slots = self.levels.iter().flat_map(|level| &level.slots).map(Vec::capacity).sum::<usize>();
        (slots + self.falling.capacity() + self.ready.capacity()) * size_of::<Reminder>()
    }

    pub(crate) fn add(&mut self, reminder: Reminder) {
        self.len += 1;
        self.place(reminder);
    }

    fn place(&mut self, reminder: Reminder) {
        if let Some(journal) = &mut self.journal {
            journal.push(reminder);
        }
        let tick = (reminder.due_ms >> TICK_MS_SHIFT).min(TICK_MAX);
        if tick < self.cursor {
            self.ready.push(reminder);
            return;
        }
        // The highest digit in which it differs from now chooses the level.
        let level = (tick ^ self.cursor).checked_ilog2().map_or(0, |bit| bit / LEVEL_BITS);
        let slot = slot_of(tick, level);
        let level = &mut self.levels[level as usize];
        level.slots[slot].push(reminder);
        level.occupied |= 1 << slot;
    }

    /// Takes at most `max` reminders whose time is before `now_ms`, at most a tick late. True: there may be more.
    pub(crate) fn take_due(&mut self, now_ms: u64, max: usize, out: &mut Vec<Reminder>) -> bool {
        let now = (now_ms >> TICK_MS_SHIFT).min(TICK_MAX);
        let mut work = max;
        while work > 0 {
            if let Some(reminder) = self.falling.pop() {
                self.place(reminder);
            } else if let Some(reminder) = self.ready.pop() {
                self.len -= 1;
                out.push(reminder);
                if let Some(journal) = &mut self.journal {
                    journal.push(reminder);
                }
            } else if !self.turn(now) {
                return false;
            }
            work -= 1;
        }
        // Memory that one busy tick took is not kept for the quiet ones.
        if self.falling.is_empty() && self.falling.capacity() > SLOTS * SLOTS {
            self.falling = Vec::new();
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
        let later = self.levels[0].occupied >> here;
        let next = if later != 0 {
            Some((0, self.cursor + u64::from(later.trailing_zeros())))
        } else {
            (1..LEVELS as u32).find_map(|level| {
                let here = slot_of(self.cursor, level);
                // Two shifts: one by 64 bits is none.
                let later = self.levels[level as usize].occupied >> here >> 1;
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
        let level_slots = &mut self.levels[level as usize];
        level_slots.occupied &= !(1 << slot);
        let reminders = std::mem::take(&mut level_slots.slots[slot]);
        if level == 0 {
            self.ready = reminders;
        } else {
            self.falling = reminders;
        }
        true
    }

    /// Begins a copy in steps. Every reminder that is in the wheel at any moment from now until [`Wheel::end_copy`] will be in
    /// what [`Wheel::copy`] gives or in the journal: a reminder that a step does not find where it was has been moved or
    /// taken since, and whatever is moved or taken goes into the journal. Some are in both.
    pub(crate) fn begin_copy(&mut self) -> Copying {
        self.journal = Some(Vec::new());
        Copying::default()
    }

    /// Copies at most `max` reminders. False: there are no more.
    pub(crate) fn copy(&self, copying: &mut Copying, max: usize, f: &mut dyn FnMut(Reminder)) -> bool {
        let mut left = max;
        while left > 0 {
            let slot = match copying.slot {
                at if at < LEVELS * SLOTS => &self.levels[at / SLOTS].slots[at % SLOTS],
                // Slots whose time comes are emptied into these: hence after them.
                at if at == LEVELS * SLOTS => &self.falling,
                at if at == LEVELS * SLOTS + 1 => &self.ready,
                _ => return false,
            };
            let rest = slot.get(copying.done..).unwrap_or_default();
            let some = &rest[..rest.len().min(left)];
            some.iter().for_each(|&reminder| f(reminder));
            left -= some.len();
            copying.done += some.len();
            if some.len() == rest.len() {
                *copying = Copying { slot: copying.slot + 1, done: 0 };
                // A look at an empty slot is work too.
                left = left.saturating_sub(1);
            }
        }
        true
    }

    /// Ends a copy: what its steps may have missed.
    pub(crate) fn end_copy(&mut self) -> Vec<Reminder> {
        self.journal.take().unwrap_or_default()
    }

    /// Takes at most `max` reminders from anywhere, going round: to find those whose key is gone.
    pub(crate) fn sample(&mut self, max: usize, out: &mut Vec<Reminder>) {
        for _ in 0..LEVELS * SLOTS {
            let level = &mut self.levels[self.sampled / SLOTS % LEVELS];
            let at = self.sampled % SLOTS;
            let slot = &mut level.slots[at];
            let from = slot.len().saturating_sub(max - out.len());
            self.len -= slot.len() - from;
            if let Some(journal) = &mut self.journal {
                journal.extend_from_slice(&slot[from..]);
            }
            out.extend(slot.drain(from..));
            if !slot.is_empty() {
                return;
            }
            level.occupied &= !(1 << at);
            self.sampled += 1;
            if out.len() == max {
                return;
            }
        }
    }

    /// Takes the reminder that a random number points to, each with the same chance.
    pub(crate) fn take_any(&mut self, random: u64) -> Option<Reminder> {
        let mut at = random.checked_rem(self.len as u64)? as usize;
        for list in [&mut self.ready, &mut self.falling] {
            if at < list.len() {
                self.len -= 1;
                return Some(list.swap_remove(at));
            }
            at -= list.len();
        }
        for level in &mut self.levels {
            for (number, slot) in level.slots.iter_mut().enumerate() {
                if at < slot.len() {
                    self.len -= 1;
                    let reminder = slot.swap_remove(at);
                    if slot.is_empty() {
                        level.occupied &= !(1 << number);
                    }
                    return Some(reminder);
                }
                at -= slot.len();
            }
        }
        debug_assert!(false, "the length is that of all lists");
        None
    }
}

fn slot_of(tick: u64, level: u32) -> usize {
    (tick >> (LEVEL_BITS * level)) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(wheel: &mut Wheel, now_ms: u64) -> Vec<u64> {
        let mut due = Vec::new();
        while wheel.take_due(now_ms, 3, &mut due) {}
        let mut hashes: Vec<u64> = due.iter().map(|reminder| reminder.hash).collect();
        hashes.sort_unstable();
        hashes
    }

    const TICK_MS: u64 = 1 << TICK_MS_SHIFT;

    #[test]
    fn a_reminder_comes_once_and_within_a_tick() {
        let mut wheel = Wheel::default();
        wheel.add(Reminder { hash: 1, due_ms: 1_700_000_000_123 });
        assert_eq!(drain(&mut wheel, 1_700_000_000_122), [0; 0]);
        assert_eq!(drain(&mut wheel, 1_700_000_000_123 + TICK_MS), [1]);
        assert_eq!(drain(&mut wheel, u64::MAX), [0; 0]);
        assert_eq!(wheel.len(), 0);
    }

    #[test]
    fn what_is_late_already_comes_at_once() {
        let mut wheel = Wheel::default();
        assert_eq!(drain(&mut wheel, 1_000_000), [0; 0]);
        wheel.add(Reminder { hash: 1, due_ms: 5 });
        assert_eq!(drain(&mut wheel, 1_000_000), [1]);
    }

    #[test]
    fn a_clock_set_back_gives_nothing_early() {
        let mut wheel = Wheel::default();
        drain(&mut wheel, 1_000_000);
        wheel.add(Reminder { hash: 1, due_ms: 2_000_000 });
        assert_eq!(drain(&mut wheel, 10), [0; 0]);
        assert_eq!(drain(&mut wheel, 2_000_000 + TICK_MS), [1]);
    }

    #[test]
    fn a_sample_goes_round_everything() {
        let mut wheel = Wheel::default();
        for hash in 0..1000 {
            wheel.add(Reminder { hash, due_ms: hash * hash * 977 });
        }
        let mut seen = Vec::new();
        for _ in 0..200 {
            let mut some = Vec::new();
            wheel.sample(7, &mut some);
            assert!(some.len() <= 7);
            seen.extend(some.iter().map(|reminder| reminder.hash));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
        assert_eq!(wheel.len(), 0);
        assert_eq!(drain(&mut wheel, u64::MAX), [0; 0]);
    }

    #[test]
    fn any_reminder_may_be_taken_and_none_is_lost() {
        let mut wheel = Wheel::default();
        for hash in 0..300 {
            wheel.add(Reminder { hash, due_ms: hash * hash * 977 });
        }
        let mut due = Vec::new();
        wheel.take_due(100_000, 5, &mut due);
        let mut taken: Vec<u64> = due.iter().map(|reminder| reminder.hash).collect();
        for random in 0..150u64 {
            let reminder = wheel.take_any(random.wrapping_mul(0x9e37_79b9_7f4a_7c15)).expect("there are more");
            taken.push(reminder.hash);
        }
        assert!(taken.iter().any(|hash| *hash < 100) && taken.iter().any(|hash| *hash > 200), "from everywhere");
        assert_eq!(wheel.len(), 300 - taken.len());
        taken.extend(drain(&mut wheel, u64::MAX));
        taken.sort_unstable();
        assert_eq!(taken, (0..300).collect::<Vec<_>>());
        assert_eq!(wheel.take_any(7), None);
    }

    proptest! {
        #[test]
        fn every_reminder_comes_when_a_sorted_list_says(
            steps in prop::collection::vec((0u64..40, 0u32..42, 0u64..40), 1..200),
        ) {
            let mut wheel = Wheel::default();
            let mut model: Vec<Reminder> = Vec::new();
            let mut now_ms = 0;
            for (hash, (mantissa, exponent, pass)) in steps.into_iter().enumerate() {
                let reminder = Reminder { hash: hash as u64, due_ms: now_ms + (mantissa << exponent) };
                wheel.add(reminder);
                model.push(reminder);
                now_ms += pass << (exponent / 2);
                let end = now_ms / TICK_MS * TICK_MS;
                let mut due: Vec<u64> =
                    model.iter().filter(|reminder| reminder.due_ms < end).map(|reminder| reminder.hash).collect();
                due.sort_unstable();
                model.retain(|reminder| reminder.due_ms >= end);
                prop_assert_eq!(drain(&mut wheel, now_ms), due);
                prop_assert_eq!(wheel.len(), model.len());
            }
            prop_assert_eq!(drain(&mut wheel, u64::MAX).len(), model.len());
        }
    }

    proptest! {
        #[test]
        fn a_copy_in_steps_misses_nothing_whatever_happens_meanwhile(
            first in prop::collection::vec(0u64..5_000_000, 0..80),
            steps in prop::collection::vec((0u8..5, 0u64..5_000_000, 1usize..9), 0..80),
        ) {
            let mut wheel = Wheel::default();
            let (mut inside, mut number) = (std::collections::BTreeSet::new(), 0);
            let mut add = |wheel: &mut Wheel, inside: &mut std::collections::BTreeSet<Reminder>, due_ms| {
                number += 1;
                let reminder = Reminder { hash: number, due_ms };
                wheel.add(reminder);
                inside.insert(reminder);
            };
            first.iter().for_each(|&due_ms| add(&mut wheel, &mut inside, due_ms));
            let mut ever = inside.clone();
            let mut copied = Vec::new();
            let (mut copying, mut now_ms) = (wheel.begin_copy(), 0);
            for (what, value, max) in steps {
                let mut out = Vec::new();
                match what {
                    0 => add(&mut wheel, &mut inside, value),
                    1 => {
                        now_ms = now_ms.max(value);
                        wheel.take_due(now_ms, max, &mut out);
                    }
                    2 => wheel.sample(max, &mut out),
                    _ => _ = wheel.copy(&mut copying, 40 * max, &mut |reminder| copied.push(reminder)),
                }
                ever.extend(&inside);
                out.iter().for_each(|reminder| assert!(inside.remove(reminder)));
            }
            while wheel.copy(&mut copying, 100, &mut |reminder| copied.push(reminder)) {}
            copied.extend(wheel.end_copy());
            for reminder in ever {
                prop_assert!(copied.contains(&reminder), "{:?} was missed", reminder);
            }
        }
    }
}
