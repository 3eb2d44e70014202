//! Which attributes and events belong to which span: what the recorder can emit, and no more. The generated pages come from
//! here; the golden traces are held against it.

use super::{Attribute as A, CompactionReason, ConnectionEnd, EventName, ExceptionType, Operation, Outcome, Role};
use super::{SpanName, Tier};

impl SpanName {
    /// The attributes that a span of this name may have, in the order in which they are worth reading. Beside them every span of
    /// a command has the allowed members of its caller's baggage.
    pub const fn attributes(self) -> &'static [A] {
        match self {
            Self::Command => &[
                A::DbSystem,
                A::DbOperation,
                A::DbStatement,
                A::CommandName,
                A::CommandKey,
                A::CommandResult,
                A::CommandArgsCount,
                A::CommandSpansDropped,
                A::NetPeerIp,
                A::NetPeerPort,
                A::ConnectionId,
                A::ReplicationRole,
                A::ReplicationOffset,
                A::ErrorType,
                A::DbSystemName,
                A::DbOperationName,
                A::DbQueryText,
                A::DbResponseStatusCode,
                A::NetworkPeerAddress,
                A::NetworkPeerPort,
            ],
            Self::IndexLookup => &[A::IndexBucket],
            Self::StorageRead => &[
                A::StorageOperation,
                A::StorageTier,
                A::StorageCacheHit,
                A::StorageBytes,
                A::StorageEpoch,
                A::IoUringSqeId,
            ],
            Self::StorageWrite => {
                &[A::StorageOperation, A::StorageTier, A::StorageCacheHit, A::StorageBytes, A::StorageEpoch]
            }
            Self::EpochProtect | Self::EpochAdvance => &[A::StorageEpoch],
            Self::AofAppend | Self::AofClose => &[A::AofBytes],
            Self::Connection => &[
                A::DbSystem,
                A::NetPeerIp,
                A::NetPeerPort,
                A::ConnectionId,
                A::ConnectionEndReason,
                A::ConnectionCommandsCount,
                A::ConnectionBytesReceived,
                A::ConnectionBytesSent,
                A::ErrorType,
                A::DbSystemName,
                A::DbResponseStatusCode,
                A::NetworkPeerAddress,
                A::NetworkPeerPort,
            ],
            Self::ServerStart => &[A::ServerPort, A::ServerWorkers],
            Self::DataDirOpen => &[A::DataDirPath],
            Self::AofReplay => &[A::AofBytes, A::AofRecords, A::AofTornBytes],
            Self::ServerDrain => &[A::ServerConnections],
            Self::CheckpointLoad => &[A::CheckpointBytes, A::CheckpointEntries, A::CheckpointLogBytes],
            Self::AofRewrite => &[
                A::DbSystem,
                A::AofRewriteBytesBefore,
                A::AofRewriteBytesAfter,
                A::ErrorType,
                A::DbSystemName,
                A::DbResponseStatusCode,
            ],
            Self::Eviction => &[
                A::DbSystem,
                A::EvictionPolicy,
                A::EvictionKeysCount,
                A::EvictionBytes,
                A::ErrorType,
                A::DbSystemName,
                A::DbResponseStatusCode,
            ],
            Self::Checkpoint => &[
                A::DbSystem,
                A::CheckpointBytes,
                A::CheckpointEntries,
                A::CheckpointLogTail,
                A::ErrorType,
                A::DbSystemName,
                A::DbResponseStatusCode,
            ],
            Self::Flush => &[
                A::DbSystem,
                A::FlushPagesCount,
                A::FlushBytes,
                A::FlushEpoch,
                A::ErrorType,
                A::DbSystemName,
                A::DbResponseStatusCode,
            ],
            Self::Expiry => &[
                A::DbSystem,
                A::ExpiryKeysCount,
                A::ExpiryDatabasesCount,
                A::ErrorType,
                A::DbSystemName,
                A::DbResponseStatusCode,
            ],
            Self::UnseenSettle => &[
                A::DbSystem,
                A::UnseenKeysCount,
                A::UnseenReadsCount,
                A::ErrorType,
                A::DbSystemName,
                A::DbResponseStatusCode,
            ],
            Self::Compaction => &[
                A::DbSystem,
                A::CompactionReason,
                A::CompactionBytesRead,
                A::CompactionBytesFreed,
                A::CompactionRecordsKept,
                A::CompactionRecordsDropped,
                A::CompactionRecordsExpired,
                A::CompactionBeginBefore,
                A::CompactionBeginAfter,
                A::ErrorType,
                A::DbSystemName,
                A::DbResponseStatusCode,
            ],
            Self::RespParse
            | Self::CommandDispatch
            | Self::CommandExecute
            | Self::AofSync
            | Self::RespSerialize
            | Self::NetWrite
            | Self::ServerBind
            | Self::ServerShutdown
            | Self::TelemetryFlush => &[],
        }
    }

    /// The events that a span of this name may have.
    pub const fn events(self) -> &'static [EventName] {
        match self {
            Self::Command => &[EventName::Exception, EventName::RetryAttempt, EventName::LatchContended],
            Self::StorageRead => &[EventName::CacheMiss],
            Self::Flush | Self::Compaction => &[EventName::Exception, EventName::RetryAttempt],
            Self::AofRewrite | Self::Eviction | Self::Checkpoint | Self::Expiry | Self::UnseenSettle => {
                &[EventName::Exception]
            }
            _ => &[],
        }
    }
}

impl EventName {
    /// The attributes that an event of this name may have.
    pub const fn attributes(self) -> &'static [A] {
        match self {
            Self::Exception => &[A::ExceptionType, A::ExceptionMessage, A::ExceptionStacktrace],
            Self::CacheMiss => &[A::StorageTier],
            Self::RetryAttempt => &[A::RetryCount, A::RetryDelayMs],
            Self::LatchContended => &[A::IndexBucket, A::LatchWaitNs],
        }
    }
}

impl A {
    /// The values of a closed set; none where any value may come.
    pub fn members(self) -> Vec<&'static str> {
        fn names<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str) -> Vec<&'static str> {
            all.iter().map(|member| name(*member)).collect()
        }
        match self {
            Self::CommandResult => names(Outcome::ALL, Outcome::as_str),
            Self::StorageOperation => names(Operation::ALL, Operation::as_str),
            Self::StorageTier => names(Tier::ALL, Tier::as_str),
            Self::CompactionReason => names(CompactionReason::ALL, CompactionReason::as_str),
            Self::ConnectionEndReason => names(ConnectionEnd::ALL, ConnectionEnd::as_str),
            Self::ReplicationRole => names(Role::ALL, Role::as_str),
            Self::ExceptionType => names(ExceptionType::ALL, ExceptionType::as_str),
            _ => Vec::new(),
        }
    }
}
