//! The access clock in a record's header: how long ago, or how often, its key was asked for.
//!
//! ```text
//!  LRU  0..32  Unix time of the last access in seconds
//!  LFU  0..8   logarithmic counter of accesses (Morris 1978)
//!       8..32  Unix time in minutes at which the counter was last brought up to date
//! ```
//! Nothing in the record says which of the two it is: after a change of mode the old bits mean something else until the
//! key is asked for again, as in Redis.

use std::cell::Cell;

/// What a new key's counter begins with, so that it is not the first to go.
const FREQUENCY_NEW: u8 = 5;
const COUNTER_BITS: u32 = 8;
const MINUTES_MASK: u32 = u32::MAX >> COUNTER_BITS;

/// What the access clock keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessMode {
    /// When the key was last asked for.
    #[default]
    Lru,
    /// How often.
    Lfu {
        /// Of a key with counter `c` one access in `(c − 5) × log_factor + 1` counts.
        log_factor: u32,
        /// Minutes in which the counter loses one; 0: it never does.
        decay_minutes: u32,
    },
}

/// Seconds since the last access that an LRU clock tells of.
pub fn idle_seconds(access: u32, now_s: u32) -> u32 {
    // The clock may have been set back.
    now_s.saturating_sub(access)
}

/// The counter of an LFU clock, less what it has lost by now.
pub fn frequency(access: u32, now_s: u32, decay_minutes: u32) -> u8 {
    let elapsed = minutes(now_s).wrapping_sub(access >> COUNTER_BITS) & MINUTES_MASK;
    let lost = elapsed.checked_div(decay_minutes).unwrap_or(0);
    (access as u8).saturating_sub(u8::try_from(lost).unwrap_or(u8::MAX))
}

fn minutes(unix_s: u32) -> u32 {
    (unix_s / 60) & MINUTES_MASK
}

/// A worker's clock: what it writes into the records that its commands meet.
pub(crate) struct AccessClock {
    now_s: Cell<u32>,
    mode: Cell<AccessMode>,
    random: Cell<u64>,
}

impl AccessClock {
    pub(crate) fn new(seed: u64) -> Self {
        // Xorshift needs a state that is not 0.
        Self { now_s: Cell::new(0), mode: Cell::default(), random: Cell::new(seed | 1) }
    }

    #[inline]
    pub(crate) fn set(&self, now_s: u32, mode: AccessMode) {
        self.now_s.set(now_s);
        self.mode.set(mode);
    }

    /// The bits of a new key.
    #[inline]
    pub(crate) fn fresh(&self) -> u32 {
        match self.mode.get() {
            AccessMode::Lru => self.now_s.get(),
            AccessMode::Lfu { .. } => self.counter(FREQUENCY_NEW),
        }
    }

    /// What an access makes of the bits.
    #[inline]
    pub(crate) fn accessed(&self, access: u32) -> u32 {
        match self.mode.get() {
            AccessMode::Lru => self.now_s.get(),
            AccessMode::Lfu { log_factor, decay_minutes } => self.counted(access, log_factor, decay_minutes),
        }
    }

    #[cold]
    fn counted(&self, access: u32, log_factor: u32, decay_minutes: u32) -> u32 {
        let counter = frequency(access, self.now_s.get(), decay_minutes);
        let above = u64::from(counter.saturating_sub(FREQUENCY_NEW));
        let counts = self.draw().is_multiple_of(above * u64::from(log_factor) + 1);
        self.counter(counter.saturating_add(u8::from(counts)))
    }

    fn counter(&self, counter: u8) -> u32 {
        minutes(self.now_s.get()) << COUNTER_BITS | u32::from(counter)
    }

    /// Xorshift64* (Vigna 2016); its high bits are the even ones.
    fn draw(&self) -> u64 {
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LFU: AccessMode = AccessMode::Lfu { log_factor: 10, decay_minutes: 1 };

    #[test]
    fn lru_keeps_the_second() {
        let clock = AccessClock::new(1);
        clock.set(1_700_000_000, AccessMode::Lru);
        assert_eq!((clock.fresh(), clock.accessed(3)), (1_700_000_000, 1_700_000_000));
        assert_eq!(idle_seconds(clock.fresh(), 1_700_000_007), 7);
        assert_eq!(idle_seconds(clock.fresh(), 1_600_000_000), 0, "the clock was set back");
    }

    #[test]
    fn a_new_key_has_the_frequency_five_and_loses_one_a_decay_time() {
        let clock = AccessClock::new(1);
        clock.set(6000, LFU);
        let access = clock.fresh();
        assert_eq!(frequency(access, 6000, 1), 5);
        assert_eq!(frequency(access, 6000 + 120, 1), 3);
        assert_eq!(frequency(access, 6000 + 120, 2), 4);
        assert_eq!(frequency(access, 6000 + 6_000_000, 1), 0);
        assert_eq!(frequency(access, 6000 + 6_000_000, 0), 5, "0 minutes: it does not decay");
    }

    #[test]
    fn accesses_count_logarithmically() {
        let clock = AccessClock::new(7);
        clock.set(6000, LFU);
        let mut access = clock.fresh();
        let mut after = |accesses: u32| {
            (0..accesses).for_each(|_| access = clock.accessed(access));
            frequency(access, 6000, 1)
        };
        // Redis's documentation has 10, 18 and 142 for these with a factor of 10.
        let counters = [after(100), after(900), after(99_000)];
        assert!((8..=13).contains(&counters[0]), "{counters:?}");
        assert!((15..=22).contains(&counters[1]), "{counters:?}");
        assert!((130..=155).contains(&counters[2]), "{counters:?}");
        clock.set(6000, AccessMode::Lfu { log_factor: 0, decay_minutes: 1 });
        let counted = (0..300).fold(clock.fresh(), |access, _| clock.accessed(access));
        assert_eq!(frequency(counted, 6000, 1), u8::MAX, "with the factor 0 every access counts");
    }
}
