//! `/metrics`: the text format of Prometheus (exposition format 0.0.4).

use std::fmt::Write;

use ferrite_telemetry::schema::{Instrument, prometheus_name};

use crate::metrics::{Point, Series, Value};

/// The whole page.
pub fn render(series: &[Series]) -> String {
    let mut page = String::new();
    for series in series {
        write_series(&mut page, series).expect("writing to a string does not fail");
    }
    page
}

fn write_series(page: &mut String, series: &Series) -> std::fmt::Result {
    let metric = &series.metric;
    let name = prometheus_name(metric.name);
    let (kind, bounds): (_, &[f64]) = match metric.instrument {
        Instrument::Counter => ("counter", &[]),
        Instrument::Gauge => ("gauge", &[]),
        Instrument::Histogram(bounds) => ("histogram", bounds),
    };
    writeln!(page, "# HELP {name} {}", metric.description)?;
    writeln!(page, "# TYPE {name} {kind}")?;
    for point in &series.points {
        let labels = labels(series, point);
        match &point.value {
            Value::Integer(value) => writeln!(page, "{name}{} {value}", labels(""))?,
            Value::Float(value) => writeln!(page, "{name}{} {value}", labels(""))?,
            Value::Histogram { buckets, sum, .. } => {
                let mut below = 0;
                for (count, bound) in buckets.iter().zip(bounds) {
                    below += count;
                    writeln!(page, "{name}_bucket{} {below}", labels(&format!("le=\"{bound}\"")))?;
                }
                let total: u64 = buckets.iter().sum();
                writeln!(page, "{name}_bucket{} {total}", labels("le=\"+Inf\""))?;
                writeln!(page, "{name}_sum{} {sum}", labels(""))?;
                writeln!(page, "{name}_count{} {total}", labels(""))?;
            }
        }
    }
    Ok(())
}

/// The labels of a point and `more` behind its own, in braces; nothing where there are none.
pub(crate) fn labels(series: &Series, point: &Point) -> impl Fn(&str) -> String {
    let label = match (series.label(), &point.label) {
        (Some(label), Some(value)) => format!("{label}=\"{}\"", escape(value)),
        _ => String::new(),
    };
    move |more| match (label.as_str(), more) {
        ("", "") => String::new(),
        (label, "") => format!("{{{label}}}"),
        ("", more) => format!("{{{more}}}"),
        (label, more) => format!("{{{label},{more}}}"),
    }
}

pub(crate) fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use ferrite_telemetry::schema::Metric;

    use super::*;
    use crate::metrics::{Metrics, Point};

    #[test]
    fn a_histogram_is_cumulative_and_ends_at_infinity() {
        let metrics = Metrics::new(1, 1);
        metrics.command(0, 0, 1_500, false);
        metrics.command(0, 0, 60_000_000_000, false);
        let page = render(&metrics.command_series(|_| "GET".to_owned()));
        for line in [
            "# TYPE ferrite_commands_total counter",
            "ferrite_commands_total{command=\"GET\"} 2",
            "ferrite_command_duration_bucket{command=\"GET\",le=\"0.000001\"} 0",
            "ferrite_command_duration_bucket{command=\"GET\",le=\"0.000002\"} 1",
            "ferrite_command_duration_bucket{command=\"GET\",le=\"10\"} 1",
            "ferrite_command_duration_bucket{command=\"GET\",le=\"+Inf\"} 2",
            "ferrite_command_duration_count{command=\"GET\"} 2",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn label_values_are_escaped() {
        let series = Series {
            metric: Metric::KEYS_TOTAL,
            points: vec![Point { label: Some("a\"b\\\n".to_owned()), value: Value::Integer(1) }],
        };
        assert!(render(&[series]).contains("ferrite_keys_total{db=\"a\\\"b\\\\\\n\"} 1"));
    }
}
