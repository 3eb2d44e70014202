//! `/metrics` for scrapers that ask for Prometheus's protobuf format, the only one in which native histograms can be told: families as
//! messages of `io.prometheus.client` (<https://github.com/prometheus/client_model>), each behind its length. Classic buckets stay
//! beside native ones: which of them it stores is the scraper's choice.

mod messages;

use ferrite_telemetry::Exemplar as Measured;
use ferrite_telemetry::schema::{EXEMPLAR_SPAN_ID, EXEMPLAR_TRACE_ID, Instrument, prometheus_name};
use prost::Message;

use self::messages::{
    Bucket, BucketSpan, Counter, Exemplar, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType, Timestamp,
};
use crate::exponential::{BUCKETS_MAX, Exponential, Fitted};
use crate::metrics::{Point, Series, Value};

/// Empty buckets between two others that are told with them: two counts of 0 take no more bytes than another span.
const GAP_MAX: usize = 2;

/// The whole page.
pub fn render_protobuf(series: &[Series]) -> Vec<u8> {
    let mut page = Vec::new();
    // A family without metrics is an error to Prometheus.
    for series in series.iter().filter(|series| !series.points.is_empty()) {
        family(series).encode_length_delimited(&mut page).expect("a vector has room");
    }
    page
}

fn family(series: &Series) -> MetricFamily {
    let kind = match series.metric.instrument {
        Instrument::Counter => MetricType::Counter,
        Instrument::Gauge => MetricType::Gauge,
        Instrument::Histogram(_) => MetricType::Histogram,
    };
    MetricFamily {
        name: Some(prometheus_name(series.metric.name)),
        help: Some(series.metric.description.to_owned()),
        r#type: Some(kind as i32),
        metric: series.points.iter().map(|point| metric(series, point)).collect(),
    }
}

fn metric(series: &Series, point: &Point) -> Metric {
    let label = series.label().zip(point.label.as_ref());
    let mut metric = Metric {
        label: label.map(|(label, value)| pair(label.as_str(), value)).into_iter().collect(),
        ..Metric::default()
    };
    let number = match &point.value {
        Value::Integer(value) => *value as f64,
        Value::Float(value) => *value,
        Value::Histogram { .. } => {
            metric.histogram = Some(histogram(series, &point.value));
            return metric;
        }
    };
    match series.metric.instrument {
        Instrument::Counter => metric.counter = Some(Counter { value: Some(number) }),
        _ => metric.gauge = Some(Gauge { value: Some(number) }),
    }
    metric
}

fn histogram(series: &Series, value: &Value) -> Histogram {
    let (Instrument::Histogram(bounds), Value::Histogram { buckets, sum, exemplars, native }) =
        (series.metric.instrument, value)
    else {
        unreachable!("{} is declared as a number", series.metric.name)
    };
    let mut below = 0;
    let bounds = bounds.iter().copied().chain([f64::INFINITY]);
    let classic = buckets.iter().zip(bounds).enumerate().map(|(at, (count, bound))| {
        below += count;
        let own = exemplars.iter().find(|(bucket, _)| *bucket == at);
        Bucket {
            cumulative_count: Some(below),
            upper_bound: Some(bound),
            exemplar: own.map(|(_, measured)| exemplar(measured)),
        }
    });
    let mut histogram = Histogram { sample_sum: Some(*sum), bucket: classic.collect(), ..Histogram::default() };
    histogram.sample_count = Some(below);
    if let Some(native) = native {
        add_native(&mut histogram, native);
        let mut measured: Vec<&Measured> = exemplars.iter().map(|(_, measured)| measured).collect();
        // Prometheus passes over one that is older than the one before it.
        measured.sort_by_key(|measured| measured.unix_ns);
        histogram.exemplars = measured.into_iter().map(exemplar).collect();
    }
    histogram
}

/// A bucket's index is that of its upper bound here, and so one more.
fn add_native(histogram: &mut Histogram, native: &Exponential) {
    let Fitted { scale, first, counts } = native.fit(BUCKETS_MAX);
    // Both are read while workers count: the native part is a histogram of its own, whose count must be its buckets' sum.
    histogram.sample_count = Some(native.count());
    histogram.schema = Some(scale);
    histogram.zero_threshold = Some(0.0);
    histogram.zero_count = Some(native.zero);
    let (mut next, mut before) = (0, 0_i64);
    let mut at = 0;
    while at < counts.len() {
        let begin = at;
        let mut end = at + 1;
        while let Some(gap) = counts[end..].iter().take(GAP_MAX + 1).position(|count| *count > 0) {
            end += gap + 1;
        }
        let index = first + begin as i32 + 1;
        histogram.positive_span.push(BucketSpan { offset: Some(index - next), length: Some((end - begin) as u32) });
        next = index + (end - begin) as i32;
        for &count in &counts[begin..end] {
            histogram.positive_delta.push(count as i64 - before);
            before = count as i64;
        }
        at = end + counts[end..].iter().take_while(|count| **count == 0).count();
    }
    if counts.is_empty() {
        // Else a histogram in which nothing was counted would look like one without a native part.
        histogram.positive_span.push(BucketSpan { offset: Some(0), length: Some(0) });
    }
}

fn exemplar(measured: &Measured) -> Exemplar {
    Exemplar {
        label: vec![
            pair(EXEMPLAR_TRACE_ID, &measured.trace.trace_id().to_string()),
            pair(EXEMPLAR_SPAN_ID, &measured.trace.root_id().to_string()),
        ],
        value: Some(measured.value_ns as f64 / 1e9),
        timestamp: Some(Timestamp {
            seconds: (measured.unix_ns / 1_000_000_000) as i64,
            nanos: (measured.unix_ns % 1_000_000_000) as i32,
        }),
    }
}

fn pair(name: &str, value: &str) -> LabelPair {
    LabelPair { name: Some(name.to_owned()), value: Some(value.to_owned()) }
}

#[cfg(test)]
mod tests;
