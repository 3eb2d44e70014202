//! The oracle of keys that several connections share: is there an order of all commands, within which each takes its moment
//! between its sending and its answer, that explains every reply (Herlihy and Wing, "Linearizability", 1990)?
//!
//! The search puts commands into an order only when a reply demands it (Lowe, "Testing for linearizability", 2017): it keeps
//! every state that the database may be in, and at each reply goes on with those in which the command has happened with that
//! very reply. A state is the whole database with full payloads and every connection's transaction, so that commands over
//! several keys, MULTI and WATCH are checked like any other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::model::{Command, Model, Session, flat, is_exec};
use crate::resp::{Reply, show_command};

/// What happened to one of the connections, which are numbered by the caller.
#[derive(Clone, Debug)]
enum Happened {
    Sent(Command),
    /// The oldest command of this connection without an answer has this one.
    Answered(Reply),
    /// What has not happened of its commands will not happen any more.
    Over,
}

/// Everything that happened, in order.
#[derive(Clone, Debug, Default)]
pub struct History {
    events: Vec<(usize, Happened)>,
}

impl History {
    /// A connection sends a command.
    pub fn sent(&mut self, connection: usize, command: Command) {
        self.events.push((connection, Happened::Sent(command)));
    }

    /// A reply to the oldest command of the connection that has none has come.
    pub fn answered(&mut self, connection: usize, reply: &Reply) {
        self.events.push((connection, Happened::Answered(flat(reply))));
    }

    /// The connection is gone, and the server is done with it: what it has not answered has happened by now, or never will.
    pub fn over(&mut self, connection: usize) {
        self.events.push((connection, Happened::Over));
    }

    /// Commands sent.
    pub fn commands(&self) -> usize {
        self.events.iter().filter(|(_, happened)| matches!(happened, Happened::Sent(_))).count()
    }

    /// Checks that an order of the commands explains all replies, from an empty database on. Gives the greatest number of
    /// states that it might have been in.
    ///
    /// # Errors
    /// The first reply that no order explains, and what led to it.
    pub fn check(&self) -> Result<usize, String> {
        let replies = self.replies();
        let mut search = Search { states: BTreeSet::from([State::default()]), waiting: BTreeMap::new() };
        let mut widest = 1;
        for (at, (connection, happened)) in self.events.iter().enumerate() {
            match happened {
                Happened::Sent(command) => {
                    let sent = Sent { command: command.clone(), reply: replies[at].clone() };
                    search.waiting.entry(*connection).or_default().push_back(sent);
                }
                Happened::Answered(_) => {
                    let before = search.states.clone();
                    search.answer(*connection);
                    if search.states.is_empty() {
                        return Err(self.explain(at, &search, &before));
                    }
                }
                Happened::Over => search.end(*connection),
            }
            widest = widest.max(search.states.len());
            if widest > STATES_MAX {
                return Err(format!("more than {STATES_MAX} states: too many connections were lost to say anything"));
            }
        }
        Ok(widest)
    }

    /// For each event that is a sending, the reply that will come.
    fn replies(&self) -> Vec<Option<Reply>> {
        let mut replies = vec![None; self.events.len()];
        let mut waiting: BTreeMap<usize, VecDeque<usize>> = BTreeMap::new();
        for (at, (connection, happened)) in self.events.iter().enumerate() {
            let waiting = waiting.entry(*connection).or_default();
            match happened {
                Happened::Sent(_) => waiting.push_back(at),
                Happened::Answered(reply) => {
                    replies[waiting.pop_front().expect("a reply answers a command")] = Some(reply.clone());
                }
                Happened::Over => waiting.clear(),
            }
        }
        replies
    }

    fn explain(&self, at: usize, search: &Search, before: &BTreeSet<State>) -> String {
        let (connection, Happened::Answered(reply)) = &self.events[at] else {
            unreachable!("a reply was not explained")
        };
        let command = &search.waiting[connection][0].command;
        let mut text = format!(
            "no order of the commands explains connection {connection}: {} was answered with {reply:?}",
            show_command(command)
        );
        let names: BTreeSet<&[u8]> = command[1..].iter().map(Vec::as_slice).collect();
        for state in before.iter().take(STATES_SHOWN) {
            let mut held: Vec<String> = Vec::new();
            for (key, value) in state.model.dump().values.iter().filter(|(key, _)| names.contains(key.as_slice())) {
                held.push(format!("{} = {value}", key.escape_ascii()));
            }
            text += &format!("\n  before, it may have held: {}", held.join(", "));
        }
        for (other, waiting) in &search.waiting {
            for sent in waiting {
                text += &format!("\n  at the same time, connection {other}: {}", show_command(&sent.command));
            }
        }
        for (connection, happened) in self.events[..at].iter().rev().take(EVENTS_SHOWN).rev() {
            let what = match happened {
                Happened::Sent(command) => format!("sends {}", show_command(command)),
                Happened::Answered(reply) => format!("is answered with {reply:?}"),
                Happened::Over => "is over".to_owned(),
            };
            text += &format!("\n  connection {connection} {what}");
        }
        text
    }
}

/// More than this, and a seed would take minutes.
const STATES_MAX: usize = 20_000;
const STATES_SHOWN: usize = 3;
const EVENTS_SHOWN: usize = 40;

#[derive(Clone, Debug)]
struct Sent {
    command: Command,
    /// `None`: it was lost.
    reply: Option<Reply>,
}

/// One way in which everything so far may have happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    model: Model,
    sessions: BTreeMap<usize, Session>,
    /// How many of a connection's waiting commands have happened.
    ahead: BTreeMap<usize, usize>,
}

struct Search {
    states: BTreeSet<State>,
    /// Commands without an answer, by connection, in their order.
    waiting: BTreeMap<usize, VecDeque<Sent>>,
}

impl Search {
    /// The oldest command of this connection is answered: it has happened by now.
    fn answer(&mut self, connection: usize) {
        let mut reached = BTreeSet::new();
        let mut seen = self.states.clone();
        let mut left: Vec<State> = std::mem::take(&mut self.states).into_iter().collect();
        while let Some(mut state) = left.pop() {
            if let Some(ahead) = state.ahead.get_mut(&connection) {
                *ahead -= 1;
                if *ahead == 0 {
                    state.ahead.remove(&connection);
                }
                reached.insert(state);
                continue;
            }
            for (_, state) in self.steps(&state) {
                if seen.insert(state.clone()) {
                    left.push(state);
                }
            }
        }
        self.states = reached;
        if !self.states.is_empty() {
            self.waiting.get_mut(&connection).expect("a reply answers a command").pop_front();
        }
    }

    /// Of this connection nothing will happen any more; what is not answered may have happened just before.
    fn end(&mut self, connection: usize) {
        let mut ended = self.states.clone();
        let mut seen = self.states.clone();
        let mut left: Vec<State> = std::mem::take(&mut self.states).into_iter().collect();
        let lost = self.waiting.get(&connection).is_some_and(|waiting| !waiting.is_empty());
        while let Some(state) = left.pop().filter(|_| lost) {
            for (other, state) in self.steps(&state) {
                if seen.insert(state.clone()) {
                    if other == connection {
                        ended.insert(state.clone());
                    }
                    left.push(state);
                }
            }
        }
        self.waiting.remove(&connection);
        self.states = ended
            .into_iter()
            .map(|mut state| {
                state.ahead.remove(&connection);
                state.sessions.remove(&connection);
                state
            })
            .collect();
    }

    /// What may happen next, and by whose command.
    fn steps(&self, state: &State) -> Vec<(usize, State)> {
        let mut steps = Vec::new();
        for (&connection, waiting) in &self.waiting {
            if let Some(next) = waiting.get(state.ahead.get(&connection).copied().unwrap_or(0)) {
                steps.extend(state.after(connection, next).into_iter().map(|state| (connection, state)));
            }
        }
        steps
    }
}

impl State {
    /// The states after the connection's next command, if it can be answered as it was.
    fn after(&self, connection: usize, sent: &Sent) -> Vec<State> {
        let mut next = self.clone();
        *next.ahead.entry(connection).or_default() += 1;
        let mut states = Vec::new();
        let refusal = sent.reply.as_ref().is_some_and(Session::is_refusal);
        if is_exec(&sent.command) && (sent.reply.is_none() || refusal) {
            let mut refused = next.clone();
            refused.sessions.remove(&connection);
            states.push(refused);
        }
        let session = next.sessions.entry(connection).or_default();
        let reply = next.model.apply_in(session, &sent.command);
        if sent.reply.as_ref().is_none_or(|seen| *seen == reply) && !refusal {
            let touched = next.model.take_touched();
            next.sessions.values_mut().for_each(|session| session.changed(&touched));
            next.sessions.retain(|_, session| *session != Session::default());
            states.push(next);
        }
        states
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of `connection > command`, `connection < reply` (as [`Reply`] shows itself), `connection over`.
    fn check(lines: &[&str]) -> Result<usize, String> {
        let mut history = History::default();
        for line in lines {
            let (connection, rest) = line.split_once(' ').expect("a connection and what happened");
            let connection = connection.parse().expect("a number");
            match rest.split_once(' ') {
                None => history.over(connection),
                Some((">", command)) => {
                    history.sent(connection, command.split(' ').map(|word| word.as_bytes().to_vec()).collect());
                }
                Some((_, "null")) => history.answered(connection, &Reply::Null),
                Some((_, "queued")) => history.answered(connection, &Reply::Simple("QUEUED".to_owned())),
                Some((_, "[ok]")) => history.answered(connection, &Reply::Array(vec![Reply::ok()])),
                Some((_, "ok")) => history.answered(connection, &Reply::ok()),
                Some((_, text)) => match text.strip_prefix(':') {
                    Some(number) => history.answered(connection, &Reply::Int(number.parse().expect("a number"))),
                    None => history.answered(connection, &Reply::Bulk(text.as_bytes().to_vec())),
                },
            }
        }
        history.check()
    }

    #[test]
    fn commands_at_the_same_time_may_happen_in_any_order() {
        for seen in ["1", "2"] {
            check(&["0 > SET k 1", "1 > SET k 2", "1 < ok", "0 < ok", "2 > GET k", &format!("2 < {seen}")])
                .expect("either");
        }
        check(&["0 > SET k 1", "1 > GET k", "1 < null", "1 > GET k", "1 < 1", "0 < ok"]).expect("between both reads");
        check(&["0 > INCRBY n 1", "1 > INCRBY n 1", "1 < :1", "0 < :2"]).expect("the later answer came first");
    }

    #[test]
    fn what_no_order_explains_is_found() {
        for lines in [
            // A read of what was overwritten before it began.
            &["0 > SET k 1", "0 < ok", "1 > SET k 2", "1 < ok", "2 > GET k", "2 < 1"][..],
            // A value that appears, and is gone again.
            &["0 > SET k 1", "1 > GET k", "1 < 1", "2 > GET k", "2 < null", "0 < ok"],
            // A lost update.
            &["0 > INCRBY n 1", "1 > INCRBY n 1", "1 < :1", "0 < :1"],
            // One connection's commands out of their order.
            &["0 > SET k 1", "0 > SET k 2", "0 < ok", "0 < ok", "1 > GET k", "1 < 1"],
            // A later command of a pipeline seen by an earlier one.
            &["0 > GET k", "0 > SET k 1", "0 < 1", "0 < ok"],
            // A payload that is nobody's.
            &["0 > SET k 1", "1 > GET k", "1 < 3"],
            // Of two reads at the same time as a write, the later one sees less.
            &["0 > SET k 1", "1 > GET k", "1 > GET k", "1 < 1", "1 < null", "0 < ok"],
        ] {
            let why = check(lines).expect_err("impossible");
            assert!(why.contains("no order of the commands explains connection"), "{why}");
        }
    }

    #[test]
    fn a_lost_command_has_happened_or_not_but_not_after_its_connection_is_over() {
        let lost = |over: &'static [&'static str], seen: &str| {
            let seen = format!("1 < {seen}");
            check(&[&["0 > SET k 1", "0 > SET j 2"], over, &["1 > GET k", &seen]].concat())
        };
        for over in [&[][..], &["0 over"]] {
            lost(over, "null").expect("it was lost");
            lost(over, "1").expect("it happened");
        }
        check(&["0 > SET k 1", "1 > GET k", "1 < null", "1 > GET k", "1 < 1"]).expect("it happened late");
        check(&["0 > SET k 1", "1 > GET k", "1 < null", "0 over", "1 > GET k", "1 < 1"])
            .expect("it happened before the end");
        check(&["0 > SET k 1", "0 over", "1 > GET k", "1 < null", "1 > GET k", "1 < 1"]).expect_err("it was over");
        check(&["0 > SET k 1", "0 > SET k 2", "0 over", "1 > GET k", "1 < 2"]).expect("both happened");
        check(&["0 > SET k 1", "0 > SET j 2", "0 over", "1 > GET j", "1 < 2", "1 > GET k", "1 < null"])
            .expect_err("the second without the first");
    }

    #[test]
    fn transactions_are_one_moment_and_watch_sees_what_lies_between() {
        let before = ["0 > WATCH k", "0 < ok", "0 > MULTI", "0 < ok", "0 > SET k 1", "0 < queued"];
        let with = |other: &[&'static str], end: &[&'static str]| check(&[&before, other, end].concat());
        let (other, exec) = (["1 > SET k 2", "1 < ok"], ["0 > EXEC", "0 < [ok]"]);
        with(&[], &exec).expect("nobody else wrote");
        with(&other, &exec).expect_err("somebody did");
        with(&other, &["0 > EXEC", "0 < null"]).expect("as it has to be");
        with(&[], &["0 > EXEC", "0 < null"]).expect_err("nobody else wrote");
        // At the same time: either.
        for reply in ["0 < [ok]", "0 < null"] {
            with(&["1 > SET k 2", "0 > EXEC"], &[reply, "1 < ok"]).expect("either");
        }
    }
}
