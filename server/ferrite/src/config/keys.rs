//! The table of keys.

use ferrite_node::config::{
    AppendFsync, Config, DebugCommand, DiskBackend, HistogramAggregation, KeyRedaction, LogCommands, LogFormat,
    OtlpCompression, OtlpProtocol, Policy, SlowlogTraceId, SpanDetail, Temporality,
};

use super::exporters::ExporterList;
use super::kinds::{
    Address, Addresses, Bytes, Directory, Flag, Given, Headers, Kind, Limit, Milliseconds, NotNegative, OneOf,
    Optional, OptionalText, Pairs, Positive, Rates, Ratio, SavePoints, ScheduleRules, Seconds, TailRules, Text, Texts,
    Whole,
};

/// Names of keys whose values are neither printed nor quoted in messages.
const SECRETS: [&str; 3] = ["headers", "requirepass", "salt"];

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// With a full stop in it, a part of the section before that.
    pub section: &'static str,
    pub name: &'static str,
    /// `section.name`.
    pub path: &'static str,
    /// A sentence without its full stop, for `--help` and the README.
    pub doc: &'static str,
    /// The flag's short form, without its dashes.
    pub short_form: Option<&'static str>,
    expects: fn() -> String,
    read_into: fn(&mut Config, &Given) -> bool,
    write: fn(&Config) -> toml_edit::Value,
}

impl Key {
    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("FERRITE_{}", self.path.to_ascii_uppercase().replace('.', "__"))
    }

    pub(super) fn of(section: &str, name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.section == section && key.name == name)
    }

    /// Sets the key. The error says what was expected and what was found.
    pub(super) fn apply(&self, config: &mut Config, given: &Given) -> Result<(), String> {
        if (self.read_into)(config, given) {
            Ok(())
        } else if self.is_secret() {
            Err(format!("expected {}; what was found is not shown", (self.expects)()))
        } else {
            Err(format!("expected {}, found {given}", (self.expects)()))
        }
    }

    /// Whether its value is nobody's business, in whichever section it stands.
    pub fn is_secret(&self) -> bool {
        SECRETS.contains(&self.name)
    }

    /// Its value as TOML.
    pub fn show(&self, config: &Config) -> toml_edit::Value {
        (self.write)(config)
    }
}

macro_rules! keys {
    ($($section:ident $(/ $part:ident)? . $name:ident $(($short:literal))? : $kind:ty, $doc:literal;)*) => {
        /// Every key, section by section.
        pub static KEYS: &[Key] = &[$(Key {
            section: concat!(stringify!($section) $(, ".", stringify!($part))?),
            name: stringify!($name),
            path: concat!(stringify!($section), ".", $(stringify!($part), ".",)? stringify!($name)),
            doc: $doc,
            short_form: [$(Some($short),)? None][0],
            expects: <$kind as Kind>::expects,
            read_into: |config, given| {
                let Some(value) = <$kind as Kind>::read(given) else {
                    return false;
                };
                <$kind as Kind>::assign(&mut config.$section$(.$part)?.$name, value);
                true
            },
            write: |config| <$kind as Kind>::write(&config.$section$(.$part)?.$name),
        },)*];
    };
}

keys! {
    server.port ("port"): Whole<u16, 0, 65_535>, "TCP port for clients; 0 takes a free one";
    server.bind ("bind"): Addresses, "Addresses to listen on";
    server.workers ("workers"): Whole<usize, 0, 1024>, "Worker threads; 0 means one per core";
    server.maxclients: Whole<usize, 1>, "Clients connected at a time";
    server.requirepass: OptionalText, "Password that clients must give to AUTH; empty means none";
    server.databases: Whole<usize, 1, 65_536>, "Databases that SELECT offers";
    server.proto_max_bulk_len: Bytes, "Longest argument of a command";
    server.query_buffer_limit: Bytes, "Bytes of an unfinished command that a client may send";
    server.output_buffer_limit: Bytes, "Bytes of replies that a client may leave unread before it is closed; 0 means no limit";
    server.tcp_keepalive: Whole<u64>, "Seconds between TCP keep-alive probes; 0 means none";
    server.timeout: Whole<u64>, "Seconds after which an idle client is closed; 0 means never";
    server.slowlog_log_slower_than: Whole<i64, -1>, "Microseconds from which a command enters the slow log; -1 means none does";
    server.slowlog_max_len: Whole<usize>, "Entries that the slow log keeps";
    server.slowlog_trace_id: OneOf<SlowlogTraceId>, "Where SLOWLOG shows the trace id: in the place of a missing client name, or always as a seventh field";
    server.enable_debug_command: OneOf<DebugCommand>, "Who may use DEBUG: nobody, everybody, or connections from this host";
    server.hash_max_listpack_entries: Whole<usize>, "Fields up to which a hash is a listpack: OBJECT ENCODING says so, and HSCAN gives it in one go";
    server.hash_max_listpack_value: Whole<usize>, "Bytes of a field or value up to which a hash is a listpack";
    server.maxmemory: Bytes, "Bytes of memory that the regions shrink for, and under noeviction and eviction policies of data; 0 means no limit";
    server.maxmemory_policy: OneOf<Policy>, "What happens when there is more data: Redis's policies, or spill, by which the disk takes it";
    server.maxmemory_samples: Whole<usize, 1, 2_147_483_647>, "Keys that eviction looks at for each that goes";
    server.lfu_log_factor: Whole<u32, 0, 2_147_483_647>, "How hard it is for a key's access counter to grow, under the lfu policies";
    server.lfu_decay_time: Whole<u32, 0, 2_147_483_647>, "Minutes in which such a counter loses one; 0 means never";

    storage.dir ("dir"): Directory, "Directory of the data";
    storage.mutable_region_size_mb: Positive, "MiB of memory for records that are updated in place";
    storage.read_only_region_size_mb: Positive, "MiB of memory for records that are read from a map of the log";
    storage.read_cache_size_mb: NotNegative, "MiB of memory, at most an eighth of maxmemory, for copies of records on disk that are read again and again; 0 means none";
    storage.page_size: Bytes, "Bytes of a page of the log; 0 derives it from the regions";
    storage.index_size_mb: Positive, "MiB of memory that the hash index starts with; it grows from five keys a bucket of 64 bytes on";
    storage.disk_backend: OneOf<DiskBackend>, "What serves the disk; auto means io_uring, or io-threads where it is forbidden";
    storage.save: SavePoints, "Seconds and changes, in pairs as in Redis, after which a checkpoint is taken, and one at the end too; empty means only when it is asked for";
    storage.stop_writes_on_bgsave_error: Flag, "With save points, whether writes are refused after a checkpoint that failed, until one succeeds";
    storage.auto_compaction_percentage: Whole<u64, 0, 2_147_483_647>, "Disk space beyond the live data, in per cent of it, at which the log is compacted; 0 means never";
    storage.auto_compaction_min_size: Bytes, "Bytes beyond that, and beyond what of the log is in memory, that are never compacted";
    storage.disk_quota: Bytes, "Bytes that the data directory may take before writes are refused; 0 means as many as there are";

    aof.enabled: Flag, "Whether every write is logged to the append-only file";
    aof.appendfsync: OneOf<AppendFsync>, "When the append-only file is made durable";
    aof.segment_size: Bytes, "Bytes of a segment of the append-only file from which on it goes on in a new one";
    aof.auto_rewrite_percentage: Whole<u64, 0, 2_147_483_647>, "Growth in per cent since the last rewrite of the append-only file at which the next begins; 0 means never";
    aof.auto_rewrite_min_size: Bytes, "Size of the append-only file below which no rewrite begins by itself";

    admin.enabled: Flag, "Whether /metrics, /healthz and a page that shows traces are served over HTTP";
    admin.bind: Address, "Address of the admin listener";
    admin.port ("admin-port"): Whole<u16, 0, 65_535>, "Port of the admin listener; 0 takes a free one";
    admin.page: Flag, "Whether the page is there; with server.requirepass it asks for that password";
    admin.metrics_bind: Address, "Address of a second listener, which has /metrics and /healthz alone";
    admin.metrics_port: Whole<u16, 0, 65_535>, "Port of the second listener; 0 means none";
    admin.native_histograms: Flag, "Whether a Prometheus with scrape_native_histograms, which asks for protobuf, finds native histograms beside the classic buckets";

    telemetry.enabled: Flag, "Whether traces, metrics and logs are exported; recording does not depend on it";
    telemetry.endpoint: OptionalText, "OTLP endpoint, a Collector or a backend; over http /v1/traces and its like are appended; empty means http://localhost:4317, and :4318 for http";
    telemetry.protocol: OneOf<OtlpProtocol>, "OTLP transport: grpc (port 4317) or http (protobuf, port 4318)";
    telemetry.compression: OneOf<OtlpCompression>, "How exports are compressed";
    telemetry.insecure: Flag, "Whether a gRPC endpoint without http:// or https:// is used without TLS";
    telemetry.certificate: OptionalText, "File of the certificates to trust, in PEM; empty means the system's";
    telemetry.client_certificate: OptionalText, "File of the certificate that exports show, in PEM; empty means none";
    telemetry.client_key: OptionalText, "File of that certificate's key, in PEM";
    telemetry.service_name: Text, "Resource attribute service.name";
    telemetry.service_version: Text, "Resource attribute service.version";
    telemetry.service_namespace: OptionalText, "Resource attribute service.namespace; empty means none";
    telemetry.sample_rate: Ratio, "Share of traces that is exported; 0.0 exports none";
    telemetry.sampler: OptionalText, "Sampler, by its OTEL_TRACES_SAMPLER name; empty means traceidratio at sample_rate";
    telemetry.sampler_arg: OptionalText, "The sampler's argument; alone it replaces sample_rate";
    telemetry.propagators: OptionalText, "Formats of trace context that are read, by their OTEL_PROPAGATORS names; empty means tracecontext,baggage";
    telemetry.baggage_extraction: Flag, "Whether members of the caller's W3C baggage become attributes of its command's spans";
    telemetry.baggage_allowed_keys: Texts, "The keys of those that do";
    telemetry.traces_enabled: Flag, "Whether spans are recorded";
    telemetry.metrics_enabled: Flag, "Whether metrics are exported";
    telemetry.logs_enabled: Flag, "Whether log lines are exported beside being written";
    telemetry.traces_exporter: ExporterList, "Where traces go while telemetry is enabled: otlp, console (lines of JSON on standard output), otlp,console or none";
    telemetry.metrics_exporter: ExporterList, "Where metrics go while telemetry is enabled";
    telemetry.logs_exporter: ExporterList, "Where log lines go while telemetry is enabled, beside being written";
    telemetry.metrics_export_interval: Seconds, "Seconds between two exports of the metrics";
    telemetry.metrics_temporality: OneOf<Temporality>, "Since when exported counters and histograms count: the start, or the last export (delta, lowmemory)";
    telemetry.metrics_histogram_aggregation: OneOf<HistogramAggregation>, "What histograms are exported as: with explicit buckets, or as exponential histograms, which backends may call native";
    telemetry.batch_size: Whole<usize, 1>, "Spans in one export at most; so many are exported at once";
    telemetry.batch_timeout_ms: Milliseconds<1>, "Milliseconds after which a batch that is not full is exported";
    telemetry.export_timeout_ms: Milliseconds<1>, "Milliseconds that one attempt to export may take, the connection included";
    telemetry.queue_size: Whole<usize, 1>, "Spans that may wait for export; further ones are dropped and counted";
    telemetry.logs_batch_size: Whole<usize, 1>, "Log records in one export at most";
    telemetry.logs_batch_timeout_ms: Milliseconds<1>, "Milliseconds after which a smaller batch of them is exported";
    telemetry.logs_queue_size: Whole<usize, 1>, "Log records that may wait for export; further ones are dropped and counted";
    telemetry.span_detail: OneOf<SpanDetail>, "How much of a command becomes spans: its root, the storage's work too, or all";
    telemetry.resource_attributes: Pairs, "Attributes added to every signal's resource; ${VAR} in the file is replaced";
    telemetry.headers: Headers, "Headers of every export; ${VAR} in the file is replaced";

    telemetry/traces.endpoint: OptionalText, "OTLP endpoint of traces alone, used as it is";
    telemetry/traces.protocol: Optional<OneOf<OtlpProtocol>>, "OTLP transport of traces; empty means as telemetry.protocol, as in the keys below";
    telemetry/traces.headers: Headers, "Headers of traces, in the place of telemetry.headers";
    telemetry/traces.timeout_ms: Milliseconds<0>, "Milliseconds that one attempt to export traces may take; 0 means as telemetry.export_timeout_ms";
    telemetry/traces.deadline_ms: Milliseconds<0>, "Milliseconds after which a batch of traces is given up, whatever attempts are left; 0 means after the fifth attempt";
    telemetry/traces.compression: Optional<OneOf<OtlpCompression>>, "How traces are compressed";
    telemetry/traces.insecure: Optional<Flag>, "As telemetry.insecure";
    telemetry/traces.certificate: OptionalText, "As telemetry.certificate";
    telemetry/traces.client_certificate: OptionalText, "As telemetry.client_certificate; its key goes with it";
    telemetry/traces.client_key: OptionalText, "As telemetry.client_key";
    telemetry/metrics.endpoint: OptionalText, "OTLP endpoint of metrics alone, used as it is";
    telemetry/metrics.protocol: Optional<OneOf<OtlpProtocol>>, "OTLP transport of metrics; empty means as telemetry.protocol, as in the keys below";
    telemetry/metrics.headers: Headers, "Headers of metrics, in the place of telemetry.headers";
    telemetry/metrics.timeout_ms: Milliseconds<0>, "Milliseconds that one attempt to export metrics may take; 0 means as telemetry.export_timeout_ms";
    telemetry/metrics.deadline_ms: Milliseconds<0>, "Milliseconds after which a batch of metrics is given up, whatever attempts are left; 0 means after the fifth attempt";
    telemetry/metrics.compression: Optional<OneOf<OtlpCompression>>, "How metrics are compressed";
    telemetry/metrics.insecure: Optional<Flag>, "As telemetry.insecure";
    telemetry/metrics.certificate: OptionalText, "As telemetry.certificate";
    telemetry/metrics.client_certificate: OptionalText, "As telemetry.client_certificate; its key goes with it";
    telemetry/metrics.client_key: OptionalText, "As telemetry.client_key";
    telemetry/logs.endpoint: OptionalText, "OTLP endpoint of logs alone, used as it is";
    telemetry/logs.protocol: Optional<OneOf<OtlpProtocol>>, "OTLP transport of logs; empty means as telemetry.protocol, as in the keys below";
    telemetry/logs.headers: Headers, "Headers of logs, in the place of telemetry.headers";
    telemetry/logs.timeout_ms: Milliseconds<0>, "Milliseconds that one attempt to export logs may take; 0 means as telemetry.export_timeout_ms";
    telemetry/logs.deadline_ms: Milliseconds<0>, "Milliseconds after which a batch of logs is given up, whatever attempts are left; 0 means after the fifth attempt";
    telemetry/logs.compression: Optional<OneOf<OtlpCompression>>, "How logs are compressed";
    telemetry/logs.insecure: Optional<Flag>, "As telemetry.insecure";
    telemetry/logs.certificate: OptionalText, "As telemetry.certificate";
    telemetry/logs.client_certificate: OptionalText, "As telemetry.client_certificate; its key goes with it";
    telemetry/logs.client_key: OptionalText, "As telemetry.client_key";
    telemetry/sampling.commands: Rates, "Shares of single commands by name; 0.0 means never and 1.0 always, whatever the caller decided";
    telemetry/sampling.tenant_key: Text, "Member of the baggage that names the tenant; needs baggage_extraction and a place among baggage_allowed_keys";
    telemetry/sampling.tenants: Rates, "Shares of single tenants";
    telemetry/sampling.schedule: ScheduleRules, "Shares by the time of day in UTC, as in \"22:00-06:00=0.01\"; the first rule that covers it counts";
    telemetry/sampling.parent_limit: NotNegative, "Sampled callers a second whose decision counts under a parentbased sampler, beyond which it is the sampler's; 0 means any number";

    telemetry/tail.errors: Flag, "Whether every trace of a failed command is exported with all its spans, whoever decided against it but the caller";
    telemetry/tail.slow_ms: NotNegative, "Milliseconds of execution, waits for the disk included, from which on a command's trace is; 0 means none";
    telemetry/tail.attributes: TailRules, "Attributes, each as attribute=value or attribute=beginning*, whose commands' traces are";
    telemetry/tail.override_parent: Flag, "Whether that holds under an unsampled caller too, and where nothing else is exported";

    telemetry.semconv_stability_opt_in: OptionalText, "As OTEL_SEMCONV_STABILITY_OPT_IN: database for the stable names of database attributes, database/dup for both";

    telemetry/limits.attribute_count: Whole<usize>, "Attributes of a span; more are dropped and counted";
    telemetry/limits.attribute_value_length: Limit, "Characters of an attribute's text, the last of a longer one an ellipsis; -1 means no limit";
    telemetry/limits.event_count: Whole<usize>, "Events of a span";
    telemetry/limits.link_count: Whole<usize>, "Links of a span";
    telemetry/limits.event_attribute_count: Whole<usize>, "Attributes of an event";

    telemetry/log_limits.attribute_count: Whole<usize>, "Fields of an exported log line; more are dropped and counted";
    telemetry/log_limits.attribute_value_length: Limit, "Characters of a field's text, the last of a longer one an ellipsis; -1 means no limit";

    telemetry/redaction.keys: OneOf<KeyRedaction>, "Whether spans and log lines have a hash in the place of each key, or nothing; values are never in them";
    telemetry/redaction.salt: OptionalText, "What that hash depends on beside the key: who knows it can try keys out";
    telemetry/redaction.attributes: Texts, "Attributes whose values are replaced by [REDACTED], in spans, events and log lines";

    logging.level: Text, "Log level, or directives as in RUST_LOG";
    logging.format: OneOf<LogFormat>, "How log lines look";
    logging.commands: OneOf<LogCommands>, "Which commands write a log line";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fmt::Write;

    #[test]
    fn every_key_reads_back_what_it_writes() {
        for key in KEYS {
            let mut config = Config::default();
            let written = super::super::file::given(&key.show(&config).into()).unwrap();
            key.apply(&mut config, &written).unwrap_or_else(|error| panic!("{}: {error}", key.path));
            assert_eq!(config, Config::default(), "{}", key.path);
        }
    }

    #[test]
    fn every_key_has_its_own_names_and_a_sentence() {
        let paths: BTreeSet<&str> = KEYS.iter().map(|key| key.path).collect();
        let variables: BTreeSet<String> = KEYS.iter().map(Key::variable).collect();
        assert_eq!((paths.len(), variables.len()), (KEYS.len(), KEYS.len()));
        for key in KEYS {
            assert!(!key.doc.is_empty() && !key.doc.ends_with('.'), "{}", key.path);
        }
    }

    /// The table that the documentation shows.
    fn markdown() -> String {
        let mut text = String::from("| key | default | meaning |\n|---|---|---|\n");
        for key in KEYS {
            let default = key.show(&Config::default()).to_string();
            let short = key.short_form.map(|short| format!(" (`--{short}`)")).unwrap_or_default();
            writeln!(text, "| `{}`{short} | `{}` | {} |", key.path, default.trim(), key.doc).unwrap();
        }
        text
    }

    #[test]
    fn readme_has_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
        let page = std::fs::read_to_string(path).unwrap();
        let begin = page.find("| key |").expect("the page has the table");
        let end = begin + page[begin..].find("\n\n").map_or(page.len() - begin, |end| end + 1);
        let expected = format!("{}{}{}", &page[..begin], markdown(), &page[end..]);
        if std::env::var_os("FERRITE_UPDATE_DOCS").is_some() {
            std::fs::write(path, &expected).unwrap();
            return;
        }
        assert!(page == expected, "update it: FERRITE_UPDATE_DOCS=1 cargo test -p ferrite readme");
    }
}
