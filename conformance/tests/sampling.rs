//! What decides whether a trace is exported, as a client sees it in the first line of `OTEL.TRACES LAST`.

#![allow(clippy::disallowed_methods)]

use ferrite_conformance::process::Server;
use ferrite_conformance::wire::Connection;

const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

fn server(arguments: &[&str]) -> Server {
    Server::ferrite(&[&["--workers", "1"], arguments].concat())
}

/// Whether the trace of this command is sampled; a caller's context goes in front of it with OTEL.TRACE.
fn sampled(connection: &mut Connection, command: &str) -> bool {
    let words: Vec<&str> = command.split(' ').collect();
    connection.call(&words).expect("the server answers");
    let trace = connection.call(&["OTEL.TRACES", "LAST"]).expect("OTEL.TRACES answers");
    !String::from_utf8_lossy(&trace).contains("(not sampled)")
}

/// How many of 1000.
fn count(connection: &mut Connection, command: &str) -> usize {
    (0..1000).filter(|_| sampled(connection, command)).count()
}

fn set(connection: &mut Connection, name: &str, value: &str) -> String {
    let reply = connection.call(&["CONFIG", "SET", name, value]).expect("CONFIG SET answers");
    String::from_utf8(reply).expect("UTF-8")
}

#[test]
fn the_tail_keeps_failures_and_slow_commands_unless_the_caller_or_the_switch_is_against_it() {
    let tail = ["--telemetry.sampler", "parentbased_traceidratio", "--telemetry.sample_rate", "0.0001"];
    let rules = ["--telemetry.tail.errors", "true", "--telemetry.tail.slow_ms", "50"];
    let server = server(&[&tail[..], &rules].concat());
    let mut connection = server.connect();
    assert!(count(&mut connection, "PING") < 10);
    assert!(sampled(&mut connection, "NONSENSE"));
    assert!(sampled(&mut connection, "DEBUG SLEEP 0.06"));
    assert!(!sampled(&mut connection, &format!("OTEL.TRACE {UNSAMPLED} NONSENSE")));
    assert!(sampled(&mut connection, &format!("OTEL.TRACE {SAMPLED} PING")));
    // Off is off.
    assert_eq!(set(&mut connection, "telemetry-sample-rate", "0"), "+OK\r\n");
    assert!(!sampled(&mut connection, "NONSENSE"));
    assert!(!sampled(&mut connection, "DEBUG SLEEP 0.06"));
    assert_eq!(set(&mut connection, "telemetry-tail-override-parent", "yes"), "+OK\r\n");
    assert!(sampled(&mut connection, "NONSENSE"));
    assert!(sampled(&mut connection, &format!("OTEL.TRACE {UNSAMPLED} NONSENSE")));
    assert!(!sampled(&mut connection, "PING"));
}

#[test]
fn the_tail_asks_for_attributes() {
    let rules = "ferrite.command.key=session:*,ferrite.command.name=dbsize";
    let server = server(&["--telemetry.sample_rate", "0.0001", "--telemetry.tail.attributes", rules]);
    let mut connection = server.connect();
    assert!(sampled(&mut connection, "GET session:1"));
    assert!(sampled(&mut connection, "DBSIZE"));
    assert!(count(&mut connection, "GET user:1") < 10);
    let refused = set(&mut connection, "telemetry-tail-attributes", "ferrite.aof.bytes=1");
    assert!(refused.starts_with("-ERR CONFIG SET failed") && refused.contains("ferrite.aof.bytes"), "{refused}");
    assert_eq!(set(&mut connection, "telemetry-tail-attributes", "ferrite.storage.tier=mutable"), "+OK\r\n");
    assert!(!sampled(&mut connection, "GET session:1"));
    assert!(sampled(&mut connection, "SET session:1 x"));
}

#[test]
fn commands_and_tenants_have_rates_of_their_own() {
    let server = server(&[
        "--telemetry.sampling.commands",
        "ping=0.0,DBSIZE=1.0",
        "--telemetry.sampling.tenants",
        "acme=0.5,noisy=0.0",
        "--telemetry.baggage_extraction",
        "true",
        "--telemetry.baggage_allowed_keys",
        "tenant.id",
    ]);
    let mut connection = server.connect();
    assert!(!sampled(&mut connection, &format!("OTEL.TRACE {SAMPLED} PING")));
    assert!(sampled(&mut connection, "ECHO x"));
    let mut of_tenant = |tenant: &str| {
        let member = format!("tenant.id={tenant}");
        let bytes = format!("|1\r\n$7\r\nbaggage\r\n${}\r\n{member}\r\n*2\r\n$4\r\nECHO\r\n$1\r\nx\r\n", member.len());
        let one = |connection: &mut Connection| {
            connection.send(bytes.as_bytes()).expect("the server takes what is sent");
            connection.reply().expect("ECHO answers");
            let trace = connection.call(&["OTEL.TRACES", "LAST"]).expect("OTEL.TRACES answers");
            !String::from_utf8_lossy(&trace).contains("(not sampled)")
        };
        (0..1000).filter(|_| one(&mut connection)).count()
    };
    assert_eq!((of_tenant("noisy"), of_tenant("other")), (0, 1000));
    // Six standard deviations of a binomial distribution.
    assert!(of_tenant("acme").abs_diff(500) < 95);
}

#[test]
fn the_sampler_changes_while_the_server_runs_and_config_get_shows_it() {
    let server = server(&[]);
    let mut connection = server.connect();
    assert!(sampled(&mut connection, "PING"));
    assert_eq!(set(&mut connection, "telemetry-sample-rate", "0.25"), "+OK\r\n");
    assert!(count(&mut connection, "PING").abs_diff(250) < 83);
    let refused = set(&mut connection, "telemetry-sampler", "sometimes");
    assert!(refused.contains("none of always_on"), "{refused}");
    assert_eq!(set(&mut connection, "telemetry-sampler", "parentbased_always_off"), "+OK\r\n");
    assert!(!sampled(&mut connection, "PING") && sampled(&mut connection, &format!("OTEL.TRACE {SAMPLED} PING")));
    let shown = connection.call(&["CONFIG", "GET", "telemetry-sampl*"]).expect("CONFIG GET answers");
    let shown = String::from_utf8(shown).expect("UTF-8");
    assert!(shown.contains("telemetry-sampler\r\n$22\r\nparentbased_always_off\r\n"), "{shown}");
    assert!(shown.contains("telemetry-sample-rate\r\n$4\r\n0.25\r\n"), "{shown}");
    for (name, value) in
        [("telemetry-sample-rate", "2"), ("telemetry-sampling-schedule", "8-9=1"), ("telemetry-tail-slow-ms", "-1")]
    {
        assert!(set(&mut connection, name, value).starts_with("-ERR CONFIG SET failed"), "{name} {value}");
    }
}

#[test]
fn so_many_traces_a_second_and_no_more() {
    let server = server(&["--telemetry.sampler", "rate_limited", "--telemetry.sampler_arg", "5"]);
    let mut connection = server.connect();
    let began = std::time::Instant::now();
    let chosen = count(&mut connection, "PING");
    // A second's worth at once, then five a second; reading a trace is a command too.
    let most = 5.0 + 5.0 * began.elapsed().as_secs_f64() + 1.0;
    assert!(chosen >= 1 && chosen as f64 <= most, "{chosen} of at most {most}");
}

#[test]
fn callers_beyond_the_limit_are_counted_and_told_of_once() {
    let server = server(&["--telemetry.sampler", "parentbased_always_off", "--telemetry.sampling.parent_limit", "5"]);
    let mut connection = server.connect();
    let chosen = count(&mut connection, &format!("OTEL.TRACE {SAMPLED} PING"));
    assert!((1..500).contains(&chosen), "{chosen}");
    let began = std::time::Instant::now();
    while !server.log().contains("parent_limit") {
        assert!(began.elapsed().as_secs() < 20, "{}", server.log());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
