//! Starts and ends the two servers. Each gets a directory of its own and a free port.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::wire::Connection;

/// How long a server may take to answer its first PING.
const START_MAX: Duration = Duration::from_secs(20);

/// A running server; killed by its own process id when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    pub directory: TempDir,
}

impl Server {
    /// The real `redis-server` from the PATH, with nothing persisted.
    pub fn redis() -> Server {
        Server::start(|port, directory| {
            let mut command = Command::new("redis-server");
            command.args(["--port", &port.to_string(), "--save", "", "--appendonly", "no", "--dir"]).arg(directory);
            command.args(["--enable-debug-command", "yes"]);
            command
        })
        .expect("redis-server starts (Debian package redis-server; `ci/setup` installs it)")
    }

    /// Ferrite with further `--section.key value` arguments.
    pub fn ferrite(arguments: &[&str]) -> Server {
        Server::start(|port, directory| {
            let mut command = Command::new(ferrite_binary());
            command.args(["--port", &port.to_string(), "--admin.enabled", "false", "--dir"]).arg(directory);
            command.args(arguments);
            command
        })
        .expect("ferrite starts")
    }

    fn start(command: impl Fn(u16, &std::path::Path) -> Command) -> io::Result<Server> {
        let directory = TempDir::new()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let log = std::fs::File::create(directory.path().join("server.log"))?;
        let child = command(port, directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut server = Server { child, address, directory };
        let began = Instant::now();
        loop {
            if let Ok(mut connection) = Connection::open(address)
                && connection.call(&[b"PING"]).is_ok_and(|reply| reply == b"+PONG\r\n")
            {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                return Err(io::Error::other(format!("ended with {status}: {}", server.log())));
            }
            if began.elapsed() > START_MAX {
                return Err(io::Error::other(format!("no PONG in {START_MAX:?}: {}", server.log())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the server has printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("server.log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The child is ours; an error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `FERRITE_BIN`, else the release binary of this workspace.
pub fn ferrite_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("FERRITE_BIN") {
        return path.into();
    }
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/ferrite"));
    assert!(path.exists(), "{} is missing: run `cargo build --release` first, or set FERRITE_BIN", path.display());
    path
}
