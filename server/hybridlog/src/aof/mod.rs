//! The append-only file: what every write changed, in an order that a restart can apply again.
//!
//! [`Aof`] is the shared in-memory side. A command reserves file space before its first visible write, appends its
//! effects as one frame after its last, and under `always` its reply waits until the frame is durable. [`aof_task`]
//! on one worker moves frames to the file in groups and syncs it. [`crate::datadir::open_data_dir`] replays it.
//!
//! # Bytes on disk
//! All integers are little-endian. A segment is a header sector of 512 bytes ([`segment`]), then groups. Each group
//! starts at a multiple of 512 bytes with a mark, then come frames without gaps, then zeros to the next group. Space
//! allocated ahead is zeros, so zeros end the log.
//!
//! | offset in a frame | bytes | content |
//! |---|---|---|
//! | 0 | 4 | CRC-32C of bytes 4..24 and the segment's salt |
//! | 4 | 4 | CRC-32C of the payload |
//! | 8 | 6 | length of the payload |
//! | 14 | 2 | kind: `FR` effects of one command or of one EXEC, `MK` mark (no payload) |
//! | 16 | 8 | position: bytes of all frames before this one, marks not counted |
//!
//! The position is the frame's sequence number: a frame is accepted only at its own. A mark says that everything
//! below its position was durable when it was written. One follows every sync, at the head of the next sector:
//! a sector that was synced is never written again, so power lost during a write cannot touch what is durable.
//! The salt is random per segment: no value a client stores, and no stale block, can pass for a frame.
//!
//! A frame that does not read back at position P is corruption if a mark beyond P exists further on, and a torn tail
//! otherwise.

mod effect;
mod frame;
mod replay;
pub(crate) mod segment;
mod shared;
mod task;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod tests;

pub use effect::{DecodeError, Effect, Effects};
pub(crate) use replay::{ReplayError, Replayed, replay};
pub use segment::{AofFile, HeaderError};
pub use shared::{Aof, AofFailed, FsyncPolicy, NoSpace, SyncTimes};
pub(crate) use task::FileOf;
pub use task::aof_task;
