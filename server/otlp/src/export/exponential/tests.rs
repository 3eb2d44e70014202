use std::cell::Cell;
use std::time::Duration;

use ferrite_io::Clock;
use ferrite_telemetry::schema::Metric;
use ferrite_telemetry::{Exemplar, NewExemplar, Pins, SpanId, TraceId};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::AggregationTemporality;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message;

use super::*;
use crate::export::metrics::run;
use crate::export::testing::{Answer, Scripted, TestClock, metrics_delivery, paused, settings};
use crate::export::{ExportSettings, Temporality};
use crate::transport::Retry;
use crate::{MetricExportCounts, Metrics};

/// What a backend received of `ferrite.command.duration` from each attempt, with its temporality.
fn received(exchange: &Scripted) -> Vec<(ExponentialHistogramDataPoint, i32)> {
    let attempts = exchange.attempts().into_iter();
    attempts
        .map(|(request, _)| {
            let request = ExportMetricsServiceRequest::decode(request).expect("it is one");
            let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
            let metric = metrics.iter().find(|metric| metric.name == Metric::COMMAND_DURATION.name);
            let Some(Data::ExponentialHistogram(histogram)) = metric.and_then(|metric| metric.data.clone()) else {
                panic!("{metric:?} is no exponential histogram")
            };
            assert_eq!(metric.map(|metric| metric.unit.as_str()), Some("s"));
            (histogram.data_points[0].clone(), histogram.aggregation_temporality)
        })
        .collect()
}

/// Exports of a command that took these times (in ns) before each, one a minute, to a backend that answers so.
fn exported(
    temporality: Temporality,
    times: &[&[u64]],
    answers: Vec<Answer>,
) -> Vec<(ExponentialHistogramDataPoint, i32)> {
    paused(async {
        let metrics = Metrics::new(1, 1).with_native_histograms();
        let exports = Cell::new(0);
        let collect = || {
            let times = times.get(exports.get()).copied().unwrap_or_default();
            times.iter().for_each(|&ns| _ = metrics.command(0, 0, ns, false));
            exports.set(exports.get() + 1);
            metrics.end_interval();
            metrics.command_series(|_| "GET".to_owned()).to_vec()
        };
        let exchange = Scripted::new(answers);
        let settings = ExportSettings { temporality, aggregation: Aggregation::Exponential, ..settings() };
        let shutdown = TestClock.sleep(Duration::from_secs(60 * times.len() as u64));
        let counts = MetricExportCounts::default();
        run(metrics_delivery(exchange.clone()), collect, settings, 7, &counts, shutdown).await;
        assert!(counts.exported() > 0);
        received(&exchange)
    })
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn a_backend_gets_what_the_data_model_describes() {
    // 1 s is a bound, and in the bucket below it.
    let points = exported(Temporality::Cumulative, &[&[SECOND, SECOND + 1, 1_021_897_148, 3 * SECOND, 0]], Vec::new());
    let (point, temporality) = &points[0];
    assert_eq!(*temporality, AggregationTemporality::Cumulative as i32);
    assert_eq!((point.count, point.scale, point.zero_count, point.zero_threshold), (5, 5, 1, 0.0));
    // 2^(1/32) s is 1.021897148654… s: two are in the bucket from 1 s on; 3 is 2^1.58, in bucket 50.
    let Some(Buckets { offset, bucket_counts }) = &point.positive else { panic!("{point:?}") };
    let mut expected = vec![0; 52];
    (expected[0], expected[1], expected[51]) = (1, 2, 1);
    assert_eq!((*offset, bucket_counts), (-1, &expected));
    assert_eq!(point.negative, None);
    assert!((point.sum.expect("it has one") - 6.021_897_149).abs() < 1e-9);
    assert_eq!((point.min, point.max), (Some(0.0), Some(3.0)));
    assert_eq!(point.attributes[0].key, "command");
    assert_eq!(point.start_time_unix_nano, 7);
}

#[test]
fn a_wide_distribution_is_told_at_a_lower_scale() {
    let points = exported(Temporality::Cumulative, &[&[1_000, 1_000_000, 10 * SECOND]], Vec::new());
    let point = &points[0].0;
    let Some(Buckets { offset, bucket_counts }) = &point.positive else { panic!("{point:?}") };
    // 23.3 octaves: 8 buckets each are too many.
    assert_eq!((point.scale, bucket_counts.iter().sum::<u64>()), (2, 3));
    assert!(bucket_counts.len() <= BUCKETS_MAX);
    let base = 2_f64.powf(2_f64.powi(-point.scale));
    let lower = |index: usize| base.powi(offset + index as i32);
    for seconds in [1e-6, 1e-3, 10.0] {
        let holds = |(at, _): &(usize, &u64)| lower(*at) < seconds && seconds <= lower(at + 1);
        let filled = bucket_counts.iter().enumerate().filter(|(_, count)| **count > 0);
        assert_eq!(filled.filter(holds).count(), 1, "{seconds}: {point:?}");
    }
}

#[test]
fn cumulative_extremes_are_those_since_the_start() {
    let points = exported(Temporality::Cumulative, &[&[5_000, 9_000], &[7_000], &[], &[1_000, 8_000]], Vec::new());
    let told: Vec<_> = points.iter().map(|(point, _)| (point.count, point.min, point.max)).collect();
    let first = (Some(5e-6), Some(9e-6));
    assert_eq!(told[..3], [(2, first.0, first.1), (3, first.0, first.1), (3, first.0, first.1)]);
    assert_eq!(told[3], (5, Some(1e-6), Some(9e-6)));
}

#[test]
fn deltas_are_what_was_not_accepted_yet_and_so_are_their_extremes() {
    // The second is given up, and comes with the third.
    let lost = (0..5).map(|_| Answer::refuse(Retry::Allowed));
    let answers = std::iter::once(Answer::Accept(Default::default())).chain(lost).collect();
    let times: [&[u64]; 5] = [&[5_000, 9_000], &[7_000], &[100], &[], &[0]];
    let points = exported(Temporality::Delta, &times, answers);
    assert!(points.iter().all(|(_, temporality)| *temporality == AggregationTemporality::Delta as i32));
    let told = |(point, _): &(ExponentialHistogramDataPoint, i32)| (point.count, point.min, point.max);
    assert_eq!(told(&points[0]), (2, Some(5e-6), Some(9e-6)));
    assert!(points[1..6].iter().all(|point| told(point) == (1, Some(7e-6), Some(7e-6))), "{points:?}");
    assert_eq!(told(&points[6]), (2, Some(1e-7), Some(7e-6)));
    assert_eq!(told(&points[7]), (0, None, None), "nothing came");
    let empty = points[7].0.positive.as_ref().expect("it has buckets");
    assert_eq!((empty.bucket_counts.len(), points[7].0.sum), (0, Some(0.0)));
    let zero = &points[8].0;
    assert_eq!((zero.count, zero.zero_count, zero.min, zero.max), (1, 1, Some(0.0), Some(0.0)));
}

#[test]
fn exemplars_come_along() {
    let metrics = Metrics::new(1, 1).with_native_histograms();
    let bucket = metrics.command(0, 0, 1_500, false).expect("it has none yet");
    let trace = std::sync::Arc::<Pins>::default().pin(TraceId(0xab), SpanId(0xcd));
    metrics.exemplar(0, NewExemplar { command: 0, bucket, exemplar: Exemplar { trace, value_ns: 1_500, unix_ns: 9 } });
    let exchange = Scripted::new([]);
    paused(async {
        let settings = ExportSettings { aggregation: Aggregation::Exponential, ..settings() };
        let collect = || metrics.command_series(|_| "GET".to_owned()).to_vec();
        let counts = MetricExportCounts::default();
        run(metrics_delivery(exchange.clone()), collect, settings, 7, &counts, TestClock.sleep(Duration::ZERO)).await;
    });
    let exemplar = &received(&exchange)[0].0.exemplars[0];
    assert_eq!((exemplar.trace_id[15], exemplar.span_id[7], exemplar.time_unix_nano), (0xab, 0xcd, 9));
}

#[test]
fn explicit_buckets_stay_what_they_are_beside_exponential_ones() {
    let counted = |metrics: Metrics| {
        metrics.command(0, 0, 1_500, false);
        let mut series = metrics.command_series(|_| "GET".to_owned()).to_vec();
        Histograms::new(Aggregation::Explicit).choose(&mut series);
        series[1].points[0].value.clone()
    };
    assert_eq!(counted(Metrics::new(1, 1).with_native_histograms()), counted(Metrics::new(1, 1)));
}

#[test]
fn extremes_that_do_not_fit_the_counts_are_not_told() {
    let metrics = Metrics::new(1, 1).with_native_histograms();
    metrics.command(0, 0, 1_500, false);
    metrics.end_interval();
    let Value::Histogram { native: Some(mut native), .. } =
        metrics.command_series(|_| String::new())[1].points[0].value.clone()
    else {
        panic!("a histogram")
    };
    assert_eq!(extremes_of(&native), Some((1_500, 1_500)));
    native.extremes = Some((1_500, 9_000));
    assert_eq!(extremes_of(&native), None);
    native.extremes = Some((0, 1_500));
    assert_eq!(extremes_of(&native), None);
}
