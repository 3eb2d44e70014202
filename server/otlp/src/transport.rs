//! One OTLP request to a backend and its answer, over gRPC or HTTP, on World's network.
//!
//! What is sent is an encoded message, whatever signal it is of. Connections are opened when they are first needed, kept, and
//! given up with the first doubt about them.

mod connection;
mod grpc;
mod http;
mod settings;
mod target;
mod tls;

pub use connection::Spawn;
pub use settings::{Compression, Destination, Endpoint, ExportError, Protocol, Signal};
pub use tls::{Identity, Roots, TlsMaterial};

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use ferrite_io::{Network, World};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

use connection::Connector;
use grpc::GrpcExchange;
use http::HttpExchange;
use target::Target;

/// Bytes of an answer that are read: it holds a count and a sentence.
const ANSWER_MAX: usize = 1 << 20;
/// Characters of a backend's sentence that are shown.
const MESSAGE_MAX: usize = 200;

/// What a status means that an operator meets: a Collector answers so where no pipeline has the signal.
const SIGNAL_NOT_TAKEN: &str = "the endpoint does not take this signal; has the Collector a pipeline for it?";

/// Takes encoded requests to a backend.
#[allow(async_fn_in_trait)]
pub trait Exchange {
    /// One attempt. It may take for ever: the caller bounds it, and drops it if it takes too long.
    async fn send(&self, request: Bytes) -> Result<Accepted, Refusal>;
}

/// The backend has the request, perhaps but for a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Spans, data points or log records that it has thrown away.
    pub rejected: u64,
    /// Why, or a warning; empty if it has nothing to say. One line.
    pub message: String,
}

impl Accepted {
    /// The answers of all three services are the same message but for a field's name. One that is not understood was given
    /// by somebody who has taken the request, and is taken for an empty one.
    fn decode(answer: Bytes) -> Self {
        let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
        let partial = answer.partial_success.unwrap_or_default();
        let message = partial.error_message.chars().take(MESSAGE_MAX);
        Self {
            rejected: u64::try_from(partial.rejected_spans).unwrap_or(0),
            message: message.map(|letter| if letter.is_control() { ' ' } else { letter }).collect(),
        }
    }
}

/// Why an attempt failed. It shows nothing that a backend wrote: that may repeat what it was sent, credentials included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: String,
    pub retry: Retry,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// Whether another attempt makes sense (OTLP, "Failures").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The backend will never take this request.
    Never,
    /// After a pause of the sender's choice.
    Allowed,
    /// Not before so long from now.
    After(Duration),
    /// Not before this time: nanoseconds since the Unix epoch.
    NotBefore(u64),
}

/// The exchange that a destination asks for.
pub enum OtlpExchange<N: Network> {
    Grpc(GrpcExchange<N>),
    Http(HttpExchange<N>),
}

impl<N: Network> OtlpExchange<N> {
    /// Connects when it is first used and again after the backend was away. `network` and `spawn` are those of the thread
    /// that exports: connections are tasks there.
    pub fn new(destination: &Destination, network: N, spawn: Spawn) -> Result<Self, ExportError> {
        let target = Target::new(destination)?;
        let tls = target.secure.then(|| tls::connector(destination)).transpose()?;
        let connector = Connector::new(network, spawn, &target, tls, destination.protocol);
        Ok(match destination.protocol {
            Protocol::Grpc => Self::Grpc(GrpcExchange::new(connector, target, destination)),
            Protocol::Http => Self::Http(HttpExchange::new(connector, target, destination)),
        })
    }

    /// The same on a World.
    pub fn on<W: World<Network = N>>(world: &W, destination: &Destination) -> Result<Self, ExportError> {
        let own = world.clone();
        Self::new(destination, world.network().clone(), std::rc::Rc::new(move |task| own.spawn(task)))
    }
}

impl<N: Network> Exchange for OtlpExchange<N> {
    async fn send(&self, request: Bytes) -> Result<Accepted, Refusal> {
        let answer = match self {
            Self::Grpc(grpc) => grpc.send(request).await?,
            Self::Http(http) => http.send(request).await?,
        };
        Ok(Accepted::decode(answer))
    }
}

impl Destination {
    /// Whether the connection has TLS, and so needs [`Destination::tls`].
    pub fn is_secure(&self) -> Result<bool, ExportError> {
        Target::new(self).map(|target| target.secure)
    }

    /// Tells what is wrong before anything is started; needs no runtime.
    pub fn check(&self) -> Result<(), ExportError> {
        let target = Target::new(self)?;
        if target.secure {
            tls::connector(self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
