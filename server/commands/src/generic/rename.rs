//! A value under another name or in another database: RENAME, RENAMENX, COPY, MOVE.

use ferrite_keyspace::Pause;
use ferrite_resp::{Args, parse_i64};

use crate::call::Call;
use crate::parse::{NO_SUCH_KEY, SAME_OBJECT, SYNTAX_ERROR, database, is};
use crate::spec::{Arg, CommandSpec, Group, KeySpec, acl, flag, keyflag};

pub static SPECS: &[CommandSpec] = &[
    CommandSpec::new("rename", 3, rename)
        .group(Group::Generic)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Gives a key another name, over what has it.")
        .flags(flag::WRITE)
        .acl(acl::KEYSPACE)
        .keys(&[
            KeySpec::at(1, keyflag::RW | keyflag::ACCESS | keyflag::DELETE),
            KeySpec::at(2, keyflag::OW | keyflag::UPDATE),
        ])
        .args(&[Arg::key("key", 0), Arg::key("newkey", 1)]),
    CommandSpec::new("renamenx", 3, renamenx)
        .group(Group::Generic)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Gives a key another name unless that is taken.")
        .flags(flag::FAST | flag::WRITE)
        .acl(acl::KEYSPACE)
        .keys(&[
            KeySpec::at(1, keyflag::RW | keyflag::ACCESS | keyflag::DELETE),
            KeySpec::at(2, keyflag::OW | keyflag::INSERT),
        ])
        .args(&[Arg::key("key", 0), Arg::key("newkey", 1)]),
    CommandSpec::new("copy", -3, copy)
        .group(Group::Generic)
        .since("6.2.0")
        .complexity("O(N)")
        .summary("Copies the value of a key to another key.")
        .flags(flag::DENYOOM | flag::WRITE)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::at(1, keyflag::RO | keyflag::ACCESS), KeySpec::at(2, keyflag::OW | keyflag::UPDATE)])
        .args(&[
            Arg::key("source", 0),
            Arg::key("destination", 1),
            Arg::integer("destination-db").token("DB").optional(),
            Arg::word("replace", "REPLACE").optional(),
        ]),
    CommandSpec::new("move", 3, move_key)
        .group(Group::Generic)
        .since("1.0.0")
        .complexity("O(1)")
        .summary("Moves a key to another database.")
        .flags(flag::FAST | flag::WRITE | flag::EXCLUSIVE)
        .acl(acl::KEYSPACE)
        .keys(&[KeySpec::at(1, keyflag::RW | keyflag::ACCESS | keyflag::UPDATE)])
        .args(&[Arg::key("key", 0), Arg::integer("db")]),
];

fn rename(call: &mut Call<'_>) -> Result<(), Pause> {
    if rename_unless(call, false)? {
        call.reply.ok();
    }
    Ok(())
}

fn renamenx(call: &mut Call<'_>) -> Result<(), Pause> {
    let renamed = rename_unless(call, true)?;
    call.reply.integer(i64::from(renamed));
    Ok(())
}

/// False: the new name is taken, which matters only to `nx`.
fn rename_unless(call: &mut Call<'_>, nx: bool) -> Result<bool, Pause> {
    let (from, to) = (call.args.get(1), call.args.get(2));
    call.keys.get(from)?.ok_or(NO_SUCH_KEY)?;
    if from == to {
        return Ok(!nx);
    }
    if call.keys.exists(to)? && nx {
        return Ok(false);
    }
    let db = call.keys.db();
    call.keys.rename(from, db, to)?;
    Ok(true)
}

fn copy(call: &mut Call<'_>) -> Result<(), Pause> {
    let args = call.args;
    let (from, to) = (args.get(1), args.get(2));
    let db = call.keys.db();
    let (mut to_db, mut replace) = (db, false);
    let mut at = 3;
    while at < args.len() {
        if is(args.get(at), "REPLACE") {
            replace = true;
        } else if is(args.get(at), "DB") && at + 1 < args.len() {
            at += 1;
            to_db = database(args.get(at), call.keys.databases().count())?;
        } else {
            return Err(SYNTAX_ERROR);
        }
        at += 1;
    }
    if to_db == db && from == to {
        return Err(SAME_OBJECT);
    }
    let copied = call.keys.look(from)?.is_some() && (!exists_in(call, to_db, to)? || replace);
    if copied {
        call.keys.copy(from, to_db, to)?;
    }
    call.reply.integer(i64::from(copied));
    Ok(())
}

fn move_key(call: &mut Call<'_>) -> Result<(), Pause> {
    let key = call.args.get(1);
    let db = call.keys.db();
    let to_db = database(call.args.get(2), call.keys.databases().count())?;
    if to_db == db {
        return Err(SAME_OBJECT);
    }
    let moved = call.keys.get(key)?.is_some() && !exists_in(call, to_db, key)?;
    if moved {
        call.keys.rename(key, to_db, key)?;
    }
    call.reply.integer(i64::from(moved));
    Ok(())
}

/// Nobody prefetches keys of another database: the pause names the record.
fn exists_in(call: &mut Call<'_>, db: u32, key: &[u8]) -> Result<bool, Pause> {
    let own = call.keys.db();
    call.keys.select(db);
    let mut cold = Vec::new();
    call.keys.cold(key, &mut cold);
    let exists = if cold.is_empty() { call.keys.exists(key) } else { Err(Pause::Records(cold)) };
    call.keys.select(own);
    exists
}

/// The key in another database that a command works on, beside its declared ones: for EXEC, which looks at all keys
/// first.
pub(crate) fn foreign_key<'a>(name: &str, args: Args<'a>) -> Option<(u32, &'a [u8])> {
    let (db, key) = match name {
        "move" => (args.get(2), args.get(1)),
        "copy" => {
            let at = (3..args.len().saturating_sub(1)).rev().find(|&at| is(args.get(at), "DB"))?;
            (args.get(at + 1), args.get(2))
        }
        _ => return None,
    };
    Some((u32::try_from(parse_i64(db)?).ok()?, key))
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    #[test]
    fn rename_takes_the_expiry_along() {
        let mut client = Client::new();
        client.run("SET a 1 EX 100");
        client.run("SET b 2");
        assert_eq!(client.run("RENAME a b"), "+OK\r\n");
        assert_eq!(client.run("TTL b"), ":100\r\n");
        assert_eq!(client.run("GET b"), "$1\r\n1\r\n");
        assert_eq!(client.run("RENAME a b"), "-ERR no such key\r\n");
        assert_eq!(client.run("RENAME b b"), "+OK\r\n");
        assert_eq!(client.run("RENAMENX b b"), ":0\r\n");
        client.run("SET c 3");
        assert_eq!(client.run("RENAMENX b c"), ":0\r\n");
        assert_eq!(client.run("RENAMENX b d"), ":1\r\n");
        assert_eq!(client.run("DBSIZE"), ":2\r\n");
    }

    #[test]
    fn copy_within_and_across_databases() {
        let mut client = Client::new();
        client.run("SET a 1 EX 100");
        client.run("SET b 2");
        assert_eq!(client.run("COPY a b"), ":0\r\n");
        assert_eq!(client.run("COPY a b REPLACE"), ":1\r\n");
        assert_eq!(client.run("TTL b"), ":100\r\n");
        assert_eq!(client.run("COPY a a DB 1"), ":1\r\n");
        assert_eq!(client.run("COPY missing x"), ":0\r\n");
        assert_eq!(client.run("COPY a a"), "-ERR source and destination objects are the same\r\n");
        assert_eq!(client.run("COPY a b DB 99"), "-ERR DB index is out of range\r\n");
        assert_eq!(client.run("COPY a b DB"), "-ERR syntax error\r\n");
        assert_eq!(
            client.run("COPY a b DB 99999999999"),
            "-ERR value is out of range, value must between -2147483648 and 2147483647\r\n"
        );
        client.run("SELECT 1");
        assert_eq!(client.run("GET a"), "$1\r\n1\r\n");
        assert_eq!(client.run("DBSIZE"), ":1\r\n");
    }

    #[test]
    fn move_leaves_nothing_behind() {
        let mut client = Client::new();
        client.run("SET a 1 EX 100");
        assert_eq!(client.run("MOVE a 1"), ":1\r\n");
        assert_eq!(client.run("MOVE a 1"), ":0\r\n");
        client.run("SET a 2");
        assert_eq!(client.run("MOVE a 1"), ":0\r\n");
        assert_eq!(client.run("MOVE a 0"), "-ERR source and destination objects are the same\r\n");
        assert_eq!(client.run("MOVE a -1"), "-ERR DB index is out of range\r\n");
        client.run("SELECT 1");
        assert_eq!(client.run("TTL a"), ":100\r\n");
    }
}
