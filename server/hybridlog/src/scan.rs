//! Going through all keys, bucket by bucket; and dropping those of spaces that nothing shows any more.

use crate::address::Address;
use crate::held::Held;
use crate::pinned::Pinned;
use crate::record::{Raw, RecordView};
use crate::retired::Pass;
use ferrite_telemetry::Tier;

impl Pinned<'_> {
    /// Gives `f` the newest record of every key in `buckets` buckets from `cursor` on, deleted keys left out. Returns the
    /// next cursor, 0 at the end. A key that is there during the whole scan is given at least once, also while the index
    /// grows or shrinks (see `index/cursor.rs` for the order). Any number is a cursor; one below [`crate::Store::index_buckets`]
    /// begins with the bucket of that number.
    ///
    /// Records below `since` are of no interest: they are not read from disk, though `f` may be given some. Without `values`
    /// those of large ones may be missing.
    ///
    /// Takes the buckets' latches itself: call it with none held. `f` must not write.
    ///
    /// # Errors
    /// The cold records to read and hold first; `f` was not called then.
    pub fn scan(
        &self,
        cursor: u64,
        buckets: usize,
        since: Address,
        values: bool,
        held: &Held,
        f: &mut dyn FnMut(RecordView<'_>),
    ) -> Result<u64, Vec<Address>> {
        debug_assert!(buckets > 0);
        // Seen once for both passes: what is above it stays in memory while we are pinned, and what other
        // workers add between the passes is newer still. So the second pass meets nothing cold.
        let head = self.store.log.regions.head();
        let mut cold = Vec::new();
        let mut end = cursor;
        let is_whole = |raw: Raw, address| {
            let tier = self.tier_of(address, head);
            let whole = match values {
                true => self.view(raw, address, tier, held).is_some(),
                false => self.view_of_key(raw, address, tier, held).is_some(),
            };
            whole || self.is_object_gone(raw)
        };
        let mut seen: Vec<(u32, &[u8])> = Vec::new();
        for _ in 0..buckets {
            end = self.with_chains(end, |hash, newest| {
                seen.clear();
                for step in (Chain { since, ..Chain::of(self, hash, newest, head, held) }) {
                    match step {
                        Err(address) => cold.push(address),
                        // What a held record owns may not have been read. Of one that was replaced nothing is asked.
                        Ok((address, raw)) => {
                            // SAFETY: the record stays while we are pinned and `held` is borrowed; keys are never changed.
                            let key: (u32, &[u8]) = (raw.space(), unsafe { raw.key() });
                            let is_elsewhere = || address < head || self.is_moved(raw, self.tier_of(address, head));
                            if raw.is_object() && is_elsewhere() && !seen.contains(&key) && !is_whole(raw, address) {
                                cold.push(address);
                            }
                            seen.push(key);
                        }
                    }
                }
            });
            if end == 0 {
                break;
            }
        }
        if !cold.is_empty() {
            return Err(cold);
        }
        let mut at = cursor;
        // Buckets may have been split since the first pass: then there are more of them to the same end. Or merged: then the last
        // one goes beyond it, where the first pass has not looked for what is cold, and the next call begins at the end again.
        loop {
            at = self.with_chains(at, |hash, newest| {
                seen.clear();
                for (address, raw) in (Chain { since, ..Chain::of(self, hash, newest, head, held) }).flatten() {
                    // SAFETY: the record stays while we are pinned and `held` is borrowed; keys are never changed.
                    let key: &[u8] = unsafe { raw.key() };
                    if seen.contains(&(raw.space(), key)) {
                        continue;
                    }
                    seen.push((raw.space(), key));
                    if !raw.is_tombstone() {
                        let tier = self.tier_of(address, head);
                        // Seen to be there by the first pass, which nothing colder has followed.
                        self.view_of_key(raw, address, tier, held).into_iter().for_each(&mut *f);
                    }
                }
            });
            if at == 0 || end != 0 && at.reverse_bits() >= end.reverse_bits() {
                return Ok(end);
            }
        }
    }

    /// The cursor after the bucket at this one.
    pub fn skip(&self, cursor: u64) -> u64 {
        self.store.index.stand(cursor).next()
    }

    /// Buckets that the index has now.
    pub fn buckets(&self) -> u64 {
        self.store.index_buckets()
    }

    /// Gives `f` every chain of the bucket at a cursor, with a hash of its entry; returns the next cursor.
    fn with_chains(&self, cursor: u64, mut f: impl FnMut(u64, Address)) -> u64 {
        let (bucket, next, _latch) = self.latch_at(cursor, false);
        let index = &self.store.index;
        index.each(bucket, |slot| f(index.hash_of(bucket, slot), slot.address()));
        next
    }

    /// Drops the entries of a pass's spaces from `buckets` buckets, those of the numbers from `first` on. A chain loses
    /// what lies at its front: behind another space's record a flushed one costs no entry. Gives the number of the next
    /// bucket, `None` at the end; and the records that must be read and held before it can be told, after which the same
    /// buckets are to be swept again.
    pub(crate) fn sweep(&self, first: u64, buckets: u64, pass: &Pass, held: &Held) -> (Option<u64>, Vec<Address>) {
        let index = &self.store.index;
        let head = self.store.log.regions.head();
        let end = (first + buckets).min(index.len() as u64);
        let objects = self.store.log.objects.are_there();
        let mut cold = Vec::new();
        // A split moves entries of what was swept to new numbers: those come later, and are swept again in vain.
        for number in first..end {
            let (bucket, _, _latch) = self.latch_at(number, true);
            index.each(bucket, |slot| {
                let hash = index.hash_of(bucket, slot);
                if objects {
                    self.release_swept((hash, slot.address()), head, pass, held, &mut cold);
                }
                let mut above = Address::MAX;
                loop {
                    let address = slot.address();
                    if !pass.may_own(address) {
                        return;
                    }
                    let raw = if address >= head {
                        // SAFETY: pinned since before `head` was read.
                        unsafe { self.store.log.at(address) }
                    } else if self.ends_chain(address) {
                        match self.linked(hash, above) {
                            Some(link) => slot.set_address(link),
                            None => {
                                index.remove(slot, self.worker);
                                return;
                            }
                        }
                        continue;
                    } else if let Some(record) = held.get(address) {
                        record.raw()
                    } else {
                        return cold.push(address);
                    };
                    if !pass.owns(raw.space(), address) {
                        return;
                    }
                    match self.behind_of(hash, address, raw.previous()) {
                        None => {
                            // The task that sweeps looks by itself whether the index is to shrink.
                            index.remove(slot, self.worker);
                            return;
                        }
                        Some(behind) => slot.set_address(behind),
                    }
                    above = address;
                }
            });
        }
        ((end < index.len() as u64).then_some(end), cold)
    }

    /// Lets go of the objects of a pass's spaces, wherever in a chain.
    fn release_swept(
        &self,
        (hash, newest): (u64, Address),
        head: Address,
        pass: &Pass,
        held: &Held,
        cold: &mut Vec<Address>,
    ) {
        for step in Chain::of(self, hash, newest, head, held) {
            match step {
                // Of one that was released before nothing is left to release.
                Ok((address, raw)) if pass.owns(raw.space(), address) && raw.is_object() => self.release(raw),
                Ok(_) => {}
                Err(address) if pass.may_own(address) => cold.push(address),
                Err(_) => {}
            }
        }
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
    pinned: &'c Pinned<'c>,
    /// Of any key of its entry.
    hash: u64,
    head: Address,
    /// Below it nothing is read from disk: the chain ends.
    since: Address,
    held: &'c Held,
    /// The record before.
    above: Address,
    next: Address,
}

impl<'c> Chain<'c> {
    /// The whole chain that begins at `newest`, of the entry of `hash`.
    pub(crate) fn of(pinned: &'c Pinned<'c>, hash: u64, newest: Address, head: Address, held: &'c Held) -> Self {
        Self { pinned, hash, head, since: 0, held, above: Address::MAX, next: newest }
    }
}

impl Iterator for Chain<'_> {
    type Item = Result<(Address, Raw), Address>;

    fn next(&mut self) -> Option<Self::Item> {
        let address = match self.next {
            next if next < self.head && self.pinned.ends_chain(next) => self.pinned.linked(self.hash, self.above)?,
            next => next,
        };
        let raw = if address >= self.head {
            // SAFETY: pinned since before `head` was read.
            unsafe { self.pinned.store.log.at(address) }
        } else if let Some(record) = self.held.get(address) {
            record.raw()
        } else if address < self.since {
            // And all that lies behind it.
            return None;
        } else {
            // Nothing lies below 0.
            (self.above, self.next) = (0, 0);
            return Some(Err(address));
        };
        (self.above, self.next) = (address, raw.previous());
        Some(Ok((address, raw)))
    }
}
