//! Where the rewrites of the append-only file stand: wanted by a command or by growth, running, done.

use ferrite_commands::AofRewrite;
use parking_lot::Mutex;
use tokio::sync::Notify;

use ferrite_hybridlog::aof::AofSize;

/// After so many failures in a row a rewrite that growth asks for waits: a minute, then twice as long each time, an hour
/// at most. As in Redis.
const FAILURES_MAX: u64 = 3;
const MINUTE_NS: u64 = 60_000_000_000;
const MINUTES_MAX: u64 = 60;

/// Shared by the command, INFO and the task that rewrites.
#[derive(Default)]
pub struct RewriteStatus {
    figures: Mutex<Figures>,
    wish: Notify,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Asked for and not begun.
    pub wanted: bool,
    /// On the monotonic clock.
    pub running_since_ns: Option<u64>,
    pub last_took_s: Option<u64>,
    /// Begun since the start.
    pub done: u64,
    pub failed_in_a_row: u64,
    last_failed_ns: u64,
}

impl RewriteStatus {
    pub fn figures(&self) -> Figures {
        *self.figures.lock()
    }

    /// A client asks for a rewrite.
    pub(crate) fn want(&self, later: bool) -> AofRewrite {
        let mut figures = self.figures.lock();
        if figures.running_since_ns.is_some() {
            return AofRewrite::InProgress;
        }
        // Two that ask at the same moment get one rewrite.
        figures.wanted = true;
        if later {
            figures.failed_in_a_row = 0;
        }
        drop(figures);
        self.wish.notify_one();
        if later { AofRewrite::Scheduled } else { AofRewrite::Started }
    }

    /// Completes at the next wish, or at once if one came since the last time.
    pub(crate) async fn wished(&self) {
        self.wish.notified().await;
    }

    /// Whether growth asks for a rewrite.
    pub(crate) fn is_due(&self, size: AofSize, percentage: u64, min_size: u64, now_ns: u64) -> bool {
        if percentage == 0 || size.current <= min_size {
            return false;
        }
        let grown = u128::from(size.current) * 100 / u128::from(size.base.max(1));
        grown >= 100 + u128::from(percentage) && now_ns >= self.not_before_ns()
    }

    fn not_before_ns(&self) -> u64 {
        let figures = self.figures.lock();
        match figures.failed_in_a_row.checked_sub(FAILURES_MAX) {
            None => 0,
            Some(more) => figures.last_failed_ns + (1 << more.min(6)).min(MINUTES_MAX) * MINUTE_NS,
        }
    }

    pub(crate) fn begin(&self, now_ns: u64) {
        let mut figures = self.figures.lock();
        figures.wanted = false;
        figures.running_since_ns = Some(now_ns);
        figures.done += 1;
    }

    pub(crate) fn end(&self, succeeded: bool, now_ns: u64) {
        let mut figures = self.figures.lock();
        let since_ns = figures.running_since_ns.take().unwrap_or(now_ns);
        figures.last_took_s = Some(now_ns.saturating_sub(since_ns) / 1_000_000_000);
        if succeeded {
            figures.failed_in_a_row = 0;
        } else {
            figures.failed_in_a_row += 1;
            figures.last_failed_ns = now_ns;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_starts_one_rewrite() {
        let status = RewriteStatus::default();
        assert_eq!(status.want(true), AofRewrite::Scheduled);
        assert_eq!(status.want(false), AofRewrite::Started);
        assert!(status.figures().wanted);
        status.begin(5_000_000_000);
        assert_eq!(status.want(false), AofRewrite::InProgress);
        assert!(!status.figures().wanted);
        status.end(true, 8_500_000_000);
        let figures = status.figures();
        assert_eq!((figures.last_took_s, figures.done, figures.running_since_ns), (Some(3), 1, None));
    }

    #[test]
    fn growth_asks_as_in_redis() {
        let status = RewriteStatus::default();
        let due = |current, base, percentage| status.is_due(AofSize { current, base }, percentage, 1000, 0);
        assert!(!due(1000, 0, 100) && due(1001, 0, 100), "above the least size");
        assert!(!due(1999, 1000, 100) && due(2000, 1000, 100));
        assert!(!due(u64::MAX, 0, 0), "0 per cent is never");
        assert!(due(u64::MAX, 1, 50));
    }

    #[test]
    fn failures_put_growth_off_but_not_a_client() {
        let status = RewriteStatus::default();
        let due = |now_ns| status.is_due(AofSize { current: 10, base: 1 }, 100, 0, now_ns);
        for failures in 0..12 {
            let minutes: u64 = [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60][failures];
            assert!(due(minutes * MINUTE_NS + 7), "{failures}");
            assert_eq!(due((minutes * MINUTE_NS + 7).saturating_sub(8)), minutes == 0, "{failures}");
            status.begin(0);
            status.end(false, 7);
        }
        assert_eq!(status.figures().failed_in_a_row, 12);
        assert_eq!(status.want(false), AofRewrite::Started);
        status.want(true);
        assert_eq!(status.figures().failed_in_a_row, 0);
    }
}
