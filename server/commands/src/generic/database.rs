//! Whole databases: DBSIZE, FLUSHDB, FLUSHALL, SWAPDB.

use ferrite_keyspace::Pause;

use crate::call::Call;
use crate::parse::{DB_OUT_OF_RANGE, SYNTAX_ERROR, is};
use crate::spec::{Arg, CommandSpec, Group, acl, flag};

pub static SPECS: &[CommandSpec] = &[
    CommandSpec::new("dbsize", 1, dbsize)
        .group(Group::Server)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Counts the keys of the database.")
        .flags(flag::FAST | flag::READONLY)
        .acl(acl::KEYSPACE)
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"]),
    CommandSpec::new("flushdb", -1, flushdb)
        .group(Group::Server)
        .since("1.0.0")
        .complexity("O(N)")
        .summary("Deletes all keys of the database.")
        .flags(flag::WRITE | flag::EXCLUSIVE)
        .acl(acl::DANGEROUS | acl::KEYSPACE)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .args(&[Arg::one_of(
            "flush-type",
            &[Arg::word("async", "ASYNC").since("4.0.0"), Arg::word("sync", "SYNC").since("6.2.0")],
        )
        .optional()]),
    CommandSpec::new("flushall", -1, flushall)
        .group(Group::Server)
        .since("1.0.0")
        .complexity("O(N)")
        .summary("Deletes all keys of all databases.")
        .flags(flag::WRITE | flag::EXCLUSIVE)
        .acl(acl::DANGEROUS | acl::KEYSPACE)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .args(&[Arg::one_of(
            "flush-type",
            &[Arg::word("async", "ASYNC").since("4.0.0"), Arg::word("sync", "SYNC").since("6.2.0")],
        )
        .optional()]),
    CommandSpec::new("swapdb", 3, swapdb)
        .group(Group::Server)
        .since("4.0.0")
        .complexity("O(N)")
        .summary("Exchanges two databases.")
        .flags(flag::FAST | flag::WRITE | flag::EXCLUSIVE)
        .acl(acl::DANGEROUS | acl::KEYSPACE)
        .args(&[Arg::integer("index1"), Arg::integer("index2")]),
];

fn dbsize(call: &mut Call<'_>) -> Result<(), Pause> {
    let db = call.keys.db();
    let counts = call.keys.counts(db, call.session.counted.take())?;
    let keys = counts.keys.saturating_sub(call.keys.expired_so_far(db));
    call.reply.integer(keys as i64);
    Ok(())
}

fn flushdb(call: &mut Call<'_>) -> Result<(), Pause> {
    check_flush_type(call)?;
    call.keys.flush_db()?;
    call.reply.ok();
    Ok(())
}

fn flushall(call: &mut Call<'_>) -> Result<(), Pause> {
    check_flush_type(call)?;
    call.keys.flush_all()?;
    call.reply.ok();
    Ok(())
}

/// Both take the same time: a database is emptied at once, its records are given up later.
fn check_flush_type(call: &Call<'_>) -> Result<(), Pause> {
    match call.args.len() {
        1 => Ok(()),
        2 if is(call.args.get(1), "SYNC") || is(call.args.get(1), "ASYNC") => Ok(()),
        _ => Err(SYNTAX_ERROR),
    }
}

fn swapdb(call: &mut Call<'_>) -> Result<(), Pause> {
    let number = |at: usize, error: &'static str| {
        let number = ferrite_resp::parse_i64(call.args.get(at)).and_then(|number| i32::try_from(number).ok());
        number.ok_or(Pause::Refused(error))
    };
    let a = number(1, "ERR invalid first DB index")?;
    let b = number(2, "ERR invalid second DB index")?;
    let count = call.keys.databases().count();
    let in_range = |number: i32| u32::try_from(number).ok().filter(|&db| db < count).ok_or(DB_OUT_OF_RANGE);
    let (a, b) = (in_range(a)?, in_range(b)?);
    if a != b {
        call.keys.swap_db(a, b)?;
    }
    call.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    #[test]
    fn flushdb_empties_one_database_flushall_all() {
        let mut client = Client::new();
        client.run("SET a 1");
        client.run("SELECT 1");
        client.run("SET b 1");
        assert_eq!(client.run("FLUSHDB"), "+OK\r\n");
        assert_eq!(client.run("DBSIZE"), ":0\r\n");
        assert_eq!(client.run("GET b"), "$-1\r\n");
        client.run("SELECT 0");
        assert_eq!(client.run("GET a"), "$1\r\n1\r\n");
        assert_eq!(client.run("FLUSHALL ASYNC"), "+OK\r\n");
        assert_eq!(client.run("GET a"), "$-1\r\n");
        assert_eq!(client.run("KEYS *"), "*0\r\n");
        assert_eq!(client.run("FLUSHALL NOW"), "-ERR syntax error\r\n");
        assert_eq!(client.run("FLUSHDB SYNC SYNC"), "-ERR syntax error\r\n");
    }

    #[test]
    fn swapdb_exchanges_what_two_numbers_show() {
        let mut client = Client::new();
        client.run("SET a 1");
        assert_eq!(client.run("SWAPDB 0 1"), "+OK\r\n");
        assert_eq!(client.run("DBSIZE"), ":0\r\n");
        client.run("SELECT 1");
        assert_eq!(client.run("GET a"), "$1\r\n1\r\n");
        assert_eq!(client.run("SWAPDB a 1"), "-ERR invalid first DB index\r\n");
        assert_eq!(client.run("SWAPDB 0 b"), "-ERR invalid second DB index\r\n");
        assert_eq!(client.run("SWAPDB 0 99"), "-ERR DB index is out of range\r\n");
    }
}
