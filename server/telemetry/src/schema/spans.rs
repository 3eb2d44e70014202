//! Span names, span kinds and the values of their closed sets.

use super::names;

names! {
    /// Every span that Ferrite emits. Names are low-cardinality: what varies is an attribute.
    SpanName {
        /// One command from its first byte to the write of its reply; also a queued command under its EXEC.
        Command = "ferrite.command",
        /// Finding the arguments in the input buffer.
        RespParse = "ferrite.resp.parse",
        /// Look-up in the command table, arity, authentication.
        CommandDispatch = "ferrite.command.dispatch",
        /// The command function, waits for the disk included.
        CommandExecute = "ferrite.command.execute",
        /// Hashing the key and finding its bucket.
        IndexLookup = "ferrite.index.lookup",
        /// A tier was searched for the key.
        StorageRead = "ferrite.storage.read",
        /// A record was written or updated in place.
        StorageWrite = "ferrite.storage.write",
        /// The epoch was pinned for a read that outlives the batch.
        EpochProtect = "ferrite.epoch.protect",
        /// The worker announced the current epoch anew.
        EpochAdvance = "ferrite.epoch.advance",
        /// The command's effects went into the AOF's buffer.
        AofAppend = "ferrite.aof.append",
        /// The wait until the AOF was durable up to the command's effects.
        AofSync = "ferrite.aof.sync",
        /// Writing the reply into the output buffer.
        RespSerialize = "ferrite.resp.serialize",
        /// Writing the output buffer to the socket; shared by the commands of a batch.
        NetWrite = "ferrite.net.write",
        /// One client's connection, from its acceptance to its end; a trace of its own, no command's parent.
        Connection = "ferrite.connection",
        /// From the first worker's start to the first connection that can be accepted.
        ServerStart = "ferrite.server.start",
        /// Taking the addresses of the configuration.
        ServerBind = "ferrite.server.bind",
        /// Locking and reading the data directory, the replay included.
        DataDirOpen = "ferrite.data_dir.open",
        /// Reading the AOF and applying what it holds.
        AofReplay = "ferrite.aof.replay",
        /// From the order to stop to the end of the first worker.
        ServerShutdown = "ferrite.server.shutdown",
        /// Waiting for the connections to finish what they are doing.
        ServerDrain = "ferrite.server.drain",
        /// Making the AOF durable to its end.
        AofClose = "ferrite.aof.close",
        /// Waiting for the export of the spans of commands.
        TelemetryFlush = "ferrite.telemetry.flush",
        /// A rewrite of the append-only file; a trace of its own.
        AofRewrite = "ferrite.aof.rewrite",
        /// Keys that went because there was more data than `maxmemory`; a trace of its own.
        Eviction = "ferrite.eviction",
        /// A checkpoint; a trace of its own.
        Checkpoint = "ferrite.checkpoint",
        /// Pages of the log that were written to its file; a trace of its own.
        Flush = "ferrite.flush",
        /// A cycle of the active expiry that deleted keys; a trace of its own.
        Expiry = "ferrite.expiry",
        /// Reading a checkpoint at the start, and the part of the log that was written while it was taken.
        CheckpointLoad = "ferrite.checkpoint.load",
        /// Looking behind writes that did not read what they replaced; a trace of its own.
        UnseenSettle = "ferrite.unseen.settle",
        /// Giving the disk space of old records back; a trace of its own.
        Compaction = "ferrite.compaction",
    }
}

names! {
    /// Why the log is compacted.
    CompactionReason {
        /// The files take more than the data may have them take.
        SpaceAmplification = "space_amplification",
        /// The data directory takes what it may take at most.
        DiskQuota = "disk_quota",
        /// The disk has no space left.
        DiskFull = "disk_full",
    }
}

names! {
    /// What a span is to its neighbours, as OpenTelemetry names it.
    SpanKind {
        /// Everything below `ferrite.command`, and the server's own start and stop.
        Internal = "INTERNAL",
        /// A client's command.
        Server = "SERVER",
        /// A request of ours to another server.
        Client = "CLIENT",
        /// The creation of a message.
        Producer = "PRODUCER",
        /// The delivery of a message.
        Consumer = "CONSUMER",
    }
}

/// What the record of a command is about, until it says otherwise.
impl Default for SpanName {
    fn default() -> Self {
        Self::Command
    }
}

impl SpanName {
    /// The kind of a span of this name when it is the root of what a client sent.
    pub const fn root_kind(self) -> SpanKind {
        match self {
            Self::Command => SpanKind::Server,
            _ => SpanKind::Internal,
        }
    }
}

names! {
    /// Where in the HybridLog a record lies.
    Tier {
        /// In memory, updated in place.
        Mutable = "mutable",
        /// In the log file, mapped.
        ReadOnly = "read_only",
        /// In the log file alone.
        Disk = "disk",
    }
}

names! {
    /// `ferrite.storage.operation`.
    Operation {
        /// The tier was read.
        Read = "read",
        /// The tier was written.
        Write = "write",
    }
}

names! {
    /// `ferrite.command.result`: what kind of reply the command got.
    Outcome {
        /// Anything that is neither of the others.
        Ok = "OK",
        /// A null reply.
        Nil = "NIL",
        /// An error reply.
        Err = "ERR",
    }
}

names! {
    /// `ferrite.replication.role`.
    Role {
        /// Takes writes.
        Primary = "primary",
        /// Follows a primary.
        Replica = "replica",
    }
}

names! {
    /// Events on a span.
    EventName {
        /// An unexpected failure (I/O, corruption), with type, message and stack trace.
        Exception = "exception",
        /// A tier in memory was searched in vain: the next one is asked.
        CacheMiss = "cache.miss",
        /// What was tried before is tried again, after a wait.
        RetryAttempt = "retry.attempt",
        /// Another worker had the latch of the key's bucket.
        LatchContended = "ferrite.latch.contended",
    }
}

names! {
    /// `exception.type`: what failed. A client's mistake is none of them.
    ExceptionType {
        /// The disk refused to read a record.
        ReadFailed = "ferrite::hybridlog::ReadError::Io",
        /// The log file is shorter than a record's address says.
        ReadShort = "ferrite::hybridlog::ReadError::Short",
        /// A record's checksum or key is not what it has to be.
        ReadDamaged = "ferrite::hybridlog::ReadError::Damaged",
        /// The disk of the log file is full.
        LogFull = "ferrite::hybridlog::StorageError::Full",
        /// The disk refuses to write the log file.
        LogFailed = "ferrite::hybridlog::StorageError::Failed",
        /// The disk of the append-only file is full.
        AofFull = "ferrite::hybridlog::NoSpace::Refused",
        /// The disk fails to make room for the append-only file, and is not full.
        AofUnable = "ferrite::hybridlog::NoSpace::Unable",
        /// The append-only file could not be written or synced.
        AofFailed = "ferrite::hybridlog::AofFailed",
        /// No checkpoint could be taken.
        CheckpointFailed = "ferrite::hybridlog::CheckpointError",
        /// The append-only file could not be rewritten.
        RewriteFailed = "ferrite::hybridlog::RewriteError",
        /// The configuration file could not be read or replaced.
        ConfigFile = "ferrite::node::ConfigFile",
    }
}

names! {
    /// `ferrite.connection.end_reason`.
    ConnectionEnd {
        /// The client closed it.
        ClientClosed = "client_closed",
        /// Reading or writing failed.
        ConnectionLost = "connection_lost",
        /// After a reply: QUIT, CLIENT KILL of itself, or a client that speaks HTTP.
        ClosedAfterReply = "closed_after_reply",
        /// CLIENT KILL of another one.
        Killed = "killed",
        /// It was idle for longer than `timeout`.
        IdleTimeout = "idle_timeout",
        /// What it sent is not RESP.
        ProtocolError = "protocol_error",
        /// A command was longer than `client-query-buffer-limit`.
        QueryBufferLimit = "query_buffer_limit",
        /// Its replies were longer than the limit of its output buffer.
        OutputBufferLimit = "output_buffer_limit",
        /// The server ends.
        Shutdown = "shutdown",
    }
}

impl ConnectionEnd {
    /// Whether the server cut it off for what the client did.
    pub const fn is_error(self) -> bool {
        matches!(self, Self::ProtocolError | Self::QueryBufferLimit | Self::OutputBufferLimit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_its_code() {
        for name in SpanName::ALL {
            assert_eq!(SpanName::from_u8(*name as u8), Some(*name));
        }
        assert_eq!(SpanName::from_u8(SpanName::ALL.len() as u8), None);
    }

    #[test]
    fn span_names_are_distinct_and_dotted() {
        for (index, name) in SpanName::ALL.iter().enumerate() {
            assert!(name.as_str().starts_with("ferrite."), "{name}");
            assert!(SpanName::ALL[index + 1..].iter().all(|other| other.as_str() != name.as_str()));
        }
    }
}
