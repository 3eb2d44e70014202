//! Numbers kept in fields: HINCRBY, HINCRBYFLOAT.

use std::iter::once;

use ferrite_keyspace::Pause;
use ferrite_resp::{Args, parse_i64};

use super::{growth, old_value};
use crate::call::Call;
use crate::long_double::LongDouble;
use crate::parse::{INTEGER_TEXT_MAX, NOT_A_FLOAT, NOT_FINITE, OVERFLOW, integer};
use crate::spec::{Arg, CommandSpec, Group, KeySpec, acl, flag, keyflag};

const HELD_NO_INTEGER: Pause = Pause::Refused("ERR hash value is not an integer");
const HELD_NO_FLOAT: Pause = Pause::Refused("ERR hash value is not a float");

pub static SPECS: &[CommandSpec] = &[
    CommandSpec::new("hincrby", 4, hincrby)
        .group(Group::Hash)
        .since("2.0.0")
        .complexity("O(1)")
        .summary("Adds to the integer in a field; a missing one counts as 0.")
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .acl(acl::HASH)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::ACCESS | keyflag::UPDATE)])
        .args(&[Arg::key("key", 0), Arg::string("field"), Arg::integer("increment")])
        .growth(integer_growth),
    CommandSpec::new("hincrbyfloat", 4, hincrbyfloat)
        .group(Group::Hash)
        .since("2.6.0")
        .complexity("O(1)")
        .summary("Adds to the decimal number in a field; a missing one counts as 0.")
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .acl(acl::HASH)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::ACCESS | keyflag::UPDATE)])
        .args(&[Arg::key("key", 0), Arg::string("field"), Arg::double("increment")])
        .growth(float_growth),
];

fn integer_growth(args: &Args<'_>) -> usize {
    growth(args) + INTEGER_TEXT_MAX
}

fn float_growth(args: &Args<'_>) -> usize {
    growth(args) + LongDouble::TEXT_MAX
}

fn hincrby(call: &mut Call<'_>) -> Result<(), Pause> {
    let by = integer(call.args.get(3))?;
    let old = match old_value(call)? {
        None => 0,
        Some(text) => parse_i64(text).ok_or(HELD_NO_INTEGER)?,
    };
    let new = old.checked_add(by).ok_or(OVERFLOW)?;
    let mut digits = itoa::Buffer::new();
    let pair = (call.args.get(2), digits.format(new).as_bytes());
    call.keys.set_fields(call.args.get(1), once(pair))?;
    call.reply.integer(new);
    Ok(())
}

fn hincrbyfloat(call: &mut Call<'_>) -> Result<(), Pause> {
    let by = LongDouble::parse(call.args.get(3)).ok_or(NOT_A_FLOAT)?;
    if !by.is_finite() {
        return Err(Pause::Refused("ERR value is NaN or Infinity"));
    }
    let old = match old_value(call)? {
        None => LongDouble::ZERO,
        Some(text) => LongDouble::parse(text).ok_or(HELD_NO_FLOAT)?,
    };
    let text = old.add(by).to_text().ok_or(NOT_FINITE)?;
    call.keys.set_fields(call.args.get(1), once((call.args.get(2), text.as_bytes())))?;
    call.reply.bulk(text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    #[test]
    fn integers_in_fields() {
        let mut client = Client::new();
        assert_eq!(client.run("HINCRBY h n 5"), ":5\r\n");
        assert_eq!(client.run("HINCRBY h n -15"), ":-10\r\n");
        assert_eq!(client.run("HINCRBY h n x"), "-ERR value is not an integer or out of range\r\n");
        client.run("HSET h s abc max 9223372036854775807 spaced 01");
        assert_eq!(client.run("HINCRBY h s 1"), "-ERR hash value is not an integer\r\n");
        assert_eq!(client.run("HINCRBY h spaced 1"), "-ERR hash value is not an integer\r\n");
        assert_eq!(client.run("HINCRBY h max 1"), "-ERR increment or decrement would overflow\r\n");
        assert_eq!(client.run("HMGET h n max"), "*2\r\n$3\r\n-10\r\n$19\r\n9223372036854775807\r\n");
    }

    #[test]
    fn floats_in_fields() {
        let mut client = Client::new();
        client.run("HSET h f 10.50 s abc");
        assert_eq!(client.run("HINCRBYFLOAT h f 0.1"), "$4\r\n10.6\r\n");
        assert_eq!(client.run("HINCRBYFLOAT h new 2.0e2"), "$3\r\n200\r\n");
        assert_eq!(client.run("HINCRBYFLOAT h s 1"), "-ERR hash value is not a float\r\n");
        assert_eq!(client.run("HINCRBYFLOAT h f x"), "-ERR value is not a valid float\r\n");
        assert_eq!(client.run("HINCRBYFLOAT h f inf"), "-ERR value is NaN or Infinity\r\n");
        client.run("HELLO 3");
        assert_eq!(client.run("HINCRBYFLOAT h f 1"), "$4\r\n11.6\r\n");
    }

    #[test]
    fn a_number_beyond_the_listpack_value_changes_the_encoding() {
        let mut client = Client::new();
        client.run("HINCRBYFLOAT h f 1e60");
        assert_eq!(client.run("OBJECT ENCODING h"), "$8\r\nlistpack\r\n");
        client.run("HINCRBYFLOAT h f 1e70");
        assert_eq!(client.run("OBJECT ENCODING h"), "$9\r\nhashtable\r\n");
    }
}
