//! INFO: the numbers that the node hands in, and which sections are asked for.

use std::time::Duration;

use ferrite_keyspace::{Counts, Pause};

use super::info_text::{ALL, DEFAULT, EVERYTHING, render};
use crate::call::Call;
use crate::spec::{Arg, CommandSpec, Group, acl, flag};

pub static SPECS: &[CommandSpec] = &[CommandSpec::new("info", -1, info)
    .group(Group::Server)
    .since("1.0.0")
    .complexity("O(1)")
    .summary("Tells about the server and its statistics.")
    .flags(flag::LOADING | flag::STALE)
    .acl(acl::DANGEROUS)
    .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
    .args(&[Arg::string("section").optional().multiple()])];

fn info(call: &mut Call<'_>) -> Result<(), Pause> {
    let mut wanted: Vec<&str> = Vec::new();
    for arg in call.args.iter().skip(1) {
        let name = arg.to_ascii_lowercase();
        wanted.extend(match &name[..] {
            b"default" => DEFAULT,
            b"all" => ALL,
            b"everything" => EVERYTHING,
            b"modules" => &["module_list"],
            // An unknown section is as good as none.
            _ => EVERYTHING
                .iter()
                .position(|section| section.as_bytes() == name)
                .map_or(&[][..], |at| &EVERYTHING[at..=at]),
        });
    }
    if call.args.len() == 1 {
        wanted.extend(DEFAULT);
    }
    let counts = wanted.iter().any(|section| matches!(*section, "keyspace" | "memory"));
    let info = if counts { counted(call)? } else { call.host.info() };
    let text = render(&info, &wanted);
    call.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

/// How long it waits for exact counts of keys. A disk that is stuck must not hide what INFO has to say of it.
const PATIENCE: Duration = Duration::from_secs(1);

/// All there is to tell, with exact counts if they can be known soon.
pub(crate) fn counted(call: &mut Call<'_>) -> Result<InfoSnapshot, Pause> {
    let databases = call.keys.databases();
    let ticket = call.session.counted.take();
    // A transaction has waited before it began, and cannot any more.
    if ticket.is_none() && !databases.unseen.is_empty() && !call.in_transaction {
        let ticket = databases.unseen.ticket(databases, None);
        return Err(Pause::Counts { ticket, patience: Some(PATIENCE) });
    }
    let mut info = call.host.info();
    if let Some(ticket) = ticket {
        let all: Option<Vec<_>> = (0..databases.count()).map(|db| Some((db, ticket.counts(db)?.ok()?))).collect();
        if let Some(all) = all {
            info.memory.data = all.iter().map(|(_, counts)| counts.data_bytes()).sum();
            let shown = all.iter().filter(|(_, counts)| counts.keys > 0);
            let shown =
                shown.map(|&(db, Counts { keys, expires, .. })| DatabaseInfo { db, keys, expires, avg_ttl_ms: 0 });
            info.keyspace = shown.collect();
        }
    }
    Ok(info)
}

/// What INFO shows. The node fills it; a field that does not apply stays 0 or empty.
#[derive(Clone, Debug, Default)]
pub struct InfoSnapshot {
    pub server: ServerInfo,
    pub clients: ClientsInfo,
    pub memory: MemoryInfo,
    pub persistence: PersistenceInfo,
    pub stats: StatsInfo,
    pub cpu: CpuInfo,
    /// 40 hexadecimal digits.
    pub replication_id: String,
    pub commands: Vec<CommandStat>,
    /// Error code (`ERR`, `WRONGTYPE` …) and how often it was answered.
    pub errors: Vec<(String, u64)>,
    /// Databases that hold keys.
    pub keyspace: Vec<DatabaseInfo>,
}

#[derive(Clone, Debug, Default)]
pub struct ServerInfo {
    pub ferrite_version: String,
    /// `Linux 6.1.0 x86_64`.
    pub os: String,
    pub process_id: u32,
    /// 40 hexadecimal digits, new at each start.
    pub run_id: String,
    pub tcp_port: u16,
    pub unix_us: u64,
    pub uptime_s: u64,
    pub executable: String,
    pub config_file: String,
    /// `epoll`, `io_uring`.
    pub multiplexing_api: String,
    /// `io-uring` or `io-threads`.
    pub storage_io: String,
    pub workers: usize,
    /// Addresses that are listened on.
    pub binds: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub struct ClientsInfo {
    pub connected: u64,
    pub max: u64,
    pub recent_max_input_buffer: u64,
    pub recent_max_output_buffer: u64,
    pub blocked: u64,
    pub watching: u64,
}

/// Bytes, where nothing else is said.
#[derive(Clone, Debug, Default)]
pub struct MemoryInfo {
    pub accounts: MemoryAccounts,
    /// What the operating system says.
    pub rss: u64,
    /// The most that the accounts came to.
    pub peak: u64,
    pub total_system: u64,
    /// 0: no limit.
    pub max: u64,
    pub policy: String,
    /// What `max` bounds: the keys' records, index entries and times of expiry, wherever they lie.
    pub data: u64,
    /// Reminders of keys that expire.
    pub reminders: u64,
    /// The tiers of the log.
    pub mutable: u64,
    pub read_only: u64,
    pub disk: u64,
    /// Buckets of the index, those beyond the first of a chain, and entries.
    pub index_buckets: u64,
    pub index_overflow_buckets: u64,
    /// Buckets of the longest chain, the first included.
    pub index_longest_chain: u64,
    pub index_entries: u64,
    /// Large values that nobody needs any more: how many are not freed yet, and how many were.
    pub objects_freeing: u64,
    pub objects_freed: u64,
}

/// Where the process's memory is, in bytes. Their sum is what INFO calls `used_memory`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryAccounts {
    /// What the process took before it held anything: code, runtime, stacks.
    pub startup: u64,
    /// Pages of the log in memory, as far as they are used, and the read-only region's maps.
    pub pages: u64,
    /// Large values that nobody needs any more and that are not freed yet.
    pub freeing: u64,
    pub index: u64,
    /// The timing wheel.
    pub expiry: u64,
    /// Query and output buffers.
    pub clients: u64,
    /// Watched keys.
    pub watches: u64,
    /// Buffers for what waits to be written to the append-only file.
    pub aof_buffer: u64,
    /// Copies of log pages that are being written.
    pub io_buffers: u64,
    /// Copies of records on disk.
    pub read_cache: u64,
    /// Records and large values that were read for commands under way.
    pub held_reads: u64,
    /// Notes of writes that did not read what they replaced.
    pub unseen_writes: u64,
    /// The flight recorders and the export queue.
    pub telemetry: u64,
}

impl MemoryAccounts {
    /// Each account with its name.
    pub fn each(&self) -> [(&'static str, u64); 13] {
        [
            ("startup", self.startup),
            ("pages", self.pages),
            ("freeing", self.freeing),
            ("index", self.index),
            ("expiry", self.expiry),
            ("clients", self.clients),
            ("watches", self.watches),
            ("aof_buffer", self.aof_buffer),
            ("io_buffers", self.io_buffers),
            ("read_cache", self.read_cache),
            ("held_reads", self.held_reads),
            ("unseen_writes", self.unseen_writes),
            ("telemetry", self.telemetry),
        ]
    }

    pub fn total(&self) -> u64 {
        self.each().iter().map(|(_, bytes)| bytes).sum()
    }

    /// All but the pages, which hold the data.
    pub fn overhead(&self) -> u64 {
        self.total() - self.pages
    }
}

#[derive(Clone, Debug, Default)]
pub struct PersistenceInfo {
    pub changes_since_save: u64,
    /// Unix seconds.
    pub last_save: u64,
    pub save_in_progress: bool,
    pub last_save_failed: bool,
    /// Seconds; `None`: there was none yet, or none runs.
    pub last_save_s: Option<u64>,
    pub current_save_s: Option<u64>,
    pub saves: u64,
    /// Keys that the start found in a checkpoint.
    pub keys_loaded: u64,
    pub aof_enabled: bool,
    pub aof_last_write_ok: bool,
    pub aof_rewrite_in_progress: bool,
    pub aof_rewrite_scheduled: bool,
    /// Seconds; `None`: there was none yet, or none runs.
    pub aof_last_rewrite_s: Option<u64>,
    pub aof_current_rewrite_s: Option<u64>,
    pub aof_last_rewrite_failed: bool,
    pub aof_rewrites: u64,
    pub aof_rewrites_failed_in_a_row: u64,
    /// Bytes.
    pub aof_current_size: u64,
    pub aof_base_size: u64,
    pub aof_buffer_length: u64,
    pub aof_pending_bio_fsync: u64,
    pub aof_delayed_fsync: u64,
    pub space: SpaceInfo,
}

/// The disk space of the data, and what compaction has done since the start. Bytes, where nothing else is said.
#[derive(Clone, Debug, Default)]
pub struct SpaceInfo {
    /// Of the keys' records and of what they own.
    pub live: u64,
    /// Of the log and of large values on disk.
    pub file: u64,
    /// Of the file of large values, between its values.
    pub extents_free: u64,
    /// `file` to `live`.
    pub amplification: f64,
    /// 0: none.
    pub quota: u64,
    pub quota_used: u64,
    pub over_quota: bool,
    pub compaction_running: bool,
    pub compactions: u64,
    pub compaction_failures: u64,
    pub compaction_read: u64,
    pub compaction_kept: u64,
    pub compaction_freed: u64,
    /// Pages that compaction could not read and has left.
    pub quarantined_pages: u64,
    pub quarantined: u64,
}

#[derive(Clone, Debug, Default)]
pub struct StatsInfo {
    pub connections_received: u64,
    pub commands_processed: u64,
    pub ops_per_sec: u64,
    pub net_input_bytes: u64,
    pub net_output_bytes: u64,
    pub input_kbps: f64,
    pub output_kbps: f64,
    pub rejected_connections: u64,
    pub expired_keys: u64,
    /// Milliseconds that the active cycle has worked.
    pub expire_cycle_ms: u64,
    pub evicted_keys: u64,
    pub keyspace_hits: u64,
    pub keyspace_misses: u64,
    pub disk_reads: u64,
    /// Look-ups of records on disk in the read cache, the records there and the bytes that there may be.
    pub read_cache_hits: u64,
    pub read_cache_misses: u64,
    pub read_cache_records: u64,
    pub read_cache_limit: u64,
    /// Writes that did not read what they replaced: those whose effect on the counts is not known yet, and all others.
    pub unseen_writes: u64,
    pub unseen_writes_settled: u64,
    /// Attempts to find it out that failed.
    pub unseen_write_errors: u64,
    pub total_error_replies: u64,
    pub reads_processed: u64,
    pub writes_processed: u64,
    pub auth_denied: u64,
}

/// Seconds: of the process, and of the first worker's thread (Redis's main thread).
#[derive(Clone, Debug, Default)]
pub struct CpuInfo {
    pub sys_s: f64,
    pub user_s: f64,
    pub main_sys_s: f64,
    pub main_user_s: f64,
}

/// One command's counters since the start or CONFIG RESETSTAT.
#[derive(Clone, Debug, Default)]
pub struct CommandStat {
    pub name: String,
    pub calls: u64,
    pub usec: u64,
    /// Refused before it ran.
    pub rejected: u64,
    /// Answered an error.
    pub failed: u64,
    /// Percentile and microseconds; empty without calls.
    pub latency_us: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct DatabaseInfo {
    pub db: u32,
    pub keys: u64,
    pub expires: u64,
    pub avg_ttl_ms: u64,
}
