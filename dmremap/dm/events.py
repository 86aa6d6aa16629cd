# SPDX-License-Identifier: GPL-2.0-only
"""Device-mapper events on a file descriptor.

The order that loses nothing is: arm, look at every device's event number, wait. An event between
arming and waiting makes the wait return at once.
"""

import contextlib
import os
import select
from types import TracebackType
from typing import Self

from dmremap.dm._libdm import lib
from dmremap.errors import KernelError, PermissionDenied

CONTROL = "/dev/mapper/control"


class EventPoller:
    """The control node, opened for polling. Also fit for an event loop's add_reader()."""

    def __init__(self, path: str = CONTROL) -> None:
        """Open the control node and arm it."""
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except PermissionError:
            raise PermissionDenied("DMR-E601", f"{path} can be opened by root only") from None
        except OSError as err:
            raise KernelError("DMR-E701", f"{path} cannot be opened: {err.strerror}") from None
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, self._fd)
            self.arm()
            stack.pop_all()

    def fileno(self) -> int:
        """Return the descriptor; it becomes readable at the first event after arm()."""
        return self._fd

    def arm(self) -> None:
        """Forget the events so far."""
        err = lib.dmr_arm_poll(self._fd)
        if err:
            raise KernelError("DMR-E705", f"device-mapper cannot report events: {os.strerror(err)}")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for an event; False when the time is over."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(None if timeout is None else max(0, round(timeout * 1000))))

    def close(self) -> None:
        """Close the control node."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        """Return the poller."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the control node."""
        self.close()
