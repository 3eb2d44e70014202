//! What the flush tells of its runs.

use super::{Engine, tiny};
use crate::objects::padded;
use crate::{FlushRun, StorageError};
use std::sync::atomic::Ordering;

fn runs(engine: &Engine) -> Vec<FlushRun> {
    engine.world.run();
    std::mem::take(&mut engine.runs.borrow_mut())
}

#[test]
fn every_page_belongs_to_one_run_that_says_what_it_waited_for() {
    let engine = Engine::new(tiny(1));
    assert_eq!(runs(&engine), [], "nothing was to be flushed");
    for n in 0..20u8 {
        engine.set(&[n], &[n; 3900]).unwrap();
    }
    let (runs, stats) = (runs(&engine), engine.store.stats());
    assert!(runs.iter().all(|run| run.pages > 0 && run.error.is_none() && run.began_ns <= run.ended_ns), "{runs:?}");
    assert_eq!(runs.iter().map(|run| run.pages).sum::<u64>(), stats.pages_flushed);
    assert_eq!(runs.iter().map(|run| run.bytes).sum::<u64>(), stats.pages_flushed * 4096);
    assert_eq!((stats.bytes_flushed, stats.pages_in_flight), (stats.pages_flushed * 4096, 0));
    assert!(runs.is_sorted_by(|one, next| one.epoch < next.epoch), "a page waits for its own epoch: {runs:?}");
    assert!(runs.iter().all(|run| (1..stats.safe_epoch).contains(&run.epoch)), "{runs:?} {stats:?}");
}

#[test]
fn the_objects_of_a_page_count_with_it() {
    let engine = Engine::new(tiny(1));
    engine.set(b"large", &[7; 10_000]).unwrap();
    for n in 0..4u8 {
        engine.set(&[n], &[n; 3900]).unwrap();
    }
    let runs = runs(&engine);
    let pages: u64 = runs.iter().map(|run| run.pages).sum();
    assert_eq!(runs.iter().map(|run| run.bytes).sum::<u64>(), pages * 4096 + padded(10_000), "{runs:?}");
}

#[test]
fn an_outage_shows_while_it_lasts() {
    for large in [false, true] {
        let engine = Engine::new(tiny(1));
        let switches = engine.world.disk.switches.clone();
        switches.writes_fail.store(true, Ordering::Relaxed);
        if large {
            engine.set(b"large", &[7; 10_000]).unwrap();
        }
        let refused = (0..30u8).find(|&n| engine.set(&[n], &[n; 3900]).is_err());
        assert!(refused.is_some(), "memory is bounded");
        let failed = std::mem::take(&mut *engine.runs.borrow_mut());
        assert!(!failed.is_empty());
        for run in &failed {
            assert!(matches!(run.error, Some(StorageError::Failed { .. })) && run.pages == 0, "{run:?}");
        }
        let errors = engine.store.stats().flush_errors;
        assert!(failed.len() as u64 <= errors, "pages begun together fail together: {failed:?}");

        switches.writes_fail.store(false, Ordering::Relaxed);
        let written: Vec<FlushRun> = runs(&engine).into_iter().filter(|run| run.error.is_none()).collect();
        let stats = engine.store.stats();
        assert!(stats.pages_flushed > 0);
        assert_eq!(written.iter().map(|run| run.pages).sum::<u64>(), stats.pages_flushed, "{written:?}");
        assert_eq!(written.iter().map(|run| run.bytes).sum::<u64>(), stats.bytes_flushed);
    }
}

#[test]
fn the_flush_is_behind_when_writers_are_about_to_wait_for_it() {
    let engine = Engine::new(tiny(1));
    let log = &engine.store.log;
    // Two pages are mutable, and two may be on their way beside them: so many sets fill a page each, and wait for nothing.
    let mut behind = Vec::new();
    for n in 0..4u8 {
        engine.set(&[n], &[n; 3900]).unwrap();
        behind.push(log.flush_is_behind());
    }
    assert_eq!(behind, [false, false, false, true]);
    engine.world.run();
    assert!(!log.flush_is_behind(), "all was written that could be");
}
