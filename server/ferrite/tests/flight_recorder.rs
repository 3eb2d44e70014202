//! The flight recorder of a real process: what OTEL.TRACES shows over a socket.

// Drives a real process: time and files are the system's.
#![allow(clippy::disallowed_methods)]

mod running;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use ferrite_telemetry::SpanName;
use running::{Running, eventually};

/// The simple strings of the answer.
fn shown(server: &Running, command: &str) -> Vec<String> {
    let reply = server.ask(command);
    assert!(reply.starts_with('*'), "{reply}");
    let lines = reply.trim_end_matches("+OK\r\n").lines().filter_map(|line| line.strip_prefix('+'));
    lines.map(str::to_owned).collect()
}

/// The statements of the traces, the newest first.
fn statements(server: &Running, command: &str) -> Vec<String> {
    let lines = shown(server, command);
    lines.iter().filter_map(|line| line.strip_prefix("  |-- db.statement: ")).map(str::to_owned).collect()
}

#[test]
fn traces_are_found_on_every_worker_by_command_key_client_and_failure() {
    // Nothing is sampled: the recorder has it all the same.
    let server = Running::start(&["--telemetry.sample_rate", "0.0"]);
    // Connections spread over both workers.
    for number in 0..16 {
        assert_eq!(server.ask(&format!("SET key:{number} v")), "+OK\r\n+OK\r\n");
    }
    server.ask("LPUSH");
    server.ask("INCR key:1");
    let sets: Vec<String> = (0..16).rev().map(|number| format!("SET key:{number} ...")).collect();
    assert_eq!(statements(&server, "OTEL.TRACES FIND CMD set 100"), sets);
    assert_eq!(statements(&server, "OTEL.TRACES FIND cmd set"), sets[..10], "ten without a count");
    assert_eq!(statements(&server, "OTEL.TRACES FIND KEY key:7"), ["SET key:7 ..."]);
    assert_eq!(statements(&server, "OTEL.TRACES FIND KEY key:1 CMD SET"), ["SET key:1 ..."]);
    assert_eq!(statements(&server, "OTEL.TRACES FIND CMD SET KEY key:1* 2"), ["SET key:15 ...", "SET key:14 ..."]);
    assert_eq!(statements(&server, "OTEL.TRACES FIND TIER mutable CMD SET 100"), sets);
    assert!(statements(&server, "OTEL.TRACES FIND TIER disk").is_empty());
    assert!(statements(&server, "OTEL.TRACES FIND CLIENT 1000000").is_empty());
    let failed = shown(&server, "OTEL.TRACES ERRORS");
    assert_eq!(failed.iter().filter(|line| line.starts_with("  |-- status: ERROR ")).count(), 2, "{failed:#?}");
    assert!(failed[0].ends_with(" (not sampled)"), "{failed:#?}");
    assert_eq!(statements(&server, "OTEL.TRACES FIND FAILED KEY key:1"), ["INCR key:1"]);
    assert!(server.ask("OTEL.TRACES FIND KYE x").starts_with("-ERR syntax error"));
    let connections = shown(&server, &format!("OTEL.TRACES FIND CMD {} 3", SpanName::Connection));
    assert_eq!(connections.iter().filter(|line| line.starts_with("trace ")).count(), 3, "{connections:#?}");
}

#[test]
fn a_tenant_s_traces_are_found_by_its_baggage() {
    let baggage = ["--telemetry.baggage_extraction", "true", "--telemetry.baggage_allowed_keys", "tenant.id"];
    let server = Running::start(&baggage);
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    for (tenant, key) in [("acme", "one"), ("other", "two")] {
        // The attribute in front of a command, which carries its caller's context.
        let context = format!("|1\r\n{}{}", bulk("baggage"), bulk(&format!("tenant.id={tenant}")));
        let command = format!("*3\r\n{}{}{}", bulk("SET"), bulk(key), bulk("v"));
        assert_eq!(server.ask(format!("{context}{command}").trim_end()), "+OK\r\n+OK\r\n");
    }
    assert_eq!(statements(&server, "OTEL.TRACES FIND TENANT acme"), ["SET one ..."]);
    assert_eq!(statements(&server, "OTEL.TRACES FIND CMD SET TENANT other"), ["SET two ..."]);
    assert!(statements(&server, "OTEL.TRACES FIND TENANT nobody").is_empty());
}

#[test]
fn slow_commands_are_those_that_slowlog_would_take() {
    let server = Running::start(&["--server.enable_debug_command", "yes"]);
    server.ask("SET a b");
    assert_eq!(server.ask("DEBUG SLEEP 0.05"), "+OK\r\n+OK\r\n");
    assert_eq!(statements(&server, "OTEL.TRACES SLOW"), ["DEBUG ..."]);
    assert_eq!(statements(&server, "OTEL.TRACES SLOW 40 1"), ["DEBUG ..."]);
    assert!(statements(&server, "OTEL.TRACES SLOW 60000").is_empty());
    // A connection that is there for long is not slow.
    assert!(shown(&server, "OTEL.TRACES SLOW 10 100").iter().all(|line| !line.contains("(connection")));
}

#[test]
fn hashed_keys_are_found_by_the_key_and_by_the_hash() {
    let server = Running::start(&["--telemetry.redaction.keys", "hash", "--telemetry.redaction.salt", "s"]);
    server.ask("SET secret v");
    let lines = shown(&server, "OTEL.TRACES FIND KEY secret");
    let hash = lines[0].strip_prefix("keys are recorded as hashes: this one as ").expect("it says so");
    assert!(lines.contains(&format!("  |-- db.statement: SET {hash} ...")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("secret")), "{lines:#?}");
    assert_eq!(statements(&server, &format!("OTEL.TRACES FIND KEY {hash}")), [format!("SET {hash} ...")]);

    let server = Running::start(&["--telemetry.redaction.keys", "drop"]);
    server.ask("SET secret v");
    assert!(server.ask("OTEL.TRACES FIND KEY secret").starts_with("-ERR keys are not recorded"));
}

#[test]
fn json_is_a_line_of_otlp_for_each_trace() {
    let server = Running::start(&["--telemetry.service_name", "cache-7"]);
    server.ask("SET a b");
    server.ask("GET a");
    let lines = shown(&server, "OTEL.TRACES FIND KEY a JSON");
    assert_eq!(lines.len(), 2, "{lines:#?}");
    for (line, statement) in lines.iter().zip(["GET a", "SET a ..."]) {
        assert!(line.starts_with("{\"resourceSpans\":[{") && line.ends_with('}'), "{line}");
        assert!(line.contains(&format!("{{\"stringValue\":\"{statement}\"}}")), "{line}");
        assert!(line.contains("{\"key\":\"service.name\",\"value\":{\"stringValue\":\"cache-7\"}}"), "{line}");
    }
    // In RESP3 they are lines of one text.
    let reply = server.ask("HELLO 3\r\nOTEL.TRACES FIND KEY a JSON");
    let text = reply.split("txt:").nth(1).expect("a verbatim string");
    assert_eq!(text.lines().filter(|line| line.starts_with("{\"resourceSpans\"")).count(), 2, "{reply}");
    eventually("connections end", || shown(&server, "OTEL.TRACES FIND CMD CONNECTION").len() > 3);
    assert!(server.file("hybrid.log").exists());
}

/// What SLOWLOG and the exemplars name is there although the recorder has long forgotten it.
#[test]
fn the_traces_that_slowlog_and_exemplars_name_outlive_the_recorder() {
    let server = Running::start(&["--server.slowlog_log_slower_than", "0", "--server.slowlog_max_len", "64"]);
    server.ask(&vec!["SET kept v"; 64].join("\r\n"));
    assert_eq!(server.ask("CONFIG SET slowlog-log-slower-than -1"), "+OK\r\n+OK\r\n");
    let reply = server.ask("SLOWLOG GET");
    let ids: Vec<&str> = reply.lines().filter(|line| line.len() == 32 && !line.contains(' ')).collect();
    assert!(!ids.is_empty(), "{reply}");
    // More than both recorders hold.
    let pings = vec!["PING"; 50_000].join("\r\n");
    for _ in 0..4 {
        server.ask(&pings);
    }
    for id in &ids {
        assert_eq!(shown(&server, &format!("OTEL.TRACES GET {id}"))[0], format!("trace {id}"));
    }
    assert_eq!(statements(&server, "OTEL.TRACES FIND KEY kept 1"), ["SET kept ..."]);

    let page = server.get("/metrics", Some("application/openmetrics-text; version=1.0.0"));
    assert!(page.ends_with("# EOF\n"), "{page}");
    let exemplar = page.lines().find(|line| line.contains("command=\"SET\"") && line.contains(" # {")).expect("it has");
    let id = exemplar.split("trace_id=\"").nth(1).expect("an id").split('"').next().expect("it ends");
    assert_eq!(shown(&server, &format!("OTEL.TRACES GET {id}"))[0], format!("trace {id}"));
    assert!(!server.get("/metrics", None).contains(" # {"), "the classic format has no exemplars");

    // Who no longer names them lets them go: what is left are exemplars.
    let kept = |page: &str| {
        let line = page.lines().find(|line| line.starts_with("ferrite_telemetry_kept_size ")).expect("a metric");
        line.rsplit(' ').next().expect("a value").parse::<u64>().expect("a number")
    };
    let before = kept(&server.get("/metrics", None));
    server.ask("SLOWLOG RESET");
    let after = kept(&server.get("/metrics", None));
    assert!(after < before / 2, "{before} bytes, then {after}");
}

/// What `ferrite trace` prints.
fn trace(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ferrite")).env_clear().arg("trace").args(arguments).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    told
}

#[test]
fn sigquit_writes_the_recorder_to_a_file_and_the_server_goes_on() {
    let shaped = ["--telemetry.redaction.attributes", "net.peer.ip", "--telemetry.limits.attribute_value_length", "12"];
    let server = Running::start(&shaped);
    for number in 0..8 {
        server.ask(&format!("SET key:{number} v"));
    }
    server.signal("QUIT");
    let file = server.file("flight-recorder.quit");
    eventually("the file is there", || file.exists());
    let file = file.to_str().unwrap();
    assert_eq!(server.ask("PING"), "+PONG\r\n+OK\r\n");
    let told = trace(&["--file", file, "--find", "cmd", "SET"]);
    for number in 0..8 {
        assert!(told.contains(&format!("  |-- db.statement: SET key:{number} .…")), "{told}");
    }
    assert!(told.contains("  |-- net.peer.ip: [REDACTED]") && !told.contains("127.0.0.1"), "{told}");
    // As OTEL.TRACES lays it out.
    let lines = shown(&server, "OTEL.TRACES FIND KEY key:7");
    let own = trace(&["--file", file, "--find", "key", "key:7"]);
    assert_eq!(own.trim_end().lines().collect::<Vec<_>>(), lines);
    let mut damaged = std::fs::read(file).unwrap();
    damaged[1000] ^= 1;
    std::fs::write(file, damaged).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ferrite")).args(["trace", "--file", file]).output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("damaged"));
}

#[test]
fn a_crash_leaves_the_recorder_behind_and_still_ends_the_process() {
    use std::os::unix::process::ExitStatusExt;
    for (name, number) in [("SEGV", 11), ("BUS", 7), ("ABRT", 6)] {
        let mut server = Running::start(&[]);
        server.ask("SET last words");
        server.signal(name);
        let mut ended = None;
        eventually("it ends", || {
            ended = server.child.try_wait().unwrap();
            ended.is_some()
        });
        assert_eq!(ended.and_then(|status| status.signal()), Some(number), "SIG{name}");
        let file = server.file("flight-recorder.crash");
        let told = trace(&["--file", file.to_str().unwrap(), "--find", "cmd", "SET"]);
        assert!(told.contains("  |-- db.statement: SET last ..."), "{told}");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn a_running_server_is_asked_printed_exported_and_followed() {
    let server = Running::start(&["--server.requirepass", "secret"]);
    let auth = "AUTH secret\r\n";
    server.ask(&format!("{auth}SET a b\r\nGET a"));
    let port = server.port.to_string();
    let to = ["--port", &port, "--password", "secret"];
    // What `ferrite trace` asks itself does not count.
    let last = trace(&[&to[..], &["--count", "1"]].concat());
    assert_eq!(last.matches("trace ").count(), 1, "{last}");
    assert!(!last.contains("CLIENT ID"), "{last}");
    let told = trace(&[&to[..], &["--find", "key", "a"]].concat());
    let at = |statement: &str| told.find(&format!("  |-- db.statement: {statement}")).expect("it is there");
    assert!(at("SET a ...") < at("GET a"), "the oldest first: {told}");
    let refused = Command::new(env!("CARGO_BIN_EXE_ferrite")).args(["trace", "--port", &port]).output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the server answers: NOAUTH"));

    for (name, part) in [("otlp.json", "{\"resourceSpans\":["), ("x.chrome.json", "\"traceEvents\":[")] {
        let path = server.dir.path().join(name);
        trace(&[&to[..], &["--find", "key", "a", "--export", path.to_str().unwrap()]].concat());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(part) && text.contains("GET a"), "{text}");
    }

    let mut follower = Command::new(env!("CARGO_BIN_EXE_ferrite"))
        .args(["trace", "--follow", "--find", "cmd", "INCR", "--port", &port, "--password", "secret"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map(Result::unwrap);
    // Asked again and again, until the follower has begun; each is told once.
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let server = &server;
        scope.spawn(move || {
            let mut number = 0;
            while stopped.try_recv().is_err() {
                server.ask(&format!("AUTH secret\r\nINCR counter:{number}"));
                number += 1;
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let told: Vec<String> = lines.by_ref().filter(|line| line.contains("db.statement: ")).take(8).collect();
        let _ = stop.send(());
        let mut once = told.clone();
        once.dedup();
        assert_eq!(told, once);
        assert!(told.iter().all(|line| line.starts_with("  |-- db.statement: INCR counter:")), "{told:#?}");
        let numbers = told.iter().map(|line| line.rsplit(':').next().unwrap().parse::<u64>().unwrap());
        let numbers: Vec<u64> = numbers.collect();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
    });
    follower.kill().unwrap();
    follower.wait().unwrap();
}
