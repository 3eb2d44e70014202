//! Checkpoints: the index, and the log that it leads into, so that a start reads neither all keys nor all of the AOF.
//!
//! A checkpoint is a file with an *image* of the index and what the layers above want to keep, and the log file as it is up
//! to the checkpoint's *cut*, an address. What it shows is the state at one moment: the moment of the cut.
//!
//! # How it is taken while commands run
//! 1. *Begin*, in the exclusive mode: the log's tail, `scan_from`, is noted, and from here on the store notes entries that a
//!    deletion removes from the index ([`imaging`](crate::imaging)), each with the log's tail at that time.
//! 2. *Walk*: bucket by bucket, in steps, every entry (tag and address) is written to the file. Commands run between the
//!    steps and change what was written already.
//! 3. *Cut*, in the exclusive mode: the page at the tail is closed, the tail moves to the next page and `read_only` to the
//!    tail. So no record below the cut is ever changed again: whatever is written later is a record above it. Taken at the
//!    same moment: the position of the AOF, and what the layer above says of its spaces and counts. This is all that stops
//!    the world: some loads and stores, whatever the number of keys, and the wait for the batches at hand to end.
//! 4. *Flush*: until every page below the cut is in the file. Then the extents of its records are named, and whatever the
//!    checkpoint names is synced. What lies between `scan_from` and the cut is read back and checked once.
//! 5. *Name*: the file gets its last chunk and is synced, the AOF is synced to the position, the manifest names the
//!    checkpoint.
//!
//! # Why that gives the state at the cut
//! The image is not of one moment, but what happened to the index between the walk and the cut can be told from the log
//! (FASTER, SIGMOD 2018, section 6.5, for its own index). Look at one entry, that is at all records of one tag in one
//! bucket. Records are appended under the bucket's latch, and the entry is led to each before the latch goes: so their
//! order of address is the order in which the entry led to them. The image has what it led to at some moment, or nothing.
//! Recovery goes through the records from `scan_from` to the cut in the order of their addresses and leads the entry of each
//! to it unless it leads to a younger one already; where the log's tail was when a deletion removed the entry, it is removed
//! unless it leads to a younger one. That repeats what happened since the walk passed, and skips what had happened
//! before it. An update in place leaves the entry as it is.
//!
//! * *Growth*: the walk goes in the order of a SCAN cursor, which meets each entry once whatever is split meanwhile; and what
//!   is written of an entry does not depend on how often its bucket was split ([`crate::index`]).
//! * *A store that forgets everything* (FLUSHALL) forgets the image with it: `scan_from` becomes the tail of that moment, and
//!   what was walked before is ignored.
//! * *Retired spaces* lose their entries by and by, and a walk may meet them or not: the checkpoint names all that were
//!   retired and not swept when it began, or later, and the sweep goes on after a recovery.
//!
//! # Objects
//! What a record does not hold itself is written, as it was at the cut, when the record's page is flushed: if a command changes,
//! moves or deletes it before, the object stays for who writes it ([`crate::objects`]). So all records below the cut that counted
//! at the cut lead to extents of the file of extents, and the checkpoint names these: they and no others have ids from before
//! the cut and belonged to a record then. The checkpoint also says which id comes next, so that none that a checkpoint knows
//! is given again. An extent that a checkpoint names is not written to, whoever frees it, until no checkpoint in force names it.
//!
//! A recovery takes the extents for used that its checkpoint names, and keeps those that the one before it names; all else is
//! free. An object that was made or changed after the cut has an extent that nobody names: it is made again by the AOF.
//!
//! # What recovery does with the AOF
//! The state is that of the AOF's position at the cut, exactly: no write was between its record and its place in the AOF. So
//! everything from that position on is replayed over it. Without an AOF it is the state of a restart, as an RDB file is in Redis.
//! The AOF must not end before that position, or new frames would get positions that a later recovery passes over:
//! hence it is synced before the manifest names the checkpoint.
//!
//! After a recovery the log goes on behind the cut. What the process before had written there is cut off; no checkpoint that
//! is still named leads there.
//!
//! # Fall-back
//! The last two checkpoints are kept, with every AOF segment from the position of the older one on. One that cannot be used
//! (missing, damaged, its log missing or short) is passed over with a warning that names file and offset; the manifest
//! forgets it before anything else happens. Behind the last checkpoint there is the AOF alone if it is whole. If there is
//! nothing left the start stops.

mod check;
#[cfg(test)]
mod cut_tests;
mod file;
mod image;
mod load;
mod pins;
mod scan;
mod take;
#[cfg(test)]
mod tests;

pub(crate) use check::check;
#[cfg(test)]
pub(crate) use file::{ChunkHeader, ChunkKind, FileHeader, NUMBERS};
pub(crate) use load::longest_record;
pub use load::{Damage, LoadError, Restored, keep, restore};
pub use pins::Pinned;
pub use take::{CheckpointError, Checkpoints, Taken, Taking};
