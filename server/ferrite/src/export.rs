//! Starts the export of traces, metrics and logs, as tasks of a thread that serves no commands.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ferrite_io::World;
use ferrite_io_real::RealWorld;
use ferrite_node::Node;
use ferrite_node::config::{self, Config, Exporters, HistogramAggregation, TelemetryConfig};
use ferrite_otlp::{
    Aggregation, Exchange, ExportSettings, NoBackend, OtlpExchange, Print, Signal, Temporality, export_logs,
    export_metrics, export_traces,
};
use tokio::sync::oneshot;

use crate::destination::{Mistake, destination};

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
pub fn check(config: &Config) -> Result<(), Mistake> {
    let telemetry = &config.telemetry;
    for (signal, exporters) in exported(telemetry) {
        if exporters.otlp {
            destination(telemetry, signal)?;
        }
    }
    Ok(())
}

/// What leaves the process, and where to.
fn exported(telemetry: &TelemetryConfig) -> impl Iterator<Item = (Signal, Exporters)> {
    let traces = telemetry.exports_traces().then_some((Signal::Traces, telemetry.traces_exporter));
    let metrics = telemetry.exports_metrics().then_some((Signal::Metrics, telemetry.metrics_exporter));
    let logs = telemetry.exports_logs().then_some((Signal::Logs, telemetry.logs_exporter));
    [traces, metrics, logs].into_iter().flatten()
}

/// Exports what the configuration asks for, until [`Export::finish`].
pub fn spawn(world: &RealWorld, node: &Arc<Node>) -> Result<Export, Mistake> {
    let telemetry = &node.config.telemetry;
    let mut export = Export::default();
    for (signal, exporters) in exported(telemetry) {
        let mut settings = settings(telemetry, signal);
        settings.console = exporters.console.then(|| Arc::new(print) as Print);
        export.0.push(if exporters.otlp {
            let destination = destination(telemetry, signal)?;
            settings.timeout = destination.timeout;
            let exchange =
                OtlpExchange::on(world, &destination).map_err(|error| Mistake::of(telemetry, signal, error))?;
            start(world, node, signal, exchange, settings)
        } else {
            start(world, node, signal, NoBackend, settings)
        });
    }
    Ok(export)
}

/// One write a line, so that none of another thread comes in between. Who does not read standard output any more cannot be told.
fn print(line: &str) {
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}

fn start<X: Exchange + 'static>(
    world: &RealWorld,
    node: &Arc<Node>,
    signal: Signal,
    exchange: X,
    settings: ExportSettings,
) -> Running {
    let own = world.clone();
    match signal {
        Signal::Traces => {
            let queue = node.telemetry.queue.clone();
            run(world, |stop| export_traces(own, queue, exchange, settings, stop))
        }
        Signal::Metrics => {
            let collected = node.clone();
            let collect = move || {
                collected.telemetry.metrics.end_interval();
                ferrite_node::collect(&collected)
            };
            let counts = Arc::clone(&node.telemetry.metric_exports);
            let started = node.started_unix_ns;
            run(world, |stop| export_metrics(own, collect, exchange, settings, started, counts, stop))
        }
        Signal::Logs => {
            let queue = node.telemetry.logs.clone();
            run(world, |stop| export_logs(own, queue, exchange, settings, stop))
        }
    }
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

fn settings(telemetry: &TelemetryConfig, signal: Signal) -> ExportSettings {
    let (own, batch_timeout_ms) = match signal {
        Signal::Traces => (&telemetry.traces, telemetry.batch_timeout_ms),
        Signal::Metrics => (&telemetry.metrics, telemetry.batch_timeout_ms),
        Signal::Logs => (&telemetry.logs, telemetry.logs_batch_timeout_ms),
    };
    ExportSettings {
        timeout: Duration::from_millis(telemetry.export_timeout_ms),
        deadline: (own.deadline_ms > 0).then(|| Duration::from_millis(own.deadline_ms)),
        service_name: telemetry.service_name.clone(),
        service_version: telemetry.service_version.clone(),
        service_namespace: telemetry.service_namespace.clone(),
        resource_attributes: telemetry.resource_attributes.clone(),
        detected: crate::process::resource(),
        shape: Arc::new(telemetry.shape()),
        batch_timeout: Duration::from_millis(batch_timeout_ms),
        metrics_interval: Duration::from_secs_f64(telemetry.metrics_export_interval),
        temporality: match telemetry.metrics_temporality {
            config::Temporality::Cumulative => Temporality::Cumulative,
            config::Temporality::Delta | config::Temporality::LowMemory => Temporality::Delta,
        },
        aggregation: match telemetry.metrics_histogram_aggregation {
            HistogramAggregation::ExplicitBucket => Aggregation::Explicit,
            HistogramAggregation::Base2Exponential => Aggregation::Exponential,
        },
        console: None,
    }
}
