//! What counters and histograms have grown by since the last export that was accepted.

use std::collections::BTreeMap;

use ferrite_telemetry::schema::Instrument;

use crate::{Series, Value};

/// A metric's name and its label's value.
pub(super) type Name = (&'static str, Option<String>);

/// What the backend has.
pub(super) struct Deltas {
    /// When it was collected; Unix nanoseconds.
    since_unix_ns: u64,
    accepted: BTreeMap<Name, Value>,
}

impl Deltas {
    /// Nothing, since the start.
    pub(super) fn new(started_unix_ns: u64) -> Self {
        Self { since_unix_ns: started_unix_ns, accepted: BTreeMap::new() }
    }

    pub(super) fn since_unix_ns(&self) -> u64 {
        self.since_unix_ns
    }

    /// The series without what the backend has.
    pub(super) fn of(&self, series: &[Series]) -> Vec<Series> {
        let mut grown = series.to_vec();
        for series in grown.iter_mut().filter(|series| counts(series)) {
            let name = series.metric.name;
            for point in &mut series.points {
                if let Value::Histogram { exemplars, .. } = &mut point.value {
                    exemplars.retain(|(_, exemplar)| exemplar.unix_ns > self.since_unix_ns);
                }
                if let Some(before) = self.accepted.get(&(name, point.label.clone())) {
                    subtract(&mut point.value, before);
                }
            }
        }
        grown
    }

    /// The backend has these now.
    pub(super) fn accept(&mut self, series: &[Series], collected_unix_ns: u64) {
        self.since_unix_ns = collected_unix_ns;
        for series in series.iter().filter(|series| counts(series)) {
            for point in &series.points {
                self.accepted.insert((series.metric.name, point.label.clone()), point.value.clone());
            }
        }
    }
}

fn counts(series: &Series) -> bool {
    series.metric.instrument != Instrument::Gauge
}

/// Counters never go back: what is left is not below zero.
fn subtract(value: &mut Value, before: &Value) {
    match (value, before) {
        (Value::Integer(value), Value::Integer(before)) => *value -= before,
        (Value::Float(value), Value::Float(before)) => *value -= before,
        (
            Value::Histogram { buckets, sum, native, .. },
            Value::Histogram { buckets: before, sum: sum_before, native: native_before, .. },
        ) => {
            buckets.iter_mut().zip(before).for_each(|(bucket, before)| *bucket -= before);
            *sum -= sum_before;
            if let (Some(native), Some(before)) = (native, native_before) {
                native.subtract(before);
            }
        }
        (value, before) => unreachable!("a metric's kind changed from {before:?} to {value:?}"),
    }
}
