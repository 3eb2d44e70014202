//! What is refused, and with which words: clients, lengths, passwords, ports, directories.

#![allow(clippy::disallowed_methods)]

use std::process::Output;

use ferrite_conformance::process::{Server, ferrite_command};

/// Both servers with the same limit, in each one's way to say it.
fn pair(ferrite: &[&str], redis: &[&str]) -> (Server, Server) {
    (Server::ferrite(&[ferrite, &["--workers", "1"]].concat()), Server::redis(redis))
}

#[test]
fn one_client_too_many_is_told_so_and_closed() {
    let (ferrite, redis) = pair(&["--server.maxclients", "3"], &["--maxclients", "3"]);
    let answers: Vec<Vec<u8>> = [&ferrite, &redis]
        .map(|server| {
            let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
            // The probe of the start may not be gone yet: at most one of the three is refused for it.
            clients.retain_mut(|client| client.call(&["PING"]).is_ok_and(|reply| reply == b"+PONG\r\n"));
            while clients.len() < 3 {
                let mut client = server.connect();
                if client.call(&["PING"]).is_ok_and(|reply| reply == b"+PONG\r\n") {
                    clients.push(client);
                }
            }
            let refused = server.connect().rest().expect("closed by the server");
            assert!(clients.iter_mut().all(|client| client.call(&["PING"]).is_ok()), "the others go on");
            refused
        })
        .into();
    assert_eq!(answers[0], b"-ERR max number of clients reached\r\n");
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn an_argument_longer_than_proto_max_bulk_len_is_refused() {
    let (ferrite, redis) = pair(&["--server.proto_max_bulk_len", "1048576"], &["--proto-max-bulk-len", "1048576"]);
    for (server, name) in [(&ferrite, "ferrite"), (&redis, "redis")] {
        let mut connection = server.connect();
        let longest = vec![b'x'; 1 << 20];
        let echoed = connection.call(&[b"ECHO".as_slice(), &longest]).expect("ECHO answers");
        assert_eq!(echoed.len(), longest.len() + "$1048576\r\n\r\n".len(), "{name}");
        connection.send(b"*2\r\n$4\r\nECHO\r\n$1048577\r\n").expect("it is read");
        assert_eq!(connection.rest().expect("closed"), b"-ERR Protocol error: invalid bulk length\r\n", "{name}");
        // What a command makes counts too.
        let mut connection = server.connect();
        let reply = connection.call(&["SETRANGE", "k", "1048576", "x"]).expect("SETRANGE answers");
        assert_eq!(reply, b"-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n", "{name}");
    }
}

#[test]
fn a_password_is_asked_for_as_redis_does() {
    let (ferrite, redis) = pair(&["--server.requirepass", "secret"], &["--requirepass", "secret"]);
    for requests in [
        "PING\r\nGET a\r\nnosuch\r\nGET\r\nMULTI\r\nSELECT 1\r\nCLIENT ID\r\n",
        "AUTH\r\nAUTH wrong\r\nGET a\r\nAUTH default wrong\r\nAUTH nobody secret\r\nAUTH a b c\r\n",
        "AUTH secret\r\nGET a\r\nAUTH wrong\r\nGET a\r\nRESET\r\nGET a\r\n",
        "AUTH default secret\r\nGET a\r\n",
        "HELLO\r\nHELLO 2\r\nHELLO 3 AUTH default wrong\r\nGET a\r\n",
        "HELLO 9\r\nQUIT\r\n",
        "*11\r\n",
        "*2\r\n$4\r\nECHO\r\n$16385\r\n",
        "AUTH secret\r\n*2\r\n$4\r\nECHO\r\n$5\r\nhello\r\n",
    ] {
        let [ours, theirs] = [&ferrite, &redis].map(|server| {
            let mut connection = server.connect();
            connection.send(requests.as_bytes()).expect("it is read");
            connection.finish_sending().expect("it is open");
            connection.rest().expect("closed").escape_ascii().to_string()
        });
        // 7.2 names HELLO's first argument, which cannot be left out.
        let theirs = theirs.replace("the HELLO AUTH <user>", "the HELLO <proto> AUTH <user>");
        assert_eq!(ours, theirs, "{requests:?}");
    }
}

/// Starts a second Ferrite that cannot run; its end.
fn refused(arguments: &[&str]) -> (Output, String) {
    let output =
        ferrite_command().args(["--admin.enabled", "false"]).args(arguments).output().expect("it is a program");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "{text}");
    (output, text)
}

#[test]
fn a_busy_port_stops_the_start_and_names_the_option() {
    let server = Server::ferrite(&[]);
    let other = tempfile::tempdir().expect("a directory");
    let (_, text) =
        refused(&["--port", &server.address.port().to_string(), "--dir", &other.path().display().to_string()]);
    assert!(text.contains("--port") && text.contains(&server.address.to_string()), "{text}");
    assert_eq!(server.connect().call(&["PING"]).expect("the first goes on"), b"+PONG\r\n");
}

#[test]
fn a_directory_in_use_stops_the_start() {
    let server = Server::ferrite(&[]);
    let data = server.data().display().to_string();
    let (_, text) = refused(&["--port", "0", "--dir", &data]);
    assert!(text.contains(&data) && text.contains("in use"), "{text}");
    assert_eq!(server.connect().call(&["SET", "a", "1"]).expect("the first goes on"), b"+OK\r\n");
}
