//! A disk's names and space, and what a power loss does to them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::aimed::{Aimed, ReadFault};
use super::inode::Inode;
use crate::log::StableHasher;
use crate::plan::FaultPlan;
use crate::rng::SimRng;

/// A change of a directory that was made and not yet synced.
#[derive(Clone, Debug)]
enum NameChange {
    Create { path: PathBuf, ino: u64 },
    Rename { from: PathBuf, to: PathBuf, ino: u64 },
    Remove { path: PathBuf, ino: u64 },
}

impl NameChange {
    /// The directory whose sync makes it durable.
    fn directory(&self) -> Option<&Path> {
        match self {
            Self::Create { path, .. } | Self::Remove { path, .. } => path.parent(),
            Self::Rename { to, .. } => to.parent(),
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Create { path, ino } => {
                names.insert(path, ino);
            }
            Self::Rename { from, to, ino } => {
                if names.get(&from) == Some(&ino) {
                    names.remove(&from);
                }
                names.insert(to, ino);
            }
            Self::Remove { path, ino } => {
                if names.get(&path) == Some(&ino) {
                    names.remove(&path);
                }
            }
        }
    }
}

/// One host's disk. It outlives the host's processes.
///
/// Directories are durable as soon as they are made; everything else in them waits for `sync_dir`.
pub(crate) struct DiskState {
    pub(super) rng: SimRng,
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    unsynced_names: Vec<NameChange>,
    directories: BTreeSet<PathBuf>,
    next_ino: u64,
    locks: BTreeMap<PathBuf, u64>,
    next_lock: u64,
    capacity: Option<u64>,
    /// Every read fails with EIO.
    pub(super) reads_fail: bool,
    /// Reads do not complete for as long as it is set.
    pub(super) reads_held: bool,
    pub(super) aimed: Aimed,
    /// Every sync fails with EIO.
    pub(super) syncs_fail: bool,
    /// Every write of the file with this name fails with EIO.
    writes_fail: Option<PathBuf>,
    /// Every reservation of space for the file with this name fails with EIO.
    allocations_fail: Option<PathBuf>,
    /// Every read of these bytes of the file with this name fails with EIO.
    bad: Option<(PathBuf, Range<u64>)>,
    /// Writes that were submitted and have not happened: file, offset, bytes.
    pub(super) on_the_way: BTreeMap<u64, (u64, u64, Vec<u8>)>,
    /// Disk events until the power goes.
    pub(crate) power_loss_in: Option<u64>,
    /// Counts power losses and kills: what was submitted in another session never happens.
    pub(super) session: u64,
}

impl DiskState {
    pub(crate) fn new(rng: SimRng) -> Self {
        Self {
            rng,
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            directories: BTreeSet::from([PathBuf::from("/"), PathBuf::new()]),
            next_ino: 1,
            locks: BTreeMap::new(),
            next_lock: 1,
            capacity: None,
            reads_fail: false,
            reads_held: false,
            aimed: Aimed::default(),
            syncs_fail: false,
            writes_fail: None,
            bad: None,
            allocations_fail: None,
            on_the_way: BTreeMap::new(),
            power_loss_in: None,
            session: 0,
        }
    }

    /// Counts one disk event; true if the power goes now.
    pub(super) fn tick(&mut self) -> bool {
        match &mut self.power_loss_in {
            Some(left) if *left <= 1 => {
                self.power_loss_in = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    pub(crate) fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes;
    }

    pub(crate) fn set_reads_held(&mut self, held: bool) {
        self.reads_held = held;
    }

    pub(crate) fn set_reads_fail(&mut self, fail: bool) {
        self.reads_fail = fail;
    }

    pub(crate) fn aim_reads(&mut self, faults: Vec<(u64, ReadFault)>) {
        self.aimed.aim(faults);
    }

    /// Without effect if there is no file of that name.
    pub(crate) fn aim_read_of(&mut self, path: &Path, number: u64, fault: ReadFault) {
        if let Some(&ino) = self.names.get(path) {
            self.aimed.aim_at(ino, number, fault);
        }
    }

    pub(crate) fn set_syncs_fail(&mut self, fail: bool) {
        self.syncs_fail = fail;
    }

    pub(crate) fn set_writes_fail(&mut self, path: Option<PathBuf>) {
        self.writes_fail = path;
    }

    pub(crate) fn set_allocations_fail(&mut self, path: Option<PathBuf>) {
        self.allocations_fail = path;
    }

    /// Whether no space can be reserved for this file, though there is some.
    pub(super) fn refuses_allocations(&self, ino: u64) -> bool {
        self.allocations_fail.as_ref().is_some_and(|path| self.names.get(path) == Some(&ino))
    }

    pub(crate) fn set_bad(&mut self, bad: Option<(PathBuf, Range<u64>)>) {
        self.bad = bad;
    }

    /// Whether a read of these bytes of the file fails.
    pub(super) fn is_bad(&self, ino: u64, from: u64, len: u64) -> bool {
        let meets = |bad: &Range<u64>| from < bad.end && bad.start < from + len;
        self.bad.as_ref().is_some_and(|(path, bad)| self.names.get(path) == Some(&ino) && meets(bad))
    }

    /// Whether writes of this file fail.
    pub(super) fn refuses_writes(&self, ino: u64) -> bool {
        self.writes_fail.as_ref().is_some_and(|path| self.names.get(path) == Some(&ino))
    }

    /// Bytes that files with a name take.
    pub(crate) fn used(&self) -> u64 {
        self.names.values().map(|ino| self.inodes[ino].space()).sum()
    }

    /// Bytes that one of them takes; 0 if there is none of that name.
    pub(crate) fn space_of(&self, path: &Path) -> u64 {
        self.names.get(path).map_or(0, |ino| self.inodes[ino].space())
    }

    /// Space for that many more bytes.
    pub(super) fn has_space(&self, bytes: u64) -> bool {
        self.capacity.is_none_or(|capacity| self.used() + bytes <= capacity)
    }

    pub(super) fn inode(&mut self, ino: u64) -> &mut Inode {
        self.inodes.get_mut(&ino).expect("an open file's inode stays")
    }

    /// Opens a file or makes it; its number.
    pub(super) fn open(&mut self, path: &Path, create: bool) -> io::Result<u64> {
        if self.directories.contains(path) {
            return Err(ErrorKind::IsADirectory.into());
        }
        if let Some(&ino) = self.names.get(path) {
            return Ok(ino);
        }
        let parent_exists = path.parent().is_some_and(|parent| self.directories.contains(parent));
        if !create || !parent_exists {
            return Err(ErrorKind::NotFound.into());
        }
        let ino = self.next_ino;
        self.next_ino += 1;
        self.inodes.insert(ino, Inode::default());
        self.change_name(NameChange::Create { path: path.to_path_buf(), ino });
        Ok(ino)
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        for ancestor in path.ancestors() {
            if self.names.contains_key(ancestor) {
                return Err(ErrorKind::AlreadyExists.into());
            }
        }
        self.directories.extend(path.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        if !self.directories.contains(path) {
            return Err(ErrorKind::NotFound.into());
        }
        let in_here = self.names.keys().filter(|name| name.parent() == Some(path));
        let names = in_here.filter_map(|name| name.file_name());
        Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let &ino = self.names.get(from).ok_or(ErrorKind::NotFound)?;
        if !to.parent().is_some_and(|parent| self.directories.contains(parent)) {
            return Err(ErrorKind::NotFound.into());
        }
        if from != to {
            self.change_name(NameChange::Rename { from: from.to_path_buf(), to: to.to_path_buf(), ino });
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let &ino = self.names.get(path).ok_or(ErrorKind::NotFound)?;
        self.change_name(NameChange::Remove { path: path.to_path_buf(), ino });
        Ok(())
    }

    fn change_name(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        if !self.directories.contains(path) {
            return Err(ErrorKind::NotFound.into());
        }
        let changes = std::mem::take(&mut self.unsynced_names);
        let (here, elsewhere) = changes.into_iter().partition(|change| change.directory() == Some(path));
        self.unsynced_names = elsewhere;
        let here: Vec<NameChange> = here;
        for change in here {
            change.apply(&mut self.durable_names);
        }
        Ok(())
    }

    /// Takes a lock; its number.
    pub(super) fn lock(&mut self, path: &Path) -> io::Result<u64> {
        self.open(path, true)?;
        if self.locks.contains_key(path) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let number = self.next_lock;
        self.next_lock += 1;
        self.locks.insert(path.to_path_buf(), number);
        Ok(number)
    }

    /// Releases a lock, unless a later process holds it by now.
    pub(super) fn unlock(&mut self, path: &Path, number: u64) {
        if self.locks.get(path) == Some(&number) {
            self.locks.remove(path);
        }
    }

    /// A process was killed: its locks are released, and what it had submitted ends with it, each write done or not
    /// begun. (Exiting reaps the requests of a ring. A write that came later would hit the file under the next process,
    /// after its recovery.)
    pub(crate) fn process_ended(&mut self) {
        self.session += 1;
        self.aimed.session_ended();
        self.locks.clear();
        for (ino, offset, bytes) in std::mem::take(&mut self.on_the_way).into_values() {
            let needed = self.inode(ino).space_needed(offset, bytes.len() as u64);
            if self.rng.one_in(2) && self.has_space(needed) {
                self.inode(ino).write(offset, &bytes);
            }
        }
    }

    /// Leaves what the disk happened to keep; the hash of that.
    pub(crate) fn power_loss(&mut self, faults: &FaultPlan) -> u64 {
        self.session += 1;
        self.aimed.session_ended();
        self.power_loss_in = None;
        self.locks.clear();
        self.lose_names(faults);
        let mut on_the_way: BTreeMap<u64, Vec<(u64, Vec<u8>)>> = BTreeMap::new();
        for (ino, offset, bytes) in std::mem::take(&mut self.on_the_way).into_values() {
            on_the_way.entry(ino).or_default().push((offset, bytes));
        }
        let reachable: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|ino, _| reachable.contains(ino));
        let mut hasher = StableHasher::default();
        self.names.hash(&mut hasher);
        for (ino, inode) in &mut self.inodes {
            inode.power_loss(on_the_way.remove(ino).unwrap_or_default(), faults, &mut self.rng);
            hasher.write(inode.data());
        }
        hasher.finish()
    }

    fn lose_names(&mut self, faults: &FaultPlan) {
        let changes = std::mem::take(&mut self.unsynced_names);
        let first = self.rng.below(changes.len() as u64 + 1) as usize;
        for (index, change) in changes.into_iter().enumerate() {
            // A journal commits in order; POSIX does not promise one.
            let keep = if faults.power_reorder { self.rng.one_in(2) } else { index < first };
            if keep {
                change.apply(&mut self.durable_names);
            }
        }
        self.names = self.durable_names.clone();
    }

    pub(crate) fn peek(&self, path: &Path) -> Option<Vec<u8>> {
        let ino = self.names.get(path)?;
        Some(self.inodes[ino].data().to_vec())
    }

    pub(crate) fn corrupt(&mut self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let ino = *self.names.get(path).expect("the scenario corrupts a file that exists");
        self.inode(ino).corrupt(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> DiskState {
        let mut disk = DiskState::new(SimRng::derive(1, "test"));
        disk.create_dir_all(Path::new("/data")).expect("an empty disk takes directories");
        disk
    }

    #[test]
    fn a_rename_is_durable_after_sync_dir_and_may_be_lost_before() {
        let (mut lost, mut kept) = (0, 0);
        for seed in 0..50 {
            let mut disk = disk();
            disk.rng = SimRng::derive(seed, "test");
            for (name, bytes) in [("/data/a", b"old"), ("/data/b", b"new")] {
                let ino = disk.open(Path::new(name), true).expect("creates");
                disk.inode(ino).write(0, bytes);
                let point = disk.inode(ino).sync_point();
                disk.inode(ino).sync(point);
            }
            disk.sync_dir(Path::new("/data")).expect("the directory exists");
            disk.rename(Path::new("/data/b"), Path::new("/data/a")).expect("renames");
            if seed % 2 == 0 {
                disk.sync_dir(Path::new("/data")).expect("the directory exists");
            }
            disk.power_loss(&FaultPlan::draw(seed));
            let content = disk.peek(Path::new("/data/a")).expect("one of both is there");
            if seed % 2 == 0 {
                assert_eq!(content, b"new", "seed {seed}");
            } else if content == b"old" {
                assert!(disk.peek(Path::new("/data/b")).is_some(), "a lost rename leaves its source");
                lost += 1;
            } else {
                kept += 1;
            }
        }
        assert!(lost > 3 && kept > 3, "{lost} lost, {kept} kept");
    }

    #[test]
    fn a_power_loss_releases_locks_and_a_late_unlock_does_no_harm() {
        let mut disk = disk();
        let path = Path::new("/data/lock");
        let old = disk.lock(path).expect("free");
        assert_eq!(disk.lock(path).expect_err("held").kind(), ErrorKind::WouldBlock);
        disk.power_loss(&FaultPlan::none());
        disk.lock(path).expect("free again");
        disk.unlock(path, old);
        assert!(disk.lock(path).is_err(), "the new holder keeps it");
    }

    #[test]
    fn a_kill_keeps_the_page_cache_and_ends_what_was_submitted() {
        let (mut done, mut cancelled) = (0, 0);
        for seed in 0..40 {
            let mut disk = disk();
            disk.rng = SimRng::derive(seed, "test");
            let ino = disk.open(Path::new("/data/a"), true).expect("creates");
            disk.inode(ino).write(0, b"cached");
            disk.on_the_way.insert(1, (ino, 6, b" and late".to_vec()));
            disk.process_ended();
            assert!(disk.on_the_way.is_empty());
            match disk.peek(Path::new("/data/a")).expect("kept").as_slice() {
                b"cached and late" => done += 1,
                b"cached" => cancelled += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(done > 5 && cancelled > 5, "{done} done, {cancelled} cancelled");
    }

    #[test]
    fn names_are_checked_as_a_file_system_does() {
        let mut disk = disk();
        assert!(disk.open(Path::new("/data/x"), false).is_err());
        assert!(disk.open(Path::new("/nowhere/x"), true).is_err());
        assert!(disk.open(Path::new("/data"), true).is_err());
        disk.open(Path::new("/data/b"), true).expect("creates");
        disk.open(Path::new("/data/a"), true).expect("creates");
        assert_eq!(disk.list(Path::new("/data")).expect("exists"), ["a", "b"]);
        disk.remove(Path::new("/data/a")).expect("exists");
        assert_eq!(disk.list(Path::new("/data")).expect("exists"), ["b"]);
        assert!(disk.list(Path::new("/nowhere")).is_err());
    }
}
