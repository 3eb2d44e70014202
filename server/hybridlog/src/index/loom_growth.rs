//! A split beside a look-up and beside writes, in every order, and a merge, and one after the other. A fault that is planted
//! must make its model fail.
//!
//! The index begins with one bucket, so that its first split also replaces the directory of chunks.

use super::Index;
use crate::mutant::Mutant;
use crate::reclaim::Reclaim;
use crate::sync::AtomicU64;
use loom::sync::Arc;

/// By its tag's lowest bit a hash stays or moves in the first split.
const STAYS: u64 = 2 << super::TAG_SHIFT;
const MOVES: u64 = 1 << super::TAG_SHIFT;
const MOVES_TOO: u64 = 3 << super::TAG_SHIFT;

struct Model {
    index: Index,
    reclaim: Reclaim,
}

/// What happens to the index beside `other`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resize {
    Split,
    /// In an index that was split before.
    Merge,
    /// The same, and the chunk of the bucket that is gone is freed as soon as it may.
    MergeAndFree,
    /// The same, and split again.
    MergeAndSplit,
}

/// A split beside `other`, in an index of two entries; then `check`.
fn model(mutant: Option<Mutant>, other: fn(&Model), check: fn(&Model)) {
    resize(Resize::Split, mutant, &[(STAYS, 8), (MOVES, 16)], other, check);
}

/// A merge beside `other`, in an index of two entries; then `check`.
fn merge(mutant: Option<Mutant>, other: fn(&Model), check: fn(&Model)) {
    resize(Resize::Merge, mutant, &[(STAYS, 8), (MOVES, 16)], other, check);
}

fn resize(what: Resize, mutant: Option<Mutant>, entries: &'static [(u64, u64)], other: fn(&Model), check: fn(&Model)) {
    Mutant::plant(mutant);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 20_000;
    builder.check(move || {
        let model = Arc::new(Model { index: Index::new(1, 2), reclaim: Reclaim::new() });
        for &(hash, address) in entries {
            model.index.insert(hash, address, 0, &model.reclaim);
        }
        if what != Resize::Split {
            model.index.split(&mut model.index.growing.lock(), &model.reclaim, false);
        }
        let thread = {
            let model = model.clone();
            loom::thread::spawn(move || other(&model))
        };
        {
            let mut growing = model.index.growing.lock();
            match what {
                Resize::Split => model.index.split(&mut growing, &model.reclaim, false),
                _ => model.index.merge(&mut growing, &model.reclaim, false),
            }
            if what == Resize::MergeAndSplit {
                model.index.split(&mut growing, &model.reclaim, false);
            }
        }
        if what == Resize::MergeAndFree {
            assert!(model.index.retire_chunks(&model.reclaim));
            drop(model.index.take_retired_chunks());
        }
        thread.join().unwrap();
        assert_eq!(model.index.len(), if matches!(what, Resize::Split | Resize::MergeAndSplit) { 2 } else { 1 });
        check(&model);
    });
}

fn latch<'m>(model: &'m Model, hash: u64, write: bool) -> &'m AtomicU64 {
    let (word, _) = model.index.latch(hash, write, false);
    assert!(std::ptr::eq(word, model.index.word(hash)), "another bucket is latched");
    word
}

fn found(model: &Model, hash: u64) -> Option<u64> {
    let word = latch(model, hash, false);
    let found = model.index.find(hash).map(|slot| slot.address());
    crate::latch::unlock(word, false, false);
    found
}

fn look_up(model: &Model) {
    assert_eq!(found(model, MOVES), Some(16), "a key that is there was missed");
}

fn update(model: &Model) {
    let word = latch(model, MOVES, true);
    model.index.find(MOVES).expect("it is there").set_address(24);
    crate::latch::unlock(word, true, false);
}

fn insert(model: &Model) {
    let word = latch(model, MOVES_TOO, true);
    assert_eq!(model.index.find(MOVES_TOO).map(|slot| slot.address()), None);
    model.index.insert(MOVES_TOO, 32, 1, &model.reclaim);
    crate::latch::unlock(word, true, false);
}

fn remove(model: &Model) {
    let word = latch(model, MOVES, true);
    model.index.remove(model.index.find(MOVES).expect("it is there"), 1);
    crate::latch::unlock(word, true, false);
}

fn holds(model: &Model, expected: &[(u64, Option<u64>)]) {
    for &(hash, address) in expected {
        assert_eq!(found(model, hash), address, "the key of {hash:#x}");
    }
    assert_eq!(model.index.entries(), expected.iter().filter(|(_, address)| address.is_some()).count());
}

fn holds_both(model: &Model) {
    holds(model, &[(STAYS, Some(8)), (MOVES, Some(16))]);
}

fn holds_the_update(model: &Model) {
    holds(model, &[(STAYS, Some(8)), (MOVES, Some(24))]);
}

#[test]
fn loom_a_split_hides_no_key_from_a_look_up() {
    model(None, look_up, holds_both);
}

#[test]
fn loom_a_split_loses_no_update() {
    model(None, update, holds_the_update);
}

#[test]
fn loom_a_split_loses_no_insert() {
    model(None, insert, |model| holds(model, &[(STAYS, Some(8)), (MOVES, Some(16)), (MOVES_TOO, Some(32))]));
}

#[test]
fn loom_a_split_brings_nothing_removed_back() {
    model(None, remove, |model| holds(model, &[(STAYS, Some(8)), (MOVES, None)]));
}

#[test]
#[should_panic(expected = "another bucket is latched")]
fn loom_catches_a_look_up_that_trusts_its_first_look() {
    model(Some(Mutant::NoSecondLook), look_up, holds_both);
}

#[test]
#[should_panic(expected = "a key that is there was missed")]
fn loom_catches_a_bucket_announced_before_it_is_filled() {
    model(Some(Mutant::AnnouncedEarly), look_up, holds_both);
}

#[test]
#[should_panic(expected = "assertion")]
fn loom_catches_a_split_without_the_latch() {
    model(Some(Mutant::SplitUnlatched), update, holds_the_update);
}

#[test]
#[should_panic(expected = "the directory was freed")]
fn loom_catches_a_directory_freed_while_it_is_read() {
    model(Some(Mutant::FreeAtOnce), look_up, holds_both);
}

#[test]
fn loom_a_merge_hides_no_key_from_a_look_up() {
    merge(None, look_up, holds_both);
}

#[test]
fn loom_a_merge_loses_no_update() {
    merge(None, update, holds_the_update);
}

#[test]
fn loom_a_merge_loses_no_insert() {
    merge(None, insert, |model| holds(model, &[(STAYS, Some(8)), (MOVES, Some(16)), (MOVES_TOO, Some(32))]));
}

#[test]
fn loom_a_merge_brings_nothing_removed_back() {
    merge(None, remove, |model| holds(model, &[(STAYS, Some(8)), (MOVES, None)]));
}

#[test]
fn loom_a_merge_frees_nothing_that_is_read() {
    resize(Resize::MergeAndFree, None, &[(STAYS, 8), (MOVES, 16)], look_up, holds_both);
}

/// Three that move: the bucket that a split fills for the second time has an overflow bucket, linked in its latch's word.
const THREE_MOVE: &[(u64, u64)] = &[(STAYS, 8), (MOVES, 16), (MOVES_TOO, 32), (5 << super::TAG_SHIFT, 40)];

fn holds_three(model: &Model) {
    holds(model, &[(STAYS, Some(8)), (MOVES, Some(16)), (MOVES_TOO, Some(32)), (5 << super::TAG_SHIFT, Some(40))]);
}

#[test]
fn loom_a_bucket_that_is_gone_and_comes_back_keeps_its_latch() {
    resize(Resize::MergeAndSplit, None, THREE_MOVE, look_up, holds_three);
}

#[test]
#[should_panic]
fn loom_catches_a_split_that_fills_a_bucket_without_its_latch() {
    resize(Resize::MergeAndSplit, Some(Mutant::TargetUnlatched), THREE_MOVE, look_up, holds_three);
}

#[test]
#[should_panic(expected = "assertion")]
fn loom_catches_a_merge_without_the_latch() {
    merge(Some(Mutant::MergeUnlatched), update, holds_the_update);
}

#[test]
#[should_panic(expected = "another bucket is latched")]
fn loom_catches_a_look_up_that_trusts_its_first_look_at_a_merge() {
    merge(Some(Mutant::NoSecondLook), look_up, holds_both);
}

#[test]
#[should_panic(expected = "the directory was freed")]
fn loom_catches_a_chunk_freed_while_it_is_read() {
    resize(Resize::MergeAndFree, Some(Mutant::ReleaseAtOnce), &[(STAYS, 8), (MOVES, 16)], look_up, holds_both);
}
