//! Numbers kept as strings: INCR, DECR, INCRBY, DECRBY, INCRBYFLOAT.

use ferrite_keyspace::{Expiry, Pause};
use ferrite_resp::{Args, parse_i64};

use crate::call::Call;
use crate::long_double::LongDouble;
use crate::parse::{INTEGER_TEXT_MAX, NOT_A_FLOAT, NOT_AN_INTEGER, NOT_FINITE, OVERFLOW, integer};
use crate::spec::{Arg, CommandSpec, Group, KeySpec, acl, flag, keyflag};

pub static SPECS: &[CommandSpec] = &[
    CommandSpec::new("incr", 2, incr)
        .group(Group::String)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Adds one to an integer; a missing key counts as 0.")
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .acl(acl::STRING)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::ACCESS | keyflag::UPDATE)])
        .args(&[Arg::key("key", 0)])
        .growth(integer_growth),
    CommandSpec::new("decr", 2, decr)
        .group(Group::String)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Subtracts one from an integer; a missing key counts as 0.")
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .acl(acl::STRING)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::ACCESS | keyflag::UPDATE)])
        .args(&[Arg::key("key", 0)])
        .growth(integer_growth),
    CommandSpec::new("incrby", 3, incrby)
        .group(Group::String)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Adds a number to an integer; a missing key counts as 0.")
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .acl(acl::STRING)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::ACCESS | keyflag::UPDATE)])
        .args(&[Arg::key("key", 0), Arg::integer("increment")])
        .growth(integer_growth),
    CommandSpec::new("decrby", 3, decrby)
        .group(Group::String)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Subtracts a number from an integer; a missing key counts as 0.")
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .acl(acl::STRING)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::ACCESS | keyflag::UPDATE)])
        .args(&[Arg::key("key", 0), Arg::integer("decrement")])
        .growth(integer_growth),
    CommandSpec::new("incrbyfloat", 3, incrbyfloat)
        .group(Group::String)
        .since("2.6.0")
        .complexity("O(1)")
        .summary("Adds to a decimal number; a missing key counts as 0.")
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .acl(acl::STRING)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::ACCESS | keyflag::UPDATE)])
        .args(&[Arg::key("key", 0), Arg::double("increment")])
        .growth(float_growth),
];

fn integer_growth(_: &Args<'_>) -> usize {
    INTEGER_TEXT_MAX
}

fn float_growth(_: &Args<'_>) -> usize {
    LongDouble::TEXT_MAX
}

fn incr(call: &mut Call<'_>) -> Result<(), Pause> {
    add(call, 1)
}

fn decr(call: &mut Call<'_>) -> Result<(), Pause> {
    add(call, -1)
}

fn incrby(call: &mut Call<'_>) -> Result<(), Pause> {
    let by = integer(call.args.get(2))?;
    add(call, by)
}

fn decrby(call: &mut Call<'_>) -> Result<(), Pause> {
    let by = integer(call.args.get(2))?.checked_neg().ok_or(Pause::Refused("ERR decrement would overflow"))?;
    add(call, by)
}

fn add(call: &mut Call<'_>, by: i64) -> Result<(), Pause> {
    let key = call.args.get(1);
    let old = match call.keys.get_string(key)? {
        None => 0,
        Some(text) => parse_i64(text).ok_or(NOT_AN_INTEGER)?,
    };
    let new = old.checked_add(by).ok_or(OVERFLOW)?;
    let mut digits = itoa::Buffer::new();
    call.keys.set(key, digits.format(new).as_bytes(), Expiry::Keep)?;
    call.reply.integer(new);
    Ok(())
}

fn incrbyfloat(call: &mut Call<'_>) -> Result<(), Pause> {
    let key = call.args.get(1);
    let old = match call.keys.get_string(key)? {
        None => LongDouble::ZERO,
        Some(text) => LongDouble::parse(text).ok_or(NOT_A_FLOAT)?,
    };
    let by = LongDouble::parse(call.args.get(2)).ok_or(NOT_A_FLOAT)?;
    let text = old.add(by).to_text().ok_or(NOT_FINITE)?;
    call.keys.set(key, text.as_bytes(), Expiry::Keep)?;
    call.reply.bulk(text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    #[test]
    fn integers_go_up_and_down_and_keep_their_expiry() {
        let mut client = Client::new();
        assert_eq!(client.run("INCR n"), ":1\r\n");
        client.run("EXPIRE n 50");
        assert_eq!(client.run("INCRBY n 41"), ":42\r\n");
        assert_eq!(client.run("DECR n"), ":41\r\n");
        assert_eq!(client.run("DECRBY n 43"), ":-2\r\n");
        assert_eq!(client.run("TTL n"), ":50\r\n");
        assert_eq!(client.run("GET n"), "$2\r\n-2\r\n");
    }

    #[test]
    fn overflow_changes_nothing() {
        let mut client = Client::new();
        client.run("SET n 9223372036854775807");
        let overflow = "-ERR increment or decrement would overflow\r\n";
        assert_eq!(client.run("INCR n"), overflow);
        assert_eq!(client.run("INCRBY n 9223372036854775807"), overflow);
        assert_eq!(client.run("DECRBY n -9223372036854775808"), "-ERR decrement would overflow\r\n");
        client.run("SET n -9223372036854775808");
        assert_eq!(client.run("DECR n"), overflow);
        assert_eq!(client.run("GET n"), "$20\r\n-9223372036854775808\r\n");
    }

    #[test]
    fn only_canonical_integers_count() {
        let mut client = Client::new();
        let refused = "-ERR value is not an integer or out of range\r\n";
        for value in ["01", "1.0", "x", "+1", "9223372036854775808"] {
            client.run(&format!("SET n {value}"));
            assert_eq!(client.run("INCR n"), refused, "{value}");
            assert_eq!(client.run(&format!("INCRBY m {value}")), refused, "{value}");
        }
        client.run_args(&[b"SET", b"n", b" 1"]);
        assert_eq!(client.run("INCR n"), refused);
    }

    #[test]
    fn floats_are_redis_long_doubles() {
        let mut client = Client::new();
        client.run("SET f 10.50");
        assert_eq!(client.run("INCRBYFLOAT f 0.1"), "$4\r\n10.6\r\n");
        assert_eq!(client.run("INCRBYFLOAT f -5"), "$3\r\n5.6\r\n");
        client.run("SET f 5.0e3");
        assert_eq!(client.run("INCRBYFLOAT f 2.0e2"), "$4\r\n5200\r\n");
        client.run("SET f 3.0");
        assert_eq!(client.run("INCRBYFLOAT f 0.00000000000000001"), "$19\r\n3.00000000000000001\r\n");
        client.run("SET f abc");
        assert_eq!(client.run("INCRBYFLOAT f 1"), "-ERR value is not a valid float\r\n");
        assert_eq!(client.run("INCRBYFLOAT fresh inf"), "-ERR increment would produce NaN or Infinity\r\n");
        assert_eq!(client.run("INCRBYFLOAT fresh nan"), "-ERR value is not a valid float\r\n");
        assert_eq!(client.run("EXISTS fresh"), ":0\r\n");
    }
}
