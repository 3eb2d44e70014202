//! Databases, typed values, expiry and watchers over the engine.
//!
//! A [`Keyspace`] is one command's view: it is made when the command's latch (or the exclusive mode) is held, collects
//! the effects of the command's writes and appends them to the append-only file as one frame at the end. It never
//! waits: what it cannot do now it says with a [`Pause`], before anything has changed.

mod active;
mod checkpoint;
mod collection;
mod compact;
mod databases;
mod encodings;
mod evict;
mod expired;
mod hash;
mod image;
mod image_rest;
mod large;
mod large_hash;
mod limits;
mod packed;
mod part;
mod promote;
mod random;
mod replay;
mod scan;
mod scratch;
mod splice;
mod transfer;
mod unread;
mod unseen;
mod view;
mod watch;
mod wheel;
mod written_hash;

pub use active::{Deleted, Due, cold_records, expire_due};
pub use checkpoint::{Reminders, RestoreError, UnseenCopy};
pub use compact::{Compacted, compact};
pub use databases::{Databases, Figures};
pub use encodings::Encodings;
pub use evict::{Candidates, Evictor, Slice, evict_slice};
pub use ferrite_hybridlog::{Kind, RecordView};
pub use image::{Spaces, images};
pub use image_rest::{PIECE_BYTES, PIECE_FIELDS, Rest};

pub use hash::{Hash, Pair};
pub use limits::{EXPIRY_BYTES, INDEX_ENTRY_BYTES, MemoryLimits, Policy, Room, key_bytes};
pub use part::Glance;
pub use random::Random;
pub use replay::Foresight;
pub use scratch::Scratch;
pub use unseen::{Counts, Gate, Ticket, Unseen, UnseenFigures, UnseenWrites, cannot_look_behind, look_behind};
pub use view::{Expiry, Keyspace, Lent};
pub use watch::WatchSet;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ferrite_hybridlog::{Address, Load, NeedSpace};

/// Makes the large collections that the engine reads back: for [`ferrite_hybridlog::Store::with_objects`].
pub fn decode_object(kind: Kind, _len: usize) -> Option<Box<dyn Load>> {
    match kind {
        Kind::Hash => Some(Box::new(written_hash::LoadHash::new())),
        _ => None,
    }
}

/// Why a command stopped. Nothing has changed; but for [`Pause::Refused`] it is called again later.
#[derive(Debug)]
pub enum Pause {
    /// A key that the command declares is on disk: fetch its record, and those of the commands behind it.
    Keys,
    /// Records that the command does not declare are on disk (a scan, EXEC, another database).
    Records(Vec<Address>),
    /// As [`Pause::Records`], for a command that asks for the keys alone: large values need not be read.
    Headers(Vec<Address>),
    /// These bytes of the large string that the record at this address owns are needed, and no others. The record is held.
    Part { address: Address, range: Range<usize> },
    /// The counts of the databases are not known before what was overwritten on disk has been looked at. The ticket goes to
    /// [`Keyspace::counts`] afterwards; who has `patience` takes what there is after that.
    Counts { ticket: Arc<Ticket>, patience: Option<Duration> },
    /// There is no room for what the command would write.
    Space(NeedSpace),
    /// The command cannot be done: this is the error to reply.
    Refused(&'static str),
}

/// The key holds another type than the command works on.
pub const WRONG_TYPE: Pause = Pause::Refused("WRONGTYPE Operation against a key holding the wrong kind of value");
