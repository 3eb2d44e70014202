//! The model's commands about expiry. Times are in milliseconds since the Unix epoch: long past, or beyond any run.

use super::{Model, NOT_AN_INTEGER, error, integer};
use crate::resp::Reply;

/// What a time is either far below or far above: the year 2096.
const PAST_BELOW_MS: i64 = 4_000_000_000_000;

impl Model {
    pub(super) fn expire(&mut self, key: &[u8], at: &[u8], conditions: &[&[u8]]) -> Result<Reply, Reply> {
        let at = integer(at).ok_or_else(|| error(NOT_AN_INTEGER))?;
        if !self.data.values.contains_key(key) {
            return Ok(Reply::Int(0));
        }
        let old = self.data.expiries.get(key).copied();
        let allowed = conditions.iter().all(|condition| match *condition {
            b"NX" => old.is_none(),
            b"XX" => old.is_some(),
            // Without a time a key lives for ever.
            b"GT" => old.is_some_and(|old| at > old),
            b"LT" => old.is_none_or(|old| at < old),
            other => panic!("the model does not know the condition {}", other.escape_ascii()),
        });
        if !allowed {
            return Ok(Reply::Int(0));
        }
        if at < PAST_BELOW_MS {
            self.remove(key);
        } else {
            self.data.expiries.insert(key.to_vec(), at);
            self.touched.insert(key.to_vec());
        }
        Ok(Reply::Int(1))
    }

    pub(super) fn persist(&mut self, key: &[u8]) -> Reply {
        let had = self.data.expiries.remove(key).is_some();
        if had {
            self.touched.insert(key.to_vec());
        }
        Reply::Int(had.into())
    }

    pub(super) fn expire_time(&self, key: &[u8]) -> Reply {
        Reply::Int(match (self.data.values.contains_key(key), self.data.expiries.get(key)) {
            (false, _) => -2,
            (true, None) => -1,
            (true, Some(at)) => *at,
        })
    }
}
