//! Golden traces: what the node exports for a command, in canonical form, compared with the snapshots in
//! `golden-traces/snapshots`. Each scenario gives the same text for every seed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use ferrite_golden_traces::{Attribute, Span, Value, canonical};
use ferrite_io::{Clock, World};
use ferrite_node::config::{AppendFsync, SpanDetail};
use ferrite_node::{Node, RenderConfig};
use ferrite_otlp::{ColdSpans, ExportQueue, LogFormat, LogSettings, subscriber};
use ferrite_sim::client::RawClient;
use ferrite_sim::resp::{Reply, encode_command};
use ferrite_sim::server::{PAGE_BYTES, config, launch_beside, start};

use ferrite_sim::{FaultPlan, Host, Scenario, ScenarioFuture, Sim, SimWorld, run};
use ferrite_telemetry::schema::EventName;
use ferrite_telemetry::{Probability, RemoteContext, Sampling, SpanName};

mod lives;
mod stage;

use lives::LIVES;
use stage::*;

const SEEDS: std::ops::Range<u64> = 0..4;
const SNAPSHOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden-traces/snapshots");
/// A caller's context, as the W3C specification's example has it.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What CONFIG REWRITE is to replace. No scenario makes it.
const CONFIG_FILE: &str = "/etc/ferrite.toml";

/// Declares the golden scenarios: `name(server) |stage| { commands }`.
macro_rules! golden {
    ($($name:ident($server:expr) |$stage:ident| $body:block)*) => {
        const COMMANDS: &[Scenario] = &[$(Scenario {
            name: stringify!($name),
            about: "a golden trace",
            faults: |_| FaultPlan::none(),
            marks: &[],
            run: |sim| -> ScenarioFuture { Box::pin(play(sim, $server, |$stage| Box::pin(async move { $body }))) },
        }),*];
    };
}

golden! {
    set(FULL) |stage| {
        assert_eq!(stage.client.command(&["SET", "user:123", "{\"name\":\"Alice\"}"]).await.expect("answers"), Reply::ok());
    }

    set_with_aof_always(ALWAYS) |stage| {
        assert_eq!(stage.client.command(&["SET", "user:123", "{\"name\":\"Alice\"}"]).await.expect("answers"), Reply::ok());
    }

    get_mutable(FULL) |stage| {
        stage.command("SET key value").await;
        stage.traced_from_here().await;
        assert_eq!(stage.command("GET key").await, Reply::Bulk(b"value".to_vec()));
    }

    get_read_only(FULL) |stage| {
        stage.push_to_read_only("key").await;
        stage.traced_from_here().await;
        assert_eq!(stage.command("GET key").await, Reply::Bulk(vec![b'v'; 100]));
    }

    get_from_disk(STORAGE) |stage| {
        stage.push_to_disk("large-dataset:partition-7:offset-9999").await;
        stage.traced_from_here().await;
        let reply = stage.command("GET large-dataset:partition-7:offset-9999").await;
        assert_eq!(reply, Reply::Bulk(vec![b'v'; 100]));
    }

    get_from_disk_full(FULL) |stage| {
        stage.push_to_disk("large-dataset:partition-7:offset-9999").await;
        stage.traced_from_here().await;
        let reply = stage.command("GET large-dataset:partition-7:offset-9999").await;
        assert_eq!(reply, Reply::Bulk(vec![b'v'; 100]));
    }

    get_of_a_latched_key(FULL) |stage| {
        stage.command("SET key value").await;
        assert_eq!(stage.command_behind_a_latch("GET key", "key").await, Reply::Bulk(b"value".to_vec()));
    }

    set_that_waits_for_room(FULL) |stage| {
        let pad = "p".repeat(3900);
        let mut bytes = Vec::new();
        for number in 0..12 {
            encode_command(&["SET", &format!("key:{number}"), &pad], &mut bytes);
        }
        stage.client.send(&bytes).await.expect("connected");
        for _ in 0..12 {
            assert_eq!(stage.client.read_reply().await.expect("answers"), Reply::ok());
        }
        stage.settle().await;
        let spans = stage.exported();
        let retried = |span: &&Span| span.events.iter().any(|event| event.name == EventName::RetryAttempt.as_str());
        let first = spans.iter().find(retried).expect("there is not so much room").trace_id;
        stage.keep(spans.into_iter().filter(|span| span.trace_id == first).collect());
    }

    set_of_a_cold_key(FULL) |stage| {
        stage.push_to_disk("key").await;
        stage.traced_from_here().await;
        assert_eq!(stage.command("SET key value").await, Reply::ok());
    }

    get_from_read_cache(FULL) |stage| {
        assert_eq!(stage.command("CONFIG SET read-cache-size 1mb").await, Reply::ok());
        stage.push_to_disk("key").await;
        assert_eq!(stage.command("GET key").await, Reply::Bulk(vec![b'v'; 100]));
        stage.traced_from_here().await;
        stage.server.set_disk_reads_fail(true);
        assert_eq!(stage.command("GET key").await, Reply::Bulk(vec![b'v'; 100]));
    }

    pipeline_in_the_read_cache(FULL) |stage| {
        assert_eq!(stage.command("CONFIG SET read-cache-size 1mb").await, Reply::ok());
        stage.command(&format!("SET cold {}", "v".repeat(100))).await;
        stage.push_to_disk("cached").await;
        assert_eq!(stage.command("GET cached").await, Reply::Bulk(vec![b'v'; 100]));
        stage.traced_from_here().await;
        let mut bytes = Vec::new();
        for key in ["cached", "cold", "cached"] {
            encode_command(&["GET", key], &mut bytes);
        }
        stage.client.send(&bytes).await.expect("connected");
        for _ in 0..3 {
            assert_eq!(stage.client.read_reply().await.expect("answers"), Reply::Bulk(vec![b'v'; 100]));
        }
    }

    get_large_from_disk(FULL) |stage| {
        let value = "v".repeat(2 * PAGE_BYTES);
        stage.command(&format!("SET key {value}")).await;
        stage.push_down(|_, head| head >= 1).await;
        stage.traced_from_here().await;
        assert_eq!(stage.command("GET key").await, Reply::Bulk(value.into_bytes()));
    }

    getrange_of_a_large_string_on_disk(FULL) |stage| {
        let value: String = (0..300_000).map(|at| char::from(b'a' + (at / 1000 % 26) as u8)).collect();
        stage.command(&format!("SET key {value}")).await;
        stage.push_down(|_, head| head >= 1).await;
        stage.traced_from_here().await;
        let part = value.as_bytes()[200_000..=200_099].to_vec();
        assert_eq!(stage.command("GETRANGE key 200000 200099").await, Reply::Bulk(part));
    }

    strlen_of_a_large_string_on_disk(FULL) |stage| {
        stage.command(&format!("SET key {}", "v".repeat(300_000))).await;
        stage.push_down(|_, head| head >= 1).await;
        stage.traced_from_here().await;
        assert_eq!(stage.command("STRLEN key").await, Reply::Int(300_000));
    }

    hset(FULL) |stage| {
        assert_eq!(stage.command("HSET user:123 name Alice city Bern").await, Reply::Int(2));
    }

    hset_of_a_field(FULL) |stage| {
        stage.command("HSET user:123 name Alice city Bern").await;
        stage.traced_from_here().await;
        assert_eq!(stage.command("HSET user:123 city Basel").await, Reply::Int(0));
    }

    hgetall(FULL) |stage| {
        stage.command("HSET user:123 name Alice city Bern").await;
        stage.traced_from_here().await;
        let expected = ["name", "Alice", "city", "Bern"].map(|word| Reply::Bulk(word.as_bytes().to_vec()));
        assert_eq!(stage.command("HGETALL user:123").await, Reply::Array(expected.into()));
    }

    hget_from_disk(FULL) |stage| {
        stage.command("HSET user:123 name Alice city Bern").await;
        stage.push_down(|_, head| head >= 1).await;
        stage.traced_from_here().await;
        assert_eq!(stage.command("HGET user:123 city").await, Reply::Bulk(b"Bern".to_vec()));
    }

    get_missing(FULL) |stage| {
        assert_eq!(stage.command("GET missing").await, Reply::Null);
    }

    syntax_error(FULL) |stage| {
        let reply = stage.command("SET key value NX XX").await;
        assert_eq!(reply, Reply::Error("ERR syntax error".to_owned()));
    }

    unknown_command(FULL) |stage| {
        assert!(matches!(stage.command("FLY key").await, Reply::Error(text) if text.starts_with("ERR unknown command")));
    }

    pipeline_of_hits_and_misses(FULL) |stage| {
        stage.push_to_disk("cold").await;
        stage.command("SET hot 1").await;
        stage.traced_from_here().await;
        let mut bytes = Vec::new();
        for key in ["hot", "cold", "missing", "hot"] {
            encode_command(&["GET", key], &mut bytes);
        }
        stage.client.send(&bytes).await.expect("connected");
        let hot = Reply::Bulk(b"1".to_vec());
        for expected in [hot.clone(), Reply::Bulk(vec![b'v'; 100]), Reply::Null, hot] {
            assert_eq!(stage.client.read_reply().await.expect("answers"), expected);
        }
    }

    multi_exec(FULL) |stage| {
        let mut bytes = Vec::new();
        for line in ["MULTI", "SET a 1", "INCR a", "GET missing", "EXEC"] {
            encode_command(&line.split(' ').collect::<Vec<_>>(), &mut bytes);
        }
        stage.client.send(&bytes).await.expect("connected");
        assert_eq!(stage.client.read_reply().await.expect("answers"), Reply::ok());
        for _ in 0..3 {
            assert_eq!(stage.client.read_reply().await.expect("answers"), Reply::Simple("QUEUED".to_owned()));
        }
        let expected = Reply::Array(vec![Reply::ok(), Reply::Int(2), Reply::Null]);
        assert_eq!(stage.client.read_reply().await.expect("answers"), expected);
    }

    with_parent(FULL) |stage| {
        let mut bytes = format!("|2\r\n$11\r\ntraceparent\r\n${}\r\n{TRACEPARENT}\r\n", TRACEPARENT.len()).into_bytes();
        bytes.extend(b"$10\r\ntracestate\r\n$8\r\nvendor=1\r\n");
        encode_command(&["GET", "key"], &mut bytes);
        stage.client.send(&bytes).await.expect("connected");
        assert_eq!(stage.client.read_reply().await.expect("answers"), Reply::Null);
    }

    with_b3_parent_and_baggage(B3) |stage| {
        let caller = RemoteContext::parse(TRACEPARENT.as_bytes(), b"").expect("well-formed");
        let b3 = format!("{}-{}-1", caller.trace_id, caller.span_id);
        let baggage = "tenant.id=acme%20corp;meta=1, secret=x , tenant.tier=gold";
        let mut bytes = format!("|2\r\n$2\r\nb3\r\n${}\r\n{b3}\r\n", b3.len()).into_bytes();
        bytes.extend(format!("$7\r\nbaggage\r\n${}\r\n{baggage}\r\n", baggage.len()).into_bytes());
        encode_command(&["GET", "key"], &mut bytes);
        stage.client.send(&bytes).await.expect("connected");
        assert_eq!(stage.client.read_reply().await.expect("answers"), Reply::Null);
    }

    with_parent_by_wrapper(FULL) |stage| {
        assert_eq!(stage.command(&format!("OTEL.TRACE {TRACEPARENT} vendor=1 GET key")).await, Reply::Null);
    }

    with_parent_of_the_connection(FULL) |stage| {
        assert_eq!(stage.command(&format!("OTEL.CONTEXT SET {TRACEPARENT} ONCE")).await, Reply::ok());
        stage.traced_from_here().await;
        assert_eq!(stage.command("GET key").await, Reply::Null);
        assert_eq!(stage.command("GET key").await, Reply::Null);
    }

    with_malformed_parent(FULL) |stage| {
        let mut bytes = b"|1\r\n$11\r\ntraceparent\r\n$6\r\n00-abc\r\n".to_vec();
        encode_command(&["GET", "key"], &mut bytes);
        stage.client.send(&bytes).await.expect("connected");
        assert_eq!(stage.client.read_reply().await.expect("answers"), Reply::Null);
    }

    connection(FULL) |stage| {
        stage.traced_from_here().await;
        let mut other = stage.connect().await;
        assert_eq!(other.command(&["GET", "missing"]).await.expect("answers"), Reply::Null);
        other.half_close().await.expect("closes");
        assert_eq!(other.read_to_end().await.expect("the server closes too"), b"");
    }

    connection_with_protocol_error(FULL) |stage| {
        stage.traced_from_here().await;
        let mut other = stage.connect().await;
        other.send(b"*1\r\nPING\r\n").await.expect("connected");
        assert_eq!(other.read_to_end().await.expect("closed"), b"-ERR Protocol error: expected '$', got 'P'\r\n");
        drop(other);
    }

    eviction(FULL) |stage| {
        let limits = "CONFIG SET maxmemory 1000 maxmemory-policy allkeys-lru";
        assert_eq!(stage.command(limits).await, Reply::ok());
        // 160 bytes each: six of them have room.
        let set = |number: u64| format!("SET key:{number} {}", "v".repeat(100));
        for number in 0..6 {
            assert_eq!(stage.command(&set(number)).await, Reply::ok());
        }
        stage.traced_from_here().await;
        assert_eq!(stage.command(&set(6)).await, Reply::ok());
        assert_eq!(stage.command("PING").await, Reply::Simple("PONG".into()));
        assert_eq!(stage.command("DBSIZE").await, Reply::Int(6));
    }

    compaction(FULL) |stage| {
        let set = |number: u64| format!("SET key:{number} {}", "v".repeat(1000));
        // More than the mutable region holds, so that each is written to another place the next time.
        for number in 0..75 {
            assert_eq!(stage.command(&set(number % 25)).await, Reply::ok());
            stage.sim.sleep(Duration::from_millis(20)).await;
        }
        stage.traced_from_here().await;
        assert_eq!(stage.command("CONFIG SET auto-compaction-min-size 0 auto-compaction-percentage 10").await, Reply::ok());
        stage.sim.sleep(Duration::from_secs(2)).await;
        stage.command("CONFIG SET auto-compaction-percentage 0").await;
    }

    compaction_with_read_error(FULL) |stage| {
        let set = |number: u64| format!("SET key:{number} {}", "v".repeat(1000));
        for number in 0..75 {
            assert_eq!(stage.command(&set(number % 25)).await, Reply::ok());
            stage.sim.sleep(Duration::from_millis(20)).await;
        }
        stage.traced_from_here().await;
        stage.server.set_disk_reads_fail(true);
        assert_eq!(stage.command("CONFIG SET auto-compaction-min-size 0 auto-compaction-percentage 10").await, Reply::ok());
        // The second attempt would come after a second.
        stage.sim.sleep(Duration::from_millis(500)).await;
        stage.command("CONFIG SET auto-compaction-percentage 0").await;
        stage.server.set_disk_reads_fail(false);
        stage.keep_named(SpanName::Compaction).await;
    }

    eviction_with_read_error(FULL) |stage| {
        // Alone on its page, and the only key that may go.
        let value = "v".repeat(3900);
        assert_eq!(stage.command(&format!("SETEX key 100000 {value}")).await, Reply::ok());
        stage.push_down(|_, head| head >= 1).await;
        stage.traced_from_here().await;
        stage.server.set_disk_reads_fail(true);
        assert_eq!(stage.command("CONFIG SET maxmemory 1000 maxmemory-policy volatile-ttl").await, Reply::ok());
        // One run after the other, of which the first is told of.
        stage.sim.sleep(Duration::from_secs(1)).await;
        stage.keep_named(SpanName::Eviction).await;
        stage.server.set_disk_reads_fail(false);
        stage.sim.sleep(Duration::from_secs(1)).await;
        assert_eq!(stage.command("EXISTS key").await, Reply::Int(0));
        stage.keep_named(SpanName::Eviction).await;
    }

    get_with_read_error(FULL) |stage| {
        stage.push_to_disk("key").await;
        stage.traced_from_here().await;
        stage.server.set_disk_reads_fail(true);
        let before = stage.sim.last_submission();
        let Reply::Error(error) = stage.command("GET key").await else { panic!("the disk cannot be read") };
        assert!(error.starts_with("ERR reading the log file at address"), "{error}");
        let submitted = before + 1..=stage.sim.last_submission();
        stage.settle().await;
        let spans = stage.exported();
        let id = spans.iter().find_map(|span| span.attributes.get(Attribute::IoUringSqeId.as_str()));
        let Some(Value::Int(id)) = id else { panic!("the read has no id: {id:?}") };
        assert!(submitted.contains(&(*id as u64)), "{id} is none of {submitted:?}");
        // The connection is none the worse for it.
        stage.server.set_disk_reads_fail(false);
        assert_eq!(stage.command("GET key").await, Reply::Bulk(vec![b'v'; 100]));
        stage.traced_from_here().await;
        stage.keep(spans);
    }

    get_with_damaged_record(FULL) |stage| {
        stage.push_to_disk("key").await;
        stage.traced_from_here().await;
        stage.server.corrupt("/data/hybrid.log", |bytes| {
            let at = bytes.windows(100).position(|bytes| bytes == [b'v'; 100]).expect("the value is in the file");
            bytes[at] ^= 1;
        });
        let Reply::Error(error) = stage.command("GET key").await else { panic!("a damaged value is never answered") };
        assert!(error.starts_with("ERR the log file is damaged at address"), "{error}");
        stage.settle().await;
        let spans = stage.exported();
        assert_eq!(stage.command("PING").await, Reply::Simple("PONG".to_owned()));
        stage.traced_from_here().await;
        stage.keep(spans);
    }

    set_with_failed_aof_sync(ALWAYS_UNTIL_IT_FAILS) |stage| {
        stage.server.set_disk_syncs_fail(true);
        let Reply::Error(error) = stage.command("SET key value").await else { panic!("nothing is durable") };
        assert!(error.starts_with("MISCONF Errors writing to the AOF file: the append-only file /data/"), "{error}");
    }

    config_rewrite_without_its_file(FULL) |stage| {
        let Reply::Error(error) = stage.command("CONFIG REWRITE").await else { panic!("there is no such file") };
        assert!(error.starts_with("ERR Rewriting config file: /etc/ferrite.toml: "), "{error}");
    }

    pipeline_behind_quit(FULL) |stage| {
        let mut other = stage.connect().await;
        let mut bytes = Vec::new();
        for line in ["PING", "QUIT", "SET key value", "PING"] {
            encode_command(&line.split(' ').collect::<Vec<_>>(), &mut bytes);
        }
        other.send(&bytes).await.expect("connected");
        assert_eq!(other.read_to_end().await.expect("closed"), b"+PONG\r\n+OK\r\n");
        stage.settle().await;
        let spans = stage.exported();
        assert_eq!(stage.command("EXISTS key").await, Reply::Int(0), "what follows QUIT is not executed");
        stage.traced_from_here().await;
        stage.keep(spans);
    }

    flush(FULL) |stage| {
        // A page and a little: the first of five pages becomes read-only.
        let pad = "p".repeat(3900);
        for number in 0..4 {
            assert_eq!(stage.command(&format!("SET key:{number} {pad}")).await, Reply::ok());
        }
        stage.traced_from_here().await;
        assert_eq!(stage.command(&format!("SET key:4 {pad}")).await, Reply::ok());
        stage.keep_named(SpanName::Flush).await;
    }

    flush_with_write_error(FULL) |stage| {
        let pad = "p".repeat(3900);
        for number in 0..4 {
            assert_eq!(stage.command(&format!("SET key:{number} {pad}")).await, Reply::ok());
        }
        stage.traced_from_here().await;
        stage.server.set_disk_writes_fail(Some("/data/hybrid.log"));
        assert_eq!(stage.command(&format!("SET key:4 {pad}")).await, Reply::ok());
        // The first attempt, and the next one after its wait.
        stage.sim.sleep(Duration::from_millis(15)).await;
        stage.server.set_disk_writes_fail(None);
        stage.keep_named(SpanName::Flush).await;
        assert_eq!(stage.node.store.stats().pages_flushed, 1, "it was tried again");
    }

    expiry(FULL) |stage| {
        for (db, keys) in [(0, 3), (5, 2)] {
            assert_eq!(stage.command(&format!("SELECT {db}")).await, Reply::ok());
            for number in 0..keys {
                assert_eq!(stage.command(&format!("SET key:{number} value PX 150")).await, Reply::ok());
            }
        }
        stage.traced_from_here().await;
        // Many cycles, of which one has something to do.
        stage.sim.sleep(Duration::from_secs(2)).await;
        assert_eq!(stage.command("DBSIZE").await, Reply::Int(0));
        stage.keep_named(SpanName::Expiry).await;
    }

    aof_rewrite(FULL) |stage| {
        stage.command("SET key value").await;
        stage.traced_from_here().await;
        assert!(matches!(stage.command("BGREWRITEAOF").await, Reply::Simple(_)));
        stage.sim.sleep(Duration::from_secs(2)).await;
        stage.keep_named(SpanName::AofRewrite).await;
    }

    aof_rewrite_with_read_error(FULL) |stage| {
        // Alone on its page: the only key that has to be read.
        assert_eq!(stage.command(&format!("SET key {}", "v".repeat(3900))).await, Reply::ok());
        stage.push_down(|_, head| head >= 1).await;
        stage.traced_from_here().await;
        stage.server.set_disk_reads_fail(true);
        assert!(matches!(stage.command("BGREWRITEAOF").await, Reply::Simple(_)));
        stage.sim.sleep(Duration::from_secs(2)).await;
        stage.server.set_disk_reads_fail(false);
        stage.keep_named(SpanName::AofRewrite).await;
    }

    checkpoint_with_write_error(FULL) |stage| {
        stage.command("SET key value").await;
        stage.traced_from_here().await;
        stage.server.set_disk_writes_fail(Some("/data/hybrid.log"));
        let Reply::Error(error) = stage.command("SAVE").await else { panic!("the log cannot be flushed") };
        assert!(error.starts_with("ERR"), "{error}");
        stage.server.set_disk_writes_fail(None);
        stage.keep_named(SpanName::Checkpoint).await;
    }

    checkpoint(FULL) |stage| {
        stage.command("SET key value").await;
        stage.traced_from_here().await;
        assert_eq!(stage.command("SAVE").await, Reply::ok());
    }

    not_sampled(NOT_SAMPLED) |stage| {
        assert_eq!(stage.command("SET key value").await, Reply::ok());
        stage.settle().await;
        let Reply::Array(lines) = stage.command("OTEL.TRACES LAST 1").await else { panic!("an array of lines") };
        assert!(matches!(&lines[0], Reply::Simple(line) if line.ends_with("(not sampled)")), "{lines:?}");
        assert!(matches!(&lines[1], Reply::Simple(line) if line.starts_with("ferrite.command (")), "{lines:?}");
    }
}

fn golden() -> impl Iterator<Item = &'static Scenario> {
    COMMANDS.iter().chain(LIVES)
}

/// The canonical text of a scenario, the same for every seed.
fn text_of(scenario: &Scenario) -> String {
    LazyLock::force(&ELSEWHERE);
    let mut texts = BTreeSet::new();
    for seed in SEEDS {
        let report = run(seed, scenario);
        report.expect_success();
        texts.extend(report.spans);
    }
    assert_eq!(texts.len(), 1, "{} differs between seeds:\n{texts:#?}", scenario.name);
    texts.pop_first().expect("just counted")
}

fn scenario(name: &str) -> &'static Scenario {
    golden().find(|scenario| scenario.name == name).expect("it is declared above")
}

#[test]
fn every_scenario_exports_what_its_snapshot_shows() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(Path::new(SNAPSHOTS));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for scenario in golden() {
            insta::assert_snapshot!(scenario.name, text_of(scenario));
        }
    });
    // A snapshot without a scenario is compared with nothing.
    let found: BTreeSet<String> = names_in(Path::new(SNAPSHOTS));
    let wanted: BTreeSet<String> = golden().map(|scenario| format!("{}.snap", scenario.name)).collect();
    assert_eq!(found, wanted);
}

fn names_in(directory: &Path) -> BTreeSet<String> {
    let entries = directory.read_dir().expect("the snapshots are there");
    entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
}

/// The lines of a canonical text that name spans, with the tier of a storage span behind its name.
fn names(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for line in text.lines() {
        let indented = line.trim_start();
        if let Some(tier) = indented.strip_prefix("ferrite.storage.tier = ") {
            let name = names.last_mut().expect("an attribute belongs to a span");
            // An event of the span may name it again.
            if !name.ends_with(']') {
                *name = format!("{name}[{}]", tier.trim_matches('"'));
            }
        } else if indented.ends_with(" SERVER") || indented.ends_with(" INTERNAL") {
            let depth = line.len() - indented.len();
            names.push(format!("{}{}", " ".repeat(depth), indented.rsplit_once(' ').expect("it has a kind").0));
        }
    }
    names
}

#[test]
fn a_cold_get_is_the_tree_of_the_tracing_example() {
    assert_eq!(
        names(&text_of(scenario("get_from_disk"))),
        [
            "ferrite.command",
            "  > ferrite.resp.parse",
            "  > ferrite.index.lookup",
            "  > ferrite.storage.read[mutable]",
            "  > ferrite.storage.read[read_only]",
            "  > ferrite.epoch.protect",
            "  > ferrite.storage.read[disk]",
        ]
    );
}

#[test]
fn a_set_has_the_spans_of_the_waterfall() {
    let with_sync = [
        "ferrite.command",
        "  > ferrite.resp.parse",
        "  > ferrite.command.dispatch",
        "  > ferrite.command.execute",
        "  > ferrite.index.lookup",
        "  > ferrite.storage.write[mutable]",
        "  > ferrite.epoch.advance",
        "  > ferrite.aof.append",
        "  > ferrite.aof.sync",
        "  > ferrite.resp.serialize",
        "  > ferrite.net.write",
    ];
    let always = names(&text_of(scenario("set_with_aof_always")));
    let mut sorted = always.clone();
    sorted.sort();
    let mut expected = with_sync.map(str::to_owned);
    expected.sort();
    assert_eq!(sorted, expected, "{always:?}");
    let without: Vec<&str> = with_sync.into_iter().filter(|name| !name.contains("aof.sync")).collect();
    assert_eq!(names(&text_of(scenario("set"))), without);
}

#[test]
fn every_carrier_of_a_context_gives_the_same_tree() {
    let by_attribute = text_of(scenario("with_parent"));
    assert!(by_attribute.contains("  parent: <remote>\n  tracestate: vendor=1\n"), "{by_attribute}");
    assert_eq!(text_of(scenario("with_parent_by_wrapper")), by_attribute);
    let without = by_attribute.replace("  parent: <remote>\n  tracestate: vendor=1\n", "");
    assert_eq!(text_of(scenario("with_malformed_parent")), without);
    let with_baggage = text_of(scenario("with_b3_parent_and_baggage"));
    let spans = with_baggage.lines().filter(|line| line.contains("ferrite.") && !line.contains('=')).count();
    let tenants = with_baggage.lines().filter(|line| line.trim() == "tenant.id = \"acme corp\"").count();
    assert_eq!((tenants, with_baggage.contains("secret")), (spans, false), "{with_baggage}");
    let plain: String =
        with_baggage.lines().filter(|line| !line.contains("tenant.")).map(|line| format!("{line}\n")).collect();
    assert_eq!(plain, by_attribute.replace("  tracestate: vendor=1\n", ""));
}

#[test]
fn what_is_not_sampled_is_not_exported() {
    assert_eq!(text_of(scenario("not_sampled")), "");
}
