//! Going through a database: KEYS, SCAN, RANDOMKEY.

use ferrite_keyspace::Pause;

use super::delete::type_name;
use crate::call::Call;
use crate::glob;
use crate::scan_options::{self, ScanOptions};
use crate::spec::{Arg, CommandSpec, Group, acl, flag};

/// Index buckets that one call of SCAN visits for each key it is to find: Redis's bound for a sparse table.
const BUCKETS_PER_KEY: usize = 10;
/// Index buckets per step: between steps the keys found are counted.
const BUCKETS_PER_STEP: usize = 4;

pub static SPECS: &[CommandSpec] = &[
    CommandSpec::new("keys", 2, keys)
        .group(Group::Generic)
        .since("1.0.0")
        .complexity("O(N)")
        .summary("Lists the keys that match a pattern.")
        .flags(flag::READONLY | flag::EXCLUSIVE)
        .acl(acl::DANGEROUS | acl::KEYSPACE)
        .tips(&["request_policy:all_shards", "nondeterministic_output_order"])
        .args(&[Arg::pattern("pattern")]),
    CommandSpec::new("scan", -2, scan)
        .group(Group::Generic)
        .since("2.8.0")
        .complexity("O(1)")
        .summary("Goes through the keys of the database step by step.")
        .flags(flag::READONLY)
        .acl(acl::KEYSPACE)
        .tips(&["nondeterministic_output", "request_policy:special", "response_policy:special"])
        .args(&[
            Arg::integer("cursor"),
            Arg::pattern("pattern").token("MATCH").optional(),
            Arg::integer("count").token("COUNT").optional(),
            Arg::string("type").token("TYPE").since("6.0.0").optional(),
        ]),
    CommandSpec::new("randomkey", 1, randomkey)
        .group(Group::Generic)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Gives one of the keys by chance.")
        .flags(flag::READONLY)
        .acl(acl::KEYSPACE)
        .tips(&["request_policy:all_shards", "response_policy:special", "nondeterministic_output"]),
];

fn keys(call: &mut Call<'_>) -> Result<(), Pause> {
    let pattern = call.args.get(1);
    let all = pattern == b"*";
    let mut found: Vec<Box<[u8]>> = Vec::new();
    call.keys.scan(0, usize::MAX, &mut |record| {
        if all || glob::matches(pattern, record.key, false) {
            found.push(record.key.into());
        }
    })?;
    reply_keys(call, &found);
    Ok(())
}

fn scan(call: &mut Call<'_>) -> Result<(), Pause> {
    let args = call.args;
    let mut cursor = scan_options::cursor(args.get(1))?;
    let ScanOptions { count, pattern, kind } = ScanOptions::parse(args.from(2), true)?;
    let mut found: Vec<Box<[u8]>> = Vec::new();
    let mut seen = 0;
    let mut buckets = count.saturating_mul(BUCKETS_PER_KEY);
    loop {
        let step = buckets.min(BUCKETS_PER_STEP);
        let next = call.keys.scan(cursor, step, &mut |record| {
            seen += 1;
            let matches = pattern.is_none_or(|pattern| glob::matches(pattern, record.key, false))
                && kind.is_none_or(|kind| kind.eq_ignore_ascii_case(type_name(record.kind).as_bytes()));
            if matches {
                found.push(record.key.into());
            }
        });
        cursor = match next {
            Ok(next) => next,
            // What was found is worth replying; the next call begins at the records on disk.
            Err(Pause::Headers(_)) if seen > 0 => break,
            Err(pause) => return Err(pause),
        };
        buckets -= step;
        if cursor == 0 || buckets == 0 || seen >= count {
            break;
        }
    }
    call.reply.array(2);
    let mut digits = itoa::Buffer::new();
    call.reply.bulk(digits.format(cursor).as_bytes());
    reply_keys(call, &found);
    Ok(())
}

fn reply_keys(call: &mut Call<'_>, keys: &[Box<[u8]>]) {
    call.reply.array(keys.len());
    for key in keys {
        call.reply.bulk(key);
    }
}

fn randomkey(call: &mut Call<'_>) -> Result<(), Pause> {
    match call.keys.random_key()? {
        Some(key) => call.reply.bulk(&key),
        None => call.reply.null(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::testing::Client;

    fn bulks(reply: &str) -> Vec<String> {
        reply.split("\r\n").filter(|line| line.starts_with("key")).map(str::to_owned).collect()
    }

    #[test]
    fn keys_match_a_glob() {
        let mut client = Client::new();
        client.run("MSET key:1 a key:2 a other a");
        let mut found = bulks(&client.run("KEYS key:?"));
        found.sort();
        assert_eq!(found, ["key:1", "key:2"]);
        assert_eq!(client.run("KEYS x*"), "*0\r\n");
        client.run("SELECT 1");
        assert_eq!(client.run("KEYS *"), "*0\r\n");
    }

    #[test]
    fn scan_gives_every_key() {
        let mut client = Client::new();
        for n in 0..300 {
            client.run(&format!("SET key:{n} v"));
        }
        let (mut cursor, mut found, mut calls) = ("0".to_owned(), BTreeSet::new(), 0);
        loop {
            let reply = client.run(&format!("SCAN {cursor} COUNT 20 MATCH key:* TYPE string"));
            found.extend(bulks(&reply));
            cursor = reply.split("\r\n").nth(2).expect("a cursor").to_owned();
            calls += 1;
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(found.len(), 300);
        assert!(calls > 3, "COUNT bounds a call");
        assert!(client.run("SCAN 0 COUNT 1000000 TYPE hash").starts_with("*2\r\n$1\r\n0\r\n*0"));
    }

    #[test]
    fn scan_refuses_what_redis_refuses() {
        let mut client = Client::new();
        assert_eq!(client.run("SCAN x"), "-ERR invalid cursor\r\n");
        assert_eq!(client.run("SCAN 0 COUNT 0"), "-ERR syntax error\r\n");
        assert_eq!(client.run("SCAN 0 COUNT"), "-ERR syntax error\r\n");
        assert_eq!(client.run("SCAN 0 COUNT x"), "-ERR value is not an integer or out of range\r\n");
        assert_eq!(client.run("SCAN 0 NOVALUES 1"), "-ERR syntax error\r\n");
        assert_eq!(client.run("SCAN 99999999999"), "*2\r\n$1\r\n0\r\n*0\r\n");
    }

    #[test]
    fn randomkey_finds_the_only_key() {
        let mut client = Client::new();
        assert_eq!(client.run("RANDOMKEY"), "$-1\r\n");
        client.run("SET k v");
        assert_eq!(client.run("RANDOMKEY"), "$1\r\nk\r\n");
    }

    #[test]
    fn scan_meets_every_key_once_though_the_index_grows_under_it() {
        let mut client = Client::new();
        for n in 0..200 {
            client.run(&format!("SET key:{n} v"));
        }
        let (mut cursor, mut found, mut added) = ("0".to_owned(), Vec::new(), 0);
        loop {
            let reply = client.run(&format!("SCAN {cursor} COUNT 5 MATCH key:*"));
            found.extend(bulks(&reply));
            cursor = reply.split("\r\n").nth(2).expect("a cursor").to_owned();
            if cursor == "0" {
                break;
            }
            // The index of 256 buckets doubles at 2560 keys.
            for _ in 0..40 {
                if added < 2600 {
                    client.run(&format!("SET more:{added} v"));
                    added += 1;
                }
            }
        }
        assert_eq!(added, 2600, "the index grew while it was scanned");
        found.sort();
        let mut expected: Vec<String> = (0..200).map(|n| format!("key:{n}")).collect();
        expected.sort();
        assert_eq!(found, expected);
    }

    /// Pearson's statistic over the keys must be what chance gives: its mean is the number of keys less one, its variance
    /// twice that. Half of the buckets have been split, so the others have twice as many keys: each key must not have half
    /// the chance for it.
    #[test]
    fn randomkey_gives_every_key_the_same_chance() {
        for keys in [60, 1900] {
            let mut client = Client::new();
            for n in 0..keys {
                client.run(&format!("SET key:{n} v"));
                client.run(&format!("SET other:{n} v"));
                client.run(&format!("DEL other:{n}"));
            }
            let each = 20;
            let mut drawn = std::collections::BTreeMap::<String, f64>::new();
            for _ in 0..keys * each {
                *drawn.entry(client.run("RANDOMKEY")).or_default() += 1.0;
            }
            let each = f64::from(each);
            let missed = f64::from(keys) - drawn.len() as f64;
            let statistic = drawn.values().map(|times| (times - each).powi(2) / each).sum::<f64>() + missed * each;
            let mean = f64::from(keys - 1);
            let bound = mean + 4.0 * (2.0 * mean).sqrt();
            assert!(statistic < bound, "{statistic:.0} over {keys} keys, chance gives up to {bound:.0}");
        }
    }

    #[test]
    fn randomkey_and_scan_see_nothing_of_a_flushed_database_beside_a_full_one() {
        let mut client = Client::new();
        for n in 0..300 {
            client.run(&format!("SET key:{n} v"));
        }
        client.run("SELECT 1");
        for n in 0..300 {
            client.run(&format!("SET key:{n} v"));
        }
        client.run("FLUSHDB");
        assert_eq!(client.run("RANDOMKEY"), "$-1\r\n");
        assert_eq!(client.run("SCAN 7"), "*2\r\n$1\r\n0\r\n*0\r\n");
        client.run("SET key:new v");
        assert_eq!(client.run("RANDOMKEY"), "$7\r\nkey:new\r\n");
        assert_eq!(bulks(&client.run("KEYS *")), ["key:new"]);
        client.run("SELECT 0");
        assert_eq!(bulks(&client.run("KEYS *")).len(), 300);
    }
}
