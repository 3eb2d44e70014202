//! Why a file of the log cannot grow for now: a full disk is another matter than one that fails.

#[cfg(not(loom))]
use crate::space::StorageError;
use crate::sync::{AtomicBool, Mutex, Ordering};
#[cfg(not(loom))]
use ferrite_telemetry::StackTrace;
#[cfg(not(loom))]
use std::io;

/// What the last attempt to reserve space for a file met.
#[derive(Default)]
pub(crate) struct Refusal {
    is_refused: AtomicBool,
    /// What the disk says that has space.
    failure: Mutex<Option<String>>,
}

#[cfg(not(loom))]
impl Refusal {
    #[inline]
    pub fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::Acquire)
    }

    /// Refused because there is no space.
    pub fn is_full(&self) -> bool {
        self.is_refused() && self.failure.lock().is_none()
    }

    /// Refused for another reason.
    pub fn is_failing(&self) -> bool {
        self.is_refused() && self.failure.lock().is_some()
    }

    /// False: it was so for a reason of this kind already.
    pub fn set(&self, error: &io::Error) -> bool {
        let failure = (!StorageError::is_full(error)).then(|| error.to_string());
        let mut before = self.failure.lock();
        let is_other = before.is_some() != failure.is_some();
        *before = failure;
        let was_refused = self.is_refused.swap(true, Ordering::AcqRel);
        !was_refused || is_other
    }

    /// The file can grow, or it is tried again. False: it could before.
    pub fn lift(&self) -> bool {
        self.is_refused.swap(false, Ordering::AcqRel)
    }

    /// What a command is told that needs the space.
    pub fn error(&self) -> StorageError {
        let stack = StackTrace::capture();
        match &*self.failure.lock() {
            None => StorageError::Full(stack),
            Some(failure) => StorageError::Failed { message: format!("it cannot grow: {failure}"), stack },
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_one_that_fails_are_told_apart() {
        let refusal = Refusal::default();
        assert!(!refusal.is_refused() && !refusal.is_full() && !refusal.is_failing() && !refusal.lift());
        let error = |code| io::Error::from_raw_os_error(code);
        // ENOSPC, EDQUOT: said once.
        assert!(refusal.set(&error(28)) && !refusal.set(&error(122)));
        assert!(refusal.is_full() && !refusal.is_failing() && matches!(refusal.error(), StorageError::Full(_)));
        // EIO: another matter.
        assert!(refusal.set(&error(5)) && !refusal.set(&error(5)));
        assert!(!refusal.is_full() && refusal.is_failing());
        let text = refusal.error().to_string();
        assert!(text.starts_with("writing the log file fails: it cannot grow: Input/output error"), "{text}");
        assert!(refusal.lift() && !refusal.is_refused() && !refusal.is_failing());
    }
}
