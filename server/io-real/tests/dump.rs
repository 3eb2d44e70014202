//! What panics leave behind. A test binary of its own: the process's handlers are installed once.

// The file is the system's.
#![allow(clippy::disallowed_methods)]

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};

use ferrite_io_real::dump::{Part, checked, install};

#[test]
fn a_panic_that_is_caught_leaves_the_dump_to_the_next() {
    let dir = tempfile::tempdir().expect("a directory");
    let crash = dir.path().join("crash");
    let words: &'static [AtomicU64] = Vec::leak(vec![AtomicU64::new(0)]);
    install(&crash, &dir.path().join("request"), vec![Part::Words(words)]).expect("it is the only one");
    for number in 1..=3 {
        words[0].store(number, Ordering::Relaxed);
        assert!(catch_unwind(|| panic!("number {number}")).is_err());
        let file = std::fs::read(&crash).expect("it was written");
        assert_eq!(checked(&file), Some(&number.to_ne_bytes()[..]));
    }
    assert!(!dir.path().join("request").exists());
}
