//! A plain Redis in memory for string and hash commands: what the server's replies and data are compared with, byte for byte.

mod expiry;
mod generate;
mod hashes;
mod session;
mod value;
mod view;

use std::collections::{BTreeMap, BTreeSet};

pub use generate::{Generator, Profile};
pub use session::Session;
pub use value::Value;
pub use view::ClientView;
pub(crate) use view::{flat, is_exec};

use crate::resp::Reply;

/// A command and its arguments.
pub type Command = Vec<Vec<u8>>;

/// A database's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dump {
    pub values: BTreeMap<Vec<u8>, Value>,
    /// When keys expire, in milliseconds since the Unix epoch. All of these are values' keys, and no time is ever reached: what
    /// expires while a simulation runs is a scenario of its own.
    pub expiries: BTreeMap<Vec<u8>, i64>,
}

const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
const OVERFLOW: &str = "ERR increment or decrement would overflow";
/// `proto-max-bulk-len`'s default.
const STRING_BYTES_MAX: i64 = 512 << 20;

/// One database of strings and hashes, as Redis 7.0 treats them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Model {
    data: Dump,
    /// Keys that the last command has changed in the sense of WATCH: written, be it with what they held.
    touched: BTreeSet<Vec<u8>>,
}

impl Model {
    /// An empty database.
    pub fn new() -> Self {
        Self::default()
    }

    /// A database with that content.
    pub fn from_dump(data: Dump) -> Self {
        Self { data, ..Self::default() }
    }

    /// Everything in it.
    pub fn dump(&self) -> &Dump {
        &self.data
    }

    /// The keys that the last command has changed as WATCH sees it.
    pub fn touched(&self) -> &BTreeSet<Vec<u8>> {
        &self.touched
    }

    /// The same, for a model that is compared with others by what it holds.
    pub fn take_touched(&mut self) -> BTreeSet<Vec<u8>> {
        std::mem::take(&mut self.touched)
    }

    /// Executes one command.
    ///
    /// # Panics
    /// On a command that the model does not know, or a wrong number of arguments: the caller compares replies of
    /// commands that it generated.
    pub fn apply(&mut self, command: &[Vec<u8>]) -> Reply {
        self.touched.clear();
        self.try_execute(command).unwrap_or_else(|reply| reply)
    }

    fn try_execute(&mut self, command: &[Vec<u8>]) -> Result<Reply, Reply> {
        let name = command[0].to_ascii_uppercase();
        let words: Vec<&[u8]> = command[1..].iter().map(Vec::as_slice).collect();
        Ok(match (name.as_slice(), words.as_slice()) {
            (b"SET", [key, value, options @ ..]) => self.set(key, value, options)?,
            (b"GET", [key]) => self.get(key)?,
            (b"GETDEL", [key]) => {
                let reply = self.get(key)?;
                self.remove(key);
                reply
            }
            (b"APPEND", [key, value]) => {
                let whole = self.string_mut(key)?;
                whole.extend(*value);
                Reply::Int(whole.len() as i64)
            }
            (b"INCRBY", [key, by]) => self.increment(key, by)?,
            (b"DEL", keys) => Reply::Int(keys.iter().filter(|key| self.remove(key)).count() as i64),
            (b"EXISTS", keys) => {
                Reply::Int(keys.iter().filter(|key| self.data.values.contains_key(**key)).count() as i64)
            }
            (b"STRLEN", [key]) => Reply::Int(self.string(key)?.map_or(0, Vec::len) as i64),
            (b"SETRANGE", [key, offset, value]) => self.set_range(key, offset, value)?,
            (b"GETRANGE", [key, start, end]) => self.get_range(key, start, end)?,
            (b"MSET", pairs) if pairs.len() % 2 == 0 => {
                for pair in pairs.chunks(2) {
                    self.put(pair[0], Value::String(pair[1].to_vec()));
                }
                Reply::ok()
            }
            (b"MGET", keys) => Reply::Array(keys.iter().map(|key| self.get(key).unwrap_or(Reply::Null)).collect()),
            (b"RENAME", [from, to]) => {
                let value = self.data.values.get(*from).ok_or_else(|| error("ERR no such key"))?.clone();
                let expiry = self.data.expiries.get(*from).copied();
                if from != to {
                    self.remove(from);
                    self.put(to, value);
                    self.data.expiries.extend(expiry.map(|at| (to.to_vec(), at)));
                }
                Reply::ok()
            }
            (b"COPY", [from, to, replace @ ..]) => {
                if from == to {
                    return Err(error("ERR source and destination objects are the same"));
                }
                let Some(value) = self.data.values.get(*from).cloned() else { return Ok(Reply::Int(0)) };
                if self.data.values.contains_key(*to) && replace.is_empty() {
                    return Ok(Reply::Int(0));
                }
                let expiry = self.data.expiries.get(*from).copied();
                self.put(to, value);
                self.data.expiries.extend(expiry.map(|at| (to.to_vec(), at)));
                Reply::Int(1)
            }
            (b"FLUSHDB", []) => {
                self.touched.extend(std::mem::take(&mut self.data).values.into_keys());
                Reply::ok()
            }
            (b"PEXPIREAT", [key, at, conditions @ ..]) => self.expire(key, at, conditions)?,
            (b"PERSIST", [key]) => self.persist(key),
            (b"PEXPIRETIME", [key]) => self.expire_time(key),
            (b"DBSIZE", []) => Reply::Int(self.data.values.len() as i64),
            (name, [key, rest @ ..]) if name.starts_with(b"H") => self.execute_on_hash(name, key, rest)?,
            _ => panic!("the model does not know {}", crate::resp::show_command(command)),
        })
    }

    /// Sets a key to a new value, without an expiry.
    fn put(&mut self, key: &[u8], value: Value) {
        self.data.expiries.remove(key);
        self.data.values.insert(key.to_vec(), value);
        self.touched.insert(key.to_vec());
    }

    /// Whether there was something to delete.
    fn remove(&mut self, key: &[u8]) -> bool {
        self.data.expiries.remove(key);
        let found = self.data.values.remove(key).is_some();
        if found {
            self.touched.insert(key.to_vec());
        }
        found
    }

    /// The string under the key, or the error that it holds something else.
    fn string(&self, key: &[u8]) -> Result<Option<&Vec<u8>>, Reply> {
        match self.data.values.get(key) {
            None => Ok(None),
            Some(Value::String(bytes)) => Ok(Some(bytes)),
            Some(Value::Hash(_)) => Err(wrong_type()),
        }
    }

    /// The same to be changed; an empty one if there is none.
    fn string_mut(&mut self, key: &[u8]) -> Result<&mut Vec<u8>, Reply> {
        self.string(key)?;
        self.touched.insert(key.to_vec());
        match self.data.values.entry(key.to_vec()).or_insert_with(|| Value::String(Vec::new())) {
            Value::String(bytes) => Ok(bytes),
            Value::Hash(_) => Err(wrong_type()),
        }
    }

    fn get(&self, key: &[u8]) -> Result<Reply, Reply> {
        Ok(self.string(key)?.map_or(Reply::Null, |value| Reply::Bulk(value.clone())))
    }

    fn set(&mut self, key: &[u8], value: &[u8], options: &[&[u8]]) -> Result<Reply, Reply> {
        let (mut if_missing, mut if_present, mut get, mut keep) = (false, false, false, false);
        let mut expiry = None;
        let mut options = options.iter();
        while let Some(option) = options.next() {
            match option.to_ascii_uppercase().as_slice() {
                b"NX" => if_missing = true,
                b"XX" => if_present = true,
                b"GET" => get = true,
                b"KEEPTTL" => keep = true,
                b"PXAT" => expiry = options.next().and_then(|at| integer(at)),
                _ => return Err(error("ERR syntax error")),
            }
        }
        if if_missing && if_present || keep && expiry.is_some() {
            return Err(error("ERR syntax error"));
        }
        let old = if get { self.get(key)? } else { Reply::Null };
        let present = self.data.values.contains_key(key);
        let refused = (if_missing && present) || (if_present && !present);
        if !refused {
            let kept = self.data.expiries.get(key).copied().filter(|_| keep);
            self.put(key, Value::String(value.to_vec()));
            self.data.expiries.extend(expiry.or(kept).map(|at| (key.to_vec(), at)));
        }
        Ok(match (get, refused) {
            (true, _) => old,
            (false, true) => Reply::Null,
            (false, false) => Reply::ok(),
        })
    }

    fn increment(&mut self, key: &[u8], by: &[u8]) -> Result<Reply, Reply> {
        let by = integer(by).ok_or_else(|| error(NOT_AN_INTEGER))?;
        let old = self.string(key)?.map_or(Some(0), |value| integer(value)).ok_or_else(|| error(NOT_AN_INTEGER))?;
        let new = old.checked_add(by).ok_or_else(|| error(OVERFLOW))?;
        *self.string_mut(key)? = new.to_string().into_bytes();
        Ok(Reply::Int(new))
    }

    fn set_range(&mut self, key: &[u8], offset: &[u8], value: &[u8]) -> Result<Reply, Reply> {
        let offset = integer(offset).ok_or_else(|| error(NOT_AN_INTEGER))?;
        if offset < 0 {
            return Err(error("ERR offset is out of range"));
        }
        if value.is_empty() {
            return Ok(Reply::Int(self.string(key)?.map_or(0, Vec::len) as i64));
        }
        if offset > STRING_BYTES_MAX - value.len() as i64 {
            self.string(key)?;
            return Err(error("ERR string exceeds maximum allowed size (proto-max-bulk-len)"));
        }
        let whole = self.string_mut(key)?;
        let end = offset as usize + value.len();
        if whole.len() < end {
            whole.resize(end, 0);
        }
        whole[offset as usize..end].copy_from_slice(value);
        Ok(Reply::Int(whole.len() as i64))
    }

    fn get_range(&self, key: &[u8], start: &[u8], end: &[u8]) -> Result<Reply, Reply> {
        let (Some(start), Some(end)) = (integer(start), integer(end)) else {
            return Err(error(NOT_AN_INTEGER));
        };
        let empty = Vec::new();
        let value = self.string(key)?.unwrap_or(&empty);
        let len = value.len() as i64;
        if value.is_empty() || (start < 0 && end < 0 && start > end) {
            return Ok(Reply::Bulk(Vec::new()));
        }
        let from_end = |index: i64| {
            if index < 0 { index.saturating_add(len).max(0) } else { index }
        };
        let (start, end) = (from_end(start), from_end(end).min(len - 1));
        if start > end {
            return Ok(Reply::Bulk(Vec::new()));
        }
        Ok(Reply::Bulk(value[start as usize..=end as usize].to_vec()))
    }
}

fn error(text: &str) -> Reply {
    Reply::Error(text.to_string())
}

fn wrong_type() -> Reply {
    error("WRONGTYPE Operation against a key holding the wrong kind of value")
}

/// An integer in the one spelling that Redis takes: no plus, no leading zeros, no spaces.
fn integer(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse::<i64>().ok().filter(|number| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(model: &mut Model, line: &str, expected: &str) {
        let command: Command = line.split(' ').map(|word| word.replace('~', "").into_bytes()).collect();
        assert_eq!(format!("{:?}", model.apply(&command)), expected, "{line}");
    }

    /// Expected replies are those of redis-server 7.0.
    #[test]
    fn replies_are_those_of_redis() {
        let mut model = Model::new();
        for (line, expected) in [
            ("SET k v NX GET", "null"),
            ("SET k w NX", "null"),
            ("SET k w NX GET", "\"v\""),
            ("SET k w XX KEEPTTL", "+OK"),
            ("SET none w XX", "null"),
            ("SET k w NX XX", "-ERR syntax error"),
            ("APPEND k xyz", ":4"),
            ("GETRANGE k -3 -2", "\"xy\""),
            ("GETRANGE k 2 1", "\"\""),
            ("GETRANGE k -100 100", "\"wxyz\""),
            ("GETRANGE k -1 -2", "\"\""),
            ("GETRANGE k 0 -100", "\"w\""),
            ("GETRANGE none 0 -1", "\"\""),
            ("SETRANGE k 6 ab", ":8"),
            ("GET k", "\"wxyz\\x00\\x00ab\""),
            ("SETRANGE k 600000000 ~", ":8"),
            ("SETRANGE k 600000000 a", "-ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
            ("SETRANGE k -1 a", "-ERR offset is out of range"),
            ("SETRANGE new 5 ~", ":0"),
            ("EXISTS new k k", ":2"),
            ("INCRBY n 5", ":5"),
            ("INCRBY n -7", ":-2"),
            ("INCRBY n 9223372036854775807", ":9223372036854775805"),
            ("INCRBY n 3", "-ERR increment or decrement would overflow"),
            ("INCRBY k 1", "-ERR value is not an integer or out of range"),
            ("INCRBY n +1", "-ERR value is not an integer or out of range"),
            ("MSET a 1 b 2 a 3", "+OK"),
            ("MGET a b none", "[\"3\", \"2\", null]"),
            ("DBSIZE", ":4"),
            ("RENAME a b", "+OK"),
            ("RENAME a b", "-ERR no such key"),
            ("RENAME b b", "+OK"),
            ("GETDEL b", "\"3\""),
            ("GETDEL b", "null"),
            ("DEL k none k", ":1"),
            ("STRLEN n", ":19"),
            ("HSET h a 1 b 2 a 3", ":2"),
            ("HSET h b 4 c 5", ":1"),
            ("HSETNX h a 9", ":0"),
            ("HSETNX h d 6", ":1"),
            ("HGET h a", "\"3\""),
            ("HGET h x", "null"),
            ("HGET none x", "null"),
            ("HMGET h b x", "[\"4\", null]"),
            ("HGETALL h", "[\"a\", \"3\", \"b\", \"4\", \"c\", \"5\", \"d\", \"6\"]"),
            ("HINCRBY h b -5", ":-1"),
            ("HINCRBY h b x", "-ERR value is not an integer or out of range"),
            ("HSET h t text", ":1"),
            ("HINCRBY h t 1", "-ERR hash value is not an integer"),
            ("HLEN h", ":5"),
            ("HSTRLEN h t", ":4"),
            ("HEXISTS h x", ":0"),
            ("GET h", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("SET h v GET", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("SET h v NX", "null"),
            ("HGET n f", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("MGET h n", "[null, \"9223372036854775805\"]"),
            ("RENAME h g", "+OK"),
            ("COPY g h", ":1"),
            ("COPY g h", ":0"),
            ("COPY n h REPLACE", ":1"),
            ("COPY none h REPLACE", ":0"),
            ("COPY h h", "-ERR source and destination objects are the same"),
            ("GETDEL h", "\"9223372036854775805\""),
            ("HDEL g a x a", ":1"),
            ("HDEL g b c d t", ":4"),
            ("EXISTS g", ":0"),
            ("HGETALL g", "[]"),
            ("SET e v PXAT 9000000000000", "+OK"),
            ("PEXPIRETIME e", ":9000000000000"),
            ("SET e w KEEPTTL", "+OK"),
            ("APPEND e x", ":2"),
            ("RENAME e f", "+OK"),
            ("PEXPIRETIME f", ":9000000000000"),
            ("PEXPIREAT f 9000000000001 LT", ":0"),
            ("PEXPIREAT f 9000000000001 GT", ":1"),
            ("PEXPIREAT f 9000000000002 NX", ":0"),
            ("PERSIST f", ":1"),
            ("PERSIST f", ":0"),
            ("PEXPIREAT f 9000000000002 XX", ":0"),
            ("PEXPIREAT f 9000000000002 GT", ":0"),
            ("PEXPIREAT f 9000000000002 LT", ":1"),
            ("SET f v", "+OK"),
            ("PEXPIRETIME f", ":-1"),
            ("PEXPIREAT f 1", ":1"),
            ("PEXPIREAT f 1", ":0"),
            ("PEXPIRETIME f", ":-2"),
            ("FLUSHDB", "+OK"),
            ("DBSIZE", ":0"),
        ] {
            check(&mut model, line, expected);
        }
    }
}
