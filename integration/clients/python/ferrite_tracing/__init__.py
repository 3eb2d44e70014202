"""Joins redis-py's commands to the caller's OpenTelemetry trace, if the server understands it.

    redis.Redis(connection_pool=redis.ConnectionPool(connection_class=TracingConnection, host=..., ...))
    redis.asyncio.Redis(connection_pool=redis.asyncio.ConnectionPool(connection_class=AsyncTracingConnection, ...))

Ferrite takes the trace context from a RESP attribute in front of a command and says so in HELLO's reply (`trace-context`).
A server that does not say so (stock Redis does not know attributes on input) is sent plain commands.
"""

from __future__ import annotations

import redis
import redis.asyncio
from opentelemetry import propagate

__all__ = ["AsyncTracingConnection", "TracingConnection", "advertises_context", "context_attribute"]

# What of the propagators' headers a command may carry.
CARRIED = ("traceparent", "tracestate", "baggage")


def context_attribute() -> bytes:
    """The current context as a RESP attribute; empty outside of a span."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    pairs = [(name.encode(), headers[name].encode()) for name in CARRIED if headers.get(name)]
    if not any(name == b"traceparent" for name, _ in pairs):
        return b""
    bulks = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for pair in pairs for part in pair)
    return b"|%d\r\n%s" % (len(pairs), bulks)


def advertises_context(hello: object) -> bool:
    """Whether a reply to HELLO, a map or RESP2's flat list of pairs, says that the server takes contexts."""
    names = list(hello) if isinstance(hello, dict) else hello[::2] if isinstance(hello, list) else []
    return "trace-context" in names or b"trace-context" in names


class TracingConnection(redis.Connection):
    """A connection whose commands carry the context of the span in which they are sent."""

    _takes_context = False

    def server_takes_context(self) -> bool:
        """False until the server was asked: what connects carries nothing."""
        return self._takes_context

    def on_connect_check_health(self, check_health: bool = True) -> None:
        self._takes_context = False
        super().on_connect_check_health(check_health)
        self.send_command("HELLO", check_health=False)
        try:
            self._takes_context = advertises_context(self.read_response())
        except redis.ResponseError:
            pass  # Redis before version 6

    def _construct_command_packer(self, packer):
        packer = super()._construct_command_packer(packer)
        plain_pack = packer.pack

        def pack(*args):
            chunks = plain_pack(*args)
            attribute = context_attribute() if self._takes_context else b""
            return [attribute, *chunks] if attribute else chunks

        packer.pack = pack
        return packer


class AsyncTracingConnection(redis.asyncio.Connection):
    """The same for `redis.asyncio`."""

    _takes_context = False

    def server_takes_context(self) -> bool:
        """False until the server was asked: what connects carries nothing."""
        return self._takes_context

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        self._takes_context = False
        await super().on_connect_check_health(check_health)
        await self.send_command("HELLO", check_health=False)
        try:
            self._takes_context = advertises_context(await self.read_response())
        except redis.ResponseError:
            pass  # Redis before version 6

    def pack_command(self, *args):
        chunks = super().pack_command(*args)
        attribute = context_attribute() if self._takes_context else b""
        return [attribute, *chunks] if attribute else chunks
