//! A data directory whose log has larger pages than the regions of the server that opens it would get.

#![allow(clippy::disallowed_methods)]

use ferrite_conformance::process::{Server, ferrite_command};

const NO_AOF: [&str; 4] = ["--workers", "1", "--aof.enabled", "false"];

/// With regions of so many MiB: their pages have a quarter.
fn with_regions(mb: &'static str) -> Vec<&'static str> {
    let regions = ["--storage.mutable_region_size_mb", mb, "--storage.read_only_region_size_mb", mb];
    [&NO_AOF[..], &regions].concat()
}

#[test]
fn a_server_with_smaller_regions_takes_the_page_size_of_its_data() {
    let mut server = Server::ferrite(&with_regions("2"));
    let value = "v".repeat(300_000);
    let mut connection = server.connect();
    assert_eq!(connection.call(&["SET", "key", &value]).expect("an answer"), b"+OK\r\n");
    assert_eq!(connection.call(&["SAVE"]).expect("an answer"), b"+OK\r\n");
    drop(connection);
    server.terminate();

    let small = with_regions("0.25");
    let refused = ferrite_command()
        .args(&small)
        .args(["--admin.enabled", "false"])
        .args(["--storage.page_size", "64kb", "--port", "0", "--dir"])
        .arg(server.data())
        .output()
        .expect("ferrite runs");
    let said = format!("{}{}", String::from_utf8_lossy(&refused.stdout), String::from_utf8_lossy(&refused.stderr));
    assert!(!refused.status.success() && said.contains("storage.page_size has to be 524288 or more"), "{said}");

    server.set_arguments(&small);
    server.restart();
    let reply = server.connect().call(&["GET", "key"]).expect("an answer");
    assert!(reply.ends_with(format!("{value}\r\n").as_bytes()), "{} bytes", reply.len());
    let log = server.log();
    assert!(log.contains("its page size is taken") && log.contains("524288"), "{log}");
    server.assert_sound();
}
