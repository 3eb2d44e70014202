//! Who does the work of an export: counted by the CPU time of each thread, so that a busy machine changes nothing.

// Drives a real process: time and files are the system's.
#![allow(clippy::disallowed_methods)]
#![cfg(feature = "otel")]

mod receiver;
mod running;

use std::collections::BTreeMap;
use std::time::Duration;

use receiver::Receiver;
use running::{Running, eventually};

const COMMANDS: u64 = 20_000;
/// Spans of a SET, roughly.
const SPANS: u64 = 5;

/// What each thread has had of the processors, in nanoseconds, by its name.
fn cpu_ns(server: &Running) -> BTreeMap<String, u64> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.child.id())).unwrap();
    let threads = tasks.filter_map(|task| {
        let path = task.unwrap().path();
        // A thread may end meanwhile.
        let name = std::fs::read_to_string(path.join("comm")).ok()?.trim_end().to_owned();
        let schedstat = std::fs::read_to_string(path.join("schedstat")).ok()?;
        Some((name, schedstat.split(' ').next()?.parse::<u64>().ok()?))
    });
    threads.collect()
}

/// The sum of a metric's values, whatever their labels.
fn metric(server: &Running, name: &str) -> u64 {
    let page = server.get("/metrics", None);
    let of_it = page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    let values: Vec<u64> = of_it.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
    assert!(!values.is_empty(), "no {name}");
    values.iter().sum()
}

fn exporting(receiver: &Receiver, more: &[&str]) -> Running {
    let export = [
        "--telemetry.enabled",
        "true",
        "--telemetry.protocol",
        "http",
        "--telemetry.compression",
        "gzip",
        "--telemetry.endpoint",
        &receiver.endpoint,
    ];
    Running::start(&[&export, more].concat())
}

fn set(server: &Running, commands: u64) {
    let sets: Vec<String> = (0..commands).map(|number| format!("SET key:{} {number}", number % 100)).collect();
    let replies = server.ask(&sets.join("\r\n"));
    assert_eq!(replies.matches("+OK").count() as u64, commands + 1);
}

#[test]
fn a_backlog_is_encoded_compressed_and_sent_by_a_thread_that_serves_no_commands() {
    let receiver = Receiver::start();
    let server = exporting(&receiver, &["--telemetry.queue_size", "1000000"]);
    let held = receiver.hold();
    set(&server, COMMANDS);
    // What the commands cost is over when nobody works any more.
    let mut before = cpu_ns(&server);
    eventually("the server waits for the backend", || {
        std::thread::sleep(Duration::from_millis(200));
        let now = cpu_ns(&server);
        let worked: u64 = now.iter().map(|(name, ns)| ns - before.get(name).unwrap_or(&0)).sum();
        before = now;
        worked < 20_000_000
    });
    let waiting = metric(&server, "ferrite_telemetry_queue_depth");
    assert!(waiting > COMMANDS * SPANS, "{waiting}");
    let exported = metric(&server, "ferrite_telemetry_spans_exported_total");
    drop(held);
    eventually("all that waited arrives", || {
        metric(&server, "ferrite_telemetry_spans_exported_total") >= exported + waiting
    });
    let after = cpu_ns(&server);
    let by = |name: &str| after[name] - before[name];
    let export = by("ferrite-export");
    // A fifth of a microsecond a span is less than gzip alone takes.
    assert!(export > 200 * waiting, "{export} ns for {waiting} spans");
    for worker in ["ferrite-wrk-0", "ferrite-wrk-1"] {
        // What they do by the clock.
        assert!(by(worker) < export / 5, "{worker}: {} ns beside {export} ns", by(worker));
    }
}

#[test]
fn every_span_of_two_workers_is_counted_where_it_went() {
    let receiver = Receiver::start();
    let server = exporting(&receiver, &["--telemetry.queue_size", "5000", "--telemetry.batch_timeout_ms", "20"]);
    let held = receiver.hold();
    // Connections spread over both workers.
    std::thread::scope(|scope| (0..6).for_each(|_| _ = scope.spawn(|| set(&server, 1000))));
    drop(held);
    set(&server, 2000);
    eventually("nothing waits", || metric(&server, "ferrite_telemetry_queue_depth") == 0);
    let mut sums = (0, 0);
    eventually("every span has met its fate", || {
        let [sampled, exported, dropped] = ["sampled", "exported", "dropped"]
            .map(|what| metric(&server, &format!("ferrite_telemetry_spans_{what}_total")));
        sums = (exported, dropped);
        sampled == exported + dropped
    });
    let (exported, dropped) = sums;
    assert!(dropped > 6000 * SPANS - 5000 - 1000, "{exported} exported, {dropped} dropped");
    assert!(exported >= 5000, "{exported} exported, {dropped} dropped");
}

#[test]
fn commands_go_before_it() {
    let receiver = Receiver::start();
    let server = exporting(&receiver, &[]);
    let nice_of = |wanted: &str| {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.child.id())).unwrap();
        let stat = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap());
        let stat = stat.filter(|stat| stat.contains(&format!("({wanted})"))).collect::<Vec<_>>();
        assert_eq!(stat.len(), 1, "one thread has the name {wanted}");
        // proc(5): the name is the second field, the nice value the nineteenth.
        stat[0].rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().parse::<i32>().unwrap()
    };
    let workers = nice_of("ferrite-wrk-0");
    assert_eq!(nice_of("ferrite-wrk-1"), workers);
    // There is no less urgent than 19.
    assert_eq!(nice_of("ferrite-export"), (workers + 10).min(19));
}
