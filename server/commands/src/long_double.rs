//! The x87 extended double that Redis's `long double` is: INCRBYFLOAT shows its rounding to the client.
//!
//! 64 bits of significand, round to nearest even, as `strtold`, `+` and `printf("%.17Lf")` do it. No standard type has
//! it, and `f64` differs in what is replied (10.5 + 0.1 is not 10.6 to 17 decimals).

/// Redis reads no longer numbers.
const TEXT_MAX: usize = 5 * 1024;
/// Decimals that Redis prints before it trims zeros.
const DECIMALS: u32 = 17;
/// Of `significand × 2^exponent`; the smallest is that of the denormals.
const EXPONENT_MAX: i32 = 16383 - 63;
const EXPONENT_MIN: i32 = -16382 - 63;
/// Powers of ten beyond these are out of range whatever precedes them.
const DECIMAL_EXPONENT_MAX: i64 = 2 * TEXT_MAX as i64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LongDouble {
    /// `significand × 2^exponent`; the significand's top bit is set unless the exponent is the smallest or it is zero.
    Finite {
        negative: bool,
        significand: u64,
        exponent: i32,
    },
    Infinite {
        negative: bool,
    },
    NotANumber,
}

use LongDouble::{Finite, Infinite, NotANumber};

impl LongDouble {
    /// Digits of the largest, with its sign and 17 decimals.
    pub const TEXT_MAX: usize = 4933 + 19;

    pub const ZERO: Self = Finite { negative: false, significand: 0, exponent: EXPONENT_MIN };

    /// As Redis's `string2ld`: the whole text is a number that C reads, infinity included, out of range excluded.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() >= TEXT_MAX {
            return None;
        }
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity") {
            return Some(Infinite { negative });
        }
        let (radix, (digits, exponent)) = match text {
            [b'0', b'x' | b'X', rest @ ..] => (16, parse_digits(rest, 16, b'p')?),
            _ => (10, parse_digits(text, 10, b'e')?),
        };
        if digits.is_zero() {
            return Some(Finite { negative, significand: 0, exponent: EXPONENT_MIN });
        }
        let parsed = if radix == 16 {
            round(negative, &digits, i32::try_from(exponent).ok()?, false)
        } else {
            scale_by_ten(negative, digits, exponent)?
        };
        match parsed {
            Finite { significand: 1.., .. } => Some(parsed),
            // C says ERANGE.
            _ => None,
        }
    }

    pub fn is_finite(self) -> bool {
        matches!(self, Finite { .. })
    }

    pub fn add(self, other: Self) -> Self {
        let (a, b) = match (self, other) {
            (NotANumber, _) | (_, NotANumber) => return NotANumber,
            (Infinite { negative: a }, Infinite { negative: b }) if a != b => return NotANumber,
            (Infinite { .. }, _) => return self,
            (_, Infinite { .. }) => return other,
            (Finite { exponent: a, .. }, Finite { exponent: b, .. }) if a >= b => (self, other),
            _ => (other, self),
        };
        let (
            Finite { negative, significand: large, exponent },
            Finite { negative: other_negative, significand: small, exponent: small_exponent },
        ) = (a, b)
        else {
            unreachable!("both are finite here")
        };
        // 63 bits below the significand: enough for an exact result or a sticky bit far below the rounding position.
        let large = u128::from(large) << 63;
        let small = shift_right_sticky(u128::from(small) << 63, (exponent - small_exponent) as u32);
        let (negative, sum) = if negative == other_negative {
            (negative, large + small)
        } else if large >= small {
            (negative && large != small, large - small)
        } else {
            (other_negative, small - large)
        };
        round(negative, &Big::from_u128(sum), exponent - 63, false)
    }

    /// `%.17Lf` without trailing zeros; `None` unless finite.
    pub fn to_text(self) -> Option<String> {
        let Finite { negative, significand, exponent } = self else { return None };
        let mut text = if exponent >= 0 {
            let mut integer = Big::from_u128(u128::from(significand));
            integer.shift_left(exponent as usize);
            integer.into_decimal()
        } else {
            // Below 2^121.
            let scaled = u128::from(significand) * 10u128.pow(DECIMALS);
            let rounded = shift_right_rounding(scaled, exponent.unsigned_abs());
            let unit = 10u128.pow(DECIMALS);
            let decimals = format!("{:017}", rounded % unit);
            format!("{}.{decimals}", rounded / unit).trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        if negative && text != "0" {
            text.insert(0, '-');
        }
        Some(text)
    }
}

/// Digits as an integer, and the exponent (of ten, or of two for radix 16) that belongs to it.
fn parse_digits(text: &[u8], radix: u32, marker: u8) -> Option<(Big, i64)> {
    let mut digits = Big::default();
    let (mut any, mut point, mut exponent) = (false, false, 0i64);
    let per_digit = if radix == 16 { 4 } else { 1 };
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        if let Some(digit) = char::from(byte).to_digit(radix) {
            digits.multiply_add(radix, digit);
            any = true;
            exponent -= if point { per_digit } else { 0 };
        } else if byte == b'.' && !point {
            point = true;
        } else {
            break;
        }
        at += 1;
    }
    if !any {
        return None;
    }
    match &text[at..] {
        [] => {}
        [byte, rest @ ..] if byte.to_ascii_lowercase() == marker => {
            let (negative, number) = match rest {
                [b'-', number @ ..] => (true, number),
                [b'+', number @ ..] => (false, number),
                number => (false, number),
            };
            if number.is_empty() || !number.iter().all(u8::is_ascii_digit) {
                return None;
            }
            // Saturates far out of range.
            let number = number.iter().fold(0i64, |n, digit| (n * 10 + i64::from(digit - b'0')).min(1 << 30));
            exponent += if negative { -number } else { number };
        }
        _ => return None,
    }
    Some((digits, exponent))
}

fn scale_by_ten(negative: bool, mut digits: Big, exponent: i64) -> Option<LongDouble> {
    if exponent.abs() > DECIMAL_EXPONENT_MAX {
        return None;
    }
    if exponent >= 0 {
        (0..exponent).for_each(|_| digits.multiply_add(10, 0));
        return Some(round(negative, &digits, 0, false));
    }
    let mut divisor = Big::from_u128(1);
    (0..-exponent).for_each(|_| divisor.multiply_add(10, 0));
    // Both to the same length, then bit by bit: 67 bits hold the significand and what decides its rounding.
    let shift = divisor.bits() as i32 - digits.bits() as i32;
    if shift >= 0 {
        digits.shift_left(shift as usize)
    } else {
        divisor.shift_left(shift.unsigned_abs() as usize)
    }
    const BITS: i32 = 67;
    let mut quotient = 0u128;
    for _ in 0..=BITS {
        quotient <<= 1;
        if divisor.at_most(&digits) {
            digits.subtract(&divisor);
            quotient |= 1;
        }
        digits.shift_left(1);
    }
    Some(round(negative, &Big::from_u128(quotient), -shift - BITS, !digits.is_zero()))
}

/// The number nearest to `integer × 2^exponent`, or to a little more if `sticky`.
fn round(negative: bool, integer: &Big, exponent: i32, sticky: bool) -> LongDouble {
    let bits = integer.bits() as i32;
    if bits == 0 {
        return Finite { negative, significand: 0, exponent: EXPONENT_MIN };
    }
    let target = (exponent.saturating_add(bits - 64)).max(EXPONENT_MIN);
    let drop = target.saturating_sub(exponent);
    if drop <= 0 {
        // At most 64 bits: exact.
        if target > EXPONENT_MAX {
            return Infinite { negative };
        }
        return Finite { negative, significand: integer.low_u64() << -drop, exponent: target };
    }
    let drop = drop as usize;
    let mut significand = integer.bits_from(drop);
    let half = integer.bit(drop - 1);
    let below = sticky || integer.any_below(drop - 1);
    let mut exponent = target;
    if half && (below || significand & 1 == 1) {
        match significand.checked_add(1) {
            Some(next) => significand = next,
            None => {
                significand = 1 << 63;
                exponent += 1;
            }
        }
    }
    if exponent > EXPONENT_MAX { Infinite { negative } } else { Finite { negative, significand, exponent } }
}

/// The lowest bit is set if a set bit was shifted out.
fn shift_right_sticky(value: u128, by: u32) -> u128 {
    match by {
        0 => value,
        1..128 => value >> by | u128::from(value << (128 - by) != 0),
        _ => u128::from(value != 0),
    }
}

/// To nearest, ties to even. `value` is below 2^127.
fn shift_right_rounding(value: u128, by: u32) -> u128 {
    if by >= 128 {
        return 0;
    }
    let (kept, rest) = (value >> by, value & ((1u128 << by) - 1));
    let half = 1u128 << (by - 1);
    kept + u128::from(rest > half || rest == half && kept & 1 == 1)
}

/// An unsigned integer of any size, least word first, without leading zero words.
#[derive(Clone, Debug, Default)]
struct Big(Vec<u32>);

impl Big {
    fn from_u128(mut value: u128) -> Self {
        let mut words = Vec::new();
        while value != 0 {
            words.push(value as u32);
            value >>= 32;
        }
        Big(words)
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn bits(&self) -> usize {
        self.0.last().map_or(0, |top| self.0.len() * 32 - top.leading_zeros() as usize)
    }

    fn bit(&self, at: usize) -> bool {
        self.0.get(at / 32).is_some_and(|word| word >> (at % 32) & 1 == 1)
    }

    fn any_below(&self, bits: usize) -> bool {
        let words = (bits / 32).min(self.0.len());
        self.0[..words].iter().any(|&word| word != 0) || (words * 32..bits).any(|at| self.bit(at))
    }

    fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or(0).into()
    }

    fn low_u64(&self) -> u64 {
        self.word(0) | self.word(1) << 32
    }

    /// The 64 bits from bit `first` on.
    fn bits_from(&self, first: usize) -> u64 {
        let (word, bit) = (first / 32, first % 32);
        let low = self.word(word) | self.word(word + 1) << 32;
        if bit == 0 { low } else { low >> bit | self.word(word + 2) << (64 - bit) }
    }

    fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for word in &mut self.0 {
            carry += u64::from(*word) * u64::from(factor);
            *word = carry as u32;
            carry >>= 32;
        }
        if carry != 0 {
            self.0.push(carry as u32);
        }
    }

    fn shift_left(&mut self, by: usize) {
        if self.is_zero() {
            return;
        }
        self.multiply_add(1 << (by % 32), 0);
        self.0.splice(0..0, std::iter::repeat_n(0, by / 32));
    }

    fn at_most(&self, other: &Self) -> bool {
        let by_length = self.0.len().cmp(&other.0.len());
        by_length.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev())).is_le()
    }

    /// `other` is at most `self`.
    fn subtract(&mut self, other: &Self) {
        let mut borrow = 0i64;
        for (at, word) in self.0.iter_mut().enumerate() {
            let difference = i64::from(*word) - other.word(at) as i64 + borrow;
            *word = difference as u32;
            borrow = difference >> 32;
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn into_decimal(mut self) -> String {
        let mut groups = Vec::new();
        while !self.is_zero() {
            let mut rest = 0u64;
            for word in self.0.iter_mut().rev() {
                rest = rest << 32 | u64::from(*word);
                *word = (rest / 1_000_000_000) as u32;
                rest %= 1_000_000_000;
            }
            while self.0.last() == Some(&0) {
                self.0.pop();
            }
            groups.push(rest);
        }
        let mut text = groups.pop().unwrap_or(0).to_string();
        groups.iter().rev().for_each(|group| text.push_str(&format!("{group:09}")));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::LongDouble;

    fn sum(a: &str, b: &str) -> Option<String> {
        LongDouble::parse(a.as_bytes())?.add(LongDouble::parse(b.as_bytes())?).to_text()
    }

    #[test]
    fn sums_as_redis_prints_them() {
        // Right-hand sides are what redis-server 7.0.15 replies on x86-64.
        for (a, b, expected) in [
            ("10.5", "0.1", "10.6"),
            ("0.1", "0.2", "0.3"),
            ("5.0e3", "2.0e2", "5200"),
            ("3.0", "1.1", "4.1"),
            ("1", "-1", "0"),
            ("-0", "0", "0"),
            ("0.00000000000000001", "0", "0.00000000000000001"),
            ("1e-30", "0", "0"),
            ("0x10", "0x.8p1", "17"),
            ("18446744073709551615", "1", "18446744073709551616"),
            (".5", "5.", "5.5"),
        ] {
            assert_eq!(sum(a, b).as_deref(), Some(expected), "{a} + {b}");
        }
    }

    #[test]
    fn the_significand_has_64_bits() {
        assert_eq!(sum("9223372036854775807", "0.5").as_deref(), Some("9223372036854775807.5"));
        assert_eq!(sum("18446744073709551615", "0.25").as_deref(), Some("18446744073709551615"));
        // A tie goes to the even neighbour.
        assert_eq!(sum("18446744073709551615", "0.5").as_deref(), Some("18446744073709551616"));
    }

    #[test]
    fn refuses_what_c_refuses() {
        for text in
            ["", "-", ".", "e5", "1e", "1e+", "0x", "1 ", " 1", "1x", "nan", "1e5000", "1e-5000", "infinit", "--1"]
        {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(sum("inf", "1"), None);
        assert_eq!(sum("inf", "-inf"), None);
    }

    #[test]
    fn the_largest_number_prints_in_full() {
        let text = sum("1.18973149535723176502e4932", "0").expect("finite");
        assert_eq!(text.len(), 4933);
        assert!(text.starts_with("118973149535723176502"));
        assert_eq!(sum("1.18973149535723176502e4932", "1e4932"), None);
    }
}
