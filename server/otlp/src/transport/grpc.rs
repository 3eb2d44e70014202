//! OTLP over gRPC: tonic's client on a connection of ours.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use ferrite_io::Network;
use http_body_util::{BodyExt, Collected, Limited};
use hyper::header::{self, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, Uri};
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::connection::{Broken, Connector, GrpcSender};
use super::settings::{Compression, Destination};
use super::target::Target;
use super::{ANSWER_MAX, Refusal, Retry, SIGNAL_NOT_TAKEN};

const USER_AGENT: &str = concat!("ferrite/", env!("CARGO_PKG_VERSION"));

/// One signal's way over gRPC.
pub struct GrpcExchange<N: Network> {
    connector: Connector<N>,
    target: Target,
    /// Scheme and host.
    origin: Uri,
    compression: Compression,
    timeout: Duration,
    /// The connection between two requests; see [`super::http::HttpExchange`].
    kept: RefCell<Option<GrpcSender>>,
}

impl<N: Network> GrpcExchange<N> {
    pub(super) fn new(connector: Connector<N>, target: Target, destination: &Destination) -> Self {
        let Destination { compression, timeout, .. } = *destination;
        let mut origin = target.uri.clone().into_parts();
        origin.path_and_query = Some(PathAndQuery::from_static("/"));
        let origin = Uri::from_parts(origin).expect("a target has a scheme and a host");
        Self { connector, target, origin, compression, timeout, kept: RefCell::new(None) }
    }

    /// The answer, if the request was accepted.
    pub(super) async fn send(&self, message: Bytes) -> Result<Bytes, Refusal> {
        let kept = self.kept.take().filter(|sender| !sender.is_closed());
        if let Some(sender) = kept {
            let result = self.attempt(sender, message.clone()).await;
            // Closed while nobody used it: that says nothing about the backend's health.
            if !result.as_ref().is_err_and(|status| broken(status).is_some()) {
                return result.map_err(|status| refusal(&status));
            }
        }
        let sender = self.connector.grpc().await;
        let sender = sender.map_err(|Broken(reason)| Refusal { reason, retry: Retry::Allowed })?;
        self.attempt(sender, message).await.map_err(|status| refusal(&status))
    }

    async fn attempt(&self, sender: GrpcSender, message: Bytes) -> Result<Bytes, Status> {
        let mut grpc = Grpc::with_origin(Connection(sender.clone()), self.origin.clone());
        if self.compression == Compression::Gzip {
            grpc = grpc.send_compressed(CompressionEncoding::Gzip);
        }
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = MetadataMap::from_headers(self.target.headers.clone());
        request.set_timeout(self.timeout);
        let path: PathAndQuery = self.target.uri.path_and_query().cloned().expect("a target has a path");
        grpc.ready().await.map_err(|broken| Status::from_error(broken.into()))?;
        let result = grpc.unary(request, path, Raw).await.map(tonic::Response::into_inner);
        if !result.as_ref().is_err_and(|status| broken(status).is_some()) {
            self.kept.replace(Some(sender));
        }
        result
    }
}

/// What happened to the connection, if that is why there is no answer.
fn broken(status: &Status) -> Option<&Broken> {
    std::error::Error::source(status)?.downcast_ref()
}

/// Which codes may be tried again (OTLP/gRPC, "Failures").
fn refusal(status: &Status) -> Refusal {
    if let Some(Broken(reason)) = broken(status) {
        return Refusal { reason: reason.clone(), retry: Retry::Allowed };
    }
    let told = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let retry = match (status.code(), told) {
        (
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss,
            None,
        ) => Retry::Allowed,
        (
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            // It recovers only if it says when.
            | Code::ResourceExhausted,
            Some(delay),
        ) => Retry::After(delay),
        _ => Retry::Never,
    };
    let reason = match status.code() {
        code @ Code::Unimplemented => format!("gRPC code {code:?}: {SIGNAL_NOT_TAKEN}"),
        code => format!("gRPC code {code:?}"),
    };
    Refusal { reason, retry }
}

/// A connection as tonic wants it.
struct Connection(GrpcSender);

impl tower_service::Service<Request<tonic::body::Body>> for Connection {
    type Response = Response<Collected<Bytes>>;
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Broken>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.0.poll_ready(cx).map_err(|error| Broken::of("the connection broke", &error))
    }

    fn call(&mut self, mut request: Request<tonic::body::Body>) -> Self::Future {
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let sending = self.0.send_request(request);
        Box::pin(async move {
            let response = sending.await.map_err(|error| Broken::of("the connection broke", &error))?;
            let (head, body) = response.into_parts();
            // Here and not by tonic, so that a connection which breaks in the middle is told from a backend's word.
            let body = Limited::new(body, ANSWER_MAX).collect().await;
            let body = body.map_err(|error| Broken(format!("the answer is not whole: {error}")))?;
            Ok(Response::from_parts(head, body))
        })
    }
}

/// Messages that are encoded already.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
