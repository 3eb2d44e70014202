use std::cell::Cell;
use std::pin::pin;

use ferrite_telemetry::{Probability, Sampling, cold, cold_span};
use futures_util::FutureExt;
use serde_json::Value as Json;
use tracing::Instrument;
use tracing::subscriber::with_default;

use super::*;
use crate::export::testing::Lines;
use crate::logging::{LogFormat, LogSettings, subscriber};
use crate::{QueueCounts, Queued};

thread_local! {
    static NOW_NS: Cell<u64> = const { Cell::new(0) };
}

/// A clock that goes on by ten at each look.
fn monotonic_ns() -> u64 {
    NOW_NS.set(NOW_NS.get() + 10);
    NOW_NS.get()
}

const WALL_NS: u64 = 1_753_000_000_000_000_000;

/// What `scope` queues and logs, with this sampler and log filter.
fn seen(seed: u64, choice: Probability, filter: &str, scope: impl FnOnce()) -> (Vec<ColdSpan>, QueueCounts, Vec<Json>) {
    NOW_NS.set(0);
    let queue = Arc::new(ExportQueue::new(100, 1));
    let spans = ColdSpans { queue: queue.clone(), sampling: Sampling::by_head(choice, true), seed, monotonic_ns };
    let lines = Lines::default();
    let settings = LogSettings { filter: filter.to_owned(), format: LogFormat::Json, unix_ns: || WALL_NS };
    with_default(subscriber(&settings, lines.writer(), None, Some(spans)).expect("the filter is valid"), scope);
    let counts = queue.counts();
    let taken = std::iter::repeat_with(|| queue.take()).take_while(|batch| !batch.is_empty()).flatten();
    let spans = taken.map(|item| match item {
        Queued::Cold(span) => *span,
        Queued::Trace(_) | Queued::Part(_) => panic!("nothing recorded a command"),
    });
    let spans = spans.collect();
    let lines = lines.text().lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    (spans, counts, lines)
}

/// A start that opens a directory, as the node does it; the second step fails.
fn start() {
    let root = cold_span!(ServerStart, ServerPort);
    let inner = root.clone();
    let work = async move {
        let open = cold_span!(DataDirOpen, DataDirPath, AofRecords);
        cold::set_text(&open, Attribute::DataDirPath, "/data");
        async { tracing::warn!(bytes = 3, "cut off") }.instrument(open.clone()).await;
        cold::set(&open, Attribute::AofRecords, 7);
        drop(open);
        cold::step(&cold_span!(ServerBind), async { Err::<(), _>("in use") }).await.unwrap_err();
        tracing::info!(trace_id = "a command's", "Ready");
        cold::set(&inner, Attribute::ServerPort, 6379);
    };
    work.instrument(root).now_or_never().expect("nothing waits");
    tracing::info!("outside");
}

#[test]
fn a_cold_path_is_a_trace_in_the_schema_with_its_children_in_order() {
    let (spans, counts, _) = seen(1, Probability::AlwaysOn, "off", start);
    let [open, bind, root] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!((counts.cold, counts.depth), (3, 3));
    let names = [root, open, bind].map(|cold| cold.span.name);
    assert_eq!(names, [SpanName::ServerStart, SpanName::DataDirOpen, SpanName::ServerBind]);
    for cold in &spans {
        assert_eq!((cold.span.trace_id, cold.span.flags), (root.span.trace_id, FLAG_SAMPLED | FLAG_RANDOM));
        assert_eq!(cold.span.kind, ours::SpanKind::Internal);
        let (start, end) = (cold.span.start_ns, cold.span.end_ns);
        assert!(start < end && cold.wall_offset_ns == (WALL_NS - end) as i64, "{cold:?}");
    }
    assert_eq!(root.span.parent_span_id, None);
    assert_eq!(
        (open.span.parent_span_id, bind.span.parent_span_id),
        (Some(root.span.span_id), Some(root.span.span_id))
    );
    assert!(root.span.start_ns < open.span.start_ns && open.span.end_ns < bind.span.start_ns);
    assert!(bind.span.end_ns < root.span.end_ns);
    assert_eq!(root.span.attributes, [(Attribute::ServerPort, ours::Value::Int(6379))]);
    let path = (Attribute::DataDirPath, ours::Value::Str("/data".into()));
    assert_eq!(open.span.attributes, [path, (Attribute::AofRecords, ours::Value::Int(7))]);
    assert!(open.span.events.is_empty() && open.span.status == ours::Status::Unset);
    assert_eq!(bind.span.status, ours::Status::Error("in use".to_owned()));
}

#[test]
fn spans_of_one_instant_keep_their_order() {
    let clock = RisingClock { monotonic_ns: || 7, last_ns: AtomicU64::new(0) };
    assert_eq!([clock.now_ns(), clock.now_ns(), clock.now_ns()], [7, 8, 9]);
}

#[test]
fn log_lines_carry_the_ids_of_the_span_they_are_written_in() {
    let (spans, _, lines) = seen(1, Probability::AlwaysOn, "info", start);
    let ids = |line: &Json| (line["trace_id"].as_str().map(str::to_owned), line["span_id"].as_str().map(str::to_owned));
    let of = |cold: &ColdSpan| (Some(cold.span.trace_id.to_string()), Some(cold.span.span_id.to_string()));
    let [cut_off, ready, outside] = &lines[..] else { panic!("{lines:#?}") };
    assert_eq!(ids(cut_off), of(&spans[0]));
    // What names its trace keeps it.
    assert_eq!(ids(ready), (Some("a command's".to_owned()), None));
    assert_eq!(ids(outside), (None, None));
}

#[test]
fn the_log_level_does_not_decide_about_spans_nor_do_other_spans_pass() {
    let (spans, _, lines) = seen(1, Probability::AlwaysOn, "off", || {
        let _other = tracing::info_span!("a library's").entered();
        tracing::info!(target: COLD_TARGET, "not a span");
        drop(cold_span!(ServerDrain).entered());
    });
    assert_eq!(spans.len(), 1);
    assert_eq!(spans[0].span.parent_span_id, None);
    assert!(lines.is_empty());
}

#[test]
fn the_sampler_decides_about_the_whole_trace_and_the_seed_about_the_ids() {
    let (spans, counts, lines) = seen(1, Probability::AlwaysOff, "info", start);
    assert_eq!((spans.len(), counts.cold), (0, 0));
    assert!(lines[0]["trace_id"].is_string(), "what is not exported has ids all the same");
    let [first, again, other] = [1, 1, 2].map(|seed| seen(seed, Probability::AlwaysOn, "off", start).0);
    assert_eq!(first, again);
    assert_ne!(first[0].span.trace_id, other[0].span.trace_id);
}

#[test]
fn the_threshold_of_a_consistent_sampler_goes_along() {
    let chosen: Vec<_> = (0..30).map(|seed| seen(seed, Probability::Consistent(0.5), "off", start).0).collect();
    let chosen: Vec<&ColdSpan> = chosen.iter().flatten().collect();
    assert!(chosen.len() >= 3 && chosen.len() < 90, "some traces, not all: {}", chosen.len());
    assert!(chosen.iter().all(|cold| cold.span.tracestate == "ot=th:8"), "{chosen:#?}");
    let (all, ..) = seen(1, Probability::AlwaysOn, "off", start);
    assert!(all.iter().all(|cold| cold.span.tracestate.is_empty()));
}

#[test]
fn a_flush_waits_for_the_fate_of_what_was_queued_and_hurries_it() {
    let (spans, ..) = seen(1, Probability::AlwaysOn, "off", start);
    let queue = ExportQueue::new(100, 50);
    let push = || queue.push_cold(spans[0].clone());
    push();
    assert!(queue.flush().now_or_never().is_some(), "nobody exports");
    assert!(queue.full_batch().now_or_never().is_none());
    queue.attach_exporter();
    let mut flush = pin!(queue.flush());
    assert!(flush.as_mut().now_or_never().is_none());
    push();
    assert!(queue.full_batch().now_or_never().is_some());
    assert_eq!(queue.take().len(), 2);
    queue.count_failed(1);
    assert!(flush.as_mut().now_or_never().is_some(), "only what came before it counts");
    queue.count_exported(1);
    assert!(queue.full_batch().now_or_never().is_none(), "there is nothing to hurry");
}
