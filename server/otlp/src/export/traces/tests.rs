use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use std::time::Duration;

use ferrite_io::Clock;

use super::super::FLUSH_MAX;
use super::*;
use crate::export::testing::{
    Answer, Backend, CALLER, Received, Scripted, TestClock, exchange, get, paused, real, settings, wait_until,
};
use crate::transport::{Accepted, Destination, OtlpExchange, Protocol, Retry};
use crate::{QueueCounts, Queued};

type Export<X> = BatchExport<Queued, TestClock, X, Box<dyn FnMut(&[Queued]) -> Bytes>>;

fn export<X: Exchange>(queue: &Arc<ExportQueue>, exchange: X) -> Export<X> {
    let delivery = Delivery::new(TestClock, exchange, Signal::Traces, &settings(), 1);
    let mut encoder = SpanEncoder::new(&settings());
    let encode = Box::new(move |batch: &[Queued]| encoder.encode(batch));
    BatchExport { queue: Arc::clone(queue), delivery, encode, batch_timeout: Duration::from_secs(5), console: None }
}

/// Spans of each attempt, and when it was made, in milliseconds.
fn attempts(exchange: &Scripted) -> Vec<(usize, u64)> {
    let spans = |request: &Bytes| {
        let request = ExportTraceServiceRequest::decode(request.clone()).expect("it is one");
        request.resource_spans[0].scope_spans[0].spans.len()
    };
    exchange.attempts().iter().map(|(request, time)| (spans(request), *time)).collect()
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
        assert_eq!(attempts(&exporter), [(2 * spans, 1_000), (spans, 6_000)]);
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
        let exporter = Scripted::new((0..5).map(|_| Answer::refuse(Retry::Allowed)));
        export(&queue, exporter.clone()).run(secs(60)).await;
        let times: Vec<u64> = attempts(&exporter).iter().map(|(_, time)| *time).collect();
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
        let exporter = Scripted::new([Answer::refuse(Retry::Never)]);
        export(&queue, exporter.clone()).run(secs(60)).await;
        assert_eq!(attempts(&exporter).len(), 1);
        assert_eq!(queue.counts(), QueueCounts { dropped_rejected: spans as u64, ..QueueCounts::default() });
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
        let times: Vec<u64> = attempts(&exporter).iter().map(|(_, time)| *time).collect();
        assert!(times.len() == 2 && (10_250..10_510).contains(&times[1]), "{times:?}");
        assert_eq!(queue.counts(), counts(spans, 0));
    });
}

#[test]
fn a_deadline_ends_the_attempts_and_not_the_pause_that_a_backend_asked_for() {
    paused(async {
        let spans = get(None).span_count();
        let queue = Arc::new(ExportQueue::new(1_000, spans));
        queue.push(get(None));
        queue.push(get(None));
        let exporter = Scripted::new([Answer::refuse(Retry::After(Duration::from_secs(5)))]);
        let settings = ExportSettings { deadline: Some(Duration::from_secs(3)), ..settings() };
        let delivery = Delivery::new(TestClock, exporter.clone(), Signal::Traces, &settings, 1);
        let export = Export { delivery, ..export(&queue, exporter.clone()) };
        export.run(secs(60)).await;
        assert!((5_000..5_010).contains(&exporter.times_ms()[1]), "{:?}", exporter.times_ms());
        assert_eq!(queue.counts(), counts(spans, spans));
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
        assert_eq!(attempts(&exporter), [(2 * spans, 0), (spans, 0)]);
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
        let exporter = Scripted::new([Answer::refuse(Retry::Allowed)]);
        let shutdown = async { TestClock.sleep(Duration::from_millis(10)).await };
        export(&queue, exporter.clone()).run(shutdown).await;
        assert_eq!(attempts(&exporter)[1].1, 10);
        assert_eq!(queue.counts(), counts(spans, 0));
    });
}

/// The spans of a backend, as (trace id, span id, parent) in hexadecimal.
fn ids(received: &Received) -> Vec<[String; 3]> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let spans = received.spans.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans);
    spans.map(|span| [hex(&span.trace_id), hex(&span.span_id), hex(&span.parent_span_id)]).collect()
}

fn connected(
    queue: &Arc<ExportQueue>,
    destination: &Destination,
) -> Export<OtlpExchange<crate::export::testing::TestNetwork>> {
    export(queue, exchange(destination))
}

#[test]
fn what_a_backend_rejects_of_a_batch_is_counted_apart() {
    paused(async {
        let spans = get(None).span_count();
        let queue = Arc::new(ExportQueue::new(1_000, spans));
        queue.push(get(None));
        queue.push(get(None));
        let some = Accepted { rejected: 2, message: "too old".to_owned() };
        // More than there were cannot be.
        let all = Accepted { rejected: 1_000, message: String::new() };
        let exporter = Scripted::new([Answer::Accept(some), Answer::Accept(all)]);
        export(&queue, exporter).run(secs(60)).await;
        let (exported, dropped_rejected) = (spans as u64 - 2, 2 + spans as u64);
        assert_eq!(queue.counts(), QueueCounts { exported, dropped_rejected, ..QueueCounts::default() });
    });
}

#[test]
fn a_backend_s_word_about_when_to_come_again_is_kept() {
    for (asked, from_ms, to_ms) in [
        (Retry::After(Duration::from_secs(7)), 7_000, 7_010),
        // Less than the pause that is made anyway.
        (Retry::After(Duration::from_millis(1)), 250, 510),
        (Retry::NotBefore(0), 250, 510),
        // As long as somebody else's mistake may last.
        (Retry::After(Duration::from_secs(86_400)), 300_000, 300_010),
    ] {
        paused(async move {
            let spans = get(None).span_count();
            let queue = Arc::new(ExportQueue::new(1_000, spans));
            queue.push(get(None));
            let exporter = Scripted::new([Answer::refuse(asked)]);
            export(&queue, exporter.clone()).run(secs(400)).await;
            let times = exporter.times_ms();
            assert!(times.len() == 2 && (from_ms..=to_ms).contains(&times[1]), "{asked:?}: {times:?}");
            assert_eq!(queue.counts(), counts(spans, 0));
        });
    }
    paused(async {
        let queue = Arc::new(ExportQueue::new(1_000, 1));
        queue.push(get(None));
        let exporter = Scripted::new([Answer::refuse(Retry::NotBefore(TestClock.unix_ns() + 3_000_000_000))]);
        export(&queue, exporter.clone()).run(secs(400)).await;
        assert!((3_000..=3_010).contains(&exporter.times_ms()[1]), "{:?}", exporter.times_ms());
    });
}

#[test]
fn spans_arrive_over_both_protocols_with_their_ids_parents_and_attributes() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        real(async {
            let backend = Backend::start(protocol).await;
            let mut destination = backend.destination(Signal::Traces);
            destination.headers.insert("authorization".to_owned(), "Bearer x".to_owned());
            let trace = get(Some((CALLER, "foo=1")));
            let spans = trace.span_count();
            let queue = Arc::new(ExportQueue::new(1_000, spans));
            let waiting = Arc::clone(&queue);
            queue.push(trace.clone());
            let shutdown = async move { wait_until(|| waiting.counts().exported > 0).await };
            connected(&queue, &destination).run(shutdown).await;

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
}

#[test]
fn a_backend_that_comes_back_on_its_port_gets_spans_again_and_every_loss_is_counted() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        real(comes_back(protocol));
    }
}

async fn comes_back(protocol: Protocol) {
    let first = Backend::start(protocol).await;
    let address = first.address();
    let destination = first.destination(Signal::Traces);
    let spans = get(None).span_count();
    let queue = Arc::new(ExportQueue::new(4 * spans, spans));
    let stop = Arc::new(tokio::sync::Notify::new());
    let stopped = Arc::clone(&stop);
    let exporting = connected(&queue, &destination).run(async move { stopped.notified().await });
    let exporting = tokio::task::spawn_local(exporting);

    queue.push(get(None));
    wait_until(|| queue.counts().exported == spans as u64).await;
    let before = first.stop().await;

    // One batch is in the exporter's hands, four wait, five find no room.
    queue.push(get(None));
    wait_until(|| queue.counts().depth == 0).await;
    (0..9).for_each(|_| queue.push(get(None)));
    assert_eq!(queue.counts().dropped_queue_full, 5 * spans as u64);
    wait_until(|| queue.counts().dropped_export_failed == spans as u64).await;

    let accepting = Arc::new(move |_| Some(crate::export::testing::Reply::accepting(protocol)));
    let second = Backend::at(Some(address), protocol, accepting, None).await;
    wait_until(|| queue.counts().exported >= 2 * spans as u64).await;
    stop.notify_one();
    exporting.await.expect("the task ends");
    let after = second.stop().await;

    let counts = queue.counts();
    let arrived = ids(&before).len() + ids(&after).len();
    assert_eq!(counts.exported, arrived as u64);
    assert_eq!((counts.depth, counts.dropped_queue_full), (0, 5 * spans as u64));
    assert_eq!(counts.exported + counts.dropped_export_failed + counts.dropped_queue_full, 11 * spans as u64);
}
