//! HSCAN: a hash step by step.

use ferrite_keyspace::Pause;

use crate::call::Call;
use crate::glob;
use crate::scan_options::{ScanOptions, cursor};
use crate::spec::{Arg, CommandSpec, Group, KeySpec, acl, flag, keyflag};

pub static SPECS: &[CommandSpec] = &[CommandSpec::new("hscan", -3, hscan)
    .group(Group::Hash)
    .since("2.8.0")
    .complexity("O(1)")
    .summary("Goes through the fields and values of a hash step by step.")
    .flags(flag::READONLY)
    .acl(acl::HASH)
    .keys(&[KeySpec::at(1, keyflag::RO | keyflag::ACCESS)])
    .tips(&["nondeterministic_output"])
    .args(&[
        Arg::key("key", 0),
        Arg::integer("cursor"),
        Arg::pattern("pattern").token("MATCH").optional(),
        Arg::integer("count").token("COUNT").optional(),
    ])];

fn hscan(call: &mut Call<'_>) -> Result<(), Pause> {
    let args = call.args;
    let from = cursor(args.get(2))?;
    let Some(hash) = call.keys.read_hash(args.get(1))? else {
        call.reply.array(2);
        call.reply.bulk(b"0");
        call.reply.array(0);
        return Ok(());
    };
    // Of a missing key nobody reads the options.
    let ScanOptions { count, pattern, .. } = ScanOptions::parse(args.from(3), false)?;
    let mut found = Vec::new();
    let next = hash.scan(from, count, &mut |field, value| {
        if pattern.is_none_or(|pattern| glob::matches(pattern, field, false)) {
            found.extend([field, value]);
        }
    });
    call.reply.array(2);
    call.reply.bulk(itoa::Buffer::new().format(next).as_bytes());
    call.reply.array(found.len());
    found.iter().for_each(|string| call.reply.bulk(string));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::testing::Client;

    #[test]
    fn a_small_hash_comes_in_one_go_and_in_order() {
        let mut client = Client::new();
        client.run("HSET h b 1 a 2 ab 3");
        let all = "*2\r\n$1\r\n0\r\n*6\r\n$1\r\nb\r\n$1\r\n1\r\n$1\r\na\r\n$1\r\n2\r\n$2\r\nab\r\n$1\r\n3\r\n";
        assert_eq!(client.run("HSCAN h 0"), all);
        assert_eq!(client.run("HSCAN h 5 COUNT 1"), all);
        assert_eq!(client.run("HSCAN h 0 MATCH ?b"), "*2\r\n$1\r\n0\r\n*2\r\n$2\r\nab\r\n$1\r\n3\r\n");
    }

    #[test]
    fn a_large_hash_comes_in_pages() {
        let mut client = Client::new();
        for n in 0..600 {
            client.run(&format!("HSET h field:{n} v"));
        }
        let (mut cursor, mut found, mut calls) = ("0".to_owned(), BTreeSet::new(), 0);
        loop {
            let reply = client.run(&format!("HSCAN h {cursor} COUNT 50"));
            found.extend(reply.split("\r\n").filter(|line| line.starts_with("field:")).map(str::to_owned));
            cursor = reply.split("\r\n").nth(2).expect("a cursor").to_owned();
            calls += 1;
            if cursor == "0" {
                break;
            }
        }
        assert_eq!((found.len(), calls), (600, 12));
    }

    #[test]
    fn options_are_read_only_if_there_is_a_hash() {
        let mut client = Client::new();
        assert_eq!(client.run("HSCAN h x"), "-ERR invalid cursor\r\n");
        assert_eq!(client.run("HSCAN h 0 what"), "*2\r\n$1\r\n0\r\n*0\r\n");
        client.run("HSET h f v");
        for options in ["what", "what x", "COUNT", "COUNT 0", "TYPE hash", "NOVALUES"] {
            assert_eq!(client.run(&format!("HSCAN h 0 {options}")), "-ERR syntax error\r\n", "{options}");
        }
        assert_eq!(client.run("HSCAN h 0 COUNT x"), "-ERR value is not an integer or out of range\r\n");
    }
}
