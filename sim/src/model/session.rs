//! What the model knows of one connection: its open transaction and what it watches.

use std::collections::{BTreeMap, BTreeSet};

use super::{Command, Model, error};
use crate::resp::Reply;

/// What EXEC may be answered with when a transaction needs more room at once than the server has memory. Nothing of it has
/// happened then, and it is over.
const TOO_MUCH_AT_ONCE: &str = "ERR the command writes up to ";

/// One connection's transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Session {
    queue: Option<Vec<Command>>,
    /// A command was refused when it was to be queued.
    aborted: bool,
    /// The watched keys, and whether they have been changed since.
    watched: BTreeMap<Vec<u8>, bool>,
}

impl Session {
    /// Somebody has changed these keys.
    pub fn changed(&mut self, keys: &BTreeSet<Vec<u8>>) {
        for key in keys {
            if let Some(changed) = self.watched.get_mut(key) {
                *changed = true;
            }
        }
    }

    /// Whether a transaction is open.
    pub fn is_open(&self) -> bool {
        self.queue.is_some()
    }

    /// EXEC was refused as a whole: the transaction is over, and nothing of it has happened.
    pub fn refused(&mut self) {
        *self = Self::default();
    }

    /// Whether EXEC was answered that the server has not the room. The model does not know how much that is.
    pub fn is_refusal(reply: &Reply) -> bool {
        matches!(reply, Reply::Error(text) if text.starts_with(TOO_MUCH_AT_ONCE))
    }
}

impl Model {
    /// Executes one command of a connection, transactions included; [`Model::touched`] has all that it changed. The caller
    /// tells the sessions, this one too, with [`Session::changed`].
    pub fn apply_in(&mut self, session: &mut Session, command: &[Vec<u8>]) -> Reply {
        let name = command[0].to_ascii_uppercase();
        if let b"MULTI" | b"EXEC" | b"DISCARD" | b"WATCH" | b"UNWATCH" = name.as_slice() {
            self.touched.clear();
            return self.transaction(session, &name, &command[1..]).unwrap_or_else(|reply| reply);
        }
        let Some(queue) = &mut session.queue else { return self.apply(command) };
        self.touched.clear();
        if command.len() == 1 && !matches!(name.as_slice(), b"DBSIZE" | b"FLUSHDB" | b"PING") {
            session.aborted = true;
            let name = command[0].to_ascii_lowercase();
            return Reply::Error(format!("ERR wrong number of arguments for '{}' command", name.escape_ascii()));
        }
        queue.push(command.to_vec());
        Reply::Simple("QUEUED".to_string())
    }

    fn transaction(&mut self, session: &mut Session, name: &[u8], keys: &[Vec<u8>]) -> Result<Reply, Reply> {
        match (name, &session.queue) {
            (b"MULTI", None) => session.queue = Some(Vec::new()),
            (b"MULTI", Some(_)) => return Err(error("ERR MULTI calls can not be nested")),
            (b"WATCH", None) => {
                for key in keys {
                    session.watched.entry(key.clone()).or_insert(false);
                }
            }
            (b"WATCH", Some(_)) => return Err(error("ERR WATCH inside MULTI is not allowed")),
            (b"UNWATCH", None) => session.watched.clear(),
            (b"DISCARD", Some(_)) => session.refused(),
            (b"DISCARD", None) => return Err(error("ERR DISCARD without MULTI")),
            (_, None) => return Err(error("ERR EXEC without MULTI")),
            (_, Some(_)) => {
                let Session { queue, aborted, watched } = std::mem::take(session);
                if aborted {
                    return Err(error("EXECABORT Transaction discarded because of previous errors."));
                }
                if watched.values().any(|changed| *changed) {
                    return Ok(Reply::Null);
                }
                let mut touched = BTreeSet::new();
                let mut replies = Vec::new();
                for command in queue.expect("it was just looked at") {
                    replies.push(self.apply(&command));
                    touched.append(&mut self.touched);
                }
                self.touched = touched;
                return Ok(Reply::Array(replies));
            }
        }
        Ok(Reply::ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commands of two connections, `a` and `b`, each with its reply.
    fn check(lines: &[(&str, &str)]) {
        let mut model = Model::new();
        let mut sessions: BTreeMap<&str, Session> = BTreeMap::new();
        for (line, expected) in lines {
            let (who, command) = line.split_once(' ').expect("who and what");
            let command: Command = command.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            let reply = model.apply_in(sessions.entry(who).or_default(), &command);
            sessions.values_mut().for_each(|session| session.changed(model.touched()));
            assert_eq!(format!("{reply:?}"), *expected, "{line}");
        }
    }

    /// Expected replies are those of redis-server 7.0.
    #[test]
    fn transactions_are_those_of_redis() {
        check(&[
            ("a EXEC", "-ERR EXEC without MULTI"),
            ("a DISCARD", "-ERR DISCARD without MULTI"),
            ("a MULTI", "+OK"),
            ("a MULTI", "-ERR MULTI calls can not be nested"),
            ("a WATCH k", "-ERR WATCH inside MULTI is not allowed"),
            ("a SET k v", "+QUEUED"),
            ("a INCRBY k 1", "+QUEUED"),
            ("b GET k", "null"),
            ("a EXEC", "[+OK, -ERR value is not an integer or out of range]"),
            ("b GET k", "\"v\""),
            ("a MULTI", "+OK"),
            ("a GET", "-ERR wrong number of arguments for 'get' command"),
            ("a SET k w", "+QUEUED"),
            ("a EXEC", "-EXECABORT Transaction discarded because of previous errors."),
            ("a MULTI", "+OK"),
            ("a SET k w", "+QUEUED"),
            ("a DISCARD", "+OK"),
            ("a GET k", "\"v\""),
        ]);
    }

    #[test]
    fn a_watched_key_that_was_written_fails_the_transaction_even_if_its_value_stayed() {
        for (write, expected) in [
            ("b SET k v", "null"),
            ("a SET k v", "null"),
            ("b APPEND k w", "null"),
            ("b PEXPIREAT k 9000000000000", "null"),
            ("b DEL k", "null"),
            ("b RENAME k j", "null"),
            ("b RENAME k k", "[+OK]"),
            ("b SET k w NX", "[+OK]"),
            ("b PERSIST k", "[+OK]"),
            ("b DEL other", "[+OK]"),
            ("b FLUSHDB", "null"),
        ] {
            let reply = match write.split_once(' ').expect("who and what").1 {
                "APPEND k w" => ":2",
                "SET k w NX" => "null",
                "PERSIST k" | "DEL other" => ":0",
                write if write.starts_with("PEXP") || write.starts_with("DEL") => ":1",
                _ => "+OK",
            };
            check(&[
                ("a SET k v", "+OK"),
                ("a WATCH k missing", "+OK"),
                (write, reply),
                ("a MULTI", "+OK"),
                ("a SET j 1", "+QUEUED"),
                ("a EXEC", expected),
                ("a MULTI", "+OK"),
                ("a SET j 1", "+QUEUED"),
                ("a EXEC", "[+OK]"),
            ]);
        }
    }
}
