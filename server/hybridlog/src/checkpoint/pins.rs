//! What of the log the checkpoints need: compaction leaves it in the file.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ferrite_io::World;

use super::file::Meta;
use super::load::read_meta;
use super::take::{CheckpointError, Checkpoints};
use crate::address::{Address, FIRST_ADDRESS};
use crate::datadir::NamedCheckpoint;
use crate::quarantine::Range;
use crate::store::Store;

/// Where the logs of checkpoints begin.
#[derive(Default)]
pub(super) struct Pins {
    /// By the checkpoint's number; of those that a process before has made only once they were asked.
    needs: RefCell<BTreeMap<u64, Needs>>,
    /// Numbers of those that could not be read when they were asked: said once of each.
    unread: RefCell<BTreeSet<u64>>,
    /// Of the one that is being taken.
    taking: Cell<Option<Address>>,
    /// Numbers of those that a start may find named, though the manifest that names them could not be put in force for good.
    doubtful: RefCell<Vec<u64>>,
}

/// What one checkpoint needs of the log.
pub(super) struct Needs {
    begin: Address,
    /// Below its beginning.
    quarantined: Vec<Range>,
}

impl Needs {
    pub fn of(meta: &Meta) -> Self {
        Self { begin: meta.begin, quarantined: meta.quarantined.pages.clone() }
    }
}

/// Ends when a checkpoint is in force or given up.
pub(super) struct TakingPin(Rc<Pins>);

impl Drop for TakingPin {
    fn drop(&mut self) {
        self.0.taking.set(None);
    }
}

impl Pins {
    /// A checkpoint begins, whose log will begin at `begin` or later.
    pub fn take(self: &Rc<Self>, begin: Address) -> TakingPin {
        self.taking.set(Some(begin));
        TakingPin(self.clone())
    }

    /// The manifest is about to name a checkpoint.
    pub fn naming(&self, number: u64, needs: Needs) {
        self.needs.borrow_mut().insert(number, needs);
    }

    /// Whether a manifest was put in force; if not, whether a start may find it.
    pub fn named(&self, number: u64, in_force: bool) {
        match in_force {
            true => self.doubtful.borrow_mut().clear(),
            false => self.doubtful.borrow_mut().push(number),
        }
    }
}

/// What the checkpoints keep of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The lowest address that any of them needs.
    pub from: Option<Address>,
    /// The lowest without the older of two.
    pub without_older: Option<Address>,
    /// The pages in quarantine that they need; `None`: they may need any that there ever were.
    pub(crate) quarantined: Option<Vec<Range>>,
    /// How many the manifest names.
    pub count: usize,
    /// Bytes of their files.
    pub bytes: u64,
}

impl Pinned {
    /// Without any checkpoint.
    #[cfg(test)]
    pub(crate) fn nothing() -> Self {
        Self { from: None, without_older: None, quarantined: Some(Vec::new()), count: 0, bytes: 0 }
    }
}

impl<W: World> Checkpoints<W> {
    /// What is kept for checkpoints. Reads the last chunk of those that a process before has made, until that succeeds: as
    /// long as one cannot be read, all is kept.
    pub async fn pinned(&self) -> Pinned {
        let named = self.catalog().checkpoints().await;
        let pins = self.pins();
        for entry in &named {
            if pins.needs.borrow().contains_key(&entry.number) {
                continue;
            }
            let named = NamedCheckpoint { path: self.catalog().path_of(entry.name()), entry: *entry };
            match read_meta(self.catalog().disk(), &named).await {
                Ok(meta) => _ = pins.needs.borrow_mut().insert(entry.number, Needs::of(&meta)),
                Err(error) if pins.unread.borrow_mut().insert(entry.number) => {
                    tracing::warn!(%error, "what a checkpoint needs of the log is not known: until it is, all is kept");
                }
                Err(_) => {}
            }
        }
        let needs = pins.needs.borrow();
        let begin_of = |number: &u64| needs.get(number).map_or(FIRST_ADDRESS, |needs| needs.begin);
        let doubtful = pins.doubtful.borrow();
        let others = doubtful.iter().map(begin_of).chain(pins.taking.get()).min();
        let numbers: Vec<u64> = named.iter().map(|entry| entry.number).collect();
        let newest = numbers.last().map(begin_of);
        let mut quarantined = pins.taking.get().is_none().then(Vec::new);
        for number in numbers.iter().chain(&*doubtful) {
            match (&mut quarantined, needs.get(number)) {
                (Some(pages), Some(needs)) => pages.extend_from_slice(&needs.quarantined),
                (all, _) => *all = None,
            }
        }
        Pinned {
            quarantined,
            from: numbers.iter().map(begin_of).chain(others).min(),
            without_older: newest.into_iter().chain(others).min(),
            count: named.len(),
            bytes: named.iter().map(|entry| entry.len).sum(),
        }
    }

    /// Does without the checkpoint before the last one: the manifest first, then its file.
    pub async fn give_up_older(&self, store: &Store) -> Result<(), CheckpointError> {
        let named = self.catalog().checkpoints().await;
        let [_, .., newest] = named[..] else { return Ok(()) };
        self.catalog().keep_checkpoints(&[newest]).await.map_err(|error| error.into_file_error())?;
        self.pins().named(newest.number, true);
        store.checkpoints_kept(&[newest.number]);
        Ok(())
    }
}
