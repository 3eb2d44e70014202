//! The log line of a command, for `[logging] commands`. Off the common path: it formats. Its target is the command's family.

use ferrite_commands::CommandSpec;
use ferrite_commands::call::keys_of;
use ferrite_commands::spec::Group;
use ferrite_resp::Args;
use ferrite_telemetry::schema::{MASK, REQUEST_ID};
use ferrite_telemetry::{Attribute, Outcome, SpanId, TraceId};

use crate::node::Node;

/// Who sent a command.
pub(crate) struct Caller<'c> {
    /// Address and port.
    pub(crate) client: &'c str,
    /// Of the command's trace and span.
    pub(crate) ids: Option<(TraceId, SpanId)>,
    /// From the caller's baggage.
    pub(crate) request_id: Option<&'c [u8]>,
}

/// Writes one INFO line; `args` begin with the command's name. Values never appear in it; the key is the command's first.
#[cold]
pub(crate) fn write(
    spec: &'static CommandSpec,
    args: Args<'_>,
    duration_us: u64,
    outcome: Outcome,
    caller: Caller<'_>,
    node: &Node,
) {
    let Caller { client, ids, request_id } = caller;
    let masked = &node.shape.masked;
    let is_masked = |attribute: Attribute| masked.hides(attribute.as_str());
    let request_id = request_id.map(|id| match masked.hides(REQUEST_ID) {
        true => MASK.into(),
        false => String::from_utf8_lossy(id),
    });
    let key = keys_of(spec, args).next().and_then(|at| node.keys.shown(args.get(at)));
    let key = key.map(|key| match is_masked(Attribute::CommandKey) {
        true => MASK.to_owned(),
        false => String::from_utf8_lossy(&key).into_owned(),
    });
    let client = if is_masked(Attribute::NetPeerIp) { MASK } else { client };
    // A target belongs to the place in the code, so each family needs its own.
    macro_rules! line {
        ($target:literal) => {
            tracing::info!(
                target: $target,
                trace_id = ids.map(|(trace, _)| tracing::field::display(trace)),
                span_id = ids.map(|(_, span)| tracing::field::display(span)),
                command = spec.trace_name(),
                key,
                duration_us,
                result = outcome.as_str(),
                client_addr = client,
                request_id = request_id.as_deref(),
                "Command executed"
            )
        };
    }
    match spec.group {
        Group::Generic => line!("ferrite::commands::generic"),
        Group::String => line!("ferrite::commands::strings"),
        Group::List => line!("ferrite::commands::lists"),
        Group::Set => line!("ferrite::commands::sets"),
        Group::SortedSet => line!("ferrite::commands::sorted_sets"),
        Group::Hash => line!("ferrite::commands::hashes"),
        Group::Pubsub => line!("ferrite::commands::pubsub"),
        Group::Transactions => line!("ferrite::commands::transactions"),
        Group::Connection => line!("ferrite::commands::connection"),
        Group::Server => line!("ferrite::commands::server"),
        Group::Scripting => line!("ferrite::commands::scripting"),
        Group::Hyperloglog => line!("ferrite::commands::hyperloglog"),
        Group::Cluster => line!("ferrite::commands::cluster"),
        Group::Geo => line!("ferrite::commands::geo"),
        Group::Stream => line!("ferrite::commands::streams"),
        Group::Bitmap => line!("ferrite::commands::bitmaps"),
        Group::Module => line!("ferrite::commands::otel"),
    }
}
