//! The configuration as plain data, with its defaults. Files, flags and the environment are read by whoever
//! builds the node; field names are the keys' names.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

mod exporters;

pub use exporters::Exporters;
pub use ferrite_keyspace::Policy;
use ferrite_telemetry::{
    Conventions, Keys, LogLimits, Masks, Propagators, SamplingPolicy, SamplingSettings, Schedule, Shape, SpanLimits,
    TailSettings,
};

use crate::context::ContextIn;

/// All of a server's configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub server: ServerConfig,
    pub storage: StorageConfig,
    pub aof: AofConfig,
    pub admin: AdminConfig,
    pub telemetry: TelemetryConfig,
    pub logging: LoggingConfig,
}

impl Config {
    /// Whether times are counted in exponential buckets beside the classic ones.
    pub fn has_native_histograms(&self) -> bool {
        let exported = self.telemetry.exports_metrics()
            && self.telemetry.metrics_histogram_aggregation == HistogramAggregation::Base2Exponential;
        (self.admin.enabled && self.admin.native_histograms) || exported
    }
}

/// `[server]`: the listening sockets, the workers and Redis's own limits.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// TCP port; 0 takes a free one.
    pub port: u16,
    pub bind: Vec<IpAddr>,
    /// Worker threads; 0 means one per core.
    pub workers: usize,
    pub maxclients: usize,
    pub requirepass: Option<String>,
    pub databases: usize,
    /// Longest argument of a command, in bytes.
    pub proto_max_bulk_len: u64,
    /// Bytes of a command that one client may have pending.
    pub query_buffer_limit: u64,
    /// Bytes of replies that may wait for one client before it is closed; 0 means no limit.
    pub output_buffer_limit: u64,
    /// Seconds between TCP keep-alive probes; 0 means none.
    pub tcp_keepalive: u64,
    /// Seconds after which an idle client is closed; 0 means never.
    pub timeout: u64,
    /// Microseconds from which a command enters the slow log; -1 means none does.
    pub slowlog_log_slower_than: i64,
    pub slowlog_max_len: usize,
    pub slowlog_trace_id: SlowlogTraceId,
    pub enable_debug_command: DebugCommand,
    /// Fields up to which a hash is a listpack to OBJECT ENCODING.
    pub hash_max_listpack_entries: usize,
    /// Bytes of a field or value up to which a hash is a listpack to OBJECT ENCODING.
    pub hash_max_listpack_value: usize,
    /// Bytes of memory, and of data if `maxmemory_policy` says so; 0 means no limit.
    pub maxmemory: u64,
    pub maxmemory_policy: Policy,
    /// Keys that eviction looks at for each that goes.
    pub maxmemory_samples: usize,
    /// How hard it is for the access counter of a key to grow.
    pub lfu_log_factor: u32,
    /// Minutes in which such a counter loses one; 0 means never.
    pub lfu_decay_time: u32,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            port: 6379,
            bind: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            workers: 0,
            maxclients: 10_000,
            requirepass: None,
            databases: 16,
            proto_max_bulk_len: 512 << 20,
            query_buffer_limit: 1 << 30,
            output_buffer_limit: 0,
            tcp_keepalive: 300,
            timeout: 0,
            slowlog_log_slower_than: 10_000,
            slowlog_max_len: 128,
            slowlog_trace_id: SlowlogTraceId::Auto,
            enable_debug_command: DebugCommand::No,
            hash_max_listpack_entries: 512,
            hash_max_listpack_value: 64,
            maxmemory: 0,
            maxmemory_policy: Policy::Spill,
            maxmemory_samples: 5,
            lfu_log_factor: 10,
            lfu_decay_time: 1,
        }
    }
}

/// `[storage]`: the HybridLog's regions and its directory.
#[derive(Clone, Debug, PartialEq)]
pub struct StorageConfig {
    pub dir: PathBuf,
    /// MiB of memory for records that are updated in place.
    pub mutable_region_size_mb: f64,
    /// MiB of memory for records that are read from a map of the log.
    pub read_only_region_size_mb: f64,
    /// MiB of memory for copies of records on disk that are read again and again; 0: none.
    pub read_cache_size_mb: f64,
    /// Bytes of a page; 0 derives it from the regions.
    pub page_size: u64,
    /// MiB of memory that the hash index starts with. The first size decides how many bits of a hash tell keys apart; 1 is
    /// untouched memory for few keys, and leaves 12 bits of the tag for 10 million.
    pub index_size_mb: f64,
    pub disk_backend: DiskBackend,
    /// Redis's `save`: pairs of seconds and changes; empty for no checkpoints but those that are asked for.
    pub save: String,
    /// With save points, whether writes are refused after a checkpoint that failed, until one succeeds.
    pub stop_writes_on_bgsave_error: bool,
    /// Disk space beyond the live data, in per cent of it, at which the log is compacted; 0 for never.
    pub auto_compaction_percentage: u64,
    /// Bytes of garbage below which the log is not compacted.
    pub auto_compaction_min_size: u64,
    /// Bytes that the data directory may take; 0 for any.
    pub disk_quota: u64,
}

/// The pairs of seconds and changes in the text of `save`; `None` if it is not understood.
pub fn save_points(text: &str) -> Option<Vec<(u64, u64)>> {
    let numbers: Option<Vec<u64>> =
        text.split_whitespace().map(|word| word.parse().ok().filter(|&number| number <= i32::MAX as u64)).collect();
    let (pairs, rest) = numbers.as_deref()?.as_chunks::<2>();
    // No changes at all would be a checkpoint a second.
    let possible = rest.is_empty() && pairs.iter().all(|&[seconds, _]| seconds >= 1);
    possible.then(|| pairs.iter().map(|&[seconds, changes]| (seconds, changes)).collect())
}

/// The text that [`save_points`] understands.
pub fn save_points_text(points: &[(u64, u64)]) -> String {
    points.iter().map(|(seconds, changes)| format!("{seconds} {changes}")).collect::<Vec<_>>().join(" ")
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("./ferrite-data"),
            mutable_region_size_mb: 256.0,
            read_only_region_size_mb: 128.0,
            read_cache_size_mb: 64.0,
            page_size: 0,
            index_size_mb: 1.0,
            disk_backend: DiskBackend::Auto,
            save: String::new(),
            stop_writes_on_bgsave_error: true,
            auto_compaction_percentage: 100,
            auto_compaction_min_size: 64 << 20,
            disk_quota: 0,
        }
    }
}

/// `[aof]`: the append-only file.
#[derive(Clone, Debug, PartialEq)]
pub struct AofConfig {
    pub enabled: bool,
    pub appendfsync: AppendFsync,
    /// Bytes of a segment from which on the log goes on in a new one.
    pub segment_size: u64,
    /// Growth over the size after the last rewrite, in per cent, at which the next begins; 0 for never.
    pub auto_rewrite_percentage: u64,
    /// Bytes below which no rewrite begins by itself.
    pub auto_rewrite_min_size: u64,
}

impl Default for AofConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            appendfsync: AppendFsync::Everysec,
            segment_size: 128 << 20,
            auto_rewrite_percentage: 100,
            auto_rewrite_min_size: 64 << 20,
        }
    }
}

/// `[admin]`: the HTTP listener with `/metrics`, `/healthz` and the page.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminConfig {
    pub enabled: bool,
    pub bind: IpAddr,
    pub port: u16,
    /// Whether the page is there beside `/metrics` and `/healthz`.
    pub page: bool,
    /// A listener of their own for `/metrics` and `/healthz`; with port 0 there is none.
    pub metrics_bind: IpAddr,
    pub metrics_port: u16,
    /// Whether scrapers that ask for protobuf find native histograms beside the classic ones.
    pub native_histograms: bool,
}

impl Default for AdminConfig {
    fn default() -> Self {
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            enabled: true,
            bind: localhost,
            port: 9090,
            page: true,
            metrics_bind: localhost,
            metrics_port: 0,
            native_histograms: false,
        }
    }
}

/// `[telemetry]`: the recorder and OTLP export.
#[derive(Clone, Debug, PartialEq)]
pub struct TelemetryConfig {
    /// Whether anything is exported. The recorder does not depend on it.
    pub enabled: bool,
    /// The general endpoint; none means localhost on the protocol's port.
    pub endpoint: Option<String>,
    pub protocol: OtlpProtocol,
    pub compression: OtlpCompression,
    /// Over gRPC, of an endpoint without a scheme: whether it is used without TLS.
    pub insecure: bool,
    /// Files in PEM: whom to trust instead of the system's authorities, and what to show of this server.
    pub certificate: Option<String>,
    pub client_certificate: Option<String>,
    pub client_key: Option<String>,
    /// What is different for one signal.
    pub traces: SignalConfig,
    pub metrics: SignalConfig,
    pub logs: SignalConfig,
    pub service_name: String,
    pub service_version: String,
    pub service_namespace: Option<String>,
    /// Share of traces that is exported, from 0.0 to 1.0.
    pub sample_rate: f64,
    /// `OTEL_TRACES_SAMPLER` as it was written: the sampler's module judges it, as the specification says.
    pub sampler: Option<String>,
    /// `OTEL_TRACES_SAMPLER_ARG` as it was written.
    pub sampler_arg: Option<String>,
    /// `OTEL_PROPAGATORS` as it was written: the propagators' module judges it.
    pub propagators: Option<String>,
    /// Whether members of the caller's baggage become attributes of its command's spans.
    pub baggage_extraction: bool,
    /// The keys of those that do.
    pub baggage_allowed_keys: Vec<String>,
    /// Whether spans are recorded at all.
    pub traces_enabled: bool,
    pub metrics_enabled: bool,
    pub logs_enabled: bool,
    pub traces_exporter: Exporters,
    pub metrics_exporter: Exporters,
    pub logs_exporter: Exporters,
    /// Seconds between two exports of the metrics.
    pub metrics_export_interval: f64,
    pub metrics_temporality: Temporality,
    pub metrics_histogram_aggregation: HistogramAggregation,
    /// Spans or log records in one export at most.
    pub batch_size: usize,
    /// Milliseconds after which a batch that is not full is exported.
    pub batch_timeout_ms: u64,
    /// Milliseconds that one attempt to export may take.
    pub export_timeout_ms: u64,
    /// Spans that may wait for export; further ones are dropped and counted.
    pub queue_size: usize,
    /// Log records in one export at most, how long a smaller batch waits, and how many may wait for export.
    pub logs_batch_size: usize,
    pub logs_batch_timeout_ms: u64,
    pub logs_queue_size: usize,
    pub span_detail: SpanDetail,
    pub resource_attributes: BTreeMap<String, String>,
    pub headers: BTreeMap<String, String>,
    pub sampling: SamplingConfig,
    pub tail: TailSettings,
    /// `OTEL_SEMCONV_STABILITY_OPT_IN` as it was written.
    pub semconv_stability_opt_in: Option<String>,
    pub limits: SpanLimits,
    pub log_limits: LogLimits,
    pub redaction: RedactionConfig,
}

/// `[telemetry.traces]`, `[telemetry.metrics]`, `[telemetry.logs]`: what goes over `[telemetry]` for one signal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SignalConfig {
    /// Used as it is: nothing is appended.
    pub endpoint: Option<String>,
    pub protocol: Option<OtlpProtocol>,
    /// If there are any, only these are sent.
    pub headers: BTreeMap<String, String>,
    /// 0 means as `export_timeout_ms`.
    pub timeout_ms: u64,
    /// After which a batch is given up, whatever attempts are left; 0: never.
    pub deadline_ms: u64,
    pub compression: Option<OtlpCompression>,
    pub insecure: Option<bool>,
    pub certificate: Option<String>,
    pub client_certificate: Option<String>,
    pub client_key: Option<String>,
}

/// `[telemetry.redaction]`: what is not told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RedactionConfig {
    pub keys: KeyRedaction,
    /// What a hashed key depends on beside the key.
    pub salt: Option<String>,
    /// Attributes whose values are masked.
    pub attributes: Vec<String>,
}

impl RedactionConfig {
    /// What is recorded of keys.
    pub fn recorded_keys(&self) -> Keys {
        match self.keys {
            KeyRedaction::Off => Keys::Shown,
            KeyRedaction::Hash => Keys::hashed(self.salt.as_deref().unwrap_or_default()),
            KeyRedaction::Drop => Keys::Dropped,
        }
    }
}

/// `[telemetry.sampling]`: what decides beside the sampler.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingConfig {
    /// Shares of single commands by name; 0 means never, 1 always.
    pub commands: BTreeMap<String, f64>,
    /// The member of the baggage that names the tenant.
    pub tenant_key: String,
    pub tenants: BTreeMap<String, f64>,
    /// Rules such as `22:00-06:00=0.01`, valid ones.
    pub schedule: Vec<String>,
    /// Sampled callers a second whose decision counts; 0 means any number.
    pub parent_limit: f64,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self {
            commands: BTreeMap::new(),
            tenant_key: "tenant.id".to_owned(),
            tenants: BTreeMap::new(),
            schedule: Vec::new(),
            parent_limit: 0.0,
        }
    }
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            endpoint: None,
            protocol: OtlpProtocol::Grpc,
            compression: OtlpCompression::None,
            insecure: false,
            certificate: None,
            client_certificate: None,
            client_key: None,
            traces: SignalConfig::default(),
            metrics: SignalConfig::default(),
            logs: SignalConfig::default(),
            service_name: "ferrite".to_owned(),
            service_version: env!("CARGO_PKG_VERSION").to_owned(),
            service_namespace: None,
            sample_rate: 1.0,
            sampler: None,
            sampler_arg: None,
            propagators: None,
            baggage_extraction: false,
            baggage_allowed_keys: Vec::new(),
            traces_enabled: true,
            metrics_enabled: true,
            logs_enabled: true,
            traces_exporter: Exporters::DEFAULT,
            metrics_exporter: Exporters::DEFAULT,
            logs_exporter: Exporters::DEFAULT,
            metrics_export_interval: 60.0,
            metrics_temporality: Temporality::Cumulative,
            metrics_histogram_aggregation: HistogramAggregation::ExplicitBucket,
            batch_size: 512,
            batch_timeout_ms: 5000,
            export_timeout_ms: 10_000,
            queue_size: 65_536,
            logs_batch_size: 512,
            logs_batch_timeout_ms: 1000,
            logs_queue_size: 2048,
            span_detail: SpanDetail::Full,
            resource_attributes: BTreeMap::new(),
            headers: BTreeMap::new(),
            sampling: SamplingConfig::default(),
            tail: TailSettings::default(),
            semconv_stability_opt_in: None,
            limits: SpanLimits::default(),
            log_limits: LogLimits::default(),
            redaction: RedactionConfig::default(),
        }
    }
}

impl TelemetryConfig {
    /// Whether spans leave this process.
    pub fn exports_traces(&self) -> bool {
        self.enabled && self.traces_enabled && self.traces_exporter.any()
    }

    /// Whether metrics do.
    pub fn exports_metrics(&self) -> bool {
        self.enabled && self.metrics_enabled && self.metrics_exporter.any()
    }

    /// Whether log lines do, beside being written.
    pub fn exports_logs(&self) -> bool {
        self.enabled && self.logs_enabled && self.logs_exporter.any()
    }

    /// What decides about traces.
    pub fn sampling_settings(&self) -> Result<SamplingSettings, String> {
        let sampling = &self.sampling;
        Ok(SamplingSettings {
            sample_rate: self.sample_rate,
            sampler: self.sampler.clone(),
            sampler_arg: self.sampler_arg.clone(),
            commands: sampling.commands.clone(),
            tenant_key: sampling.tenant_key.clone(),
            tenants: sampling.tenants.clone(),
            schedule: Schedule::parse(&sampling.schedule)?,
            parent_limit: sampling.parent_limit,
            tail: self.tail.clone(),
        })
    }

    /// The same, put together, and a warning for each setting that was passed over.
    pub fn policy(&self) -> Result<(SamplingPolicy, Vec<String>), String> {
        let (policy, mut warnings) = SamplingPolicy::new(&self.sampling_settings()?)?;
        let sampling = &self.sampling;
        if !sampling.tenants.is_empty() && !self.context_in().0.baggage_keys.contains(&sampling.tenant_key) {
            warnings.push(format!(
                "telemetry.sampling.tenants has no effect: \"{}\" is not taken of the baggage (baggage_extraction, \
                 baggage_allowed_keys)",
                sampling.tenant_key
            ));
        }
        Ok((policy, warnings))
    }

    /// What traces and metrics say about their origin, by key.
    pub fn resource(&self) -> Vec<(String, String)> {
        let mut attributes = self.resource_attributes.clone();
        attributes.insert("service.name".to_owned(), self.service_name.clone());
        attributes.insert("service.version".to_owned(), self.service_version.clone());
        attributes.extend(self.service_namespace.clone().map(|namespace| ("service.namespace".to_owned(), namespace)));
        attributes.into_iter().collect()
    }

    /// How spans look to exporters and clients.
    pub fn shape(&self) -> Shape {
        Shape {
            conventions: Conventions::from_opt_in(self.semconv_stability_opt_in.as_deref().unwrap_or_default()),
            masked: Masks::new(self.redaction.attributes.iter().cloned()),
            limits: self.limits,
            logs: self.log_limits,
        }
    }

    /// What is read of a caller's context, and a warning for each name that was passed over.
    pub fn context_in(&self) -> (ContextIn, Vec<String>) {
        let (propagators, warnings) = Propagators::from_setting(self.propagators.as_deref());
        let baggage_keys = if self.baggage_extraction { self.baggage_allowed_keys.clone() } else { Vec::new() };
        (ContextIn { propagators, baggage_keys }, warnings)
    }
}

/// `[logging]`: what is written to standard output.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggingConfig {
    /// A level, or directives as in `RUST_LOG`: `ferrite=debug,opentelemetry=debug`.
    pub level: String,
    pub format: LogFormat,
    pub commands: LogCommands,
}

impl Default for LoggingConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Json, commands: LogCommands::Off }
    }
}

/// Shares by name, as `PING=0.0,GET=0.1`; `None`: that is none.
pub fn rates(text: &str) -> Option<BTreeMap<String, f64>> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, rate) = pair.rsplit_once('=')?;
            let rate = rate.trim().parse::<f64>().ok().filter(|rate| (0.0..=1.0).contains(rate))?;
            let name = name.trim();
            (!name.is_empty()).then(|| (name.to_owned(), rate))
        })
        .collect()
}

/// The inverse of [`rates`].
pub fn rates_text(rates: &BTreeMap<String, f64>) -> String {
    rates.iter().map(|(name, rate)| format!("{name}={rate}")).collect::<Vec<_>>().join(",")
}

/// Texts of a list with commas.
pub fn texts(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// A value that is one of a few names.
pub trait Choice: Copy + PartialEq + 'static {
    /// Every value with its name; the first name of a value is the one that is written.
    const NAMES: &'static [(&'static str, Self)];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, value)| *value == self).expect("every value has a name").0
    }

    /// The value of that name, in any case.
    fn of_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }
}

/// Declares an enumeration and the names that its values have in the configuration.
macro_rules! choice {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal $(| $alias:literal)*,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type {
            $($(#[$variant_doc])* $variant,)+
        }

        impl Choice for $type {
            const NAMES: &'static [(&'static str, Self)] =
                &[$(($name, Self::$variant), $(($alias, Self::$variant),)*)+];
        }
    };
}

choice! {
    /// What spans and log lines say of keys.
    #[derive(Default)]
    KeyRedaction {
        /// The keys.
        #[default]
        Off = "off",
        /// A hash of each.
        Hash = "hash",
        /// Nothing.
        Drop = "drop",
    }
}

choice! {
    /// Whether SLOWLOG entries carry the trace id as a field of its own.
    SlowlogTraceId {
        /// In the client-name field, where the client has set no name.
        Auto = "auto",
        /// As a seventh field of every entry.
        Always = "always",
    }
}

choice! {
    /// Who may use DEBUG.
    DebugCommand {
        No = "no",
        Yes = "yes",
        /// Connections from this host.
        Local = "local",
    }
}

impl Choice for Policy {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("volatile-lru", Self::VolatileLru),
        ("volatile-lfu", Self::VolatileLfu),
        ("volatile-random", Self::VolatileRandom),
        ("volatile-ttl", Self::VolatileTtl),
        ("allkeys-lru", Self::AllkeysLru),
        ("allkeys-lfu", Self::AllkeysLfu),
        ("allkeys-random", Self::AllkeysRandom),
        ("noeviction", Self::NoEviction),
        ("spill", Self::Spill),
    ];
}

choice! {
    /// What serves the disk.
    DiskBackend {
        /// io_uring, or `io-threads` where it is forbidden.
        Auto = "auto",
        IoUring = "io_uring" | "io-uring",
        IoThreads = "io-threads" | "io_threads",
    }
}

choice! {
    /// When the AOF is made durable.
    AppendFsync {
        /// Before any reply leaves that depends on it.
        Always = "always",
        Everysec = "everysec",
        /// When the kernel likes.
        No = "no",
    }
}

choice! {
    /// OTLP's transport.
    OtlpProtocol {
        Grpc = "grpc",
        Http = "http" | "http/protobuf",
    }
}

choice! {
    /// How exports are made smaller.
    OtlpCompression {
        None = "none",
        Gzip = "gzip",
    }
}

choice! {
    /// Since when counters and histograms count in an export.
    Temporality {
        /// The start of the process.
        Cumulative = "cumulative",
        /// The last export that was accepted.
        Delta = "delta",
        /// As delta: no counter here is of the kind for which they differ.
        LowMemory = "lowmemory",
    }
}

choice! {
    /// What histograms are exported as.
    HistogramAggregation {
        /// With the bounds of the documentation.
        ExplicitBucket = "explicit_bucket_histogram",
        /// Exponential histograms.
        Base2Exponential = "base2_exponential_bucket_histogram",
    }
}

choice! {
    /// How much of a command becomes spans.
    SpanDetail {
        /// The root alone.
        Command = "command",
        /// Parse, index, tiers, epoch and AOF too.
        Storage = "storage",
        Full = "full",
    }
}

choice! {
    /// How log lines look.
    LogFormat {
        Json = "json",
        Text = "text",
    }
}

choice! {
    /// Which commands write a log line.
    LogCommands {
        Off = "off",
        /// Those that enter the slow log.
        Slow = "slow",
        All = "all",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_found_by_every_name_and_written_by_its_first() {
        assert_eq!(OtlpProtocol::of_name("http/protobuf"), Some(OtlpProtocol::Http));
        assert_eq!(OtlpProtocol::Http.name(), "http");
        assert_eq!(AppendFsync::of_name("EverySec"), Some(AppendFsync::Everysec));
        assert_eq!(AppendFsync::of_name("sometimes"), None);
    }

    #[test]
    fn save_points_are_pairs() {
        assert_eq!(save_points(""), Some(vec![]));
        assert_eq!(save_points("3600 1 300  100"), Some(vec![(3600, 1), (300, 100)]));
        assert_eq!(save_points_text(&[(3600, 1), (300, 100)]), "3600 1 300 100");
        for wrong in ["3600", "0 1", "a 1", "-1 1", "60 1 60", "60 99999999999"] {
            assert_eq!(save_points(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_defaults_listen_on_loopback_and_export_nothing() {
        let config = Config::default();
        assert!(config.server.bind.iter().all(IpAddr::is_loopback) && config.admin.bind.is_loopback());
        assert!(!config.telemetry.enabled && config.telemetry.traces_enabled && config.aof.enabled);
    }

    #[test]
    fn native_histograms_are_counted_where_somebody_asks_for_them() {
        let mut config = Config::default();
        assert!(!config.has_native_histograms());
        config.telemetry.metrics_histogram_aggregation = HistogramAggregation::Base2Exponential;
        assert!(!config.has_native_histograms(), "nothing is exported");
        config.telemetry.enabled = true;
        assert!(config.has_native_histograms());
        let mut config = Config::default();
        config.admin.native_histograms = true;
        assert!(config.has_native_histograms());
        config.admin.enabled = false;
        assert!(!config.has_native_histograms(), "nobody can scrape them");
    }
}
