//! Log lines on standard output: one JSON object or one line of text each, and which of them are written.

mod to_queue;

use std::fmt;
use std::sync::Arc;

use ferrite_telemetry::schema::{LogField, log_target};
use ferrite_telemetry::{Sampling, SpanId, TraceId};
use serde_json::Value;
use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use to_queue::ToQueue;

use crate::{ExportQueue, LogQueue};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// An object with the fields of [`LogField`], in their order.
    Json,
    /// Time, level, target, message, then the fields as `name=value`.
    Text,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// A level, or directives as in `RUST_LOG`: `ferrite=debug,opentelemetry=debug`. `ferrite` means all of Ferrite, and
    /// `ferrite::node` what the lines' targets show as that.
    pub filter: String,
    /// How the lines look.
    pub format: LogFormat,
    /// The wall clock: nanoseconds since the Unix epoch.
    pub unix_ns: fn() -> u64,
}

/// Where the spans of cold paths go, and what they are made of.
pub struct ColdSpans {
    pub queue: Arc<ExportQueue>,
    pub sampling: Arc<Sampling>,
    /// Seeds their ids: from World's entropy.
    pub seed: u64,
    /// World's monotonic clock.
    pub monotonic_ns: fn() -> u64,
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// Neither a level nor directives.
    #[error(
        "the log level \"{filter}\" is not understood ({source}): use off, error, warn, info, debug or trace, or directives like ferrite=debug,opentelemetry=debug"
    )]
    Filter { filter: String, source: tracing_subscriber::filter::ParseError },
    /// [`init_logging`] was called before, or something else set the process's subscriber.
    #[error("logging has already been set up in this process")]
    AlreadySet,
}

/// Writes what is logged anywhere in this process to standard output, from now on, and queues log records and the spans of
/// cold paths if they are wanted (and the build has OpenTelemetry).
pub fn init_logging(
    settings: &LogSettings,
    logs: Option<Arc<LogQueue>>,
    spans: Option<ColdSpans>,
) -> Result<(), LoggingError> {
    subscriber(settings, std::io::stdout, logs, spans)?.try_init().map_err(|_| LoggingError::AlreadySet)
}

/// The subscriber behind [`init_logging`], for another place to write to; each line is one write.
pub fn subscriber<M>(
    settings: &LogSettings,
    writer: M,
    logs: Option<Arc<LogQueue>>,
    spans: Option<ColdSpans>,
) -> Result<impl Subscriber + Send + Sync, LoggingError>
where
    M: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = || {
        EnvFilter::builder()
            .parse(directives(&settings.filter))
            .map_err(|source| LoggingError::Filter { filter: settings.filter.clone(), source })
    };
    let lines = Lines { format: settings.format, unix_ns: settings.unix_ns };
    // The filter is the lines' alone: which spans are exported does not hang on the log level.
    let lines = tracing_subscriber::fmt::layer().event_format(lines).with_writer(writer).with_filter(filter()?);
    let subscriber = tracing_subscriber::registry().with(lines);
    // What is exported is what is written.
    let logs = match logs {
        Some(queue) => Some(ToQueue { queue, unix_ns: settings.unix_ns }.with_filter(filter()?)),
        None => None,
    };
    let subscriber = subscriber.with(logs);
    #[cfg(feature = "otel")]
    let subscriber = subscriber.with(spans.map(|spans| crate::cold::layer(spans, settings.unix_ns)));
    #[cfg(not(feature = "otel"))]
    drop(spans);
    Ok(subscriber)
}

/// The ids of the cold path's span at hand.
fn current_ids() -> Option<(TraceId, SpanId)> {
    #[cfg(feature = "otel")]
    return crate::cold::current_ids();
    #[cfg(not(feature = "otel"))]
    None
}

/// Targets are shown as [`log_target`] writes them but are matched as the compiler does: a directive for the one has to
/// select the other too. `ferrite` alone is a prefix of both.
fn directives(filter: &str) -> String {
    let mut all = Vec::new();
    // Blanks after commas are common, and not understood by the parser.
    for directive in filter.split(',').map(str::trim) {
        all.push(directive.to_owned());
        all.extend(directive.strip_prefix("ferrite::").map(|inner| format!("ferrite_{inner}")));
    }
    all.join(",")
}

struct Lines {
    format: LogFormat,
    unix_ns: fn() -> u64,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut seen = Seen::default();
        event.record(&mut seen);
        // A line that names a command's ids keeps them.
        if seen.trace_id.is_none()
            && let Some((trace_id, span_id)) = current_ids()
        {
            seen.trace_id = Some(trace_id.to_string());
            seen.span_id = Some(span_id.to_string());
        }
        let line = Line {
            timestamp: rfc3339((self.unix_ns)(), 3),
            level: event.metadata().level().as_str(),
            target: &log_target(event.metadata().target()),
            seen,
        };
        match self.format {
            LogFormat::Json => line.json(&mut writer),
            LogFormat::Text => line.text(&mut writer),
        }
    }
}

/// RFC 3339 in UTC with so many digits, nine at most, of a second's fraction.
pub(crate) fn rfc3339(unix_ns: u64, digits: usize) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(unix_ns.into()).expect("a u64 reaches to the year 2554");
    let (date, time) = (at.date(), at.time());
    let fraction = format!("{:09}", time.nanosecond());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        &fraction[..digits.min(fraction.len())]
    )
}

/// The fields of one event, sorted into those with a place of their own and the others.
#[derive(Default)]
struct Seen {
    message: String,
    trace_id: Option<String>,
    span_id: Option<String>,
    others: Vec<(&'static str, Value)>,
}

impl Seen {
    fn add(&mut self, field: &Field, value: Value) {
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let name = field.name();
        if name == LogField::Message.as_str() {
            self.message = text(value);
        } else if name == LogField::TraceId.as_str() {
            self.trace_id = Some(text(value));
        } else if name == LogField::SpanId.as_str() {
            self.span_id = Some(text(value));
        } else {
            self.others.push((name.strip_prefix("r#").unwrap_or(name), value));
        }
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::String(value.to_owned()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinities.
        self.add(field, if value.is_finite() { value.into() } else { value.to_string().into() });
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}

struct Line<'e> {
    timestamp: String,
    level: &'static str,
    target: &'e str,
    seen: Seen,
}

impl Line<'_> {
    fn json(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let ids = [(LogField::TraceId, &self.seen.trace_id), (LogField::SpanId, &self.seen.span_id)];
        let texts = [
            (LogField::Timestamp, Some(self.timestamp.as_str())),
            (LogField::Level, Some(self.level)),
            (LogField::Target, Some(self.target)),
            (LogField::Message, Some(self.seen.message.as_str())),
        ];
        writer.write_char('{')?;
        let present = texts.into_iter().chain(ids.map(|(field, id)| (field, id.as_deref())));
        for (field, text) in present.filter_map(|(field, text)| Some((field, text?))) {
            write!(writer, "\"{field}\":{},", Value::from(text))?;
        }
        write!(writer, "\"{}\":{{", LogField::Fields)?;
        for (at, (name, value)) in self.seen.others.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(writer, "{comma}{}:{value}", Value::from(*name))?;
        }
        writer.write_str("}}\n")
    }

    fn text(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{} {:>5} {}: {}", self.timestamp, self.level, self.target, one_line(&self.seen.message))?;
        let ids = [(LogField::TraceId, &self.seen.trace_id), (LogField::SpanId, &self.seen.span_id)];
        for (field, id) in ids.into_iter().filter_map(|(field, id)| Some((field, id.as_ref()?))) {
            write!(writer, " {field}={}", one_line(id))?;
        }
        for (name, value) in &self.seen.others {
            // A text is written as in JSON: quoted, without line breaks.
            write!(writer, " {name}={value}")?;
        }
        writer.write_char('\n')
    }
}

/// What a client sent must not be able to begin a line of its own.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests;
