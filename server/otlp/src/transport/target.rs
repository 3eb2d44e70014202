//! A destination taken apart: host, port, path, and headers as they are sent.

use hyper::Uri;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::settings::{Destination, Endpoint, ExportError, Protocol};

/// What the transports set themselves.
const RESERVED: [&str; 10] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "grpc-encoding",
    "grpc-timeout",
    "host",
    "te",
    "transfer-encoding",
    "user-agent",
];

pub(super) struct Target {
    /// Whether the connection has TLS.
    pub(super) secure: bool,
    /// A name or an address, the latter without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Scheme, host, port, and over HTTP the path.
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
}

impl Target {
    pub(super) fn new(destination: &Destination) -> Result<Self, ExportError> {
        let url = destination.endpoint.url();
        let refuse = |reason: &str| ExportError::Endpoint {
            endpoint: crate::without_secrets(url),
            reason: reason.to_owned(),
            example: match destination.protocol {
                Protocol::Grpc => "http://localhost:4317",
                Protocol::Http => "http://localhost:4318",
            },
        };
        let parsed: Uri = url.parse().map_err(|_| refuse("it is not a URL"))?;
        let secure = match (parsed.scheme_str(), destination.protocol) {
            (Some("http"), _) => false,
            (Some("https"), _) => true,
            (Some(scheme), _) => return Err(refuse(&format!("\"{scheme}\" is neither http nor https"))),
            (None, Protocol::Grpc) if parsed.authority().is_some() => !destination.insecure,
            (None, _) => return Err(refuse("it has no scheme")),
        };
        let authority = parsed.authority().ok_or_else(|| refuse("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("credentials belong into a header"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(refuse("it names no host"));
        }
        // A port that is no number is passed over by the parser of URLs.
        let port = match (authority.port(), authority.as_str().rsplit_once(':')) {
            (Some(port), _) => port.as_u16(),
            (None, Some((_, rest))) if !rest.ends_with(']') => {
                return Err(refuse("its port is not a number below 65536"));
            }
            (None, _) => {
                if secure {
                    443
                } else {
                    80
                }
            }
        };
        let path = path(&destination.endpoint, &parsed, destination);
        let uri = Uri::builder()
            .scheme(if secure { "https" } else { "http" })
            .authority(authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|_| refuse("its path cannot be used"))?;
        Ok(Self { secure, host, port, uri, headers: headers(destination)? })
    }
}

/// Over gRPC the method is the path. Over HTTP a signal's own endpoint is used as it is.
fn path(endpoint: &Endpoint, url: &Uri, destination: &Destination) -> String {
    let given = url.path_and_query().map_or("/", |path| path.as_str());
    match (destination.protocol, endpoint) {
        (Protocol::Grpc, _) => destination.signal.method().to_owned(),
        (Protocol::Http, Endpoint::Own(_)) => given.to_owned(),
        (Protocol::Http, Endpoint::General(_)) => {
            format!("{}/v1/{}", url.path().trim_end_matches('/'), destination.signal.as_str())
        }
    }
}

fn headers(destination: &Destination) -> Result<HeaderMap, ExportError> {
    let mut headers = HeaderMap::with_capacity(destination.headers.len());
    for (name, value) in &destination.headers {
        let refuse = |reason| ExportError::Header { name: name.clone(), reason };
        let key = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes())
            .map_err(|_| refuse("it is not the name of a header"))?;
        if RESERVED.contains(&key.as_str()) {
            return Err(refuse("the exporter sets it itself"));
        }
        if destination.protocol == Protocol::Grpc && key.as_str().ends_with("-bin") {
            return Err(refuse("names that end with -bin are for binary values"));
        }
        let mut value =
            HeaderValue::from_str(value).map_err(|_| refuse("its value has characters other than printable ASCII"))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::super::Signal;
    use super::*;
    use crate::export::testing::destination;

    fn uri(endpoint: Endpoint, protocol: Protocol) -> String {
        let destination = Destination { protocol, ..destination(Signal::Metrics, endpoint) };
        Target::new(&destination).map_or_else(|error| error.to_string(), |target| target.uri.to_string())
    }

    #[test]
    fn over_http_the_general_endpoint_gets_the_signal_s_path_and_its_own_is_used_as_it_is() {
        let general = |url: &str| uri(Endpoint::General(url.to_owned()), Protocol::Http);
        let own = |url: &str| uri(Endpoint::Own(url.to_owned()), Protocol::Http);
        assert_eq!(general("http://localhost:4318"), "http://localhost:4318/v1/metrics");
        assert_eq!(general("http://localhost:4318/"), "http://localhost:4318/v1/metrics");
        assert_eq!(general("http://collector/mycollector/"), "http://collector/mycollector/v1/metrics");
        assert_eq!(own("http://collector:4318/"), "http://collector:4318/");
        assert_eq!(own("https://collector/custom?token=1"), "https://collector/custom?token=1");
    }

    #[test]
    fn over_grpc_a_method_is_the_path_and_a_scheme_may_be_left_out() {
        let target = |url: &str, insecure| {
            let endpoint = Endpoint::Own(url.to_owned());
            Target::new(&Destination { insecure, ..destination(Signal::Logs, endpoint) }).expect("it can be used")
        };
        let plain = target("http://collector:4317", false);
        assert_eq!(plain.uri.path(), "/opentelemetry.proto.collector.logs.v1.LogsService/Export");
        assert_eq!((plain.secure, plain.host.as_str(), plain.port), (false, "collector", 4317));
        assert!(target("collector:4317", false).secure && !target("collector:4317", true).secure);
        let six = target("https://[::1]", true);
        assert_eq!((six.secure, six.host.as_str(), six.port), (true, "::1", 443));
    }

    #[test]
    fn what_is_no_endpoint_is_named_with_the_reason_and_without_a_password() {
        for (url, part) in [
            ("", "not a URL"),
            ("http://", "not a URL"),
            ("not a url", "not a URL"),
            ("localhost:4317", "no scheme"),
            ("ftp://localhost:4317", "neither http nor https"),
            ("http://localhost:port", "port"),
            ("http://localhost:99999", "port"),
        ] {
            let message = uri(Endpoint::General(url.to_owned()), Protocol::Http);
            assert!(message.contains(part) && message.contains(&format!("\"{url}\"")), "{url}: {message}");
            assert!(message.contains("http://localhost:4318"), "{message}");
        }
        let message = uri(Endpoint::General("http://me:s3cret@host:1".to_owned()), Protocol::Grpc);
        assert!(message.contains("header") && !message.contains("s3cret"), "{message}");
        let message = uri(Endpoint::Own("ftp://host:1/v1?token=s3cret".to_owned()), Protocol::Http);
        assert!(message.contains("ftp://host:1/v1") && !message.contains("s3cret"), "{message}");
    }

    #[test]
    fn a_bad_header_is_named_without_its_value() {
        let with = |name: &str, value: &str| {
            let mut destination = destination(Signal::Traces, Endpoint::Own("http://localhost:4317".to_owned()));
            destination.headers.insert(name.to_owned(), value.to_owned());
            destination.check().map_or_else(|error| format!("{}: {error}", error.key()), |()| String::new())
        };
        assert_eq!(with("Authorization", "Bearer x"), "");
        let message = with("authorization", "Bearer s3cret\n");
        assert!(message.starts_with("headers: ") && message.contains("\"authorization\""), "{message}");
        assert!(!message.contains("s3cret"), "{message}");
        assert!(with("a b", "x").contains("\"a b\""));
        assert!(with("trace-bin", "x").contains("\"trace-bin\""));
        assert!(with("Content-Type", "x").contains("sets it itself"));
    }
}
