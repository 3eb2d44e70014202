//! Schema, trace context, samplers and the span recorder.
//!
//! A session records into a [`TraceBuffer`] while it works through a batch of commands; after the replies were written
//! the worker's [`Recorder`] decides about each trace, copies it into the flight recorder and hands chosen traces on
//! ([`ChosenTrace`]), by an [`outbox()`] to the thread that exports, which has each as a [`KeptTrace`]. What happens once in a server's life, start-up and shutdown, is told through [`cold`]. Nothing here does I/O, reads a clock by itself or, once warm, allocates on a command's way.

pub mod schema;

mod batch;
mod buffer;
pub mod cold;
mod context;
mod counter;
mod dump;
mod entry;
mod exception;
mod exemplar;
mod filter;
mod ids;
mod masks;
mod outbox;
mod pins;
mod propagation;
mod record;
mod recorder;
mod redaction;
mod ring;
mod sampling;
mod shape;
mod sink;
mod span;
mod teller;
mod text;
mod values;

pub use buffer::{Checkpoint, ChildSlot, DiskSlot, SyncSlot, TraceBuffer, Wait};
pub use context::{FLAG_RANDOM, FLAG_SAMPLED, RemoteContext, SpanId, TraceId};
pub use counter::Counter;
pub use dump::{DumpError, dump_header, dump_memory, read_dump};
pub use entry::KeptTrace;
pub use exception::{Exception, StackTrace};
pub use exemplar::{Exemplar, NewExemplar};
pub use filter::TraceFilter;
pub use ids::IdGenerator;
pub use masks::Masks;
pub use outbox::{ChosenTrace, OutboxReader, OutboxWriter, Room, outbox};
pub use pins::{Pinned, Pins};
pub use propagation::{Baggage, Extracted, Member, Propagators};
pub use record::Detail;
pub use recorder::{Counters, RING_BYTES_DEFAULT, Recorder, RecorderConfig};
pub use redaction::Keys;
pub use ring::{Ring, TierTime};
pub use sampling::{
    Facts, HeadSampler, Probability, Sampling, SamplingPolicy, SamplingSettings, Schedule, TailSettings,
};
pub use schema::{Attribute, Outcome, SpanKind, SpanName, Tier};
pub use shape::{Conventions, LogLimits, Shape, SpanLimits, shortened};
pub use sink::{Dropped, LinkRef, SpanHead, SpanSink, ValueRef};
pub use span::{Event, Link, Span, Status, Value};
pub use teller::Teller;
pub use text::{one_line, render, short_duration};
