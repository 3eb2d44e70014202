//! What the server does by itself is counted: at `/metrics` and over OTLP, which both show what is collected here.

use std::net::SocketAddr;
use std::time::Duration;

use ferrite_node::config::{AppendFsync, Policy};
use ferrite_node::{Node, collect};
use ferrite_otlp::{Series, Value};
use ferrite_sim::client::RawClient;
use ferrite_sim::resp::Reply;
use ferrite_sim::server::{config, start};
use ferrite_sim::{FaultPlan, Scenario, ScenarioFuture, Sim, run};
use ferrite_telemetry::schema::{METRICS, Metric};

const WORK: Scenario = Scenario {
    name: "background-metrics",
    about: "checkpoints, rewrites, eviction, compaction and recovery are counted, failures too",
    faults: |_| FaultPlan::none(),
    marks: &[],
    run: |sim| -> ScenarioFuture { Box::pin(work(sim)) },
};

/// The points of a metric, by label.
fn points(series: &[Series], metric: Metric) -> Vec<(String, f64)> {
    let of: Vec<&Series> = series.iter().filter(|series| series.metric == metric).collect();
    assert_eq!(of.len(), 1, "{}", metric.name);
    let value = |value: &Value| match value {
        Value::Integer(value) => *value as f64,
        Value::Float(value) => *value,
        Value::Histogram { .. } => panic!("{} is none", metric.name),
    };
    of[0].points.iter().map(|point| (point.label.clone().unwrap_or_default(), value(&point.value))).collect()
}

fn only(node: &Node, metric: Metric) -> f64 {
    let points = points(&collect(node), metric);
    assert_eq!(points.len(), 1, "{}: {points:?}", metric.name);
    points[0].1
}

fn by_result(node: &Node, metric: Metric) -> [f64; 2] {
    let points = points(&collect(node), metric);
    assert_eq!(points.iter().map(|(label, _)| label.as_str()).collect::<Vec<_>>(), ["ok", "error"]);
    [points[0].1, points[1].1]
}

async fn work(sim: Sim) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 6379);
    let boot = move |host: &ferrite_sim::Host| {
        let started = host.spawn(move |world| async move {
            let mut config = config(address, AppendFsync::Always);
            config.server.maxmemory_policy = Policy::AllkeysRandom;
            let starting = start(&world, config);
            starting.ready().await;
            starting.node
        });
        async { started.await.expect("no power loss is planned") }
    };
    let node = boot(&server).await;
    let (disk, watched) = (server.clone(), node.clone());
    let task = sim.add_host("client").spawn(move |world| async move {
        let (node, mut client) = (watched, RawClient::connect_when_up(&world, address).await);
        for number in 0..150 {
            assert_eq!(client.ask(&format!("SET key:{} {}", number % 50, "v".repeat(900))).await, Reply::ok());
            madsim::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(client.ask("EXPIRE key:1 100000").await, Reply::Int(1));
        assert_eq!(only(&node, Metric::EXPIRY_REMINDERS), 1.0);
        assert_eq!(only(&node, Metric::RECOVERY_BYTES), 0.0);

        assert_eq!(points(&collect(&node), Metric::CHECKPOINT_LAST_SUCCESS), [], "there is none");
        assert_eq!(client.ask("SAVE").await, Reply::ok());
        disk.set_disk_writes_fail(Some("/data/hybrid.log"));
        assert_eq!(client.ask("SET key:0 w").await, Reply::ok());
        let Reply::Error(_) = client.ask("SAVE").await else { panic!("the log cannot be flushed") };
        disk.set_disk_writes_fail(None);
        assert_eq!(by_result(&node, Metric::CHECKPOINTS), [1.0, 1.0]);
        assert!(only(&node, Metric::CHECKPOINT_BYTES) > 500.0);
        assert!(only(&node, Metric::CHECKPOINT_DURATION) > 0.0);
        assert!(only(&node, Metric::CHECKPOINT_LAST_SUCCESS) > 0.0);

        assert!(matches!(client.ask("BGREWRITEAOF").await, Reply::Simple(_)));
        madsim::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(by_result(&node, Metric::REWRITES), [1.0, 0.0]);
        assert!(only(&node, Metric::REWRITE_BYTES) > 50.0 * 900.0);
        assert!(only(&node, Metric::REWRITE_DURATION) > 0.0);
        assert!(only(&node, Metric::DISK_READS) > 0.0, "the rewrite has read them");

        assert_eq!(
            client.ask("CONFIG SET auto-compaction-min-size 0 auto-compaction-percentage 10").await,
            Reply::ok()
        );
        madsim::time::sleep(Duration::from_secs(5)).await;
        assert!(only(&node, Metric::COMPACTION_RUNS) > 0.0);

        let quota = only(&node, Metric::QUOTA_USED);
        assert!(quota > 0.0 && only(&node, Metric::QUOTA_MAX) == 0.0 && only(&node, Metric::QUOTA_EXCEEDED) == 0.0);
        assert_eq!(client.ask("CONFIG SET disk-quota 1000").await, Reply::ok());
        assert_eq!((only(&node, Metric::QUOTA_MAX), only(&node, Metric::QUOTA_EXCEEDED)), (1000.0, 1.0));
        assert_eq!(client.ask("CONFIG SET disk-quota 0").await, Reply::ok());

        assert_eq!(client.ask("CONFIG SET maxmemory 10000").await, Reply::ok());
        madsim::time::sleep(Duration::from_secs(1)).await;
        let [runs, failed] = by_result(&node, Metric::EVICTION_RUNS);
        assert!(runs > 0.0 && failed == 0.0);
        assert_eq!(only(&node, Metric::DISK_FULL), 0.0);

        let series = collect(&node);
        let accounts = points(&series, Metric::MEMORY_ACCOUNT);
        assert!(accounts.len() > 10 && accounts.iter().any(|(name, bytes)| name == "pages" && *bytes > 0.0));
        let sum: f64 = accounts.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(points(&series, Metric::MEMORY_USED)[0].1, sum);
        for metric in METRICS.iter().filter(|metric| **metric != Metric::REPLICATION_LAG) {
            assert_eq!(series.iter().filter(|series| series.metric == *metric).count(), 1, "{}", metric.name);
        }
        assert_eq!(client.ask("CONFIG SET maxmemory 0").await, Reply::ok());
        assert_eq!(client.ask("SET key:0 w").await, Reply::ok());
    });
    task.await.expect("the client's host stays up");
    node.shutdown.raise();
    sim.sleep(Duration::from_secs(1)).await;
    server.kill();
    server.boot();
    let node = boot(&server).await;
    assert!(only(&node, Metric::RECOVERY_BYTES) > 0.0 && only(&node, Metric::RECOVERY_DURATION) > 0.0);
}

#[test]
fn background_work_is_counted() {
    for seed in 0..4 {
        run(seed, &WORK).expect_success();
    }
}
