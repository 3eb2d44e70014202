//! Raw bytes against both servers: the replies, and whether the connection is closed, are the same byte for byte.

#![allow(clippy::disallowed_methods)]

use ferrite_conformance::process::Server;
use ferrite_conformance::wire::Connection;

/// What comes back for `bytes` in pieces of `piece`. `closes`: the server is to close the connection by itself.
fn answer(server: &Server, bytes: &[u8], piece: usize, closes: bool) -> Vec<u8> {
    let mut connection = server.connect();
    for part in bytes.chunks(piece) {
        connection.send(part).expect("the server takes what is sent");
    }
    if !closes {
        connection.finish_sending().expect("the server has not closed");
    }
    connection.rest().unwrap_or_else(|error| panic!("{}: {error}", bytes.escape_ascii()))
}

fn ping(connection: &mut Connection) {
    assert_eq!(connection.call(&["PING"]).expect("another connection lives on"), b"+PONG\r\n");
}

fn same_answers(cases: &[&[u8]], closes: bool) {
    let (mut ferrite, redis) = (Server::ferrite(&["--workers", "1"]), Server::redis(&[]));
    let mut other = ferrite.connect();
    for case in cases {
        ping(&mut other);
        let theirs = answer(&redis, case, usize::MAX, closes);
        let ours = answer(&ferrite, case, usize::MAX, closes);
        let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
        assert_eq!(show(&ours), show(&theirs), "{}", show(case));
        if case.len() < 200 {
            // What the network does to the bytes changes nothing. FLUSHALL: the case has run before.
            other.call(&["FLUSHALL"]).expect("FLUSHALL answers");
            let bytewise = answer(&ferrite, case, 1, closes);
            assert_eq!(show(&bytewise), show(&theirs), "byte by byte: {}", show(case));
        }
        for server in [&ferrite, &redis] {
            server.connect().call(&["FLUSHALL"]).expect("FLUSHALL answers");
        }
    }
    ping(&mut other);
    ferrite.assert_sound();
}

#[test]
fn commands_in_every_form() {
    same_answers(
        &[
            b"PING\r\n",
            b"PING\n",
            b"\r\n\r\n\nPING\r\n",
            b"  \t PING \t hello  \r\n",
            b"SET a \"b c\\x41\\n\\r\\t\\a\\b\\q\\\\\"\r\nGET a\r\n",
            b"SET a 'it\\'s \\n'\r\nGET a\r\n",
            b"SET a x\"y z\"\r\nGET a\r\n",
            b"SET \"\" ''\r\nGET ''\r\n",
            b"*0\r\nPING\r\n",
            b"*-1\r\nPING\r\n",
            b"*-5\r\nPING\r\n",
            b"*1\r\n$4\r\nPING\r\nPING\r\n*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
            b"*2\r\n$4\r\nECHO\r\n$4\r\n\r\n\0\xff\r\n",
            b"*2\r\n$4\r\nECHO\r\n$2\r\nabXXPING\r\n",
            b"*1\rX$4\rXPINGXX",
            // Half commands: nothing is answered, the connection ends in silence.
            b"PING",
            b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nhel",
            b"*3\r\n$3\r\nSET",
            b"*",
            b"*2147483647\r\n$4\r\nECHO\r\n",
            b"PING\r\n*2\r\n$4\r\nECHO\r\n$",
            // Errors that are no protocol errors.
            b"nosuch\r\nPING\r\n",
            b"nosuch a b c\r\n",
            b"nosuch \"a\\r\\nb\" 'c'\r\n",
            b"*1\r\n$0\r\n\r\n",
            b"*2\r\n$5\r\nno\r\nx\r\n$3\r\n\r\n\0\r\n",
            b"*2\r\n$3\r\nn\xffo\r\n$1\r\n\xfe\r\n",
            b"GET\r\nGET a b\r\nSET a\r\n",
            b"CLIENT nosuch\r\nCLIENT\r\nCONFIG nosuch a\r\nOBJECT\r\n",
            b"HELLO 2 SETNAME\r\nHELLO 4\r\nHELLO x\r\nHELLO 3 AUTH a\r\nHELLO 3 what\r\n",
            b"MULTI\r\nSET a 1\r\nINCR a\r\nGET a\r\nnosuch\r\nEXEC\r\n",
            b"MULTI\r\nSET a x\r\nINCR a\r\nGET a\r\nEXEC\r\nEXEC\r\nDISCARD\r\n",
            b"MULTI\r\nMULTI\r\nWATCH a\r\nEXEC\r\n",
            b"MULTI\r\nRESET\r\nEXEC\r\nRESET\r\n",
            b"CLIENT REPLY SKIP\r\nPING\r\nPING\r\n",
            b"CLIENT REPLY OFF\r\nPING\r\nPING\r\nCLIENT REPLY ON\r\nPING\r\n",
        ],
        false,
    );
}

#[test]
fn a_long_unknown_command_is_cut_in_the_error() {
    let long = "x".repeat(300);
    let cases = [
        format!("{long}\r\n"),
        format!("nosuch {long}\r\n"),
        format!("nosuch {}\r\n", "argument ".repeat(40)),
        format!("CLIENT {long}\r\n"),
    ];
    same_answers(&cases.each_ref().map(|case| case.as_bytes()), false);
}

#[test]
fn protocol_errors_close_that_connection_only() {
    let long_inline = vec![b'x'; 64 * 1024 + 1];
    let long_count = [b"*".as_slice(), &[b'1'; 64 * 1024 + 1]].concat();
    let long_bulk = [b"*1\r\n$".as_slice(), &[b'1'; 64 * 1024 + 1]].concat();
    same_answers(
        &[
            b"QUIT\r\n",
            b"PING\r\nQUIT\r\nPING\r\n",
            b"SET k \"unbalanced\r\n",
            b"SET k 'unbalanced\r\n",
            b"SET k \"a\"b\r\n",
            b"PING\r\nSET k 'a'b\r\n",
            b"*x\r\n",
            b"*\r\n",
            b"* 1\r\n",
            b"*1 \r\n",
            b"*+1\r\n",
            b"*01\r\n",
            b"*2147483648\r\n",
            b"*9223372036854775808\r\n",
            b"*1\r\n$-1\r\n",
            b"*1\r\n$x\r\n",
            b"*1\r\n$\r\n",
            b"*1\r\n$536870913\r\n",
            b"*1\r\n$99999999999999999999\r\n",
            b"*1\r\n:4\r\n",
            b"*1\r\nPING\r\n",
            b"*1\r\n\r\n",
            b"*1\r\n\xff\r\n",
            b"*1\r\n\x80abc\r\n",
            b"*2\r\n$4\r\nECHO\r\n*1\r\n",
            b"SET a 1\r\nGET a\r\n*1\r\n!\r\n",
            b"MULTI\r\nSET a 1\r\n*1\r\n!\r\n",
            &long_inline,
            &long_count,
            &long_bulk,
        ],
        true,
    );
}

/// What a browser or a mail client sends: the connection is closed without a word.
#[test]
fn another_protocol_is_cut_off() {
    same_answers(&[b"POST / HTTP/1.1\r\n", b"host: localhost\r\nSET a 1\r\n"], true);
}

/// RESP3's attributes on requests are Ferrite's: Redis has no such thing, so there is nobody to compare with.
#[test]
fn attributes_precede_a_command_or_close_the_connection() {
    let ferrite = Server::ferrite(&["--workers", "1"]);
    for (request, expected) in [
        (b"|1\r\n$11\r\ntraceparent\r\n$1\r\nx\r\n*1\r\n$4\r\nPING\r\n".as_slice(), b"+PONG\r\n".as_slice()),
        (b"|0\r\n*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"),
        (b"|1\r\n$1\r\na\r\n$1\r\nb\r\n|1\r\n$1\r\na\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"),
        (b"|1\r\n$1\r\na\r\n$1\r\n", b""),
    ] {
        for piece in [1, usize::MAX] {
            let answer = answer(&ferrite, request, piece, false);
            assert_eq!(answer.escape_ascii().to_string(), expected.escape_ascii().to_string());
        }
    }
    for request in [b"|x\r\n".as_slice(), b"|65\r\n", b"|1\r\n:1\r\n", b"|1\r\n$1\r\na\r\n$-1\r\n", b"|0\r\nPING\r\n"] {
        let answer = answer(&ferrite, request, usize::MAX, true);
        assert!(answer.starts_with(b"-ERR Protocol error: "), "{}: {}", request.escape_ascii(), answer.escape_ascii());
    }
}
