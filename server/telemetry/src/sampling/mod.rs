//! Which traces are exported. Everything is recorded in any case, and the decision is made once the command has its reply: so
//! one place knows the caller's decision, the trace id, the command, how it ended and how long it took.
//!
//! In this order, the first that speaks decides:
//! 1. a rate of the command's own ([`SamplingSettings::commands`]); 0 means never, whatever follows. A transaction whose EXEC has none is
//!    chosen if one of its commands would be;
//! 2. the caller's decision, under a `parentbased_` sampler, as long as callers keep within the limit;
//! 3. the sampler, at the rate of the command, else of the tenant, else of the time of day, else its own. One that is off (`always_off`,
//!    a rate of 0) stays off, whatever other rates there are;
//! 4. for what is not chosen yet, the tail's rules ([`TailSettings`]).

mod adaptive;
mod consistent;
mod head;
mod limiter;
mod policy;
mod schedule;
mod tail;

pub use head::{HeadSampler, Probability};
pub use policy::{Facts, Sampling, SamplingPolicy, SamplingSettings};
pub use schedule::Schedule;
pub use tail::TailSettings;

/// 2^63: decisions compare 63 bits of the trace id with a part of it.
const WHOLE: u64 = 1 << 63;

/// The bound below which lie `ratio` of all numbers of 63 bits.
fn bound(ratio: f64) -> u64 {
    (ratio.clamp(0.0, 1.0) * WHOLE as f64) as u64
}
