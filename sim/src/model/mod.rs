//! A plain Redis in memory for string commands: what the server's replies and data are compared with, byte for byte.

mod generate;
mod view;

use std::collections::BTreeMap;

pub use generate::{Generator, Profile};
pub use view::ClientView;

use crate::resp::Reply;

/// A command and its arguments.
pub type Command = Vec<Vec<u8>>;
/// A database's keys and values.
pub type Dump = BTreeMap<Vec<u8>, Vec<u8>>;

const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
/// `proto-max-bulk-len`'s default.
const STRING_BYTES_MAX: i64 = 512 << 20;

/// One database of strings without expiry, as Redis 7.0 treats them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    data: Dump,
    /// A page of the server's log: what key and value must fit into, with this many bytes beside them.
    record_max: Option<usize>,
}

/// Bytes of a record beside its key and its value.
const RECORD_HEADER: usize = 40;

impl Model {
    /// An empty database.
    pub fn new() -> Self {
        Self::default()
    }

    /// A database with that content.
    pub fn from_dump(data: Dump) -> Self {
        Self { data, record_max: None }
    }

    /// The same database on a server that refuses a value that does not fit into a page of that size.
    pub fn with_page_size(self, bytes: usize) -> Self {
        Self { record_max: Some(bytes - RECORD_HEADER), ..self }
    }

    /// Everything in it.
    pub fn dump(&self) -> &Dump {
        &self.data
    }

    /// Executes one command; one whose result would not fit into a page changes nothing.
    ///
    /// # Panics
    /// On a command that the model does not know, or a wrong number of arguments: the caller compares replies of
    /// commands that it generated.
    pub fn apply(&mut self, command: &[Vec<u8>]) -> Reply {
        let Some(record_max) = self.record_max else {
            return self.execute(command);
        };
        let before = self.data.clone();
        let reply = self.execute(command);
        let refused = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            (key.len() + value.len() > record_max).then(|| too_large(value.len(), record_max - key.len()))
        };
        // MSET looks at each of its values, whatever follows it.
        let in_command =
            command[1..].chunks_exact(2).filter(|_| command[0] == b"MSET").map(|pair| (&pair[0], &pair[1]));
        if let Some(error) = in_command.chain(&self.data).find_map(refused) {
            self.data = before;
            return error;
        }
        reply
    }

    fn execute(&mut self, command: &[Vec<u8>]) -> Reply {
        let name = command[0].to_ascii_uppercase();
        let words: Vec<&[u8]> = command[1..].iter().map(Vec::as_slice).collect();
        match (name.as_slice(), words.as_slice()) {
            (b"SET", [key, value, options @ ..]) => self.set(key, value, options),
            (b"GET", [key]) => self.get(key),
            (b"GETDEL", [key]) => {
                let reply = self.get(key);
                self.data.remove(*key);
                reply
            }
            (b"APPEND", [key, value]) => {
                let whole = self.data.entry(key.to_vec()).or_default();
                whole.extend(*value);
                Reply::Int(whole.len() as i64)
            }
            (b"INCRBY", [key, by]) => self.increment(key, by),
            (b"DEL", keys) => Reply::Int(keys.iter().filter(|key| self.data.remove(**key).is_some()).count() as i64),
            (b"EXISTS", keys) => Reply::Int(keys.iter().filter(|key| self.data.contains_key(**key)).count() as i64),
            (b"STRLEN", [key]) => Reply::Int(self.data.get(*key).map_or(0, Vec::len) as i64),
            (b"SETRANGE", [key, offset, value]) => self.set_range(key, offset, value),
            (b"GETRANGE", [key, start, end]) => self.get_range(key, start, end),
            (b"MSET", pairs) if pairs.len() % 2 == 0 => {
                for pair in pairs.chunks(2) {
                    self.data.insert(pair[0].to_vec(), pair[1].to_vec());
                }
                Reply::ok()
            }
            (b"MGET", keys) => Reply::Array(keys.iter().map(|key| self.get(key)).collect()),
            (b"RENAME", [from, to]) => match self.data.remove(*from) {
                Some(value) => {
                    self.data.insert(to.to_vec(), value);
                    Reply::ok()
                }
                None => Reply::Error("ERR no such key".to_string()),
            },
            (b"FLUSHDB", []) => {
                self.data.clear();
                Reply::ok()
            }
            (b"DBSIZE", []) => Reply::Int(self.data.len() as i64),
            _ => panic!("the model does not know {}", crate::resp::show_command(command)),
        }
    }

    fn get(&self, key: &[u8]) -> Reply {
        self.data.get(key).map_or(Reply::Null, |value| Reply::Bulk(value.clone()))
    }

    fn set(&mut self, key: &[u8], value: &[u8], options: &[&[u8]]) -> Reply {
        let (mut if_missing, mut if_present, mut get) = (false, false, false);
        for option in options {
            match option.to_ascii_uppercase().as_slice() {
                b"NX" => if_missing = true,
                b"XX" => if_present = true,
                b"GET" => get = true,
                // There is no expiry to keep.
                b"KEEPTTL" => {}
                _ => return Reply::Error("ERR syntax error".to_string()),
            }
        }
        if if_missing && if_present {
            return Reply::Error("ERR syntax error".to_string());
        }
        let old = self.get(key);
        let present = old != Reply::Null;
        let refused = (if_missing && present) || (if_present && !present);
        if !refused {
            self.data.insert(key.to_vec(), value.to_vec());
        }
        match (get, refused) {
            (true, _) => old,
            (false, true) => Reply::Null,
            (false, false) => Reply::ok(),
        }
    }

    fn increment(&mut self, key: &[u8], by: &[u8]) -> Reply {
        let Some(by) = integer(by) else {
            return Reply::Error(NOT_AN_INTEGER.to_string());
        };
        let Some(old) = self.data.get(key).map_or(Some(0), |value| integer(value)) else {
            return Reply::Error(NOT_AN_INTEGER.to_string());
        };
        let Some(new) = old.checked_add(by) else {
            return Reply::Error("ERR increment or decrement would overflow".to_string());
        };
        self.data.insert(key.to_vec(), new.to_string().into_bytes());
        Reply::Int(new)
    }

    fn set_range(&mut self, key: &[u8], offset: &[u8], value: &[u8]) -> Reply {
        let Some(offset) = integer(offset) else {
            return Reply::Error(NOT_AN_INTEGER.to_string());
        };
        if offset < 0 {
            return Reply::Error("ERR offset is out of range".to_string());
        }
        if value.is_empty() {
            return Reply::Int(self.data.get(key).map_or(0, Vec::len) as i64);
        }
        if offset > STRING_BYTES_MAX - value.len() as i64 {
            return Reply::Error("ERR string exceeds maximum allowed size (proto-max-bulk-len)".to_string());
        }
        let whole = self.data.entry(key.to_vec()).or_default();
        let end = offset as usize + value.len();
        if whole.len() < end {
            whole.resize(end, 0);
        }
        whole[offset as usize..end].copy_from_slice(value);
        Reply::Int(whole.len() as i64)
    }

    fn get_range(&self, key: &[u8], start: &[u8], end: &[u8]) -> Reply {
        let (Some(start), Some(end)) = (integer(start), integer(end)) else {
            return Reply::Error(NOT_AN_INTEGER.to_string());
        };
        let empty = Vec::new();
        let value = self.data.get(key).unwrap_or(&empty);
        let len = value.len() as i64;
        if value.is_empty() || (start < 0 && end < 0 && start > end) {
            return Reply::Bulk(Vec::new());
        }
        let from_end = |index: i64| {
            if index < 0 { index.saturating_add(len).max(0) } else { index }
        };
        let (start, end) = (from_end(start), from_end(end).min(len - 1));
        if start > end {
            return Reply::Bulk(Vec::new());
        }
        Reply::Bulk(value[start as usize..=end as usize].to_vec())
    }
}

fn too_large(bytes: usize, max: usize) -> Reply {
    Reply::Error(format!("ERR value of {bytes} bytes exceeds storage.page_size: at most {max} bytes fit"))
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

    #[test]
    fn what_does_not_fit_into_a_page_changes_nothing() {
        let mut model = Model::new().with_page_size(44);
        check(&mut model, "SET k abc", "+OK");
        check(&mut model, "APPEND k d", "-ERR value of 4 bytes exceeds storage.page_size: at most 3 bytes fit");
        check(&mut model, "MSET k abcd k a", "-ERR value of 4 bytes exceeds storage.page_size: at most 3 bytes fit");
        check(&mut model, "RENAME k ke", "-ERR value of 3 bytes exceeds storage.page_size: at most 2 bytes fit");
        check(&mut model, "GET k", "\"abc\"");
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
            ("FLUSHDB", "+OK"),
            ("DBSIZE", ":0"),
        ] {
            check(&mut model, line, expected);
        }
    }
}
