//! One outage, a few log lines: a warning when it begins and now and then while it lasts, a word when it is over.

use std::fmt::Display;

/// Between two warnings about the same outage.
const WARN_INTERVAL_NS: u64 = 60_000_000_000;

/// What is known of the backend's health for one signal.
pub(super) struct Outage {
    signal: &'static str,
    /// When it began and when it was last warned of, on the monotonic clock.
    times_ns: Option<(u64, u64)>,
    lost: u64,
    /// When it was last told that a part of what was sent was refused, and how much was since.
    partial_ns: Option<u64>,
    rejected: u64,
}

impl Outage {
    /// `signal` is named in the log lines.
    pub(super) fn none(signal: &'static str) -> Self {
        Self { signal, times_ns: None, lost: 0, partial_ns: None, rejected: 0 }
    }

    /// An export failed.
    pub(super) fn failed(&mut self, now_ns: u64, error: &dyn Display) {
        let (began, warned) = self.times_ns.unwrap_or((now_ns, now_ns));
        if self.times_ns.is_some() && now_ns.saturating_sub(warned) < WARN_INTERVAL_NS {
            tracing::debug!(signal = self.signal, %error, "an export failed again");
            return;
        }
        self.times_ns = Some((began, now_ns));
        let (signal, lost) = (self.signal, self.lost);
        let for_s = now_ns.saturating_sub(began) / 1_000_000_000;
        tracing::warn!(signal, %error, for_s, lost, "telemetry cannot be exported; commands are served as before");
    }

    /// `count` items were given up.
    pub(super) fn lost(&mut self, count: usize) {
        self.lost += count as u64;
    }

    /// An export succeeded but for `rejected` items; `message` is the backend's.
    pub(super) fn partial(&mut self, now_ns: u64, rejected: u64, message: &str) {
        self.rejected += rejected;
        let signal = self.signal;
        if self.partial_ns.is_some_and(|told| now_ns.saturating_sub(told) < WARN_INTERVAL_NS) {
            tracing::debug!(signal, rejected, reason = message, "a part was refused again");
            return;
        }
        self.partial_ns = Some(now_ns);
        let rejected = std::mem::take(&mut self.rejected);
        tracing::warn!(signal, rejected, reason = message, "the backend refuses a part of what is exported");
    }

    /// An export succeeded.
    pub(super) fn over(&mut self, now_ns: u64) {
        let lost = std::mem::take(&mut self.lost);
        if let Some((began, _)) = self.times_ns.take() {
            let after_s = now_ns.saturating_sub(began) / 1_000_000_000;
            tracing::info!(signal = self.signal, after_s, lost, "telemetry is exported again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::captured_log;

    #[test]
    fn an_outage_is_warned_of_once_an_interval_and_its_end_is_told() {
        let log = captured_log(|| {
            let mut outage = Outage::none("traces");
            outage.over(0);
            outage.failed(1, &"refused");
            outage.failed(WARN_INTERVAL_NS, &"refused");
            outage.lost(7);
            outage.failed(WARN_INTERVAL_NS + 1, &"refused");
            outage.over(WARN_INTERVAL_NS + 2);
            outage.over(WARN_INTERVAL_NS + 3);
        });
        let lines: Vec<&str> = log.lines().map(|line| line.split_once("Z ").expect("a time").1.trim_start()).collect();
        assert_eq!(
            lines,
            [
                "WARN ferrite::otlp::export::outage: telemetry cannot be exported; commands are served as before \
                 signal=\"traces\" error=\"refused\" for_s=0 lost=0",
                "WARN ferrite::otlp::export::outage: telemetry cannot be exported; commands are served as before \
                 signal=\"traces\" error=\"refused\" for_s=60 lost=7",
                "INFO ferrite::otlp::export::outage: telemetry is exported again signal=\"traces\" after_s=60 lost=7",
            ]
        );
    }
}
