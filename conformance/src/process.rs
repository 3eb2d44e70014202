//! Starts and ends the two servers. Each gets a directory of its own and a free port.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::wire::Connection;

/// How long a server may take to answer its first PING, or to end after a signal.
const START_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);
/// A port that was free a moment ago may be taken when the server asks for it.
const STARTS_MAX: usize = 5;

/// Two workers over regions of four pages of 4 KiB each: most keys lie on disk while others are written.
pub const TINY: &[&str] = &[
    "--workers",
    "2",
    "--storage.mutable_region_size_mb",
    "0.015625",
    "--storage.read_only_region_size_mb",
    "0.015625",
];

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ferrite,
    Redis,
}

/// A running server; killed by its own process id when dropped.
pub struct Server {
    child: Child,
    kind: Kind,
    arguments: Vec<String>,
    pub address: SocketAddr,
    /// Holds `data/`, the server's directory, and `server.log`.
    directory: TempDir,
}

impl Server {
    /// The real `redis-server` from the PATH, with nothing persisted and further `--key value` arguments.
    pub fn redis(arguments: &[&str]) -> Server {
        Server::start(Kind::Redis, arguments)
            .expect("redis-server starts (Debian package redis-server; `ci/setup` installs it)")
    }

    /// Ferrite with further `--section.key value` arguments.
    pub fn ferrite(arguments: &[&str]) -> Server {
        Server::start(Kind::Ferrite, arguments).expect("ferrite starts")
    }

    fn start(kind: Kind, arguments: &[&str]) -> io::Result<Server> {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut failure = String::new();
        for _ in 0..STARTS_MAX {
            let directory = TempDir::new()?;
            std::fs::create_dir(directory.path().join("data"))?;
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let child = spawn(kind, address, &directory, &arguments)?;
            let mut server = Server { child, kind, arguments: arguments.clone(), address, directory };
            match server.wait_until_ready(START_MAX) {
                Ok(()) => return Ok(server),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => failure = error.to_string(),
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(failure))
    }

    /// Returns once the server answers.
    fn wait_until_ready(&mut self, max: Duration) -> io::Result<()> {
        let began = Instant::now();
        loop {
            // With a password the answer is an error; an answer it is.
            if let Ok(mut connection) = Connection::open(self.address)
                && connection.call(&[b"PING"]).is_ok()
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                let log = self.log();
                let kind = match log.contains("Address already in use") {
                    true => io::ErrorKind::AddrInUse,
                    false => io::ErrorKind::Other,
                };
                return Err(io::Error::new(kind, format!("ended with {status}: {log}")));
            }
            if began.elapsed() > max {
                return Err(io::Error::other(format!("no PONG in {max:?}: {}", self.log())));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Starts the server again, after its end, on the same port and data.
    pub fn restart(&mut self) {
        self.restart_within(START_MAX);
    }

    /// The same where the start has a lot to read.
    pub fn restart_within(&mut self, max: Duration) {
        self.child = spawn(self.kind, self.address, &self.directory, &self.arguments).expect("the server starts again");
        self.wait_until_ready(max).expect("the server answers again");
    }

    /// The next [`Server::restart`] has these arguments instead.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    }

    /// SIGKILL, as the power's end for the process; returns once it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
    }

    /// SIGTERM; the status with which the server ends.
    pub fn terminate(&mut self) -> ExitStatus {
        let kill = format!("kill -TERM {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().expect("a shell");
        assert!(sent.success(), "{kill}");
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                return status;
            }
            assert!(began.elapsed() < START_MAX, "still runs {START_MAX:?} after SIGTERM:\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address).expect("the server accepts")
    }

    /// The server's directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// What the server has printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(log_path(&self.directory)).unwrap_or_default()
    }

    /// Ends the test if the server has ended or one of its threads has panicked.
    pub fn assert_sound(&mut self) {
        let status = self.child.try_wait().expect("the child is ours");
        let log = self.log();
        assert!(status.is_none(), "the server ended with {status:?}:\n{log}");
        assert!(!log.contains("panicked at"), "{log}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The child is ours; an error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log_path(directory: &TempDir) -> PathBuf {
    directory.path().join("server.log")
}

fn spawn(kind: Kind, address: SocketAddr, directory: &TempDir, arguments: &[String]) -> io::Result<Child> {
    let data = directory.path().join("data");
    let mut command = match kind {
        Kind::Ferrite => {
            let mut command = ferrite_command();
            command.args(["--admin.enabled", "false", "--server.enable_debug_command", "local"]);
            command
        }
        Kind::Redis => {
            let mut command = Command::new("redis-server");
            command.args(["--save", "", "--appendonly", "no", "--enable-debug-command", "yes"]);
            command
        }
    };
    let log: File = OpenOptions::new().create(true).append(true).open(log_path(directory))?;
    command
        .args(["--port", &address.port().to_string(), "--dir"])
        .arg(data)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

/// A command that runs Ferrite, without what the developer's shell says.
pub fn ferrite_command() -> Command {
    let mut command = Command::new(ferrite_binary());
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("OTEL_") || (name_text.starts_with("FERRITE_") && name_text.contains("__")) {
            command.env_remove(&name);
        }
    }
    command
}

/// `FERRITE_BIN`, else the release binary of this workspace.
fn ferrite_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("FERRITE_BIN") {
        return path.into();
    }
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/ferrite"));
    assert!(path.exists(), "{} is missing: run `cargo build --release` first, or set FERRITE_BIN", path.display());
    path
}
