//! Parts of a string: APPEND, STRLEN, GETRANGE, SUBSTR, SETRANGE.

use std::ops::Range;

use ferrite_keyspace::Pause;
use ferrite_resp::Args;

use crate::call::Call;
use crate::parse::{check_length, integer};
use crate::spec::{Arg, CommandSpec, Group, KeySpec, acl, flag, keyflag};

pub static SPECS: &[CommandSpec] = &[
    CommandSpec::new("append", 3, append)
        .group(Group::String)
        .since("2.0.0")
        .complexity("O(1)")
        .summary("Adds bytes to the end of a string; a missing key counts as empty.")
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .acl(acl::STRING)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::INSERT)])
        .args(&[Arg::key("key", 0), Arg::string("value")])
        .growth(append_growth)
        .reads_parts(),
    CommandSpec::new("strlen", 2, strlen)
        .group(Group::String)
        .since("2.2.0")
        .complexity("O(1)")
        .summary("Gives the length of a string.")
        .flags(flag::FAST | flag::READONLY)
        .acl(acl::STRING)
        .keys(&[KeySpec::at(1, keyflag::RO)])
        .args(&[Arg::key("key", 0)])
        .reads_parts(),
    CommandSpec::new("getrange", 4, getrange)
        .group(Group::String)
        .since("2.4.0")
        .complexity("O(N)")
        .summary("Gives a part of a string.")
        .flags(flag::READONLY)
        .acl(acl::STRING)
        .keys(&[KeySpec::at(1, keyflag::RO | keyflag::ACCESS)])
        .args(&[Arg::key("key", 0), Arg::integer("start"), Arg::integer("end")])
        .reads_parts(),
    CommandSpec::new("substr", 4, getrange)
        .group(Group::String)
        .since("1.0.0")
        .complexity("O(N)")
        .summary("Gives a part of a string.")
        .deprecated("2.0.0", "GETRANGE")
        .flags(flag::READONLY)
        .acl(acl::STRING)
        .keys(&[KeySpec::at(1, keyflag::RO | keyflag::ACCESS)])
        .args(&[Arg::key("key", 0), Arg::integer("start"), Arg::integer("end")])
        .reads_parts(),
    CommandSpec::new("setrange", 4, setrange)
        .group(Group::String)
        .since("2.2.0")
        .complexity("O(1)")
        .summary("Overwrites a part of a string.")
        .flags(flag::DENYOOM | flag::WRITE)
        .acl(acl::STRING)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::UPDATE)])
        .args(&[Arg::key("key", 0), Arg::integer("offset"), Arg::string("value")])
        .growth(setrange_growth)
        .reads_parts(),
];

fn append_growth(args: &Args<'_>) -> usize {
    args.get(2).len()
}

/// What does not parse is refused before it writes.
fn setrange_growth(args: &Args<'_>) -> usize {
    let offset = ferrite_resp::parse_i64(args.get(2)).and_then(|offset| usize::try_from(offset).ok()).unwrap_or(0);
    offset.saturating_add(args.get(3).len())
}

fn append(call: &mut Call<'_>) -> Result<(), Pause> {
    let (key, tail) = (call.args.get(1), call.args.get(2));
    let old = call.keys.string_len(key)?;
    if let Some(len) = old {
        check_length(len, tail.len(), call.proto_max_bulk_len)?;
    }
    let len = call.keys.splice(key, old.unwrap_or(0), tail)?;
    call.reply.integer(len as i64);
    Ok(())
}

fn strlen(call: &mut Call<'_>) -> Result<(), Pause> {
    let len = call.keys.read_len(call.args.get(1))?;
    call.reply.integer(len as i64);
    Ok(())
}

fn getrange(call: &mut Call<'_>) -> Result<(), Pause> {
    let (start, end) = (integer(call.args.get(2))?, integer(call.args.get(3))?);
    let bytes = call.keys.read_range(call.args.get(1), |len| range_of(len, start, end))?;
    call.reply.bulk(bytes);
    Ok(())
}

/// Of a string of `len` bytes. Both ends included; a negative end counts from the string's end.
fn range_of(len: usize, start: i64, end: i64) -> Range<usize> {
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let len = len as i64;
    let from_front = |at: i64| if at < 0 { len.saturating_add(at).max(0) } else { at };
    let (start, end) = (from_front(start), from_front(end).min(len - 1));
    if start > end { 0..0 } else { start as usize..end as usize + 1 }
}

fn setrange(call: &mut Call<'_>) -> Result<(), Pause> {
    let (key, insert) = (call.args.get(1), call.args.get(3));
    let offset = integer(call.args.get(2))?;
    let offset = usize::try_from(offset).map_err(|_| Pause::Refused("ERR offset is out of range"))?;
    let old = call.keys.string_len(key)?.unwrap_or(0);
    if insert.is_empty() {
        call.reply.integer(old as i64);
        return Ok(());
    }
    check_length(offset, insert.len(), call.proto_max_bulk_len)?;
    let len = call.keys.splice(key, offset, insert)?;
    call.reply.integer(len as i64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::range_of;
    use crate::testing::Client;

    #[test]
    fn append_and_strlen() {
        let mut client = Client::new();
        assert_eq!(client.run("APPEND k Hello"), ":5\r\n");
        client.run("EXPIRE k 9");
        assert_eq!(client.run("APPEND k World"), ":10\r\n");
        assert_eq!(client.run("GET k"), "$10\r\nHelloWorld\r\n");
        assert_eq!(client.run("TTL k"), ":9\r\n");
        assert_eq!(client.run("STRLEN k"), ":10\r\n");
        assert_eq!(client.run("STRLEN missing"), ":0\r\n");
        assert_eq!(client.run_args(&[b"APPEND", b"empty", b""]), ":0\r\n");
        assert_eq!(client.run("EXISTS empty"), ":1\r\n");
    }

    #[test]
    fn ranges_take_ends_from_both_sides() {
        let text = b"This is a string";
        for (start, end, expected) in [
            (0, 3, "This"),
            (-3, -1, "ing"),
            (0, -1, "This is a string"),
            (10, 100, "string"),
            (5, 3, ""),
            (-1, -5, ""),
            (-100, -99, "T"),
            (i64::MIN, i64::MAX, "This is a string"),
            (16, 20, ""),
        ] {
            assert_eq!(&text[range_of(text.len(), start, end)], expected.as_bytes(), "{start} {end}");
        }
        assert_eq!(range_of(0, 0, -1), 0..0);
    }

    #[test]
    fn getrange_replies_empty_for_a_missing_key() {
        let mut client = Client::new();
        assert_eq!(client.run("GETRANGE k 0 -1"), "$0\r\n\r\n");
        assert_eq!(client.run("SUBSTR k 0 -1"), "$0\r\n\r\n");
        assert_eq!(client.run("GETRANGE k a 1"), "-ERR value is not an integer or out of range\r\n");
    }

    #[test]
    fn setrange_pads_with_zeros() {
        let mut client = Client::new();
        assert_eq!(client.run_args(&[b"SETRANGE", b"k", b"3", b""]), ":0\r\n");
        assert_eq!(client.run("EXISTS k"), ":0\r\n");
        assert_eq!(client.run("SETRANGE k 3 ab"), ":5\r\n");
        assert_eq!(client.run("GET k"), "$5\r\n\0\0\0ab\r\n");
        assert_eq!(client.run("SETRANGE k 1 x"), ":5\r\n");
        assert_eq!(client.run("GET k"), "$5\r\n\0x\0ab\r\n");
        assert_eq!(client.run("SETRANGE k -1 x"), "-ERR offset is out of range\r\n");
        let too_long = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n";
        assert_eq!(client.run("SETRANGE k 536870911 xx"), too_long);
        assert_eq!(client.run("SETRANGE k 9223372036854775807 xx"), too_long);
    }
}
