//! Giving the space of old records back: the log's beginning moves on, and the file loses what lies before it.
//!
//! A page at the log's beginning is read and each of its records is looked up, as FASTER does it (PVLDB 2018, section 6.3 of
//! the SIGMOD paper has the other kind, a scan with a second index). Under the latch of its bucket the record is either the
//! newest of its key, then it is copied to the tail as it is, or nobody will ask for it again. When all records of the page
//! were dealt with, no key's newest record lies in it, and `begin` moves to the next page.
//!
//! # Why nobody misses a record
//! * *Chains* end at the first address below `begin`, as at 0. Who has latched a bucket either sees `begin` beyond a page, and
//!   then also the copies of what was in it, or does not, and then meets records that are there or old ones that a copy or a
//!   younger record hides.
//! * *Reads in flight*: an address is never used again, so what was read at one is the record that was there, or its checksum
//!   fails. It may fail for a page that was given back: hence who reads below `begin` in vain is told that there is nothing,
//!   and looks its key up again.
//! * *Memory*: only pages are compacted whose memory is free ([`Log::released`](crate::log)): no batch points into them.
//! * *Deleted keys*: a tombstone goes with its page. What it hides is older, and lies below it.
//! * *Large values* stay in their extents; the copy of their record names them. They are not read: whoever asks for one finds
//!   its record in memory without it, and reads it as if the record were on disk ([`crate::objects::Moved`]).
//! * *Checkpoints* lead below `begin`. The file keeps what one needs that the manifest names, or will name: `begin` is free to
//!   move, space is given back only up to the lowest address that one of them begins at. A checkpoint's walk also needs what
//!   was written since it began, so `begin` stays below that meanwhile.
//! * *Damage*: a record that cannot be read stops the work before its page, and if that stays so, the page is left where it
//!   is, and the work goes on behind it: see [`quarantine`](crate::quarantine). A filler that hides the rest of a page carries a
//!   checksum of its own: or a flipped bit could make what is behind it disappear.
//!
//! # Space for the copies
//! [`crate::log::FILE_RESERVE`] pages of the file are left alone by all other writers: with them a full disk can be compacted.
//! They are enough for the records of one page, which gives a page back; so they are there again for the next.

mod compactor;
mod pinned;

pub(crate) use compactor::PIECE;
pub use compactor::{CompactionError, Compactor, Piece};
pub use pinned::{Old, OldRecord};
