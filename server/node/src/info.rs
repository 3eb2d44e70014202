//! The numbers behind INFO.

use std::sync::atomic::Ordering::Relaxed;

use ferrite_commands::server::info::{
    ClientsInfo, CommandStat, CpuInfo, DatabaseInfo, InfoSnapshot, MemoryInfo, PersistenceInfo, ServerInfo, StatsInfo,
};

use ferrite_commands::table;

use crate::config::Choice;
use crate::host::{NodeHost, last_save};

/// As Redis's `latency-tracking-info-percentiles` by default.
const LATENCY_PERCENTILES: [f64; 3] = [50.0, 99.0, 99.9];

pub fn snapshot(host: &NodeHost<'_>) -> InfoSnapshot {
    let node = host.node;
    let process = (node.process)();
    let totals = node.totals();
    let figures = node.databases.figures_since_reset();
    let cache = node.store.read_cache.stats();
    let unseen = node.databases.unseen.figures();
    let store = node.store.stats();
    let rewrite = node.rewrite.figures();
    let saves = node.saves.figures();
    let aof_size = node.aof().map(|aof| aof.size()).unwrap_or_default();
    let commands = node
        .telemetry
        .metrics
        .totals_since_reset()
        .into_iter()
        .map(|totals| CommandStat {
            name: table::by_index(totals.command).name.to_owned(),
            calls: totals.calls(),
            usec: totals.sum_ns / 1000,
            rejected: 0,
            failed: totals.failed,
            latency_us: LATENCY_PERCENTILES.map(|at| (at, totals.percentile_ns(at) as f64 / 1000.0)).to_vec(),
        })
        .collect();
    InfoSnapshot {
        server: ServerInfo {
            ferrite_version: env!("CARGO_PKG_VERSION").to_owned(),
            os: node.os.clone(),
            process_id: node.process_id,
            run_id: node.run_id.clone(),
            tcp_port: node.port(),
            unix_us: host.unix_ns / 1000,
            uptime_s: host.monotonic_ns.saturating_sub(node.started_monotonic_ns) / 1_000_000_000,
            executable: node.executable.clone(),
            config_file: node.config_file.as_ref().map(|(path, _)| path.display().to_string()).unwrap_or_default(),
            multiplexing_api: "epoll".to_owned(),
            storage_io: node.disk_backend.get().copied().unwrap_or_default().to_owned(),
            workers: node.workers(),
            binds: node.config.server.bind.iter().map(ToString::to_string).collect(),
        },
        clients: ClientsInfo {
            connected: node.clients.len() as u64,
            max: node.live.maxclients.load(Relaxed) as u64,
            ..ClientsInfo::default()
        },
        memory: MemoryInfo {
            accounts: node.memory_accounts(),
            rss: process.rss_bytes,
            peak: node.memory_peak(),
            total_system: process.system_memory_bytes,
            max: node.databases.limits.maxmemory.load(Relaxed),
            policy: node.databases.limits.policy().name().to_owned(),
            data: node.databases.data_bytes(),
            reminders: node.databases.reminders(),
            mutable: store.mutable_bytes,
            read_only: store.read_only_bytes,
            disk: store.disk_bytes,
            index_buckets: store.index_buckets as u64,
            index_overflow_buckets: store.index_overflow_buckets as u64,
            index_longest_chain: store.index_longest_chain as u64,
            index_entries: store.index_entries as u64,
            objects_freeing: store.objects_freeing as u64,
            objects_freed: store.objects_freed,
        },
        persistence: PersistenceInfo {
            changes_since_save: figures.changes - saves.changes,
            last_save: last_save(node),
            save_in_progress: saves.running_since_ns.is_some(),
            last_save_failed: saves.last_failed,
            last_save_s: saves.last_took_s,
            current_save_s: saves.running_since_ns.map(|since| host.monotonic_ns.saturating_sub(since) / 1_000_000_000),
            saves: saves.done,
            keys_loaded: saves.keys_loaded,
            aof_enabled: node.aof().is_some(),
            aof_last_write_ok: node.aof().is_none_or(|aof| !aof.has_failed()),
            aof_rewrite_in_progress: rewrite.running_since_ns.is_some(),
            aof_rewrite_scheduled: rewrite.wanted,
            aof_last_rewrite_s: rewrite.last_took_s,
            aof_current_rewrite_s: rewrite
                .running_since_ns
                .map(|since| host.monotonic_ns.saturating_sub(since) / 1_000_000_000),
            aof_last_rewrite_failed: rewrite.failed_in_a_row > 0,
            aof_rewrites: rewrite.done,
            aof_rewrites_failed_in_a_row: rewrite.failed_in_a_row,
            aof_current_size: aof_size.current,
            aof_base_size: aof_size.base,
            space: node.space_info(),
            aof_buffer_length: node.aof().map_or(0, |aof| aof.position() - aof.durable()),
            ..PersistenceInfo::default()
        },
        stats: StatsInfo {
            connections_received: totals.connections,
            commands_processed: totals.commands,
            net_input_bytes: totals.bytes_received,
            net_output_bytes: totals.bytes_sent,
            rejected_connections: totals.rejected_connections,
            expired_keys: figures.expired_keys,
            expire_cycle_ms: node.work.expiry_ns.load(Relaxed) / 1_000_000,
            evicted_keys: figures.evicted_keys,
            keyspace_hits: figures.keyspace_hits(),
            keyspace_misses: figures.keyspace_misses,
            disk_reads: totals.disk_reads,
            read_cache_hits: cache.hits,
            read_cache_misses: cache.misses,
            read_cache_records: cache.records as u64,
            read_cache_limit: cache.limit as u64,
            unseen_writes: unseen.pending,
            unseen_writes_settled: unseen.settled,
            unseen_write_errors: unseen.read_errors,
            total_error_replies: totals.errors,
            reads_processed: totals.socket_reads,
            writes_processed: totals.socket_writes,
            ..StatsInfo::default()
        },
        cpu: CpuInfo { sys_s: process.cpu_system_s, user_s: process.cpu_user_s, ..CpuInfo::default() },
        replication_id: node.replication_id.clone(),
        commands,
        errors: node.errors.lock().iter().map(|(prefix, count)| (prefix.clone(), *count)).collect(),
        keyspace: (0..node.databases.count())
            .filter(|&db| node.databases.keys(db) > 0)
            .map(|db| DatabaseInfo {
                db,
                keys: node.databases.keys(db),
                expires: node.databases.expires(db),
                avg_ttl_ms: 0,
            })
            .collect(),
    }
}
