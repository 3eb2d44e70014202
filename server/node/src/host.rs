//! The node as the commands see it: configuration, INFO, clients. Cold paths only.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ferrite_commands::{AofRewrite, BackgroundSave, ClientInfo, ConfigSetError, Host, InfoSnapshot, Slowlog};

use crate::clients::Client;
use crate::config::DebugCommand;
use crate::info;
use crate::node::Node;
use crate::parameters;
use crate::stats::Totals;

/// The node with the time at which it is looked at.
pub struct NodeHost<'a> {
    pub node: &'a Node,
    pub unix_ns: u64,
    pub monotonic_ns: u64,
}

impl Host for NodeHost<'_> {
    fn unix_ns(&self) -> u64 {
        self.unix_ns
    }

    fn config_get(&self, pattern: &[u8]) -> Vec<(Cow<'static, str>, Cow<'static, str>)> {
        parameters::get(self.node, pattern)
    }

    fn config_set(&self, wanted: &[(&[u8], &[u8])]) -> Result<(), ConfigSetError> {
        parameters::set(self.node, wanted)
    }

    fn reset_statistics(&self) {
        *self.node.statistics_reset.lock() = Totals::of(self.node.stats.iter());
        self.node.databases.reset_figures();
        self.node.reset_memory_peak();
        self.node.errors.lock().clear();
        self.node.telemetry.metrics.reset_commands();
    }

    fn required_password(&self) -> Option<Vec<u8>> {
        self.node.live.requirepass.lock().clone()
    }

    fn debug_allowed(&self, address: &str) -> bool {
        match self.node.config.server.enable_debug_command {
            DebugCommand::No => false,
            DebugCommand::Yes => true,
            DebugCommand::Local => {
                address.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
            }
        }
    }

    fn info(&self) -> InfoSnapshot {
        info::snapshot(self)
    }

    fn purge_memory(&self) {
        self.node.store.purge();
    }

    fn last_save(&self) -> u64 {
        last_save(self.node)
    }

    fn writes_are_stopped(&self) -> bool {
        self.node.writes_are_stopped()
    }

    fn background_save(&self, schedule: bool, in_transaction: bool) -> BackgroundSave {
        let rewriting = self.node.rewrite.figures().running_since_ns.is_some();
        self.node.saves.want(in_transaction || (schedule && rewriting), rewriting)
    }

    fn rewrite_aof(&self, later: bool) -> AofRewrite {
        match self.node.aof() {
            // Beside a checkpoint it waits for its turn.
            Some(aof) if !aof.has_failed() => {
                self.node.rewrite.want(later || self.node.saves.figures().running_since_ns.is_some())
            }
            _ => {
                tracing::warn!("BGREWRITEAOF is refused: there is no append-only file that could be written");
                AofRewrite::Impossible
            }
        }
    }

    fn slowlog(&self) -> &Slowlog {
        &self.node.slowlog
    }

    fn slowlog_trace_id_always(&self) -> bool {
        self.node.live.slowlog_trace_id_always.load(Relaxed)
    }

    fn clients(&self) -> Vec<ClientInfo> {
        self.node.clients.snapshot().into_iter().map(|client| self.describe(client)).collect()
    }

    fn kill_client(&self, id: u64) -> bool {
        let clients = self.node.clients.snapshot();
        let found = clients.iter().find(|client| client.id == id);
        if let Some(client) = found {
            client.kill();
        }
        found.is_some()
    }
}

/// As in Redis, a start counts as a save.
pub(crate) fn last_save(node: &Node) -> u64 {
    node.saves.figures().last_unix_s.unwrap_or(node.started_unix_ns / 1_000_000_000)
}

impl NodeHost<'_> {
    fn describe(&self, client: Arc<Client>) -> ClientInfo {
        let labels = client.labels.lock().clone();
        let query_buffer = client.query_buffer.load(Relaxed);
        ClientInfo {
            id: client.id,
            addr: client.peer.to_string(),
            laddr: client.local.to_string(),
            fd: -1,
            name: labels.name,
            lib_name: labels.lib_name,
            lib_ver: labels.lib_ver,
            age_s: (self.unix_ns / 1_000_000).saturating_sub(client.connected_at_ms) / 1000,
            idle_s: self.monotonic_ns.saturating_sub(client.last_active_ns.load(Relaxed)) / 1_000_000_000,
            db: labels.database,
            resp: labels.resp,
            multi: labels.multi,
            watching: labels.watching,
            no_evict: labels.no_evict,
            no_touch: labels.no_touch,
            last_command: labels.last_command.into(),
            query_buffer,
            total_memory: query_buffer,
            ..ClientInfo::default()
        }
    }
}
