//! What spans and log lines say of keys and other attributes, as it is configured.

#![allow(clippy::disallowed_methods)]

use ferrite_conformance::process::Server;

/// The text tree of `SET secret:key value`, and the log after it.
fn told(arguments: &[&str]) -> (String, String) {
    let all = [&["--workers", "1", "--logging.commands", "all"], arguments].concat();
    let mut server = Server::ferrite(&all);
    let mut connection = server.connect();
    connection.call(&["SET", "secret:key", "secret-value"]).expect("SET answers");
    let tree = connection.call(&["OTEL.TRACES", "LAST"]).expect("OTEL.TRACES answers");
    let tree = String::from_utf8(tree).expect("UTF-8");
    let began = std::time::Instant::now();
    while !server.log().contains("\"SET\"") {
        assert!(began.elapsed().as_secs() < 20, "{}", server.log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    server.assert_sound();
    let log = server.log();
    assert!(!tree.contains("secret-value") && !log.contains("secret-value"), "{tree}\n{log}");
    (tree, log)
}

#[test]
fn keys_are_shown_hashed_or_dropped_alike_in_spans_and_log_lines() {
    let (tree, log) = told(&[]);
    assert!(tree.contains("db.statement: SET secret:key ...") && log.contains("secret:key"), "{tree}\n{log}");

    let (tree, log) = told(&["--telemetry.redaction.keys", "hash", "--telemetry.redaction.salt", "s"]);
    assert!(!tree.contains("secret") && !log.contains("secret:"), "{tree}\n{log}");
    let at = tree.find("ferrite.command.key: #").expect("a hash") + "ferrite.command.key: ".len();
    let hash = &tree[at..at + 17];
    assert!(tree.contains(&format!("db.statement: SET {hash} ...")) && log.contains(hash), "{tree}\n{log}");

    let (tree, log) = told(&["--telemetry.redaction.keys", "drop"]);
    assert!(!tree.contains("secret") && !log.contains("secret:"), "{tree}\n{log}");
    assert!(tree.contains("db.statement: SET ...") && !tree.contains("ferrite.command.key"), "{tree}");
}

#[test]
fn masked_attributes_are_named_but_not_told() {
    let masked = "db.statement,ferrite.command.key,net.peer.ip";
    let (tree, log) = told(&["--telemetry.redaction.attributes", masked]);
    for line in ["db.statement: [REDACTED]", "ferrite.command.key: [REDACTED]", "net.peer.ip: [REDACTED]"] {
        assert!(tree.contains(line), "{line}: {tree}");
    }
    let line = log.lines().find(|line| line.contains("\"SET\"")).expect("it was logged");
    assert!(line.contains("\"key\":\"[REDACTED]\"") && line.contains("\"client_addr\":\"[REDACTED]\""), "{line}");
}

#[test]
fn a_masked_value_is_masked_under_the_names_of_either_convention() {
    let convention = ["--telemetry.semconv_stability_opt_in", "database"];
    let both = ["--telemetry.semconv_stability_opt_in", "database/dup"];
    for masked in ["db.statement,net.peer.ip", "db.query.text,network.peer.address"] {
        for opt_in in [&[][..], &convention, &both] {
            let (tree, log) = told(&[opt_in, &["--telemetry.redaction.attributes", masked]].concat());
            let values = ["db.statement: ", "db.query.text: ", "net.peer.ip: ", "network.peer.address: "];
            let told: Vec<&str> = tree.lines().filter(|line| values.iter().any(|name| line.contains(name))).collect();
            let expected = if opt_in == both { 4 } else { 2 };
            assert_eq!(told.len(), expected, "{tree}");
            assert!(told.iter().all(|line| line.ends_with(": [REDACTED]")), "{tree}");
            let line = log.lines().find(|line| line.contains("\"SET\"")).expect("it was logged");
            assert!(line.contains("\"client_addr\":\"[REDACTED]\""), "{line}");
        }
    }
}

#[test]
fn the_stable_conventions_and_the_limits_shape_what_is_told() {
    let (tree, _) = told(&["--telemetry.semconv_stability_opt_in", "database"]);
    for line in [
        "db.system.name: ferrite",
        "db.operation.name: SET",
        "db.query.text: SET secret:key ...",
        "network.peer.address: ",
    ] {
        assert!(tree.contains(line), "{line}: {tree}");
    }
    assert!(!tree.contains("db.statement") && !tree.contains("net.peer.ip"), "{tree}");
    let (tree, _) = told(&["--telemetry.limits.attribute_value_length", "5"]);
    assert!(tree.contains("db.statement: SET …") && tree.contains("db.system: ferr…"), "{tree}");
    let (tree, _) = told(&["--telemetry.limits.attribute_count", "1"]);
    assert!(tree.contains("db.system: ferrite") && !tree.contains("db.statement"), "{tree}");
}
