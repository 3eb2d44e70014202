//! Rows of the feature contract about sampling, metrics, logs and configuration, each with a real process and a receiver of its own.

// Drives real processes: time and files are the system's.
#![allow(clippy::disallowed_methods)]
#![cfg(feature = "otel")]

mod receiver;

use std::collections::BTreeSet;

use receiver::{Receiver, Server, eventually, hex};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn in_context(flags: &str, command: &str) -> String {
    format!("OTEL.TRACE 00-{TRACE}-b7ad6b7169203331-{flags} {command}")
}

/// P1: the six samplers by their names in any case, with what the specification says about bad values.
#[test]
fn samplers_are_chosen_by_the_environment() {
    // Name, argument; whether a trace without a caller, under a sampled one and under an unsampled one is chosen; a warning.
    let cases = [
        ("always_on", "", [true, true, true], ""),
        ("ALWAYS_OFF", "", [false, false, false], ""),
        ("TraceIdRatio", "1.0", [true, true, true], ""),
        ("traceidratio", "0", [false, false, false], ""),
        ("ParentBased_Always_On", "", [true, true, false], ""),
        ("parentbased_always_off", "", [false, true, false], ""),
        ("parentbased_traceidratio", "1", [true, true, false], ""),
        ("parentbased_traceidratio", "0.0", [false, true, false], ""),
        // The argument alone replaces the ratio.
        ("", "0.0", [false, false, false], ""),
        ("sometimes", "", [true, true, false], "OTEL_TRACES_SAMPLER is"),
        ("traceidratio", "ten", [true, true, true], "OTEL_TRACES_SAMPLER_ARG is"),
        ("traceidratio", "1.5", [true, true, true], "OTEL_TRACES_SAMPLER_ARG is"),
        (
            "jaeger_remote",
            "endpoint=http://localhost:1,initialSamplingRate=0.0",
            [false, false, false],
            "jaeger_remote",
        ),
        ("parentbased_jaeger_remote", "initialSamplingRate=1.0", [true, true, false], "jaeger_remote"),
    ];
    for (name, argument, expected, warning) in cases {
        let environment = [("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)];
        let server = Server::start("", &environment, &[]);
        let mut client = server.connect();
        let chosen = ["PING".to_owned(), in_context("01", "PING"), in_context("00", "PING")]
            .map(|command| client.sampled(&command));
        assert_eq!(chosen, expected, "{name} {argument}");
        let warned = server.lines("\"WARN\"");
        assert_eq!(warned.iter().any(|line| line.contains("OTEL_TRACES_SAMPLER")), !warning.is_empty(), "{warned:?}");
        assert!(warning.is_empty() || warned.iter().any(|line| line.contains(warning)), "{warned:?}");
    }
}

/// P1: metrics and logs, with their trace ids, do not depend on the rate.
#[test]
fn metrics_and_logs_are_the_same_whatever_part_of_the_traces_is_exported() {
    let seen = |rate: &str| {
        let receiver = Receiver::start();
        let arguments = [
            "--telemetry.sample_rate",
            rate,
            "--logging.commands",
            "all",
            "--telemetry.metrics_export_interval",
            "0.2",
        ];
        let server = Server::exporting(&receiver, "", &[], &arguments);
        let mut client = server.connect();
        client.ask("SET k v\r\nGET k\r\nNONSENSE");
        let written =
            eventually("the lines", || Some(server.lines("Command executed")).filter(|lines| lines.len() >= 3));
        let executed = |lines: &[(String, String)]| -> Vec<(String, String)> {
            lines.iter().filter(|(body, _)| body.contains("Command executed")).cloned().collect()
        };
        let exported =
            eventually("they are exported", || Some(executed(&receiver.logs())).filter(|all| all.len() >= 3));
        eventually("metrics are exported", || (!receiver.metric_names().is_empty()).then_some(()));
        server.stop();
        let ids: BTreeSet<String> = exported.into_iter().map(|(_, id)| id).collect();
        for line in &written {
            let id = line.split("\"trace_id\":\"").nth(1).expect("a trace id").split('"').next().expect("its end");
            assert!(id.len() == 32 && ids.contains(id), "{line}: {ids:?}");
            assert!(line.contains("\"span_id\":\""), "{line}");
        }
        let traced: BTreeSet<String> = receiver.spans().iter().map(|span| hex(&span.trace_id)).collect();
        (receiver.metric_names(), written.len(), ids.is_subset(&traced), receiver.requests("traces").is_empty())
    };
    let (names_off, lines_off, _, nothing_off) = seen("0.0");
    let (names_on, lines_on, all_traced, nothing_on) = seen("1.0");
    assert_eq!((names_off, lines_off), (names_on, lines_on));
    assert_eq!((nothing_off, nothing_on, all_traced), (true, false, true));
}

/// P4: what the tail keeps it keeps with all its spans, a transaction for one of its commands too.
#[test]
fn a_trace_that_the_tail_keeps_arrives_whole() {
    let receiver = Receiver::start();
    let arguments = ["--telemetry.sample_rate", "0.000000001", "--telemetry.tail.errors", "true"];
    let server = Server::exporting(&receiver, "", &[], &arguments);
    let mut client = server.connect();
    client.ask(&format!("SET text v\r\n{}\r\n{}", in_context("01", "GET text"), in_context("01", "INCR text")));
    client.ask("MULTI\r\nSET other v\r\nINCR text\r\nGET other\r\nEXEC");
    client.ask("MULTI\r\nSET other v\r\nEXEC");
    let recorded = client.ask(&format!("OTEL.TRACES GET {TRACE} JSON"));
    server.stop();
    // Both commands of that trace are in the recorder, one of them was kept.
    let of_trace = receiver.spans_of(TRACE);
    let names: Vec<&str> = of_trace.iter().map(|span| span.name.as_str()).collect();
    let roots: Vec<_> = of_trace.iter().filter(|span| span.kind == 2).collect();
    assert_eq!(roots.len(), 1, "{names:?}");
    let told =
        recorded.lines().find(|line| line.contains("INCR") && line.contains("resourceSpans")).expect("the failed one");
    assert_eq!(told.matches("\"spanId\"").count(), of_trace.len(), "{told}\n{names:?}");
    assert!(of_trace.len() >= 7, "{names:?}");
    assert!(of_trace.iter().all(|span| span.kind == 2 || span.parent_span_id == roots[0].span_id));
    // The transaction with the failure, and neither the other one nor any command around them.
    let others: BTreeSet<String> = receiver.spans().iter().map(|span| hex(&span.trace_id)).collect();
    assert_eq!(others.len(), 2, "{others:?}");
    let transaction = others.iter().find(|id| *id != TRACE).expect("the other");
    let commands = receiver.spans_of(transaction);
    let commands = commands.iter().filter(|span| span.name == of_trace[0].name).count();
    assert_eq!(commands, 4, "EXEC and its three commands");
}

/// P7: rates by the time of day.
#[test]
fn the_schedule_goes_over_the_rate() {
    for (schedule, rate, expected) in [("00:00-24:00=0.0", "1.0", false), ("00:00-24:00=1.0", "0.000000001", true)] {
        let arguments = ["--telemetry.sampling.schedule", schedule, "--telemetry.sample_rate", rate];
        let server = Server::start("", &[], &arguments);
        assert_eq!(server.connect().sampled("PING"), expected, "{schedule}");
    }
    let off = ["--telemetry.sampling.schedule", "00:00-24:00=1.0", "--telemetry.sample_rate", "0.0"];
    assert!(!Server::start("", &[], &off).connect().sampled("PING"), "off is off");
}

/// P3: of many commands about as many traces as were asked for, and failures before others.
#[test]
fn the_adaptive_sampler_follows_its_target() {
    let environment = [("OTEL_TRACES_SAMPLER", "adaptive"), ("OTEL_TRACES_SAMPLER_ARG", "50")];
    let receiver = Receiver::start();
    let arguments = ["--telemetry.span_detail", "command", "--telemetry.metrics_enabled", "false"];
    let server = Server::exporting(&receiver, "", &environment, &arguments);
    let mut client = server.connect();
    let batch = format!("{}NONSENSE", "PING\r\n".repeat(99));
    // Two seconds in which it learns, then three that count.
    let mut sent = 0;
    let run = |client: &mut receiver::Client, seconds: f64, sent: &mut usize| {
        let began = std::time::Instant::now();
        while began.elapsed().as_secs_f64() < seconds {
            client.ask(&batch);
            *sent += 100;
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        began.elapsed().as_secs_f64()
    };
    run(&mut client, 2.5, &mut sent);
    std::thread::sleep(std::time::Duration::from_millis(300));
    let before = receiver.spans().len();
    sent = 0;
    let seconds = run(&mut client, 3.0, &mut sent);
    server.stop();
    let spans = receiver.spans().split_off(before);
    let chosen = spans.len() as f64;
    // Twice and half: windows of a second, and a machine whose speed changes.
    assert!(
        sent > 1000 && chosen < 2.0 * 50.0 * seconds && chosen > 0.3 * 50.0 * seconds,
        "{chosen} of {sent} in {seconds}"
    );
    let failed = spans.iter().filter(|span| span.status.as_ref().is_some_and(|status| status.code == 2)).count();
    // One in a hundred fails; ten times as likely, they are about one in eleven.
    assert!(failed * 33 > spans.len(), "{failed} of {}", spans.len());
}

/// M4: the trace id where the client has no name, or as a field of its own.
#[test]
fn slowlog_entries_name_their_traces() {
    let slow = ["--server.slowlog_log_slower_than", "0"];
    let entry = |arguments: &[&str]| {
        let server = Server::start("", &[], &[&slow, arguments].concat());
        let mut client = server.connect();
        client.ask("SLOWLOG RESET");
        client.ask(&in_context("01", "SET k v"));
        let all = client.ask("SLOWLOG GET 10");
        let at = all.find("\r\nSET\r\n").expect("it is in the log");
        let start = all[..at].rfind("*6\r\n:").max(all[..at].rfind("*7\r\n:")).expect("an entry");
        let end = all[at..].find("\r\n*").map_or(all.len(), |end| at + end + 2);
        all[start..end].to_owned()
    };
    let auto = entry(&[]);
    assert!(auto.starts_with("*6\r\n") && auto.ends_with(&format!("$32\r\n{TRACE}\r\n")), "{auto}");
    let always = entry(&["--server.slowlog_trace_id", "always"]);
    assert!(always.starts_with("*7\r\n") && always.ends_with(&format!("$32\r\n{TRACE}\r\n").repeat(2)), "{always}");
}

/// M3: which commands write a line, where it comes from, and that each export shows.
#[test]
fn log_lines_name_the_family_of_the_command_and_slow_ones_alone_if_asked() {
    let slow = ["--server.slowlog_log_slower_than", "20000", "--server.enable_debug_command", "yes"];
    let server = Server::start("[logging]\ncommands = \"slow\"\n", &[], &slow);
    let mut client = server.connect();
    client.ask("SET quick v");
    client.ask("DEBUG SLEEP 0.05");
    server.line("\"command\":\"DEBUG");
    assert!(server.lines("quick").is_empty());
    drop(server);

    let server = Server::start("[logging]\ncommands = \"all\"\n", &[], &[]);
    let mut client = server.connect();
    client.ask("SET text v\r\nHSET hash f v\r\nDEL text\r\nDBSIZE");
    for (command, family) in [("SET", "strings"), ("HSET", "hashes"), ("DEL", "generic"), ("DBSIZE", "server")] {
        let line = server.line(&format!("\"command\":\"{command}\""));
        assert!(line.contains(&format!("\"target\":\"ferrite::commands::{family}\"")), "{line}");
        assert!(line.contains("\"level\":\"INFO\"") && line.contains("\"message\":\"Command executed\""), "{line}");
    }
}

#[test]
fn the_filter_of_the_documentation_shows_every_export() {
    let receiver = Receiver::start();
    let environment = [("RUST_LOG", "ferrite=debug,opentelemetry=debug")];
    let arguments = ["--telemetry.metrics_export_interval", "0.2"];
    let server = Server::exporting(&receiver, "", &environment, &arguments);
    server.connect().ask("SET k v");
    for signal in ["traces", "metrics", "logs"] {
        eventually(signal, || {
            let lines = server.lines("\"message\":\"exported\"");
            lines.into_iter().find(|line| line.contains(&format!("\"signal\":\"{signal}\"")))
        });
    }
    let log = server.stop();
    assert!(log.contains("\"level\":\"DEBUG\""), "{log}");
}

/// M5: the ratio in force is a metric.
#[test]
fn the_effective_ratio_is_told() {
    for (sampler, argument, ratio) in
        [("traceidratio", "0.25", "0.25"), ("always_off", "", "0"), ("always_on", "", "1")]
    {
        let free =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap().port();
        let environment = [("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)];
        let _server = Server::start("", &environment, &["--admin-port", &free.to_string()]);
        let page = http_get(free, "/metrics");
        let expected = format!("ferrite_telemetry_sampling_ratio {ratio}");
        assert!(page.lines().any(|line| line == expected), "{sampler}: {page}");
    }
}

fn http_get(port: u16, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// C1: keys of the file have an effect on the wire.
#[test]
fn what_the_file_says_is_what_is_sent() {
    let receiver = Receiver::start();
    let file = format!(
        "[telemetry]\nenabled = true\nprotocol = \"http\"\nendpoint = \"{}\"\nservice_name = \"cache\"\nservice_version = \"7.1\"\n\
         service_namespace = \"shop\"\nbatch_size = 4\nbatch_timeout_ms = 60000\nlogs_enabled = false\n\
         metrics_export_interval = 0.2\n\
         [telemetry.resource_attributes]\n\"deployment.environment\" = \"production\"\n\
         [telemetry.headers]\n\"Authorization\" = \"Bearer ${{OTEL_AUTH_TOKEN}}\"\n",
        receiver.endpoint
    );
    let server = Server::start(&file, &[("OTEL_AUTH_TOKEN", "t0ken")], &["--logging.commands", "all"]);
    // Whole batches go at once, whatever the time-out.
    server.connect().ask("SET k v\r\nGET k");
    eventually("a batch is full", || (receiver.requests("traces").len() > 1).then_some(()));
    eventually("metrics", || (!receiver.requests("metrics").is_empty()).then_some(()));
    server.stop();
    for signal in ["traces", "metrics"] {
        let resource = receiver.resource(signal);
        for (key, value) in [
            ("service.name", "cache"),
            ("service.version", "7.1"),
            ("service.namespace", "shop"),
            ("deployment.environment", "production"),
        ] {
            assert_eq!(resource[key], format!("Some(StringValue({value:?}))"), "{signal} {key}");
        }
        for request in receiver.requests(signal) {
            assert_eq!(request.headers["authorization"], "Bearer t0ken");
        }
    }
    let sizes: Vec<usize> = receiver.requests("traces").iter().map(|request| request.spans().len()).collect();
    assert!(sizes.iter().all(|size| (1..=4).contains(size)), "{sizes:?}");
    assert!(receiver.requests("logs").is_empty(), "logs are not enabled");
}

/// The specification's variable: a smaller queue makes smaller batches, and says so.
#[test]
fn a_queue_smaller_than_a_batch_is_told_and_exports_all_the_same() {
    let receiver = Receiver::start();
    let server = Server::exporting(&receiver, "", &[("OTEL_BSP_MAX_QUEUE_SIZE", "40")], &[]);
    server.line("telemetry.batch_size is 512, more than telemetry.queue_size has room for; it is 40 instead");
    server.connect().ask("SET k v");
    server.stop();
    let requests = receiver.requests("traces");
    assert!(!requests.is_empty() && requests.iter().all(|request| request.spans().len() <= 40));
}

/// C4: letter for letter.
#[test]
fn the_version_names_its_features_exactly() {
    let said = |arguments: &[&str]| {
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_ferrite")).env_clear().args(arguments).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty());
        String::from_utf8(output.stdout).unwrap()
    };
    let version = env!("CARGO_PKG_VERSION");
    assert!(version.starts_with("1."));
    assert_eq!(said(&["--version"]), format!("ferrite {version}\n"));
    let optional = [("io-uring", cfg!(feature = "io-uring")), ("tls", cfg!(feature = "tls"))];
    let present =
        optional.iter().filter(|(_, present)| *present).map(|(name, _)| format!(", {name}")).collect::<String>();
    assert_eq!(said(&["--version", "--features"]), format!("ferrite {version} (features: otel{present})\n"));
}

/// The admin port holds no connection that asks for nothing, and has room for one that does.
#[test]
fn connections_to_the_admin_port_that_ask_for_nothing_are_closed() {
    use std::io::{Read, Write};
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap().port();
    let server = Server::start("", &[], &["--admin-port", &free.to_string()]);
    let connect = || std::net::TcpStream::connect(("127.0.0.1", free)).unwrap();
    // Half a head, as of an attacker who has time.
    let mut slow = connect();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost: loc").unwrap();
    let silent: Vec<_> = (0..200).map(|_| connect()).collect();
    assert!(http_get(free, "/healthz").ends_with("ok\n"), "there is room");
    slow.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let began = std::time::Instant::now();
    let mut byte = [0];
    // Closed, or reset: either way nothing comes.
    assert!(!matches!(slow.read(&mut byte), Ok(1)));
    assert!(began.elapsed().as_secs() < 25, "the oldest went first, or after its time");
    let mut closed = 0;
    for mut stream in silent {
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        closed += usize::from(
            !matches!(stream.read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
        );
    }
    assert_eq!(closed, 200);
    assert!(http_get(free, "/healthz").ends_with("ok\n"));
    server.stop();
}
