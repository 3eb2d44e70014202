//! Metrics over OTLP: collected at an interval, sent as the protocol's own messages (the SDK's cannot be built from
//! outside).

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ferrite_io::{Clock, World};
use ferrite_telemetry::schema::Instrument;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValueKind;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1 as proto;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;

use super::outage::Outage;
use super::settings::{ExportError, ExportSettings};
use super::{FLUSH_MAX, SCOPE_NAME, SCOPE_VERSION};
use crate::{Point, Series, Value};

/// Takes collected metrics to a backend.
#[allow(async_fn_in_trait)]
pub trait MetricExporter {
    /// One attempt. What did not arrive is not repeated: the next export carries the same counters, grown.
    async fn export(&self, metrics: ResourceMetrics) -> Result<(), String>;
}

/// The OTLP exporter over gRPC.
pub struct GrpcMetricExporter {
    client: MetricsServiceClient<Channel>,
    metadata: MetadataMap,
}

impl GrpcMetricExporter {
    /// Connects when it is first used and again after the backend was away. To be called on the worker that exports,
    /// inside its tokio runtime, since the connection is a task there.
    pub fn new(settings: &ExportSettings) -> Result<Self, ExportError> {
        let metadata = settings.metadata()?;
        Ok(Self { client: MetricsServiceClient::new(settings.channel()?), metadata })
    }
}

impl MetricExporter for GrpcMetricExporter {
    async fn export(&self, metrics: ResourceMetrics) -> Result<(), String> {
        let mut request = tonic::Request::new(ExportMetricsServiceRequest { resource_metrics: vec![metrics] });
        self.metadata.clone_into(request.metadata_mut());
        // A server's message may repeat what it was sent, credentials included; only what arose here is shown.
        let response = self.client.clone().export(request).await.map_err(|status| {
            let source = std::error::Error::source(&status).map_or(String::new(), |source| format!(": {source}"));
            format!("gRPC code {:?}{source}", status.code())
        })?;
        match response.into_inner().partial_success {
            Some(partial) if partial.rejected_data_points > 0 => {
                Err(format!("{} data points were rejected", partial.rejected_data_points))
            }
            _ => Ok(()),
        }
    }
}

/// What became of the exports. Written by the task, read by any.
#[derive(Debug, Default)]
pub struct MetricExportCounts {
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl MetricExportCounts {
    /// Exports that the backend accepted as a whole.
    pub fn succeeded(&self) -> u64 {
        self.succeeded.load(Ordering::Relaxed)
    }

    /// Exports that did not arrive, or not as a whole.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// Exports what `collect` gives, every `metrics_interval` and once more when `shutdown` is ready; that last time waits
/// for the backend at most [`FLUSH_MAX`]. Counters count since `started_unix_ns`.
pub async fn export_metrics<W: World, X: MetricExporter>(
    world: W,
    collect: impl Fn() -> Vec<Series>,
    exporter: X,
    settings: ExportSettings,
    started_unix_ns: u64,
    counts: Arc<MetricExportCounts>,
    shutdown: impl Future<Output = ()>,
) {
    run(world.clock().clone(), collect, exporter, settings, started_unix_ns, &counts, shutdown).await;
}

async fn run<C: Clock, X: MetricExporter>(
    clock: C,
    collect: impl Fn() -> Vec<Series>,
    exporter: X,
    settings: ExportSettings,
    started_unix_ns: u64,
    counts: &MetricExportCounts,
    shutdown: impl Future<Output = ()>,
) {
    let shutdown = shutdown.shared();
    let resource = resource(&settings);
    let mut outage = Outage::none("metrics");
    loop {
        let due = pin!(clock.sleep(settings.metrics_interval));
        let stopping = matches!(select(shutdown.clone(), due).await, Either::Left(_));
        let times = Times { start: started_unix_ns, now: clock.unix_ns().max(started_unix_ns) };
        let metrics = resource_metrics(resource.clone(), &collect(), times);
        let sending = pin!(exporter.export(metrics));
        let limit = pin!(async {
            let whole = clock.sleep(settings.timeout);
            if stopping {
                return clock.sleep(settings.timeout.min(FLUSH_MAX)).await;
            }
            // A shutdown that comes while the backend keeps silent shortens the wait.
            let flush = async {
                shutdown.clone().await;
                clock.sleep(FLUSH_MAX).await;
            };
            select(pin!(whole), pin!(flush)).await;
        });
        let result = match select(sending, limit).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(format!("no answer within {:?}", settings.timeout)),
        };
        match result {
            Ok(()) => {
                tracing::debug!("metrics exported");
                counts.succeeded.fetch_add(1, Ordering::Relaxed);
                outage.over(clock.monotonic_ns());
            }
            Err(error) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                outage.failed(clock.monotonic_ns(), &error);
                outage.lost(1);
            }
        }
        if stopping {
            return;
        }
    }
}

/// Since when counters count, and when they were read; Unix nanoseconds.
#[derive(Clone, Copy)]
struct Times {
    start: u64,
    now: u64,
}

fn resource(settings: &ExportSettings) -> Resource {
    let mut attributes: Vec<KeyValue> =
        settings.resource().iter().map(|(key, value)| text_attribute(key.as_str(), value.to_string())).collect();
    // The SDK's map has no order.
    attributes.sort_by(|a, b| a.key.cmp(&b.key));
    Resource { attributes, ..Resource::default() }
}

fn text_attribute(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(AnyValueKind::StringValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn resource_metrics(resource: Resource, series: &[Series], times: Times) -> ResourceMetrics {
    let scope =
        InstrumentationScope { name: SCOPE_NAME.to_owned(), version: SCOPE_VERSION.to_owned(), ..Default::default() };
    // A metric without points would be an empty message, which some backends refuse.
    let with_points = series.iter().filter(|series| !series.points.is_empty());
    let metrics = with_points.map(|series| metric(series, times)).collect();
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics, schema_url: String::new() }];
    ResourceMetrics { resource: Some(resource), scope_metrics, schema_url: String::new() }
}

fn metric(series: &Series, times: Times) -> proto::Metric {
    let cumulative = AggregationTemporality::Cumulative as i32;
    let numbers = |start| series.points.iter().map(|point| number(series, point, start, times.now)).collect();
    let data = match series.metric.instrument {
        Instrument::Counter => Data::Sum(proto::Sum {
            data_points: numbers(times.start),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        // The start of a value at a moment says nothing.
        Instrument::Gauge => Data::Gauge(proto::Gauge { data_points: numbers(0) }),
        Instrument::Histogram(bounds) => Data::Histogram(proto::Histogram {
            data_points: series.points.iter().map(|point| distribution(series, point, bounds, times)).collect(),
            aggregation_temporality: cumulative,
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
    let Value::Histogram { buckets, sum } = &point.value else {
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
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
