//! A backend over OTLP/HTTP that keeps what it is sent, and a server that sends to it: real processes over real sockets.

// Each test takes of it what it needs.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One export.
#[derive(Clone)]
pub struct Request {
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    pub fn spans(&self) -> Vec<Span> {
        let request = ExportTraceServiceRequest::decode(&self.body[..]).expect("it is what its path says");
        let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }
}

pub struct Receiver {
    pub endpoint: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Receiver {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let received = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let received = Arc::clone(&received);
                std::thread::spawn(move || serve(stream, &received));
            }
        });
        Self { endpoint, requests }
    }

    /// No request is answered, nor kept, for as long as this lives.
    pub fn hold(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().expect("nobody panics with it")
    }

    /// What came for this signal: `traces`, `metrics` or `logs`.
    pub fn requests(&self, signal: &str) -> Vec<Request> {
        let path = format!("/v1/{signal}");
        let requests = self.requests.lock().expect("nobody panics with it");
        requests.iter().filter(|request| request.path == path).cloned().collect()
    }

    /// Every span of commands: the server's own start and stop are left out.
    pub fn spans(&self) -> Vec<Span> {
        self.requests("traces").iter().flat_map(Request::spans).collect()
    }

    pub fn spans_of(&self, trace_id: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| hex(&span.trace_id) == trace_id).collect()
    }

    /// Names of all metrics.
    pub fn metric_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for request in self.requests("metrics") {
            let request = ExportMetricsServiceRequest::decode(&request.body[..]).expect("it is what its path says");
            let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
            names.extend(scopes.flat_map(|scope| scope.metrics).map(|metric| metric.name));
        }
        names.sort();
        names.dedup();
        names
    }

    /// Body and trace id of each log record.
    pub fn logs(&self) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        for request in self.requests("logs") {
            let request = ExportLogsServiceRequest::decode(&request.body[..]).expect("it is what its path says");
            let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
            for record in scopes.flat_map(|scope| scope.log_records) {
                lines.push((format!("{:?}", record.body), hex(&record.trace_id)));
            }
        }
        lines
    }

    /// The attributes of the resource in the first export of traces or metrics.
    pub fn resource(&self, signal: &str) -> BTreeMap<String, String> {
        let body = &self.requests(signal)[0].body[..];
        let resource = match signal {
            "traces" => {
                ExportTraceServiceRequest::decode(body).expect("its path says so").resource_spans.remove(0).resource
            }
            _ => {
                ExportMetricsServiceRequest::decode(body).expect("its path says so").resource_metrics.remove(0).resource
            }
        };
        let attributes = resource.expect("there is one").attributes.into_iter();
        attributes.map(|pair| (pair.key, format!("{:?}", pair.value.and_then(|value| value.value)))).collect()
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn serve(stream: TcpStream, received: &Mutex<Vec<Request>>) {
    let mut input = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut output = stream;
    loop {
        let mut line = String::new();
        if !input.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            return;
        }
        let path = line.split(' ').nth(1).expect("a request line").to_owned();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            input.read_line(&mut line).expect("a whole request");
            match line.trim_end().split_once(": ") {
                Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
                None => break,
            };
        }
        let length = headers["content-length"].parse().expect("a number");
        let mut body = vec![0; length];
        input.read_exact(&mut body).expect("a whole request");
        received.lock().expect("nobody panics with it").push(Request { path, headers, body });
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        if output.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A running server; it is killed by its own id when dropped.
pub struct Server {
    child: Child,
    port: u16,
    log: Arc<Mutex<Vec<String>>>,
    dir: tempfile::TempDir,
}

impl Server {
    /// With this file, these variables and no others, and these arguments.
    pub fn start(file: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ferrite.toml");
        std::fs::write(&path, file).expect("it can be written");
        let mut child = Command::new(env!("CARGO_BIN_EXE_ferrite"))
            .env_clear()
            .envs(environment.iter().copied())
            .arg("--config")
            .arg(&path)
            .args(["--port", "0", "--workers", "1", "--storage.disk_backend", "io-threads", "--admin-port", "0"])
            .arg("--dir")
            .arg(dir.path().join("data"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("ferrite starts");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let log = Arc::<Mutex<Vec<String>>>::default();
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .for_each(|line| lines.lock().expect("nobody panics with it").push(line));
        });
        let mut server = Self { child, port: 0, log, dir };
        let ready = server.line("Ready to accept connections");
        let port = ready.split("\"port\":").nth(1).expect("the port").split([',', '}']).next().expect("the port");
        server.port = port.parse().expect("a number");
        server
    }

    /// One that exports over HTTP to this receiver, at once.
    pub fn exporting(receiver: &Receiver, file: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Self {
        let export = [
            "--telemetry.enabled",
            "true",
            "--telemetry.protocol",
            "http",
            "--telemetry.endpoint",
            &receiver.endpoint,
            "--telemetry.batch_timeout_ms",
            "50",
            "--telemetry.logs_batch_timeout_ms",
            "50",
        ];
        Self::start(file, environment, &[&export, arguments].concat())
    }

    /// Waits for a line with this text.
    pub fn line(&self, part: &str) -> String {
        eventually(part, || self.lines(part).into_iter().next())
    }

    /// The lines with this text so far.
    pub fn lines(&self, part: &str) -> Vec<String> {
        let log = self.log.lock().expect("nobody panics with it");
        log.iter().filter(|line| line.contains(part)).cloned().collect()
    }

    pub fn connect(&self) -> Client {
        Client(TcpStream::connect(("127.0.0.1", self.port)).expect("the server is there"))
    }

    /// SIGTERM; returns when the server has ended, and so has flushed what it had to export.
    pub fn stop(mut self) -> String {
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status();
        assert!(sent.expect("a shell").success());
        eventually("the end", || self.child.try_wait().expect("the child is ours"));
        self.log.lock().expect("nobody panics with it").join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.dir.path();
    }
}

/// Asks again until there is an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub struct Client(TcpStream);

impl Client {
    /// The replies to these inline commands.
    pub fn ask(&mut self, commands: &str) -> String {
        self.0.write_all(format!("{commands}\r\nECHO the-end-of-it\r\n").as_bytes()).expect("the server takes it");
        let mut replies = Vec::new();
        let mut buffer = [0; 4096];
        while !replies.ends_with(b"$14\r\nthe-end-of-it\r\n") && !replies.ends_with(b"$13\r\nthe-end-of-it\r\n") {
            let bytes = self.0.read(&mut buffer).expect("the server answers");
            assert!(bytes > 0, "the server is there: {}", String::from_utf8_lossy(&replies));
            replies.extend_from_slice(&buffer[..bytes]);
        }
        let replies = String::from_utf8_lossy(&replies).into_owned();
        replies.strip_suffix("$13\r\nthe-end-of-it\r\n").expect("it ends so").to_owned()
    }

    /// Whether the trace of this command is sampled.
    pub fn sampled(&mut self, command: &str) -> bool {
        self.ask_alone(command);
        !self.ask_alone("OTEL.TRACES LAST 1").contains("(not sampled)")
    }

    /// One reply, with nothing behind it that would be traced: the command must answer with one line, one bulk or an array
    /// of lines.
    fn ask_alone(&mut self, command: &str) -> String {
        self.0.write_all(format!("{command}\r\n").as_bytes()).expect("the server takes it");
        let mut input = BufReader::new(&self.0);
        let mut reply = String::new();
        let mut left = 1_u64;
        while left > 0 {
            let mut line = String::new();
            assert!(input.read_line(&mut line).expect("the server answers") > 0, "the server is there");
            left -= 1;
            match line.split_at(1) {
                ("*", count) => left += count.trim_end().parse::<u64>().expect("a count"),
                ("$", length) if !length.starts_with('-') => left += 1,
                _ => {}
            }
            reply.push_str(&line);
        }
        reply
    }
}
