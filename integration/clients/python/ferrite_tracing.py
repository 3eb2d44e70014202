"""Joins redis-py's commands to the caller's OpenTelemetry trace, if the server understands it.

    client = redis.Redis(connection_pool=redis.ConnectionPool(connection_class=TracingConnection, protocol=3, ...))

Ferrite takes the trace context from a RESP attribute in front of a command and says so in HELLO's reply (`trace-context`).
A server that does not say so (stock Redis does not know attributes on input) is sent plain commands.
"""

import redis
from opentelemetry import propagate

# What of the propagators' headers a command may carry.
CARRIED = ("traceparent", "tracestate", "baggage")


def context_attribute() -> bytes:
    """The current context as a RESP attribute; empty outside of a span."""
    headers = {}
    propagate.inject(headers)
    pairs = [(name.encode(), headers[name].encode()) for name in CARRIED if headers.get(name)]
    if not any(name == b"traceparent" for name, _ in pairs):
        return b""
    bulks = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for pair in pairs for part in pair)
    return b"|%d\r\n%s" % (len(pairs), bulks)


class TracingConnection(redis.Connection):
    """A connection whose commands carry the context of the span in which they are sent."""

    def _construct_command_packer(self, packer):
        packer = super()._construct_command_packer(packer)
        plain_pack = packer.pack

        def pack(*args):
            chunks = plain_pack(*args)
            attribute = context_attribute() if self.server_takes_context() else b""
            return [attribute, *chunks] if attribute else chunks

        packer.pack = pack
        return packer

    def server_takes_context(self) -> bool:
        """False until HELLO was answered: that command itself carries nothing."""
        hello = self.handshake_metadata or {}
        return any(name in hello for name in ("trace-context", b"trace-context"))
