//! All that decides about a trace, put together and shared by the workers.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::adaptive::Adaptive;
use super::limiter::Limiter;
use super::tail::Tail;
use super::{HeadSampler, Probability, Schedule, TailSettings, WHOLE, bound, consistent};
use crate::batch::Below;
use crate::context::TraceId;
use crate::schema::SampledBy;
use crate::values;

/// What is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingSettings {
    /// Share of traces, from 0.0 to 1.0.
    pub sample_rate: f64,
    /// `OTEL_TRACES_SAMPLER` as it was written.
    pub sampler: Option<String>,
    /// `OTEL_TRACES_SAMPLER_ARG` as it was written.
    pub sampler_arg: Option<String>,
    /// Rates of single commands, by their names: 0 means never and 1 always, whatever the caller decided.
    pub commands: BTreeMap<String, f64>,
    /// The member of the baggage that names the tenant.
    pub tenant_key: String,
    /// Rates of single tenants.
    pub tenants: BTreeMap<String, f64>,
    /// Rates by the time of day.
    pub schedule: Schedule,
    /// Callers' decisions for a trace that count, a second; beyond it the sampler decides. 0 means any number.
    pub parent_limit: f64,
    pub tail: TailSettings,
}

impl Default for SamplingSettings {
    /// Every trace.
    fn default() -> Self {
        Self {
            sample_rate: 1.0,
            sampler: None,
            sampler_arg: None,
            commands: BTreeMap::new(),
            tenant_key: "tenant.id".to_owned(),
            tenants: BTreeMap::new(),
            schedule: Schedule::default(),
            parent_limit: 0.0,
            tail: TailSettings::default(),
        }
    }
}

/// What is known of a trace when it is decided about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'t> {
    pub trace_id: TraceId,
    /// Whether the caller was sampled; `None` without a caller, or if it leaves that to us.
    pub parent: Option<bool>,
    /// The normalised name; empty for work that is no command.
    pub name: &'t [u8],
    pub key: Option<&'t [u8]>,
    /// The queued commands of a transaction.
    pub(crate) below: Below<'t>,
    /// The command did, or one below it.
    pub failed: bool,
    pub execution_ns: u64,
    /// The tiers that were visited, a bit each; only looked for if [`SamplingPolicy::asks_for_tiers`].
    pub tiers: u8,
    pub peer: Option<IpAddr>,
    /// What was taken of the caller's baggage, encoded.
    pub(crate) baggage: &'t [u8],
    pub tracestate: &'t str,
    pub monotonic_ns: u64,
    pub unix_ns: u64,
}

impl<'t> Facts<'t> {
    /// Of a new trace about which nothing else is known.
    pub fn new(trace_id: TraceId, monotonic_ns: u64, unix_ns: u64) -> Self {
        Self { trace_id, monotonic_ns, unix_ns, ..Self::default() }
    }

    /// Name and key of the command and of those below it.
    pub(super) fn names_and_keys(&self) -> impl Iterator<Item = (&'t [u8], Option<&'t [u8]>)> {
        std::iter::once((self.name, self.key)).chain(self.below.names_and_keys())
    }

    /// A member of the baggage.
    pub(super) fn member(&self, key: &str) -> Option<&'t [u8]> {
        values::baggage_value(self.baggage, key)
    }
}

/// A trace that is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen<'t> {
    pub by: SampledBy,
    /// What it carries on.
    pub tracestate: Cow<'t, str>,
}

/// The rules in force.
#[derive(Debug)]
pub struct SamplingPolicy {
    head: HeadSampler,
    bound: u64,
    threshold: Option<u64>,
    limiter: Option<Limiter>,
    adaptive: Option<Adaptive>,
    commands: HashMap<Box<[u8]>, f64>,
    tenant_key: String,
    tenants: HashMap<Box<[u8]>, f64>,
    schedule: Schedule,
    parent_limiter: Option<Limiter>,
    tail: Tail,
    /// The head decides by the trace id and the caller, the tail by failure and time.
    plain: bool,
}

/// What [`SamplingSettings::commands`] say of a trace.
#[derive(Clone, Copy, Debug, PartialEq)]
struct RatesOfCommands {
    highest: Option<f64>,
    /// There is a command without a rate of its own.
    others: bool,
}

impl SamplingPolicy {
    /// The rules, and a warning for each setting that was passed over as OpenTelemetry's specification demands. The error is
    /// about a setting of ours.
    pub fn new(settings: &SamplingSettings) -> Result<(Self, Vec<String>), String> {
        let (name, argument) = (settings.sampler.as_deref(), settings.sampler_arg.as_deref());
        let (head, warnings) = HeadSampler::from_settings(Some(settings.sample_rate), name, argument);
        Ok((Self::with_head(head, settings)?, warnings))
    }

    fn with_head(head: HeadSampler, settings: &SamplingSettings) -> Result<Self, String> {
        let tail = Tail::new(&settings.tail)?;
        let (mut ratio, mut threshold, mut limiter, mut adaptive) = (1.0, None, None, None);
        match head.probability {
            Probability::AlwaysOn => {}
            Probability::AlwaysOff => ratio = 0.0,
            Probability::Ratio(wanted) => ratio = wanted,
            Probability::Consistent(wanted) => threshold = consistent::threshold(wanted),
            Probability::RateLimited(per_second) => limiter = Some(Limiter::new(per_second)),
            Probability::Adaptive(per_second) => adaptive = Some(Adaptive::new(per_second)),
        }
        let plain = matches!(head.probability, Probability::AlwaysOn | Probability::AlwaysOff | Probability::Ratio(_))
            && settings.commands.is_empty()
            && settings.tenants.is_empty()
            && settings.schedule.is_empty()
            && settings.parent_limit <= 0.0
            && !tail.asks_for_attributes();
        Ok(Self {
            head,
            bound: bound(ratio),
            threshold,
            limiter,
            adaptive,
            commands: settings
                .commands
                .iter()
                .map(|(name, rate)| (name.to_ascii_uppercase().into_bytes().into(), *rate))
                .collect(),
            tenant_key: settings.tenant_key.clone(),
            tenants: settings.tenants.iter().map(|(name, rate)| (name.as_bytes().into(), *rate)).collect(),
            schedule: settings.schedule.clone(),
            parent_limiter: (settings.parent_limit > 0.0).then(|| Limiter::new(settings.parent_limit)),
            tail,
            plain,
        })
    }

    /// The sampler.
    pub fn head(&self) -> HeadSampler {
        self.head
    }

    /// The part of ordinary new traces that is chosen, as far as it is one: of a number of traces a second it is not.
    pub fn ratio(&self) -> Option<f64> {
        match self.head.probability {
            Probability::AlwaysOn => Some(1.0),
            Probability::AlwaysOff => Some(0.0),
            Probability::Ratio(ratio) | Probability::Consistent(ratio) => Some(ratio),
            Probability::RateLimited(_) => None,
            Probability::Adaptive(_) => self.adaptive.as_ref().map(Adaptive::ratio),
        }
    }

    /// Whether [`SamplingPolicy::chooses_ended`] is all there is to ask, and [`SamplingPolicy::chooses`] before the end.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// Whether [`Facts::tiers`] is looked at.
    pub fn asks_for_tiers(&self) -> bool {
        self.tail.asks_for_tiers()
    }

    /// What a plain policy decides at a trace's end.
    #[inline]
    pub fn chooses_ended(
        &self,
        trace_id: TraceId,
        parent: Option<bool>,
        failed: bool,
        execution_ns: u64,
    ) -> Option<SampledBy> {
        let by_head = self.chooses(trace_id, parent);
        by_head.or_else(|| self.tail.keeps_outcome(failed, execution_ns).filter(|_| self.tail_may(parent)))
    }

    /// The decision of a plain policy's head.
    #[inline]
    pub fn chooses(&self, trace_id: TraceId, parent: Option<bool>) -> Option<SampledBy> {
        match parent {
            Some(sampled) if self.head.parent_based => sampled.then_some(SampledBy::Parent),
            _ => (number(trace_id) < self.bound).then_some(SampledBy::Sampler),
        }
    }

    /// Decides about a trace; `limited` counts a caller's decision that was over the limit. `None`: it is not exported.
    pub fn decide<'t>(&self, facts: &Facts<'t>, limited: &mut u64) -> Option<Chosen<'t>> {
        if self.plain {
            let chosen = |by| Chosen { by, tracestate: facts.tracestate.into() };
            return self.chooses_ended(facts.trace_id, facts.parent, facts.failed, facts.execution_ns).map(chosen);
        }
        let of_commands = self.rates_of_commands(facts);
        if (of_commands.highest, of_commands.others) == (Some(0.0), false) {
            return None;
        }
        let mut chosen = if of_commands.highest == Some(1.0) && !self.head.is_off() {
            self.by_rate(1.0, facts).map(|tracestate| Chosen { by: SampledBy::Command, tracestate })
        } else {
            self.by_head(facts, of_commands, limited)
        };
        if chosen.is_none() && self.tail_may(facts.parent) {
            chosen = self.tail.keeps(facts).map(|by| Chosen { by, tracestate: self.without_threshold(facts) });
        }
        chosen
    }

    /// The command's own rate, if it has one. Else those of the commands below it: a transaction is chosen if one of its commands
    /// would be.
    fn rates_of_commands(&self, facts: &Facts<'_>) -> RatesOfCommands {
        if self.commands.is_empty() {
            return RatesOfCommands { highest: None, others: true };
        }
        let own = self.commands.get(facts.name).copied();
        let mut rates = RatesOfCommands { highest: own, others: own.is_none() && facts.below.is_empty() };
        if own.is_none() {
            for (name, _) in facts.below.names_and_keys() {
                match self.commands.get(name) {
                    Some(rate) => rates.highest = Some(rates.highest.map_or(*rate, |highest| highest.max(*rate))),
                    None => rates.others = true,
                }
            }
        }
        rates
    }

    fn by_head<'t>(&self, facts: &Facts<'t>, of_commands: RatesOfCommands, limited: &mut u64) -> Option<Chosen<'t>> {
        if let Some(sampled) = facts.parent.filter(|_| self.head.parent_based) {
            if !sampled {
                return None;
            }
            if self.parent_limiter.as_ref().is_none_or(|limiter| limiter.admit(facts.monotonic_ns)) {
                return Some(Chosen { by: SampledBy::Parent, tracestate: facts.tracestate.into() });
            }
            *limited += 1;
        }
        if self.head.is_off() {
            return None;
        }
        let by_command = of_commands.highest.and_then(|rate| self.by_rate(rate, facts));
        if let Some(tracestate) = by_command {
            return Some(Chosen { by: SampledBy::Command, tracestate });
        }
        if !of_commands.others {
            return None;
        }
        let (rate, by) = match self.rate_of_tenant(facts) {
            Some(rate) => (Some(rate), SampledBy::Tenant),
            None => (self.schedule.rate(facts.unix_ns), SampledBy::Sampler),
        };
        let tracestate = match rate {
            Some(rate) => self.by_rate(rate, facts),
            None => self.by_probability(facts),
        };
        tracestate.map(|tracestate| Chosen { by, tracestate })
    }

    fn rate_of_tenant(&self, facts: &Facts<'_>) -> Option<f64> {
        if self.tenants.is_empty() || facts.baggage.is_empty() {
            return None;
        }
        self.tenants.get(facts.member(&self.tenant_key)?).copied()
    }

    /// By a rate in the place of the sampler's own.
    fn by_rate<'t>(&self, rate: f64, facts: &Facts<'t>) -> Option<Cow<'t, str>> {
        if matches!(self.head.probability, Probability::Consistent(_)) {
            return by_threshold(consistent::threshold(rate), facts);
        }
        (number(facts.trace_id) < bound(rate)).then_some(facts.tracestate.into())
    }

    fn by_probability<'t>(&self, facts: &Facts<'t>) -> Option<Cow<'t, str>> {
        if matches!(self.head.probability, Probability::Consistent(_)) {
            return by_threshold(self.threshold, facts);
        }
        let chosen = match (&self.limiter, &self.adaptive) {
            (Some(limiter), _) => limiter.admit(facts.monotonic_ns),
            (None, Some(adaptive)) => {
                adaptive.choose(number(facts.trace_id), facts.monotonic_ns, facts.failed, facts.execution_ns)
            }
            (None, None) => number(facts.trace_id) < self.bound,
        };
        chosen.then_some(facts.tracestate.into())
    }

    /// Who switched export off, and a caller that decided against it, are heard by the tail.
    fn tail_may(&self, parent: Option<bool>) -> bool {
        self.tail.override_parent || !(self.head.is_off() || parent == Some(false))
    }

    /// How likely a trace was that was kept for what happened in it nobody can tell.
    fn without_threshold<'t>(&self, facts: &Facts<'t>) -> Cow<'t, str> {
        match self.head.probability {
            Probability::Consistent(_) => consistent::with_threshold(facts.tracestate, None).into(),
            _ => facts.tracestate.into(),
        }
    }
}

/// The 63 bits that decide: bytes 8 to 15 of the id, big-endian, without their last bit, as in Go; Python compares the last
/// bit too, which makes no difference for any ratio above 2^-11.
fn number(trace_id: TraceId) -> u64 {
    (trace_id.0 as u64) >> 1
}

fn by_threshold<'t>(threshold: Option<u64>, facts: &Facts<'t>) -> Option<Cow<'t, str>> {
    let threshold = threshold?;
    (consistent::randomness(facts.trace_id.0, facts.tracestate) >= threshold)
        .then(|| consistent::with_threshold(facts.tracestate, Some(threshold)).into())
}

/// The policy in force, which may be replaced at any time. Workers keep it until [`Sampling::version`] changes.
#[derive(Debug)]
pub struct Sampling {
    policy: RwLock<Arc<SamplingPolicy>>,
    version: AtomicU64,
    limited: AtomicU64,
}

impl Sampling {
    pub fn new(policy: SamplingPolicy) -> Arc<Self> {
        Arc::new(Self { policy: RwLock::new(Arc::new(policy)), version: AtomicU64::new(0), limited: AtomicU64::new(0) })
    }

    /// What is configured; warnings are left to who configures.
    pub fn of(settings: &SamplingSettings) -> Result<Arc<Self>, String> {
        SamplingPolicy::new(settings).map(|(policy, _)| Self::new(policy))
    }

    /// A sampler alone.
    pub fn by_head(probability: Probability, parent_based: bool) -> Arc<Self> {
        let policy = SamplingPolicy::with_head(HeadSampler { probability, parent_based }, &SamplingSettings::default());
        Self::new(policy.expect("the defaults are valid"))
    }

    pub fn policy(&self) -> Arc<SamplingPolicy> {
        self.policy.read().clone()
    }

    pub fn replace(&self, policy: SamplingPolicy) {
        *self.policy.write() = Arc::new(policy);
        self.version.fetch_add(1, Ordering::Release);
    }

    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn count_limited(&self, callers: u64) {
        self.limited.fetch_add(callers, Ordering::Relaxed);
    }

    /// Callers' decisions that were over the limit.
    pub fn limited(&self) -> u64 {
        self.limited.load(Ordering::Relaxed)
    }
}

const _: () = assert!(WHOLE == 1 << 63);

#[cfg(test)]
mod tests;
