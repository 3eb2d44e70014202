//! Random sequences against both servers, in RESP2 and RESP3, in memory and with most keys on disk.

#![allow(clippy::disallowed_methods)]

use std::time::Duration;

use ferrite_conformance::differences::DIFFERENCES;
use ferrite_conformance::generate::{self, Command, Step};
use ferrite_conformance::process::{Server, TINY};
use ferrite_conformance::wire::{Connection, elements};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

struct Pair {
    ferrite: Server,
    redis: Server,
}

impl Pair {
    fn start(ferrite_arguments: &[&str]) -> Pair {
        Pair { ferrite: Server::ferrite(ferrite_arguments), redis: Server::redis(&[]) }
    }

    /// Fresh connections to two empty servers, in the protocol asked for.
    fn connect(&self, protocol: &str) -> (Connection, Connection) {
        let open = |server: &Server| {
            let mut connection = server.connect();
            alone(&mut connection);
            assert_eq!(connection.call(&["FLUSHALL"]).expect("FLUSHALL answers"), b"+OK\r\n");
            connection.call(&["HELLO", protocol]).expect("HELLO answers");
            connection
        };
        (open(&self.ferrite), open(&self.redis))
    }
}

/// Returns once every other connection has ended. One that a failed case has given up may still run its pipeline, and
/// what it writes would make the next cases fail in ways that nobody could explain.
fn alone(connection: &mut Connection) {
    for _ in 0..CLOSE_POLLS {
        let list = connection.call(&["CLIENT", "LIST"]).expect("CLIENT LIST answers");
        if list.split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"id=")).count() == 1 {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("a connection that was closed is still there");
}

/// Ten milliseconds each: longer than any pipeline takes.
const CLOSE_POLLS: usize = 6000;

/// Longer fields and values make Redis turn a listpack, whose order is that of insertion, into a table.
const LISTPACK_VALUE_MAX: usize = 64;

/// Whether all hashes of a run stay listpacks: then their order is compared as well.
fn hashes_are_ordered(commands: &[Command]) -> bool {
    let sets = |command: &&Command| command[0].to_ascii_uppercase().starts_with(b"H");
    let is_long = |arg: &Vec<u8>| arg.len() > LISTPACK_VALUE_MAX || has_many_digits(arg);
    !commands.iter().filter(sets).any(|command| command[1..].iter().any(is_long))
}

/// A number that HINCRBYFLOAT would write with more digits than a listpack's value has.
fn has_many_digits(arg: &[u8]) -> bool {
    let number = std::str::from_utf8(arg).ok().and_then(|text| text.parse::<f64>().ok());
    number.is_some_and(|number| number.abs() > 10f64.powi(LISTPACK_VALUE_MAX as i32 / 2))
}

/// An array's elements in groups of `size`, sorted; other replies as they are.
fn sorted(reply: Vec<u8>, size: usize) -> Vec<u8> {
    // A map is an array of twice as many.
    let mut array = reply.clone();
    if let [b'%', ..] = array[..] {
        let header = array.iter().position(|&byte| byte == b'\n').expect("a line") + 1;
        let pairs: usize = std::str::from_utf8(&array[1..header]).expect("ASCII").trim_end().parse().expect("a number");
        array.splice(..header, format!("*{}\r\n", 2 * pairs).into_bytes());
    }
    match elements(&array) {
        Some(elements) => {
            let mut groups: Vec<Vec<u8>> = elements.chunks(size).map(<[Vec<u8>]>::concat).collect();
            groups.sort();
            groups.concat()
        }
        None => reply,
    }
}

/// Replies that may differ in order, or by the milliseconds between two servers, in a form that may not.
fn comparable(command: &Command, reply: Vec<u8>, ordered: bool) -> Vec<u8> {
    let name = command[0].to_ascii_uppercase();
    match name.as_slice() {
        b"HGETALL" if !ordered => sorted(reply, 2),
        b"HKEYS" | b"HVALS" if !ordered => sorted(reply, 1),
        // Of a table each server gives its own page; `scans_agree` compares whole iterations.
        b"HSCAN" if !ordered && reply.first() == Some(&b'*') => b"*".to_vec(),
        b"HRANDFIELD" if reply.first() == Some(&b'*') => {
            reply[..=reply.iter().position(|&byte| byte == b'\n').expect("a line")].to_vec()
        }
        b"HRANDFIELD" if reply.first() == Some(&b'$') && !reply.starts_with(b"$-1") => b"$".to_vec(),
        b"KEYS" => match elements(&reply) {
            Some(mut keys) => {
                keys.sort();
                keys.concat()
            }
            None => reply,
        },
        // The order, and where a page ends, are each server's own; `scans_agree` compares whole iterations.
        b"SCAN" if reply.first() == Some(&b'*') => b"*".to_vec(),
        b"RANDOMKEY" if reply.first() == Some(&b'$') && !reply.starts_with(b"$-1") => b"$".to_vec(),
        // Redis keeps a string as the command that wrote it last left it: APPEND makes `raw` of any. Ferrite goes by the value.
        b"OBJECT"
            if command.get(1).is_some_and(|what| what.eq_ignore_ascii_case(b"ENCODING"))
                && [&b"$3\r\nint\r\n"[..], b"$3\r\nraw\r\n", b"$6\r\nembstr\r\n"].contains(&&reply[..]) =>
        {
            b"string".to_vec()
        }
        // By the same token: what Redis shares are the small integers that it keeps as such, not those that INCRBYFLOAT wrote.
        b"OBJECT"
            if command.get(1).is_some_and(|what| what.eq_ignore_ascii_case(b"REFCOUNT"))
                && [&b":1\r\n"[..], b":2147483647\r\n"].contains(&&reply[..]) =>
        {
            b":".to_vec()
        }
        b"OBJECT"
            if command.get(1).is_some_and(|what| what.eq_ignore_ascii_case(b"IDLETIME")) && reply.starts_with(b":") =>
        {
            b":".to_vec()
        }
        _ => reply,
    }
}

/// Milliseconds by which the times of two servers may differ: far more than they are apart, far less than what is set.
const TIME_DIFFERENCE_MAX_MS: i64 = 30_000;

fn same(command: &Command, ours: &[u8], theirs: &[u8]) -> bool {
    let unit_ms = match command[0].to_ascii_uppercase().as_slice() {
        b"TTL" | b"EXPIRETIME" => 1000,
        b"PTTL" | b"PEXPIRETIME" => 1,
        _ => return ours == theirs,
    };
    let number =
        |reply: &[u8]| -> Option<i64> { std::str::from_utf8(reply.strip_prefix(b":")?).ok()?.trim_end().parse().ok() };
    match (number(ours), number(theirs)) {
        (Some(ours), Some(theirs)) if ours > 0 && theirs > 0 => {
            ours.abs_diff(theirs) as i64 * unit_ms <= TIME_DIFFERENCE_MAX_MS
        }
        _ => ours == theirs,
    }
}

/// EXEC's reply holds the replies of queued commands: these are compared as they are, so the commands whose replies may
/// differ are kept out of transactions.
fn fits_in_transaction(command: &Command, ordered: bool) -> bool {
    if !ordered && matches!(command[0].to_ascii_uppercase().as_slice(), b"HGETALL" | b"HKEYS" | b"HVALS" | b"HSCAN") {
        return false;
    }
    !matches!(
        command[0].to_ascii_uppercase().as_slice(),
        b"DBSIZE"
            | b"KEYS"
            | b"SCAN"
            | b"RANDOMKEY"
            | b"HRANDFIELD"
            | b"TTL"
            | b"PTTL"
            | b"EXPIRETIME"
            | b"PEXPIRETIME"
            | b"OBJECT"
    )
}

/// DBSIZE counts keys that have expired unseen. Which these are is each server's own, so all are looked at first: Redis
/// deletes what one large SCAN meets, and Ferrite, whose SCAN answers early when it comes to keys on disk, what KEYS meets.
fn find_expired() -> [Command; 2] {
    let words = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect();
    [words(&["KEYS", "*"]), words(&["SCAN", "0", "COUNT", "100000"])]
}

/// What Ferrite says when something does not fit into its memory, here the tiny regions. Redis has no such limits.
const LIMITS: &[&[u8]] = &[b"exceeds storage.page_size: at most", b"at once and at most"];

fn agree(pair: &Pair, protocol: &str, steps: &[Step], pipelined: bool) -> Result<(), TestCaseError> {
    let (mut ferrite, mut redis) = pair.connect(protocol);
    let mut commands: Vec<Command> = Vec::new();
    let mut in_transaction = false;
    let run = |step: &Step| if let Step::Run(command) = step { Some(command.clone()) } else { None };
    let ordered = hashes_are_ordered(&steps.iter().filter_map(run).collect::<Vec<_>>());
    for step in steps {
        match step {
            Step::Run(command) => {
                match command[0].to_ascii_uppercase().as_slice() {
                    b"MULTI" => in_transaction = true,
                    b"EXEC" | b"DISCARD" => in_transaction = false,
                    _ => {}
                }
                if command[0].eq_ignore_ascii_case(b"DBSIZE") && !in_transaction {
                    commands.extend(find_expired());
                }
                if !in_transaction || fits_in_transaction(command, ordered) {
                    commands.push(command.clone());
                }
            }
            // The room for all that a transaction writes is reserved at once, and tiny regions have little of it.
            Step::Fill(_) if in_transaction => {}
            Step::Fill(seed) => commands.extend(generate::fill(*seed)),
        }
    }
    commands.extend(find_expired());
    commands.push(vec![b"DBSIZE".to_vec()]);
    let failed = |what: &str, error: std::io::Error| TestCaseError::fail(format!("{what}: {error}"));
    let (ours, theirs) = if pipelined {
        let ours = ferrite.pipeline(&commands).map_err(|error| failed("ferrite", error))?;
        (ours, redis.pipeline(&commands).map_err(|error| failed("redis", error))?)
    } else {
        let mut replies = (Vec::new(), Vec::new());
        for command in &commands {
            let show = || command.iter().map(|arg| String::from_utf8_lossy(arg)).collect::<Vec<_>>().join(" ");
            replies.0.push(ferrite.call(command).map_err(|error| failed(&format!("ferrite at {}", show()), error))?);
            replies.1.push(redis.call(command).map_err(|error| failed("redis", error))?);
        }
        replies
    };
    for ((command, ours), theirs) in commands.iter().zip(ours).zip(theirs) {
        if LIMITS.iter().any(|limit| ours.windows(limit.len()).any(|part| part == *limit)) {
            // From here on the two servers hold different data, as they must.
            return Ok(());
        }
        let (ours, theirs) = (comparable(command, ours, ordered), comparable(command, theirs, ordered));
        if !same(command, &ours, &theirs) {
            let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
            let command = command.iter().map(|arg| text(arg)).collect::<Vec<_>>().join(" ");
            return Err(TestCaseError::fail(format!(
                "{command}\n  ferrite: {}\n  redis:   {}",
                text(&ours),
                text(&theirs)
            )));
        }
    }
    scans_agree(&mut ferrite, &mut redis)?;
    hashes_agree(&mut ferrite, &mut redis)
}

/// A whole HSCAN gives the same fields and values on both.
fn hashes_agree(ferrite: &mut Connection, redis: &mut Connection) -> Result<(), TestCaseError> {
    for number in 0..6u8 {
        let key = format!("k{number}");
        let scan = |connection: &mut Connection| -> std::io::Result<Vec<Vec<u8>>> {
            let (mut cursor, mut pairs) = (b"0".to_vec(), Vec::new());
            loop {
                let reply = connection.call(&[b"HSCAN", key.as_bytes(), &cursor, b"COUNT", b"2"])?;
                if reply.starts_with(b"-") {
                    return Ok(vec![reply]);
                }
                let mut lines = reply.splitn(4, |&byte| byte == b'\n');
                let cursor_line = lines.nth(2).unwrap_or_default();
                cursor = cursor_line.strip_suffix(b"\r").unwrap_or(cursor_line).to_vec();
                let found = elements(lines.next().unwrap_or_default()).unwrap_or_default();
                pairs.extend(found.chunks(2).map(<[Vec<u8>]>::concat));
                if cursor == b"0" || cursor.is_empty() {
                    pairs.sort();
                    pairs.dedup();
                    return Ok(pairs);
                }
            }
        };
        let ours = scan(ferrite).map_err(|error| TestCaseError::fail(format!("ferrite: {error}")))?;
        let theirs = scan(redis).map_err(|error| TestCaseError::fail(format!("redis: {error}")))?;
        prop_assert_eq!(ours, theirs, "HSCAN {}", key);
    }
    Ok(())
}

/// A whole SCAN gives the same keys on both.
fn scans_agree(ferrite: &mut Connection, redis: &mut Connection) -> Result<(), TestCaseError> {
    let scan = |connection: &mut Connection| -> std::io::Result<Vec<Vec<u8>>> {
        let (mut cursor, mut keys) = (b"0".to_vec(), Vec::new());
        loop {
            let reply = connection.call(&[b"SCAN".as_slice(), &cursor, b"COUNT", b"7"])?;
            // `*2`, the cursor as a bulk string, then the keys' array.
            let mut lines = reply.splitn(4, |&byte| byte == b'\n');
            let cursor_line = lines.nth(2).unwrap_or_default();
            cursor = cursor_line.strip_suffix(b"\r").unwrap_or(cursor_line).to_vec();
            keys.extend(elements(lines.next().unwrap_or_default()).unwrap_or_default());
            if cursor == b"0" || cursor.is_empty() {
                keys.sort();
                keys.dedup();
                return Ok(keys);
            }
        }
    };
    let ours = scan(ferrite).map_err(|error| TestCaseError::fail(format!("ferrite: {error}")))?;
    let theirs = scan(redis).map_err(|error| TestCaseError::fail(format!("redis: {error}")))?;
    prop_assert_eq!(ours, theirs, "SCAN");
    Ok(())
}

/// `FERRITE_CONFORMANCE_CASES` raises the number for a longer search.
fn cases() -> u32 {
    std::env::var("FERRITE_CONFORMANCE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

fn search(ferrite_arguments: &[&str], protocol: &str, pipelined: bool) {
    let pair = Pair::start(ferrite_arguments);
    let config = ProptestConfig {
        cases: cases(),
        // Seeds mean nothing once the strategies change: a counterexample is kept as a test of its own.
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    };
    let result =
        TestRunner::new(config).run(&generate::sequence(40), |steps| agree(&pair, protocol, &steps, pipelined));
    if let Err(error) = result {
        panic!("{error}\nferrite's log:\n{}", pair.ferrite.log());
    }
}

#[test]
fn resp2_in_memory() {
    search(&["--workers", "1"], "2", false);
}

#[test]
fn resp3_in_memory_pipelined() {
    search(&["--workers", "1"], "3", true);
}

#[test]
fn resp2_on_disk_pipelined() {
    search(TINY, "2", true);
}

#[test]
fn resp3_on_disk() {
    search(TINY, "3", false);
}

#[test]
fn resp3_on_disk_through_io_threads() {
    search(&[TINY, &["--storage.disk_backend", "io-threads"]].concat(), "3", true);
}

/// Found by `resp2_on_disk_pipelined`: RANDOMKEY read what FLUSHALL had left on disk, from the start after every read.
#[test]
fn randomkey_does_not_wade_through_what_was_flushed() {
    let mut server = Server::ferrite(TINY);
    let mut connection = server.connect();
    for round in 0..100 {
        connection.pipeline(&generate::fill(round)).expect("SET answers");
        assert_eq!(connection.call(&["FLUSHALL"]).expect("FLUSHALL answers"), b"+OK\r\n");
    }
    connection.call(&["SET", "only", "1"]).expect("SET answers");
    let began = std::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(connection.call(&["RANDOMKEY"]).expect("RANDOMKEY answers"), b"$4\r\nonly\r\n");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    server.assert_sound();
}

/// What searches have found, shrunk: each once differed.
#[test]
fn cases_that_were_found_agree() {
    for arguments in [&[][..], TINY] {
        let pair = Pair::start(arguments);
        for case in [
            // Two long values make one that no page takes.
            &["APPEND k1 LONG", "APPEND k1 LONG", "STRLEN k1"][..],
            // Redis makes a table of a hash with a value of 401 digits.
            &["HSET k3 f1 0", "HINCRBYFLOAT k3 f0 1e400", "HSCAN k3 0", "HGETALL k3"],
            // What is shared in Redis depends on the command that wrote it.
            &["INCRBYFLOAT k1 0", "OBJECT REFCOUNT k1", "SET k2 0", "OBJECT REFCOUNT k2", "OBJECT REFCOUNT none"],
        ] {
            let long = "v".repeat(2100);
            let word = |word: &str| if word == "LONG" { long.clone().into_bytes() } else { word.as_bytes().to_vec() };
            let steps: Vec<Step> = case.iter().map(|line| Step::Run(line.split(' ').map(word).collect())).collect();
            for (protocol, pipelined) in [("2", false), ("2", true), ("3", false), ("3", true)] {
                agree(&pair, protocol, &steps, pipelined).unwrap_or_else(|why| panic!("{case:?}: {why}"));
            }
        }
    }
}

/// Redis keeps such hashes in the order of insertion: the replies are the same byte for byte.
#[test]
fn the_order_of_a_small_hash_is_that_of_insertion() {
    for protocol in ["2", "3"] {
        let pair = Pair::start(&[]);
        let (mut ferrite, mut redis) = pair.connect(protocol);
        let mut commands: Vec<Vec<String>> = Vec::new();
        let command = |line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for n in 0..128 {
            commands.push(command(format!("HSET h field:{} {}", n * 37 % 128, "v".repeat(n % 65))));
        }
        for n in (0..128).step_by(3) {
            commands.push(command(format!("HDEL h field:{n}")));
            commands.push(command(format!("HSET h field:{} {} again:{n} 1", n + 1, n * n)));
        }
        for line in ["HGETALL h", "HKEYS h", "HVALS h", "HSCAN h 0", "HRANDFIELD h 500", "OBJECT ENCODING h"] {
            commands.push(command(line.to_owned()));
        }
        for command in &commands {
            let ours = ferrite.call(command).expect("ferrite answers");
            let theirs = redis.call(command).expect("redis answers");
            assert_eq!(ours.escape_ascii().to_string(), theirs.escape_ascii().to_string(), "{command:?}");
        }
    }
}

#[test]
fn every_intended_difference_is_one() {
    let pair = Pair::start(&[]);
    let (mut ferrite, mut redis) = pair.connect("2");
    for row in DIFFERENCES {
        let args: Vec<&str> = row.example.split(' ').collect();
        let ours = ferrite.call(&args).expect("ferrite answers");
        let theirs = redis.call(&args).expect("redis answers");
        assert_ne!(ours, theirs, "{}: `{}` answers the same: the row is unused", row.why, row.example);
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        assert!(ours.starts_with(row.ferrite.as_bytes()), "{}: ferrite answers {}", row.example, text(&ours));
        assert!(theirs.starts_with(row.redis.as_bytes()), "{}: redis answers {}", row.example, text(&theirs));
    }
}
