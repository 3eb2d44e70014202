//! Concurrent clients on two workers: single commands, commands over several keys and transactions are atomic.

#![allow(clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use ferrite_conformance::process::{Server, TINY};
use ferrite_conformance::wire::{Connection, elements};

const CLIENTS: usize = 8;
const ROUNDS: usize = 300;
const ACCOUNTS: usize = 6;
const DEPOSIT: i64 = 1000;

fn on_both(test: impl Fn(&mut Server)) {
    for arguments in [&["--workers", "2"], TINY] {
        let mut server = Server::ferrite(arguments);
        test(&mut server);
        server.assert_sound();
    }
}

fn open(address: SocketAddr) -> Connection {
    Connection::open(address).expect("the server accepts")
}

fn call(connection: &mut Connection, words: &str) -> Vec<u8> {
    let words: Vec<&str> = words.split(' ').collect();
    connection.call(&words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// The number that a bulk string says.
fn number(bulk: &[u8]) -> i64 {
    let text = std::str::from_utf8(bulk).expect("digits");
    text.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("{text:?} is no number"))
}

/// Runs `body` for every client on a connection of its own, with its number.
fn clients(address: SocketAddr, body: impl Fn(usize, &mut Connection) + Sync) {
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let body = &body;
            scope.spawn(move || body(client, &mut open(address)));
        }
    });
}

#[test]
fn incr_of_many_clients_counts_exactly() {
    on_both(|server| {
        clients(server.address, |client, connection| {
            for round in 0..ROUNDS {
                call(connection, "INCR counter");
                call(connection, &format!("SET filler:{client}:{} {}", round % 50, "x".repeat(500)));
            }
        });
        assert_eq!(number(&call(&mut server.connect(), "GET counter")), (CLIENTS * ROUNDS) as i64);
    });
}

/// The sum over all accounts, read in one command.
fn sum(connection: &mut Connection) -> i64 {
    let names: Vec<String> = (0..ACCOUNTS).map(|n| format!("account:{n}")).collect();
    let reply = call(connection, &format!("MGET {}", names.join(" ")));
    elements(&reply).expect("an array").iter().map(|value| number(value)).sum()
}

fn open_accounts(server: &Server) {
    let mut connection = server.connect();
    (0..ACCOUNTS).for_each(|n| assert_eq!(call(&mut connection, &format!("SET account:{n} {DEPOSIT}")), b"+OK\r\n"));
}

/// Transfers run while others watch the sum.
fn transfers_keep_the_sum(server: &Server, transfer: impl Fn(usize, &mut Connection, usize, usize) + Sync) {
    open_accounts(server);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut connection = server.connect();
            let mut looks = 0;
            while !done.load(Ordering::Relaxed) {
                assert_eq!(sum(&mut connection), DEPOSIT * ACCOUNTS as i64, "a transfer was seen half done");
                looks += 1;
            }
            looks
        });
        clients(server.address, |client, connection| {
            for round in 0..ROUNDS / 3 {
                let (from, to) = ((client + round) % ACCOUNTS, (client * 3 + round * 5 + 1) % ACCOUNTS);
                transfer(client, connection, from, to);
                call(connection, &format!("SET filler:{client}:{} {}", round % 50, "x".repeat(500)));
            }
        });
        done.store(true, Ordering::Relaxed);
        assert!(watcher.join().expect("the watcher saw nothing wrong") > 0);
    });
    assert_eq!(sum(&mut server.connect()), DEPOSIT * ACCOUNTS as i64);
}

#[test]
fn a_transaction_is_seen_whole_or_not_at_all() {
    on_both(|server| {
        transfers_keep_the_sum(server, |_, connection, from, to| {
            let words = [
                "MULTI".to_owned(),
                format!("DECRBY account:{from} 7"),
                format!("INCRBY account:{to} 7"),
                "EXEC".to_owned(),
            ];
            let replies: Vec<Vec<u8>> = words.iter().map(|words| call(connection, words)).collect();
            assert!(replies[3].starts_with(b"*2\r\n:"), "{}", replies[3].escape_ascii());
        });
    });
}

#[test]
fn optimistic_transfers_under_watch_lose_nothing() {
    on_both(|server| {
        transfers_keep_the_sum(server, |_, connection, from, to| {
            if from == to {
                return;
            }
            loop {
                call(connection, &format!("WATCH account:{from} account:{to}"));
                let have = number(&call(connection, &format!("GET account:{from}")));
                let other = number(&call(connection, &format!("GET account:{to}")));
                call(connection, "MULTI");
                call(connection, &format!("SET account:{from} {}", have - 3));
                call(connection, &format!("SET account:{to} {}", other + 3));
                match call(connection, "EXEC").as_slice() {
                    b"*-1\r\n" => {}
                    reply => return assert_eq!(reply, b"*2\r\n+OK\r\n+OK\r\n"),
                }
            }
        });
    });
}

#[test]
fn mset_is_seen_whole_or_not_at_all() {
    on_both(|server| {
        let done = AtomicBool::new(false);
        call(&mut server.connect(), "MSET left 0 right 0");
        std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut connection = server.connect();
                while !done.load(Ordering::Relaxed) {
                    let pair = elements(&call(&mut connection, "MGET left right")).expect("an array");
                    assert_eq!(pair[0], pair[1], "half an MSET was seen");
                }
            });
            clients(server.address, |client, connection| {
                for round in 0..ROUNDS {
                    call(connection, &format!("MSET left {client}:{round} right {client}:{round}"));
                    call(connection, &format!("SET filler:{client}:{} {}", round % 50, "x".repeat(500)));
                }
            });
            done.store(true, Ordering::Relaxed);
            watcher.join().expect("the watcher saw nothing wrong");
        });
    });
}
