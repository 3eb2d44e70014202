//! Every signal over both transports, compressed, with TLS and a client's certificate, into a real Collector.

use std::path::Path;
use std::time::Duration;

use ferrite_golden_traces::Attribute;
use ferrite_integration::backend::Backend;
use ferrite_integration::server::Server;
use ferrite_integration::{eventually, jaeger};
use ferrite_telemetry::schema::{Metric, prometheus_name};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// As the usual one, with TLS that asks for a certificate; what it gets of logs is printed.
const CONFIG: &str = "
receivers:
  otlp:
    protocols:
      grpc:
        endpoint: 0.0.0.0:4317
        tls: &tls
          cert_file: /etc/otelcol-contrib/server.pem
          key_file: /etc/otelcol-contrib/server.key
          client_ca_file: /etc/otelcol-contrib/ca.pem
      http:
        endpoint: 0.0.0.0:4318
        tls: *tls
exporters:
  otlp:
    endpoint: ${env:JAEGER_ENDPOINT}
    tls:
      insecure: true
    sending_queue:
      enabled: false
  prometheus:
    endpoint: 0.0.0.0:8889
    translation_strategy: UnderscoreEscapingWithoutSuffixes
  debug:
    verbosity: detailed
service:
  telemetry:
    metrics:
      level: none
  pipelines:
    traces:
      receivers: [otlp]
      exporters: [otlp]
    metrics:
      receivers: [otlp]
      exporters: [prometheus]
    logs:
      receivers: [otlp]
      exporters: [debug]
";

const LIMIT: Duration = Duration::from_secs(60);

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("they are good");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        Self(CertifiedIssuer::self_signed(params, key).expect("it can be signed"))
    }

    /// A certificate for these hosts and its key, in PEM.
    fn signed(&self, hosts: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let params = CertificateParams::new(hosts).expect("they are good");
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.0).expect("it can be signed");
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }
}

fn write(folder: &Path, name: &str, contents: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, contents).expect("it can be written");
    path.to_str().expect("a plain path").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_metrics_and_logs_arrive_over_both_transports_compressed_and_with_certificates() {
    let authority = Authority::new();
    let (certificate, key) = authority.signed(&["localhost"]);
    let files = [("server.pem", certificate), ("server.key", key), ("ca.pem", authority.0.pem().into_bytes())];
    let backend = Backend::with(CONFIG, &files).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = authority.signed(&[]);
    let ca = write(folder.path(), "ca.pem", authority.0.pem().as_bytes());
    let (certificate, key) =
        (write(folder.path(), "client.pem", &certificate), write(folder.path(), "client.key", &key));

    let grpc = backend.endpoint.replace("http://127.0.0.1", "https://localhost");
    for (protocol, endpoint) in [("grpc", grpc), ("http", format!("https://{}", backend.http))] {
        let service = format!("ferrite-{protocol}");
        let options = [
            ["--telemetry.enabled", "true"],
            ["--telemetry.endpoint", &endpoint],
            ["--telemetry.protocol", protocol],
            ["--telemetry.compression", "gzip"],
            ["--telemetry.certificate", &ca],
            ["--telemetry.client_certificate", &certificate],
            ["--telemetry.client_key", &key],
            ["--telemetry.service_name", &service],
            ["--telemetry.batch_timeout_ms", "100"],
            ["--telemetry.metrics_export_interval", "1"],
            ["--logging.commands", "all"],
        ];
        let mut server = Server::start(&options.concat()).await;
        let mut connection = server.connect().await;
        let name = format!("sent:{protocol}");
        redis::cmd("SET").arg(&name).arg("1").exec_async(&mut connection).await.expect("SET works");

        jaeger::wait_for(backend.jaeger_port, &service, &[(Attribute::CommandKey, &name)]).await;
        let commands = prometheus_name(Metric::COMMANDS_TOTAL.name);
        eventually("metrics arrive", LIMIT, async || {
            backend.metrics().await.iter().any(|sample| sample.name == commands).then_some(())
        })
        .await;
        eventually("the command's log line arrives", LIMIT, async || {
            let output = backend.output().await;
            let records = output.split("LogRecord #");
            let ours = records.filter(|record| record.contains(&name)).any(|record| {
                record.contains("Body: Str(Command executed)")
                    && record.contains("SeverityText: INFO")
                    // An empty one has nothing behind the colon.
                    && record.lines().any(|line| line.starts_with("Trace ID: ") && line.len() == 10 + 32)
            });
            ours.then_some(())
        })
        .await;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_server_without_a_certificate_exports_nothing_and_serves_all_the_same() {
    let authority = Authority::new();
    let (certificate, key) = authority.signed(&["localhost"]);
    let files = [("server.pem", certificate), ("server.key", key), ("ca.pem", authority.0.pem().into_bytes())];
    let backend = Backend::with(CONFIG, &files).await;
    let folder = tempfile::tempdir().expect("a folder");
    let ca = write(folder.path(), "ca.pem", authority.0.pem().as_bytes());
    let endpoint = format!("https://{}", backend.http);
    let options = [
        ["--telemetry.enabled", "true"],
        ["--telemetry.endpoint", &endpoint],
        ["--telemetry.protocol", "http"],
        ["--telemetry.certificate", &ca],
        ["--telemetry.batch_timeout_ms", "100"],
    ];
    let server = Server::start(&options.concat()).await;
    eventually("the failure is told", LIMIT, async || {
        server.output().contains("telemetry cannot be exported").then_some(())
    })
    .await;
    let mut connection = server.connect().await;
    redis::cmd("SET").arg("kept").arg("1").exec_async(&mut connection).await.expect("SET works");
    assert_eq!(server.metric(&prometheus_name(Metric::SPANS_EXPORTED.name)).await, 0.0);
}
