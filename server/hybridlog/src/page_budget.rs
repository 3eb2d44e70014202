//! How many pages each region may have: as configured, or fewer where there is less memory for them.

use crate::sync::{AtomicUsize, Ordering};

/// Read at every page that is opened or leaves; changed while the log is used.
pub(crate) struct PageBudget {
    configured: Split,
    mutable: AtomicUsize,
    read_only: AtomicUsize,
}

/// Pages of the two regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Split {
    mutable: usize,
    read_only: usize,
}

/// Anonymous pages that may be on their way to the file beside so many mutable ones.
const fn in_flight(mutable: usize) -> usize {
    if mutable / 4 > 2 { mutable / 4 } else { 2 }
}

impl Split {
    /// All pages in memory at most.
    fn total(self) -> usize {
        self.mutable + in_flight(self.mutable) + self.read_only
    }
}

impl PageBudget {
    pub(crate) fn new(mutable: usize, read_only: usize) -> Self {
        assert!(mutable >= 1, "at least one page is mutable");
        Self {
            configured: Split { mutable, read_only },
            mutable: AtomicUsize::new(mutable),
            read_only: AtomicUsize::new(read_only),
        }
    }

    /// Pages that are updated in place.
    #[inline]
    pub(crate) fn mutable(&self) -> usize {
        self.mutable.load(Ordering::Relaxed)
    }

    /// Pages that are served from a map.
    pub(crate) fn read_only(&self) -> usize {
        self.read_only.load(Ordering::Relaxed)
    }

    /// Anonymous pages that may be on their way to the file.
    pub(crate) fn in_flight(&self) -> usize {
        in_flight(self.mutable())
    }

    /// As many anonymous pages may be.
    pub(crate) fn anonymous(&self) -> usize {
        let mutable = self.mutable();
        mutable + in_flight(mutable)
    }

    /// Mutable pages at most.
    pub(crate) fn mutable_max(&self) -> usize {
        self.configured.mutable
    }

    /// All pages in memory at most.
    pub(crate) fn total_max(&self) -> usize {
        self.configured.total()
    }

    /// Makes the regions as large as `pages` allow, in the configured proportion; one page is mutable in any case. False if
    /// nothing has changed.
    pub(crate) fn fit(&self, pages: usize) -> bool {
        let part = |mutable: usize| Split {
            mutable,
            read_only: self.configured.read_only * mutable / self.configured.mutable,
        };
        let fitting = (1..=self.configured.mutable).rev().map(part).find(|split| split.total() <= pages);
        let split = fitting.unwrap_or(Split { mutable: 1, read_only: 0 });
        let before = Split { mutable: self.mutable(), read_only: self.read_only() };
        self.mutable.store(split.mutable, Ordering::Relaxed);
        self.read_only.store(split.read_only, Ordering::Relaxed);
        split != before
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_regions_share_what_there_is_in_the_configured_proportion() {
        let budget = PageBudget::new(16, 8);
        let now = || (budget.mutable(), budget.read_only(), budget.anonymous());
        assert!(!budget.fit(1000), "as configured");
        assert_eq!(now(), (16, 8, 20));
        assert!(budget.fit(14));
        assert_eq!(now(), (8, 4, 10));
        for pages in 0..30 {
            budget.fit(pages);
            assert!(pages < 3 || budget.anonymous() + budget.read_only() <= pages, "{pages}: {:?}", now());
        }
        budget.fit(0);
        assert_eq!(now(), (1, 0, 3), "less cannot be");
        assert!(budget.fit(28));
        assert_eq!(now(), (16, 8, 20));
    }
}
