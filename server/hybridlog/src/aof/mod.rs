//! The append-only file: what every write changed, in an order that a restart can apply again.
//!
//! [`Aof`] is the shared in-memory side. A command reserves file space before its first visible write, appends its
//! effects as one frame after its last, and under `always` its reply waits until the frame is durable. [`aof_task`]
//! on one worker moves frames to the file in groups and syncs it. [`crate::datadir::open_data_dir`] replays it.
//!
//! The log is a row of segments. Once one is full it is synced, a new one is made and named by the manifest, and the log
//! goes on there. A rewrite ([`BaseWriter`]) puts what the keys hold now into a *base* and lets go of the segments before.
//!
//! # Bytes on disk
//! All integers are little-endian. A segment is a header sector of 512 bytes ([`segment`]), then groups. Each group
//! starts at a multiple of 512 bytes with a mark, then come frames without gaps, then zeros to the next group. Space
//! allocated ahead is zeros, so zeros end the log. A base is a segment without marks whose positions begin at 0.
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
//! A frame that does not read back at position P is corruption if a mark beyond P exists further on, or if the manifest
//! says that P was durable (as it does of every segment but the last, and of a base), and a torn tail otherwise.
//!
//! # Why a base may be written while commands run
//! The base *covers* the log below a position C, taken in the exclusive mode together with what each database shows. A walk
//! over the index then writes each key with a value that it had at some moment of the walk. Replaying everything from C on
//! over that gives the state at the end, for each key and so for all:
//!
//! * Its last effect from C on that sets or deletes it does so whatever the base says, and what follows is replayed too. A
//!   write is visible before it is in the log, so what is below C the walk has seen.
//! * Without such an effect its value did not change from C on, and the base has it. A change of its time of expiry is
//!   absolute and is replayed.
//! * A key that the walk did not meet was deleted from C on, or set, and that is replayed.
//! * A database that was emptied from C on shows another space: keys of a space that no database showed at C were all set
//!   after it and are left out. Swapped databases are written under the number that they had at C, for the swap is replayed.
//!
//! A relative effect ([`Effect::Rename`], [`Effect::Copy`]) would not do: the walk may have seen the one key before it and the other
//! after it, and then neither has the value. So until the walk is over, effects are absolute ([`Aof::is_walked`], looked at in
//! the exclusive mode, which both C and commands over two keys have). What comes behind the end of the walk finds the exact state
//! when it is replayed, as it does behind a checkpoint, whose cut is one moment.
//!
//! What the walk saw must not be more than what the segments keep: before the manifest names the base they are synced to
//! where they were at the end of the walk, and from then on it is corruption if they end before that.

mod base;
mod begin;
mod effect;
pub(crate) mod frame;
mod replay;
pub(crate) mod segment;
mod shared;
mod task;

#[cfg(test)]
mod rewrite_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod tests;

pub use base::{BaseWriter, RewriteError, Rewriter};
pub use effect::{DecodeError, Effect, Effects};
pub(crate) use replay::{Extent, ReplayError, Replayed, replay};
pub use segment::{AofFile, HeaderError};
pub use shared::{Aof, AofFailed, AofSize, FsyncPolicy, NoSpace, RollError, SyncTimes};
pub(crate) use task::FileOf;
pub use task::aof_task;
