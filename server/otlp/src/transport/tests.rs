//! Over real sockets: what is sent, how answers are read, TLS.

#[cfg(feature = "tls")]
mod tls;

use std::cell::Cell;
use std::rc::Rc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

use super::*;
use crate::export::testing::{Backend, Reply, destination, exchange, real};

const BOTH: [Protocol; 2] = [Protocol::Grpc, Protocol::Http];

fn request() -> Bytes {
    let spans =
        opentelemetry_proto::tonic::trace::v1::ResourceSpans { schema_url: "x".repeat(10_000), ..Default::default() };
    ExportTraceServiceRequest { resource_spans: vec![spans] }.encode_to_vec().into()
}

#[test]
fn a_request_arrives_whole_compressed_or_not_on_one_connection() {
    for protocol in BOTH {
        for compression in [Compression::None, Compression::Gzip] {
            real(async {
                let backend = Backend::start(protocol).await;
                let exchange = exchange(&Destination { compression, ..backend.destination(Signal::Traces) });
                for _ in 0..3 {
                    assert_eq!(exchange.send(request()).await, Ok(Accepted::default()));
                }
                let received = backend.received();
                assert_eq!(received.gzip, compression == Compression::Gzip);
                assert_eq!((received.spans.len(), received.connections), (3, 1), "{protocol:?} {compression:?}");
                assert_eq!(received.spans[2].schema_url.len(), 10_000);
                let path = match protocol {
                    Protocol::Grpc => Signal::Traces.method(),
                    Protocol::Http => "/v1/traces",
                };
                assert_eq!(received.path, path);
            });
        }
    }
}

/// How an answer is read.
fn read(protocol: Protocol, reply: Reply) -> Result<Accepted, Refusal> {
    let result = Rc::new(Cell::new(None));
    let told = result.clone();
    real(async move {
        let backend = Backend::behaving(protocol, move |_| Some(reply.clone())).await;
        told.set(Some(exchange(&backend.destination(Signal::Traces)).send(request()).await));
    });
    result.take().expect("it was told")
}

#[test]
fn codes_and_statuses_are_retried_as_the_specification_says() {
    let retry = |protocol, code| {
        let refusal = read(protocol, Reply::refusing(protocol, code)).expect_err("it is refused");
        assert!(!refusal.reason.contains("secrets"), "{refusal}");
        refusal.retry
    };
    // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS; RESOURCE_EXHAUSTED only with a time.
    for code in 1..=16 {
        let wanted = if [1, 4, 10, 11, 14, 15].contains(&code) { Retry::Allowed } else { Retry::Never };
        assert_eq!(retry(Protocol::Grpc, code), wanted, "gRPC code {code}");
    }
    for status in [400, 401, 403, 404, 405, 408, 413, 415, 500, 501, 505] {
        assert_eq!(retry(Protocol::Http, status), Retry::Never, "HTTP status {status}");
    }
    for status in [429, 502, 503, 504] {
        assert_eq!(retry(Protocol::Http, status), Retry::Allowed, "HTTP status {status}");
    }
}

#[test]
fn a_signal_that_the_endpoint_does_not_take_is_told_as_such() {
    for (protocol, code, reason) in [
        (Protocol::Grpc, 12, "gRPC code Unimplemented: the endpoint does not take this signal"),
        (Protocol::Http, 404, "HTTP status 404 Not Found: the endpoint does not take this signal"),
    ] {
        let refusal = read(protocol, Reply::refusing(protocol, code)).expect_err("it is refused");
        assert!(refusal.reason.starts_with(reason), "{refusal}");
    }
}

#[test]
fn a_backend_can_say_when_to_come_again() {
    let told = |text: &str| {
        let mut reply = Reply::refusing(Protocol::Http, 503);
        reply.headers.push(("retry-after", text.to_owned()));
        read(Protocol::Http, reply).expect_err("it is refused").retry
    };
    assert_eq!(told("17"), Retry::After(Duration::from_secs(17)));
    assert_eq!(told("Sun, 06 Nov 1994 08:49:37 GMT"), Retry::NotBefore(784_111_777_000_000_000));
    assert_eq!(told("soon"), Retry::Allowed);

    for code in [tonic::Code::ResourceExhausted, tonic::Code::Unavailable] {
        let details = tonic_types::ErrorDetails::with_retry_info(Some(Duration::from_millis(1_500)));
        let status = <tonic::Status as tonic_types::StatusExt>::with_error_details(code, "busy", details);
        let mut reply = Reply::refusing(Protocol::Grpc, code as u16);
        let mut headers = hyper::HeaderMap::new();
        status.add_header(&mut headers).expect("it can be sent");
        let details = headers["grpc-status-details-bin"].to_str().expect("it is base64").to_owned();
        reply.trailers.push(("grpc-status-details-bin", details));
        let refusal = read(Protocol::Grpc, reply).expect_err("it is refused");
        assert_eq!(refusal.retry, Retry::After(Duration::from_millis(1_500)));
    }
}

#[test]
fn a_partial_success_is_told() {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
    for protocol in BOTH {
        let mut reply = Reply::accepting(protocol);
        let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "too\nold".to_owned() };
        reply.body = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        assert_eq!(read(protocol, reply), Ok(Accepted { rejected: 3, message: "too old".to_owned() }));
    }
}

#[test]
fn another_server_s_page_is_no_success() {
    let mut reply = Reply::accepting(Protocol::Http);
    reply.headers = vec![("content-type", "text/html; charset=utf-8".to_owned())];
    let refusal = read(Protocol::Http, reply).expect_err("it is refused");
    assert_eq!(refusal.retry, Retry::Never);
    assert!(refusal.reason.contains("text/html"), "{refusal}");
    // An HTTP/1.1 server where gRPC was expected, and the other way round.
    for protocol in BOTH {
        real(async move {
            let other = if protocol == Protocol::Grpc { Protocol::Http } else { Protocol::Grpc };
            let backend = Backend::start(other).await;
            let destination = Destination { protocol, ..backend.destination(Signal::Traces) };
            let refusal = exchange(&destination).send(request()).await.expect_err("it is refused");
            assert_eq!(refusal.retry, Retry::Allowed, "{refusal}");
        });
    }
}

#[test]
fn garbage_and_a_dead_port_are_failures_that_may_pass() {
    for protocol in BOTH {
        real(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let endpoint = Endpoint::General(format!("http://{}", listener.local_addr().expect("it is bound")));
            let destination = Destination { protocol, ..destination(Signal::Traces, endpoint) };
            let answering = tokio::task::spawn_local(async move {
                let (mut socket, _) = listener.accept().await.expect("it listens");
                let _gone = tokio::io::AsyncWriteExt::write_all(&mut socket, b"\x00\xffgarbage\r\n\r\n").await;
            });
            let refusal = exchange(&destination).send(request()).await.expect_err("it is garbage");
            assert_eq!(refusal.retry, Retry::Allowed, "{refusal}");
            answering.await.expect("it answers");
            let refusal = exchange(&destination).send(request()).await.expect_err("nobody listens any more");
            assert_eq!(refusal.retry, Retry::Allowed);
            assert!(refusal.reason.contains("127.0.0.1") && refusal.reason.contains("refused"), "{refusal}");
        });
    }
}

#[test]
fn an_answer_without_end_is_cut_off() {
    real(async {
        let backend = Backend::behaving(Protocol::Http, |_| {
            Some(Reply { body: vec![0; ANSWER_MAX + 1], ..Reply::accepting(Protocol::Http) })
        })
        .await;
        let refusal = exchange(&backend.destination(Signal::Traces)).send(request()).await.expect_err("it is too long");
        assert!(refusal.reason.contains("not whole"), "{refusal}");
    });
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_opened_again() {
    for protocol in BOTH {
        real(async move {
            let first = Backend::start(protocol).await;
            let address = first.address();
            let exchange = exchange(&first.destination(Signal::Traces));
            assert_eq!(exchange.send(request()).await, Ok(Accepted::default()));
            first.stop().await;
            let accepting = std::sync::Arc::new(move |_| Some(Reply::accepting(protocol)));
            let second = Backend::at(Some(address), protocol, accepting, None).await;
            assert_eq!(exchange.send(request()).await, Ok(Accepted::default()));
            assert_eq!(second.received().spans.len(), 1);
        });
    }
}
