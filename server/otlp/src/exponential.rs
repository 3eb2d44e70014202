//! Histograms with exponential buckets: which bucket a value falls into, and counts as they are collected.
//!
//! At scale `s` the base is `2^(2^-s)`, and bucket `i` takes what is above `base^i` and at most `base^(i+1)`
//! (<https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram>). Prometheus's native histograms have the
//! same buckets under indices that are higher by one. A lower scale's bucket is exactly two of the next scale's, so that
//! what was counted at one scale can be told at every lower one.

/// The scale of what is counted: 32 buckets an octave, each 2.2 % wide.
pub(crate) const SCALE: i32 = 5;

/// Buckets of one data point at most; the specification's default.
pub(crate) const BUCKETS_MAX: usize = 160;

/// Buckets of an octave.
const PARTS: usize = 1 << SCALE;

/// Bits of a mantissa, and the bias of an exponent, in a double.
const MANTISSA_BITS: u32 = 52;
const BIAS: i32 = 1023;

/// Indices of what a number of nanoseconds, from 1 to 2^64, can be in seconds: 2^-30 to 2^35.
pub(crate) const INDEX_MIN: i32 = -30 * PARTS as i32;
const INDEX_END: i32 = 35 * PARTS as i32;
/// How many those are.
pub(crate) const BUCKETS: usize = (INDEX_END - INDEX_MIN) as usize;

/// The mantissas of `2^(i/32)`, rounded down: a double is above the bound if its mantissa is above this. The last is above all.
const BOUNDS: [u64; PARTS + 1] = [
    0x0_0000_0000_0000,
    0x0_59b0_d315_8574,
    0x0_b558_6cf9_890f,
    0x1_1301_d012_5b50,
    0x1_72b8_3c7d_517a,
    0x1_d487_3168_b9aa,
    0x2_387a_6e75_6238,
    0x2_9e9d_f51f_dee1,
    0x3_06fe_0a31_b715,
    0x3_71a7_373a_a9ca,
    0x3_dea6_4c12_3422,
    0x4_4e08_6061_892d,
    0x4_bfda_d536_2a27,
    0x5_342b_569d_4f81,
    0x5_ab07_dd48_5429,
    0x6_247e_b03a_5584,
    0x6_a09e_667f_3bcc,
    0x7_1f75_e8ec_5f73,
    0x7_a114_73eb_0186,
    0x8_2589_994c_ce12,
    0x8_ace5_422a_a0db,
    0x9_3737_b0cd_c5e4,
    0x9_c491_82a3_f090,
    0xa_5503_b23e_255c,
    0xa_e89f_995a_d3ad,
    0xb_7f76_f2fb_5e46,
    0xc_199b_dd85_529c,
    0xc_b720_dcef_9069,
    0xd_5818_dcfb_a487,
    0xd_fc97_337b_9b5e,
    0xe_a4af_a2a4_90d9,
    0xf_5076_5b6e_4540,
    u64::MAX,
];

/// The mantissa's first bits that look a bucket up: two bounds are further apart than numbers that share them.
const LOOK_UP_BITS: u32 = SCALE as u32 + 1;

/// For what begins with these bits: how many bounds lie below all of it. One more may lie in it.
const BOUNDS_BELOW: [u8; 1 << LOOK_UP_BITS] = bounds_below();

const fn bounds_below() -> [u8; 1 << LOOK_UP_BITS] {
    let mut counts = [0; 1 << LOOK_UP_BITS];
    let mut bits = 0;
    while bits < counts.len() {
        let least = (bits as u64) << (MANTISSA_BITS - LOOK_UP_BITS);
        while BOUNDS[counts[bits] as usize] < least {
            counts[bits] += 1;
        }
        bits += 1;
    }
    counts
}

/// The bucket of a time in nanoseconds, taken as seconds, at [`SCALE`]; none for 0, which the zero bucket takes.
#[inline]
pub(crate) fn index_of(ns: u64) -> Option<i32> {
    if ns == 0 {
        return None;
    }
    let bits = (ns as f64 / 1e9).to_bits();
    let mantissa = bits & ((1 << MANTISSA_BITS) - 1);
    let below = BOUNDS_BELOW[(mantissa >> (MANTISSA_BITS - LOOK_UP_BITS)) as usize];
    let parts = i32::from(below) + i32::from(mantissa > BOUNDS[usize::from(below)]);
    let exponent = (bits >> MANTISSA_BITS) as i32 - BIAS;
    Some(exponent * PARTS as i32 + parts - 1)
}

/// What was counted at [`SCALE`], in nanoseconds taken as seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exponential {
    /// Of times of 0 ns.
    pub(crate) zero: u64,
    /// Index of the first of the counts.
    pub(crate) first: i32,
    /// Neither the first nor the last is 0.
    pub(crate) counts: Vec<u64>,
    /// The least and the greatest time since the export before, in nanoseconds; none if there was none, or if a worker
    /// was just writing one.
    pub(crate) extremes: Option<(u64, u64)>,
}

/// Counts at a scale that few enough buckets are enough for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fitted {
    pub scale: i32,
    /// Index of the first of the counts.
    pub first: i32,
    pub counts: Vec<u64>,
}

impl Exponential {
    /// From the count of each index from [`INDEX_MIN`] on.
    pub(crate) fn new(zero: u64, counts: &[u64]) -> Self {
        let (mut first, mut counts) = (INDEX_MIN, counts.to_vec());
        trim(&mut first, &mut counts);
        Self { zero, first, counts, extremes: None }
    }

    pub(crate) fn count(&self) -> u64 {
        self.zero + self.counts.iter().sum::<u64>()
    }

    /// What came since `before` was collected.
    #[cfg(any(feature = "otel", test))]
    pub(crate) fn subtract(&mut self, before: &Self) {
        self.zero -= before.zero;
        for (at, count) in (before.first..).zip(&before.counts) {
            // Counts never go back: what was there is there.
            self.counts[(at - self.first) as usize] -= count;
        }
        trim(&mut self.first, &mut self.counts);
    }

    /// At the highest scale, up to [`SCALE`], at which there are at most so many buckets from the first to the last.
    pub(crate) fn fit(&self, buckets_max: usize) -> Fitted {
        let last = self.first + self.counts.len().saturating_sub(1) as i32;
        let span = |shift: i32| ((last >> shift) - (self.first >> shift) + 1) as usize;
        let shift = (0..).find(|&shift| span(shift) <= buckets_max).expect("halving comes to 2 and below");
        let first = self.first >> shift;
        let mut counts = vec![0; if self.counts.is_empty() { 0 } else { span(shift) }];
        for (at, count) in (self.first..).zip(&self.counts) {
            counts[((at >> shift) - first) as usize] += count;
        }
        Fitted { scale: SCALE - shift, first, counts }
    }
}

/// Leaves out what is 0 in front and at the end.
fn trim(first: &mut i32, counts: &mut Vec<u64>) {
    let empty = counts.iter().take_while(|count| **count == 0).count();
    counts.drain(..empty);
    let end = counts.iter().rposition(|count| *count != 0).map_or(0, |at| at + 1);
    counts.truncate(end);
    *first = if counts.is_empty() { 0 } else { *first + empty as i32 };
}

#[cfg(test)]
mod tests;
