//! Starts the export of traces and metrics on the first worker, whose runtime carries it.

use std::sync::Arc;
use std::time::Duration;

use ferrite_io::World;
use ferrite_io_real::RealWorld;
use ferrite_node::Node;
use ferrite_node::config::{Config, Exporter, OtlpProtocol};
use ferrite_otlp::{
    ExportError, ExportSettings, GrpcMetricExporter, MetricExportCounts, Protocol, export_metrics, export_traces,
    grpc_span_exporter,
};
use tokio::sync::oneshot;

/// How long one export may take: the specification's default for `OTEL_EXPORTER_OTLP_TIMEOUT`.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// The exports under way: each tells when its last flush is done.
#[derive(Default)]
pub struct Export(Vec<oneshot::Receiver<()>>);

impl Export {
    /// Waits until what is queued has left; each export bounds that itself.
    pub async fn finish(self) {
        for done in self.0 {
            // A task that ended without a word has nothing left to flush.
            let _ = done.await;
        }
    }
}

/// Finds a mistake in the settings before anything is started.
pub fn check(config: &Config) -> Result<(), ExportError> {
    if config.telemetry.enabled { settings(config).check() } else { Ok(()) }
}

/// Exports what the configuration asks for, until the node is shut down.
pub fn spawn(world: &RealWorld, node: &Arc<Node>) -> Result<Export, ExportError> {
    let telemetry = &node.config.telemetry;
    let mut export = Export::default();
    if !telemetry.enabled {
        return Ok(export);
    }
    let settings = settings(&node.config);
    if telemetry.traces_enabled && telemetry.traces_exporter == Exporter::Otlp {
        let exporter = grpc_span_exporter(&settings)?;
        let task = export_traces(
            world.clone(),
            node.telemetry.queue.clone(),
            exporter,
            settings.clone(),
            shut_down(node.clone()),
        );
        export.0.push(run(world, task));
    }
    if telemetry.metrics_enabled && telemetry.metrics_exporter == Exporter::Otlp {
        let exporter = GrpcMetricExporter::new(&settings)?;
        let collected = node.clone();
        let task = export_metrics(
            world.clone(),
            move || ferrite_node::collect(&collected),
            exporter,
            settings,
            node.started_unix_ns,
            Arc::new(MetricExportCounts::default()),
            shut_down(node.clone()),
        );
        export.0.push(run(world, task));
    }
    Ok(export)
}

async fn shut_down(node: Arc<Node>) {
    node.shutdown.wait().await;
}

fn run(world: &RealWorld, task: impl Future<Output = ()> + 'static) -> oneshot::Receiver<()> {
    let (done, finished) = oneshot::channel();
    world.spawn(async move {
        task.await;
        // Nobody waits any more if the worker failed.
        let _ = done.send(());
    });
    finished
}

fn settings(config: &Config) -> ExportSettings {
    let telemetry = &config.telemetry;
    ExportSettings {
        endpoint: telemetry.endpoint.clone(),
        protocol: match telemetry.protocol {
            OtlpProtocol::Grpc => Protocol::Grpc,
            OtlpProtocol::Http => Protocol::Http,
        },
        headers: telemetry.headers.clone(),
        timeout: EXPORT_TIMEOUT,
        service_name: telemetry.service_name.clone(),
        service_version: telemetry.service_version.clone(),
        service_namespace: telemetry.service_namespace.clone(),
        resource_attributes: telemetry.resource_attributes.clone(),
        batch_timeout: Duration::from_millis(telemetry.batch_timeout_ms),
        metrics_interval: Duration::from_secs_f64(telemetry.metrics_export_interval),
    }
}
