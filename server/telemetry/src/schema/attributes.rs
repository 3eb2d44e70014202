//! Attribute keys and the types of their values.

use super::names;

/// What stands in the place of a value that is masked.
pub const MASK: &str = "[REDACTED]";

/// `db.system`.
pub const DB_SYSTEM: &str = "ferrite";

names! {
    /// Every attribute of a span or of an event on it.
    Attribute {
        /// Always `ferrite`.
        DbSystem = "db.system",
        /// The command's name.
        DbOperation = "db.operation",
        /// The command and its keys; ` ...` stands for what was left out. Values never leave.
        DbStatement = "db.statement",
        /// `db.system` by the stable conventions.
        DbSystemName = "db.system.name",
        /// `db.operation` by the stable conventions.
        DbOperationName = "db.operation.name",
        /// `db.statement` by the stable conventions.
        DbQueryText = "db.query.text",
        /// `error.type` of a command by the stable conventions.
        DbResponseStatusCode = "db.response.status_code",
        /// `net.peer.ip` by the stable conventions.
        NetworkPeerAddress = "network.peer.address",
        /// `net.peer.port` by the stable conventions.
        NetworkPeerPort = "network.peer.port",
        /// The command's name, normalised to upper case.
        CommandName = "ferrite.command.name",
        /// The first key, if the command has one.
        CommandKey = "ferrite.command.key",
        /// What kind of reply the command got.
        CommandResult = "ferrite.command.result",
        /// The number of arguments with the name.
        CommandArgsCount = "ferrite.command.args_count",
        /// How many spans of this command were over the limit and left out; absent if none was.
        CommandSpansDropped = "ferrite.command.spans_dropped",
        /// The bucket that was searched.
        IndexBucket = "ferrite.index.bucket",
        /// Whether the tier was read or written.
        StorageOperation = "ferrite.storage.operation",
        /// The tier that was visited.
        StorageTier = "ferrite.storage.tier",
        /// Whether the value was found in this memory tier; false for the disk.
        StorageCacheHit = "ferrite.storage.cache_hit",
        /// The value's size, when it was found or written.
        StorageBytes = "ferrite.storage.bytes",
        /// The epoch the worker had announced.
        StorageEpoch = "ferrite.storage.epoch",
        /// The disk's submission (with io_uring the user data of its SQE).
        IoUringSqeId = "ferrite.io_uring.sqe_id",
        /// The size of the command's AOF frame; of a replay or of the file, the size of all frames.
        AofBytes = "ferrite.aof.bytes",
        /// How many AOF frames were replayed.
        AofRecords = "ferrite.aof.records",
        /// How many bytes of an unfinished last write were cut off.
        AofTornBytes = "ferrite.aof.torn_bytes",
        /// The directory of the data.
        DataDirPath = "ferrite.data_dir.path",
        /// The port for clients.
        ServerPort = "ferrite.server.port",
        /// How many worker threads there are.
        ServerWorkers = "ferrite.server.workers",
        /// How many clients were connected when the drain began.
        ServerConnections = "ferrite.server.connections",
        /// The size of the append-only file's files before a rewrite.
        AofRewriteBytesBefore = "ferrite.aof.rewrite.bytes_before",
        /// Their size after it.
        AofRewriteBytesAfter = "ferrite.aof.rewrite.bytes_after",
        /// The policy that chose the keys.
        EvictionPolicy = "ferrite.eviction.policy",
        /// How many keys went.
        EvictionKeysCount = "ferrite.eviction.keys_count",
        /// By how much the data shrank.
        EvictionBytes = "ferrite.eviction.bytes",
        /// How many pages of the log a flush wrote.
        FlushPagesCount = "ferrite.flush.pages_count",
        /// What a flush wrote: those pages, and the objects of their records.
        FlushBytes = "ferrite.flush.bytes",
        /// The epoch whose batches had to end before the pages could be written.
        FlushEpoch = "ferrite.flush.epoch",
        /// How many keys a cycle of the active expiry deleted.
        ExpiryKeysCount = "ferrite.expiry.keys_count",
        /// In how many databases it deleted some.
        ExpiryDatabasesCount = "ferrite.expiry.databases_count",
        /// How many writes were looked behind.
        UnseenKeysCount = "ferrite.unseen.keys_count",
        /// How many records were read for that.
        UnseenReadsCount = "ferrite.unseen.reads_count",
        /// The size of a checkpoint's file.
        CheckpointBytes = "ferrite.checkpoint.bytes",
        /// The entries of a checkpoint's index.
        CheckpointEntries = "ferrite.checkpoint.entries",
        /// The address below which the log belongs to a checkpoint.
        CheckpointLogTail = "ferrite.checkpoint.log_tail",
        /// The bytes of the log that were read to complete a checkpoint's index.
        CheckpointLogBytes = "ferrite.checkpoint.log_bytes",
        /// Why the log was compacted.
        CompactionReason = "ferrite.compaction.reason",
        /// The bytes of the log that were read.
        CompactionBytesRead = "ferrite.compaction.bytes_read",
        /// The bytes that were given back to the file system.
        CompactionBytesFreed = "ferrite.compaction.bytes_freed",
        /// How many records were copied to the log's tail.
        CompactionRecordsKept = "ferrite.compaction.records_kept",
        /// How many were superseded, deleted, or of a database that was emptied.
        CompactionRecordsDropped = "ferrite.compaction.records_dropped",
        /// How many were of keys whose time had come.
        CompactionRecordsExpired = "ferrite.compaction.records_expired",
        /// Where the log began before.
        CompactionBeginBefore = "ferrite.compaction.begin_before",
        /// Where it begins since.
        CompactionBeginAfter = "ferrite.compaction.begin_after",
        /// The client's address.
        NetPeerIp = "net.peer.ip",
        /// The client's port.
        NetPeerPort = "net.peer.port",
        /// The connection as CLIENT ID gives it.
        ConnectionId = "ferrite.connection.id",
        /// Why the connection ended.
        ConnectionEndReason = "ferrite.connection.end_reason",
        /// The commands that the connection was answered.
        ConnectionCommandsCount = "ferrite.connection.commands_count",
        /// The bytes that came in over the connection.
        ConnectionBytesReceived = "ferrite.connection.bytes_received",
        /// The bytes of replies that went out.
        ConnectionBytesSent = "ferrite.connection.bytes_sent",
        /// The server's role when the command had finished.
        ReplicationRole = "ferrite.replication.role",
        /// The AOF position when the command had finished.
        ReplicationOffset = "ferrite.replication.offset",
        /// The error reply's prefix, as `ERR` or `WRONGTYPE`; of a connection, why it was cut off; of the server's own work, the
        /// type of the exception.
        ErrorType = "error.type",
        /// What failed.
        ExceptionType = "exception.type",
        /// The failure's text.
        ExceptionMessage = "exception.message",
        /// Where the failure was noticed: functions and places, the innermost first.
        ExceptionStacktrace = "exception.stacktrace",
        /// Which attempt this is after the first.
        RetryCount = "retry.count",
        /// Milliseconds from the end of the attempt before to this one.
        RetryDelayMs = "retry.delay_ms",
        /// Nanoseconds until the latch was taken.
        LatchWaitNs = "ferrite.latch.wait_ns",
    }
}

/// The type of an attribute's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    Str,
    Int,
    Bool,
}

impl Attribute {
    /// The one type that values of this key have.
    pub const fn value_type(self) -> ValueType {
        match self {
            Self::StorageCacheHit => ValueType::Bool,
            Self::CommandArgsCount
            | Self::CommandSpansDropped
            | Self::IndexBucket
            | Self::StorageBytes
            | Self::StorageEpoch
            | Self::IoUringSqeId
            | Self::AofBytes
            | Self::AofRecords
            | Self::AofTornBytes
            | Self::ServerPort
            | Self::ServerWorkers
            | Self::ServerConnections
            | Self::AofRewriteBytesBefore
            | Self::AofRewriteBytesAfter
            | Self::EvictionKeysCount
            | Self::EvictionBytes
            | Self::FlushPagesCount
            | Self::FlushBytes
            | Self::FlushEpoch
            | Self::ExpiryKeysCount
            | Self::ExpiryDatabasesCount
            | Self::UnseenKeysCount
            | Self::UnseenReadsCount
            | Self::CheckpointBytes
            | Self::CheckpointEntries
            | Self::CheckpointLogTail
            | Self::CheckpointLogBytes
            | Self::CompactionBytesRead
            | Self::CompactionBytesFreed
            | Self::CompactionRecordsKept
            | Self::CompactionRecordsDropped
            | Self::CompactionRecordsExpired
            | Self::CompactionBeginBefore
            | Self::CompactionBeginAfter
            | Self::NetPeerPort
            | Self::NetworkPeerPort
            | Self::ConnectionId
            | Self::ConnectionCommandsCount
            | Self::ConnectionBytesReceived
            | Self::ConnectionBytesSent
            | Self::ReplicationOffset
            | Self::RetryCount
            | Self::RetryDelayMs
            | Self::LatchWaitNs => ValueType::Int,
            _ => ValueType::Str,
        }
    }
}

/// Values of [`Attribute::ErrorType`] that are not taken from a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorType;

impl ErrorType {
    /// The prefix of an error reply: its first word, or the fallback of the conventions if it has none.
    pub fn of_reply(error: &str) -> &str {
        match error.split(' ').next() {
            Some(word) if !word.is_empty() => word,
            _ => "_OTHER",
        }
    }
}
