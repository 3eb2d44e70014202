//! The caller's trace context in every format that can be configured, as a client sees it come back from `OTEL.TRACES`.

#![allow(clippy::disallowed_methods)]

use ferrite_conformance::process::Server;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// A command with these attributes in front.
fn with_attributes(attributes: &[(&str, &str)], command: &[&str]) -> Vec<u8> {
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let mut bytes = format!("|{}\r\n", attributes.len());
    for (key, value) in attributes {
        bytes += &bulk(key);
        bytes += &bulk(value);
    }
    bytes += &format!("*{}\r\n", command.len());
    bytes.extend(command.iter().map(|argument| bulk(argument)));
    bytes.into_bytes()
}

/// The text tree of a GET with these attributes, sent to a server with these arguments.
fn tree_of(server: &Server, attributes: &[(&str, &str)]) -> String {
    let mut connection = server.connect();
    connection.send(&with_attributes(attributes, &["GET", "key"])).expect("the server takes what is sent");
    assert_eq!(connection.reply().expect("a context never fails a command"), b"$-1\r\n");
    let trace = connection.call(&["OTEL.TRACES", "LAST"]).expect("OTEL.TRACES answers");
    String::from_utf8(trace).expect("UTF-8")
}

fn belongs_to_the_caller(tree: &str) -> bool {
    let (trace, parent) = (tree.contains(&format!("trace {TRACE}")), tree.contains(&format!("|-- parent: {SPAN}")));
    assert_eq!(trace, parent, "{tree}");
    trace
}

#[test]
fn every_propagator_reads_its_format_and_no_other() {
    let traceparent = format!("00-{TRACE}-{SPAN}-01");
    let b3 = format!("{TRACE}-{SPAN}-1");
    let uber = format!("{TRACE}:{}:0:1", SPAN.trim_start_matches('0'));
    let xray = format!("Root=1-{}-{};Parent={SPAN};Sampled=1", &TRACE[..8], &TRACE[8..]);
    let carriers: [(&str, Vec<(&str, &str)>); 5] = [
        ("tracecontext", vec![("traceparent", &traceparent)]),
        ("b3", vec![("b3", &b3)]),
        ("b3multi", vec![("X-B3-TraceId", TRACE), ("X-B3-SpanId", SPAN), ("X-B3-Sampled", "1")]),
        ("jaeger", vec![("uber-trace-id", &uber)]),
        ("xray", vec![("X-Amzn-Trace-Id", &xray)]),
    ];
    let readers = ["tracecontext", "b3", "b3multi", "jaeger", "xray", "none", "baggage", "", "xray, JAEGER"];
    for propagators in readers {
        let mut server = Server::ferrite(&["--workers", "1", "--telemetry.propagators", propagators]);
        for (format, attributes) in &carriers {
            let tree = tree_of(&server, attributes);
            let reads = match propagators {
                "" => *format == "tracecontext",
                "xray, JAEGER" => matches!(*format, "xray" | "jaeger"),
                "b3" | "b3multi" => format.starts_with("b3"),
                one => one == *format,
            };
            assert_eq!(belongs_to_the_caller(&tree), reads, "{propagators:?} reads {format}: {tree}");
        }
        server.assert_sound();
    }
}

#[test]
fn an_unknown_propagator_is_named_in_the_log_and_the_others_count() {
    let server = Server::ferrite(&["--workers", "1", "--telemetry.propagators", "ottrace,b3"]);
    let tree = tree_of(&server, &[("b3", &format!("{TRACE}-{SPAN}-0"))]);
    assert!(belongs_to_the_caller(&tree), "{tree}");
    let log = server.log();
    assert_eq!(log.matches("OTEL_PROPAGATORS names").count(), 1, "{log}");
    assert!(log.contains("ottrace"), "{log}");
}

#[test]
fn baggage_becomes_attributes_only_where_it_is_allowed() {
    let attributes =
        [("baggage", "tenant.id=acme-corp,user.id=Am%C3%A9lie;p=1"), ("baggage", "secret=x,bad member,request.id=7")];
    let off = Server::ferrite(&["--workers", "1", "--telemetry.baggage_allowed_keys", "tenant.id"]);
    let tree = tree_of(&off, &attributes);
    assert!(!tree.contains("tenant.id"), "{tree}");

    let keys = "tenant.id,tenant.tier,user.id,request.id";
    let on = Server::ferrite(&[
        "--workers",
        "1",
        "--telemetry.baggage_extraction",
        "true",
        "--telemetry.baggage_allowed_keys",
        keys,
    ]);
    let tree = tree_of(&on, &attributes);
    let spans = tree.matches("ferrite.").count() - tree.matches("|-- ferrite.").count();
    for expected in ["tenant.id: acme-corp", "user.id: Amélie", "request.id: 7"] {
        assert_eq!(tree.matches(&format!("|-- {expected}")).count(), spans, "{expected}: {tree}");
    }
    assert!(!tree.contains("secret") && !tree.contains("tenant.tier"), "{tree}");
    // The next command has none.
    assert!(!tree_of(&on, &[("traceparent", "nonsense")]).contains("tenant.id"));
}

#[test]
fn the_wrapper_carries_baggage_which_is_nearer_than_the_attribute_s() {
    let allowed = ["--telemetry.baggage_extraction", "true", "--telemetry.baggage_allowed_keys", "tenant.id"];
    // What is named W3C's by its place in the wrapper is not a propagator's to read.
    let server = Server::ferrite(&[&["--workers", "1", "--telemetry.propagators", "none"], &allowed[..]].concat());
    let traceparent = format!("00-{TRACE}-{SPAN}-01");
    let tree_of = |attributes: &[(&str, &str)], headers: &[&str]| {
        let command = [&["OTEL.TRACE", &traceparent], headers, &["GET", "key"]].concat();
        let mut connection = server.connect();
        connection.send(&with_attributes(attributes, &command)).expect("the server takes what is sent");
        assert_eq!(connection.reply().expect("a context never fails a command"), b"$-1\r\n");
        let tree = connection.call(&["OTEL.TRACES", "LAST"]).expect("OTEL.TRACES answers");
        let tree = String::from_utf8(tree).expect("UTF-8");
        assert!(belongs_to_the_caller(&tree), "{tree}");
        tree
    };
    for headers in [&["vendor=1", "tenant.id=acme,secret=x"], &["", "tenant.id=acme,secret=x"]] {
        let tree = tree_of(&[("baggage", "tenant.id=other")], headers);
        assert!(tree.contains("tenant.id: acme") && !tree.contains("secret"), "{tree}");
    }
    assert!(!tree_of(&[], &["vendor=1", ""]).contains("tenant.id"));
    assert!(!tree_of(&[], &["tenant.id=acme"]).contains("tenant.id"), "alone it is the tracestate");
}

#[test]
fn the_connection_s_baggage_goes_with_its_context() {
    let allowed = ["--telemetry.baggage_extraction", "true", "--telemetry.baggage_allowed_keys", "tenant.id"];
    let server = Server::ferrite(&[&["--workers", "1"], &allowed[..]].concat());
    let traceparent = format!("00-{TRACE}-{SPAN}-01");
    let mut connection = server.connect();
    let set = ["OTEL.CONTEXT", "SET", &traceparent, "", "tenant.id=acme,secret=x"];
    assert_eq!(connection.call(&set).expect("an answer"), b"+OK\r\n");
    let mut tree_of = |attributes: &[(&str, &str)]| {
        connection.send(&with_attributes(attributes, &["GET", "key"])).expect("the server takes what is sent");
        assert_eq!(connection.reply().expect("a context never fails a command"), b"$-1\r\n");
        let tree = server.connect().call(&["OTEL.TRACES", "LAST"]).expect("OTEL.TRACES answers");
        String::from_utf8(tree).expect("UTF-8")
    };
    let tree = tree_of(&[]);
    assert!(belongs_to_the_caller(&tree) && tree.contains("tenant.id: acme") && !tree.contains("secret"), "{tree}");
    let tree = tree_of(&[("baggage", "tenant.id=nearer")]);
    assert!(belongs_to_the_caller(&tree) && tree.contains("tenant.id: nearer"), "{tree}");
    let own = tree_of(&[("traceparent", &format!("00-{}-{}-01", "1".repeat(32), "2".repeat(16)))]);
    assert!(!belongs_to_the_caller(&own) && !own.contains("tenant.id"), "another caller's context: {own}");
}

#[test]
fn a_caller_s_request_id_is_in_its_command_s_log_line() {
    let allowed = ["--telemetry.baggage_extraction", "true", "--telemetry.baggage_allowed_keys", "request.id"];
    let arguments = [&["--workers", "1", "--logging.commands", "all"], &allowed[..]].concat();
    let server = Server::ferrite(&arguments);
    tree_of(&server, &[("baggage", "request.id=r%2D17,other=1")]);
    tree_of(&server, &[]);
    let began = std::time::Instant::now();
    while server.log().matches("OTEL.TRACES").count() < 2 {
        assert!(began.elapsed().as_secs() < 20, "{}", server.log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let log = server.log();
    assert_eq!(log.matches("\"request_id\":\"r-17\"").count(), 1, "{log}");
    assert_eq!(log.matches("request_id").count(), 1, "{log}");
    // A name that is to be masked is masked here too.
    let masked = [&arguments[..], &["--telemetry.redaction.attributes", "request.id"]].concat();
    let server = Server::ferrite(&masked);
    tree_of(&server, &[("baggage", "request.id=r%2D17")]);
    let began = std::time::Instant::now();
    while !server.log().contains("request_id") {
        assert!(began.elapsed().as_secs() < 20, "{}", server.log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(!server.log().contains("r-17"), "{}", server.log());
}
