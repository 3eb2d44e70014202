//! Histograms as the export was asked for them: with explicit buckets, or exponential ones
//! (<https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram>).

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::metrics::v1::ExponentialHistogramDataPoint;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;

use super::deltas::Name;
use crate::exponential::{BUCKETS_MAX, index_of};
use crate::native::joined;
use crate::{Exponential, Series, Value};

/// What histograms become over OTLP, by the specification's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// `explicit_bucket_histogram`
    Explicit,
    /// `base2_exponential_bucket_histogram`; needs metrics that count so
    /// ([`crate::Metrics::with_native_histograms`]).
    Exponential,
}

/// What is collected has the least and the greatest time of one interval alone; exports tell them of as long as they
/// count.
pub(super) struct Histograms {
    aggregation: Aggregation,
    extremes: BTreeMap<Name, (u64, u64)>,
}

impl Histograms {
    pub(super) fn new(aggregation: Aggregation) -> Self {
        Self { aggregation, extremes: BTreeMap::new() }
    }

    /// Leaves exponential buckets alone in the series that they are wanted of, with the extremes of all intervals so far.
    pub(super) fn choose(&mut self, collected: &mut [Series]) {
        for series in collected {
            for point in &mut series.points {
                let Value::Histogram { native, .. } = &mut point.value else { continue };
                if self.aggregation == Aggregation::Explicit {
                    *native = None;
                }
                let Some(native) = native else { continue };
                let name = (series.metric.name, point.label.clone());
                native.extremes = joined(native.extremes, self.extremes.get(&name).copied());
                self.extremes.extend(native.extremes.map(|both| (name, both)));
            }
        }
    }

    /// What comes from now on is told without what was before.
    pub(super) fn begin_anew(&mut self) {
        self.extremes.clear();
    }
}

/// A point of so many seconds in all, without what all kinds of points have.
pub(super) fn data_point(native: &Exponential, sum: f64) -> ExponentialHistogramDataPoint {
    let fitted = native.fit(BUCKETS_MAX);
    let extremes = extremes_of(native).map(|(least, greatest)| (least as f64 / 1e9, greatest as f64 / 1e9));
    ExponentialHistogramDataPoint {
        count: native.count(),
        sum: Some(sum),
        scale: fitted.scale,
        zero_count: native.zero,
        positive: Some(Buckets { offset: fitted.first, bucket_counts: fitted.counts }),
        min: extremes.map(|(least, _)| least),
        max: extremes.map(|(_, greatest)| greatest),
        ..Default::default()
    }
}

/// They are read beside the counts. Where a worker counted in between, and a count lies outside, they are not told.
fn extremes_of(native: &Exponential) -> Option<(u64, u64)> {
    let (least, greatest) = native.extremes?;
    let last = native.first + native.counts.len() as i32 - 1;
    let is_least = if native.zero > 0 { least == 0 } else { index_of(least) == Some(native.first) };
    let is_greatest = if native.counts.is_empty() { greatest == 0 } else { index_of(greatest) == Some(last) };
    (native.count() > 0 && is_least && is_greatest).then_some((least, greatest))
}

#[cfg(test)]
mod tests;
