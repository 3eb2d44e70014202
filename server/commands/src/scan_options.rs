//! What SCAN and its relatives over one collection take: a cursor, MATCH, COUNT, and SCAN's TYPE.

use ferrite_keyspace::Pause;
use ferrite_resp::Args;

use crate::parse::{SYNTAX_ERROR, integer, is};

/// Elements that one call looks for without COUNT.
const COUNT_DEFAULT: usize = 10;

pub(crate) struct ScanOptions<'a> {
    pub count: usize,
    /// `None`: everything matches.
    pub pattern: Option<&'a [u8]>,
    pub kind: Option<&'a [u8]>,
}

impl<'a> ScanOptions<'a> {
    /// Reads the arguments after the cursor. Only SCAN itself takes a type.
    pub(crate) fn parse(args: Args<'a>, with_type: bool) -> Result<Self, Pause> {
        let mut options = ScanOptions { count: COUNT_DEFAULT, pattern: None, kind: None };
        for at in (0..args.len()).step_by(2) {
            let word = args.get(at);
            if at + 1 == args.len() {
                return Err(SYNTAX_ERROR);
            }
            let value = args.get(at + 1);
            if is(word, "COUNT") {
                let count = usize::try_from(integer(value)?).ok().filter(|&count| count > 0);
                options.count = count.ok_or(SYNTAX_ERROR)?;
            } else if is(word, "MATCH") {
                options.pattern = Some(value).filter(|pattern| pattern != b"*");
            } else if is(word, "TYPE") && with_type {
                options.kind = Some(value);
            } else {
                return Err(SYNTAX_ERROR);
            }
        }
        Ok(options)
    }
}

/// As C's `strtoul` over the whole argument, which takes a sign.
pub(crate) fn cursor(arg: &[u8]) -> Result<u64, Pause> {
    const INVALID: Pause = Pause::Refused("ERR invalid cursor");
    let (negative, digits) = match arg {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(INVALID);
    }
    let more = |value: u64, digit: &u8| value.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    let value = digits.iter().try_fold(0, more).ok_or(INVALID)?;
    Ok(if negative { value.wrapping_neg() } else { value })
}
