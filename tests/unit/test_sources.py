# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own socket, in every version of pyroute2: what it joins and how it is read.

That the kernel's events arrive is tests/guest/test_monitor.py's.
"""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from dmremap.monitor.sources import RECEIVE_BUFFER, Hint, NetlinkSource, SourceError

EVENT = b"change@/x\0SUBSYSTEM=block\0DEVNAME=dm-0\0DM_NAME=%s\0DM_REMAP_EVENT=mode\0"
KERNEL = 1
UEVENTS = 15


@pytest.fixture
def source() -> Iterator[NetlinkSource]:
    one = NetlinkSource()
    yield one
    one.close()


def check(source: NetlinkSource) -> None:
    same = socket.socket(fileno=source.fileno())
    try:
        _, groups = same.getsockname()
        assert groups == KERNEL
        # The kernel doubles it, for what it needs itself.
        assert same.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * RECEIVE_BUFFER
    finally:
        same.detach()


def test_it_joins_the_kernels_group_only(source: NetlinkSource) -> None:
    check(source)


def test_two_in_one_process(source: NetlinkSource) -> None:
    other = NetlinkSource()
    check(other)
    other.close()
    check(source)


def test_what_a_process_sends_is_no_hint(source: NetlinkSource) -> None:
    assert list(source.read()) == [], "a device has changed meanwhile"
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, UEVENTS) as sender:
        sender.sendto(EVENT % b"forged", (0, KERNEL))
    assert list(source.read()) == []


class Received:
    """Datagrams as if the kernel had sent them; then one error."""

    def __init__(self, *data: bytes, error: OSError) -> None:
        self.data, self.error = list(data), error

    def recvfrom(self, size: int, flags: int) -> tuple[bytes, tuple[int, int]]:
        assert size >= 8192
        assert flags == socket.MSG_DONTWAIT
        if not self.data:
            raise self.error
        return self.data.pop(0), (0, KERNEL)


@pytest.mark.parametrize(
    ("data", "hints"),
    [
        ((EVENT % b"a", EVENT % b"b"), [Hint("a", "mode"), Hint("b", "mode")]),
        ((EVENT % b"a=b",), [Hint("a=b", "mode")]),
        ((b"add@/x\0SUBSYSTEM=block\0DEVNAME=sda\0",), []),
        ((b"add@/x\0SUBSYSTEM=net\0DEVNAME=dm-0\0",), []),
    ],
)
def test_what_the_kernel_sends(
    source: NetlinkSource, data: tuple[bytes, ...], hints: list[Hint]
) -> None:
    source._inner = Received(*data, error=BlockingIOError(11, "Try again"))
    assert list(source.read()) == hints


def test_a_name_that_is_no_text_is_still_a_hint(source: NetlinkSource) -> None:
    source._inner = Received(EVENT % b"a\xff", error=BlockingIOError(11, "Try again"))
    (hint,) = source.read()
    assert hint.name == ""


def test_what_is_lost_breaks_it(source: NetlinkSource) -> None:
    source._inner = Received(EVENT % b"a", error=OSError(105, "No buffer space available"))
    found = source.read()
    assert next(found) == Hint("a", "mode")
    with pytest.raises(SourceError, match="No buffer space"):
        next(found)


@pytest.mark.parametrize(
    "error", [OSError(1, "Operation not permitted"), KeyError("no free address available")]
)
def test_a_socket_that_cannot_be_bound(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyroute2.netlink.nlsocket import NetlinkSocket

    def failing(*_: Any, **_words: Any) -> None:
        raise error

    monkeypatch.setattr(NetlinkSocket, "bind", failing)
    with pytest.raises(SourceError, match=r"netlink: .*(permitted|address)"):
        NetlinkSource()
