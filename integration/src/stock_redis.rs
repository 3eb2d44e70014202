//! A stock `redis-server`, which knows nothing of trace contexts.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{eventually, free_port};

/// A running server; it is killed, by its id, when this goes out of scope.
pub struct StockRedis {
    child: Child,
    pub port: u16,
}

impl StockRedis {
    /// Starts it, with nothing persisted, and waits until it answers PING.
    pub async fn start() -> Self {
        let port = free_port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .env_clear()
            .current_dir(std::env::temp_dir())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = child.expect("redis-server starts (Debian package redis-server; `ci/setup` installs it)");
        let server = Self { child, port };
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("a valid address");
        eventually("redis-server answers PING", Duration::from_secs(20), async || {
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            redis::cmd("PING").query_async::<String>(&mut connection).await.ok()
        })
        .await;
        server
    }
}

impl Drop for StockRedis {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
