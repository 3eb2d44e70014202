//! When a write has to wait or is refused: reasons and errors.

use ferrite_telemetry::schema::ExceptionType;
use ferrite_telemetry::{Exception, StackTrace};
use std::io;

/// Why a write cannot go ahead now. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeedReason {
    /// No free page in memory: wait for the flush.
    Memory,
    /// No space reserved in the log file.
    LogFile,
    /// No space reserved in the append-only file.
    AofFile,
    /// Too many bytes of large values wait for the flush.
    ObjectMemory,
    /// No space promised in the file of extents, where large values go.
    ObjectFile,
    /// The large value is being written as it is, and too large to be copied for a change meanwhile.
    ObjectUnwritten { id: u64 },
    /// The same, for a record that the value has left since.
    ObjectShared { id: u64 },
    /// Waiting does not help: no value has more than `max` bytes.
    ValueTooLarge { max: usize },
    /// Waiting does not help: the command's writes, which must all be possible before the first of them, have keys and
    /// values of more than `max` bytes.
    BurstTooLarge { max: usize },
}

/// What a write lacks. Wait with [`crate::Store::wait_for_space`], then run the command again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeedSpace {
    pub reason: NeedReason,
    /// What was asked for: log pages in bytes, bytes of a frame, of the value, or of all the command's keys and values.
    pub bytes: usize,
}

/// A value (or a key) longer than any may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a value of {bytes} bytes is too long: at most {max} bytes are stored under a key")]
pub struct ValueTooLarge {
    pub bytes: usize,
    pub max: usize,
}

/// A command that would write too much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the command writes up to {bytes} bytes of keys and values at once and at most {max} bytes fit into memory: split it into \
     smaller ones, or raise storage.mutable_region_size_mb"
)]
pub struct BurstTooLarge {
    pub bytes: usize,
    pub max: usize,
}

impl From<ValueTooLarge> for NeedSpace {
    fn from(error: ValueTooLarge) -> Self {
        Self { reason: NeedReason::ValueTooLarge { max: error.max }, bytes: error.bytes }
    }
}

/// Why waiting for space failed, or the log file could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    #[error("no space left on the disk of the log file")]
    Full(StackTrace),
    #[error("writing the log file fails: {message}")]
    Failed { message: String, stack: StackTrace },
    #[error(transparent)]
    ValueTooLarge(#[from] ValueTooLarge),
    #[error(transparent)]
    BurstTooLarge(#[from] BurstTooLarge),
}

impl StorageError {
    /// What the trace of the refused command says; `None` if the disk is not to blame.
    pub fn exception(&self) -> Option<Exception> {
        let (kind, stack) = match self {
            Self::Full(stack) => (ExceptionType::LogFull, stack),
            Self::Failed { stack, .. } => (ExceptionType::LogFailed, stack),
            Self::ValueTooLarge(_) | Self::BurstTooLarge(_) => return None,
        };
        Some(Exception { kind, message: self.to_string(), stack: Some(stack.clone()) })
    }

    /// As the disk's error has it.
    pub(crate) fn of(error: &io::Error) -> Self {
        let stack = StackTrace::capture();
        if Self::is_full(error) { Self::Full(stack) } else { Self::Failed { message: error.to_string(), stack } }
    }

    /// `true` for the ways a disk says that it is full.
    pub(crate) fn is_full(error: &io::Error) -> bool {
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
    }
}
