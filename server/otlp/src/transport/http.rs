//! OTLP over HTTP/1.1 with protobuf bodies.

use std::cell::RefCell;
use std::io::Write;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ferrite_io::Network;
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};

use super::connection::{Broken, Connector, HttpSender};
use super::settings::{Compression, Destination};
use super::target::Target;
use super::{ANSWER_MAX, Refusal, Retry, SIGNAL_NOT_TAKEN};

const PROTOBUF: &str = "application/x-protobuf";
const USER_AGENT: &str = concat!("ferrite/", env!("CARGO_PKG_VERSION"));

/// One signal's way over HTTP.
pub struct HttpExchange<N: Network> {
    connector: Connector<N>,
    target: Target,
    compression: Compression,
    /// The connection between two requests. While one is under way it is not here: what is dropped in the middle is gone.
    kept: RefCell<Option<HttpSender>>,
}

impl<N: Network> HttpExchange<N> {
    pub(super) fn new(connector: Connector<N>, target: Target, destination: &Destination) -> Self {
        Self { connector, target, compression: destination.compression, kept: RefCell::new(None) }
    }

    /// The answer's body, if the request was accepted.
    pub(super) async fn send(&self, message: Bytes) -> Result<Bytes, Refusal> {
        let body = match self.compression {
            Compression::None => message,
            Compression::Gzip => gzip(&message),
        };
        let kept = self.kept.take().filter(|sender| !sender.is_closed());
        if let Some(sender) = kept {
            // The backend may have closed it meanwhile, as it may at any time: that says nothing about its health.
            if let Ok(response) = self.attempt(sender, body.clone()).await {
                return judged(response);
            }
        }
        let attempt = async {
            let sender = self.connector.http().await?;
            self.attempt(sender, body).await
        };
        match attempt.await {
            Ok(response) => judged(response),
            Err(Broken(reason)) => Err(Refusal { reason, retry: Retry::Allowed }),
        }
    }

    async fn attempt(&self, mut sender: HttpSender, body: Bytes) -> Result<Response<Bytes>, Broken> {
        let broken = |error: hyper::Error| Broken::of("the connection broke", &error);
        sender.ready().await.map_err(broken)?;
        let response = sender.send_request(self.request(body)).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await;
        let body = body.map_err(|error| Broken(format!("the answer is not whole: {error}")))?.to_bytes();
        if !sender.is_closed() {
            self.kept.replace(Some(sender));
        }
        Ok(Response::from_parts(head, body))
    }

    fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_11;
        let uri = &self.target.uri;
        // To the server itself, not to a proxy: without scheme and host.
        *request.uri_mut() = uri.path_and_query().cloned().expect("a target has a path").into();
        let headers = request.headers_mut();
        headers.clone_from(&self.target.headers);
        let host = uri.authority().expect("a target has a host").as_str();
        headers.insert(header::HOST, HeaderValue::from_str(host).expect("a host is a header's value"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
        if self.compression == Compression::Gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        request
    }
}

fn gzip(message: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(message.len() / 4), Level::fast());
    encoder.write_all(message).expect("memory takes everything");
    encoder.finish().expect("memory takes everything").into()
}

/// By the status; the body is the answer of a success (OTLP/HTTP, "Response").
fn judged(response: Response<Bytes>) -> Result<Bytes, Refusal> {
    let (status, headers) = (response.status(), response.headers());
    let refuse = |retry| Err(Refusal { reason: format!("HTTP status {status}"), retry });
    match status {
        _ if status.is_success() => match foreign(headers) {
            // Some page of some other server: whoever reads on would lose everything and never know.
            Some(kind) => {
                let reason = format!("the answer is {kind}, not OTLP's: the endpoint is some other server's");
                Err(Refusal { reason, retry: Retry::Never })
            }
            None => Ok(response.into_body()),
        },
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => refuse(retry_after(headers).unwrap_or(Retry::Allowed)),
        StatusCode::NOT_FOUND => {
            Err(Refusal { reason: format!("HTTP status {status}: {SIGNAL_NOT_TAKEN}"), retry: Retry::Never })
        }
        _ => refuse(Retry::Never),
    }
}

/// The kind of a body that no OTLP server sends.
fn foreign(headers: &HeaderMap) -> Option<&str> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    kind.starts_with("text/html").then_some("text/html")
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Retry> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Retry::After(Duration::from_secs(seconds)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let since = date.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Retry::NotBefore(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)))
}
