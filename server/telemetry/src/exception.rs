//! Unexpected failures, as the events of a trace tell them.

use std::backtrace::Backtrace;
use std::fmt;
use std::sync::Arc;

use crate::schema::ExceptionType;

/// Bytes of a stack trace that are kept: the innermost thirty frames or so.
const STACK_BYTES_MAX: usize = 4096;

/// Where a failure was noticed: taken where an operating system's error, or data that cannot be, becomes an error of ours.
/// Names and places are looked up when it is written, not before.
#[derive(Clone)]
pub struct StackTrace(Arc<Backtrace>);

impl StackTrace {
    /// The stack of the caller.
    #[cold]
    pub fn capture() -> Self {
        Self(Arc::new(Backtrace::force_capture()))
    }
}

/// One frame a paragraph, the innermost first, from the first of Ferrite's own on.
impl fmt::Display for StackTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.to_string();
        let own = all.lines().position(|line| line.contains(": ferrite") && !line.contains("StackTrace"));
        let mut bytes = 0;
        for (at, line) in all.lines().skip(own.unwrap_or_default()).enumerate() {
            bytes += line.len() + 1;
            if bytes > STACK_BYTES_MAX {
                break;
            }
            let gap = if at == 0 { "" } else { "\n" };
            write!(f, "{gap}{line}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for StackTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StackTrace")
    }
}

/// Errors are the same wherever they were noticed.
impl PartialEq for StackTrace {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for StackTrace {}

/// What an `exception` event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    pub kind: ExceptionType,
    pub message: String,
    /// Looking its names up takes time: `None` where many such failures come one after the other.
    pub stack: Option<StackTrace>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn notices() -> StackTrace {
        StackTrace::capture()
    }

    #[test]
    fn a_stack_trace_begins_where_the_failure_was_noticed_and_is_bounded() {
        let text = notices().to_string();
        let first = text.lines().next().expect("frames");
        assert!(first.contains("ferrite_telemetry::exception::tests::notices"), "{text}");
        assert!(text.contains("a_stack_trace_begins_where"), "{text}");
        fn deep(left: usize) -> StackTrace {
            let stack = if left == 0 { notices() } else { deep(left - 1) };
            std::hint::black_box(&stack);
            stack
        }
        let text = deep(200).to_string();
        assert!((2000..=STACK_BYTES_MAX).contains(&text.len()), "{}", text.len());
    }
}
