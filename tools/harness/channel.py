# SPDX-License-Identifier: GPL-2.0-only
"""The host's end of the line to the agent: requests out, output and statuses in."""

from __future__ import annotations

import json
import select
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

Echo = Callable[[str], object]

CHUNK = 1 << 20


@dataclass
class Exchange:
    """A request, and what has come back for it so far."""

    id: int
    echo: Echo | None = None
    status: int | None = None
    reply: dict[str, Any] = field(default_factory=dict)
    chunks: list[tuple[int, bytes]] = field(default_factory=list)

    def bytes(self, *descriptors: int) -> bytes:
        """What was printed on these descriptors (1, 2 or both), as it came."""
        return b"".join(data for descriptor, data in self.chunks if descriptor in descriptors)


class Channel:
    """One connection to an agent."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over a socket that QEMU has the other end of."""
        self._connection = connection
        self._buffer = b""
        self._exchanges: dict[int, Exchange] = {}
        self._last = 0
        self.closed = False
        self.hello = Exchange(0)
        self._exchanges[0] = self.hello

    def request(self, do: str, *, echo: Echo | None = None, **fields: object) -> Exchange:
        """Send a request; its answer arrives while :meth:`poll` is called."""
        self._last += 1
        exchange = Exchange(self._last, echo)
        self._exchanges[exchange.id] = exchange
        self._send({"id": exchange.id, "do": do, **fields})
        return exchange

    def signal(self, exchange: Exchange, number: int) -> None:
        """Send a signal to a command that runs."""
        self._send({"id": exchange.id, "do": "signal", "number": number})

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.closed = True

    def poll(self, seconds: float) -> None:
        """Wait at most so long for something to arrive, and take it in."""
        if self.closed or not select.select([self._connection], [], [], seconds)[0]:
            return
        try:
            data = self._connection.recv(CHUNK)
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        exchange = self._exchanges[message["id"]]
        if "exit" in message:
            exchange.status = message["exit"]
            exchange.reply = message
            del self._exchanges[message["id"]]
            return
        data = message["data"].encode("latin-1")
        exchange.chunks.append((message["fd"], data))
        if exchange.echo is not None:
            exchange.echo(data.decode(errors="replace"))

    def close(self) -> None:
        """Close the connection: the agent powers the guest off."""
        self.closed = True
        self._connection.close()
