//! Keys on disk that are overwritten: nothing is read before the reply, and what is counted is right.

use std::collections::BTreeMap;

use ferrite_conformance::process::{Server, TINY};
use ferrite_conformance::wire::Connection;

/// Some hundred times what the two regions hold.
const KEYS: usize = 5000;

fn call(connection: &mut Connection, line: &str) -> String {
    let args: Vec<&str> = line.split(' ').collect();
    String::from_utf8(connection.call(&args).expect("the server answers")).expect("text")
}

fn info(connection: &mut Connection, section: &str) -> BTreeMap<String, String> {
    let text = call(connection, &format!("INFO {section}"));
    text.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name.into(), value.into())).collect()
}

#[test]
fn keys_on_disk_are_counted_once_however_they_are_overwritten() {
    let mut server = Server::ferrite(TINY);
    let mut connection = server.connect();
    let value = "v".repeat(500);
    for key in 0..KEYS {
        assert_eq!(call(&mut connection, &format!("SET key:{key} {value} EX 1000")), "+OK\r\n");
    }
    assert_eq!(call(&mut connection, "DBSIZE"), format!(":{KEYS}\r\n"));
    for key in (0..KEYS).step_by(5) {
        let (second, third) = (key + 1, key + 2);
        assert_eq!(call(&mut connection, &format!("SET key:{key} {value}")), "+OK\r\n");
        assert_eq!(call(&mut connection, &format!("MSET key:{second} {value} key:{third} {value}")), "+OK\r\n");
        assert_eq!(call(&mut connection, &format!("SETEX key:{} 500 {value}", key + 3)), "+OK\r\n");
        if key % 500 == 0 {
            assert_eq!(call(&mut connection, "DBSIZE"), format!(":{KEYS}\r\n"));
        }
    }
    let keyspace = info(&mut connection, "keyspace");
    assert_eq!(keyspace["db0"], format!("keys={KEYS},expires={},avg_ttl=0", KEYS / 5 * 2));
    let stats = info(&mut connection, "stats");
    let settled: usize = stats["ferrite_unseen_writes_settled"].parse().expect("a number");
    assert!(settled > KEYS / 2, "{settled}");
    assert_eq!(stats["ferrite_unseen_write_errors"], "0");
    // What there is says so too.
    let mut sum = 0u64;
    for key in 0..KEYS {
        let usage = call(&mut connection, &format!("MEMORY USAGE key:{key}"));
        sum += usage[1..].trim().parse::<u64>().expect("a number");
    }
    let memory = info(&mut connection, "memory");
    assert_eq!(memory["ferrite_data_bytes"], sum.to_string());
    server.assert_sound();
    // Counted anew from the append-only file.
    assert!(server.terminate().success());
    server.restart();
    assert_eq!(call(&mut server.connect(), "DBSIZE"), format!(":{KEYS}\r\n"));
}
