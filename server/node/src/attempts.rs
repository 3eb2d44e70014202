//! Work of the server's own that goes on until it succeeds: which of its runs is another attempt at what failed before.

use ferrite_telemetry::SpanName;

/// A run that follows a failed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    /// Attempts after the first.
    pub count: u32,
    /// Since the end of the attempt before.
    pub delay_ns: u64,
}

/// What one worker has tried in vain of late.
#[derive(Default)]
pub(crate) struct Attempts(Vec<Failed>);

struct Failed {
    name: SpanName,
    count: u32,
    ended_ns: u64,
}

/// Work that is taken up again by itself. All other comes when it is asked for, whatever became of the run before.
fn goes_on(name: SpanName) -> bool {
    matches!(name, SpanName::Flush | SpanName::Compaction)
}

impl Attempts {
    /// A run has ended; monotonic times. Gives whether it was another attempt.
    pub(crate) fn attempt(&mut self, name: SpanName, began_ns: u64, ended_ns: u64, failed: bool) -> Option<Retry> {
        if !goes_on(name) {
            return None;
        }
        let known = self.0.iter().position(|known| known.name == name);
        let before = known.map(|at| self.0.swap_remove(at));
        let count = before.as_ref().map_or(0, |before| before.count + 1);
        if failed {
            self.0.push(Failed { name, count, ended_ns });
        }
        before.map(|before| Retry { count, delay_ns: began_ns.saturating_sub(before.ended_ns) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_after_failed_ones_is_another_attempt_until_one_succeeds() {
        let mut attempts = Attempts::default();
        let mut run = |name, began_ns, failed| attempts.attempt(name, began_ns, began_ns + 5, failed);
        assert_eq!(run(SpanName::Flush, 100, false), None);
        assert_eq!(run(SpanName::Flush, 200, true), None);
        assert_eq!(run(SpanName::Compaction, 210, false), None, "another's failure");
        assert_eq!(run(SpanName::Flush, 215, true), Some(Retry { count: 1, delay_ns: 10 }));
        assert_eq!(run(SpanName::Flush, 240, false), Some(Retry { count: 2, delay_ns: 20 }));
        assert_eq!(run(SpanName::Flush, 300, false), None);
    }

    #[test]
    fn what_is_asked_for_each_time_is_no_attempt_at_the_last_one() {
        let mut attempts = Attempts::default();
        for began_ns in [10, 20] {
            assert_eq!(attempts.attempt(SpanName::Checkpoint, began_ns, began_ns + 1, true), None);
        }
    }
}
