//! One batch to the backend: attempts, pauses between them, and its end.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use ferrite_io::Clock;
use ferrite_telemetry::IdGenerator;
use futures_util::future::{Either, Shared, select};

use super::outage::Outage;
use super::settings::ExportSettings;
use crate::transport::{Accepted, Exchange, Refusal, Retry, Signal};

/// How often one batch is sent before it is given up.
pub(super) const ATTEMPTS_MAX: u32 = 5;
/// The pause after the first failed attempt; it doubles from one to the next.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A backend that asks for a longer pause is asked again all the same: it may have meant something else.
const ASKED_PAUSE_MAX: Duration = Duration::from_secs(300);

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The backend has it, but for so many items that it refused.
    Accepted { rejected: usize },
    /// The backend said that it will never take it.
    Refused,
    /// Every attempt failed.
    GivenUp,
}

/// One signal's deliveries.
pub(super) struct Delivery<C, X> {
    clock: C,
    exchange: X,
    signal: Signal,
    /// For one attempt.
    timeout: Duration,
    /// For all of them together.
    deadline: Option<Duration>,
    jitter: IdGenerator,
    outage: Outage,
}

impl<C: Clock, X: Exchange> Delivery<C, X> {
    /// `seed`: for the lengths of pauses.
    pub(super) fn new(clock: C, exchange: X, signal: Signal, settings: &ExportSettings, seed: u64) -> Self {
        let outage = Outage::none(signal.as_str());
        let ExportSettings { timeout, deadline, .. } = *settings;
        Self { clock, exchange, signal, timeout, deadline, jitter: IdGenerator::new(seed), outage }
    }

    pub(super) fn signal(&self) -> Signal {
        self.signal
    }

    pub(super) fn clock(&self) -> &C {
        &self.clock
    }

    /// Sends `request`, which has `items` spans, data points or log records, until the backend has it or it is given up.
    pub(super) async fn deliver<S: Future<Output = ()>>(
        &mut self,
        items: usize,
        request: Bytes,
        shutdown: &Shared<S>,
    ) -> Fate {
        let signal = self.signal.as_str();
        let mut longest = PAUSE_FIRST;
        let begin_ns = self.clock.monotonic_ns();
        for attempt in 1..=ATTEMPTS_MAX {
            let refusal = match self.attempt(request.clone()).await {
                Ok(accepted) => {
                    tracing::debug!(signal, items, bytes = request.len(), attempt, "exported");
                    self.outage.over(self.clock.monotonic_ns());
                    return self.accepted(items, &accepted);
                }
                Err(refusal) => refusal,
            };
            self.outage.failed(self.clock.monotonic_ns(), &refusal);
            if refusal.retry == Retry::Never {
                self.outage.lost(items);
                return Fate::Refused;
            }
            if attempt == ATTEMPTS_MAX || self.is_late(begin_ns) {
                break;
            }
            self.pause(longest, refusal.retry, shutdown).await;
            if self.is_late(begin_ns) {
                break;
            }
            longest = (longest * 2).min(PAUSE_MAX);
        }
        self.outage.lost(items);
        Fate::GivenUp
    }

    fn is_late(&self, begin_ns: u64) -> bool {
        let since = Duration::from_nanos(self.clock.monotonic_ns() - begin_ns);
        self.deadline.is_some_and(|deadline| since >= deadline)
    }

    fn accepted(&mut self, items: usize, accepted: &Accepted) -> Fate {
        let Accepted { rejected, message } = accepted;
        if *rejected > 0 || !message.is_empty() {
            self.outage.partial(self.clock.monotonic_ns(), *rejected, message);
        }
        Fate::Accepted { rejected: usize::try_from(*rejected).map_or(items, |rejected| rejected.min(items)) }
    }

    async fn attempt(&self, request: Bytes) -> Result<Accepted, Refusal> {
        let sending = pin!(self.exchange.send(request));
        let limit = pin!(self.clock.sleep(self.timeout));
        match select(sending, limit).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => {
                Err(Refusal { reason: format!("no answer within {:?}", self.timeout), retry: Retry::Allowed })
            }
        }
    }

    /// Waits for half to all of `longest`, so that servers which lost the same backend do not come back in step, and never
    /// less than the backend asked for. A shutdown cuts it short: there is little time for another attempt.
    async fn pause<S: Future<Output = ()>>(&mut self, longest: Duration, asked: Retry, shutdown: &Shared<S>) {
        let half = longest.as_nanos() as u64 / 2;
        let ours = Duration::from_nanos(half + self.jitter.next_u64() % (half + 1));
        let asked = match asked {
            Retry::Never | Retry::Allowed => Duration::ZERO,
            Retry::After(pause) => pause,
            Retry::NotBefore(unix_ns) => Duration::from_nanos(unix_ns.saturating_sub(self.clock.unix_ns())),
        };
        let pause = self.clock.sleep(ours.max(asked.min(ASKED_PAUSE_MAX)));
        if shutdown.peek().is_some() {
            pause.await;
        } else {
            select(shutdown.clone(), pin!(pause)).await;
        }
    }
}
