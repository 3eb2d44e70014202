//! `/metrics` for scrapers that ask for OpenMetrics 1.0
//! (<https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md>): the same series as in the classic format,
//! with exemplars.
//!
//! A counter's samples must end in `_total` here. Those that do not, by the names that queries know, are told as of type
//! `unknown`: their names stay.

use std::fmt::Write;

use ferrite_telemetry::Exemplar;
use ferrite_telemetry::schema::{EXEMPLAR_SPAN_ID, EXEMPLAR_TRACE_ID, Instrument, prometheus_name};

use crate::metrics::{Series, Value};
use crate::prometheus::{escape, labels};

/// What a counter's samples end in.
const TOTAL: &str = "_total";

/// The whole page.
pub fn render_openmetrics(series: &[Series]) -> String {
    let mut page = String::new();
    for series in series {
        write_series(&mut page, series).expect("writing to a string does not fail");
    }
    page.push_str("# EOF\n");
    page
}

fn write_series(page: &mut String, series: &Series) -> std::fmt::Result {
    let metric = &series.metric;
    let name = prometheus_name(metric.name);
    let (family, kind, bounds): (&str, _, &[f64]) = match metric.instrument {
        Instrument::Counter => match name.strip_suffix(TOTAL) {
            Some(family) => (family, "counter", &[]),
            None => (&name, "unknown", &[]),
        },
        Instrument::Gauge => (&name, "gauge", &[]),
        Instrument::Histogram(bounds) => (&name, "histogram", bounds),
    };
    writeln!(page, "# TYPE {family} {kind}")?;
    writeln!(page, "# HELP {family} {}", escape(metric.description))?;
    for point in &series.points {
        let labels = labels(series, point);
        match &point.value {
            Value::Integer(value) => writeln!(page, "{name}{} {value}", labels(""))?,
            Value::Float(value) => writeln!(page, "{name}{} {}", labels(""), Canonical(*value))?,
            Value::Histogram { buckets, sum, exemplars, .. } => {
                let mut below = 0;
                let bounds = bounds.iter().copied().chain([f64::INFINITY]);
                for (at, (count, bound)) in buckets.iter().zip(bounds).enumerate() {
                    below += count;
                    let le = labels(&format!("le=\"{}\"", Canonical(bound)));
                    write!(page, "{name}_bucket{le} {below}")?;
                    if let Some((_, exemplar)) = exemplars.iter().find(|(bucket, _)| *bucket == at) {
                        write_exemplar(page, exemplar)?;
                    }
                    page.push('\n');
                }
                writeln!(page, "{name}_sum{} {}", labels(""), Canonical(*sum))?;
                writeln!(page, "{name}_count{} {below}", labels(""))?;
            }
        }
    }
    Ok(())
}

/// ` # {trace_id="…",span_id="…"} value time`: well below the 128 characters that its labels may have.
fn write_exemplar(page: &mut String, exemplar: &Exemplar) -> std::fmt::Result {
    let (seconds, millis) = (exemplar.unix_ns / 1_000_000_000, exemplar.unix_ns / 1_000_000 % 1_000);
    write!(
        page,
        " # {{{EXEMPLAR_TRACE_ID}=\"{}\",{EXEMPLAR_SPAN_ID}=\"{}\"}} {} {seconds}.{millis:03}",
        exemplar.trace.trace_id(),
        exemplar.trace.root_id(),
        Canonical(exemplar.value_ns as f64 / 1e9),
    )
}

/// A number as the specification wants it, so that the same bound is the same label everywhere: never without a fraction, and
/// small ones with an exponent of two digits.
struct Canonical(f64);

impl std::fmt::Display for Canonical {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.0;
        if value.is_infinite() {
            return f.write_str(if value > 0.0 { "+Inf" } else { "-Inf" });
        }
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').expect("that is what it was asked for");
        match exponent.parse::<i32>().expect("an exponent is a number") {
            exponent @ (..-4 | 21..) => {
                let sign = if exponent < 0 { '-' } else { '+' };
                write!(f, "{digits}e{sign}{:02}", exponent.abs())
            }
            _ if value.fract() == 0.0 => write!(f, "{value:.1}"),
            _ => write!(f, "{value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ferrite_telemetry::schema::Metric;
    use ferrite_telemetry::{NewExemplar, Pins, SpanId, TraceId};

    use super::*;
    use crate::metrics::{Metrics, Point};

    #[test]
    fn numbers_have_one_form() {
        let text = |value| Canonical(value).to_string();
        assert_eq!(
            [text(0.000_001), text(0.000_025), text(0.000_1), text(0.25), text(1.0), text(10.0), text(f64::INFINITY)],
            ["1e-06", "2.5e-05", "0.0001", "0.25", "1.0", "10.0", "+Inf"]
        );
        assert_eq!([text(0.0), text(6.00005), text(1e21)], ["0.0", "6.00005", "1e+21"]);
    }

    #[test]
    fn a_bucket_shows_its_exemplar() {
        let metrics = Metrics::new(1, 1);
        let bucket = metrics.command(0, 0, 1_500, false).expect("it has none yet");
        let trace = Arc::<Pins>::default().pin(TraceId(0xab), SpanId(0xcd));
        let exemplar = Exemplar { trace, value_ns: 1_500, unix_ns: 1_700_000_000_250_000_000 };
        metrics.exemplar(0, NewExemplar { command: 0, bucket, exemplar });
        assert_eq!(metrics.command(0, 0, 1_500, false), None, "until the next is wanted");
        assert!(metrics.command(0, 0, 60_000_000_000, false).is_some());
        metrics.want_exemplars();
        assert!(metrics.command(0, 0, 1_500, false).is_some());
        let page = render_openmetrics(&metrics.command_series(|_| "GET".to_owned()));
        let trace = "trace_id=\"000000000000000000000000000000ab\",span_id=\"00000000000000cd\"";
        for line in [
            "# TYPE ferrite_commands counter".to_owned(),
            "ferrite_commands_total{command=\"GET\"} 4".to_owned(),
            "ferrite_command_duration_bucket{command=\"GET\",le=\"1e-06\"} 0".to_owned(),
            format!(
                "ferrite_command_duration_bucket{{command=\"GET\",le=\"2e-06\"}} 3 # {{{trace}}} 1.5e-06 1700000000.250"
            ),
            "ferrite_command_duration_bucket{command=\"GET\",le=\"+Inf\"} 4".to_owned(),
            "ferrite_command_duration_count{command=\"GET\"} 4".to_owned(),
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
        assert!(page.ends_with("\n# EOF\n"));
    }

    #[test]
    fn a_counter_keeps_the_name_that_queries_know() {
        let page = render_openmetrics(&[
            Series::single(Metric::NETWORK_BYTES_SENT, 3),
            Series {
                metric: Metric::KEYS_TOTAL,
                points: vec![Point { label: Some("0".to_owned()), value: Value::Integer(1) }],
            },
        ]);
        for line in [
            "# TYPE ferrite_network_bytes_sent unknown",
            "ferrite_network_bytes_sent 3",
            "# TYPE ferrite_keys_total gauge",
            "ferrite_keys_total{db=\"0\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
    }
}
