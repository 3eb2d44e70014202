//! What a reader of the flight recorder looks for. Matched on the recorded structs, so that nothing is made of what does not
//! match.

use crate::batch::Batch;
use crate::record::{CHILD_FAILED, CommandRecord, FINISHED, HAS_KEY};
use crate::schema::{Outcome, SpanName, Tier};
use crate::values;

/// What is looked for. A part that is not given matches every trace; of a transaction it is enough that one of its commands
/// matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceFilter {
    /// A command's name in upper case: `GET`, `CONFIG SET`, or `CONFIG` with all its subcommands. What is no command has the
    /// name of its span, or that without its prefix: `CONNECTION`, `FLUSH`.
    pub command: Option<String>,
    /// One of these keys as they were recorded; a `*` at the end stands for any rest. Empty: any.
    pub keys: Vec<Vec<u8>>,
    /// As CLIENT ID gives it.
    pub connection: Option<u64>,
    /// Execution and waits for the disk, as SLOWLOG counts them; of the server's own work all of its time. No connection has
    /// any, however long it lasted.
    pub duration_min_ns: u64,
    /// Only what failed.
    pub failed: bool,
    /// A value was found or written there.
    pub tier: Option<Tier>,
    /// A member of the caller's baggage that was taken, and its value.
    pub baggage: Option<(String, String)>,
}

impl TraceFilter {
    /// Whether the trace with this root is looked for. `tiers`: those of [`tiers`] for this batch, if a tier is asked for.
    pub(crate) fn matches(&self, batch: &Batch<'_>, root: usize, tiers: &[u8]) -> bool {
        let command = &batch.commands[root];
        if self.duration_min_ns > 0 && duration_ns(command) < self.duration_min_ns {
            return false;
        }
        if self.tier.is_some_and(|tier| tiers.get(root).is_none_or(|seen| seen & bit(tier) == 0)) {
            return false;
        }
        if let Some((key, value)) = &self.baggage {
            let taken = batch.rare_of(command).map_or(&[][..], |rare| batch.text(rare.baggage_at, rare.baggage_len));
            if values::baggage_value(taken, key) != Some(value.as_bytes()) {
                return false;
            }
        }
        if self.command.is_none() && self.keys.is_empty() && !self.failed {
            return true;
        }
        let nested = if command.nested == 0 { &batch.commands[root..=root] } else { batch.commands };
        nested.iter().filter(|part| usize::from(part.root) == root).any(|part| self.matches_one(batch, part))
    }

    fn matches_one(&self, batch: &Batch<'_>, command: &CommandRecord) -> bool {
        let failed = command.has(FINISHED) && command.result == Outcome::Err as u8;
        if self.failed && !failed && !command.has(CHILD_FAILED) {
            return false;
        }
        if command.name() != SpanName::Command {
            let is_called = |wanted: &String| is_called(command.name(), wanted);
            return self.keys.is_empty() && self.command.as_ref().is_none_or(is_called);
        }
        let statement = batch.text(command.statement_at, command.statement_len);
        let (name, keys) = statement.split_at(usize::from(command.name_len).min(statement.len()));
        let named = self.command.as_ref().is_none_or(|wanted| {
            // A container stands for its subcommands.
            name.strip_prefix(wanted.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b' ')
        });
        named && (self.keys.is_empty() || self.keys.iter().any(|key| has_key(key, keys, batch, command)))
    }

    pub(crate) fn asks_for_tiers(&self) -> bool {
        self.tier.is_some()
    }
}

/// `keys`: those of the statement, each behind a blank.
fn has_key(wanted: &[u8], keys: &[u8], batch: &Batch<'_>, command: &CommandRecord) -> bool {
    let matches = |key: &[u8]| match wanted {
        [beginning @ .., b'*'] => key.starts_with(beginning),
        _ => key == wanted,
    };
    if !command.has(HAS_KEY) {
        return false;
    }
    let further = batch.further_key_lens(command).into_iter().flatten();
    let mut at = 0;
    std::iter::once(usize::from(command.key_len)).chain(further).any(|len| {
        let key = keys.get(at + 1..at + 1 + len);
        at += 1 + len;
        key.is_some_and(matches)
    })
}

fn is_called(name: SpanName, wanted: &str) -> bool {
    let name = name.as_str();
    let short = name.split_once('.').map_or(name, |(_, short)| short);
    name.eq_ignore_ascii_case(wanted) || short.eq_ignore_ascii_case(wanted)
}

fn duration_ns(command: &CommandRecord) -> u64 {
    match command.name() {
        SpanName::Command => command.execution_ns,
        SpanName::Connection => 0,
        _ => command.end.saturating_sub(command.start),
    }
}

fn bit(tier: Tier) -> u8 {
    1 << tier as u8
}

/// In which tiers the tree of each root found or wrote a value, a bit each, by the root's index.
pub(crate) fn tiers(batch: &Batch<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.resize(batch.commands.len(), 0);
    for record in batch.records {
        let read = record.is(SpanName::StorageRead) && (record.tier() == Tier::Disk || record.value_bytes().is_some());
        if read || record.is(SpanName::StorageWrite) {
            let root = batch.commands[usize::from(record.owner())].root;
            out[usize::from(root)] |= bit(record.tier());
        }
    }
}
