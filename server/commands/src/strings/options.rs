//! The options that SET and GETEX share: a time of expiry in one of four units, and a few words.

use ferrite_keyspace::Pause;
use ferrite_resp::Args;

use crate::call::Call;
use crate::parse::{SYNTAX_ERROR, integer, is};

/// How a number says when a key expires.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
    UnixSeconds,
    UnixMilliseconds,
}

impl Unit {
    fn of(word: &[u8]) -> Option<Self> {
        [
            ("EX", Unit::Seconds),
            ("PX", Unit::Milliseconds),
            ("EXAT", Unit::UnixSeconds),
            ("PXAT", Unit::UnixMilliseconds),
        ]
        .into_iter()
        .find_map(|(name, unit)| is(word, name).then_some(unit))
    }

    fn in_seconds(self) -> bool {
        matches!(self, Unit::Seconds | Unit::UnixSeconds)
    }

    fn is_relative(self) -> bool {
        matches!(self, Unit::Seconds | Unit::Milliseconds)
    }

    pub fn is_absolute(self) -> bool {
        !self.is_relative()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    Set,
    Getex,
}

#[derive(Default, Debug)]
pub(super) struct Options<'a> {
    pub nx: bool,
    pub xx: bool,
    pub get: bool,
    pub keep_ttl: bool,
    pub persist: bool,
    pub expiry: Option<(Unit, &'a [u8])>,
}

impl<'a> Options<'a> {
    /// Reads the arguments from the `first`-th on. An option that contradicts an earlier one is a syntax error; repeating
    /// one is not, and its last value counts.
    pub fn parse(args: Args<'a>, first: usize, family: Family) -> Result<Self, Pause> {
        let mut options = Self::default();
        let mut at = first;
        while at < args.len() {
            let word = args.get(at);
            let set = family == Family::Set;
            let next = (at + 1 < args.len()).then_some(at + 1);
            if set && is(word, "NX") && !options.xx {
                options.nx = true;
            } else if set && is(word, "XX") && !options.nx {
                options.xx = true;
            } else if set && is(word, "GET") {
                options.get = true;
            } else if set && is(word, "KEEPTTL") && options.expiry.is_none() {
                options.keep_ttl = true;
            } else if !set && is(word, "PERSIST") && options.expiry.is_none() {
                options.persist = true;
            } else if let (Some(unit), Some(next)) = (Unit::of(word), next)
                && !options.keep_ttl
                && !options.persist
                && options.expiry.is_none_or(|(before, _)| before == unit)
            {
                options.expiry = Some((unit, args.get(next)));
                at += 1;
            } else {
                return Err(SYNTAX_ERROR);
            }
            at += 1;
        }
        Ok(options)
    }
}

/// The time of expiry in milliseconds since the Unix epoch. `Ok(None)`: the error is replied.
pub(super) fn expire_at(call: &mut Call<'_>, unit: Unit, number: &[u8]) -> Result<Option<u64>, Pause> {
    let number = integer(number)?;
    let scale = if unit.in_seconds() { 1000 } else { 1 };
    let base = if unit.is_relative() { call.keys.now_ms() as i64 } else { 0 };
    let at = Some(number).filter(|&number| number > 0).and_then(|number| number.checked_mul(scale));
    match at.and_then(|ms| ms.checked_add(base)) {
        Some(at) => Ok(Some(at as u64)),
        None => {
            invalid_expire_time(call);
            Ok(None)
        }
    }
}

pub(crate) fn invalid_expire_time(call: &mut Call<'_>) {
    call.reply.error(format!("ERR invalid expire time in '{}' command", call.spec.name));
}
