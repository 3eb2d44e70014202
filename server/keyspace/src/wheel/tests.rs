use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Whatever is due, settled.
fn drain(wheel: &mut Wheel, now_ms: u64) -> Vec<u64> {
    let mut due = Vec::new();
    while wheel.take_due(now_ms, 3, &mut due) {}
    settle_all(wheel, due)
}

fn settle_all(wheel: &mut Wheel, claimed: Vec<Reminder>) -> Vec<u64> {
    let mut hashes: Vec<u64> = claimed.iter().map(|reminder| reminder.hash).collect();
    hashes.iter().for_each(|&hash| wheel.settle(hash, None));
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
fn a_clock_set_back_does_not_ask_for_the_same_key_again_and_again() {
    let mut wheel = Wheel::default();
    drain(&mut wheel, 1_000_000);
    wheel.add(Reminder { hash: 1, due_ms: 900_000 });
    let (mut due, mut looks) = (Vec::new(), 0);
    while wheel.take_due(800_000, 1, &mut due) && looks < 10 {
        due.drain(..).for_each(|reminder| wheel.settle(reminder.hash, Some(900_000)));
        looks += 1;
    }
    assert!(looks < 10, "the cycle would never end");
    assert_eq!(drain(&mut wheel, 1_000_000 + TICK_MS), [1]);
}

#[test]
fn a_hash_has_one_reminder_the_earliest() {
    let mut wheel = Wheel::default();
    for due_ms in [9_000, 5_000, 7_000, 300_000, 6_000] {
        wheel.add(Reminder { hash: 1, due_ms });
    }
    assert_eq!(wheel.len(), 1);
    assert_eq!(drain(&mut wheel, 5_000), [0; 0]);
    assert_eq!(drain(&mut wheel, 5_000 + TICK_MS), [1]);
}

#[test]
fn what_is_doubtful_comes_soon_and_once() {
    let mut wheel = Wheel::default();
    wheel.note(Reminder { hash: 1, due_ms: 1 << 40 });
    wheel.note(Reminder { hash: 1, due_ms: 0 });
    wheel.note(Reminder { hash: 2, due_ms: 0 });
    let mut due = Vec::new();
    while wheel.take_due(1_000, 3, &mut due) {}
    assert_eq!(due, [Reminder { hash: 1, due_ms: 1 << 40 }], "of a hash unknown there is nothing to doubt");
    wheel.settle(1, Some(2_000));
    assert_eq!(drain(&mut wheel, 1_500), [0; 0]);
    assert_eq!(drain(&mut wheel, 2_000 + TICK_MS), [1]);
}

#[test]
fn a_write_told_of_while_its_key_is_looked_at_keeps_its_reminder() {
    let mut wheel = Wheel::default();
    wheel.add(Reminder { hash: 1, due_ms: 5_000 });
    let mut due = Vec::new();
    while wheel.take_due(6_000, 3, &mut due) {}
    wheel.add(Reminder { hash: 1, due_ms: 9_000 });
    // That look has found no key, since there was none yet.
    wheel.settle(1, None);
    assert_eq!(drain(&mut wheel, 9_000 + TICK_MS), [1]);
}

#[test]
fn a_sample_goes_round_everything() {
    let mut wheel = Wheel::default();
    for hash in 0..1000 {
        wheel.add(Reminder { hash, due_ms: hash * hash * 977 });
    }
    let mut seen = BTreeSet::new();
    for step in 0..143 {
        let mut some = Vec::new();
        wheel.sample(7, &mut some);
        assert!(some.len() <= 7);
        for reminder in some {
            seen.insert(reminder.hash);
            // Some go, and some stay.
            wheel.settle(reminder.hash, (step % 3 > 0).then_some(reminder.due_ms));
        }
    }
    assert_eq!(seen.len(), 1000);
    assert!((600..700).contains(&wheel.len()), "{}", wheel.len());
}

#[test]
fn any_reminder_may_be_taken_and_none_is_lost() {
    let mut wheel = Wheel::default();
    for hash in 0..300 {
        wheel.add(Reminder { hash, due_ms: hash * hash * 977 });
    }
    let mut due = Vec::new();
    wheel.take_due(100_000, 5, &mut due);
    for random in 0..150u64 {
        let before = due.len();
        wheel.take_any(random.wrapping_mul(0x9e37_79b9_7f4a_7c15), &mut due);
        assert_eq!(due.len(), before + 1, "there are more");
    }
    let mut taken = settle_all(&mut wheel, due);
    assert!(taken.iter().any(|hash| *hash < 100) && taken.iter().any(|hash| *hash > 200), "from everywhere");
    assert_eq!(wheel.len(), 300 - taken.len());
    taken.extend(drain(&mut wheel, u64::MAX));
    taken.sort_unstable();
    assert_eq!(taken, (0..300).collect::<Vec<_>>());
    let mut none = Vec::new();
    wheel.take_any(7, &mut none);
    assert_eq!(none, []);
}

#[test]
fn memory_goes_with_the_reminders_and_all_at_once_when_there_are_none_left() {
    let mut wheel = Wheel::default();
    (0..100_000)
        .for_each(|hash: u64| wheel.add(Reminder { hash: hash.wrapping_mul(0x9e37_79b9_7f4a_7c15), due_ms: 1 << 40 }));
    let full = wheel.bytes();
    assert!((32 * 100_000..35 * 100_000).contains(&full), "{full} bytes");
    let mut some = Vec::new();
    wheel.sample(90_000, &mut some);
    settle_all(&mut wheel, some);
    wheel.entries.check();
    assert!(wheel.bytes() < full / 7, "{} of {full} bytes", wheel.bytes());
    wheel.clear();
    assert_eq!((wheel.len(), drain(&mut wheel, u64::MAX)), (0, vec![]));
    while wheel.bytes() > 0 {
        drop(wheel.take_garbage());
    }
    wheel.add(Reminder { hash: 1, due_ms: 5 });
    assert_eq!(drain(&mut wheel, u64::MAX), [1]);
}

#[test]
fn one_more_reminder_moves_none_of_those_that_there_are() {
    let mut wheel = Wheel::default();
    wheel.add(Reminder { hash: 0, due_ms: 1 << 40 });
    let first = wheel.entries.first_chunk();
    // All of one time, as after a load: they lie in one slot.
    for hash in 1..50_000u64 {
        let before = wheel.bytes();
        wheel.add(Reminder { hash: hash.wrapping_mul(0x9e37_79b9_7f4a_7c15), due_ms: 1 << 40 });
        assert!(wheel.bytes() - before <= 1024 * crate::limits::EXPIRY_BYTES, "a chunk at most");
    }
    assert_eq!(wheel.entries.first_chunk(), first, "nothing was copied");
    let (mut due, mut steps) = (Vec::new(), 0);
    while wheel.take_due(u64::MAX, 64, &mut due) {
        assert!(due.len() <= 64, "a slot comes in steps, whatever its length");
        settle_all(&mut wheel, std::mem::take(&mut due));
        steps += 1;
    }
    assert_eq!(wheel.len(), due.len());
    assert!(steps >= 2 * 50_000 / 64 / 2, "{steps} steps");
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

/// What is in a wheel, by hash; and who has claimed what.
#[derive(Default)]
struct Model {
    due: BTreeMap<u64, u64>,
    claimed: BTreeSet<u64>,
    held: Vec<Reminder>,
}

impl Model {
    fn add(&mut self, hash: u64, due_ms: u64) {
        let due = self.due.entry(hash).or_insert(due_ms);
        *due = due_ms.min(*due);
        self.claimed.remove(&hash);
    }

    fn settle(&mut self, hash: u64, due_ms: Option<u64>) {
        match due_ms {
            Some(due_ms) if self.claimed.remove(&hash) => _ = self.due.insert(hash, due_ms),
            Some(due_ms) => self.add(hash, due_ms),
            None if self.claimed.remove(&hash) => _ = self.due.remove(&hash),
            None => {}
        }
    }

    fn claim(&mut self, some: Vec<Reminder>) {
        for reminder in some {
            assert_eq!(self.due.get(&reminder.hash), Some(&reminder.due_ms), "it is in the wheel");
            assert!(self.claimed.insert(reminder.hash), "nobody else has it");
            self.held.push(reminder);
        }
    }
}

proptest! {
    #[test]
    fn a_copy_in_steps_misses_nothing_whatever_happens_meanwhile(
        first in prop::collection::vec(1u64..5_000_000, 0..80),
        held in prop::collection::vec(any::<u64>(), 0..9),
        steps in prop::collection::vec((0u8..9, 1u64..5_000_000, 1usize..9), 0..120),
    ) {
        let (mut wheel, mut model) = (Wheel::default(), Model::default());
        let add = |wheel: &mut Wheel, model: &mut Model, hash, due_ms| {
            wheel.note(Reminder { hash, due_ms });
            model.add(hash, due_ms);
        };
        for (hash, &due_ms) in first.iter().enumerate() {
            add(&mut wheel, &mut model, hash as u64, due_ms);
        }
        let take_any = |wheel: &mut Wheel, model: &mut Model, random| {
            let mut out = Vec::new();
            wheel.take_any(random, &mut out);
            model.claim(out);
        };
        // Some is held by who looks at it when the copy begins.
        held.iter().for_each(|&random| take_any(&mut wheel, &mut model, random));
        let mut ever: BTreeSet<(u64, u64)> = model.due.iter().map(|(&hash, &due_ms)| (hash, due_ms)).collect();
        let mut copied: Vec<Reminder> = Vec::new();
        let mut now_ms = 0;
        wheel.begin_copy();
        for (step, (what, value, max)) in steps.into_iter().enumerate() {
            let mut out = Vec::new();
            match what {
                0 => add(&mut wheel, &mut model, value % 100, value),
                1 => {
                    now_ms = now_ms.max(value);
                    wheel.take_due(now_ms, max, &mut out);
                }
                2 => wheel.sample(max, &mut out),
                3 => take_any(&mut wheel, &mut model, value),
                4 => wheel.note(Reminder { hash: value % 100, due_ms: 0 }),
                5 | 6 if !model.held.is_empty() => {
                    let hash = model.held.swap_remove(value as usize % model.held.len()).hash;
                    let due_ms = (what == 5).then_some(value);
                    wheel.settle(hash, due_ms);
                    model.settle(hash, due_ms);
                }
                _ => _ = wheel.copy(2 * max, |reminder| copied.push(reminder)),
            }
            model.claim(out);
            ever.extend(model.due.iter().map(|(&hash, &due_ms)| (hash, due_ms)));
            if step % 16 == 0 {
                wheel.entries.check();
            }
            prop_assert_eq!(wheel.len(), model.due.len());
        }
        while wheel.copy(10, |reminder| copied.push(reminder)) {}
        copied.extend(wheel.end_copy().into_iter().flatten());
        for (hash, due_ms) in ever {
            let is_told = |reminder: &Reminder| reminder.hash == hash && reminder.due_ms <= due_ms;
            prop_assert!(copied.iter().any(is_told), "{} at {} was missed", hash, due_ms);
        }
    }
}
