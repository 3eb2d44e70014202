use proptest::prelude::*;

use super::*;

/// A number as it is: 32 bits a digit, the least first.
#[derive(Clone, PartialEq, Eq)]
struct Exact(Vec<u32>);

impl Exact {
    fn new(number: u64) -> Self {
        Self(vec![number as u32, (number >> 32) as u32])
    }

    fn squared(&self) -> Self {
        let mut digits = vec![0_u32; self.0.len() * 2];
        for (a, left) in self.0.iter().enumerate() {
            let mut carry = 0_u64;
            for (b, right) in self.0.iter().enumerate() {
                let sum = u64::from(*left) * u64::from(*right) + u64::from(digits[a + b]) + carry;
                (digits[a + b], carry) = (sum as u32, sum >> 32);
            }
            digits[a + self.0.len()] = carry as u32;
        }
        Self(digits)
    }

    /// Whether this is above 2 to this power.
    fn exceeds_power(&self, power: usize) -> bool {
        let is_set = |bit: usize| self.0.get(bit / 32).is_some_and(|digit| digit >> (bit % 32) & 1 == 1);
        (power + 1..self.0.len() * 32).any(is_set) || (is_set(power) && (0..power).any(is_set))
    }
}

/// Whether a double is above `2^(index / 32)`, with no rounding anywhere: both sides to the power of 32.
fn is_above(value: f64, index: i32) -> bool {
    let bits = value.to_bits();
    let exponent = (bits >> MANTISSA_BITS) as i32 - BIAS;
    let mut power = Exact::new(bits & ((1 << MANTISSA_BITS) - 1) | 1 << MANTISSA_BITS);
    (0..SCALE).for_each(|_| power = power.squared());
    // The value is the whole number of its 53 bits times 2^(exponent - 52).
    let wanted = index - (exponent - MANTISSA_BITS as i32) * PARTS as i32;
    usize::try_from(wanted).map_or(true, |wanted| power.exceeds_power(wanted))
}

#[track_caller]
fn assert_in_its_bucket(ns: u64) {
    let index = index_of(ns).expect("it is not 0");
    let seconds = ns as f64 / 1e9;
    assert!(is_above(seconds, index), "{ns} ns is in bucket {index}, whose lower bound it does not exceed");
    assert!(!is_above(seconds, index + 1), "{ns} ns is in bucket {index}, whose upper bound it exceeds");
    assert!((INDEX_MIN..INDEX_END).contains(&index), "{ns} ns: {index}");
}

proptest! {
    #[test]
    fn a_time_is_above_its_bucket_s_lower_bound_and_at_most_the_upper_one(ns in 1_u64.., shift in 0_u32..64) {
        assert_in_its_bucket((ns >> shift).max(1));
    }

    /// Adding up pairs of neighbours is what the definition says of the next lower scale.
    #[test]
    fn a_lower_scale_tells_the_same(times in proptest::collection::vec((1_u64.., 0_u32..64), 1..50), max in 2_usize..200) {
        let times: Vec<u64> = times.into_iter().map(|(ns, shift)| (ns >> shift).max(1)).collect();
        let mut counts = vec![0; BUCKETS];
        times.iter().for_each(|&ns| counts[(index_of(ns).unwrap() - INDEX_MIN) as usize] += 1);
        let all = Exponential::new(0, &counts);
        let fitted = all.fit(max);
        prop_assert!(fitted.counts.len() <= max);
        prop_assert_eq!(fitted.counts.iter().sum::<u64>(), times.len() as u64);
        prop_assert!(*fitted.counts.first().unwrap() > 0 && *fitted.counts.last().unwrap() > 0);
        // One scale more would not have fitted.
        if fitted.scale < SCALE {
            prop_assert!(all.fit(max * 2 + 1).scale > fitted.scale);
        }
        for ns in times {
            let parts = 1 << (SCALE - fitted.scale);
            let place = index_of(ns).unwrap().div_euclid(parts);
            prop_assert!(fitted.counts[(place - fitted.first) as usize] > 0);
            prop_assert!(is_above(ns as f64 / 1e9, place * parts) && !is_above(ns as f64 / 1e9, (place + 1) * parts));
        }
    }

    #[test]
    fn what_came_since_is_the_difference(before in proptest::collection::vec((0_usize..BUCKETS, 1_u64..9), 0..9),
                                         since in proptest::collection::vec((0_usize..BUCKETS, 1_u64..9), 0..9)) {
        let of = |added: &[&[(usize, u64)]]| {
            let mut counts = vec![0; BUCKETS];
            added.concat().iter().for_each(|(at, count)| counts[*at] += count);
            Exponential::new(added.len() as u64, &counts)
        };
        let mut both = of(&[&before, &since]);
        both.subtract(&of(&[&before]));
        prop_assert_eq!(both, of(&[&since]));
    }
}

#[test]
fn bounds_belong_to_the_bucket_below() {
    // Of a second: 2^-1, 2^0, 2^1 and 2^2, which are exact.
    for (ns, index) in [(500_000_000, -33), (1_000_000_000, -1), (2_000_000_000, 31), (4_000_000_000, 63)] {
        assert_eq!(index_of(ns), Some(index));
        assert_eq!(index_of(ns + 1), Some(index + 1));
        assert_eq!(index_of(ns - 1), Some(index));
    }
    assert_eq!(index_of(0), None);
    for ns in [1, 2, 3, 999, 1_000, u64::MAX, u64::MAX / 2, 1 << 53, (1 << 53) + 1] {
        assert_in_its_bucket(ns);
    }
}

/// The table is the definition, rounded down: the next double is above the bound.
#[test]
fn the_table_of_bounds_is_exact() {
    for (index, mantissa) in BOUNDS[..PARTS].iter().enumerate() {
        let double = |mantissa: u64| f64::from_bits((BIAS as u64) << MANTISSA_BITS | mantissa);
        assert!(!is_above(double(*mantissa), index as i32), "{index}");
        assert!(is_above(double(mantissa + 1), index as i32), "{index}");
    }
    for (bits, &below) in BOUNDS_BELOW.iter().enumerate() {
        let least = (bits as u64) << (MANTISSA_BITS - LOOK_UP_BITS);
        let greatest = least | ((1 << (MANTISSA_BITS - LOOK_UP_BITS)) - 1);
        let after = BOUNDS.get(usize::from(below) + 1).copied().unwrap_or(u64::MAX);
        assert!(after >= greatest, "two bounds lie within {bits:#b}");
    }
}

#[test]
fn nothing_fits_into_nothing() {
    let nothing = Exponential::new(3, &[0; BUCKETS]);
    assert_eq!((nothing.count(), nothing.first), (3, 0));
    assert_eq!(nothing.fit(BUCKETS_MAX), Fitted { scale: SCALE, first: 0, counts: Vec::new() });
}
