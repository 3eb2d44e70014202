//! Arguments as Redis reads them, and the errors that many commands share.

use ferrite_keyspace::Pause;
use ferrite_resp::parse_i64;

pub(crate) const SYNTAX_ERROR: Pause = Pause::Refused("ERR syntax error");
pub(crate) const NOT_AN_INTEGER: Pause = Pause::Refused("ERR value is not an integer or out of range");
pub(crate) const NO_SUCH_KEY: Pause = Pause::Refused("ERR no such key");
pub(crate) const SAME_OBJECT: Pause = Pause::Refused("ERR source and destination objects are the same");
pub(crate) const DB_OUT_OF_RANGE: Pause = Pause::Refused("ERR DB index is out of range");
pub(crate) const OVERFLOW: Pause = Pause::Refused("ERR increment or decrement would overflow");
pub(crate) const NOT_A_FLOAT: Pause = Pause::Refused("ERR value is not a valid float");
pub(crate) const NOT_FINITE: Pause = Pause::Refused("ERR increment would produce NaN or Infinity");
const STRING_TOO_LONG: Pause = Pause::Refused("ERR string exceeds maximum allowed size (proto-max-bulk-len)");

/// Digits of an i64 with its sign.
pub(crate) const INTEGER_TEXT_MAX: usize = 20;

pub(crate) fn integer(arg: &[u8]) -> Result<i64, Pause> {
    parse_i64(arg).ok_or(NOT_AN_INTEGER)
}

/// An integer that C's `int` holds, as the database numbers of COPY and MOVE.
pub(crate) fn int(arg: &[u8]) -> Result<i32, Pause> {
    i32::try_from(integer(arg)?)
        .map_err(|_| Pause::Refused("ERR value is out of range, value must between -2147483648 and 2147483647"))
}

/// The number of an existing database.
pub(crate) fn database(arg: &[u8], count: u32) -> Result<u32, Pause> {
    u32::try_from(int(arg)?).ok().filter(|&db| db < count).ok_or(DB_OUT_OF_RANGE)
}

/// `word` in any case; `upper` is in capitals.
pub(crate) fn is(word: &[u8], upper: &str) -> bool {
    word.eq_ignore_ascii_case(upper.as_bytes())
}

/// Refuses a string that would be longer than `proto-max-bulk-len`.
pub(crate) fn check_length(len: usize, more: usize, max: usize) -> Result<(), Pause> {
    if len.checked_add(more).is_some_and(|total| total <= max) { Ok(()) } else { Err(STRING_TOO_LONG) }
}
