//! The Collector goes away under load and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ferrite_golden_traces::Attribute;
use ferrite_integration::backend::Backend;
use ferrite_integration::server::Server;
use ferrite_integration::{eventually, jaeger};
use ferrite_telemetry::schema::{Metric, prometheus_name};

/// No command may take this long. An export that blocked commands would block them for its time-out, which is seconds;
/// a shared machine may well stop everything for a tenth of one.
const LATENCY_LIMIT: Duration = Duration::from_secs(1);
const CONNECTIONS: usize = 4;
const PHASE: Duration = Duration::from_secs(3);
/// gRPC waits longer and longer before it connects again.
const RESUME_LIMIT: Duration = Duration::from_secs(60);

/// What one connection saw.
#[derive(Default)]
struct Seen {
    commands: usize,
    slowest: Duration,
}

/// SETs and GETs until told to stop; an error ends the test.
async fn load(server: &Server, number: usize, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<Seen> {
    let mut connection = server.connect().await;
    tokio::spawn(async move {
        let mut seen = Seen::default();
        let key = format!("load:{number}");
        while !stop.load(Ordering::Relaxed) {
            let value = seen.commands.to_string();
            let begin = Instant::now();
            redis::cmd("SET").arg(&key).arg(&value).exec_async(&mut connection).await.expect("SET works");
            let middle = Instant::now();
            let got: String = redis::cmd("GET").arg(&key).query_async(&mut connection).await.expect("GET works");
            seen.slowest = seen.slowest.max(middle - begin).max(middle.elapsed());
            assert_eq!(got, value);
            seen.commands += 2;
        }
        seen
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_killed_or_hangs_costs_spans_but_no_command() {
    let backend = Backend::start().await;
    let server = Server::exporting(&backend, &[]).await;
    let exported = prometheus_name(Metric::SPANS_EXPORTED.name);
    let dropped = prometheus_name(Metric::SPANS_DROPPED.name);

    let stop = Arc::new(AtomicBool::new(false));
    let mut connections = Vec::new();
    for number in 0..CONNECTIONS {
        connections.push(load(&server, number, stop.clone()).await);
    }
    eventually("spans are exported", RESUME_LIMIT, async || (server.metric(&exported).await > 0.0).then_some(())).await;

    // Killed: connections are refused.
    let dropped_before = server.metric(&dropped).await;
    backend.collector.stop_with_timeout(Some(0)).await.expect("the Collector is killed");
    tokio::time::sleep(PHASE).await;
    eventually("lost spans are counted", RESUME_LIMIT, async || {
        (server.metric(&dropped).await > dropped_before).then_some(())
    })
    .await;
    let exported_before = server.metric(&exported).await;
    backend.collector.start().await.expect("the Collector starts again");
    eventually("export resumes after a restart", RESUME_LIMIT, async || {
        (server.metric(&exported).await > exported_before).then_some(())
    })
    .await;

    // Hanging: connections stay open and nothing is answered.
    backend.collector.pause().await.expect("the Collector is frozen");
    tokio::time::sleep(PHASE).await;
    let dropped_before = server.metric(&dropped).await;
    eventually("spans are lost while nothing answers", RESUME_LIMIT, async || {
        (server.metric(&dropped).await > dropped_before).then_some(())
    })
    .await;
    backend.collector.unpause().await.expect("the Collector goes on");
    let exported_before = server.metric(&exported).await;
    eventually("export resumes after a freeze", RESUME_LIMIT, async || {
        (server.metric(&exported).await > exported_before).then_some(())
    })
    .await;

    stop.store(true, Ordering::Relaxed);
    for connection in connections {
        let seen = connection.await.expect("no command failed");
        assert!(seen.commands > 100, "only {} commands", seen.commands);
        assert!(seen.slowest < LATENCY_LIMIT, "a command took {:?}", seen.slowest);
    }

    // Not only counted as exported: a new command is found in Jaeger. The load has filled the queue, which drops what
    // finds no room.
    let depth = prometheus_name(Metric::QUEUE_DEPTH.name);
    eventually("the queue is exported", RESUME_LIMIT, async || (server.metric(&depth).await == 0.0).then_some(()))
        .await;
    let mut connection = server.connect().await;
    redis::cmd("SET").arg("after:outage").arg("1").exec_async(&mut connection).await.expect("SET works");
    jaeger::wait_for(backend.jaeger_port, "ferrite", &[(Attribute::CommandKey, "after:outage")]).await;
}
