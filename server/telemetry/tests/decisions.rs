//! Which traces are kept, from the driver's calls to the decision: transactions, and replies that tell of it.

use std::cell::Cell;
use std::sync::Arc;

use ferrite_telemetry::{
    Detail, KeptTrace, Outcome, Recorder, RecorderConfig, RemoteContext, Sampling, SamplingPolicy, SamplingSettings,
    TraceBuffer,
};

thread_local!(static NOW: Cell<u64> = const { Cell::new(1_000) });

fn clock() -> u64 {
    NOW.replace(NOW.get() + 10) + 10
}

fn recorder(detail: Detail, change: impl FnOnce(&mut SamplingSettings)) -> Recorder {
    let mut settings = SamplingSettings { sample_rate: 1e-9, ..SamplingSettings::default() };
    change(&mut settings);
    let (policy, warnings) = SamplingPolicy::new(&settings).expect("valid");
    assert_eq!(warnings, [""; 0]);
    let sampling: Arc<Sampling> = Sampling::new(policy);
    let config = RecorderConfig { detail: Some(detail), sampling, export: true, seed: 3, ..RecorderConfig::default() };
    Recorder::new(clock, &config)
}

fn begin(buffer: &mut TraceBuffer, name: &str, keys: &[&str]) -> usize {
    let index = buffer.begin_command();
    buffer.parse();
    buffer.describe(name, 1, keys.len() + 1, keys.iter().map(|key| key.as_bytes()));
    index
}

fn queued(buffer: &mut TraceBuffer, name: &str, key: &str, outcome: Outcome) {
    let child = buffer.begin_child(None);
    buffer.describe(name, 1, 2, [key.as_bytes()]);
    let error = if outcome == Outcome::Err { &b"WRONGTYPE no"[..] } else { b"" };
    buffer.finish_child(child, outcome, error);
}

/// EXEC of these commands: name, key, outcome.
fn exec(buffer: &mut TraceBuffer, commands: &[(&str, &str, Outcome)]) {
    for (name, key, outcome) in commands {
        queued(buffer, name, key, *outcome);
    }
    buffer.finish_command(Outcome::Ok, b"", 0);
}

fn commit(recorder: &mut Recorder, buffer: &mut TraceBuffer) -> Vec<KeptTrace> {
    buffer.net_write();
    let mut kept = Vec::new();
    recorder.commit(buffer, |trace| kept.push(trace));
    kept
}

/// How many traces are kept of one transaction, and how many spans they have.
fn kept(recorder: &mut Recorder, commands: &[(&str, &str, Outcome)]) -> (usize, usize) {
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    begin(&mut buffer, "EXEC", &[]);
    exec(&mut buffer, commands);
    let kept = commit(recorder, &mut buffer);
    (kept.len(), kept.iter().map(KeptTrace::span_count).sum())
}

#[test]
fn a_failure_within_a_transaction_is_a_failure_at_any_detail_and_beyond_the_limit_of_spans() {
    let sound = ("SET", "k", Outcome::Ok);
    let failed = ("INCR", "k", Outcome::Err);
    for detail in [Detail::Command, Detail::Storage, Detail::Full] {
        let mut recorder = recorder(detail, |settings| settings.tail.errors = true);
        assert_eq!(kept(&mut recorder, &[sound, sound]).0, 0, "{detail:?}");
        assert_eq!(kept(&mut recorder, &[sound, failed, sound]).0, 1, "{detail:?}");
        let many: Vec<_> = [sound; 1500].into_iter().chain([failed]).collect();
        assert_eq!(kept(&mut recorder, &many).0, 1, "{detail:?}");
    }
    // With all its spans: EXEC, its parse, three commands, serialisation, the write.
    let mut recorder = recorder(Detail::Full, |settings| settings.tail.errors = true);
    assert_eq!(kept(&mut recorder, &[sound, failed, sound]).1, 7);
}

#[test]
fn a_run_that_was_abandoned_has_not_failed() {
    let mut recorder = recorder(Detail::Full, |settings| settings.tail.errors = true);
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    begin(&mut buffer, "EXEC", &[]);
    let checkpoint = buffer.checkpoint();
    queued(&mut buffer, "INCR", "k", Outcome::Err);
    buffer.rollback(checkpoint);
    exec(&mut buffer, &[("INCR", "k", Outcome::Ok)]);
    assert_eq!(commit(&mut recorder, &mut buffer).len(), 0);
}

#[test]
fn rules_about_names_and_keys_see_queued_commands_of_every_transaction_of_a_batch() {
    let mut recorder = recorder(Detail::Full, |settings| {
        settings.tail.attributes =
            ["ferrite.command.name=hset", "ferrite.command.key=cart:*"].map(str::to_owned).into();
    });
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    // All are parsed before the first is executed.
    let roots: Vec<usize> = ["EXEC", "GET", "EXEC", "EXEC", "GET"].map(|name| begin(&mut buffer, name, &[])).into();
    let bodies: [&[_]; 5] = [
        &[("SET", "other", Outcome::Ok), ("HSET", "k", Outcome::Ok)],
        &[],
        &[("SET", "k", Outcome::Ok)],
        &[("SET", "k", Outcome::Ok), ("GET", "cart:7", Outcome::Ok)],
        &[],
    ];
    for (root, body) in roots.iter().zip(bodies) {
        buffer.select(*root);
        exec(&mut buffer, body);
    }
    let kept = commit(&mut recorder, &mut buffer);
    let commands: Vec<usize> = kept.iter().map(|trace| trace.span_count() - 4).collect();
    assert_eq!(commands, [2, 2], "the first and the third transaction, each with its two commands");
}

#[test]
fn a_transaction_is_chosen_if_one_of_its_commands_would_be() {
    let with_rates = |rates: &[(&str, f64)], sample_rate| {
        let commands = rates.iter().map(|(name, rate)| ((*name).to_owned(), *rate)).collect();
        recorder(Detail::Full, |settings| {
            settings.commands = commands;
            settings.sample_rate = sample_rate;
            settings.tail.errors = true;
        })
    };
    let set = ("SET", "k", Outcome::Ok);
    let get = ("GET", "k", Outcome::Ok);
    let count =
        |rates: &[(&str, f64)], sample_rate, commands: &[_]| kept(&mut with_rates(rates, sample_rate), commands).0;
    assert_eq!(count(&[("SET", 1.0)], 1e-9, &[get, set]), 1);
    assert_eq!(count(&[("SET", 1.0)], 1e-9, &[get, get]), 0);
    // A command that is never traced takes no others with it …
    assert_eq!(count(&[("GET", 0.0)], 1.0, &[get, set]), 1);
    // … and where there is nothing else, the transaction is none of anybody's business either.
    assert_eq!(count(&[("GET", 0.0)], 1.0, &[get, ("GET", "k", Outcome::Err)]), 0);
    assert_eq!(count(&[("GET", 0.0), ("SET", 1.0)], 1e-9, &[get, set]), 1);
    // What EXEC itself has goes over that.
    assert_eq!(count(&[("EXEC", 0.0), ("SET", 1.0)], 1.0, &[set]), 0);
    assert_eq!(count(&[("EXEC", 1.0)], 1e-9, &[set]), 1);
}

const CONTEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

/// What a reply says of its command's trace, and whether the trace was kept.
fn told(recorder: &mut Recorder, name: &str, outcome: Outcome, parent: Option<&str>) -> (bool, bool) {
    let mut buffer = recorder.buffer();
    buffer.start_batch();
    begin(&mut buffer, name, &["k"]);
    if let Some(flags) = parent {
        let traceparent = format!("{CONTEXT}-{flags}");
        buffer.set_context(&RemoteContext::parse(traceparent.as_bytes(), b"").expect("valid"));
    }
    buffer.dispatch();
    buffer.execute_open();
    buffer.finish_command(outcome, if outcome == Outcome::Err { b"ERR no" } else { b"" }, 0);
    let response = recorder.traceresponse(&mut buffer).expect("it is recorded");
    let flags = response.rsplit_once('-').expect("four parts").1;
    let sampled = u8::from_str_radix(flags, 16).expect("two digits") & 1 != 0;
    (sampled, !commit(recorder, &mut buffer).is_empty())
}

#[test]
fn a_reply_tells_the_decision_under_any_rule() {
    let set = |list: &[(&str, f64)]| list.iter().map(|(name, rate)| ((*name).to_owned(), *rate)).collect();
    let mut by_command = recorder(Detail::Full, |settings| settings.commands = set(&[("GET", 1.0)]));
    assert_eq!(told(&mut by_command, "GET", Outcome::Ok, None), (true, true));
    assert_eq!(told(&mut by_command, "SET", Outcome::Ok, None), (false, false));
    let mut by_tail = recorder(Detail::Full, |settings| settings.tail.errors = true);
    assert_eq!(told(&mut by_tail, "GET", Outcome::Err, None), (true, true));
    assert_eq!(told(&mut by_tail, "GET", Outcome::Ok, None), (false, false));
    let mut by_parent = recorder(Detail::Full, |settings| {
        settings.sampler = Some("parentbased_traceidratio".to_owned());
        settings.parent_limit = 1.0;
    });
    assert_eq!(told(&mut by_parent, "GET", Outcome::Ok, Some("00")), (false, false));
    // The limit is for one a second: it is taken once, when the reply tells.
    assert_eq!(told(&mut by_parent, "GET", Outcome::Ok, Some("01")), (true, true));
    assert_eq!(told(&mut by_parent, "GET", Outcome::Ok, Some("01")), (false, false));
    for (sampler, argument) in [("rate_limited", "1"), ("adaptive", "1e9"), ("consistent_probability", "1.0")] {
        let mut recorder = recorder(Detail::Full, |settings| {
            settings.sampler = Some(sampler.to_owned());
            settings.sampler_arg = Some(argument.to_owned());
            settings.commands = set(&[("PING", 0.0)]);
        });
        assert_eq!(told(&mut recorder, "GET", Outcome::Ok, None), (true, true), "{sampler}");
        assert_eq!(told(&mut recorder, "PING", Outcome::Ok, None), (false, false), "{sampler}");
        let more = sampler != "rate_limited";
        assert_eq!(told(&mut recorder, "GET", Outcome::Ok, None), (more, more), "{sampler}");
    }
}

#[test]
fn who_switched_export_off_has_it_off_whatever_other_rates_there_are() {
    for (sampler, rate, parent) in [
        (None, 0.0, None),
        (None, 0.0, Some("01")),
        (Some("always_off"), 1.0, Some("01")),
        (Some("parentbased_always_off"), 1.0, None),
        (Some("consistent_probability"), 0.0, None),
    ] {
        let mut recorder = recorder(Detail::Full, |settings| {
            settings.sampler = sampler.map(str::to_owned);
            settings.sample_rate = rate;
            settings.commands = [("GET".to_owned(), 1.0), ("SET".to_owned(), 0.9)].into();
            settings.tenants = [("acme".to_owned(), 1.0)].into();
            settings.schedule = ferrite_telemetry::Schedule::parse(&["00:00-24:00=1.0".to_owned()]).expect("valid");
            settings.tail.errors = true;
        });
        for (name, outcome) in [("GET", Outcome::Ok), ("SET", Outcome::Ok), ("DEL", Outcome::Err)] {
            assert_eq!(told(&mut recorder, name, outcome, parent), (false, false), "{sampler:?} {rate} {name}");
        }
    }
    // A caller's decision is no rate.
    let mut recorder = recorder(Detail::Full, |settings| {
        settings.sampler = Some("parentbased_always_off".to_owned());
        settings.commands = [("PING".to_owned(), 0.0)].into();
    });
    assert_eq!(told(&mut recorder, "GET", Outcome::Ok, Some("01")), (true, true));
    assert_eq!(told(&mut recorder, "PING", Outcome::Ok, Some("01")), (false, false));
}
