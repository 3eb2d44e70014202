//! Where a signal goes, out of the configuration: its own settings over those of all signals, and the files that they name.

use std::sync::Arc;
use std::time::Duration;

use ferrite_node::config::{OtlpCompression, OtlpProtocol, SignalConfig, TelemetryConfig};
use ferrite_otlp::{Compression, Destination, Endpoint, ExportError, Identity, Protocol, Roots, Signal, TlsMaterial};

/// A setting with which nothing can be exported, by its key.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct Mistake {
    key: String,
    reason: String,
}

impl Mistake {
    /// What the exporter of a signal complains about.
    pub fn of(telemetry: &TelemetryConfig, signal: Signal, error: ExportError) -> Self {
        Self { key: key(telemetry, signal, error.key()), reason: error.to_string() }
    }
}

fn own(telemetry: &TelemetryConfig, signal: Signal) -> &SignalConfig {
    match signal {
        Signal::Traces => &telemetry.traces,
        Signal::Metrics => &telemetry.metrics,
        Signal::Logs => &telemetry.logs,
    }
}

/// The key of a setting: the signal's, if that is what counts.
fn key(telemetry: &TelemetryConfig, signal: Signal, name: &str) -> String {
    let own = own(telemetry, signal);
    let is_own = match name {
        "endpoint" => own.endpoint.is_some(),
        "headers" => !own.headers.is_empty(),
        "certificate" => own.certificate.is_some(),
        "client_certificate" => own.client_certificate.is_some(),
        _ => own.client_key.is_some(),
    };
    if is_own { format!("telemetry.{}.{name}", signal.as_str()) } else { format!("telemetry.{name}") }
}

/// The destination of a signal, with which an exporter can be made.
pub fn destination(telemetry: &TelemetryConfig, signal: Signal) -> Result<Destination, Mistake> {
    let own = own(telemetry, signal);
    let protocol = match own.protocol.unwrap_or(telemetry.protocol) {
        OtlpProtocol::Grpc => Protocol::Grpc,
        OtlpProtocol::Http => Protocol::Http,
    };
    let port = if protocol == Protocol::Grpc { 4317 } else { 4318 };
    let general = || telemetry.endpoint.clone().unwrap_or_else(|| format!("http://localhost:{port}"));
    let headers = if own.headers.is_empty() { &telemetry.headers } else { &own.headers };
    let timeout_ms = if own.timeout_ms == 0 { telemetry.export_timeout_ms } else { own.timeout_ms };
    let mut destination = Destination {
        signal,
        endpoint: own.endpoint.clone().map_or_else(|| Endpoint::General(general()), Endpoint::Own),
        protocol,
        headers: headers.clone(),
        timeout: Duration::from_millis(timeout_ms),
        compression: match own.compression.unwrap_or(telemetry.compression) {
            OtlpCompression::None => Compression::None,
            OtlpCompression::Gzip => Compression::Gzip,
        },
        insecure: own.insecure.unwrap_or(telemetry.insecure),
        tls: Arc::default(),
    };
    let complain = |error| Mistake::of(telemetry, signal, error);
    if destination.is_secure().map_err(complain)? {
        destination.tls = Arc::new(tls(telemetry, signal)?);
    }
    destination.check().map_err(complain)?;
    Ok(destination)
}

/// Only read where it is used: files that are named for one signal need not be there for another.
fn tls(telemetry: &TelemetryConfig, signal: Signal) -> Result<TlsMaterial, Mistake> {
    let own = own(telemetry, signal);
    let read = |name: &str, path: &str| {
        let complain = |error: std::io::Error| Mistake {
            key: key(telemetry, signal, name),
            reason: format!("the file {path} cannot be read: {error}"),
        };
        std::fs::read(path).map_err(complain)
    };
    let roots = match own.certificate.as_ref().or(telemetry.certificate.as_ref()) {
        Some(path) => Roots::Pem(read("certificate", path)?),
        None => Roots::System(system_roots()),
    };
    let certificate = own.client_certificate.as_ref().or(telemetry.client_certificate.as_ref());
    let private_key = own.client_key.as_ref().or(telemetry.client_key.as_ref());
    let lacks = |name: &str, reason: &str| Mistake { key: key(telemetry, signal, name), reason: reason.to_owned() };
    let identity = match (certificate, private_key) {
        (None, None) => None,
        (Some(certificate), Some(private_key)) => Some(Identity {
            certificate: read("client_certificate", certificate)?,
            key: read("client_key", private_key)?,
        }),
        (Some(_), None) => return Err(lacks("client_key", "the client's certificate needs its key")),
        (None, Some(_)) => return Err(lacks("client_certificate", "the client's key needs its certificate")),
    };
    Ok(TlsMaterial { roots, identity })
}

#[cfg(feature = "tls")]
fn system_roots() -> Vec<Vec<u8>> {
    // What cannot be read is left out: if nothing is left, the exporter says so.
    rustls_native_certs::load_native_certs().certs.iter().map(|der| der.to_vec()).collect()
}

#[cfg(not(feature = "tls"))]
fn system_roots() -> Vec<Vec<u8>> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn telemetry(change: impl FnOnce(&mut TelemetryConfig)) -> TelemetryConfig {
        let mut telemetry = TelemetryConfig::default();
        change(&mut telemetry);
        telemetry
    }

    fn complaint(change: impl FnOnce(&mut TelemetryConfig)) -> String {
        let result = destination(&telemetry(change), Signal::Traces);
        result.map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[test]
    fn without_an_endpoint_it_is_this_host_on_the_protocol_s_port() {
        let endpoint = |protocol| {
            let telemetry = telemetry(|telemetry| telemetry.protocol = protocol);
            destination(&telemetry, Signal::Logs).expect("it can be used").endpoint
        };
        assert_eq!(endpoint(OtlpProtocol::Grpc), Endpoint::General("http://localhost:4317".to_owned()));
        assert_eq!(endpoint(OtlpProtocol::Http), Endpoint::General("http://localhost:4318".to_owned()));
    }

    #[test]
    fn a_signal_s_own_settings_go_over_those_of_all() {
        let telemetry = telemetry(|telemetry| {
            telemetry.endpoint = Some("http://all:1".to_owned());
            telemetry.export_timeout_ms = 3000;
            telemetry.headers.insert("a".to_owned(), "all".to_owned());
            telemetry.compression = OtlpCompression::Gzip;
            telemetry.metrics = SignalConfig {
                endpoint: Some("http://metrics:1/in".to_owned()),
                protocol: Some(OtlpProtocol::Http),
                headers: [("b".to_owned(), "metrics".to_owned())].into(),
                timeout_ms: 700,
                compression: Some(OtlpCompression::None),
                ..SignalConfig::default()
            };
        });
        let traces = destination(&telemetry, Signal::Traces).expect("it can be used");
        assert_eq!(traces.endpoint, Endpoint::General("http://all:1".to_owned()));
        assert_eq!((traces.protocol, traces.compression), (Protocol::Grpc, Compression::Gzip));
        assert_eq!((traces.timeout, traces.headers.len()), (Duration::from_secs(3), 1));
        let metrics = destination(&telemetry, Signal::Metrics).expect("it can be used");
        assert_eq!(metrics.endpoint, Endpoint::Own("http://metrics:1/in".to_owned()));
        assert_eq!((metrics.protocol, metrics.compression), (Protocol::Http, Compression::None));
        assert_eq!(metrics.headers.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(metrics.timeout, Duration::from_millis(700));
        // The specification's default.
        let default = destination(&TelemetryConfig::default(), Signal::Logs).expect("it can be used");
        assert_eq!(default.timeout, Duration::from_secs(10));
    }

    #[test]
    fn a_mistake_is_named_by_the_key_that_counts() {
        let message = complaint(|telemetry| telemetry.endpoint = Some("localhost".to_owned() + ":x"));
        assert!(message.starts_with("telemetry.endpoint: "), "{message}");
        let message = complaint(|telemetry| telemetry.traces.endpoint = Some("ftp://h".to_owned()));
        assert!(message.starts_with("telemetry.traces.endpoint: ") && message.contains("ftp"), "{message}");
        let message = complaint(|telemetry| {
            telemetry.traces.headers.insert("a b".to_owned(), "x".to_owned());
        });
        assert!(message.starts_with("telemetry.traces.headers: "), "{message}");
    }

    #[cfg(feature = "tls")]
    #[test]
    fn files_that_cannot_be_used_are_named_with_their_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("it is written");
            Some(path.to_str().expect("a plain path").to_owned())
        };
        let garbage = file("garbage.pem", "no certificate");
        let with = |change: &dyn Fn(&mut TelemetryConfig)| {
            complaint(|telemetry| {
                telemetry.endpoint = Some("https://localhost:4317".to_owned());
                change(telemetry);
            })
        };
        let message = with(&|telemetry| telemetry.certificate = Some("/nowhere/ca.pem".to_owned()));
        assert!(message.starts_with("telemetry.certificate: the file /nowhere/ca.pem cannot be read"), "{message}");
        let message = with(&|telemetry| telemetry.traces.certificate = garbage.clone());
        assert!(message.starts_with("telemetry.traces.certificate: ") && message.contains("PEM"), "{message}");
        let message = with(&|telemetry| telemetry.client_certificate = garbage.clone());
        assert!(message.starts_with("telemetry.client_key: ") && message.contains("needs its key"), "{message}");
        let message = with(&|telemetry| telemetry.client_key = garbage.clone());
        assert!(message.starts_with("telemetry.client_certificate: "), "{message}");
    }

    #[test]
    fn files_of_tls_are_not_missed_where_there_is_none() {
        assert_eq!(complaint(|telemetry| telemetry.certificate = Some("/nowhere/ca.pem".to_owned())), "");
    }
}
