//! One file: what reads see, what is durable, and what lies between.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::FaultPlan;
use crate::rng::SimRng;

/// What a disk writes as a whole or not at all, in bytes.
pub(super) const SECTOR: u64 = 512;
/// What the page cache writes back as a whole and what a file system allocates, in bytes.
pub(super) const PAGE: u64 = 4096;

/// A change that was made and not yet synced.
#[derive(Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

impl Change {
    fn punch(offset: u64, len: u64) -> Self {
        Self::Write { offset, bytes: vec![0; len as usize] }
    }
}

/// A file's content. The durable image changes by syncs alone; at a power loss the page cache may turn out to have
/// written back any earlier state of any page (or sector, if it tears).
#[derive(Debug, Default)]
pub(super) struct Inode {
    data: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors of the durable image that a synced write has reached: a power loss never makes garbage of these.
    synced_sectors: BTreeSet<u64>,
    unsynced: Vec<(u64, Change)>,
    next_change: u64,
    /// Pages with space on the disk.
    pages: BTreeSet<u64>,
}

/// Copies `bytes` to `offset` of `image`, which grows with zeros as needed.
fn put(image: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    if image.len() < end {
        image.resize(end, 0);
    }
    image[start..end].copy_from_slice(bytes);
}

/// The units of `size` bytes that a range touches.
fn units(offset: u64, len: u64, size: u64) -> std::ops::Range<u64> {
    if len == 0 { 0..0 } else { offset / size..(offset + len).div_ceil(size) }
}

impl Inode {
    pub(super) fn data(&self) -> &[u8] {
        &self.data
    }

    pub(super) fn durable(&self) -> &[u8] {
        &self.durable
    }

    /// Bytes of disk space.
    pub(super) fn space(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    /// The space that writing a range would add.
    pub(super) fn space_needed(&self, offset: u64, len: u64) -> u64 {
        let missing = units(offset, len, PAGE).filter(|page| !self.pages.contains(page)).count();
        missing as u64 * PAGE
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.pages.extend(units(offset, bytes.len() as u64, PAGE));
        put(&mut self.data, offset, bytes);
        self.push(Change::Write { offset, bytes: bytes.to_vec() });
    }

    /// Reserves space; a longer file is filled with zeros.
    pub(super) fn allocate(&mut self, offset: u64, len: u64) {
        self.pages.extend(units(offset, len, PAGE));
        if (self.data.len() as u64) < offset + len {
            self.set_len(offset + len);
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.data.resize(len as usize, 0);
        self.pages.retain(|page| page * PAGE < len);
        self.push(Change::SetLen(len));
    }

    /// Makes a hole: of whole pages, inside the file. What it held may come back at a power loss, as zeros that were
    /// written may be lost.
    pub(super) fn punch(&mut self, offset: u64, len: u64) {
        let end = (offset + len).min(self.data.len() as u64);
        if offset >= end {
            return;
        }
        self.data[offset as usize..end as usize].fill(0);
        self.pages.retain(|page| page * PAGE < offset || (page + 1) * PAGE > offset + len);
        self.push(Change::punch(offset, end - offset));
    }

    fn push(&mut self, change: Change) {
        self.unsynced.push((self.next_change, change));
        self.next_change += 1;
    }

    /// What a sync that is submitted now covers: give it to [`Inode::sync`].
    pub(super) fn sync_point(&self) -> u64 {
        self.next_change
    }

    /// Makes every change before `point` durable.
    pub(super) fn sync(&mut self, point: u64) {
        let covered = self.unsynced.partition_point(|(number, _)| *number < point);
        for (_, change) in self.unsynced.drain(..covered) {
            match change {
                Change::Write { offset, bytes } => {
                    put(&mut self.durable, offset, &bytes);
                    self.synced_sectors.extend(units(offset, bytes.len() as u64, SECTOR));
                }
                Change::SetLen(len) => {
                    self.durable.resize(len as usize, 0);
                    self.synced_sectors.retain(|sector| sector * SECTOR < len);
                }
            }
        }
    }

    /// A sync that failed: the kernel reports the error once and marks the pages clean, so some of what was not written
    /// will never be, whatever later syncs say.
    pub(super) fn fail_sync(&mut self, rng: &mut SimRng) {
        self.unsynced.retain(|_| rng.one_in(2));
    }

    /// Keeps, loses, tears or garbles what was not synced. `on_the_way` are writes that were submitted only.
    pub(super) fn power_loss(&mut self, on_the_way: Vec<(u64, Vec<u8>)>, faults: &FaultPlan, rng: &mut SimRng) {
        for (offset, bytes) in on_the_way {
            self.push(Change::Write { offset, bytes });
        }
        let changes: Vec<Change> = std::mem::take(&mut self.unsynced).into_iter().map(|(_, change)| change).collect();
        let len_before = self.data.len();
        let mut image = self.durable.clone();
        if faults.power_reorder {
            keep_any(&mut image, &changes, faults.power_tear, rng);
            if rng.one_in(8) && image.len() < len_before {
                // The length was written and the data was not.
                image.resize(len_before, 0);
            }
        } else {
            keep_first(&mut image, &changes, faults.power_tear, rng);
        }
        if faults.power_garbage {
            self.garble(&mut image, &changes, rng);
        }
        // A page of zeros that had no space is still a hole.
        let is_hole = |page: &u64| {
            let start = (page * PAGE) as usize;
            let bytes = &image[start..(start + PAGE as usize).min(image.len())];
            !self.pages.contains(page) && bytes.iter().all(|&byte| byte == 0)
        };
        let pages = units(0, image.len() as u64, PAGE).filter(|page| !is_hole(page)).collect();
        self.pages = pages;
        self.data = image.clone();
        // What survived is on the disk: a second power loss does not take it.
        self.synced_sectors = units(0, image.len() as u64, SECTOR).collect();
        self.durable = image;
    }

    /// Garbage in sectors that were written, never synced, and hold nothing that was.
    fn garble(&self, image: &mut [u8], changes: &[Change], rng: &mut SimRng) {
        let mut touched = BTreeSet::new();
        for change in changes {
            if let Change::Write { offset, bytes } = change {
                touched.extend(units(*offset, bytes.len() as u64, SECTOR));
            }
        }
        for sector in touched.difference(&self.synced_sectors) {
            let start = (sector * SECTOR) as usize;
            if start < image.len() && rng.one_in(8) {
                let end = (start + SECTOR as usize).min(image.len());
                rng.fill(&mut image[start..end]);
            }
        }
    }

    /// Changes the durable bytes and the cached ones.
    pub(super) fn corrupt(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.data);
        self.durable = self.data.clone();
        self.unsynced.clear();
    }
}

/// Writes back in order: the changes up to a cut, and of the one at the cut some sectors if it tears.
fn keep_first(image: &mut Vec<u8>, changes: &[Change], tear: bool, rng: &mut SimRng) {
    let cut = match rng.below(4) {
        0 => 0,
        1 => changes.len(),
        _ => rng.below(changes.len() as u64 + 1) as usize,
    };
    for change in &changes[..cut] {
        match change {
            Change::Write { offset, bytes } => put(image, *offset, bytes),
            Change::SetLen(len) => image.resize(*len as usize, 0),
        }
    }
    if let (true, Some(Change::Write { offset, bytes })) = (tear, changes.get(cut)) {
        for sector in units(*offset, bytes.len() as u64, SECTOR) {
            if rng.one_in(2) {
                put_unit(image, *offset, bytes, sector, SECTOR);
            }
        }
    }
}

/// Writes back in any order: each page (or sector) is what it was at some moment of its own.
fn keep_any(image: &mut Vec<u8>, changes: &[Change], tear: bool, rng: &mut SimRng) {
    let unit = if tear { SECTOR } else { PAGE };
    let mut touches: BTreeMap<u64, u64> = BTreeMap::new();
    for change in changes {
        if let Change::Write { offset, bytes } = change {
            for number in units(*offset, bytes.len() as u64, unit) {
                *touches.entry(number).or_default() += 1;
            }
        }
    }
    // A bias for the whole file: with fair coins alone no long write would ever survive or vanish as a whole.
    let bias = *rng.pick(&[0, 100, 500, 900, 1000]);
    let mut left: BTreeMap<u64, u64> = touches
        .iter()
        .map(|(&number, &count)| (number, if rng.per_mille(bias) { count } else { rng.below(count) }))
        .collect();
    for change in changes {
        match change {
            Change::Write { offset, bytes } => {
                for number in units(*offset, bytes.len() as u64, unit) {
                    let left = left.get_mut(&number).expect("every touched unit was counted");
                    if *left > 0 {
                        *left -= 1;
                        put_unit(image, *offset, bytes, number, unit);
                    }
                }
            }
            Change::SetLen(len) => {
                if rng.per_mille(bias.max(100)) {
                    image.resize(*len as usize, 0);
                }
            }
        }
    }
}

/// Puts the part of a write that lies in one unit.
fn put_unit(image: &mut Vec<u8>, offset: u64, bytes: &[u8], number: u64, unit: u64) {
    let start = (number * unit).max(offset);
    let end = ((number + 1) * unit).min(offset + bytes.len() as u64);
    put(image, start, &bytes[(start - offset) as usize..(end - offset) as usize]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(synced: &[u8], unsynced: &[u8]) -> Inode {
        let mut inode = Inode::default();
        inode.write(0, synced);
        inode.sync(inode.sync_point());
        inode.write(synced.len() as u64, unsynced);
        inode
    }

    #[test]
    fn synced_bytes_survive_every_power_loss_and_unsynced_ones_some() {
        let (mut kept, mut lost, mut torn) = (0, 0, 0);
        for seed in 0..300 {
            let mut rng = SimRng::derive(seed, "test");
            let mut inode = written(&[7; 700], &[9; 3000]);
            inode.power_loss(Vec::new(), &FaultPlan::draw(seed), &mut rng);
            assert_eq!(inode.data()[..700], [7; 700], "seed {seed}");
            match inode.data()[700..] {
                [] => lost += 1,
                ref rest if rest == [9; 3000] => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(kept > 10 && lost > 10 && torn > 10, "{kept} kept, {lost} lost, {torn} torn");
    }

    #[test]
    fn a_unit_is_written_back_as_it_was_at_one_moment() {
        let faults = FaultPlan { power_reorder: true, power_tear: true, ..FaultPlan::none() };
        for seed in 0..200 {
            let mut inode = Inode::default();
            inode.write(0, &[1; 100]);
            inode.write(100, &[2; 100]);
            inode.power_loss(Vec::new(), &faults, &mut SimRng::derive(seed, "test"));
            // The second write without the first, in one sector, was never in the page cache.
            assert!(inode.data().len() < 200 || inode.data()[0] == 1 || inode.data()[100] == 0, "seed {seed}");
        }
    }

    #[test]
    fn a_sync_covers_what_was_written_before_it_was_submitted() {
        let mut inode = Inode::default();
        inode.write(0, b"before");
        let point = inode.sync_point();
        inode.write(6, b"after");
        inode.sync(point);
        assert_eq!(inode.durable(), b"before");
    }

    #[test]
    fn a_hole_that_was_not_synced_may_hold_again_what_it_held() {
        let (mut holes, mut back) = (0, 0);
        for seed in 0..200 {
            let mut inode = Inode::default();
            inode.write(0, &[7; 3 * PAGE as usize]);
            inode.sync(inode.sync_point());
            inode.punch(0, 2 * PAGE);
            if seed % 2 == 0 {
                inode.sync(inode.sync_point());
            }
            inode.power_loss(Vec::new(), &FaultPlan::draw(seed), &mut SimRng::derive(seed, "test"));
            assert_eq!(inode.data()[2 * PAGE as usize..], [7; PAGE as usize], "seed {seed}");
            match inode.data()[..2 * PAGE as usize] {
                ref zeros if zeros == [0; 2 * PAGE as usize] => {
                    assert_eq!(inode.space(), PAGE, "seed {seed}");
                    holes += 1;
                }
                _ if seed % 2 == 0 => panic!("seed {seed}: a hole that was synced stays"),
                _ => back += 1,
            }
        }
        assert!(holes > 110 && back > 20, "{holes} holes, {back} came back");
    }

    #[test]
    fn space_counts_pages_once() {
        let mut inode = Inode::default();
        inode.write(0, &[1; 10]);
        inode.write(5, &[1; 10]);
        assert_eq!(inode.space(), PAGE);
        assert_eq!(inode.space_needed(0, PAGE + 1), PAGE);
        inode.set_len(3 * PAGE);
        assert_eq!(inode.space(), PAGE, "a hole takes no space");
        inode.allocate(0, 3 * PAGE);
        assert_eq!(inode.space_needed(PAGE, 2 * PAGE), 0);
        inode.punch(0, 2 * PAGE);
        assert_eq!((inode.space(), inode.data().len()), (PAGE, 3 * PAGE as usize), "the length stays");
        assert_eq!(inode.data()[..15], [0; 15]);
        inode.set_len(0);
        assert_eq!(inode.space(), 0);
    }
}
