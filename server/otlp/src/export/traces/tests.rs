use std::collections::VecDeque;

use opentelemetry_sdk::error::OTelSdkResult;
use parking_lot::Mutex;
use tonic::Code;

use super::*;
use crate::QueueCounts;
use crate::export::testing::{Backend, CALLER, Received, TestClock, get, paused, real, settings, wait_until};

/// How a [`Scripted`] exporter answers.
enum Answer {
    Fail(&'static str),
    Silence,
}

/// Answers as it is told, then takes everything.
#[derive(Clone, Debug, Default)]
struct Scripted(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    answers: VecDeque<Answer>,
    /// Spans of each attempt, and when it was made, in milliseconds.
    attempts: Vec<(usize, u64)>,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

impl Scripted {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self(Arc::new(Mutex::new(Script { answers: answers.into_iter().collect(), attempts: Vec::new() })))
    }

    fn attempts(&self) -> Vec<(usize, u64)> {
        self.0.lock().attempts.clone()
    }
}

impl SpanExporter for Scripted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let answer = {
            let mut script = self.0.lock();
            script.attempts.push((batch.len(), TestClock.monotonic_ns() / 1_000_000));
            script.answers.pop_front()
        };
        match answer {
            None => Ok(()),
            Some(Answer::Fail(message)) => Err(OTelSdkError::InternalFailure(message.to_owned())),
            Some(Answer::Silence) => std::future::pending().await,
        }
    }
}

const UNAVAILABLE: &str = "TonicTracesClient export failed with gRPC code: Unavailable: tcp connect error";

fn export<E: SpanExporter>(queue: &Arc<ExportQueue>, exporter: E) -> TraceExport<TestClock, E> {
    TraceExport {
        shape: Arc::default(),
        clock: TestClock,
        queue: Arc::clone(queue),
        exporter,
        timeout: Duration::from_secs(10),
        batch_timeout: Duration::from_secs(5),
        outage: Outage::none("traces"),
        jitter: IdGenerator::new(1),
    }
}

fn secs(seconds: u64) -> impl Future<Output = ()> {
    let clock = TestClock;
    async move { clock.sleep(Duration::from_secs(seconds)).await }
}

fn counts(exported: usize, failed: usize) -> QueueCounts {
    QueueCounts { exported: exported as u64, dropped_export_failed: failed as u64, ..QueueCounts::default() }
}

#[test]
fn a_full_batch_goes_at_once_and_a_part_of_one_after_the_timeout() {
    paused(async {
        let spans = get(None).span_count();
        let queue = Arc::new(ExportQueue::new(1_000, 2 * spans));
        let exporter = Scripted::default();
        let pushing = Arc::clone(&queue);
        let shutdown = async move {
            secs(1).await;
            (0..3).for_each(|_| pushing.push(get(None)));
            secs(9).await;
        };
        export(&queue, exporter.clone()).run(shutdown).await;
        assert_eq!(exporter.attempts(), [(2 * spans, 1_000), (spans, 6_000)]);
        assert_eq!(queue.counts(), counts(3 * spans, 0));
    });
}

#[test]
fn a_batch_is_tried_five_times_with_growing_pauses_then_counted_as_lost() {
    paused(async {
        let spans = get(None).span_count();
        let queue = Arc::new(ExportQueue::new(1_000, spans));
        queue.push(get(None));
        queue.push(get(None));
        let exporter = Scripted::new((0..5).map(|_| Answer::Fail(UNAVAILABLE)));
        export(&queue, exporter.clone()).run(secs(60)).await;
        let times: Vec<u64> = exporter.attempts().iter().map(|(_, time)| *time).collect();
        assert_eq!(times.len(), 6);
        for (pair, longest) in times.windows(2).zip([500, 1_000, 2_000, 4_000]) {
            // The clock counts whole milliseconds.
            assert!((longest / 2..=longest + 2).contains(&(pair[1] - pair[0])), "{times:?}");
        }
        assert_eq!(queue.counts(), counts(spans, spans));
    });
}

#[test]
fn a_refusal_for_good_is_not_repeated() {
    paused(async {
        let spans = get(None).span_count();
        let queue = Arc::new(ExportQueue::new(1_000, spans));
        queue.push(get(None));
        let exporter = Scripted::new([Answer::Fail("export failed with gRPC code: Unauthenticated")]);
        export(&queue, exporter.clone()).run(secs(60)).await;
        assert_eq!(exporter.attempts().len(), 1);
        assert_eq!(queue.counts(), counts(0, spans));
    });
}

#[test]
fn silence_ends_with_the_timeout_and_is_repeated() {
    paused(async {
        let spans = get(None).span_count();
        let queue = Arc::new(ExportQueue::new(1_000, spans));
        queue.push(get(None));
        let exporter = Scripted::new([Answer::Silence]);
        export(&queue, exporter.clone()).run(secs(60)).await;
        let times: Vec<u64> = exporter.attempts().iter().map(|(_, time)| *time).collect();
        assert!(times.len() == 2 && (10_250..10_510).contains(&times[1]), "{times:?}");
        assert_eq!(queue.counts(), counts(spans, 0));
    });
}

#[test]
fn a_shutdown_sends_what_waits() {
    paused(async {
        let spans = get(None).span_count();
        let queue = Arc::new(ExportQueue::new(1_000, 2 * spans));
        (0..3).for_each(|_| queue.push(get(None)));
        let exporter = Scripted::default();
        export(&queue, exporter.clone()).run(std::future::ready(())).await;
        assert_eq!(exporter.attempts(), [(2 * spans, 0), (spans, 0)]);
        assert_eq!(queue.counts(), counts(3 * spans, 0));
    });
}

#[test]
fn a_shutdown_gives_up_after_its_bound_and_counts_every_span() {
    paused(async {
        let spans = get(None).span_count();
        let queue = Arc::new(ExportQueue::new(1_000, spans));
        (0..3).for_each(|_| queue.push(get(None)));
        let exporter = Scripted::new((0..3).map(|_| Answer::Silence));
        export(&queue, exporter).run(secs(2)).await;
        assert_eq!(TestClock.monotonic_ns(), 2_000_000_000 + FLUSH_MAX.as_nanos() as u64);
        assert_eq!(queue.counts(), counts(0, 3 * spans));
    });
}

#[test]
fn a_shutdown_cuts_a_pause_short() {
    paused(async {
        let spans = get(None).span_count();
        let queue = Arc::new(ExportQueue::new(1_000, spans));
        queue.push(get(None));
        let exporter = Scripted::new([Answer::Fail(UNAVAILABLE)]);
        let shutdown = async { TestClock.sleep(Duration::from_millis(10)).await };
        export(&queue, exporter.clone()).run(shutdown).await;
        assert_eq!(exporter.attempts()[1].1, 10);
        assert_eq!(queue.counts(), counts(spans, 0));
    });
}

/// The spans of a backend, as (trace id, span id, parent) in hexadecimal.
fn ids(received: &Received) -> Vec<[String; 3]> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let spans = received.spans.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans);
    spans.map(|span| [hex(&span.trace_id), hex(&span.span_id), hex(&span.parent_span_id)]).collect()
}

fn grpc(
    queue: &Arc<ExportQueue>,
    settings: &ExportSettings,
) -> TraceExport<TestClock, opentelemetry_otlp::SpanExporter> {
    let mut exporter = grpc_span_exporter(settings).expect("the settings are good");
    exporter.set_resource(&settings.resource());
    export(queue, exporter)
}

#[test]
fn spans_arrive_over_grpc_with_their_ids_parents_and_attributes() {
    real(async {
        let backend = Backend::start(None).await;
        let mut settings = settings(&backend.endpoint());
        settings.headers.insert("authorization".to_owned(), "Bearer x".to_owned());
        let trace = get(Some((CALLER, "foo=1")));
        let spans = trace.span_count();
        let queue = Arc::new(ExportQueue::new(1_000, spans));
        let waiting = Arc::clone(&queue);
        queue.push(trace.clone());
        let shutdown = async move { wait_until(|| waiting.counts().exported > 0).await };
        grpc(&queue, &settings).run(shutdown).await;

        let received = backend.stop().await;
        let expected: Vec<[String; 3]> = trace
            .spans()
            .map(|span| {
                let parent = span.parent_span_id.expect("each has a parent");
                [span.trace_id.to_string(), span.span_id.to_string(), parent.to_string()]
            })
            .collect();
        assert_eq!(ids(&received), expected);
        assert_eq!(expected[0][2], "b7ad6b7169203331");
        assert_eq!(received.authorization.as_deref(), Some("Bearer x"));
        let root = &received.spans[0].scope_spans[0].spans[0];
        assert_eq!((root.name.as_str(), root.kind, root.trace_state.as_str()), ("ferrite.command", 2, "foo=1"));
        // Sampled; whether the parent is remote is known, and it is.
        assert_eq!(root.flags, 0x301);
        assert_eq!(root.attributes[0].key, "db.system");
        let resource = received.spans[0].resource.as_ref().expect("it names its origin");
        assert!(resource.attributes.iter().any(|attribute| attribute.key == "service.namespace"));
    });
}

#[test]
fn a_backend_that_comes_back_on_its_port_gets_spans_again_and_every_loss_is_counted() {
    real(async {
        let first = Backend::start(None).await;
        let address = first.address();
        let settings = settings(&first.endpoint());
        let spans = get(None).span_count();
        let queue = Arc::new(ExportQueue::new(4 * spans, spans));
        let stop = Arc::new(tokio::sync::Notify::new());
        let stopped = Arc::clone(&stop);
        let exporting = tokio::task::spawn_local(grpc(&queue, &settings).run(async move { stopped.notified().await }));

        queue.push(get(None));
        wait_until(|| queue.counts().exported == spans as u64).await;
        let before = first.stop().await;

        // One batch is in the exporter's hands, four wait, five find no room.
        queue.push(get(None));
        wait_until(|| queue.counts().depth == 0).await;
        (0..9).for_each(|_| queue.push(get(None)));
        assert_eq!(queue.counts().dropped_queue_full, 5 * spans as u64);
        wait_until(|| queue.counts().dropped_export_failed == spans as u64).await;

        let second = Backend::start(Some(address)).await;
        wait_until(|| queue.counts().exported >= 2 * spans as u64).await;
        stop.notify_one();
        exporting.await.expect("the task ends");
        let after = second.stop().await;

        let counts = queue.counts();
        let arrived = ids(&before).len() + ids(&after).len();
        assert_eq!(counts.exported, arrived as u64);
        assert_eq!((counts.depth, counts.dropped_queue_full), (0, 5 * spans as u64));
        assert_eq!(counts.exported + counts.dropped_export_failed + counts.dropped_queue_full, 11 * spans as u64);
    });
}

#[test]
fn the_code_of_a_refusal_over_grpc_is_understood() {
    real(async {
        for (code, is_final) in
            [(Code::InvalidArgument, true), (Code::Unauthenticated, true), (Code::Unavailable, false)]
        {
            let backend = Backend::refusing(code).await;
            let queue = Arc::new(ExportQueue::new(1_000, 1));
            queue.push(get(None));
            let mut export = grpc(&queue, &settings(&backend.endpoint()));
            let enough = wait_until(|| queue.counts().dropped_export_failed > 0 || backend.received().requests > 1);
            let never = std::future::pending::<()>().shared();
            select(pin!(export.work(&never, &Cell::new(0))), pin!(enough)).await;
            assert_eq!(queue.counts().dropped_export_failed > 0, is_final, "{code:?}");
            assert_eq!(backend.received().requests, if is_final { 1 } else { 2 }, "{code:?}");
        }
    });
}
