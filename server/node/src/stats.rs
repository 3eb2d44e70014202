//! What each worker counts, and the sums.

use ferrite_telemetry::Counter;

/// What one worker has done. On cache lines of its own, since each worker writes its own all the time.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerStats {
    pub connections: Counter,
    pub rejected_connections: Counter,
    pub commands: Counter,
    pub errors: Counter,
    pub bytes_received: Counter,
    pub bytes_sent: Counter,
    pub socket_reads: Counter,
    pub socket_writes: Counter,
    pub disk_reads: Counter,
}

/// The sums over all workers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub connections: u64,
    pub rejected_connections: u64,
    pub commands: u64,
    pub errors: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub socket_reads: u64,
    pub socket_writes: u64,
    pub disk_reads: u64,
}

impl Totals {
    pub fn of<'a>(workers: impl Iterator<Item = &'a WorkerStats>) -> Totals {
        workers.fold(Totals::default(), |sum, worker| Totals {
            connections: sum.connections + worker.connections.get(),
            rejected_connections: sum.rejected_connections + worker.rejected_connections.get(),
            commands: sum.commands + worker.commands.get(),
            errors: sum.errors + worker.errors.get(),
            bytes_received: sum.bytes_received + worker.bytes_received.get(),
            bytes_sent: sum.bytes_sent + worker.bytes_sent.get(),
            socket_reads: sum.socket_reads + worker.socket_reads.get(),
            socket_writes: sum.socket_writes + worker.socket_writes.get(),
            disk_reads: sum.disk_reads + worker.disk_reads.get(),
        })
    }

    /// What was counted after `earlier`.
    pub fn since(self, earlier: Totals) -> Totals {
        Totals {
            connections: self.connections - earlier.connections,
            rejected_connections: self.rejected_connections - earlier.rejected_connections,
            commands: self.commands - earlier.commands,
            errors: self.errors - earlier.errors,
            bytes_received: self.bytes_received - earlier.bytes_received,
            bytes_sent: self.bytes_sent - earlier.bytes_sent,
            socket_reads: self.socket_reads - earlier.socket_reads,
            socket_writes: self.socket_writes - earlier.socket_writes,
            disk_reads: self.disk_reads - earlier.disk_reads,
        }
    }
}
