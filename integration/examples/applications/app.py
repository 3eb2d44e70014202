"""An application whose commands are in its own trace, from its span to Ferrite's storage, with the tenant as baggage.

    pip install redis opentelemetry-exporter-otlp-proto-grpc 'integration/clients/python[instrumentation]'
    python app.py

FERRITE_URL and OTEL_EXPORTER_OTLP_ENDPOINT say where Ferrite and the Collector are, if not on this machine.
"""

import os

import redis
from opentelemetry import baggage, context, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from ferrite_tracing import TracingConnection

# Set up OTel tracing
provider = TracerProvider(resource=Resource.create({"service.name": "my-application"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("my-application")

# Auto-instrument the redis client: a span for each command
RedisInstrumentor().instrument()

# A client whose commands carry that span to Ferrite
url = os.environ.get("FERRITE_URL", "redis://localhost:6379")
client = redis.Redis(connection_pool=redis.ConnectionPool.from_url(url, connection_class=TracingConnection))

# What the tenant's commands carry besides
ctx = baggage.set_baggage("tenant.id", "acme-corp")
ctx = baggage.set_baggage("tenant.tier", "enterprise", context=ctx)
token = context.attach(ctx)
try:
    with tracer.start_as_current_span("handle-user-request") as span:
        span.set_attribute("user.id", "user-123")

        client.set("user:123:session", "session-data-here", ex=3600)
        session = client.get("user:123:session")
        client.hset("user:123:profile", mapping={"name": "Alice", "email": "alice@example.com"})
finally:
    context.detach(token)

print(session.decode())
provider.shutdown()
