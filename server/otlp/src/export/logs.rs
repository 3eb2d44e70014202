//! The task that exports log records, and the message that they become.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use ferrite_io::{Entropy, World};
use ferrite_telemetry::{LogLimits, shortened};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Kind;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1 as proto;
use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use serde_json::Value;
use tracing::Level;

use super::batches::{BatchExport, Console};
use super::console;
use super::delivery::Delivery;
use super::settings::ExportSettings;
use crate::transport::{Exchange, Signal};
use crate::{LogQueue, LogRecord};

/// Exports what comes into `queue`, as [`super::export_traces`] does.
pub async fn export_logs<W: World, X: Exchange>(
    world: W,
    queue: Arc<LogQueue>,
    exchange: X,
    settings: ExportSettings,
    shutdown: impl Future<Output = ()>,
) {
    let seed = world.entropy().next_u64();
    let delivery = Delivery::new(world.clock().clone(), exchange, Signal::Logs, &settings, seed);
    let (resource, limits) = (settings.resource(), settings.shape.logs);
    let encode = move |batch: &[LogRecord]| request(&resource, &limits, batch);
    let batch_timeout = settings.batch_timeout;
    let console = console::begin(&settings, Signal::Logs)
        .map(|print| -> Console<LogRecord> { Box::new(move |batch| console::logs(batch, &*print)) });
    BatchExport { queue, delivery, encode, batch_timeout, console }.run(shutdown).await;
}

/// The name of a scope is where its lines come from (Logs API, "Get a Logger").
fn request(resource: &Resource, limits: &LogLimits, batch: &[LogRecord]) -> Bytes {
    let mut scopes = BTreeMap::<&str, Vec<proto::LogRecord>>::new();
    for record in batch {
        scopes.entry(&record.target).or_default().push(message(record, limits));
    }
    let scope_logs = scopes.into_iter().map(|(target, log_records)| {
        let scope = InstrumentationScope { name: target.to_owned(), ..super::scope() };
        ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }
    });
    let resource = Some(resource.clone());
    let logs = ResourceLogs { resource, scope_logs: scope_logs.collect(), ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec().into()
}

fn message(record: &LogRecord, limits: &LogLimits) -> proto::LogRecord {
    let text = |text: &str| Some(AnyValue { value: Some(Kind::StringValue(text.to_owned())) });
    let (trace_id, span_id) = record
        .ids
        .map_or_else(Default::default, |(trace, span)| (trace.0.to_be_bytes().to_vec(), span.0.to_be_bytes().to_vec()));
    let fields = record.fields.iter().take(limits.attribute_count);
    proto::LogRecord {
        time_unix_nano: record.unix_ns,
        observed_time_unix_nano: record.unix_ns,
        severity_number: severity(record.level) as i32,
        severity_text: record.level.as_str().to_owned(),
        body: text(&record.message),
        attributes: fields.map(|(name, value)| attribute(name, value, limits)).collect(),
        dropped_attributes_count: record.fields.len().saturating_sub(limits.attribute_count) as u32,
        trace_id,
        span_id,
        ..proto::LogRecord::default()
    }
}

fn severity(level: Level) -> SeverityNumber {
    match level {
        Level::TRACE => SeverityNumber::Trace,
        Level::DEBUG => SeverityNumber::Debug,
        Level::INFO => SeverityNumber::Info,
        Level::WARN => SeverityNumber::Warn,
        Level::ERROR => SeverityNumber::Error,
    }
}

fn attribute(name: &str, value: &Value, limits: &LogLimits) -> KeyValue {
    let limited = |text: &str| match limits.attribute_value_length {
        Some(length) => shortened(text, length, &mut String::new()).to_owned(),
        None => text.to_owned(),
    };
    let value = match (value, value.as_i64(), value.as_f64()) {
        (Value::Bool(truth), ..) => Kind::BoolValue(*truth),
        (Value::Number(_), Some(number), _) => Kind::IntValue(number),
        // A whole number beyond the protocol's: as a text it is exact.
        (Value::Number(number), None, _) if number.is_u64() => Kind::StringValue(number.to_string()),
        (Value::Number(_), None, Some(number)) => Kind::DoubleValue(number),
        (Value::String(text), ..) => Kind::StringValue(limited(text)),
        (other, ..) => Kind::StringValue(limited(&other.to_string())),
    };
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests;
