//! Where checkpoints stand: wanted by a command or a save point, running, done.

use ferrite_commands::BackgroundSave;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// After a failure save points wait as long, as in Redis.
const RETRY_AFTER_NS: u64 = 5_000_000_000;

/// Shared by the commands, INFO and the task that takes checkpoints.
#[derive(Default)]
pub struct SaveStatus {
    figures: Mutex<Figures>,
    /// As in the figures, for who asks at every batch.
    last_failed: AtomicBool,
    wish: Notify,
    news: Notify,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Asked for and not begun.
    pub wanted: bool,
    /// On the monotonic clock.
    pub running_since_ns: Option<u64>,
    pub last_took_s: Option<u64>,
    pub last_failed: bool,
    /// Succeeded since the start.
    pub done: u64,
    /// Ended since the start, well or not.
    pub ended: u64,
    /// When the last one succeeded: seconds since the Unix epoch, `None` before the first; and on the monotonic clock.
    pub last_unix_s: Option<u64>,
    last_done_ns: u64,
    last_ended_ns: u64,
    /// What [`ferrite_keyspace::Figures::changes`] was at the last cut of one that succeeded.
    pub changes: u64,
    /// Keys that the start found in a checkpoint.
    pub keys_loaded: u64,
    /// No more will be taken.
    closed: bool,
}

impl Figures {
    fn is_under_way(&self) -> bool {
        self.wanted || self.running_since_ns.is_some()
    }
}

impl SaveStatus {
    pub fn figures(&self) -> Figures {
        *self.figures.lock()
    }

    #[inline]
    pub(crate) fn last_failed(&self) -> bool {
        self.last_failed.load(Ordering::Relaxed)
    }

    /// A client asks for one in the background; `may_wait` if it may begin later, `other_active` if it has to.
    pub(crate) fn want(&self, may_wait: bool, other_active: bool) -> BackgroundSave {
        let mut figures = self.figures.lock();
        let answer = match () {
            () if figures.running_since_ns.is_some() => return BackgroundSave::InProgress,
            () if may_wait => BackgroundSave::Scheduled,
            () if other_active => return BackgroundSave::OtherActive,
            () if figures.wanted => return BackgroundSave::InProgress,
            () => BackgroundSave::Started,
        };
        figures.wanted = true;
        drop(figures);
        self.wish.notify_one();
        answer
    }

    /// A client asks for one and waits for it: whether it succeeded. `None`: another is under way.
    pub(crate) async fn save(&self) -> Option<bool> {
        let ticket = {
            let mut figures = self.figures.lock();
            if figures.is_under_way() {
                return None;
            }
            figures.wanted = true;
            figures.ended + 1
        };
        self.wish.notify_one();
        loop {
            let news = self.news.notified();
            let figures = self.figures();
            if figures.ended >= ticket {
                return Some(!figures.last_failed);
            }
            if figures.closed {
                return Some(false);
            }
            news.await;
        }
    }

    /// Completes at the next wish, or at once if one came since the last time.
    pub(crate) async fn wished(&self) {
        self.wish.notified().await;
    }

    /// Whether one of the points, seconds and changes, is reached. `changes` is how many there have been since the start.
    pub(crate) fn is_due(&self, points: &[(u64, u64)], changes: u64, started_ns: u64, now_ns: u64) -> bool {
        let figures = self.figures();
        let (changes, since_ns) =
            (changes - figures.changes, now_ns.saturating_sub(figures.last_done_ns.max(started_ns)));
        let may_try = !figures.last_failed || now_ns.saturating_sub(figures.last_ended_ns) > RETRY_AFTER_NS;
        let reached = |&(seconds, least): &(u64, u64)| changes >= least && since_ns / 1_000_000_000 > seconds;
        may_try && points.iter().any(reached)
    }

    pub(crate) fn begin(&self, now_ns: u64) {
        let mut figures = self.figures.lock();
        figures.wanted = false;
        figures.running_since_ns = Some(now_ns);
    }

    /// `saved`: how many changes there were at the cut, and the Unix time in seconds; `None` if it failed.
    pub(crate) fn end(&self, saved: Option<(u64, u64)>, now_ns: u64) {
        let mut figures = self.figures.lock();
        let since_ns = figures.running_since_ns.take().unwrap_or(now_ns);
        figures.last_took_s = Some(now_ns.saturating_sub(since_ns) / 1_000_000_000);
        figures.last_failed = saved.is_none();
        self.last_failed.store(saved.is_none(), Ordering::Relaxed);
        figures.ended += 1;
        figures.last_ended_ns = now_ns;
        if let Some((changes, unix_s)) = saved {
            figures.done += 1;
            figures.changes = changes;
            figures.last_unix_s = Some(unix_s);
            figures.last_done_ns = now_ns;
        }
        drop(figures);
        self.news.notify_waiters();
    }

    pub(crate) fn loaded(&self, keys: u64) {
        self.figures.lock().keys_loaded = keys;
    }

    /// Nobody takes checkpoints any more: who waits for one is told.
    pub(crate) fn close(&self) {
        self.figures.lock().closed = true;
        self.news.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn one_runs_at_a_time_and_another_may_be_scheduled_beside_a_rewrite() {
        let status = SaveStatus::default();
        assert_eq!(status.want(false, true), BackgroundSave::OtherActive);
        assert!(!status.figures().wanted);
        assert_eq!(status.want(true, true), BackgroundSave::Scheduled);
        assert_eq!(status.want(true, true), BackgroundSave::Scheduled);
        assert_eq!(status.want(false, true), BackgroundSave::OtherActive);
        status.begin(5 * SECOND_NS);
        assert_eq!(status.want(true, false), BackgroundSave::InProgress);
        status.end(Some((7, 1000)), 8 * SECOND_NS + 1);
        let figures = status.figures();
        assert_eq!(
            (figures.last_took_s, figures.done, figures.last_unix_s, figures.changes),
            (Some(3), 1, Some(1000), 7)
        );
        assert_eq!(status.want(false, false), BackgroundSave::Started);
        assert_eq!(status.want(false, false), BackgroundSave::InProgress);
        status.begin(0);
        status.end(None, 0);
        assert!(
            status.last_failed()
                && status.figures().last_failed
                && status.figures().done == 1
                && status.figures().ended == 2
        );
    }

    #[test]
    fn save_points_ask_as_in_redis() {
        let status = SaveStatus::default();
        let points = [(60, 10), (300, 1)];
        let due = |changes, seconds: u64| status.is_due(&points, changes, SECOND_NS, (1 + seconds) * SECOND_NS);
        assert!(!due(10, 60) && due(10, 61) && !due(9, 61) && !due(0, 1000) && due(1, 301));
        assert!(!status.is_due(&[], 1000, 0, u64::MAX));
        status.begin(0);
        status.end(Some((8, 0)), 101 * SECOND_NS);
        assert!(!due(17, 161) && !due(18, 160) && due(18, 161), "counted from the last one");
        status.begin(0);
        status.end(None, 200 * SECOND_NS);
        assert!(!due(18, 204) && due(18, 205), "after a failure it waits");
    }
}
