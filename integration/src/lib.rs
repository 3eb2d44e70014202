//! The real server beside a real OpenTelemetry Collector and a real Jaeger, in containers.
//!
//! What the tests in `tests/` need: [`server`] starts the `ferrite` binary, [`backend`] the two containers
//! ([`shared_backend`] once for several tests), [`jaeger`] reads traces back, [`prometheus`] a metrics page;
//! [`prometheus_server`] is a Prometheus that scrapes one and [`queries`] what it is asked; [`clients`] says what a client's helper
//! must do, [`schema`] what may be emitted,
//! [`browser`] looks at the page on the admin port. Nothing is skipped where something is missing: the test fails and says what
//! starts it.

pub mod backend;
pub mod browser;
pub mod clients;
pub mod http;
pub mod jaeger;
pub mod prometheus;
pub mod prometheus_server;
pub mod queries;
pub mod schema;
pub mod server;
pub mod shared_backend;
pub mod stock_redis;

use std::time::{Duration, Instant};

/// Asks again until there is an answer; panics with `what` if there is none in `limit`.
pub async fn eventually<T>(what: &str, limit: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}
