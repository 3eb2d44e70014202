//! The log line of a command, for `[logging] commands`. Off the common path: it formats.

use ferrite_commands::CommandSpec;
use ferrite_commands::call::keys_of;
use ferrite_resp::Args;
use ferrite_telemetry::{Outcome, SpanId, TraceId};

/// Writes one INFO line; `args` begin with the command's name. Values never appear in it; the key is the command's first.
#[cold]
pub(crate) fn write(
    spec: &'static CommandSpec,
    args: Args<'_>,
    duration_us: u64,
    outcome: Outcome,
    client: &str,
    ids: Option<(TraceId, SpanId)>,
) {
    let key = keys_of(spec, args).next().map(|at| String::from_utf8_lossy(args.get(at)).into_owned());
    tracing::info!(
        target: "ferrite::commands",
        trace_id = ids.map(|(trace, _)| tracing::field::display(trace)),
        span_id = ids.map(|(_, span)| tracing::field::display(span)),
        command = spec.trace_name(),
        key,
        duration_us,
        result = outcome.as_str(),
        client_addr = client,
        "Command executed"
    );
}
