//! CONFIG GET and CONFIG SET: Redis's parameter names over Ferrite's configuration. Only what the server honours is
//! listed, and a few fixed answers that clients ask for.

use std::borrow::Cow;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use ferrite_commands::ConfigSetError;
use ferrite_commands::glob;
use ferrite_hybridlog::aof::FsyncPolicy;
use ferrite_telemetry::HeadSampler;

use crate::config::{Choice, SlowlogTraceId, TelemetryConfig, rates, rates_text, save_points, save_points_text, texts};
use crate::node::Node;

type Set = fn(&Node, &str) -> Result<(), String>;

/// One parameter: its value as Redis would print it and, if it may change at run time, how.
struct Parameter {
    name: &'static str,
    get: fn(&Node) -> String,
    set: Option<Set>,
}

const fn fixed(name: &'static str, get: fn(&Node) -> String) -> Parameter {
    Parameter { name, get, set: None }
}

const fn live(name: &'static str, get: fn(&Node) -> String, set: Set) -> Parameter {
    Parameter { name, get, set: Some(set) }
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

/// In the order of their names.
static PARAMETERS: &[Parameter] = &[
    fixed("appenddirname", |_| "appendonlydir".to_owned()),
    live(
        "appendfsync",
        |node| policy_name(node).to_owned(),
        |node, value| {
            let policy = match value.to_ascii_lowercase().as_str() {
                "always" => FsyncPolicy::Always,
                "everysec" => FsyncPolicy::EverySec,
                "no" => FsyncPolicy::No,
                _ => return Err("argument(s) must be one of the following: everysec, always, no".to_owned()),
            };
            node.set_fsync_policy(policy);
            Ok(())
        },
    ),
    fixed("appendonly", |node| yes_no(node.config.aof.enabled)),
    live(
        "auto-aof-rewrite-min-size",
        |node| node.live.auto_aof_rewrite_min_size.load(Relaxed).to_string(),
        |node, value| {
            node.live.auto_aof_rewrite_min_size.store(memory(value, 0, i64::MAX as u64)?, Relaxed);
            Ok(())
        },
    ),
    live(
        "auto-aof-rewrite-percentage",
        |node| node.live.auto_aof_rewrite_percentage.load(Relaxed).to_string(),
        |node, value| {
            node.live.auto_aof_rewrite_percentage.store(number(value, 0, i32::MAX as u64)?, Relaxed);
            Ok(())
        },
    ),
    live(
        "auto-compaction-min-size",
        |node| node.live.auto_compaction_min_size.load(Relaxed).to_string(),
        |node, value| {
            node.live.auto_compaction_min_size.store(memory(value, 0, i64::MAX as u64)?, Relaxed);
            Ok(())
        },
    ),
    live(
        "auto-compaction-percentage",
        |node| node.live.auto_compaction_percentage.load(Relaxed).to_string(),
        |node, value| {
            node.live.auto_compaction_percentage.store(number(value, 0, i32::MAX as u64)?, Relaxed);
            Ok(())
        },
    ),
    fixed("bind", |node| node.config.server.bind.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
    live(
        "client-query-buffer-limit",
        |node| node.live.query_buffer_limit.load(Relaxed).to_string(),
        // Redis's own lower bound: a command's name must fit.
        |node, value| {
            node.live.query_buffer_limit.store(memory(value, 1 << 20, i64::MAX as u64)?, Relaxed);
            Ok(())
        },
    ),
    fixed("databases", |node| node.config.server.databases.to_string()),
    fixed("dir", |node| node.config.storage.dir.display().to_string()),
    live(
        "disk-quota",
        |node| node.live.disk_quota.load(Relaxed).to_string(),
        |node, value| {
            node.live.disk_quota.store(memory(value, 0, i64::MAX as u64)?, Relaxed);
            Ok(())
        },
    ),
    fixed("enable-debug-command", |node| node.config.server.enable_debug_command.name().to_owned()),
    live(
        "hash-max-listpack-entries",
        |node| node.databases.encodings.hash_max_listpack_entries.load(Relaxed).to_string(),
        |node, value| set_count(&node.databases.encodings.hash_max_listpack_entries, value),
    ),
    live(
        "hash-max-listpack-value",
        |node| node.databases.encodings.hash_max_listpack_value.load(Relaxed).to_string(),
        |node, value| set_bytes(&node.databases.encodings.hash_max_listpack_value, value),
    ),
    // The names of Redis 6 and before go on being taken.
    live(
        "hash-max-ziplist-entries",
        |node| node.databases.encodings.hash_max_listpack_entries.load(Relaxed).to_string(),
        |node, value| set_count(&node.databases.encodings.hash_max_listpack_entries, value),
    ),
    live(
        "hash-max-ziplist-value",
        |node| node.databases.encodings.hash_max_listpack_value.load(Relaxed).to_string(),
        |node, value| set_bytes(&node.databases.encodings.hash_max_listpack_value, value),
    ),
    fixed("io-threads", |node| node.workers().to_string()),
    live(
        "lfu-decay-time",
        |node| node.databases.limits.lfu_decay_time.load(Relaxed).to_string(),
        |node, value| {
            node.databases.limits.lfu_decay_time.store(number(value, 0, i32::MAX as u64)? as u32, Relaxed);
            Ok(())
        },
    ),
    live(
        "lfu-log-factor",
        |node| node.databases.limits.lfu_log_factor.load(Relaxed).to_string(),
        |node, value| {
            node.databases.limits.lfu_log_factor.store(number(value, 0, i32::MAX as u64)? as u32, Relaxed);
            Ok(())
        },
    ),
    live(
        "maxclients",
        |node| node.live.maxclients.load(Relaxed).to_string(),
        |node, value| {
            node.live.maxclients.store(number(value, 1, u64::from(u32::MAX))? as usize, Relaxed);
            Ok(())
        },
    ),
    live(
        "maxmemory",
        |node| node.databases.limits.maxmemory.load(Relaxed).to_string(),
        |node, value| {
            node.databases.limits.maxmemory.store(memory(value, 0, u64::MAX)?, Relaxed);
            node.fit_pages();
            Ok(())
        },
    ),
    live(
        "maxmemory-policy",
        |node| node.databases.limits.policy().name().to_owned(),
        |node, value| {
            node.databases.limits.set_policy(one_of(value)?);
            Ok(())
        },
    ),
    live(
        "maxmemory-samples",
        |node| node.databases.limits.samples.load(Relaxed).to_string(),
        |node, value| {
            node.databases.limits.samples.store(number(value, 1, i32::MAX as u64)? as usize, Relaxed);
            Ok(())
        },
    ),
    fixed("port", |node| node.port().to_string()),
    live(
        "proto-max-bulk-len",
        |node| node.live.proto_max_bulk_len.load(Relaxed).to_string(),
        |node, value| {
            node.live.proto_max_bulk_len.store(memory(value, 1 << 20, i64::MAX as u64)?, Relaxed);
            Ok(())
        },
    ),
    live(
        "read-cache-size",
        |node| node.live.read_cache_bytes.load(Relaxed).to_string(),
        |node, value| {
            node.live.read_cache_bytes.store(memory(value, 0, i64::MAX as u64)?, Relaxed);
            node.fit_pages();
            Ok(())
        },
    ),
    live(
        "requirepass",
        |node| String::from_utf8_lossy(node.live.requirepass.lock().as_deref().unwrap_or_default()).into_owned(),
        |node, value| {
            *node.live.requirepass.lock() = (!value.is_empty()).then(|| value.as_bytes().to_vec());
            Ok(())
        },
    ),
    // Redis's snapshots do not exist here; redis-benchmark and others ask all the same.
    live(
        "save",
        |node| save_points_text(&node.live.save_points.lock()),
        |node, value| {
            *node.live.save_points.lock() = save_points(value).ok_or("Invalid save parameters")?;
            Ok(())
        },
    ),
    live(
        "slowlog-log-slower-than",
        |node| node.slowlog.slower_than_us().to_string(),
        |node, value| {
            let us = value.parse::<i64>().ok().filter(|&us| us >= -1);
            node.slowlog.set_slower_than_us(us.ok_or("argument must be between -1 and 9223372036854775807 inclusive")?);
            Ok(())
        },
    ),
    live(
        "slowlog-max-len",
        |node| node.slowlog.max_len().to_string(),
        |node, value| {
            node.slowlog.set_max_len(number(value, 0, i64::MAX as u64)? as usize);
            Ok(())
        },
    ),
    live(
        "slowlog-trace-id",
        |node| {
            let always = node.live.slowlog_trace_id_always.load(Relaxed);
            if always { SlowlogTraceId::Always } else { SlowlogTraceId::Auto }.name().to_owned()
        },
        |node, value| {
            let choice =
                SlowlogTraceId::of_name(value).ok_or("argument(s) must be one of the following: auto, always")?;
            node.live.slowlog_trace_id_always.store(choice == SlowlogTraceId::Always, Relaxed);
            Ok(())
        },
    ),
    live(
        "stop-writes-on-bgsave-error",
        |node| yes_no(node.live.stop_writes_on_bgsave_error.load(Relaxed)),
        |node, value| {
            node.live.stop_writes_on_bgsave_error.store(yes_or_no(value)?, Relaxed);
            Ok(())
        },
    ),
    fixed("tcp-keepalive", |node| node.config.server.tcp_keepalive.to_string()),
    live(
        "telemetry-sample-rate",
        |node| node.live.telemetry.lock().sample_rate.to_string(),
        |node, value| {
            let rate = share(value)?;
            set_sampling(node, |telemetry| telemetry.sample_rate = rate)
        },
    ),
    live(
        "telemetry-sampler",
        |node| node.live.telemetry.lock().sampler.clone().unwrap_or_default(),
        |node, value| {
            if let Some(warning) = HeadSampler::from_settings(None, Some(value), None).1.into_iter().next() {
                return Err(warning);
            }
            set_sampling(node, |telemetry| telemetry.sampler = (!value.is_empty()).then(|| value.to_owned()))
        },
    ),
    // Whether it fits is a matter of the sampler, which may be set after it.
    live(
        "telemetry-sampler-arg",
        |node| node.live.telemetry.lock().sampler_arg.clone().unwrap_or_default(),
        |node, value| {
            set_sampling(node, |telemetry| telemetry.sampler_arg = (!value.is_empty()).then(|| value.to_owned()))
        },
    ),
    live(
        "telemetry-sampling-commands",
        |node| rates_text(&node.live.telemetry.lock().sampling.commands),
        |node, value| {
            let rates = rates(value).ok_or("argument must be shares by name such as PING=0.0,GET=0.1")?;
            set_sampling(node, |telemetry| telemetry.sampling.commands = rates)
        },
    ),
    live(
        "telemetry-sampling-parent-limit",
        |node| node.live.telemetry.lock().sampling.parent_limit.to_string(),
        |node, value| {
            let limit = not_negative(value)?;
            set_sampling(node, |telemetry| telemetry.sampling.parent_limit = limit)
        },
    ),
    live(
        "telemetry-sampling-schedule",
        |node| node.live.telemetry.lock().sampling.schedule.join(","),
        |node, value| set_sampling(node, |telemetry| telemetry.sampling.schedule = texts(value)),
    ),
    live(
        "telemetry-sampling-tenants",
        |node| rates_text(&node.live.telemetry.lock().sampling.tenants),
        |node, value| {
            let rates = rates(value).ok_or("argument must be shares by name such as acme=0.5,free=0.01")?;
            set_sampling(node, |telemetry| telemetry.sampling.tenants = rates)
        },
    ),
    live(
        "telemetry-tail-attributes",
        |node| node.live.telemetry.lock().tail.attributes.join(","),
        |node, value| set_sampling(node, |telemetry| telemetry.tail.attributes = texts(value)),
    ),
    live(
        "telemetry-tail-errors",
        |node| yes_no(node.live.telemetry.lock().tail.errors),
        |node, value| {
            let errors = yes_or_no(value)?;
            set_sampling(node, |telemetry| telemetry.tail.errors = errors)
        },
    ),
    live(
        "telemetry-tail-override-parent",
        |node| yes_no(node.live.telemetry.lock().tail.override_parent),
        |node, value| {
            let yes = yes_or_no(value)?;
            set_sampling(node, |telemetry| telemetry.tail.override_parent = yes)
        },
    ),
    live(
        "telemetry-tail-slow-ms",
        |node| node.live.telemetry.lock().tail.slow_ms.to_string(),
        |node, value| {
            let slow_ms = not_negative(value)?;
            set_sampling(node, |telemetry| telemetry.tail.slow_ms = slow_ms)
        },
    ),
    live(
        "timeout",
        |node| node.live.timeout_s.load(Relaxed).to_string(),
        |node, value| {
            node.live.timeout_s.store(number(value, 0, i32::MAX as u64)?, Relaxed);
            Ok(())
        },
    ),
];

/// Changes what decides about traces from now on, if it can be followed.
fn set_sampling(node: &Node, change: impl FnOnce(&mut TelemetryConfig)) -> Result<(), String> {
    let mut current = node.live.telemetry.lock();
    let mut wanted = current.clone();
    change(&mut wanted);
    let (policy, warnings) = wanted.policy()?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    node.telemetry.sampling.replace(policy);
    *current = wanted;
    Ok(())
}

fn share(value: &str) -> Result<f64, String> {
    let share = value.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "argument must be between 0 and 1 inclusive".to_owned())
}

fn not_negative(value: &str) -> Result<f64, String> {
    let number = value.parse::<f64>().ok().filter(|number| *number >= 0.0 && number.is_finite());
    number.ok_or_else(|| "argument must be a number of at least 0".to_owned())
}

fn yes_or_no(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("argument must be 'yes' or 'no'".to_owned()),
    }
}

fn set_count(setting: &AtomicUsize, value: &str) -> Result<(), String> {
    setting.store(number(value, 0, i64::MAX as u64)? as usize, Relaxed);
    Ok(())
}

fn set_bytes(setting: &AtomicUsize, value: &str) -> Result<(), String> {
    setting.store(memory(value, 0, i64::MAX as u64)? as usize, Relaxed);
    Ok(())
}

fn policy_name(node: &Node) -> &'static str {
    match node.fsync_policy() {
        FsyncPolicy::Always => "always",
        FsyncPolicy::EverySec => "everysec",
        FsyncPolicy::No => "no",
    }
}

fn one_of<T: Choice>(value: &str) -> Result<T, String> {
    T::of_name(value).ok_or_else(|| {
        let names: Vec<&str> = T::NAMES.iter().map(|(name, _)| *name).collect();
        format!("argument(s) must be one of the following: {}", names.join(", "))
    })
}

fn number(value: &str, min: u64, max: u64) -> Result<u64, String> {
    let parsed: i64 = value.parse().map_err(|_| "argument couldn't be parsed into an integer".to_owned())?;
    // A negative number is one, but below every bound.
    u64::try_from(parsed).map_or_else(|_| Err(not_within(min, max)), |parsed| within(parsed, min, max))
}

/// A number of bytes with Redis's units: `k`, `kb`, `m`, `mb`, `g`, `gb`.
fn memory(value: &str, min: u64, max: u64) -> Result<u64, String> {
    let text = value.to_ascii_lowercase();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = match &text[digits..] {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return Err("argument must be a memory value".to_owned()),
    };
    let bytes = text[..digits].parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    within(bytes.ok_or_else(|| "argument must be a memory value".to_owned())?, min, max)
}

fn within(value: u64, min: u64, max: u64) -> Result<u64, String> {
    if (min..=max).contains(&value) { Ok(value) } else { Err(not_within(min, max)) }
}

fn not_within(min: u64, max: u64) -> String {
    format!("argument must be between {min} and {max} inclusive")
}

/// All parameters whose name matches the glob.
pub fn get(node: &Node, pattern: &[u8]) -> Vec<(Cow<'static, str>, Cow<'static, str>)> {
    PARAMETERS
        .iter()
        .filter(|parameter| glob::matches(pattern, parameter.name.as_bytes(), true))
        .map(|parameter| (parameter.name.into(), (parameter.get)(node).into()))
        .collect()
}

/// Sets all or none: what was set before a refusal is set back.
pub fn set(node: &Node, wanted: &[(&[u8], &[u8])]) -> Result<(), ConfigSetError> {
    let mut changes: Vec<(&Parameter, Set, String)> = Vec::with_capacity(wanted.len());
    for (name, value) in wanted {
        let shown = || String::from_utf8_lossy(name).into_owned();
        let parameter = PARAMETERS
            .iter()
            .find(|parameter| parameter.name.as_bytes().eq_ignore_ascii_case(name))
            .ok_or_else(|| ConfigSetError::Unknown(shown()))?;
        if changes.iter().any(|(earlier, ..)| earlier.name == parameter.name) {
            return Err(ConfigSetError::Duplicate(shown()));
        }
        let set = parameter.set.ok_or_else(|| ConfigSetError::Immutable(shown()))?;
        changes.push((parameter, set, String::from_utf8_lossy(value).into_owned()));
    }
    let before: Vec<String> = changes.iter().map(|(parameter, ..)| (parameter.get)(node)).collect();
    for (at, (parameter, set, value)) in changes.iter().enumerate() {
        if let Err(reason) = set(node, value) {
            for ((_, set, _), value) in changes[..at].iter().zip(&before) {
                set(node, value).expect("a value that was in force is accepted");
            }
            return Err(ConfigSetError::Refused { name: parameter.name.to_owned(), reason });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_values_have_redis_units() {
        assert_eq!(memory("1mb", 0, u64::MAX), Ok(1 << 20));
        assert_eq!(memory("2K", 0, u64::MAX), Ok(2000));
        assert_eq!(memory("7", 0, u64::MAX), Ok(7));
        assert!(memory("mb", 0, u64::MAX).is_err());
        assert!(memory("18446744073709551615gb", 0, u64::MAX).is_err());
        assert!(memory("5", 6, 9).is_err());
    }

    #[test]
    fn numbers_and_choices_are_refused_as_in_redis() {
        assert_eq!(number("-1", 0, 7), Err("argument must be between 0 and 7 inclusive".to_owned()));
        assert_eq!(number("x", 0, 7), Err("argument couldn't be parsed into an integer".to_owned()));
        assert_eq!(one_of("ALLKEYS-lru"), Ok(ferrite_keyspace::Policy::AllkeysLru));
        let refused = one_of::<ferrite_keyspace::Policy>("lru").unwrap_err();
        assert!(refused.ends_with("volatile-lru, volatile-lfu, volatile-random, volatile-ttl, allkeys-lru, allkeys-lfu, allkeys-random, noeviction, spill"), "{refused}");
    }

    #[test]
    fn names_are_in_order_and_unique() {
        assert!(PARAMETERS.windows(2).all(|pair| pair[0].name < pair[1].name));
    }
}
