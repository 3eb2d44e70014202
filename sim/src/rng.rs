//! The simulator's own random numbers: small, and the same for ever, since a seed in a bug report must keep its history.

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
///
/// Every part draws from its own generator, derived from the seed and a label, so that a fault switched
/// off (when a failure is shrunk) does not change what the workload does.
#[derive(Clone, Debug)]
pub struct SimRng {
    state: u64,
}

impl SimRng {
    /// The generator of one seed and one part.
    pub fn derive(seed: u64, label: &str) -> Self {
        let mut rng = Self { state: seed };
        for byte in label.bytes() {
            rng.state = rng.next_u64() ^ u64::from(byte);
        }
        rng
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range has no number");
        low + self.below((high - low).saturating_add(1))
    }

    /// An index of a collection of `len` elements, which must not be empty.
    pub fn index(&mut self, len: usize) -> usize {
        assert!(len > 0, "an empty collection has no index");
        self.below(len as u64) as usize
    }

    /// True once in `n` times on average.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// True with a probability of `per_mille` / 1000.
    pub fn per_mille(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One of `choices`.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    /// Fisher and Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_sequence_of_seed_zero() {
        let mut rng = SimRng { state: 0 };
        assert_eq!(rng.next_u64(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(rng.next_u64(), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn labels_give_independent_generators_and_bounds_hold() {
        let (mut a, mut b) = (SimRng::derive(1, "disk"), SimRng::derive(1, "net"));
        assert_ne!(a.next_u64(), b.next_u64());
        for _ in 0..1000 {
            assert!(a.below(3) < 3);
            assert!((5..=7).contains(&a.between(5, 7)));
        }
        assert_eq!(a.below(0), 0);
    }
}
