//! `redis-cli` and `redis-benchmark` work against Ferrite.

#![allow(clippy::disallowed_methods)]

use std::process::Command;

use ferrite_conformance::process::Server;

/// Runs a tool of Redis's against `server`; its output, which names no error.
fn run(server: &Server, tool: &str, arguments: &[&str]) -> String {
    let port = server.address.port().to_string();
    let output = Command::new(tool)
        .args(["-h", "127.0.0.1", "-p", &port])
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{tool}: {error} (Debian package redis-tools; `ci/setup` installs it)"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {}\n{text}\n{errors}", output.status);
    for word in ["ERR", "Error", "WARNING"] {
        assert!(!text.contains(word) && !errors.contains(word), "{tool} {arguments:?}:\n{text}\n{errors}");
    }
    text
}

#[test]
fn redis_cli_speaks_both_protocols() {
    let mut server = Server::ferrite(&["--workers", "2"]);
    assert_eq!(run(&server, "redis-cli", &["SET", "greeting", "hello"]), "OK\n");
    assert_eq!(run(&server, "redis-cli", &["-3", "GET", "greeting"]), "hello\n");
    assert_eq!(run(&server, "redis-cli", &["-n", "1", "EXISTS", "greeting"]), "0\n");
    assert_eq!(run(&server, "redis-cli", &["-r", "3", "INCR", "counter"]), "1\n2\n3\n");
    assert_eq!(run(&server, "redis-cli", &["--scan", "--pattern", "c*"]), "counter\n");
    assert!(run(&server, "redis-cli", &["INFO", "server"]).contains("redis_version:7.2"));
    server.assert_sound();
}

#[test]
fn redis_benchmark_runs_pipelined_and_with_many_clients() {
    let mut server = Server::ferrite(&["--workers", "2"]);
    for shape in [["-P", "16"], ["-c", "50"]] {
        let arguments = [&["-t", "set,get,incr,mset", "-n", "10000", "-r", "1000", "-q"], &shape[..]].concat();
        let text = run(&server, "redis-benchmark", &arguments);
        for command in ["SET: ", "GET: ", "INCR: ", "MSET (10 keys): "] {
            let line = text.split(['\r', '\n']).rfind(|line| line.starts_with(command));
            assert!(line.is_some_and(|line| line.contains("requests per second")), "{command}\n{text}");
        }
    }
    server.assert_sound();
}
