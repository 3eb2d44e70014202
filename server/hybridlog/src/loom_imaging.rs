//! A checkpoint's walk over the index beside a command that removes an entry, in every order: what the image has, without what
//! was noted, is what the index holds at the cut.

use crate::epoch::EpochTable;
use crate::imaging::Imaging;
use crate::index::Index;
use crate::latch;
use crate::mutant::Mutant;
use crate::reclaim::Reclaim;
use loom::sync::Arc;

const STAYS: u64 = 2 << 45;
const GOES: u64 = 1 << 45;
const TAIL: u64 = 24;

struct Model {
    index: Index,
    epochs: EpochTable,
    imaging: Imaging,
}

/// As `Pinned::delete` does it.
fn delete(model: &Model, worker: usize) {
    let looked_early = Mutant::LooksBeforeItsBatch.is_planted().then(|| model.imaging.is_on());
    model.epochs.enter(worker);
    let (word, _) = model.index.latch(GOES, true, false);
    model.index.remove(model.index.find(GOES).expect("it is there"), worker);
    if looked_early.unwrap_or_else(|| model.imaging.is_on()) {
        model.imaging.removed(GOES, TAIL);
    }
    latch::unlock(word, true, false);
    model.epochs.leave(worker);
}

/// As `node::checkpoint` does it: the beginning and the cut in the exclusive mode, and the walk between them in steps.
fn image(model: &Model, worker: usize) {
    let exclusive = |what: &mut dyn FnMut()| {
        let epoch = model.epochs.enter(worker);
        model.epochs.lock_exclusive(worker, epoch);
        what();
        model.epochs.unlock_exclusive(worker);
        model.epochs.leave(worker);
    };
    exclusive(&mut || model.imaging.begin(TAIL));
    let (mut cursor, mut addresses) = (0, Vec::new());
    loop {
        let (visit, word) = model.index.latch_at(cursor, false, false);
        model.index.each(visit.bucket, |slot| addresses.push(slot.address()));
        latch::unlock(word, false, false);
        cursor = visit.next();
        if cursor == 0 {
            break;
        }
    }
    exclusive(&mut || {
        // As a recovery does it.
        for (hash, tail) in model.imaging.end().removed {
            assert_eq!(hash, GOES);
            addresses.retain(|&address| address == 8 || address >= tail);
        }
        let at_the_cut = [STAYS, GOES].map(|hash| model.index.find(hash).map(|slot| slot.address()));
        let expected: Vec<u64> = at_the_cut.into_iter().flatten().collect();
        addresses.sort_unstable();
        assert_eq!(addresses, expected, "the image is not what there was at the cut");
    });
}

fn model(mutant: Option<Mutant>) {
    Mutant::plant(mutant);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 20_000;
    builder.check(|| {
        let (index, reclaim) = (Index::new(1, 2), Reclaim::new());
        for (hash, address) in [(STAYS, 8), (GOES, 16)] {
            index.insert(hash, address, 0, &reclaim);
        }
        let model = Arc::new(Model { index, epochs: EpochTable::new(2), imaging: Imaging::default() });
        let thread = {
            let model = model.clone();
            loom::thread::spawn(move || delete(&model, 1))
        };
        image(&model, 0);
        thread.join().unwrap();
    });
}

#[test]
fn loom_an_image_has_what_there_was_at_its_cut() {
    model(None);
}

#[test]
#[should_panic(expected = "the image is not what there was at the cut")]
fn loom_catches_a_removal_that_is_not_noted() {
    model(Some(Mutant::LooksBeforeItsBatch));
}
