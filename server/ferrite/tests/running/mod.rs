//! A server as a process of its own, for the tests that talk to one.

// Each test takes of it what it needs.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A server on ports of its own; it is killed, by its id, when this goes out of scope.
pub struct Running {
    pub child: Child,
    pub port: u16,
    pub admin_port: u16,
    pub dir: tempfile::TempDir,
    /// What it wrote to standard output until it was ready, that line included.
    pub begun: Vec<String>,
    /// What came after that.
    lines: Mutex<mpsc::Receiver<String>>,
}

impl Running {
    pub fn start(more: &[&str]) -> Self {
        Self::start_in(&[], more)
    }

    /// With these variables and no others.
    pub fn start_in(environment: &[(&str, &str)], more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Free a moment ago.
        let admin_port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap().port();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ferrite"))
            .env_clear()
            .envs(environment.iter().copied())
            .args(["--port", "0", "--workers", "2", "--admin-port", &admin_port.to_string(), "--dir"])
            .arg(dir.path().join("data"))
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        // Read to the end, whoever listens: it must not wait for a reader.
        std::thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| _ = sender.send(line)));
        let mut running = Self { child, port: 0, admin_port, dir, begun: Vec::new(), lines: Mutex::new(lines) };
        let ready = loop {
            let line = running.line("");
            running.begun.push(line.clone());
            if line.contains("\"message\":\"Ready to accept connections\"") {
                break line;
            }
        };
        let (_, port) = ready.split_once("\"port\":").unwrap();
        running.port = port.split(|character: char| !character.is_ascii_digit()).next().unwrap().parse().unwrap();
        running
    }

    /// The next line with this in it; those before it are passed over.
    pub fn line(&self, part: &str) -> String {
        self.line_that(part, |line| line.contains(part))
    }

    /// The next line of which this holds.
    pub fn line_that(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.lock().unwrap().recv_timeout(left).unwrap_or_else(|_| panic!("no line: {what}"));
            if holds(&line) {
                return line;
            }
        }
    }

    /// The file of this name in its data directory.
    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("data").join(name)
    }

    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    /// What it answers to these lines on a connection of their own.
    pub fn ask(&self, lines: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(format!("{lines}\r\nQUIT\r\n").as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    /// What the admin port answers to a GET of this path, for who accepts this.
    pub fn get(&self, path: &str, accept: Option<&str>) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin_port)).unwrap();
        let accept = accept.map_or_else(String::new, |accept| format!("Accept: {accept}\r\n"));
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{accept}\r\n").as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.0 200"), "{head}");
        body.to_owned()
    }

    pub fn signal(&self, name: &str) {
        // The child was not waited for yet, so its number is still its own.
        let sent = Command::new("sh").args(["-c", &format!("kill -s {name} {}", self.child.id())]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again until the condition holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
