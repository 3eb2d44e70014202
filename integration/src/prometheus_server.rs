//! A real Prometheus in a container, and the promtool beside it.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};

use crate::backend::{Images, run};
use crate::{eventually, free_port, http};

/// Pinned together with `ci/common.sh`, which builds the first.
const PROMETHEUS: Images =
    Images { built: ("ferrite-ci/prometheus", "3.13.2"), official: ("prom/prometheus", "v3.13.2") };

/// How often it scrapes: `rate` needs two scrapes, and a test does not wait for fifteen seconds.
pub const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a start may take on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running Prometheus; its container is removed when this goes out of scope.
pub struct PrometheusServer {
    container: ContainerAsync<GenericImage>,
    port: u16,
}

/// One element of an instant vector.
#[derive(Clone, Debug)]
pub struct Element {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// An exemplar as Prometheus stored it.
#[derive(Clone, Debug)]
pub struct StoredExemplar {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl PrometheusServer {
    /// Starts one that scrapes these ports of 127.0.0.1, each under the name of a job.
    pub async fn scraping(jobs: &[(&str, u16)]) -> Self {
        let job = |(name, port): &(&str, u16)| {
            format!("  - job_name: {name}\n    static_configs:\n      - targets: [\"127.0.0.1:{port}\"]\n")
        };
        let jobs: String = jobs.iter().map(job).collect();
        let seconds = SCRAPE_INTERVAL.as_secs();
        Self::with(&format!("global:\n  scrape_interval: {seconds}s\nscrape_configs:\n{jobs}")).await
    }

    /// The same with a configuration of one's own.
    pub async fn with(config: &str) -> Self {
        let port = free_port();
        let container = run(PROMETHEUS
            .chosen()
            .with_cmd([
                "--config.file=/etc/prometheus/prometheus.yml",
                "--storage.tsdb.path=/prometheus",
                "--enable-feature=exemplar-storage",
                &format!("--web.listen-address=127.0.0.1:{port}"),
            ])
            // What it scrapes listens on 127.0.0.1 of the machine that runs the test.
            .with_network("host")
            .with_copy_to("/etc/prometheus/prometheus.yml", config.as_bytes().to_vec()))
        .await;
        eventually("Prometheus is ready", START_LIMIT, async || http::get(port, "/-/ready").await).await;
        Self { container, port }
    }

    /// The answer to a query now, which must be an instant vector.
    pub async fn query(&self, promql: &str) -> Vec<Element> {
        let data = self.ask(&format!("/api/v1/query?query={}", http::encode(promql))).await;
        assert_eq!(data["resultType"], "vector", "{promql}");
        let element =
            |element: &Value| Element { labels: labels(&element["metric"]), value: number(&element["value"][1]) };
        data["result"].as_array().expect("a vector has elements").iter().map(element).collect()
    }

    /// The exemplars of the last hour in the series that a query names.
    pub async fn exemplars(&self, promql: &str) -> Vec<StoredExemplar> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
        let (start, end) = (now - 3600, now + 60);
        let query = http::encode(promql);
        let data = self.ask(&format!("/api/v1/query_exemplars?query={query}&start={start}&end={end}")).await;
        let series = data.as_array().expect("a list of series").iter();
        let stored = series.flat_map(|series| series["exemplars"].as_array().expect("it has some"));
        stored.map(|one| StoredExemplar { labels: labels(&one["labels"]), value: number(&one["value"]) }).collect()
    }

    /// The type that a metric's page declared, if Prometheus knows this metric.
    pub async fn declared_type(&self, metric: &str) -> Option<String> {
        let data = self.ask(&format!("/api/v1/metadata?metric={}", http::encode(metric))).await;
        Some(data[metric][0]["type"].as_str()?.to_owned())
    }

    async fn ask(&self, path_and_query: &str) -> Value {
        let body = http::get(self.port, path_and_query).await;
        let body = body.unwrap_or_else(|| panic!("Prometheus does not answer {path_and_query}"));
        let mut answer: Value = serde_json::from_slice(&body).expect("Prometheus answers in JSON");
        assert_eq!(answer["status"], "success", "{path_and_query}");
        answer["data"].take()
    }

    /// What `promtool check metrics` has to say about a page in the classic format: a line for each finding.
    pub fn promtool_check_metrics(&self, page: &[u8]) -> Vec<String> {
        // The library's exec has no standard input.
        let mut promtool = Command::new("docker")
            .args(["exec", "-i", self.container.id(), "promtool", "check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ci/setup installs docker's command");
        promtool.stdin.take().expect("it is piped").write_all(page).expect("promtool reads");
        let output = promtool.wait_with_output().expect("promtool ends");
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8(printed).expect("text");
        // It ends with 3 if there are findings, with 1 if it could not even read the page.
        assert!(matches!(output.status.code(), Some(0 | 3)), "promtool: {}\n{printed}", output.status);
        printed.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
    }
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    let pairs = object.as_object().expect("labels are an object").iter();
    pairs.map(|(name, value)| (name.clone(), value.as_str().expect("labels are texts").to_owned())).collect()
}

/// Prometheus writes numbers as texts.
fn number(value: &Value) -> f64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is not a number"))
}
