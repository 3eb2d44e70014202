//! A Collector that hands traces on to a Jaeger, both in containers on a network of their own.

use std::time::Duration;

use testcontainers::core::{Host, IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt};

use crate::prometheus::Sample;
use crate::{eventually, free_port, http, prometheus};

const OTLP_GRPC: u16 = 4317;
const OTLP_HTTP: u16 = 4318;
const QUERY: u16 = 16686;
/// Where the Collector's configuration serves the metrics that it was sent.
const METRICS: u16 = 8889;

/// Pinned together with `ci/common.sh`, which builds the first of each pair.
const COLLECTOR: Images =
    Images { built: ("ferrite-ci/otelcol", "0.159.0"), official: ("otel/opentelemetry-collector-contrib", "0.159.0") };
const JAEGER: Images = Images { built: ("ferrite-ci/jaeger", "2.13"), official: ("jaegertracing/jaeger", "2.13.0") };

/// Batches are handed on at once, and nothing is kept for later: a span that Jaeger lacks was not received.
const COLLECTOR_CONFIG: &str = include_str!("../images/otelcol/config.yaml");

/// What takes logs where Loki does, and prints them: Loki's way in is OTLP too.
const LOKI_CONFIG: &str = "
receivers:
  otlp:
    protocols:
      http:
        endpoint: 0.0.0.0:3100
        logs_url_path: /otlp/v1/logs
exporters:
  debug:
    verbosity: detailed
service:
  telemetry:
    metrics:
      level: none
  pipelines:
    logs:
      receivers: [otlp]
      exporters: [debug]
";

/// Name and tag of an image, and of the official one that it stands in for.
pub(crate) struct Images {
    pub(crate) built: (&'static str, &'static str),
    pub(crate) official: (&'static str, &'static str),
}

impl Images {
    pub(crate) fn chosen(&self) -> GenericImage {
        let (name, tag) = match std::env::var("FERRITE_IMAGES").as_deref() {
            Ok("official") => self.official,
            Ok("built") | Err(_) => self.built,
            Ok(other) => panic!("FERRITE_IMAGES is `built` or `official`, not `{other}`"),
        };
        GenericImage::new(name, tag)
    }
}

/// Both containers; they are removed when this goes out of scope.
pub struct Backend {
    pub collector: ContainerAsync<GenericImage>,
    _jaeger: ContainerAsync<GenericImage>,
    loki: Option<ContainerAsync<GenericImage>>,
    /// Where Ferrite sends its telemetry; stays the same when the Collector is stopped and started.
    pub endpoint: String,
    /// The same over HTTP, without its scheme.
    pub http: String,
    /// Where Jaeger's query API answers.
    pub jaeger_port: u16,
    /// Where the Collector serves the metrics that it was sent.
    pub metrics_port: u16,
}

impl Backend {
    /// Starts both and waits until they take spans and answer queries.
    pub async fn start() -> Self {
        Self::with(COLLECTOR_CONFIG, &[]).await
    }

    /// The same with another configuration of the Collector and files beside it: names and contents.
    pub async fn with(config: &str, files: &[(&str, Vec<u8>)]) -> Self {
        Self::build(config, files, false).await
    }

    /// With a configuration that sends logs to `loki`, and something there that takes them.
    pub async fn with_loki(config: &str) -> Self {
        Self::build(config, &[], true).await
    }

    async fn build(config: &str, files: &[(&str, Vec<u8>)], with_loki: bool) -> Self {
        // Containers of parallel tests meet on one engine: names differ by a port nobody else has.
        let (collector_port, http_port, metrics_port) = (free_port(), free_port(), free_port());
        let network = format!("ferrite-{collector_port}");
        let jaeger_name = format!("ferrite-jaeger-{collector_port}");

        let jaeger = run(JAEGER
            .chosen()
            .with_exposed_port(QUERY.tcp())
            .with_network(&network)
            .with_container_name(&jaeger_name)
            .with_env_var("JAEGER_LISTEN_HOST", "0.0.0.0"))
        .await;
        let jaeger_port = jaeger.get_host_port_ipv4(QUERY.tcp()).await.expect("the port is exposed");
        let jaeger_address = jaeger.get_bridge_ip_address().await.expect("it is on a network");

        let loki = match with_loki {
            true => Some(run(collector_with(LOKI_CONFIG).with_network(&network)).await),
            false => None,
        };

        let mut collector = collector_with(config)
            .with_mapped_port(collector_port, OTLP_GRPC.tcp())
            .with_mapped_port(http_port, OTLP_HTTP.tcp())
            .with_mapped_port(metrics_port, METRICS.tcp())
            .with_network(&network)
            // Under the names that the examples have: Jaeger takes OTLP as Tempo does.
            .with_host("jaeger", Host::Addr(jaeger_address))
            .with_host("tempo", Host::Addr(jaeger_address))
            .with_env_var("JAEGER_ENDPOINT", format!("{jaeger_name}:{OTLP_GRPC}"));
        if let Some(loki) = &loki {
            let address = loki.get_bridge_ip_address().await.expect("it is on a network");
            collector = collector.with_host("loki", Host::Addr(address));
        }
        for (name, contents) in files {
            collector = collector.with_copy_to(format!("/etc/otelcol-contrib/{name}"), contents.clone());
        }
        let collector = run(collector).await;

        eventually("Jaeger answers queries", Duration::from_secs(30), async || {
            http::get(jaeger_port, "/api/services").await
        })
        .await;
        let endpoint = format!("http://127.0.0.1:{collector_port}");
        let http = format!("localhost:{http_port}");
        Self { collector, _jaeger: jaeger, loki, endpoint, http, jaeger_port, metrics_port }
    }

    /// What the Collector has printed.
    pub async fn output(&self) -> String {
        output(&self.collector).await
    }

    /// What has come to `loki`, as the Collector prints it.
    pub async fn logs_in_loki(&self) -> String {
        output(self.loki.as_ref().expect("the test has asked for it")).await
    }

    /// The metrics that the Collector has; none while it does not answer.
    pub async fn metrics(&self) -> Vec<Sample> {
        let page = http::get(self.metrics_port, "/metrics").await.unwrap_or_default();
        let page = String::from_utf8(page).expect("text");
        prometheus::parse(&page).unwrap_or_else(|error| panic!("{error}\nin\n{page}"))
    }
}

/// A Collector with this configuration; started once it takes data.
fn collector_with(config: &str) -> ContainerRequest<GenericImage> {
    COLLECTOR
        .chosen()
        .with_wait_for(WaitFor::message_on_stderr("Everything is ready"))
        .with_copy_to("/etc/otelcol-contrib/config.yaml", config.as_bytes().to_vec())
}

/// What the Collector says of a configuration that it does not take.
pub async fn validate(config: &str) -> Result<(), String> {
    let validation = COLLECTOR
        .chosen()
        .with_cmd(["validate", "--config", "/etc/otelcol-contrib/config.yaml"])
        .with_copy_to("/etc/otelcol-contrib/config.yaml", config.as_bytes().to_vec());
    let validation = run(validation).await;
    let status = eventually("the Collector has looked at it", Duration::from_secs(30), async || {
        validation.exit_code().await.expect("the engine knows")
    })
    .await;
    if status == 0 { Ok(()) } else { Err(output(&validation).await) }
}

async fn output(container: &ContainerAsync<GenericImage>) -> String {
    let output = container.stderr_to_vec().await.expect("the engine has it");
    String::from_utf8_lossy(&output).into_owned()
}

pub(crate) async fn run(request: ContainerRequest<GenericImage>) -> ContainerAsync<GenericImage> {
    request.start().await.unwrap_or_else(|error| {
        panic!("{error}\n\nThese tests need a container engine that has the images. This starts one:\n\n    eval \"$(ci/images start)\"\n")
    })
}
