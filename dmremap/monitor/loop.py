# SPDX-License-Identifier: GPL-2.0-only
"""The monitor: one thread, one poll, no state but the last scan.

It wakes for a hint, for device-mapper's own event counter, for a hook that
ended, for a signal, and for a slow timer, so that even with every event lost a
change is seen within `rescan` seconds.
"""

import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from dmremap import dm
from dmremap.errors import DmRemapError, KernelError, PermissionDenied
from dmremap.monitor.hooks import Hooks
from dmremap.monitor.scan import scan
from dmremap.monitor.sources import Source, SourceError, open_source
from dmremap.monitor.tracker import Event, SetSnapshot, compare

log = logging.getLogger(__name__)

NO_DEVICE_MAPPER = "DMR-E701"

_LONGEST = 86400
"""Seconds that poll() waits; it takes milliseconds, in 31 bits."""
_STOPPING = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Options:
    """How to follow.

    source: auto, udev or netlink.  rescan: seconds between scans without any
    hint.  count: stop after so many events.  once: stop after the first scan.
    """

    source: str = "auto"
    rescan: float = 60.0
    count: int | None = None
    once: bool = False


class _Stop:
    """SIGINT and SIGTERM as something to poll for."""

    def __init__(self) -> None:
        self.asked = 0
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._read

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 512)

    def _handle(self, _number: int, _frame: object) -> None:
        self.asked += 1

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Take the signals; the main thread alone may do that."""
        old_handlers = {number: signal.signal(number, self._handle) for number in _STOPPING}
        old_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in old_handlers.items():
                signal.signal(number, handler)
            os.close(self._read)
            os.close(self._write)


class Monitor:
    """Follows all sets until Options say that it is enough."""

    def __init__(self, options: Options, hooks: Hooks | None = None) -> None:
        """Keep what to do; `run` or `follow` does it."""
        self._options = options
        self._hooks = hooks
        self._source: Source | None = None
        self._poller: dm.EventPoller | None = None
        self._known: dict[str, SetSnapshot] | None = None
        self._hinted: dict[str, set[str]] = {}
        self._events = 0
        self._stop: _Stop | None = None

    def run(self, emit: Callable[[Event], None]) -> None:
        """Follow until a signal.  emit gets every event, once; errors are those of `follow`."""
        self._stop = _Stop()
        with self._stop.installed():
            for event in self.follow():
                emit(event)

    def follow(self) -> Generator[Event, None, None]:
        """Yield what happens.  PermissionDenied where the kernel may not be asked."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            # Before the first scan, so that nothing falls between the two.
            self._open()
            due = 0.0
            while not self._asked:
                now = time.monotonic()
                if self._listen() or now >= due:
                    self._open()
                    yield from self._look()
                    due = now + self._options.rescan
                if self._finished():
                    break
                self._step_hooks()
                self._wait(due)
            self._drain_hooks()

    @property
    def _asked(self) -> int:
        """How often a signal has asked for the end."""
        return self._stop.asked if self._stop else 0

    def _open(self) -> None:
        """Open what is not open: the source, and device-mapper's event counter."""
        if self._source is None:
            try:
                self._source = open_source(self._options.source)
                log.debug("hints come from %s", self._source.name)
            except SourceError as error:
                log.warning("no hints until the next scan: %s", error)
        if self._poller is None:
            try:
                self._poller = dm.EventPoller()
            except KernelError as error:
                log.debug("no device-mapper yet: %s", error)

    def _close(self) -> None:
        if self._hooks is not None:
            self._hooks.close()
        self._close_source()
        if self._poller is not None:
            self._poller.close()
            self._poller = None

    def _close_source(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def _listen(self) -> bool:
        """Take in the hints; True if there is a reason to scan."""
        wanted = False
        if self._source is not None:
            try:
                for hint in self._source.read():
                    self._hinted.setdefault(hint.name, set()).add(hint.kind)
                    wanted = True
            except SourceError as error:
                log.warning("events were lost, so everything is scanned: %s", error)
                self._close_source()
                wanted = True
        if self._poller is not None and self._poller.wait(0):
            wanted = True
        return wanted

    def _look(self) -> Iterator[Event]:
        """Scan, yield what changed and keep the new state."""
        try:
            if self._poller is not None:
                self._poller.arm()  # before the scan, or an event in between is lost
            new = scan()
        except PermissionDenied:
            raise
        except DmRemapError as error:
            if error.code != NO_DEVICE_MAPPER:
                # Not being able to read a state is not the same as its absence.
                log.warning("the sets cannot be read: %s", error)
                return
            new = {}
        hinted = {name: frozenset(kinds) for name, kinds in self._hinted.items()}
        self._hinted.clear()
        for event in compare(self._known or {}, new, first=self._known is None, hinted=hinted):
            if self._enough():
                break
            self._events += 1
            yield event
            if self._hooks is not None:
                self._hooks.submit(event)
        self._known = new

    def _enough(self) -> bool:
        return self._options.count is not None and self._events >= self._options.count

    def _finished(self) -> bool:
        return self._options.once or self._enough()

    def _wait(self, due: float) -> None:
        now = time.monotonic()
        timeout = max(0.0, due - now)
        poll = self._new_poll()
        for watched in (self._source, self._poller):
            if watched is not None:
                poll.register(watched.fileno(), select.POLLIN)
        if self._hooks is not None:
            for fd in self._hooks.filenos():
                poll.register(fd, select.POLLIN)
            if (first := self._hooks.next_step(now)) is not None:
                timeout = min(timeout, first)
        self._poll(poll, timeout)

    def _new_poll(self) -> select.poll:
        """Return what waits for the signals, if they are taken."""
        poll = select.poll()
        if self._stop:
            poll.register(self._stop.fileno(), select.POLLIN)
        return poll

    def _poll(self, poll: select.poll, timeout: float) -> None:
        """Wait until something happens, or for so many seconds."""
        poll.poll(int(min(timeout, _LONGEST) * 1000) + 1)
        if self._stop:
            self._stop.drain()

    def _step_hooks(self, *, draining: bool = False) -> None:
        if self._hooks is not None:
            self._hooks.step(time.monotonic(), draining=draining)

    def _drain_hooks(self) -> None:
        """Let the hooks of what was reported end.  One more signal kills them."""
        asked = self._asked
        while self._hooks is not None and self._asked == asked:
            self._step_hooks(draining=True)
            if self._hooks.idle:
                return
            self._wait_for_hooks()

    def _wait_for_hooks(self) -> None:
        poll = self._new_poll()
        timeout = 1.0
        if self._hooks is not None:
            for fd in self._hooks.filenos():
                poll.register(fd, select.POLLIN)
            if (first := self._hooks.next_step(time.monotonic())) is not None:
                timeout = first
        self._poll(poll, timeout)
