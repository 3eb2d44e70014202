use std::time::Duration;

use ferrite_telemetry::schema::{DURATION_BOUNDS, Label, Metric};

use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValueKind;

use super::*;
use crate::Metrics;
use crate::export::testing::{
    Answer, Backend, Scripted, TestClock, exchange, metrics_delivery, paused, real, settings, wait_until,
};
use crate::transport::{Protocol, Retry};

fn collected() -> Vec<Series> {
    let metrics = Metrics::new(1, 1);
    metrics.command(0, 0, 1_500, false);
    metrics.command(0, 0, 60_000_000_000, false);
    let mut series: Vec<Series> = metrics.command_series(|_| "GET".to_owned()).into();
    series.push(Series::single(Metric::MEMORY_USED, 42));
    series
        .push(Series { metric: Metric::CACHE_HIT_RATE, points: vec![Point { label: None, value: Value::Float(0.5) }] });
    series.push(Series { metric: Metric::REPLICATION_LAG, points: Vec::new() });
    series
}

/// Data points of that.
const POINTS: u64 = 4;

fn text(attribute: &KeyValue) -> (&str, &str) {
    let Some(AnyValueKind::StringValue(value)) = attribute.value.as_ref().and_then(|value| value.value.as_ref()) else {
        panic!("not a text: {attribute:?}")
    };
    (&attribute.key, value)
}

#[test]
fn each_instrument_becomes_its_message() {
    let metrics = resource_metrics(
        Resource::default(),
        &collected(),
        Times { start: 7, now: 9, temporality: Temporality::Cumulative },
    );
    let metrics = &metrics.scope_metrics[0].metrics;
    let names: Vec<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
    let declared = [Metric::COMMANDS_TOTAL, Metric::COMMAND_DURATION, Metric::MEMORY_USED, Metric::CACHE_HIT_RATE];
    assert_eq!(names, declared.map(|metric| metric.name));
    assert_eq!((metrics[1].unit.as_str(), metrics[2].unit.as_str()), ("s", "By"));

    let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{:?}", metrics[0]) };
    assert!(sum.is_monotonic);
    assert_eq!(sum.aggregation_temporality, AggregationTemporality::Cumulative as i32);
    let point = &sum.data_points[0];
    assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (7, 9));
    assert_eq!(point.value, Some(Number::AsInt(2)));
    assert_eq!(text(&point.attributes[0]), (Label::Command.as_str(), "GET"));

    let Some(Data::Histogram(histogram)) = &metrics[1].data else { panic!("{:?}", metrics[1]) };
    let point = &histogram.data_points[0];
    assert_eq!(point.explicit_bounds, DURATION_BOUNDS);
    assert_eq!(point.bucket_counts.len(), DURATION_BOUNDS.len() + 1);
    assert_eq!((point.count, point.bucket_counts[1], point.bucket_counts.last()), (2, 1, Some(&1)));
    assert!((point.sum.expect("it has a sum") - 60.000_001_5).abs() < 1e-9);

    let Some(Data::Gauge(gauge)) = &metrics[2].data else { panic!("{:?}", metrics[2]) };
    assert_eq!((gauge.data_points[0].value, gauge.data_points[0].start_time_unix_nano), (Some(Number::AsInt(42)), 0));
    assert!(gauge.data_points[0].attributes.is_empty());
    let Some(Data::Gauge(gauge)) = &metrics[3].data else { panic!("{:?}", metrics[3]) };
    assert_eq!(gauge.data_points[0].value, Some(Number::AsDouble(0.5)));
}

#[test]
fn exports_come_at_the_interval_and_a_last_time_at_the_end() {
    paused(async {
        let exchange = Scripted::new([Answer::refuse(Retry::Never)]);
        let counts = MetricExportCounts::default();
        let shutdown = TestClock.sleep(Duration::from_secs(130));
        run(metrics_delivery(exchange.clone()), collected, settings(), 7, &counts, shutdown).await;
        assert_eq!(exchange.times_ms(), [60_000, 120_000, 130_000]);
        assert_eq!((counts.exported(), counts.rejected(), counts.failed()), (2 * POINTS, POINTS, 0));
    });
}

#[test]
fn an_export_that_fails_for_now_is_repeated() {
    paused(async {
        let exchange = Scripted::new([Answer::refuse(Retry::Allowed)]);
        let counts = MetricExportCounts::default();
        let shutdown = TestClock.sleep(Duration::from_secs(70));
        run(metrics_delivery(exchange.clone()), collected, settings(), 7, &counts, shutdown).await;
        let times = exchange.times_ms();
        assert!(times.len() == 3 && (60_250..60_510).contains(&times[1]), "{times:?}");
        assert_eq!((counts.exported(), counts.rejected(), counts.failed()), (2 * POINTS, 0, 0));
    });
}

#[test]
fn a_silent_backend_delays_the_end_by_the_bound_at_most() {
    paused(async {
        let exchange = Scripted::new([Answer::Silence]);
        let counts = MetricExportCounts::default();
        let shutdown = TestClock.sleep(Duration::from_secs(10));
        run(metrics_delivery(exchange.clone()), collected, settings(), 7, &counts, shutdown).await;
        assert_eq!(exchange.times_ms(), [10_000]);
        assert_eq!(TestClock.monotonic_ns(), 10_000_000_000 + FLUSH_MAX.as_nanos() as u64);
        assert_eq!((counts.exported(), counts.failed()), (0, POINTS));
    });
}

#[test]
fn metrics_arrive_over_both_protocols() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        real(async {
            let backend = Backend::start(protocol).await;
            let mut settings = settings();
            settings.metrics_interval = Duration::from_millis(20);
            let mut destination = backend.destination(Signal::Metrics);
            destination.headers.insert("Authorization".to_owned(), "Bearer x".to_owned());
            let counts = MetricExportCounts::default();
            let shutdown = wait_until(|| counts.exported() > 0);
            run(metrics_delivery(exchange(&destination)), collected, settings, 7, &counts, shutdown).await;
            let received = backend.received();
            assert_eq!(received.authorization.as_deref(), Some("Bearer x"));
            let resource = received.metrics[0].resource.as_ref().expect("it names its origin");
            let attributes: Vec<_> = resource.attributes.iter().map(text).collect();
            assert!(attributes.contains(&("service.name", "ferrite")), "{attributes:?}");
            assert_eq!(received.metrics[0].scope_metrics[0].metrics.len(), 4);
        });
    }
}

#[test]
fn deltas_are_what_was_not_accepted_yet() {
    paused(async {
        let metrics = Metrics::new(1, 1);
        let growing = || {
            metrics.command(0, 0, 1_500, false);
            let mut series: Vec<Series> = metrics.command_series(|_| "GET".to_owned()).into();
            series.push(Series::single(Metric::MEMORY_USED, 42));
            series
        };
        // The second is given up, and comes with the third.
        let lost = (0..5).map(|_| Answer::refuse(Retry::Allowed));
        let exchange = Scripted::new(std::iter::once(Answer::Accept(Default::default())).chain(lost));
        let counts = MetricExportCounts::default();
        let shutdown = TestClock.sleep(Duration::from_secs(190));
        let settings = ExportSettings { temporality: Temporality::Delta, ..settings() };
        let began = TestClock.unix_ns();
        run(metrics_delivery(exchange.clone()), growing, settings, began, &counts, shutdown).await;
        let seen: Vec<(i64, u64, u64, u64)> = exchange
            .attempts()
            .iter()
            .map(|(request, _)| {
                let request = ExportMetricsServiceRequest::decode(request.clone()).expect("it is one");
                let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
                let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("a counter") };
                let Some(Data::Histogram(histogram)) = &metrics[1].data else { panic!("a histogram") };
                assert_eq!(sum.aggregation_temporality, AggregationTemporality::Delta as i32);
                assert_eq!(histogram.aggregation_temporality, AggregationTemporality::Delta as i32);
                let Some(Data::Gauge(gauge)) = &metrics[2].data else { panic!("a gauge") };
                assert_eq!(gauge.data_points[0].value, Some(Number::AsInt(42)));
                let point = &sum.data_points[0];
                let Some(Number::AsInt(value)) = point.value else { panic!("an integer") };
                let second = |unix_ns: u64| (unix_ns - began) / 1_000_000_000;
                let count = histogram.data_points[0].count;
                (value, count, second(point.start_time_unix_nano), second(point.time_unix_nano))
            })
            .collect();
        assert_eq!(seen[0], (1, 1, 0, 60));
        assert!(seen[1..6].iter().all(|seen| *seen == (1, 1, 60, 120)), "{seen:?}");
        assert_eq!((seen[6].0, seen[6].1, seen[6].2), (2, 2, 60), "{seen:?}");
        assert_eq!((seen[7].0, seen[7].1), (1, 1), "{seen:?}");
    });
}

#[test]
fn under_delta_an_exemplar_is_told_in_its_own_interval_alone() {
    let metrics = Metrics::new(1, 1);
    let pins = std::sync::Arc::default();
    let measured = |unix_ns: u64, bucket: usize| {
        let trace =
            ferrite_telemetry::Pins::pin(&pins, ferrite_telemetry::TraceId(7), ferrite_telemetry::SpanId(unix_ns));
        let exemplar = Exemplar { trace, value_ns: 1_500, unix_ns };
        metrics.command(0, 0, 1_500, false);
        metrics.exemplar(0, ferrite_telemetry::NewExemplar { command: 0, bucket, exemplar });
        metrics.command_series(|_| "GET".to_owned()).to_vec()
    };
    let times = |series: &[Series]| -> Vec<u64> {
        let Value::Histogram { exemplars, .. } = &series[1].points[0].value else { panic!("a histogram") };
        exemplars.iter().map(|(_, exemplar)| exemplar.unix_ns).collect()
    };
    let mut deltas = Deltas::new(100);
    let first = measured(150, 0);
    assert_eq!(times(&deltas.of(&first)), [150]);
    deltas.accept(&first, 200);
    let second = measured(250, 1);
    assert_eq!(times(&second), [150, 250], "all that there are");
    assert_eq!(times(&deltas.of(&second)), [250]);
    // What was given up comes with the next export, its exemplar too.
    let third = measured(350, 2);
    assert_eq!(times(&deltas.of(&third)), [250, 350]);
    deltas.accept(&third, 400);
    assert_eq!(times(&deltas.of(&third)), Vec::<u64>::new());
}
