//! The log's flush, as traces and metrics: what a worker's recorder and the node are told of each of its runs.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;

use ferrite_hybridlog::FlushRun;
use ferrite_io::World;
use ferrite_otlp::DiskWork;
use ferrite_telemetry::Value;
use ferrite_telemetry::schema::{Attribute, SpanName};

use crate::failure::Failure;
use crate::node::Node;
use crate::worker::Worker;

/// The worker whose traces tell of the flush. The flush begins before there is one: what a recovery writes is a part of that.
pub(crate) type Reporter<W> = Rc<OnceCell<Rc<Worker<W>>>>;

/// To be called with each run.
pub(crate) fn on_run<W: World>(node: Arc<Node>, reporter: Reporter<W>) -> impl Fn(FlushRun) {
    move |run| {
        node.telemetry.metrics.flush(run.began_ns, run.ended_ns);
        if let Some(worker) = reporter.get() {
            record(worker, run);
        }
    }
}

/// The run as a trace of its own.
fn record<W: World>(worker: &Worker<W>, run: FlushRun) {
    let count = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let attributes = [
        (Attribute::FlushPagesCount, count(run.pages)),
        (Attribute::FlushBytes, count(run.bytes)),
        (Attribute::FlushEpoch, count(run.epoch)),
    ];
    let exemplar = Some((DiskWork::Flush, run.ended_ns));
    worker.record_work_of(SpanName::Flush, run.began_ns, &attributes, run.error.map(Failure::from), exemplar);
}
