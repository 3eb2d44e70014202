//! The client helpers of `clients/`, one language after the other, each with its unmodified library and the instrumentation
//! that its ecosystem has.

use std::path::PathBuf;

use ferrite_integration::clients;
use tokio::process::Command;

/// What `ci/setup` made ready and `ci/test peers` names.
fn made_ready(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run `ci/setup`; `ci/test peers` sets it"))
}

fn source(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients").join(path)
}

#[tokio::test]
async fn commands_of_redis_py_are_children_of_its_spans() {
    clients::check("python-client", |_| {
        let mut program = Command::new(made_ready("FERRITE_PYTHON"));
        // Not the folder beside the program: the helper is the package that is installed.
        program.arg(source("python/traced_client.py")).env("PYTHONSAFEPATH", "1");
        program
    })
    .await;
}

#[tokio::test]
async fn commands_of_the_redis_crate_are_children_of_its_spans() {
    clients::check("rust-client", |_| Command::new(env!("CARGO_BIN_EXE_rust_client"))).await;
}

#[tokio::test]
async fn commands_of_go_redis_are_children_of_its_spans() {
    clients::check("go-client", |_| Command::new(made_ready("FERRITE_GO_CLIENT"))).await;
}

/// The packages, the helper's own among them, lie in the cache; the program is run where it is.
fn node(library: &str) -> Command {
    let mut program = Command::new("node");
    program.arg(source("node/traced-client.js")).arg(library).env("NODE_PATH", made_ready("FERRITE_NODE_MODULES"));
    program
}

#[tokio::test]
async fn commands_of_ioredis_are_children_of_its_spans() {
    clients::check("ioredis-client", |_| node("ioredis")).await;
}

#[tokio::test]
async fn commands_of_node_redis_are_children_of_its_spans() {
    clients::check("redis-client", |_| node("redis")).await;
}

fn java(library: &str, options: &[String]) -> Command {
    let built = made_ready("FERRITE_JAVA_CLIENT");
    let mut program = Command::new("java");
    // A short run: what it would gain from the better compiler it does not live to see.
    program.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]).args(options);
    program.args(["-cp", &format!("{built}/program/target/classes:{built}/program/lib/*"), "TracedClient", library]);
    program
}

/// The same under OpenTelemetry's agent, which makes an SDK of its own from what it is told.
fn java_with_agent(library: &str, service: &str) -> impl Fn(&str) -> Command {
    let agent = format!("{}/program/agent/opentelemetry-javaagent.jar", made_ready("FERRITE_JAVA_CLIENT"));
    let (library, service) = (library.to_owned(), service.to_owned());
    move |endpoint| {
        let mut options = vec![format!("-javaagent:{agent}"), "-Dwith.agent=true".to_owned()];
        let settings = [
            ("service.name", &*service),
            ("exporter.otlp.endpoint", endpoint),
            ("exporter.otlp.protocol", "grpc"),
            ("metrics.exporter", "none"),
            ("logs.exporter", "none"),
            // Its spans of a pipeline come too late to be carried; see the helper's README.
            ("instrumentation.jedis.enabled", "false"),
        ];
        options.extend(settings.map(|(name, value)| format!("-Dotel.{name}={value}")));
        java(&library, &options)
    }
}

#[tokio::test]
async fn commands_of_jedis_are_children_of_its_spans() {
    clients::check("jedis-client", |_| java("jedis", &[])).await;
}

#[tokio::test]
async fn commands_of_lettuce_are_children_of_its_spans() {
    clients::check("lettuce-client", |_| java("lettuce", &[])).await;
}

#[tokio::test]
async fn commands_of_jedis_are_children_of_its_spans_under_the_agent_too() {
    clients::check("jedis-agent-client", java_with_agent("jedis", "jedis-agent-client")).await;
}

#[tokio::test]
async fn commands_of_lettuce_are_children_of_its_spans_under_the_agent_too() {
    clients::check("lettuce-agent-client", java_with_agent("lettuce", "lettuce-agent-client")).await;
}
