//! The HybridLog engine: addresses, records, index, regions, epochs, AOF.
//!
//! [`Store`] is the synchronous core that all workers share; it knows no device. A worker pins the epoch for a
//! batch of commands ([`WorkerHandle::pin`]) and looks up and writes single keys under a bucket's latch or in the
//! exclusive mode. [`flush_task`] moves pages from memory to the log file and out of memory;
//! [`LogDevice`] reads single records back; [`tend_index`] does what commands leave behind in the index.
//!
//! ```text
//!   begin          head             read_only             tail
//!     │  disk        │  read_only       │  mutable          │
//!     │  direct      │  maps of the     │  anonymous        │
//!     │  reads       │  log file        │  memory           │
//! ```
//! The engine never waits for a device, for time or for another worker's batch except in the exclusive mode.

#![cfg_attr(loom, allow(dead_code, unused_imports))] // What only the parts below use.

mod access;
mod address;
mod epoch;
mod index;
mod latch;
#[cfg(all(test, loom))]
mod loom_imaging;
mod mutant;
mod reclaim;
mod regions;
mod sync;

// loom models the parts above; the rest stands on them and does not build under its `cfg`.
#[cfg(not(loom))]
pub mod aof;
#[cfg(not(loom))]
mod behind;
#[cfg(not(loom))]
mod by_hash;
#[cfg(not(loom))]
pub mod checkpoint;
#[cfg(not(loom))]
pub mod compaction;
#[cfg(not(loom))]
pub mod datadir;
#[cfg(not(loom))]
mod device;
#[cfg(not(loom))]
mod flush;
#[cfg(not(loom))]
mod flush_run;
#[cfg(not(loom))]
mod frames;
#[cfg(not(loom))]
mod held;
mod imaging;
#[cfg(not(loom))]
mod key;
#[cfg(not(loom))]
mod latched;
#[cfg(not(loom))]
mod log;
#[cfg(not(loom))]
mod memory;
mod objects;
#[cfg(not(loom))]
mod page_budget;
#[cfg(not(loom))]
mod page_image;
#[cfg(not(loom))]
mod pinned;
#[cfg(not(loom))]
mod pinned_object;
#[cfg(not(loom))]
mod pinned_part;
#[cfg(not(loom))]
mod pinned_rename;
#[cfg(not(loom))]
mod planted;
#[cfg(not(loom))]
mod quarantine;
#[cfg(not(loom))]
mod read_cache;
mod record;
mod refusal;
#[cfg(not(loom))]
mod retired;
#[cfg(not(loom))]
mod scan;
#[cfg(not(loom))]
mod space;
#[cfg(not(loom))]
mod spares;
#[cfg(not(loom))]
mod store;
#[cfg(not(loom))]
mod strings;
#[cfg(not(loom))]
mod tend;

pub use access::{AccessMode, frequency, idle_seconds};
pub use address::{ADDRESS_BITS, Address, FILE_HEADER, FIRST_ADDRESS};

#[cfg(not(loom))]
pub use {
    behind::Behind,
    device::{DiskRead, LogDevice, LogFiles, ReadError, extents_path},
    flush::{create_log, flush_task, open_log},
    flush_run::FlushRun,
    held::{Held, HeldRecord},
    key::{HashSeed, Key},
    latched::Latch,
    objects::{Decode, Load, Object, Spot},
    pinned::{Before, Exclusive, Found, Pinned, Place},
    pinned_part::Unread,
    planted::Planted,
    read_cache::{ReadCache, ReadCacheStats},
    record::{Kind, RecordError, RecordView},
    space::{BurstTooLarge, NeedReason, NeedSpace, StorageError, ValueTooLarge},
    store::{Store, StoreConfig, StoreStats, WorkerHandle},
    strings::ByteStrings,
    tend::tend_index,
};

#[cfg(all(test, not(loom)))]
mod tests;
