//! Going through all keys, bucket by bucket.

use crate::address::Address;
use crate::held::Held;
use crate::pinned::Pinned;
use crate::record::{Raw, RecordView};
use ferrite_telemetry::Tier;

impl Pinned<'_> {
    /// Gives `f` the newest record of every key in `buckets` buckets from `cursor` (a bucket number) on, deleted
    /// keys left out. Returns the next cursor, 0 at the end. A key that is there during the whole scan is
    /// given at least once.
    ///
    /// Takes the buckets' latches itself: call it with none held. `f` must not write.
    ///
    /// # Errors
    /// The cold records to read and hold first; `f` was not called then.
    pub fn scan(
        &self,
        cursor: u64,
        buckets: usize,
        held: &Held,
        f: &mut dyn FnMut(RecordView<'_>),
    ) -> Result<u64, Vec<Address>> {
        let count = self.store.index.len() as u64;
        let end = cursor.saturating_add(buckets as u64).min(count);
        // Seen once for both passes: what is above it stays in memory while we are pinned, and what other
        // workers add between the passes is newer still. So the second pass meets nothing cold.
        let head = self.store.log.regions.head();
        let mut cold = Vec::new();
        for bucket in cursor..end {
            self.with_chains(bucket, |newest| {
                for step in (Chain { pinned: self, head, held, next: newest }) {
                    if let Err(address) = step {
                        cold.push(address);
                    }
                }
            });
        }
        if !cold.is_empty() {
            return Err(cold);
        }
        let mut seen: Vec<(u32, &[u8])> = Vec::new();
        for bucket in cursor..end {
            self.with_chains(bucket, |newest| {
                seen.clear();
                for (address, raw) in (Chain { pinned: self, head, held, next: newest }).flatten() {
                    // SAFETY: the record stays while we are pinned and `held` is borrowed; keys are never changed.
                    let key: &[u8] = unsafe { raw.key() };
                    if seen.contains(&(raw.space(), key)) {
                        continue;
                    }
                    seen.push((raw.space(), key));
                    if !raw.is_tombstone() {
                        let tier = self.tier_of(address, head);
                        // SAFETY: the bucket is latched until `with_chains` returns.
                        f(unsafe { raw.view(address, tier) });
                    }
                }
            });
        }
        Ok(if end == count { 0 } else { end })
    }

    fn with_chains(&self, bucket: u64, f: impl FnMut(Address)) {
        let latch = (!self.is_exclusive()).then(|| self.latch_bucket(bucket, false));
        self.store.index.each(bucket, f);
        drop(latch);
    }

    pub(crate) fn tier_of(&self, address: Address, head: Address) -> Tier {
        if address < head {
            Tier::Disk
        } else if address < self.store.log.regions.read_only() {
            Tier::ReadOnly
        } else {
            Tier::Mutable
        }
    }
}

/// The records of a chain, newest first; ends with an error at a cold one.
pub(crate) struct Chain<'c> {
    pub(crate) pinned: &'c Pinned<'c>,
    pub(crate) head: Address,
    pub(crate) held: &'c Held,
    pub(crate) next: Address,
}

impl Iterator for Chain<'_> {
    type Item = Result<(Address, Raw), Address>;

    fn next(&mut self) -> Option<Self::Item> {
        let address = self.next;
        if address == 0 {
            return None;
        }
        let raw = if address >= self.head {
            // SAFETY: pinned since before `head` was read.
            unsafe { self.pinned.store.log.at(address) }
        } else if let Some(record) = self.held.get(address) {
            record.raw()
        } else {
            self.next = 0;
            return Some(Err(address));
        };
        self.next = raw.previous();
        Some(Ok((address, raw)))
    }
}
