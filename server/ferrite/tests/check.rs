//! `ferrite check DIR` on a real directory: sound, and with damage planted in each of its files.

// Drives a real process: time and files are the system's.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

fn ferrite() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrite"));
    command.env_clear();
    command
}

/// A server that keeps tiny segments in `dir`; it is killed by its own id when dropped.
struct Server {
    child: Child,
    stream: TcpStream,
}

impl Server {
    fn start(dir: &Path) -> Server {
        let mut child = ferrite()
            .args(["--port", "0", "--admin.enabled", "false", "--workers", "1", "--logging.format", "json"])
            .args(["--aof.appendfsync", "always", "--aof.segment_size", "2kb", "--dir"])
            .arg(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let ready = lines.into_iter().find(|line| line.contains("Ready to accept connections")).expect("it starts");
        let port = ready.split("\"port\":").nth(1).expect("the port").split([',', '}']).next().expect("the port");
        let stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        Server { child, stream }
    }

    /// Sends one command and reads its reply, which is one line.
    fn call(&mut self, command: &str) -> String {
        self.stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut reply = Vec::new();
        while !reply.ends_with(b"\r\n") {
            let mut byte = [0];
            assert_eq!(self.stream.read(&mut byte).unwrap(), 1, "the server is there");
            reply.extend(byte);
        }
        String::from_utf8(reply).unwrap().trim_end().to_owned()
    }

    /// INFO's text.
    fn info(&mut self) -> String {
        let len: usize = self.call("INFO persistence")[1..].parse().unwrap();
        let mut text = vec![0; len + 2];
        self.stream.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn check(dir: &Path) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = ferrite().arg("check").arg(dir).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

/// The directory's files of the append-only log, the youngest last.
fn log_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "aof"));
    files.sort_by_key(|path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        name.bytes().filter(u8::is_ascii_digit).fold(0, |number, digit| 10 * number + u64::from(digit - b'0'))
    });
    files
}

/// A base and several segments.
fn filled(dir: &Path) {
    let mut server = Server::start(dir);
    let value = "v".repeat(300);
    for number in 0..40 {
        assert_eq!(server.call(&format!("SET key:{} {value}", number % 20)), "+OK");
        if number == 20 {
            assert_eq!(server.call("BGREWRITEAOF"), "+Background append only file rewriting started");
            // -1 until one has ended.
            while server.info().contains("aof_last_rewrite_time_sec:-1") {}
            let info = server.info();
            for line in [
                "aof_rewrite_in_progress:0",
                "aof_last_bgrewrite_status:ok",
                "aof_rewrites:1",
                "aof_rewrite_scheduled:0",
            ] {
                assert!(info.contains(line), "{line}\n{info}");
            }
        }
    }
}

#[test]
fn damage_is_named_with_its_file_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let (code, text) = check(dir.path());
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.ends_with("no damage\n") && text.contains("hybrid.log: ") && text.contains("MANIFEST: names"),
        "{text}"
    );

    let files = log_files(dir.path());
    assert!(files.len() >= 4 && files[1].to_str().unwrap().ends_with(".base.aof"), "{files:?}");
    // All but the last: a damaged end of that may be an unfinished write.
    let sealed = files[..files.len() - 1].iter();
    let victims = sealed.map(|path| (path.clone(), 700, "is damaged at offset 5")).chain([
        (files[2].clone(), 20, "its header is damaged"),
        (dir.path().join("MANIFEST"), 30, "its checksum does not match"),
        (dir.path().join("hybrid.log"), 13, "its header is damaged"),
    ]);
    for (path, at, expected) in victims {
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let (code, text) = check(dir.path());
        assert_eq!(code, Some(1), "{text}");
        let line = text.lines().find(|line| line.starts_with("DAMAGED")).expect("a line of its own");
        assert!(line.contains(path.to_str().unwrap()) && line.contains(expected), "{text}");
        assert!(text.ends_with("1 damage\n"), "{text}");
        fs::write(&path, &whole).unwrap();
    }
    for path in &files {
        let whole = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        let (code, text) = check(dir.path());
        assert!(code == Some(1) && text.contains(&format!("{} is missing", path.display())), "{text}");
        // A server does not start without it, and makes nothing in its place.
        let started =
            ferrite().args(["--port", "0", "--admin.enabled", "false", "--dir"]).arg(dir.path()).output().unwrap();
        let said = String::from_utf8(started.stderr).unwrap();
        assert!(started.status.code() == Some(1) && said.contains(&format!("{} is missing", path.display())), "{said}");
        assert!(!path.exists());
        fs::write(path, &whole).unwrap();
    }
    assert_eq!(check(dir.path()).0, Some(0), "checking has changed nothing");
    let mut server = Server::start(dir.path());
    assert_eq!(server.call("DBSIZE"), ":20");
}

#[test]
fn what_cannot_be_checked_says_why() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(check(dir.path()), (Some(0), "no data\n".to_owned()));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "checking makes no file");
    let (code, text) = check(&dir.path().join("none"));
    assert!(code == Some(1) && text.contains("cannot list the data directory"), "{text}");
    let _server = Server::start(dir.path());
    let (code, text) = check(dir.path());
    assert!(code == Some(1) && text.contains("is in use by another server"), "{text}");
}
