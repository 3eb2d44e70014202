//! One HTTP GET at a time, for Jaeger's query API and Ferrite's `/metrics`.

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The body, if the server at this port of 127.0.0.1 answers 200.
pub async fn get(port: u16, path_and_query: &str) -> Option<Vec<u8>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let driver = tokio::spawn(connection);
    let request = hyper::Request::get(path_and_query)
        .header(HOST, format!("127.0.0.1:{port}"))
        .body(Empty::<Bytes>::new())
        .expect("the callers pass valid paths");
    let response = sender.send_request(request).await.ok()?;
    let success = response.status() == hyper::StatusCode::OK;
    let body = response.into_body().collect().await.ok()?.to_bytes();
    driver.abort();
    success.then(|| body.into())
}

/// Percent-encodes what a query parameter may hold.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn a_query_parameter_survives_the_url() {
        assert_eq!(encode(r#"{"a.b":"c d"}"#), "%7B%22a.b%22%3A%22c%20d%22%7D");
    }
}
