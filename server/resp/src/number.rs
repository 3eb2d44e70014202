//! Integers as Redis reads them.

/// Redis's `string2ll`: decimal, an optional minus, no plus, no leading zero, no blank, within `i64`.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    // Counted down: the negative half of i64 is the larger one.
    let mut value = 0i64;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_sub(i64::from(byte - b'0'))?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_redis_reads() {
        for value in [0, 1, -1, 10, i64::MAX, i64::MIN, 1 << 40] {
            assert_eq!(parse_i64(value.to_string().as_bytes()), Some(value));
        }
    }

    #[test]
    fn refuses_what_redis_refuses() {
        for text in
            ["", "-", "+1", "01", "-0", "00", " 1", "1 ", "1a", "9223372036854775808", "-9223372036854775809", "0x1"]
        {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text:?}");
        }
    }
}
