//! What one client may expect of its keys: exact while replies come, a choice of prefixes after a lost connection.

use std::collections::BTreeSet;

use super::{Command, Dump, Model, Session};
use crate::resp::{Reply, Shown, show_command};

/// The oracle of one client that alone writes its keys and sends its commands on one connection at a time.
#[derive(Clone, Debug, Default)]
pub struct ClientView {
    /// The state after every answered command, of the data and of the connection.
    model: Model,
    session: Session,
    /// Sent and not answered, in order.
    unanswered: Vec<Command>,
}

impl ClientView {
    /// No keys, nothing sent.
    pub fn new() -> Self {
        Self::default()
    }

    /// That content, nothing sent.
    pub fn with_expected(expected: Dump) -> Self {
        Self { model: Model::from_dump(expected), ..Self::default() }
    }

    /// A command is on its way.
    pub fn sent(&mut self, command: Command) {
        self.unanswered.push(command);
    }

    /// The reply to the oldest unanswered command has come.
    pub fn answered(&mut self, reply: &Reply) -> Result<(), String> {
        assert!(!self.unanswered.is_empty(), "a reply answers a command");
        let command = self.unanswered.remove(0);
        if is_exec(&command) && Session::is_refusal(reply) {
            self.session.refused();
            return Ok(());
        }
        let expected = apply(&mut self.model, &mut self.session, &command);
        if expected == flat(reply) {
            return Ok(());
        }
        Err(format!("{} was answered with {reply:?}, expected {expected:?}", show_command(&command)))
    }

    /// The oldest unanswered command was refused and has changed nothing. A transaction whose EXEC is refused is over.
    pub fn refused(&mut self) {
        assert!(!self.unanswered.is_empty(), "a reply answers a command");
        if is_exec(&self.unanswered.remove(0)) {
            self.session.refused();
        }
    }

    /// True if the connection was lost before every reply had come.
    pub fn is_in_doubt(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// The expected content; exact only when nothing is in doubt.
    pub fn expected(&self) -> &Dump {
        self.model.dump()
    }

    /// Compares what the server holds with what it may hold: every answered command, then any number of the unanswered
    /// ones in their order. Returns how many of these had happened; from there the view goes on, on a new connection.
    ///
    /// Right for `appendfsync always`, and for every policy while no power was lost.
    pub fn resolve(&mut self, found: &Dump) -> Result<usize, String> {
        let unanswered = std::mem::take(&mut self.unanswered);
        let mut states = BTreeSet::from([(self.model.clone(), std::mem::take(&mut self.session))]);
        for count in 0..=unanswered.len() {
            if let Some((model, _)) = states.iter().find(|(model, _)| model.dump() == found) {
                self.model = model.clone();
                return Ok(count);
            }
            let Some(command) = unanswered.get(count) else { break };
            let mut next = BTreeSet::new();
            for (mut model, mut session) in states {
                if is_exec(command) && session.is_open() {
                    // Perhaps there was not the room for it.
                    next.insert((model.clone(), Session::default()));
                }
                apply(&mut model, &mut session, command);
                next.insert((model, session));
            }
            states = next;
        }
        Err(self.explain(found, &unanswered))
    }

    fn explain(&self, found: &Dump, unanswered: &[Command]) -> String {
        let expected = self.model.dump();
        let mut text = "no prefix of the unanswered commands explains the data:".to_string();
        let keys: BTreeSet<_> = expected.values.keys().chain(found.values.keys()).collect();
        for key in keys {
            let in_both = [expected, found].map(|dump| (dump.values.get(key), dump.expiries.get(key)));
            if in_both[0] != in_both[1] {
                let [was, is] = in_both.map(|(value, expiry)| {
                    let value = value.map_or("nothing".to_string(), ToString::to_string);
                    expiry.map_or(value.clone(), |at| format!("{value} until {at}"))
                });
                text += &format!("\n  {}: acknowledged {was}, found {is}", Shown(key));
            }
        }
        for command in unanswered {
            text += &format!("\n  unanswered: {}", show_command(command));
        }
        text
    }
}

/// Whether the command ends a transaction by running it.
pub(crate) fn is_exec(command: &Command) -> bool {
    command[0].eq_ignore_ascii_case(b"EXEC")
}

fn apply(model: &mut Model, session: &mut Session, command: &Command) -> Reply {
    let reply = model.apply_in(session, command);
    session.changed(model.touched());
    reply
}

/// RESP3's maps as RESP2's flat arrays, within EXEC's reply too.
pub(crate) fn flat(reply: &Reply) -> Reply {
    match reply {
        Reply::Array(items) | Reply::Other('%', items) => Reply::Array(items.iter().map(flat).collect()),
        reply => reply.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;

    fn command(line: &str) -> Command {
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    fn dump(pairs: &[(&str, &str)]) -> Dump {
        let string = |value: &str| Value::String(value.as_bytes().to_vec());
        let values = pairs.iter().map(|(key, value)| (key.as_bytes().to_vec(), string(value))).collect();
        Dump { values, ..Dump::default() }
    }

    fn in_doubt() -> ClientView {
        let mut view = ClientView::new();
        view.sent(command("SET a 1"));
        view.answered(&Reply::ok()).expect("as expected");
        view.sent(command("SET b 2"));
        view.sent(command("SET a 3"));
        view
    }

    #[test]
    fn any_prefix_of_the_unanswered_commands_may_have_happened() {
        for (found, count) in
            [(dump(&[("a", "1")]), 0), (dump(&[("a", "1"), ("b", "2")]), 1), (dump(&[("a", "3"), ("b", "2")]), 2)]
        {
            let mut view = in_doubt();
            assert_eq!(view.resolve(&found), Ok(count));
            assert_eq!(view.expected(), &found);
            assert!(!view.is_in_doubt());
        }
    }

    #[test]
    fn another_order_of_fields_is_found() {
        let mut view = ClientView::new();
        for (line, reply) in [("HSET h a 1 b 2", Reply::Int(2)), ("SET k v", Reply::ok())] {
            view.sent(command(line));
            view.answered(&reply).expect("as expected");
        }
        let pair = |field: &str, value: &str| (field.as_bytes().to_vec(), value.as_bytes().to_vec());
        let mut found = dump(&[("k", "v")]);
        found.values.insert(b"h".to_vec(), Value::Hash(vec![pair("a", "1"), pair("b", "2")]));
        view.resolve(&found).expect("as they were added");
        assert_eq!(view.expected(), &found);
        found.values.insert(b"h".to_vec(), Value::Hash(vec![pair("b", "2"), pair("a", "1")]));
        view.resolve(&found).expect_err("Redis keeps their order, too");
    }

    #[test]
    fn a_lost_acknowledged_write_and_a_reordering_are_found() {
        for found in [dump(&[]), dump(&[("a", "3")]), dump(&[("a", "1"), ("b", "")])] {
            let why = in_doubt().resolve(&found).expect_err("impossible state");
            assert!(why.contains("unanswered: \"SET\" \"b\" \"2\""), "{why}");
        }
    }

    #[test]
    fn a_transaction_happened_as_a_whole_or_not_at_all() {
        for (found, fits) in [
            (dump(&[]), true),
            (dump(&[("a", "1"), ("b", "2")]), true),
            (dump(&[("a", "1"), ("b", "2"), ("c", "3")]), true),
            (dump(&[("a", "1")]), false),
            (dump(&[("b", "2")]), false),
            // Refused for want of room: what was sent behind it happened.
            (dump(&[("c", "3")]), true),
        ] {
            let mut view = ClientView::new();
            view.sent(command("MULTI"));
            view.answered(&Reply::ok()).expect("as expected");
            for line in ["SET a 1", "SET b 2", "EXEC", "SET c 3"] {
                view.sent(command(line));
            }
            assert_eq!(view.resolve(&found).is_ok(), fits, "{found:?}");
        }
    }

    #[test]
    fn a_wrong_reply_is_named_with_its_command() {
        let mut view = ClientView::new();
        view.sent(command("GET a"));
        let why = view.answered(&Reply::ok()).expect_err("the key is missing");
        assert_eq!(why, "\"GET\" \"a\" was answered with +OK, expected null");
    }
}
