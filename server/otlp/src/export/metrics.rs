//! Metrics over OTLP: collected at an interval, sent as the protocol's own messages (the SDK's cannot be built from
//! outside).

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use ferrite_io::{Clock, Entropy, World};
use ferrite_telemetry::Exemplar;
use ferrite_telemetry::schema::Instrument;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1 as proto;
use opentelemetry_proto::tonic::metrics::v1::exemplar::Value as Measured;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::console;
use super::delivery::{Delivery, Fate};
use super::deltas::Deltas;
use super::exponential::{self, Histograms};
use super::settings::{ExportSettings, Temporality, text_attribute};
use super::{FLUSH_MAX, scope};
use crate::transport::{Exchange, Signal};
use crate::{MetricExportCounts, Point, Series, Value};

/// Exports what `collect` gives, every `metrics_interval` and once more when `shutdown` is ready; that last time waits
/// for the backend at most [`FLUSH_MAX`]. Counters count since `started_unix_ns`.
pub async fn export_metrics<W: World, X: Exchange>(
    world: W,
    collect: impl Fn() -> Vec<Series>,
    exchange: X,
    settings: ExportSettings,
    started_unix_ns: u64,
    counts: Arc<MetricExportCounts>,
    shutdown: impl Future<Output = ()>,
) {
    let seed = world.entropy().next_u64();
    let delivery = Delivery::new(world.clock().clone(), exchange, Signal::Metrics, &settings, seed);
    run(delivery, collect, settings, started_unix_ns, &counts, shutdown).await;
}

pub(super) async fn run<C: Clock, X: Exchange>(
    mut delivery: Delivery<C, X>,
    collect: impl Fn() -> Vec<Series>,
    settings: ExportSettings,
    started_unix_ns: u64,
    counts: &MetricExportCounts,
    shutdown: impl Future<Output = ()>,
) {
    let shutdown = shutdown.shared();
    let resource = settings.resource();
    let clock = delivery.clock().clone();
    let temporality = settings.temporality;
    let mut deltas = Deltas::new(started_unix_ns);
    let mut histograms = Histograms::new(settings.aggregation);
    let print = console::begin(&settings, Signal::Metrics);
    loop {
        let due = pin!(clock.sleep(settings.metrics_interval));
        let stopping = matches!(select(shutdown.clone(), due).await, Either::Left(_));
        let mut collected = collect();
        histograms.choose(&mut collected);
        let (start, series) = match temporality {
            Temporality::Cumulative => (started_unix_ns, collected.clone()),
            Temporality::Delta => (deltas.since_unix_ns(), deltas.of(&collected)),
        };
        let times = Times { start, now: clock.unix_ns().max(start), temporality };
        if let Some(print) = &print {
            console::metrics(&series, times.now, &**print);
        }
        let metrics = resource_metrics(resource.clone(), &series, times);
        let points = points_of(&metrics);
        let request = ExportMetricsServiceRequest { resource_metrics: vec![metrics] }.encode_to_vec();
        let sending = pin!(delivery.deliver(points, request.into(), &shutdown));
        let bound = pin!(async {
            shutdown.clone().await;
            clock.sleep(FLUSH_MAX).await;
        });
        let fate = match select(sending, bound).await {
            Either::Left((fate, _)) => fate,
            Either::Right(_) => Fate::GivenUp,
        };
        match fate {
            Fate::Accepted { rejected } => {
                counts.count_rejected(rejected);
                counts.count_exported(points - rejected);
            }
            Fate::Refused => counts.count_rejected(points),
            Fate::GivenUp => counts.count_failed(points),
        }
        // What was refused for good is not wanted a second time either. What was given up comes with the next export.
        if temporality == Temporality::Delta && fate != Fate::GivenUp {
            deltas.accept(&collected, times.now);
            histograms.begin_anew();
        }
        if stopping {
            return;
        }
    }
}

fn points_of(metrics: &ResourceMetrics) -> usize {
    let all = metrics.scope_metrics.iter().flat_map(|scope| &scope.metrics);
    all.map(|metric| match &metric.data {
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        Some(Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
        _ => 0,
    })
    .sum()
}

/// Since when counters count, and when they were read; Unix nanoseconds.
#[derive(Clone, Copy)]
struct Times {
    start: u64,
    now: u64,
    temporality: Temporality,
}

fn resource_metrics(resource: Resource, series: &[Series], times: Times) -> ResourceMetrics {
    // A metric without points would be an empty message, which some backends refuse.
    let with_points = series.iter().filter(|series| !series.points.is_empty());
    let metrics = with_points.map(|series| metric(series, times)).collect();
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, schema_url: String::new() }];
    ResourceMetrics { resource: Some(resource), scope_metrics, schema_url: String::new() }
}

fn metric(series: &Series, times: Times) -> proto::Metric {
    let temporality = match times.temporality {
        Temporality::Cumulative => AggregationTemporality::Cumulative,
        Temporality::Delta => AggregationTemporality::Delta,
    } as i32;
    let numbers = |start| series.points.iter().map(|point| number(series, point, start, times.now)).collect();
    let data = match series.metric.instrument {
        Instrument::Counter => Data::Sum(proto::Sum {
            data_points: numbers(times.start),
            aggregation_temporality: temporality,
            is_monotonic: true,
        }),
        // The start of a value at a moment says nothing.
        Instrument::Gauge => Data::Gauge(proto::Gauge { data_points: numbers(0) }),
        Instrument::Histogram(_) if series.points.iter().any(is_exponential) => {
            let points = series.points.iter().filter_map(|point| exponential_distribution(series, point, times));
            Data::ExponentialHistogram(proto::ExponentialHistogram {
                data_points: points.collect(),
                aggregation_temporality: temporality,
            })
        }
        Instrument::Histogram(bounds) => Data::Histogram(proto::Histogram {
            data_points: series.points.iter().map(|point| distribution(series, point, bounds, times)).collect(),
            aggregation_temporality: temporality,
        }),
    };
    proto::Metric {
        name: series.metric.name.to_owned(),
        description: series.metric.description.to_owned(),
        unit: series.metric.unit.to_owned(),
        data: Some(data),
        ..Default::default()
    }
}

fn labels(series: &Series, point: &Point) -> Vec<KeyValue> {
    series
        .label()
        .zip(point.label.as_ref())
        .map(|(label, value)| text_attribute(label.as_str(), value.clone()))
        .into_iter()
        .collect()
}

fn number(series: &Series, point: &Point, start: u64, now: u64) -> proto::NumberDataPoint {
    let value = match &point.value {
        Value::Integer(value) => Number::AsInt(i64::try_from(*value).unwrap_or(i64::MAX)),
        Value::Float(value) => Number::AsDouble(*value),
        Value::Histogram { .. } => unreachable!("{} is declared as a number", series.metric.name),
    };
    proto::NumberDataPoint {
        attributes: labels(series, point),
        start_time_unix_nano: start,
        time_unix_nano: now,
        value: Some(value),
        ..Default::default()
    }
}

fn distribution(series: &Series, point: &Point, bounds: &[f64], times: Times) -> proto::HistogramDataPoint {
    let Value::Histogram { buckets, sum, exemplars, .. } = &point.value else {
        unreachable!("{} is declared as a histogram", series.metric.name)
    };
    proto::HistogramDataPoint {
        attributes: labels(series, point),
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        count: buckets.iter().sum(),
        sum: Some(*sum),
        bucket_counts: buckets.clone(),
        explicit_bounds: bounds.to_vec(),
        exemplars: exemplars.iter().map(|(_, exemplar)| measured(exemplar)).collect(),
        ..Default::default()
    }
}

fn is_exponential(point: &Point) -> bool {
    matches!(point.value, Value::Histogram { native: Some(_), .. })
}

fn exponential_distribution(
    series: &Series,
    point: &Point,
    times: Times,
) -> Option<proto::ExponentialHistogramDataPoint> {
    let Value::Histogram { native: Some(native), sum, exemplars, .. } = &point.value else { return None };
    Some(proto::ExponentialHistogramDataPoint {
        attributes: labels(series, point),
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        exemplars: exemplars.iter().map(|(_, exemplar)| measured(exemplar)).collect(),
        ..exponential::data_point(native, *sum)
    })
}

fn measured(exemplar: &Exemplar) -> proto::Exemplar {
    proto::Exemplar {
        filtered_attributes: Vec::new(),
        time_unix_nano: exemplar.unix_ns,
        span_id: exemplar.trace.root_id().0.to_be_bytes().to_vec(),
        trace_id: exemplar.trace.trace_id().0.to_be_bytes().to_vec(),
        value: Some(Measured::AsDouble(exemplar.value_ns as f64 / 1e9)),
    }
}

#[cfg(test)]
mod tests;
