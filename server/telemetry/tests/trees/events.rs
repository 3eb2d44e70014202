//! Events of commands that were not served at once.

use super::*;

#[test]
fn every_tier_that_was_searched_in_vain_says_so() {
    let trace = cold_get(Detail::Storage);
    let misses: Vec<(Tier, u64)> = trace
        .spans()
        .flat_map(|span| span.events.into_iter().map(move |event| (event, span.end_ns)))
        .map(|(event, end_ns)| {
            assert_eq!((event.name, event.time_ns), (EventName::CacheMiss, end_ns));
            let tiers = [Tier::Mutable, Tier::ReadOnly];
            let tier = |tier: &&Tier| event.attributes == [(Attribute::StorageTier, Value::Str(tier.as_str().into()))];
            (*tiers.iter().find(tier).expect("a tier in memory"), end_ns)
        })
        .collect();
    assert!(matches!(misses[..], [(Tier::Mutable, _), (Tier::ReadOnly, _)]), "{misses:?}");
    let text = ferrite_telemetry::render(&trace, &Shape::default()).join("\n");
    assert!(text.contains("|-- event: cache.miss (+"), "{text}");
    assert_eq!(text.matches("|     ferrite.storage.tier: mutable").count(), 1, "{text}");
}

#[test]
fn a_retry_and_a_contended_latch_are_events_of_their_command() {
    let mut recorder = always_on(Detail::Full);
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    for key in [&b"first"[..], b"second"] {
        begin(&mut buffer, "SET", 3, &[key]);
        buffer.dispatch();
        buffer.execute_open();
        if key == b"second" {
            clock();
            buffer.latch_contended(7);
            buffer.pause(Wait::Space);
            let now = clock();
            buffer.resume();
            buffer.retry(1, 2_500_000, now);
        }
        buffer.finish_command(Outcome::Ok, b"", 0);
    }
    write(&mut buffer);
    let traces = commit(&mut recorder, &mut buffer);
    assert!(root(&traces[0]).events.is_empty());
    let events = root(&traces[1]).events;
    let told: Vec<_> = events.iter().map(|event| (event.name, &event.attributes[..])).collect();
    let int = Value::Int;
    assert_eq!(
        told,
        [
            (EventName::LatchContended, &[(Attribute::IndexBucket, int(7)), (Attribute::LatchWaitNs, int(20))][..]),
            (EventName::RetryAttempt, &[(Attribute::RetryCount, int(1)), (Attribute::RetryDelayMs, int(2))][..]),
        ]
    );
}

#[test]
fn events_beyond_what_a_command_keeps_are_counted_and_its_exception_is_kept() {
    let mut recorder = always_on(Detail::Full);
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    for _ in 0..2 {
        begin(&mut buffer, "SET", 3, &[b"key"]);
        buffer.dispatch();
        buffer.execute_open();
        (1..=130).for_each(|count| buffer.retry(count, 0, clock()));
        buffer.exception(&failure());
        buffer.finish_command(Outcome::Err, b"ERR no", 0);
    }
    write(&mut buffer);
    for trace in commit(&mut recorder, &mut buffer) {
        let root = root(&trace);
        assert_eq!((root.events.len(), root.dropped_events), (129, 2));
        assert_is_failure(&root, root.events.last().expect("there are many"));
    }
}
