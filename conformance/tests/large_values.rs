//! The largest values that there may be, over a socket; many large ones on disk, which are not all held at once; and parts of them.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ferrite_conformance::process::Server;
use ferrite_conformance::wire::{Connection, encode};

const MB: usize = 1 << 20;
/// `proto-max-bulk-len`.
const LARGEST: usize = 512 * MB;
/// For all that is done with the largest value, on a slow machine.
const LARGEST_MAX: Duration = Duration::from_secs(300);

/// Tells where in the value a byte lies.
fn pattern(at: usize) -> u8 {
    (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]
}

fn call(connection: &mut Connection, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    connection.call(&words).expect("the server answers").escape_ascii().to_string()
}

fn check_parts(connection: &mut Connection) {
    for at in [0, 1, LARGEST / 2 - 7, LARGEST - 16] {
        let reply = connection.call(&["GETRANGE", "largest", &at.to_string(), &(at + 15).to_string()]);
        let mut expected = b"$16\r\n".to_vec();
        expected.extend((at..at + 16).map(pattern));
        expected.extend_from_slice(b"\r\n");
        assert_eq!(reply.expect("the server answers"), expected, "at {at}");
    }
}

#[test]
fn a_value_of_512_mb_goes_through_a_socket_and_a_restart() {
    let began = Instant::now();
    let mut server = Server::ferrite(&["--workers", "1"]);
    let mut connection = server.connect();
    {
        let value: Vec<u8> = (0..LARGEST).map(pattern).collect();
        connection.send(format!("*3\r\n$3\r\nSET\r\n$7\r\nlargest\r\n${LARGEST}\r\n").as_bytes()).expect("it is read");
        connection.send(&value).expect("it is read");
        connection.send(b"\r\n").expect("it is read");
    }
    assert_eq!(connection.reply().expect("the server answers"), b"+OK\r\n");
    assert_eq!(call(&mut connection, "STRLEN largest"), format!(":{LARGEST}\\r\\n"));
    check_parts(&mut connection);
    let refused = connection.call(&["APPEND", "largest", "x"]).expect("the server answers");
    assert!(refused.starts_with(b"-ERR"), "{}", refused.escape_ascii());
    drop(connection);
    assert!(server.terminate().success());
    server.restart_within(LARGEST_MAX);
    let mut connection = server.connect();
    assert_eq!(call(&mut connection, "STRLEN largest"), format!(":{LARGEST}\\r\\n"));
    check_parts(&mut connection);
    assert_eq!(call(&mut connection, "DEL largest"), ":1\\r\\n");
    assert_eq!(call(&mut connection, "DBSIZE"), ":0\\r\\n");
    server.assert_sound();
    assert!(began.elapsed() < LARGEST_MAX, "{:?}", began.elapsed());
}

const LARGE: usize = 12 * MB;
const COUNT: usize = 24;
/// What is read ahead, what is held beside the command at hand, and that command's own value.
const HELD_MAX: usize = (32 + 64 + 2 * 12) * MB;

/// A server with `COUNT` such values, of which hardly any is in memory.
fn filled() -> Server {
    let regions = ["--storage.mutable_region_size_mb", "16", "--storage.read_only_region_size_mb", "16"];
    let server = Server::ferrite(&[&["--workers", "2", "--aof.enabled", "false"][..], &regions].concat());
    let mut connection = server.connect();
    for number in 0..COUNT {
        let value = vec![b'a' + number as u8; LARGE];
        let reply = connection.call(&[b"SET", format!("key:{number}").as_bytes(), &value]);
        assert_eq!(reply.expect("the server answers"), b"+OK\r\n");
    }
    server
}

fn held(connection: &mut Connection) -> usize {
    let reply = connection.call(&["INFO", "memory"]).expect("INFO answers");
    let text = String::from_utf8(reply).expect("INFO is text");
    let field = text.lines().find_map(|line| line.strip_prefix("ferrite_memory_held_reads:")).expect("an account");
    field.trim().parse().expect("a number")
}

#[test]
fn pipelined_reads_of_large_cold_values_hold_few_of_them() {
    let server = &mut filled();
    let mut connection = server.connect();
    let (done, watched) = (AtomicBool::new(false), &*server);
    let most = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut connection, mut most) = (watched.connect(), 0);
            while !done.load(Ordering::Relaxed) {
                most = most.max(held(&mut connection));
                std::thread::sleep(Duration::from_millis(1));
            }
            most
        });
        // In one piece, so that they are one batch.
        let pipeline: Vec<u8> = (0..COUNT).flat_map(|n| encode(&["GET".to_owned(), format!("key:{n}")])).collect();
        connection.send(&pipeline).expect("it is read");
        for number in 0..COUNT {
            let reply = connection.reply().expect("the server answers");
            assert_eq!(reply.len(), format!("${LARGE}\r\n\r\n").len() + LARGE);
            assert!(reply[20..reply.len() - 2].iter().all(|&byte| byte == b'a' + number as u8), "key:{number}");
        }
        done.store(true, Ordering::Relaxed);
        watch.join().expect("it has not panicked")
    });
    assert!(most > 0, "what is held is accounted for");
    assert!(most <= HELD_MAX, "{} MB of {} were held", most / MB, COUNT * LARGE / MB);
    assert_eq!(held(&mut server.connect()), 0, "and given back");
    server.assert_sound();
}

/// Of `COUNT` values some are more than this, and four are less.
const MAXMEMORY: &str = "100mb";

#[test]
fn a_command_whose_cold_values_do_not_fit_together_is_refused() {
    let server = &mut filled();
    let mut connection = server.connect();
    let names: Vec<String> = (0..COUNT).map(|number| format!("key:{number}")).collect();
    assert_eq!(connection.call(&["CONFIG", "SET", "maxmemory", MAXMEMORY]).expect("an answer"), b"+OK\r\n");
    let mget: Vec<&str> = ["MGET"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let assert_refused = |reply: &[u8]| {
        let text = String::from_utf8_lossy(&reply[..reply.len().min(200)]).into_owned();
        assert!(
            text.starts_with("-ERR the values on disk that the command needs together do not fit into memory"),
            "{text}"
        );
        assert!(text.contains(&format!("of {} that there are", 100 * MB)), "{text}");
    };
    // Two that have read some of it do not wait for what the other has.
    let watched = &*server;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut connection = watched.connect();
                for _ in 0..3 {
                    assert_refused(&connection.call(&mget).expect("the server answers"));
                }
            });
        }
    });
    assert_eq!(connection.call(&["MULTI"]).expect("an answer"), b"+OK\r\n");
    for name in &names {
        assert_eq!(connection.call(&["GET", name]).expect("an answer"), b"+QUEUED\r\n");
    }
    assert_refused(&connection.call(&["EXEC"]).expect("the server answers"));
    // The connection is as it was, and what fits is answered.
    let reply = connection.call(&mget[..5]).expect("the server answers");
    assert_eq!(reply.len(), b"*4\r\n".len() + 4 * (format!("${LARGE}\r\n\r\n").len() + LARGE));
    assert_eq!(held(&mut connection), 0, "nothing of it is kept");
    server.assert_sound();
}

/// Where in a file of extents the byte `at` of the one value lies that has `needle` there. Extents begin with blocks.
fn find(bytes: &[u8], at: usize, needle: &[u8]) -> usize {
    let mut places = (at % 4096..bytes.len()).step_by(4096);
    places.find(|&place| bytes[place..].starts_with(needle)).expect("it is there")
}

#[test]
fn a_rotten_piece_of_a_large_value_is_an_error_for_who_reads_it() {
    let regions = ["--storage.mutable_region_size_mb", "16", "--storage.read_only_region_size_mb", "16"];
    let server = &mut Server::ferrite(&[&["--workers", "1", "--aof.enabled", "false"][..], &regions].concat());
    let mut connection = server.connect();
    // A needle in the midst of one of its pieces.
    let (len, at, needle) = (12 * MB, 6 * MB + 5000, b"-- what rots --");
    let mut value: Vec<u8> = (0..len).map(pattern).collect();
    value[at..at + needle.len()].copy_from_slice(needle);
    assert_eq!(connection.call(&[b"SET", &b"large"[..], &value]).expect("an answer"), b"+OK\r\n");
    for number in 0..8 {
        let other = vec![b'.'; 8 * MB];
        let reply = connection.call(&[b"SET", format!("other:{number}").as_bytes(), &other]);
        assert_eq!(reply.expect("an answer"), b"+OK\r\n");
    }
    let mut part = |from: usize, to: usize| {
        connection.call(&["GETRANGE", "large", &from.to_string(), &to.to_string()]).expect("an answer")
    };
    assert_eq!(part(at, at + needle.len() - 1), [&b"$15\r\n"[..], needle, b"\r\n"].concat());
    let path = server.data().join("hybrid.extents");
    let offset = find(&std::fs::read(&path).expect("the file of extents"), at, needle);
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("the file of extents");
    std::os::unix::fs::FileExt::write_all_at(&file, b"++", offset as u64).expect("it is written");
    file.sync_all().expect("it is written");
    // The pieces before it and behind it are sound.
    for from in [0, at - 64 * 1024, at + 64 * 1024, len - 10] {
        let expected = [&b"$10\r\n"[..], &value[from..from + 10], b"\r\n"].concat();
        assert_eq!(part(from, from + 9), expected, "at {from}");
    }
    for (from, to) in [(at, at), (at - 2000, at - 1990), (at - 64 * 1024, at), (0, len)] {
        let reply = part(from, to);
        assert!(reply.starts_with(b"-ERR "), "{}", reply[..reply.len().min(80)].escape_ascii());
    }
    assert_eq!(call(&mut connection, "STRLEN large"), format!(":{len}\\r\\n"));
    assert!(call(&mut connection, "GET large").contains("the file of extents is damaged at offset"));
    assert_eq!(call(&mut connection, "DEL large"), ":1\\r\\n");
    server.assert_sound();
}
