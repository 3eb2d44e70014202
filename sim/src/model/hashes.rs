//! The model's hash commands.

use super::{Model, NOT_AN_INTEGER, OVERFLOW, Value, error, integer, wrong_type};
use crate::resp::Reply;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

impl Model {
    pub(super) fn execute_on_hash(&mut self, name: &[u8], key: &[u8], rest: &[&[u8]]) -> Result<Reply, Reply> {
        let read = match self.data.values.get(key) {
            None => &Pairs::new(),
            Some(Value::Hash(pairs)) => pairs,
            Some(Value::String(_)) => return Err(self.refused_before_the_type(name, rest).unwrap_or_else(wrong_type)),
        };
        let value = |field: &[u8]| read.iter().find(|(name, _)| name == field).map(|(_, value)| value);
        let bulk = |field: &[u8]| value(field).map_or(Reply::Null, |value| Reply::Bulk(value.clone()));
        Ok(match (name, rest) {
            (b"HSET", pairs) => Reply::Int(self.set_fields(key, pairs)),
            (b"HSETNX", [field, _]) if value(field).is_some() => Reply::Int(0),
            (b"HSETNX", pair) => Reply::Int(self.set_fields(key, pair)),
            (b"HGET", [field]) => bulk(field),
            (b"HMGET", fields) => Reply::Array(fields.iter().map(|field| bulk(field)).collect()),
            (b"HGETALL", []) => {
                let strings = read.iter().flat_map(|(field, value)| [field, value]);
                Reply::Array(strings.map(|string| Reply::Bulk(string.clone())).collect())
            }
            (b"HLEN", []) => Reply::Int(read.len() as i64),
            (b"HEXISTS", [field]) => Reply::Int(value(field).is_some().into()),
            (b"HSTRLEN", [field]) => Reply::Int(value(field).map_or(0, Vec::len) as i64),
            (b"HDEL", fields) => Reply::Int(self.delete_fields(key, fields)),
            (b"HINCRBY", [field, by]) => {
                let by = integer(by).ok_or_else(|| error(NOT_AN_INTEGER))?;
                let old = value(field).map_or(Some(0), |text| integer(text));
                let old = old.ok_or_else(|| error("ERR hash value is not an integer"))?;
                let new = old.checked_add(by).ok_or_else(|| error(OVERFLOW))?;
                self.set_fields(key, &[field, new.to_string().as_bytes()]);
                Reply::Int(new)
            }
            _ => panic!("the model does not know {}", name.escape_ascii()),
        })
    }

    /// HINCRBY looks at its number before it looks at the key.
    fn refused_before_the_type(&self, name: &[u8], rest: &[&[u8]]) -> Option<Reply> {
        (name == b"HINCRBY" && integer(rest[1]).is_none()).then(|| error(NOT_AN_INTEGER))
    }

    /// How many of the fields are new.
    fn set_fields(&mut self, key: &[u8], pairs: &[&[u8]]) -> i64 {
        self.touched.insert(key.to_vec());
        let entry = self.data.values.entry(key.to_vec()).or_insert_with(|| Value::Hash(Pairs::new()));
        let Value::Hash(held) = entry else { unreachable!("the type was looked at") };
        let before = held.len();
        for pair in pairs.chunks_exact(2) {
            match held.iter_mut().find(|(field, _)| field == pair[0]) {
                Some((_, value)) => *value = pair[1].to_vec(),
                None => held.push((pair[0].to_vec(), pair[1].to_vec())),
            }
        }
        (held.len() - before) as i64
    }

    /// How many of the fields were there.
    fn delete_fields(&mut self, key: &[u8], fields: &[&[u8]]) -> i64 {
        let Some(Value::Hash(held)) = self.data.values.get_mut(key) else { return 0 };
        let before = held.len();
        held.retain(|(field, _)| !fields.contains(&field.as_slice()));
        let (deleted, empty) = (before - held.len(), held.is_empty());
        if deleted > 0 {
            self.touched.insert(key.to_vec());
        }
        if empty {
            self.remove(key);
        }
        deleted as i64
    }
}
