# Sourced by every script in ci/: versions, the cache folder, messages. Prints and starts nothing.
# shellcheck shell=bash disable=SC2034

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# Everything slow to make is kept here, outside the checkout, under names that carry the version.
cache="${FERRITE_CI_CACHE:-$HOME/.cache/ferrite-ci}"
mkdir -p "$cache/bin"

otelcol_version=0.159.0
# Jaeger 2 is released as module version 1.x: v1.76.0 is Jaeger 2.13.0.
jaeger_version=2.13
jaeger_module_version=v1.76.0
jaeger_official_version=2.13.0
# Prometheus 3 is released as module version 0.3xx: v0.313.2 is Prometheus 3.13.2.
prometheus_version=3.13.2
prometheus_module_version=v0.313.2

otelcol_image="ferrite-ci/otelcol:$otelcol_version"
jaeger_image="ferrite-ci/jaeger:$jaeger_version"
prometheus_image="ferrite-ci/prometheus:$prometheus_version"
otelcol_official="otel/opentelemetry-collector-contrib:$otelcol_version"
jaeger_official="jaegertracing/jaeger:$jaeger_official_version"
prometheus_official="prom/prometheus:v$prometheus_version"

# A change of what goes into a build changes its name in the cache.
content_key() { cat "$@" | sha256sum | cut -c1-8; }
otelcol_binary="$cache/bin/otelcol-$otelcol_version-$(content_key "$root/integration/images/otelcol/builder.yaml")"
jaeger_binary="$cache/bin/jaeger-$jaeger_version"
prometheus_binary="$cache/bin/prometheus-$prometheus_version"
promtool_binary="$cache/bin/promtool-$prometheus_version"
go_sampler="$cache/bin/go-sampler-$(content_key "$root"/conformance/peers/sampler-go/*)"
go_client="$cache/bin/go-client-$(content_key "$root"/integration/clients/go/{go.mod,go.sum,*.go,cmd/*/*.go})"
node_client="$cache/node-$(cd "$root/integration/clients/node" && content_key package{,-lock}.json {context,ioredis,redis}.js *.ts README.md)"
java_client="$cache/java-$(cd "$root/integration/clients/java" && content_key $(find . -name pom.xml -o -name '*.java' | sort))"
venv="$cache/python-$(cd "$root/integration/clients/python" && content_key requirements.txt pyproject.toml README.md ferrite_tracing/*.py)"

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
die() { say "$@"; exit 1; }
