//! What one client may expect of its keys: exact while replies come, a choice of prefixes after a lost connection.

use super::{Command, Dump, Model};
use crate::resp::{Reply, Shown, show_command};

/// The oracle of one client that alone writes its keys and sends its commands on one connection at a time.
#[derive(Clone, Debug, Default)]
pub struct ClientView {
    /// The state after every answered command.
    model: Model,
    /// Sent and not answered, in order.
    unanswered: Vec<Command>,
}

impl ClientView {
    /// No keys, nothing sent.
    pub fn new() -> Self {
        Self::default()
    }

    /// No keys, nothing sent, on a server whose log has pages of that size.
    pub fn with_page_size(bytes: usize) -> Self {
        Self { model: Model::new().with_page_size(bytes), unanswered: Vec::new() }
    }

    /// That content, nothing sent.
    pub fn with_expected(expected: Dump) -> Self {
        Self { model: Model::from_dump(expected), unanswered: Vec::new() }
    }

    /// A command is on its way.
    pub fn sent(&mut self, command: Command) {
        self.unanswered.push(command);
    }

    /// The reply to the oldest unanswered command has come.
    pub fn answered(&mut self, reply: &Reply) -> Result<(), String> {
        assert!(!self.unanswered.is_empty(), "a reply answers a command");
        let command = self.unanswered.remove(0);
        let expected = self.model.apply(&command);
        // RESP3's maps are RESP2's flat arrays.
        let flat = match reply {
            Reply::Other('%', items) => &Reply::Array(items.clone()),
            reply => reply,
        };
        if expected == *flat {
            return Ok(());
        }
        Err(format!("{} was answered with {reply:?}, expected {expected:?}", show_command(&command)))
    }

    /// The oldest unanswered command was refused and has changed nothing.
    pub fn refused(&mut self) {
        assert!(!self.unanswered.is_empty(), "a reply answers a command");
        self.unanswered.remove(0);
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
    /// ones in their order. Returns how many of these had happened; from there the view goes on.
    ///
    /// Right for `appendfsync always`, and for every policy while no power was lost.
    pub fn resolve(&mut self, found: &Dump) -> Result<usize, String> {
        let mut state = self.model.clone();
        let unanswered = std::mem::take(&mut self.unanswered);
        let mut fits = None;
        for (count, command) in unanswered.iter().enumerate() {
            if state.dump() == found {
                fits = Some(count);
                break;
            }
            state.apply(command);
        }
        if fits.is_none() && state.dump() == found {
            fits = Some(unanswered.len());
        }
        let Some(count) = fits else {
            return Err(self.explain(found, &unanswered));
        };
        self.model = state;
        Ok(count)
    }

    fn explain(&self, found: &Dump, unanswered: &[Command]) -> String {
        let expected = self.model.dump();
        let mut text = "no prefix of the unanswered commands explains the data:".to_string();
        let keys: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
        for key in keys {
            let (was, is) = (expected.get(key), found.get(key));
            if was != is {
                let show = |value: Option<&super::Value>| value.map_or("nothing".to_string(), ToString::to_string);
                text += &format!("\n  {}: acknowledged {}, found {}", Shown(key), show(was), show(is));
            }
        }
        for command in unanswered {
            text += &format!("\n  unanswered: {}", show_command(command));
        }
        text
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
        pairs.iter().map(|(key, value)| (key.as_bytes().to_vec(), string(value))).collect()
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
    fn a_lost_acknowledged_write_and_a_reordering_are_found() {
        for found in [dump(&[]), dump(&[("a", "3")]), dump(&[("a", "1"), ("b", "")])] {
            let why = in_doubt().resolve(&found).expect_err("impossible state");
            assert!(why.contains("unanswered: \"SET\" \"b\" \"2\""), "{why}");
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
