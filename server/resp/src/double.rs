//! Doubles as Redis 7.2 prints them.

/// Whole numbers up to this magnitude are printed as integers (Redis's `double2ll`).
const INTEGER_MAX: f64 = (i64::MAX / 2) as f64;

/// Appends `value` as Redis's `d2string` prints it: `inf`, `-inf`, `nan`, `-0`, whole numbers as integers, the rest with
/// the fewest digits that read back the same, laid out as its `fpconv` does (`0.1`, `1e+100`, `1.5e-7`).
pub fn write_double(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"nan");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"inf" } else { b"-inf" });
    } else if value == 0.0 {
        out.extend_from_slice(if value.is_sign_negative() { b"-0" } else { b"0" });
    } else if value.abs() <= INTEGER_MAX && value.trunc() == value {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    } else {
        write_shortest(out, value);
    }
}

fn write_shortest(out: &mut Vec<u8>, value: f64) {
    if value < 0.0 {
        out.push(b'-');
    }
    let mut buffer = ryu::Buffer::new();
    let (digits, count, exponent) = decompose(buffer.format_finite(value.abs()));
    let digits = &digits[..count];
    // The value is 0.d₁d₂… × 10^point.
    let point = count as i32 + exponent;
    let magnitude = (point - 1).abs();
    if exponent >= 0 && magnitude < count as i32 + 7 {
        out.extend_from_slice(digits);
        out.resize(out.len() + exponent as usize, b'0');
    } else if exponent < 0 && (exponent > -7 || magnitude < 4) {
        if point <= 0 {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + point.unsigned_abs() as usize, b'0');
            out.extend_from_slice(digits);
        } else {
            out.extend_from_slice(&digits[..point as usize]);
            out.push(b'.');
            out.extend_from_slice(&digits[point as usize..]);
        }
    } else {
        out.push(digits[0]);
        if count > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        out.extend_from_slice(if point < 1 { b"e-" } else { b"e+" });
        out.extend_from_slice(itoa::Buffer::new().format(magnitude).as_bytes());
    }
}

/// The significant digits of ryu's text, how many they are, and the power of ten of the last one.
fn decompose(text: &str) -> ([u8; 17], usize, i32) {
    let (mantissa, scientific) = text.split_once('e').unwrap_or((text, "0"));
    let fraction = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len() as i32);
    let mut exponent = scientific.parse::<i32>().expect("ryu writes an integer after e") - fraction;
    let all = mantissa.trim_start_matches(['0', '.']).bytes().filter(u8::is_ascii_digit);
    let mut digits = [0; 17];
    let mut count = 0;
    // Zeros count only if a digit follows: ryu writes 1.0 for 1, and 17 digits are room for significant ones only.
    let mut zeros = 0;
    for digit in all {
        if digit == b'0' {
            zeros += 1;
            continue;
        }
        digits[count..count + zeros].fill(b'0');
        count += zeros;
        digits[count] = digit;
        count += 1;
        zeros = 0;
    }
    exponent += zeros as i32;
    (digits, count, exponent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: f64) -> String {
        let mut out = Vec::new();
        write_double(&mut out, value);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn prints_as_redis_does() {
        for (value, expected) in [
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-3.0, "-3"),
            (1e15, "1000000000000000"),
            (4e18, "4000000000000000000"),
            (0.1, "0.1"),
            (-0.5, "-0.5"),
            (3.25, "3.25"),
            (123456.789, "123456.789"),
            (0.000001, "0.000001"),
            (0.0000015, "1.5e-6"),
            (1.5e-7, "1.5e-7"),
            (1.25e-10, "1.25e-10"),
            (1e19, "1e+19"),
            (1e100, "1e+100"),
            (1.5e300, "1.5e+300"),
            (123e20, "1.23e+22"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (9.3e18, "9.3e+18"),
            (12345678901234567000.0, "12345678901234567000"),
        ] {
            assert_eq!(text(value), expected);
        }
    }

    proptest! {
        #[test]
        fn reads_back_the_same(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            prop_assert_eq!(text(value).parse::<f64>().map(f64::to_bits), Ok(bits));
        }

        #[test]
        fn short_decimals_stay_short(units in -1_000_000_000i64..1_000_000_000, places in 0i32..5) {
            let value = units as f64 / 10f64.powi(places);
            prop_assert!(text(value).len() <= 15, "{}", text(value));
            prop_assert_eq!(text(value).parse::<f64>(), Ok(value));
        }
    }
}
