//! Trace and span ids: a small generator whose sequence follows from one seed.

use crate::context::{SpanId, TraceId};

/// xoshiro256++ (Blackman and Vigna, 2019), seeded through splitmix64. Not for secrets.
#[derive(Clone, Debug)]
pub struct IdGenerator {
    state: [u64; 4],
}

impl IdGenerator {
    /// The same seed gives the same ids.
    pub fn new(seed: u64) -> Self {
        let mut splitmix = seed;
        let state = std::array::from_fn(|_| {
            splitmix = splitmix.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = splitmix;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ (word >> 31)
        });
        Self { state }
    }

    /// The next word of the sequence.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let c2 = c ^ a;
        let d2 = d ^ b;
        self.state = [a ^ d2, b ^ c2, c2 ^ (b << 17), d2.rotate_left(45)];
        result
    }

    /// A trace id, never zero.
    #[inline]
    pub fn trace_id(&mut self) -> TraceId {
        loop {
            let id = (u128::from(self.next_u64()) << 64) | u128::from(self.next_u64());
            if id != 0 {
                return TraceId(id);
            }
        }
    }

    /// A span id, never zero.
    #[inline]
    pub fn span_id(&mut self) -> SpanId {
        loop {
            let id = self.next_u64();
            if id != 0 {
                return SpanId(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_sequence_of_xoshiro256_plus_plus() {
        let mut generator = IdGenerator { state: [1, 2, 3, 4] };
        let first: Vec<u64> = (0..4).map(|_| generator.next_u64()).collect();
        assert_eq!(first, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
    }

    #[test]
    fn seeds_decide() {
        assert_eq!(IdGenerator::new(7).trace_id(), IdGenerator::new(7).trace_id());
        assert_ne!(IdGenerator::new(7).trace_id(), IdGenerator::new(8).trace_id());
    }
}
