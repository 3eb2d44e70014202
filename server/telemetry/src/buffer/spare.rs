//! What buffers keep of the memory that large batches took. A connection that goes on sending such batches is not to allocate it
//! again for each; ten thousand that sent one each are not to hold it. So a worker's buffers share a budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of a list that every buffer keeps.
pub(super) const LIST_BYTES_MAX: usize = 64 * 1024;
/// Bytes beyond it that a worker's buffers keep together.
const WORKER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A list of which a batch used less than this part is given back.
const USED_PART: usize = 4;

/// What one worker's buffers hold together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budget(Arc<AtomicUsize>);

/// One buffer's part of it.
#[derive(Debug, Default)]
pub(super) struct Spare {
    budget: Budget,
    held: usize,
}

impl Spare {
    pub fn new(budget: Budget) -> Self {
        Self { budget, held: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Holds so many bytes from now on, if there is room for them, else none.
    pub fn hold(&mut self, bytes: usize) -> bool {
        let total = &self.budget.0;
        // One thread: a worker's sessions and background tasks take turns.
        let others = total.load(Ordering::Relaxed) - self.held;
        let fits = others + bytes <= WORKER_BYTES_MAX;
        self.held = if fits { bytes } else { 0 };
        total.store(others + self.held, Ordering::Relaxed);
        fits
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.hold(0);
    }
}

/// The bytes of a list that is larger than every buffer may keep, and was used; else 0.
pub(super) fn worth_keeping<T>(list: &Vec<T>) -> usize {
    let used = list.len() >= list.capacity() / USED_PART;
    if is_large(list) && used { list.capacity() * size_of::<T>() } else { 0 }
}

pub(super) fn is_large<T>(list: &Vec<T>) -> bool {
    list.capacity() * size_of::<T>() > LIST_BYTES_MAX
}

/// Empties a list; a large one keeps its memory if it is `kept` and worth it.
pub(super) fn reset<T>(list: &mut Vec<T>, kept: bool) {
    let stays = !is_large(list) || kept && worth_keeping(list) > 0;
    list.clear();
    if !stays {
        list.shrink_to(LIST_BYTES_MAX / 2 / size_of::<T>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_share_the_budget_and_give_their_part_back() {
        let budget = Budget::default();
        let mut one = Spare::new(budget.clone());
        let mut two = Spare::new(budget.clone());
        assert!(one.hold(WORKER_BYTES_MAX - 10) && two.hold(10) && !two.hold(11) && two.is_empty());
        assert!(one.hold(20), "it may shrink");
        assert!(two.hold(WORKER_BYTES_MAX - 20));
        drop(two);
        assert_eq!(budget.0.load(Ordering::Relaxed), 20);
        drop(one);
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_list_is_kept_as_long_as_it_is_used() {
        let mut list: Vec<u64> = Vec::with_capacity(LIST_BYTES_MAX);
        list.resize(list.capacity() / 2, 0);
        assert_eq!(worth_keeping(&list), list.capacity() * 8);
        reset(&mut list, true);
        assert!(is_large(&list) && list.is_empty());
        list.push(1);
        assert_eq!(worth_keeping(&list), 0);
        reset(&mut list, true);
        assert!(!is_large(&list));
        list.resize(LIST_BYTES_MAX, 0);
        reset(&mut list, false);
        assert!(!is_large(&list));
    }
}
