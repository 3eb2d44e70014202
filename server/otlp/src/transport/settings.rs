//! What one signal's exporter needs to know of its backend.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::tls::TlsMaterial;

/// What is exported; each kind has a service, a path and settings of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    pub const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }

    /// Its method over gRPC.
    pub(super) const fn method(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }
}

/// OTLP's transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC over HTTP/2.
    Grpc,
    /// HTTP/1.1 with protobuf bodies.
    Http,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
}

/// A URL, and how it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Of all signals: over HTTP `/v1/traces` and its like are appended.
    General(String),
    /// Of this signal alone: used as it is.
    Own(String),
}

impl Endpoint {
    pub(super) fn url(&self) -> &str {
        match self {
            Self::General(url) | Self::Own(url) => url,
        }
    }
}

/// Where one signal goes, and how. Not `Debug`: headers and keys are secrets.
#[derive(Clone)]
pub struct Destination {
    pub signal: Signal,
    /// `http://host:port` or `https://host:port`; over gRPC also `host:port`.
    pub endpoint: Endpoint,
    pub protocol: Protocol,
    /// Sent with every request.
    pub headers: BTreeMap<String, String>,
    /// For one attempt, the connection included.
    pub timeout: Duration,
    pub compression: Compression,
    /// Over gRPC, of an endpoint without a scheme: whether it is used without TLS.
    pub insecure: bool,
    /// For endpoints with TLS.
    pub tls: Arc<TlsMaterial>,
}

/// Settings with which nothing can be exported. No message shows a header's value or a key.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Not a URL that the transport can use.
    #[error("the OTLP endpoint \"{endpoint}\" cannot be used: {reason}; it should look like {example}")]
    Endpoint { endpoint: String, reason: String, example: &'static str },
    /// An `https` endpoint, and a build that cannot serve it.
    #[error("the OTLP endpoint \"{0}\" asks for TLS, which this build lacks (feature `tls`)")]
    NoTls(String),
    /// The trusted certificates.
    #[error("the certificates to trust cannot be used: {0}")]
    Certificate(String),
    /// What this client shows of itself.
    #[error("the client's certificate cannot be used: {0}")]
    ClientCertificate(String),
    /// Its key.
    #[error("the client's key cannot be used: {0}")]
    ClientKey(String),
    /// A name or value that is not a header's.
    #[error("the OTLP header \"{name}\" cannot be sent: {reason}")]
    Header { name: String, reason: &'static str },
}

impl ExportError {
    /// The name of the setting that is wrong, as the configuration's keys end.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Endpoint { .. } | Self::NoTls(_) => "endpoint",
            Self::Certificate(_) => "certificate",
            Self::ClientCertificate(_) => "client_certificate",
            Self::ClientKey(_) => "client_key",
            Self::Header { .. } => "headers",
        }
    }
}
