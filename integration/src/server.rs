//! The real `ferrite` binary as a child process, on free ports and in a folder of its own.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};
use tempfile::TempDir;

use crate::backend::Backend;
use crate::prometheus::Sample;
use crate::{eventually, free_port, http, prometheus};

/// How long a start may take on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long an end may take: the server's own bounds for the drain and the export, and a busy machine.
const END_LIMIT: Duration = Duration::from_secs(30);

/// A running server; it is killed, by its id, when this goes out of scope.
pub struct Server {
    child: Child,
    folder: TempDir,
    pub port: u16,
    pub admin_port: u16,
}

impl Server {
    /// [`Self::start`] for a server that exports everything to this backend, as far as the options do not say otherwise.
    pub async fn exporting(backend: &Backend, options: &[&str]) -> Self {
        Self::exporting_to(&backend.endpoint, options).await
    }

    /// The same for whatever listens at this endpoint.
    pub async fn exporting_to(endpoint: &str, options: &[&str]) -> Self {
        let export = ["--telemetry.enabled", "true", "--telemetry.endpoint", endpoint];
        Self::start(&[&export, options].concat()).await
    }

    /// Starts the server with these further options and waits until it answers PING.
    pub async fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (port, admin_port) = (free_port(), free_port());
        let output = File::create(folder.path().join("output")).expect("a file for the server's output");
        let child = Command::new(binary())
            .arg("--port")
            .arg(port.to_string())
            .arg("--admin-port")
            .arg(admin_port.to_string())
            .arg("--dir")
            .arg(folder.path().join("data"))
            .args(options)
            // A developer's own settings must not change what the tests see.
            .env_clear()
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", binary().display()));
        let mut server = Self { child, folder, port, admin_port };
        eventually("ferrite answers PING", START_LIMIT, async || {
            let ended = server.child.try_wait().expect("the child is ours");
            assert!(ended.is_none(), "ferrite ended ({}) and printed:\n{}", ended.unwrap(), server.output());
            let mut connection = server.try_connect().await?;
            redis::cmd("PING").query_async::<String>(&mut connection).await.ok()
        })
        .await;
        server
    }

    /// Asks for the end as an operator's tools do, and waits until it has ended well.
    pub async fn stop(&mut self) {
        // The child was not waited for yet, so that its number is still its own.
        let asked = Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status();
        assert!(asked.is_ok_and(|status| status.success()));
        let status = eventually("ferrite ends", END_LIMIT, async || self.child.try_wait().expect("the child is ours"));
        assert!(status.await.success(), "ferrite printed:\n{}", self.output());
    }

    /// What the server has printed so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("output")).unwrap_or_default()
    }

    /// A file in the server's data directory.
    pub fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join("data").join(name)
    }

    /// A new connection without time-outs: what a test measures must not be cut off by its client.
    pub async fn connect(&self) -> MultiplexedConnection {
        self.try_connect().await.expect("ferrite takes connections")
    }

    async fn try_connect(&self) -> Option<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let client = Client::open(format!("redis://127.0.0.1:{}", self.port)).expect("a valid address");
        client.get_multiplexed_async_connection_with_config(&config).await.ok()
    }

    /// The sum of a metric's series at `/metrics`; 0 if there is none yet.
    pub async fn metric(&self, prometheus_name: &str) -> f64 {
        prometheus::sum(&self.metrics().await, prometheus_name)
    }

    /// What `/metrics` says.
    pub async fn metrics(&self) -> Vec<Sample> {
        let page = http::get(self.admin_port, "/metrics").await.expect("/metrics answers");
        let page = String::from_utf8(page).expect("text");
        prometheus::parse(&page).unwrap_or_else(|error| panic!("{error}\nin\n{page}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- ferrite printed:\n{}----", self.output());
        }
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `FERRITE_BIN`, or the release build of this checkout, brought up to date once.
fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("FERRITE_BIN") {
            return path.into();
        }
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--release", "--package", "ferrite"])
            .current_dir(&root)
            .status();
        assert!(built.is_ok_and(|status| status.success()), "cargo build --release -p ferrite failed");
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        target.join("release/ferrite")
    })
}
