//! What the exporters need to know, and what they make of it: channel, headers, resource.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ferrite_telemetry::Shape;
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint};

const SERVICE_NAME: &str = "service.name";
const SERVICE_VERSION: &str = "service.version";
const SERVICE_NAMESPACE: &str = "service.namespace";

/// OTLP's transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC over HTTP/2 without TLS.
    Grpc,
    /// HTTP with protobuf bodies.
    Http,
}

/// Where telemetry goes, how, and under which name. Not `Debug`: headers carry credentials.
#[derive(Clone)]
pub struct ExportSettings {
    /// `http://host:port`.
    pub endpoint: String,
    /// The transport; [`Protocol::Http`] is refused for now.
    pub protocol: Protocol,
    /// Sent with every export.
    pub headers: BTreeMap<String, String>,
    /// For one attempt, the connection included.
    pub timeout: Duration,
    /// Goes over the same key of `resource_attributes`, as the next two do.
    pub service_name: String,
    /// See [`Self::service_name`].
    pub service_version: String,
    /// See [`Self::service_name`].
    pub service_namespace: Option<String>,
    /// Further attributes of the resource of every signal.
    pub resource_attributes: BTreeMap<String, String>,
    /// How spans look.
    pub shape: Arc<Shape>,
    /// After which a batch that is not full is exported. A full one is what the queue was made with.
    pub batch_timeout: Duration,
    /// Between two exports of the metrics.
    pub metrics_interval: Duration,
}

/// Settings with which nothing can be exported. No message shows a header's value.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Not a URL that gRPC can use.
    #[error("the OTLP endpoint \"{endpoint}\" cannot be used: {reason}; it should look like http://localhost:4317")]
    Endpoint { endpoint: String, reason: String },
    /// An `https` endpoint.
    #[error(
        "the OTLP endpoint \"{0}\" asks for TLS, which export does not support yet: use http:// and a collector nearby"
    )]
    Tls(String),
    /// [`Protocol::Http`].
    #[error("the OTLP protocol \"http\" is not supported yet: only \"grpc\" (port 4317) is")]
    Http,
    /// A name or value that is not a header's.
    #[error("the OTLP header \"{name}\" cannot be sent: {reason}")]
    Header { name: String, reason: &'static str },
    /// The OpenTelemetry exporter refused them.
    #[error("the OTLP exporter cannot be built: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

impl ExportSettings {
    /// Tells what is wrong before anything is started; needs no runtime.
    pub fn check(&self) -> Result<(), ExportError> {
        self.connection().and(self.metadata()).map(drop)
    }

    /// A channel that connects when it is first used, and anew whenever the connection was lost. To be called inside a
    /// tokio runtime, on which it spawns its task.
    pub(super) fn channel(&self) -> Result<Channel, ExportError> {
        Ok(self.connection()?.connect_lazy())
    }

    fn connection(&self) -> Result<Endpoint, ExportError> {
        if self.protocol == Protocol::Http {
            return Err(ExportError::Http);
        }
        let refuse = |reason: String| ExportError::Endpoint { endpoint: self.endpoint.clone(), reason };
        let endpoint =
            Endpoint::from_shared(self.endpoint.clone()).map_err(|_| refuse("it is not a URL".to_owned()))?;
        match endpoint.uri().scheme_str() {
            Some("http") => {}
            Some("https") => return Err(ExportError::Tls(self.endpoint.clone())),
            Some(scheme) => return Err(refuse(format!("\"{scheme}\" is neither http nor https"))),
            None => return Err(refuse("it has no scheme".to_owned())),
        }
        // While a request runs, pings find out that the other end is gone; otherwise the next requests would wait for
        // it on the same connection. Servers count pings of idle connections as abuse.
        let half = self.timeout / 2;
        let endpoint = endpoint
            .timeout(self.timeout)
            .connect_timeout(self.timeout)
            .http2_keep_alive_interval(half)
            .keep_alive_timeout(half)
            .user_agent(concat!("ferrite/", env!("CARGO_PKG_VERSION")))
            .expect("a plain name is a user agent");
        Ok(endpoint)
    }

    /// The headers as gRPC carries them.
    pub(super) fn metadata(&self) -> Result<MetadataMap, ExportError> {
        let mut metadata = MetadataMap::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            let refuse = |reason| ExportError::Header { name: name.clone(), reason };
            let key: AsciiMetadataKey =
                name.to_ascii_lowercase().parse().map_err(|_| refuse("it is not the name of a header"))?;
            let value: AsciiMetadataValue =
                value.parse().map_err(|_| refuse("its value has characters other than printable ASCII"))?;
            metadata.insert(key, value);
        }
        Ok(metadata)
    }

    /// What all signals say about their origin.
    pub(super) fn resource(&self) -> Resource {
        let mut attributes = self.resource_attributes.clone();
        attributes.insert(SERVICE_NAME.to_owned(), self.service_name.clone());
        attributes.insert(SERVICE_VERSION.to_owned(), self.service_version.clone());
        if let Some(namespace) = &self.service_namespace {
            attributes.insert(SERVICE_NAMESPACE.to_owned(), namespace.clone());
        }
        // Nothing is detected: the environment has already been read by whoever made these settings.
        Resource::builder_empty()
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_attributes(attributes.into_iter().map(|(key, value)| KeyValue::new(key, value)))
            .build()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::{Key, Value};

    use super::*;
    use crate::export::testing::settings;

    fn complaint(change: impl FnOnce(&mut ExportSettings)) -> String {
        let mut settings = settings("http://localhost:4317");
        change(&mut settings);
        settings.check().map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_cannot_be_exported_to_is_named_before_the_start() {
        assert_eq!(complaint(|_| {}), "");
        assert_eq!(complaint(|settings| settings.endpoint = "http://[::1]:4317/".to_owned()), "");
        for (endpoint, part) in [
            ("", "not a URL"),
            ("http://", "not a URL"),
            ("not a url", "not a URL"),
            ("localhost:4317", "no scheme"),
            ("ftp://localhost:4317", "neither http nor https"),
            ("https://localhost:4317", "asks for TLS"),
        ] {
            let message = complaint(|settings| settings.endpoint = endpoint.to_owned());
            assert!(message.contains(part) && message.contains(&format!("\"{endpoint}\"")), "{endpoint}: {message}");
        }
        assert!(complaint(|settings| settings.protocol = Protocol::Http).contains("only \"grpc\""));
    }

    #[test]
    fn a_bad_header_is_named_without_its_value() {
        let with = |name: &str, value: &str| {
            complaint(|settings| {
                settings.headers.insert(name.to_owned(), value.to_owned());
            })
        };
        assert_eq!(with("Authorization", "Bearer x"), "");
        let message = with("authorization", "Bearer s3cret\n");
        assert!(message.contains("\"authorization\"") && !message.contains("s3cret"), "{message}");
        assert!(with("a b", "x").contains("\"a b\""));
        assert!(with("trace-bin", "x").contains("\"trace-bin\""));
    }

    #[test]
    fn the_service_goes_over_the_attributes() {
        let mut settings = settings("http://localhost:4317");
        settings.resource_attributes = [(SERVICE_NAME, "other"), ("host.name", "h1")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let resource = settings.resource();
        let get = |key: &'static str| resource.get(&Key::from_static_str(key)).map(|value: Value| value.to_string());
        assert_eq!(get(SERVICE_NAME).as_deref(), Some("ferrite"));
        assert_eq!(get(SERVICE_NAMESPACE).as_deref(), Some("production"));
        assert_eq!(get("host.name").as_deref(), Some("h1"));
        assert_eq!(get("telemetry.sdk.language").as_deref(), Some("rust"));
    }
}
