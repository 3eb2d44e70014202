//! One part of the read cache: a map, and the queues that decide who goes.

use super::ReadCacheStats;
use super::table::{GHOST, Table};
use crate::address::Address;
use crate::index::prefetch;
use std::collections::VecDeque;
use std::sync::Arc;

/// What a record takes beside its bytes: the head of its allocation, its entry, its places in the table and in a queue.
pub(super) const ENTRY_BYTES: usize = 96;
/// What a remembered address takes.
const GHOST_BYTES: usize = 32;
/// The part of the memory that is for what is new.
const SMALL_PART: usize = 20;
/// Addresses are remembered for one in so many records. With three for each record, which take a tenth of the memory if
/// records have a kilobyte, too much is let in that is not asked for again: by Zipf's law (0.99) with a fifteenth of the data in memory
/// 93 % of the best possible are hit, so nearly 98 %.
const GHOST_PART: usize = 2;
/// Bytes of the processor's caches that come together.
const LINE: usize = 64;
/// Requests that count: who has more than one of them behind goes once around again for each.
const REQUESTS_MAX: u8 = 7;

#[derive(Default)]
pub(super) struct Shard {
    places: Table,
    entries: Vec<Entry>,
    /// Unused places in `entries`.
    free: Vec<u32>,
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    /// Of what left `small` without a second request, oldest first. One that is not in the table any more counts for nothing.
    ghosts: VecDeque<Address>,
    small_bytes: usize,
    bytes: usize,
    hits: u64,
    misses: u64,
}

struct Entry {
    address: Address,
    record: Arc<[u64]>,
    requests: u8,
}

impl Entry {
    fn bytes(&self) -> usize {
        entry_bytes(&self.record)
    }
}

fn entry_bytes(words: &[u64]) -> usize {
    size_of_val(words) + ENTRY_BYTES
}

/// A copy of `words` in the memory of `gone`, if that has as many and nobody else looks at it: mostly records are of one length,
/// and an allocator takes longer than the copy does.
fn copy(words: &[u64], gone: Option<Arc<[u64]>>) -> Arc<[u64]> {
    if let Some(mut gone) = gone.filter(|gone| gone.len() == words.len())
        && let Some(room) = Arc::get_mut(&mut gone)
    {
        room.copy_from_slice(words);
        return gone;
    }
    Arc::from(words)
}

impl Shard {
    pub(super) fn stats(&self) -> ReadCacheStats {
        let records = self.small.len() + self.main.len();
        let bytes = self.bytes + self.ghosts.len() * GHOST_BYTES;
        ReadCacheStats { hits: self.hits, misses: self.misses, bytes, limit: 0, records }
    }

    /// Who is about to ask for several calls these for all of them, one after the other, so that each step's misses of the
    /// processor's caches overlap: where to look for the address,
    pub(super) fn prefetch_slot(&self, address: Address) {
        self.places.prefetch(address);
    }

    /// the entries that may be its,
    pub(super) fn prefetch_entry(&self, address: Address) {
        for entry in self.places.numbers(address).filter_map(|at| self.entries.get(at as usize)) {
            prefetch(std::ptr::from_ref(entry).cast());
        }
    }

    /// and the record itself: who counts its readers, its head and its key.
    pub(super) fn prefetch_record(&self, address: Address) {
        if let Some(at) = self.find(address) {
            let words = self.entries[at as usize].record.as_ptr().cast::<u8>();
            prefetch(words.wrapping_sub(size_of::<[usize; 2]>()));
            prefetch(words.wrapping_add(LINE));
        }
    }

    fn find(&self, address: Address) -> Option<u32> {
        let is_its = |at: &u32| self.entries.get(*at as usize).is_some_and(|entry| entry.address == address);
        self.places.numbers(address).find(is_its)
    }

    pub(super) fn get(&mut self, address: Address) -> Option<Arc<[u64]>> {
        let Some(at) = self.find(address) else {
            self.misses += 1;
            return None;
        };
        self.hits += 1;
        let entry = &mut self.entries[at as usize];
        entry.requests = (entry.requests + 1).min(REQUESTS_MAX);
        Some(entry.record.clone())
    }

    /// Takes in a copy of a record's words.
    pub(super) fn offer(&mut self, address: Address, limit: usize, words: &[u64]) {
        if self.find(address).is_some() {
            return;
        }
        let bytes = entry_bytes(words);
        // A record that would take most of the shard is no good neighbour.
        if bytes > limit / 2 {
            return;
        }
        let again = self.places.remove(address, GHOST);
        let gone = self.make_room(limit - bytes);
        self.bytes += bytes;
        let entry = Entry { address, record: copy(words, gone), requests: 0 };
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        self.places.insert(address, at);
        if again {
            self.main.push_back(at);
        } else {
            self.small_bytes += bytes;
            self.small.push_back(at);
        }
    }

    pub(super) fn shrink_to(&mut self, limit: usize) {
        if limit == 0 {
            let (hits, misses) = (self.hits, self.misses);
            *self = Self { hits, misses, ..Self::default() };
            return;
        }
        self.make_room(limit);
    }

    /// Returns what went last.
    fn make_room(&mut self, limit: usize) -> Option<Arc<[u64]>> {
        let mut gone = None;
        while self.bytes + self.ghosts.len() * GHOST_BYTES > limit {
            if self.ghosts.len() > (self.small.len() + self.main.len()) / GHOST_PART {
                self.forget_ghost();
            } else if self.small_bytes > limit / SMALL_PART || self.main.is_empty() {
                match self.small.pop_front() {
                    Some(at) => gone = self.pass_small(at).or(gone),
                    None => self.forget_ghost(),
                }
            } else {
                gone = self.pass_main().or(gone);
            }
        }
        gone
    }

    fn forget_ghost(&mut self) {
        if let Some(address) = self.ghosts.pop_front() {
            self.places.remove(address, GHOST);
        }
    }

    /// The oldest of the new ones goes, or on to the others if it was asked for again.
    fn pass_small(&mut self, at: u32) -> Option<Arc<[u64]>> {
        let entry = &mut self.entries[at as usize];
        let (address, bytes) = (entry.address, entry.bytes());
        self.small_bytes -= bytes;
        if entry.requests > 0 {
            entry.requests = 0;
            self.main.push_back(at);
            return None;
        }
        self.places.remove(address, at);
        self.places.insert(address, GHOST);
        self.ghosts.push_back(address);
        Some(self.drop_entry(at))
    }

    /// The oldest of the others goes, or goes around once more.
    fn pass_main(&mut self) -> Option<Arc<[u64]>> {
        let at = self.main.pop_front()?;
        let entry = &mut self.entries[at as usize];
        if entry.requests > 0 {
            entry.requests -= 1;
            self.main.push_back(at);
            return None;
        }
        let address = entry.address;
        self.places.remove(address, at);
        Some(self.drop_entry(at))
    }

    fn drop_entry(&mut self, at: u32) -> Arc<[u64]> {
        let entry = &mut self.entries[at as usize];
        self.bytes -= entry.bytes();
        self.free.push(at);
        std::mem::take(&mut entry.record)
    }
}
