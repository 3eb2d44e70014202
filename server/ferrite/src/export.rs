//! Starts the export of traces and metrics on the first worker, whose runtime carries it.

use std::pin::Pin;
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

/// The exports under way.
#[derive(Default)]
pub struct Export(Vec<Running>);

/// One export.
struct Running {
    /// Asks for its last flush.
    stop: oneshot::Sender<()>,
    /// Tells when that is done.
    done: oneshot::Receiver<()>,
}

impl Export {
    /// Waits until what is queued has left; each export bounds that itself. What is recorded later stays here.
    pub async fn finish(self) {
        let asked = self.0.into_iter().map(|Running { stop, done }| {
            // A task that ended without a word has nothing left to flush.
            let _ = stop.send(());
            done
        });
        // All are asked before any is waited for.
        for done in asked.collect::<Vec<_>>() {
            let _ = done.await;
        }
    }
}

/// Ready when an export is to end.
type Stop = Pin<Box<dyn Future<Output = ()>>>;

/// Finds a mistake in the settings before anything is started.
pub fn check(config: &Config) -> Result<(), ExportError> {
    if config.telemetry.enabled { settings(config, 0).check() } else { Ok(()) }
}

/// Exports what the configuration asks for, until [`Export::finish`].
pub fn spawn(world: &RealWorld, node: &Arc<Node>) -> Result<Export, ExportError> {
    let telemetry = &node.config.telemetry;
    let mut export = Export::default();
    if !telemetry.enabled {
        return Ok(export);
    }
    if telemetry.exports_traces() {
        let settings = settings(&node.config, telemetry.traces_export_timeout_ms);
        let exporter = grpc_span_exporter(&settings)?;
        let (own, queue) = (world.clone(), node.telemetry.queue.clone());
        export.0.push(run(world, |stop| export_traces(own, queue, exporter, settings, stop)));
    }
    if telemetry.metrics_enabled && telemetry.metrics_exporter == Exporter::Otlp {
        let settings = settings(&node.config, telemetry.metrics_export_timeout_ms);
        let exporter = GrpcMetricExporter::new(&settings)?;
        let (own, collected) = (world.clone(), node.clone());
        let collect = move || ferrite_node::collect(&collected);
        let counts = Arc::new(MetricExportCounts::default());
        let started = node.started_unix_ns;
        export.0.push(run(world, |stop| export_metrics(own, collect, exporter, settings, started, counts, stop)));
    }
    Ok(export)
}

/// Runs the export that `start` makes, which flushes and ends when the future that it is given is ready.
fn run<F: Future<Output = ()> + 'static>(world: &RealWorld, start: impl FnOnce(Stop) -> F) -> Running {
    let (stop, stopped) = oneshot::channel();
    let (finished, done) = oneshot::channel();
    // If nobody is left who could ask, that is an end too.
    let task = start(Box::pin(async { drop(stopped.await) }));
    world.spawn(async move {
        task.await;
        // Nobody waits any more if the worker failed.
        let _ = finished.send(());
    });
    Running { stop, done }
}

/// `timeout_ms`: the signal's own; 0 means that of all signals.
fn settings(config: &Config, timeout_ms: u64) -> ExportSettings {
    let telemetry = &config.telemetry;
    let timeout_ms = if timeout_ms == 0 { telemetry.export_timeout_ms } else { timeout_ms };
    ExportSettings {
        endpoint: telemetry.endpoint.clone(),
        protocol: match telemetry.protocol {
            OtlpProtocol::Grpc => Protocol::Grpc,
            OtlpProtocol::Http => Protocol::Http,
        },
        headers: telemetry.headers.clone(),
        timeout: Duration::from_millis(timeout_ms),
        service_name: telemetry.service_name.clone(),
        service_version: telemetry.service_version.clone(),
        service_namespace: telemetry.service_namespace.clone(),
        resource_attributes: telemetry.resource_attributes.clone(),
        shape: Arc::new(telemetry.shape()),
        batch_timeout: Duration::from_millis(telemetry.batch_timeout_ms),
        metrics_interval: Duration::from_secs_f64(telemetry.metrics_export_interval),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_s_own_timeout_goes_over_that_of_all() {
        let mut config = Config::default();
        config.telemetry.export_timeout_ms = 3000;
        assert_eq!(settings(&config, 0).timeout, Duration::from_secs(3));
        assert_eq!(settings(&config, 700).timeout, Duration::from_millis(700));
        // The specification's default.
        assert_eq!(settings(&Config::default(), 0).timeout, Duration::from_secs(10));
    }
}
