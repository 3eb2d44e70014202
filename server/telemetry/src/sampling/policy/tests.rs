use super::*;
use crate::ids::IdGenerator;

fn policy(change: impl FnOnce(&mut SamplingSettings)) -> SamplingPolicy {
    let mut settings = SamplingSettings::default();
    change(&mut settings);
    let (policy, warnings) = SamplingPolicy::new(&settings).expect("valid");
    assert_eq!(warnings, [""; 0]);
    policy
}

fn sampler(name: &str, argument: &str) -> SamplingPolicy {
    policy(|settings| {
        settings.sampler = Some(name.to_owned());
        settings.sampler_arg = Some(argument.to_owned());
    })
}

fn by(policy: &SamplingPolicy, facts: &Facts<'_>) -> Option<SampledBy> {
    policy.decide(facts, &mut 0).map(|chosen| chosen.by)
}

/// How many of 20,000 traces like this one are chosen.
fn chosen_of_many(policy: &SamplingPolicy, facts: &Facts<'_>) -> usize {
    let mut ids = IdGenerator::new(7);
    (0..20_000).filter(|_| by(policy, &Facts { trace_id: ids.trace_id(), ..*facts }).is_some()).count()
}

/// Within five standard deviations of a share of 20,000.
fn is_share(count: usize, share: f64) -> bool {
    let (mean, deviation) = (20_000.0 * share, (20_000.0 * share * (1.0 - share)).sqrt());
    (count as f64 - mean).abs() <= 5.0 * deviation
}

fn baggage(members: &[(&'static str, &'static str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    values::put_baggage(members.iter().map(|(key, value)| (*key, (*value).into())), &mut bytes);
    bytes
}

/// The last of 63 bits that a ratio of one half chooses not.
const HIGH: TraceId = TraceId(u128::MAX);
const LOW: TraceId = TraceId(1 << 64 | 1);

#[test]
fn a_rate_of_zero_exports_nothing_even_under_a_sampled_parent() {
    let none = policy(|settings| settings.sample_rate = 0.0);
    for trace_id in [LOW, HIGH, TraceId(1)] {
        for parent in [None, Some(true), Some(false)] {
            assert_eq!(by(&none, &Facts { trace_id, parent, failed: true, ..Facts::default() }), None);
        }
    }
}

#[test]
fn a_parent_decides_only_where_it_is_asked() {
    let ratio = sampler("parentbased_traceidratio", "0.5");
    assert_eq!(by(&ratio, &Facts { trace_id: LOW, parent: Some(false), ..Facts::default() }), None);
    assert_eq!(by(&ratio, &Facts { trace_id: HIGH, parent: Some(true), ..Facts::default() }), Some(SampledBy::Parent));
    assert_eq!(by(&ratio, &Facts { trace_id: LOW, ..Facts::default() }), Some(SampledBy::Sampler));
    let on = sampler("always_on", "");
    assert_eq!(by(&on, &Facts { trace_id: HIGH, parent: Some(false), ..Facts::default() }), Some(SampledBy::Sampler));
}

/// Python: `trace_id & (2**64 - 1) < round(rate * 2**64)`. Go: `BigEndian.Uint64(id[8:16]) >> 1 < uint64(ratio * (1 << 63))`.
#[test]
fn ratios_decide_by_the_low_half_as_go_and_python_do() {
    const TENTH: u64 = 1_844_674_407_370_955_264; // round(0.1 * 2**64)
    let cases = [
        (0.1, 0, true),
        (0.1, TENTH - 1, true),
        (0.1, TENTH, false),
        (0.5, 0x7fff_ffff_ffff_ffff, true),
        (0.5, 0x8000_0000_0000_0000, false),
        (0.25, 0x3fff_ffff_ffff_ffff, true),
        (0.25, 0x4000_0000_0000_0000, false),
        (0.01, 184_467_440_737_095_519, true),
        (0.01, 184_467_440_737_095_520, false),
        (1.0, u64::MAX, true),
        (0.0, 0, false),
    ];
    for (ratio, low, expected) in cases {
        let policy = policy(|settings| settings.sample_rate = ratio);
        for high in [0u128, 0x4bf9_2f35_77b3_4da6, u64::MAX.into()] {
            let trace_id = TraceId(high << 64 | u128::from(low));
            assert_eq!(policy.chooses(trace_id, None).is_some(), expected, "{ratio} {low:x}");
        }
    }
}

#[test]
fn a_command_s_rate_of_zero_or_one_stands_against_the_caller_s_decision() {
    let policy = policy(|settings| {
        settings.sampler = Some("parentbased_traceidratio".to_owned());
        settings.sample_rate = 0.25;
        settings.commands =
            [("ping", 0.0), ("CONFIG set", 1.0), ("GET", 0.5)].map(|(name, rate)| (name.to_owned(), rate)).into();
        settings.tail.errors = true;
    });
    let facts =
        |name: &'static str, parent| Facts { name: name.as_bytes(), parent, trace_id: HIGH, ..Facts::default() };
    assert_eq!(by(&policy, &Facts { failed: true, ..facts("PING", Some(true)) }), None);
    assert_eq!(by(&policy, &facts("CONFIG SET", Some(false))), Some(SampledBy::Command));
    assert_eq!(by(&policy, &facts("GET", Some(true))), Some(SampledBy::Parent));
    assert_eq!(by(&policy, &facts("GET", Some(false))), None);
    assert!(is_share(chosen_of_many(&policy, &facts("GET", None)), 0.5));
    assert!(is_share(chosen_of_many(&policy, &facts("SET", None)), 0.25));
}

#[test]
fn tenants_and_the_time_of_day_have_rates_of_their_own() {
    let policy = policy(|settings| {
        settings.sample_rate = 0.1;
        settings.tenants = [("acme", 0.5), ("noisy", 0.0)].map(|(name, rate)| (name.to_owned(), rate)).into();
        settings.schedule = Schedule::parse(&["22:00-06:00=0.8".to_owned()]).expect("valid");
    });
    const HOUR: u64 = 3600 * 1_000_000_000;
    for (tenant, hour, share) in
        [("acme", 12, 0.5), ("noisy", 12, 0.0), ("other", 12, 0.1), ("other", 23, 0.8), ("acme", 23, 0.5)]
    {
        let baggage = baggage(&[("user.id", "u"), ("tenant.id", tenant)]);
        let facts = Facts { baggage: &baggage, unix_ns: hour * HOUR, ..Facts::default() };
        assert!(is_share(chosen_of_many(&policy, &facts), share), "{tenant} at {hour}");
    }
}

#[test]
fn the_tail_keeps_what_failed_or_was_slow_and_the_rest_is_the_sampler_s() {
    let keeps = |name: &str, rate, override_parent| {
        policy(|settings| {
            settings.sampler = Some(name.to_owned());
            settings.sample_rate = rate;
            settings.tail = TailSettings { errors: true, slow_ms: 50.0, override_parent, ..TailSettings::default() };
        })
    };
    let failed = |parent| Facts { trace_id: HIGH, parent, failed: true, ..Facts::default() };
    let policy = keeps("parentbased_traceidratio", 0.05, false);
    assert_eq!(by(&policy, &failed(None)), Some(SampledBy::Error));
    let slow = Facts { failed: false, execution_ns: 50_000_000, ..failed(None) };
    assert_eq!(by(&policy, &slow), Some(SampledBy::Slow));
    assert!(is_share(chosen_of_many(&policy, &Facts::default()), 0.05));
    // Never under an unsampled parent, or where nothing is exported, unless that is overridden.
    assert_eq!(by(&policy, &failed(Some(false))), None);
    assert_eq!(by(&keeps("always_off", 1.0, false), &failed(None)), None);
    assert_eq!(by(&keeps("", 0.0, false), &failed(Some(true))), None);
    assert_eq!(by(&keeps("parentbased_traceidratio", 0.05, true), &failed(Some(false))), Some(SampledBy::Error));
    assert_eq!(by(&keeps("always_off", 1.0, true), &failed(None)), Some(SampledBy::Error));
    assert_eq!(by(&keeps("", 0.0, true), &failed(None)), Some(SampledBy::Error));
}

#[test]
fn callers_that_force_sampling_are_limited_and_counted() {
    let policy = policy(|settings| {
        settings.sampler = Some("parentbased_always_off".to_owned());
        settings.parent_limit = 10.0;
    });
    let mut limited = 0;
    let second = 1_000_000_000;
    let facts =
        |n: u64| Facts { parent: Some(true), monotonic_ns: 100 * second + n * second / 1000, ..Facts::default() };
    let chosen = (0..5000).filter(|n| policy.decide(&facts(*n), &mut limited).is_some()).count();
    // A burst of a second's worth, then ten a second for five seconds.
    assert!((59..=60).contains(&chosen), "{chosen}");
    assert_eq!(limited as usize, 5000 - chosen);
}

#[test]
fn consistent_probability_tells_its_threshold() {
    let half = sampler("consistent_probability", "0.5");
    let state = |trace_id, tracestate| {
        let facts = Facts { trace_id, tracestate, ..Facts::default() };
        half.decide(&facts, &mut 0).map(|chosen| chosen.tracestate.into_owned())
    };
    assert_eq!(state(HIGH, "a=1"), Some("ot=th:8,a=1".to_owned()));
    assert_eq!(state(TraceId(1), ""), None);
    // The caller's randomness counts, and its threshold is replaced.
    assert_eq!(state(TraceId(1), "ot=rv:ffffffffffffff;th:0"), Some("ot=th:8;rv:ffffffffffffff".to_owned()));
    // Go's and Python's ratio chooses low ids, this one high ones.
    assert!(is_share(chosen_of_many(&half, &Facts::default()), 0.5));
    let parent = sampler("parentbased_consistent_probability", "0.5");
    let facts = Facts { trace_id: TraceId(1), parent: Some(true), tracestate: "ot=th:c", ..Facts::default() };
    assert_eq!(parent.decide(&facts, &mut 0).expect("the caller's").tracestate, "ot=th:c");
    // Nobody can say how likely a trace was that the tail kept.
    let tail = policy(|settings| {
        settings.sampler = Some("consistent_probability".to_owned());
        settings.sample_rate = 0.5;
        settings.tail.errors = true;
    });
    let facts =
        Facts { trace_id: TraceId(1), failed: true, tracestate: "ot=th:0;rv:00000000000000,a=1", ..Facts::default() };
    assert_eq!(tail.decide(&facts, &mut 0).expect("it failed").tracestate, "ot=rv:00000000000000,a=1");
}

#[test]
fn a_policy_is_plain_as_long_as_ids_callers_failure_and_time_decide() {
    assert!(policy(|_| ()).is_plain() && sampler("parentbased_traceidratio", "0.5").is_plain());
    assert!(!sampler("rate_limited", "5").is_plain());
    assert!(policy(|settings| (settings.tail.errors, settings.tail.slow_ms) = (true, 1.0)).is_plain());
    let asks = |settings: &mut SamplingSettings| settings.tail.attributes = vec!["ferrite.command.key=a".to_owned()];
    assert!(!policy(asks).is_plain());
    assert!(!policy(|settings| _ = settings.commands.insert("PING".to_owned(), 0.0)).is_plain());
}

#[test]
fn workers_see_that_the_policy_was_replaced() {
    let sampling = Sampling::new(policy(|_| ()));
    let before = sampling.version();
    sampling.replace(policy(|settings| settings.sample_rate = 0.0));
    assert_ne!(sampling.version(), before);
    assert_eq!(sampling.policy().ratio(), Some(0.0));
}
