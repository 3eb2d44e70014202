use std::sync::Arc;

use ferrite_telemetry::schema::{DURATION_BOUNDS, Metric as Declared};
use ferrite_telemetry::{NewExemplar, Pins, SpanId, TraceId};
use proptest::prelude::*;

use super::*;
use crate::exponential::{BUCKETS, SCALE, index_of};
use crate::metrics::Metrics;

fn families(page: &[u8]) -> Vec<MetricFamily> {
    let mut rest = page;
    let mut families = Vec::new();
    while !rest.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut rest).expect("it is one"));
    }
    families
}

fn rendered(metrics: &Metrics) -> Vec<MetricFamily> {
    families(&render_protobuf(&metrics.command_series(|_| "GET".to_owned())))
}

/// Index and count of each native bucket, as Prometheus reads them.
fn native_buckets(histogram: &Histogram) -> Vec<(i32, i64)> {
    let (mut buckets, mut index, mut count) = (Vec::new(), 0, 0);
    let mut deltas = histogram.positive_delta.iter();
    for span in &histogram.positive_span {
        index += span.offset();
        for _ in 0..span.length() {
            count += deltas.next().expect("each bucket has one");
            buckets.push((index, count));
            index += 1;
        }
    }
    assert_eq!(deltas.next(), None);
    buckets
}

#[test]
fn a_histogram_has_both_parts() {
    let metrics = Metrics::new(1, 1).with_native_histograms();
    let bucket = metrics.command(0, 0, 1_500, false).expect("it has none yet");
    [0, 1_500, 1_000_000_000, 60_000_000_000].iter().for_each(|&ns| _ = metrics.command(0, 0, ns, false));
    let trace = Arc::<Pins>::default().pin(TraceId(0xab), SpanId(0xcd));
    let exemplar = Measured { trace, value_ns: 1_500, unix_ns: 1_700_000_000_250_000_000 };
    metrics.exemplar(0, NewExemplar { command: 0, bucket, exemplar });
    let families = rendered(&metrics);
    assert_eq!(families[0].name(), "ferrite_commands_total");
    assert_eq!(families[0].r#type(), MetricType::Counter);
    assert_eq!(families[0].metric[0].counter, Some(Counter { value: Some(5.0) }));
    assert_eq!((families[1].name(), families[1].r#type()), ("ferrite_command_duration", MetricType::Histogram));
    assert_eq!(families[1].metric[0].label, [pair("command", "GET")]);
    let histogram = families[1].metric[0].histogram.as_ref().expect("it is one");
    // Classic buckets, as the text has them.
    assert_eq!(histogram.bucket.len(), DURATION_BOUNDS.len() + 1);
    let second = &histogram.bucket[1];
    assert_eq!((second.cumulative_count(), second.upper_bound()), (3, 0.000_002));
    let last = histogram.bucket.last().expect("there are some");
    assert_eq!((last.cumulative_count(), last.upper_bound()), (5, f64::INFINITY));
    // The same times in native ones: 1 s is the upper bound of bucket 0.
    assert_eq!((histogram.sample_count(), histogram.zero_count(), histogram.zero_threshold()), (5, 1, 0.0));
    let parts = 1 << (SCALE - histogram.schema());
    let index = |ns: u64| index_of(ns).expect("not 0").div_euclid(parts) + 1;
    assert_eq!(index(1_000_000_000), 0);
    let filled: Vec<_> = native_buckets(histogram).into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(filled, [(index(1_500), 2), (0, 1), (index(60_000_000_000), 1)]);
    // Exemplars for those who read one part or the other.
    for exemplar in [&histogram.exemplars[0], second.exemplar.as_ref().expect("it has one")] {
        assert_eq!(exemplar.label[0], pair("trace_id", "000000000000000000000000000000ab"));
        assert_eq!(exemplar.label[1], pair("span_id", "00000000000000cd"));
        assert_eq!(exemplar.timestamp, Some(Timestamp { seconds: 1_700_000_000, nanos: 250_000_000 }));
        assert_eq!(exemplar.value(), 1.5e-6);
    }
}

#[test]
fn without_native_buckets_there_is_nothing_of_them() {
    let metrics = Metrics::new(1, 1);
    metrics.command(0, 0, 1_500, false);
    let families = rendered(&metrics);
    let histogram = families[1].metric[0].histogram.clone().expect("it is one");
    assert_eq!((histogram.schema, histogram.zero_count, histogram.zero_threshold), (None, None, None));
    assert!(histogram.positive_span.is_empty() && histogram.exemplars.is_empty());
    assert_eq!(histogram.sample_count, Some(1));
}

#[test]
fn a_histogram_without_times_is_known_as_native_and_gauges_are_gauges() {
    let metrics = Metrics::new(1, 1).with_native_histograms();
    let mut series = metrics.disk_series().to_vec();
    series.push(Series::single(Declared::MEMORY_USED, 42));
    series.push(Series { metric: Declared::REPLICATION_LAG, points: Vec::new() });
    let families = families(&render_protobuf(&series));
    assert_eq!(families.len(), 3, "one has no points");
    let histogram = families[0].metric[0].histogram.as_ref().expect("it is one");
    assert_eq!(histogram.positive_span, [BucketSpan { offset: Some(0), length: Some(0) }]);
    assert_eq!((histogram.sample_count, histogram.schema), (Some(0), Some(SCALE)));
    assert_eq!(
        (families[2].r#type(), families[2].metric[0].gauge.clone()),
        (MetricType::Gauge, Some(Gauge { value: Some(42.0) }))
    );
    assert!(families[2].metric[0].label.is_empty());
}

proptest! {
    #[test]
    fn spans_and_differences_tell_the_counts(filled in proptest::collection::vec((0_usize..BUCKETS, 1_u64..9), 0..40), near in any::<bool>()) {
        let mut counts = vec![0; BUCKETS];
        filled.iter().for_each(|(at, count)| counts[if near { at % 60 } else { *at }] += count);
        let native = Exponential::new(0, &counts);
        let mut histogram = Histogram::default();
        add_native(&mut histogram, &native);
        let fitted = native.fit(BUCKETS_MAX);
        let expected: Vec<_> =
            (fitted.first + 1..).zip(&fitted.counts).map(|(at, &count)| (at, count as i64)).filter(|(_, count)| *count > 0).collect();
        let told = native_buckets(&histogram);
        prop_assert_eq!(told.iter().copied().filter(|(_, count)| *count > 0).collect::<Vec<_>>(), expected);
        prop_assert!(told.len() <= BUCKETS_MAX);
        for span in histogram.positive_span.iter().skip(1) {
            prop_assert!(span.offset() > GAP_MAX as i32);
        }
    }
}
