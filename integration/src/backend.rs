//! A Collector that hands traces on to a Jaeger, both in containers on a network of their own.

use std::time::Duration;

use testcontainers::core::{IntoContainerPort, WaitFor};
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

struct Images {
    built: (&'static str, &'static str),
    official: (&'static str, &'static str),
}

impl Images {
    fn chosen(&self) -> GenericImage {
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
    /// Where Ferrite sends its telemetry; stays the same when the Collector is stopped and started.
    pub endpoint: String,
    /// The same over HTTP, without its scheme.
    pub http: String,
    /// Where Jaeger's query API answers.
    pub jaeger_port: u16,
    metrics_port: u16,
}

impl Backend {
    /// Starts both and waits until they take spans and answer queries.
    pub async fn start() -> Self {
        Self::with(COLLECTOR_CONFIG, &[]).await
    }

    /// The same with another configuration of the Collector and files beside it: names and contents.
    pub async fn with(config: &str, files: &[(&str, Vec<u8>)]) -> Self {
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

        let mut collector = COLLECTOR
            .chosen()
            .with_wait_for(WaitFor::message_on_stderr("Everything is ready"))
            .with_mapped_port(collector_port, OTLP_GRPC.tcp())
            .with_mapped_port(http_port, OTLP_HTTP.tcp())
            .with_mapped_port(metrics_port, METRICS.tcp())
            .with_network(&network)
            .with_env_var("JAEGER_ENDPOINT", format!("{jaeger_name}:{OTLP_GRPC}"))
            .with_copy_to("/etc/otelcol-contrib/config.yaml", config.as_bytes().to_vec());
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
        Self { collector, _jaeger: jaeger, endpoint, http, jaeger_port, metrics_port }
    }

    /// What the Collector has printed.
    pub async fn output(&self) -> String {
        let output = self.collector.stderr_to_vec().await.expect("the engine has it");
        String::from_utf8_lossy(&output).into_owned()
    }

    /// The metrics that the Collector has; none while it does not answer.
    pub async fn metrics(&self) -> Vec<Sample> {
        let page = http::get(self.metrics_port, "/metrics").await.unwrap_or_default();
        let page = String::from_utf8(page).expect("text");
        prometheus::parse(&page).unwrap_or_else(|error| panic!("{error}\nin\n{page}"))
    }
}

async fn run(request: ContainerRequest<GenericImage>) -> ContainerAsync<GenericImage> {
    request.start().await.unwrap_or_else(|error| {
        panic!("{error}\n\nThese tests need a container engine that has the images. This starts one:\n\n    eval \"$(ci/images start)\"\n")
    })
}
