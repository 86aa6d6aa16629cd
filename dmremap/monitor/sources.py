# SPDX-License-Identifier: GPL-2.0-only
"""Where hints come from: udevd where it runs, the kernel's own socket where not.

Both are sockets that can overflow, and nothing is believed but that it may be
worth looking now.  Any error of a source means that hints may be missing: the
caller closes it, opens a new one and scans.
"""

import errno
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dmremap.dm._libdm import lib

UDEV_CONTROL = "/run/udev/control"

RECEIVE_BUFFER = 8 << 20
"""Bytes; a disk that dies takes thousands of events with it."""

_KERNEL_GROUP = 1
_DATAGRAM = 64 << 10


@dataclass(frozen=True, slots=True)
class Hint:
    """Something happened to a device-mapper device.

    kind: what the module says it was, empty for an event that is not its own.
    """

    name: str
    kind: str


class SourceError(Exception):
    """The source can no longer be trusted to deliver every event."""


class Source(Protocol):
    """A stream of hints behind a descriptor that can be polled."""

    name: str

    def fileno(self) -> int:
        """Return the descriptor to poll."""

    def read(self) -> Iterator[Hint]:
        """Yield the hints that are there, without waiting; SourceError if it broke."""

    def close(self) -> None:
        """Give the socket back."""


def hint_of(properties: Mapping[str, str]) -> Hint | None:
    """Turn an event's properties into a hint, None if it is none of ours."""
    if properties.get("SUBSYSTEM") != "block":
        return None
    kernel_name = properties.get("DEVNAME", "").removeprefix("/dev/")
    if not kernel_name.startswith("dm-"):
        return None
    return Hint(properties.get("DM_NAME", ""), properties.get("DM_REMAP_EVENT", ""))


class UdevSource:
    """Events as udevd passes them on, when it has finished its rules."""

    name = "udev"

    def __init__(self) -> None:
        """Connect; SourceError if udev cannot be reached."""
        import pyudev

        try:
            # 'udev' and not 'kernel': device nodes and links exist by then.
            # MonitorObserver is not used: it dies of POLLERR beside POLLIN.
            self._monitor: Any = pyudev.Monitor.from_netlink(pyudev.Context(), source="udev")
            self._monitor.filter_by("block")
            self._monitor.set_receive_buffer_size(RECEIVE_BUFFER)
            self._monitor.start()
        except OSError as error:
            raise SourceError(f"udev: {os.strerror(error.errno or 0)}") from error

    def fileno(self) -> int:
        """Return the monitor's descriptor."""
        return int(self._monitor.fileno())

    def read(self) -> Iterator[Hint]:
        """Yield the hints that are there."""
        try:
            while (device := self._monitor.poll(timeout=0)) is not None:
                if (hint := hint_of(device.properties)) is not None:
                    yield hint
        except OSError as error:
            raise SourceError(f"udev: {os.strerror(error.errno or 0)}") from error

    def close(self) -> None:
        """Drop the monitor; pyudev closes its socket with the last reference."""
        del self._monitor


class NetlinkSource:
    """Events straight from the kernel, for places without udevd."""

    name = "netlink"

    def __init__(self) -> None:
        """Bind to the kernel's group; SourceError if that fails."""
        # Costs half a second, so it is not at the top.
        from pyroute2.netlink.nlsocket import NetlinkSocket
        from pyroute2.netlink.uevent import UeventSocket

        self._socket: Any = UeventSocket()
        # pyroute2 0.9 has it in two parts, and this one has the descriptor.
        self._inner: Any = getattr(self._socket, "asyncore", self._socket)
        try:
            # UeventSocket's own bind() takes no groups before 0.9 but joins all there are.
            NetlinkSocket.bind(self._socket, groups=_KERNEL_GROUP)
            # Not earlier: an older bind() goes on with another socket where the first one fails.
            # SO_RCVBUF would be capped by rmem_max, and Python has no name for the other one.
            self._socket.setsockopt(socket.SOL_SOCKET, lib.SO_RCVBUFFORCE, RECEIVE_BUFFER)
        except (OSError, KeyError) as error:  # KeyError: an older one has found no address
            self._socket.close()
            raise SourceError(f"netlink: {getattr(error, 'strerror', error)}") from error

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return int(self._socket.fileno())

    def read(self) -> Iterator[Hint]:
        """Yield the hints that are there, from the kernel and from nobody else."""
        while True:
            try:
                data, (sender, _groups) = self._inner.recvfrom(_DATAGRAM, socket.MSG_DONTWAIT)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
                    return
                raise SourceError(f"netlink: {error.strerror}") from error
            # Port 0 is the kernel.  A process may send to this group too.
            if sender != 0:
                continue
            yield from self._hints(data)

    def _hints(self, data: bytes) -> Iterator[Hint]:
        try:
            messages = [*self._socket.marshal.parse(data)]
        except UnicodeDecodeError:  # newer ones leave out what is no UTF-8: a name may be that
            yield Hint("", "")
            return
        for message in messages:
            properties = {k: v for k, v in message.items() if isinstance(v, str)}
            if (hint := hint_of(properties)) is not None:
                yield hint

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def udevd_runs() -> bool:
    """Whether udevd is there to pass events on."""
    return os.path.exists(UDEV_CONTROL)


def open_source(choice: str = "auto") -> Source:
    """Open `udev`, `netlink`, or the one that fits (`auto`)."""
    if choice == "udev" or (choice == "auto" and udevd_runs()):
        return UdevSource()
    return NetlinkSource()
