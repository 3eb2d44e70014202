//! The spans of cold paths on their way to the export queue: an SDK tracer behind `tracing-opentelemetry`, with our ids,
//! our sampler and the World's clock, and with the queue in the place of an exporter.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ferrite_telemetry as ours;
use ferrite_telemetry::schema::COLD_TARGET;
use ferrite_telemetry::{Attribute, FLAG_RANDOM, FLAG_SAMPLED, SpanName};
use opentelemetry::trace::{
    Link, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceId, TraceState, Tracer,
    TracerProvider,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    IdGenerator, SamplingDecision, SamplingResult, SdkTracer, SdkTracerProvider, ShouldSample, Span, SpanData,
    SpanProcessor,
};
use parking_lot::Mutex;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;

use crate::logging::ColdSpans;
use crate::queue::{ColdSpan, ExportQueue};

/// The layer that makes spans of what [`ferrite_telemetry::cold_span!`] opens, and of nothing else. Log events are lines,
/// not events of spans.
pub(crate) fn layer<S>(settings: ColdSpans, unix_ns: fn() -> u64) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'s> LookupSpan<'s> + Send + Sync,
{
    let ColdSpans { queue, sampling, seed, monotonic_ns } = settings;
    let clock = Arc::new(RisingClock { monotonic_ns, last_ns: AtomicU64::new(0) });
    let provider = SdkTracerProvider::builder()
        .with_id_generator(Ids(Mutex::new(ours::IdGenerator::new(seed))))
        .with_sampler(OurSampler { sampling, monotonic_ns, unix_ns })
        .with_span_processor(IntoQueue { queue, clock: clock.clone(), unix_ns })
        // The exporter adds the resource of all signals; the SDK's own reads the environment.
        .with_resource(Resource::builder_empty().build())
        .build();
    let tracer = ClockedTracer { tracer: provider.tracer(super::export::SCOPE_NAME), clock };
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        // What it would add by itself is not in the schema.
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false)
        .with_filter(only_cold_spans())
}

fn only_cold_spans() -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    filter_fn(|metadata: &Metadata<'_>| metadata.is_span() && metadata.target() == COLD_TARGET)
        // Without it every statement of every level would be asked about.
        .with_max_level_hint(LevelFilter::INFO)
}

/// The ids of the span that is entered on this thread, if there is one: what a log line carries.
pub(crate) fn current_ids() -> Option<(ours::TraceId, ours::SpanId)> {
    Context::map_current(|context| {
        let span = context.span();
        let ids = span.span_context();
        ids.is_valid().then(|| (trace_id(ids), span_id(ids.span_id())))
    })
}

fn trace_id(context: &SpanContext) -> ours::TraceId {
    ours::TraceId(u128::from_be_bytes(context.trace_id().to_bytes()))
}

fn span_id(id: SpanId) -> ours::SpanId {
    ours::SpanId(u64::from_be_bytes(id.to_bytes()))
}

#[derive(Debug)]
struct Ids(Mutex<ours::IdGenerator>);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        TraceId::from(self.0.lock().trace_id().0)
    }

    fn new_span_id(&self) -> SpanId {
        SpanId::from(self.0.lock().span_id().0)
    }
}

/// Decides about roots as for commands; what is below follows its root, so that a trace is whole.
#[derive(Clone, Debug)]
struct OurSampler {
    sampling: Arc<ours::Sampling>,
    monotonic_ns: fn() -> u64,
    unix_ns: fn() -> u64,
}

impl OurSampler {
    /// What a chosen trace carries on.
    fn chooses(&self, trace_id: TraceId) -> Option<TraceState> {
        let trace_id = ours::TraceId(u128::from_be_bytes(trace_id.to_bytes()));
        let facts = ours::Facts::new(trace_id, (self.monotonic_ns)(), (self.unix_ns)());
        let policy = self.sampling.policy();
        let chosen = policy.decide(&facts, &mut 0)?;
        Some(TraceState::from_str(&chosen.tracestate).unwrap_or(TraceState::NONE))
    }
}

impl ShouldSample for OurSampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        _: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let above = parent.map(|context| context.span().span_context().clone()).filter(SpanContext::is_valid);
        let sampled = match above {
            Some(above) => above.is_sampled().then(|| above.trace_state().clone()),
            None => self.chooses(trace_id),
        };
        let decision = if sampled.is_some() { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop };
        SamplingResult { decision, attributes: Vec::new(), trace_state: sampled.unwrap_or(TraceState::NONE) }
    }
}

/// World's monotonic clock, of which no two looks show the same: whoever reads spans has nothing but their starts to sort
/// them by, and a simulated instant can be long.
struct RisingClock {
    monotonic_ns: fn() -> u64,
    last_ns: AtomicU64,
}

impl RisingClock {
    fn now_ns(&self) -> u64 {
        let now_ns = (self.monotonic_ns)();
        let after = |last_ns: u64| Some(now_ns.max(last_ns + 1));
        let last_ns = self.last_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
        now_ns.max(last_ns.expect("it is always updated") + 1)
    }
}

/// A tracer whose spans start by the World's monotonic clock: the SDK would ask the system. Their `SystemTime`s are
/// nanoseconds on that clock; [`IntoQueue`] reads them as such.
struct ClockedTracer {
    tracer: SdkTracer,
    clock: Arc<RisingClock>,
}

impl Tracer for ClockedTracer {
    type Span = Span;

    fn build_with_context(&self, mut builder: SpanBuilder, parent: &Context) -> Span {
        builder.start_time = Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(self.clock.now_ns()));
        self.tracer.build_with_context(builder, parent)
    }
}

/// Takes finished spans to the queue.
struct IntoQueue {
    queue: Arc<ExportQueue>,
    clock: Arc<RisingClock>,
    unix_ns: fn() -> u64,
}

impl fmt::Debug for IntoQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IntoQueue")
    }
}

impl SpanProcessor for IntoQueue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        let now_ns = self.clock.now_ns();
        let span = in_the_schema(span, now_ns);
        self.queue.push_cold(ColdSpan { span, wall_offset_ns: (self.unix_ns)().wrapping_sub(now_ns).cast_signed() });
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The span as those of commands are. It was made by [`ferrite_telemetry::cold_span!`], so that its names are known.
fn in_the_schema(span: SpanData, end_ns: u64) -> ours::Span {
    let name = SpanName::ALL.iter().find(|name| name.as_str() == span.name).expect("it is from the schema");
    let start_ns = span.start_time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let attributes = span.attributes.into_iter().map(|pair| {
        let key = Attribute::ALL.iter().find(|key| key.as_str() == pair.key.as_str()).expect("it is from the schema");
        let value = match pair.value {
            Value::I64(number) => ours::Value::Int(number),
            Value::Bool(truth) => ours::Value::Bool(truth),
            other => ours::Value::Str(other.to_string().into()),
        };
        (*key, value)
    });
    ours::Span {
        trace_id: trace_id(&span.span_context),
        span_id: span_id(span.span_context.span_id()),
        parent_span_id: (span.parent_span_id != SpanId::INVALID).then(|| span_id(span.parent_span_id)),
        parent_is_remote: span.parent_span_is_remote,
        name: *name,
        kind: name.root_kind(),
        start_ns,
        end_ns: end_ns.max(start_ns),
        attributes: attributes.collect(),
        baggage: Arc::default(),
        status: match span.status {
            Status::Error { description } => ours::Status::Error(description.into_owned()),
            Status::Unset | Status::Ok => ours::Status::Unset,
        },
        links: Vec::new(),
        events: Vec::new(),
        tracestate: span.span_context.trace_state().header(),
        flags: FLAG_SAMPLED | FLAG_RANDOM,
        dropped_attributes: 0,
        dropped_events: 0,
        dropped_links: 0,
    }
}

#[cfg(test)]
mod tests;
