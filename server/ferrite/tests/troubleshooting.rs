//! The rows of both troubleshooting sections that a server alone can show: each makes the mistake and sees what is promised.
//! Those about the Collector's own settings are the Collector's; one that fails for minutes is in `integration/tests/collector_outage.rs`,
//! client helpers are in `client_helpers.rs` beside it. That a build without the feature says "OTel not available" is checked by `ci/test`,
//! which makes one.

// Drives a real process: time and files are the system's.
#![allow(clippy::disallowed_methods)]
#![cfg(feature = "otel")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

/// A backend that says who connected to it, and hangs up: nothing is exported to it, but it is seen to be tried.
struct Backend {
    endpoint: String,
    connections: mpsc::Receiver<()>,
}

impl Backend {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (sender, connections) = mpsc::channel();
        std::thread::spawn(move || listener.incoming().take_while(|_| sender.send(()).is_ok()).for_each(drop));
        Self { endpoint, connections }
    }

    fn was_tried(&self, limit: Duration) -> bool {
        self.connections.recv_timeout(limit).is_ok()
    }
}

/// A server with this file; it is killed by its own id when dropped.
struct Server {
    child: Child,
    stream: TcpStream,
    /// What it logged until it was ready.
    begun: Vec<String>,
    lines: mpsc::Receiver<String>,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start(file: &str, environment: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ferrite.toml");
        std::fs::write(&path, file).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ferrite"))
            .env_clear()
            .envs(environment.iter().copied())
            .arg("--config")
            .arg(&path)
            .args(["--port", "0", "--admin.enabled", "false", "--workers", "1", "--storage.disk_backend", "io-threads"])
            .arg("--dir")
            .arg(dir.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        // Read to the end, whoever listens: it must not wait for a reader.
        std::thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| _ = sender.send(line)));
        let mut begun = Vec::new();
        let ready = loop {
            let line = line_with(&lines, "");
            begun.push(line.clone());
            if line.contains("Ready to accept connections") {
                break line;
            }
        };
        let port = ready.split("\"port\":").nth(1).expect("the port").split([',', '}']).next().expect("the port");
        let stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        Self { child, stream, begun, lines, _dir: dir }
    }

    /// A line of its log with this in it: one of the start, or else the next.
    fn line(&mut self, part: &str) -> String {
        match self.begun.iter().position(|line| line.contains(part)) {
            Some(at) => self.begun.remove(at),
            None => line_with(&self.lines, part),
        }
    }

    fn send(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).unwrap();
    }

    /// The replies up to this text, which is the end of the last one.
    fn replies_until(&mut self, end: &str) -> String {
        let mut replies = Vec::new();
        let mut byte = [0];
        while !replies.ends_with(end.as_bytes()) {
            assert_eq!(self.stream.read(&mut byte).unwrap(), 1, "the server is there");
            replies.push(byte[0]);
        }
        String::from_utf8_lossy(&replies).into_owned()
    }

    /// The flight recorder's text of the last trace, as the commands' own spans have it.
    fn last_trace(&mut self) -> String {
        self.send("OTEL.TRACES LAST 1\r\nPING end\r\n");
        self.replies_until("$3\r\nend\r\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line_with(lines: &mpsc::Receiver<String>, part: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = lines.recv_timeout(left).unwrap_or_else(|_| panic!("no line with {part:?}"));
        if line.contains(part) {
            return line;
        }
    }
}

/// What exports traces to this backend at once, with `change` made to it.
fn exporting(backend: &Backend, change: &str) -> String {
    let base = format!(
        "[telemetry]\nendpoint = \"{}\"\nbatch_timeout_ms = 10\nmetrics_enabled = false\nlogs_enabled = false\n",
        backend.endpoint
    );
    let enabled = if change.contains("enabled = false\n") && !change.contains('_') { "" } else { "enabled = true\n" };
    format!("{base}{enabled}{change}")
}

const TRIED_WITHIN: Duration = Duration::from_secs(60);
/// Many times what an export takes; a short while for what must not happen.
const NOT_TRIED_FOR: Duration = Duration::from_millis(1500);

/// "No Traces Appearing in Jaeger": is `telemetry.enabled` true, are traces enabled, is the sample rate > 0? Each of them alone
/// keeps every trace here; without them the backend is tried.
#[test]
fn a_switch_that_is_off_keeps_traces_from_being_exported() {
    let tried = |change: &str, limit| {
        let backend = Backend::start();
        let mut server = Server::start(&exporting(&backend, change), &[]);
        server.send("SET k v\r\n");
        server.replies_until("+OK\r\n");
        backend.was_tried(limit)
    };
    assert!(tried("", TRIED_WITHIN));
    for mistake in ["enabled = false\n", "traces_enabled = false\n", "sample_rate = 0.0\n"] {
        assert!(!tried(mistake, NOT_TRIED_FOR), "{mistake}");
    }
}

/// "Is the OTLP endpoint reachable?", "Is the Collector running?": where nobody listens, the log says so once, with the signal and
/// the reason, and commands are served as before.
#[test]
fn an_endpoint_that_nobody_listens_on_is_warned_of() {
    for protocol in ["grpc", "http"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let file = format!(
            "[telemetry]\nenabled = true\nendpoint = \"http://{address}\"\nprotocol = \"{protocol}\"\n\
             batch_timeout_ms = 10\nmetrics_enabled = false\nlogs_enabled = false\n"
        );
        let mut server = Server::start(&file, &[]);
        server.send("SET k v\r\n");
        server.replies_until("+OK\r\n");
        let warning = server.line("telemetry cannot be exported; commands are served as before");
        assert!(warning.contains("\"level\":\"WARN\"") && warning.contains("\"signal\":\"traces\""), "{warning}");
        assert!(warning.contains(&address.to_string()) || warning.contains("refused"), "{warning}");
        server.send("GET k\r\n");
        server.replies_until("$1\r\nv\r\n");
    }
}

/// "Enable debug logging to see OTLP export activity": `RUST_LOG=ferrite=debug,opentelemetry=debug` shows each export.
#[test]
fn debug_logging_shows_every_export() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // A Collector that takes whatever comes over HTTP.
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|stream| _ = std::thread::spawn(|| accept(stream)))
    });
    let file = format!(
        "[telemetry]\nenabled = true\nendpoint = \"http://{address}\"\nprotocol = \"http\"\nbatch_timeout_ms = 10\n\
         metrics_export_interval = 0.05\nlogs_batch_timeout_ms = 10\n"
    );
    let mut server = Server::start(&file, &[("RUST_LOG", "ferrite=debug,opentelemetry=debug")]);
    server.send("SET k v\r\n");
    server.replies_until("+OK\r\n");
    let mut missing = vec!["traces", "metrics", "logs"];
    while !missing.is_empty() {
        let line = server.line("\"message\":\"exported\"");
        assert!(line.contains("\"level\":\"DEBUG\"") && line.contains("\"items\":"), "{line}");
        missing.retain(|signal| !line.contains(&format!("\"signal\":\"{signal}\"")));
    }
}

/// Answers every request on this connection with success.
fn accept(stream: TcpStream) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(bytes) = line.strip_prefix("content-length:") {
                length = bytes.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
        if reader.read_exact(&mut vec![0; length]).is_err() || writer.write_all(answer).is_err() {
            return;
        }
    }
}

/// "Baggage Not Appearing as Span Attributes": extraction must be on, the key allowed, and the client must send baggage beside
/// the trace context.
#[test]
fn baggage_needs_the_switch_the_key_and_the_client() {
    let shows = |file: &str, baggage: &str| {
        let mut server = Server::start(file, &[]);
        let pairs = if baggage.is_empty() { 1 } else { 2 };
        let more = match baggage {
            "" => String::new(),
            _ => format!("$7\r\nbaggage\r\n${}\r\n{baggage}\r\n", baggage.len()),
        };
        server.send(&format!(
            "|{pairs}\r\n$11\r\ntraceparent\r\n$55\r\n{TRACEPARENT}\r\n{more}*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
        ));
        server.replies_until("$-1\r\n");
        let trace = server.last_trace();
        assert!(trace.contains(TRACE_ID), "{trace}");
        trace.contains("acme-corp")
    };
    let right = "[telemetry]\nbaggage_extraction = true\nbaggage_allowed_keys = [\"tenant.id\"]\n";
    let baggage = "tenant.id=acme-corp";
    assert!(shows(right, baggage));
    assert!(!shows(&right.replace("true", "false"), baggage), "1. baggage_extraction");
    assert!(!shows(&right.replace("tenant.id", "tenant.tier"), baggage), "2. baggage_allowed_keys");
    assert!(!shows(right, ""), "3. the client sets none");
}

/// "Trace Context Not Propagating", "Traces Do Not Connect Across Services": without a `traceparent`, or with one that is not
/// the W3C's, a command begins a trace of its own, and the command itself is answered.
#[test]
fn without_a_w3c_traceparent_a_command_is_a_trace_of_its_own() {
    let mut server = Server::start("", &[]);
    let mut trace_of = |command: String| {
        server.send(&command);
        server.replies_until("$-1\r\n");
        server.last_trace()
    };
    assert!(trace_of(format!("OTEL.TRACE {TRACEPARENT} GET k\r\n")).contains(TRACE_ID));
    assert!(!trace_of("GET k\r\n".to_owned()).contains(TRACE_ID));
    let upper = TRACEPARENT.to_uppercase();
    let malformed = format!("|1\r\n$11\r\ntraceparent\r\n$55\r\n{upper}\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    assert!(!trace_of(malformed).to_lowercase().contains(TRACE_ID));
}

/// "Spans Have Wrong Service Name": what the file says, unless the environment overrides it.
#[test]
fn the_service_name_is_the_file_s_unless_the_environment_overrides_it() {
    let printed = |environment: &[(&str, &str)]| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ferrite.toml");
        std::fs::write(&path, "[telemetry]\nservice_name = \"cache\"\n").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferrite"));
        command.env_clear().envs(environment.iter().copied()).args(["config", "check", "--print"]).arg(&path);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let name = |text: &str| text.lines().find(|line| line.starts_with("telemetry.service_name")).unwrap().to_owned();
    assert_eq!(name(&printed(&[])), "telemetry.service_name = \"cache\"");
    assert_eq!(name(&printed(&[("OTEL_SERVICE_NAME", "other")])), "telemetry.service_name = \"other\"");
    let by_resource = [("OTEL_RESOURCE_ATTRIBUTES", "service.name=third")];
    assert_eq!(name(&printed(&by_resource)), "telemetry.service_name = \"third\"");
}

/// "Metrics Not Arriving via OTLP": `metrics_enabled = false` keeps them here.
#[test]
fn metrics_that_are_off_are_not_exported() {
    let tried = |metrics: bool, limit| {
        let backend = Backend::start();
        let file = format!(
            "[telemetry]\nenabled = true\nendpoint = \"{}\"\ntraces_enabled = false\nlogs_enabled = false\n\
             metrics_enabled = {metrics}\nmetrics_export_interval = 0.05\n",
            backend.endpoint
        );
        let _server = Server::start(&file, &[]);
        backend.was_tried(limit)
    };
    assert!(tried(true, TRIED_WITHIN));
    assert!(!tried(false, NOT_TRIED_FOR));
}
