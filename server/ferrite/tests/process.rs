//! The binary as a process: what it prints, what it returns, what ends it.

// Drives a real process: time and files are the system's.
#![allow(clippy::disallowed_methods)]

mod running;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ferrite_telemetry::schema::ConnectionEnd;
use ferrite_telemetry::{Attribute, SpanName};
use running::Running;

fn ferrite() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrite"));
    // What the developer's shell says is not what is tested.
    command.env_clear();
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn run(arguments: &[&str]) -> Output {
    ferrite().args(arguments).output().unwrap()
}

#[test]
fn the_version_names_its_features_on_request() {
    let version = run(&["--version"]);
    assert_eq!(text(&version.stdout), format!("ferrite {}\n", env!("CARGO_PKG_VERSION")));
    // The default build's line; `ci/test lite` has the other one.
    if cfg!(all(feature = "otel", feature = "io-uring", feature = "tls", not(feature = "lite"))) {
        let features = text(&run(&["--version", "--features"]).stdout);
        assert_eq!(features, format!("ferrite {} (features: otel, io-uring, tls)\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn a_wrong_configuration_starts_nothing_and_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ferrite.toml");
    let mut source = tempfile::NamedTempFile::new_in(&dir).unwrap();
    std::io::Write::write_all(&mut source, b"[server]\n\nprot = 1\n").unwrap();
    source.persist(&path).unwrap();
    let path = path.to_str().unwrap();

    let in_the_file = run(&["--config", path]);
    assert_eq!(in_the_file.status.code(), Some(2));
    assert!(text(&in_the_file.stderr).starts_with(&format!("{path}:3: unknown key \"server.prot\"")));

    let missing = run(&["--config", "/nonexistent/ferrite.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).starts_with("/nonexistent/ferrite.toml: No such file"));

    let flag = run(&["--port", "many"]);
    assert_eq!(flag.status.code(), Some(2));
    let message = "--server.port: expected a whole number from 0 to 65535, found \"many\"\n";
    assert_eq!(text(&flag.stderr), message);

    let variable = ferrite().env("FERRITE_AOF__APPENDFSYNC", "often").output().unwrap();
    assert_eq!(variable.status.code(), Some(2));
    assert!(text(&variable.stderr).starts_with("FERRITE_AOF__APPENDFSYNC: expected \"always\""));

    assert_eq!(run(&["--no-such-flag"]).status.code(), Some(2));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
}

#[test]
fn sigterm_and_sigint_end_it_with_0() {
    for signal in ["TERM", "INT"] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = ferrite()
            .args(["--port", "0", "--admin-port", "0", "--workers", "2", "--dir"])
            .arg(dir.path())
            .env("OTEL_SDK_DISABLED", "perhaps")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The log tells of the warning, and of the start; it ends early if the server does.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains("OTEL_SDK_DISABLED is ignored")));
        assert!(lines.any(|line| line.contains("Ready to accept connections")));
        let deadline = Instant::now() + Duration::from_secs(20);
        // The child was not waited for yet, so its number is still its own.
        let sent = Command::new("sh").args(["-c", &format!("kill -s {signal} {}", child.id())]).status().unwrap();
        assert!(sent.success());
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "still runs after SIG{signal}");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(0), "SIG{signal}");
    }
}

/// What the trace of the first connection says, once it has ended: the lines below its root's.
fn first_connection(server: &Running) -> Vec<String> {
    let is_first = format!("  |-- {}: 1", Attribute::ConnectionId);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let reply = server.ask("OTEL.TRACES LAST 100");
        let lines: Vec<String> =
            reply.split("\r\n").filter_map(|line| line.strip_prefix('+')).map(str::to_owned).collect();
        let traces = lines.chunk_by(|_, line| !line.starts_with("trace "));
        let mut connections = traces.filter(|trace| trace[0].ends_with(" (connection)"));
        if let Some(trace) = connections.find(|trace| trace.contains(&is_first)) {
            assert!(trace[1].starts_with(&format!("{} (", SpanName::Connection)), "{trace:#?}");
            return trace[2..].to_vec();
        }
        assert!(Instant::now() < deadline, "it does not end: {lines:#?}");
    }
}

#[test]
fn a_connection_that_ended_is_among_the_last_traces_with_its_reason() {
    for (sent, end, commands) in [
        ("PING\r\nPING\r\n", ConnectionEnd::ClientClosed, 2),
        ("PING\r\nQUIT\r\nPING\r\n", ConnectionEnd::ClosedAfterReply, 2),
        ("PING\r\n*1\r\nPING\r\n", ConnectionEnd::ProtocolError, 1),
    ] {
        let server = Running::start(&[]);
        let mut stream = server.connect();
        let own_port = stream.local_addr().unwrap().port();
        stream.write_all(sent.as_bytes()).unwrap();
        if end == ConnectionEnd::ClientClosed {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let mut replies = String::new();
        stream.read_to_string(&mut replies).unwrap();
        drop(stream);
        let lines = first_connection(&server);
        for (key, value) in [
            (Attribute::NetPeerIp, "127.0.0.1".to_owned()),
            (Attribute::NetPeerPort, own_port.to_string()),
            (Attribute::ConnectionEndReason, end.to_string()),
            (Attribute::ConnectionCommandsCount, commands.to_string()),
            (Attribute::ConnectionBytesReceived, sent.len().to_string()),
            (Attribute::ConnectionBytesSent, replies.len().to_string()),
        ] {
            assert!(lines.contains(&format!("  |-- {key}: {value}")), "no {key} {value} in {lines:#?}");
        }
        assert_eq!(lines.contains(&format!("  |-- status: ERROR {end}")), end.is_error(), "{lines:#?}");
    }
}

#[cfg(feature = "tls")]
#[test]
fn an_export_that_cannot_work_starts_nothing_and_names_its_key() {
    let start = |variables: &[(&str, &str)]| {
        let dir = tempfile::tempdir().unwrap();
        let mut command = ferrite();
        command.args(["--port", "0", "--admin-port", "0", "--telemetry.enabled", "true", "--dir"]).arg(dir.path());
        let output = command.envs(variables.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        text(&output.stderr)
    };
    let secure = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:4317");
    let message = start(&[secure, ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem")]);
    assert!(
        message.starts_with("ferrite: telemetry.certificate: the file /nowhere/ca.pem cannot be read"),
        "{message}"
    );
    let metrics = ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", "/dev/null");
    // Without those of the system, which may have none.
    let message = start(&[secure, metrics, ("OTEL_TRACES_EXPORTER", "none")]);
    assert!(message.contains("ferrite: telemetry.metrics.certificate: "), "{message}");
    let message = start(&[("OTEL_EXPORTER_OTLP_HEADERS", "a%20b=c")]);
    assert!(message.starts_with("ferrite: telemetry.headers: the OTLP header \"a b\""), "{message}");
    let message = start(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://localhost")]);
    assert!(message.starts_with("ferrite: telemetry.traces.endpoint: "), "{message}");
}
