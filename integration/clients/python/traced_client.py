"""Runs two commands and a pipeline within a span, exports the span, prints what the test compares with Jaeger.

    python traced_client.py REDIS_PORT OTLP_ENDPOINT KEY
"""

import json
import sys

import redis
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from ferrite_tracing import TracingConnection

port, endpoint, key = sys.argv[1:]

provider = TracerProvider(resource=Resource.create({"service.name": "python-client"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=True)))
trace.set_tracer_provider(provider)

pool = redis.ConnectionPool(connection_class=TracingConnection, host="127.0.0.1", port=int(port), protocol=3)
client = redis.Redis(connection_pool=pool)

with trace.get_tracer("test").start_as_current_span("handle-request") as span:
    client.set(key, "value")
    value = client.get(key)
    with client.pipeline(transaction=False) as pipeline:
        replies = pipeline.append(key, "-more").strlen(key).execute()

# Outside of a span there is no context to carry.
client.exists(key)

connection = pool.get_connection()
advertised = connection.server_takes_context()
pool.release(connection)
provider.shutdown()

context = span.get_span_context()
print(json.dumps({
    "advertised": advertised,
    "trace_id": trace.format_trace_id(context.trace_id),
    "span_id": trace.format_span_id(context.span_id),
    "value": value.decode(),
    "replies": replies,
}))
