//! What an export needs to know beside its destination, and what all signals say about their origin.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::console::Print;
use super::exponential::Aggregation;
use ferrite_telemetry::Shape;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;

const SERVICE_NAME: &str = "service.name";
const SERVICE_VERSION: &str = "service.version";
const SERVICE_NAMESPACE: &str = "service.namespace";
const SDK: [(&str, &str); 3] = [
    ("telemetry.sdk.language", "rust"),
    // Not the OpenTelemetry SDK: the specification wants another name then.
    ("telemetry.sdk.name", "ferrite"),
    ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
];

/// When telemetry is sent, and under which name.
#[derive(Clone)]
pub struct ExportSettings {
    /// For one attempt, the connection included.
    pub timeout: Duration,
    /// After which a batch is given up, whatever attempts are left.
    pub deadline: Option<Duration>,
    /// Goes over the same key of `resource_attributes`, as the next two do.
    pub service_name: String,
    /// See [`Self::service_name`].
    pub service_version: String,
    /// See [`Self::service_name`].
    pub service_namespace: Option<String>,
    /// Further attributes of the resource of every signal.
    pub resource_attributes: BTreeMap<String, String>,
    /// What was found out about the process and its host; `resource_attributes` go over it.
    pub detected: Vec<(&'static str, ferrite_telemetry::Value)>,
    /// How spans look.
    pub shape: Arc<Shape>,
    /// After which a batch that is not full is exported. A full one is what the queue was made with.
    pub batch_timeout: Duration,
    /// Between two exports of the metrics.
    pub metrics_interval: Duration,
    /// Since when metrics count.
    pub temporality: Temporality,
    /// What histograms become.
    pub aggregation: Aggregation,
    /// Writes the lines of the console exporter; `None`: there is none.
    pub console: Option<Print>,
}

/// Since when counters and histograms count in an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temporality {
    /// The start of the process.
    Cumulative,
    /// The last export that was accepted.
    Delta,
}

impl ExportSettings {
    /// What the specification has by default for a service of this name and version, and nothing detected.
    pub fn new(service_name: &str, service_version: &str) -> Self {
        Self {
            timeout: Duration::from_secs(10),
            deadline: None,
            service_name: service_name.to_owned(),
            service_version: service_version.to_owned(),
            service_namespace: None,
            resource_attributes: BTreeMap::new(),
            detected: Vec::new(),
            shape: Arc::default(),
            batch_timeout: Duration::from_secs(5),
            metrics_interval: Duration::from_secs(60),
            temporality: Temporality::Cumulative,
            aggregation: Aggregation::Explicit,
            console: None,
        }
    }

    /// What all signals say about their origin, sorted. Nothing is detected here: whoever made these settings has.
    pub(super) fn resource(&self) -> Resource {
        let mut attributes = self.resource_attributes.clone();
        attributes.extend(SDK.map(|(key, value)| (key.to_owned(), value.to_owned())));
        attributes.insert(SERVICE_NAME.to_owned(), self.service_name.clone());
        attributes.insert(SERVICE_VERSION.to_owned(), self.service_version.clone());
        if let Some(namespace) = &self.service_namespace {
            attributes.insert(SERVICE_NAMESPACE.to_owned(), namespace.clone());
        }
        let mut all: BTreeMap<String, KeyValue> =
            self.detected.iter().map(|(key, value)| ((*key).to_owned(), detected_attribute(key, value))).collect();
        all.extend(attributes.into_iter().map(|(key, value)| (key.clone(), text_attribute(&key, value))));
        Resource { attributes: all.into_values().collect(), ..Resource::default() }
    }
}

fn detected_attribute(key: &str, value: &ferrite_telemetry::Value) -> KeyValue {
    let value = match value {
        ferrite_telemetry::Value::Str(text) => Value::StringValue(text.to_string()),
        ferrite_telemetry::Value::Int(number) => Value::IntValue(*number),
        ferrite_telemetry::Value::Bool(truth) => Value::BoolValue(*truth),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

pub(super) fn text_attribute(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::settings;

    #[test]
    fn the_service_goes_over_the_attributes() {
        let mut settings = settings();
        settings.resource_attributes = [(SERVICE_NAME, "other"), ("host.name", "h1")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        settings.detected = vec![
            ("host.name", ferrite_telemetry::Value::Str("found".into())),
            ("process.pid", ferrite_telemetry::Value::Int(7)),
        ];
        let resource = settings.resource();
        let pid = resource.attributes.iter().find(|pair| pair.key == "process.pid").and_then(|pair| pair.value.clone());
        assert_eq!(pid, Some(AnyValue { value: Some(Value::IntValue(7)) }));
        let get = |key: &str| resource.attributes.iter().find(|pair| pair.key == key).cloned();
        let text = |key: &str, value: &str| Some(text_attribute(key, value.to_owned()));
        assert_eq!(get(SERVICE_NAME), text(SERVICE_NAME, "ferrite"));
        assert_eq!(get(SERVICE_NAMESPACE), text(SERVICE_NAMESPACE, "production"));
        assert_eq!(get("host.name"), text("host.name", "h1"));
        assert_eq!(get("telemetry.sdk.language"), text("telemetry.sdk.language", "rust"));
        assert!(resource.attributes.is_sorted_by(|a, b| a.key < b.key));
    }
}
