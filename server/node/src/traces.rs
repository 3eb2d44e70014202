//! What OTEL.TRACES and the admin page show: the traces in every worker's flight recorder.

use ferrite_commands::{Searched, TracesQuery, TracesWanted};
use ferrite_otlp::traces_data;
use ferrite_telemetry::{KeptTrace, Keys, SpanName, render};

use crate::node::Node;

/// The lines of the answer; `None`: a key was asked for where none is recorded.
pub(crate) fn answer(node: &Node, query: TracesQuery) -> Option<Vec<String>> {
    let Found { traces, remark } = gather(node, query.wanted)?;
    let resource = if query.json { node.config.telemetry.resource() } else { Vec::new() };
    let mut lines = Vec::new();
    for trace in &traces {
        match query.json {
            true => lines.push(traces_data(trace, &node.shape, &resource).to_string()),
            false => lines.extend(render(trace, &node.shape)),
        }
    }
    // Not among data that a program reads.
    if let Some(remark) = remark.filter(|_| !query.json) {
        lines.insert(0, remark);
    }
    Some(lines)
}

/// Traces, what ended last first.
pub(crate) struct Found {
    pub traces: Vec<KeptTrace>,
    /// What the reader should know of them.
    pub remark: Option<String>,
}

/// `None`: a key was asked for where none is recorded.
pub(crate) fn gather(node: &Node, wanted: TracesWanted) -> Option<Found> {
    let mut remark = None;
    let traces = match wanted {
        TracesWanted::Last(count) => {
            let mut traces = node.traces(|ring| ring.last(count));
            keep_last(&mut traces, count, |trace| trace.name() == SpanName::Command);
            traces
        }
        TracesWanted::Get(id) => node.traces_beside(|ring| ring.find(id), node.pins.find(id)),
        TracesWanted::Search(Searched { mut filter, tenant, count }) => {
            if let Some(key) = filter.keys.pop() {
                let recorded;
                (recorded, remark) = as_recorded(key, node.keys)?;
                filter.keys = recorded;
            }
            filter.baggage = tenant.map(|tenant| (node.config.telemetry.sampling.tenant_key.clone(), tenant));
            let mut traces = node.traces_beside(|ring| ring.search(&filter, count), node.pins.search(&filter));
            traces.truncate(count);
            traces
        }
    };
    Some(Found { traces, remark })
}

/// What a key may have been recorded as, with a remark if that is not the key; `None`: not at all.
fn as_recorded(key: Vec<u8>, keys: Keys) -> Option<(Vec<Vec<u8>>, Option<String>)> {
    let hash = keys.shown(&key)?.into_owned();
    if hash == key {
        return Some((vec![key], None));
    }
    let remark = format!("keys are recorded as hashes: this one as {}", String::from_utf8_lossy(&hash));
    Some((vec![hash, key], Some(remark)))
}

/// Keeps the first `count` commands and what lies between them, but of that as many at most: who asks for the last command
/// gets it, though its connection has ended since, and however many others have come and gone.
fn keep_last<T>(traces: &mut Vec<T>, count: usize, is_command: impl Fn(&T) -> bool) {
    let (mut commands, mut others) = (0, 0);
    traces.retain(|trace| {
        let is_command = is_command(trace);
        let wanted = commands < count && (is_command || (commands > 0 && others < count));
        commands += usize::from(is_command);
        others += usize::from(!is_command && wanted);
        wanted
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_counted_and_connections_among_them_are_shown() {
        let kept = |traces: &str, count| {
            let mut traces: Vec<char> = traces.chars().collect();
            keep_last(&mut traces, count, |trace| *trace == 'g');
            traces.into_iter().collect::<String>()
        };
        assert_eq!(kept("gcg", 1), "g");
        assert_eq!(kept("cgcg", 1), "g");
        assert_eq!(kept("cgcgcg", 2), "gcg");
        assert_eq!(kept("gccccgg", 2), "gccg");
        assert_eq!(kept("cc", 2), "");
        assert_eq!(kept("", 3), "");
    }

    #[test]
    fn a_key_is_looked_for_as_it_was_recorded() {
        let key = b"user:1".to_vec();
        assert_eq!(as_recorded(key.clone(), Keys::Shown), Some((vec![key.clone()], None)));
        assert_eq!(as_recorded(key.clone(), Keys::Dropped), None);
        let (recorded, remark) = as_recorded(key.clone(), Keys::hashed("s")).expect("hashes are recorded");
        // Who has read the hash somewhere may look for that, too.
        assert!(recorded[0].starts_with(b"#") && recorded[1] == key);
        assert!(remark.is_some_and(|remark| remark.ends_with(std::str::from_utf8(&recorded[0]).expect("ASCII"))));
    }
}
