"""Sends commands within spans through an instrumented redis-py, prints what the test compares with Jaeger.

    python traced_client.py REDIS_PORT OTLP_ENDPOINT KEY REQUESTS
"""

import asyncio
import json
import sys

import redis
import redis.asyncio
from opentelemetry import baggage, context, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from ferrite_tracing import AsyncTracingConnection, TracingConnection

port, endpoint, key, requests = sys.argv[1:]

provider = TracerProvider(resource=Resource.create({"service.name": "python-client"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=True)))
trace.set_tracer_provider(provider)
RedisInstrumentor().instrument()
tracer = trace.get_tracer("test")


def ids(span):
    of_span = span.get_span_context()
    return [trace.format_trace_id(of_span.trace_id), trace.format_span_id(of_span.span_id)]


def carrying(name):
    """A context with baggage, of which the server is to show the first member."""
    return baggage.set_baggage("secret", "x", baggage.set_baggage("request.key", name, context.Context()))


pool = redis.ConnectionPool(connection_class=TracingConnection, host="127.0.0.1", port=int(port))
client = redis.Redis(connection_pool=pool)

outside = context.attach(carrying(key))
with tracer.start_as_current_span("handle-request") as request:
    client.set(key, "value")
    value = client.get(key)
    with client.pipeline(transaction=False) as pipeline:
        replies = pipeline.append(key, "-more").strlen(key).execute()
    with client.pipeline(transaction=True) as pipeline:
        replies += pipeline.getrange(key, 0, 0).execute()

# Outside of a span there is no context to carry.
context.detach(outside)
client.exists(key)

connection = pool.get_connection()
advertised = connection.server_takes_context()
pool.release(connection)


async def many(count):
    """That many at once, each in a trace of its own, over a few connections."""
    pool = redis.asyncio.BlockingConnectionPool(
        connection_class=AsyncTracingConnection, host="127.0.0.1", port=int(port), max_connections=16, timeout=None)
    client = redis.asyncio.Redis(connection_pool=pool)

    async def one(number):
        name = f"{key}:{number}"
        context.attach(carrying(name))
        with tracer.start_as_current_span("request") as span:
            await client.set(name, number)
            return [*ids(span), name]

    done = await asyncio.gather(*(one(number) for number in range(count)))
    await client.aclose()
    await pool.disconnect()
    return done


done = asyncio.run(many(int(requests)))
provider.shutdown()
print(json.dumps({
    "advertised": advertised,
    "request": ids(request),
    "value": value.decode(),
    "replies": [reply.decode() if isinstance(reply, bytes) else reply for reply in replies],
    "requests": done,
}))
