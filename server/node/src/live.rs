//! The settings that CONFIG SET changes while the server runs; the rest of the configuration stays as it was read.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::config::{self, Config, SlowlogTraceId, TelemetryConfig};

/// Bytes.
const MIB: f64 = (1 << 20) as f64;

pub struct Live {
    pub maxclients: AtomicUsize,
    /// Bytes.
    pub proto_max_bulk_len: AtomicU64,
    /// Bytes.
    pub query_buffer_limit: AtomicU64,
    /// Bytes; 0 for none.
    pub output_buffer_limit: AtomicU64,
    /// Seconds; 0 for never.
    pub timeout_s: AtomicU64,
    pub slowlog_trace_id_always: AtomicBool,
    /// Per cent; 0 for never.
    pub auto_aof_rewrite_percentage: AtomicU64,
    /// Bytes.
    pub auto_aof_rewrite_min_size: AtomicU64,
    /// Bytes; 0 for none.
    pub read_cache_bytes: AtomicU64,
    /// Per cent; 0 for never.
    pub auto_compaction_percentage: AtomicU64,
    /// Bytes.
    pub auto_compaction_min_size: AtomicU64,
    /// Bytes; 0 for none.
    pub disk_quota: AtomicU64,
    /// After how many seconds with how many changes a checkpoint is taken.
    pub save_points: Mutex<Vec<(u64, u64)>>,
    /// Whose sampling may change.
    pub telemetry: Mutex<TelemetryConfig>,
    pub stop_writes_on_bgsave_error: AtomicBool,
    /// `None`: no password is required.
    pub requirepass: Mutex<Option<Vec<u8>>>,
}

impl Live {
    pub fn new(config: &Config) -> Live {
        let server = &config.server;
        Live {
            maxclients: AtomicUsize::new(server.maxclients),
            proto_max_bulk_len: AtomicU64::new(server.proto_max_bulk_len),
            query_buffer_limit: AtomicU64::new(server.query_buffer_limit),
            output_buffer_limit: AtomicU64::new(server.output_buffer_limit),
            timeout_s: AtomicU64::new(server.timeout),
            slowlog_trace_id_always: AtomicBool::new(server.slowlog_trace_id == SlowlogTraceId::Always),
            auto_aof_rewrite_percentage: AtomicU64::new(config.aof.auto_rewrite_percentage),
            auto_aof_rewrite_min_size: AtomicU64::new(config.aof.auto_rewrite_min_size),
            read_cache_bytes: AtomicU64::new((config.storage.read_cache_size_mb * MIB) as u64),
            auto_compaction_percentage: AtomicU64::new(config.storage.auto_compaction_percentage),
            auto_compaction_min_size: AtomicU64::new(config.storage.auto_compaction_min_size),
            disk_quota: AtomicU64::new(config.storage.disk_quota),
            save_points: Mutex::new(config::save_points(&config.storage.save).unwrap_or_default()),
            telemetry: Mutex::new(config.telemetry.clone()),
            stop_writes_on_bgsave_error: AtomicBool::new(config.storage.stop_writes_on_bgsave_error),
            requirepass: Mutex::new(
                server.requirepass.clone().filter(|password| !password.is_empty()).map(String::into_bytes),
            ),
        }
    }

    /// `config` with what has been changed since.
    pub fn applied_to(&self, mut config: Config) -> Config {
        let server = &mut config.server;
        server.maxclients = self.maxclients.load(Ordering::Relaxed);
        server.proto_max_bulk_len = self.proto_max_bulk_len.load(Ordering::Relaxed);
        server.query_buffer_limit = self.query_buffer_limit.load(Ordering::Relaxed);
        server.output_buffer_limit = self.output_buffer_limit.load(Ordering::Relaxed);
        server.timeout = self.timeout_s.load(Ordering::Relaxed);
        server.slowlog_trace_id = match self.slowlog_trace_id_always.load(Ordering::Relaxed) {
            true => SlowlogTraceId::Always,
            false => SlowlogTraceId::Auto,
        };
        config.aof.auto_rewrite_percentage = self.auto_aof_rewrite_percentage.load(Ordering::Relaxed);
        config.aof.auto_rewrite_min_size = self.auto_aof_rewrite_min_size.load(Ordering::Relaxed);
        config.storage.read_cache_size_mb = self.read_cache_bytes.load(Ordering::Relaxed) as f64 / MIB;
        config.storage.auto_compaction_percentage = self.auto_compaction_percentage.load(Ordering::Relaxed);
        config.storage.auto_compaction_min_size = self.auto_compaction_min_size.load(Ordering::Relaxed);
        config.storage.disk_quota = self.disk_quota.load(Ordering::Relaxed);
        config.storage.save = config::save_points_text(&self.save_points.lock());
        config.telemetry = self.telemetry.lock().clone();
        config.storage.stop_writes_on_bgsave_error = self.stop_writes_on_bgsave_error.load(Ordering::Relaxed);
        let server = &mut config.server;
        server.requirepass =
            self.requirepass.lock().as_ref().map(|password| String::from_utf8_lossy(password).into_owned());
        config
    }
}
