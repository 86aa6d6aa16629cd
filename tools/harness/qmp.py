# SPDX-License-Identifier: GPL-2.0-only
"""A small client of QEMU's machine protocol (QMP): commands only, events are dropped."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError

if TYPE_CHECKING:
    import socket


class QmpError(HarnessError):
    """QEMU refused a command, or is gone."""


class Qmp:
    """One connection, over a socket that QEMU has the other end of."""

    def __init__(self, connection: socket.socket, *, timeout: float = 20.0) -> None:
        """Take over a socket; ``timeout`` is in seconds, for each answer."""
        connection.settimeout(timeout)
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._receive()  # the greeting
        self.execute("qmp_capabilities")

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except OSError as error:
            raise QmpError(f"QMP: {error}") from error
        if not line:
            raise QmpError("QMP: the connection is closed")
        message: dict[str, Any] = json.loads(line)
        return message

    def execute(self, command: str, /, **arguments: object) -> Any:
        """Run a command and return its answer; ``_`` in an argument's name stands for ``-``."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        request = json.dumps({"execute": command, "arguments": named})
        try:
            self._connection.sendall(request.encode() + b"\n")
        except OSError as error:
            raise QmpError(f"QMP: {command}: {error}") from error
        while True:
            message = self._receive()
            if "error" in message:
                raise QmpError(f"QMP: {command}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]
