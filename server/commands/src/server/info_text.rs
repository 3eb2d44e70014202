//! INFO's text: Redis's sections and field names, in Redis's order. A field about something that Ferrite does not have
//! (forks, scripts, replicas) is there all the same, with the value of a Redis that does not use it: tools look for it.

use std::fmt::{Display, Write};

use super::info::InfoSnapshot;
use crate::REDIS_VERSION;

pub(super) const EVERYTHING: &[&str] = &[
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cpu",
    "module_list",
    "commandstats",
    "errorstats",
    "latencystats",
    "cluster",
    "keyspace",
];
/// Modules' own sections are all that Redis leaves out here, and there are no modules.
pub(super) const ALL: &[&str] = EVERYTHING;
pub(super) const DEFAULT: &[&str] = &[
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cpu",
    "module_list",
    "errorstats",
    "cluster",
    "keyspace",
];

/// The wanted sections, each once and in Redis's order.
pub(super) fn render(info: &InfoSnapshot, wanted: &[&str]) -> String {
    let mut text = Text(String::with_capacity(8 << 10));
    for &section in EVERYTHING.iter().filter(|section| wanted.contains(section)) {
        match section {
            "server" => server(info, &mut text),
            "clients" => clients(info, &mut text),
            "memory" => memory(info, &mut text),
            "persistence" => persistence(info, &mut text),
            "stats" => stats(info, &mut text),
            "replication" => replication(info, &mut text),
            "cpu" => cpu(info, &mut text),
            "module_list" => text.section("Modules"),
            "commandstats" => command_statistics(info, &mut text),
            "errorstats" => error_statistics(info, &mut text),
            "latencystats" => latency_statistics(info, &mut text),
            "cluster" => {
                text.section("Cluster");
                text.field("cluster_enabled", 0);
            }
            _ => keyspace(info, &mut text),
        }
    }
    text.0
}

struct Text(String);

impl Text {
    fn section(&mut self, title: &str) {
        if !self.0.is_empty() {
            self.0.push_str("\r\n");
        }
        self.line(format_args!("# {title}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.0.write_fmt(line).expect("a String takes everything");
        self.0.push_str("\r\n");
    }

    fn field(&mut self, name: &str, value: impl Display) {
        self.line(format_args!("{name}:{value}"));
    }

    /// A number of bytes, and the same for people to read.
    fn bytes(&mut self, name: &str, bytes: u64) {
        self.field(name, bytes);
        self.line(format_args!("{name}_human:{}", human(bytes)));
    }

    /// Fields that are always zero here.
    fn zeros(&mut self, names: &[&str]) {
        for name in names {
            self.field(name, 0);
        }
    }
}

fn human(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = "KMGTP".chars();
    let mut unit = units.next().expect("five units");
    while value >= 1024.0
        && let Some(next) = units.next()
    {
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.2}{unit}")
}

fn ratio(part: u64, whole: u64) -> String {
    format!("{:.2}", if whole == 0 { 0.0 } else { part as f64 / whole as f64 })
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.2}%", if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 })
}

fn difference(greater: u64, smaller: u64) -> i64 {
    greater as i64 - smaller as i64
}

fn server(info: &InfoSnapshot, text: &mut Text) {
    let server = &info.server;
    text.section("Server");
    text.field("redis_version", REDIS_VERSION);
    text.field("redis_git_sha1", "00000000");
    text.field("redis_git_dirty", 0);
    text.field("redis_build_id", 0);
    text.field("redis_mode", "standalone");
    text.field("os", &server.os);
    text.field("arch_bits", usize::BITS);
    text.field("monotonic_clock", "POSIX clock_gettime");
    text.field("multiplexing_api", &server.multiplexing_api);
    text.field("atomicvar_api", "c11-builtin");
    text.field("gcc_version", "0.0.0");
    text.field("process_id", server.process_id);
    text.field("process_supervised", "no");
    text.field("run_id", &server.run_id);
    text.field("tcp_port", server.tcp_port);
    text.field("server_time_usec", server.unix_us);
    text.field("uptime_in_seconds", server.uptime_s);
    text.field("uptime_in_days", server.uptime_s / 86_400);
    text.field("hz", 10);
    text.field("configured_hz", 10);
    // Redis's LRU clock: seconds in 24 bits.
    text.field("lru_clock", (server.unix_us / 1_000_000) & 0xff_ffff);
    text.field("executable", &server.executable);
    text.field("config_file", &server.config_file);
    text.field("io_threads_active", u8::from(server.workers > 1));
    for (at, bind) in server.binds.iter().enumerate() {
        text.line(format_args!("listener{at}:name=tcp,bind={bind},port={}", server.tcp_port));
    }
    text.field("ferrite_version", &server.ferrite_version);
    text.field("ferrite_workers", server.workers);
    text.field("ferrite_storage_io", &server.storage_io);
}

fn clients(info: &InfoSnapshot, text: &mut Text) {
    let clients = &info.clients;
    text.section("Clients");
    text.field("connected_clients", clients.connected);
    text.field("cluster_connections", 0);
    text.field("maxclients", clients.max);
    text.field("client_recent_max_input_buffer", clients.recent_max_input_buffer);
    text.field("client_recent_max_output_buffer", clients.recent_max_output_buffer);
    text.field("blocked_clients", clients.blocked);
    text.zeros(&[
        "tracking_clients",
        "clients_in_timeout_table",
        "total_blocking_keys",
        "total_blocking_keys_on_nokey",
    ]);
}

fn memory(info: &InfoSnapshot, text: &mut Text) {
    let memory = &info.memory;
    let accounts = &memory.accounts;
    let (used, overhead, dataset) = (accounts.total(), accounts.overhead(), accounts.pages);
    let keys: u64 = info.keyspace.iter().map(|db| db.keys).sum();
    text.section("Memory");
    text.bytes("used_memory", used);
    text.bytes("used_memory_rss", memory.rss);
    text.bytes("used_memory_peak", memory.peak);
    text.field("used_memory_peak_perc", percent(used, memory.peak));
    text.field("used_memory_overhead", overhead);
    text.field("used_memory_startup", accounts.startup);
    text.field("used_memory_dataset", dataset);
    text.field("used_memory_dataset_perc", percent(dataset, used.saturating_sub(accounts.startup)));
    text.field("allocator_allocated", used);
    text.field("allocator_active", used);
    text.field("allocator_resident", memory.rss);
    text.bytes("total_system_memory", memory.total_system);
    text.zeros(&["used_memory_lua", "used_memory_vm_eval"]);
    text.field("used_memory_lua_human", human(0));
    text.zeros(&[
        "used_memory_scripts_eval",
        "number_of_cached_scripts",
        "number_of_functions",
        "number_of_libraries",
        "used_memory_vm_functions",
    ]);
    text.bytes("used_memory_vm_total", 0);
    text.zeros(&["used_memory_functions"]);
    text.bytes("used_memory_scripts", 0);
    text.bytes("maxmemory", memory.max);
    text.field("maxmemory_policy", &memory.policy);
    text.field("allocator_frag_ratio", ratio(used, used));
    text.field("allocator_frag_bytes", 0);
    text.field("allocator_rss_ratio", ratio(memory.rss, used));
    text.field("allocator_rss_bytes", difference(memory.rss, used));
    text.field("rss_overhead_ratio", ratio(memory.rss, memory.rss));
    text.field("rss_overhead_bytes", 0);
    text.field("mem_fragmentation_ratio", ratio(memory.rss, used));
    text.field("mem_fragmentation_bytes", difference(memory.rss, used));
    // Eviction goes by the data alone.
    text.field("mem_not_counted_for_evict", accounts.clients + accounts.aof_buffer);
    text.zeros(&["mem_replication_backlog", "mem_total_replication_buffers"]);
    text.field("mem_clients_slaves", 0);
    text.field("mem_clients_normal", accounts.clients);
    text.field("mem_cluster_links", 0);
    text.field("mem_aof_buffer", accounts.aof_buffer);
    text.field("mem_allocator", "libc");
    text.zeros(&["active_defrag_running"]);
    text.field("lazyfree_pending_objects", memory.objects_freeing);
    text.field("lazyfreed_objects", memory.objects_freed);
    text.field("ferrite_data_bytes", memory.data);
    text.field("ferrite_data_bytes_per_key", per_key(memory.data, keys));
    text.field("ferrite_wheel_reminders", memory.reminders);
    text.field("ferrite_mutable_bytes", memory.mutable);
    text.field("ferrite_read_only_bytes", memory.read_only);
    text.field("ferrite_disk_bytes", memory.disk);
    text.field("ferrite_index_bytes", accounts.index);
    text.field("ferrite_index_bytes_per_key", per_key(accounts.index, keys));
    text.field("ferrite_index_buckets", memory.index_buckets);
    text.field("ferrite_index_overflow_buckets", memory.index_overflow_buckets);
    text.field("ferrite_index_longest_chain", memory.index_longest_chain);
    text.field("ferrite_index_entries", memory.index_entries);
    for (name, bytes) in accounts.each() {
        text.line(format_args!("ferrite_memory_{name}:{bytes}"));
    }
}

/// With one decimal; 0 without keys.
fn per_key(bytes: u64, keys: u64) -> String {
    format!("{:.1}", if keys == 0 { 0.0 } else { bytes as f64 / keys as f64 })
}

fn persistence(info: &InfoSnapshot, text: &mut Text) {
    let persistence = &info.persistence;
    text.section("Persistence");
    text.zeros(&["loading", "async_loading", "current_cow_peak", "current_cow_size", "current_cow_size_age"]);
    text.field("current_fork_perc", "0.00");
    text.zeros(&["current_save_keys_processed", "current_save_keys_total"]);
    text.field("rdb_changes_since_last_save", persistence.changes_since_save);
    let seconds = |seconds: Option<u64>| seconds.map_or(-1, |seconds| seconds as i64);
    text.field("rdb_bgsave_in_progress", u8::from(persistence.save_in_progress));
    text.field("rdb_last_save_time", persistence.last_save);
    text.field("rdb_last_bgsave_status", if persistence.last_save_failed { "err" } else { "ok" });
    text.field("rdb_last_bgsave_time_sec", seconds(persistence.last_save_s));
    text.field("rdb_current_bgsave_time_sec", seconds(persistence.current_save_s));
    text.field("rdb_saves", persistence.saves);
    text.zeros(&["rdb_last_cow_size", "rdb_last_load_keys_expired"]);
    text.field("rdb_last_load_keys_loaded", persistence.keys_loaded);
    text.field("aof_enabled", u8::from(persistence.aof_enabled));
    text.field("aof_rewrite_in_progress", u8::from(persistence.aof_rewrite_in_progress));
    text.field("aof_rewrite_scheduled", u8::from(persistence.aof_rewrite_scheduled));
    text.field("aof_last_rewrite_time_sec", seconds(persistence.aof_last_rewrite_s));
    text.field("aof_current_rewrite_time_sec", seconds(persistence.aof_current_rewrite_s));
    text.field("aof_last_bgrewrite_status", if persistence.aof_last_rewrite_failed { "err" } else { "ok" });
    text.field("aof_rewrites", persistence.aof_rewrites);
    text.field("aof_rewrites_consecutive_failures", persistence.aof_rewrites_failed_in_a_row);
    text.field("aof_last_write_status", if persistence.aof_last_write_ok { "ok" } else { "err" });
    text.zeros(&["aof_last_cow_size", "module_fork_in_progress", "module_fork_last_cow_size"]);
    if persistence.aof_enabled {
        text.field("aof_current_size", persistence.aof_current_size);
        text.field("aof_base_size", persistence.aof_base_size);
        // Redis: a rewrite that waits for its end while another child runs. Here none waits for another's end.
        text.field("aof_pending_rewrite", 0);
        text.field("aof_buffer_length", persistence.aof_buffer_length);
        text.field("aof_pending_bio_fsync", persistence.aof_pending_bio_fsync);
        text.field("aof_delayed_fsync", persistence.aof_delayed_fsync);
    }
    let space = &persistence.space;
    text.field("ferrite_live_bytes", space.live);
    text.field("ferrite_file_bytes", space.file);
    text.field("ferrite_extents_free_bytes", space.extents_free);
    text.line(format_args!("ferrite_space_amplification:{:.2}", space.amplification));
    text.field("ferrite_disk_quota", space.quota);
    text.field("ferrite_disk_quota_used", space.quota_used);
    text.field("ferrite_disk_quota_exceeded", u8::from(space.over_quota));
    text.field("ferrite_compaction_in_progress", u8::from(space.compaction_running));
    text.field("ferrite_compactions", space.compactions);
    text.field("ferrite_compaction_failures", space.compaction_failures);
    text.field("ferrite_compaction_read_bytes", space.compaction_read);
    text.field("ferrite_compaction_kept_bytes", space.compaction_kept);
    text.field("ferrite_compaction_freed_bytes", space.compaction_freed);
    text.field("ferrite_quarantined_pages", space.quarantined_pages);
    text.field("ferrite_quarantined_bytes", space.quarantined);
}

fn stats(info: &InfoSnapshot, text: &mut Text) {
    let stats = &info.stats;
    text.section("Stats");
    text.field("total_connections_received", stats.connections_received);
    text.field("total_commands_processed", stats.commands_processed);
    text.field("instantaneous_ops_per_sec", stats.ops_per_sec);
    text.field("total_net_input_bytes", stats.net_input_bytes);
    text.field("total_net_output_bytes", stats.net_output_bytes);
    text.zeros(&["total_net_repl_input_bytes", "total_net_repl_output_bytes"]);
    text.line(format_args!("instantaneous_input_kbps:{:.2}", stats.input_kbps));
    text.line(format_args!("instantaneous_output_kbps:{:.2}", stats.output_kbps));
    text.field("instantaneous_input_repl_kbps", "0.00");
    text.field("instantaneous_output_repl_kbps", "0.00");
    text.field("rejected_connections", stats.rejected_connections);
    text.zeros(&["sync_full", "sync_partial_ok", "sync_partial_err"]);
    text.field("expired_keys", stats.expired_keys);
    text.field("expired_stale_perc", "0.00");
    text.zeros(&["expired_time_cap_reached_count"]);
    text.field("expire_cycle_cpu_milliseconds", stats.expire_cycle_ms);
    text.field("evicted_keys", stats.evicted_keys);
    text.zeros(&["evicted_clients", "total_eviction_exceeded_time", "current_eviction_exceeded_time"]);
    text.field("keyspace_hits", stats.keyspace_hits);
    text.field("keyspace_misses", stats.keyspace_misses);
    text.zeros(&[
        "pubsub_channels",
        "pubsub_patterns",
        "pubsubshard_channels",
        "latest_fork_usec",
        "total_forks",
        "migrate_cached_sockets",
        "slave_expires_tracked_keys",
        "active_defrag_hits",
        "active_defrag_misses",
        "active_defrag_key_hits",
        "active_defrag_key_misses",
        "total_active_defrag_time",
        "current_active_defrag_time",
        "tracking_total_keys",
        "tracking_total_items",
        "tracking_total_prefixes",
        "unexpected_error_replies",
    ]);
    text.field("total_error_replies", stats.total_error_replies);
    text.field("dump_payload_sanitizations", 0);
    text.field("total_reads_processed", stats.reads_processed);
    text.field("total_writes_processed", stats.writes_processed);
    text.zeros(&[
        "io_threaded_reads_processed",
        "io_threaded_writes_processed",
        "reply_buffer_shrinks",
        "reply_buffer_expands",
        "eventloop_cycles",
        "eventloop_duration_sum",
        "eventloop_duration_cmd_sum",
        "instantaneous_eventloop_cycles_per_sec",
        "instantaneous_eventloop_duration_usec",
    ]);
    text.field("acl_access_denied_auth", stats.auth_denied);
    text.zeros(&["acl_access_denied_cmd", "acl_access_denied_key", "acl_access_denied_channel"]);
    text.field("ferrite_disk_reads", stats.disk_reads);
    text.field("ferrite_read_cache_hits", stats.read_cache_hits);
    text.field("ferrite_read_cache_misses", stats.read_cache_misses);
    text.field("ferrite_read_cache_records", stats.read_cache_records);
    text.field("ferrite_read_cache_limit", stats.read_cache_limit);
    text.field("ferrite_unseen_writes_pending", stats.unseen_writes);
    text.field("ferrite_unseen_writes_settled", stats.unseen_writes_settled);
    text.field("ferrite_unseen_write_errors", stats.unseen_write_errors);
}

fn replication(info: &InfoSnapshot, text: &mut Text) {
    text.section("Replication");
    text.field("role", "master");
    text.field("connected_slaves", 0);
    text.field("master_failover_state", "no-failover");
    text.field("master_replid", &info.replication_id);
    text.field("master_replid2", "0".repeat(40));
    text.field("master_repl_offset", 0);
    text.field("second_repl_offset", -1);
    text.field("repl_backlog_active", 0);
    text.field("repl_backlog_size", 1 << 20);
    text.zeros(&["repl_backlog_first_byte_offset", "repl_backlog_histlen"]);
}

fn cpu(info: &InfoSnapshot, text: &mut Text) {
    text.section("CPU");
    for (name, seconds) in [
        ("used_cpu_sys", info.cpu.sys_s),
        ("used_cpu_user", info.cpu.user_s),
        ("used_cpu_sys_children", 0.0),
        ("used_cpu_user_children", 0.0),
        ("used_cpu_sys_main_thread", info.cpu.main_sys_s),
        ("used_cpu_user_main_thread", info.cpu.main_user_s),
    ] {
        text.line(format_args!("{name}:{seconds:.6}"));
    }
}

fn command_statistics(info: &InfoSnapshot, text: &mut Text) {
    text.section("Commandstats");
    for command in &info.commands {
        let per_call = if command.calls == 0 { 0.0 } else { command.usec as f64 / command.calls as f64 };
        text.line(format_args!(
            "cmdstat_{}:calls={},usec={},usec_per_call={per_call:.2},rejected_calls={},failed_calls={}",
            command.name, command.calls, command.usec, command.rejected, command.failed
        ));
    }
}

fn error_statistics(info: &InfoSnapshot, text: &mut Text) {
    text.section("Errorstats");
    for (code, count) in &info.errors {
        text.line(format_args!("errorstat_{code}:count={count}"));
    }
}

fn latency_statistics(info: &InfoSnapshot, text: &mut Text) {
    text.section("Latencystats");
    for command in info.commands.iter().filter(|command| !command.latency_us.is_empty()) {
        let values: Vec<String> =
            command.latency_us.iter().map(|(percentile, us)| format!("p{percentile}={us:.3}")).collect();
        text.line(format_args!("latency_percentiles_usec_{}:{}", command.name, values.join(",")));
    }
}

fn keyspace(info: &InfoSnapshot, text: &mut Text) {
    text.section("Keyspace");
    for db in &info.keyspace {
        text.line(format_args!("db{}:keys={},expires={},avg_ttl={}", db.db, db.keys, db.expires, db.avg_ttl_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::info::{CommandStat, DatabaseInfo};
    use crate::testing::Client;

    #[test]
    fn people_read_bytes_as_redis_writes_them() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (1_211_608, "1.16M"),
            (25_274_793_984, "23.54G"),
            (1 << 50, "1.00P"),
            (u64::MAX, "16384.00P"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }

    fn titles(reply: &str) -> Vec<&str> {
        reply.split("\r\n").filter_map(|line| line.strip_prefix("# ")).collect()
    }

    #[test]
    fn sections_come_once_and_in_redis_s_order() {
        let mut client = Client::new();
        let default = [
            "Server",
            "Clients",
            "Memory",
            "Persistence",
            "Stats",
            "Replication",
            "CPU",
            "Modules",
            "Errorstats",
            "Cluster",
            "Keyspace",
        ];
        assert_eq!(titles(&client.run("INFO")), default);
        assert_eq!(titles(&client.run("INFO default")), default);
        assert_eq!(titles(&client.run("INFO everything")).len(), EVERYTHING.len());
        assert_eq!(titles(&client.run("INFO all")), titles(&client.run("INFO everything")));
        assert_eq!(titles(&client.run("INFO cpu SERVER cpu nope")), ["Server", "CPU"]);
        assert_eq!(titles(&client.run("INFO default commandstats")).len(), default.len() + 1);
        assert_eq!(client.run("INFO nope"), "$0\r\n\r\n");
        assert_eq!(client.run("INFO modules"), "$11\r\n# Modules\r\n\r\n");
        client.run("HELLO 3");
        assert_eq!(client.run("INFO cluster"), "=34\r\ntxt:# Cluster\r\ncluster_enabled:0\r\n\r\n");
    }

    #[test]
    fn sections_are_parted_by_an_empty_line() {
        let info = InfoSnapshot {
            keyspace: vec![DatabaseInfo { db: 3, keys: 5, expires: 2, avg_ttl_ms: 9 }],
            ..InfoSnapshot::default()
        };
        assert_eq!(
            render(&info, &["keyspace", "cluster"]),
            "# Cluster\r\ncluster_enabled:0\r\n\r\n# Keyspace\r\ndb3:keys=5,expires=2,avg_ttl=9\r\n"
        );
    }

    #[test]
    fn the_accounts_add_up_to_the_memory_in_use() {
        let mut info = InfoSnapshot {
            keyspace: vec![DatabaseInfo { db: 0, keys: 4, expires: 0, avg_ttl_ms: 0 }],
            ..InfoSnapshot::default()
        };
        info.memory.accounts = crate::server::info::MemoryAccounts {
            startup: 1000,
            pages: 2000,
            freeing: 0,
            index: 50,
            expiry: 1,
            clients: 2,
            watches: 3,
            aof_buffer: 4,
            io_buffers: 0,
            read_cache: 0,
            held_reads: 0,
            unseen_writes: 0,
            telemetry: 5,
        };
        (info.memory.rss, info.memory.peak, info.memory.data) = (6130, 4000, 1000);
        let text = render(&info, &["memory"]);
        for line in [
            "used_memory:3065",
            "used_memory_peak_perc:76.62%",
            "used_memory_overhead:1065",
            "used_memory_startup:1000",
            "used_memory_dataset:2000",
            "used_memory_dataset_perc:96.85%",
            "mem_fragmentation_ratio:2.00",
            "mem_not_counted_for_evict:6",
            "ferrite_data_bytes_per_key:250.0",
            "ferrite_index_bytes_per_key:12.5",
            "ferrite_memory_pages:2000",
        ] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}: {text}");
        }
    }

    #[test]
    fn statistics_of_commands() {
        let command = CommandStat {
            name: "config|set".into(),
            calls: 18,
            usec: 314,
            rejected: 1,
            failed: 2,
            latency_us: vec![(50.0, 18.047), (99.0, 21.119), (99.9, 21.119)],
        };
        let info = InfoSnapshot {
            commands: vec![command, CommandStat { name: "get".into(), rejected: 1, ..CommandStat::default() }],
            errors: vec![("ERR".into(), 29)],
            ..InfoSnapshot::default()
        };
        assert_eq!(
            render(&info, &["commandstats", "errorstats", "latencystats"]),
            "# Commandstats\r\n\
             cmdstat_config|set:calls=18,usec=314,usec_per_call=17.44,rejected_calls=1,failed_calls=2\r\n\
             cmdstat_get:calls=0,usec=0,usec_per_call=0.00,rejected_calls=1,failed_calls=0\r\n\r\n\
             # Errorstats\r\nerrorstat_ERR:count=29\r\n\r\n\
             # Latencystats\r\nlatency_percentiles_usec_config|set:p50=18.047,p99=21.119,p99.9=21.119\r\n"
        );
    }

    #[test]
    fn a_rewrite_of_the_append_only_file_is_told_of() {
        let mut info = InfoSnapshot::default();
        let text = render(&info, &["persistence"]);
        for line in ["aof_rewrite_in_progress:0", "aof_last_rewrite_time_sec:-1", "aof_last_bgrewrite_status:ok"] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}");
        }
        assert!(!text.contains("aof_base_size"), "only with an append-only file");
        info.persistence = crate::server::info::PersistenceInfo {
            aof_enabled: true,
            aof_last_write_ok: true,
            aof_rewrite_in_progress: true,
            aof_rewrite_scheduled: true,
            aof_last_rewrite_s: Some(3),
            aof_current_rewrite_s: Some(0),
            aof_last_rewrite_failed: true,
            aof_rewrites: 5,
            aof_rewrites_failed_in_a_row: 2,
            aof_current_size: 900,
            aof_base_size: 300,
            ..Default::default()
        };
        let text = render(&info, &["persistence"]);
        for line in [
            "aof_rewrite_in_progress:1",
            "aof_rewrite_scheduled:1",
            "aof_last_rewrite_time_sec:3",
            "aof_current_rewrite_time_sec:0",
            "aof_last_bgrewrite_status:err",
            "aof_rewrites:5",
            "aof_rewrites_consecutive_failures:2",
            "aof_last_write_status:ok",
            "aof_current_size:900",
            "aof_base_size:300",
        ] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}");
        }
    }

    #[test]
    fn the_server_says_which_redis_and_which_ferrite_it_is() {
        let mut info = InfoSnapshot::default();
        info.server.ferrite_version = "1.0.0".into();
        info.server.binds = vec!["127.0.0.1".into()];
        info.server.tcp_port = 6379;
        let text = render(&info, &["server"]);
        for line in ["redis_version:7.2.6", "redis_mode:standalone", "ferrite_version:1.0.0", "tcp_port:6379"] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}");
        }
        assert!(text.contains("\r\nlistener0:name=tcp,bind=127.0.0.1,port=6379\r\n"));
    }
}
