//! What was read from disk for the commands of a connection's batch, and how much memory that is.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ferrite_hybridlog::{Address, Held, HeldRecord};

use crate::node::Node;

/// Large values beyond this are given up once the command is over that they were read for.
const KEPT_MAX: usize = 64 << 20;
/// What is a large value then.
const SMALL_MAX: usize = 64 << 10;

/// See the module's documentation. What it holds is in the node's accounts until it is dropped.
pub(crate) struct HeldReads {
    held: Held,
    /// Bytes of what was inserted.
    bytes: usize,
    /// Of those, what is accounted for.
    told: usize,
    node: Arc<Node>,
}

impl Deref for HeldReads {
    type Target = Held;

    fn deref(&self) -> &Held {
        &self.held
    }
}

impl HeldReads {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { held: Held::default(), bytes: 0, told: 0, node }
    }

    pub(crate) fn insert(&mut self, address: Address, record: HeldRecord) {
        self.bytes += record.buffer_bytes() + record.value_len();
        self.held.insert(address, record);
    }

    /// After a group of reads.
    pub(crate) fn account(&mut self) {
        let account = &self.node.memory.held_reads;
        match self.bytes >= self.told {
            true => account.fetch_add((self.bytes - self.told) as u64, Relaxed),
            false => account.fetch_sub((self.told - self.bytes) as u64, Relaxed),
        };
        self.told = self.bytes;
    }

    /// A command is over: what it alone has needed is not kept, if that is much.
    #[inline]
    pub(crate) fn release(&mut self) {
        if self.bytes > KEPT_MAX {
            self.release_large();
        }
    }

    #[cold]
    fn release_large(&mut self) {
        self.held.release_above(SMALL_MAX);
        self.bytes = self.held.bytes();
        self.account();
    }

    /// The batch is over.
    #[inline]
    pub(crate) fn clear(&mut self) {
        if self.bytes > 0 {
            self.held.clear();
            self.bytes = 0;
            self.account();
        }
    }
}

impl Drop for HeldReads {
    fn drop(&mut self) {
        self.clear();
    }
}
